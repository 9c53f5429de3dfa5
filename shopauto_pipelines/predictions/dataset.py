"""What models learn from: features of people as of a past day, the *cut-off*, beside what they did after it.

Which cut-offs a model learns from and which one it is tested on is decided here, so that no outcome of a training cut-off
overlaps the test's horizon and nothing after the day the model is trained as of is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: Days before a cut-off that must be known for it to be learned from.
HISTORY_DAYS = 60
#: Most training cut-offs.
CUT_OFFS = 6
#: Most people taken per cut-off; above it, those whose hashed id is smallest.
PEOPLE = 200_000
#: Fewest people with an order at the test cut-off, and fewest of each outcome.
LEAST_PEOPLE = 300
LEAST_OUTCOMES = 30

#: Training days count from here, so that they do not depend on when anything was run.
_EPOCH = date(2000, 1, 1)

#: Columns of ``features/customer_features`` that are read. All are known to every shop; a shop without web events or
#: messages has zeros and nulls there, the same for everybody, from which nothing is learned.
COLUMNS = (
    "recency_days",
    "tenure_days",
    "orders",
    "orders_30d",
    "orders_90d",
    "orders_365d",
    "revenue_cents_90d",
    "average_order_cents",
    "refund_cents",
    "revenue_cents",
    "coupon_orders_365d",
    "mean_interval_days",
    "interval_imputed",
    "churn_factor",
    "visits_30d",
    "visits_90d",
    "product_views_30d",
    "pages_per_visit_90d",
    "last_visit_on",
    "carts_started_365d",
    "carts_abandoned_365d",
    "emails_sent_90d",
    "opens_90d",
    "clicks_90d",
    "last_click_on",
)


#: Those that the buying process needs.
HABIT = ("orders", "recency_days", "tenure_days")


class NotEnoughData(Exception):
    """The shop's history does not allow a model yet; the text says what is missing."""


@dataclass(frozen=True)
class Shop:
    """What a shop's past is read through.

    ``features(day)`` is ``features/customer_features`` as of a past day, with nothing known later than it. ``activity``
    has ``shop_customer_id``, ``day`` and ``orders``; ``identities`` has ``shop_customer_id`` and ``customer_id``.
    ``first_day`` is the first day with data.
    """

    features: Callable[[date], ir.Table]
    activity: ir.Table
    identities: ir.Table
    first_day: date
    people: int = PEOPLE

    @cached_property
    def many(self) -> int:
        """Shop ids there are: at least as many as people with an order."""
        return int(self.identities.count().execute())


@dataclass(frozen=True)
class Window:
    """People with an order up to the ``cut_off``, one array element each, in order of their ids.

    ``orders``: order days within the horizon after the cut-off. ``next_in``: days until the next order, infinite where
    none was seen within the ``observed`` days. ``last_period``: order days within a horizon before the cut-off.
    """

    cut_off: date
    observed: int
    features: Mapping[str, Numbers]
    orders: Numbers
    next_in: Numbers
    last_period: Numbers

    def __len__(self) -> int:
        return len(self.orders)

    def as_known_on(self, day: date) -> Window:
        """The same people as far as ``day`` knew: later orders are not seen yet."""
        observed = (day - self.cut_off).days
        next_in = np.where(self.next_in <= observed, self.next_in, np.inf)
        return replace(self, observed=min(observed, self.observed), next_in=next_in)


@dataclass(frozen=True)
class Plan:
    """The cut-offs of one training: ``train`` from latest to earliest, and the ``test`` cut-off after all of them."""

    test: date
    train: tuple[date, ...]


def training_day(as_of: date, first_day: date, retrain_days: int) -> date:
    """The latest day up to ``as_of`` on which a model is trained: every ``retrain_days`` from a fixed day.

    Never before ``first_day``: a shop younger than that trains on its first day, where there is not enough data.
    """
    return max(as_of - timedelta(days=(as_of - _EPOCH).days % retrain_days), min(first_day, as_of))


