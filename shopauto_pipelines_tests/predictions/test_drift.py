"""Drift: silent for the same people, heard where they have changed, and not taken in by chance."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions import drift, serving, tables
from shopauto_pipelines.predictions.backtest import Challenger
from shopauto_pipelines.predictions.checks import drift as drift_check
from shopauto_pipelines.predictions.dataset import COLUMNS
from shopauto_pipelines.predictions.store import ModelStore
from shopauto_pipelines_tests.predictions.conftest import YOUNG_LAST


def shop_people(many, seed):
    """Features of people: recency decides the forecast, visits have nothing to do with it, a third have no interval yet."""
    rng = np.random.default_rng(seed)
    found = {name: np.zeros(many) for name in COLUMNS}
    found |= {"recency_days": np.floor(rng.exponential(60, many)), "visits_90d": rng.poisson(4, many).astype(float)}
    return found | {"last_interval_days": np.where(rng.random(many) < 0.33, np.nan, rng.exponential(30, many))}


def forecast(people):
    return 1 - np.exp(-(people["recency_days"] + 5) / 90)


def profile(people):
    return drift.profile(people, "churn_probability", forecast(people))


def scored(people):
    return people | {"churn_probability": np.round(forecast(people), 6)}


def found(then, now):
    return {each.name: each for each in drift.compare(profile(then), [scored(now)])}


def test_the_same_people_have_not_drifted():
    people = shop_people(3_000, 0)
    for each in found(people, people).values():
        assert (each.psi, each.then) == (0, pytest.approx(each.now, abs=1e-5))


@pytest.mark.parametrize("many", [300, 3_000])
def test_other_people_of_the_same_kind_have_not_drifted_by_more_than_chance(many):
    beyond = []
    for seed in range(10):
        drifts = found(shop_people(many, seed), shop_people(many, 100 + seed))
        beyond.append(drifts["recency_days"].psi - drifts["recency_days"].by_chance)
        assert not any(each.large for each in drifts.values())
    spread = 10 * 2 / many  # of an index whose mean by chance is nearly 10 bins · 2 / people
    assert abs(np.mean(beyond)) < spread / 2


def test_doubled_recency_is_seen_in_the_feature_and_in_the_forecast():
    now = shop_people(3_000, 1)
    now["recency_days"] = now["recency_days"] * 2
    drifts = found(shop_people(3_000, 0), now)
    assert {name for name, each in drifts.items() if each.large} == {"recency_days", "churn_probability"}
    assert drifts["recency_days"].now == pytest.approx(2 * drifts["recency_days"].then, rel=0.1)


def test_a_feature_that_has_nothing_to_do_with_the_forecast_may_change():
    now = shop_people(3_000, 1)
    now["visits_90d"] = now["visits_90d"] * 5
    moved = found(shop_people(3_000, 0), now)["visits_90d"]
    assert moved.psi > 1
    assert not moved.large


def test_what_is_not_known_any_more_is_a_change():
    now = shop_people(3_000, 0)
    now["recency_days"] = np.where(np.arange(3_000) % 2, np.nan, now["recency_days"])
    then = profile(shop_people(3_000, 0))
    assert {each.name: each for each in drift.compare(then, [now])}["recency_days"].large


def test_people_in_batches_are_compared_as_in_one():
    then, now = profile(shop_people(1_000, 0)), scored(shop_people(900, 1))
    parts = [{name: values[part] for name, values in now.items()} for part in (slice(0, 7), slice(7, 900))]
    assert drift.compare(then, parts) == drift.compare(then, [now])


def test_a_column_matters_as_much_as_for_one_of_the_targets():
    one = {"a": {"rank_correlation": -0.3, "edges": []}, "churn_probability": {"rank_correlation": 1.0}}
    other = {"a": {"rank_correlation": 0.1, "edges": []}, "expected_orders_90d": {"rank_correlation": 1.0}}
    both = drift.merged(one, other)
    assert both["a"]["rank_correlation"] == -0.3
    assert list(both) == ["a", "churn_probability", "expected_orders_90d"]


@pytest.fixture
def scored_lake(young, make_shop, tmp_path, monkeypatch):
    """Scores a day of a lake by given probabilities, with models whose cards know people by other ones."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, shop, day = Lake(tmp_path / "lake", threads=1), make_shop(young), YOUNG_LAST
    lake.write(features.CUSTOMER_FEATURES, [day], shop.features(day, shop.end_of_day(day)).to_pyarrow())
    numbers = shop.numbers(day)
    seen = {name: serving.to_numpy(numbers[name]) for name in COLUMNS}

    def write(then, now, passed=True):
        probability = then(seen["recency_days"])
        made_for = drift.profile(seen, "churn_probability", probability)
        challenger = Challenger("churn", day, None, passed, "passed", {}, {}, made_for)
        ModelStore(tmp_path / "models").save("churn-x", challenger)
        row = {"target": "churn", "model_id": "churn-x" if passed else None, "verdict": "passed"}
        lake.write(tables.MODELS, [day], pa.Table.from_pylist([row], tables.MODELS.arrow_schema))
        columns = {"customer_id": numbers["customer_id"], "churn_probability": now(seen["recency_days"])}
        empty = {name: pa.nulls(len(numbers)) for name in tables.SCORES.arrow_schema.names if name not in columns}
        scores = pa.table(columns | empty).select(tables.SCORES.arrow_schema.names)
        lake.write(tables.SCORES, [day], scores.cast(tables.SCORES.arrow_schema))
        return _checked(day)

    return write


def _checked(day):
    settings = SettingsResource()
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [drift_check],
            selection=dg.AssetSelection.checks(drift_check),
            resources={"settings": settings, "lake": LakeResource(settings=settings)},
            tags={"dagster/partition": day.isoformat()},
            instance=instance,
        )
    return run.get_asset_check_evaluations()[0]


def test_the_check_passes_where_the_day_is_as_at_training_with_a_table(scored_lake):
    result = scored_lake(lambda days: days / 200, lambda days: days / 200)
    assert result.passed
    records = result.metadata[f"since {YOUNG_LAST}"].records
    assert {record.data["column"] for record in records} == {*COLUMNS, "churn_probability"}
    assert all(record.data["psi"] == 0 for record in records)


def test_the_check_warns_and_says_what_has_moved(scored_lake):
    result = scored_lake(lambda days: days / 200, lambda days: days / 100)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert result.description.startswith(f"churn_probability since {YOUNG_LAST}: PSI ")
    assert "recency_days" not in result.description


def test_the_check_says_where_no_model_is_in_force(scored_lake):
    result = scored_lake(lambda days: days / 200, lambda days: days / 200, passed=False)
    assert (result.passed, result.description) == (True, "no model is in force")
