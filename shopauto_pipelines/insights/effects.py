"""How large an effect is, and how sure that is: pure statistics on sums, for groups that chance has put together.

A group is told by sums of powers (:class:`Group`), all integers: the same rows give the same figures on any engine. A person
may have several occasions; what they do on them is not independent, so the unit is the person and figures are ratios of sums.

- **Rates** (who ordered, who clicked): Newcombe's hybrid score interval, method 10 of *Interval estimation for the difference
  between independent proportions*, Statistics in Medicine 17 (1998). It holds its level at small counts and at none at all,
  where the textbook's interval does not. Several occasions of a person: both counts divided by the design effect (Rao & Scott,
  *A simple method for the analysis of clustered binary data*, Biometrics 48, 1992).
- **Means** (revenue): Welch's interval, or Student's with one variance for both groups, whichever is wider. Spend is mostly
  nothing and now and then a lot, and a holdout is a small group: where chance gave it few large orders, its mean and its own
  spread are both too low, and Welch alone was wrong in 8 to 12 % of simulated cases instead of 5; Student alone where the treated
  spend less. The wider of the two kept to 5 % in all of them, an interval bent by the skewness (Hall 1992) did not: with some
  hundred buyers the third moment is mostly noise. Nothing is resampled, so it is the same every time.
- **Looking every day**: a level of 5 % holds for one look. Where no size was fixed in advance,
  :func:`for_any_number_of_looks` gives the level of each look so that all together, for ever, keep 5 %: the normal mixture of
  Robbins (*Statistical methods related to the law of the iterated logarithm*, 1970), which Waudby-Smith, Arbour, Sinha, Kennedy &
  Ramdas extend to means (*Time-uniform central limit theory and asymptotic confidence sequences*, Annals of Statistics 52, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log, log1p, sqrt
from typing import Literal, Self

import numpy as np
from scipy.special import log_ndtr, ndtri, stdtrit

#: Chance of a verdict where there is no effect, and of seeing one as large as the minimum detectable effect.
ALPHA, POWER = 0.05, 0.80

BETTER, WORSE, CANNOT_TELL = "better", "worse", "cannot tell yet"

#: Fewest people of each group who spent anything, for a verdict on means: fewer say little about how large orders can be.
FEWEST_BUYERS = 10

#: People in the smaller group, about, at which looking for ever costs least.
_USUAL = 300

Kind = Literal["rate", "mean"]


@dataclass(frozen=True)
class Group:
    """What is known of a group, as sums over its people of ``m`` (occasions of the person) and ``y`` (what they did on them).

    ``people``: how many; ``active``: with a ``y`` above 0; ``m``, ``y`` and the others: the sums of their products.
    """

    people: int = 0
    active: int = 0
    m: int = 0
    y: int = 0
    mm: int = 0
    my: int = 0
    yy: int = 0

    @classmethod
    def of(cls, values: Sequence[int] | np.ndarray, occasions: Sequence[int] | np.ndarray | None = None) -> Self:
        """The group of people with these integer ``values``; ``occasions``: of each, 1 where it is not given."""
        y = [int(value) for value in values]
        m = [1] * len(y) if occasions is None else [int(count) for count in occasions]
        both = list(zip(m, y, strict=True))
        powers = {"m": (1, 0), "y": (0, 1), "mm": (2, 0), "my": (1, 1), "yy": (0, 2)}
        sums = {name: sum(a**i * b**j for a, b in both) for name, (i, j) in powers.items()}
        return cls(people=len(y), active=sum(value > 0 for value in y), **sums)

    @property
    def mean(self) -> float:
        """Per occasion: the rate, or the mean."""
        return self.y / self.m if self.m else 0.0

    @property
    def variance(self) -> float:
        """Of the mean."""
        if self.people < 2:
            return inf
        n, t = self.m, self.y
        spread = n * n * self.yy - 2 * n * t * self.my + t * t * self.mm
        return self.people / (self.people - 1) * (spread / n**4)

    @property
    def worth(self) -> float:
        """How many people with one occasion each would tell as much about the rate."""
        if not self.m or self.mm == self.people:
            return float(self.m)
        if self.people < 2 or not 0 < self.y < self.m:  # nothing says how occasions of a person hang together
            return float(self.people)
        return self.m / max(1.0, self.variance * self.m / (self.mean * (1 - self.mean)))


@dataclass(frozen=True)
class Interval:
    """A difference, and where it lies but for a chance of ``alpha``."""

    lift: float
    low: float
    high: float


@dataclass(frozen=True)
class Effect:
    """What a comparison says. ``people_needed``: in both groups; ``None`` where nothing can be said of it."""

    lift: float
    low: float
    high: float
    relative: float | None
    verdict: str
    minimum_detectable_effect: float | None
    people_needed: int | None
    note: str


def difference(kind: Kind, treated: Group, control: Group, alpha: float = ALPHA) -> Interval:
    """How much more the treated do than the control, per occasion. A group without people: everything is possible."""
    if not (treated.m and control.m):
        return Interval(0.0, -inf, inf)
    return (_of_rates if kind == "rate" else _of_means)(treated, control, alpha)


def minimum_detectable_effect(kind: Kind, treated: Group, control: Group, alpha: float = ALPHA) -> float | None:
    """The least rise over the control that groups of this size show with a chance of 80 %; ``None``: none can be told.

    Of rates, the spread is that of the control's rate and of the raised one; half a success is added, as none is no certainty.
    """
    if kind == "mean":
        found = (-ndtri(alpha / 2) + ndtri(POWER)) * max(error for error, _ in _errors(treated, control))
        return found if 0 < found < inf else None
    if not (treated.m and control.m):
        return None
    rate = (control.y + 0.5) / (control.m + 1)
    n, m = treated.worth, control.worth

    def is_seen(rise: float) -> bool:
        raised = rate + rise
        error = sqrt(raised * (1 - raised) / n + rate * (1 - rate) / m)
        return _newcombe(raised, n, rate, m, alpha).low > ndtri(POWER) * error

    none, all_of_it = 0.0, 1 - rate
    if not is_seen(all_of_it):
        return None
    for _ in range(40):
        middle = (none + all_of_it) / 2
        none, all_of_it = (none, middle) if is_seen(middle) else (middle, all_of_it)
    return all_of_it


def people_needed(rate: float, rise: float, alpha: float = ALPHA) -> int:
    """People of each of two groups to see a rate rise by ``rise`` (a share of itself) with a chance of 80 %.

    What an experiment should register as its size. Fleiss, Levin & Paik, *Statistical Methods for Rates and Proportions*, 4.1.
    """
    if not (0 < rate < 1 and rise > 0 and rate * (1 + rise) < 1):
        raise ValueError(f"no number of people shows a rate of {rate:g} rise by {rise:.0%}")
    raised = rate * (1 + rise)
    middle = (rate + raised) / 2
    spread = -ndtri(alpha / 2) * sqrt(2 * middle * (1 - middle))
    spread += ndtri(POWER) * sqrt(rate * (1 - rate) + raised * (1 - raised))
    return ceil((spread / (raised - rate)) ** 2)


def for_any_number_of_looks(treated: Group, control: Group, alpha: float = ALPHA) -> float:
    """The level of one look, so that the chance of ever being wrong stays ``alpha`` however often one looks."""
    if not (treated.people and control.people):
        return alpha
    smaller = 1 / (1 / treated.people + 1 / control.people)
    # how the mixture is spread: so that the interval is narrowest, or nearly so, at the usual size
    v = smaller / _USUAL * (-2 * log(alpha) + log1p(-2 * log(alpha)))
    critical = sqrt((v + 1) / v * log((v + 1) / alpha**2))
    return 2 * exp(log_ndtr(-critical))


def shared_among(comparisons: int, alpha: float = ALPHA) -> float:
    """The level of each of several comparisons with one control, so that all together keep ``alpha`` (Bonferroni)."""
    return alpha / max(comparisons, 1)


def judge(
    kind: Kind,
    treated: Group,
    control: Group,
    *,
    alpha: float = ALPHA,
    worth_seeing: float = 0.1,
    not_yet: str | None = None,
) -> Effect:
    """Interval, verdict and what the groups can show. ``not_yet``: why there can be no verdict, whatever the figures.

    ``people_needed`` shows a rise by ``worth_seeing`` (a share of the control's figure) with a chance of 80 %, where the groups
    grow as they are.
    """
    found = difference(kind, treated, control, alpha)
    least = minimum_detectable_effect(kind, treated, control, alpha)
    if not_yet is None and kind == "mean" and min(treated.active, control.active) < FEWEST_BUYERS:
        not_yet = f"fewer than {FEWEST_BUYERS} of a group have spent anything"
    verdict, note = CANNOT_TELL, not_yet or "the interval holds zero"
    if not_yet is None and found.low > 0:
        verdict, note = BETTER, ""
    elif not_yet is None and found.high < 0:
        verdict, note = WORSE, ""
    needed = None
    if least and control.mean > 0:
        needed = ceil((treated.people + control.people) * (least / (worth_seeing * control.mean)) ** 2)
    return Effect(
        found.lift,
        found.low,
        found.high,
        found.lift / control.mean if control.mean > 0 else None,
        verdict,
        least,
        needed,
        note,
    )


def _of_rates(treated: Group, control: Group, alpha: float) -> Interval:
    return _newcombe(treated.mean, treated.worth, control.mean, control.worth, alpha)


def _newcombe(p: float, n: float, q: float, m: float, alpha: float) -> Interval:
    """The interval of ``p - q``, rates of ``n`` and of ``m`` people."""
    (p_low, p_high), (q_low, q_high) = _wilson(p, n, alpha), _wilson(q, m, alpha)
    return Interval(
        p - q,
        p - q - sqrt((p - p_low) ** 2 + (q_high - q) ** 2),
        p - q + sqrt((p_high - p) ** 2 + (q - q_low) ** 2),
    )


def _wilson(rate: float, people: float, alpha: float) -> tuple[float, float]:
    """Wilson's score interval of a rate."""
    z = -ndtri(alpha / 2)
    middle = rate + z * z / (2 * people)
    half = z * sqrt(rate * (1 - rate) / people + z * z / (4 * people * people))
    scale = 1 + z * z / people
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _of_means(treated: Group, control: Group, alpha: float) -> Interval:
    lift = treated.mean - control.mean
    half = max(float(stdtrit(df, 1 - alpha / 2)) * error for error, df in _errors(treated, control))
    return Interval(lift, lift - half, lift + half) if half > 0 else Interval(lift, -inf, inf)


def _errors(treated: Group, control: Group) -> list[tuple[float, float]]:
    """Standard error of the difference of means and its degrees of freedom: Welch's, and Student's."""
    groups, df = (treated, control), treated.people + control.people - 2
    if min(treated.people, control.people) < 2:
        return [(inf, 1.0)]
    square = sum(group.variance for group in groups)
    if not square:
        return [(0.0, df)]
    both = sum((group.people - 1) * group.people * group.variance for group in groups) / df
    welch = square**2 / sum(group.variance**2 / (group.people - 1) for group in groups)
    return [(sqrt(square), welch), (sqrt(both / treated.people + both / control.people), df)]
