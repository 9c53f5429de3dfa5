"""``GET /offer`` under load, while a refresh computes and publishes the same shop beside it.

    python benchmarks/offer_load.py [--seconds N] [--rate N] [--customers N] [--quick]

A sample shop is loaded and refreshed; every customer gets a browser that has logged in. Then ``shopauto collect``, a process of
its own, is asked at a fixed rate: seven questions of ten about a customer, the others about nobody it knows, each a GET of
HTTP/1.1 on one of a few kept connections. Meanwhile ``shopauto refresh`` of the newest day runs again and again in the same
home, on the same processors, and publishes at its end.

A question's time runs from the moment it was due, not from when the client got round to it, until the whole answer is here: a
server that falls behind cannot hide it. Ends with one line of JSON. ``wrong`` counts answers other than 200, and people with more
than one message or code in the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from measuring import say

from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings

_RUN = "from shopauto_pipelines.cli import main; main()"

#: Seconds after which the load ends although no refresh is through.
_AT_MOST = 180

#: Connections that the questions come over, as a proxy in front keeps them.
_CONNECTIONS = 32


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=500, help="questions a second")
    parser.add_argument("--customers", type=int, default=3_000)
    parser.add_argument("--quick", action="store_true", help="10 seconds, 1,000 customers with 6 months")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    figures = measure(options.quick, seconds=options.seconds, rate=options.rate, customers=options.customers)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value:,}")
    print(json.dumps(figures))


def measure(quick: bool, *, seconds: int = 60, rate: int = 500, customers: int = 3_000) -> dict[str, float]:
    """The figures, as the last line has them."""
    seconds, customers, months = (10, 1_000, 6) if quick else (seconds, customers, 18)
    folder = Path(tempfile.mkdtemp(prefix="shopauto-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # after the database in it has been stopped
    home, shop = folder / "home", folder / "shop"
    environment = _environment(home)
    for arguments in (
        ("sample", shop, "--customers", customers, "--months", months),
        ("load", "sample", shop),
        ("refresh",),
    ):
        say(f"shopauto {' '.join(map(str, arguments))}")
        subprocess.run(
            [sys.executable, "-c", _RUN, *map(str, arguments)],
            cwd=PROJECT_ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    # imported here: the embedded database stops with the last process that uses it, and this one stays
    from shopauto_pipelines.platform.postgres import engine
    from shopauto_pipelines.realtime.serving import served_day

    database = engine(Settings(home=home, _env_file=None))
    with database.connect() as connection:
        day = str(served_day(connection))
    browsers = _browsers(database)
    say(f"{rate:,} questions a second for {seconds} seconds, {len(browsers):,} known browsers")
    with _collecting(environment) as (port, collector), _refreshing(environment, day) as refreshes:
        took, statuses = asyncio.run(_ask(port, browsers, rate, seconds, refreshes))
        memory, refreshed = _peak_mib(collector.pid), refreshes()
    granted, twice = _ledger(database)
    database.dispose()
    took.sort()
    return {
        "questions": len(took),
        "questions_per_s": rate,
        "offer_p50_ms": _percentile(took, 50),
        "offer_p95_ms": _percentile(took, 95),
        "offer_p99_ms": _percentile(took, 99),
        "offer_max_ms": round(1000 * took[-1], 2),
        "granted": granted,
        "refreshes_beside": refreshed,
        "collector_peak_mib": memory,
        "wrong": sum(n for status, n in statuses.items() if status != 200) + twice,
    }


def _percentile(took: list[float], percent: int) -> float:
    return round(1000 * took[min(len(took) - 1, len(took) * percent // 100)], 2)


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    return kept | {"SHOPAUTO_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}


def _browsers(database: sa.Engine) -> list[str]:
    """A browser for every customer who is served; returns their ids."""
    now = datetime.now(UTC)
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "insert into shopauto.visitors (anonymous_id, shop_customer_id, shop_customer_at) "
                "select 'browser-' || row_number() over (), shop_customer_id, :now from shopauto.people_ids"
            ),
            {"now": now},
        )
        return list(connection.execute(sa.text("select anonymous_id from shopauto.visitors order by 1")).scalars())


@contextmanager
def _collecting(environment: dict[str, str]) -> Iterator[tuple[int, subprocess.Popen]]:
    """``shopauto collect`` on a free port; yields the port and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, "collect", "--port", str(port)],
        cwd=PROJECT_ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _refreshing(environment: dict[str, str], day: str) -> Iterator[Callable[[], int]]:
    """``shopauto refresh`` of the day, again and again; yields a function that tells how many are through."""
    ended: list[int] = []
    stopped = threading.Event()
    process: subprocess.Popen | None = None

    def again() -> None:
        nonlocal process
        while not stopped.is_set():
            process = subprocess.Popen(
                [sys.executable, "-c", _RUN, "refresh", "--day", day],
                cwd=PROJECT_ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            ended.append(process.wait())

    def through() -> int:
        if any(ended):
            raise RuntimeError("the refresh beside the load failed")
        return len(ended)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield through
    finally:
        stopped.set()
        if process is not None:
            process.terminate()
        thread.join()


async def _ask(
    port: int, browsers: list[str], rate: int, seconds: int, refreshed: Callable[[], int]
) -> tuple[list[float], Counter[int]]:
    """Ask ``rate`` questions a second; returns how long each took, and how many answers had which status.

    For so many ``seconds``, and until a refresh is through: publishing comes last in it.
    """
    chance = random.Random(7)
    took: list[float] = []
    statuses: Counter[int] = Counter()
    due: asyncio.Queue[tuple[float, str] | None] = asyncio.Queue()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while question := await due.get():
            at, browser = question
            writer.write(f"GET /offer?anonymous_id={browser} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - at)
            statuses[int(head[9:12])] += 1
        writer.close()

    clients = [asyncio.create_task(client()) for _ in range(_CONNECTIONS)]
    start = time.perf_counter()
    for n in count():
        if n >= rate * seconds and n % rate == 0 and (refreshed() or n > rate * _AT_MOST):
            break
        at = start + n / rate
        if (wait := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        known = chance.random() < 0.7
        due.put_nowait((at, chance.choice(browsers) if known else f"stranger-{chance.randrange(10**6)}"))
    for _ in clients:
        due.put_nowait(None)
    await asyncio.gather(*clients)
    return took, statuses


def _peak_mib(pid: int) -> int:
    """Most memory a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _ledger(database: sa.Engine) -> tuple[int, int]:
    """Messages of the on-site offer, and how many people have more than one message or code."""
    with database.connect() as connection:
        return tuple(
            connection.execute(
                sa.text(
                    "select (select count(*) from shopauto.messages where campaign = 'lapsed_visitor'), "
                    "(select count(*) from (select customer_id from shopauto.messages group by 1, campaign, step "
                    "having count(*) > 1 and campaign = 'lapsed_visitor') m) + (select count(*) from "
                    "(select customer_id from shopauto.offers group by 1 having count(*) > 1) o)"
                )
            ).one()
        )


if __name__ == "__main__":
    main()
