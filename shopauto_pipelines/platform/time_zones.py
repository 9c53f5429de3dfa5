"""Times on people's clocks, as columns: the engine knows the time zones, by their IANA names.

Naive times stand for UTC everywhere else in the house; only here they stand for a clock on a wall.
"""

from __future__ import annotations

from typing import Any

import ibis
import ibis.expr.types as ir


def local(at: Any, zone: Any) -> ir.TimestampValue:
    """What the clocks of ``zone`` show at a naive UTC time."""
    return _shown_in(zone, _read_in("UTC", at))


def utc(shown: Any, zone: Any) -> ir.TimestampValue:
    """The naive UTC time at which the clocks of ``zone`` show so. A time that a clock skips is the one an hour later."""
    return _shown_in("UTC", _read_in(zone, shown))


def hours_between(start: int, end: int) -> int:
    """How many hours a clock goes on from one full hour to another; none from an hour to itself."""
    return (end - start) % 24


@ibis.udf.scalar.builtin(name="timezone", signature=(("string", "timestamp(6)"), "timestamp('UTC', 6)"))
def _read_in(zone: Any, shown: Any) -> Any:
    """The moment at which clocks of the zone show the time."""


@ibis.udf.scalar.builtin(name="timezone", signature=(("string", "timestamp('UTC', 6)"), "timestamp(6)"))
def _shown_in(zone: Any, at: Any) -> Any:
    """What clocks of the zone show at the moment."""
