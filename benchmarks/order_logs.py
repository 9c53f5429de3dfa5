"""Order logs that benchmarks of predictions share: real shops beside the project, and people simulated in several ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shopauto_pipelines.platform.settings import PROJECT_ROOT

Numbers = NDArray[np.float64]
Ints = NDArray[np.int64]

DATA = PROJECT_ROOT.parent / "shared" / "data"
CDNOW = DATA / "cdnow" / "sample.parquet"
ONLINE_RETAIL = DATA / "online_retail" / "year_2009_12_to_2010_11.parquet"

EPOCH = date(1970, 1, 1)


def number(day: date) -> int:
    """Days since 1970."""
    return (day - EPOCH).days


@dataclass(frozen=True)
class OrderLog:
    """One element per customer and day with an order, by customer and then day; ``day`` counts from 1970.

    ``ids`` are the customers in order, ``who`` is the position in them, ``cents`` what was paid that day.
    """

    ids: NDArray[np.str_]
    who: Ints
    day: Ints
    cents: Ints

    @classmethod
    def of(cls, customers: NDArray, day: Ints, cents: Ints) -> OrderLog:
        """Orders in any order, several a day allowed."""
        ids, who = np.unique(np.asarray(customers).astype(str), return_inverse=True)
        first = int(day.min())
        span = int(day.max()) - first + 1
        kind, position = np.unique(who * span + day - first, return_inverse=True)
        paid = np.zeros(len(kind), dtype=np.int64)
        np.add.at(paid, position, cents)
        return cls(ids, kind // span, kind % span + first, paid)

    def between(self, after: int, until: int) -> OrderLog:
        """The orders after one day, up to another; customers stay as they are."""
        kept = (self.day > after) & (self.day <= until)
        return replace(self, who=self.who[kept], day=self.day[kept], cents=self.cents[kept])

    def until(self, day: int) -> OrderLog:
        """The orders up to a day."""
        return self.between(-1_000_000, day)

    def count(self) -> Numbers:
        """Days with an order of each customer."""
        return np.bincount(self.who, minlength=len(self.ids)).astype(float)

    def sum(self) -> Numbers:
        """Cents of each customer."""
        return np.bincount(self.who, self.cents, len(self.ids)).astype(float)

    def first(self) -> Numbers:
        """First day of each customer; infinite where there is none."""
        found = np.full(len(self.ids), np.inf)
        found[self.who[::-1]] = self.day[::-1]
        return found

    def last(self) -> Numbers:
        """Last day of each customer; minus infinite where there is none."""
        found = np.full(len(self.ids), -np.inf)
        found[self.who] = self.day
        return found

    def transactions(self) -> pa.Table:
        """What :mod:`shopauto_pipelines.predictions.plain` reads; a day on which nothing was paid counts as one cent."""
        return pa.table(
            {
                "customer_id": pa.array(self.ids[self.who]),
                "day": pa.array(self.day.astype(np.int32)).cast(pa.date32()),
                "cents": pa.array(np.maximum(self.cents, 1)),
            }
        )


@dataclass(frozen=True)
class Split:
    """A log at the end of a day, and what its customers did within ``horizon`` days after it.

    ``people`` are positions in ``log.ids`` of those with an order up to ``as_of``; ``orders`` (days with an order) and
    ``cents`` are theirs, after it.
    """

    name: str
    log: OrderLog
    as_of: int
    horizon: int
    people: Ints
    orders: Numbers
    cents: Numbers

    @classmethod
    def of(cls, name: str, log: OrderLog, as_of: date, horizon: int) -> Split:
        """Split a log."""
        day = number(as_of)
        people = np.flatnonzero(log.until(day).count())
        after = log.between(day, day + horizon)
        return cls(name, log, day, horizon, people, after.count()[people], after.sum()[people])

    @property
    def known(self) -> OrderLog:
        """The past, of which alone anything may learn."""
        return self.log.until(self.as_of)

    @property
    def day(self) -> date:
        """The last day that is known."""
        return EPOCH + timedelta(days=self.as_of)


def cdnow() -> OrderLog:
    """The CDNOW sample: every order counts, those of no value too, as in the published fits."""
    rows = pq.read_table(CDNOW)
    return OrderLog.of(rows["customer_id"].to_numpy(), _days(rows["date"]), _cents(rows["amount"]))


def online_retail() -> OrderLog:
    """The first year of Online Retail II; without cancellations, unknown customers, and lines of no quantity or price."""
    rows = pq.read_table(ONLINE_RETAIL)
    kept = rows.filter(
        (pc.field("quantity") > 0)
        & (pc.field("price") > 0)
        & pc.field("customer_id").is_valid()
        & ~pc.starts_with(pc.field("invoice"), "C")
    )
    paid = pc.multiply(kept["quantity"].cast("float64"), kept["price"])
    return OrderLog.of(kept["customer_id"].to_numpy(), _days(kept["invoice_date"]), _cents(paid))


def sample_shop(folder: Path) -> OrderLog:
    """Past and future orders of a generated shop by person; those who bought as guests alone have no truth and are left out.

    A person's second account counts as the first one, as the truth does.
    """
    from pyarrow.csv import read_csv

    truth = read_csv(folder / "truth" / "customers.csv")
    accounts = dict(zip(*(truth[c].to_pylist() for c in ("other_shop_customer_id", "shop_customer_id")), strict=True))
    whole = [
        read_csv(folder / name).select(["shop_customer_id", "ordered_at", "total"])
        for name in ("orders.csv", "truth/future_orders.csv")
    ]
    known = set(truth["shop_customer_id"].to_pylist())
    rows = pa.concat_tables(whole).drop_null()
    person = np.array([accounts.get(name) or name for name in rows["shop_customer_id"].to_pylist()])
    kept = np.isin(person, list(known))
    return OrderLog.of(person[kept], _days(rows["ordered_at"])[kept], _cents(rows["total"])[kept])


@dataclass(frozen=True)
class Habits:
    """How simulated people order.

    Rates are gamma(``shape``, mean 1 ÷ ``gap`` days); gaps are Erlang with ``stages``; people are gone after an order by
    beta(``gone``), or, where ``leave`` is given, at any time at rates gamma with that shape and mean time in days. The rate
    follows the year by ``season`` (amplitude; most in December), and drifts by ``drift`` (a normal step of its logarithm
    after every order). ``growth``: how the number of new people grows with time; 0 is even.
    """

    shape: float = 1.0
    gap: float = 60.0
    stages: int = 1
    gone: tuple[float, float] = (1.0, 4.0)
    leave: tuple[float, float] | None = None
    season: float = 0.0
    drift: float = 0.0
    growth: float = 0.0


#: Shops of which none is like another, so that tuning to a few public files would show.
SHOPS: Mapping[str, Habits] = {
    "Pareto/NBD people": Habits(shape=0.6, gap=50, leave=(0.7, 250)),
    "regular gaps": Habits(shape=2.0, gap=40, stages=4, gone=(1.0, 7.0)),
    "season and growth": Habits(shape=1.2, gap=70, season=0.5, growth=1.0),
    "drifting rates": Habits(shape=0.9, gap=45, gone=(0.8, 7.0), drift=0.35),
    "rare buyers": Habits(shape=0.5, gap=400, gone=(1.2, 2.0)),
}

#: First day of the simulated logs, and how many days they have.
BEGIN, DAYS = date(2022, 3, 1), 900


def simulate(habits: Habits, people: int = 4_000, seed: int = 0) -> OrderLog:
    """Orders of people who come over time; a third were there before the log begins, and are seen from their next order on."""
    rng = np.random.default_rng(seed)
    come = np.where(
        rng.random(people) < 0.35, rng.uniform(-365, 0, people), DAYS * rng.random(people) ** (1 / (1 + habits.growth))
    )
    rate = rng.gamma(habits.shape, 1 / (habits.shape * habits.gap), people)
    chance = rng.beta(*habits.gone, people) if habits.leave is None else np.zeros(people)
    until = np.full(people, np.inf)
    if habits.leave:
        shape, mean = habits.leave
        until = come + rng.exponential(1 / rng.gamma(shape, 1 / (shape * mean), people))
    worth = np.exp(rng.normal(3.5, 0.6, people))
    clock = _clock(habits.season)
    at, here = come.copy(), np.arange(people)
    who, day, cents = [], [], []
    while len(here):
        seen = here[at[here] >= 0]
        who.append(seen)
        day.append(np.floor(at[seen]).astype(np.int64))
        cents.append(np.rint(100 * worth[seen] * np.exp(rng.normal(0, 0.4, len(seen)))).astype(np.int64))
        here = here[rng.random(len(here)) >= chance[here]]
        gap = rng.gamma(habits.stages, 1 / (habits.stages * np.maximum(rate[here], 1e-9)))
        at[here] = clock(at[here], gap)
        rate[here] *= np.exp(rng.normal(0, habits.drift, len(here)))
        here = here[at[here] < np.minimum(until[here], DAYS)]
    names = np.array([f"c{person:06}" for person in range(people)])
    return OrderLog.of(
        names[np.concatenate(who)], np.concatenate(day) + number(BEGIN), np.maximum(np.concatenate(cents), 1)
    )


def _clock(season: float) -> Callable[[Numbers, Numbers], Numbers]:
    """Moves times on by gaps of a clock that is faster when people buy more."""
    days = np.arange(-366, DAYS + 4_000)
    year_day = (days + BEGIN.timetuple().tm_yday) % 365.25
    pace = 1 + season * np.cos(2 * np.pi * (year_day - 345) / 365.25)
    passed = np.concatenate([[0.0], np.cumsum(pace)[:-1]])
    return lambda at, gap: np.interp(np.interp(at, days, passed) + gap, passed, days, right=np.inf)


def _days(times: pa.ChunkedArray) -> Ints:
    return times.cast("timestamp[us]", safe=False).to_numpy().astype("datetime64[D]").astype(np.int64)


def _cents(amounts: pa.ChunkedArray) -> Ints:
    return np.rint(100 * amounts.to_numpy()).astype(np.int64)
