"""The naive rules every model has to beat, each one number per person, higher for those who are likelier to order again.

A rule is ranked by that number as it is. Where a metric needs a probability or a count, the number is turned into one by a
monotone (isotonic) fit on the very cut-offs the model learns from, so that a rule is never beaten for its units alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shopauto_pipelines.predictions.dataset import Numbers, Window
from shopauto_pipelines.predictions.process import BuyingProcess

#: People the isotonic fit needs on each step, at least; keeps a step from claiming certainty on a handful.
_STEP = 20


def scores(window: Window, process: BuyingProcess, horizon: int) -> Mapping[str, Numbers]:
    """Each rule's number for the people of a cut-off.

    ``bg_nbd`` is the probability of at least one order by the buying process, never its probability of being alive, which
    counts people with a single old order as safe.
    """
    f = window.features
    return {
        "recency": -f["recency_days"],
        "frequency": f["orders"],
        "churn_factor": -np.nan_to_num(f["churn_factor"], nan=np.inf),
        "same_as_last_period": window.last_period,
        "bg_nbd": 1 - process.silent(f["orders"], f["recency_days"], f["tenure_days"], horizon),
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
