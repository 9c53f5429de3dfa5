"""The lake: tables as one Parquet file per partition, ``<table>/<partition column>=<date>/data.parquet``, in a storage.

A partition is written whole under a staging name and swapped in at once: a reader never sees half of one, whenever a writer was
killed. Rows are sorted by the table's key and cut into row groups of a fixed size: the same rows give the same bytes. A rewrite
that changes nothing leaves the file alone. Where the files are, a folder or a bucket, only the storage knows.

Reading years of small files again and again costs more than their rows, so a read over many days goes through months: copies of
a closed month's partitions in one file, under ``_months``, made by the first read that needs them and named by what they were
made of. Who reads days once reads them as they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shopauto_pipelines.platform.engine import DuckDB, Engine, Files
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.platform.memory import give_back
from shopauto_pipelines.platform.storage import (
    FILE,
    STAGING,
    LocalStorage,
    Outcome,
    Replaced,
    Storage,
    Stored,
    Times,
    staged_name,
    used,
)
from shopauto_pipelines.platform.tables import Column, Table

if TYPE_CHECKING:
    from shopauto_pipelines.platform.settings import Settings

#: Rows of a Parquet row group; also the most rows of a large day held in memory by a write.
ROW_GROUP = 131_072

_FIRST_DAY = "first_day"
_NEWEST_STATE = "newest_state"
_SPILL = "spill"

#: Up to so many partitions are read one by one.
_FEW_FILES = 45

#: A month's superseded file is kept so long after its last use, for readers that may still be at it.
_KEPT_SECONDS = 3600

#: What has been staged for so long belongs to a process that was killed.
_LEFT_SECONDS = 24 * 3600

#: What other processes change in a bucket is seen so much later at most.
_FRESH_SECONDS = 10.0

#: When a state was last computed is noted to so many seconds: a day has some fifty of them.
_TO_SECONDS = 60

#: The note in a lake's root that makes it one as known then; what it says is the sources room's.
KNOWN_THEN = "known_then.json"

#: Files of days with up to so many rows are written by so many threads at once.
_FEW_ROWS, _WRITERS = 65_536, 3

#: So many readings of tables take some 30 MB; a day of a refresh has a tenth of them.
_MANY_READS = 1_000

#: Looks at a partition that others replace each time before it is read.
_LOOKS = 5

_T = TypeVar("_T")


class MissingPartition(ShopAutoError):
    """A partition that is needed has not been computed; the text names the table, the day and the command to run."""


class OutdatedPartition(MissingPartition):
    """A partition was written by an earlier version, without a column that is needed; the text says which."""


class DamagedPartition(ShopAutoError):
    """The file of a partition is cut off, as a machine leaves it that loses its power; the text says what to run."""


@dataclass(frozen=True)
class Written:
    """What became of one partition: its ``rows``, the file's ``size`` in bytes, and whether its bytes ``changed``."""

    rows: int
    size: int
    changed: bool


