"""The seam between the house and what computes its tables: an engine reads files as tables, runs expressions, gives Arrow back.

DuckDB, on the machine where the run is, is the one that is always there. ``spark`` holds the other. What an expression says,
and how a partition is written, is the same for both; only what goes through here may differ from engine to engine.
"""

from __future__ import annotations

import atexit
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from ibis.backends.sql import SQLBackend
from ibis.backends.sql.datatypes import DuckDBType

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.storage import STAGING

if TYPE_CHECKING:
    from shopauto_pipelines.platform.settings import Settings


_T = TypeVar("_T")

#: Files that are merged at once: each holds some row groups in memory.
_MERGES = 4


class EngineError(ShopAutoError):
    """An engine cannot be had, or cannot do what was asked for; the text says which and why."""


#: As DuckDB tells sizes.
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")

#: What is raised where a query needs more than the engine may take, and cannot put it on disk.
OUT_OF_MEMORY = duckdb.OutOfMemoryException

#: What to do where that happens with a single thread, too.
MORE_MEMORY = (
    "does not fit into the query engine's memory, not even with one thread: give it more by SHOPAUTO_ENGINE_MEMORY"
)


class Files(NamedTuple):
    """Parquet files to read as one table.

    ``hive``: the partition column is in their folder's name, not in them. ``mixed``: some lack a column that others have.
    """

    paths: Sequence[Path]
    hive: bool
    mixed: bool = False


class Statement(NamedTuple):
    """A query as DuckDB takes it, and the expression it was made of, for an engine that takes another language."""

    duckdb: str
    expression: Callable[[], ir.Table]


#: What is put under a name: an expression on the engine, rows in memory, or a statement over what was named before it.
Named: TypeAlias = ir.Table | pa.Table | Statement


class Engine(ABC):
    """One session of an engine. Names that are put last as long as the session, or until they are dropped.

    ``con`` is the Ibis backend that its tables are bound to.
    """

    con: SQLBackend
    name: ClassVar[str]

    @abstractmethod
    def session(self) -> Engine:
        """Another one of the same options."""

    @abstractmethod
    def scan(self, name: str, files: Sequence[Files], schema: ibis.Schema) -> ir.Table:
        """The rows of ``files`` under ``name``: the columns of ``schema``, which without files is an empty table's.

        Columns that no file has may be missing.
        """

    @property
    @abstractmethod
    def room(self) -> int | None:
        """Bytes of Parquet that a statement may read at once; none: any number."""

    @abstractmethod
    def merge(self, parts: Sequence[tuple[Files, Path]]) -> None:
        """Write the rows of files, with their partition column, into one: for each of ``parts``, these and its target."""

    @abstractmethod
    def ordered(self, rows: ir.Table, order: Sequence[str], chunk: int) -> Iterator[pa.RecordBatch]:
        """The rows in batches of up to ``chunk``, sorted by the columns of ``order``, nulls first."""

    @abstractmethod
    def put(self, name: str, rows: Named) -> None:
        """Put ``rows`` under a name, in place of what had it; they are computed when they are read."""

    @abstractmethod
    def keep(self, name: str, rows: ir.Table | Statement, *, more: bool = False) -> None:
        """Compute ``rows`` now and keep them under a name, in place of what had it or as ``more`` of the same."""

    def table(self, name: str) -> ir.Table:
        """What is under a name."""
        return self.con.table(name)

    @abstractmethod
    def drop(self, name: str) -> None:
        """Forget what is under a name, if anything is."""

    @abstractmethod
    def fetch(self, statement: str) -> pa.Table:
        """The rows of a statement in DuckDB's language over what has a name; :class:`EngineError` from an engine of another."""

    @abstractmethod
    def variable(self, name: str, value: date | datetime) -> None:
        """Set what the function ``getvariable(name)`` gives in statements that run from now on."""

    @abstractmethod
    def mapped(
        self, name: str, rows: ir.Table, function: Callable[[pa.Table], pa.Table], schema: pa.Schema, chunk: int
    ) -> ir.Table:
        """What ``function`` makes of batches of ``rows``, of ``schema``, under a name.

        It sees up to ``chunk`` rows at once, and runs where the engine computes, so it must be one that can be pickled.
        """

    def sparing(self, work: Callable[[], _T], tell: Callable[[str], object]) -> _T:
        """What ``work`` gives, which is called again, more sparing of memory, where it did not fit; ``tell`` is told how."""
        return work()

    def stamp(self, file: Path) -> object:
        """What a reading of the file is good for: with another stamp it is read anew."""
        return file


