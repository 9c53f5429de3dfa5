"""What is true about every customer, for tests alone: habits and the chances of the next 90 days."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import gammainc, gammaincc

from shopauto_pipelines.sources.sample.files import Floats, flags, times
from shopauto_pipelines.sources.sample.mail import Mail
from shopauto_pipelines.sources.sample.people import Ids, People
from shopauto_pipelines.sources.sample.rhythm import FIRST_SCALE, FIRST_SHAPE, Rhythm
from shopauto_pipelines.sources.sample.shop import CATEGORIES, DAY, HORIZON_DAYS, SEASONS, Shop


def _chances(shop: Shop, people: People, rhythm: Rhythm, mail: Mail) -> tuple[Floats, Floats]:
    """Expected orders and probability of none in the next ``HORIZON_DAYS`` days, given everything that was drawn.

    The wait to the next purchase is the rest of a gamma interval, exact; later purchases come from the renewal function
    of an interval with drop-out, summed over the cells of a grid. A mail adds its probability while the person stays.
    """
    n = len(people)
    none, expected = np.ones(n), np.zeros(n)
    live = np.flatnonzero(rhythm.alive)
    season = people.season[live]
    now = shop.to_operational(season, shop.closes)
    horizon = shop.to_operational(season, shop.closes + HORIZON_DAYS * DAY) - now
    shape, scale = people.regularity[live], people.interval[live] / people.regularity[live]
    fresh = rhythm.pending[live]
    shape1, scale1 = np.where(fresh, FIRST_SHAPE, shape), np.where(fresh, FIRST_SCALE, scale)
    drop1, drop = np.where(fresh, people.first_drop[live], people.drop[live]), people.drop[live]
    waited = rhythm.waited[live]

    cells = 12
    edges = np.linspace(0.0, 1.0, cells + 1)[:, None] * horizon
    survival = gammaincc(shape1, (waited + edges) / scale1) / np.maximum(gammaincc(shape1, waited / scale1), 1e-300)
    mass = survival[:-1] - survival[1:]
    rest = (horizon - (edges[:-1] + edges[1:]) / 2).ravel()
    person = np.tile(np.arange(len(live)), cells)
    later, weight, nth = np.zeros(len(rest)), (1 - drop1)[person], 1
    todo = np.arange(len(rest))
    while len(todo) and nth <= 60:
        who = person[todo]
        term = weight[todo] * gammainc(nth * shape[who], rest[todo] / scale[who])
        later[todo] += term
        weight[todo] *= 1 - drop[who]
        todo, nth = todo[term > 1e-6], nth + 1
    orders = (mass * (1 + later.reshape(cells, -1))).sum(axis=0)

    stays, by_mail = np.ones(len(live)), np.zeros(len(live))
    per_mail = np.where(mail.subscribed[live] & ~fresh, mail.per_mail[live], 0.0)
    for sent_at, _ in shop.mailings:
        if sent_at >= shop.closes:
            part = (shop.to_operational(season, sent_at) - now) / horizon
            by_mail += per_mail * np.maximum(1 - drop * orders * part, 0)
            stays *= 1 - per_mail
    none[live] = survival[-1] * stays
    expected[live] = orders + by_mail
    return expected, none


def truth_rows(shop: Shop, people: People, rhythm: Rhythm, mail: Mail, ids: Ids) -> dict[str, Any]:
    """The rows of truth/customers.csv."""
    expected, none = _chances(shop, people, rhythm, mail)
    who = np.flatnonzero(~people.guest)
    left = rhythm.left_at[who]
    return {
        "shop_customer_id": ids.shop.take(pa.array(who)),
        "other_shop_customer_id": ids.second.take(pa.array(who)),
        "interval_days": pa.array(people.interval[who].round(2)),
        "regularity": pa.array(people.regularity[who].round(3)),
        "buyer": flags(people.buyer[who]),
        "alive": flags(rhythm.alive[who]),
        "dropped_out_at": times(np.where(left < shop.closes, left, 0), left < shop.closes),
        "favourite_category": pa.array(CATEGORIES).take(pa.array(people.love[who].argmax(axis=1))),
        "discount_seeker": flags(people.seeker[who]),
        "mail_responsiveness": pa.array(people.response[who].round(4)),
        "season": pa.array(SEASONS).take(pa.array(people.season[who])),
        "expected_orders_90d": pa.array(expected[who].round(4)),
        "probability_no_order_90d": pa.array(none[who].round(6)),
    }
