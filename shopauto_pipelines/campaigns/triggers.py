"""Who was triggered when, as of a day: rows ``customer_id``, ``occasion``, ``triggered_on``, one per occasion.

An occasion is what a message is about; nobody gets a step twice for the same one. Triggers about something tell it in
``details``, JSON without private data. Whether anybody gets a message at all is the planner's business. Carts that were left
have triggers of their own: :mod:`.pauses`.

What happens later than the day changes nothing, and no trigger remembers anything: each is read off what the tables say
of the days on which a step may still be due.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.campaigns.declaration import Broadcast, Campaign, Ordered
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY, DAILY_FORMS, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import LakeTable
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations.tables import REPLENISHMENT
from shopauto_pipelines.segments.membership import members
from shopauto_pipelines.segments.tables import CHANGES


@dataclass(frozen=True)
class Known:
    """What a trigger may read: the lake's tables by name, those that the campaign :func:`reads`, as of the day."""

    tables: Mapping[str, LakeTable]
    start: date
    as_of: date

    def on(self, table: Table) -> ir.Table:
        """The table as of the day."""
        return self.tables[table.name].on(self.as_of)

    def lately(self, table: Table, earlier: int = 0) -> ir.Table:
        """The days on which a step may still be due, and so many ``earlier`` ones."""
        return self.tables[table.name].between(self.start - timedelta(days=earlier), self.as_of)

    def of_people(self, rows: ir.Table) -> ir.Table:
        """``rows`` with the ``customer_id`` that their shop id belongs to as of the day."""
        people = self.on(IDENTITIES).select("shop_customer_id", person="customer_id")
        known = rows.filter(_.shop_customer_id.notnull()).left_join(people, "shop_customer_id")
        return known.mutate(customer_id=ibis.coalesce(_.person, _.shop_customer_id)).drop("person")


def reads(campaign: Campaign) -> tuple[Table, ...]:
    """The tables that :func:`triggered` reads for the campaign, beside those that every campaign reads."""
    return _KINDS[campaign.trigger.kind][0]


def triggered(campaign: Campaign, tables: Mapping[str, LakeTable], as_of: date) -> ir.Table:
    """Everyone whose trigger lies so few days back that a step may be due on ``as_of``; nobody where it is not enabled.

    ``tables`` are the lake's by name. Columns: ``customer_id``, ``occasion``, ``triggered_on``, and where the trigger is about
    something ``details``. One row per person and occasion.
    """
    known = Known(tables, as_of - timedelta(days=campaign.lookback_days), as_of)
    rows = _KINDS[campaign.trigger.kind][1](campaign, known)
    recent = rows.filter(_.triggered_on.between(ibis.literal(known.start), ibis.literal(as_of)))
    if "occasion" not in recent.columns:
        recent = recent.mutate(occasion=_iso(_.triggered_on))
    columns = [name for name in ("customer_id", "occasion", "triggered_on", "details") if name in recent.columns]
    return (recent if campaign.enabled else recent.filter(ibis.literal(False))).select(columns)


def signed_up(people: ir.Table) -> ir.Table:
    """The day a person's first account was created; of the first order where no account is known."""
    first_seen = ibis.coalesce(people.created_on, people.first_order_on)
    return people.select("customer_id", triggered_on=first_seen).filter(_.triggered_on.notnull())


def segment_entered(changes: ir.Table, segment: str) -> ir.Table:
    """Every entry into the segment. A person may enter again, which is another occasion."""
    entries = members(changes, segment).filter(_.change == "entered")
    return entries.select("customer_id", triggered_on="entered_on").distinct()


def broadcast(people: ir.Table, schedule: Broadcast, start: date, end: date) -> ir.Table:
    """Every person known, for each day of the broadcast."""
    days = schedule.days(start, end)
    if not days:
        return people.filter(ibis.literal(False)).select("customer_id", triggered_on=ibis.null("date"))
    return ibis.union(*(people.select("customer_id", triggered_on=ibis.literal(day)) for day in days))


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


def birthday(people: ir.Table, days_before: int, start: date, end: date) -> ir.Table:
    """Every birthday that the days from ``start`` to ``end`` are so many days before; the occasion is its year.

    29 February is kept on 28 February in other years. With the year as the occasion, whoever corrects a birthday is not
    congratulated twice.
    """
    before = timedelta(days=days_before)

    def of(year: int) -> ir.Table:
        kept = people.birthday.month() * 100 + people.birthday.day()
        kept = kept if isleap(year) else kept.substitute({229: 228})
        day = ibis.date(ibis.literal(year, "int64"), kept // 100, kept % 100)
        return people.filter(people.birthday.notnull()).select(
            "customer_id",
            # a date minus days is a timestamp to the engine
            triggered_on=(day.cast("timestamp(6)") - ibis.interval(days=days_before)).date(),
            occasion=ibis.literal(str(year)),
        )

    return ibis.union(*(of(year) for year in range((start + before).year, (end + before).year + 1)))


def next_order(scores: ir.Table, people: ir.Table, days_before: int, start: date) -> ir.Table:
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
        _.near & ~_.before & ((_.as_of > first) | (_.as_of == _.last_order_on)) & (_.as_of >= ibis.literal(start))
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


def _ordered(campaign: Campaign, known: Known) -> ir.Table:
    assert campaign.trigger.ordered
    products = known.of_people(known.lately(DAILY_PRODUCTS))
    return ordered(products, known.on(CUSTOMER_360), campaign.trigger.ordered)


def _next_order(campaign: Campaign, known: Known) -> ir.Table:
    assert campaign.trigger.next_order
    said = known.lately(SCORES, earlier=1)
    return next_order(said, known.on(CUSTOMER_360), campaign.trigger.next_order.days_before, known.start)


def _birthday(campaign: Campaign, known: Known) -> ir.Table:
    assert campaign.trigger.birthday
    return birthday(known.on(CUSTOMER_360), campaign.trigger.birthday.days_before, known.start, known.as_of)


def _broadcast(campaign: Campaign, known: Known) -> ir.Table:
    assert campaign.trigger.broadcast
    return broadcast(known.on(CUSTOMER_360), campaign.trigger.broadcast, known.start, known.as_of)


def _submitted(campaign: Campaign, known: Known) -> ir.Table:
    assert campaign.trigger.submitted
    return submitted(known.of_people(known.lately(DAILY_FORMS)), campaign.trigger.submitted.form)


#: Every trigger by the day: what it reads, and how.
_KINDS: Mapping[str, tuple[tuple[Table, ...], Callable[[Campaign, Known], ir.Table]]] = {
    "signed_up": ((), lambda campaign, known: signed_up(known.on(CUSTOMER_360))),
    "segment_entered": (
        (CHANGES,),
        lambda campaign, known: segment_entered(known.lately(CHANGES), str(campaign.trigger.segment_entered)),
    ),
    "broadcast": ((), _broadcast),
    "ordered": ((DAILY_PRODUCTS,), _ordered),
    "browsed": (
        (DAILY_PRODUCTS,),
        lambda campaign, known: browsed(known.of_people(known.lately(DAILY_PRODUCTS)), known.on(CUSTOMER_360)),
    ),
    "birthday": ((), _birthday),
    "next_order": ((SCORES,), _next_order),
    "used_up": ((REPLENISHMENT,), lambda campaign, known: used_up(known.on(REPLENISHMENT))),
    "submitted": ((DAILY_FORMS,), _submitted),
    "ticket_opened": (
        (DAILY_ACTIVITY,),
        lambda campaign, known: ticket_opened(known.of_people(known.lately(DAILY_ACTIVITY))),
    ),
}
