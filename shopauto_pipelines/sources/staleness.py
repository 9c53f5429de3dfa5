"""Which days have to be computed again because rows arrived late: derived from what is on disk, nothing is stored.

Three times tell it: when a landed day's rows last changed (the manifests), when a partition's bytes last changed, and when it
was last computed, both of which :class:`~shopauto_pipelines.platform.lake.Lake` tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from itertools import accumulate

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.storage import Times
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources.landing import manifests
from shopauto_pipelines.sources.tables import CUSTOMERS, ORDER_LINES, ORDERS, QUARANTINE, RAW_TABLES, REFUNDS

#: Tables whose landed rows decide which rows of another one are accepted, and whose they are.
_REFERRED = {
    ORDERS.name: (CUSTOMERS,),
    ORDER_LINES.name: (ORDERS, CUSTOMERS),
    REFUNDS.name: (ORDERS, CUSTOMERS),
    QUARANTINE.name: RAW_TABLES,
}


def days_behind(lake: Lake, table: Table) -> list[date]:
    """Days of a raw table to make again: rows were landed, on that day or before it, since the partition was computed.

    Earlier days count because a row may repeat, or be referred to by, rows of later days.
    """
    return _behind(table, _landed_changes(lake), lake.times(table))


def raw_behind(lake: Lake) -> list[date]:
    """Days on which any raw table has to be made again, in order; from the first of them on, every landed day is one."""
    return _raw_behind(lake, lake.times_of([*RAW_TABLES, QUARANTINE]))


def stale_days(lake: Lake, as_of_table: Table) -> list[date]:
    """As-of days of ``as_of_table`` whose raw rows changed, or are about to, after the day was computed."""
    times = lake.times_of([*RAW_TABLES, QUARANTINE, as_of_table])
    behind = next(iter(_raw_behind(lake, times)), None)
    changed: dict[date, int] = defaultdict(int)
    for table in RAW_TABLES:
        for day, partition in times[table.name].items():
            changed[day] = max(changed[day], partition.changed)
    there = times[as_of_table.name]
    days = sorted(there)
    latest = latest_until(changed, days)
    return [day for day in days if (behind is not None and behind <= day) or latest[day] > there[day].computed]


def late_files(lake: Lake, table: Table, until: date, since: int) -> list[str]:
    """``file (source)`` of what changed rows, of days up to ``until``, that a raw table accepts or judges by, after ``since``.

    ``since`` in ns, as file times are.
    """
    read = {table.name, *(referred.name for referred in _REFERRED.get(table.name, ()))}
    return sorted(
        {
            f"{landed.file} ({manifest.source})"
            for manifest in manifests(lake)
            for landed in manifest.files.values()
            if f"raw/{landed.table}" in read
            and any(stamp > since for day, (_, stamp) in landed.days.items() if date.fromisoformat(day) <= until)
        }
    )


def _raw_behind(lake: Lake, times: Mapping[str, Mapping[date, Times]]) -> list[date]:
    changes = _landed_changes(lake)
    return sorted({day for table in (*RAW_TABLES, QUARANTINE) for day in _behind(table, changes, times[table.name])})


def _behind(table: Table, changes: dict[str, dict[date, int]], there: Mapping[date, Times]) -> list[date]:
    landed: dict[date, int] = defaultdict(int)
    own = changes.get(table.name, {})
    if not own and table != QUARANTINE:
        return []
    for name in (table.name, *(t.name for t in _REFERRED.get(table.name, ()))):
        for day, stamp in changes.get(name, {}).items():
            landed[day] = max(landed[day], stamp)
    days = sorted(there.keys() | (landed.keys() if table == QUARANTINE else own.keys()))
    latest = latest_until(landed, days)
    return [day for day in days if day not in there or there[day].computed < latest[day]]


def _landed_changes(lake: Lake) -> dict[str, dict[date, int]]:
    """Table name → day → when its landed rows last changed, ns."""
    changes: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for manifest in manifests(lake):
        for landed in manifest.files.values():
            table = changes[f"raw/{landed.table}"]
            for text, (_, stamp) in landed.days.items():
                day = date.fromisoformat(text)
                table[day] = max(table[day], stamp)
    return changes


def latest_until(stamps: Mapping[date, int], days: list[date]) -> dict[date, int]:
    """For each of the ``days`` the latest stamp on or before it; 0 where there is none."""
    all_days = sorted({*stamps, *days})
    running = accumulate((stamps.get(day, 0) for day in all_days), max)
    return dict(zip(all_days, running, strict=True))
