"""What was known when: which landed rows a lake's tables are made of, and on which days late ones came in.

The lake of everyday is made of all that is landed. One as known then (:mod:`.known`) is made of the rows that the refresh of a
day could know of: those in their files that were known by then, and those that have been replaced since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources.known import Cut, note, noted
from shopauto_pipelines.sources.landing import OWN_SOURCE, Landed, Manifest, Replaced, landing_root, manifests
from shopauto_pipelines.sources.mapping import computed_tables, mappings
from shopauto_pipelines.sources.tables import CUSTOMERS, ORDERS, QUARANTINE

#: Tables by whose sources rows of others are judged: from the first load of such a source on.
_JUDGING = (CUSTOMERS.name, ORDERS.name)

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Piece:
    """What is landed of a file of a source; of one ``named`` file there may be several, which have no day in common.

    ``days``: the visible ones, and from which day on each was known; ``None``: all, all along.
    """

    source: str
    named: str
    file: Path
    days: Mapping[date, date] | None = None


class _Version(NamedTuple):
    """Rows of a landed file as they stood for a while: from the first load of the ``file`` on (``since``), and day by day.

    ``days``: of those that have rows, the first day whose refresh could know of them, and the first one that could know better.
    """

    source: str
    table: str
    named: str
    file: Path
    since: date
    days: Mapping[date, tuple[date, date]]


def pieces(lake: Lake, table: Table) -> list[Piece]:
    """The landed files whose rows are those of a raw ``table``, by source and name; some may have no visible day."""
    then = noted(lake)
    if then is None:
        return [
            Piece(manifest.source, landed.file, landing_root(lake) / manifest.source / landed.landing)
            for manifest in manifests(lake)
            for _, landed in sorted(manifest.files.items())
            if f"raw/{landed.table}" == table.name
        ]
    return [
        Piece(version.source, version.named, version.file, _visible(version, then.cut))
        for version in _versions(lake)
        if then.cut and version.table == table.name and version.since <= then.cut.end
    ]


@dataclass(frozen=True)
class Step:
    """A range of ``days`` to compute, between which nothing came in late, after the ``logs`` of earlier days.

    ``late``: the earlier days whose rows came in late, and were known with the refresh of the first of the ``days``.
    """

    days: tuple[date, date]
    logs: tuple[date, date] | None
    late: list[date]


def steps(lake: Lake, start: date, end: date, *logs: Table) -> Iterator[Step]:
    """What to compute, in order, for the days ``start`` to ``end`` as known then.

    While a step is handed out the lake shows the rows that it is made of. It counts as done when the next one is asked for; what
    was not is done again another time. ``logs`` are written from the first day that lacks one of them, or of which other rows
    are visible than when they were written: none perhaps, where history came later.
    """
    late = _late(lake)
    turns = sorted({start, *(day for day in late if start < day <= end)})
    for begin, following in pairwise([*turns, end + _DAY]):
        then = noted(lake)
        assert then is not None, "a lake as known then"
        cut = Cut(begin, following - _DAY)
        first, there = _first_day(lake, cut), lake.days_of_all(logs)
        redo = [next((day for day in days_between(first, begin - _DAY) if day not in there), None)]
        redo += [_first_difference(lake, then.cut, cut), _first_change(lake, cut), then.behind]
        since = max(min([first, *there]), min((day for day in redo if day), default=begin))
        note(lake, replace(then, cut=cut, behind=min(since, begin)))
        earlier = (since, begin - _DAY) if since < begin else None
        yield Step((cut.start, cut.end), earlier, sorted(late.get(begin, ())))
        note(lake, replace(then, cut=cut, behind=None))


def _first_day(lake: Lake, cut: Cut) -> date:
    """The first day of which the shop's rows are visible; before it no logs are written."""
    told = (version for version in _versions(lake) if version.source != OWN_SOURCE)
    return min((day for version in told for day in _visible(version, cut)), default=cut.start)


def _first_difference(lake: Lake, before: Cut | None, after: Cut) -> date | None:
    """The first day before ``after`` of which other rows are visible than with the cut ``before``; ``None``: there is none.

    Days after the earlier cut may have been written with a still earlier one.
    """
    if before is None:
        return None
    found = [before.end + _DAY] if before.end + _DAY < after.start else []
    for version in _versions(lake):
        for day, (known, until) in version.days.items():
            if day < after.start and before.shows(known, until) != after.shows(known, until):
                found.append(day)
    return min(found, default=None)


def _first_change(lake: Lake, cut: Cut) -> date | None:
    """The first day before ``cut`` whose visible rows were landed again after its logs were written; ``None``: there is none.

    Rows of a day that was not over, of a mapping that was changed, and those told to be history are not late. A table that no
    source feeds any more stays as it is.
    """
    written = lake.times_of([*computed_tables(mappings()), QUARANTINE])
    found = []
    for manifest in manifests(lake):
        for landed in manifest.files.values():
            logs = written.get(f"raw/{landed.table}", {}), written[QUARANTINE.name]
            for told, (_, changed) in landed.days.items():
                day = date.fromisoformat(told)
                if day >= cut.start or _day(landed.known.get(told)) > cut.end:
                    continue
                if any(day in log and log[day].computed < changed for log in logs):
                    found.append(day)
    return min(found, default=None)


def _visible(version: _Version, cut: Cut) -> dict[date, date]:
    return {day: known for day, (known, until) in version.days.items() if cut.shows(known, until)}


def _late(lake: Lake) -> dict[date, set[date]]:
    """For each day with whose refresh rows of earlier days became known, or were no longer so: these days.

    The day with which a source begins to deliver customers or orders is one, too: other rows are judged by them from then on.
    """
    found: dict[date, set[date]] = defaultdict(set)
    began: dict[tuple[str, str], date] = {}
    for version in _versions(lake):
        for day, (known, until) in version.days.items():
            for turn in (known, until):
                if day < turn < date.max:
                    found[turn].add(day)
        delivery = (version.source, version.table)
        began[delivery] = min(version.since, began.get(delivery, date.max))
    for (_, table), day in began.items():
        if table in _JUDGING and day > date.min:
            found[day] |= set()
    return found


def _versions(lake: Lake) -> Iterator[_Version]:
    """All rows that are landed or have been, in the order of their sources and files."""
    for manifest in manifests(lake):
        yield from _of_source(manifest, landing_root(lake) / manifest.source)


def _of_source(manifest: Manifest, folder: Path) -> Iterator[_Version]:
    def version(landed: Landed | Replaced, days: dict[date, tuple[date, date]]) -> _Version:
        table, file, since = f"raw/{landed.table}", folder / landed.landing, _day(landed.since)
        return _Version(manifest.source, table, landed.file, file, since, days)

    for _, landed in sorted(manifest.files.items()):
        rows = [day for day, (mark, _) in landed.days.items() if mark]
        yield version(landed, {date.fromisoformat(day): (_day(landed.known.get(day)), date.max) for day in rows})
    for gone in manifest.replaced:
        until = date.fromisoformat(gone.until)
        yield version(gone, {date.fromisoformat(day): (_day(known), until) for day, known in gone.days.items()})


def _day(told: str | None) -> date:
    """The first day whose refresh could know; the first of all days where every refresh could."""
    return date.fromisoformat(told) if told else date.min
