"""What years of daily partitions cost the daemon and the UI.

    python benchmarks/partitions.py [--years N] [--quick]

Every asset of the daily refresh is told to Dagster as materialised on every day of so many years, in a home of its own with a
real database; nothing is computed. Then, with Dagster's own code, in this process:

- ``ui_graph_seconds``: what the graph's page asks of all assets, how many of their partitions are there;
- ``ui_asset_seconds``: what the page of one asset asks, all its partitions and how they stand;
- ``schedule_seconds``: a tick of the daily schedule;
- ``backfill_launch_seconds`` and ``backfill_tick_seconds``: a backfill of all assets and all days is asked for in the UI, and the
  daemon makes ``backfill_runs`` of it. No run is executed.

Each is the quickest of three, but for the backfill, which is done once. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import peak_mib, say, timed

if TYPE_CHECKING:
    import dagster as dg

#: The day after the last partition, as it is when the schedule ticks.
TODAY = date.today()

_GRAPH = """query($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { id partitionStats {
    numMaterialized numPartitions numFailed numMaterializing } } }"""
_ASSET = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
    partitionKeysByDimension { name partitionKeys } assetPartitionStatuses { __typename ... on TimePartitionStatuses {
    ranges { startKey endKey status } } } } } }"""
_BACKFILL = """mutation($of: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $of) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--years", type=float, default=3)
    parser.add_argument("--quick", action="store_true", help="a quarter of a year")
    options = parser.parse_args()
    days = round(365.25 * (0.25 if options.quick else options.years))
    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
        first = TODAY - timedelta(days=days)
        os.environ |= {"SHOPAUTO_HOME": str(Path(folder) / "home"), "SHOPAUTO_FIRST_DAY": first.isoformat()}
        with ExitStack() as stack:
            figures = measure(stack, [(first + timedelta(days=n)).isoformat() for n in range(days)])
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
    print(json.dumps(figures))


def measure(stack: ExitStack, days: Sequence[str]) -> dict[str, Any]:
    """The figures of the module's text."""
    import dagster as dg
    from dagster._core.execution.backfill import BulkActionStatus
    from dagster._core.instance import InstanceRef
    from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.run_coordinator import DefaultRunCoordinator
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster._daemon.backfill import execute_backfill_iteration
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.testclient import TestClient

    from shopauto_pipelines.definitions import defs
    from shopauto_pipelines.orchestration.schedules import DAILY
    from shopauto_pipelines.platform.settings import PROJECT_ROOT, load_settings

    logging.disable(logging.CRITICAL)

    class NoRuns(SyncInMemoryRunLauncher):
        def launch_run(self, context: Any) -> None:
            pass

    here = {"run_coordinator": DefaultRunCoordinator, "run_launcher": SyncInMemoryRunLauncher}
    home = load_settings().home / "dagster"
    home.mkdir(parents=True)
    overrides: dict[str, Any] = {
        name: {"module": part.__module__, "class": part.__name__} for name, part in here.items()
    }
    ref = InstanceRef.from_dir(str(home), config_dir=str(PROJECT_ROOT), overrides=overrides | {"concurrency": {}})
    instance = stack.enter_context(dg.DagsterInstance.from_ref(ref))
    instance._run_launcher = NoRuns()
    instance._run_launcher.register_instance(instance)
    assets = sorted(defs().resolve_job_def("daily_refresh").asset_layer.executable_asset_keys)
    keys = [{"path": key.path} for key in assets]
    say(f"{len(assets)} assets, {len(days):,} days: {len(assets) * len(days):,} partitions")
    told = timed(lambda: [_materialised(instance, key, days) for key in assets])
    target = LoadableTargetOrigin(module_name="shopauto_pipelines.definitions", attribute="defs")
    location = InProcessCodeLocationOrigin(target, location_name="shopauto_pipelines")
    workspace = stack.enter_context(WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(location)))
    ui = TestClient(DagsterWebserver(workspace).create_asgi_app())

    def ask(query: str, **variables: Any) -> dict[str, Any]:
        answer = ui.post("/graphql", json={"query": query, "variables": variables}).json()
        if answer.get("errors"):
            raise SystemExit(str(answer["errors"])[:2000])
        return answer["data"]

    def best(work: Any) -> float:
        return round(min(timed(work) for _ in range(3)), 3)

    say("the UI")
    graph = ask(_GRAPH, keys=keys)
    assert all(node["partitionStats"]["numMaterialized"] == len(days) for node in graph["assetNodes"])
    figures: dict[str, Any] = {
        "assets": len(assets),
        "days": len(days),
        "partitions": len(assets) * len(days),
        "told_seconds": round(told, 1),
        "ui_graph_seconds": best(lambda: ask(_GRAPH, keys=keys)),
        "ui_asset_seconds": best(lambda: ask(_ASSET, key={"path": ["features", "customer_features"]})),
    }
    say("the schedule")
    repository = defs().get_repository_def()
    schedule = repository.get_schedule_def(DAILY.name)

    def tick() -> None:
        with dg.build_schedule_context(instance, repository_def=repository) as context:
            schedule.evaluate_tick(context)

    figures["schedule_seconds"] = best(tick)
    say("a backfill of everything")
    started = time.perf_counter()
    answer = ask(_BACKFILL, of={"partitionNames": list(days), "assetSelection": keys})["launchPartitionBackfill"]
    figures["backfill_launch_seconds"] = round(time.perf_counter() - started, 3)
    name = answer["backfillId"]
    ticks = []
    while instance.get_backfill(name).status == BulkActionStatus.REQUESTED and not instance.get_runs(
        dg.RunsFilter.for_backfill(name)
    ):
        ticks.append(timed(lambda: list(execute_backfill_iteration(workspace, logging.getLogger("backfill")))))
    figures["backfill_runs"] = len(instance.get_runs(dg.RunsFilter.for_backfill(name)))
    figures["backfill_tick_seconds"] = round(sum(ticks), 3)
    watching = timed(lambda: list(execute_backfill_iteration(workspace, logging.getLogger("backfill"))))
    figures["backfill_watch_seconds"] = round(watching, 3)
    figures["peak_mib"] = round(peak_mib())
    return figures


def _materialised(instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[str]) -> None:
    """Tell Dagster that an asset is there on all days."""
    import dagster as dg
    from dagster._core.events import DagsterEvent, StepMaterializationData
    from dagster._core.events.log import EventLogEntry
    from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

    events = [
        EventLogEntry(
            error_info=None,
            user_message="",
            level=logging.INFO,
            run_id=RUNLESS_RUN_ID,
            timestamp=time.time(),
            job_name=RUNLESS_JOB_NAME,
            dagster_event=DagsterEvent(
                dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                RUNLESS_JOB_NAME,
                event_specific_data=StepMaterializationData(dg.AssetMaterialization(key, partition=day)),
            ),
        )
        for day in days
    ]
    instance.event_log_storage.store_event_batch(events)


if __name__ == "__main__":
    main()
