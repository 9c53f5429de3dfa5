"""What holds for every asset of the house: read off the definitions, and off a real run of the whole of it."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest

from shopauto_pipelines.definitions import defs
from shopauto_pipelines.platform.dagster.assets import LANE_TAG, PARTITION_TAG
from shopauto_pipelines.platform.dagster.partitions import DAILY
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.realtime import sensors

ROOMS = {"files": "sources", "raw": "sources"} | {
    room: room
    for room in (
        "collector",
        "profiles",
        "features",
        "predictions",
        "recommendations",
        "segments",
        "campaigns",
        "outbox",
        "realtime",
        "insights",
    )
}

REPOSITORY = defs().get_repository_def()
GRAPH = REPOSITORY.asset_graph
ASSETS = [pytest.param(GRAPH.get(key), id=key.to_user_string()) for key in sorted(GRAPH.get_all_asset_keys())]
LIVE = {key for key in GRAPH.get_all_asset_keys() if GRAPH.get(key).tags.get(LANE_TAG) == "realtime"}
BY_DAYS = GRAPH.materializable_asset_keys - LIVE
MADE = [pytest.param(GRAPH.get(key), id=key.to_user_string()) for key in sorted(BY_DAYS)]


def name_of(asset):
    return asset.key.to_user_string()


def environment(home):
    """Of a process with a home of its own, and no other settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    return kept | {"SHOPAUTO_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}


def layer_of(name):
    return REPOSITORY.get_job(name).asset_layer


@pytest.mark.parametrize("asset", ASSETS)
def test_an_asset_says_what_it_is_whose_it_is_and_in_which_room_it_belongs(asset):
    assert asset.description
    assert asset.owners
    assert asset.kinds
    assert asset.group_name == ROOMS[asset.key.path[0]]
    schema = asset.metadata["dagster/column_schema"]
    assert schema.columns
    assert [column.name for column in schema.columns if not column.description] == []
    assert [text for text in asset.metadata.values() if "unserializable" in str(text)] == []


@pytest.mark.parametrize("asset", MADE)
def test_what_is_made_is_made_by_days_in_one_run_and_is_expected_daily(asset):
    assert asset.partitions_def == DAILY
    assert asset.backfill_policy == dg.BackfillPolicy.single_run()
    assert asset.freshness_policy is not None


def test_nothing_runs_by_itself():
    assert {
        name_of(GRAPH.get(key)) for key in GRAPH.get_all_asset_keys() if GRAPH.get(key).automation_condition
    } == set()
    assert [schedule.default_status for schedule in REPOSITORY.schedule_defs] == [dg.DefaultScheduleStatus.STOPPED]
    assert [s.name for s in REPOSITORY.sensor_defs if s.default_status != dg.DefaultSensorStatus.STOPPED] == []


def test_the_daily_refresh_makes_every_asset_and_runs_every_check():
    refresh = layer_of("daily_refresh")
    assert set(refresh.executable_asset_keys) == set(BY_DAYS)
    assert set(refresh.asset_graph.asset_check_keys) == set(GRAPH.asset_check_keys)


def test_what_is_made_when_something_happens_has_a_job_of_its_own_and_no_days():
    assert {key.to_user_string() for key in LIVE} == {"realtime/abandoned_carts"}
    assert set(layer_of("abandoned_carts").executable_asset_keys) == LIVE
    assert [GRAPH.get(key).partitions_def for key in LIVE] == [None]
    job = REPOSITORY.get_job(sensors.JOB)
    assert list(job.graph.node_dict) == [sensors.STEP]
    assert job.executor_def is dg.in_process_executor


def test_loading_history_makes_exactly_what_is_partitioned_by_the_day_it_happened():
    by_day = {key for key in GRAPH.materializable_asset_keys if GRAPH.get(key).tags.get(PARTITION_TAG) == "day"}
    assert by_day
    assert set(layer_of("load_history").executable_asset_keys) == by_day


def test_the_schedule_refreshes_yesterday_at_five():
    (schedule,) = REPOSITORY.schedule_defs
    assert (schedule.cron_schedule, schedule.job.name) == ("0 5 * * *", "daily_refresh")
    at_five = datetime(2026, 7, 1, 5, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=at_five) as context:
        requests = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key for request in requests] == ["2026-06-30"]


@pytest.mark.parametrize("asset", [p for p in MADE if p.values[0].key.path[0] in ("raw", "profiles", "features")])
def test_a_table_that_others_are_computed_from_has_a_quality_suite_that_stops_the_run(asset):
    checks = [key for key in GRAPH.asset_check_keys if key.asset_key == asset.key and key.name == "quality"]
    assert [GRAPH.get(key).blocking for key in checks] == [True]


def test_definitions_load_without_the_libraries_that_only_runs_need():
    script = (
        "import sys; from shopauto_pipelines.definitions import defs; defs().get_repository_def(); "
        "print(*(m for m in ('sklearn', 'matplotlib', 'great_expectations') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []
    assert "Warning" not in done.stderr


def test_a_run_before_anything_is_loaded_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    first = DAILY.get_first_partition_key()
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs().resolve_job_def("daily_refresh")
        result = job.execute_in_process(
            instance=instance,
            partition_key=first,
            asset_selection=[dg.AssetKey(["raw", "products"])],
            raise_on_error=False,
        )
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data.description.startswith("Nothing has been loaded. Run `shopauto load")


@pytest.mark.slow
def test_dagster_finds_nothing_wrong_with_the_definitions(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate"],
        cwd=PROJECT_ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Validation successful for code location shopauto_pipelines" in output
