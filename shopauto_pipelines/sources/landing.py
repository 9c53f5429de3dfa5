"""Files or database tables of a source → landed rows, in ``<lake>/landing/<source>/<table>/``: what is landed, and when again.

Each file is converted once: its landing is named by the digests of the file and of the mapping, written beside and swapped
in, and becomes visible by the swap of the source's ``manifest.json``. No row is lost: for each file and table, rows read =
landed + quarantined + excluded by ``where`` + folded by ``group_by``. A database has no files whose time would tell that
something changed: its tables are read again, and converted where the digest of what was read is another.

How rows are read is in ``reading`` and ``database``, how they are typed and judged in ``conversion``. Which landed row wins
where files disagree, and what refers to what, is decided in ``raw``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.postgres import locked
from shopauto_pipelines.platform.progress import report as report_progress
from shopauto_pipelines.platform.settings import Settings, load_settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources import database
from shopauto_pipelines.sources.conversion import EARLIEST, IN_THE_FUTURE, RULES, Conversion, FileReport
from shopauto_pipelines.sources.expressions import plain
from shopauto_pipelines.sources.known import landing_folder, noted, told_from
from shopauto_pipelines.sources.mapping import SourceMapping, TableMapping, mappable
from shopauto_pipelines.sources.reading import LandingError, Staged, check_suffix, stage
from shopauto_pipelines.sources.tables import TIME_COLUMN

#: Folder of all landings in the lake; of a lake in a bucket this machine's mirror.
_FOLDER = "landing"

#: Source of the rows that the outbox lands: what we sent ourselves.
OWN_SOURCE = "outbox"

#: Source of the rows that reached the collector: the shop's, one by one as they happen.
COLLECTOR_SOURCE = "collector"

#: Sources whose rows the database holds.
HELD_SOURCES = (OWN_SOURCE, COLLECTOR_SOURCE)

#: A database that was read this recently is not asked again by :func:`refresh_landing`: the raw assets of one run, which may
#: be processes of their own, share one reading.
FRESH_FOR = timedelta(minutes=5)


@dataclass
class LandingReport:
    """What a load did, file by file."""

    source: str
    files: list[FileReport] = field(default_factory=list)

    @property
    def days(self) -> list[date]:
        """Days whose rows changed, in order."""
        return sorted({day for file in self.files for day in file.days})

    @property
    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason, most frequent first."""
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.reasons)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def total(self, what: str, table: str | None = None) -> int:
        """Sum of ``read``, ``landed``, ``quarantined``, ``excluded`` or ``folded``, of one table or all."""
        return sum(getattr(file, what) for file in self.files if table in (None, file.table))


def touched_days(report: LandingReport) -> list[date]:
    """Days whose landed rows changed: their raw partitions have to be made again."""
    return report.days


@dataclass
class Landed:
    """A landed file or database table as the manifest knows it.

    ``days``: day → (hash of its rows, time in ns when they last changed). ``known``: day → the first day whose refresh could
    know of these rows; absent: every day's could. ``since``: the same of the file's first landing. ``values``: day → hash of its
    rows but for their lines. Of a database table ``size`` is its number of rows and ``mtime_ns`` the time it was last read.
    """

    table: str
    file: str
    digest: str
    mapping: str
    landing: str
    size: int
    mtime_ns: int
    today: str
    counts: dict[str, Any]
    days: dict[str, tuple[str, int]]
    known: dict[str, str] = field(default_factory=dict)
    since: str | None = None
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class Replaced:
    """Rows that were refreshed with, and are no longer in their file: corrected, or gone.

    ``days``: day → the first day whose refresh could know of the rows, ``None`` where every day's could. ``until``: the first
    day whose refresh could know better.
    """

    table: str
    file: str
    landing: str
    since: str | None
    until: str
    days: dict[str, str | None]


@dataclass
class Manifest:
    """What is landed of one source."""

    source: str
    path: str | None = None
    files: dict[str, Landed] = field(default_factory=dict)
    replaced: list[Replaced] = field(default_factory=list)

    @property
    def told_from(self) -> date | None:
        """The latest first day whose refresh could know of a load."""
        told = [*(each.since for each in self.files.values()), *(each.until for each in self.replaced)]
        told += [day for each in self.files.values() for day in each.known.values()]
        return max((date.fromisoformat(day) for day in told if day), default=None)


