"""What ``did(…)`` can ask about: the events, their columns, and how often they happened to each person.

Events are counted from the daily rollups of the features room, all questions to one rollup in one pass over it. What a
question looks like in SQL is the business of ``language``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from operator import attrgetter
from typing import TypeAlias, overload

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features import tables
from shopauto_pipelines.platform.tables import Column, Table

#: A day, known now or when the expression is run.
Day: TypeAlias = date | ir.DateValue

#: Most days that ``within`` may look back.
LONGEST = 36_500


#: A column of an event, and how a row of the rollup says it.
_Value = tuple[Column, Callable[[ir.Table], ir.Value]]


@dataclass(frozen=True)
class Event:
    """Something people do: the rollup it is counted from, how often a row of it says it happened, and its columns.

    ``times`` is a number, or a truth: happened once. That is told of a person's day as a whole, see :func:`_of_several`.
    """

    name: str
    description: str
    rollup: Table
    times: Callable[[ir.Table], ir.IntegerValue | ir.BooleanValue]
    values: Mapping[str, _Value] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Column]:
        """The columns that a filter may name."""
        return {name: column for name, (column, _make) in self.values.items()}


def _own(table: Table, *names: str) -> dict[str, _Value]:
    """Columns of the rollup as they are."""
    return {name: (table.column(name), attrgetter(name)) for name in names}


def _once(column: str) -> Callable[[ir.Table], ir.BooleanValue]:
    return lambda rows: rows[column] > 0


def _made(name: str, kind: str, description: str, make: Callable[[ir.Table], ir.Value]) -> dict[str, _Value]:
    return {name: (Column(name, kind, description), make)}


_ACTIVITY, _PRODUCTS = tables.DAILY_ACTIVITY, tables.DAILY_PRODUCTS
_MESSAGES, _FORMS = tables.DAILY_MESSAGES, tables.DAILY_FORMS
_PRODUCT = _own(_PRODUCTS, "product_id", "category")
_MESSAGE = _own(_MESSAGES, "campaign", "channel")

#: Every event, by name. Purchases are by the day, as everywhere: a person's orders of one day count once, with their sum,
#: and so does a product that was bought twice on it. Everything else counts as often as it happened.
EVENTS: Mapping[str, Event] = {
    event.name: event
    for event in (
        Event(
            "ordered",
            "ordered on a day: its orders count once",
            _ACTIVITY,
            _once("orders"),
            _made("amount_cents", "int64", "totals of the day's orders, minor units", attrgetter("revenue_cents"))
            | _made("with_coupon", "boolean", "an order used a coupon", lambda rows: rows.coupon_orders > 0),
        ),
        Event(
            "bought",
            "bought a product on a day",
            _PRODUCTS,
            _once("orders"),
            _PRODUCT
            | _own(_PRODUCTS, "quantity")
            | _made("amount_cents", "int64", "paid for it on the day, minor units", attrgetter("revenue_cents")),
        ),
        Event("viewed", "saw a product's page", _PRODUCTS, attrgetter("views"), _PRODUCT),
        Event("carted", "put a product into a cart", _PRODUCTS, attrgetter("carted"), _PRODUCT),
        Event("visited", "visited the shop", _ACTIVITY, attrgetter("visits")),
        Event("searched", "searched the shop", _ACTIVITY, attrgetter("searches")),
        Event("refunded", "got money back for a line of an order", _ACTIVITY, attrgetter("refunds")),
        Event("mailed", "was sent a message", _MESSAGES, attrgetter("sent"), _MESSAGE),
        Event("opened", "opened a message; machines do not count", _MESSAGES, attrgetter("opens"), _MESSAGE),
        Event("clicked", "clicked in a message", _MESSAGES, attrgetter("clicks"), _MESSAGE),
        Event("asked_for_help", "opened a ticket", _ACTIVITY, attrgetter("tickets_opened")),
        Event("submitted", "filled in a form", _FORMS, attrgetter("submissions"), _own(_FORMS, "form")),
    )
}


@dataclass(frozen=True)
class Did:
    """A question: has ``event`` happened ``at_least`` so often ``within`` so many days (``None``: ever), where ``filter``?

    ``filter`` is SQL over the event's columns, empty for every such event; ``when`` computes it on rows of the rollup.
    ``sql`` is the whole question as written.
    """

    event: str
    filter: str
    at_least: int
    within: int | None
    sql: str
    when: Callable[[ir.Table, Day], ir.BooleanValue] | None = field(compare=False, repr=False)

    @property
    def column(self) -> str:
        """Name of the column that counts it: the same for questions that differ in ``at_least`` alone."""
        where = f" where {self.filter}" if self.filter else ""
        name = f"{self.event}{where}" + (f" within {self.within} days" if self.within is not None else " ever")
        # Engines take names that differ in capitals alone for the same.
        return name if name == name.lower() else f"{name} #{hashlib.sha256(name.encode()).hexdigest()[:12]}"

    @property
    def rollup(self) -> Table:
        """The table that is read."""
        return EVENTS[self.event].rollup

    def count(self, rows: ir.Table, as_of: Day) -> ir.IntegerScalar:
        """How often it happened according to ``rows``, of the rollup with its ``day``."""
        conditions = []
        if self.within is not None:
            conditions.append(rows.day >= first_day(self.within, as_of))
        if self.when is not None:
            conditions.append(self.when(rows, as_of))
        times = EVENTS[self.event].times(rows)
        if isinstance(times, ir.BooleanValue):
            # DuckDB takes a quarter less time and memory for it than for a sum of ones and zeros.
            return ibis.ifelse(ibis.and_(times, *conditions), 1, ibis.null("int64")).count()
        return (ibis.and_(*conditions).ifelse(times, 0) if conditions else times).sum()


@overload
def first_day(within: int, as_of: date) -> date: ...
@overload
def first_day(within: int, as_of: ir.DateValue) -> ir.DateValue: ...
def first_day(within: int, as_of: Day) -> Day:
    """The first of the last so many days, which end with ``as_of``."""
    if isinstance(as_of, date):
        return as_of - timedelta(days=within - 1)
    return (as_of - ibis.interval(days=within - 1)).cast("date")


def rollups(asked: Iterable[Did]) -> dict[Table, int | None]:
    """The rollups that questions need, each with the most days that are asked for; ``None`` where all are."""
    found: dict[Table, int | None] = {}
    for did in asked:
        within, known = did.within, found.get(did.rollup, did.within)
        found[did.rollup] = None if within is None or known is None else max(within, known)
    return dict(sorted(found.items(), key=lambda item: item[0].name))


def counts(asked: Iterable[Did], rows: Mapping[str, ir.Table], identities: ir.Table, as_of: Day) -> Iterator[ir.Table]:
    """For each rollup one row per person seen in it: ``customer_id`` and a column per question, how often it happened.

    ``rows`` holds rollups with their ``day`` by table name; days after ``as_of`` do not count. A shop id that is missing in
    ``identities`` is a person of its own. Each rollup is summed by shop id before persons are looked up, in one pass; the few
    people with several shop ids are counted apart where the days of these have to be put together first.
    """
    questions = {did.column: did for did in asked}
    persons = identities.select(account=_.shop_customer_id, person=_.customer_id)
    for rollup, within in rollups(questions.values()).items():
        days = rows[rollup.name]
        days = days.filter(days.day <= as_of)
        days = days if within is None else days.filter(days.day >= first_day(within, as_of))
        here = [questions[name] for name in sorted(questions) if questions[name].rollup == rollup]
        summed = days.group_by("shop_customer_id").aggregate(**{did.column: did.count(days, as_of) for did in here})
        known = summed.left_join(persons, summed.shop_customer_id == persons.account)
        counted = known.group_by(customer_id=ibis.coalesce(known.person, known.shop_customer_id)).aggregate(
            **{did.column: known[did.column].sum() for did in here}
        )
        if any(isinstance(EVENTS[did.event].times(days), ir.BooleanValue) for did in here):
            several = identities.group_by("customer_id").aggregate(accounts=_.count()).filter(_.accounts > 1)
            days = _of_several(days, identities.semi_join(several, "customer_id"), rollup)
            apart = days.group_by("customer_id").aggregate(**{did.column: did.count(days, as_of) for did in here})
            counted = counted.anti_join(several, "customer_id").union(apart)
        yield counted


def _of_several(days: ir.Table, persons: ir.Table, rollup: Table) -> ir.Table:
    """Rows of the rollup by person and day rather than by shop id and day: what ``persons`` did on it, by whichever id.

    Whoever bought a product with two shop ids on one day has bought it once, for the sum.
    """
    added = [name for name, kind in rollup.schema.items() if kind.is_integer()]
    key = [name for name in rollup.schema if name not in (*added, "shop_customer_id")]
    theirs = days.inner_join(persons.select("shop_customer_id", "customer_id"), "shop_customer_id")
    return theirs.group_by("customer_id", "day", *key).aggregate(**{name: theirs[name].sum() for name in added})
