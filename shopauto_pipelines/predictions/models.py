"""The models: probability of no order within the horizon, expected orders, and the time to the next order.

Each is a blend of two learners on the same inputs, a regularised linear one, which holds with a few hundred people, and
small boosted trees, which weigh more the more people there are. The buying process of :mod:`process` is the strongest
input of both. How they are tested and which is used is decided elsewhere (:mod:`backtest`, :mod:`store`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from shopauto_pipelines.predictions import process as buying
from shopauto_pipelines.predictions.dataset import HABIT, Numbers, Window
from shopauto_pipelines.predictions.process import BuyingProcess

#: Ends of the periods after the cut-off that the time to the next order is learned in, days; the last is the cap.
PERIODS = (7, 14, 21, 30, 45, 60, 75, 90, 120, 150, 180, 240, 300, 365)
#: Most rows (person × period) the timing learns from.
_TIMING_ROWS = 150_000
#: Cut-offs at which what was learned from them weighs as much as the buying process.
_CUT_OFFS_EVEN = 1.5
#: People at which trees have half of their greatest weight among the learners.
_PEOPLE_EVEN = 1_500
_SEED = 0


@dataclass(frozen=True)
class Input:
    """One input of the models: its name, the feature columns it is computed from, and whether more of it can only mean
    more orders (+1), fewer (-1) or either (0)."""

    name: str
    sources: tuple[str, ...]
    monotone: int = 0


INPUTS = (
    Input("process_orders_again", HABIT, 1),
    Input("process_expected", HABIT, 1),
    Input("process_alive", HABIT),
    Input("recency", ("recency_days",)),
    Input("tenure", ("tenure_days",)),
    Input("orders", ("orders",)),
    Input("orders_30d", ("orders_30d",)),
    Input("orders_90d", ("orders_90d",)),
    Input("interval", ("mean_interval_days",)),
    Input("churn_factor", ("churn_factor",)),
    Input("interval_imputed", ("interval_imputed",)),
    Input("average_order", ("average_order_cents",)),
    Input("revenue_90d", ("revenue_cents_90d",)),
    Input("coupon_share", ("coupon_orders_365d", "orders_365d")),
    Input("refund_share", ("refund_cents", "revenue_cents")),
    Input("visits_30d", ("visits_30d",), 1),
    Input("visits_90d", ("visits_90d",), 1),
    Input("product_views_30d", ("product_views_30d",), 1),
    Input("pages_per_visit", ("pages_per_visit_90d",)),
    Input("visit_recency", ("last_visit_on",)),
    Input("carts_started", ("carts_started_365d",)),
    Input("carts_abandoned_share", ("carts_abandoned_365d", "carts_started_365d")),
    Input("open_share", ("opens_90d", "emails_sent_90d")),
    Input("clicks_90d", ("clicks_90d",), 1),
    Input("click_recency", ("last_click_on",)),
)
_PROCESS_ORDERS_AGAIN, _PROCESS_EXPECTED = 0, 1
_MONOTONE = [column.monotone for column in INPUTS]
#: Feature columns the models read.
SOURCES = tuple(dict.fromkeys(source for column in INPUTS for source in column.sources))


def inputs(f: Mapping[str, Numbers], process: BuyingProcess, horizon: int) -> Numbers:
    """The matrix of :data:`INPUTS`, one row per person; NaN where not known."""
    habit = f["orders"], f["recency_days"], f["tenure_days"]
    columns = (
        logit(1 - process.silent(*habit, horizon)),
        np.log(process.expected(*habit, horizon) + 1e-3),
        process.alive(*habit),
        np.log1p(f["recency_days"]),
        np.log1p(f["tenure_days"]),
        np.log(f["orders"]),
        np.log1p(f["orders_30d"]),
        np.log1p(f["orders_90d"]),
        np.log1p(f["mean_interval_days"]),
        np.log(np.clip(f["churn_factor"], 0.02, 50)),
        f["interval_imputed"],
        np.log1p(np.maximum(f["average_order_cents"], 0)),
        np.log1p(np.maximum(f["revenue_cents_90d"], 0)),
        _share(f["coupon_orders_365d"], f["orders_365d"]),
        np.clip(_share(f["refund_cents"], f["revenue_cents"]), 0, 1),
        np.log1p(f["visits_30d"]),
        np.log1p(f["visits_90d"]),
        np.log1p(f["product_views_30d"]),
        f["pages_per_visit_90d"],
        np.log1p(f["last_visit_on"]),
        np.log1p(f["carts_started_365d"]),
        _share(f["carts_abandoned_365d"], f["carts_started_365d"]),
        _share(f["opens_90d"], f["emails_sent_90d"]),
        np.log1p(f["clicks_90d"]),
        np.log1p(f["last_click_on"]),
    )
    matrix = np.stack(columns, axis=1)
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def known(matrix: Numbers) -> Numbers:
    """The matrix for trees: what is not known is a value far below all others (trees fail on a column of NaN alone)."""
    return np.nan_to_num(matrix, nan=-10.0)


@dataclass(frozen=True)
class Linear:
    """A linear learner on standardised inputs; an input that never varies, or is not known, counts nothing."""

    mean: Numbers
    scale: Numbers
    weights: Numbers
    constant: float

    @staticmethod
    def standards(matrix: Numbers) -> tuple[Numbers, Numbers]:
        """Mean and spread of each column, 0 and 1 where nothing is known or nothing varies."""
        known = np.isfinite(matrix)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, matrix, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, matrix - mean, 0) ** 2).sum(axis=0) / count)
        return mean, np.where(spread > 1e-9, spread, 1.0)

    @staticmethod
    def standardise(matrix: Numbers, mean: Numbers, scale: Numbers) -> Numbers:
        """The columns in spreads from their mean, at most 4."""
        return np.clip(np.nan_to_num((matrix - mean) / scale), -4, 4)

    @classmethod
    def fit(cls, matrix: Numbers, outcome: Numbers, learner: Any) -> Linear:
        """Fit a scikit-learn linear model."""
        mean, scale = cls.standards(matrix)
        learner.fit(cls.standardise(matrix, mean, scale), outcome)
        return cls(mean, scale, np.ravel(learner.coef_).astype(float), float(np.ravel(learner.intercept_)[0]))

    def __call__(self, matrix: Numbers) -> Numbers:
        """The linear predictor. Summed row by row, so that a row's bits do not depend on the rows around it."""
        return (self.standardise(matrix, self.mean, self.scale) * self.weights).sum(axis=1) + self.constant


