"""Nothing that happens after a day changes what was known, learned or forecast on it; and a test would see it if it did."""

from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.features.customer_features import customer_features, end_of_day
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions import backtest, dataset
from shopauto_pipelines.predictions.own import Own
from shopauto_pipelines_tests.predictions.conftest import FIRST, LAST, YOUNG_LAST, order_log

CUT = FIRST + timedelta(days=100)
NEXT = CUT + timedelta(days=1)
#: Columns that nothing after a person's first order day changes.
_FIXED = {"first_order_cents"}


def shuffled(log: list[tuple[str, date]], after: date, people: int, seed: int = 0) -> list[tuple[str, date]]:
    """The log with its orders after a day given to other people and moved to other days after it; some are lost."""
    rng = np.random.default_rng(seed)
    past, future = ([row for row in log if (row[1] > after) == late] for late in (False, True))
    last = max((day for _, day in future), default=after + timedelta(days=90))
    many = max(len(future), 400)
    who, days = rng.integers(0, people, many), rng.integers(1, (last - after).days + 1, many)
    other = {(f"c{n:05}", after + timedelta(days=int(ahead))) for n, ahead in zip(who, days, strict=True)}
    assert other - set(future)
    return sorted({*past, *other})


def rollups(days: dict[date, list[str]]) -> tuple[ibis.Table, ibis.Table, ibis.Table]:
    """``features/daily_*`` of people to whom everything a rollup counts happens on a day."""
    rows = [(who, day) for day, people in days.items() for who in people]
    moment = [
        end_of_day(day - timedelta(days=1), Settings(_env_file=None).zone) + timedelta(hours=9) for _, day in rows
    ]
    given = {
        "shop_customer_id": [who for who, _ in rows],
        "day": [day for _, day in rows],
        "cart_id": [f"cart of {who} on {day}" for who, day in rows],
        "product_id": ["p"] * len(rows),
        "category": [f"c{day}" for _, day in rows],
        "first_at": moment,
        "last_at": moment,
        "ordered_at": [None] * len(rows),
        "coupon": [False] * len(rows),
        "page_views": [(3 + day.day) * day.day for _, day in rows],
    }
    made = []
    for table in (features.DAILY_ACTIVITY, features.DAILY_PRODUCTS, features.DAILY_CARTS):
        schema = table.arrow_schema.append(pa.field("day", pa.date32()))
        whole = {name: given.get(name, [3 + day.day for _, day in rows]) for name in schema.names}
        made.append(ibis.memtable(pa.table({name: whole[name] for name in schema.names}, schema=schema)))
    return made[0], made[1], made[2]


def features_of(days: dict[date, list[str]], cut_off: date) -> dict[str, dict]:
    """The models' columns of the people who had ordered by a cut-off, by person."""
    everybody = sorted({who for people in days.values() for who in people})
    identities = ibis.memtable({"shop_customer_id": everybody, "customer_id": everybody})
    zone = Settings(_env_file=None).zone
    found = customer_features(*rollups(days), identities, cut_off, end_of_day(cut_off, zone))
    rows = dataset.numeric(dataset.buyers(found, cut_off)).order_by("customer_id").to_pyarrow().to_pylist()
    return {row["customer_id"]: row for row in rows}


@pytest.fixture(scope="module")
def by_day() -> dict[str, dict[str, dict]]:
    """Features of three people, of whom one orders on the very cut-off and one for the first time, and all again the day after.

    As of the cut-off ``without`` and ``with`` the day after in the rollups, and as of the day ``after``.
    """
    ago = [CUT - timedelta(days=n) for n in (90, 31, 30, 7)]
    known = {ago[0]: ["a", "b"], ago[1]: ["a"], ago[2]: ["b"], ago[3]: ["a"], CUT: ["b", "c"]}
    later = known | {NEXT: ["a", "b", "c", "d"]}
    return {
        "without": features_of(known, CUT),
        "with": features_of(later, CUT),
        "after": features_of(later, NEXT),
    }


def test_what_everybody_does_the_day_after_the_cut_off_is_in_no_feature(by_day):
    found = by_day["with"]
    assert found == by_day["without"]
    assert [found[who]["recency_days"] for who in "abc"] == [7, 0, 0]
    assert [found[who]["orders"] for who in "abc"] == [3, 3, 1]
    assert [found[who]["orders_30d"] for who in "abc"] == [1, 1, 1]  # the day 30 days ago is not among the last 30
    assert [found[who]["orders_90d"] for who in "abc"] == [2, 2, 1]
    assert [found[who]["tenure_days"] for who in "abc"] == [90, 90, 0]
    assert [found[who]["last_visit_on"] for who in "abc"] == [7, 0, 0]


