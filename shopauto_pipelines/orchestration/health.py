"""Which days of which tables are missing, stale, of an earlier version or damaged, why, and what repairs them.

Derived from what is in the lake and from the runs that failed; nothing is stored. The lake says when a partition's rows last
changed, and when it was last computed. So a partition is stale where something
it was computed from changed afterwards, or is stale itself. What the files do not tell is not seen: a playbook or a setting
that has changed since leaves past days as they were decided then.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import SEEK_END
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from shopauto_pipelines.platform.lake import Lake, columns_mark, days_between
from shopauto_pipelines.platform.storage import Times
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions import tables as predictions
from shopauto_pipelines.sources import landing, staleness
from shopauto_pipelines.sources.tables import QUARANTINE, RAW_TABLES

#: ``missing``: a partition that should be there. ``stale``, ``outdated`` (of an earlier version) or ``damaged``: one that cannot
#: stay.
#: ``behind``: days that have data and were not refreshed; ``failed``: their refresh failed. ``note``: nothing is wrong, and
#: somebody may want to know.
Kind = Literal["missing", "stale", "outdated", "damaged", "behind", "failed", "note"]

#: Repairs all that is missing, stale, outdated or damaged among the days that were computed.
REPAIR = "shopauto refresh --stale"


#: What is made of landed rows, and of nothing else.
_LANDED = (*RAW_TABLES, QUARANTINE)


#: Stands for the tables of a finding that is about whole days.
EVERY_TABLE = "every table"


@dataclass(frozen=True)
class Made:
    """How a table comes about: the tables it ``reads``, and those of which ``earlier`` days decide."""

    table: Table
    reads: Sequence[Table] = ()
    earlier: Collection[Table] = ()


@dataclass(frozen=True)
class FailedRun:
    """A run that failed or was killed: its days, the assets it was for, when it ended [ns], and why in words."""

    run_id: str
    days: tuple[date, date]
    assets: frozenset[str]
    ended: int
    why: str


@dataclass(frozen=True)
class Finding:
    """One reason, and the days of tables that it holds for; ``repair`` is a command."""

    kind: Kind
    why: str
    days: Mapping[str, Sequence[date]]
    repair: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether something has to be repaired."""
        return self.kind != "note"

    @property
    def span(self) -> list[tuple[date, date]]:
        """The days of all its tables as ranges."""
        return ranges({day for days in self.days.values() for day in days})


@dataclass(frozen=True)
class Health:
    """What an examination found; ``partitions`` is how many it looked at, ``repairable`` the days to compute again by table."""

    findings: list[Finding]
    partitions: int
    repairable: Mapping[str, Collection[date]] = field(default_factory=dict)

    @property
    def problems(self) -> list[Finding]:
        """The findings that have to be repaired."""
        return [finding for finding in self.findings if finding.is_problem]


@dataclass(frozen=True)
class _Cause:
    kind: Kind
    why: str


_Causes = dict[str, dict[date, _Cause]]


def examine(lake: Lake, flow: Sequence[Made], failed: Sequence[FailedRun] = (), today: date = date.max) -> Health:
    """Look at every partition of the tables of ``flow``, which come in the order they are made.

    ``today`` is the shop's current day, of which nothing can be computed yet.
    """
    span = landing.days_over(lake, today)
    disk = lake.times_of(made.table for made in flow)
    states = [made.table for made in flow if made.table.partition == "as_of"]
    computed = sorted({day for table in states for day in disk[table.name]})
    partitions = sum(map(len, disk.values()))
    if span is None:
        return Health([_nothing_landed(computed)] if computed else [], partitions)
    if not computed:
        return Health([_behind(*span, failed)], partitions)
    first, newest = span[0], computed[-1]
    logs = days_between(first, newest)
    causes: _Causes = {}
    notes: dict[str, list[date]] = {}
    for made in flow:
        expected = logs if made.table.partition == "day" else computed
        causes[made.table.name], notes[made.table.name] = _judged(lake, made, disk, causes, expected, failed)
    found = _grouped(causes)
    if newest < span[1]:
        found.append(_behind(newest + timedelta(days=1), span[1], failed))
    found += _notes(lake, computed, notes, disk)
    repairable = {name: sorted(days) for name, days in causes.items() if days}
    return Health(found, partitions, repairable)


def repair_runs(health: Health, flow: Sequence[Made]) -> tuple[list[tuple[date, date]], list[date]]:
    """What repairs everything that is not just behind: ranges of days to refresh, and days whose logs are written before."""
    kind = {made.table.name: made.table.partition for made in flow}
    states = {day for name, days in health.repairable.items() if kind[name] == "as_of" for day in days}
    logs = {day for name, days in health.repairable.items() if kind[name] == "day" for day in days}
    return ranges(states), sorted(logs)