def spark(settings: Settings) -> Engine:
    """The Spark of the settings. Raises :class:`EngineError` where it is not installed, has no Java or cannot be reached."""
    if settings.lake_bucket:
        raise EngineError(
            "Spark reads and writes a lake in a folder that all its workers see, not one in a bucket: set SHOPAUTO_LAKE to a "
            "folder of a shared file system, or SHOPAUTO_ENGINE=duckdb"
        )
    try:
        from shopauto_pipelines.platform.spark import Spark
    except ModuleNotFoundError as error:
        raise EngineError("the engine Spark is not installed: pip install 'shopauto-pipelines[spark]'") from error
    return Spark(
        settings.spark_master,
        settings.lake_path / STAGING,
        dict(each.split("=", 1) for each in settings.spark_conf.split()),
    )


class DuckDB(Engine):
    """DuckDB in this process; what does not fit into memory spills into a folder of its own, named after ``spill``."""

    con: Backend
    name = "duckdb"

    def __init__(self, spill: Path, threads: int | None = None, memory: str | None = None) -> None:
        self._options = spill, threads, memory
        own = f"{spill.name}-{os.getpid()}-{uuid.uuid4().hex}"  # processes name what they spill the same
        config: dict[str, object] = {"temp_directory": str(spill.with_name(own))}
        if threads:
            config["threads"] = threads
        if memory:
            config["memory_limit"] = memory
        self.con = _open[own] = ibis.duckdb.connect(**config)
        self.con.raw_sql("set TimeZone = 'UTC'; set enable_progress_bar = false")
        # what it kept of files it took at times for those written anew since; reading them again costs the same
        self.con.raw_sql("set enable_external_file_cache = false")
        self._kinds: dict[str, str] = {}

    def session(self) -> DuckDB:
        """Another connection."""
        return DuckDB(*self._options)

    def scan(self, name: str, files: Sequence[Files], schema: ibis.Schema) -> ir.Table:
        """A view, or an empty table."""
        self._kinds[name] = "view" if files else "table"
        if not files:
            return self.con.create_table(name, schema=schema, temp=True)
        parts = " union all by name ".join(map(reading, files))
        self.con.raw_sql(f'create temp view "{name}" as {parts}')
        return self.table(name)

    @cached_property
    def room(self) -> int:  # type: ignore[override]
        """An eighth of its memory: rows take some five times as much there as in a file, or more."""
        ((limit,),) = self._raw.execute("select current_setting('memory_limit')").fetchall()
        number, unit = limit.split()
        return int(float(number) * 1024 ** _UNITS.index(unit)) // 8

    def merge(self, parts: Sequence[tuple[Files, Path]]) -> None:
        """As they stream."""
        merged(self._raw, parts)

    def ordered(self, rows: ir.Table, order: Sequence[str], chunk: int) -> Iterator[pa.RecordBatch]:
        """As they come out of the sort, which spills."""
        if (query := self._of_table(rows)) is not None:
            by = ", ".join(f'"{name}" asc nulls first' for name in order)
            return streamed(self._raw.execute(f"{query} order by {by}").fetch_record_batch(chunk))
        in_order = rows.order_by([ibis.asc(name, nulls_first=True) for name in order])
        return streamed(self.con.to_pyarrow_batches(in_order, chunk_size=chunk))

    def put(self, name: str, rows: Named) -> None:
        """A view."""
        if isinstance(rows, pa.Table):
            self._raw.register(name, rows)
        else:
            self._raw.execute(f'create or replace temp view "{name}" as {self._selecting(rows)}')
        self._kinds[name] = "view"

    def keep(self, name: str, rows: ir.Table | Statement, *, more: bool = False) -> None:
        """A temporary table: on disk where it does not fit into memory."""
        how = f'insert into "{name}"' if more else f'create or replace temp table "{name}" as'
        self._raw.execute(f"{how} {self._selecting(rows)}")
        self._kinds[name] = "table"

    def table(self, name: str) -> ir.Table:
        """As the backend gives it, which parses every type anew, each time."""
        described = self._raw.execute(f'describe "{name}"').fetchall()
        schema = ibis.schema({column: _type(kind, null == "YES") for column, kind, null, *_others in described})
        namespace = ops.Namespace(catalog=None, database=None)
        return ops.DatabaseTable(name, schema=schema, source=self.con, namespace=namespace).to_expr()

    def drop(self, name: str) -> None:
        """Whether a view or a table."""
        if kind := self._kinds.pop(name, None):
            self._raw.execute(f'drop {kind} if exists "{name}"')

    def fetch(self, statement: str) -> pa.Table:
        """All rows at once."""
        return self._raw.sql(statement).to_arrow_table()

    def variable(self, name: str, value: date | datetime) -> None:
        """A variable of the connection: known when a statement is planned, so it is taken for a constant."""
        kind = "timestamp" if isinstance(value, datetime) else "date"
        self._raw.execute(f"set variable {name} = {kind} '{value}'")

    def mapped(
        self, name: str, rows: ir.Table, function: Callable[[pa.Table], pa.Table], schema: pa.Schema, chunk: int
    ) -> ir.Table:
        """Batch after batch in this process, through a file."""
        with TemporaryDirectory(dir=self._options[0].parent) as folder:
            file = Path(folder) / "mapped.parquet"
            with pq.ParquetWriter(file, schema) as writer:
                for batch in batches(streamed(self.con.to_pyarrow_batches(rows, chunk_size=chunk)), chunk):
                    writer.write_table(function(batch))
            return self.con.create_table(name, self.con.read_parquet(file), temp=True, overwrite=True)

    def sparing(self, work: Callable[[], _T], tell: Callable[[str], object]) -> _T:
        """With half the threads each time, down to one: each needs room of its own. Rows are the same with any number of them."""
        ((wanted,),) = self._raw.execute("select current_setting('threads')").fetchall()
        threads = wanted
        try:
            while threads > 1:
                try:
                    return work()
                except OUT_OF_MEMORY:
                    tell(
                        f"does not fit into the query engine's memory with {threads} threads: tried with {threads // 2}"
                    )
                    threads //= 2
                    self._raw.execute(f"set threads = {threads}")
            return work()
        finally:
            self._raw.execute(f"set threads = {wanted}")

    @property
    def _raw(self) -> duckdb.DuckDBPyConnection:
        return self.con.con

    def _of_table(self, rows: ir.Table) -> str | None:
        """The query of columns of a table or view, cast or as they are, written at once: compiling it takes 30 ms."""
        selected = rows.op()
        if not isinstance(selected, ops.Project) or not isinstance(selected.parent, ops.DatabaseTable):
            return None
        columns = []
        for name, value in selected.values.items():
            kind, of = (value.to, value.arg) if isinstance(value, ops.Cast) else (None, value)
            if not isinstance(of, ops.Field):
                return None
            told = f'"{of.name}"' if kind is None else f'cast("{of.name}" as {DuckDBType.to_string(kind)})'
            columns.append(f'{told} as "{name}"')
        return f'select {", ".join(columns)} from "{selected.parent.name}"'

    def _selecting(self, rows: ir.Table | Statement) -> str:
        if isinstance(rows, Statement):
            return rows.duckdb
        relation = rows.op()
        if isinstance(relation, ops.PhysicalTable) and hasattr(relation, "name"):
            return f'select * from "{relation.name}"'
        return self.con.compile(rows)


