"""What the collector takes in: durable events a second, how long an answer takes, and its memory.

    python benchmarks/collector_load.py [--quick] [--seconds N]

A real ``shopauto collect`` with the embedded PostgreSQL, both on two cores (where the machine has more, the clients are kept
on the others), over HTTP on loopback. Every answer counted is a 200 for events that are committed with ``fsync``; at the end
the rows in the database are compared with what was answered. An event is one of a visit: pages, products, and every fourth one
of a cart, which is folded into the carts in the same transaction.

*Batches*: four connections, each sends lists of 500 events, as a shop's server does. *One client*: one connection that sends
one event and waits for the answer. *Many clients*: 64 such connections at once.

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings

KEY = "a-key-for-the-benchmark"
BATCH = 500
TYPES = ("page_view", "product_view", "page_view", "add_to_cart")


def measure(quick: bool = False, seconds: float | None = None) -> dict[str, Any]:
    """Run all three and return their figures; ``seconds`` is the length of each."""
    seconds = seconds or (3.0 if quick else 12.0)
    with (
        tempfile.TemporaryDirectory(prefix="shopauto-benchmark-", ignore_cleanup_errors=True) as folder,
        collector(Path(folder)) as (port, process),
    ):
        watch = _Memory(process)
        asyncio.run(_run(port, 4, BATCH, 1.0, "warm"))
        before = watch.now()
        batches = asyncio.run(_run(port, 4, BATCH, seconds, "batch"))
        single = asyncio.run(_run(port, 1, 1, seconds / 2, "single"))
        many = asyncio.run(_run(port, 64, 1, seconds / 2, "many"))
        peak = watch.stop()
        with postgres.engine(Settings(home=Path(folder), _env_file=None)).connect() as connection:
            count = sa.text("select count(*) from collected where key not like 'warm%'")
            stored = connection.execute(count).scalar_one()
    answered = batches.events + single.events + many.events
    return {
        "collector_events_per_s": round(batches.per_second),
        "collector_p99_ms": round(batches.p(99), 1),
        "collector_p50_ms": round(batches.p(50), 1),
        "collector_memory_mib": round(before),
        "collector_peak_mib": round(peak),
        "single_client_events_per_s": round(single.per_second),
        "single_client_p50_ms": round(single.p(50), 1),
        "single_client_p99_ms": round(single.p(99), 1),
        "clients_64_events_per_s": round(many.per_second),
        "clients_64_p99_ms": round(many.p(99), 1),
        "lost": answered - stored,
    }


@contextlib.contextmanager
def collector(home: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A collector on two cores with a home of its own; yields its port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    environment = kept | {"SHOPAUTO_HOME": str(home), "SHOPAUTO_COLLECTOR_KEY": KEY, "PYTHONPATH": str(PROJECT_ROOT)}
    cores = sorted(os.sched_getaffinity(0))
    run = "from shopauto_pipelines.cli import main; main()"
    started = subprocess.Popen(
        [sys.executable, "-c", run, "collect", "--port", str(port)],
        cwd=PROJECT_ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, set(cores[:2])),
    )
    try:
        if len(cores) > 2:
            os.sched_setaffinity(0, set(cores[2:]))
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the collector did not start")
            time.sleep(0.1)
        yield port, psutil.Process(started.pid)
    finally:
        os.sched_setaffinity(0, set(cores))
        started.terminate()
        started.wait()


class _Result:
    """Answers of one measurement."""

    def __init__(self, size: int) -> None:
        self.size, self.times, self.seconds = size, list[float](), 0.0

    @property
    def events(self) -> int:
        return len(self.times) * self.size

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    def p(self, percent: int) -> float:
        """A percentile of the time to an answer, ms."""
        return statistics.quantiles(self.times, n=100, method="inclusive")[percent - 1] * 1000


async def _run(port: int, connections: int, size: int, seconds: float, name: str) -> _Result:
    """``connections`` that each send ``size`` events a request, one after another, for so long."""
    result = _Result(size)
    begun = time.perf_counter()
    await asyncio.gather(
        *(_client(port, size, begun + seconds, f"{name}-{number}", result) for number in range(connections))
    )
    result.seconds = time.perf_counter() - begun
    return result


async def _client(port: int, size: int, until: float, name: str, result: _Result) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: ".encode()
    count = 0
    while time.perf_counter() < until:
        body = _body(name, count, size)
        count += size
        sent = time.perf_counter()
        writer.write(head + str(len(body)).encode() + b"\r\n\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        told = json.loads(await reader.readexactly(length))
        result.times.append(time.perf_counter() - sent)
        if not answer.startswith(b"HTTP/1.1 200") or told["stored"] != size:
            raise RuntimeError(f"not taken: {told}")
    writer.close()


def _body(name: str, first: int, size: int) -> bytes:
    at = datetime.now(UTC).isoformat()
    events = []
    for n in range(first, first + size):
        visit = f"{name}-{n // 8}"
        event = {
            "event_id": f"{name}-{n}",
            "happened_at": at,
            "type": TYPES[n % 4],
            "anonymous_id": visit,
            "session_id": visit,
            "url": f"https://shop.example.com/products/{n % 997}?from=list",
        }
        if n % 4:
            event["product_id"] = f"P{n % 997}"
        if n % 4 == 3:
            event |= {"cart_id": visit, "quantity": 1}
        events.append(event)
    return json.dumps(events if size > 1 else events[0]).encode()


class _Memory:
    """The largest resident size of the collector, looked at ten times a second by a thread."""

    def __init__(self, process: psutil.Process) -> None:
        import threading

        self._process, self._peak, self._done = process, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Resident memory, MiB."""
        return self._process.memory_info().rss / 2**20

    def stop(self) -> float:
        """The peak, MiB."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self._peak = max(self._peak, self.now())


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three seconds each")
    parser.add_argument("--seconds", type=float, default=None, help="length of each measurement")
    options = parser.parse_args()
    figures = measure(options.quick, options.seconds)
    for name, value in figures.items():
        print(f"{name:32}{value:>12,}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
