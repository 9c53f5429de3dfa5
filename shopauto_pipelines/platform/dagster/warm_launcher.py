"""Quick starts for the jobs that are named: no queue, and a process that is forked from one that has imported the code.

Dagster looks at its sensors every five seconds, queues a run, and starts it in a new interpreter, which takes four to five
seconds to import everything. All other jobs are left to that. In ``dagster.yaml``::

    run_coordinator:
      module: shopauto_pipelines.platform.dagster.warm_launcher
      class: QueueOfTheOthers
      config: {at_once: [abandoned_carts], sensors_every_seconds: 0.5}
    run_launcher:
      module: shopauto_pipelines.platform.dagster.warm_launcher
      class: WarmLauncher
      config:
        warm: [abandoned_carts]
        imports: [shopauto_pipelines.definitions]
        prepare: ["shopauto_pipelines.realtime.rehearsal:prepare"]
        rehearse: ["shopauto_pipelines.realtime.rehearsal:rehearse"]

Without these, the jobs run like any other, only later.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil
from dagster import Array, DagsterInstance, DefaultRunLauncher, Field, Noneable, QueuedRunCoordinator, RunsFilter
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes import ConfigurableClassData, serialize_value

from shopauto_pipelines.platform.dagster.warm_process import Request
from shopauto_pipelines.platform.processes import born, lives
from shopauto_pipelines.platform.settings import PROJECT_ROOT

#: Where a run says which process runs it: host, process id, and when that process was born.
PROCESS_TAG = "shopauto/warm_process"

#: Seconds a warm process may take until it is ready: it imports everything.
_LONGEST_START = 120.0


class QueueOfTheOthers(QueuedRunCoordinator):
    """The queue, past which the jobs named in ``at_once`` go.

    In the daemon it also sets how often sensors are looked at: Dagster has no option for its five seconds, in which a sensor
    that has just asked for a run cannot ask for the next one. And it has the launcher's warm process made.
    """

    def __init__(self, at_once: Sequence[str] = (), sensors_every_seconds: float | None = None, **queue: Any) -> None:
        super().__init__(**queue)
        self._at_once, self._sensors_every = frozenset(at_once), sensors_every_seconds

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The queue's options, ``at_once`` and ``sensors_every_seconds``."""
        return {
            **cast(dict[str, Any], QueuedRunCoordinator.config_type()),
            "at_once": Field(Array(str), is_required=False, default_value=[], description="Jobs that do not queue."),
            "sensors_every_seconds": Field(
                Noneable(float),
                is_required=False,
                description="How often the daemon looks at sensors. Unset: 5 seconds.",
            ),
        }

    @classmethod
    def from_config_value(  # noqa: D102
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> QueueOfTheOthers:
        return cls(inst_data=inst_data, **config_value)

    def register_instance(self, instance: DagsterInstance) -> None:
        """Get the daemon ready, if this is its process."""
        super().register_instance(instance)
        if "dagster._daemon.cli" not in sys.modules:
            return
        if self._sensors_every is not None:
            from dagster._daemon import sensor

            sensor.MIN_INTERVAL_LOOP_TIME = self._sensors_every  # type: ignore[assignment]
        if warm_up := getattr(instance.run_launcher, "warm_up", None):
            threading.Thread(target=warm_up, name="warm up", daemon=True).start()

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Launch the run, or queue it."""
        run = context.dagster_run
        if run.job_name in self._at_once:
            return self._instance.launch_run(run.run_id, context.workspace)
        return super().submit_run(context)


class WarmLauncher(DefaultRunLauncher):
    """Dagster's launcher, but for the jobs named in ``warm``: these are forked from a warm process.

    The warm process is started with the first such run, and anew where a file of the project has changed since: like the
    standard launcher's, a run is always of the code that is on the disk.
    """

    def __init__(
        self,
        warm: Sequence[str] = (),
        imports: Sequence[str] = (),
        prepare: Sequence[str] = (),
        rehearse: Sequence[str] = (),
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(inst_data)
        self._warm = frozenset(warm)
        self._beforehand = {"imports": [*imports], "prepare": [*prepare], "rehearse": [*rehearse]}
        self._process: WarmProcess | None = None
        self._lock = threading.Lock()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """``warm``, the jobs; the rest is what is done before there is a run."""

        def names(description: str) -> Field:
            return Field(Array(str), is_required=False, default_value=[], description=description)

        return {
            "warm": names("Jobs that start warm."),
            "imports": names("Modules that the warm process imports."),
            "prepare": names("Functions, `module:name`, that it calls then; they leave no threads and no connections."),
            "rehearse": names("Functions that the process of the next run calls while it waits."),
        }

    @classmethod
    def from_config_value(  # noqa: D102
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> WarmLauncher:
        return cls(inst_data=inst_data, **config_value)

    def is_warm(self, run: DagsterRun) -> bool:
        """Whether the run is of a job that starts warm."""
        return run.job_name in self._warm and hasattr(os, "fork")

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process; returns once it exists."""
        run = context.dagster_run
        if not self.is_warm(run):
            super().launch_run(context)
            return
        with self._lock:
            pid = self._ready().ask(self._request(run)._replace(run_id=run.run_id))
        if (began := born(pid)) is not None:  # else it has ended already
            self._instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{socket.gethostname()} {pid} {began}"})

    def warm_up(self) -> None:
        """Start the warm process, and let it load the jobs as the latest runs had them."""
        if not self._warm:
            return
        runs = [self._instance.get_runs(RunsFilter(job_name=job), limit=1) for job in sorted(self._warm)]
        known = [found[0] for found in runs if found and found[0].job_code_origin]
        with self._lock:
            process = self._ready()
            for request in [self._request(run) for run in known] or [self._request(None)]:
                process.ask(request)

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run; true where its process was alive."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or PROCESS_TAG not in run.tags:
            return super().terminate(run_id)
        process = _process_of(run)
        if run.is_finished or process is None:
            return False
        self._instance.report_run_canceling(run)
        process.terminate()
        return True

    def dispose(self) -> None:
        """Let the warm process go; it ends when its runs have."""
        with self._lock:
            if self._process:
                self._process.close()
                self._process = None

    def _request(self, run: DagsterRun | None) -> Request:
        """What the warm process has to know of a run's job; without a run, where the instance is."""
        job = loaded = None
        if run:
            job = serialize_value(run.job_code_origin)
            if run.has_repository_load_data and run.execution_plan_snapshot_id:
                plan = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
                loaded = serialize_value(plan.repository_load_data)
        return Request(None, serialize_value(self._instance.get_ref()), job, loaded)

    def _ready(self) -> WarmProcess:
        code = _state_of_code()
        if self._process and (self._process.code != code or not self._process.lives()):
            self._process.close()
            self._process = None
        if self._process is None:
            self._process = WarmProcess(code, self._beforehand)
        return self._process

    @property
    def supports_check_run_worker_health(self) -> bool:
        """A dead process is found by run monitoring, where that is switched on."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is alive; ``run_worker_id`` names it. Of runs that others started nothing is known."""
        if PROCESS_TAG not in run.tags or not _is_of_this_host(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING, "started by somebody else: not known")
        process = _process_of(run)
        if process is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND)
        return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(process.pid))