_open: WeakValueDictionary[str, Backend] = WeakValueDictionary()


@atexit.register
def _end_queries() -> None:
    """A query that a signal has stopped goes on in threads of DuckDB's own, and the process would end only after it."""
    for con in _open.values():
        con.con.interrupt()


@cache
def _type(kind: str, nullable: bool) -> dt.DataType:
    return DuckDBType.from_string(kind, nullable=nullable)


def quoted(path: Path) -> str:
    """A path as SQL has it."""
    return "'" + str(path).replace("'", "''") + "'"


def reading(files: Files) -> str:
    """DuckDB's query for the rows of files."""
    listed = ", ".join(map(quoted, files.paths))
    return f"select * from read_parquet([{listed}], hive_partitioning = {files.hive}, union_by_name = {files.mixed})"


def merged(con: duckdb.DuckDBPyConnection, parts: Sequence[tuple[Files, Path]]) -> None:
    """Write what each of ``parts`` reads into its file, by DuckDB.

    Several at a time, as far as the connection may: most of it is opening small files, which one query does one after the other.
    """

    def write(part: tuple[Files, Path]) -> None:
        with con.cursor() as cursor:
            how = "format parquet, compression zstd, compression_level 1"  # a copy: the original is packed tighter
            cursor.execute(f"copy ({reading(part[0])}) to {quoted(part[1])} ({how})")

    with con.cursor() as cursor:
        ((threads,),) = cursor.execute("select current_setting('threads')").fetchall()
    with ThreadPoolExecutor(min(threads, _MERGES)) as pool:
        list(pool.map(write, parts))


def streamed(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches as they come. What goes wrong in DuckDB meanwhile comes through Arrow, as an ``OSError``."""
    try:
        yield from rows
    except OSError as error:
        if str(error).startswith("Out of Memory Error"):
            raise OUT_OF_MEMORY(str(error)) from None
        raise


def batches(parts: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Tables of exactly ``size`` rows, the last one fewer, whatever the sizes of the batches that come in."""
    held: list[pa.RecordBatch] = []
    for batch in parts:
        held.append(batch)
        while sum(one.num_rows for one in held) >= size:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, size)
            held = whole.slice(size).to_batches()
    if sum(one.num_rows for one in held):
        yield pa.Table.from_batches(held)
