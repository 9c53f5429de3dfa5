"""Purchases that come from a customer's own rhythm, up to the one after which the customer leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shopauto_pipelines.sources.sample.files import Bools, Floats, Ints
from shopauto_pipelines.sources.sample.people import People
from shopauto_pipelines.sources.sample.shop import DAY, HORIZON_DAYS, NEVER, Shop


@dataclass
class Rhythm:
    """The purchases that come from the own rhythm, and each person's state at the end."""

    person: Ints
    seconds: Ints
    bought_from: Ints  # seconds of the first purchase, ``NEVER`` where none
    left_at: Ints  # seconds of the purchase after which the person left, ``NEVER`` where not within the horizon
    alive: Bools  # a buyer who has not left by the end
    pending: Bools  # alive, first purchase still to come
    waited: Floats  # operational days since the last purchase, or since sign-up


FIRST_SHAPE, FIRST_SCALE = (
    0.35,
    30.0,
)  # sign-up to first purchase, operational days: most within the day, some weeks later


def draw_rhythm(rng: np.random.Generator, shop: Shop, people: People) -> Rhythm:
    """Lets everybody buy at the own pace until they leave or the 90 days after the end are over."""
    n = len(people)
    start = shop.to_operational(people.season, people.signup)
    close = shop.to_operational(people.season, shop.closes)
    limit = shop.to_operational(people.season, shop.closes + HORIZON_DAYS * DAY)
    at = start + rng.gamma(FIRST_SHAPE, FIRST_SCALE, n)
    last, first, left = start.copy(), np.full(n, np.inf), np.full(n, np.inf)
    active = np.flatnonzero(people.buyer & (at < limit))
    whom, when = [], []
    drop = people.first_drop
    while len(active):
        now = at[active]
        whom.append(active)
        when.append(now)
        first[active] = np.minimum(first[active], now)
        past = active[now < close[active]]
        last[past] = at[past]
        leaves = rng.random(len(active)) < drop[active]
        left[active[leaves]] = now[leaves]
        active = active[~leaves]
        at[active] += rng.gamma(people.regularity[active], people.interval[active] / people.regularity[active])
        active = active[at[active] < limit[active]]
        drop = people.drop
    person, operational = np.concatenate([*whom, np.empty(0, np.int64)]), np.concatenate([*when, np.empty(0)])
    everyone = np.arange(n)

    def seconds(values: Floats, who: Ints) -> Ints:
        known = np.isfinite(values)
        out = np.full(len(values), NEVER)
        out[known] = shop.to_seconds(people.season[who][known], people.country[who][known], values[known])
        return np.maximum(out, people.signup[who] + 150)  # the account comes before its first order

    alive = people.buyer & (left >= close)
    return Rhythm(
        person,
        seconds(operational, person),
        seconds(first, everyone),
        seconds(left, everyone),
        alive,
        alive & (first >= close),
        close - last,
    )
