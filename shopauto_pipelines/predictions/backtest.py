"""Back-test by time split, and the verdict: a challenger learns from older cut-offs and is asked about the horizon after them.

At up to three cut-offs. The naive rules and the models of the books answer the same questions about the same people. How much
each learner counts is chosen here too; a test's figures are those of the weights that the other tests choose. A challenger that
passed is learned again from the newest cut-offs, and that model is the one kept. Metrics are in :mod:`metrics`; storing and
serving models belongs in :mod:`store` and ``serving``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.predictions import drift, metrics, rules
from shopauto_pipelines.predictions.dataset import (
    LEAST_OUTCOMES,
    LEAST_PEOPLE,
    NotEnoughData,
    Numbers,
    People,
    Plan,
    Shop,
    Window,
    habits,
    people,
    plan,
    window,
    year_before,
)
from shopauto_pipelines.predictions.inputs import aligned
from shopauto_pipelines.predictions.models import (
    USUAL,
    ChurnModel,
    OrdersModel,
    Weights,
    blend,
    corrections,
    fit_process,
    met_quantiles,
    one_thread,
)
from shopauto_pipelines.predictions.own import OURS, Churn, Own, OwnChurn, OwnOrders
from shopauto_pipelines.predictions.process import BuyingProcess
from shopauto_pipelines.predictions.season import season

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

#: Weights tried for each learner; those of a few people are drawn towards the usual ones, by as much as this many log-loss
#: units at a distance of 1.
_TRIED = tuple(Weights(linear / 10, trees / 10) for linear in range(11) for trees in range(11 - linear))
_PULL = 40.0
#: Weights of the buying process alone: what is left where no learner helps.
_NONE = Weights(0, 0)

SEASON_UNKNOWN = "less than a year and a half of history: the season is not known yet"


@dataclass(frozen=True)
class Challenger:
    """A model trained as of a day, with its back-test; ``model`` is ``None`` where there was not enough data.

    ``data``: what it was made from; ``people``: the profile of the people it was made for (:mod:`drift`).
    """

    target: str
    trained_as_of: date
    model: Churn | OrdersModel | None
    passed: bool | None
    verdict: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    people: drift.Profile = field(default_factory=dict)


def train(shop: Shop, trained_as_of: date, horizon: int, own: Own = OURS) -> dict[str, Challenger]:
    """Train and back-test a challenger for each of :data:`TARGETS` on what was known at the end of ``trained_as_of``.

    Where the shop has a model of its ``own`` for a target, that is the challenger.
    """
    with one_thread():
        try:
            return _train(shop, trained_as_of, horizon, own)
        except NotEnoughData as reason:
            verdict = f"not enough data: {reason}"
            return {target: Challenger(target, trained_as_of, None, None, verdict) for target in TARGETS}


@dataclass
class _History:
    """What one training reads of a shop, each cut-off once."""

    shop: Shop
    plan: Plan
    own: Own
    _people: dict[date, People] = field(default_factory=dict)

    def people(self, cut_off: date) -> People:
        """Everybody with an order, with all features."""
        if cut_off not in self._people:
            self._people[cut_off] = people(self.shop, cut_off)
        return self._people[cut_off]

    def windows(self, known_until: date) -> list[Window]:
        """What there is to learn from on a day."""
        found = (
            window(self.shop, self.people(day), horizon, known_until)
            for day, horizon in self.plan.learned_from(known_until)
        )
        return [w for w in found if len(w)]

    def season(self, cut_off: date) -> float | None:
        """The season of the horizon after a day, by what was known on it; ``None`` where nothing is."""
        first, horizon = self.plan.first_day, self.plan.ahead
        earlier = year_before(cut_off, first)
        if earlier is None:
            return None
        if horizon >= 364:
            return 1.0  # every season is in it, and what a year ago was followed by is not seen whole
        year = range(0, 364 - horizon + 1, max(horizon // 2, 45))
        days = [earlier, *(cut_off - timedelta(days=horizon + ago) for ago in year)]
        history = min(day - first for day in days)
        past = (habits(self.shop, day, since=day - history, known_on=cut_off) for day in days)
        alike = [window(self.shop, of, horizon, cut_off) for of in past]
        return season(alike[0], alike[1:], horizon) if all(map(len, alike)) else None


@dataclass(frozen=True)
class _Test:
    """One cut-off: what came, and what the models, as they could be made then, and the rules said."""

    window: Window
    learned: list[Window]
    churn: Churn
    orders: OrdersModel
    books: rules.Books
    season_known: bool

    @cached_property
    def odds(self) -> tuple[Numbers, ...]:
        """The churn model's parts at the level of what came, so that weights are chosen by shape alone."""
        level = float((self.window.orders > 0).mean())
        return tuple(aligned(part, level) for part in self.churn.parts(self.window.features))

    @cached_property
    def logs(self) -> tuple[Numbers, ...]:
        """The orders model's parts."""
        return self.orders.parts(self.window.features)

    def log_loss(self, weights: Weights) -> float:
        """Log loss of a blend, summed over people."""
        odds = blend(self.odds, weights)
        return float(np.logaddexp(0, np.where(self.window.orders > 0, -odds, odds)).sum())

    def deviance(self, weights: Weights) -> float:
        """Poisson loss of a blend at the level of what came, summed over people and divided by the counts' dispersion."""
        base, *logs = self.logs
        orders = self.window.orders
        base = base * (orders.sum() / base.sum())
        expected = base * corrections(logs, weights)
        expected *= orders.sum() / expected.sum()
        dispersion = max(1.0, float(((orders - base) ** 2 / base).mean()))
        return float((expected - orders * np.log(expected)).sum()) / dispersion


