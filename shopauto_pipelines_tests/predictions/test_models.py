"""What was learned the hard way about churn models, as tests; and how good the models are where the truth is known."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from shopauto_pipelines.predictions import metrics, models, process, rules
from shopauto_pipelines.predictions.dataset import COLUMNS, People, people, window
from shopauto_pipelines.predictions.inputs import INPUTS, Standard, aligned, inputs, logit, sigmoid
from shopauto_pipelines_tests.predictions.conftest import FIRST, LAST, order_log

HORIZON = 90


@pytest.fixture(scope="module")
def present(shop):
    return people(shop, LAST)


def features_of(**columns):
    """Features of people, zero where not given."""
    many = len(next(iter(columns.values())))
    zeros = {name: np.zeros(many) for name in COLUMNS}
    return zeros | {name: np.array(values, dtype=float) for name, values in columns.items()}


def test_one_time_buyers_of_long_ago_are_not_alive_by_default(challengers):
    churn = challengers["churn"].model(
        features_of(
            orders=[1, 8],
            recency_days=[400, 5],
            tenure_days=[400, 300],
            orders_90d=[0, 3],
            orders_30d=[0, 1],
            orders_365d=[0, 8],
            orders_weighted_30d=[0, 2],
            orders_weighted_120d=[0.1, 4],
            orders_weighted_240d=[0.3, 6],
            last_interval_days=[np.nan, 40],
            interval_variation=[np.nan, 0.5],
            typical_order_cents=[4000, 4000],
            first_order_cents=[4000, 4000],
            last_order_cents=[4000, 4000],
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
    standard = Standard.of(matrix)(matrix)
    assert np.isfinite(standard).all()
    assert (standard[:, :2] == 0).all()
    assert standard[:, 2].mean() == pytest.approx(0, abs=1e-12)


def test_a_zero_interval_and_a_missing_one_give_finite_inputs_or_none():
    seen = inputs(
        features_of(orders=[1, 2], mean_interval_days=[np.nan, 0], churn_factor=[np.nan, np.inf], tenure_days=[0, 0]),
        process.BuyingProcess(0.5, 50, 0.9, 150),
        HORIZON,
    )
    assert seen.matrix.shape == (2, len(INPUTS))
    assert not np.isinf(seen.matrix).any()
    assert np.isfinite(seen.orders_again).all()
    assert np.isfinite(seen.expected).all()


@pytest.mark.parametrize("level", [0.0, 1e-7, 0.565, 1.0])
def test_forecasts_are_brought_to_any_level_also_where_all_seem_to_be_gone(level):
    surely_gone = logit(np.zeros(300)) - 16
    assert sigmoid(aligned(surely_gone, level)).mean() == pytest.approx(level, rel=1e-6, abs=2e-9)
    assert sigmoid(aligned(np.linspace(-30, 30, 300), level)).mean() == pytest.approx(level, rel=1e-6, abs=2e-9)


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
    fitted = process.fit(*habit).outlook(*habit)
    assert fitted.silent(HORIZON).mean() == pytest.approx((later == 0).mean(), abs=0.02)
    assert fitted.expected(HORIZON).mean() == pytest.approx(later.mean(), rel=0.06)
    assert metrics.churn(fitted.silent(HORIZON), (later == 0).astype(float))["calibration_error"] < 0.03


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
    fitted = process.fit(*habit).outlook(*habit)
    found = metrics.churn(fitted.silent(273), (after == 0).astype(float))
    assert found["auc"] > 0.755
    assert np.abs(fitted.expected(273) - after).mean() < 0.785  # BG/NBD's
    # BG/NBD's own P(alive) calls every one-time buyer safe; an order within the horizon is what is asked
    assert fitted.silent(273)[habit[0] == 1].mean() > 0.7


def test_the_model_ranks_above_the_recency_rule_on_a_simulated_shop(challengers):
    found = challengers["churn"].metrics
    assert found["model"]["auc"] > found["rules"]["recency"]["auc"]
    assert found["model"]["auc"] > 0.8


def test_probabilities_are_calibrated_on_a_simulated_shop(challengers):
    assert challengers["churn"].metrics["model"]["calibration_error"] < 0.06
    assert abs(challengers["orders"].metrics["model"]["bias"]) < 0.25


@pytest.mark.slow
def test_next_order_intervals_hold_what_they_promise_in_the_year_after(make_shop):
    """The last model before the truth: people's next orders over the following year, which the model has not seen."""
    from shopauto_pipelines.predictions.backtest import train

    log = order_log(900, days=760, seed=4, stays=60.0)  # few are gone for good, so that most intervals have an end
    cut = FIRST + timedelta(days=400)
    trained = train(make_shop([row for row in log if row[1] <= cut]), cut, HORIZON)
    full = make_shop(log)
    future = window(full, people(full, cut), HORIZON, cut + timedelta(days=359))
    days = trained["orders"].model.next_order(future.features, trained["churn"].model(future.features))
    assert (days[:, 0] <= days[:, 1]).all()
    assert (days[:, 1] <= days[:, 2]).all()
    closed = np.isfinite(days[:, 2])
    assert closed.sum() > 300
    inside = (future.next_in >= days[:, 0]) & (future.next_in <= days[:, 2])
    assert 0.70 <= inside[closed].mean() <= 0.90
    assert 0.40 <= (future.next_in <= days[:, 1])[np.isfinite(days[:, 1])].mean() <= 0.60


