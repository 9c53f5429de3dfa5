"""The season: how the coming horizon differs from what the buying process expects, by what the same days saw a year before.

It is a factor of time: in a season of 0.8, ninety days are worth seventy-two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shopauto_pipelines.predictions import process
from shopauto_pipelines.predictions.dataset import Window

#: Orders that pull a level towards what the process expects.
_PULL = 100
#: Spread of what a season does to orders from one year to the next, as a share.
_YEARS_DIFFER = 0.1


def season(year_before: Window, windows: Sequence[Window], horizon: int) -> float:
    """How many times what the buying process expects the coming horizon will see; 1: as many.

    The coming season is that of the ``year_before``. ``windows`` lie in the year since then, and all know equally many days of
    history, as a customer base would look older otherwise. What counts is by how much the process of each day missed what
    came: growth and seasons that it sees by itself do not count as season. The less the windows were missed by more than
    chance, and from one year to the next, the more the factor is drawn towards 1.
    """
    missed, chances = np.array([_missed(w, horizon) for w in (year_before, *windows)]).T
    signal = max(float((missed**2).mean() - chances.mean()), 0.0)
    noise = float(chances[0]) + _YEARS_DIFFER**2
    return float(np.clip(np.exp(missed[0] * signal / (signal + noise)), 0.5, 2.0))


def _missed(window: Window, horizon: int) -> tuple[float, float]:
    """Logarithm of orders ÷ those that the process of the day expected, and its variance by chance."""
    habit, orders = window.people.habit, window.orders
    expected = process.fit(*habit).outlook(*habit).expected(horizon)
    total = float(orders.sum()) + _PULL
    return float(np.log(total / (expected.sum() + _PULL))), float(len(orders) * orders.var() / total**2)