def landing_root(lake: Lake) -> Path:
    """Folder of all landings; a lake as known then reads those of the lake beside it."""
    return landing_folder(lake)


def read_manifest(lake: Lake, source: str) -> Manifest:
    """The manifest of ``source``; an empty one where nothing is landed."""
    path = landing_root(lake) / source / "manifest.json"
    if not path.exists():
        return Manifest(source)
    known = json.loads(path.read_text())
    files = {name: Landed(**each) for name, each in known["files"].items()}
    return Manifest(known["source"], known["path"], files, [Replaced(**each) for each in known.get("replaced", ())])


def manifests(lake: Lake) -> list[Manifest]:
    """Manifests of all landed sources, by name."""
    lake.storage.pull(_FOLDER)
    return [read_manifest(lake, path.parent.name) for path in sorted(landing_root(lake).glob("*/manifest.json"))]


def landed_days(lake: Lake) -> tuple[date, date] | None:
    """First and last day of the shop's landed rows; our own rows do not count. ``None`` where nothing is landed."""
    return _span(manifests(lake))


def days_over(lake: Lake, today: date) -> tuple[date, date] | None:
    """First and last day of the shop's landed rows that is over: what can be computed. ``None`` where there is none."""
    span = landed_days(lake)
    last = min(span[1], today - timedelta(days=1)) if span else None
    return (span[0], last) if span and last and span[0] <= last else None


def _span(found: Iterable[Manifest]) -> tuple[date, date] | None:
    days = [
        date.fromisoformat(day)
        for manifest in found
        if manifest.source != OWN_SOURCE
        for landed in manifest.files.values()
        for day, (rows, _) in landed.days.items()
        if rows
    ]
    return (min(days), max(days)) if days else None


def how_to_compute(lake: Lake, start: date, end: date) -> str:
    """What to do for the days ``start`` … ``end`` to be there, as a clause: the command, or that there is no data of them."""
    span = landed_days(lake) or (start, end)
    first, last = max(start, span[0]), min(end, span[1])
    data = f"there is data from {span[0]} to {span[1]}"
    if first > last:
        return data
    days = f"--day {first}" if first == last else f"--from {first} --to {last}"
    return f"run `{lake.refresh_command} {days}`" + ("" if (first, last) == (start, end) else f"; {data}")


def not_computed(lake: Lake, day: date, computed: Iterable[date]) -> str:
    """That a day is none of those ``computed``, which is the nearest, and what to do, as sentences."""
    nearest = min(computed, key=lambda each: (abs(each - day), each))
    return f"{day} has not been computed; the nearest computed day is {nearest}. For {day}: {how_to_compute(lake, day, day)}"


def land(
    lake: Lake,
    mapping: SourceMapping,
    place: Path | str,
    settings: Settings,
    today: date,
    progress: Callable[[str, int, int], None] = report_progress,
    history: bool = False,
) -> LandingReport:
    """Land every file of a source found at ``place`` (a folder, or a file where the mapping names none), or every table.

    For a source of tables, ``place`` is ``env:NAME``: an environment variable holds the database's URL. ``today`` is the
    shop's current day: later rows are quarantined. ``history``: what is new counts as known all along, not from the next
    refresh on. Raises :class:`LandingError` for what is wrong with a whole file or table; bad rows are quarantined.
    """
    if database.is_database(place) != mapping.is_database:
        wanted = "a database: give env:NAME" if mapping.is_database else "files: give their folder or file"
        raise LandingError(f"source `{mapping.name}` is read from {wanted}, not {place}")
    lake.storage.pull(_FOLDER)
    before = read_manifest(lake, mapping.name)
    if before.files and before.path and database.is_database(before.path) != mapping.is_database:
        raise LandingError(
            f"source `{mapping.name}` was loaded from {before.path}, and its rows would stay beside those of {place}: "
            "set SHOPAUTO_HOME to another folder, and load it there"
        )
    if mapping.is_database:
        with _locked(lake, settings):
            return _land_database(lake, mapping, str(place), settings, today, progress, history)
    path = Path(place).expanduser().absolute()
    plan = _plan(mapping, path)
    with _locked(lake, settings):
        load = _Load(lake, mapping, read_manifest(lake, mapping.name), settings, today, history)
        load.manifest.path = str(path)
        _sweep(lake, load.manifest)
        for count, (file, tables) in enumerate(plan, start=1):
            progress(f"land {mapping.name}", count - 1, len(plan))
            load.file(file, _relative(path, file), tables)
        load.save()
        progress(f"land {mapping.name}", len(plan), len(plan))
    return load.report


