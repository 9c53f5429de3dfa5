"""The warm process: has imported the code, and forks a process for each run it is told to start.

It is a program of its own, started by :mod:`~shopauto_pipelines.platform.dagster.warm_launcher`, that talks JSON lines over
a socket: what it is asked is a :class:`Request`, what it answers is the number of the process or an error. It runs no threads
and opens no connection, so that its children begin clean. One child, the understudy, is there before its run is: it has
opened its connections and rehearsed. The warm process ends when the launcher's side of the socket is closed; runs under way
go on.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.definitions.repository_definition import RepositoryLoadData
from dagster._core.instance import InstanceRef
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.impl import core_execute_run
from dagster._serdes import deserialize_value
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

#: Seconds after the start of a run in which no understudy begins.
_BREATH = 1.0


class Request(NamedTuple):
    """A run to start, or, without one, what to get ready for. ``loaded``, ``job`` and ``instance`` as Dagster serialises them."""

    run_id: str | None
    instance: str
    job: str | None
    loaded: str | None

    def definition(self) -> ReconstructableJob:
        """The job, which Dagster remembers once its definition has been asked for."""
        assert self.job
        found = recon_job_from_origin(deserialize_value(self.job, JobPythonOrigin))
        return found.with_repository_load_data(
            deserialize_value(self.loaded, RepositoryLoadData) if self.loaded else None
        )


class _Child(NamedTuple):
    """A process, and the run it was given; the understudy has a line to be told."""

    pid: int
    line: socket.socket


class WarmProcess:
    """The process, from its imports to its end."""

    def __init__(
        self, control: socket.socket, imports: Sequence[str], prepare: Sequence[str], rehearse: Sequence[str]
    ) -> None:
        self._control, self._imports, self._prepare, self._rehearse = control, imports, prepare, rehearse
        self._runs: dict[int, Request] = {}
        self._understudy: _Child | None = None
        self._last: Request | None = None
        self._started = 0.0

    def serve(self) -> None:
        """Start runs until the launcher has gone and the last run has ended."""
        for name in self._imports:
            importlib.import_module(name)
        for name in self._prepare:
            _call(name)
        importlib.import_module("duckdb").close()  # the connection that its import opens has threads
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # what is here for good: looking at it would copy it into each child
        self._answer({"pid": os.getpid()})
        lines, listening = self._control.makefile("r", encoding="utf-8"), True
        while listening or self._runs:
            sources = [woken, *([self._control] if listening else [])]
            waits = listening and self._last is not None and self._understudy is None
            readable, _, _ = select.select(sources, [], [], self._engage_in() if waits else None)
            if woken in readable:
                woken.recv(4096)
                self._bury()
            if self._control in readable:
                line = lines.readline()
                listening = bool(line)
                if line:
                    self._serve(Request(**json.loads(line)))
                else:
                    self._dismiss()
            if listening and self._engage_in() == 0:
                self._engage()

    def _serve(self, request: Request) -> None:
        try:
            if request.job:
                request.definition().get_definition()
            self._last = request
            pid = self._start(request) if request.run_id else os.getpid()
        except Exception:
            self._answer({"error": traceback.format_exc(limit=-3)})
            return
        self._answer({"pid": pid})

    def _start(self, request: Request) -> int:
        """Have the understudy do it, or, where there is none, a process that begins now."""
        pid = None
        if self._understudy:
            pid, line = self._understudy
            with line:
                try:
                    line.sendall(_told(request))
                except OSError:
                    pid = None  # has died
            self._understudy = None
        if pid is None:
            pid = self._fork(lambda: _run(request))
        self._runs[pid] = request
        self._started = time.monotonic()
        return pid

    def _engage_in(self) -> float:
        """Seconds until the next understudy may begin: it leaves a run that has just begun the processors."""
        return max(0.0, self._started + _BREATH - time.monotonic()) if self._runs else 0.0

    def _engage(self) -> None:
        """Have an understudy for the next run."""
        if self._understudy is None and self._last:
            ours, theirs = socket.socketpair()
            last, rehearse = self._last, self._rehearse

            def wait() -> None:
                ours.close()
                _wait(last, rehearse, theirs)

            self._understudy = _Child(self._fork(wait), ours)
            theirs.close()

    def _dismiss(self) -> None:
        if self._understudy:
            self._understudy.line.close()
            self._understudy = None

    def _bury(self) -> None:
        """Take note of processes that have ended. Of a run whose process died nobody else would know."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                request = self._runs.pop(pid, None)
                if request and status:
                    self._fork(lambda r=request, s=status: _report_death(r, s))  # type: ignore[misc]
                elif self._understudy and self._understudy.pid == pid:
                    self._dismiss()
                    self._last = None  # no other one until a run has shown that it can be done

    def _fork(self, work: Callable[[], None]) -> int:
        """Do ``work`` in a process of its own, which ends like an interpreter does; returns its number."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._control.close()
            if self._understudy:
                self._understudy.line.close()
            random.seed()
            gc.unfreeze()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _answer(self, told: dict[str, object]) -> None:
        with suppress(OSError):  # the launcher has gone
            self._control.sendall(json.dumps(told).encode() + b"\n")


def _wait(last: Request, rehearse: Sequence[str], line: socket.socket) -> None:
    """The understudy: get everything ready that can be, then do the run that comes, or end where none will come."""
    with DagsterInstance.from_ref(deserialize_value(last.instance, InstanceRef)) as instance:
        instance.get_runs(limit=1)
        for name in rehearse:
            _call(name)
        with line, line.makefile("r", encoding="utf-8") as lines:
            told = lines.readline()
        if told:
            request = Request(**json.loads(told))
            if request.instance == last.instance:
                _execute(request, instance)
            else:
                _run(request)


def _call(name: str) -> None:
    """Call a function, ``module:name``. Where it fails, the run itself will say what is wrong, if it is its concern."""
    module, _, function = name.partition(":")
    try:
        getattr(importlib.import_module(module), function)()
    except Exception:
        traceback.print_exc()


def _run(request: Request) -> None:
    with DagsterInstance.from_ref(deserialize_value(request.instance, InstanceRef)) as instance:
        _execute(request, instance)


def _execute(request: Request, instance: DagsterInstance) -> None:
    """Execute the run, as ``dagster api execute_run`` does. What goes wrong is written to its event log by Dagster."""
    with capture_interrupts():
        run = instance.get_run_by_id(request.run_id or "")
        if run is None:
            raise LookupError(f"there is no run {request.run_id}")
        for _ in core_execute_run(request.definition(), run, instance, inject_env_vars=False):
            pass


def _report_death(request: Request, status: int) -> None:
    with DagsterInstance.from_ref(deserialize_value(request.instance, InstanceRef)) as instance:
        run = instance.get_run_by_id(request.run_id or "")
        if run and not run.is_finished:
            code = os.waitstatus_to_exitcode(status)
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            instance.report_run_failed(run, f"The process of the run ended unexpectedly, {how}.")


def _told(request: Request) -> bytes:
    return json.dumps(request._asdict()).encode() + b"\n"


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    WarmProcess(socket.socket(fileno=int(sys.argv[1])), **given).serve()
