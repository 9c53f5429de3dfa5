"""Who was triggered when, as of a day: rows ``customer_id``, ``occasion``, ``triggered_on``, one per occasion.

An occasion is what a message is about; nobody gets a step twice for the same one. Triggers about something tell it in
``details``, JSON without private data. Whether anybody gets a message at all is the planner's business. Carts that were left
have triggers of their own: :mod:`.pauses`.

What happens later than the day changes nothing, and no trigger remembers anything: each is read off what the tables say
of the days on which a step may still be due. Each is a statement that is compiled once for all days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple, TypeAlias

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.campaigns.declaration import Campaign, Ordered, Trigger
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY, DAILY_FORMS, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import LakeTable
from shopauto_pipelines.platform.prepared import Prepared, Rows, kept, unseen
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations.tables import REPLENISHMENT
from shopauto_pipelines.segments.membership import members
from shopauto_pipelines.segments.prepared import getvariable
from shopauto_pipelines.segments.stays import earlier_names, under_names
from shopauto_pipelines.segments.tables import CHANGES, DECLARED

#: A day: itself, or an expression that stands for it.
Day: TypeAlias = date | ir.DateValue

#: Names of a statement's variables, and of what it knows its tables by.
_START, _AS_OF = "triggered_from", "triggered_until"
_OF_DAYS = "trigger_days"


class Reading(NamedTuple):
    """How much of a table a trigger reads: as of the day, or ``lately``, with so many ``earlier`` days."""

    table: Table
    lately: bool = False
    earlier: int = 0


@dataclass(frozen=True)
class Known:
    """What a trigger is told: the rows it reads, by table, and the days on which a step may still be due.

    ``days`` says how many these are before ``as_of``, ``broadcasts`` on which of them everybody is triggered
    (``triggered_on``).
    """

    rows: Mapping[str, ir.Table]
    broadcasts: ir.Table
    days: int
    start: Day
    as_of: Day

    def __getitem__(self, table: Table) -> ir.Table:
        """The rows of a table."""
        return self.rows[table.name]

    def of_people(self, table: Table) -> ir.Table:
        """The table's rows with the ``customer_id`` that their shop id, or the person of their day, belongs to as of the day."""
        people = self[IDENTITIES].select("shop_customer_id", person="customer_id")
        rows = self[table]
        if "customer_id" in rows.columns:
            rows = rows.rename(shop_customer_id="customer_id")
        known = rows.filter(_.shop_customer_id.notnull()).left_join(people, "shop_customer_id")
        return known.mutate(customer_id=ibis.coalesce(_.person, _.shop_customer_id)).drop("person")


def reads(campaign: Campaign) -> tuple[Table, ...]:
    """The tables of which a trigger of this kind is read."""
    return tuple(each.table for each in _KINDS[campaign.trigger.kind][0])


def reads_earlier(campaign: Campaign) -> tuple[Table, ...]:
    """Those of them that hold states, and are read as of earlier days, too."""
    reading = _KINDS[campaign.trigger.kind][0]
    return tuple(each.table for each in reading if each.lately and each.table.partition == "as_of")


def triggered(campaign: Campaign, tables: Mapping[str, LakeTable], as_of: date) -> tuple[Prepared, dict[str, Rows]]:
    """Everyone whose trigger lies so few days back that a step may be due on ``as_of``; nobody where it is not enabled.

    A statement, to be run before the next one is asked for, and what the names in it stand for. ``tables`` are the lake's by
    name. Columns: ``customer_id``, ``occasion``, ``triggered_on``, and ``details``, null where the trigger is about nothing.
    One row per person and occasion. Raises ``MissingPartition`` where a table has not been computed for the day.
    """
    start = as_of - timedelta(days=campaign.lookback_days)
    given: dict[str, Rows] = {}
    for table, lately, earlier in _KINDS[campaign.trigger.kind][0]:
        lake = tables[table.name]
        given[_name(table)] = lake.between(start - timedelta(days=earlier), as_of) if lately else lake.on(as_of)
        if table == CHANGES:  # who entered while the segment had another name is still on the way
            given[_name(table)] = under_names(given[_name(table)], earlier_names(lake.lake, start, as_of), "segment")
    if campaign.trigger.broadcast:
        days = campaign.trigger.broadcast.days(start, as_of)
        given[_OF_DAYS] = pa.table({"triggered_on": pa.array(days, pa.date32())})
    engine = tables[CUSTOMER_360.name].lake.engine
    engine.variable(_START, start)
    engine.variable(_AS_OF, as_of)
    return _statement(
        campaign.trigger.model_dump_json(exclude_none=True), campaign.lookback_days, campaign.enabled
    ), given