def land_rows(
    lake: Lake,
    source: str,
    table: Table,
    name: str,
    rows: pa.Table | pa.RecordBatchReader,
    settings: Settings | None = None,
    today: date | None = None,
) -> FileReport:
    """Land canonical ``rows`` that another part of the program made, as the file ``name`` of ``source``.

    ``rows`` has the table's columns but for the lineage, some or all, typed or as the text of a file; times without an offset
    are UTC. A reader is read batch by batch. The same name again replaces the rows. Later days than ``today`` are refused;
    unset: none is, for which the time column has to be typed.
    """
    settings = settings or load_settings()
    short = table.name.removeprefix("raw/")
    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    columns = [n for n in mappable(table) if n in reader.schema.names]
    mapping = SourceMapping(
        name=source,
        timezone="UTC",
        tables={short: TableMapping(columns={n: f'"{n}"' for n in columns}, files=f"{name}.parquet")},
    )
    with _locked(lake, settings), tempfile.TemporaryDirectory(dir=lake.root / "_staging") as folder:
        file = Path(folder) / f"{name}.parquet"
        last = None
        with pq.ParquetWriter(file, pa.schema([reader.schema.field(n) for n in columns])) as writer:
            for batch in reader:
                writer.write_batch(batch.select(columns))
                if today is None:
                    newest = pc.max(batch[TIME_COLUMN[table.name]]).as_py()
                    last = max(filter(None, (last, newest)), default=None)
        today = today or (last.date() + timedelta(days=1) if last else EARLIEST)
        load = _Load(lake, mapping, read_manifest(lake, source), settings, today)
        _sweep(lake, load.manifest)
        load.file(file, file.name, [short])
        load.save()
    return load.report.files[0]


def refresh_landing(
    lake: Lake, sources: list[SourceMapping], settings: Settings, today: date, fresh_for: timedelta = FRESH_FOR
) -> list[LandingReport]:
    """Land again what changed, or was in the future, since it was loaded.

    For files this costs a few ``stat`` where nothing did; a path that is gone keeps what was landed. A database is read
    again unless it was within ``fresh_for``. A lake that was deleted but for what is landed learns its first day again. Raises
    :class:`LandingError`.
    """
    by_name, found, reports = {mapping.name: mapping for mapping in sources}, manifests(lake), []
    if span := _span(found):
        lake.note_first_day(span[0])
    for manifest in found:
        mapping = by_name.get(manifest.source)
        if not mapping or not manifest.path:
            continue
        if database.is_database(manifest.path) and mapping.is_database:
            if not _Load(lake, mapping, manifest, settings, today).is_fresh(fresh_for):
                with _locked(lake, settings):
                    # Another process may have read it while this one waited.
                    latest = _Load(lake, mapping, read_manifest(lake, mapping.name), settings, today)
                    if not latest.is_fresh(fresh_for):
                        reports.append(_land_database(lake, mapping, manifest.path, settings, today, report_progress))
        elif not mapping.is_database and Path(manifest.path).exists():
            path = Path(manifest.path)
            load = _Load(lake, mapping, manifest, settings, today)
            plan = _plan(mapping, path, lenient=True)
            if any(load.is_behind(file, _relative(path, file), t) for file, tables in plan for t in tables):
                reports.append(land(lake, mapping, path, settings, today))
    return reports


def _land_database(
    lake: Lake,
    mapping: SourceMapping,
    place: str,
    settings: Settings,
    today: date,
    progress: Callable[[str, int, int], None],
    history: bool = False,
) -> LandingReport:
    """Read every table of a source in one transaction, then land those that changed. Needs the lock."""
    load = _Load(lake, mapping, read_manifest(lake, mapping.name), settings, today, history)
    load.manifest.path = place
    _sweep(lake, load.manifest)
    feeds: dict[str, list[str]] = {}
    for name, mapped in mapping.tables.items():
        feeds.setdefault(mapped.table or "", []).append(name)
    staged: dict[str, Staged] = {}
    with tempfile.TemporaryDirectory(dir=lake.root / "_staging") as folder:
        with database.opened(place) as opened:
            for count, (table, names) in enumerate(sorted(feeds.items())):
                progress(f"read {mapping.name}", count, len(feeds))
                optional = all(mapping.tables[name].optional for name in names)
                wanted, first_by = load.wanted(names), load.times(names)
                read = opened.stage(table, wanted, first_by, Path(folder), f"table{count}", optional=optional)
                if read is not None:
                    staged[table] = read
        for count, (table, rows) in enumerate(staged.items()):
            progress(f"land {mapping.name}", count, len(staged))
            load.table(table, feeds[table], rows, Path(folder))
        load.save()
        progress(f"land {mapping.name}", len(staged), len(staged))
    return load.report


