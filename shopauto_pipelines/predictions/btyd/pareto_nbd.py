"""Pareto/NBD: people are gone at any time, at a rate of their own.

Schmittlein, Morrison & Colombo (1987), Counting your customers: who are they and what will they do next?, Management Science 33.
The likelihood is written as an integral over the time of leaving (Fader & Hardie 2005, A note on deriving the Pareto/NBD model)
and done by quadrature: every term is positive, so nothing cancels, and no hypergeometric function is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, gammaln

from shopauto_pipelines.predictions.btyd.base import OrderTimes, product
from shopauto_pipelines.predictions.btyd.grouped import CHUNK, Numbers, per_kind


class ParetoNBD(OrderTimes):
    """Rates of ordering are gamma(``r_``, ``alpha_`` time), rates of leaving gamma(``s_``, ``beta_`` time).

    For rows, ``penalty`` and ``horizon`` see ``OrderTimes``.
    """

    _names = ("r_", "alpha_", "s_", "beta_")
    _times = ("alpha_", "beta_")
    _starts = ((0, 0, 0, 0), (-1, -2, -1, -1), (0.5, -1, -2, 0))

    def probability_alive(self, X: ArrayLike) -> Numbers:
        """Probability that the person is not gone yet. Not a churn score: see ``probability_of_order``."""
        return self._alive(self._checked(X))

    def probability_of_order_if_alive(self, X: ArrayLike, horizon: ArrayLike) -> Numbers:
        """``probability_of_order`` of those who are not gone: that of anybody is this times ``probability_alive``."""
        return self._forecast(
            lambda people, ahead: per_kind(self._order_if_alive, people[:, 0], people[:, 2], ahead), X, horizon
        )

    def expected_orders_if_alive(self, X: ArrayLike, horizon: ArrayLike) -> Numbers:
        """``expected_orders`` of those who are not gone: those of anybody are these times ``probability_alive``."""
        return self._forecast(self._orders_if_alive, X, horizon)

    def _alive(self, people: Numbers) -> Numbers:
        logs = self._logs()

        def alive(*columns: Numbers) -> Numbers:
            silent, gone = self._silence(logs, np.stack(columns, axis=1))[:2]
            return expit(silent - gone)

        return per_kind(alive, *people.T)

    def _silence(self, logs: Numbers, people: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Logarithms, up to one factor, of: silent by chance (n,), gone since (n,); moments of the time of leaving."""
        r, alpha, s, beta = np.exp(logs)
        x, last, age = people.T
        n = r + x
        silent = -n * np.log(alpha + age) - s * np.log(beta + age)
        area, times, shares = _integral(last, age, alpha, n, beta, s + 1)
        with np.errstate(divide="ignore"):
            gone = logs[2] - n * np.log(alpha + last) - (s + 1) * np.log(beta + last) + np.log(area)
        return silent, gone, times, shares

    def _terms(self, logs: Numbers, people: Numbers) -> tuple[Numbers, Numbers]:
        values, slopes = np.empty(len(people)), np.empty((4, len(people)))
        for start in range(0, len(people), CHUNK):
            part = slice(start, start + CHUNK)
            values[part], slopes[:, part] = self._block(logs, people[part])
        return values, slopes

    def _block(self, logs: Numbers, people: Numbers) -> tuple[Numbers, Numbers]:
        r, alpha, s, beta = np.exp(logs)
        x, _, age = people.T
        n = r + x
        silent, gone, times, shares = self._silence(logs, people)
        both = np.logaddexp(silent, gone)
        stay, leave = np.exp(silent - both), np.exp(gone - both)
        order, drop = alpha + times, beta + times

        def mean(of: Numbers) -> Numbers:
            return np.einsum("ij,ij->i", shares, of)

        slopes = np.empty((4, len(people)))
        slopes[0] = digamma(n) - digamma(r) + logs[1] - stay * np.log(alpha + age) - leave * mean(np.log(order))
        slopes[1] = r / alpha - n * (stay / (alpha + age) + leave * mean(1 / order))
        slopes[2] = logs[3] - stay * np.log(beta + age) + leave * (1 / s - mean(np.log(drop)))
        slopes[3] = s / beta - stay * s / (beta + age) - leave * (s + 1) * mean(1 / drop)
        return gammaln(n) - gammaln(r) + r * logs[1] + s * logs[3] + both, slopes * np.exp(logs)[:, None]

    def _order(self, people: Numbers, horizon: Numbers) -> Numbers:
        return self._alive(people) * per_kind(self._order_if_alive, people[:, 0], people[:, 2], horizon)

    def _order_if_alive(self, x: Numbers, age: Numbers, horizon: Numbers) -> Numbers:
        """The next order comes at u, and the person is there until then: an integral over u."""
        n = self.r_ + x
        area = _integral(age, age + horizon, self.alpha_, n + 1, self.beta_, self.s_)[0]
        return np.minimum(n / (self.alpha_ + age) * area, 1)

    def _orders(self, people: Numbers, horizon: Numbers) -> Numbers:
        return product(self._alive(people), self._orders_if_alive(people, horizon))

    def _orders_if_alive(self, people: Numbers, horizon: Numbers) -> Numbers:
        x, _, age = people.T
        rate = (self.r_ + x) / (self.alpha_ + age)
        ahead = np.log1p(horizon / (self.beta_ + age))
        more = (self.s_ - 1) * ahead  # (1 − e^(−(s−1)ahead)) ÷ (s − 1), also where s is 1
        with np.errstate(over="ignore", invalid="ignore"):
            time = ahead * np.where(np.abs(more) < 1e-12, 1, -np.expm1(-more) / np.where(more == 0, 1, more))
        time = np.where(np.isinf(horizon), np.inf if self.s_ <= 1 else 1 / max(self.s_ - 1, 1e-300), time)
        return rate * (self.beta_ + age) * time


