"""Which process is meant by a number: systems give it to another one, in time, and in a container that starts again at once."""

from __future__ import annotations

from contextlib import suppress

import psutil

#: How far two readings of when a process was born may be apart, seconds.
_APART = 0.05


def born(pid: int) -> float | None:
    """When a process began, seconds since its machine did: no setting of the clock changes that. ``None``: there is none."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return round(process.create_time() - psutil.boot_time(), 2)
    return None


def lives(pid: int, since: float) -> bool:
    """Whether the process of this number that was :func:`born` then has not ended."""
    now = born(pid)
    return now is not None and abs(now - since) < _APART