def _plan(mapping: SourceMapping, path: Path, lenient: bool = False) -> list[tuple[Path, list[str]]]:
    """Files to read with the tables each one feeds, in path order."""
    if not path.exists():
        raise LandingError(f"{path}: there is no such file or folder")
    plan: dict[Path, list[str]] = {}
    for name, table in mapping.tables.items():
        if table.files is None:
            if path.is_dir():
                raise LandingError(f"{path}: source `{mapping.name}` is loaded from one file, not from a folder")
            found = [path]
        else:
            if not path.is_dir():
                raise LandingError(f"{path}: source `{mapping.name}` is loaded from a folder that holds {table.files}")
            found = sorted(file for file in path.glob(table.files) if file.is_file())
            if not found and not table.optional and not lenient:
                have = ", ".join(sorted(p.name for p in path.iterdir())[:20]) or "nothing"
                raise LandingError(
                    f"{path}: no file matches {table.files}, which feeds `{name}`. The folder has {have}."
                )
        for file in found:
            check_suffix(file)
            plan.setdefault(file, []).append(name)
    return sorted(plan.items())


def _relative(path: Path, file: Path) -> str:
    return file.relative_to(path).as_posix() if path.is_dir() else file.name


@dataclass
class _Load:
    """One source being landed: what is known of it, and what became of it."""

    lake: Lake
    mapping: SourceMapping
    manifest: Manifest
    settings: Settings
    today: date
    history: bool = False
    report: LandingReport = field(init=False)
    _first_day: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.report = LandingReport(self.mapping.name)

    @cached_property
    def told_from(self) -> date | None:
        """The first day whose refresh can know of what is landed now; ``None``: every day's can."""
        return None if self.history else told_from(self.lake, self.settings, self.manifest.told_from)

    def is_behind(self, file: Path, relative: str, table: str) -> bool:
        """Whether ``file`` has to be looked into for ``table``."""
        known = self.manifest.files.get(f"{table}:{relative}")
        stat = file.stat()
        return (
            known is None or (known.size, known.mtime_ns) != (stat.st_size, stat.st_mtime_ns) or self._outdated(known)
        )

    def is_fresh(self, fresh_for: timedelta) -> bool:
        """Whether all tables of a database were read within ``fresh_for`` and need nothing else.

        The clock decides when to look, never what is in a row.
        """
        now = time.time_ns()
        since = now - int(fresh_for.total_seconds() * 1e9)
        for name, table in self.mapping.tables.items():
            known = self.manifest.files.get(f"{name}:{table.table}")
            if known is None and table.optional:
                continue
            if known is None or not since < known.mtime_ns <= now or self._outdated(known):
                return False
        return True

    def wanted(self, tables: list[str]) -> dict[str, tuple[list[str], str]]:
        """The columns that ``tables`` need, by plain name: the names each may have, and what needs it."""
        wanted: dict[str, tuple[list[str], str]] = {}
        for table in tables:
            for name, names in self.mapping.tables[table].file_columns.items():
                before, needed_by = wanted.get(plain(name), ([], table))
                wanted[plain(name)] = ([*before, *(n for n in names if n not in before)], needed_by)
        return wanted

    def times(self, tables: list[str]) -> list[str]:
        """Plain names of the columns that say when a row of ``tables`` happened: in their order new rows come last."""
        expressions = (self.mapping.tables[t].expressions.get(TIME_COLUMN[f"raw/{t}"]) for t in tables)
        return list(
            dict.fromkeys(plain(name) for expression in expressions if expression for name in expression.columns)
        )

    def file(self, file: Path, relative: str, tables: list[str]) -> None:
        """Land one file for the tables it feeds."""
        stat = file.stat()
        behind = [table for table in tables if self.is_behind(file, relative, table)]
        digest = _digest(file) if behind else ""
        work = self._changed(relative, tables, behind, digest, stat.st_size, stat.st_mtime_ns)
        if work:
            with tempfile.TemporaryDirectory(dir=self.lake.root / "_staging") as folder:
                staged = stage(file, self.wanted(work), Path(folder), "file", self.mapping.delimiter)
                self._convert(staged, Path(folder), relative, work, digest, stat.st_size, stat.st_mtime_ns)

    def table(self, table: str, tables: list[str], staged: Staged, folder: Path) -> None:
        """Land one staged database table for the tables it feeds."""
        digest = database.digest(staged)
        now = time.time_ns()
        work = self._changed(table, tables, tables, digest, staged.count, now)
        self._convert(staged, folder, table, work, digest, staged.count, now)

    def save(self) -> None:
        """Make what was landed visible, once its first day is noted."""
        days = (day for landed in self.manifest.files.values() for day, (mark, _) in landed.days.items() if mark)
        first = min(days, default=None)
        if first and (self._first_day is None or first < self._first_day):
            self.lake.note_first_day(date.fromisoformat(first))
            self._first_day = first
        _save(self.lake, self.manifest)

    def _mapping_digest(self, table: str) -> str:
        return self.mapping.digest(table, self.settings.timezone, RULES)

    def _outdated(self, known: Landed) -> bool:
        return known.mapping != self._mapping_digest(known.table) or _ripened(known, self.today)

    def _changed(
        self, name: str, tables: list[str], behind: list[str], digest: str, size: int, mtime_ns: int
    ) -> list[str]:
        """Those of ``tables`` to convert ``name`` for; the others are noted as looked at."""
        work = []
        for table in tables:
            known = self.manifest.files.get(f"{table}:{name}")
            if known is None or self._outdated(known) or (table in behind and known.digest != digest):
                work.append(table)
            else:
                known.size, known.mtime_ns = size, mtime_ns
                self.report.files.append(FileReport(name, table, unchanged=True, **known.counts))
        return work

    def _convert(
        self, staged: Staged, folder: Path, name: str, tables: list[str], digest: str, size: int, mtime_ns: int
    ) -> None:
        converted = []
        for table in tables:
            mapped = self._mapping_digest(table)
            stem = hashlib.sha256(f"{name}:{digest}".encode()).hexdigest()[:16] + f"-{mapped}"
            landing = f"{table}/{stem}.parquet"
            before = self.manifest.files.get(f"{table}:{name}")
            if before and before.landing == landing:  # of another day: what was landed before is compared with it
                landing = f"{table}/{stem}-{self.today}.parquet"
            target = landing_root(self.lake) / self.mapping.name / landing
            conversion = Conversion(self.lake, self.mapping, table, staged, folder, name, self.settings, self.today)
            converted.append((table, mapped, landing, before, *conversion.run(target)))
        now = time.time_ns()  # as late as can be: what is computed until they are visible has not seen these rows
        for table, mapped, landing, before, result, marks in converted:
            kept = {k: getattr(result, k) for k in ("read", "landed", "quarantined", "excluded", "folded", "reasons")}
            today = self.today.isoformat()
            days = {day: (mark.rows, now) for day, mark in marks.items()}
            values = {day: mark.values for day, mark in marks.items()}
            landed = Landed(table, name, digest, mapped, landing, size, mtime_ns, today, kept, days, values=values)
            result.days = _restamp(landed, before)
            self._note_known(landed, before, result.days)
            self.manifest.files[f"{table}:{name}"] = landed
            self.report.files.append(result)
        if tables:
            self.save()

    def _note_known(self, landed: Landed, before: Landed | None, changed: list[date]) -> None:
        """Note from when on the rows are known, and keep those they replace where a refresh has seen them.

        A mapping that was changed tells nothing new of the shop: the rows it makes are known as the ones before it were. So are
        rows that only stand in other lines.
        """
        told = self.told_from.isoformat() if self.told_from else None
        landed.since = before.since if before else told
        seen: dict[str, str | None] = {}
        for day in landed.days:
            was = (before.known.get(day) if day in before.days else before.since) if before else None
            is_told = date.fromisoformat(day) in changed and not (
                before
                and (
                    (before.mapping != landed.mapping and (day in before.days or before.digest == landed.digest))
                    or (day in before.values and before.values[day] == landed.values.get(day))
                )
            )
            if known := told if is_told else was:
                landed.known[day] = known
            there = before is not None and bool(before.days.get(day, ("",))[0])
            if is_told and there and told and day < told and (was or "") < told:
                seen[day] = was
        if before and seen:
            assert told is not None
            self._keep(Replaced(before.table, before.file, before.landing, before.since, told, seen))

    def _keep(self, replaced: Replaced) -> None:
        """Keep the rows of the landing named, of the days named, in files of their own."""
        folder = landing_root(self.lake) / self.mapping.name
        rows = folder / replaced.landing
        kept = rows.with_name(f"{rows.stem}-{len(self.manifest.replaced)}.until-{replaced.until}.parquet")
        days = ", ".join(f"date '{day}'" for day in replaced.days)
        for source, target in ((rows, kept), (_refused(rows), _refused(kept))):
            staged = self.lake.root / "_staging" / f"kept-{uuid.uuid4().hex}"
            of_days = f"select * from read_parquet({sql_text(source)}) where day in ({days}) order by day, source_row"
            self.lake.con.raw_sql(f"copy ({of_days}) to {sql_text(staged)} (format parquet, compression zstd)")
            os.replace(staged, target)
        replaced.landing = kept.relative_to(folder).as_posix()
        self.manifest.replaced.append(replaced)


