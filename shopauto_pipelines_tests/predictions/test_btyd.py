"""The buy-till-you-die models: published figures, known truth, and what must hold for any people."""

from datetime import date

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from shopauto_pipelines.predictions.btyd.bg_nbd import BGNBD
from shopauto_pipelines.predictions.btyd.gamma_gamma import GammaGamma
from shopauto_pipelines.predictions.btyd.grouped import coarsen, distinct, group
from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD

MODELS = [BGNBD(), ParetoNBD()]

#: Rows at the edges: nobody came back, ordered on the last day, first order today, a reseller, decades.
EDGES = np.array(
    [[0, 0, 0], [0, 0, 1e4], [1, 5, 5], [2000, 730, 730], [2000, 10, 730], [3, 1e-6, 1e4], [1, 0, 0], [40, 0.5, 1]],
    dtype=float,
)


@pytest.fixture(scope="module")
def cdnow(shared):
    """Calibration rows in weeks, orders in the holdout of as many weeks, and value rows of repeat orders."""
    file = shared / "data" / "cdnow" / "sample.parquet"
    if not file.exists():
        pytest.skip("The CDNOW sample is not at hand.")
    end, orders = date(1997, 9, 30), {}
    for row in pq.read_table(file, columns=["customer_id", "date", "amount"]).to_pylist():
        days = orders.setdefault(row["customer_id"], {})
        day = row["date"].date()
        days[day] = days.get(day, 0) + row["amount"]
    people, holdout, values = [], [], []
    for days in orders.values():
        seen = sorted(day for day in days if day <= end)
        people.append([len(seen) - 1, (seen[-1] - seen[0]).days / 7, (end - seen[0]).days / 7])
        holdout.append(sum(day > end for day in days))
        values.append([len(seen) - 1, np.mean([days[day] for day in seen[1:]] or [0])])
    paid = [row for row in values if row[0] > 0 and row[1] > 0]
    return np.array(people), np.array(holdout), np.array(paid)


def simulate(model, count, seed=0, span=500):
    """Rows of people who do exactly what ``model`` says, first seen at times spread over ``span``."""
    births = np.random.default_rng(seed).uniform(0, span, count)
    return histories(model, births, span, span, seed)[0]


def histories(model, births, now, end, seed=2):
    """Rows at ``now`` of people first seen at ``births``; and their orders from then to ``end``."""
    rng = np.random.default_rng(seed + 100)
    count = len(births)
    rate, until, chance = rng.gamma(model.r_, 1 / model.alpha_, count), np.full(count, np.inf), np.zeros(count)
    if isinstance(model, ParetoNBD):
        until = births + rng.exponential(1 / rng.gamma(model.s_, 1 / model.beta_, count))
    else:
        chance = rng.beta(model.a_, model.b_, count)
    x, last, later, at = np.zeros(count), births.copy(), np.zeros(count), births.copy()
    here = np.ones(count, dtype=bool)
    while here.any():
        at = at + rng.exponential(1 / rate)
        here &= at < np.minimum(until, end)
        early = here & (at <= now)
        x, last = x + early, np.where(early, at, last)
        later += here & (at > now)
        here &= rng.random(count) >= chance
    return np.stack([x, last - births, now - births], axis=1), later


def with_parameters(model, *values):
    for name, value in zip(model._names, values, strict=True):
        setattr(model, name, value)
    return model


KNOWN = [
    with_parameters(BGNBD(), 0.8, 40.0, 0.9, 3.0),
    with_parameters(ParetoNBD(), 0.8, 40.0, 0.7, 60.0),
]


def named(model):
    return type(model).__name__


@pytest.mark.parametrize(
    ("model", "published", "log_likelihood"),
    [
        (BGNBD(), (0.2426, 4.4137, 0.7930, 2.4262), -9582.429),
        (ParetoNBD(), (0.553, 10.58, 0.606, 11.66), -9594.976),
    ],
    ids=named,
)
def test_published_parameters_of_cdnow_are_found(cdnow, model, published, log_likelihood):
    model.fit(cdnow[0])
    assert [getattr(model, name) for name in model._names] == pytest.approx(published, rel=1e-3)
    assert model.log_likelihood_ == pytest.approx(log_likelihood, abs=0.01)


