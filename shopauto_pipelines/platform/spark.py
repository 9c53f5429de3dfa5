"""Spark as the engine: the same expressions on a cluster, from the same files.

Workers read the lake, compute and write what they made into its staging folder; the machine that asked reads it there, puts it
in order and writes the partition, as it does for DuckDB. So the lake and its files have to be seen by all of them
under the same path. What Ibis does not say in Spark's language, or says in another sense than in DuckDB's, is put right here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.base import NULL
from ibis.backends.sql.compilers.pyspark import PySparkCompiler

from shopauto_pipelines.platform.engine import Engine, EngineError, Files, Named, Statement, merged, quoted
from shopauto_pipelines.platform.storage import staged_name

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of pandas 3, which nothing here goes through
    from ibis.backends.pyspark import Backend
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema, from_arrow_type
    from pyspark.sql.types import StructType

#: What every session says, whatever the cluster's defaults are: times are naive, and an error is an error.
_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
    "spark.sql.jsonGenerator.ignoreNullFields": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "true",
    # a table's files are named one by one: to look for them needs no job
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}


class Spark(Engine):
    """A session of the Spark application of this process, which is started by the first of them.

    ``staging`` is the lake's staging folder, which the workers see too. ``conf`` holds Spark's own settings. Raises
    :class:`EngineError` where there is no Java, or no such master.
    """

    name = "spark"

    def __init__(self, master: str, staging: Path, conf: Mapping[str, str] | None = None) -> None:
        self._options = master, staging, conf
        self._folder = staged_name(Path(staging).parent, "spark")
        self._kept: dict[str, list[Path]] = {}
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._session = _application(master, dict(conf or {})).newSession()
        for key, value in _SESSION.items():
            self._session.conf.set(key, value)
        self.con = _Backend()
        self.con.register_options()
        self.con.do_connect(self._session)
        self.con.write = self._write

    def session(self) -> Spark:
        """Another session of the same application."""
        return Spark(*self._options)

    def scan(self, name: str, files: Sequence[Files], schema: ibis.Schema) -> ir.Table:
        """A view; a column that a file lacks is null."""
        frames = [frame for each in files for frame in self._read(each, schema)]
        if not frames:
            frames = [self._session.createDataFrame([], _schema(schema))]
        reduce(DataFrame.unionByName, frames).createOrReplaceTempView(name)
        return self.con.table(name)

    def _read(self, files: Files, schema: ibis.Schema) -> Iterator[DataFrame]:
        """A frame for each folder that files stand under, whose names Spark reads from there on."""
        by_folder: dict[Path, list[Path]] = {}
        for path in files.paths:
            by_folder.setdefault(path.parents[1], []).append(path)
        for folder, paths in by_folder.items():
            reader = self._session.read.schema(_schema(schema))
            if files.hive:
                reader = reader.option("basePath", _address(folder))
            yield reader.parquet(*map(_address, paths))

    @property
    def room(self) -> None:
        """Workers divide the rows among themselves."""

    def merge(self, parts: Sequence[tuple[Files, Path]]) -> None:
        """By DuckDB on this machine."""
        with duckdb.connect() as con:
            merged(con, parts)

    def ordered(self, rows: ir.Table, order: Sequence[str], chunk: int) -> Iterator[pa.RecordBatch]:
        """Workers compute the rows and write them down; here they are sorted, on disk where memory is short."""
        folder = self._write(self.con.frame(rows))
        try:
            with duckdb.connect(config={"temp_directory": str(folder / "_spill")}) as con:
                con.execute("set TimeZone = 'UTC'; set enable_progress_bar = false")
                by = ", ".join(f'"{name}" nulls first' for name in order)
                found = con.sql(f"select * from read_parquet({quoted(folder / '*.parquet')}) order by {by}")
                yield from found.to_arrow_reader(chunk)
        finally:
            self.con.release()
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, name: str, rows: Named) -> None:
        """A view."""
        self._frame(rows).createOrReplaceTempView(name)

    def keep(self, name: str, rows: ir.Table | Statement, *, more: bool = False) -> None:
        """Files in the staging folder."""
        folder = self._write(self._frame(rows))
        made = self._session.read.parquet(_address(folder))
        if more:
            made = self._session.table(name).unionByName(made)
        else:
            self._forget(name)
        self._kept.setdefault(name, []).append(folder)
        made.createOrReplaceTempView(name)

    def drop(self, name: str) -> None:
        """The view, and its files if it has any."""
        self._session.catalog.dropTempView(name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        for folder in self._kept.pop(name, []):
            shutil.rmtree(folder, ignore_errors=True)

    def fetch(self, statement: str) -> pa.Table:
        """Refused: it is written for DuckDB."""
        raise EngineError("a look-up of a few rows runs on DuckDB, not on Spark: take `lake.front()`")

    def variable(self, name: str, value: date | datetime) -> None:
        """A variable of the session."""
        self.con.raw_sql(f"set variable {name} = {'timestamp' if isinstance(value, datetime) else 'date'} '{value}'")

    def mapped(
        self, name: str, rows: ir.Table, function: Callable[[pa.Table], pa.Table], schema: pa.Schema, chunk: int
    ) -> ir.Table:
        """By partition on the workers, which have this package too and import ``function`` from it."""

        def on_worker(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from function(pa.Table.from_batches([batch])).to_batches()

        self._session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(chunk))
        made = self.con.frame(rows).mapInArrow(on_worker, _schema(ibis.Schema.from_pyarrow(schema)))
        made.createOrReplaceTempView(name)
        return self.con.table(name)

    def stamp(self, file: Path) -> object:
        """Spark remembers a file's length, so one that was written again is another."""
        stat = file.stat()
        return file, stat.st_size, stat.st_mtime_ns

    def _frame(self, rows: Named) -> DataFrame:
        if isinstance(rows, pa.Table):
            return self._session.createDataFrame(rows)
        return self.con.frame(rows.expression() if isinstance(rows, Statement) else rows)

    def _write(self, frame: DataFrame) -> Path:
        """A folder with the rows as Parquet files, made by the workers."""
        folder = self._folder / uuid.uuid4().hex
        frame.write.parquet(_address(folder))
        return folder