def ranges(days: Collection[date]) -> list[tuple[date, date]]:
    """Days that follow each other as first and last one."""
    ordered = sorted(days)
    if not ordered:
        return []
    cuts = [n for n, (a, b) in enumerate(pairwise(ordered), start=1) if b - a > timedelta(days=1)]
    return [(ordered[a], ordered[b - 1]) for a, b in pairwise([0, *cuts, len(ordered)])]


def _judged(
    lake: Lake,
    made: Made,
    disk: Mapping[str, Mapping[date, Times]],
    causes: _Causes,
    expected: Sequence[date],
    failed: Sequence[FailedRun],
) -> tuple[dict[date, _Cause], list[date]]:
    """What is wrong with the days of one table, and on which days it lacks a partition that nobody misses.

    Those before its first one that no run failed to compute: the table is newer than they are.
    """
    table, there = made.table, disk[made.table.name]
    found: dict[date, _Cause] = {}
    if table in _LANDED:
        found |= _late(lake, table, there)
    reads = [] if table in _LANDED else [*made.reads, *(other for other in made.earlier if other not in made.reads)]
    since = min(there, default=max(expected, default=date.max)) if table.partition == "as_of" else date.min
    absent = [day for day in expected if day not in there and day not in found]
    for day in absent:
        # a run that failed before the table was there has computed the others since
        others = (disk[other.name][day].computed for other in made.reads if day in disk.get(other.name, {}))
        failure = _failure(table, day, max(others, default=0), failed)
        if failure or day >= since:
            found[day] = _Cause("missing", failure or _failure(table, day, 0, failed) or "never computed")
    for upstream in (other for other in reads if other.name in disk):
        _add_stale(found, made, upstream, disk, causes, failed)
    found |= _unreadable(lake, table, {d: t for d, t in there.items() if d not in found})
    return found, [day for day in absent if day not in found]


def _add_stale(
    found: dict[date, _Cause],
    made: Made,
    upstream: Table,
    disk: Mapping[str, Mapping[date, Times]],
    causes: _Causes,
    failed: Sequence[FailedRun],
) -> None:
    """Add to what was ``found`` the days on which ``upstream`` changed after they were computed, or cannot stay itself."""
    table, there = made.table, disk[made.table.name]
    days = sorted(there)
    until = upstream in made.earlier or (upstream.partition, table.partition) == ("day", "as_of")
    changed = {day: partition.changed for day, partition in disk[upstream.name].items()}
    if upstream is table:  # its own earlier days
        changed = {day + timedelta(days=1): stamp for day, stamp in changed.items()}
    latest = staleness.latest_until(changed, days) if until else changed
    bad = found if upstream is table else causes.get(upstream.name, {})
    first_bad = min(bad, default=None)
    for day in days:
        if day in found:
            continue
        reason = bad.get(day) or (bad[first_bad] if until and first_bad and first_bad < day else None)
        if reason:
            lacks = f"{upstream.name} is missing: {reason.why}"
            found[day] = _Cause("stale", lacks if reason.kind == "missing" else reason.why)
        elif latest.get(day, 0) > there[day].computed:
            failure = _failure(table, day, there[day].computed, failed)
            found[day] = _Cause("stale", failure or f"{upstream.name} was computed again later")
        if upstream is table and day in found:
            first_bad = first_bad or day


def _late(lake: Lake, table: Table, there: Mapping[date, Times]) -> dict[date, _Cause]:
    """Raw days whose landed rows changed after they were computed."""
    behind = [day for day in staleness.days_behind(lake, table) if day in there]
    if not behind:
        return {}
    since = min(there[day].computed for day in behind)
    files = ", ".join(staleness.late_files(lake, table, behind[-1], since))
    return dict.fromkeys(behind, _Cause("stale", f"late rows of {files}"))


def _failure(table: Table, day: date, since: int, failed: Sequence[FailedRun]) -> str | None:
    """The latest failed run that should have computed a day after ``since`` [ns]."""
    for run in sorted(failed, key=lambda run: -run.ended):
        if run.days[0] <= day <= run.days[1] and run.ended > since and (not run.assets or table.name in run.assets):
            return f"run {run.run_id[:8]} failed: {run.why}"
    return None


