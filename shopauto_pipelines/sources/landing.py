"""Files of a source → typed canonical rows and quarantined rows, in ``<lake>/landing/<source>/<table>/``.

Each file is converted once: its landing is named by the digests of the file and of the mapping, written beside and swapped
in, and becomes visible by the swap of the source's ``manifest.json``. No row is lost: for each file and table, rows read =
landed + quarantined + excluded by ``where`` + folded by ``group_by``.

Which landed row wins where files disagree, and what refers to what, is decided in ``raw.py``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.progress import report as report_progress
from shopauto_pipelines.platform.settings import Settings, load_settings
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources.expressions import Refusal, define_helpers, plain
from shopauto_pipelines.sources.mapping import TABLES, SourceMapping, TableMapping, mappable
from shopauto_pipelines.sources.reading import LONGEST_RAW, LandingError, Staged, check_suffix, stage
from shopauto_pipelines.sources.tables import ALLOWED_VALUES, NEVER_NEGATIVE, TIME_COLUMN

#: Earlier days are taken for mistakes: one such row would otherwise make decades of daily partitions.
EARLIEST = date(1990, 1, 1)

#: Part of every landing's name: raise it when the rules of this module change, and files are landed again.
_RULES = "1"

_IN_THE_FUTURE = "in the future"

#: Source of the rows that the outbox lands: what we sent ourselves.
OWN_SOURCE = "outbox"


@dataclass
class FileReport:
    """What became of one file for one table. ``days`` are those whose rows changed."""

    file: str
    table: str
    read: int = 0
    landed: int = 0
    quarantined: int = 0
    excluded: int = 0
    folded: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unchanged: bool = False
    days: list[date] = field(default_factory=list)


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
    """A landed file as the manifest knows it. ``days``: day → (hash of its rows, time in ns when they last changed)."""

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


@dataclass
class Manifest:
    """What is landed of one source."""

    source: str
    path: str | None = None
    files: dict[str, Landed] = field(default_factory=dict)


def landing_root(lake: Lake) -> Path:
    """Folder of all landings."""
    return lake.root / "landing"


def read_manifest(lake: Lake, source: str) -> Manifest:
    """The manifest of ``source``; an empty one where nothing is landed."""
    path = landing_root(lake) / source / "manifest.json"
    if not path.exists():
        return Manifest(source)
    known = json.loads(path.read_text())
    return Manifest(known["source"], known["path"], {k: Landed(**v) for k, v in known["files"].items()})


def manifests(lake: Lake) -> list[Manifest]:
    """Manifests of all landed sources, by name."""
    return [read_manifest(lake, path.parent.name) for path in sorted(landing_root(lake).glob("*/manifest.json"))]


def landed_days(lake: Lake) -> tuple[date, date] | None:
    """First and last day of the shop's landed rows; our own rows do not count. ``None`` where nothing is landed."""
    days = [
        date.fromisoformat(day)
        for manifest in manifests(lake)
        if manifest.source != OWN_SOURCE
        for landed in manifest.files.values()
        for day, (rows, _) in landed.days.items()
        if rows
    ]
    return (min(days), max(days)) if days else None


def land(
    lake: Lake,
    mapping: SourceMapping,
    path: Path,
    settings: Settings,
    today: date,
    progress: Callable[[str, int, int], None] = report_progress,
) -> LandingReport:
    """Land every file of a source found at ``path`` (a folder, or a file where the mapping names none).

    ``today`` is the shop's current day: later rows are quarantined. Raises :class:`LandingError` for what is wrong with a
    whole file; bad rows are quarantined.
    """
    path = Path(path).expanduser().absolute()
    plan = _plan(mapping, path)
    with _locked(lake):
        manifest = read_manifest(lake, mapping.name)
        manifest.path = str(path)
        _sweep(lake, manifest)
        result = LandingReport(mapping.name)
        for count, (file, tables) in enumerate(plan, start=1):
            progress(f"land {mapping.name}", count - 1, len(plan))
            result.files += _land_file(lake, mapping, manifest, path, file, tables, settings, today)
        _save(lake, manifest)
        progress(f"land {mapping.name}", len(plan), len(plan))
    _note_first_day(lake, result)
    return result