@kept
def _statement(declared: str, days: int, enabled: bool) -> Prepared:
    trigger = Trigger.model_validate_json(declared)
    reading, make = _KINDS[trigger.kind]
    known = Known(
        {each.table.name: unseen(each.table, _name(each.table), partitions=each.lately) for each in reading},
        ibis.table({"triggered_on": "date"}, name=_OF_DAYS),
        days,
        getvariable(_START),
        getvariable(_AS_OF),
    )
    rows = make(trigger, known)
    recent = rows.filter(_.triggered_on.between(known.start, known.as_of))
    told = {
        "customer_id": _.customer_id,
        "occasion": _.occasion if "occasion" in recent.columns else _iso(_.triggered_on),
        "triggered_on": _.triggered_on,
        "details": _.details if "details" in recent.columns else ibis.null("string"),
    }
    reached = (recent if enabled else recent.filter(ibis.literal(False))).select(**told)
    return Prepared.of(reached, {_name(each.table): each.table for each in reading})


def _name(table: Table) -> str:
    return f"trigger_{table.name.replace('/', '_')}"


def signed_up(people: ir.Table) -> ir.Table:
    """The day of a person's first account or first order, whichever came first: a guest who opens an account is no one new."""
    first_seen = ibis.least(people.created_on, people.first_order_on)
    return people.select("customer_id", triggered_on=first_seen).filter(_.triggered_on.notnull())


def segment_entered(changes: ir.Table, segment: str) -> ir.Table:
    """Every entry into the segment. A person may enter again, which is another occasion."""
    entries = members(changes, segment).filter(_.change == "entered")
    return entries.select("customer_id", triggered_on="entered_on").distinct()


def broadcast(people: ir.Table, days: ir.Table) -> ir.Table:
    """Every person known, for each day of the broadcast: those of ``days``, ``triggered_on``."""
    return people.select("customer_id").cross_join(days)


def ordered(products: ir.Table, people: ir.Table, asked: Ordered) -> ir.Table:
    """Every day with an order of goods, as ``asked``. ``details``: the product that most was paid for, and its category.

    ``products`` are rows of ``features/daily_products`` with ``customer_id``. Ties: more pieces, then the id last in the
    alphabet.
    """
    bought = products.filter(_.orders > 0)
    if asked.category is not None:
        bought = bought.filter(_.category == asked.category)
    days = _by_day(bought, [_.revenue_cents, _.quantity])
    if asked.first is not None:
        firsts = people.select("customer_id", "first_order_on")
        days = days.inner_join(firsts, "customer_id")
        days = days.filter((_.triggered_on == _.first_order_on) == ibis.literal(asked.first))
    return days.select("customer_id", "triggered_on", "details")


def browsed(products: ir.Table, people: ir.Table) -> ir.Table:
    """Every day with products looked at and, on it and since, none put into a cart and no order.

    ``products`` are rows of ``features/daily_products`` with ``customer_id``. ``details``: the product that was looked at most
    often, and its category. Ties: the id last in the alphabet.
    """
    days = _by_day(products.filter(_.views > 0), [_.views])
    carted = products.filter(_.carted > 0).group_by("customer_id").agg(carted_on=_.day.max())
    stopped = people.select("customer_id", "last_order_on")
    told = days.left_join(carted, "customer_id", rname="{name}_of_carts")
    told = told.left_join(stopped, "customer_id", rname="{name}_of_people")
    later = [ibis.coalesce(_[name] < _.triggered_on, True) for name in ("carted_on", "last_order_on")]
    return told.filter(*later).select("customer_id", "triggered_on", "details")


