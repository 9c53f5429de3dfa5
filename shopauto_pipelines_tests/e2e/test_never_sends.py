"""Every way we know to have Dagster send for a day that is over, each really tried on a refreshed shop: nothing leaves.

The shop is computed for an older day, the one before the newest, and the newest, and has sent nothing yet. One process
tries all ways on two campaigns (:func:`try_all`), and after them sends the newest day by hand: so something would have left. What
each way did is looked at test by test.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from typing import Any
from unittest.mock import patch

import dagster as dg
import pytest

from shopauto_pipelines.outbox.channels.inbox import LocalInbox

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("never_sends")]

#: Days whose audiences are there. The newest is the last with data.
OLDER, BEFORE, NEWEST = "2026-05-31", "2026-06-29", "2026-06-30"

#: Campaigns that have somebody to write to on each of these days.
CAMPAIGNS = ("post_purchase", "review")

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Tried:
    """What a way did: messages that left, messages that came into the ledger, days of its runs that ended well and what the
    outbox said of their windows, and runs that failed."""

    left: int = 0
    planned: int = 0
    days: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    failed: int = 0


@pytest.fixture(scope="module")
def tried(new_shop, refreshed) -> dict[str, Tried]:
    """What each way did, by its name."""
    shop = new_shop(like=refreshed)
    said = shop.python("from shopauto_pipelines_tests.e2e.test_never_sends import try_all; try_all()")
    return {way: Tried(**found) for way, found in json.loads(said.splitlines()[-1]).items()}


CLOSED = "is not the newest day with data, which is 2026-06-30"
BACKFILL = "a backfill never sends"


@pytest.mark.parametrize(
    ("way", "days", "why"),
    [
        ("a backfill in the UI", {OLDER, BEFORE, NEWEST}, {BACKFILL}),
        ("a backfill of the newest day in the UI", {NEWEST}, {BACKFILL}),
        ("a run over closed days in the UI", {BEFORE}, {CLOSED}),
        ("a backfill on the command line", {OLDER, NEWEST}, {BACKFILL}),
        ("a range of days on the command line", {BEFORE}, {CLOSED}),
        ("a run of a backfill again in the UI", {NEWEST}, {BACKFILL}),
        ("that run again, with no tag of its first one", {NEWEST}, {BACKFILL}),
        ("a run of an older day again", {OLDER}, {CLOSED}),
        ("a run again whose first one is deleted", {NEWEST}, {"of which nothing is known any more"}),
        ("an automation condition", {NEWEST}, {"an automation condition never sends"}),
        ("the backfill's tag taken off", {OLDER}, {CLOSED}),
        ("tags of a day and of a range", set(), set()),
        ("tags of a day and of the end of a range", set(), set()),
        ("the whole outbox by hand for an older day", {BEFORE}, {CLOSED}),
        ("the clock set back to an older day", {OLDER}, {"is not the newest day with data, which is 2026-06-29"}),
        ("the clock set forth by a month", {NEWEST}, {"live sends for 2026-06-30 closed"}),
    ],
)
def test_nothing_leaves(tried, way, days, why):
    found = tried[way]
    assert (found.left, found.planned) == (0, 0)
    assert set(found.days) == days
    assert all(any(each in window for each in why) for window in found.windows), found.windows
    assert found.failed == (way == "tags of a day and of the end of a range"), "what was tried has really run"


def test_an_older_day_refreshed_on_the_command_line_sends_nothing(loaded):
    assert any("campaigns/newsletter/audience/as_of=2026-05-31" in path for path in loaded.tables("campaigns"))
    assert loaded.messages() == []


def test_the_newest_day_launched_by_hand_sends_and_launched_again_sends_nothing_more(tried):
    assert tried["the newest day by hand"].left > 0
    assert tried["the newest day by hand"].left == tried["the newest day by hand"].planned
    assert tried["the newest day by hand again"].windows == ["open: 2026-06-30 is the newest day with data"] * 2
    assert tried["the newest day by hand again"].left == 0


def test_messages_that_wait_for_their_hour_leave_by_the_sensor_and_those_of_another_day_do_not(tried):
    assert (tried["live, in the night"].left, tried["live, in the night"].planned > 0) == (0, True)
    assert tried["the sensor when their hour has come"].left > 0
    assert tried["the sensor when their hour has come"].days == [NEWEST] * len(CAMPAIGNS)
    other_day = tried["the sensor, where only another day waits"]
    assert (other_day.left, other_day.days) == (0, [])


def test_days_that_were_sent_stay_closed_where_the_data_the_clock_or_the_ledger_is_set_back(tried):
    over = "closed: 2026-06-29 is over: messages of 2026-06-30 have been sent already"
    for way in ("a lake of an older day", "a lake of an older day, the clock set back to it"):
        assert (tried[way].left, tried[way].days) == (0, [BEFORE] * len(CAMPAIGNS))
        assert all(window.startswith(over) for window in tried[way].windows)
    found = tried["the ledger set back"]
    assert (found.left, found.planned) == (0, 0)
    assert all("of which the ledger knows nothing" in window for window in found.windows)
    assert len(found.windows) == len(CAMPAIGNS)


class FarSide(LocalInbox):
    """A channel of live mode: what it took is files, as in the local inbox."""

    name = "far_side"


@cache
def definitions() -> dg.Definitions:
    """The project, with a job that only sends."""
    from shopauto_pipelines.definitions import defs

    sends = dg.AssetSelection.assets(*_KEYS)
    return dg.Definitions.merge(defs(), dg.Definitions(jobs=[dg.define_asset_job("send", sends, config=_QUIET)]))


_KEYS = [dg.AssetKey(["outbox", campaign]) for campaign in CAMPAIGNS]


class _Shop:
    """The shop of this process, and what is tried on it."""

    def __init__(self, stack: ExitStack) -> None:
        from dagster._core.instance import InstanceRef
        from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
        from dagster._core.remote_origin import InProcessCodeLocationOrigin
        from dagster._core.run_coordinator import DefaultRunCoordinator
        from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
        from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
        from dagster._core.workspace.context import WorkspaceProcessContext
        from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
        from dagster_webserver.webserver import DagsterWebserver
        from starlette.testclient import TestClient

        from shopauto_pipelines.platform.postgres import engine
        from shopauto_pipelines.platform.settings import PROJECT_ROOT, load_settings

        self.settings = load_settings()
        self.engine = engine(self.settings)
        self.tried: dict[str, Tried] = {}
        in_this_process = {"run_coordinator": DefaultRunCoordinator, "run_launcher": SyncInMemoryRunLauncher}
        parts = {**in_this_process, "compute_logs": NoOpComputeLogManager}
        ref = InstanceRef.from_dir(
            str(self.settings.home / "dagster"),
            config_dir=str(PROJECT_ROOT),
            overrides={name: {"module": part.__module__, "class": part.__name__} for name, part in parts.items()}
            | {"concurrency": {}},
        )
        self.instance = stack.enter_context(dg.DagsterInstance.from_ref(ref))
        target = LoadableTargetOrigin(module_name=__name__, attribute="definitions")
        location = InProcessCodeLocationOrigin(target, location_name="shopauto")
        self.workspace = stack.enter_context(
            WorkspaceProcessContext(self.instance, InProcessWorkspaceLoadTarget(location))
        )
        self._ui = TestClient(DagsterWebserver(self.workspace).create_asgi_app())

    @contextmanager
    def way(self, name: str) -> Iterator[Tried]:
        """Try a way; what it did is kept under the name."""
        left, planned, known = self._left(), self._planned(), {run.run_id for run in self.instance.get_runs()}
        found = self.tried[name] = Tried()
        yield found
        found.left, found.planned = self._left() - left, self._planned() - planned
        for run in reversed(self.instance.get_runs()):
            if run.run_id in known:
                continue
            found.failed += run.status != dg.DagsterRunStatus.SUCCESS
            for entry in self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
                made = entry.asset_materialization
                found.days.append(made.partition)
                found.windows.append(made.metadata["window"].value)

    def ask(self, mutation: str, **variables: Any) -> dict[str, Any]:
        """What the webserver answers to a mutation of the UI."""
        answer = self._ui.post("/graphql", json={"query": mutation, "variables": variables}).json()
        [found] = answer["data"].values()
        if not found["__typename"].startswith("Launch"):
            raise RuntimeError(found)
        return found

    def backfill(self, *days: str) -> str:
        """Backfill in the UI, and have the daemon work on it until it is done; returns the backfill's id."""
        from dagster._core.execution.backfill import BulkActionStatus
        from dagster._daemon.backfill import execute_backfill_iteration

        found = self.ask(
            """mutation($of: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $of) {
            __typename ... on LaunchBackfillSuccess { backfillId } } }""",
            of={"partitionNames": days, "assetSelection": [{"path": key.path} for key in _KEYS]},
        )
        while self.instance.get_backfill(found["backfillId"]).status == BulkActionStatus.REQUESTED:
            list(execute_backfill_iteration(self.workspace, logging.getLogger("backfill")))
        return found["backfillId"]

    def again(self, run_id: str) -> str:
        """Re-execute a run in the UI; returns the new run's id."""
        found = self.ask(
            """mutation($of: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $of) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            of={"parentRunId": run_id, "strategy": "ALL_STEPS"},
        )
        return found["run"]["runId"]

    def launch(self, **tags: str) -> str:
        """Launch the job that sends in the UI with these tags; returns the run's id."""
        found = self.ask(
            """mutation($of: ExecutionParams!) { launchPipelineExecution(executionParams: $of) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            of={
                "selector": {
                    "repositoryLocationName": "shopauto",
                    "repositoryName": "__repository__",
                    "pipelineName": "send",
                },
                "runConfigData": _QUIET,
                "executionMetadata": {
                    "tags": [{"key": f"dagster/{key}", "value": value} for key, value in tags.items()]
                },
            },
        )
        return found["run"]["runId"]

    def live(self, at: datetime) -> ExitStack:
        """Live mode, at a time that the clock of this process shows."""
        from shopauto_pipelines.platform.clock import FixedClock
        from shopauto_pipelines.platform.dagster.resources import SettingsResource

        stack = ExitStack()
        stack.enter_context(patch.dict(os.environ, _LIVE))
        stack.enter_context(patch.object(SettingsResource, "clock", FixedClock(at)))
        return stack

    def sensor(self) -> list[dg.RunRequest]:
        """What the sensor of waiting messages asks for; its runs are launched."""
        from shopauto_pipelines.outbox.sensors import messages_in_their_hour
        from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource

        settings = SettingsResource()
        resources = {"settings": settings, "lake": LakeResource(settings=settings)}
        with dg.build_sensor_context(self.instance, resources=resources) as context:
            asked = [*messages_in_their_hour(context)]
        requests = [each for each in asked if isinstance(each, dg.RunRequest)]
        for request in requests:
            self.materialise(request.asset_selection, request.partition_key)
        return requests

    def materialise(self, keys: Iterable[dg.AssetKey], day: str) -> None:
        """Run assets that were selected by hand."""
        job = definitions().resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            instance=self.instance,
            partition_key=day,
            run_config=_QUIET,
            asset_selection=[*keys],
            raise_on_error=False,
        )

    def wait_on(self, day: str) -> None:
        """Have the ledger hold a message of another day that has waited for its hour."""
        from shopauto_pipelines.outbox import ledger
        from shopauto_pipelines_tests.outbox.conftest import rows

        at = datetime(2026, 7, 1, tzinfo=UTC)
        row = rows(1, campaign=CAMPAIGNS[0], as_of=date.fromisoformat(day), send_from=at)
        with self.engine.begin() as connection:
            ledger.plan(connection, row, run_id=None, at=at)

    def forget(self) -> None:
        """Set the ledger back to before the first message; the lake keeps what it knows."""
        import sqlalchemy as sa

        with self.engine.begin() as connection:
            connection.execute(
                sa.text("truncate shopauto.messages, shopauto.message_history, shopauto.open_messages cascade")
            )

    def _left(self) -> int:
        return len(list(self.settings.inbox_path.glob("messages/*.eml")))

    def _planned(self) -> int:
        import sqlalchemy as sa

        with self.engine.connect() as connection:
            return connection.execute(sa.text("select count(*) from shopauto.messages")).scalar_one()


#: Live mode with a far side of our own.
_LIVE = {
    "SHOPAUTO_LIVE": "true",
    "SHOPAUTO_EMAIL_VIA": f"{__name__}:FarSide",
    "SHOPAUTO_SMS_VIA": f"{__name__}:FarSide",
    "SHOPAUTO_FROM_EMAIL": "hello@shop.example.org",
    "SHOPAUTO_POSTAL_ADDRESS": "1 Example Street",
    "SHOPAUTO_SHOP_URL": "https://shop.example.org",
    "SHOPAUTO_BASE_URL": "https://mail.example.org",
    "SHOPAUTO_SECRET_KEY": "0123456789abcdef",
}


def try_all() -> None:
    """Try every way on the home of the environment, and print what each did as a line of JSON."""
    logging.disable(logging.CRITICAL)
    with ExitStack() as stack:
        shop = _Shop(stack)
        _unsent(shop)
        _ways_of_dagster(shop)
        _ways_of_the_clock(shop)
        with shop.way("the newest day by hand"):
            shop.launch(partition=NEWEST)
        with shop.way("the newest day by hand again"):
            shop.launch(partition=NEWEST)
        _unsent(shop)
        _waiting(shop)
        _set_back(shop)
    print(json.dumps({name: asdict(found) for name, found in shop.tried.items()}))


def _unsent(shop: _Shop) -> None:
    """The shop as it is when everything is computed and nothing has been sent."""
    shop.forget()
    shutil.rmtree(shop.settings.inbox_path)
    shutil.rmtree(shop.settings.lake_path / "landing" / "outbox")


def _ways_of_dagster(shop: _Shop) -> None:
    from dagster._cli import asset, job
    from dagster_shared.cli import PythonPointerOpts, WorkspaceOpts

    with shop.way("a backfill in the UI"):
        shop.backfill(OLDER, BEFORE, NEWEST)
    with shop.way("a backfill of the newest day in the UI"):
        backfill = shop.backfill(NEWEST)
    [finished] = {run.run_id for run in shop.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))}
    with shop.way("a run of a backfill again in the UI"):
        again = shop.again(finished)
    assert "dagster/backfill" not in shop.instance.get_run_by_id(again).tags
    with shop.way("that run again, with no tag of its first one"):
        shop.launch(partition=NEWEST, parent_run_id=again)
    with shop.way("a run over closed days in the UI"):
        closed = shop.launch(asset_partition_range_start=BEFORE, asset_partition_range_end=BEFORE)

    @contextmanager
    def workspace(*_: object, **__: object) -> Iterator[Any]:
        yield shop.workspace.create_request_context()

    with shop.way("a backfill on the command line"), patch.object(job, "get_workspace_from_cli_opts", workspace):
        job.execute_backfill_command(
            workspace_opts=WorkspaceOpts(),
            partitions=f"{OLDER},{NEWEST}",
            noprompt=True,
            job_name="send",
            print_fn=lambda _: None,
            instance=shop.instance,
        )
    with shop.way("a range of days on the command line"):
        asset.execute_materialize_command(
            instance=shop.instance,
            select=",".join(f"key:{key.to_user_string()}" for key in _KEYS),
            partition=None,
            partition_range=f"{BEFORE}...{BEFORE}",
            config=(),
            config_json=json.dumps(_QUIET),
            python_pointer_opts=PythonPointerOpts(module_name=__name__, attribute="definitions"),
        )

    with shop.way("a run of an older day again"):
        shop.again(shop.launch(partition=OLDER))
    shop.instance.delete_run(closed)
    with shop.way("a run again whose first one is deleted"):
        shop.launch(partition=NEWEST, parent_run_id=closed, root_run_id=closed)
    with shop.way("an automation condition"):
        _automation(shop)
    with shop.way("the backfill's tag taken off"):
        shop.launch(partition=OLDER)
    with shop.way("tags of a day and of a range"), pytest.raises(RuntimeError, match="Cannot have dagster/asset_part"):
        shop.launch(partition=NEWEST, asset_partition_range_start=OLDER, asset_partition_range_end=BEFORE)
    with shop.way("tags of a day and of the end of a range"):
        shop.launch(partition=BEFORE, asset_partition_range_end=NEWEST)
    with shop.way("the whole outbox by hand for an older day"):
        everything = dg.AssetSelection.groups("outbox") - dg.AssetSelection.assets("outbox/unknown")
        keys = everything.resolve(definitions().resolve_asset_graph())
        shop.materialise(keys, BEFORE)


def _automation(shop: _Shop) -> None:
    """Somebody has given the outbox a condition that always holds: what it asks for is launched as the daemon does."""
    from dagster._core.storage.tags import ASSET_EVALUATION_ID_TAG, AUTO_MATERIALIZE_TAG, AUTOMATION_CONDITION_TAG

    from shopauto_pipelines.outbox.assets import ASSETS

    condition = dg.AutomationCondition.in_latest_time_window()
    eager = [each.with_attributes(automation_condition=condition) for each in ASSETS if each.key in _KEYS]
    at = datetime(2026, 7, 1, 6, tzinfo=UTC)
    resources = {name: definitions().resources[name] for name in ("settings", "lake")}
    given = dg.Definitions(assets=eager, resources=resources)
    asked = dg.evaluate_automation_conditions(given, shop.instance, evaluation_time=at)
    assert all(asked.get_requested_partitions(key) == {NEWEST} for key in _KEYS)
    tags = (AUTO_MATERIALIZE_TAG, AUTOMATION_CONDITION_TAG, ASSET_EVALUATION_ID_TAG)
    shop.launch(partition=NEWEST, **{tag.removeprefix("dagster/"): "true" for tag in tags})


def _ways_of_the_clock(shop: _Shop) -> None:
    with shop.way("the clock set back to an older day"), shop.live(datetime(2026, 6, 1, 5, tzinfo=UTC)):
        shop.launch(partition=OLDER)
    with shop.way("the clock set forth by a month"), shop.live(datetime(2026, 8, 1, 5, tzinfo=UTC)):
        shop.launch(partition=NEWEST)


def _waiting(shop: _Shop) -> None:
    with shop.way("live, in the night"), shop.live(datetime(2026, 7, 1, 2, tzinfo=UTC)):
        shop.launch(partition=NEWEST)
    with shop.way("the sensor when their hour has come"), shop.live(datetime(2026, 7, 1, 18, tzinfo=UTC)):
        shop.sensor()
    shop.wait_on(BEFORE)
    with shop.way("the sensor, where only another day waits"), shop.live(datetime(2026, 7, 1, 18, 30, tzinfo=UTC)):
        shop.sensor()


def _set_back(shop: _Shop) -> None:
    aside = shop.settings.home / "aside"
    parts = [shop.settings.lake_path / "landing", *shop.settings.lake_path.glob(f"raw/*/day={NEWEST}")]
    for number, part in enumerate(parts):
        part.rename(aside.with_name(f"aside{number}"))
    with shop.way("a lake of an older day"):
        shop.launch(partition=BEFORE)
    with (
        shop.way("a lake of an older day, the clock set back to it"),
        shop.live(datetime(2026, 6, 30, 5, tzinfo=UTC)),
    ):
        shop.launch(partition=BEFORE)
    for number, part in enumerate(parts):
        shutil.rmtree(part, ignore_errors=True)
        aside.with_name(f"aside{number}").rename(part)
    shop.forget()
    with shop.way("the ledger set back"):
        shop.launch(partition=NEWEST)
