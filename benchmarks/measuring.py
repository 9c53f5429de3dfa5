"""What benchmarks share to measure: telling what they are at, seconds, peak memory, a process of its own per measurement."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def say(what: str) -> None:
    """Tell what is being done, apart from the figures."""
    print(f"… {what}", file=sys.stderr, flush=True)


def shopauto(home: Path, what: str, *arguments: object, **more: str) -> float:
    """Seconds that ``shopauto`` took with the arguments, as a user runs it: a process of its own, on a home.

    ``more`` goes into its environment. The benchmark ends where the command fails.
    """
    say(what)
    command = [str(Path(sys.executable).with_name("shopauto")), *map(str, arguments)]
    started = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "SHOPAUTO_HOME": str(home), **more}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def shopauto_forked(home: Path, what: str, *arguments: object, **more: str) -> None:
    """As :func:`shopauto` where nothing is measured: the process is forked from one that has imported the libraries already."""
    say(what)
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["warm"])
    output = home.with_name("output.txt")
    said = {"SHOPAUTO_HOME": str(home), **more}
    process = forked.Process(target=_command, args=([*map(str, arguments)], said, output))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"shopauto {' '.join(map(str, arguments))} failed:\n{output.read_text()}")


def _command(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    with output.open("w") as told:
        os.dup2(told.fileno(), sys.stdout.fileno())
        os.dup2(told.fileno(), sys.stderr.fileno())
    os.environ.update(environment)
    sys.argv = ["shopauto", *arguments]
    from shopauto_pipelines.cli import main

    main()


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed_with_cpu(work: Callable[[], object]) -> dict[str, float]:
    """``seconds`` that ``work`` took, and ``cpu_seconds`` on all cores: these hold on a machine that has other things to do."""
    before = time.process_time()
    seconds = timed(work)
    return {"seconds": seconds, "cpu_seconds": time.process_time() - before}


def peak_mib() -> float:
    """Highest memory this process has held so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_child(script: str, *arguments: object, processors: int | None = None, patience: float | None = None) -> Any:
    """What ``script`` prints as JSON in its last line, run in a process of its own, on so many processors at most.

    What it tells on the way is passed on. The benchmark ends where it fails; ``subprocess.TimeoutExpired`` is raised after
    ``patience`` seconds.
    """
    cores = sorted(os.sched_getaffinity(0))[:processors]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=patience,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))} failed")
    return json.loads(done.stdout.splitlines()[-1])