def test_published_expectations_of_cdnow_are_found(cdnow):
    people, holdout, _ = cdnow
    expected = BGNBD(horizon=39).fit(people).predict(people)
    kind = np.minimum(people[:, 0], 7)
    published = [0.225, 0.523, 1.044, 1.520, 2.164, 2.654, 3.504, 6.157]
    actual = [0.237, 0.697, 1.393, 1.560, 2.532, 2.947, 3.862, 6.359]
    assert [expected[kind == x].mean() for x in range(8)] == pytest.approx(published, abs=6e-4)
    assert [holdout[kind == x].mean() for x in range(8)] == pytest.approx(actual, abs=6e-4)


def test_published_values_of_cdnow_are_found(cdnow):
    values = cdnow[2]
    model = GammaGamma().fit(values)
    assert len(values) == 946
    assert (model.p_, model.q_, model.v_) == pytest.approx((6.25, 3.74, 15.44), rel=2e-3)
    assert model.expected_value([[0, 0], [4, 35.0]]) == pytest.approx([35.17, 35.02], abs=0.01)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_parameters_and_forecasts_of_simulated_people_are_recovered(truth):
    people = simulate(truth, 40_000)
    model = clone(truth).fit(people)
    found, true = ([getattr(each, name) for name in each._names] for each in (model, truth))
    assert found == pytest.approx(true, rel=0.15)
    for forecast in ("probability_of_order", "expected_orders"):
        ours, right = (getattr(each, forecast)(people, 60.0) for each in (model, truth))
        assert np.abs(ours - right).mean() < 0.02 * right.mean()


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_forecasts_are_what_happens(truth):
    """People are simulated for 400 days and asked about on day 200; some 30,000 had their first order by then."""
    later = np.random.default_rng(1).uniform(0, 200, 30_000)
    rows, after = histories(truth, later, 200, 400)
    ordered, orders = truth.probability_of_order(rows, 200), truth.expected_orders(rows, 200)
    for some in (rows[:, 0] == 0, rows[:, 0] == 1, rows[:, 0] > 3, rows[:, 1] < rows[:, 2] - 100):
        error = np.sqrt((ordered[some] * (1 - ordered[some])).sum()) / some.sum()
        assert (after[some] > 0).mean() == pytest.approx(ordered[some].mean(), abs=4 * error)
        spread = after[some].std() / np.sqrt(some.sum())
        assert after[some].mean() == pytest.approx(orders[some].mean(), abs=4 * spread)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_probability_of_order_is_the_ratio_of_likelihoods(truth):
    people = simulate(truth, 500, seed=3)
    for horizon in (1.0, 90.0, 2_000.0):
        silent = np.exp(truth.log_likelihood(people + np.array([0, 0, horizon])) - truth.log_likelihood(people))
        assert truth.probability_of_order(people, horizon) == pytest.approx(1 - silent, abs=1e-9)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_rates_of_order_are_the_slope_of_expected_orders(truth):
    """The next order is all there is within an instant, for people of any history."""
    people = simulate(truth, 500, seed=3)
    instant = truth.probability_of_order(people, 1e-3)
    assert truth.expected_orders(people, 1e-3) == pytest.approx(instant, rel=1e-3, abs=1e-8)


def test_bg_nbd_expectation_is_the_published_formula():
    from scipy.special import hyp2f1

    model = KNOWN[0]
    people, h = simulate(model, 300, seed=4), 120.0
    x, last, age = people.T
    r, alpha, a, b = model.r_, model.alpha_, model.a_, model.b_
    fading = ((alpha + age) / (alpha + age + h)) ** (r + x)
    top = (a + b + x - 1) / (a - 1) * (1 - fading * hyp2f1(r + x, b + x, a + b + x - 1, h / (alpha + age + h)))
    gone = np.where(x > 0, a / (b + np.maximum(x, 1) - 1) * ((alpha + age) / (alpha + last)) ** (r + x), 0)
    assert model.expected_orders(people, h) == pytest.approx(top / (1 + gone), rel=1e-9)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
