"""People are gone by chance after an order: the arithmetic of the BG/NBD, the MBG/NBD and their relatives with regular gaps.

Each person's gaps between orders are Erlang-k with a rate that is gamma(r, alpha) over people (k = 1: exponential gaps), and
after an order they are gone with a probability that is beta(a, b) over people. Given the data and that the person is still
there after e chances to leave, that probability is beta(a, b + e), and the rate gamma(r + kx + j, alpha + T) if j of the k
stages of the current gap have passed.
"""

from __future__ import annotations

from math import lgamma, log
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, gammaln

from shopauto_pipelines.predictions.btyd.base import OrderTimes, product
from shopauto_pipelines.predictions.btyd.grouped import Numbers, in_chunks, per_kind


class GoneAfterOrder(OrderTimes):
    """A model in which people are gone after an order; see the module. ``_first`` is 1 where the first order counts, else 0."""

    _names = ("r_", "alpha_", "a_", "b_")
    _starts = ((0, 0, 0, 0), (-1, -2, -0.5, 1), (1, 0, -2, 1), (0.5, -2, -3, 0))
    _first: ClassVar[int]

    @property
    def _stages(self) -> int:
        """The number k of stages."""
        return 1

    def probability_alive(self, X: ArrayLike) -> Numbers:
        """Probability that the person is not gone yet. Not a churn score: see ``probability_of_order``."""
        return self._alive(self._checked(X))

    def _alive(self, people: Numbers) -> Numbers:
        logs = self._logs()

        def alive(*columns: Numbers) -> Numbers:
            silent, gone, _ = self._silence(logs, np.stack(columns, axis=1))
            return expit(silent - gone)

        return in_chunks(alive, *people.T[:3])

    def _silence(self, logs: Numbers, people: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Logarithms, up to one factor, of: no order since t_x by chance (n,), gone at t_x (n,), the stages of it (k, n)."""
        r, alpha, a, b = np.exp(logs)
        x, last, age = people.T
        stage = np.arange(self._stages)[:, None]
        shape = r + self._stages * x
        chances = x + self._first
        with np.errstate(divide="ignore", invalid="ignore"):
            waited = np.where(stage == 0, 0.0, stage * np.log(age - last))
            gone = np.where(chances > 0, log(a) - np.log(b + chances - 1), -np.inf) - shape * np.log(alpha + last)
        rising = _log_rising(shape, self._stages)
        stages = waited - np.array([[lgamma(j + 1)] for j in range(self._stages)]) + rising
        stages -= (shape + stage) * np.log(alpha + age)
        silent = stages[0] if self._stages == 1 else np.logaddexp.reduce(stages, axis=0)
        return silent, gone, stages

    def _terms(self, logs: Numbers, people: Numbers) -> tuple[Numbers, Numbers]:
        r, alpha, a, b = np.exp(logs)
        x, last, age = people.T
        repeats, repeat = np.unique(x, return_inverse=True)
        shape, chances = r + self._stages * repeats, repeats + self._first
        fixed = gammaln(shape) - gammaln(r) + r * logs[1] - repeats * lgamma(self._stages)
        fixed += gammaln(b + chances) - gammaln(a + b + chances) - gammaln(b) + gammaln(a + b)
        silent, gone, stages = self._silence(logs, people)
        both = np.logaddexp(silent, gone)
        stay, leave = np.exp(silent - both), np.exp(gone - both)
        log_age, log_last, n = np.log(alpha + age), np.log(alpha + last), shape[repeat]
        slopes = np.empty((4, len(people)))
        passed = np.exp(stages - silent)
        done = sum(j * passed[j] for j in range(self._stages))
        rising = sum(passed[j] * _sum_of_inverses(shape, j)[repeat] for j in range(1, self._stages))
        slopes[0] = (digamma(shape) - digamma(r) + logs[1])[repeat] + stay * (rising - log_age) - leave * log_last
        slopes[1] = r / alpha - stay * (n + done) / (alpha + age) - leave * n / (alpha + last)
        slopes[2] = (digamma(a + b) - digamma(a + b + chances))[repeat] + leave / a
        slopes[3] = (digamma(b + chances) - digamma(b) + digamma(a + b) - digamma(a + b + chances))[repeat]
        slopes[3] -= np.where(leave > 0, leave / np.where(leave > 0, (b + chances - 1)[repeat], 1), 0)
        return fixed[repeat] + both, slopes * np.exp(logs)[:, None]

    def _order(self, people: Numbers, horizon: Numbers) -> Numbers:
        silent = (self.r_ + people[:, 0]) * -np.log1p(horizon / (self.alpha_ + people[:, 2]))
        return self._alive(people) * -np.expm1(silent)

    def _orders(self, people: Numbers, horizon: Numbers) -> Numbers:
        return product(self._alive(people), per_kind(self._orders_if_alive, people[:, 0], people[:, 2], horizon))

    def _orders_if_alive(self, x: Numbers, age: Numbers, horizon: Numbers) -> Numbers:
        """Mean of (1 − e^(−λph)) ÷ p over λ, in closed form, and over p, by Gauss-Jacobi quadrature.

        Relative error < 1e-6, except where hundreds of orders came within a twentieth of the horizon (1e-3 at worst).
        """
        far = np.isinf(horizon)
        never_gone = self.a_ <= 1
        mean = np.inf if never_gone else (self.a_ + self.b_ + x + self._first - 1) / (self.a_ - 1)
        values = np.where(far, mean, 0.0)
        scale = np.where(far, 0, horizon) / (self.alpha_ + age)
        for low, high, nodes in ((0, 2, 24), (2, 20, 64), (20, np.inf, 200)):
            some = ~far & (scale >= low) & (scale < high)
            if some.any():
                chances, chance = np.unique(x[some] + self._first, return_inverse=True)
                points, weights = beta_quadrature(self.a_, self.b_ + chances, nodes)
                p, shape = points[chance], self.r_ + x[some]
                orders = -np.expm1(-shape[:, None] * np.log1p(p * scale[some][:, None])) / p
                values[some] = np.einsum("ij,ij->i", weights[chance], orders)
        return values


def beta_quadrature(a: float, b: Numbers, nodes: int) -> tuple[Numbers, Numbers]:
    """Return points in (0, 1) and weights, each (len(b), nodes), for means over the beta distributions beta(a, b).

    The Gauss-Jacobi rule by Golub & Welsch (1969): the eigenvalues of the Jacobi polynomials' three-term recurrence. Weights
    add up to one, so nothing overflows however large a and b are.
    """
    b = np.asarray(b, dtype=float)[:, None]
    i = np.arange(nodes)
    total = a + b - 2  # of the exponents of p and 1 − p
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (b - 1) ** 2 - (a - 1) ** 2
        diagonal = (1 - np.where(i == 0, (b - a) / (a + b), middle / ((2 * i + total) * (2 * i + total + 2)))) / 2
        j = i[1:]
        first = a * b / ((a + b) ** 2 * (a + b + 1))
        later = j * (j + a - 1) * (j + b - 1) * (j + total) / ((2 * j + total) ** 2 * ((2 * j + total) ** 2 - 1))
        off = np.sqrt(np.where(j == 1, first, later))
    matrix = np.zeros((len(b), nodes, nodes))
    matrix[:, i, i] = diagonal
    matrix[:, j, j - 1] = off  # eigh reads the lower triangle
    points, vectors = np.linalg.eigh(matrix)
    return np.clip(points, 1e-200, 1), vectors[:, 0, :] ** 2


def _log_rising(shape: Numbers, stages: int) -> Numbers:
    """log Γ(shape + j) − log Γ(shape) for j = 0 … stages − 1: (stages, n)."""
    rising = np.zeros((stages, len(shape)))
    for j in range(1, stages):
        rising[j] = rising[j - 1] + np.log(shape + j - 1)
    return rising


def _sum_of_inverses(shape: Numbers, j: int) -> Numbers:
    """ψ(shape + j) − ψ(shape)."""
    return np.sum([1 / (shape + i) for i in range(j)], axis=0)