def land_rows(
    lake: Lake, source: str, table: Table, name: str, rows: pa.Table, settings: Settings | None = None
) -> FileReport:
    """Land canonical ``rows`` that another part of the program made, as the file ``name`` of ``source``.

    ``rows`` has the table's columns but for the lineage; its times are UTC. The same name again replaces the rows.
    """
    settings = settings or load_settings()
    short = table.name.removeprefix("raw/")
    columns = [n for n in mappable(table) if n in rows.column_names]
    mapping = SourceMapping(
        name=source,
        timezone="UTC",
        tables={short: TableMapping(columns={n: f'"{n}"' for n in columns}, files=f"{name}.parquet")},
    )
    with _locked(lake), tempfile.TemporaryDirectory(dir=lake.root / "_staging") as folder:
        file = Path(folder) / f"{name}.parquet"
        pq.write_table(rows.select(columns), file)
        manifest = read_manifest(lake, source)
        _sweep(lake, manifest)
        last = pc.max(rows[TIME_COLUMN[table.name]]).as_py()
        today = last.date() + timedelta(days=1) if last else EARLIEST
        [result] = _land_file(lake, mapping, manifest, Path(folder), file, [short], settings, today)
    _note_first_day(lake, LandingReport(source, [result]))
    return result


def _note_first_day(lake: Lake, result: LandingReport) -> None:
    landed = [day for file in result.files if file.landed for day in file.days]
    if landed:
        lake.note_first_day(min(landed))


def refresh_landing(lake: Lake, sources: list[SourceMapping], settings: Settings, today: date) -> list[LandingReport]:
    """Land again what changed on disk, or was in the future, since it was loaded; costs a few ``stat`` where nothing did.

    A source whose path is gone keeps what was landed. Raises :class:`LandingError`.
    """
    by_name = {mapping.name: mapping for mapping in sources}
    reports = []
    for manifest in manifests(lake):
        mapping = by_name.get(manifest.source)
        if mapping and manifest.path and Path(manifest.path).exists():
            path = Path(manifest.path)
            if any(
                _is_behind(mapping, manifest, path, f, t, settings, today)
                for f, ts in _plan(mapping, path, lenient=True)
                for t in ts
            ):
                reports.append(land(lake, mapping, path, settings, today))
    return reports


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


def _mapping_digest(mapping: SourceMapping, table: str, settings: Settings) -> str:
    return mapping.digest(table, settings.timezone, _RULES)


def _is_behind(
    mapping: SourceMapping, manifest: Manifest, path: Path, file: Path, table: str, settings: Settings, today: date
) -> bool:
    known = manifest.files.get(f"{table}:{_relative(path, file)}")
    stat = file.stat()
    return (
        known is None
        or (known.size, known.mtime_ns) != (stat.st_size, stat.st_mtime_ns)
        or known.mapping != _mapping_digest(mapping, table, settings)
        or _ripened(known, today)
    )


def _ripened(known: Landed, today: date) -> bool:
    """Rows were refused because their day had not come; it may have by now."""
    return (
        any(_IN_THE_FUTURE in reason for reason in known.counts["reasons"]) and date.fromisoformat(known.today) < today
    )


def _land_file(
    lake: Lake,
    mapping: SourceMapping,
    manifest: Manifest,
    path: Path,
    file: Path,
    tables: list[str],
    settings: Settings,
    today: date,
) -> list[FileReport]:
    """Land one file for the tables it feeds; updates ``manifest``."""
    relative = _relative(path, file)
    stat = file.stat()
    behind = [t for t in tables if _is_behind(mapping, manifest, path, file, t, settings, today)]
    digest = _digest(file) if behind else ""
    reports = []
    work = []
    for table in tables:
        known = manifest.files.get(f"{table}:{relative}")
        same = (
            known is not None
            and (table not in behind or known.digest == digest)
            and known.mapping == _mapping_digest(mapping, table, settings)
            and not _ripened(known, today)
        )
        if known is not None and same:
            known.size, known.mtime_ns = stat.st_size, stat.st_mtime_ns
            reports.append(FileReport(relative, table, unchanged=True, **known.counts))
        else:
            work.append(table)
    if not work:
        return reports
    wanted: dict[str, tuple[list[str], str]] = {}
    for table in work:
        for name, names in mapping.tables[table].file_columns.items():
            before, needed_by = wanted.get(plain(name), ([], table))
            wanted[plain(name)] = ([*before, *(n for n in names if n not in before)], needed_by)
    with tempfile.TemporaryDirectory(dir=lake.root / "_staging") as folder:
        staged = stage(file, wanted, Path(folder), "file", mapping.delimiter)
        for table in work:
            landed, result = _Conversion(lake, mapping, table, staged, Path(folder), relative, settings, today).run(
                digest, stat.st_size, stat.st_mtime_ns
            )
            result.days = _restamp(landed, manifest.files.get(f"{table}:{relative}"))
            manifest.files[f"{table}:{relative}"] = landed
            reports.append(result)
    _save(lake, manifest)
    return reports


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
def _locked(lake: Lake) -> Iterator[None]:
    """One landing at a time: raw assets that start together all look for changed files."""
    root = landing_root(lake)
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _save(lake: Lake, manifest: Manifest) -> None:
    folder = landing_root(lake) / manifest.source
    folder.mkdir(parents=True, exist_ok=True)
    known = {**vars(manifest), "files": {name: vars(landed) for name, landed in manifest.files.items()}}
    text = json.dumps(known, sort_keys=True)
    target = folder / "manifest.json"
    if target.exists() and target.read_text() == text:
        return
    staged = folder / f".manifest-{os.getpid()}"
    staged.write_text(text)
    os.replace(staged, target)


