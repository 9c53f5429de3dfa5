"""Cut-offs do not overlap, training days are fixed, and what people did is counted on the right side of a cut-off."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopauto_pipelines.predictions import dataset
from shopauto_pipelines_tests.predictions.conftest import FIRST, LAST

_DAYS = st.dates(date(2015, 1, 1), date(2030, 1, 1))


@given(_DAYS, st.integers(1, 365), st.integers(0, 400))
def test_training_days_are_fixed_whenever_they_are_asked_for(as_of, retrain, later):
    day = dataset.training_day(as_of, date(2001, 1, 1), retrain)
    assert 0 <= (as_of - day).days < retrain
    assert dataset.training_day(day, date(2001, 1, 1), retrain) == day
    other = dataset.training_day(as_of + timedelta(days=later), date(2001, 1, 1), retrain)
    assert (other - day).days % retrain == 0


@given(_DAYS, st.integers(1, 400), st.integers(0, 1500))
def test_no_outcome_learned_from_overlaps_a_tested_horizon(day, horizon, history):
    first = day - timedelta(days=history - 1)
    needed = dataset.HISTORY_DAYS + dataset.LEAST_AHEAD
    if history < needed:
        with pytest.raises(dataset.NotEnoughData, match=f"needs {needed} days of history, the shop has {history}$"):
            dataset.plan(day, first, horizon)
        return
    plan = dataset.plan(day, first, horizon)
    assert 1 <= len(plan.tests) <= dataset.TESTS
    assert list(plan.tests) == sorted(set(plan.tests), reverse=True)
    assert plan.ahead == horizon or plan.ahead == history // 2 < horizon
    for test in plan.tests:
        assert test + timedelta(days=plan.ahead) <= day
        assert (test - first).days + 1 >= min(dataset.HISTORY_DAYS, history - plan.ahead - 3)
    for known_until in (day, *plan.tests):
        windows = plan.learned_from(known_until)
        assert len(set(windows)) == len(windows) <= 3 * dataset.CUT_OFFS
        for cut_off, ahead in windows:
            assert cut_off + timedelta(days=ahead) <= known_until
            assert 0 < ahead <= plan.ahead
            assert (cut_off - first).days >= dataset.LEARNING_DAYS


@given(_DAYS, st.integers(14, 400), st.integers(0, 1000))
def test_three_cut_offs_are_tested_where_the_history_allows(day, horizon, more):
    history = 2 * horizon + 6 + max(dataset.HISTORY_DAYS, horizon) + more
    plan = dataset.plan(day, day - timedelta(days=history - 1), horizon)
    assert len(plan.tests) == 3
    assert plan.ahead == horizon
    gaps = {(later - earlier).days for later, earlier in zip(plan.tests, plan.tests[1:], strict=False)}
    assert gaps == {2 * plan.step}


def test_outcomes_count_order_days_after_the_cut_off_only(make_shop):
    cut = FIRST + timedelta(days=100)
    ages = {"a": [-50, 0, 1, 90, 91], "b": [-200, 95], "c": [5]}
    shop = make_shop([(who, cut + timedelta(days=n)) for who, days in ages.items() for n in days])
    people = dataset.people(shop, cut)
    window = dataset.window(shop, people, 90, cut + timedelta(days=95))
    assert len(window) == 2  # c had not ordered yet
    assert window.orders.tolist() == [2, 0]
    assert window.spent.tolist() == [8_000, 0]
    assert window.next_in.tolist() == [1, 95]
    assert window.last_period.tolist() == [2, 0]
    assert dataset.window(shop, people, 90, cut + timedelta(days=90)).next_in.tolist() == [1, np.inf]
    earlier = dataset.window(shop, people, 90, cut + timedelta(days=89))
    assert earlier.orders.tolist() == [1, 0]
    assert earlier.spent.tolist() == [4_000, 0]


def test_habits_are_those_of_the_features(shop):
    cut = LAST - timedelta(days=90)
    full, quick = dataset.people(shop, cut), dataset.habits(shop, cut)
    assert (full.who == quick.who).all()
    for name in dataset.HABIT:
        assert (full.features[name] == quick.features[name]).all()


def test_habits_since_a_day_know_nothing_before_it(make_shop):
    days = (0, 10, 40)
    shop = make_shop([("a", FIRST + timedelta(days=n)) for n in days] + [("b", FIRST)])
    found = dataset.habits(shop, FIRST + timedelta(days=50), since=FIRST)
    assert len(found) == 1
    assert {name: values.tolist() for name, values in found.features.items()} == {
        "orders": [2],
        "recency_days": [10],
        "tenure_days": [40],
    }


def test_a_large_shop_is_sampled_by_the_hash_of_the_person(make_shop, log):
    cut = LAST - timedelta(days=90)
    shops = {limit: make_shop(log, most=limit) for limit in (10_000, 300)}
    whole, part = (dataset.people(shop, cut) for shop in shops.values())
    again = dataset.people(make_shop(log, most=300), cut)
    assert 200 < len(part) < 400 < len(whole)
    assert (part.features["recency_days"] == again.features["recency_days"]).all()
    assert (dataset.habits(shops[300], cut).features["recency_days"] == part.features["recency_days"]).all()
    ids = [
        shop.log(cut).ids.take(found.who).to_pylist() for shop, found in zip(shops.values(), (whole, part), strict=True)
    ]
    assert set(ids[1]) < set(ids[0])


@pytest.mark.parametrize("people", [0, 1])
def test_a_window_of_hardly_anybody_is_no_trouble(make_shop, people):
    shop = make_shop([("a", FIRST)])
    found = dataset.people(shop, FIRST - timedelta(days=1 - people))
    window = dataset.window(shop, found, 90, LAST)
    assert len(found) == len(window) == people
    assert not window.tells