def _application(master: str, conf: dict[str, str]) -> SparkSession:
    """The Spark application of this process."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise EngineError("the engine Spark needs Java 17 or later: there is no `java` on the PATH, and no JAVA_HOME")
    builder = SparkSession.builder.master(master).appName("shopauto")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **_SESSION,
        **conf,
    }.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise EngineError(f"no Spark at {master}: {error}") from None
    session.sparkContext.setLogLevel("ERROR")
    return session


def _schema(schema: ibis.Schema) -> StructType:
    """A schema as Spark has it: its times are naive."""
    return from_arrow_schema(schema.to_pyarrow(), prefer_timestamp_ntz=True)


def _address(path: str | Path) -> str:
    """The path as Spark takes it, which does not read ``%3D``."""
    return f"file://{path}"


class _Compiler(PySparkCompiler):
    """Ibis's, with what it lacks, and in DuckDB's sense where the two engines differ."""

    __slots__ = ()
    UNSUPPORTED_OPS = ()
    SIMPLE_OPS: ClassVar[dict[type[ops.Node], str]] = {}

    def visit_ScalarUDF(self, op: ops.ScalarUDF, **arguments: Any) -> sge.Expression:
        """DuckDB's own functions that the house uses by name."""
        given = list(arguments.values())
        match op.__func_name__:
            case "getvariable":
                return sg.column(op.args[0].value)
            case "timezone":  # moments are naive times in UTC here
                zones = ("UTC", given[0]) if op.dtype.timezone is None else (given[0], "UTC")
                return self.f.anon.convert_timezone(*zones, given[1])
            case "url_decode":
                return self.f.coalesce(self.f.anon.try_url_decode(given[0]), given[0])
            case "try":  # what is tried is translated into what never fails
                return given[0]
        return super().visit_ScalarUDF(op, **arguments)

    def visit_TimestampBucket(
        self, op: ops.TimestampBucket, *, arg: sge.Expression, interval: Any, offset: Any
    ) -> sge.Expression:
        """Buckets of a length that divides a day, so that it does not matter from when on they are counted."""
        seconds = op.interval.value * {"s": 1, "m": 60, "h": 3600}.get(op.interval.dtype.unit.short, 0)
        if offset is not None or not seconds or 86_400 % seconds:
            raise EngineError("times go into buckets of seconds, minutes or hours that divide a day")
        epoch = self.f.unix_seconds(self.cast(arg, dt.Timestamp("UTC")))
        start = self.cast(self.f.anon.timestamp_seconds(epoch - self.f.anon.pmod(epoch, seconds)), op.dtype)
        return start

    def visit_StringSplit(self, op: ops.StringSplit, *, arg: sge.Expression, delimiter: Any) -> sge.Expression:
        """At the text itself: Spark takes a regular expression."""
        return self.f.anon.split(arg, self.f.concat(sge.convert(r"\Q"), delimiter, sge.convert(r"\E")))

    def visit_ArrayIndex(self, op: ops.ArrayIndex, *, arg: sge.Expression, index: sge.Expression) -> sge.Expression:
        """Null beyond the end."""
        return self.f.anon.try_element_at(arg, self.if_(index < 0, index, index + 1))

    def visit_Cast(self, op: ops.Cast, *, arg: sge.Expression, to: dt.DataType) -> sge.Expression:
        """A row per element, cast: the array is cast before, for nothing may be done with what makes rows."""
        if isinstance(op.arg, ops.Unnest):
            return self.f.explode(self.cast(arg.this, dt.Array(to)))
        return super().visit_Cast(op, arg=arg, to=to)

    def visit_UnwrapJSONString(self, op: ops.UnwrapJSONString, *, arg: sge.Expression) -> sge.Expression:
        """Spark takes the quotes off what it gets out of JSON. Only for what is a text there: a number would be one too."""
        return arg

    def visit_IsNull(self, op: ops.IsNull, *, arg: sge.Expression) -> sge.Expression:
        """NaN is a number."""
        return arg.is_(NULL)

    def visit_NotNull(self, op: ops.NotNull, *, arg: sge.Expression) -> sge.Expression:
        """NaN is a number."""
        return arg.is_(sg.not_(NULL))


