"""Runs of command lines that were killed."""

import os
import socket
import subprocess
import sys
import uuid

import dagster as dg
import pytest

from shopauto_pipelines.cli import runs

HERE = socket.gethostname()
STARTED, SUCCESS, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def killed() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        return process.pid


def test_only_the_runs_of_processes_that_are_no_more_on_this_machine_are_closed(killed):
    cases = [
        (f"{HERE}:{killed}", STARTED, FAILURE),
        (f"{HERE}:{killed}", dg.DagsterRunStatus.STARTING, FAILURE),
        (f"{HERE}:{killed}", SUCCESS, SUCCESS),
        (f"{HERE}:{os.getpid()}", STARTED, STARTED),
        (f"not-{HERE}:{killed}", STARTED, STARTED),
        (None, STARTED, STARTED),  # of the daemon or the UI
    ]
    with dg.DagsterInstance.ephemeral() as instance:
        added = [
            instance.add_run(
                dg.DagsterRun(
                    job_name="daily",
                    run_id=str(uuid.uuid4()),
                    status=before,
                    tags={runs._PROCESS_TAG: process} if process else {},
                )
            ).run_id
            for process, before, _ in cases
        ]
        runs._close_abandoned(instance)
        assert [instance.get_run_by_id(run).status for run in added] == [after for _, _, after in cases]
        said = [entry.message for entry in instance.all_logs(added[0])]
    assert any("run it again" in text for text in said)
