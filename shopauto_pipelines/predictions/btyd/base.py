"""What the models of order times share: their inputs, their fitting by maximum likelihood, and the questions they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from shopauto_pipelines.predictions.btyd.grouped import Numbers, coarsen, group, in_chunks, total_of

#: Bounds of the parameters' logarithms, with time in units of the mean age.
_BOUND = 12.0
#: Groups for the first, rough search from several starts.
_ROUGH = 2_000


class OrderTimes(BaseEstimator, ABC):
    """A model of when people order, with four positive parameters; subclasses say which.

    X has a row a person and three columns: repeat orders x (≥ 0), time t_x from the first order to the last, and age T, the
    time from the first order to now; 0 ≤ t_x ≤ T, and t_x is 0 where x is. Times are in any one unit, in which horizons are
    given and rates are fitted. Orders should be at most one a customer and day.

    ``penalty`` pulls the logarithm of every parameter (with time in units of the mean age) towards 0: penalty ÷ 2 × its
    square is taken off the log-likelihood. 0 is maximum likelihood; 0.1 keeps parameters moderate where there are few people
    and hardly matters where there are thousands. ``horizon`` is what ``predict`` looks ahead.

    After ``fit``: the parameters, ``log_likelihood_`` (of all people, without the penalty), ``groups_`` (groups it was fitted
    on), ``n_features_in_``.
    """

    #: Names of the fitted parameters; the second and those named in ``_times`` are times.
    _names: ClassVar[tuple[str, str, str, str]]
    _times: ClassVar[tuple[str, ...]] = ("alpha_",)
    #: Logarithms of the parameters where the search starts, with time in units of the mean age.
    _starts: ClassVar[tuple[tuple[float, float, float, float], ...]]

    def __init__(self, penalty: float = 0.0, horizon: float = 1.0) -> None:
        self.penalty = penalty
        self.horizon = horizon

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find the likeliest parameters; ``sample_weight`` (≥ 0) says how many people a row stands for.

        Raises ValueError, with the reason, for impossible rows.
        """
        people = check_people(X)
        weights = None if sample_weight is None else checked_weights(sample_weight, len(people))
        self.n_features_in_ = 3
        self._fit(*group(people, weights))
        return self

    def log_likelihood(self, X: ArrayLike) -> Numbers:
        """Logarithm of the likelihood of each row (density of the order times, in the unit of time of the fit)."""
        people = self._checked(X)
        return self._each(self._logs(), people)

    @abstractmethod
    def probability_alive(self, X: ArrayLike) -> Numbers:
        """Probability that the person is not gone yet. Not a churn score: see ``probability_of_order``."""

    def probability_of_order(self, X: ArrayLike, horizon: ArrayLike) -> Numbers:
        """Probability of at least one order in (T, T + ``horizon``]: 1 − L(x, t_x, T + h) ÷ L(x, t_x, T), exactly.

        ``horizon`` (≥ 0, may be infinite) is one number or one a row.
        """
        return self._forecast(self._order, X, horizon)

    def expected_orders(self, X: ArrayLike, horizon: ArrayLike) -> Numbers:
        """Expected number of orders in (T, T + ``horizon``]; infinite only where the horizon is and the mean does not exist."""
        return self._forecast(self._orders, X, horizon)

    def predict(self, X: ArrayLike) -> Numbers:
        """Expected orders within the constructor's ``horizon``."""
        return self.expected_orders(X, self.horizon)

    @abstractmethod
    def _terms(self, logs: Numbers, people: Numbers) -> tuple[Numbers, Numbers]:
        """Log-likelihood of each row (n,) and its derivatives by the logarithms of the parameters (4, n)."""

    @abstractmethod
    def _order(self, people: Numbers, horizon: Numbers) -> Numbers:
        """``probability_of_order`` of checked people, finite positive horizons or infinite ones."""

    @abstractmethod
    def _orders(self, people: Numbers, horizon: Numbers) -> Numbers:
        """``expected_orders`` of checked people, finite positive horizons or infinite ones."""

    def _fit(self, groups: Numbers, counts: Numbers) -> None:
        if not len(groups):
            raise ValueError("There is nobody to fit on: there are no rows, or all weights are zero.")
        unit = float(np.average(groups[:, 2], weights=counts)) or 1.0
        fine = coarsen(groups / [1, unit, unit], counts)
        rough = coarsen(*fine, _ROUGH)
        found = [self._search(np.array(start), *rough, tolerance=1e-6) for start in self._starts]
        logs, _ = self._search(min(found, key=lambda each: each[1])[0], *fine, tolerance=1e-13)
        for name, value in zip(self._names, np.exp(logs), strict=True):
            setattr(self, name, float(value) * (unit if name in self._times else 1))
        self.log_likelihood_ = float(total_of(self._each(self._logs(), groups), counts))
        self.groups_ = len(fine[0])

    def _each(self, logs: Numbers, people: Numbers) -> Numbers:
        return in_chunks(lambda *columns: self._terms(logs, np.stack(columns, axis=1))[0], *people.T)

    def _search(self, start: Numbers, groups: Numbers, counts: Numbers, tolerance: float) -> tuple[Numbers, float]:
        """The logarithms of the parameters that are best near ``start``, and their penalised loss per person."""
        total = float(counts.sum())

        def loss(logs: Numbers) -> tuple[float, Numbers]:
            each, slopes = self._terms(logs, groups)
            value = -total_of(each, counts) + self.penalty / 2 * (logs**2).sum()
            return float(value) / total, (-total_of(slopes, counts) + self.penalty * logs) / total

        options = {"maxiter": 500, "ftol": tolerance, "gtol": 1e-8}
        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-_BOUND, _BOUND)] * 4, options=options)
        return best.x, float(best.fun)

    def _logs(self) -> Numbers:
        return np.log([getattr(self, name) for name in self._names])

    def _forecast(self, function: Callable[[Numbers, Numbers], Numbers], X: ArrayLike, horizon: ArrayLike) -> Numbers:
        people = self._checked(X)
        ahead = np.broadcast_to(np.asarray(horizon, dtype=float), len(people)).astype(float)
        if not (ahead >= 0).all():
            raise ValueError("A horizon is a time of 0 or more.")
        values = np.zeros(len(people))
        some = ahead > 0
        values[some] = function(people[some], ahead[some])
        return values

    def _checked(self, X: ArrayLike) -> Numbers:
        check_is_fitted(self, self._names[0])
        return check_people(X)


def check_people(X: ArrayLike) -> Numbers:
    """X as numbers; ValueError where it is not what ``OrderTimes`` says."""
    people: Numbers = check_array(X, dtype=np.float64)
    if people.shape[1] != 3:
        raise ValueError(f"X has {people.shape[1]} columns, not 3: repeat orders, time of the last one, age.")
    x, last, age = people.T
    for wrong, what in (
        ((x < 0) | (last < 0), "have negative numbers"),
        (last > age, "ordered last after their age: the second column is at most the third"),
        ((x == 0) & (last > 0), "have no repeat order but a time of it: the second column is 0 where the first is"),
    ):
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} of {len(people)} people {what} (first: row {int(wrong.argmax())}).")
    return people


def product(probability: Numbers, value: Numbers) -> Numbers:
    """``probability`` × ``value``, which may be infinite; 0 where the probability is."""
    return probability * np.where(probability > 0, value, 0)


def checked_weights(sample_weight: ArrayLike, count: int) -> Numbers:
    """``sample_weight`` as numbers; ValueError where it is not one finite number ≥ 0 for each of ``count`` rows."""
    weights = np.asarray(sample_weight, dtype=float)
    if weights.shape != (count,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("sample_weight is one finite number ≥ 0 a row.")
    return weights