@given(st.lists(st.floats(0, 5_000), min_size=2, max_size=6).map(sorted))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_forecasts_rise_with_the_horizon(truth, horizons):
    rows = np.repeat(EDGES, len(horizons), axis=0)
    for forecast in (truth.probability_of_order, truth.expected_orders):
        values = forecast(rows, np.tile(horizons, len(EDGES))).reshape(len(EDGES), -1)
        assert (np.diff(values) >= -1e-9 * np.maximum(values[:, 1:], 1)).all()


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_horizons_of_nothing_and_of_ever_make_sense(truth):
    assert not truth.probability_of_order(EDGES, 0).any()
    assert not truth.expected_orders(EDGES, 0).any()
    ever = truth.probability_of_order(EDGES, np.inf)
    assert (ever <= truth.probability_alive(EDGES) + 1e-12).all()
    assert ever == pytest.approx(truth.probability_of_order(EDGES, 1e30), abs=1e-6)
    orders = truth.expected_orders(EDGES, np.inf)
    assert np.isinf(orders[0])  # a, s < 1: some people never go
    assert not np.isnan(orders).any()
    with pytest.raises(ValueError, match="horizon"):
        truth.probability_of_order(EDGES, -1)
    with pytest.raises(ValueError, match="horizon"):
        truth.expected_orders(EDGES, np.nan)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_extreme_rows_give_finite_numbers(truth):
    for values in (truth.log_likelihood(EDGES), truth.expected_orders(EDGES, 365.0)):
        assert np.isfinite(values).all()
    for values in (truth.probability_alive(EDGES), truth.probability_of_order(EDGES, 365.0)):
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("model", MODELS, ids=named)
@pytest.mark.parametrize("rows", [EDGES, EDGES[:1], EDGES[:2], EDGES[2:3], np.repeat(EDGES[3:4], 50, axis=0)])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_little_or_odd_data_gives_finite_models(model, rows, penalty):
    fitted = clone(model).set_params(penalty=penalty).fit(rows)
    assert all(0 < getattr(fitted, name) < np.inf for name in model._names)
    assert np.isfinite(fitted.expected_orders(EDGES, 90.0)).all()
    assert np.isfinite(fitted.log_likelihood_)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_people_are_fitted_the_same_grouped_weighted_and_in_any_order(truth):
    people = np.floor(simulate(truth, 3_000, seed=5) / [1, 20, 20]) * [1, 20, 20]
    groups, counts = group(people)
    assert len(groups) < len(people) / 2
    once = clone(truth).fit(people)
    for other in (clone(truth).fit(groups, sample_weight=counts), clone(truth).fit(people[::-1])):
        assert vars(other) == vars(once)


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_the_unit_of_time_does_not_matter(truth):
    people = simulate(truth, 2_000, seed=6)
    days, weeks = clone(truth).fit(people), clone(truth).fit(people / [1, 7, 7])
    assert weeks.alpha_ * 7 == pytest.approx(days.alpha_, rel=1e-4)
    assert weeks.r_ == pytest.approx(days.r_, rel=1e-4)
    assert weeks.log_likelihood_ == pytest.approx(days.log_likelihood_ + np.log(7) * people[:, 0].sum(), abs=1e-4)
    assert weeks.expected_orders(people / [1, 7, 7], 10) == pytest.approx(days.expected_orders(people, 70), rel=1e-3)


def test_the_slopes_used_in_fitting_are_those_of_the_log_likelihood():
    for model in KNOWN:
        people, logs = (
            np.vstack([simulate(model, 200, seed=7), EDGES]),
            model._logs() + np.array([0.3, -0.2, 0.1, -0.4]),
        )
        for slope, step in zip(model._terms(logs, people)[1], 1e-5 * np.eye(4), strict=True):
            rise = model._terms(logs + step, people)[0] - model._terms(logs - step, people)[0]
            assert slope == pytest.approx(rise / 2e-5, rel=1e-4, abs=1e-4)


def test_one_time_buyers_of_long_ago_are_alive_but_do_not_order():
    """Why the probability to be alive is no churn score: under the BG/NBD one order is never the last."""
    long_ago, regular = [0, 0, 1_000.0], [12, 990.0, 1_000.0]
    model = KNOWN[0]
    assert model.probability_alive([long_ago])[0] == 1
    assert model.probability_of_order([long_ago], 60)[0] < 0.1 < 0.4 < model.probability_of_order([regular], 60)[0]


def test_bins_keep_totals_and_all_but_all_of_the_likelihood():
    truth = KNOWN[0]
    people = simulate(truth, 60_000, seed=8)
    groups, counts = group(people)
    bins, sums = coarsen(groups, counts, 5_000)
    assert len(groups) > 40_000 > 5_000 >= len(bins)
    assert sums @ bins == pytest.approx(counts @ groups, rel=1e-12)
    exact, binned = clone(truth).fit(people), clone(truth).fit(bins, sample_weight=sums)
    assert 0 <= exact.log_likelihood_ - binned.log_likelihood(people).sum() < 0.1


