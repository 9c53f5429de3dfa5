"""Runs that were killed, and what is told of runs that failed."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from datetime import date

import dagster as dg
import pytest

from shopauto_pipelines.cli import runs
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.runs import this_process

HERE = socket.gethostname()
STARTED, SUCCESS, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def killed() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        return process.pid


@pytest.mark.parametrize("alone", [False, True])
def test_only_the_runs_of_processes_that_are_no_more_on_this_machine_are_closed(killed, alone):
    cases = [
        (f"{HERE}:{killed}:1.5", STARTED, FAILURE),
        (f"{HERE}:{killed}:1.5", dg.DagsterRunStatus.STARTING, FAILURE),
        (f"{HERE}:{killed}:1.5", SUCCESS, SUCCESS),
        (this_process(), STARTED, STARTED),
        (f"{HERE}:{os.getpid()}:0.01", STARTED, FAILURE),  # its number is another's by now
        (f"not-{HERE}:{killed}:1.5", STARTED, FAILURE if alone else STARTED),  # a container that was started anew
        (None, STARTED, STARTED),  # of the daemon or the UI
    ]
    with dg.DagsterInstance.ephemeral() as instance:
        added = [
            instance.add_run(
                dg.DagsterRun(
                    job_name="daily",
                    run_id=str(uuid.uuid4()),
                    status=before,
                    tags={runs.COMMAND_LINE_TAG: process} if process else {},
                )
            ).run_id
            for process, before, _ in cases
        ]
        repeats = {runs.COMMAND_LINE_TAG: f"{HERE}:{killed}:1.5", "dagster/parent_run_id": added[0]}
        again = dg.DagsterRun(job_name="daily", run_id=str(uuid.uuid4()), status=STARTED, tags=repeats)
        instance.add_run(again)
        runs._close_abandoned(instance, alone=alone)
        assert instance.get_run_by_id(again.run_id).status == STARTED
        assert [instance.get_run_by_id(run).status for run in added] == [after for _, _, after in cases]
        said = [entry.message for entry in instance.all_logs(added[0])]
    assert any("run it again" in text for text in said)


@dg.asset(partitions_def=DAILY, backfill_policy=ONE_RUN)
def refusing() -> None:
    """An asset that says what is wrong."""
    raise dg.Failure("the file\nis broken", allow_retries=False)


@dg.asset
def interrupted() -> None:
    """An asset at which somebody types Ctrl+C."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def test_a_run_that_somebody_stopped_says_so_and_not_how_it_came_about():
    day = date(2026, 6, 1)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([interrupted], instance=instance, tags=runs.range_tags(day, day), raise_on_error=False)
        assert not result.success
        [run] = runs.failed_runs(instance)
    assert run.why == "interrupted: interrupted"
    assert runs._reasons(result, "daily_refresh", str(day)).startswith("daily_refresh 2026-06-01 was interrupted (run ")


def test_of_a_run_that_failed_its_days_its_assets_and_what_its_first_step_said_are_told():
    start, end = date(2026, 6, 1), date(2026, 6, 3)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([refusing], instance=instance, tags=runs.range_tags(start, end), raise_on_error=False)
        killed = instance.add_run(
            dg.DagsterRun(
                "daily",
                str(uuid.uuid4()),
                status=STARTED,
                tags={"dagster/partition": "2026-06-30"},
                asset_selection=frozenset({refusing.key}),
            )
        )
        instance.report_run_failed(killed, "The process that ran it was killed.")
        instance.add_run(dg.DagsterRun("without days", str(uuid.uuid4()), status=FAILURE))
        found = {run.run_id: run for run in runs.failed_runs(instance)}
    assert set(found) == {result.run_id, killed.run_id}
    failed = found[result.run_id]
    assert (failed.days, failed.why) == ((start, end), "refusing: the file is broken")
    assert failed.assets == {"refusing"}, "those of its plan: a table that was added since is none of them"
    assert 0 <= time.time_ns() - failed.ended < 60e9
    assert found[killed.run_id].why == "The process that ran it was killed."
    assert found[killed.run_id].assets == {"refusing"}


def test_a_failed_refresh_is_told_behind_any_number_of_failed_runs_of_sensors():
    with dg.DagsterInstance.ephemeral() as instance:
        day, failed = {"dagster/partition": "2026-06-30"}, []
        for tags in ({}, day, *[{}] * 60):
            run = instance.add_run(dg.DagsterRun("job", str(uuid.uuid4()), status=STARTED, tags=tags))
            instance.report_run_failed(run, "broken")
            failed.append(run.run_id)
        assert [run.run_id for run in runs.failed_runs(instance)] == [failed[1]]


@dg.asset
def doubtful() -> None:
    """An asset whose check finds something."""


@dg.asset_check(asset=doubtful, blocking=True)
def quality() -> dg.AssetCheckResult:
    """A check that stops the run."""
    return dg.AssetCheckResult(passed=False, description="a total\nof 1 row is too large")


def test_of_a_run_that_a_check_stopped_it_is_told_what_the_check_found():
    day = date(2026, 6, 1)
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([doubtful, quality], instance=instance, tags=runs.range_tags(day, day), raise_on_error=False)
        [run] = runs.failed_runs(instance)
    assert run.why == "check doubtful:quality: a total of 1 row is too large"