@dataclass(frozen=True)
class Weights:
    """What each part counts in the blend; they add up to 1."""

    process: float
    linear: float
    trees: float


class _Stored:
    """How a model becomes plain values, arrays and scikit-learn estimators, and is made of them again."""

    target: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """The parts by name, ours as dictionaries."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}  # type: ignore[arg-type]
        ours = {name: vars(part) for name, part in parts.items() if isinstance(part, tuple(_PARTS.values()))}
        return {"target": self.target, **parts, **ours}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The model of :meth:`as_dict`; raises ``TypeError`` or ``ValueError`` for other parts."""
        parts = dict(parts)
        if parts.pop("target") != cls.target:
            raise ValueError("a model of another target")
        return cls(**{name: _PARTS[name](**part) if name in _PARTS else part for name, part in parts.items()})


_PARTS: dict[str, Any] = {"process": BuyingProcess, "linear": Linear, "weights": Weights}


@dataclass(frozen=True)
class ChurnModel(_Stored):
    """P(no order within the horizon)."""

    target = "churn"

    process: BuyingProcess
    linear: Linear
    trees: Any
    weights: Weights
    horizon: int
    season: float

    @classmethod
    def fit(cls, windows: Sequence[Window], process: BuyingProcess, horizon: int, season: float) -> ChurnModel:
        """Learn from several cut-offs together."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

        matrix, outcome = _pooled(windows, process, horizon), np.concatenate([w.orders > 0 for w in windows])
        linear = Linear.fit(matrix, outcome, LogisticRegression(C=0.1, max_iter=500))
        trees = HistGradientBoostingClassifier(**_boosting(len(matrix))).fit(known(matrix), outcome)
        return cls(process, linear, trees, _weights(windows), horizon, season)

    def __call__(self, features: Mapping[str, Numbers]) -> Numbers:
        """Probability of no order in the horizon, in [0.001, 0.999]."""
        matrix = inputs(features, self.process, self.horizon)
        blend = (
            self.weights.process * matrix[:, _PROCESS_ORDERS_AGAIN]
            + self.weights.linear * self.linear(matrix)
            + self.weights.trees * logit(self.trees.predict_proba(known(matrix))[:, 1])
        )
        return np.clip((1 - sigmoid(blend)) ** self.season, 0.001, 0.999)


@dataclass(frozen=True)
class OrdersModel(_Stored):
    """Expected order days within the horizon, and the time to the next order."""

    target = "orders"

    process: BuyingProcess
    linear: Linear
    trees: Any
    weights: Weights
    timing: Any
    horizon: int
    season: float

    @classmethod
    def fit(cls, windows: Sequence[Window], process: BuyingProcess, horizon: int, season: float) -> OrdersModel:
        """Learn from several cut-offs together; times that were not seen to their end count as far as they were seen."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from sklearn.linear_model import PoissonRegressor

        matrix, outcome = _pooled(windows, process, horizon), np.concatenate([w.orders for w in windows])
        linear = Linear.fit(matrix, outcome, PoissonRegressor(alpha=0.01, max_iter=500))
        trees = HistGradientBoostingRegressor(loss="poisson", **_boosting(len(matrix))).fit(known(matrix), outcome)
        rows, ordered = _periods(windows, process)
        timing = HistGradientBoostingClassifier(**{**_boosting(len(rows)), "monotonic_cst": _TIMING_MONOTONE})
        timing.fit(known(rows), ordered)
        return cls(process, linear, trees, _weights(windows), timing, horizon, season)

    def __call__(self, features: Mapping[str, Numbers]) -> Numbers:
        """Expected order days in the horizon."""
        matrix = inputs(features, self.process, self.horizon)
        linear = np.exp(np.minimum(self.linear(matrix), np.log(self.horizon)))
        blend = (
            self.weights.process * np.exp(matrix[:, _PROCESS_EXPECTED])
            + self.weights.linear * linear
            + self.weights.trees * self.trees.predict(known(matrix))
        )
        return np.clip(blend * self.season, 0, self.horizon)

    def per_90_days(self, features: Mapping[str, Numbers]) -> Numbers | float:
        """What turns expected orders of the horizon into those of 90 days, by the buying process."""
        if self.horizon == 90:
            return 1.0
        habit = features["orders"], features["recency_days"], features["tenure_days"]
        return self.process.expected(*habit, 90) / np.maximum(self.process.expected(*habit, self.horizon), 1e-9)

    def next_order(
        self, features: Mapping[str, Numbers], quantiles: Sequence[float], churn: Numbers | None = None
    ) -> Numbers:
        """Days until the next order at each of ``quantiles``, one column each; infinite beyond a year.

        Where ``churn`` is given, hazards are stretched so that the probability of no order within the horizon is that.
        """
        many = len(features["orders"])
        ends = np.array([0.0, *PERIODS])
        hazards = np.empty((many, len(PERIODS)))
        for n, (start, end) in enumerate(pairwise(ends)):
            rows = _timing_inputs(features, self.process, start, end)
            hazards[:, n] = self.timing.predict_proba(known(rows))[:, 1]
        curve = np.concatenate(
            [np.zeros((many, 1)), np.cumsum(-np.log1p(-np.clip(hazards, 1e-6, 0.999)), axis=1)], axis=1
        )
        if churn is None:
            curve *= self.season
        else:
            at_horizon = np.array([np.interp(self.horizon, ends, row) for row in curve])
            curve *= np.clip(-np.log(churn) / at_horizon, 0.05, 20)[:, None]
        return np.stack([_days_at(curve, ends, -np.log1p(-quantile)) for quantile in quantiles], axis=1)


