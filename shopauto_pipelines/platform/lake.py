"""The lake: tables as one Parquet file per partition, ``<root>/<table>/<partition column>=<date>/data.parquet``.

A partition is written whole under a staging name and swapped in by one rename: a reader never sees half of one, and where its
folder stands its file stands too, whenever a writer was killed. Rows are sorted by the table's key and cut into row groups of a
fixed size: the same rows give the same bytes. A rewrite that changes nothing leaves the file alone.

Reading years of small files costs more than their rows, so a read over many days goes through months: copies of a closed
month's partitions in one file, under ``_months``, made by the first read that needs them and named by what they were made of.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.tables import Table

#: Rows of a Parquet row group; also the most rows held in memory by a write.
ROW_GROUP = 131_072

_FILE = "data.parquet"
_SPILL = "spill"

#: Up to so many partitions are read one by one.
_FEW_FILES = 45

#: A month's superseded file is kept so long for readers that may still use it.
_KEPT_SECONDS = 3600

#: What has been staged for so long belongs to a process that was killed.
_LEFT_SECONDS = 24 * 3600


class MissingPartition(ShopAutoError):
    """A partition that is needed has not been computed; the text names the table, the day and the command to run."""


class OutdatedPartition(MissingPartition):
    """A partition was written by an earlier version, without a column that is needed; the text says which."""


@dataclass(frozen=True)
class Written:
    """What became of one partition: its ``rows``, the file's ``size`` in bytes, and whether its bytes ``changed``."""

    rows: int
    size: int
    changed: bool