def _train(shop: Shop, trained_as_of: date, horizon: int, own: Own) -> dict[str, Challenger]:
    planned = plan(trained_as_of, shop.first_day, horizon)
    past = _History(shop, planned, own)
    steps, done = len(planned.tests) + 2, 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        report(f"training as of {trained_as_of}: {what}", done, steps)

    newest, *earlier = (window(shop, habits(shop, day), planned.ahead, trained_as_of) for day in planned.tests)
    _enough(newest)
    tests: list[_Test] = []
    for tested in (newest, *(seen for seen in earlier if len(seen) >= LEAST_PEOPLE and seen.tells)):
        tests.append(_test(past, tested.people.cut_off))
        step(f"back-test {tested.people.cut_off}")
    judges: dict[str, Judge] = {"churn": judge_churn, "orders": judge_orders}
    losses = {"churn": _Test.log_loss, "orders": _Test.deviance}
    weights = {target: _weights(tests, loss, USUAL[target]) for target, loss in losses.items()}
    measured = _measured(tests, losses)
    known = {"season_known": tests[0].season_known}
    against = [target for target, judge in judges.items() if judge(measured[target] | known)]
    alone = _measured(tests, losses, _NONE) if against else {}
    for target in against:
        if not judges[target](alone[target] | known):
            weights[target], measured[target] = _NONE, alone[target]
    step("weights")

    present, windows = past.people(trained_as_of), past.windows(trained_as_of)
    process, factor = fit_process(present), past.season(trained_as_of)
    churn, orders = _fitted(own, windows, present, process, horizon, factor or 1.0, weights)
    kept: dict[str, Any] = {"churn": churn, "orders": replace(orders, quantiles=_quantiles(tests))}
    profiles = _profiles(present, **kept)
    step("final model")
    common = {
        "cut_offs": sorted({w.people.cut_off.isoformat() for w in windows}),
        "test_cut_offs": [test.window.people.cut_off.isoformat() for test in tests],
        "horizon_days": horizon,
        "tested_days": planned.ahead,
        "people": len(tests[0].window),
        "season": round(factor or 1.0, 6),
        "season_known": tests[0].season_known,
    }
    data = {
        "first_day": planned.first_day.isoformat(),
        "last_day": trained_as_of.isoformat(),
        "people": len(present),
        "order_days": len(shop.log(trained_as_of).between(date.min, trained_as_of).day),
        "rows_learned_from": sum(map(len, windows)),
    }
    return {
        target: _challenger(
            target,
            trained_as_of,
            kept[target],
            {**common, "weights": kept[target].weights._asdict(), **measured[target]},
            judges[target],
            data,
            profiles[target],
        )
        for target in TARGETS
    }


