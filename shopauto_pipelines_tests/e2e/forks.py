"""Processes that begin with the libraries imported: forked from one that has done nothing else, the same for all workers.

A new interpreter would spend ten seconds on the imports every time. :func:`start` starts the process to fork from; it
imports when it is first asked. A :class:`Forked` process becomes ``shopauto``, or runs a script.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

from shopauto_pipelines.platform.settings import PROJECT_ROOT

# Libraries alone: the project's own modules read the settings, which differ from shop to shop.
_LIBRARIES = (
    "alembic.command",
    "dagster",
    "dagster.components",
    "dagster_postgres",
    "email_validator",
    "great_expectations",
    "ibis.backends.duckdb",
    "matplotlib.pyplot",
    "mjml",
    "phonenumbers",
    "psycopg",
    "pydantic_settings",
    "rich.progress",
    "sklearn.ensemble",
    "skops.io",
    "sqlalchemy",
    "typer",
)

#: Names the socket, for all workers.
_SOCKET = "SHOPAUTO_TEST_FORKS"

#: What is said over the socket after the order: the process id, and in the end the exit code.
_NUMBER = struct.Struct("!i")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the process to fork from, reached through a socket in the folder. It ends with the process that called this."""
    os.environ[_SOCKET] = str(folder / "forks.sock")
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", __name__, os.environ[_SOCKET]],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        stdin=subprocess.PIPE,
    )


class Forked:
    """A process that was forked: ``program`` is an argument list of ``shopauto``, or ``-c`` and a script."""

    def __init__(self, program: list[str], environment: dict[str, str], output: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.environ[_SOCKET])
        self._socket.sendall(json.dumps([program, environment, output]).encode() + b"\n")
        self.pid = self._number()
        self.exitcode: int | None = None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or the time is over."""
        if self.exitcode is None and select.select([self._socket], [], [], timeout)[0]:
            self.exitcode = self._number()
            self._socket.close()

    def is_alive(self) -> bool:
        """Whether it still runs."""
        self.join(0)
        return self.exitcode is None

    def kill(self) -> None:
        """Kill it where it is."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)

    def _number(self) -> int:
        [number] = _NUMBER.unpack(self._socket.recv(_NUMBER.size))
        return int(number)


class _Order(socketserver.StreamRequestHandler):
    """An order, in a process of its own: it forks the one that was ordered, and tells how that one ends."""

    def handle(self) -> None:
        program, environment, output = json.loads(self.rfile.readline())
        pid = os.fork()
        if not pid:
            _become(program, environment, output)
        self.wfile.write(_NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        self.wfile.write(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """What to fork from."""

    block_on_close = False
    request_queue_size = 64

    def process_request(self, request: socket.socket, client_address: object) -> None:
        for name in _LIBRARIES:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # what is here stays: no fork looks through it again, and so none copies it
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        super().service_actions()
        if select.select([sys.stdin], [], [], 0)[0]:  # closed: who started this has ended
            os._exit(0)


def _become(program: list[str], environment: dict[str, str], output: str) -> None:
    """Make this process ``shopauto``, or a script given by ``-c``, and end it as an interpreter ends."""
    os.environ.clear()
    os.environ.update(environment)
    printed = os.open(output, os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    warnings.simplefilter("ignore")
    sys.argv = program
    code: object = 0
    try:
        if program[0] == "-c":
            exec(compile(program[1], "<script>", "exec"), {"__name__": "__main__"})
        else:
            from shopauto_pipelines.cli import main

            main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # the last one to leave stops the database
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    with _Server(sys.argv[1], _Order) as server:
        server.serve_forever(poll_interval=0.2)
