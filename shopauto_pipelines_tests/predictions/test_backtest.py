"""What is tested, on which days, with which weights; and when there is not enough to test anything."""

import json
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopauto_pipelines.predictions import backtest, dataset, metrics
from shopauto_pipelines.predictions.inputs import sigmoid
from shopauto_pipelines.predictions.models import USUAL, Weights
from shopauto_pipelines_tests.predictions.conftest import DAYS, FIRST, LAST, YOUNG_LAST, newcomers, order_log


def test_three_cut_offs_are_tested_and_every_person_of_each_counts(challengers, shop):
    plan = dataset.plan(LAST, FIRST, 90)
    assert len(plan.tests) == 3
    sizes = [len(dataset.habits(shop, day)) for day in plan.tests]
    for challenger in challengers.values():
        found = challenger.metrics
        assert found["test_cut_offs"] == [day.isoformat() for day in plan.tests]
        assert found["people"] == sizes[0]
        assert sum(group["people"] for group in found["bins"]) == sum(sizes)
        assert len(found["each"]) == 3
        assert (found["horizon_days"], found["tested_days"]) == (90, 90)
        assert found["season_known"] is True
        assert all(date.fromisoformat(day) < LAST for day in found["cut_offs"])
        assert set(found["weights"]) == {"linear", "trees"}
        assert 0 <= sum(found["weights"].values()) <= 1
        assert json.loads(json.dumps(found)) == found
    for target, name in (("churn", "auc"), ("churn", "lift_10"), ("churn", "log_loss"), ("orders", "mae")):
        found = challengers[target].metrics
        mean = np.average([test[name] for test in found["each"]], weights=sizes)
        assert found["model"][name] == pytest.approx(mean, abs=1e-5), name


def test_every_rule_and_the_models_of_the_books_are_beside_the_model(challengers):
    rules = {"recency", "frequency", "churn_factor", "same_as_last_period", "bg_nbd", "pareto_nbd"}
    for target, judged in (("churn", ("auc", "log_loss")), ("orders", ("rmse", "mae"))):
        found = challengers[target].metrics
        assert set(found["rules"]) == rules
        for rule in found["rules"].values():
            assert all(np.isfinite(rule[name]) for name in judged)
            assert set(found["model"]) & set(rule) >= set(judged)


def test_a_test_s_figures_use_the_weights_that_the_other_tests_choose(trained):
    challengers, tests = trained
    losses = {"churn": backtest._Test.log_loss, "orders": backtest._Test.deviance}
    for target, loss in losses.items():
        found = challengers[target].metrics
        assert backtest._weights(tests, loss, USUAL[target])._asdict() == found["weights"]
        for n, test in enumerate(tests):
            others = [*tests[:n], *tests[n + 1 :]]
            weights = backtest._weights(others, loss, USUAL[target])
            said = getattr(test, target).weighed(weights, test.window.people)(test.window.features)
            came = test.window.orders
            figures = metrics.churn(said, (came == 0) * 1.0) if target == "churn" else metrics.orders(said, came)
            assert found["each"][n] == pytest.approx(figures, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=3))
def test_weights_are_the_best_over_the_tests_and_the_usual_ones_where_nothing_is_said(curves):
    def loss(curve, weights):
        return 1e4 * (curve[0] * (weights.linear - 0.3) ** 2 + curve[1] * (weights.trees - 0.6) ** 2)

    told = [curve for curve in curves if min(curve) > 1]
    if told:
        assert backtest._weights(told, loss, Weights(0.45, 0.45)) == pytest.approx((0.3, 0.6))
    assert backtest._weights([], loss, Weights(0.4, 0.5)) == (0.4, 0.5)


@pytest.fixture(scope="module")
def process_alone(make_shop, young):
    """A shop without amounts, whose churn model fails with its learners, and whose orders model fails in any case."""
    judged = []

    def judge(found):
        judged.append(found)
        return ["the learners are worse"] if len(judged) == 1 else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backtest, "judge_churn", judge)
        patch.setattr(backtest, "judge_orders", lambda _: ["always"])
        return backtest.train(make_shop(young, cents=0), YOUNG_LAST, 60)