def plan(trained_as_of: date, first_day: date, horizon: int) -> Plan:
    """The cut-offs for a model trained as of a day; raises :class:`NotEnoughData` where the history is too short.

    The test's horizon is the last one before the day. Training cut-offs lie half a horizon apart, and the outcomes of the
    latest are known when the test's horizon begins.
    """
    test = trained_as_of - timedelta(days=horizon)
    latest, step = test - timedelta(days=horizon), max(1, horizon // 2)
    days = [latest - timedelta(days=step * n) for n in range(CUT_OFFS)]
    train = tuple(day for day in days if day - timedelta(days=HISTORY_DAYS) >= first_day)
    if not train:
        needed = 2 * horizon + HISTORY_DAYS
        raise NotEnoughData(
            f"a model needs {needed} days of history, the shop has {max((trained_as_of - first_day).days, 0)}"
        )
    return Plan(test, train)


def year_before(cut_off: date, first_day: date) -> date | None:
    """The cut-off 52 weeks earlier, which sees the same season; ``None`` where the history before it is too short."""
    earlier = cut_off - timedelta(days=364)
    return earlier if earlier - timedelta(days=HISTORY_DAYS) >= first_day else None


def window(shop: Shop, cut_off: date, horizon: int, known_until: date) -> Window:
    """Features as of ``cut_off`` and outcomes up to ``known_until``, the last day that may be read."""
    return _window(shop, numeric(buyers(shop.features(cut_off), cut_off)), COLUMNS, cut_off, horizon, known_until)


def habits(shop: Shop, cut_off: date, horizon: int, known_until: date) -> Window:
    """A window with :data:`HABIT` alone, from the orders themselves: much quicker than all features."""
    days = _ordered(shop, date.min, cut_off).mutate(ago=-_.day.delta(ibis.literal(cut_off), unit="day"))
    numbers = days.group_by("customer_id").agg(
        orders=_.ago.nunique().cast("float64"),
        recency_days=_.ago.min().cast("float64"),
        tenure_days=_.ago.max().cast("float64"),
    )
    return _window(shop, numbers, HABIT, cut_off, horizon, known_until)


def _window(
    shop: Shop, numbers: ir.Table, columns: Sequence[str], cut_off: date, horizon: int, known_until: date
) -> Window:
    days = _order_days(shop, cut_off, horizon, known_until)
    if shop.many > shop.people:
        buying = int(_ordered(shop, date.min, cut_off).customer_id.nunique().execute())
        share = min(int(shop.people / max(buying, 1) * 2**32), 2**32 - 1)
        numbers, days = (t.filter(_.customer_id.hexdigest("md5")[:8] < f"{share:08x}") for t in (numbers, days))
    outcome = days.group_by("customer_id").agg(
        orders=(_.ordered_in.between(1, horizon)).sum(),
        next_in=_.ordered_in.min(where=_.ordered_in > 0),
        last_period=(_.ordered_in <= 0).sum(),
    )
    people = numbers.order_by("customer_id").to_pyarrow()  # two small queries are quicker than one that joins them
    found = outcome.order_by("customer_id").to_pyarrow()
    row = pc.index_in(people["customer_id"], found["customer_id"].combine_chunks())
    after = {name: to_numpy(found[name].take(row)) for name in ("orders", "next_in", "last_period")}
    return Window(
        cut_off=cut_off,
        observed=(known_until - cut_off).days,
        features={name: to_numpy(people[name]) for name in columns},
        orders=np.nan_to_num(after["orders"]),
        next_in=np.nan_to_num(after["next_in"], nan=np.inf),
        last_period=np.nan_to_num(after["last_period"]),
    )


def buyers(features: ir.Table, as_of: date) -> ir.Table:
    """People with at least one order as of the day."""
    return features.filter(_.orders > 0).mutate(ibis.literal(as_of).name("cut_off"))


def numeric(features: ir.Table) -> ir.Table:
    """``customer_id`` and :data:`COLUMNS` as floats: dates become days before the cut-off, flags 0 and 1."""
    schema = features.schema()
    columns = {}
    for name in COLUMNS:
        column = features[name]
        if schema[name].is_date():
            column = features.cut_off.delta(column, unit="day")
        elif schema[name].is_boolean():
            column = column.cast("int64")
        columns[name] = column.cast("float64")
    return features.select("customer_id", **columns)


def to_numpy(column: pa.ChunkedArray) -> Numbers:
    """An Arrow column of numbers as floats; null becomes NaN."""
    return column.cast("float64").to_numpy()


def _order_days(shop: Shop, cut_off: date, horizon: int, known_until: date) -> ir.Table:
    """Distinct order days of each person from a horizon before the cut-off on: ``ordered_in`` days after it."""
    days = _ordered(shop, cut_off - timedelta(days=horizon), known_until)
    return days.select("customer_id", ordered_in=_.day.delta(ibis.literal(cut_off), unit="day")).distinct()


def _ordered(shop: Shop, after: date, until: date) -> ir.Table:
    """``customer_id`` and ``day`` of orders after one day, up to another."""
    orders = shop.activity.filter(_.orders > 0, _.day > after, _.day <= until).select("shop_customer_id", "day")
    joined = orders.left_join(shop.identities.select("shop_customer_id", "customer_id"), "shop_customer_id")
    return joined.select("day", customer_id=ibis.coalesce(joined.customer_id, joined.shop_customer_id))
