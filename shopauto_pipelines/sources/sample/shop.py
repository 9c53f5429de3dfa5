"""What all customers of the sample shop share: calendar, seasons, hours, newsletters and the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from shopauto_pipelines.sources.sample.files import Floats, Ints, money, times
from shopauto_pipelines.sources.sample.lists import CATALOGUE, COMPLEMENTS, COUNTRIES, HOURS

HORIZON_DAYS = 90


DAY = 86_400


_BEFORE = 365  # days before the first exported day in which the shop already had customers


NEVER = np.int64(2**62)


CATEGORIES = tuple(CATALOGUE)


SEASONS = ("even", "spring", "christmas")


@dataclass(frozen=True)
class Shop:
    """What all customers share. Seconds count from 1970 in UTC; day 0 is ``_BEFORE`` days before the first exported."""

    customers: int
    start: date
    end: date
    origin: int  # seconds of day 0
    opens: int  # seconds of the first exported day
    closes: int  # seconds of the midnight that ends the last exported day
    season_clock: Floats  # [season, day] operational days since day 0, at the start of each day
    signup_clock: Floats  # [day] part of the customers that signed up before the day
    catalogue: Catalogue

    @classmethod
    def of(cls, customers: int, months: int, end: date, seed: int) -> Shop:
        """The shop that ends on ``end`` after ``months`` months; the seed draws its price changes."""
        after = end + timedelta(days=1)
        years, month = divmod(after.year * 12 + after.month - 1 - months, 12)
        start = date(years, month + 1, min(after.day, 28))
        day0 = start - timedelta(days=_BEFORE)
        days = [day0 + timedelta(days=i) for i in range((end - day0).days + HORIZON_DAYS + 40)]
        known = (end - day0).days + 1
        signup = np.array([0.62 if i < _BEFORE else _pace("even", day) for i, day in enumerate(days[:known])])
        return cls(
            customers,
            start,
            end,
            seconds_of(day0),
            seconds_of(start),
            seconds_of(after),
            np.array([np.concatenate([[0.0], np.cumsum([_pace(s, day) for day in days])]) for s in SEASONS]),
            np.concatenate([[0.0], np.cumsum(signup) / signup.sum()]),
            Catalogue(
                np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))),
                seconds_of(start),
                seconds_of(after),
            ),
        )

    def to_operational(self, season: Ints, seconds: Ints | int) -> Floats:
        """Operational days of each time, in each customer's season."""
        days = (np.asarray(seconds) - self.origin) / DAY
        out = np.empty(len(season))
        for s in range(len(SEASONS)):
            at = season == s
            out[at] = np.interp(
                np.broadcast_to(days, season.shape)[at], np.arange(self.season_clock.shape[1]), self.season_clock[s]
            )
        return out

    def to_seconds(self, season: Ints, country: Ints, operational: Floats) -> Ints:
        """The inverse, with the time of day moved to where the country's people shop; keeps the order of times."""
        days = np.empty(len(season))
        for s in range(len(SEASONS)):
            at = season == s
            days[at] = np.interp(operational[at], self.season_clock[s], np.arange(self.season_clock.shape[1]))
        whole = np.floor(days)
        second = np.empty(len(season))
        for c, (quantiles, hours) in enumerate(HOUR_CLOCKS):
            at = country == c
            second[at] = np.interp((days - whole)[at], quantiles, hours) * 3600
        return (self.origin + whole * DAY + np.minimum(second, DAY - 1)).astype(np.int64)

    @cached_property
    def mailings(self) -> list[tuple[int, str]]:
        """Time and name of every newsletter, those of the 90 days after the end included; none in a last week."""
        found = []
        day, last = self.start, self.end + timedelta(days=HORIZON_DAYS)
        while day <= last:
            name = None
            if day.weekday() == 1 and day.day <= 7:
                name = f"newsletter-{day:%Y-%m}"
            elif (day.month, day.day) in _SALES:
                name = f"{_SALES[day.month, day.day]}-{day.year}"
            if name and not (timedelta(0) <= self.end - day < timedelta(days=7)) and last - day >= timedelta(days=7):
                found.append((seconds_of(day) + 9 * 3600, name))
            day += timedelta(days=1)
        return found