def _sweep(lake: Lake, manifest: Manifest) -> None:
    """Remove landings that an earlier load replaced: a reader that began before it has finished by now."""
    folder = landing_root(lake) / manifest.source
    used = {folder / known.landing for known in manifest.files.values()}
    for path in folder.glob("*/*.parquet"):
        if path.with_name(path.name.replace(".quarantine.parquet", ".parquet")) not in used:
            path.unlink(missing_ok=True)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class _Conversion:
    """One staged file → landing of one table, by a few DuckDB statements that stream."""

    def __init__(
        self,
        lake: Lake,
        mapping: SourceMapping,
        name: str,
        staged: Staged,
        folder: Path,
        file: str,
        settings: Settings,
        today: date,
    ) -> None:
        self.lake, self.source, self.name, self.staged, self.file, self.today = lake, mapping, name, staged, file, today
        self.mapping: TableMapping = mapping.tables[name]
        self.table: Table = TABLES[name]
        self.settings = settings
        self.zone = mapping.timezone or settings.timezone
        self.typed = folder / f"{name}.typed.parquet"
        self.folder = folder
        self.con = lake.con.con.cursor()
        self.con.execute("set TimeZone = 'UTC'")
        define_helpers(self.con)

    def run(self, digest: str, size: int, mtime_ns: int) -> tuple[Landed, FileReport]:
        """Write both files; returns the manifest's entry and the report."""
        try:
            self._type_rows()
            counts, folded = self._counts()
            mapping_digest = _mapping_digest(self.source, self.name, self.settings)
            stem = hashlib.sha256(f"{self.file}:{digest}".encode()).hexdigest()[:16] + f"-{mapping_digest}"
            target = landing_root(self.lake) / self.source.name / self.name / f"{stem}.parquet"
            days, reasons, landed, quarantined = self._write(target)
        except duckdb.Error as error:
            raise LandingError(
                f"{self.file}: {self.table.name}: the mapping does not fit the file: {_worded(error)}"
            ) from None
        finally:
            self.con.close()
        read = self.staged.count
        result = FileReport(self.file, self.name, read, landed, quarantined, read - counts, folded, reasons)
        if read != landed + quarantined + result.excluded + folded:
            raise LandingError(f"{self.file}: {self.table.name}: rows do not add up ({result}); nothing was loaded")
        kept = {k: getattr(result, k) for k in ("read", "landed", "quarantined", "excluded", "folded", "reasons")}
        entry = Landed(
            self.name, self.file, digest, mapping_digest, f"{self.name}/{target.name}", size, mtime_ns,
            self.today.isoformat(), kept, days,
        )  # fmt: skip
        return entry, result

    def _type_rows(self) -> None:
        """All rows, typed, with what is wrong with them, to a staged file."""
        rows = f"read_parquet({_text(str(self.staged.rows))})"
        defects = f"read_parquet({_text(str(self.staged.defects))})"
        used = ", ".join(sorted({_text(plain(name)) for name in self.mapping.file_columns}))
        relation = f"select *, {_NOTHING} as _bad from {rows}"
        if self.staged.defect_count:
            shown = (
                'case "column" '
                + " ".join(f"when {_text(plain(k))} then {_text(v)}" for k, v in self.staged.columns.items())
                + " end"
            )
            problem = f"{{'column_name': {shown}, 'reason': reason, 'raw_value': raw_value}}"
            spoilt = f"""select _row, first({problem} order by "column" nulls first, reason) as _bad
                from {defects} where "column" is null or "column" in ({used or "''"}) group by _row"""
            columns = "".join(f"r.{_quoted(plain(name))}, " for name in self.staged.columns)
            relation = f"""select coalesce(r._row, d._row) as _row, {columns} d._bad
                from {rows} r full join ({spoilt}) d using (_row)"""
        condition = self.mapping.condition
        if condition:
            relation = (
                f"select * replace (coalesce(_bad, {_refused('', condition.refusals)}) as _bad) from ({relation})"
            )
            relation = f"select *, ({condition.sql}) as _keep from ({relation})"
            relation = f"select * exclude (_keep) from ({relation}) where _bad is not null or _keep"
        expressions = self.mapping.expressions.items()
        if self.mapping.group_by:
            by_row = {r.call: (name, r) for name, e in reversed(expressions) for r in e.refusals if not r.aggregated}
            if by_row:
                refused = ", ".join(_refused(name, [r]) for name, r in by_row.values())
                relation = f"select * replace (coalesce(_bad, {refused}) as _bad) from ({relation})"
            self.con.execute(f"create or replace temp view kept as {relation}")
            computed = ", ".join(_computed(n, e.sql, [r for r in e.refusals if r.aggregated]) for n, e in expressions)
            keys = ", ".join(e.sql for e in self.mapping.groups)
            grouped = f"""select min(_row) as _row, count(*) as _rows, {_NOTHING} as _bad, {computed}
                from kept where _bad is null group by {keys}"""
            relation = f"{grouped} union all by name select _row, 1 as _rows, _bad from kept where _bad is not null"
        else:
            self.con.execute(f"create or replace temp view kept as {relation}")
            computed = ", ".join(_computed(n, e.sql, e.refusals) for n, e in expressions)
            relation = f"select _row, 1 as _rows, _bad, {computed} from kept"
        self.con.execute(f"create or replace temp view computed as {relation}")
        kinds = dict(self.con.execute("select column_name, column_type from (describe computed)").fetchall())
        self._copy(self._typed_select(kinds), self.typed, "lz4")

    def _typed_select(self, kinds: dict[str, str]) -> str:
        """``computed`` with every column cast to its canonical type, ``day``, and the first thing that is wrong."""
        casts: list[str] = []
        checks: list[tuple[str, str]] = [("_bad is not null", "_bad")]
        for column in self.table.columns:
            if column.name not in mappable(self.table):
                continue
            if column.name not in kinds:
                casts.append(f"cast(null as {_sql_type(column)}) as {_quoted(column.name)}")
                continue
            quoted = _quoted(column.name)
            value, reason = _cast(column, quoted, kinds[column.name], self.zone)
            casts.append(f"{value} as {quoted}")
            if self.mapping.expressions[column.name].refusals:
                refused = _quoted("_r_" + column.name)
                casts.append(refused)
                checks.append((f"({quoted} is null and {refused} is not null)", refused))
            if column.type != "string":
                given = _quoted("_x_" + column.name)
                casts.append(f"nullif(trim(cast({quoted} as varchar)), '') as {given}")
                checks.append(_bad(column.name, f"{quoted} is null and {given} is not null", reason, given))
            allowed = ALLOWED_VALUES.get((self.table.name, column.name))
            if allowed:
                listed = ", ".join(_text(value) for value in allowed)
                checks.append(
                    _bad(column.name, f"{quoted} not in ({listed})", f"not one of {', '.join(allowed)}", quoted)
                )
            if (self.table.name, column.name) in NEVER_NEGATIVE:
                checks.append(_bad(column.name, f"{quoted} < 0", "is negative", quoted))
        required = [c.name for c in self.table.columns if c.required and c.name in mappable(self.table)]
        checks += [_bad(name, f"{_quoted(name)} is null", "is missing", "null") for name in required]
        time = _quoted(TIME_COLUMN[self.table.name])
        raw_time = _quoted("_x_" + TIME_COLUMN[self.table.name])
        checks.append(_bad(TIME_COLUMN[self.table.name], f"_day > date '{self.today}'", _IN_THE_FUTURE, raw_time))
        checks.append(
            _bad(TIME_COLUMN[self.table.name], f"_day is null and {time} is not null", "not a time", raw_time)
        )
        checks.append(_bad(TIME_COLUMN[self.table.name], f"_day < date '{EARLIEST}'", f"before {EARLIEST}", raw_time))
        inner = f"select _row, _rows, _bad, {', '.join(casts)} from computed"
        if self.name in ("customers", "orders") and "email" in self.mapping.columns:
            guest = "coalesce(shop_customer_id, 'guest:' || left(sha256(lower(trim(email))), 16)) as shop_customer_id"
            inner = f"select * replace ({guest}) from ({inner})"
        shop_time = (
            time
            if self.settings.timezone == "UTC"
            else f"timezone({_text(self.settings.timezone)}, timezone('UTC', {time}))"
        )
        # A time near the ends of the calendar has no local day; it is far too early or late in any zone.
        dated = f"select *, try_cast({shop_time} as date) as _day from ({inner})"
        # Hardly any row is wrong: only those that are pay for finding out what it is.
        wrong = " or ".join(f"({condition})" for condition, _ in checks)
        first = " ".join(f"when {condition} then {problem}" for condition, problem in checks)
        judged = f"select *, case when {wrong} then case {first} end end as _wrong from ({dated})"
        outside = f"_day > date '{self.today}' or _day < date '{EARLIEST}'"
        columns = ", ".join(_quoted(name) for name in mappable(self.table))
        return f"""select _row, _rows, case when not ({outside}) then _day end as day, {columns},
            _wrong.column_name as bad_column, _wrong.reason as bad_reason, _wrong.raw_value as bad_value from ({judged})"""

    def _counts(self) -> tuple[int, int]:
        """Rows that were kept by ``where``, and how many of them were folded into others."""
        kept, rows = self.con.execute(f"select coalesce(sum(_rows), 0), count(*) from {self._all()}").fetchone() or (
            0,
            0,
        )
        return int(kept), int(kept) - int(rows)

    def _all(self) -> str:
        return f"read_parquet({_text(str(self.typed))})"

    def _write(self, target: Path) -> tuple[dict[str, tuple[str, int]], dict[str, int], int, int]:
        """Landing and quarantine files; returns the days' hashes, the reasons' counts, rows landed and quarantined."""
        target.parent.mkdir(parents=True, exist_ok=True)
        key = ", ".join(_quoted(name) for name in self.table.key)
        self.con.execute(
            f"create or replace temp table repeated as select {key}, min(_row) as _first from {self._all()}"
            f" where bad_reason is null group by {key} having count(*) > 1"
        )
        marked = f"""select t.*, r._first is not null and t._row <> r._first as _again
            from {self._all()} t left join repeated r using ({key})"""
        columns = ", ".join(_quoted(name) for name in mappable(self.table))
        lineage = f"{_text(self.source.name)} as source, {_text(self.file)} as source_file, _row as source_row"
        good = f"select {columns}, {lineage}, day from ({marked}) where bad_reason is null and not _again order by day, _row"
        last = self.con.execute(f"select coalesce(max(day), date '{self.today}') from {self._all()}").fetchone()[0]  # type: ignore[index]
        values = ", ', ', ".join(f"cast({_quoted(name)} as varchar)" for name in self.table.key)
        bad = f"""select {_text(self.table.name)} as "table", {lineage},
            case when bad_reason is not null then bad_column else {_text(", ".join(self.table.key))} end as "column",
            coalesce(bad_reason, 'duplicate key') as reason,
            {_shortened(f"case when bad_reason is not null then bad_value else concat({values}) end")} as raw_value,
            coalesce(day, date '{last}') as day
            from ({marked}) where bad_reason is not null or _again order by day, source_row"""
        quarantine = target.with_name(target.name.replace(".parquet", ".quarantine.parquet"))
        self._swap(good, target)
        self._swap(bad, quarantine)
        self.con.execute("drop table repeated")
        landed_days = self._hashes(target)
        bad_days = self._hashes(quarantine)
        stamp = target.stat().st_mtime_ns
        days = {
            d: (f"{landed_days.get(d, '')}/{bad_days.get(d, '')}", stamp) for d in sorted({*landed_days, *bad_days})
        }
        reasons = dict(
            self.con.execute(
                f"select reason, count(*) from read_parquet({_text(str(quarantine))}) group by 1 order by 1"
            ).fetchall()
        )
        landed = self.con.execute(f"select count(*) from read_parquet({_text(str(target))})").fetchone()[0]  # type: ignore[index]
        return days, reasons, landed, sum(reasons.values())

    def _hashes(self, file: Path) -> dict[str, str]:
        rows = self.con.execute(
            f"select cast(day as varchar), count(*), bit_xor(hash(t)) from read_parquet({_text(str(file))}) t group by day"
        ).fetchall()
        return {day: f"{count}.{mark:x}" for day, count, mark in rows}

    def _copy(self, select: str, file: Path, compression: str = "zstd") -> None:
        self.con.execute(f"copy ({select}) to {_text(str(file))} (format parquet, compression {compression})")

    def _swap(self, select: str, target: Path) -> None:
        staged = self.folder / target.name
        self._copy(select, staged)
        os.replace(staged, target)


