"""What was learned the hard way about churn models, as tests; and how good the models are where the truth is known."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from shopauto_pipelines.predictions import process, rules
from shopauto_pipelines.predictions.backtest import calibration_bins, churn_metrics
from shopauto_pipelines.predictions.dataset import COLUMNS, habits, window
from shopauto_pipelines.predictions.models import Linear, inputs, season
from shopauto_pipelines_tests.predictions.conftest import DAYS, FIRST, LAST, order_log

HORIZON = 90


@pytest.fixture(scope="module")
def test_window(shop):
    return window(shop, LAST - timedelta(days=HORIZON), HORIZON, LAST)


def people(**columns):
    """Features of people, zero where not given."""
    many = len(next(iter(columns.values())))
    zeros = {name: np.zeros(many) for name in COLUMNS}
    return zeros | {name: np.array(values, dtype=float) for name, values in columns.items()}


def test_customers_from_before_the_data_are_not_taken_for_a_season(make_shop):
    """People order at the same pace all the time, but the export leaves out what was before the first day."""
    start = FIRST + timedelta(days=300)
    log = [(who, day) for who, day in order_log(1_500, days=DAYS + 300, seed=5) if day >= start]
    last = start + timedelta(days=DAYS - 1)
    shop, test = make_shop(log), last - timedelta(days=HORIZON)
    days = [test - timedelta(days=n) for n in (364, 90, 135, 180)]
    before, *others = (habits(shop, day, HORIZON, last, since=day - (days[0] - start)) for day in days)
    assert season(before, others, HORIZON) == pytest.approx(1, abs=0.08)


def test_a_season_that_comes_every_year_is_seen_and_one_by_chance_hardly(make_shop):
    rng = np.random.default_rng(3)

    def shop(winter):
        """People who order at random, ``winter`` times as often from November to January."""
        log = set()
        for person in range(600):
            for day in range(DAYS):
                pace = winter if (FIRST + timedelta(days=day)).month in (11, 12, 1) else 1
                if rng.random() < 0.02 * pace:
                    log.add((f"c{person:05}", FIRST + timedelta(days=day)))
        return make_shop(sorted(log))

    def factor(shop):
        coming = FIRST + timedelta(days=669)  # the first of November of the second year
        days = [coming - timedelta(days=n) for n in (364, 215, 245, 275)]
        before, *others = (habits(shop, day, HORIZON, LAST, since=day - timedelta(days=240)) for day in days)
        return season(before, others, HORIZON)

    assert factor(shop(2)) > 1.5
    assert factor(shop(1)) == pytest.approx(1, abs=0.05)


def test_one_time_buyers_of_long_ago_are_not_alive_by_default(challengers):
    churn = challengers["churn"].model(
        people(
            orders=[1, 8],
            recency_days=[400, 5],
            tenure_days=[400, 300],
            orders_90d=[0, 3],
            orders_30d=[0, 1],
            orders_365d=[0, 8],
            mean_interval_days=[40, 40],
            interval_imputed=[1, 0],
            churn_factor=[10, 0.1],
            average_order_cents=[4000, 4000],
            last_visit_on=[np.nan, np.nan],
            last_click_on=[np.nan, np.nan],
        )
    )
    assert churn[0] > 0.9
    assert churn[1] < 0.3


def test_an_input_that_never_varies_or_is_never_known_counts_nothing():
    matrix = np.stack([np.full(50, 3.0), np.full(50, np.nan), np.arange(50.0)], axis=1)
    mean, scale = Linear.standards(matrix)
    standard = Linear.standardise(matrix, mean, scale)
    assert np.isfinite(standard).all()
    assert (standard[:, :2] == 0).all()


def test_a_zero_interval_and_a_missing_one_give_finite_inputs_or_none():
    matrix = inputs(
        people(orders=[1, 2], mean_interval_days=[np.nan, 0], churn_factor=[np.nan, np.inf], tenure_days=[0, 0]),
        process.BuyingProcess(0.5, 50, 0.9, 1.5),
        HORIZON,
    )
    assert not np.isinf(matrix).any()


def test_the_buying_process_is_recovered_from_people_who_follow_it():
    rng = np.random.default_rng(1)
    orders, recency, tenure, later = [], [], [], []
    for _ in range(4_000):
        rate, gone, known = rng.gamma(1.2, 1 / 40), rng.beta(1.0, 3.0), rng.uniform(100, 400)
        at, last, count, after = 0.0, 0.0, 1, 0
        while rng.random() > gone and at < known + HORIZON:
            at += rng.exponential(1 / rate)
            if at < known:
                last, count = at, count + 1
            elif at < known + HORIZON:
                after += 1
        orders.append(count), recency.append(known - last), tenure.append(known), later.append(after)
    habit = np.array(orders, float), np.array(recency), np.array(tenure)
    later = np.array(later)
    fitted = process.fit(*habit)
    assert fitted.silent(*habit, HORIZON).mean() == pytest.approx((later == 0).mean(), abs=0.02)
    assert fitted.expected(*habit, HORIZON).mean() == pytest.approx(later.mean(), rel=0.06)
    assert churn_metrics(fitted.silent(*habit, HORIZON), (later == 0).astype(float))["calibration_error"] < 0.03


def test_the_cdnow_sample_gives_the_published_picture(shared):
    """Fader, Hardie & Lee (2005) and the measured P(order): 39 weeks to learn, 39 to predict."""
    import pandas as pd

    days = pd.read_parquet(shared / "data/cdnow/sample.parquet")[["customer_id", "date"]].drop_duplicates()
    cut = pd.Timestamp("1997-09-30")
    past = days[days.date <= cut].groupby("customer_id").date.agg(["min", "max", "count"])
    after = days[days.date > cut].groupby("customer_id").date.count().reindex(past.index).fillna(0).to_numpy()
    habit = (
        past["count"].to_numpy(float),
        (cut - past["max"]).dt.days.to_numpy(float),
        (cut - past["min"]).dt.days.to_numpy(float),
    )
    fitted = process.fit(*habit)
    metrics = churn_metrics(fitted.silent(*habit, 273), (after == 0).astype(float))
    assert metrics["auc"] > 0.755
    assert np.abs(fitted.expected(*habit, 273) - after).mean() < 0.785  # BG/NBD's
    # BG/NBD's own P(alive) calls every one-time buyer safe; an order within the horizon is what is asked
    assert fitted.silent(*habit, 273)[habit[0] == 1].mean() > 0.7


def test_the_model_ranks_above_the_recency_rule_on_a_simulated_shop(challengers):
    metrics = challengers["churn"].metrics
    assert metrics["model"]["auc"] > metrics["rules"]["recency"]["auc"]
    assert metrics["model"]["auc"] > 0.8


def test_probabilities_are_calibrated_on_a_simulated_shop(challengers):
    assert challengers["churn"].metrics["model"]["calibration_error"] < 0.06
    assert abs(challengers["orders"].metrics["model"]["bias"]) < 0.25


@pytest.mark.slow
def test_next_order_intervals_hold_what_they_promise_in_the_year_after(make_shop):
    """The last model before the truth: people's next orders over the following year, which the model has not seen."""
    from shopauto_pipelines.predictions.backtest import train

    log = order_log(1_000, days=900, seed=4, stays=60.0)  # few are gone for good, so that most intervals have an end
    cut = FIRST + timedelta(days=540)
    trained = train(make_shop([row for row in log if row[1] <= cut]), cut, HORIZON)
    future = window(make_shop(log), cut, HORIZON, cut + timedelta(days=359))
    churn = trained["churn"].model(future.features)
    days = np.ceil(trained["orders"].model.next_order(future.features, (0.1, 0.5, 0.9), churn))
    assert (days[:, 0] <= days[:, 1]).all()
    assert (days[:, 1] <= days[:, 2]).all()
    closed = np.isfinite(days[:, 2])
    assert closed.sum() > 300
    inside = (future.next_in >= days[:, 0]) & (future.next_in <= days[:, 2])
    assert 0.70 <= inside[closed].mean() <= 0.90
    assert 0.40 <= (future.next_in <= days[:, 1])[np.isfinite(days[:, 1])].mean() <= 0.60