def _rule(nodes: int) -> tuple[Numbers, Numbers]:
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return points / 2 + 0.5, weights / 2


#: Gauss-Legendre rules on (0, 1): for times of one order of magnitude or several, and for those of more.
_NEAR, _FAR = _rule(20), _rule(160)
#: Logarithm of a time ratio beyond which the first is not enough, and beyond which the integrand is a power of the time.
_MANY, _EVER = 8.0, 40.0


def _integral(
    low: Numbers, high: Numbers, alpha: float, n: Numbers, beta: float, s: float
) -> tuple[Numbers, Numbers, Numbers]:
    """∫ from ``low`` to ``high`` of f(u) ÷ f(low) du, f(u) = (alpha + u)^−n (beta + u)^−s; n + s > 1; ``high`` may be infinite.

    Returns the integral (rows,), the points u of the quadrature and each one's share of it (rows, nodes). Gauss-Legendre after
    two changes of variable: y = log((m + u) ÷ (m + low)), m = min(alpha, beta), in which f falls exponentially, and
    1 − e^(−ρy), ρ being a quarter of the speed of that fall at ``low``: there f is nearly a cubic. Relative error < 1e-8.
    """
    reach = np.log1p((high - low) / (min(alpha, beta) + low))
    far = reach > _MANY
    if not far.any():
        return _by_rule(low, reach, alpha, n, beta, s, _NEAR)
    nodes = len(_FAR[0])
    area, times, shares = np.empty(len(low)), np.zeros((len(low), nodes)), np.zeros((len(low), nodes))
    for some, rule in ((far, _FAR), (~far, _NEAR)):
        used = slice(len(rule[0]))
        area[some], times[some, used], shares[some, used] = _by_rule(
            low[some], reach[some], alpha, n[some], beta, s, rule
        )
    return area, times, shares


def _by_rule(
    low: Numbers, reach: Numbers, alpha: float, n: Numbers, beta: float, s: float, rule: tuple[Numbers, Numbers]
) -> tuple[Numbers, Numbers, Numbers]:
    """``_integral`` by one ``rule``, up to y = ``reach``."""
    points, weights = rule
    start, power = (min(alpha, beta) + low)[:, None], n[:, None]
    slow, fast = (alpha + low)[:, None], (beta + low)[:, None]
    most = np.minimum(reach, _EVER)[:, None]
    fall = np.maximum(power * start / slow + s * start / fast - 1, 1e-6) / 4

    def integrand(y: Numbers, ahead: Numbers) -> Numbers:
        return y - power * np.log1p(ahead / slow) - s * np.log1p(ahead / fast)

    end = -np.expm1(-fall * most)
    y = -np.log1p(-end * points) / fall
    ahead = np.expm1(y) * start
    each = np.exp(integrand(y, ahead) + fall * y) * weights
    sums = each.sum(axis=1)
    area = sums * (start * end / fall)[:, 0]
    if (reach > _EVER).any():  # the integrand is a power of the time from there
        last = np.exp(integrand(most, np.expm1(most) * start)) * start
        missing = -np.expm1(-(power + s - 1) * (reach[:, None] - most)) / (power + s - 1)
        area += np.where(reach > _EVER, (last * missing)[:, 0], 0)
    return area, low[:, None] + ahead, each / sums[:, None]
