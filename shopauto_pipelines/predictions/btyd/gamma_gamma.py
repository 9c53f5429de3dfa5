"""Gamma-Gamma: what an order of a person is worth, from the number and the mean value of their orders.

Fader & Hardie (2013), The Gamma-Gamma model of monetary value; Fader, Hardie & Lee (2005), RFM and CLV, Journal of Marketing
Research 42. Values of orders are taken to be independent of their number; where they are not, that is the model's error.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from shopauto_pipelines.predictions.btyd.base import checked_weights
from shopauto_pipelines.predictions.btyd.grouped import Numbers, coarsen, group, total_of

#: The parameters that a penalty pulls towards, with money in units of the people's mean value: their mean is 1.
_CENTRE = np.log([1.0, 2.0, 1.0])
_STARTS = ((0.0, 0.7, 0.0), (2.0, 1.5, -1.0), (3.0, 3.0, 0.0))
_BOUND = 12.0


class GammaGamma(BaseEstimator):
    """A person's orders are gamma(``p_``, ν) in value, and ν is gamma(``q_``, ``v_`` money) over people.

    X has a row a person and two columns: orders with a value, x (≥ 0), and their mean value m (> 0 where x > 0; any one unit of
    money). People without such an order teach nothing, and are expected to spend what people do on average.

    The mean over people, p v ÷ (q − 1), exists only for q > 1, and is wild near it. Where the likeliest parameters have
    q ≤ 1, or a mean more than twice the one observed, the likeliest parameters *whose mean is the observed one* are taken
    instead (``mean_is_observed_``), so expectations are always finite.

    ``penalty`` ÷ 2 × the squared distance of the parameters' logarithms from p = 1, q = 2, v = mean value is taken off the
    log-likelihood: 0 is maximum likelihood, 0.1 keeps parameters moderate where there are few people.

    After ``fit``: ``p_``, ``q_``, ``v_``, ``log_likelihood_`` (without the penalty), ``mean_is_observed_``, ``n_features_in_``.
    """

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = penalty

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find the likeliest parameters; ``sample_weight`` (≥ 0) says how many people a row stands for.

        Raises ValueError, with the reason, for impossible rows and where nobody has an order with a value.
        """
        people = _checked(X)
        weights = np.ones(len(people)) if sample_weight is None else checked_weights(sample_weight, len(people))
        paid = (people[:, 0] > 0) & (weights > 0)
        if not paid.any():
            raise ValueError("Nobody has an order with a value, so there is nothing to learn from.")
        self.n_features_in_ = 2
        people, weights = people[paid], weights[paid]
        mean = float(np.average(people[:, 1], weights=weights))
        values = np.log(people[:, 1] / mean)
        least = float(values.min())
        groups, counts = coarsen(*group(np.column_stack([people[:, 0], values - least]), weights))
        logs = self._search(groups[:, 0], groups[:, 1] + least, counts)[0]
        p, q, v = np.exp(logs)
        self.mean_is_observed_ = bool(q <= 1 or p * v / (q - 1) > 2)
        if self.mean_is_observed_:
            logs = self._search_with_mean(groups[:, 0], groups[:, 1] + least, counts)[0]
            p, q, v = np.exp(logs)
        self.p_, self.q_, self.v_ = float(p), float(q), float(v) * mean
        self.log_likelihood_ = float(total_of(self.log_likelihood(people), weights))
        return self

    def log_likelihood(self, X: ArrayLike) -> Numbers:
        """Logarithm of the density of each row's mean value, given its number of orders; 0 where there are none."""
        check_is_fitted(self, "p_")
        people = _checked(X)
        paid = people[:, 0] > 0
        values = np.zeros(len(people))
        logs = np.log([self.p_, self.q_, self.v_])
        values[paid] = _terms(logs, people[paid, 0], np.log(people[paid, 1]))[0]
        return values

    def expected_value(self, X: ArrayLike) -> Numbers:
        """Mean value of a future order: between the person's own mean and that of all, nearer to their own the more they have."""
        check_is_fitted(self, "p_")
        x, mean = _checked(X).T
        return self.p_ * (self.v_ + np.where(x > 0, x * mean, 0)) / (self.p_ * x + self.q_ - 1)

    def predict(self, X: ArrayLike) -> Numbers:
        """The same as ``expected_value``."""
        return self.expected_value(X)

    def _search(self, x: Numbers, values: Numbers, counts: Numbers) -> tuple[Numbers, float]:
        found = [_minimum(lambda logs: self._loss(logs, x, values, counts), start) for start in _STARTS]
        return min(found, key=lambda each: each[1])

    def _search_with_mean(self, x: Numbers, values: Numbers, counts: Numbers) -> tuple[Numbers, float]:
        """The best parameters with p v ÷ (q − 1) = 1: searched over log p and log (q − 1)."""

        def whole(free: Numbers) -> Numbers:
            return np.array([free[0], np.log1p(np.exp(free[1])), free[1] - free[0]])

        def loss(free: Numbers) -> tuple[float, Numbers]:
            value, slope = self._loss(whole(free), x, values, counts)
            share = 1 / (1 + np.exp(-free[1]))  # of q − 1 in q
            return value, np.array([slope[0] - slope[2], slope[1] * share + slope[2]])

        found = [_minimum(loss, start) for start in ((0.0, 0.0), (2.0, -1.0))]
        free, value = min(found, key=lambda each: each[1])
        return whole(free), value

    def _loss(self, logs: Numbers, x: Numbers, values: Numbers, counts: Numbers) -> tuple[float, Numbers]:
        each, slopes = _terms(logs, x, values)
        away = logs - _CENTRE
        value = -float(total_of(each, counts)) + self.penalty / 2 * float((away**2).sum())
        return value, -total_of(slopes, counts) + self.penalty * away


def _minimum(loss: object, start: tuple[float, ...]) -> tuple[Numbers, float]:
    options = {"maxiter": 500, "ftol": 1e-13, "gtol": 1e-7}
    bounds = [(-_BOUND, _BOUND)] * len(start)
    best = minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return best.x, float(best.fun)


def _terms(logs: Numbers, x: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Log-likelihood (n,) of ``x`` orders whose mean has the logarithm ``values``; derivatives by the parameters' logs (3, n)."""
    p, q, v = np.exp(logs)
    shape = p * x
    total = np.log(x * np.exp(values) + v)
    each = gammaln(shape + q) - gammaln(shape) - gammaln(q) + q * logs[2] - values
    each += shape * (values + np.log(x)) - (shape + q) * total
    rises = digamma(shape + q)
    slopes = np.stack(
        [
            x * (rises - digamma(shape) + values + np.log(x) - total),
            rises - digamma(q) + logs[2] - total,
            q / v - (shape + q) * np.exp(-total),
        ]
    )
    return each, slopes * np.exp(logs)[:, None]


def _checked(X: ArrayLike) -> Numbers:
    people: Numbers = check_array(X, dtype=np.float64)
    if people.shape[1] != 2:
        raise ValueError(f"X has {people.shape[1]} columns, not 2: orders with a value, their mean value.")
    x, mean = people.T
    for wrong, what in (
        (x < 0, "a negative number of orders"),
        ((x > 0) & (mean <= 0), "orders worth 0 or less on average"),
    ):
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {len(people)} people have {what} (first: row {int(wrong.argmax())}). "
                "Count only orders with a value above 0."
            )
    return people
