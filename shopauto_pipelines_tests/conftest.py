"""What several rooms' tests share. Tests run on real files, a real embedded PostgreSQL, and real Dagster."""

import fcntl
import gc
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from shopauto_pipelines.cli import main
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines_tests.e2e import forks

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

# how long an example takes says how busy the machine is
hypothesis.settings.register_profile("shopauto", deadline=None)
hypothesis.settings.load_profile("shopauto")


#: Names the folder that the workers of a run share, see :func:`homes`.
_HOMES = "SHOPAUTO_TEST_HOMES"


def pytest_configure(config: pytest.Config) -> None:
    """Make what the workers share before they start, and remove it when they have ended."""
    if _HOMES not in os.environ:
        os.environ[_HOMES] = tempfile.mkdtemp(prefix="shopauto-tests-")
        os.environ["SHOPAUTO_HOME"] = str(Path(os.environ[_HOMES]) / "of-nobody")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_HOMES), ignore_errors=True))
        config.add_cleanup(forks.start(Path(os.environ[_HOMES])).kill)


def pytest_collection_finish() -> None:
    """What has been imported stays: the garbage collector need not look through it time and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def homes() -> Path:
    """A folder for homes with a database, the same for all workers.

    Not pytest's own: as root the server runs as another user, and every start of pytest shuts that folder to others.
    """
    return Path(os.environ[_HOMES])


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


@pytest.fixture
def lake(tmp_path) -> Lake:
    """An empty lake of two threads."""
    return Lake(tmp_path / "lake", threads=2)


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Default settings with a home of their own; no environment, no ``.env``."""
    return Settings(home=tmp_path, _env_file=None)


@pytest.fixture
def shopauto(monkeypatch, capsys, tmp_path) -> Callable[..., str]:
    """Runs the command line, in a home of its own; it must end with ``code``. Returns what it printed."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("SHOPAUTO_KNOWN", "now")  # an option sets it for the process

    def run(*arguments: object, code: int = 0, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["shopauto", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code == code, shown
        return shown.out + shown.err

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and published contracts that stands beside the project on developers' machines."""
    folder = PROJECT_ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared: real data and contracts, kept beside the project")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of a run on several workers: quick tests, a file on one worker; then the slow ones one by one.

    One worker begins with the shops that many slow tests share, which takes minutes, so that they are there when the quick
    ones are done, and one with the longest test of all. Of the other slow ones the whole shops come first, and the short ones
    fill the gaps at the end.
    """
    quick = [item for item in items if not item.get_closest_marker("slow")]
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in quick:
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    sharing = [item for item in slow if {"loaded", "refreshed"} & {*getattr(item, "fixturenames", ())}]
    longest = [item for item in slow if item.path.name == "test_online_retail.py" and item.path.parent.name == "e2e"]
    alone = [item for item in slow if item not in (*sharing, *longest)]
    whole = [item for item in alone if item.path.parent.name == "e2e"]
    faults = [item for item in alone if item.path.name == "test_faults.py"]
    short = [item for item in alone if item not in (*whole, *faults)]
    items[:] = [*sharing[:1], *longest, *quick, *whole, *sharing[1:], *faults, *short]