def test_the_probability_of_no_order_agrees_with_the_median_date(challengers, test_window):
    churn = challengers["churn"].model(test_window.features)
    median = challengers["orders"].model.next_order(test_window.features, (0.5,), churn)[:, 0]
    clear = np.abs(churn - 0.5) > 0.02
    assert ((median <= HORIZON) == (churn < 0.5))[clear].mean() > 0.99


def test_rules_are_turned_into_probabilities_that_do_not_claim_certainty_on_a_handful():
    numbers, churned = np.arange(100.0), np.array([0] * 3 + [1, 0] * 48 + [1])
    fitted = rules.CalibratedRule.fit([numbers], [churned])
    assert 0 < fitted(np.array([0.0]))[0] < 0.6
    assert (np.diff(fitted(numbers)) >= 0).all()


def test_nobody_is_lost_between_calibration_groups():
    rng = np.random.default_rng(0)
    p = rng.random(1_234)
    bins = calibration_bins(p, (rng.random(1_234) < p).astype(float))
    assert sum(b["people"] for b in bins) == 1_234
    assert all(abs(b["predicted"] - b["actual"]) < 0.15 for b in bins)


def test_a_shop_with_one_order_each_of_the_same_day_does_not_blow_up(challengers, test_window):
    same = replace(test_window, features={name: np.full(5, values[0]) for name, values in test_window.features.items()})
    churn = challengers["churn"].model(same.features)
    assert len(set(churn)) == 1