def _test(past: _History, cut_off: date) -> _Test:
    """Models as they could be made on the cut-off, beside what came after it."""
    ahead, present = past.plan.ahead, past.people(cut_off)
    tested = window(past.shop, present, ahead, past.plan.trained_as_of)
    learned, factor = past.windows(cut_off), past.season(cut_off)
    process = fit_process(present)
    return _Test(
        tested,
        learned,
        *_fitted(past.own, learned, present, process, ahead, factor or 1.0, USUAL),
        rules.Books.fit(present, process),
        factor is not None,
    )


def _fitted(
    own: Own,
    windows: Sequence[Window],
    present: People,
    process: BuyingProcess,
    horizon: int,
    factor: float,
    weights: Mapping[str, Weights],
) -> tuple[Churn, OrdersModel]:
    """The model of each target, the shop's own where it has one."""
    churn = (
        OwnChurn.fit(own.churn, windows, present, horizon)
        if own.churn
        else ChurnModel.fit(windows, present, process, horizon, factor, weights["churn"])
    )
    orders = OrdersModel.fit(windows, present, process, horizon, factor, weights["orders"])
    return churn, OwnOrders.beside(orders, own.orders, windows, present, horizon) if own.orders else orders


def _profiles(present: People, churn: Churn, orders: OrdersModel) -> dict[str, drift.Profile]:
    """What is kept of the people of the present, for each target."""
    step = -(-len(present) // drift.PEOPLE)
    features = {name: values[::step] for name, values in present.features.items()}
    said = {"churn": churn(features), "orders": orders(features, 90)[:, 0]}
    return {target: drift.profile(features, drift.FORECASTS[target], values) for target, values in said.items()}


def _weights(tests: Sequence[_Test], loss: Callable[[_Test, Weights], float], usual: Weights) -> Weights:
    """The weights that are best over the tests, drawn towards the usual ones where there are few people."""

    def total(weights: Weights) -> float:
        away = sum((own - other) ** 2 for own, other in zip(weights, usual, strict=True))
        return sum(loss(test, weights) for test in tests) + _PULL * away

    return min(_TRIED, key=total)


def _quantiles(tests: Sequence[_Test]) -> tuple[float, ...]:
    """The quantiles of the orders models that were met as often as those wanted say."""
    said = [test.orders.said_of(test.window, test.churn(test.window.features)) for test in tests]
    return met_quantiles(np.concatenate(said, axis=1))


def _measured(
    tests: Sequence[_Test], losses: Mapping[str, Callable[[_Test, Weights], float]], given: Weights | None = None
) -> dict[str, dict[str, Any]]:
    """Metrics over the people of all tests, each test with the ``given`` weights, or those that the others choose."""

    def chosen(others: Sequence[_Test], target: str) -> Weights:
        return _weights(others, losses[target], USUAL[target]) if given is None else given

    churned = [(test.window.orders == 0).astype(float) for test in tests]
    orders, spent = ([getattr(test.window, name) for test in tests] for name in ("orders", "spent"))
    churn, expected, value, numbers, again, counts = [], [], [], [], [], []
    for test in tests:
        others = [other for other in tests if other is not test] or tests
        features, present = test.window.features, test.window.people
        churn.append(test.churn.weighed(chosen(others, "churn"), present)(features))
        model = test.orders.weighed(chosen(others, "orders"), present)
        expected.append(model(features))
        value.append(expected[-1] * model.spent_per_order(features))
        numbers.append(rules.scores(test.window, test.books))
        probabilities, forecasts = _rules_forecasts(test, numbers[-1])
        again.append(probabilities)
        counts.append(forecasts)
    timed = replace(tests[0].orders, quantiles=_quantiles(tests[1:] or tests))
    days = timed.next_order(tests[0].window.features, churn[0])
    churn_rules = {
        name: metrics.churn_rule(
            [-said[name] for said in numbers],
            [1 - said[name] for said in again] if all(name in said for said in again) else None,
            churn,
            churned,
        )
        for name in numbers[0]
    }
    order_rules = {
        name: metrics.orders_rule([said[name] for said in counts], expected, orders, spent)
        for name in counts[0]
        if all(name in said for said in counts)
    }
    whole = np.concatenate
    return {
        "churn": {
            "model": metrics.churn(whole(churn), whole(churned)) | metrics.ranking(churn, churned),
            "rules": churn_rules,
            "bins": metrics.calibration_bins(whole(churn), whole(churned)),
            "each": [metrics.churn(p, y) for p, y in zip(churn, churned, strict=True)],
        },
        "orders": {
            "model": metrics.orders(whole(expected), whole(orders))
            | metrics.interval(days, tests[0].window)
            | metrics.value(whole(value), whole(spent))
            | {"gains": metrics.gains(expected, orders)},
            "rules": order_rules,
            "bins": metrics.calibration_bins(whole(expected), whole(orders)),
            "each": [metrics.orders(n, y) for n, y in zip(expected, orders, strict=True)],
        },
    }


def _rules_forecasts(test: _Test, numbers: Mapping[str, Numbers]) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
    """Probability of an order and expected orders by each rule that can tell: those of the books, and what past windows teach."""
    again = test.books.again(test.window.people, test.window.horizon)
    counts = test.books.expected(test.window.people, test.window.horizon)
    longest = max((w.horizon for w in test.learned if w.tells), default=0)
    past = [w for w in test.learned if w.tells and w.horizon == longest]
    if past:
        times = test.window.horizon / longest
        seen = [rules.scores(w, test.books) for w in past]
        for name in [name for name in numbers if name not in again]:
            before = [said[name] for said in seen]
            p = rules.CalibratedRule.fit(before, [(w.orders > 0).astype(float) for w in past])(numbers[name])
            again[name] = 1 - (1 - np.clip(p, 0, 1)) ** times
            counts[name] = rules.CalibratedRule.fit(before, [w.orders for w in past])(numbers[name]) * times
    return again, counts


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
        if "log_loss" in rule and model["log_loss"] - rule["log_loss"] > rule["log_loss_lead_error"]:
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


def _enough(test: Window) -> None:
    if len(test) < LEAST_PEOPLE:
        raise NotEnoughData(f"{len(test)} people had ordered by {test.people.cut_off}, a model needs {LEAST_PEOPLE}")
    _both("of the people tested", int((test.orders > 0).sum()), len(test))


def _both(whom: str, ordered: int, people: int) -> None:
    for count, what in ((ordered, "ordered again"), (people - ordered, "did not order again")):
        if count < LEAST_OUTCOMES:
            raise NotEnoughData(f"{count} {whom} {what} within the horizon, a model needs {LEAST_OUTCOMES}")


def _challenger(
    target: str,
    day: date,
    model: Any,
    found: dict[str, Any],
    judge: Judge,
    data: Mapping[str, Any],
    people: drift.Profile,
) -> Challenger:
    found = _rounded(found)
    against = judge(found)
    own, each_rule = found["model"], found["rules"].items()
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
    if found["tested_days"] < found["horizon_days"]:
        verdict += f"; tested over {found['tested_days']} days, the history is too short for {found['horizon_days']}"
    if not found["season_known"]:
        verdict += f"; {SEASON_UNKNOWN}"
    return Challenger(target, day, model, not against, verdict, found, data, people)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
