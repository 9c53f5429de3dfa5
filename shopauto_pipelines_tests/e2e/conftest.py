"""Whole shops, driven through the command line as a user would: a home of their own, real runs, real PostgreSQL.

Loading a shop and writing its history takes longer than what most tests look at. So two homes are made once, whichever of
the workers comes first, and the tests work on copies of them.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shopauto_pipelines_tests.e2e.forks import Forked

#: Days that are refreshed in one run, up to the newest. 30 of them, and each again alone, take a quarter of an hour: Dagster,
#: Ibis and Great Expectations cost seconds a run.
RANGE_DAYS = int(os.environ.get("SHOPAUTO_TEST_RANGE_DAYS", "2"))

#: The arguments of that run.
RANGE = ("--from", f"2026-06-{31 - RANGE_DAYS:02}", "--to", "2026-06-30")


class Shop:
    """A home folder and the commands run on it, each a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: object, code: int = 0, timeout: float = 600) -> str:
        """Run ``shopauto`` with the arguments; returns what it printed. It must end with ``code``, and no traceback."""
        return self._finish(["shopauto", *map(str, arguments)], code, timeout)

    def python(self, script: str, timeout: float = 600) -> str:
        """Run a script in the shop's environment; returns what it printed."""
        return self._finish(["-c", textwrap.dedent(script)], 0, timeout)

    def start(self, *arguments: object) -> Forked:
        """Start ``shopauto`` and return at once."""
        return self._start(["shopauto", *map(str, arguments)], os.devnull)

    def _start(self, program: list[str], output: str) -> Forked:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SHOPAUTO_")},
            "SHOPAUTO_HOME": str(self.home),
            "COLUMNS": "160",
        }
        return Forked(program, environment, output)

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

    def without_sync(self) -> "Shop":
        """The same shop, and copies of it, with a database that does not wait for the disk from its next start on.

        What it has committed outlives every process that is killed, if not the machine.
        """
        self.python(
            """
            from shopauto_pipelines.platform.postgres import engine
            from shopauto_pipelines.platform.settings import load_settings
            with engine(load_settings()).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.exec_driver_sql("alter system set fsync = off")
            """
        )
        return self

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
        shop = Shop(home).without_sync()
        shop.run("load", "sample", small_files)
        shop.run("refresh", "--day", "2026-05-31")

    return Shop(once("loaded", make))


@pytest.fixture(scope="session")
def refreshed(once, loaded) -> Shop:
    """The small shop with its newest days refreshed too, in one run, and the newest day's messages sent. To be copied."""

    def make(home: Path) -> None:
        output = loaded.copy(home).run("refresh", *RANGE)
        assert f"daily_refresh {RANGE[1]} … {RANGE[3]}" in output

    return Shop(once("refreshed", make))
