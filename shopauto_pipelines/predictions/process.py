"""A model of the buying process in four numbers: people order at their own rate until, after some order, they are gone.

The MBG/NBD of Batislam, Denizel & Filiztekin (2007), "Empirical validation and comparison of models for customer base
analysis", a modification of the BG/NBD of Fader, Hardie & Lee (2005): rates vary over people by a gamma distribution, and
the chance to be gone after an order (also after the first) by a beta distribution. It needs no outcomes to be fitted, so it
works with the shortest history. Only the arithmetic of this model belongs here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: Most people the four numbers are fitted on.
_PEOPLE = 20_000
#: Orders beyond this many say nothing new about the chance to be gone.
_ORDERS = 400


@dataclass(frozen=True)
class BuyingProcess:
    """Fitted parameters: rates are gamma(``r``, ``alpha`` days), the chance to be gone after an order beta(``a``, ``b``).

    ``orders`` are order days so far, ``recency`` days since the last one, ``tenure`` days since the first one.
    """

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, orders: Numbers, recency: Numbers, tenure: Numbers) -> Numbers:
        """Probability that the person is not gone."""
        repeats = np.minimum(orders, _ORDERS) - 1
        silent = (self.r + repeats) * (np.log(self.alpha + tenure) - np.log(self.alpha + tenure - recency))
        return 1 / (1 + self.a / (self.b + repeats) * np.exp(np.minimum(silent, 700)))

    def silent(self, orders: Numbers, recency: Numbers, tenure: Numbers, days: float) -> Numbers:
        """Probability of no order in the next ``days``."""
        shape = self.r + np.minimum(orders, _ORDERS) - 1
        none = np.exp(shape * (np.log(self.alpha + tenure) - np.log(self.alpha + tenure + days)))
        return 1 - self.alive(orders, recency, tenure) * (1 - none)

    def expected(self, orders: Numbers, recency: Numbers, tenure: Numbers, days: float) -> Numbers:
        """Expected order days in the next ``days``: the mean of (1 − e^(−λ p days)) ÷ p over rate and drop-out chance."""
        from scipy.special import betaincinv

        repeats = np.minimum(orders, _ORDERS) - 1
        shape, rate = self.r + repeats, self.alpha + tenure
        kinds, kind = np.unique(repeats, return_inverse=True)
        quantiles = (np.arange(20) + 0.5) / 20
        total = np.zeros(len(repeats))
        for quantile in quantiles:
            chance = np.maximum(betaincinv(self.a, self.b + kinds + 1, quantile), 1e-9)[kind]
            total += -np.expm1(shape * -np.log1p(chance * days / rate)) / chance
        return self.alive(orders, recency, tenure) * total / len(quantiles)

    def as_dict(self) -> dict[str, float]:
        """The four numbers by name."""
        return asdict(self)


def fit(orders: Numbers, recency: Numbers, tenure: Numbers) -> BuyingProcess:
    """The likeliest process of people with ``orders`` (≥ 1), ``recency`` and ``tenure`` (days).

    A weak pull of each logarithm towards zero keeps it finite where there is little to learn from. Over 20,000 people,
    every n-th is taken.
    """
    from scipy.optimize import minimize
    from scipy.special import betaln, gammaln

    step = max(1, -(-len(orders) // _PEOPLE))
    people = np.stack([np.minimum(orders, _ORDERS) - 1, tenure - recency, tenure])[:, ::step]
    (repeats, last, tenure_), weight = (found := np.unique(people, axis=1, return_counts=True))[0], found[1]
    unit = max(float(tenure.mean()), 1.0)
    last, tenure_ = last / unit, tenure_ / unit

    def loss(logs: Numbers) -> float:
        r, alpha, a, b = np.exp(logs)
        shape = r + repeats
        stays = betaln(a, b + repeats + 1) - shape * np.log(alpha + tenure_)
        gone = betaln(a + 1, b + repeats) - shape * np.log(alpha + last)
        each = gammaln(shape) - gammaln(r) + r * np.log(alpha) - betaln(a, b) + np.logaddexp(stays, gone)
        return float(-(weight * each).sum() + 0.5 * (logs**2).sum() / 9)

    best = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-7, 7)] * 4)
    r, alpha, a, b = (float(value) for value in np.exp(best.x))
    return BuyingProcess(r, alpha * unit, a, b)
