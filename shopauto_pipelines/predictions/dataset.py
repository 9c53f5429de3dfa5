"""What models learn from: features of people as of a past day, the *cut-off*, beside what they did after it.

Which cut-offs a model learns from and which ones it is tested on is decided here, so that no outcome of a training cut-off
overlaps the test's horizon and nothing after the day the model is trained as of is ever read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from ibis.backends.sql import SQLBackend
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: Days before a test's cut-off, and before one that is learned from, that must be known.
HISTORY_DAYS, LEARNING_DAYS = 60, 30
#: Tests of one training, and cut-offs that one fit learns from at each of its horizons.
TESTS, CUT_OFFS = 3, 4
#: Fewest days a test looks ahead.
LEAST_AHEAD = 14
#: Most people that are learned from.
PEOPLE = 40_000
#: Fewest people with an order at the newest test's cut-off, and fewest of each outcome.
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
    "orders_weighted_30d",
    "orders_weighted_120d",
    "orders_weighted_240d",
    "average_order_cents",
    "typical_order_cents",
    "first_order_cents",
    "last_order_cents",
    "refund_cents",
    "revenue_cents",
    "coupon_orders_365d",
    "mean_interval_days",
    "interval_imputed",
    "last_interval_days",
    "interval_variation",
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
    """Distinct order days, person by person and in order of time: ``ids[who]`` ordered for ``cents`` on ``day`` (since 1970).

    ``ids`` are those of everybody and of all their shop accounts, in order. ``person`` says of each of them to whom it belongs:
    the place of a person's id.
    """

    ids: pa.Array
    person: NDArray[np.int64]
    who: NDArray[np.int64]
    day: NDArray[np.int64]
    cents: NDArray[np.int64]

    def between(self, after: date, until: date) -> OrderLog:
        """The orders after one day, up to another."""
        kept = (self.day > _number(after)) & (self.day <= _number(until))
        return replace(self, who=self.who[kept], day=self.day[kept], cents=self.cents[kept])

    def of(self, person: NDArray[np.int64]) -> OrderLog:
        """The same orders where the ids belong to other persons."""
        who = person[self.who]
        order = np.lexsort((self.day, who))
        who, day = who[order], self.day[order]
        new = np.ones(len(who), bool)
        new[1:] = (who[1:] != who[:-1]) | (day[1:] != day[:-1])
        cents = np.bincount(np.cumsum(new) - 1, weights=self.cents[order]).astype(np.int64)
        return OrderLog(self.ids, person, who[new], day[new], cents)

    def count(self) -> Numbers:
        """Order days of each person."""
        return np.bincount(self.who, minlength=len(self.ids)).astype(float)

    def spent(self) -> Numbers:
        """What each person spent, minor units."""
        return np.bincount(self.who, weights=self.cents, minlength=len(self.ids)).astype(float)

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
    ``day``, ``orders`` and ``revenue_cents``; ``identities`` has ``shop_customer_id`` and ``customer_id``, and ``as_of`` where
    persons come to be known in the course of time: who is one as known at the end of each day that is looked at. ``first_day``
    is the first day with data, ``end_of_day`` gives the end of a day in UTC. All tables live in ``con``. Of a shop with very
    many people, they are those of a part of them (:func:`sampled`).
    """

    con: SQLBackend
    features: Callable[[Any, Any], ir.Table]
    activity: ir.Table
    identities: ir.Table
    first_day: date
    end_of_day: Callable[[date], datetime]
    _logs: dict[date | None, OrderLog] = field(default_factory=dict, init=False)

    def numbers(self, cut_off: date) -> pa.Table:
        """``customer_id`` and :data:`COLUMNS` of the people with an order, in order of their ids."""
        return self.everybody(cut_off).order_by("customer_id").to_pyarrow()

    def everybody(self, cut_off: date) -> ir.Table:
        """The same as a table, unordered. Good until the next cut-off is asked for."""
        self.con.raw_sql(f"set variable cut_off = date '{cut_off}'")
        self.con.raw_sql(f"set variable cut_off_end = timestamp '{self.end_of_day(cut_off)}'")
        return self._features

    def log(self, known_on: date) -> OrderLog:
        """Every order day there is, of the persons known at the end of a day."""
        known, day = self.identities, None
        if "as_of" in known.columns:
            known, day = known.filter(_.as_of == known_on), known_on
        if day not in self._logs:
            accounts = self._accounts
            found = known.select("shop_customer_id", "customer_id").to_pyarrow()
            account, person = (_places(found[name], accounts.ids) for name in ("shop_customer_id", "customer_id"))
            persons = accounts.person.copy()
            persons[account] = person
            self._logs[day] = accounts.of(persons)
        return self._logs[day]

    @cached_property
    def _accounts(self) -> OrderLog:
        """Every order day there is, as if each shop account were a person."""
        orders = self.activity.filter(_.orders > 0).select("shop_customer_id", "day", "revenue_cents")
        named = (self.identities.shop_customer_id, self.identities.customer_id, orders.shop_customer_id)
        everybody = ibis.union(*(names.name("id").as_table() for names in named), distinct=True)
        ids = everybody.order_by("id").to_pyarrow()["id"].combine_chunks()
        found = orders.to_pyarrow()
        return OrderLog(
            ids,
            np.arange(len(ids)),
            _places(found["shop_customer_id"], ids),
            found["day"].cast("date32").cast("int32").to_numpy().astype(np.int64),
            found["revenue_cents"].to_numpy().astype(np.int64),
        )

    @cached_property
    def _features(self) -> ir.Table:
        """The features as a view of the cut-off in force: compiling them takes longer than running them."""
        day, end = _day_variable("cut_off"), _time_variable("cut_off_end")
        name = f"features_at_cut_off_{uuid.uuid4().hex[:8]}"
        return self.con.create_view(name, numeric(buyers(self.features(day, end), day)))


