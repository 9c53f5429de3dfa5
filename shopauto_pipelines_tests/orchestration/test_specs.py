"""What holds for every asset of the house: read off the definitions, and off a real run of the whole of it."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest

from shopauto_pipelines.definitions import defs
from shopauto_pipelines.orchestration.flow import flow
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
        "explain",
    )
}


@pytest.fixture(scope="module")
def repository():
    """Loaded by the tests, not by whoever collects them: it takes seconds, on every worker."""
    return defs().get_repository_def()


@pytest.fixture(scope="module")
def graph(repository):
    return repository.asset_graph


@pytest.fixture(scope="module")
def live(graph):
    """What is made when something happens."""
    return {key for key in graph.get_all_asset_keys() if graph.get(key).tags.get(LANE_TAG) == "realtime"}


@pytest.fixture(scope="module")
def by_days(graph, live):
    """What is made of days."""
    return graph.materializable_asset_keys - live


def test_the_flow_has_every_table_of_the_lake_after_those_it_reads(graph):
    seen = set()
    for made in flow(graph):
        assert {table.name for table in made.reads} <= seen, made.table.name
        seen.add(made.table.name)
    assert {"raw/orders", "features/customer_360", "campaigns/win_back/audience", "insights/campaign_effects"} <= seen
    [membership] = [made for made in flow(graph) if made.table.name == "segments/membership"]
    assert [table.name for table in membership.earlier] == ["segments/membership", "segments/declared"]


def test_an_audience_whose_trigger_looks_at_states_of_earlier_days_rests_on_them(graph):
    earlier = {made.table.name: {table.name for table in made.earlier} for made in flow(graph)}
    found = {name: tables for name, tables in earlier.items() if name.startswith("campaigns/") and tables}
    assert found == {
        "campaigns/next_order/audience": {"predictions/scores"},
        "campaigns/vip/audience": {"segments/changes", "segments/declared"},
        "campaigns/win_back/audience": {"segments/changes", "segments/declared"},
    }


def name_of(asset):
    return asset.key.to_user_string()


def environment(home):
    """Of a process with a home of its own, and no other settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    return kept | {"SHOPAUTO_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}


def test_an_asset_says_what_it_is_whose_it_is_and_in_which_room_it_belongs(graph):
    for key in graph.get_all_asset_keys():
        asset = graph.get(key)
        assert asset.description, key
        assert asset.owners, key
        assert asset.kinds, key
        assert asset.group_name == ROOMS[key.path[0]], key
        schema = asset.metadata["dagster/column_schema"]
        assert schema.columns, key
        assert [column.name for column in schema.columns if not column.description] == [], key
        assert [text for text in asset.metadata.values() if "unserializable" in str(text)] == [], key


def test_what_is_made_is_made_by_days_in_one_run_and_is_expected_daily(graph, by_days):
    assert by_days
    for asset in map(graph.get, by_days):
        assert asset.partitions_def == DAILY, asset.key
        assert asset.backfill_policy == dg.BackfillPolicy.single_run(), asset.key
        assert asset.freshness_policy is not None, asset.key


def test_nothing_runs_by_itself(repository, graph):
    assert {
        name_of(graph.get(key)) for key in graph.get_all_asset_keys() if graph.get(key).automation_condition
    } == set()
    assert [schedule.default_status for schedule in repository.schedule_defs] == [dg.DefaultScheduleStatus.STOPPED]
    assert [s.name for s in repository.sensor_defs if s.default_status != dg.DefaultSensorStatus.STOPPED] == []


def test_what_sends_says_when_it_does(repository, graph, by_days):
    [schedule] = repository.schedule_defs
    assert schedule.description.endswith("and sends its messages.")
    texts = [
        each.description
        for each in map(graph.get, by_days)
        if each.tags.get("shopauto/side_effect") == "sends_messages"
    ]
    assert len(texts) > 10
    for text in texts:
        assert "never in a backfill" in text
        assert "the daily refresh sends it" in text
        named = {sensor.name for sensor in repository.sensor_defs if f"`{sensor.name}`" in text}
        assert named == {"messages_in_their_hour", "rest_of_roll_outs"}


def test_the_daily_refresh_makes_every_asset_and_runs_every_check(repository, graph, by_days):
    refresh = repository.get_job("daily_refresh").asset_layer
    assert set(refresh.executable_asset_keys) == set(by_days)
    assert set(refresh.asset_graph.asset_check_keys) == set(graph.asset_check_keys)


def test_what_is_made_when_something_happens_has_a_job_of_its_own_and_no_days(repository, graph, live):
    assert {key.to_user_string() for key in live} == {"realtime/abandoned_carts"}
    assert set(repository.get_job("abandoned_carts").asset_layer.executable_asset_keys) == live
    assert [graph.get(key).partitions_def for key in live] == [None]
    job = repository.get_job(sensors.JOB)
    assert list(job.graph.node_dict) == [sensors.STEP]
    assert job.executor_def is dg.in_process_executor


def test_loading_history_makes_exactly_what_is_partitioned_by_the_day_it_happened(repository, graph):
    by_day = {key for key in graph.materializable_asset_keys if graph.get(key).tags.get(PARTITION_TAG) == "day"}
    assert by_day
    assert set(repository.get_job("load_history").asset_layer.executable_asset_keys) == by_day


def test_the_schedule_refreshes_yesterday_at_five(repository):
    (schedule,) = repository.schedule_defs
    assert (schedule.cron_schedule, schedule.job.name) == ("0 5 * * *", "daily_refresh")
    at_five = datetime(2026, 7, 1, 5, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=at_five) as context:
        requests = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key for request in requests] == ["2026-06-30"]


def test_a_table_that_others_are_computed_from_has_a_quality_suite_that_stops_the_run(graph, by_days):
    behind = [key for key in by_days if key.path[0] in ("raw", "profiles", "features")]
    assert behind
    for key in behind:
        checks = [check for check in graph.asset_check_keys if check.asset_key == key and check.name == "quality"]
        assert [graph.get(check).blocking for check in checks] == [True], key


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
def test_dagster_finds_nothing_wrong_with_the_definitions_nor_do_they_need_the_libraries_of_runs(tmp_path):
    script = (
        "import sys; from dagster._cli import main; sys.argv = ['dagster', 'definitions', 'validate']\n"
        "try:\n    main()\n"
        "finally:\n"
        "    print('LOADED', *(m for m in ('shopauto_pipelines.definitions', *NEEDED_BY_RUNS) if m in sys.modules))\n"
    ).replace("NEEDED_BY_RUNS", repr(("sklearn", "matplotlib", "great_expectations")))
    done = subprocess.run(
        [sys.executable, "-c", script],
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
    assert done.stdout.splitlines()[-1].split() == ["LOADED", "shopauto_pipelines.definitions"]
    warnings = [line for line in output.splitlines() if "Warning" in line]
    assert [line for line in warnings if "definitions_validate_command" not in line] == []  # of Dagster's own command