def test_a_feature_computed_one_day_late_would_be_seen(by_day):
    """Every column differs once the day after is known, so the test above fails for whichever of them knows it."""
    before, after = by_day["with"], by_day["after"]
    same = {name for name in dataset.COLUMNS if all(before[who][name] == after[who][name] for who in before)}
    assert same <= _FIXED
    assert set(after) - set(before) == {"d"}


def test_people_of_a_cut_off_are_those_who_had_ordered_by_it(make_shop):
    """Everybody orders on the day after: none of it is a feature, all of it is an outcome."""
    log = [row for row in order_log(60, days=150, seed=6) if row[1] <= CUT]
    everybody = sorted({who for who, _ in log})
    later = [(who, NEXT) for who in [*everybody, "new"]]
    shops = [make_shop(rows) for rows in (log, log + later)]
    plain, full = (dataset.people(shop, CUT) for shop in shops)
    assert [shops[1].log(CUT).ids[n].as_py() for n in full.who] == everybody
    for name in dataset.COLUMNS:
        assert np.array_equal(full.features[name], plain.features[name], equal_nan=True), name
    window = dataset.window(shops[1], full, 30, NEXT)
    assert (window.next_in == 1).all()
    assert (window.orders == 1).all()
    assert (window.last_period == dataset.window(shops[0], plain, 30, CUT).last_period).all()
    assert not dataset.window(shops[1], full, 30, CUT).orders.any()
    for shop, found in zip(shops, (plain, full), strict=True):
        quick = dataset.habits(shop, CUT)
        assert all((quick.features[name] == found.features[name]).all() for name in dataset.HABIT)


@pytest.mark.slow
def test_another_future_gives_the_same_bytes_on_any_number_of_threads(make_shop, young, young_forecast):
    """Orders after the training day are given to other people and other days, and were not there at all when forecast."""
    with threadpool_limits(3):
        trained = backtest.train(make_shop(shuffled(young, YOUNG_LAST, people=400)), YOUNG_LAST, 60)
    present = dataset.people(make_shop(young), YOUNG_LAST).features
    assert all(challenger.model.linear is not None for challenger in trained.values())
    for target, metrics in young_forecast.metrics.items():
        assert {**trained[target].metrics, "verdict": trained[target].verdict} == metrics
    scores = young_forecast.scores
    silent = trained["churn"].model(present)
    assert np.array_equal(np.round(1 - silent, 6), scores["probability_of_order"])
    assert np.array_equal(np.round(trained["orders"].model(present), 6), scores["expected_orders"])
    days = trained["orders"].model.next_order(present, silent)
    since = (scores["next_order_on"].cast("int32").to_numpy() - (YOUNG_LAST - date(1970, 1, 1)).days).astype(float)
    assert np.array_equal(np.where(days[:, 1] <= 365, days[:, 1], np.nan), since, equal_nan=True)


@pytest.mark.slow
def test_the_models_of_a_test_know_nothing_after_its_cut_off(make_shop, log):
    """Not what they learn from, not the people they are for, not the season, which is known here."""
    plan = dataset.plan(LAST, FIRST, 60)
    cut_off = plan.tests[-1]
    assert dataset.year_before(cut_off, FIRST)
    some = [row for row in log if row[0] < "c00300"]
    tests = [
        backtest._test(backtest._History(make_shop(rows), plan, Own()), cut_off)
        for rows in (some, shuffled(some, cut_off, people=300))
    ]
    known, other = tests
    assert known.season_known
    assert (known.window.orders != other.window.orders).any()
    features = known.window.features
    for name in dataset.COLUMNS:
        assert np.array_equal(features[name], other.window.features[name], equal_nan=True), name
    for part in ("churn", "orders"):
        models = [getattr(test, part) for test in tests]
        assert models[0].linear is not None
        assert all(np.array_equal(*pair) for pair in zip(*(model.parts(features) for model in models), strict=True))
        assert np.array_equal(*(model(features) for model in models))
    assert np.array_equal(*(test.orders.next_order(features) for test in tests))
    books = [test.books.expected(known.window.people, 60) for test in tests]
    assert all((books[0][name] == books[1][name]).all() for name in books[0])
