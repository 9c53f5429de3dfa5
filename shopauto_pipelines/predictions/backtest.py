"""Back-test by time split, and the verdict: a challenger learns from older cut-offs and is asked about the latest horizon.

The naive rules answer the same questions about the same people. A challenger that passed is learned again with the
newest cut-off included, and that model is the one kept. Storing and serving models belongs in :mod:`store` and ``serving``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.predictions import rules
from shopauto_pipelines.predictions.dataset import (
    LEAST_OUTCOMES,
    LEAST_PEOPLE,
    NotEnoughData,
    Numbers,
    Shop,
    Window,
    habits,
    plan,
    window,
    year_before,
)
from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel, fit_process, one_thread, season
from shopauto_pipelines.predictions.process import BuyingProcess

TARGETS = ("churn", "orders")
#: Metrics → what speaks against the challenger.
Judge = Callable[[Mapping[str, Any]], list[str]]

#: Greatest calibration error (churn) and relative bias (orders) beyond chance. The second is for shops that have not seen
#: the season of the test a year before: nobody can forecast a first Christmas, and the scores say so in their note.
CALIBRATION = {"known": 0.05, "unknown": 0.10}
BIAS = {"known": 0.25, "unknown": 0.35}
#: AUC that counts as equal.
EQUAL_AUC = 0.002
#: Share of the best rule's mean absolute error that a challenger may be above it.
WORSE_MAE = 0.10

SEASON_UNKNOWN = "less than a year and a half of history: the season is not known yet"


@dataclass(frozen=True)
class Challenger:
    """A model trained as of a day, with its back-test; ``model`` is ``None`` where there was not enough data."""

    target: str
    trained_as_of: date
    model: ChurnModel | OrdersModel | None
    passed: bool | None
    verdict: str
    metrics: Mapping[str, Any] = field(default_factory=dict)


def train(shop: Shop, trained_as_of: date, horizon: int) -> dict[str, Challenger]:
    """Train and back-test a challenger for each of :data:`TARGETS` on what was known at the end of ``trained_as_of``."""
    with one_thread():
        try:
            return _train(shop, trained_as_of, horizon)
        except NotEnoughData as reason:
            verdict = f"not enough data: {reason}"
            return {target: Challenger(target, trained_as_of, None, None, verdict) for target in TARGETS}


def _train(shop: Shop, trained_as_of: date, horizon: int) -> dict[str, Challenger]:
    cut_offs = plan(trained_as_of, shop.first_day, horizon)
    steps = len(cut_offs.train) + 3
    done = 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        report(f"training as of {trained_as_of}: {what}", done, steps)

    def load(cut_off: date) -> Window:
        found = window(shop, cut_off, horizon, trained_as_of)
        step(f"cut-off {cut_off}")
        return found

    def season_at(cut_off: date, learned_from: Sequence[Window]) -> float | None:
        """The season's factor for the horizon after a day, by what was known on it; ``None`` where it is not known."""
        earlier = year_before(cut_off, shop.first_day)
        if earlier is None:
            return None
        days = [earlier, *(w.cut_off for w in learned_from)]
        history = min(day - shop.first_day for day in days)
        alike = [habits(shop, day, horizon, cut_off, since=day - history) for day in days]
        return season(alike[0], alike[1:], horizon) if all(map(len, alike)) else None

    _enough(habits(shop, cut_offs.test, horizon, trained_as_of))
    test = load(cut_offs.test)
    windows = [found for day in cut_offs.train if len(found := load(day))]
    older = [found.as_known_on(cut_offs.test) for found in windows]
    _enough_to_learn(older)
    factor = season_at(cut_offs.test, older)
    process = fit_process(test)
    tested = _fit(older, process, horizon, factor)
    churn_test, orders_test = _evaluate(tested, test, older, process, horizon, factor is not None)
    step("back-test")

    latest = fit_process(habits(shop, trained_as_of, horizon, trained_as_of))
    newest = [test, *windows]
    kept = _fit(newest, latest, horizon, season_at(trained_as_of, newest))
    step("final model")
    common = {
        "cut_offs": [w.cut_off.isoformat() for w in older],
        "test_cut_off": cut_offs.test.isoformat(),
        "horizon_days": horizon,
        "people": len(test),
        "season": round(tested[0].season, 6),
    }
    return {
        "churn": _challenger("churn", trained_as_of, kept[0], {**common, **churn_test}, judge_churn),
        "orders": _challenger("orders", trained_as_of, kept[1], {**common, **orders_test}, judge_orders),
    }