class WarmProcess:
    """The launcher's end of a warm process."""

    def __init__(self, code: tuple[int, float], beforehand: Mapping[str, Sequence[str]]) -> None:
        self.code = code
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.warm_process", str(theirs.fileno()), json.dumps(beforehand)],
                pass_fds=[theirs.fileno()],
                cwd=os.getcwd(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # not interrupted with the daemon: its runs end by themselves
                # the threads of numerical libraries would not survive a fork
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        ours.settimeout(_LONGEST_START)
        self._socket, self._lines = ours, ours.makefile("r", encoding="utf-8")
        self._answer()

    def ask(self, request: Request) -> int:
        """Start a run; returns its process. Without a run the warm process only loads the job."""
        self._socket.sendall(json.dumps(request._asdict()).encode() + b"\n")
        return int(self._answer()["pid"])

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """Tell it that no more runs will come."""
        self._socket.close()
        self._lines.close()

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            line = ""
        if not line:
            self._process.kill()
            self._process.wait()
            raise DagsterLaunchFailedError("the warm process did not answer; what it said stands in the daemon's log")
        told = json.loads(line)
        if "error" in told:
            raise DagsterLaunchFailedError(f"the warm process could not start the run:\n{told['error']}")
        return told


def _state_of_code() -> tuple[int, float]:
    """Number of files of the project's code, playbook and settings, and when one was last changed."""
    files = [PROJECT_ROOT / ".env", PROJECT_ROOT / "dagster.yaml"]
    for folder, folders, names in os.walk(PROJECT_ROOT / __name__.partition(".")[0]):
        folders[:] = [name for name in folders if name != "__pycache__"]
        files += [Path(folder, name) for name in names]
    times = []
    for file in files:
        with suppress(FileNotFoundError):
            times.append(file.stat().st_mtime)
    return len(times), max(times)


def _is_of_this_host(run: DagsterRun) -> bool:
    return run.tags[PROCESS_TAG].split(" ")[0] == socket.gethostname()


def _process_of(run: DagsterRun) -> psutil.Process | None:
    """The run's process, where it is of this machine and lives."""
    host, pid, since = run.tags[PROCESS_TAG].split(" ")
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid)) if host == socket.gethostname() and lives(int(pid), float(since)) else None
    return None