#: SQL: nothing is wrong.
_NOTHING = "cast(null as struct(column_name varchar, reason varchar, raw_value varchar))"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _shortened(value: str) -> str:
    return f"(case when length({value}) > {LONGEST_RAW} then left({value}, {LONGEST_RAW - 1}) || '…' else {value} end)"


def _bad(column: str, condition: str, reason: str, value: str) -> tuple[str, str]:
    """SQL: when something is wrong with a column, and what it is."""
    problem = f"{{'column_name': {_text(column)}, 'reason': {_text(reason)}, 'raw_value': cast({value} as varchar)}}"
    return condition, problem


def _refused(column: str, refusals: Sequence[Refusal]) -> str:
    """SQL: what the helpers refused, the first one's argument as the value; null where nothing."""
    name = _text(column) if column else "cast(null as varchar)"
    cases = [
        f"when {r.condition} then {{'column_name': {name}, 'reason': {_text(r.reason)}, "
        f"'raw_value': cast({r.argument} as varchar)}}"
        for r in refusals
    ]
    return f"(case {' '.join(cases)} else {_NOTHING} end)" if cases else _NOTHING


def _computed(column: str, value: str, refusals: Sequence[Refusal]) -> str:
    """SQL: a column's value, and why it is null where a helper refused; asked only where it is null, which is rare."""
    refused = f"case when ({value}) is null then {_refused(column, refusals)} end" if refusals else _NOTHING
    return f"{value} as {_quoted(column)}, {refused} as {_quoted('_r_' + column)}"