def fit_process(window: Window) -> BuyingProcess:
    """The buying process of the people of a cut-off, fitted without any outcome after it."""
    f = window.features
    return buying.fit(f["orders"], f["recency_days"], f["tenure_days"])


def season(year_before: Window, windows: Sequence[Window], horizon: int) -> float:
    """How many times the orders of the cut-offs learned from the coming horizon will see; 1: as many.

    The coming season is taken to be like that of the ``year_before``. Orders are compared with what one buying process
    expects of the people, so growth does not count as season; all windows are to know equally many days of history, or a
    customer base older than the data would. The less the windows differ from each other by more than chance, and from one
    year to the next, the more the factor is drawn towards 1.
    """
    everyone = [year_before, *windows]

    def habit(of: Sequence[Window]) -> tuple[Numbers, Numbers, Numbers]:
        orders, recency, tenure = (np.concatenate([w.features[name] for w in of]) for name in HABIT)
        return orders, recency, tenure

    process = buying.fit(*habit(everyone))

    def level(of: Sequence[Window]) -> tuple[float, float]:
        """Logarithm of orders ÷ expected orders, and its variance by chance."""
        orders = np.concatenate([w.orders for w in of])
        expected = process.expected(*habit(of), horizon)
        total = orders.sum() + _PULL
        return float(np.log(total / (expected.sum() + _PULL))), float(len(orders) * orders.var() / total**2)

    levels = np.array([level([w])[0] for w in everyone])
    (before, its_chance), (usual, usual_chance) = level([year_before]), level(windows)
    signal = float(levels.var(ddof=1))
    noise = its_chance + usual_chance + _YEARS_DIFFER**2
    return float(np.clip(np.exp((before - usual) * signal / (signal + noise)), 0.5, 2.0))


