"""Cut-offs do not overlap, training days are fixed, and nothing after a day changes what was known on it."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopauto_pipelines.predictions import dataset
from shopauto_pipelines.predictions.backtest import train
from shopauto_pipelines_tests.predictions.conftest import FIRST, LAST, order_log

_DAYS = st.dates(date(2015, 1, 1), date(2030, 1, 1))


@given(_DAYS, st.integers(1, 365), st.integers(0, 400))
def test_training_days_are_fixed_whenever_they_are_asked_for(as_of, retrain, later):
    day = dataset.training_day(as_of, date(2001, 1, 1), retrain)
    assert 0 <= (as_of - day).days < retrain
    assert dataset.training_day(day, date(2001, 1, 1), retrain) == day
    other = dataset.training_day(as_of + timedelta(days=later), date(2001, 1, 1), retrain)
    assert (other - day).days % retrain == 0


@given(_DAYS, st.integers(7, 365), st.integers(0, 3000))
def test_no_outcome_learned_from_overlaps_the_tested_horizon(day, horizon, history):
    first = day - timedelta(days=history)
    try:
        cut_offs = dataset.plan(day, first, horizon)
    except dataset.NotEnoughData:
        assert history < 2 * horizon + dataset.HISTORY_DAYS
        return
    assert cut_offs.test + timedelta(days=horizon) == day
    assert all(cut_off + timedelta(days=horizon) <= cut_offs.test for cut_off in cut_offs.train)
    assert all((cut_off - first).days >= dataset.HISTORY_DAYS for cut_off in cut_offs.train)
    assert len(set(cut_offs.train)) == len(cut_offs.train) <= dataset.CUT_OFFS


def test_outcomes_count_order_days_after_the_cut_off_only(make_shop):
    cut = FIRST + timedelta(days=100)
    ages = {"a": [-50, 0, 1, 90, 91], "b": [-200, 95], "c": [5]}
    shop = make_shop([(who, cut + timedelta(days=n)) for who, days in ages.items() for n in days])
    window = dataset.window(shop, cut, 90, cut + timedelta(days=95))
    assert len(window) == 2  # c had not ordered yet
    assert window.orders.tolist() == [2, 0]
    assert window.next_in.tolist() == [1, 95]
    assert window.last_period.tolist() == [2, 0]
    assert window.as_known_on(cut + timedelta(days=90)).next_in.tolist() == [1, np.inf]


def test_habits_are_those_of_the_features(shop):
    cut = LAST - timedelta(days=90)
    full, quick = dataset.window(shop, cut, 90, LAST), dataset.habits(shop, cut, 90, LAST)
    for name in dataset.HABIT:
        assert (full.features[name] == quick.features[name]).all()
    assert (full.orders == quick.orders).all()


def test_a_large_shop_is_sampled_by_the_hash_of_the_person(make_shop, log):
    cut = LAST - timedelta(days=90)
    whole, part = (dataset.window(make_shop(log, people=limit), cut, 90, LAST) for limit in (10_000, 300))
    again = dataset.window(make_shop(log, people=300), cut, 90, LAST)
    assert 200 < len(part) < 400 < len(whole)
    assert (part.features["recency_days"] == again.features["recency_days"]).all()


@pytest.mark.slow
def test_nothing_after_the_training_day_changes_the_model(make_shop):
    log = order_log(700, days=400, seed=2)
    cut = FIRST + timedelta(days=330)
    past = [row for row in log if row[1] <= cut]
    rng = np.random.default_rng(0)
    shuffled = [(who, cut + timedelta(days=int(rng.integers(1, 90)))) for who, day in log if day > cut]
    models = [train(make_shop(rows), cut, 90) for rows in (past, past + sorted(set(shuffled)))]
    assert models[0]["churn"].metrics == models[1]["churn"].metrics
    assert models[0]["orders"].metrics == models[1]["orders"].metrics
    probe = dataset.window(make_shop(past), cut, 90, cut).features
    for target in ("churn", "orders"):
        assert (models[0][target].model(probe) == models[1][target].model(probe)).all()


@pytest.mark.parametrize(
    ("people", "days", "reason"), [(150, 500, "people had ordered by"), (800, 200, "days of history")]
)
def test_too_little_data_is_said_and_not_guessed_from(make_shop, people, days, reason):
    challengers = train(make_shop(order_log(people, days=days)), FIRST + timedelta(days=days - 1), 90)
    for challenger in challengers.values():
        assert challenger.model is None
        assert challenger.passed is None
        assert challenger.verdict.startswith("not enough data: ")
        assert reason in challenger.verdict
