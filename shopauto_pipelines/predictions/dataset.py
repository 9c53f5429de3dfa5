"""What models learn from: features of people as of a past day, the *cut-off*, beside what they did after it.

Which cut-offs a model learns from and which one it is tested on is decided here, so that no outcome of a training cut-off
overlaps the test's horizon and nothing after the day the model is trained as of is ever read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from ibis.backends.duckdb import Backend as DuckDB
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
class OrderLog:
    """Distinct order days, person by person and in order of time: ``ids[who]`` ordered on ``day`` (days since 1970)."""

    ids: pa.Array
    who: NDArray[np.int64]
    day: NDArray[np.int64]

    def between(self, after: date, until: date) -> OrderLog:
        """The orders after one day, up to another."""
        kept = (self.day > _number(after)) & (self.day <= _number(until))
        return OrderLog(self.ids, self.who[kept], self.day[kept])

    def count(self) -> Numbers:
        """Order days of each person."""
        return np.bincount(self.who, minlength=len(self.ids)).astype(float)

    def first(self) -> Numbers:
        """First order day of each person; infinite where there is none."""
        found = np.full(len(self.ids), np.inf)
        found[self.who[::-1]] = self.day[::-1]
        return found

    def last(self) -> Numbers:
        """Last order day of each person; minus infinite where there is none."""
        found = np.full(len(self.ids), -np.inf)
        found[self.who] = self.day
        return found


@dataclass(frozen=True)
class Shop:
    """What a shop's past is read through.

    ``features(day, end)`` is ``features/customer_features`` as of a past day that ends at ``end`` in UTC, with nothing
    known later than it; both are Ibis values, so one expression serves every day. ``activity`` has ``shop_customer_id``,
    ``day`` and ``orders``; ``identities`` has ``shop_customer_id`` and ``customer_id``. ``first_day`` is the first day
    with data, ``end_of_day`` gives the end of a day in UTC. All tables live in ``con``.
    """

    con: DuckDB
    features: Callable[[Any, Any], ir.Table]
    activity: ir.Table
    identities: ir.Table
    first_day: date
    end_of_day: Callable[[date], datetime]
    people: int = PEOPLE

    def numbers(self, cut_off: date) -> pa.Table:
        """``customer_id`` and :data:`COLUMNS` of the people with an order, in order of their ids."""
        self.con.raw_sql(f"set variable cut_off = date '{cut_off}'")
        self.con.raw_sql(f"set variable cut_off_end = timestamp '{self.end_of_day(cut_off)}'")
        return self._sampled(self._features).order_by("customer_id").to_pyarrow()

    @cached_property
    def log(self) -> OrderLog:
        """Every order day there is; of a shop with more ``people`` than allowed, of those whose hashed id is smallest."""
        orders = self.activity.filter(_.orders > 0).select("shop_customer_id", "day")
        joined = orders.left_join(self.identities.select("shop_customer_id", "customer_id"), "shop_customer_id")
        days = joined.select("day", customer_id=ibis.coalesce(joined.customer_id, joined.shop_customer_id)).distinct()
        found = self._sampled(days).order_by("customer_id", "day").to_pyarrow()
        coded = found["customer_id"].combine_chunks().dictionary_encode()  # in order of appearance: of the id
        return OrderLog(
            coded.dictionary,
            coded.indices.to_numpy().astype(np.int64),
            found["day"].cast("date32").cast("int32").to_numpy().astype(np.int64),
        )

    @cached_property
    def _features(self) -> ir.Table:
        """The features as a view of the cut-off in force: compiling them takes longer than running them."""
        day, end = _day_variable("cut_off"), _time_variable("cut_off_end")
        name = f"features_at_cut_off_{uuid.uuid4().hex[:8]}"
        return self.con.create_view(name, numeric(buyers(self.features(day, end), day)))

    @cached_property
    def _share(self) -> float:
        return self.people / max(int(self.identities.count().execute()), 1)

    def _sampled(self, rows: ir.Table) -> ir.Table:
        if self._share >= 1:
            return rows
        return rows.filter(_.customer_id.hexdigest("md5")[:8] < f"{int(self._share * 2**32):08x}")


@ibis.udf.scalar.builtin(name="getvariable")
def _day_variable(key: str) -> date:  # type: ignore[empty-body]
    """A variable of the DuckDB session."""


@ibis.udf.scalar.builtin(name="getvariable")
def _time_variable(key: str) -> datetime:  # type: ignore[empty-body]
    """A variable of the DuckDB session."""


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
    people = shop.numbers(cut_off)
    who = pc.index_in(people["customer_id"], shop.log.ids).to_numpy()
    features = {name: to_numpy(people[name]) for name in COLUMNS}
    return _window(shop.log, who, features, cut_off, horizon, known_until)


def habits(shop: Shop, cut_off: date, horizon: int, known_until: date, since: date = date.min) -> Window:
    """A window with :data:`HABIT` alone, as if nothing before or on ``since`` were known: much quicker than all features."""
    past = shop.log.between(since, cut_off)
    orders, first, last = past.count(), past.first(), past.last()
    who = np.flatnonzero(orders)
    now = _number(cut_off)
    features = {"orders": orders[who], "recency_days": now - last[who], "tenure_days": now - first[who]}
    return _window(shop.log, who, features, cut_off, horizon, known_until)


def _window(
    log: OrderLog, who: NDArray[np.int64], features: Mapping[str, Numbers], cut_off: date, horizon: int, known: date
) -> Window:
    after = log.between(cut_off, known)
    return Window(
        cut_off=cut_off,
        observed=(known - cut_off).days,
        features=features,
        orders=after.between(cut_off, cut_off + timedelta(days=horizon)).count()[who],
        next_in=after.first()[who] - _number(cut_off),
        last_period=log.between(cut_off - timedelta(days=horizon), cut_off).count()[who],
    )


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def buyers(features: ir.Table, as_of: Any) -> ir.Table:
    """People with at least one order as of the day, a date or an Ibis value."""
    day = ibis.literal(as_of) if isinstance(as_of, date) else as_of
    return features.filter(_.orders > 0).mutate(day.name("cut_off"))


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