def sql_text(text: object) -> str:
    """A text as SQL has it."""
    return "'" + str(text).replace("'", "''") + "'"


def _refused(landing: Path) -> Path:
    """The file of the rows that were set aside, beside the landing."""
    return landing.with_suffix(".quarantine.parquet")


def _ripened(known: Landed, today: date) -> bool:
    """Rows were refused because their day had not come; it may have by now."""
    return (
        any(IN_THE_FUTURE in reason for reason in known.counts["reasons"]) and date.fromisoformat(known.today) < today
    )


def _restamp(landed: Landed, before: Landed | None) -> list[date]:
    """Days whose rows changed against ``before``; days that did not keep the time of their last change."""
    now = max((stamp for _, stamp in landed.days.values()), default=landed.mtime_ns)
    old = before.days if before else {}
    for day in old.keys() - landed.days.keys():
        landed.days[day] = ("", now if old[day][0] else old[day][1])
    for day in landed.days.keys() & old.keys():
        if landed.days[day][0] == old[day][0]:
            landed.days[day] = tuple(old[day])  # type: ignore[assignment]
    return sorted(date.fromisoformat(day) for day, (mark, _) in landed.days.items() if old.get(day, ("",))[0] != mark)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(lake: Lake, settings: Settings) -> Iterator[None]:
    """One landing at a time: raw assets that start together all look for changed files."""
    if noted(lake):
        raise LandingError(
            "nothing is loaded into the lake as known then: load it without --known then, and without SHOPAUTO_KNOWN"
        )
    root = landing_root(lake)
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with locked(settings, f"landing of {lake.place}"):
            lake.storage.reset(_FOLDER)
            try:
                yield
            finally:
                lake.storage.push(_FOLDER)


def _save(lake: Lake, manifest: Manifest) -> None:
    folder = landing_root(lake) / manifest.source
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        **vars(manifest),
        "files": {name: vars(landed) for name, landed in manifest.files.items()},
        "replaced": [vars(replaced) for replaced in manifest.replaced],
    }
    text = json.dumps(known, sort_keys=True)
    target = folder / "manifest.json"
    if target.exists() and target.read_text() == text:
        return
    staged = folder / f".manifest-{uuid.uuid4().hex}"
    staged.write_text(text)
    os.replace(staged, target)


def _sweep(lake: Lake, manifest: Manifest) -> None:
    """Remove landings that an earlier load replaced: a reader that began before it has finished by now.

    Of their rows those that a refresh had seen are kept beside, see :class:`Replaced`.
    """
    folder = landing_root(lake) / manifest.source
    used = {folder / known.landing for known in manifest.files.values()}
    used |= {folder / gone.landing for gone in manifest.replaced}
    for path in folder.glob("*/*.parquet"):
        if path.with_name(path.name.replace(".quarantine.parquet", ".parquet")) not in used:
            path.unlink(missing_ok=True)