def judge_churn(metrics: Mapping[str, Any]) -> list[str]:
    """What speaks against the challenger; empty: it passes.

    It must rank at least as well as every rule (AUC), be closer to the truth than every rule (log loss), and be calibrated.
    A lag within one standard error of the paired difference is a tie, which passes: few people decide nothing.
    """
    against = []
    model = metrics["model"]
    for name, rule in metrics["rules"].items():
        if rule["auc"] - model["auc"] > max(EQUAL_AUC, rule["auc_lead_error"]):
            against.append(f"AUC {model['auc']:.3f} against {rule['auc']:.3f} of the {name} rule")
        if model["log_loss"] - rule["log_loss"] > rule["log_loss_lead_error"]:
            against.append(f"log loss {model['log_loss']:.4f} against {rule['log_loss']:.4f} of the {name} rule")
    limit = CALIBRATION["known" if metrics["season_known"] else "unknown"]
    if model["calibration_error"] - model["calibration_by_chance"] > limit:
        against.append(f"calibration error {model['calibration_error']:.3f}, at most {limit} beyond chance is allowed")
    return against


def judge_orders(metrics: Mapping[str, Any]) -> list[str]:
    """What speaks against the challenger; empty: it passes.

    Its squared error must be no greater than every calibrated rule's (ties as for churn): it is the measure of a mean. The
    mean absolute error rewards forecasting no order for nearly everybody, so it only bounds. The bias is bounded too.
    """
    against = []
    model = metrics["model"]
    for name, rule in metrics["rules"].items():
        if model["rmse"] ** 2 - rule["rmse"] ** 2 > rule["squared_error_lead_error"]:
            against.append(f"root mean squared error {model['rmse']:.3f} against {rule['rmse']:.3f} of the {name} rule")
        if model["mae"] > (1 + WORSE_MAE) * rule["mae"]:
            against.append(f"mean absolute error {model['mae']:.3f} against {rule['mae']:.3f} of the {name} rule")
    limit = BIAS["known" if metrics["season_known"] else "unknown"]
    if abs(model["bias"]) - model["bias_by_chance"] > limit:
        against.append(f"bias {model['bias']:+.0%}, at most {limit:.0%} beyond chance is allowed")
    return against