def sampled(con: SQLBackend, identities: ir.Table, *rollups: ir.Table, most: int = PEOPLE) -> tuple[ir.Table, ...]:
    """``identities`` and rollups by ``shop_customer_id``, of a shop with more than ``most`` people those of a part of them.

    Those whose hashed id is smallest, so that the same people are taken on every day.
    """
    share = most / max(int(con.execute(identities.customer_id.nunique())), 1)
    if share >= 1:
        return identities, *rollups
    chosen = identities.filter(_.customer_id.hexdigest("md5")[:8] < f"{int(share * 2**32):08x}")

    def kept(rows: ir.Table) -> ir.Table:
        return con.create_table(f"sampled_{uuid.uuid4().hex[:8]}", rows, temp=True)

    people = kept(chosen)
    return people, *(kept(rollup.semi_join(people, "shop_customer_id")) for rollup in rollups)


@ibis.udf.scalar.builtin(name="getvariable")
def _day_variable(key: str) -> date:  # type: ignore[empty-body]
    """A variable of the DuckDB session."""


@ibis.udf.scalar.builtin(name="getvariable")
def _time_variable(key: str) -> datetime:  # type: ignore[empty-body]
    """A variable of the DuckDB session."""


@dataclass(frozen=True)
class People:
    """People with an order up to the ``cut_off``, one array element each, in order of their ids: features, place in the log.

    They are the persons ``known_on`` a day.
    """

    cut_off: date
    features: Mapping[str, Numbers]
    who: NDArray[np.int64]
    known_on: date

    def __len__(self) -> int:
        return len(self.who)

    @property
    def habit(self) -> tuple[Numbers, Numbers, Numbers]:
        """Their :data:`HABIT`."""
        orders, recency, tenure = (self.features[name] for name in HABIT)
        return orders, recency, tenure

    def some(self, step: int) -> People:
        """Every ``step``-th of them."""
        features = {name: values[::step] for name, values in self.features.items()}
        return replace(self, features=features, who=self.who[::step])


@dataclass(frozen=True)
class Window:
    """People and what they did within ``horizon`` days after the cut-off.

    ``orders``: order days within the horizon, ``spent``: their totals in minor units. ``next_in``: days until the next order,
    infinite where none was seen within the ``observed`` days. ``last_period``: order days within a horizon before the cut-off.
    People who have been found to be one person since share what that person did.
    """

    people: People
    horizon: int
    observed: int
    orders: Numbers
    spent: Numbers
    next_in: Numbers
    last_period: Numbers

    def __len__(self) -> int:
        return len(self.orders)

    @property
    def features(self) -> Mapping[str, Numbers]:
        """Features of the people as of the cut-off."""
        return self.people.features

    def some(self, step: int) -> Window:
        """The window of every ``step``-th of the people."""
        if step == 1:
            return self
        each = {name: getattr(self, name)[::step] for name in ("orders", "spent", "next_in", "last_period")}
        return replace(self, people=self.people.some(step), **each)

    @property
    def tells(self) -> bool:
        """Whether there are enough of both outcomes to learn something."""
        ordered = int((self.orders > 0).sum())
        return min(ordered, len(self) - ordered) >= LEAST_OUTCOMES // 3


