"""The room's assets and the gate, materialised for real on a lake of rollups."""

import shutil
from datetime import timedelta

import dagster as dg
import pyarrow as pa
import pytest

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.dagster.assets import spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.predictions import gate, serving, tables
from shopauto_pipelines.predictions.assets import ASSETS
from shopauto_pipelines.predictions.checks import CHECKS
from shopauto_pipelines.predictions.dataset import training_day
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.predictions.conftest import FIRST, activity_of, order_log, shop_of

UPSTREAM = [
    dg.AssetSpec(**spec_arguments(table, table.room)).with_io_manager_key("lake_io")
    for table in (
        raw.CUSTOMERS,
        raw.ORDERS,
        profiles.CLAIMS,
        features.DAILY_ACTIVITY,
        features.DAILY_PRODUCTS,
        features.DAILY_CARTS,
        features.CUSTOMER_FEATURES,
    )
]


def _lake(home, people, days) -> tuple[Lake, list]:
    lake, log = Lake(home / "lake", threads=2), order_log(people, days=days)
    span = days_between(FIRST, FIRST + timedelta(days=days - 1))
    lake.write(features.DAILY_ACTIVITY, span, activity_of(log))
    for table in (raw.CUSTOMERS, raw.ORDERS, profiles.CLAIMS, features.DAILY_PRODUCTS, features.DAILY_CARTS):
        lake.write(table, [span[0]], table.arrow_schema.empty_table())
    shop = shop_of(log)
    for day in span[-3:]:
        lake.write(features.CUSTOMER_FEATURES, [day], pa.table(shop.features(day, shop.end_of_day(day)).to_pyarrow()))
    return lake, span


def _materialise(*days):
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*UPSTREAM, *ASSETS, *CHECKS],
            selection=[*ASSETS],
            resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
            partition_key=days[0].isoformat() if len(days) == 1 else None,
            tags={
                "dagster/asset_partition_range_start": days[0].isoformat(),
                "dagster/asset_partition_range_end": days[-1].isoformat(),
            }
            if len(days) > 1
            else {},
            instance=instance,
        )


@pytest.mark.slow
def test_a_day_is_scored_by_the_model_in_force_and_scored_again_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, span = _lake(tmp_path, people=700, days=420)
    result = _materialise(span[-1])
    assert result.success
    evaluation = result.get_asset_check_evaluations()[0]
    assert "data:image/png;base64" in evaluation.metadata["churn_plot"].value

    models = {row["target"]: row for row in lake.on(tables.MODELS, span[-1]).to_pyarrow().to_pylist()}
    ruling = gate.rule(list(models.values()))
    assert (evaluation.passed, evaluation.description) == (ruling.state == "passed", ruling.text)
    assert ruling.state != "stop"
    due = training_day(span[-1], FIRST, 28)
    assert {row["challenger_as_of"] for row in models.values()} == {due}
    assert all((due - row["trained_as_of"]).days in (0, 28, 56) for row in models.values())
    scores = lake.on(tables.SCORES, span[-1]).to_pyarrow().to_pylist()
    buyers = lake.on(features.CUSTOMER_FEATURES, span[-1]).filter(lambda t: t.orders > 0).count().execute()
    assert len(scores) == buyers
    for row in scores:
        assert 0 < row["churn_probability"] < 1
        assert row["expected_orders_90d"] >= 0
        assert row["value_cents_365d"] >= 0
        assert row["model_id"] == f"{models['churn']['model_id']}, {models['orders']['model_id']}"
        assert row["next_order_from"] is None or row["next_order_from"] > span[-1]
        assert row["next_order_to"] is None or row["next_order_from"] <= row["next_order_on"] <= row["next_order_to"]

    path, trained = lake.path(tables.SCORES, span[-1]), sorted((tmp_path / "models").rglob("*"))
    before, times = path.read_bytes(), [file.stat().st_mtime_ns for file in trained]
    path.unlink()
    assert _materialise(span[-1]).success
    assert path.read_bytes() == before
    assert [file.stat().st_mtime_ns for file in trained] == times  # nothing was trained again
    assert not list((tmp_path / "lake" / "_staging").glob("tmp*"))


@pytest.mark.slow
def test_three_days_in_one_run_give_the_bytes_of_single_days_and_train_once(tmp_path, monkeypatch):
    written, trained = {}, []
    train = serving.backtest.train
    monkeypatch.setattr(serving.backtest, "train", lambda *a: trained.append(a[1]) or train(*a))
    _, span = _lake(tmp_path / "range", people=600, days=300)
    shutil.copytree(tmp_path / "range", tmp_path / "single")
    days = span[-3:]
    for name in ("range", "single"):
        monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path / name))
        lake = Lake(tmp_path / name / "lake", threads=2)
        for run in [days] if name == "range" else [[day] for day in days]:
            assert _materialise(*run).success
        written[name] = [lake.path(table, day).read_bytes() for table in tables.TABLES for day in days]
        if name == "range":
            assert 1 <= len(trained) == len(set(trained)) <= 1 + serving.LOOK_BACK
            shutil.copytree(tmp_path / "range" / "models", tmp_path / "single" / "models")
            trained.clear()
    assert not trained
    assert written["range"] == written["single"]
    assert lake.on(tables.SCORES, days[0]).churn_probability.count().execute() > 0


def test_a_young_shop_gets_no_scores_and_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, span = _lake(tmp_path, people=60, days=40)
    result = _materialise(span[-1])
    assert result.success
    assert result.get_asset_check_evaluations()[0].passed
    scores = lake.on(tables.SCORES, span[-1]).to_pyarrow().to_pylist()
    assert scores
    assert all(row["churn_probability"] is None and "not enough data" in row["note"] for row in scores)
