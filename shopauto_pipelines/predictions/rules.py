"""The naive rules every model has to beat, each one number per person, higher for those who are likelier to order again.

A rule is ranked by that number as it is. Where a metric needs a probability or a count, the number is turned into one by a
monotone (isotonic) fit on the very cut-offs the model learns from, so that a rule is never beaten for its units alone. The
models of the books (BG/NBD, Pareto/NBD) forecast both themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shopauto_pipelines.predictions.dataset import Numbers, People, Window
from shopauto_pipelines.predictions.process import BuyingProcess, habit_matrix

if TYPE_CHECKING:
    from shopauto_pipelines.predictions.btyd.bg_nbd import BGNBD

#: People the isotonic fit needs on each step, at least; keeps a step from claiming certainty on a handful.
_STEP = 20


@dataclass(frozen=True)
class Books:
    """BG/NBD and Pareto/NBD of the books, fitted to the people of a cut-off without any outcome after it.

    Forecasts by name: probability of at least one order, and expected orders.
    """

    bg_nbd: BGNBD
    pareto_nbd: BuyingProcess

    @classmethod
    def fit(cls, people: People, process: BuyingProcess) -> Books:
        """Fit the BG/NBD beside the ``process`` of the same people."""
        from shopauto_pipelines.predictions.btyd.bg_nbd import BGNBD

        return cls(BGNBD(penalty=0.1).fit(habit_matrix(*people.habit)), process)

    def again(self, people: People, horizon: int) -> dict[str, Numbers]:
        """Each model's probability of at least one order."""
        habit = people.habit
        bg_nbd = self.bg_nbd.probability_of_order(habit_matrix(*habit), horizon)
        return {"bg_nbd": bg_nbd, "pareto_nbd": 1 - self.pareto_nbd.outlook(*habit).silent(horizon)}

    def expected(self, people: People, horizon: int) -> dict[str, Numbers]:
        """Each model's expected orders."""
        habit = people.habit
        bg_nbd = self.bg_nbd.expected_orders(habit_matrix(*habit), horizon)
        return {"bg_nbd": bg_nbd, "pareto_nbd": self.pareto_nbd.outlook(*habit).expected(horizon)}


def scores(window: Window, books: Books) -> Mapping[str, Numbers]:
    """Each rule's number for the people of a window.

    ``bg_nbd`` and ``pareto_nbd`` are the probability of at least one order, never that of being alive, by which BG/NBD counts
    people with a single old order as safe.
    """
    f = window.features
    return {
        "recency": -f["recency_days"],
        "frequency": f["orders"],
        "churn_factor": -np.nan_to_num(f["churn_factor"], nan=np.inf),
        "same_as_last_period": window.last_period,
        **books.again(window.people, window.horizon),
    }


@dataclass(frozen=True)
class CalibratedRule:
    """A rule's number turned into the mean outcome of people with such a number."""

    fitted: Callable[[Numbers], Numbers]

    @classmethod
    def fit(cls, numbers: Sequence[Numbers], outcomes: Sequence[Numbers], increasing: bool = True) -> CalibratedRule:
        """Learn the mean ``outcomes`` by rule ``numbers`` over several cut-offs."""
        from sklearn.isotonic import IsotonicRegression

        x, y = _finite(np.concatenate(numbers)), np.concatenate(outcomes).astype(float)
        order = np.lexsort((y, x))
        x, y = x[order], y[order]
        starts = np.flatnonzero(np.concatenate([[True], np.diff(x) > 0]))
        kept = [0]
        for start in starts[1:]:
            if start - kept[-1] >= _STEP and len(x) - start >= _STEP:
                kept.append(int(start))
        sizes = np.diff([*kept, len(x)])
        means = [np.add.reduceat(values, kept) / sizes for values in (x, y)]
        return cls(
            IsotonicRegression(increasing=increasing, out_of_bounds="clip")
            .fit(means[0], means[1], sample_weight=sizes)
            .predict
        )

    def __call__(self, numbers: Numbers) -> Numbers:
        """The mean outcome at each number."""
        return self.fitted(_finite(numbers))


def _finite(numbers: Numbers) -> Numbers:
    return np.clip(numbers, -1e9, 1e9)