class Lake:
    """Reads and writes the tables of a storage through one session of an engine (``con`` is its Ibis backend).

    ``place`` names where they are. ``root`` is a local folder: the same, or that of this machine's copies.

    The engine is DuckDB of so many ``threads`` and so much ``memory``, or another one that is given. Not for use by several
    threads at once: take a :meth:`session` each.
    """

    def __init__(
        self,
        place: Path | Storage,
        threads: int | None = None,
        memory: str | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.storage = _storage(place)
        self.storage.prepare()
        self.root, self.place = self.storage.root, self.storage.place
        self._sweep()
        self.engine = engine or DuckDB(self.root / STAGING / _SPILL, threads, memory)
        self.con = self.engine.con
        self._noted: tuple[date, int] | None = None
        self._tables_by_view: dict[str, Table] = {}
        self._origins_by_name: dict[str, Mapping[str, frozenset[tuple[str, str]]]] = {}
        self._scans: dict[tuple[object, ...], ir.Table] = {}

    @property
    def refresh_command(self) -> str:
        """The command that computes days in this lake: that of everyday, or the one as known then."""
        return "shopauto --known then refresh" if self._then else "shopauto refresh"

    @property
    def _then(self) -> bool:
        """Whether it is a lake as known then."""
        return (self.root / KNOWN_THEN).exists()

    @staticmethod
    def first_day(place: Path | Storage) -> date | None:
        """First day of the data that was loaded into the lake at ``place``; ``None`` before the first load. Opens no lake."""
        note = _storage(place).text(_FIRST_DAY)
        return date.fromisoformat(note) if note else None

    def note_first_day(self, day: date) -> None:
        """Remember ``day`` as the first one where it is earlier than what was known."""
        known = Lake.first_day(self.storage)
        if known is None or day < known:
            self.storage.put_text(_FIRST_DAY, day.isoformat())

    def newest_state(self) -> tuple[date, int] | None:
        """The newest day of which a state was computed, ever, and when that was last, ns; ``None`` where there is none."""
        note = self.storage.text(_NEWEST_STATE)
        if note is None:
            return None
        day, computed = note.split()
        return date.fromisoformat(day), int(computed)

    def _note_state(self, day: date) -> None:
        now = time.time_ns()
        wanted = day, now - _TO_SECONDS * 10**9
        if self._noted is not None and self._noted >= wanted:
            return
        self._noted = self.newest_state()
        if self._noted is None or self._noted < wanted:
            self.storage.put_text(_NEWEST_STATE, f"{day} {now}")
            self._noted = day, now

    def session(self) -> Lake:
        """Another connection to the same lake."""
        return Lake(self.storage, engine=self.engine.session())

    def path(self, table: Table, day: date) -> Path:
        """Local file with the partition's rows, to read; none is there where the partition is not."""
        found = self._seen(lambda: self._local(table, day))
        return found or self.root / table.name / _folder(table, day) / FILE

    def paths(self, table: Table, days: Iterable[date]) -> dict[date, Path]:
        """Local files with the rows of those ``days`` that have a partition, to read."""

        def look() -> dict[date, Path]:
            there = _by_date(table, self.storage.partitions(table.name))
            wanted = [day for day in days if day in there]
            return dict(zip(wanted, self.storage.local([there[day] for day in wanted]), strict=True))

        return self._seen(look)

    def has(self, table: Table, day: date) -> bool:
        """Whether there is a partition of ``day``."""
        return self.storage.partition(table.name, _folder(table, day)) is not None

    def days(self, table: Table) -> list[date]:
        """Days that have a partition, in order."""
        prefix = f"{table.partition}="
        names = (name for name in self.storage.days(table.name) if name.startswith(prefix))
        return sorted(date.fromisoformat(name[len(prefix) :]) for name in names)

    def days_of_all(self, tables: Iterable[Table]) -> set[date]:
        """Days that have a partition of each of the tables."""
        return set.intersection(*(set(self.days(table)) for table in tables))

    def times(self, table: Table) -> dict[date, Times]:
        """When each partition of a table changed and was computed."""
        return self.times_of([table])[table.name]

    def times_of(self, tables: Iterable[Table]) -> dict[str, dict[date, Times]]:
        """When each partition changed and was computed, by the table's name."""
        by_name = {table.name: table for table in tables}
        found = self.storage.times([*by_name])
        return {name: _by_date(table, found[name]) for name, table in by_name.items()}

    def rows(self, table: Table, day: date) -> int:
        """Rows of a partition, from the file's footer; raises :class:`MissingPartition` and :class:`DamagedPartition`."""
        file = self._existing(table, day)
        with self._whole(table, file):
            return pq.read_metadata(file).num_rows

    def on(self, table: Table, day: date) -> ir.Table:
        """The partition of ``day``; raises :class:`MissingPartition` where it has not been written."""
        return self._seen(lambda: self._scan(table, [self._stored(table, day)]))

    def together(self, tables: Sequence[Table], day: date) -> ir.Table:
        """The partitions of ``day`` of several tables with the same columns, as one; raises :class:`MissingPartition`."""
        return self._seen(lambda: self._scan(tables[0], [self._stored(table, day) for table in tables]))

    def between(
        self, table: Table, start: date | None = None, end: date | None = None, *, once: bool = False
    ) -> ir.Table:
        """All partitions from ``start`` to ``end``, both included; an empty table where there is none.

        ``once``: these days are not read again and again, so no month of them is packed into a file for it.
        """

        def look() -> ir.Table:
            there = _by_date(table, self.storage.partitions(table.name))
            days = sorted(d for d in there if (start is None or d >= start) and (end is None or d <= end))
            return self._scan(table, [there[d] for d in days], () if once else there)

        return self._seen(look)

    def spans(self, tables: Iterable[Table], days: Sequence[date]) -> Iterator[list[date]]:
        """``days``, which follow each other, in ranges: each has what the engine has room for of the ``tables``, or is one day.

        What is made of rows of the same days alone can be made range by range, in bounded memory however large the shop is.
        """
        room = self.engine.room
        if room is None:
            yield [*days]
            return
        there = [_by_date(table, self.storage.partitions(table.name)) for table in tables]
        yield from _ranges(days, lambda day: sum(parts[day].size for parts in there if day in parts), room)

    def parts(self, table: Table, days: Iterable[date], most: int) -> Iterator[list[date]]:
        """The days in parts of at most ``most`` rows of the table, or of one day: for what compares no rows of different days.

        Unlike :meth:`spans` it does not ask how large they are in files, which says little of what is grouped by many keys.
        """
        yield from _ranges(sorted(days), lambda day: self.rows(table, day) if self.has(table, day) else 0, most)

    def table_of(self, view: str) -> Table | None:
        """The lake table behind a view name found in an expression."""
        return self._tables_by_view.get(view)

    def forget_reads(self) -> None:
        """Forget what has been read, where it is much: for who goes on with nothing of it. Reads of years fill the memory."""
        if len(self._tables_by_view) < _MANY_READS:
            return
        for view in self._tables_by_view:
            self.engine.drop(view)
        self._tables_by_view.clear()
        self._scans.clear()

    def note_origins(self, name: str, origins: Mapping[str, frozenset[tuple[str, str]]]) -> None:
        """Remember of which columns of the lake those of a temporary table were made; it lasts until it has been written."""
        self._origins_by_name[name] = origins

    def origins_of(self, name: str, column: str) -> frozenset[tuple[str, str]]:
        """Where a temporary table's column comes from, as far as it was noted."""
        return self._origins_by_name.get(name, {}).get(column, frozenset())

    def kept(self, name: str, rows: ir.Table) -> ir.Table:
        """``rows`` computed now, in a temporary table ``name`` until what is made of them has been written.

        For the parts of a table that together would not fit into memory.
        """
        if name not in self._origins_by_name:  # they are the same for every day
            self.note_origins(name, column_lineage(rows, self))
        self.engine.keep(name, rows)
        return self.engine.table(name)

    def write(
        self, table: Table, days: Sequence[date], rows: ir.Table | pa.Table, began: int | None = None
    ) -> dict[date, Written]:
        """Replace the partitions ``days`` by ``rows``, each by one atomic swap; computed ``began``, ns, or just now.

        ``rows`` has the table's columns (others are ignored, values are cast); for several days also the partition
        column. A day without rows gets an empty file: computed, and nothing there. Raises ``ValueError`` for rows of a
        day that was not named.
        """
        expression = ibis.memtable(rows) if isinstance(rows, pa.Table) else rows
        columns = {name: expression[name].cast(kind.copy(nullable=True)) for name, kind in table.schema.items()}
        if len(days) > 1:
            columns[table.partition] = expression[table.partition].cast("date")
        order = [*([table.partition] if len(days) > 1 else []), *table.key]
        batches = self.engine.ordered(expression.select(**columns), order, ROW_GROUP)
        wanted = set(days)
        with self.storage.replacing(table.name, columns_mark(table), len(wanted), began) as replaced:

            def write(day: date, rows_of_day: Iterator[pa.RecordBatch]) -> tuple[int, int, Outcome]:
                if day not in wanted:
                    raise ValueError(f"{table.name}: rows of {day}, which is not among the days to write")
                return self._write_partition(table, day, rows_of_day, replaced)

            by_day = self._by_day(table, days, batches)
            made = dict(
                _several_at_once(write, by_day) if len(days) > 1 else ((day, write(day, rows)) for day, rows in by_day)
            )
            for day in wanted - made.keys():
                made[day] = write(day, iter(()))
        written = {day: Written(rows, size, changed()) for day, (rows, size, changed) in made.items()}
        if table.partition == "as_of":
            self._note_state(max(days))
        for step in expression.op().find(ops.DatabaseTable):
            if step.name in self._origins_by_name:  # towards these rows, and it may be as large as they are
                self.engine.drop(step.name)
        give_back(sum(each.rows for each in written.values()))
        return written

    def delete(self, table: Table, day: date) -> None:
        """Remove a partition; nothing happens where there is none."""
        self.storage.delete(table.name, _folder(table, day))

    def _stored(self, table: Table, day: date) -> Stored:
        found = self.storage.partition(table.name, _folder(table, day))
        if found is None:
            raise MissingPartition(
                f"{table.name} has not been computed for {day}: run `{self.refresh_command} --day {day}` or materialise it in "
                "the UI"
            )
        return found

    def _local(self, table: Table, day: date) -> Path | None:
        found = self.storage.partition(table.name, _folder(table, day))
        return self.storage.local([found])[0] if found else None

    def _existing(self, table: Table, day: date) -> Path:
        return self._seen(lambda: self.storage.local([self._stored(table, day)])[0])

    @staticmethod
    def _seen(look: Callable[[], _T]) -> _T:
        """What ``look`` gives, which is tried again where a file was replaced between finding and reading it."""
        for _look in range(_LOOKS - 1):
            with suppress(Replaced):
                return look()
        return look()

    def _scan(self, table: Table, parts: Sequence[Stored], there: Iterable[date] = ()) -> ir.Table:
        """The rows of partitions, which are in the order of their days; ``there``: all days of the table, to read by months."""
        months, singles = self._months(table, parts, there)
        days = self.storage.local(singles)
        read = tuple(self.engine.stamp(file) for file in (*months, *days))
        if read in self._scans:
            return self._scans[read]
        view = f"{table.name.replace('/', '_')}_{uuid.uuid4().hex[:8]}"
        self._tables_by_view[view] = table
        columns = {name: kind.copy(nullable=True) for name, kind in table.schema.items()}  # as Parquet has them
        files = [self._files(table, months, hive=False)] if months else []
        files += [self._files(table, days, hive=True)] if days else []
        rows = self.engine.scan(view, files, ibis.schema(columns | {table.partition: "date"}))
        if not files:
            return rows
        lacking = {c.name: ibis.null(c.type) for c in table.columns if c.name not in rows.columns}
        if lacking:  # until it is written again, which may be now
            return rows.mutate(**lacking)
        return self._scans.setdefault(read, rows)

    def _months(
        self, table: Table, parts: Sequence[Stored], there: Iterable[date]
    ) -> tuple[list[Path], Sequence[Stored]]:
        """``parts`` split into files of whole months, made where they are missing, and the days that remain."""
        if len(parts) <= _FEW_FILES:
            return [], parts
        by_month: dict[str, list[Stored]] = {}
        for part in parts:
            by_month.setdefault(part.folder.partition("=")[2][:7], []).append(part)
        newest = by_month.popitem()[1]
        in_all = Counter(day.isoformat()[:7] for day in there)
        whole = {month: of_month for month, of_month in by_month.items() if len(of_month) == in_all[month]}
        days = [part for month, of_month in by_month.items() if month not in whole for part in of_month]
        return self._merged(table, whole), [*days, *newest]

    def _merged(self, table: Table, months: Mapping[str, Sequence[Stored]]) -> list[Path]:
        """A file for each month: the rows of its parts and their partition column; another where any part or column changed."""
        made: list[Path] = []
        missing: list[tuple[Path, Files, Path]] = []
        for month, parts in months.items():
            stamps = [(part.folder, *part.version) for part in parts]
            mark = hashlib.sha256(repr((columns_mark(table), stamps)).encode()).hexdigest()[:16]
            target = self.root / "_months" / table.name / f"{month}-{mark}.parquet"
            made.append(target)
            if not used(target):
                missing.append(
                    (target, self._files(table, self.storage.local(parts), hive=True), self._staged("month"))
                )
        if missing:
            made[0].parent.mkdir(parents=True, exist_ok=True)
            try:
                self.engine.merge([(files, staged) for _target, files, staged in missing])
            except BaseException:
                for _target, _read, staged in missing:
                    staged.unlink(missing_ok=True)
                raise
        for target, _read, staged in missing:
            os.replace(staged, target)
            for old in target.parent.glob(f"{target.name[:7]}-*"):
                with suppress(FileNotFoundError):  # another process was faster
                    if old != target and time.time() - old.stat().st_atime > _KEPT_SECONDS:
                        old.unlink()
        return made

    def _files(self, table: Table, paths: Sequence[Path], *, hive: bool) -> Files:
        """Files of the table, for the engine; ``hive`` takes the partition column from their folder's name.

        Raises :class:`OutdatedPartition` for one that an earlier version wrote without a required column, and
        :class:`DamagedPartition`.
        """
        mixed = False
        for path in paths:
            with self._whole(table, path):
                lacking = _lacking(table, path, path.stat().st_mtime_ns)
            if required := "`, `".join(column.name for column in lacking if column.required):
                day = path.parent.name.partition("=")[2]
                how = f"--day {day}` to compute it again" if self._then else "--stale`: it computes all such days again"
                raise OutdatedPartition(
                    f"{table.name} of {day} was written by an earlier version: it has no `{required}`. "
                    f"Run `{self.refresh_command} {how}"
                )
            mixed = mixed or bool(lacking)
        return Files(paths, hive, mixed)

    @contextmanager
    def _whole(self, table: Table, file: Path) -> Iterator[None]:
        """Says in words that a file which is read is none of Parquet's."""
        try:
            yield
        except pa.ArrowInvalid:
            day = file.parent.name.partition("=")[2]
            raise DamagedPartition(
                f"{table.name} of {day} is damaged ({file}): run `{self.refresh_command} "
                f"{f'--day {day}' if self._then else '--stale'}` to compute it again"
            ) from None

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

    def _write_partition(
        self, table: Table, day: date, batches: Iterator[pa.RecordBatch], replaced: Callable[[str, Path], Outcome]
    ) -> tuple[int, int, Outcome]:
        """Its rows, the size of its file, and what becomes known of whether it changed."""
        schema = table.arrow_schema
        staged = self._staged("partition") / FILE
        staged.parent.mkdir()
        rows = 0
        try:
            with pq.ParquetWriter(staged, schema, compression="zstd") as writer:
                for group in _regroup(batches, schema):
                    writer.write_table(group, row_group_size=ROW_GROUP)
                    rows += group.num_rows
        except BaseException:
            shutil.rmtree(staged.parent, ignore_errors=True)
            raise
        return rows, staged.stat().st_size, replaced(_folder(table, day), staged)

    def _sweep(self) -> None:
        """Remove what killed processes left in the staging folder."""
        for entry in (self.root / STAGING).iterdir():
            with suppress(FileNotFoundError):  # another process was faster
                if time.time() - entry.stat().st_mtime > _LEFT_SECONDS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _staged(self, what: str) -> Path:
        """A name of its own for what is not part of the lake yet, or no more."""
        return staged_name(self.root, what)


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

    def once(self, start: date, end: date) -> ir.Table:
        """The same for who makes other tables of just these days of them, and does not come back."""
        return self.lake.between(self.table, start, end, once=True)

    def before(self, day: date) -> tuple[date, ir.Table] | None:
        """The latest partition before ``day`` with its date; ``None`` where there is none."""
        earlier = [d for d in self.lake.days(self.table) if d < day]
        return (earlier[-1], self.lake.on(self.table, earlier[-1])) if earlier else None


@lru_cache(maxsize=65_536)
def _lacking(table: Table, file: Path, mtime_ns: int) -> list[Column]:
    """Columns that an earlier version did not write: null there, or needed."""
    names = pq.read_schema(file).names
    return [column for column in table.columns if column.name not in names]


def _folder(table: Table, day: date) -> str:
    return f"{table.partition}={day.isoformat()}"


def _by_date(table: Table, folders: Mapping[str, _T]) -> dict[date, _T]:
    """What goes by the folders of a table's partitions, by their days."""
    prefix = f"{table.partition}="
    return {date.fromisoformat(name[len(prefix) :]): one for name, one in folders.items() if name.startswith(prefix)}


def _several_at_once(
    write: Callable[[date, Iterator[pa.RecordBatch]], _T], days: Iterator[tuple[date, Iterator[pa.RecordBatch]]]
) -> Iterator[tuple[date, _T]]:
    """What ``write`` gives for each of ``days``. A day of few rows is held in memory, and the next are read meanwhile.

    A file of some thousand rows takes longer to open and to close than to fill; a large one is written as its rows come.
    """
    running: deque[tuple[date, Future[_T]]] = deque()
    with ThreadPoolExecutor(_WRITERS, "lake") as pool:
        for day, batches in days:
            held, rows = [], 0
            for batch in batches:
                held.append(batch)
                rows += batch.num_rows
                if rows > _FEW_ROWS:
                    break
            if rows > _FEW_ROWS:
                yield day, write(day, chain(held, batches))
                continue
            running.append((day, pool.submit(write, day, iter(held))))
            if len(running) > 2 * _WRITERS:
                first, future = running.popleft()
                yield first, future.result()
        while running:
            day, future = running.popleft()
            yield day, future.result()


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


def _ranges(days: Iterable[date], size: Callable[[date], int], most: int) -> Iterator[list[date]]:
    """The days in ranges, in their order: each is of at most ``most`` in all, or of one day."""
    part: list[date] = []
    held = 0
    for day in days:
        more = size(day)
        if part and held + more > most:
            yield part
            part, held = [], 0
        part.append(day)
        held += more
    yield part


def days_between(start: date, end: date) -> list[date]:
    """Every day from ``start`` to ``end``, both included."""
    return [start + timedelta(days=n) for n in range((end - start).days + 1)]


@cache
def columns_mark(table: Table) -> str:
    """Of the columns of a table, in :class:`~shopauto_pipelines.platform.storage.Times`."""
    return hashlib.sha256(" ".join(table.schema.names).encode()).hexdigest()[:8]


def storage_of(settings: Settings) -> Storage:
    """Where the lake of the settings is; nothing is looked up yet."""
    if settings.lake_bucket is None:
        return LocalStorage(settings.lake_path)
    from shopauto_pipelines.platform.object_storage import ObjectStorage

    return ObjectStorage(settings.lake_bucket, settings.lake_path, settings.lake_endpoint, _FRESH_SECONDS)


def open_lake(settings: Settings, *, computes: bool = False) -> Lake:
    """The lake of the settings. Who ``computes`` tables does so on their engine; who looks at them reads with DuckDB, here.

    Those as known then are computed with DuckDB, too.

    Raises ``EngineError`` where the engine cannot be had.
    """
    engine = None
    if computes and settings.engine == "spark" and settings.known == "now":
        from shopauto_pipelines.platform.engine import spark

        engine = spark(settings)
    return Lake(storage_of(settings), settings.engine_threads, settings.engine_memory, engine)


def _storage(place: Path | Storage) -> Storage:
    return LocalStorage(place) if isinstance(place, Path) else place