#: Orders that pull a level towards what the process expects.
_PULL = 100
#: Spread of what a season does to orders from one year to the next, as a share.
_YEARS_DIFFER = 0.1


@contextmanager
def one_thread() -> Iterator[None]:
    """Learn and predict on one thread: faster here than threads that wait for each other, and the same bits everywhere."""
    import sklearn.ensemble  # noqa: F401  (the limit holds only for libraries that are loaded)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def logit(p: Numbers) -> Numbers:
    """Log odds, finite."""
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p) - np.log1p(-p)


def sigmoid(x: Numbers) -> Numbers:
    """The inverse of :func:`logit`."""
    return 1 / (1 + np.exp(-x))


def _share(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _pooled(windows: Sequence[Window], process: BuyingProcess, horizon: int) -> Numbers:
    return np.concatenate([inputs(w.features, process, horizon) for w in windows])


def _weights(windows: Sequence[Window]) -> Weights:
    people = max(len(w) for w in windows)
    process = 1 / (1 + len(windows) / _CUT_OFFS_EVEN)
    trees = (1 - process) * 0.8 * people / (people + _PEOPLE_EVEN)
    return Weights(process, 1 - process - trees, trees)


def _boosting(rows: int) -> dict[str, Any]:
    return {
        "learning_rate": 0.06,
        "max_iter": 70,
        "max_leaf_nodes": 8,
        "min_samples_leaf": max(20, min(rows // 100, 200)),
        "l2_regularization": 5.0,
        "max_bins": 63,
        "early_stopping": False,
        "random_state": _SEED,
        "monotonic_cst": _MONOTONE,
    }


_TIMING_MONOTONE = [1, 0, 0, 0, 0, 0, 0, 0]


def _timing_inputs(f: Mapping[str, Numbers], process: BuyingProcess, start: float, end: float) -> Numbers:
    habit = f["orders"], f["recency_days"], f["tenure_days"]
    before = process.silent(*habit, start) if start else np.ones(len(f["orders"]))
    hazard = 1 - process.silent(*habit, end) / before
    middle = np.full(len(before), (start + end) / 2)
    phase = (f["recency_days"] + middle) / np.maximum(f["mean_interval_days"], 1)
    return np.stack(
        [
            logit(hazard),
            np.log(np.clip(phase, 0.02, 50)),
            np.log(np.clip(f["churn_factor"], 0.02, 50)),
            np.log(f["orders"]),
            np.log1p(f["recency_days"]),
            np.log1p(f["mean_interval_days"]),
            middle,
            np.log1p(f["orders_90d"]),
        ],
        axis=1,
    )


def _periods(windows: Sequence[Window], process: BuyingProcess) -> tuple[Numbers, Numbers]:
    """One row per person and period begun without an order, as far as the period was seen whole."""
    rows, ordered = [], []
    ends = (0, *PERIODS)
    for w in windows:
        for start, end in pairwise(ends):
            if end > w.observed:
                break
            waiting = w.next_in > start
            rows.append(
                _timing_inputs({name: values[waiting] for name, values in w.features.items()}, process, start, end)
            )
            ordered.append(w.next_in[waiting] <= end)
    matrix, outcome = np.concatenate(rows), np.concatenate(ordered).astype(float)
    step = max(1, -(-len(matrix) // _TIMING_ROWS))
    return matrix[::step], outcome[::step]


def _days_at(curve: Numbers, ends: Numbers, level: float) -> Numbers:
    """Where each row of the growing ``curve`` over ``ends`` reaches ``level``, by straight lines; infinite where it does not."""
    reached = curve >= level
    upper = np.where(reached.any(axis=1), reached.argmax(axis=1), 1)
    people = np.arange(len(curve))
    low, high = curve[people, upper - 1], curve[people, upper]
    days = ends[upper - 1] + (level - low) / np.maximum(high - low, 1e-12) * (ends[upper] - ends[upper - 1])
    return np.where(reached.any(axis=1), days, np.inf)
