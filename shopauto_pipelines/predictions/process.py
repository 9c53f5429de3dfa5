"""The buying process: people order at their own rate until they are gone. What every forecast starts from.

A Pareto/NBD of :mod:`btyd`. It needs no outcomes to be fitted, so it works with the shortest history. Only what turns a person's
habit into its inputs belongs here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD

Numbers = NDArray[np.float64]

#: Orders beyond this many say nothing new.
_ORDERS = 400
#: Keeps parameters moderate where there are few people.
_PENALTY = 0.1


@dataclass(frozen=True)
class BuyingProcess:
    """Fitted parameters: rates of ordering are gamma(``r``, ``alpha`` days), rates of leaving gamma(``s``, ``beta`` days).

    ``orders`` are order days so far (≥ 1), ``recency`` days since the last one, ``tenure`` days since the first one.
    """

    r: float
    alpha: float
    s: float
    beta: float

    def outlook(self, orders: Numbers, recency: Numbers, tenure: Numbers) -> Outlook:
        """What is expected of people, over as many horizons as are asked for."""
        return Outlook(self._model, habit_matrix(orders, recency, tenure))

    @cached_property
    def _model(self) -> ParetoNBD:
        from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD

        model = ParetoNBD()
        model.r_, model.alpha_, model.s_, model.beta_ = self.r, self.alpha, self.s, self.beta
        return model


@dataclass(frozen=True)
class Outlook:
    """The process's forecasts for the rows of ``X``; whether they are not gone is found out once for all horizons."""

    model: ParetoNBD
    X: Numbers

    @cached_property
    def alive(self) -> Numbers:
        """Probability that the person is not gone."""
        return self.model.probability_alive(self.X)

    def silent(self, days: float) -> Numbers:
        """Probability of no order in the next ``days``."""
        return 1 - self.alive * self.model.probability_of_order_if_alive(self.X, days)

    def expected(self, days: float) -> Numbers:
        """Expected order days in the next ``days``."""
        return self.alive * self.model.expected_orders_if_alive(self.X, days)


def fit(orders: Numbers, recency: Numbers, tenure: Numbers) -> BuyingProcess:
    """The likeliest process of people with ``orders`` (≥ 1), ``recency`` and ``tenure`` (days)."""
    from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD

    fitted = ParetoNBD(_PENALTY).fit(habit_matrix(orders, recency, tenure))
    return BuyingProcess(fitted.r_, fitted.alpha_, fitted.s_, fitted.beta_)


def habit_matrix(orders: Numbers, recency: Numbers, tenure: Numbers) -> Numbers:
    """The rows of :mod:`btyd`: repeat orders, time of the last one, age (days)."""
    return np.stack([np.minimum(orders, _ORDERS) - 1, tenure - recency, tenure], axis=1).astype(float)