@dataclass(frozen=True)
class Plan:
    """The cut-offs of one training, which lie on a grid of ``step`` days back from the day it is done as of.

    ``tests``, newest first, look ``ahead`` days: the horizon asked for, or as much of it as the history allows.
    """

    trained_as_of: date
    first_day: date
    ahead: int
    step: int
    tests: tuple[date, ...]

    @property
    def cut_offs(self) -> list[date]:
        """Every day whose people are looked at, in order."""
        known = (*self.tests, self.trained_as_of)
        return sorted({*known, *(day for until in known for day, _horizon in self.learned_from(until))})

    def learned_from(self, known_until: date) -> list[tuple[date, int]]:
        """(cut-off, horizon) of the windows to learn from by what a day knows: every outcome lies before it.

        The tests' horizon and half of it, each at up to :data:`CUT_OFFS` cut-offs; a quarter too where that gives few windows.
        """
        found: list[tuple[date, int]] = []
        for part, apart in ((1, 2), (2, 1), (4, 1)):
            horizon, steps = self.ahead // part, 4 // part
            if horizon < LEAST_AHEAD // 2 or (part == 4 and len(found) >= CUT_OFFS):
                continue
            for n in range(CUT_OFFS):
                cut_off = known_until - timedelta(days=self.step * (steps + apart * n))
                if (cut_off - self.first_day).days >= max(LEARNING_DAYS, horizon // 2):
                    found.append((cut_off, horizon))
        return found


def training_day(as_of: date, first_day: date, retrain_days: int) -> date:
    """The latest day up to ``as_of`` on which a model is trained: every ``retrain_days`` from a fixed day.

    Never before ``first_day``: a shop younger than that trains on its first day, where there is not enough data.
    """
    return max(as_of - timedelta(days=(as_of - _EPOCH).days % retrain_days), min(first_day, as_of))


def plan(trained_as_of: date, first_day: date, horizon: int) -> Plan:
    """The cut-offs for a model trained as of a day; raises :class:`NotEnoughData` where the history is too short.

    A test looks as far ahead as it looks back, at least, so that a shop with less than two horizons of history is tested over
    a part of the horizon. Tests lie half of what they look ahead apart, a quarter where the history is short.
    """
    history = (trained_as_of - first_day).days + 1
    ahead = min(horizon, history // 2)
    needed = HISTORY_DAYS + LEAST_AHEAD
    if history < needed or ahead < min(horizon, LEAST_AHEAD):
        raise NotEnoughData(f"a model needs {needed} days of history, the shop has {max(history, 0)}")
    step = -(-ahead // 4)
    apart = 2 if history - 8 * step >= max(HISTORY_DAYS, ahead) else 1
    days = [trained_as_of - timedelta(days=step * (4 + apart * n)) for n in range(TESTS)]
    known = max(min(HISTORY_DAYS, history - ahead), ahead // 2)
    tests = tuple(day for day in days if (day - first_day).days + 1 >= known) or (days[0],)
    return Plan(trained_as_of, first_day, ahead, step, tests)


def cut_offs(trained_as_of: date, first_day: date, horizon: int) -> list[date]:
    """Every day whose people a training looks at: the day it is done as of alone, where there is not enough data."""
    try:
        return plan(trained_as_of, first_day, horizon).cut_offs
    except NotEnoughData:
        return [trained_as_of]


def year_before(cut_off: date, first_day: date) -> date | None:
    """The cut-off 52 weeks earlier, which sees the same season; ``None`` where the history before it is too short."""
    earlier = cut_off - timedelta(days=364)
    return earlier if earlier - timedelta(days=HISTORY_DAYS) >= first_day else None


def people(shop: Shop, cut_off: date) -> People:
    """Everybody who had ordered by the end of ``cut_off``, with their features as of it."""
    found = shop.numbers(cut_off)
    who = _places(found["customer_id"], shop.log(cut_off).ids)
    return People(cut_off, {name: to_numpy(found[name]) for name in COLUMNS}, who, cut_off)


def habits(shop: Shop, cut_off: date, since: date = date.min, known_on: date | None = None) -> People:
    """The people with :data:`HABIT` alone, as if nothing before or on ``since`` were known: much quicker than all features.

    They are the persons ``known_on`` a day, on the cut-off unless another one is said.
    """
    known_on = known_on or cut_off
    past = shop.log(known_on).between(since, cut_off)
    orders, first, last = past.count(), past.first(), past.last()
    who = np.flatnonzero(orders)
    now = _number(cut_off)
    features = {"orders": orders[who], "recency_days": now - last[who], "tenure_days": now - first[who]}
    return People(cut_off, features, who, known_on)


def window(shop: Shop, of: People, horizon: int, known_until: date) -> Window:
    """What people did within ``horizon`` days, by what was known at the end of a day; nothing later is read."""
    log, cut_off = shop.log(known_until), of.cut_off
    who = log.person[of.who]
    before = shop.log(of.known_on).between(cut_off - timedelta(days=horizon), cut_off)
    after = log.between(cut_off, known_until)
    within = after.between(cut_off, cut_off + timedelta(days=horizon))
    return Window(
        people=of,
        horizon=horizon,
        observed=(known_until - cut_off).days,
        orders=within.count()[who],
        spent=within.spent()[who],
        next_in=after.first()[who] - _number(cut_off),
        last_period=before.count()[of.who],
    )


def _places(ids: pa.ChunkedArray, among: pa.Array) -> NDArray[np.int64]:
    return pc.index_in(ids, among).to_numpy().astype(np.int64)


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
