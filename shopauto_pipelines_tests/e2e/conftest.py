"""Whole shops, driven through the command line as a user would: a home of their own, real runs, real PostgreSQL.

Loading a shop and writing its history takes longer than what most tests look at. So two homes are made once, whichever of
the workers comes first, and the tests work on copies of them.
"""

import atexit
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

_PROCESSES = multiprocessing.get_context("forkserver")
# Libraries alone: the project's own modules read the settings, which differ from shop to shop.
_PROCESSES.set_forkserver_preload(
    [
        *(
            "alembic.command",
            "dagster",
            "dagster.components",
            "dagster_postgres",
            "email_validator",
            "great_expectations",
        ),
        *("ibis.backends.duckdb", "matplotlib.pyplot", "mjml", "phonenumbers", "psycopg", "pydantic_settings"),
        *("rich.progress", "sklearn.ensemble", "skops.io", "sqlalchemy", "typer"),
    ]
)


class Shop:
    """A home folder and the commands run on it.

    Each command is a process of its own, forked from one that has imported the libraries and done nothing else: a new
    interpreter would spend ten seconds on them every time.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: object, code: int = 0, timeout: float = 600) -> str:
        """Run ``shopauto`` with the arguments; returns what it printed. It must end with ``code``, and no traceback."""
        return self._finish(["shopauto", *map(str, arguments)], code, timeout)

    def python(self, script: str, timeout: float = 600) -> str:
        """Run a script in the shop's environment; returns what it printed."""
        return self._finish(["-c", textwrap.dedent(script)], 0, timeout)

    def start(self, *arguments: object) -> BaseProcess:
        """Start ``shopauto`` and return at once."""
        return self._start(["shopauto", *map(str, arguments)], os.devnull)

    def _start(self, program: list[str], output: str) -> BaseProcess:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SHOPAUTO_")},
            "SHOPAUTO_HOME": str(self.home),
            "COLUMNS": "160",
        }
        process = _PROCESSES.Process(target=_become, args=(program, environment, output))
        process.start()
        return process

    def _finish(self, program: list[str], code: int, timeout: float) -> str:
        with tempfile.NamedTemporaryFile("r", suffix=".txt") as printed:
            process = self._start(program, printed.name)
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
            output = printed.read()
        assert process.exitcode == code, output
        assert "Traceback" not in output, output
        return output

    def tables(self, *rooms: str) -> dict[str, str]:
        """Digest of every partition of the lake by its path, of all rooms or of those named."""
        lake = self.home / "lake"
        files = (f for f in lake.glob("[a-z]*/**/data.parquet") if not rooms or f.relative_to(lake).parts[0] in rooms)
        return {str(f.relative_to(lake)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    def inbox(self) -> list[Path]:
        """The messages in the local inbox."""
        return sorted(self.home.glob("inbox/**/*.eml"))

    def messages(self) -> list[str]:
        """What makes a message one of its kind, for each message in the local inbox: campaign, day, person."""
        return sorted(path.name for path in self.inbox())

    def ledger(self) -> list[tuple[str, str, str, int]]:
        """Campaign, as-of day, state and number of the messages that PostgreSQL knows."""
        rows = self.python(
            """
            import json
            import sqlalchemy as sa
            from shopauto_pipelines.platform.postgres import engine
            from shopauto_pipelines.platform.settings import load_settings
            query = "select campaign, as_of::text, state, count(*) from messages group by 1, 2, 3 order by 1, 2, 3"
            with engine(load_settings()).connect() as connection:
                print(json.dumps([list(row) for row in connection.execute(sa.text(query))]))
            """
        )
        return [tuple(row) for row in json.loads(rows)]

    def copy(self, home: Path) -> "Shop":
        """The same shop in another home. No process may be using this one."""
        home.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", self.home, home], check=True)  # keeps the times, and who owns the database's files
        return Shop(home)

    def remove(self) -> None:
        """Stop the embedded database where a killed process left it running, and delete the home."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess, psutil.TimeoutExpired):
            server = psutil.Process(int((self.home / "postgres" / "postmaster.pid").read_text().split("\n")[0]))
            if str(self.home) in " ".join(server.cmdline()):
                server.terminate()
                server.wait(10)
        shutil.rmtree(self.home, ignore_errors=True)


def _become(program: list[str], environment: dict[str, str], output: str) -> None:
    """Make this process ``shopauto``, or a script given by ``-c``, and end it as an interpreter ends."""
    os.environ.clear()
    os.environ.update(environment)
    printed = os.open(output, os.O_WRONLY)
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
    atexit._run_exitfuncs()  # the last one to leave stops the database; multiprocessing does not run these
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


@pytest.fixture(scope="session")
def once(homes) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once(name, make)``: the folder that ``make(folder)`` filled, made by one of the workers and used by all."""

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        made, done = homes / name, homes / f"{name}.done"
        with (homes / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)
                make(made)
                done.touch()
        return made

    return folder


@pytest.fixture(scope="module")
def new_shop(homes) -> Iterator[Callable[..., Shop]]:
    """Makes shops with homes of their own: ``new_shop()``, or a copy of another: ``new_shop(like=loaded)``."""
    shops = []

    def make(like: Shop | None = None) -> Shop:
        home = Path(tempfile.mkdtemp(dir=homes)) / "home"
        shops.append(like.copy(home) if like else Shop(home))
        return shops[-1]

    yield make
    for shop in shops:
        shop.remove()


@pytest.fixture(scope="session")
def small_files(once) -> Path:
    """Files of a sample shop of 250 customers and 3 months, ending 2026-06-30."""
    from shopauto_pipelines.sources.sample import generate

    return once("files", lambda folder: generate(folder, customers=250, months=3))


@pytest.fixture(scope="session")
def loaded(once, small_files) -> Shop:
    """The small shop a month before its end: loaded, and 2026-05-31 refreshed by hand. To be copied, not run on."""

    def make(home: Path) -> None:
        Shop(home).run("load", "sample", small_files)
        Shop(home).run("refresh", "--day", "2026-05-31")

    return Shop(once("loaded", make))


@pytest.fixture(scope="session")
def refreshed(once, loaded) -> Shop:
    """The small shop with its newest day refreshed too, and the day's messages sent. To be copied, not run on."""
    return Shop(once("refreshed", lambda home: loaded.copy(home).run("refresh", "--day", "2026-06-30")))