_SALES = {(3, 20): "spring-sale", (11, 27): "black-week", (1, 8): "white-sale"}


_PACES = {
    "even": (0.95, 0.88, 0.95, 1.0, 1.0, 0.95, 0.82, 0.82, 1.0, 1.02, 1.22, 1.42),
    "spring": (0.35, 0.6, 1.5, 2.1, 2.1, 1.6, 1.1, 0.7, 0.6, 0.4, 0.45, 0.5),
    "christmas": (0.7, 0.55, 0.6, 0.65, 0.7, 0.65, 0.55, 0.6, 0.8, 1.2, 2.3, 2.7),
}


_WEEKDAYS = (1.08, 0.99, 0.97, 0.96, 0.92, 0.94, 1.14)


def _pace(season: str, day: date) -> float:
    """How fast operational time runs on the day; about 1 over a year."""
    return _PACES[season][day.month - 1] * _WEEKDAYS[day.weekday()]


def _hour_clock(utc_offset: int) -> tuple[Floats, Floats]:
    hours = np.roll(np.array(HOURS, dtype=float), -utc_offset)
    return np.concatenate([[0.0], np.cumsum(hours) / hours.sum()]), np.arange(25.0)


HOUR_CLOCKS = [_hour_clock(country.utc_offset) for country in COUNTRIES]


def seconds_of(day: date) -> int:
    """Seconds from 1970 to the midnight that begins the day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


class Catalogue:
    """Products in one array per property; a fifth of them change their price once."""

    def __init__(self, rng: np.random.Generator, opens: int, closes: int) -> None:
        names, price, cost, category, durable = [], [], [], [], []
        for c, (_, text) in enumerate(CATALOGUE.items()):
            for line in sorted(text.splitlines(), key=lambda line: int(line.split("|")[1])):
                name, cents, unit_cost = line.split("|")
                names.append(name.rstrip("*"))
                price.append(int(cents))
                cost.append(int(unit_cost))
                category.append(c)
                durable.append(name.endswith("*"))
        self.names = names
        self.per_category = len(names) // len(CATEGORIES)
        self.category = np.array(category)
        self.durable = np.array(durable)
        self.cost = np.array(cost)
        self.ids = [f"P{c + 1}{i % self.per_category + 1:02d}" for i, c in enumerate(category)]
        self.price = np.array(price)
        changes = rng.random(len(names)) < 0.2
        self.new_price = (self.price * (100 + rng.integers(4, 13, len(names))) // 1000) * 10 + 9
        self.changed_at = np.where(
            changes, rng.integers(opens // DAY + 30, closes // DAY - 1 + 31, len(names)) * DAY, NEVER
        )
        index = {name: i for i, name in enumerate(names)}
        self.complements: list[list[int]] = [[index[n] for n in COMPLEMENTS.get(name, ())] for name in names]
        width = max(map(len, self.complements))
        self.complement = np.array([(c * width)[:width] if c else [-1] * width for c in self.complements])
        self.word = [name.rstrip("0123456789 klgm").lower().split()[-1] for name in names]

    def price_at(self, product: Ints, seconds: Ints) -> Ints:
        """Price in cents in force at the time."""
        return np.where(seconds >= self.changed_at[product], self.new_price[product], self.price[product])

    def rows(self, shop: Shop) -> dict[str, Any]:
        """The rows of products.csv: the opening day's, then the price changes up to the end."""
        later = np.flatnonzero(self.changed_at < shop.closes)
        later = later[np.argsort(self.changed_at[later], kind="stable")]
        product = np.concatenate([np.arange(len(self.names)), later])
        changed = np.concatenate([np.full(len(self.names), shop.opens), self.changed_at[later]])
        return {
            "product_id": [self.ids[i] for i in product],
            "changed_at": times(changed),
            "name": [self.names[i] for i in product],
            "category": [CATEGORIES[c] for c in self.category[product]],
            "price": money(self.price_at(product, changed)),
            "cost": money(self.cost[product]),
        }


@dataclass
class Counters:
    """Running numbers of the shop, so that ids stay short and unique over the blocks."""

    used: dict[str, int] = field(default_factory=dict)

    def take(self, name: str, count: int) -> int:
        """The first of ``count`` fresh numbers."""
        first = self.used.get(name, 1)
        self.used[name] = first + count
        return first