def birthday(people: ir.Table, days_before: int, start: Day, days: int) -> ir.Table:
    """Every birthday that one of the ``days`` after ``start`` is so many days before, and some others of these years.

    The occasion is its year: whoever corrects a birthday is not congratulated twice. 29 February is kept on 28 February in other
    years.
    """
    first = (_day(start).cast("timestamp(6)") + ibis.interval(days=days_before)).year()

    def of(year: ir.IntegerValue) -> ir.Table:
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        of_year = people.birthday.month() * 100 + people.birthday.day()
        kept_on = ibis.ifelse(leap, of_year, of_year.substitute({229: 228}))
        day = ibis.date(year.cast("int64"), kept_on // 100, kept_on % 100)
        return people.filter(people.birthday.notnull()).select(
            "customer_id",
            # a date minus days is a timestamp to the engine
            triggered_on=(day.cast("timestamp(6)") - ibis.interval(days=days_before)).date(),
            occasion=year.cast("string"),
        )

    return ibis.union(*(of(first + n) for n in range(days // 365 + 2)))


def next_order(scores: ir.Table, people: ir.Table, days_before: int, start: Day) -> ir.Table:
    """The first day since the last order on which the next one was expected within ``days_before`` days.

    A forecast moves from day to day, so the day is that on which it came near: it was not on the computed day before, or
    the order was on the day itself. The first day ever computed brings nobody near. The occasion is the last order.
    ``scores`` are rows of ``predictions/scores`` with ``as_of``, from the day before ``start`` on. ``details``: ``expected_on``.
    """
    said = scores.filter(_.next_order_on.notnull()).inner_join(
        people.filter(_.last_order_on.notnull()).select("customer_id", "last_order_on"), "customer_id"
    )
    said = said.filter(_.as_of >= _.last_order_on).mutate(
        near=_.next_order_on.delta(_.as_of, unit="day") <= days_before
    )
    before = _.near.lag().over(group_by="customer_id", order_by="as_of")
    first = scores.as_of.min().as_scalar()
    came = said.mutate(before=before.fill_null(False)).filter(
        _.near & ~_.before & ((_.as_of > first) | (_.as_of == _.last_order_on)) & (_.as_of >= _day(start))
    )
    return came.group_by("customer_id", "last_order_on").agg(
        triggered_on=_.as_of.min(), expected_on=_.next_order_on.argmin(_.as_of)
    ).select(
        "customer_id",
        "triggered_on",
        occasion=_iso(_.last_order_on),
        details=_json(expected_on=_iso(_.expected_on)),
    )  # fmt: skip


def used_up(replenishment: ir.Table) -> ir.Table:
    """Every pack that is due to be bought again; the occasion is its purchase, so a re-order ends it and begins another.

    ``details``: ``product_id``, ``last_bought_on``, ``used_up_on``.
    """
    due = replenishment.filter(_.state.isin(["due", "overdue"]))
    product = _.product_id.replace("%", "%25").replace(":", "%3A")  # colons part what a message's id is made of
    return due.select(
        "customer_id",
        triggered_on=_.due_on,
        occasion=_iso(_.last_bought_on) + "/" + product,
        details=_json(product_id=_.product_id, last_bought_on=_iso(_.last_bought_on), used_up_on=_iso(_.used_up_on)),
    )


def submitted(forms: ir.Table, form: str) -> ir.Table:
    """Every day on which the person filled in the form; ``forms`` are rows of ``features/daily_forms`` with ``customer_id``."""
    return forms.filter(_.form == form).select("customer_id", triggered_on="day").distinct()


def ticket_opened(activity: ir.Table) -> ir.Table:
    """Every day on which the person asked for help; rows of ``features/daily_activity`` with ``customer_id``."""
    return activity.filter(_.tickets_opened > 0).select("customer_id", triggered_on="day").distinct()


def _by_day(products: ir.Table, best: list[Deferred]) -> ir.Table:
    """Persons' days: ``customer_id``, ``triggered_on``, and in ``details`` the product that is ``best``."""
    parts = [f"by_{n}" for n in range(len(best))]
    summed = products.group_by("customer_id", "day", "product_id").agg(
        category=_.category.max(), **{part: value.sum() for part, value in zip(parts, best, strict=True)}
    )
    named = ibis.struct({part: _[part] for part in parts} | {"product_id": _.product_id, "category": _.category})
    days = summed.group_by("customer_id", "day").agg(best=named.max())
    return days.select(
        "customer_id",
        triggered_on=_.day,
        details=_json(product_id=_.best["product_id"], category=_.best["category"]),
    )


def _json(**values: Deferred) -> Deferred:
    return ibis.struct(values).cast("json").cast("string")


def _iso(day: Deferred) -> Deferred:
    return day.strftime("%Y-%m-%d")


def _day(day: Day) -> ir.DateValue:
    return ibis.literal(day) if isinstance(day, date) else day


def _ordered(trigger: Trigger, known: Known) -> ir.Table:
    assert trigger.ordered
    return ordered(known.of_people(DAILY_PRODUCTS), known[CUSTOMER_360], trigger.ordered)


def _next_order(trigger: Trigger, known: Known) -> ir.Table:
    assert trigger.next_order
    return next_order(known[SCORES], known[CUSTOMER_360], trigger.next_order.days_before, known.start)


def _birthday(trigger: Trigger, known: Known) -> ir.Table:
    assert trigger.birthday
    return birthday(known[CUSTOMER_360], trigger.birthday.days_before, known.start, known.days)


def _submitted(trigger: Trigger, known: Known) -> ir.Table:
    assert trigger.submitted
    return submitted(known.of_people(DAILY_FORMS), trigger.submitted.form)


_PEOPLE, _IDS = Reading(CUSTOMER_360), Reading(IDENTITIES)
_LOOKED_AT = Reading(DAILY_PRODUCTS, lately=True)

#: Every trigger by the day: what it reads, and how.
_KINDS: Mapping[str, tuple[tuple[Reading, ...], Callable[[Trigger, Known], Any]]] = {
    "signed_up": ((_PEOPLE,), lambda trigger, known: signed_up(known[CUSTOMER_360])),
    "segment_entered": (
        (Reading(CHANGES, lately=True), Reading(DECLARED, lately=True), _IDS),
        lambda trigger, known: segment_entered(known.of_people(CHANGES), str(trigger.segment_entered)),
    ),
    "broadcast": ((_PEOPLE,), lambda trigger, known: broadcast(known[CUSTOMER_360], known.broadcasts)),
    "ordered": ((_LOOKED_AT, _IDS, _PEOPLE), _ordered),
    "browsed": (
        (_LOOKED_AT, _IDS, _PEOPLE),
        lambda trigger, known: browsed(known.of_people(DAILY_PRODUCTS), known[CUSTOMER_360]),
    ),
    "birthday": ((_PEOPLE,), _birthday),
    "next_order": ((Reading(SCORES, lately=True, earlier=1), _PEOPLE), _next_order),
    "used_up": ((Reading(REPLENISHMENT),), lambda trigger, known: used_up(known[REPLENISHMENT])),
    "submitted": ((Reading(DAILY_FORMS, lately=True), _IDS), _submitted),
    "ticket_opened": (
        (Reading(DAILY_ACTIVITY, lately=True), _IDS),
        lambda trigger, known: ticket_opened(known.of_people(DAILY_ACTIVITY)),
    ),
}