_SQL_TYPES = {
    "string": "varchar",
    "int64": "bigint",
    "float64": "double",
    "timestamp(6)": "timestamp",
    "boolean": "boolean",
    "date": "date",
}


def _sql_type(column: Column) -> str:
    return _SQL_TYPES[column.type]


def _cast(column: Column, value: str, kind: str, zone: str) -> tuple[str, str]:
    """SQL that reads ``value`` of DuckDB type ``kind`` as the column's type or null, and the reason where it cannot."""
    text = kind == "VARCHAR"
    if column.type == "string":
        return f"nullif(trim(cast({value} as varchar)), '')", "not text"
    if text:
        value = f"nullif(trim({value}), '')"
    if column.type == "int64":
        return (value if kind == "BIGINT" else f"whole({value})"), "not a whole number"
    if column.type == "float64":
        number = f"try_cast({value} as double)"
        return f"(case when isfinite({number}) then {number} end)", "not a number"
    if column.type == "boolean":
        return f"flag({value})", "not true or false"
    if column.type == "date":
        return f"try_cast({value} as date)", "not a date"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"timezone('UTC', {value})", "not a time"
    naive = f"try_cast({value} as timestamp)"
    local = naive if zone == "UTC" else f"timezone('UTC', timezone({_text(zone)}, {naive}))"
    if text:
        offset = f"regexp_matches({value}, ':\\d\\d.*(Z|z|[+-]\\d\\d(:?\\d\\d)?)$')"
        return (
            f"(case when {offset} then timezone('UTC', try_cast({value} as timestamptz)) else {local} end)",
            "not a time",
        )
    return local, "not a time"


def _worded(error: duckdb.Error) -> str:
    return str(error).split("\n\n")[0].strip().replace("\n", " ")
