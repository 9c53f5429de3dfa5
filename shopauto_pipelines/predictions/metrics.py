"""What a forecast is judged by, beside the same of a rule. Arrays hold a number per person; several tests are lists of arrays.

People appear in several tests, so the standard error of a lead over a rule is taken as if the tests said the same: that of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shopauto_pipelines.predictions.dataset import LEAST_OUTCOMES, Numbers, Window

#: Shares of people that the gains curve is drawn at.
TENTHS = tuple(n / 10 for n in range(1, 11))


def churn(probability: Numbers, churned: Numbers) -> dict[str, Any]:
    """AUC, log loss, Brier score, calibration error (and what chance alone would give), lift at 10 %.

    Lift is the share that orders among the tenth least likely to churn ÷ the share among all.
    """
    p = np.clip(probability, 0.005, 0.995)
    bins = calibration_bins(p, churned)
    weights = np.array([b["people"] for b in bins]) / len(p)
    return {
        "auc": auc(probability, churned),
        "log_loss": float(_log_losses(p, churned).mean()),
        "brier": float(((p - churned) ** 2).mean()),
        "calibration_error": float(
            sum(w * abs(b["predicted"] - b["actual"]) for w, b in zip(weights, bins, strict=True))
        ),
        "calibration_by_chance": float(
            sum(
                w * np.sqrt(2 / np.pi * b["predicted"] * (1 - b["predicted"]) / b["people"])
                for w, b in zip(weights, bins, strict=True)
            )
        ),
        "lift_10": lift(-probability, 1 - churned),
    }


def ranking(scores: Sequence[Numbers], churned: Sequence[Numbers]) -> dict[str, Any]:
    """AUC, lift at 10 % and gains of numbers that are higher for who is likelier to churn: means over the tests.

    Over the people of all tests together, telling the days apart would count as telling people apart.
    """
    tests, many = list(zip(scores, churned, strict=True)), [len(part) for part in churned]
    return {
        "auc": float(np.average([auc(s, y) for s, y in tests], weights=many)),
        "lift_10": float(np.average([lift(-s, 1 - y) for s, y in tests], weights=many)),
        "gains": gains([-s for s in scores], [1 - y for y in churned]),
    }


def churn_rule(
    ranks: Sequence[Numbers],
    probabilities: Sequence[Numbers] | None,
    model: Sequence[Numbers],
    churned: Sequence[Numbers],
) -> dict[str, Any]:
    """The same of a rule, ranked by its own number, with the standard errors of its lead over the model."""
    errors = [_auc_lead_error(*each) for each in zip(model, ranks, churned, strict=True)]
    own, truth = np.concatenate(model), np.concatenate(churned)
    found = ranking(ranks, churned)
    found["auc_lead_error"] = float(np.average(errors, weights=[len(part) for part in churned]))
    if probabilities is not None:
        p = np.clip(np.concatenate(probabilities), 0.005, 0.995)
        losses = _log_losses(np.clip(own, 0.005, 0.995), truth) - _log_losses(p, truth)
        found = churn(p, truth) | found
        found["log_loss_lead_error"] = _error_of_mean(losses) * np.sqrt(len(churned))
    return found


def orders(expected: Numbers, came: Numbers) -> dict[str, Any]:
    """Mean absolute and root mean squared error, relative bias (and its standard error), rank correlation, lift at 10 %."""
    from scipy.stats import spearmanr

    total = max(float(came.sum()), 1.0)
    varies = np.ptp(expected) > 0 and np.ptp(came) > 0
    return {
        "mae": float(np.abs(expected - came).mean()),
        "rmse": float(np.sqrt(((expected - came) ** 2).mean())),
        "bias": float(expected.sum() / total - 1),
        "bias_by_chance": float(came.std() * np.sqrt(len(came)) / total),
        "spearman": float(spearmanr(expected, came)[0]) if varies else 0.0,
        "lift_10": lift(expected, came),
    }


def orders_rule(
    counts: Sequence[Numbers], model: Sequence[Numbers], came: Sequence[Numbers], spent: Sequence[Numbers]
) -> dict[str, Any]:
    """The same of a rule's counts, with the standard error of the difference of squared errors to the model."""
    count, own, truth = (np.concatenate(parts) for parts in (counts, model, came))
    difference = (own - truth) ** 2 - (count - truth) ** 2
    return {
        **orders(count, truth),
        "spend_top_10": top_share(count, np.concatenate(spent)),
        "gains": gains(counts, came),
        "squared_error_lead_error": _error_of_mean(difference) * np.sqrt(len(came)),
    }


