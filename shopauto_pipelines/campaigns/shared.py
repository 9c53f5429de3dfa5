"""Tables that are the same for every campaign that is planned on a day: made once for all of them.

Temporary tables of the lake's connection. Those of several days are kept, as a range of days is planned campaign by campaign: as
many as hold :data:`ROWS` people together, so that they stay small beside what a day of a large shop takes. What they are made of
is looked at every time: where a partition was written since, they are made anew.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import ibis.expr.types as ir

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.tables import Table

#: So many people may be in the tables that are kept, those of the day that is planned aside.
ROWS = 4_000_000

#: A table of fewer people counts as one of so many: the engine keeps room for each, however few there are in it.
FEWEST = 10_000

#: What happened to messages is asked of as many days as the first of these that is enough, so that campaigns can share it.
_SPANS = (31, 93, 366)


def span(days: int) -> int:
    """How many days are looked at where at least ``days`` are needed."""
    return next((span for span in _SPANS if span >= days), days)


class _One(NamedTuple):
    name: str
    rows: ir.Table
    people: int


@dataclass
class _Kept:
    rows: OrderedDict[tuple[date, Hashable], _One] = field(default_factory=OrderedDict)
    made: int = 0


_kept: WeakKeyDictionary[Lake, _Kept] = WeakKeyDictionary()


def shared(lake: Lake, as_of: date, what: Hashable, make: Callable[[str], ir.Table]) -> ir.Table:
    """What ``make`` puts into a temporary table of the name that it is given, once for every ``what`` of a day."""
    kept = _kept.setdefault(lake, _Kept())
    key = as_of, what
    if key in kept.rows:
        kept.rows.move_to_end(key)
        return kept.rows[key].rows
    kept.made += 1
    name = f"known_{kept.made}"
    kept.rows[key] = _One(name, make(name), max(lake.rows(CUSTOMER_360, as_of), FEWEST))
    earlier = [other for other in kept.rows if other[0] != as_of]  # those of the day are used together
    while earlier and sum(one.people for one in kept.rows.values()) > ROWS:
        old = kept.rows.pop(earlier.pop(0))
        lake.engine.drop(old.name)
        lake.note_origins(old.name, {})
    return kept.rows[key].rows


def stamps(lake: Lake, as_of: date, *tables: Table) -> Hashable:
    """What tells whether the partitions of the day were written since."""
    return tuple(_stamp(lake.path(table, as_of)) for table in tables)


def stamps_between(lake: Lake, table: Table, start: date, end: date) -> Hashable:
    """What tells whether any partition of these days was written since: short, as it is kept for many days."""
    told = [_stamp(file) for file in lake.paths(table, days_between(start, end)).values()]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _stamp(file: Path) -> tuple[str, int, int]:
    told = file.stat()
    return str(file), told.st_mtime_ns, told.st_size