class Lake:
    """Reads and writes tables under ``root`` through one DuckDB connection (``con``, an Ibis backend).

    Not for use by several threads at once: take a :meth:`session` each.
    """

    def __init__(self, root: Path, threads: int | None = None, memory: str | None = None) -> None:
        self.root = Path(root)
        self._options = {"threads": threads, "memory": memory}
        (self.root / "_staging").mkdir(parents=True, exist_ok=True)
        self._sweep()
        config: dict[str, object] = {"temp_directory": str(self.root / "_staging" / _SPILL)}
        if threads:
            config["threads"] = threads
        if memory:
            config["memory_limit"] = memory
        self.con = ibis.duckdb.connect(**config)
        self.con.raw_sql("set TimeZone = 'UTC'; set enable_progress_bar = false")
        self._tables_by_view: dict[str, Table] = {}
        self._origins_by_name: dict[str, Mapping[str, frozenset[tuple[str, str]]]] = {}
        self._scans: dict[tuple[Path, ...], ir.Table] = {}

    @staticmethod
    def first_day(root: Path) -> date | None:
        """First day of the data that was loaded into the lake at ``root``; ``None`` before the first load."""
        note = Path(root) / "first_day"
        return date.fromisoformat(note.read_text()) if note.exists() else None

    def note_first_day(self, day: date) -> None:
        """Remember ``day`` as the first one where it is earlier than what was known."""
        known = Lake.first_day(self.root)
        if known is None or day < known:
            staged = self._staged("first_day")
            staged.write_text(day.isoformat())
            os.replace(staged, self.root / "first_day")

    def session(self) -> Lake:
        """Another connection to the same lake."""
        return Lake(self.root, **self._options)  # type: ignore[arg-type]

    def path(self, table: Table, day: date) -> Path:
        """File of the partition, whether or not it exists."""
        return self.root / f"{table.name}/{table.partition}={day.isoformat()}/{_FILE}"

    def days(self, table: Table) -> list[date]:
        """Days that have a partition, in order."""
        prefix = f"{table.partition}="
        folder = self.root / table.name
        if not folder.is_dir():
            return []
        names = (entry.name for entry in os.scandir(folder) if entry.name.startswith(prefix))
        return sorted(date.fromisoformat(name.removeprefix(prefix)) for name in names)

    def rows(self, table: Table, day: date) -> int:
        """Rows of a partition, from the file's footer; raises :class:`MissingPartition`."""
        return pq.read_metadata(self._existing(table, day)).num_rows

    def on(self, table: Table, day: date) -> ir.Table:
        """The partition of ``day``; raises :class:`MissingPartition` where it has not been written."""
        return self._scan(table, [self._existing(table, day)])

    def together(self, tables: Sequence[Table], day: date) -> ir.Table:
        """The partitions of ``day`` of several tables with the same columns, as one; raises :class:`MissingPartition`."""
        return self._scan(tables[0], [self._existing(table, day) for table in tables])

    def between(self, table: Table, start: date | None = None, end: date | None = None) -> ir.Table:
        """All partitions from ``start`` to ``end``, both included; an empty table where there is none."""
        days = [d for d in self.days(table) if (start is None or d >= start) and (end is None or d <= end)]
        return self._scan(table, [self.path(table, d) for d in days])

    def table_of(self, view: str) -> Table | None:
        """The lake table behind a view name found in an expression."""
        return self._tables_by_view.get(view)

    def note_origins(self, name: str, origins: Mapping[str, frozenset[tuple[str, str]]]) -> None:
        """Remember of which columns of the lake those of a temporary table were made; it lasts until it has been written."""
        self._origins_by_name[name] = origins

    def origins_of(self, name: str, column: str) -> frozenset[tuple[str, str]]:
        """Where a temporary table's column comes from, as far as it was noted."""
        return self._origins_by_name.get(name, {}).get(column, frozenset())

    def write(self, table: Table, days: Sequence[date], rows: ir.Table | pa.Table) -> dict[date, Written]:
        """Replace the partitions ``days`` by ``rows``, each by one atomic swap.

        ``rows`` has the table's columns (others are ignored, values are cast); for several days also the partition
        column. A day without rows gets an empty file: computed, and nothing there. Raises ``ValueError`` for rows of a
        day that was not named.
        """
        expression = ibis.memtable(rows) if isinstance(rows, pa.Table) else rows
        columns = {name: expression[name].cast(kind.copy(nullable=True)) for name, kind in table.schema.items()}
        if len(days) > 1:
            columns[table.partition] = expression[table.partition].cast("date")
        order = [*([table.partition] if len(days) > 1 else []), *table.key]
        ordered = expression.select(**columns).order_by([ibis.asc(name, nulls_first=True) for name in order])
        written: dict[date, Written] = {}
        wanted = set(days)
        for day, batches in self._by_day(table, days, self.con.to_pyarrow_batches(ordered, chunk_size=ROW_GROUP)):
            if day not in wanted:
                raise ValueError(f"{table.name}: rows of {day}, which is not among the days to write")
            written[day] = self._write_partition(table, day, batches)
        for day in wanted - written.keys():
            written[day] = self._write_partition(table, day, iter(()))
        for made in expression.op().find(ops.DatabaseTable):
            if made.name in self._origins_by_name:  # a step towards these rows, which may be as large as they are
                self.con.raw_sql(f'drop table if exists "{made.name}"')
        return written

    def delete(self, table: Table, day: date) -> None:
        """Remove a partition; nothing happens where there is none."""
        removed = self._staged("removed")
        with suppress(FileNotFoundError):
            os.rename(self.path(table, day).parent, removed)
        shutil.rmtree(removed, ignore_errors=True)

    def _existing(self, table: Table, day: date) -> Path:
        path = self.path(table, day)
        if not path.exists():
            raise MissingPartition(
                f"{table.name} has not been computed for {day}: run `shopauto refresh --day {day}` or materialise it in the UI"
            )
        return path

    def _scan(self, table: Table, paths: list[Path]) -> ir.Table:
        """The rows of the partitions ``paths``, which are in the order of their days."""
        months, days = self._months(table, paths)
        files = (*months, *days)
        if files in self._scans:
            return self._scans[files]
        view = f"{table.name.replace('/', '_')}_{uuid.uuid4().hex[:8]}"
        self._tables_by_view[view] = table
        if not files:
            columns = {name: kind.copy(nullable=True) for name, kind in table.schema.items()}  # as Parquet has them
            return self.con.create_table(view, schema=ibis.schema(columns | {table.partition: "date"}), temp=True)
        parts = [_read(table, months, hive=False)] if months else []
        parts += [_read(table, days, hive=True)] if days else []
        self.con.raw_sql(f'create temp view "{view}" as {" union all by name ".join(parts)}')
        rows = self.con.table(view)
        lacking = {c.name: ibis.null(c.type) for c in table.columns if c.name not in rows.columns}
        return self._scans.setdefault(files, rows.mutate(**lacking) if lacking else rows)

    def _months(self, table: Table, paths: list[Path]) -> tuple[list[Path], list[Path]]:
        """``paths`` split into files of whole months, made where they are missing, and the days that remain."""
        if len(paths) <= _FEW_FILES:
            return [], paths
        by_month: dict[str, list[Path]] = {}
        for path in paths:
            by_month.setdefault(path.parent.name.partition("=")[2][:7], []).append(path)
        newest = by_month.popitem()[1]
        on_disk = Counter(day.isoformat()[:7] for day in self.days(table))
        whole, days = [], []
        for month, parts in by_month.items():
            if len(parts) == on_disk[month]:
                whole.append(self._month(table, month, parts))
            else:
                days += parts
        return whole, [*days, *newest]

    def _month(self, table: Table, month: str, parts: list[Path]) -> Path:
        """One file with the rows of ``parts`` and their partition column; another one where any of them has changed."""
        stamps = ((path.parent.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in parts)
        mark = hashlib.sha256(repr(list(stamps)).encode()).hexdigest()[:16]
        target = self.root / "_months" / table.name / f"{month}-{mark}.parquet"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = self._staged("month")
            self.con.raw_sql(
                f"copy ({_read(table, parts, hive=True)}) to '{staged}' (format parquet, compression zstd)"
            )
            os.replace(staged, target)
            for old in target.parent.glob(f"{month}-*"):
                if old != target and time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    old.unlink(missing_ok=True)
        return target

    @staticmethod
    def _by_day(
        table: Table, days: Sequence[date], batches: Iterator[pa.RecordBatch]
    ) -> Iterator[tuple[date, Iterator[pa.RecordBatch]]]:
        """Cut batches sorted by the partition column into one run of batches per day, holding one batch at a time."""
        if len(days) == 1:
            yield days[0], iter(batches)
            return
        column = table.partition
        pending: pa.RecordBatch | None = None
        source = iter(batches)

        def next_batch() -> pa.RecordBatch | None:
            for batch in source:
                if batch.num_rows:
                    return batch
            return None

        def of_day(day: date) -> Iterator[pa.RecordBatch]:
            nonlocal pending
            while pending is not None and pending.column(column)[0].as_py() == day:
                count = pc.sum(pc.equal(pending.column(column), pa.scalar(day, pa.date32()))).as_py()
                yield pending.slice(0, count).drop_columns([column])
                pending = pending.slice(count) if count < pending.num_rows else next_batch()

        pending = next_batch()
        while pending is not None:
            day = pending.column(column)[0].as_py()
            yield day, of_day(day)

    def _write_partition(self, table: Table, day: date, batches: Iterator[pa.RecordBatch]) -> Written:
        schema = table.arrow_schema
        staged = self._staged("partition") / _FILE
        staged.parent.mkdir()
        rows = 0
        try:
            with pq.ParquetWriter(staged, schema, compression="zstd") as writer:
                for group in _regroup(batches, schema):
                    writer.write_table(group, row_group_size=ROW_GROUP)
                    rows += group.num_rows
            target = self.path(table, day)
            changed = not (target.exists() and filecmp.cmp(staged, target, shallow=False))
            if changed:
                _swap_in(staged, target)
            else:
                os.utime(target.parent)  # the folder tells when a partition was computed, the file when it changed
            return Written(rows, target.stat().st_size, changed)
        finally:
            shutil.rmtree(staged.parent, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed processes left in the staging folder."""
        for entry in (self.root / "_staging").iterdir():
            with suppress(FileNotFoundError):  # another process was faster
                if entry.name != _SPILL and time.time() - entry.stat().st_mtime > _LEFT_SECONDS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _staged(self, what: str) -> Path:
        """A name of its own for what is not part of the lake yet, or no more."""
        return self.root / "_staging" / f"{what}-{os.getpid()}-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class LakeTable:
    """A table of a lake, not yet read: what the body of an asset gets as input."""

    lake: Lake
    table: Table

    def on(self, day: date) -> ir.Table:
        """The partition of ``day``; raises :class:`MissingPartition`."""
        return self.lake.on(self.table, day)

    def until(self, day: date) -> ir.Table:
        """All partitions up to and with ``day``: what was known at its end."""
        return self.lake.between(self.table, end=day)

    def between(self, start: date, end: date) -> ir.Table:
        """All partitions from ``start`` to ``end``, both included."""
        return self.lake.between(self.table, start, end)

    def before(self, day: date) -> tuple[date, ir.Table] | None:
        """The latest partition before ``day`` with its date; ``None`` where there is none."""
        earlier = [d for d in self.lake.days(self.table) if d < day]
        return (earlier[-1], self.lake.on(self.table, earlier[-1])) if earlier else None


def _read(table: Table, paths: Sequence[Path], *, hive: bool) -> str:
    """SQL that reads files of the table; ``hive`` takes the partition column from their folder's name.

    Raises :class:`OutdatedPartition` for one that an earlier version wrote without a required column.
    """
    mixed = any([_lacks_columns(table, path, path.stat().st_mtime_ns) for path in paths])
    listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"select * from read_parquet([{listed}], hive_partitioning = {hive}, union_by_name = {mixed})"


@lru_cache(maxsize=65_536)
def _lacks_columns(table: Table, file: Path, mtime_ns: int) -> bool:
    """Whether columns are missing that an earlier version did not write: null there."""
    names = pq.read_schema(file).names
    lacking = [column for column in table.columns if column.name not in names]
    if required := "`, `".join(column.name for column in lacking if column.required):
        day = file.parent.name.partition("=")[2]
        raise OutdatedPartition(
            f"{table.name} of {day} was written by an earlier version: it has no `{required}`. "
            f"Run `shopauto refresh --from {day}` to compute it again"
        )
    return bool(lacking)


def _swap_in(staged: Path, target: Path) -> None:
    """Make the file ``staged`` the partition ``target`` by one rename, in a folder that never stands there without it."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(staged.parent, target.parent)  # a new partition: the folder with its file
    except OSError:  # the partition is there already
        os.replace(staged, target)


def _regroup(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of exactly ``ROW_GROUP`` rows (the last one fewer), whatever the sizes of the batches that come in."""
    held: list[pa.Table] = []
    count = 0
    for batch in batches:
        part = pa.Table.from_batches([batch]).cast(schema)
        held.append(part)
        count += part.num_rows
        while count >= ROW_GROUP:
            whole = pa.concat_tables(held).combine_chunks()
            yield whole.slice(0, ROW_GROUP)
            rest = whole.slice(ROW_GROUP)
            held, count = ([rest] if rest.num_rows else []), rest.num_rows
    if count:
        yield pa.concat_tables(held).combine_chunks()


def days_between(start: date, end: date) -> list[date]:
    """Every day from ``start`` to ``end``, both included."""
    return [start + timedelta(days=n) for n in range((end - start).days + 1)]