@pytest.mark.slow
@pytest.mark.xdist_group("process alone")
def test_where_learners_lose_the_process_forecasts_alone(process_alone, make_shop, young):
    churn = process_alone["churn"]
    assert churn.passed
    assert churn.metrics["weights"] == {"linear": 0, "trees": 0}
    present = dataset.people(make_shop(young, cents=0), YOUNG_LAST)
    assert churn.model(present.features) == pytest.approx(1 - sigmoid(churn.model.parts(present.features)[0]), abs=1e-3)
    # what fails with the process alone too is kept out with the weights that were chosen
    assert process_alone["orders"].passed is False
    assert process_alone["orders"].verdict.startswith("kept out: always")


@pytest.mark.slow
@pytest.mark.xdist_group("process alone")
def test_a_shop_without_amounts_is_forecast_and_worth_nothing(process_alone, make_shop, young):
    orders, present = process_alone["orders"].model, dataset.people(make_shop(young, cents=0), YOUNG_LAST)
    assert (orders(present.features) > 0).all()
    assert not orders.spent_per_order(present.features).any()
    assert process_alone["orders"].metrics["model"]["value_bias"] == -1  # nothing was spent, and nothing was forecast
    assert np.isfinite(process_alone["orders"].metrics["model"]["rmse"])


@pytest.mark.slow
@pytest.mark.xdist_group("process alone")
def test_a_short_history_is_tested_over_fewer_days_and_it_is_said(process_alone):
    for challenger in process_alone.values():
        found = challenger.metrics
        assert (found["tested_days"], found["horizon_days"]) == (50, 60)
        assert found["test_cut_offs"] == [(YOUNG_LAST - timedelta(days=52)).isoformat()]  # four steps of a quarter
        assert "tested over 50 days, the history is too short for 60" in challenger.verdict
        assert found["season_known"] is False
        assert backtest.SEASON_UNKNOWN in challenger.verdict


def first_orders_only(people: int) -> list[tuple[str, date]]:
    return [(f"c{n:04}", FIRST + timedelta(days=n % 40)) for n in range(people)]


@pytest.mark.parametrize(
    ("log", "days", "reason"),
    [
        (order_log(150), DAYS, "people had ordered by 2026-04-01, a model needs 300"),
        (newcomers(299, 100), 100, "299 people had ordered by 2025-02-17, a model needs 300"),
        (order_log(800, days=73), 73, "a model needs 74 days of history, the shop has 73"),
        (first_orders_only(400), 100, "0 of the people tested ordered again within the horizon, a model needs 30"),
    ],
    ids=["few people", "one too few", "a day too short", "nobody ordered again"],
)
def test_too_little_data_is_said_and_not_guessed_from(make_shop, log, days, reason):
    challengers = backtest.train(make_shop(log), FIRST + timedelta(days=days - 1), 60 if days < DAYS else 90)
    assert set(challengers) == set(backtest.TARGETS)
    for challenger in challengers.values():
        assert challenger.model is None
        assert challenger.passed is None
        assert challenger.verdict.startswith("not enough data: ")
        assert reason in challenger.verdict


def at_christmas_only(people: int, years: int) -> list[tuple[str, date]]:
    """(customer, order day) of a shop that is closed but for the weeks before Christmas."""
    rng = np.random.default_rng(0)
    came = rng.random((people, years)) < 0.6
    days = rng.integers(0, 30, (people, years, 2))
    return sorted(
        {
            (f"c{who:04}", date(FIRST.year + year, 11, 25) + timedelta(days=int(day)))
            for who, year in np.argwhere(came)
            for day in days[who, year]
        }
    )


def test_a_cut_off_after_which_nobody_ordered_tests_nothing(make_shop):
    day = date(FIRST.year + 1, 12, 28)
    tests = dataset.plan(day, date(FIRST.year, 11, 25), 90).tests
    for challenger in backtest.train(make_shop(at_christmas_only(600, years=2)), day, 90).values():
        assert challenger.metrics["test_cut_offs"] == [tests[0].isoformat()]
        assert len(tests) == 3