@pytest.mark.parametrize("truth", KNOWN, ids=named)
def test_a_person_is_scored_the_same_in_any_company(truth):
    people = np.vstack([EDGES, simulate(truth, 3_000, seed=9)])
    for forecast in (truth.probability_of_order, truth.expected_orders):
        together = forecast(people, 365.0)
        alone = [forecast(people[[row]], 365.0)[0] for row in range(20)]
        assert together[:20] == pytest.approx(alone, rel=1e-12, abs=1e-300)


@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 0.5, 1e9, -3])] * 3), max_size=20))
@settings(max_examples=50, deadline=None)
def test_distinct_rows_are_those_of_numpy(rows):
    array = np.array(rows, dtype=float).reshape(-1, 3)
    found, place = distinct(array)
    wanted, wanted_place = np.unique(array, axis=0, return_inverse=True)
    assert found.tolist() == wanted.tolist()
    assert place.tolist() == wanted_place.tolist()


@pytest.mark.parametrize("model", [*MODELS, GammaGamma()], ids=named)
def test_models_are_estimators(model):
    copy = clone(model).set_params(penalty=0.5)
    assert clone(copy).get_params() == model.get_params() | {"penalty": 0.5}
    with pytest.raises(ValueError, match="not fitted"):
        copy.predict([[1, 1, 1]])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[-1, 0, 1]], "negative"),
        ([[1, 3, 2]], "after their age"),
        ([[0, 1, 2]], "no repeat order"),
        ([[1, 1]], "columns"),
        ([[np.nan, 1, 1]], "NaN"),
    ],
)
def test_impossible_rows_are_refused_with_the_reason(rows, words):
    with pytest.raises(ValueError, match=words):
        BGNBD().fit(rows)


def test_weights_that_are_none_are_refused():
    for weights in ([0, 0], [1, -1], [1], [1, np.nan]):
        with pytest.raises(ValueError, match=r"weight"):
            BGNBD().fit([[0, 0, 1], [1, 1, 2]], sample_weight=weights)


def _values(q, people, seed=0):
    rng = np.random.default_rng(seed)
    orders = rng.integers(0, 6, people)
    value = rng.gamma(3.0 * np.maximum(orders, 1), 1 / rng.gamma(q, 1 / 20, people)) / np.maximum(orders, 1)
    return np.column_stack([orders, np.where(orders > 0, value, 0)])


def test_values_of_simulated_orders_are_recovered_in_any_money():
    rows = _values(4.0, 20_000)
    model, cents = GammaGamma().fit(rows), GammaGamma().fit(rows * [1, 100])
    assert (model.p_, model.q_, model.v_) == pytest.approx((3, 4, 20), rel=0.15)
    assert (cents.p_, cents.v_) == pytest.approx((model.p_, 100 * model.v_), rel=1e-4)
    assert model.expected_value([[0, 0], [1, 5.0]]) == pytest.approx([20, 3 * 25 / 6], rel=0.05)


def test_values_without_a_mean_are_given_the_observed_one():
    rows = _values(0.6, 3_000)
    paid = rows[rows[:, 0] > 0]
    model = GammaGamma().fit(rows)
    assert model.mean_is_observed_
    assert model.q_ > 1
    assert model.expected_value([[0, 0]])[0] == pytest.approx(paid[:, 1].mean())


@pytest.mark.parametrize(
    "rows", [[[1, 5.0]], [[2, 5.0], [3, 5.0]], [[1, 5.0], [4, 100.0], [0, 0]], [[2000, 1e-3], [1, 1e9]]]
)
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_few_or_odd_values_give_finite_expectations(rows, penalty):
    expected = GammaGamma(penalty=penalty).fit(rows).expected_value([[0, 0], [1, 5.0], [2000, 10.0]])
    assert np.isfinite(expected).all()
    assert (expected > 0).all()


def test_values_of_nothing_are_refused_with_the_reason():
    refused = {"worth 0 or less": [[2, -3.0]], "worth 0": [[1, 0.0]], "Nobody": [[0, 0]], "columns": [[1]]}
    for words, rows in refused.items():
        with pytest.raises(ValueError, match=words):
            GammaGamma().fit(rows)
