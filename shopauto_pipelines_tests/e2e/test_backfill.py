"""A backfill of all assets in the UI: one run for the range, the bytes of the command line's runs, not one message, all well.

The webserver's GraphQL and the daemon's work on backfills are Dagster's own, in one process, on the home of a refreshed shop.
"""

import json
import logging
import shutil
from contextlib import ExitStack

import pytest

from shopauto_pipelines_tests.e2e.conftest import RANGE_DAYS

pytestmark = pytest.mark.slow

DAYS = [f"2026-06-{day:02}" for day in range(31 - RANGE_DAYS, 31)]


def test_a_backfill_in_the_ui_is_one_run_that_gives_the_bytes_of_the_command_line_and_sends_nothing(
    new_shop, refreshed
):
    shop = new_shop(like=refreshed)
    before, sent = shop.tables(), shop.messages()
    for day in DAYS:
        for partition in (shop.home / "lake").rglob(f"*={day}"):
            shutil.rmtree(partition)
    assert len(shop.tables()) < len(before)
    said = shop.python("from shopauto_pipelines_tests.e2e.test_backfill import backfill; backfill()")
    found = json.loads(said.splitlines()[-1])
    assert found["status"] == "COMPLETED_SUCCESS"
    assert found["runs"] == [[DAYS[0], DAYS[-1], "SUCCESS"]]
    assert found["before"] == ["behind: there is data, and no refresh yet"]
    assert found["after"] == ["note: not refreshed, between days that were"]
    assert shop.tables() == before
    assert shop.messages() == sent


def backfill() -> None:
    """Backfill every asset of a refresh on the home of the environment; print what became of it as a line of JSON."""
    import dagster as dg
    from dagster._core.execution.backfill import BulkActionStatus
    from dagster._core.instance import InstanceRef
    from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.run_coordinator import DefaultRunCoordinator
    from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster._daemon.backfill import execute_backfill_iteration
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.testclient import TestClient

    from shopauto_pipelines.cli import runs
    from shopauto_pipelines.definitions import defs
    from shopauto_pipelines.orchestration.health import examine
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.settings import PROJECT_ROOT, load_settings

    logging.disable(logging.CRITICAL)
    here = {
        "run_coordinator": DefaultRunCoordinator,
        "run_launcher": SyncInMemoryRunLauncher,
        "compute_logs": NoOpComputeLogManager,
    }
    ref = InstanceRef.from_dir(
        str(load_settings().home / "dagster"),
        config_dir=str(PROJECT_ROOT),
        overrides={name: {"module": part.__module__, "class": part.__name__} for name, part in here.items()}
        | {"concurrency": {}},
    )
    assets = defs().resolve_job_def("daily_refresh").asset_layer.executable_asset_keys
    target = LoadableTargetOrigin(module_name="shopauto_pipelines.definitions", attribute="defs")
    location = InProcessCodeLocationOrigin(target, location_name="shopauto_pipelines")
    lake, flow = Lake(load_settings().lake_path), runs.made_in_order()
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.from_ref(ref))
        workspace = stack.enter_context(WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(location)))
        before = examine(lake, flow, runs.failed_runs(instance))
        ui = TestClient(DagsterWebserver(workspace).create_asgi_app())
        query = """mutation($of: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $of) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
        wanted = {"partitionNames": DAYS, "assetSelection": [{"path": key.path} for key in assets]}
        answer = ui.post("/graphql", json={"query": query, "variables": {"of": wanted}}).json()
        name = answer["data"]["launchPartitionBackfill"]["backfillId"]
        while instance.get_backfill(name).status == BulkActionStatus.REQUESTED:
            list(execute_backfill_iteration(workspace, logging.getLogger("backfill")))
        start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
        made = [
            [run.tags.get(start), run.tags.get(end), run.status.value]
            for run in instance.get_runs(dg.RunsFilter.for_backfill(name))
        ]
        after = examine(lake, flow, runs.failed_runs(instance))
        told = {
            when: [f"{each.kind}: {each.why}" for each in health.findings]
            for when, health in {"before": before, "after": after}.items()
        }
        print(json.dumps({"status": instance.get_backfill(name).status.value, "runs": made, **told}))
