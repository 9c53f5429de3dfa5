"""Which column means what: as told, or guessed from usual names and from what stands in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from shopauto_pipelines.predictions.transactions import names
from shopauto_pipelines.predictions.transactions.files import File, TransactionsError
from shopauto_pipelines.predictions.transactions.values import Values
from shopauto_pipelines.sources.expressions import nearest, plain


@dataclass(frozen=True)
class Columns:
    """Which column of the file means what; ``None``: to be guessed.

    The amount is in major units (12.5 for 12 euros 50), in one column or as ``quantity`` × ``price``.
    """

    customer: str | None = None
    time: str | None = None
    amount: str | None = None
    quantity: str | None = None
    price: str | None = None

    def __str__(self) -> str:
        amount = f"amount = `{self.amount}`" if self.amount else f"amount = `{self.quantity}` × `{self.price}`"
        return f"customer = `{self.customer}`, time = `{self.time}`, {amount}"


def choose(values: Values, asked: Columns) -> tuple[Columns, tuple[str, ...]]:
    """The columns, and the roles that were guessed; raises :class:`TransactionsError` where that cannot be done."""
    given = Columns(**{f.name: named(values.file, f.name, getattr(asked, f.name)) for f in fields(Columns)})
    if given.amount and (given.quantity or given.price):
        raise TransactionsError("give --amount, or --quantity and --price, not both")
    if bool(given.quantity) != bool(given.price):
        raise TransactionsError("--quantity and --price go together: the amount is one times the other")
    guessed = []
    customer, time = given.customer, given.time
    if not customer:
        guessed.append("customer")
        customer = _guess(values, "customer", names.CUSTOMER, lambda name: True)
    if not time:
        guessed.append("time")
        time = _guess(values, "time", names.TIME, values.is_time, fallback=values.only_dates())
    chosen = replace(given, customer=customer, time=time)
    if not (given.amount or given.price):
        guessed.append("amount")
        chosen = _guess_amount(values, chosen)
    return chosen, tuple(guessed)


def named(file: File, role: str, name: str | None) -> str | None:
    """The column that is called so, be it in other letters; raises :class:`TransactionsError` with the nearest."""
    if name is None:
        return None
    exact = [column for column in file.types if column == name]
    alike = exact or [column for column in file.types if plain(column) == plain(name)]
    if len(alike) != 1:
        hint = nearest(name, list(file.types))
        more = f" {file.listed()}" if hint.endswith("?") else ""  # else it lists them all
        raise TransactionsError(f"--{role}: there is no column `{name}`; {hint}{more}")
    return alike[0]


def _guess(
    values: Values, role: str, groups: Sequence[str], fits: Callable[[str], bool], fallback: Sequence[str] = ()
) -> str:
    found = _candidates(values.file, groups, fits) or list(fallback)
    if len(found) == 1:
        return found[0]
    which = "no column's name says" if not found else "either " + " or ".join(f"`{n}`" for n in found) + " could say"
    what = {"customer": "who bought", "time": "when", "amount": "for how much"}[role]
    more = "; or --quantity and --price" if role == "amount" else ""
    raise TransactionsError(f"{values.file.shown}: {which} {what}: give --{role} COLUMN{more}. {values.file.listed()}")


def _candidates(file: File, groups: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """The columns of the first group with one whose values fit."""
    for group in groups:
        if found := [name for name in file.types if plain(name) in group.split() and fits(name)]:
            return found
    return []


def _guess_amount(values: Values, chosen: Columns) -> Columns:
    quantity, price = (_candidates(values.file, names, values.is_number) for names in (names.QUANTITY, names.PRICE))
    found = _candidates(values.file, names.AMOUNT, values.is_number)
    if [plain(name) for name in found] == ["amount"] and price and not quantity:
        found += price  # beside a price, an `amount` may be a count
    if found:
        return replace(chosen, amount=_guess(values, "amount", (" ".join(map(plain, found)),), values.is_number))
    if len(quantity) == 1 and len(price) == 1:
        return replace(chosen, quantity=quantity[0], price=price[0])
    if len(price) == 1 and not quantity:
        return replace(chosen, amount=price[0])
    return replace(chosen, amount=_guess(values, "amount", (), values.is_number))