def _computed_once(query: sge.Query) -> set[str]:
    """The steps of a query that its result is made of more than once, and that are more than a part of a table."""
    users = {step.alias: step.this for step in query.ctes}
    times: dict[str, int] = {}
    once: set[str] = set()
    body = query.copy()
    body.set("with_", None)
    for name, uses in reversed([*users.items(), ("", body)]):
        count = 1 if name in once or not name else times.get(name, 0)
        if (
            name
            and count > 1
            and uses.find(sge.Join, sge.Group, sge.AggFunc, sge.Window, sge.SetOperation, sge.Distinct)
        ):
            once.add(name)
            count = 1
        for named in _named(uses):
            times[named.name] = times.get(named.name, 0) + count
    return once


def _named(query: sge.Expr) -> list[sge.Table]:
    return [*query.find_all(sge.Table)]


def _with(steps: Sequence[sge.CTE], query: sge.Expr) -> sge.Expr:
    """The query with those of ``steps`` that it is made of."""
    needed, chosen = {named.name for named in _named(query)}, []
    for step in reversed(steps):
        if step.alias in needed:
            chosen.append(step.copy())
            needed |= {named.name for named in _named(step.this)}
    made = query.copy()
    if chosen:
        made.set("with_", sge.With(expressions=chosen[::-1]))
    return made