def _unreadable(lake: Lake, table: Table, there: Mapping[date, Times]) -> dict[date, _Cause]:
    """Days that an earlier version wrote without a column that has to be there, and those whose file is cut off."""
    found: dict[date, _Cause] = {}
    present = columns_mark(table)
    days = [day for day, times in there.items() if times.columns != present]
    required = [column.name for column in table.columns if column.required]
    for day, file in (lake.paths(table, days) if days else {}).items():
        footer = _footer(file)
        if footer is None:
            found[day] = _Cause("damaged", "the file is cut off, as by a machine that lost its power")
        elif not all(
            bytes([len(name)]) + name.encode() in footer for name in required
        ):  # a name stands after its length
            names = pq.read_schema(file).names
            if lacking := [name for name in required if name not in names]:
                found[day] = _Cause("outdated", f"written by an earlier version, without `{'`, `'.join(lacking)}`")
    return found


def _footer(file: Path) -> bytes | None:
    """The bytes that describe a Parquet file, ``None`` where they are not there. To parse them takes ten times as long."""
    with open(file, "rb", buffering=0) as opened:
        size = opened.seek(0, SEEK_END)
        opened.seek(max(0, size - 8))
        end = opened.read()
        length = int.from_bytes(end[:4], "little")
        if not end.endswith(b"PAR1") or length + 8 > size:
            return None
        opened.seek(-8 - length, SEEK_END)
        return opened.read(length)


def _grouped(causes: _Causes) -> list[Finding]:
    """One finding for each reason, in the order of the tables it begins with."""
    by_cause: dict[_Cause, dict[str, list[date]]] = defaultdict(dict)
    for name, days in causes.items():
        for day, cause in sorted(days.items()):
            by_cause[cause].setdefault(name, []).append(day)
    return [Finding(cause.kind, cause.why, tables, REPAIR) for cause, tables in by_cause.items()]


def _behind(start: date, end: date, failed: Sequence[FailedRun]) -> Finding:
    """Days with data that were never refreshed: nobody has tried, or the latest run over them that began with the logs failed."""
    logs = {table.name for table in _LANDED}
    tried = [run for run in failed if run.days[0] <= end and start <= run.days[1]]
    tried = [run for run in tried if not run.assets or logs & run.assets]
    days = {EVERY_TABLE: days_between(start, end)}
    if not tried:
        return Finding("behind", "there is data, and no refresh yet", days, "shopauto refresh")
    latest = max(tried, key=lambda run: run.ended)
    why = f"there is data, and its refresh failed (run {latest.run_id[:8]}), as it will again until this is mended: {latest.why}"
    return Finding("failed", why, days, "shopauto refresh")


def _nothing_landed(computed: Sequence[date]) -> Finding:
    """Days that were computed, of what is gone: none can be computed again."""
    why = "what was loaded is gone from the lake's `landing`: bring it back from a backup, or load the files again"
    return Finding("missing", why, {EVERY_TABLE: computed}, "shopauto load SOURCE PATH")


def _notes(
    lake: Lake,
    computed: Sequence[date],
    newer: Mapping[str, Sequence[date]],
    disk: Mapping[str, Mapping[date, Times]],
) -> Iterator[Finding]:
    """What is as it should be and may surprise: days between that were never refreshed, newer tables, models by name."""
    gaps = sorted({*days_between(computed[0], computed[-1])} - {*computed})
    for start, end in ranges(gaps):
        why = "not refreshed, between days that were"
        yield Finding(
            "note", why, {EVERY_TABLE: days_between(start, end)}, f"shopauto refresh --from {start} --to {end}"
        )
    lacking = {name: days for name, days in newer.items() if days}
    if lacking:
        start, end = min(map(min, lacking.values())), max(map(max, lacking.values()))
        why = "not computed then: the table is newer"
        yield Finding("note", why, lacking, f"shopauto refresh --from {start} --to {end}")
    named: dict[str, list[date]] = defaultdict(list)
    table = predictions.MODELS
    for day, path in lake.paths(table, [*disk.get(table.name, {})]).items():
        with suppress(pa.ArrowInvalid):  # is damaged, and told
            file = pq.ParquetFile(path)
            if "named" in file.schema_arrow.names:
                for row in file.read(["model_id", "named"]).to_pylist():
                    if row["named"]:
                        named[row["model_id"]].append(day)
    for model, days in sorted(named.items()):
        start, end = days[0], days[-1]
        why = f"scored by {model}, which was asked for by name"
        yield Finding("note", why, {table.name: days}, f"shopauto refresh --from {start} --to {end}")


def as_json(health: Health) -> str:
    """The findings for scripts."""
    found = [
        {
            "kind": finding.kind,
            "why": finding.why,
            "repair": finding.repair,
            "tables": {
                name: [{"from": str(start), "to": str(end)} for start, end in ranges(days)]
                for name, days in finding.days.items()
            },
        }
        for finding in health.findings
    ]
    return json.dumps({"partitions": health.partitions, "findings": found}, indent=2, ensure_ascii=False)
