"""Dispatchers as processes of their own, which can be made to die, or to kill the database, at any step they take.

They are forked from one process that has done it all once, so that each costs a fraction of a second::

    with start(home, stand_in_url) as dispatchers:
        ended = dispatchers.run([{"lake": "…", "at": "settle written", "time": 2, "kill": "dispatcher"}, {"lake": "…"}])
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from shopauto_pipelines.platform.settings import PROJECT_ROOT

#: Where a dispatcher can be stopped, in the order it gets there. "written" is: in the transaction, not committed.
STEPS = (
    "recover begins",
    "recover settle written",
    "recover settle committed",
    "plan begins",
    "plan written",
    "plan committed",
    "expire written",
    "dispatcher named",
    "reserve begins",
    "reserve written",
    "reserve committed",
    "send begins",
    "send done",
    "settle begins",
    "settle written",
    "settle committed",
    "landing begins",
    "landing written",
    "landing done",
)

#: Longest that dispatchers wait for each other, at a step where they are to meet: some never come there.
_MEETING = 0.15

#: Longest a dispatcher may take.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Ended:
    """How a dispatcher ended: its exit code (negative: the signal) and the steps it took, with what it fell over last."""

    code: int
    steps: list[str]

    @property
    def trouble(self) -> str:
        """What it fell over, with the trace."""
        return "\n".join(step for step in self.steps if step.startswith("!"))


class Dispatchers:
    """The process to fork from, as the test holds it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def begin(self, orders: Sequence[dict[str, Any]]) -> None:
        """Start dispatchers, all at once.

        An order names the ``lake`` and the ``campaign``; it may say how many messages are a ``batch``, after what
        ``delay`` to begin, at which step all are to ``meet`` and go on together, and ``at`` which step, the how-manieth
        ``time`` it gets there, to ``kill`` whom: the ``dispatcher`` itself, the ``postmaster``, or a ``backend`` of the
        database. Its ``settings`` stand before those of all.
        """
        for place in self._folder.glob("at-*"):
            place.unlink()
        for n, order in enumerate(orders):
            order |= {"steps": str(self._folder / f"steps-{n}.txt"), "others": len(orders) - 1}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        self._orders = orders

    def end(self) -> list[Ended]:
        """Wait for all that were started."""
        assert self._process.stdout
        codes = json.loads(self._process.stdout.readline())
        steps = [Path(order["steps"]).read_text().splitlines() for order in self._orders]
        return [Ended(code, taken) for code, taken in zip(codes, steps, strict=True)]

    def run(self, orders: Sequence[dict[str, Any]]) -> list[Ended]:
        """Start dispatchers and wait for them."""
        self.begin(orders)
        return self.end()

    def __enter__(self) -> Dispatchers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def start(folder: Path, settings: dict[str, Any], lakes: Sequence[Path], campaigns: Sequence[str]) -> Dispatchers:
    """Start the process to fork from; ``settings`` are those of all.

    It sends the ``campaigns`` of a lake once to be warm, and has read the products of all ``lakes``.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(settings), json.dumps([*map(str, lakes)]), *campaigns],
        cwd=PROJECT_ROOT,
        # no more threads than must be: what was forked from a process with threads may hang
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT_ROOT),
            "OMP_NUM_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "warm\n", "the process to fork dispatchers from did not start"
    return Dispatchers(process, folder)


def once_per_lake(read: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Reading the products takes half of a small send, and no fault is looked for in it: read them once from each lake."""
    known: dict[tuple[Any, Any], Any] = {}

    def remembered(lake: Any, day: Any) -> Any:
        if (lake.root, day) not in known:
            known[lake.root, day] = read(lake, day)
        return known[lake.root, day]

    return remembered


def _main() -> None:
    from shopauto_pipelines.campaigns.products import Showcase
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines_tests.outbox.conftest import DAY

    settings, lakes = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    Showcase.read = once_per_lake(Showcase.read)
    for root in lakes:
        lake = Lake(Path(root), threads=1)
        Showcase.read(lake, DAY)
        lake.con.disconnect()
    for campaign in sys.argv[3:]:
        engine = _dispatch(settings, {"lake": lakes[-1], "campaign": campaign})
    engine.dispose()  # what is forked opens connections of its own
    gc.collect()
    print("warm", flush=True)
    for line in sys.stdin:
        pids = [_forked(settings, order) for order in json.loads(line)]
        print(json.dumps(_codes(pids)), flush=True)


def _forked(settings: dict[str, Any], order: dict[str, Any]) -> int:
    Path(order["steps"]).write_text("")
    if pid := os.fork():
        return pid
    code = 1
    steps = os.open(order["steps"], os.O_WRONLY | os.O_APPEND)
    try:
        _Hooks(settings, order, lambda text: os.write(steps, text.encode() + b"\n")).set()
        time.sleep(order.get("delay", 0))
        _dispatch(settings, order)
        code = 0
    except BaseException:
        os.write(steps, ("!" + traceback.format_exc().replace("\n", "\n!")).encode())
    finally:
        os._exit(code)


