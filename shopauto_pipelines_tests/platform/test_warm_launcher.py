"""Runs that are forked from a warm process, beside runs that are started as Dagster starts them."""

from __future__ import annotations

import os
import signal
import time
from ast import literal_eval
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import PythonFileTarget

from shopauto_pipelines.platform.dagster import warm_launcher
from shopauto_pipelines.platform.dagster.warm_launcher import PROCESS_TAG, WarmLauncher
from shopauto_pipelines_tests.platform import warm_jobs

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
MODULE = {"module": "shopauto_pipelines.platform.dagster.warm_launcher"}
OVERRIDES = {
    "run_launcher": {
        **MODULE,
        "class": "WarmLauncher",
        "config": {
            "warm": ["noting", "dying", "sleeping"],
            "imports": ["warm_jobs"],
            "prepare": ["warm_jobs:prepare"],
            "rehearse": ["warm_jobs:rehearse"],
        },
    },
    "run_coordinator": {
        **MODULE,
        "class": "QueueOfTheOthers",
        "config": {"at_once": ["noting", "dying", "sleeping"]},
    },
}


class Office:
    """An instance with the warm launcher, and a code server of the test's jobs."""

    def __init__(self, instance, workspace) -> None:
        self.instance, self.workspace = instance, workspace
        (self.location,) = workspace.create_request_context().code_locations

    def submit(self, job: str, file: Path | None = None) -> str:
        """Make a run and submit it as a sensor does."""
        remote = self.location.get_repository("__repository__").get_full_job(job)
        config = {"ops": {"note": {"config": {"file": str(file)}}}} if file else {}
        run = self.instance.create_run_for_job(
            job_def=getattr(warm_jobs, job),
            run_config=config,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
        )
        self.instance.submit_run(run.run_id, self.workspace.create_request_context())
        return run.run_id

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        return self.instance.get_run_by_id(run_id).status

    def ended(self, run_id: str, seconds: float = 60) -> dg.DagsterRunStatus:
        """How the run has ended."""
        deadline = time.monotonic() + seconds
        while not (run := self.instance.get_run_by_id(run_id)).is_finished:
            assert time.monotonic() < deadline, run.status
            time.sleep(0.02)
        return run.status

    def process(self, run_id: str) -> psutil.Process:
        """The run's process, once it works on the run."""
        deadline = time.monotonic() + 60
        while (run := self.instance.get_run_by_id(run_id)).status != dg.DagsterRunStatus.STARTED:
            assert time.monotonic() < deadline, run.status
            time.sleep(0.02)
        return psutil.Process(int(run.tags[PROCESS_TAG].split(" ")[1]))


@pytest.fixture(scope="module")
def office():
    os.environ["PYTHONPATH"], before = f"{HERE}:{os.environ.get('PYTHONPATH', '')}", os.environ.get("PYTHONPATH")
    try:
        target = PythonFileTarget(str(HERE / "warm_jobs.py"), None, str(HERE), "jobs")
        with (
            instance_for_test(overrides=OVERRIDES) as instance,
            create_test_daemon_workspace_context(target, instance) as workspace,
        ):
            yield Office(instance, workspace)
    finally:
        os.environ["PYTHONPATH"] = before or ""


def test_a_run_is_forked_from_a_process_that_has_prepared_and_the_next_one_has_rehearsed(office, tmp_path):
    told = []
    for n in range(2):
        run_id = office.submit("noting", tmp_path / f"{n}")
        assert office.ended(run_id) == SUCCESS
        told.append(literal_eval((tmp_path / f"{n}").read_text()))
        time.sleep(0.5)
    (first, warm, prepared, rehearsed), (second, parent, prepared_again, rehearsed_again) = told
    assert first != second
    assert warm == parent
    assert prepared == prepared_again == [warm]
    assert rehearsed_again == [second]
    assert rehearsed in ([], [first])
    assert psutil.Process(warm).num_threads() == 1


def test_other_jobs_wait_in_the_queue_and_are_started_as_ever(office, tmp_path):
    run_id = office.submit("cold", tmp_path / "cold")
    assert office.status(run_id) == dg.DagsterRunStatus.QUEUED
    office.instance.launch_run(run_id, office.workspace.create_request_context())
    assert office.ended(run_id) == SUCCESS
    assert PROCESS_TAG not in office.instance.get_run_by_id(run_id).tags
    _, _, prepared, _ = literal_eval((tmp_path / "cold").read_text())
    assert prepared == []


def test_a_run_whose_process_is_killed_has_failed(office):
    assert office.ended(office.submit("dying")) == FAILURE


def test_a_run_can_be_cancelled(office):
    run_id = office.submit("sleeping")
    office.process(run_id)
    assert office.instance.run_launcher.terminate(run_id)
    assert office.ended(run_id, 20) == dg.DagsterRunStatus.CANCELED


def test_who_asks_is_told_whether_a_runs_process_is_alive(office):
    launcher, run_id = office.instance.run_launcher, office.submit("sleeping")
    process = office.process(run_id)
    run = office.instance.get_run_by_id(run_id)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    process.send_signal(signal.SIGKILL)
    assert office.ended(run_id) == FAILURE
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def test_where_code_has_changed_the_next_run_comes_from_a_new_process_and_runs_under_way_go_on(
    office, tmp_path, monkeypatch
):
    asleep = office.submit("sleeping")
    process = office.process(asleep)
    monkeypatch.setattr(warm_launcher, "_state_of_code", lambda: (0, 0.0))
    assert office.ended(office.submit("noting", tmp_path / "new")) == SUCCESS
    _, parent, _, _ = literal_eval((tmp_path / "new").read_text())
    assert parent != process.ppid()
    assert office.status(asleep) == dg.DagsterRunStatus.STARTED
    process.send_signal(signal.SIGKILL)
    assert office.ended(asleep) == FAILURE


def test_a_warm_process_that_was_killed_is_replaced(office, tmp_path):
    office.ended(office.submit("noting", tmp_path / "0"))
    launcher = office.instance.run_launcher
    launcher._process._process.kill()
    launcher._process._process.wait()
    assert office.ended(office.submit("noting", tmp_path / "1")) == SUCCESS


def test_a_job_that_cannot_be_loaded_fails_its_run_and_says_why(office, tmp_path, monkeypatch):
    monkeypatch.setattr(WarmLauncher, "_request", lambda self, run: warm_launcher.Request(None, "{}", "no job", None))
    with pytest.raises(Exception, match="could not start the run"):
        office.submit("noting", tmp_path / "0")
    (run,) = office.instance.get_runs(limit=1)
    assert run.status == FAILURE


def test_without_a_launcher_the_warm_process_ends_and_so_does_the_one_that_waits():
    process = warm_launcher.WarmProcess((0, 0.0), {"imports": [], "prepare": [], "rehearse": []})
    started = psutil.Process(process._process.pid)
    process.close()
    assert started.wait(20) == 0
