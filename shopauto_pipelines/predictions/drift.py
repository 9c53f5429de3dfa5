"""Drift: whether the people scored today are still like those the model in force was made for.

At training the card keeps, for each feature and for the forecast itself, deciles of the people and how many are in each. A day
is compared by the population stability index (PSI): the sum over bins of (share now - share then) · ln(share now / share then);
by custom 0.1 is a small change and above 0.25 a large one. With few people it is above 0 by chance alone, on average by
(bins - 1) · (1/people then + 1/people now) (Yurdakul 2018), and that much is allowed on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shopauto_pipelines.predictions.dataset import COLUMNS, Numbers

#: PSI beyond chance above which a change is large.
LARGE = 0.25
#: Rank correlation with the forecast, of the people at training, from which on a feature matters.
MATTERS = 0.1
#: Most people a profile is made from.
PEOPLE = 10_000
#: The forecast that is followed, by target: a column of ``predictions/scores``.
FORECASTS = {"churn": "churn_probability", "orders": "expected_orders_90d"}

Profile = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Drift:
    """How one feature or forecast has moved: ``psi``, the part of it that chance explains, means of the known values."""

    name: str
    psi: float
    by_chance: float
    then: float | None
    now: float | None
    matters: bool

    @property
    def large(self) -> bool:
        """Whether it is large, by more than chance, where it matters."""
        return self.matters and self.psi - self.by_chance > LARGE


def profile(features: Mapping[str, Numbers], forecast: str, values: Numbers) -> dict[str, dict[str, Any]]:
    """What a card keeps of the people at training: of each column, and of the ``forecast`` with its ``values``.

    ``edges`` (deciles, upper ends of the bins), ``counts`` (a bin each, one above the last edge, one for what is not known),
    ``mean`` of what is known, ``rank_correlation`` with the forecast.
    """
    found = {}
    for name, column in {**{name: features[name] for name in COLUMNS}, forecast: np.round(values, 6)}.items():
        known = column[np.isfinite(column)]
        edges = np.unique(np.quantile(known, np.arange(1, 10) / 10, method="inverted_cdf")) if len(known) else known
        found[name] = {
            "edges": [float(edge) for edge in edges],
            "counts": [int(count) for count in _counts(column, edges)],
            "mean": round(float(known.mean()), 6) if len(known) else None,
            "rank_correlation": _rank_correlation(column, values),
        }
    return found


def compare(then: Profile, people: Iterable[Mapping[str, Numbers]]) -> list[Drift]:
    """The drift of each column of a profile that the ``people``, in batches, have; the largest first."""
    counts: dict[str, Any] = {}
    sums: dict[str, tuple[float, int]] = {}
    for batch in people:
        for name in [name for name in then if name in batch]:
            column = batch[name]
            counts[name] = counts.get(name, 0) + _counts(column, np.array(then[name]["edges"]))
            total, known = sums.get(name, (0.0, 0))
            seen = np.isfinite(column)
            sums[name] = (total + float(column[seen].sum()), known + int(seen.sum()))
    drifts = []
    for name, now in counts.items():
        before = np.array(then[name]["counts"])
        total, known = sums[name]
        drifts.append(
            Drift(
                name,
                round(psi(before, now), 4),
                round(_by_chance(before, now), 4),
                then[name]["mean"],
                round(total / known, 6) if known else None,
                name in FORECASTS.values() or abs(then[name]["rank_correlation"]) >= MATTERS,
            )
        )
    return sorted(drifts, key=lambda drift: (-drift.psi, drift.name))


def psi(then: Numbers, now: Numbers) -> float:
    """Population stability index of people counted in the same bins; half a person is added to each, as none may be empty."""
    before, after = ((counts + 0.5) / (counts + 0.5).sum() for counts in (then, now))
    return float(((after - before) * np.log(after / before)).sum())


def merged(one: Profile, other: Profile) -> Profile:
    """The profiles of two targets over the same people: a column matters as much as it does for one of them."""
    both = {name: (one.get(name, column), column) for name, column in other.items()}
    return {**one, **{name: max(pair, key=lambda each: abs(each["rank_correlation"])) for name, pair in both.items()}}


def _counts(values: Numbers, edges: Numbers) -> Any:
    known = np.isfinite(values)
    bins = np.where(known, np.searchsorted(edges, values), len(edges) + 1)
    return np.bincount(bins, minlength=len(edges) + 2)


def _by_chance(then: Numbers, now: Numbers) -> float:
    used = int(((then + now) > 0).sum())
    return (used - 1) * (1 / max(int(then.sum()), 1) + 1 / max(int(now.sum()), 1))


def _rank_correlation(column: Numbers, forecast: Numbers) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(np.nan_to_num(values, nan=-np.inf)) for values in (column, forecast)]
    if min(map(np.ptp, ranks)) == 0:
        return 0.0
    return round(float(np.corrcoef(*ranks)[0, 1]), 4)
