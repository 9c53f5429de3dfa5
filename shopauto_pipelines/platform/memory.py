"""Memory that a process holds and does not need: Arrow and the C library keep what was freed, for later.

After a table of a million people that is half a gigabyte, beside what the engine needs for the next one.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa

#: So many rows leave enough behind to be worth the look.
MANY_ROWS = 250_000


def give_back(rows: int) -> None:
    """Return what is kept for later to the system, where as many ``rows`` as :data:`MANY_ROWS` went through this process."""
    if rows < MANY_ROWS:
        return
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim:
        trim(0)
