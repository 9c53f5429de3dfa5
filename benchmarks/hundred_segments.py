"""A hundred segments over the people of ``event_shop``, each said twice: in the language of segments, and in SQL by hand.

The SQL reads the lake's tables under the names of :data:`VIEWS`. It owes nothing to how the project translates conditions.
Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.declaration import SegmentDeclaration

#: The tables that the SQL reads, by the names it knows them under.
VIEWS: dict[str, Table] = {
    "people": features.CUSTOMER_360,
    "scores": SCORES,
    "accounts": IDENTITIES,
    "activity": features.DAILY_ACTIVITY,
    "products": features.DAILY_PRODUCTS,
    "messages": features.DAILY_MESSAGES,
    "forms": features.DAILY_FORMS,
}

#: What is summed of a day's row for an event: its rollup, and the number in it.
_COUNTED = {
    "ordered": ("activity", "(orders > 0)::int"),
    "visited": ("activity", "visits"),
    "searched": ("activity", "searches"),
    "asked_for_help": ("activity", "tickets_opened"),
    "bought": ("products", "(orders > 0)::int"),
    "viewed": ("products", "views"),
    "carted": ("products", "carted"),
    "mailed": ("messages", "sent"),
    "opened": ("messages", "opens"),
    "clicked": ("messages", "clicks"),
    "submitted": ("forms", "submissions"),
}


@dataclass(frozen=True)
class Counted:
    """How often something happened: in both languages."""

    event: str
    where: str = ""
    within: int | None = None

    def ours(self, at_least: int) -> str:
        """The question in the language of segments."""
        options = [
            f"'{self.event}'",
            *([self.where] if self.where else []),
            f"at_least => {at_least}",
        ]
        return f"did({', '.join(options + ([f'within => {self.within}'] if self.within else []))})"


@dataclass(frozen=True)
class Asked:
    """A segment: its condition with ``{0}``, ``{1}`` for each of ``counts`` (with its least number), or in other words by hand.

    ``by_hand`` is the same condition on the columns of people, scores and the names of the sums; by default what is written for
    ours. ``of`` are other segments, as ``{a}`` and ``{b}``.
    """

    name: str
    where: str
    counts: Sequence[tuple[Counted, int]] = ()
    of: Sequence[str] = field(default=())
    each: str | None = None

    @property
    def declaration(self) -> SegmentDeclaration:
        """The segment as declared."""
        others = {letter: f"in_segment('{name}')" for letter, name in zip("ab", self.of, strict=False)}
        where = self.where.format(*(count.ours(least) for count, least in self.counts), **others)
        return SegmentDeclaration(name=self.name, description=f"People of {self.name}.", where=where, each=self.each)


def asked() -> list[Asked]:
    """The hundred."""
    return [*_fans(), *_deeds(), *_people(), *_others()]


def _fans() -> Iterator[Asked]:
    """36 about categories."""
    for n in range(12):
        here, rival = f"category = 'Category {n}'", f"category = 'Category {n + 12}'"
        bought, seen = Counted("bought", here, 365), Counted("viewed", here, 90)
        yield Asked(
            f"fans_{n}", "({0} or {1}) and not {2}", [(bought, 1), (seen, 3), (Counted("bought", rival, 365), 1)]
        )
        yield Asked(f"buyers_{n}", "{0} and orders_365d >= 2", [(Counted("bought", here, 180), 2)])
        yield Asked(
            f"left_{n}", "{0} and not {1}", [(Counted("carted", here, 30), 1), (Counted("bought", here, 30), 1)]
        )


def _deeds() -> Iterator[Asked]:
    """24 about messages, visits, orders and forms."""
    for n in range(6):
        name = f"campaign = 'campaign_{n}'"
        yield Asked(f"clicked_{n}", "{0}", [(Counted("clicked", name, 60), 1)])
        days = 30 * (n + 1)
        yield Asked(
            f"deaf_{n}", "{0} and not {1}", [(Counted("mailed", "", days), n + 2), (Counted("opened", "", days), 1)]
        )
    for n, days in enumerate((7, 30, 60, 120)):
        yield Asked(f"visitors_{n}", "{0} and recency_days > 30", [(Counted("visited", "", days), n + 1)])
        yield Asked(
            f"searchers_{n}", "{0} or {1}", [(Counted("searched", "", days), 2), (Counted("submitted", "", days), 1)]
        )
    yield Asked(
        "coupons",
        "{0} and not {1}",
        [(Counted("ordered", "with_coupon", 365), 2), (Counted("ordered", "not with_coupon", 365), 1)],
    )
    yield Asked("large_orders", "{0}", [(Counted("ordered", "amount_cents >= 15000"), 2)])
    yield Asked("asking", "{0} and churn_factor > 1", [(Counted("asked_for_help", "", 90), 1)])
    yield Asked("faithful", "{0} and {1}", [(Counted("ordered", "", 90), 1), (Counted("ordered"), 4)])


def _people() -> Iterator[Asked]:
    """32 about columns."""
    for recency in range(1, 5):
        for frequency in range(1, 4):
            yield Asked(
                f"rfm_{recency}_{frequency}",
                f"rfm_recency = {recency} and rfm_frequency = {frequency} and rfm_monetary >= 2",
            )
    for n, country in enumerate(("DE", "FR", "BR", "RO", "RS", "US")):
        yield Asked(
            f"late_{country.lower()}", f"country = '{country}' and recency_days between {20 * n} and {60 * n + 90}"
        )
    for n in range(6):
        yield Asked(f"risk_{n}", f"churn_probability >= 0.{n + 3} and value_cents_365d > {4000 * n} and orders >= 2")
    for n in range(4):
        yield Asked(
            f"top_{n}", f"revenue_percentile >= {80 + 5 * n} and coalesce(churn_factor, recency_days / 90) <= 2"
        )
    yield Asked("birthday", "days_to_birthday <= 7")
    yield Asked("expected", "days_until(next_order_on) between 0 and 14 and email_consent = 'opted_in'")
    yield Asked("of_category", "orders_365d >= 2", each="favourite_category")
    yield Asked("of_gender", "gender is not null and visits_90d > 0", each="gender")


def _others() -> Iterator[Asked]:
    """8 made of other segments."""
    for n in range(4):
        yield Asked(f"best_fans_{n}", "{a} and {b}", of=(f"fans_{n}", f"top_{n}"))
        yield Asked(f"quiet_fans_{n}", "{a} and not {b}", of=(f"fans_{n + 4}", f"visitors_{n}"))


def by_hand(segments: Sequence[Asked], as_of: date) -> str:
    """A query for ``segment`` and ``customer_id`` of all members, which reads what these segments need and each rollup once."""
    counts = list(dict.fromkeys(count for segment in segments for count, _least in segment.counts))
    sums = {count: f"times_{n}" for n, count in enumerate(counts)}
    ctes, joins = [], []
    for view in dict.fromkeys(_COUNTED[count.event][0] for count in counts):
        mine = [count for count in counts if _COUNTED[count.event][0] == view]
        aggregates = ", ".join(
            f"sum(case when {_filter(c, as_of)} then {_COUNTED[c.event][1]} else 0 end) as {sums[c]}" for c in mine
        )
        first = None if any(c.within is None for c in mine) else max(c.within or 0 for c in mine)
        since = f"where day > date '{as_of}' - {first}" if first else ""
        added = ", ".join(f"sum({sums[c]}) as {sums[c]}" for c in mine)
        ctes.append(
            f"""{view}_of as (
                select coalesce(accounts.customer_id, shop_customer_id) as customer_id, {added}
                from (select shop_customer_id, {aggregates} from {view} {since} group by shop_customer_id)
                left join accounts using (shop_customer_id) group by 1)"""
        )
        joins.append(f"left join {view}_of using (customer_id)")
    text = " ".join(segment.where for segment in segments)
    if any(name in text for name in ("churn_probability", "value_cents_365d", "next_order_on")):
        joins.append("left join scores using (customer_id)")
    made = "".join(f", {sql} as {name}" for name, sql in _computed(as_of).items() if name in text)
    plain = [segment for segment in segments if not segment.of]
    texts = {
        s.name: _member(s, s.where.format(*(f"coalesce({sums[c]}, 0) >= {n}" for c, n in s.counts))) for s in plain
    }
    texts |= {
        s.name: _member(s, s.where.format(**{x: f"(in_{o} is not null)" for x, o in zip("ab", s.of, strict=False)}))
        for s in segments
        if s.of
    }
    ctes.append(f"known as (select * {made} from people {' '.join(joins)})")
    ctes.append(f"plain as (select *, {', '.join(f'{texts[s.name]} as in_{s.name}' for s in plain)} from known)")
    lists = ", ".join(texts[s.name] if s.of else f"in_{s.name}" for s in segments)
    return f"""with {", ".join(ctes)}, listed as (select customer_id, unnest([{lists}]) as segment from plain)
        select segment, customer_id from listed where segment is not null"""


def _filter(count: Counted, as_of: date) -> str:
    names = {"with_coupon": "coupon_orders > 0", "amount_cents": "revenue_cents"}
    where = count.where
    for name, column in names.items():
        where = where.replace(name, f"({column})" if name == "with_coupon" else column)
    days = f"day > date '{as_of}' - {count.within}" if count.within else "true"
    return f"{days} and {where}" if where else days


def _member(segment: Asked, condition: str) -> str:
    condition = condition.replace("days_until(next_order_on)", "(next_order_on - as_of)")
    if segment.each:
        return f"case when ({condition}) and {segment.each} <> '' then '{segment.name}:' || {segment.each} end"
    return f"case when {condition} then '{segment.name}' end"


def _computed(as_of: date) -> dict[str, str]:
    """Columns that are computed over everybody."""

    def fifth(value: str) -> str:
        ranked = f"(orders > 0 and {value} is not null)"
        smaller = f"rank() over (partition by {ranked} order by {value}) - 1"
        return f"case when {ranked} then 1 + 5 * ({smaller}) // count(*) over (partition by {ranked}) end"

    in_month = "case when month(birthday) = 2 then least(day(birthday), 28) else day(birthday) end"
    birthday = f"make_date({{}}, month(birthday), {in_month})"
    this, following = birthday.format(as_of.year), birthday.format(as_of.year + 1)
    return {
        "rfm_recency": fifth("-recency_days"),
        "rfm_frequency": fifth("orders"),
        "rfm_monetary": fifth("(revenue_cents - refund_cents)"),
        "revenue_percentile": "case when revenue_cents_365d > 0 then round(100 * percent_rank() over "
        "(partition by revenue_cents_365d > 0 order by revenue_cents_365d), 6) end",
        "days_to_birthday": f"(case when {this} >= date '{as_of}' then {this} else {following} end) - date '{as_of}'",
    }