def test_the_probability_of_no_order_agrees_with_the_median_date(challengers, present):
    churn = challengers["churn"].model(present.features)
    model = replace(challengers["orders"].model, quantiles=models.QUANTILES)
    median = model.next_order(present.features, churn)[:, 1]
    clear = np.abs(churn - 0.5) > 0.02
    assert ((median <= HORIZON) == (churn < 0.5))[clear].mean() > 0.99


def test_dates_of_the_next_order_are_whole_days_in_order(challengers, present):
    orders = challengers["orders"].model
    for churn in (None, challengers["churn"].model(present.features)):
        low, middle, high = orders.next_order(present.features, churn).T
        assert (low >= 1).all()
        assert (low <= middle).all()
        assert (middle <= high).all()
        for days in (low, middle, high):
            told = days[np.isfinite(days)]
            assert (told == np.round(told)).all()
            assert (told <= models.PERIODS[-1] + 1).all()
        assert np.isfinite(low).sum() > np.isfinite(middle).sum() > 0


def test_more_orders_are_expected_and_silence_is_less_likely_the_more_days_there_are(challengers, present):
    model = challengers["orders"].model
    expected = model(present.features, 30, 60, 90, 180, 365)
    assert (np.diff(expected, axis=1) >= 0).all()
    assert (expected[:, -1] > expected[:, 0]).all()
    assert np.allclose(expected[:, 2], model(present.features))
    outlook = model.process.outlook(*present.habit)
    silent = np.stack([outlook.silent(days) for days in (1, 30, 90, 365, 3650)], axis=1)
    assert (np.diff(silent, axis=1) <= 0).all()
    assert ((silent > 0) & (silent < 1)).all()


def test_the_level_of_a_forecast_is_that_of_the_process_times_the_season(challengers, present):
    orders, churn = challengers["orders"].model, challengers["churn"].model
    process = orders.process.outlook(*present.habit).expected(HORIZON) * orders.season
    assert orders(present.features).sum() == pytest.approx(process.sum(), rel=1e-6)
    base = sigmoid(churn.parts(present.features)[0])
    assert (1 - churn(present.features)).mean() == pytest.approx(base.mean(), abs=1e-3)  # of those within its bounds


def test_a_person_gets_the_same_bytes_in_any_batch(challengers, present):
    churn, orders = challengers["churn"].model, challengers["orders"].model
    features = present.features

    def forecast(of):
        silent = churn(of)
        spent = orders.spent_per_order(of)[:, None]
        return np.column_stack([silent, orders(of, 90, 365), spent, orders.next_order(of, silent)])

    whole = forecast(features)
    backwards = forecast({name: values[::-1].copy() for name, values in features.items()})
    assert np.array_equal(backwards[::-1], whole)
    for start, size in ((0, 1), (1, 7), (8, 100), (501, 2), (len(present) - 3, 3)):
        part = slice(start, start + size)
        assert np.array_equal(forecast({name: values[part] for name, values in features.items()}), whole[part])