def churn_metrics(probability: Numbers, churned: Numbers) -> dict[str, Any]:
    """AUC, log loss, Brier score, calibration error (and what chance alone would give), lift at 10 %.

    Lift is the share that orders among the tenth least likely to churn ÷ the share among all.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    p = np.clip(probability, 0.005, 0.995)
    bins = calibration_bins(p, churned)
    weights = np.array([b["people"] for b in bins]) / len(p)
    return {
        "auc": float(roc_auc_score(churned, probability)),
        "log_loss": float(log_loss(churned, p)),
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


def order_metrics(expected: Numbers, orders: Numbers) -> dict[str, Any]:
    """Mean absolute and root mean squared error, relative bias (and its standard error), rank correlation, lift at 10 %."""
    from scipy.stats import spearmanr

    total = max(float(orders.sum()), 1.0)
    varies = np.ptp(expected) > 0 and np.ptp(orders) > 0
    return {
        "mae": float(np.abs(expected - orders).mean()),
        "rmse": float(np.sqrt(((expected - orders) ** 2).mean())),
        "bias": float(expected.sum() / total - 1),
        "bias_by_chance": float(orders.std() * np.sqrt(len(orders)) / total),
        "spearman": float(spearmanr(expected, orders)[0]) if varies else 0.0,
        "lift_10": lift(expected, orders),
    }


def interval_metrics(days: Numbers, test: Window) -> dict[str, Any]:
    """How often the next order came within the interval ``days[:, 0]`` to ``days[:, 2]``, judged where time has told.

    ``early``: share of orders before the interval, of people whose interval begins within the days observed; ``late``:
    share of people still without an order at its end, of those whose interval ends within them. Each is 10 % when right.
    """
    begun, ended = days[:, 0] <= test.observed, days[:, 2] <= test.observed
    early = float((test.next_in[begun] < days[begun, 0]).mean()) if begun.sum() >= LEAST_OUTCOMES else None
    late = float((test.next_in[ended] > days[ended, 2]).mean()) if ended.sum() >= LEAST_OUTCOMES else None
    return {"interval_early": early, "interval_late": late}


def calibration_bins(probability: Numbers, outcome: Numbers) -> list[dict[str, float]]:
    """People by predicted probability in at most ten equal groups of at least a hundred: mean predicted, share actual."""
    groups = max(1, min(10, len(probability) // 100))
    order = np.argsort(probability, kind="stable")
    return [
        {"people": len(g), "predicted": float(probability[g].mean()), "actual": float(outcome[g].mean())}
        for g in np.array_split(order, groups)
    ]


def lift(score: Numbers, outcome: Numbers, share: float = 0.1) -> float:
    """Mean outcome of the ``share`` with the highest score ÷ the mean of all; people with equal scores count in part."""
    if outcome.sum() == 0:
        return 1.0
    take = share * len(score)
    values, kind = np.unique(-score, return_inverse=True)
    sizes, sums = np.bincount(kind), np.bincount(kind, weights=outcome)
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    part = np.clip((take - before) / sizes, 0, 1)
    return float((part * sums).sum() / take / outcome.mean()) if len(values) else 1.0


def _fit(
    windows: list[Window],
    process: BuyingProcess,
    horizon: int,
    season: float | None,
) -> tuple[ChurnModel, OrdersModel]:
    factor = season or 1.0
    return ChurnModel.fit(windows, process, horizon, factor), OrdersModel.fit(windows, process, horizon, factor)


def _evaluate(
    models: tuple[ChurnModel, OrdersModel],
    test: Window,
    older: list[Window],
    process: BuyingProcess,
    horizon: int,
    season_known: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    churned = (test.orders == 0).astype(float)
    churn, expected = models[0](test.features), models[1](test.features)
    learned = [rules.scores(w, process, horizon) for w in older]
    churn_rules, order_rules = {}, {}
    for name, numbers in rules.scores(test, process, horizon).items():
        past = [scores[name] for scores in learned]
        p = rules.CalibratedRule.fit(past, [w.orders == 0 for w in older], increasing=False)(numbers)
        ranked = {"auc": _auc(-numbers, churned)}
        churn_rules[name] = {
            **churn_metrics(p, churned),
            **ranked,
            "lift_10": lift(numbers, 1 - churned),
            **_leads(numbers, p, churn, churned),
        }
        count = rules.CalibratedRule.fit(past, [w.orders for w in older])(numbers)
        order_rules[name] = {
            **order_metrics(count, test.orders),
            "squared_error_lead_error": _error_of_mean((expected - test.orders) ** 2 - (count - test.orders) ** 2),
        }
    known = {"season_known": season_known}
    days = np.ceil(models[1].next_order(test.features, (0.1, 0.5, 0.9), churn))
    return (
        known
        | {"model": churn_metrics(churn, churned), "rules": churn_rules, "bins": calibration_bins(churn, churned)},
        known
        | {
            "model": order_metrics(expected, test.orders) | interval_metrics(days, test),
            "rules": order_rules,
            "bins": calibration_bins(expected, test.orders),
        },
    )


def _leads(numbers: Numbers, p: Numbers, model: Numbers, churned: Numbers) -> dict[str, float]:
    """Standard errors of the differences to the model, over the same people (DeLong et al. 1988 for AUC)."""
    loss = [-np.log(np.where(churned > 0, q, 1 - q)) for q in (np.clip(p, 0.005, 0.995), np.clip(model, 0.005, 0.995))]
    own, other = _placements(model, churned), _placements(-numbers, churned)
    variance = sum(np.var(a - b, ddof=1) / len(a) for a, b in zip(own, other, strict=True))
    return {"auc_lead_error": float(np.sqrt(variance)), "log_loss_lead_error": _error_of_mean(loss[1] - loss[0])}


def _placements(score: Numbers, outcome: Numbers) -> tuple[Numbers, Numbers]:
    from scipy.stats import rankdata

    ranks, yes = rankdata(score), outcome > 0
    return (
        (ranks[yes] - rankdata(score[yes])) / (~yes).sum(),
        1 - (ranks[~yes] - rankdata(score[~yes])) / yes.sum(),
    )


def _auc(score: Numbers, outcome: Numbers) -> float:
    return float(_placements(score, outcome)[0].mean())


def _error_of_mean(values: Numbers) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _enough(test: Window) -> None:
    if len(test) < LEAST_PEOPLE:
        raise NotEnoughData(f"{len(test)} people had ordered by {test.cut_off}, a model needs {LEAST_PEOPLE}")
    _both("of the people tested", int((test.orders > 0).sum()), len(test))


def _enough_to_learn(windows: list[Window]) -> None:
    if not windows:
        raise NotEnoughData("nobody had ordered by any training cut-off")
    _both("of the people to learn from", int(sum((w.orders > 0).sum() for w in windows)), sum(map(len, windows)))


def _both(whom: str, ordered: int, people: int) -> None:
    for count, what in ((ordered, "ordered again"), (people - ordered, "did not order again")):
        if count < LEAST_OUTCOMES:
            raise NotEnoughData(f"{count} {whom} {what} within the horizon, a model needs {LEAST_OUTCOMES}")


def _challenger(
    target: str, day: date, model: Any, metrics: dict[str, Any], judge: Callable[[Mapping[str, Any]], list[str]]
) -> Challenger:
    metrics = _rounded(metrics)
    against = judge(metrics)
    own, each_rule = metrics["model"], metrics["rules"].items()
    if against:
        verdict = "kept out: " + "; ".join(against)
    elif target == "churn":
        name, best = max(each_rule, key=lambda rule: rule[1]["auc"])
        verdict = (
            f"passed: AUC {own['auc']:.3f} (best rule, {name}: {best['auc']:.3f}), "
            f"calibration error {own['calibration_error']:.3f}"
        )
    else:
        name, best = min(each_rule, key=lambda rule: rule[1]["rmse"])
        verdict = (
            f"passed: root mean squared error {own['rmse']:.3f} (best rule, {name}: {best['rmse']:.3f}), "
            f"mean absolute error {own['mae']:.3f}, bias {own['bias']:+.0%}"
        )
    if not metrics["season_known"]:
        verdict += f"; {SEASON_UNKNOWN}"
    return Challenger(target, day, model, not against, verdict, metrics)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