class _Backend(Backend):
    """Ibis's, with Arrow in place of pandas, and temporary tables."""

    compiler = _Compiler()
    write: Callable[[DataFrame], Path]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps: dict[str, DataFrame] = {}

    def frame(self, expression: ir.Expr) -> DataFrame:
        """The expression as Spark's own; its steps of :func:`_computed_once` are kept until :meth:`release`.

        Spark would put the text of a step wherever it is named, and compute it as often: one statement had 96 scans of 6 tables.
        """
        table = expression.as_table()
        self._run_pre_execute_hooks(table)
        query = self.compiler.to_sqlglot(table)
        assert isinstance(query, sge.Query)
        once, steps = _computed_once(query), query.ctes
        before: list[sge.CTE] = []
        for step in steps:
            if step.alias not in once:
                before.append(step)
                continue
            name = f"step_{uuid.uuid4().hex}"
            made = self._session.sql(_with(before, step.this).sql(self.dialect)).persist()
            made.createOrReplaceTempView(name)
            self._steps[name] = made
            for named in [*(t for s in steps for t in _named(s.this)), *_named(query)]:
                if named.name == step.alias:
                    named.set("this", sg.to_identifier(name, quoted=True))
        query.set("with_", None)
        return self._session.sql(_with(before, query).sql(self.dialect))

    def release(self) -> None:
        """Forget the steps of all frames so far."""
        while self._steps:
            name, made = self._steps.popitem()
            made.unpersist()
            self._session.catalog.dropTempView(name)

    def to_pyarrow(self, expression: ir.Expr, /, *, params: Any = None, limit: Any = None, **more: Any) -> Any:
        """All rows at once."""
        table = expression.as_table()
        if limit is not None:
            table = table.limit(limit)
        found = self.frame(table).toArrow().cast(table.schema().to_pyarrow())
        return expression.__pyarrow_result__(found)

    def to_pyarrow_batches(
        self, expression: ir.Expr, /, *, params: Any = None, limit: Any = None, chunk_size: int = 1_000_000, **more: Any
    ) -> pa.ipc.RecordBatchReader:
        """In the order of the expression."""
        found = self.to_pyarrow(expression.as_table(), limit=limit)
        return pa.ipc.RecordBatchReader.from_batches(found.schema, found.to_batches(max_chunksize=chunk_size))

    def execute(self, expression: ir.Expr, /, **more: Any) -> Any:
        """As pandas, out of Arrow."""
        return expression.__pandas_result__(self.to_pyarrow(expression.as_table()).to_pandas())

    def create_table(  # type: ignore[override]
        self, name: str, /, obj: ir.Table | None = None, *, temp: bool = False, overwrite: bool = False, **more: Any
    ) -> ir.Table:
        """A temporary table: files, and a view of them."""
        if obj is None or not temp:
            raise EngineError(f"the table {name} would stay in Spark: only temporary ones are made there")
        self._session.read.parquet(_address(self.write(self.frame(obj)))).createOrReplaceTempView(name)
        return self.table(name)

    def drop_table(self, name: str, /, **more: Any) -> None:
        """The view of a temporary table."""
        self._session.catalog.dropTempView(name)

    def read_parquet(self, paths: Any, /, *, table_name: str | None = None, **more: Any) -> ir.Table:
        """Files with the same columns as one table."""
        name = table_name or f"read_{uuid.uuid4().hex}"
        listed = [paths] if isinstance(paths, str | Path) else paths
        self._session.read.parquet(*map(_address, listed)).createOrReplaceTempView(name)
        return self.table(name)

    def raw_sql(self, query: Any, **more: Any) -> Any:
        """As in DuckDB a variable is there once it is set."""
        if isinstance(query, str) and (told := re.match(r"set variable (\w+) = (date|timestamp) ", query)):
            super().raw_sql(f"declare or replace variable {told[1]} {told[2]}")
        return super().raw_sql(query, **more)

    def _register_in_memory_table(self, op: ops.InMemoryTable) -> None:
        data = op.data.to_pyarrow(op.schema)
        self._session.createDataFrame(data).createOrReplaceTempView(op.name)

    def _register_udfs(self, expr: ir.Expr) -> None:
        for udf in expr.op().find(ops.ScalarUDF):
            if udf.__input_type__.name == "PYARROW":
                made = F.arrow_udf(
                    udf.__func__,
                    from_arrow_type(udf.dtype.to_pyarrow(), prefer_timestamp_ntz=True),
                    F.ArrowUDFType.SCALAR,
                )
                self._session.udf.register(self.compiler.__sql_name__(udf), made)