@pytest.mark.parametrize("cents", [4_000, 0])
def test_amounts_that_are_all_the_same_or_none_at_all_are_what_is_expected(cents):
    many = 400
    rng = np.random.default_rng(8)
    orders, tenure = rng.integers(1, 6, many), rng.integers(1, 200, many)
    features = features_of(
        orders=orders,
        tenure_days=tenure,
        recency_days=np.where(orders > 1, tenure // 3, tenure),
        average_order_cents=[cents] * many,
    )
    everybody = People(LAST, features, np.arange(many), LAST)
    fitted = models.OrdersModel.fit([], everybody, process.fit(*everybody.habit), HORIZON, 1.0)
    assert fitted.spent_per_order(features) == pytest.approx(np.full(many, cents), rel=0.01)
    assert (fitted(features) > 0).all()


def test_without_anything_to_learn_from_the_process_forecasts_alone():
    features = features_of(orders=[1, 2, 9] * 50, recency_days=[90, 10, 3] * 50, tenure_days=[90, 60, 100] * 50)
    everybody = People(LAST, features, np.arange(150), LAST)
    fitted = process.fit(*everybody.habit)
    outlook = fitted.outlook(*everybody.habit)
    churn = models.ChurnModel.fit([], everybody, fitted, HORIZON, 1.0)
    orders = models.OrdersModel.fit([], everybody, fitted, HORIZON, 1.5)
    assert churn(features) == pytest.approx(outlook.silent(HORIZON), abs=0.002)
    assert orders(features) == pytest.approx(1.5 * outlook.expected(HORIZON))
    assert churn.weights == orders.weights == (0, 0)
    more = models.ChurnModel.fit([], everybody, fitted, HORIZON, 1.5)
    assert (more(features) < churn(features)).all()


def test_the_level_of_a_window_is_that_of_all_its_people_however_few_are_learned_from(shop, present, monkeypatch):
    whole = window(shop, people(shop, LAST - timedelta(days=HORIZON)), HORIZON, LAST)
    ordered = np.zeros(len(whole))
    ordered[1:60:2] = 1  # nobody of every second person
    rare = replace(whole, orders=ordered)
    monkeypatch.setattr(models, "_ROWS", 3 * len(whole))
    all_of_them = models.learning([rare, whole], process.fit(*present.habit), HORIZON)
    monkeypatch.setattr(models, "_ROWS", len(whole))
    every_second = models.learning([rare, whole], process.fit(*present.habit), HORIZON)
    assert len(every_second.orders) == pytest.approx(len(all_of_them.orders) / 2, abs=2)
    assert every_second.gap == pytest.approx(all_of_them.gap, abs=0.2)


def test_an_account_that_bought_daily_and_is_long_gone_is_no_trouble(make_shop):
    log = {*order_log(1_500, days=3_650, stays=6.0), *(("guest", FIRST + timedelta(days=n)) for n in range(450))}
    shop, day = make_shop(sorted(log)), FIRST + timedelta(days=3_649)
    before, now = (people(shop, at) for at in (day - timedelta(days=HORIZON), day))
    model = models.OrdersModel.fit(
        [window(shop, before, HORIZON, day)], now, models.fit_process(now), HORIZON, season=1.0
    )
    guest = now.features["orders"].argmax()
    assert model.process.outlook(*now.habit).expected(HORIZON)[guest] == 0
    assert np.isfinite(model(now.features)).all()
    assert model(now.features)[guest] < 1e-6


def test_quantiles_that_were_met_too_early_are_moved_and_few_orders_move_them_little():
    rng = np.random.default_rng(4)
    said = rng.random(20_000) ** 2  # orders come earlier than was said
    found = models.met_quantiles(np.stack([said, np.ones(len(said))]))
    assert found == pytest.approx([q**2 for q in models.QUANTILES], abs=0.02)
    few = models.met_quantiles(np.stack([said[:20], np.ones(20)]))
    assert all(abs(own - q) < 0.5 * abs(q**2 - q) for own, q in zip(few, models.QUANTILES, strict=True))
    none = models.met_quantiles(np.stack([said[:20], np.zeros(20)]))
    assert none == pytest.approx(models.QUANTILES)


def test_quantiles_are_met_whoever_is_not_seen_to_the_end():
    rng = np.random.default_rng(5)
    said, until = rng.random(30_000), rng.uniform(0.3, 1, 30_000)
    seen = np.stack([np.minimum(said, until), said <= until])
    assert models.met_quantiles(seen) == pytest.approx(models.QUANTILES, abs=0.02)


def test_rules_are_turned_into_probabilities_that_do_not_claim_certainty_on_a_handful():
    numbers, churned = np.arange(100.0), np.array([0] * 3 + [1, 0] * 48 + [1])
    fitted = rules.CalibratedRule.fit([numbers], [churned])
    assert 0 < fitted(np.array([0.0]))[0] < 0.6
    assert (np.diff(fitted(numbers)) >= 0).all()


def test_nobody_is_lost_between_calibration_groups():
    rng = np.random.default_rng(0)
    p = rng.random(1_234)
    bins = metrics.calibration_bins(p, (rng.random(1_234) < p).astype(float))
    assert sum(b["people"] for b in bins) == 1_234
    assert all(abs(b["predicted"] - b["actual"]) < 0.15 for b in bins)


def test_people_who_are_all_the_same_get_the_same_and_do_not_blow_up(challengers, present):
    same = {name: np.full(5, values[0]) for name, values in present.features.items()}
    assert len(set(challengers["churn"].model(same))) == 1
    assert len(set(challengers["orders"].model(same))) == 1
