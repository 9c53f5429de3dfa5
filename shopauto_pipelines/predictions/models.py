"""The models: probability of no order within the horizon, expected orders and value, and the time to the next order.

Each starts from the forecast of the buying process (:mod:`process`) and corrects it person by person with two learners, a
regularised linear one and small boosted trees. Both see the process's forecast as an offset and learn, from several earlier
cut-offs at several horizons, only what differs from it; the level of each cut-off is taken out, so that growth and seasons
before do not become a property of people. How much each counts (:class:`Weights`) is chosen by the back-test. The level of a
forecast is that of the process as of now times the season's factor, never that of another time.

How models are tested and which is used is decided elsewhere (:mod:`backtest`, :mod:`store`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from shopauto_pipelines.predictions.dataset import HABIT, Numbers, People, Window
from shopauto_pipelines.predictions.inputs import Inputs, Standard, inputs, logit, shift, sigmoid
from shopauto_pipelines.predictions.process import BuyingProcess, Outlook

#: Ends of the periods after the cut-off that the time to the next order is learned in, days; the last is the cap.
PERIODS = (7, 14, 30, 60, 90, 150, 240, 365)
_ENDS = np.array([0.0, *PERIODS])
#: Quantiles of the next order's date: the 80 % interval and its middle.
QUANTILES = (0.1, 0.5, 0.9)
#: Orders at which the quantiles that were met count as much as those that are wanted.
_FEW_ORDERS = 100
#: Most rows the learners and (person × period) the timing learn from.
_ROWS, _TIMING_ROWS = 80_000, 150_000
#: A correction of expected orders is kept within these, as logarithms.
_LEAST, _MOST = -2.0, 1.5
#: What makes the pull on an offset's own coefficient negligible.
_FREE = 30.0
#: Orders that pull a window's level towards the process's.
_PULL = 5
#: Rows that trees are asked about at once.
_SLICE = 8_192
_SEED = 0


class Weights(NamedTuple):
    """What each learner counts in the blend; the buying process counts the rest."""

    linear: float
    trees: float


#: Before any back-test, for each target.
USUAL = {"churn": Weights(0.45, 0.45), "orders": Weights(0.4, 0.4)}


class Learning(NamedTuple):
    """What both targets learn from: rows of several windows, one below the other.

    ``matrix`` standardised inputs; ``again`` log odds of an order by the process, at the level of the window; ``expected``
    orders by the process, at that level; ``orders`` what came; ``weight`` what a row counts. ``gap``: how much higher, in log
    odds, the share who order is than the process's expected orders suggest.
    """

    matrix: Numbers
    again: Numbers
    expected: Numbers
    orders: Numbers
    weight: Numbers
    gap: float


def learning(windows: Sequence[Window], process: BuyingProcess, horizon: int) -> Learning | None:
    """The rows to learn from; ``None`` where no window has enough of both outcomes."""
    windows = [w for w in windows if w.tells]
    if not windows:
        return None
    step = max(1, -(-sum(map(len, windows)) // _ROWS))
    parts, gaps = [], []
    for whole in windows:
        w = whole.some(step)
        seen = inputs(w.features, process, w.horizon)
        # by all of its people: of a sample, none may have ordered
        level = np.log((whole.orders.mean() * len(w) + _PULL) / (seen.expected.sum() + _PULL))
        odds = shift(seen.orders_again, float((whole.orders > 0).mean()))
        gaps.append((odds - level, w.horizon))
        parts.append(
            (
                Standard.of(seen.matrix)(seen.matrix),
                seen.orders_again + odds,
                seen.expected * np.exp(level),
                w.orders,
                np.full(len(w), w.horizon / horizon),
            )
        )
    matrix, again, expected, orders, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Learning(matrix, again, expected, orders, weight, _mean_gap(gaps))


def _mean_gap(gaps: Sequence[tuple[float, int]]) -> float:
    """Weighted by horizon, and drawn towards none where there are few."""
    values, horizons = np.array(gaps).T
    return float(np.average(values, weights=horizons) * len(gaps) / (len(gaps) + 2))


class _Stored:
    """How a model becomes plain values, arrays and scikit-learn estimators, and is made of them again."""

    target: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """The parts by name, ours as dictionaries."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}  # type: ignore[arg-type]
        return {"target": self.target} | {name: _plain(part) for name, part in parts.items()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The model of :meth:`as_dict`; raises ``TypeError`` or ``ValueError`` for other parts."""
        parts = dict(parts)
        if parts.pop("target") != cls.target:
            raise ValueError("a model of another target")
        return cls(**{name: _PARTS[name](**part) if name in _PARTS and part else part for name, part in parts.items()})


def _plain(part: Any) -> Any:
    if isinstance(part, Weights):
        return part._asdict()
    return {f.name: getattr(part, f.name) for f in fields(part)} if isinstance(part, _OURS) else part


@dataclass(frozen=True)
class Linear:
    """A linear correction: weights of the standardised inputs, a constant, and the offset's own factor."""

    weights: Numbers
    constant: float
    offset: float = 1.0

    def __call__(self, matrix: Numbers) -> Numbers:
        """The linear predictor without the offset. Summed row by row: a row's bits do not depend on the rows around it."""
        return (matrix * self.weights).sum(axis=1) + self.constant


_OURS = (BuyingProcess, Standard, Linear)
_PARTS: dict[str, Any] = {"process": BuyingProcess, "standard": Standard, "linear": Linear, "weights": Weights}


@dataclass(frozen=True)
class ChurnModel(_Stored):
    """P(no order within the horizon). ``levels``: what aligns process, linear learner, trees, and their blend, in log odds."""

    target = "churn"

    process: BuyingProcess
    standard: Standard
    linear: Linear | None
    trees: Any
    weights: Weights
    levels: tuple[float, ...]
    horizon: int

    @classmethod
    def fit(
        cls,
        windows: Sequence[Window],
        present: People,
        process: BuyingProcess,
        horizon: int,
        season: float,
        weights: Weights = USUAL["churn"],
    ) -> ChurnModel:
        """Learn from ``windows`` for the people of the ``present``, whose forecast level is their process's."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

        standard = Standard.of(inputs(present.features, process, horizon).matrix)
        rows = learning(windows, process, horizon)
        at = _season_odds(present, process, horizon, season) + (rows.gap if rows else 0.0)
        if rows is None:
            return cls(process, standard, None, None, Weights(0, 0), (at, 0, 0, 0), horizon)
        outcome = rows.orders > 0
        learner = LogisticRegression(C=0.05, max_iter=1000)
        learner.fit(np.column_stack([rows.matrix, rows.again * _FREE]), outcome, sample_weight=rows.weight)
        *coefficients, own = learner.coef_[0]
        linear = Linear(np.array(coefficients), float(learner.intercept_[0]), float(own * _FREE))
        monotone = [1] + [0] * rows.matrix.shape[1]
        trees = HistGradientBoostingClassifier(**_boosting(len(outcome)), monotonic_cst=monotone)
        trees.fit(stepped(rows.again, rows.matrix), outcome, sample_weight=rows.weight)
        model = cls(process, standard, linear, trees, weights, (at, 0, 0, 0), horizon)
        base, *learned = model.parts(present.features)
        level = float(sigmoid(base).mean())
        model = replace(model, levels=(at, *(shift(part, level) for part in learned), 0))
        return model.weighed(weights, present)

    def weighed(self, weights: Weights, present: People) -> ChurnModel:
        """The same with other weights, at the level of the present."""
        if self.linear is None:
            return self
        parts = self.parts(present.features)
        level = float(sigmoid(parts[0]).mean())
        levels = (*self.levels[:3], shift(blend(parts, weights), level))
        return replace(self, weights=weights, levels=levels)

    def parts(self, features: Mapping[str, Numbers], seen: Inputs | None = None) -> tuple[Numbers, Numbers, Numbers]:
        """Log odds of an order by process, linear learner and trees, aligned with each other."""
        seen = seen or inputs(features, self.process, self.horizon)
        base = seen.orders_again + self.levels[0]
        if self.linear is None:
            return base, base, base
        matrix = self.standard(seen.matrix)
        linear = self.linear(matrix) + self.linear.offset * base + self.levels[1]
        trees = logit(predicted(self.trees, stepped(base, matrix))) + self.levels[2]
        return base, linear, trees

    def __call__(self, features: Mapping[str, Numbers], seen: Inputs | None = None) -> Numbers:
        """Probability of no order in the horizon, in [0.001, 0.999]; ``seen``: the model's inputs, where they are known."""
        odds = blend(self.parts(features, seen), self.weights) + self.levels[3]
        return np.clip(1 - sigmoid(odds), 0.001, 0.999)


@dataclass(frozen=True)
class OrdersModel(_Stored):
    """Expected order days and value, and the time to the next order.

    ``level`` aligns the corrected forecasts with the process's total. ``quantiles``: those of its own that are met as often as
    :data:`QUANTILES` say. ``spend``: the gamma-gamma model of what people spend on
    an order day (p, q, v; minor units), Fader & Hardie (2013).
    """

    target = "orders"

    process: BuyingProcess
    standard: Standard
    linear: Linear | None
    trees: Any
    weights: Weights
    level: float
    timing: Any
    spend: dict[str, float]
    horizon: int
    season: float
    quantiles: tuple[float, ...] = QUANTILES

    @classmethod
    def fit(
        cls,
        windows: Sequence[Window],
        present: People,
        process: BuyingProcess,
        horizon: int,
        season: float,
        weights: Weights = USUAL["orders"],
    ) -> OrdersModel:
        """Learn from ``windows`` for the people of the ``present``."""
        from sklearn.ensemble import HistGradientBoostingRegressor
        from sklearn.linear_model import PoissonRegressor

        standard = Standard.of(inputs(present.features, process, horizon).matrix)
        rows, spend = learning(windows, process, horizon), _fit_spend(present)
        timing = _fit_timing(windows, process) if rows else None
        if rows is None:
            return cls(process, standard, None, None, Weights(0, 0), 1.0, timing, spend, horizon, season)
        ratio, count = rows.orders / rows.expected, rows.expected * rows.weight  # a Poisson offset, as a weight
        learner = PoissonRegressor(alpha=0.02, max_iter=1000).fit(rows.matrix, ratio, sample_weight=count)
        linear = Linear(learner.coef_.astype(float), float(learner.intercept_))
        trees = HistGradientBoostingRegressor(loss="poisson", **_boosting(len(ratio)))
        trees.fit(stepped(None, rows.matrix), ratio, sample_weight=count)
        model = cls(process, standard, linear, trees, weights, 1.0, timing, spend, horizon, season)
        return model.weighed(weights, present)

    def weighed(self, weights: Weights, present: People) -> OrdersModel:
        """The same with other weights, at the level of the present."""
        if self.linear is None:
            return self
        expected, *logs = self.parts(present.features)
        corrected = expected * corrections(logs, weights)
        return replace(self, weights=weights, level=float(expected.sum() / corrected.sum()))

    def parts(self, features: Mapping[str, Numbers], seen: Inputs | None = None) -> tuple[Numbers, Numbers, Numbers]:
        """Expected orders by the process, and the logarithm of the correction by linear learner and trees."""
        seen = seen or inputs(features, self.process, self.horizon)
        if self.linear is None:
            return seen.expected, np.zeros(len(seen.expected)), np.zeros(len(seen.expected))
        matrix = self.standard(seen.matrix)
        return (
            seen.expected,
            self.linear(matrix),
            np.log(np.maximum(predicted(self.trees, stepped(None, matrix)), 1e-6)),
        )

    def __call__(self, features: Mapping[str, Numbers], *days: int, seen: Inputs | None = None) -> Numbers:
        """Expected order days in the horizon, or within each of ``days`` (a column each)."""
        seen = seen or inputs(features, self.process, self.horizon)
        expected, *logs = self.parts(features, seen)
        factor = corrections(logs, self.weights) * self.level
        if not days:
            return np.clip(expected * factor * self.season, 0, self.horizon)
        seasons = [1 + (self.season - 1) * min(1.0, self.horizon / d) for d in days]  # known of the horizon alone
        forecasts = (seen.outlook.expected(d) * factor * s for d, s in zip(days, seasons, strict=True))
        return np.stack([np.clip(each, 0, d) for each, d in zip(forecasts, days, strict=True)], axis=1)

    def spent_per_order(self, features: Mapping[str, Numbers]) -> Numbers:
        """Expected total of an order day, minor units: the person's own mean drawn towards everybody's."""
        p, q, v = self.spend["p"], self.spend["q"], self.spend["v"]
        orders, mean = features["orders"], np.maximum(features["average_order_cents"], 1)
        return p * (v + orders * mean) / (p * orders + q - 1)

    def next_order(
        self, features: Mapping[str, Numbers], churn: Numbers | None = None, seen: Inputs | None = None
    ) -> Numbers:
        """Days until the next order, a column each: lower end and upper end of the 80 % interval, and between them the median.

        Whole days; infinite beyond a year. Where ``churn`` is given, dates agree with that probability of no order within
        the horizon.
        """
        outlook = seen.outlook if seen else self.process.outlook(*(features[name] for name in HABIT))
        curve = self._silence(features, churn, outlook)
        low, middle, high = (_days_at(curve, _ENDS, -np.log1p(-quantile)) for quantile in self.quantiles)
        # an order of day n came after n - 1 days
        low, middle, high = np.round(low) + 1, np.ceil(middle), np.round(high)
        return np.stack([np.minimum(low, middle), middle, np.maximum(high, middle)], axis=1).clip(min=1)

    def said_of(self, window: Window, churn: Numbers) -> Numbers:
        """How probable an order up to the day of the next one was said to be, and whether it came (1) or is not seen yet (0)."""
        seen = np.minimum(window.next_in, window.observed)
        outlook = self.process.outlook(*window.people.habit)
        said = -np.expm1(-_values_at(self._silence(window.features, churn, outlook), _ENDS, seen))
        return np.stack([said, np.isfinite(window.next_in)])

    def _silence(self, features: Mapping[str, Numbers], churn: Numbers | None, outlook: Outlook) -> Numbers:
        """Minus the logarithm of the probability of no order up to each of the periods' ends, a row a person."""
        many = len(features["orders"])
        hazards = np.empty((many, len(PERIODS)))
        for n, rows in enumerate(_timing_inputs(features, outlook)):
            hazards[:, n] = sigmoid(rows[:, 0]) if self.timing is None else predicted(self.timing, known(rows))
        silence = np.cumsum(-np.log1p(-np.clip(hazards, 1e-6, 0.999)), axis=1)
        curve = np.concatenate([np.zeros((many, 1)), silence], axis=1)
        if churn is None:
            return curve * self.season
        at_horizon = _values_at(curve, _ENDS, np.full(many, float(self.horizon)))
        return curve * np.clip(-np.log(churn) / at_horizon, 0.05, 20)[:, None]


def met_quantiles(said: Numbers) -> tuple[float, ...]:
    """The quantiles of a model that were met as often as :data:`QUANTILES` say, by its :meth:`OrdersModel.said_of`.

    What was said is uniform where a forecast is right (Dawid 1984). Its distribution is estimated by Kaplan & Meier (1958), as
    most orders are not seen yet, and drawn towards the uniform where there are few.
    """
    probability, came = said[:, np.lexsort((-said[1], said[0]))]
    share = 1 - np.cumprod(1 - came / np.arange(len(came), 0, -1))
    trust = came.sum() / (came.sum() + _FEW_ORDERS)
    met = [(wanted, int(np.searchsorted(share, wanted))) for wanted in QUANTILES]
    found = ((wanted, probability[at] if at < len(came) else wanted) for wanted, at in met)
    return tuple(float(wanted + trust * (own - wanted)) for wanted, own in found)


def blend(parts: Sequence[Numbers], weights: Weights) -> Numbers:
    """Log odds of the parts (process, linear, trees), weighed."""
    base, linear, trees = parts
    return base + weights.linear * (linear - base) + weights.trees * (trees - base)


def corrections(logs: Sequence[Numbers], weights: Weights) -> Numbers:
    """What expected orders are multiplied by: the learners' corrections (linear, trees; logarithms), weighed and bounded."""
    linear, trees = logs
    return np.exp(np.clip(weights.linear * linear + weights.trees * trees, _LEAST, _MOST))


def fit_process(people: People) -> BuyingProcess:
    """The buying process of the people of a cut-off, fitted without any outcome after it."""
    from shopauto_pipelines.predictions import process

    return process.fit(*people.habit)


@contextmanager
def one_thread() -> Iterator[None]:
    """Learn and predict on one thread: faster here than threads that wait for each other, and the same bits everywhere."""
    import sklearn.ensemble  # noqa: F401  (the limit holds only for libraries that are loaded)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def predicted(trees: Any, matrix: Numbers) -> Numbers:
    """What boosted trees say of each row: a probability where they tell classes apart, else a number.

    A few thousand rows at a time: each tree goes over all rows, and these stay in the processor's cache.
    """
    parts = (matrix[start : start + _SLICE] for start in range(0, len(matrix), _SLICE))
    if hasattr(trees, "predict_proba"):
        return np.concatenate([trees.predict_proba(part)[:, 1] for part in parts])
    return np.concatenate([trees.predict(part) for part in parts])


def stepped(odds: Numbers | None, matrix: Numbers) -> Numbers:
    """What trees see: log odds in steps of 0.2 (within ±6) and standardised inputs in steps of 0.1, which are their bins.

    Trees bin their inputs anyway; weighted quantiles for it would take longer than growing them.
    """
    columns = np.round(matrix, 1)
    return columns if odds is None else np.column_stack([np.round(np.clip(odds, -6, 6) * 5) / 5, columns])


def known(matrix: Numbers) -> Numbers:
    """The matrix for trees: what is not known is a value far below all others (trees fail on a column of NaN alone)."""
    return np.nan_to_num(matrix, nan=-10.0)


def _season_odds(present: People, process: BuyingProcess, horizon: int, season: float) -> float:
    """How much the log odds of an order are higher where the horizon is worth ``season`` times its days."""
    outlook = process.outlook(*present.habit)
    usual, coming = (1 - outlook.silent(days) for days in (horizon, horizon * season))
    return shift(logit(usual), float(coming.mean()))


def _fit_spend(present: People) -> dict[str, float]:
    from shopauto_pipelines.predictions.btyd.gamma_gamma import GammaGamma

    orders, mean = present.features["orders"], present.features["average_order_cents"]
    paid = mean > 0
    if not paid.any():
        return {"p": 0.0, "q": 2.0, "v": 0.0}
    model = GammaGamma(penalty=0.1).fit(np.column_stack([orders[paid], mean[paid]]))
    return {"p": model.p_, "q": model.q_, "v": model.v_}


def _fit_timing(windows: Sequence[Window], process: BuyingProcess) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, ordered = _periods(windows, process)
    if min(ordered.sum(), (1 - ordered).sum()) < 10:
        return None
    settings = {**_boosting(len(rows)), "max_iter": 25, "learning_rate": 0.1}  # asked for every person and period
    return HistGradientBoostingClassifier(**settings, monotonic_cst=_TIMING_MONOTONE).fit(known(rows), ordered)


def _boosting(rows: int) -> dict[str, Any]:
    return {
        "learning_rate": 0.05,
        "max_iter": 80,
        "max_leaf_nodes": 6,
        "min_samples_leaf": max(30, min(rows // 60, 300)),
        "l2_regularization": 5.0,
        "max_bins": 63,
        "early_stopping": False,
        "random_state": _SEED,
    }


_TIMING_MONOTONE = [1, 0, 0, 0, 0, 0, 0, 0]


def _timing_inputs(f: Mapping[str, Numbers], outlook: Outlook) -> Iterator[Numbers]:
    """The inputs of each period, one after the other; the first column is the hazard by the process, in log odds."""
    interval = np.maximum(f["mean_interval_days"], 1)
    fixed = [
        np.log(np.clip(f["churn_factor"], 0.02, 50)),
        np.log(f["orders"]),
        np.log1p(f["recency_days"]),
        np.log1p(f["mean_interval_days"]),
        np.log1p(f["orders_90d"]),
    ]
    before = np.ones(len(interval))
    for start, end in pairwise(_ENDS):
        after = outlook.silent(end)
        middle = (start + end) / 2
        phase = np.log(np.clip((f["recency_days"] + middle) / interval, 0.02, 50))
        yield np.stack([logit(1 - after / before), phase, np.full(len(before), middle), *fixed], axis=1)
        before = after


def _periods(windows: Sequence[Window], process: BuyingProcess) -> tuple[Numbers, Numbers]:
    """One row per person and period begun without an order, as far as the period was seen whole."""
    rows, ordered = [], []
    windows = list({w.people.cut_off: w for w in windows}.values())
    most = len(PERIODS) * sum(map(len, windows))
    for w in (whole.some(max(1, -(-most // _TIMING_ROWS))) for whole in windows):
        outlook = process.outlook(*w.people.habit)
        for (start, end), matrix in zip(pairwise(_ENDS), _timing_inputs(w.features, outlook), strict=True):
            if end > w.observed:
                break
            waiting = w.next_in > start
            rows.append(matrix[waiting])
            ordered.append(w.next_in[waiting] <= end)
    if not rows:
        return np.zeros((0, len(_TIMING_MONOTONE))), np.zeros(0)
    return np.concatenate(rows), np.concatenate(ordered).astype(float)


def _values_at(curve: Numbers, ends: Numbers, days: Numbers) -> Numbers:
    """The value of each row of ``curve`` over ``ends`` at its day, by straight lines; beyond the last end, by the last slope."""
    upper = np.clip(np.searchsorted(ends, days), 1, len(ends) - 1)
    people = np.arange(len(curve))
    share = (days - ends[upper - 1]) / (ends[upper] - ends[upper - 1])
    return curve[people, upper - 1] + share * (curve[people, upper] - curve[people, upper - 1])


def _days_at(curve: Numbers, ends: Numbers, level: float) -> Numbers:
    """Where each row of the growing ``curve`` over ``ends`` reaches ``level``, by straight lines; infinite where it does not."""
    reached = curve >= level
    upper = np.where(reached.any(axis=1), reached.argmax(axis=1), 1)
    people = np.arange(len(curve))
    low, high = curve[people, upper - 1], curve[people, upper]
    days = ends[upper - 1] + (level - low) / np.maximum(high - low, 1e-12) * (ends[upper] - ends[upper - 1])
    return np.where(reached.any(axis=1), days, np.inf)