def value(expected: Numbers, spent: Numbers) -> dict[str, float]:
    """Relative bias of the value (minor units), and the share of spend by the tenth of people with the highest forecast."""
    return {
        "value_bias": float(expected.sum() / max(float(spent.sum()), 1.0) - 1),
        "spend_top_10": top_share(expected, spent),
    }


def interval(days: Numbers, test: Window) -> dict[str, Any]:
    """How often the next order came within the interval ``days[:, 0]`` to ``days[:, 2]``, judged where time has told.

    ``early``: share of orders before the interval, of people whose interval begins within the days observed; ``late``:
    share of people still without an order at its end, of those whose interval ends within them. Each is 10 % when right.
    """
    begun, ended = days[:, 0] <= test.observed, days[:, 2] <= test.observed
    early = float((test.next_in[begun] < days[begun, 0]).mean()) if begun.sum() >= LEAST_OUTCOMES else None
    late = float((test.next_in[ended] > days[ended, 2]).mean()) if ended.sum() >= LEAST_OUTCOMES else None
    return {"interval_early": early, "interval_late": late}


def calibration_bins(predicted: Numbers, outcome: Numbers) -> list[dict[str, float]]:
    """People by prediction in at most ten equal groups of at least a hundred: mean predicted, mean actual."""
    groups = max(1, min(10, len(predicted) // 100))
    order = np.argsort(predicted, kind="stable")
    return [
        {"people": len(g), "predicted": float(predicted[g].mean()), "actual": float(outcome[g].mean())}
        for g in np.array_split(order, groups)
    ]


def lift(score: Numbers, outcome: Numbers, share: float = 0.1) -> float:
    """Mean outcome of the ``share`` with the highest score ÷ the mean of all; people with equal scores count in part."""
    return top_share(score, outcome, share) / share if outcome.sum() else 1.0


def top_share(score: Numbers, outcome: Numbers, share: float = 0.1) -> float:
    """Share of the whole outcome that falls on the ``share`` of people with the highest score; equal scores count in part."""
    return top_shares(score, outcome, (share,))[0]


def top_shares(score: Numbers, outcome: Numbers, shares: Sequence[float] = TENTHS) -> list[float]:
    """The same for several shares: a cumulative gains curve."""
    if outcome.sum() == 0:
        return list(shares)
    _, kind = np.unique(-score, return_inverse=True)
    sizes, sums = np.bincount(kind), np.bincount(kind, weights=outcome)
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = (np.clip((share * len(score) - before) / sizes, 0, 1) for share in shares)
    return [float((part * sums).sum() / outcome.sum()) for part in parts]


def gains(scores: Sequence[Numbers], outcomes: Sequence[Numbers]) -> list[float]:
    """Share of the outcome on each of the :data:`TENTHS` of people with the highest scores, mean of the tests."""
    curves = [top_shares(score, outcome) for score, outcome in zip(scores, outcomes, strict=True)]
    return [float(share) for share in np.average(curves, axis=0, weights=[len(outcome) for outcome in outcomes])]


def auc(score: Numbers, outcome: Numbers) -> float:
    """Probability that somebody with the outcome has a higher score than somebody without it."""
    return float(_placements(score, outcome)[0].mean())


def _auc_lead_error(model: Numbers, rule: Numbers, outcome: Numbers) -> float:
    """Standard error of the difference of two AUCs over the same people (DeLong et al. 1988)."""
    both = zip(_placements(model, outcome), _placements(rule, outcome), strict=True)
    return float(np.sqrt(sum(np.var(own - other, ddof=1) / len(own) for own, other in both)))


def _placements(score: Numbers, outcome: Numbers) -> tuple[Numbers, Numbers]:
    from scipy.stats import rankdata

    ranks, yes = rankdata(score), outcome > 0
    return (
        (ranks[yes] - rankdata(score[yes])) / (~yes).sum(),
        1 - (ranks[~yes] - rankdata(score[~yes])) / yes.sum(),
    )


def _log_losses(p: Numbers, outcome: Numbers) -> Numbers:
    return -np.log(np.where(outcome > 0, p, 1 - p))


def _error_of_mean(values: Numbers) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