def _codes(pids: Sequence[int]) -> list[int]:
    codes: dict[int, int] = {}
    deadline = time.monotonic() + _PATIENCE
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                late = time.monotonic() > deadline
                codes[pid] = 999 if late else os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return [codes[pid] for pid in pids]


def _dispatch(settings: dict[str, Any], order: dict[str, Any]) -> Any:
    """What ``shopauto`` does for a campaign and day, in small batches and without waiting out a rate limit."""
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.outbox import dispatch as module
    from shopauto_pipelines.outbox.channels import sendgrid
    from shopauto_pipelines.platform.clock import FixedClock
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.postgres import engine
    from shopauto_pipelines.platform.settings import Settings
    from shopauto_pipelines_tests.outbox.conftest import AT, DAY

    made = Settings(_env_file=None, **settings | order.get("settings", {}))
    channel = sendgrid.SendGrid(made, sleep=lambda _: time.sleep(0.001))
    channel.batch_size = order.get("batch", channel.batch_size)
    channel._client.timeout = order.get("patience", 30)
    channel._client.headers["X-Stand-In-Pid"] = str(os.getpid())
    lake = Lake(Path(order["lake"]), threads=1)
    campaign = load_campaigns()[order["campaign"]]
    module.dispatch(engine(made), lake, made, campaign, DAY, clock=FixedClock(AT), channel=channel)
    lake.con.disconnect()
    return engine(made)


class _Hooks:
    """Tells the steps of this process as it takes them, and kills at the one it was ordered to."""

    def __init__(self, settings: dict[str, Any], order: dict[str, Any], tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._server = Path(settings["home"]) / "postgres" / "postmaster.pid"
        self._at, self._kill = order.get("at"), order.get("kill")
        self._left = order.get("time", 1)
        self._meet, self._others, self._folder = order.get("meet"), order["others"], Path(order["steps"]).parent
        self._here = threading.local()

    def set(self) -> None:
        """Wrap what the dispatcher calls."""
        from sqlalchemy.engine.default import DefaultDialect

        from shopauto_pipelines.outbox import dispatch, dispatchers, ledger
        from shopauto_pipelines.outbox.channels.sendgrid import SendGrid

        for name in ("plan", "expire", "reserve", "settle"):
            self._wrap(ledger, name, f"{name} begins", f"{name} written", writes=name)
        self._wrap(SendGrid, "send", "send begins", "send done")
        self._wrap(dispatch, "recover", "recover begins", None, within="recover ")
        self._wrap(dispatch, "land_sent", "landing begins", "landing done")
        self._wrap(dispatch, "land_rows", None, "landing written")
        named = dispatchers.dispatcher

        @contextmanager
        def dispatcher(engine: Any) -> Iterator[str]:
            with named(engine) as name:
                self._reach("dispatcher named")
                yield name

        dispatchers.dispatcher = dispatcher
        commit = DefaultDialect.do_commit

        def do_commit(dialect: Any, connection: Any) -> None:
            commit(dialect, connection)
            if written := self._here.__dict__.pop("written", None):
                self._reach(f"{written} committed")

        DefaultDialect.do_commit = do_commit

    def _wrap(
        self, owner: Any, name: str, before: str | None, after: str | None, *, writes: str = "", within: str = ""
    ) -> None:
        wrapped = getattr(owner, name)

        def wrapper(*args: Any, **more: Any) -> Any:
            if before:
                self._reach(before)
            outer = self._here.__dict__.get("within", "")
            self._here.within = within or outer
            try:
                result = wrapped(*args, **more)
            finally:
                self._here.within = outer
            if writes:
                self._here.written = outer + writes
            if after:
                self._reach(outer + after if writes else after)
            return result

        setattr(owner, name, wrapper)

    def _reach(self, step: str) -> None:
        self._tell(step)
        if step == self._meet:
            self._meet = None
            self._wait_for_others()
        if step != self._at:
            return
        self._left -= 1
        if self._left:
            return
        self._tell(f"kill {self._kill}")
        if self._kill == "dispatcher":
            os.kill(os.getpid(), signal.SIGKILL)
        postmaster = int(self._server.read_text().split("\n")[0])
        if self._kill == "postmaster":
            os.kill(postmaster, signal.SIGKILL)
        elif self._kill == "backend":
            os.kill(_a_backend(postmaster), signal.SIGKILL)

    def _wait_for_others(self) -> None:
        (self._folder / f"at-{os.getpid()}").touch()
        deadline = time.monotonic() + _MEETING
        while time.monotonic() < deadline and len(list(self._folder.glob("at-*"))) <= self._others:
            time.sleep(0.001)


def _a_backend(postmaster: int) -> int:
    """A process of the server that serves a client."""
    return next(p.pid for p in psutil.Process(postmaster).children() if "[local]" in " ".join(p.cmdline()))


if __name__ == "__main__":
    _main()
