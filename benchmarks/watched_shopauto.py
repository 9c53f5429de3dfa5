"""The ``shopauto`` command with a stop-watch on what Dagster calls: the same entry point, arguments and output.

    python benchmarks/watched_shopauto.py FIGURES.json refresh --day 2026-06-30

When the command is over, ``FIGURES.json`` says how long it took, and of this the seconds inside the house's own functions:
bodies of assets and of checks, and the I/O manager that computes and writes what they return. All else is Dagster, and what a
process needs to start: imports, the database server, building the definitions, recording events. Of each of these steps it also
says the most memory that the process held while it ran, looked at twenty times a second.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any


class StopWatch:
    """Seconds inside watched functions, by step; a function within another one counts once. And the MiB held meanwhile."""

    def __init__(self) -> None:
        self.by_step: defaultdict[str, float] = defaultdict(float)
        self.held: defaultdict[str, float] = defaultdict(float)
        self._inside = ""
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        mib = os.sysconf("SC_PAGE_SIZE") / 2**20
        while True:
            step = self._inside
            self.held[step] = max(self.held[step], mib * int(Path("/proc/self/statm").read_text().split()[1]))
            time.sleep(0.05)

    def watched(self, function: Callable[..., Any], step: Callable[..., str]) -> Callable[..., Any]:
        """The function, its seconds added to the step that ``step`` finds in its arguments."""

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside = step(*args, **kwargs)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.by_step[self._inside] += time.perf_counter() - started
                self._inside = ""

        return called


def main() -> None:
    """Run the command; its exit code is ours."""
    file = Path(sys.argv.pop(1))
    started = time.perf_counter()
    watch = StopWatch()

    from dagster._core.execution.plan import compute_generator

    from shopauto_pipelines.cli import main as shopauto
    from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager

    compute_generator.invoke_compute_fn = watch.watched(
        compute_generator.invoke_compute_fn, lambda _function, context, *_others: context.op_execution_context.op.name
    )
    LakeIOManager.handle_output = watch.watched(  # type: ignore[method-assign]
        LakeIOManager.handle_output, lambda _manager, context, _value: context.step_key
    )
    try:
        shopauto()
    finally:
        seconds = time.perf_counter() - started
        house = sum(watch.by_step.values())
        steps = dict(sorted(watch.by_step.items(), key=lambda item: -item[1]))
        held = dict(sorted(watch.held.items(), key=lambda item: -item[1]))
        file.write_text(json.dumps({"seconds": seconds, "house_seconds": house, "steps": steps, "mib": held}))


if __name__ == "__main__":
    main()
