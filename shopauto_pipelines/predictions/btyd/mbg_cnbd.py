"""MBG/CNBD-k: the MBG/NBD for people who order at regular gaps, such as a grocer's.

Platzer & Reutterer (2016), Ticking away the moments: timing regularity helps to better predict customer activity, Marketing
Science 35; Reutterer, Platzer & Schröder (2021), Leveraging purchase regularity for predicting customer behavior the easy way,
International Journal of Research in Marketing 38. Gaps between orders are Erlang-k: k stages, each exponential. The larger k
is, the more regular are the gaps, and the sooner silence means that somebody is gone.

Forecasts are exact, not approximations as in those papers: the expected orders of a person with a known rate and chance to be
gone follow from k linear differential equations, one a stage, which are solved and averaged over rates and chances.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from shopauto_pipelines.predictions.btyd.base import check_people, checked_weights, product
from shopauto_pipelines.predictions.btyd.geometric import GoneAfterOrder, beta_quadrature
from shopauto_pipelines.predictions.btyd.grouped import Numbers, group, in_chunks, per_kind, total_of

#: The numbers of stages that are tried.
STAGES = (1, 2, 3, 4)


class MBGCNBD(GoneAfterOrder):
    """Gaps are ``k_`` exponential stages with rates gamma(``r_``, ``alpha_`` time); gone after an order: beta(``a_``, ``b_``).

    ``k`` is the number of stages; None tries 1 to 4 and takes the likeliest. k = 1 is the MBG/NBD.

    X may have a fourth column, the sum of the natural logarithms of a person's x gaps between orders (0 where x is 0). It says
    how regular gaps are, so ``fit`` needs it where ``k`` is None; nothing else does: parameters and forecasts for one k
    depend on the first three columns. Without it, log-likelihoods lack the term (k − 1) × the column, and those of different
    k cannot be compared. Whole days look regular where gaps are ten days or less: given the day only, exponential gaps are then
    taken for k = 2. For the other columns, ``penalty`` and ``horizon`` see ``OrderTimes``.
    """

    _first = 1

    def __init__(self, k: int | None = None, penalty: float = 0.0, horizon: float = 1.0) -> None:
        super().__init__(penalty=penalty, horizon=horizon)
        self.k = k

    @property
    def _stages(self) -> int:
        return self.k_

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find the likeliest parameters; ``sample_weight`` (≥ 0) says how many people a row stands for.

        Raises ValueError, with the reason, for impossible rows and where ``k`` is None but the fourth column is missing.
        """
        people = self._people(X)
        weights = np.ones(len(people)) if sample_weight is None else checked_weights(sample_weight, len(people))
        if self.k is not None and (self.k != int(self.k) or self.k < 1):
            raise ValueError(f"k is a whole number of stages from 1 up, or None, not {self.k!r}.")
        if self.k is None and people.shape[1] == 3:
            raise ValueError("To choose k, X needs a fourth column: the sum of the logarithms of each person's gaps.")
        self.n_features_in_ = people.shape[1]
        gaps = float(total_of(people[:, 3], weights)) if people.shape[1] == 4 else 0.0
        grouped = group(people[:, :3], weights)
        best: dict[str, object] = {}
        for k in STAGES if self.k is None else (int(self.k),):
            self.k_ = k
            self._fit(*grouped)
            self.log_likelihood_ += (k - 1) * gaps
            if not best or self.log_likelihood_ > best["log_likelihood_"]:  # type: ignore[operator]
                best = dict(vars(self))
        self.__dict__.update(best)
        return self

    def log_likelihood(self, X: ArrayLike) -> Numbers:
        """Logarithm of the likelihood of each row; without the fourth column, up to (k − 1) × that column."""
        people = self._checked(X)
        gaps = people[:, 3] if people.shape[1] == 4 else 0.0
        return super().log_likelihood(people[:, :3]) + (self.k_ - 1) * gaps

    def _people(self, X: ArrayLike) -> Numbers:
        return check_people(X, columns=(3, 4))

    def _order(self, people: Numbers, horizon: Numbers) -> Numbers:
        ever = np.isinf(horizon)
        later = people[:, :3] + np.outer(np.where(ever, 1, horizon), [0, 0, 1])
        logs = self._logs()

        def silent(*columns: Numbers) -> Numbers:
            return self._silence(logs, np.stack(columns, axis=1))[0]

        changes = in_chunks(silent, *later.T) - in_chunks(silent, *people.T[:3])
        return self._alive(people) * np.where(ever, 1, -np.expm1(np.minimum(changes, 0)))

    def _orders(self, people: Numbers, horizon: Numbers) -> Numbers:
        logs = self._logs()

        def stage(*columns: Numbers) -> Numbers:
            silent, _, stages = self._silence(logs, np.stack(columns, axis=1))
            return np.exp(stages - silent).T

        ahead = per_kind(self._orders_from_stages, people[:, 0], people[:, 2], horizon)
        return product(self._alive(people), product(in_chunks(stage, *people.T[:3]), ahead).sum(axis=1))

    def _orders_from_stages(self, x: Numbers, age: Numbers, horizon: Numbers) -> Numbers:
        """Expected orders if the person is there and has passed j = 0 … k − 1 stages of the current gap: (n, k).

        With rate λ and chance p, the expectations m_j of stage j solve m_j′ = λ (m_(j+1) − m_j), m_k = 1 + (1 − p) m_0, so with
        ρ^k = 1 − p and ω the k-th root of 1: m_j(h) = 1 ÷ p + Σ_i c_i (ρ ω^i)^j e^(−λ h (1 − ρ ω^i)).
        """
        values = np.empty((len(x), self.k_))
        scale = horizon / (self.alpha_ + age)
        for low, high, nodes in ((0, 4, 32), (4, np.inf, 96)):
            some = (scale >= low) & (scale < high)
            if some.any():
                values[some] = self._means(x[some], scale[some], nodes)
        ever = np.isinf(scale)
        values[ever] = ((self.a_ + self.b_ + x[ever]) / (self.a_ - 1) if self.a_ > 1 else x[ever] + np.inf)[:, None]
        return values

    def _means(self, x: Numbers, scale: Numbers, nodes: int) -> Numbers:
        k = self.k_
        chances, chance = np.unique(x + self._first, return_inverse=True)
        points, weights = beta_quadrature(self.a_, self.b_ + chances, nodes)
        p = np.clip(points, 1e-9, 1 - 1e-9)[chance]
        values = np.repeat((1 / p)[None], k, axis=0)
        for i in range(k // 2 + 1):
            root = (1 - p) ** (1 / k) * np.exp(2j * np.pi * i / k)
            pair = 1 if i in (0, k / 2) else 2  # the other roots come in conjugate pairs
            fade = 1 + scale[:, None] * (1 - root)
            term = np.exp(-(self.r_ + k * x)[:, None] * np.log(fade)) / (k * (1 - p) * (1 - 1 / root))
            for j in range(k):
                values[j] += pair * term.real
                term = term * root / fade
        means: Numbers = np.einsum("kij,ij->ik", values, weights[chance])
        return np.maximum(means, 0)
