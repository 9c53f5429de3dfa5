"""Expressions that are compiled once and run on tables by name: for whoever cannot wait for a compilation at every use.

Compiling a large Ibis expression costs half a second, running it on a few rows some milliseconds. So where seconds count it is
built over ``ibis.table(schema, name=…)``, compiled in advance, and run here on what has those names by then. What a refresh runs
is :func:`kept` in the home from one process to the next: to make it all anew would be a fifth of the refresh of a small shop.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import ParamSpec, TypeAlias, cast

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa

from shopauto_pipelines.platform.engine import Statement
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.platform.settings import PREFIX, load_settings
from shopauto_pipelines.platform.tables import Table

_P = ParamSpec("_P")


def unseen(table: Table, name: str, *, partitions: bool = False) -> ir.Table:
    """A partition of a lake's table that is not known yet, under the name it will have; or several, with their column."""
    columns = {column: kind.copy(nullable=True) for column, kind in table.schema.items()}
    return ibis.table(columns | ({table.partition: "date"} if partitions else {}), name=name)


def compiled(expression: ir.Table) -> str:
    """The statement of an expression over unseen tables."""
    return str(ibis.to_sql(expression, dialect="duckdb", pretty=False))


def run(lake: Lake, statement: str, tables: Mapping[str, Rows]) -> pa.Table:
    """The rows of a statement, with the ``tables`` under their names. For few rows at once: only DuckDB runs it."""
    with _under_their_names(lake, tables):
        return lake.engine.fetch(statement)


@contextmanager
def _under_their_names(lake: Lake, tables: Mapping[str, Rows]) -> Iterator[None]:
    """Views of the connection with the names that a statement knows its tables by, for as long as it runs."""
    for name, rows in tables.items():
        lake.engine.put(name, rows.query if isinstance(rows, Prepared) else rows)
    try:
        yield
    finally:
        for name in reversed([*tables]):
            lake.engine.drop(name)


@dataclass(frozen=True)
class Prepared:
    """An expression over unseen tables, compiled once and run for many days: for what is too slow to compile every day.

    ``inputs`` are the names of the tables it reads; ``origins`` is its column lineage, read off the expression: of each
    column the ``(table, column)`` pairs it comes from. ``expression`` makes it anew, for an engine of another language.
    """

    statement: str
    inputs: frozenset[str]
    origins: Mapping[str, frozenset[tuple[str, str]]]
    expression: Callable[[], ir.Table] = field(repr=False, compare=False)

    @classmethod
    def of(cls, expression: ir.Table, behind: Mapping[str, Table]) -> Prepared:
        """Compile ``expression``; ``behind`` are the lake's tables by the names it knows them by."""
        names = frozenset(table.name for table in expression.op().find(ops.UnboundTable))
        known = SimpleNamespace(table_of=behind.get, origins_of=lambda name, column: frozenset())
        return cls(compiled(expression), names, column_lineage(expression, known), lambda: expression)

    @property
    def query(self) -> Statement:
        """The statement as engines take it."""
        return Statement(self.statement, self.expression)

    def rows(
        self,
        lake: Lake,
        name: str,
        tables: Mapping[str, Rows],
        buckets: int = 1,
        of_bucket: Callable[[int], Mapping[str, Rows]] = lambda _number: {},
    ) -> ir.Table:
        """The rows, in a temporary table ``name`` of the lake's connection: on disk where they do not fit into memory.

        Those of ``tables`` that it does not read are ignored. Where there are ``buckets``, the statement is run once for
        each, with the one-row table ``bucket`` (``number``, ``of``) unless it is given; ``of_bucket`` gives tables that are
        others for each.
        """
        for number in range(buckets):
            bucket = {"bucket": pa.table({"number": [number], "of": [buckets]})}
            given = self._needed({**bucket, **tables, **of_bucket(number)})
            with _under_their_names(lake, given):
                lake.engine.keep(name, self.query, more=number > 0)
        return lake.engine.table(name)

    def _needed(self, tables: Mapping[str, Rows]) -> dict[str, Rows]:
        """Those that it reads, and those that statements among these read."""
        needed = set(self.inputs)
        for name, rows in reversed([*tables.items()]):
            if name in needed and isinstance(rows, Prepared):
                needed |= rows.inputs
        return {name: rows for name, rows in tables.items() if name in needed}


#: What a statement knows under a name: a table of the lake, or an expression or a statement over such tables and over those
#: named before it, or rows in memory.
Rows: TypeAlias = ir.Table | pa.Table | Prepared


def kept(make: Callable[_P, Prepared]) -> Callable[_P, Prepared]:
    """Decorates what makes a statement out of code and its arguments alone: it is called once for a version of the code.

    What it made lies in ``statements`` under the home, until the code is another. The arguments are texts, numbers and tuples
    of them.
    """

    @wraps(make)
    def statement(*args: _P.args, **kwargs: _P.kwargs) -> Prepared:
        told = f"{make.__module__}.{make.__qualname__} {args!r} {sorted(kwargs.items())!r}"
        home = _home(tuple(sorted(item for item in os.environ.items() if item[0].startswith(PREFIX))))
        file = home / "statements" / _code() / f"{hashlib.sha256(told.encode()).hexdigest()[:20]}.json"
        with suppress(OSError, ValueError, KeyError):  # not there, or not whole
            return _read(file, lambda: make(*args, **kwargs).expression())
        made = make(*args, **kwargs)
        with suppress(OSError):  # a home that cannot be written to is made anew each time
            _write(file, made)
        return made

    return cast(Callable[_P, Prepared], cache(statement))


@cache
def _home(environment: tuple[tuple[str, str], ...]) -> Path:
    """The home by these settings; to read them anew for each statement costs more than to read the statement."""
    return load_settings().home


@cache
def _code() -> str:
    """A digest of what statements are made of: the package, and the libraries that compile them."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _COMPILERS).encode())
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return digest.hexdigest()[:20]


_COMPILERS = ("duckdb", "ibis-framework", "sqlglot")


def _read(file: Path, expression: Callable[[], ir.Table]) -> Prepared:
    told = json.loads(file.read_text(encoding="utf-8"))
    origins = {column: frozenset((table, of) for table, of in pairs) for column, pairs in told["origins"].items()}
    return Prepared(told["statement"], frozenset(told["inputs"]), origins, expression)


def _write(file: Path, made: Prepared) -> None:
    """Beside those of this code; those of other code go."""
    if not file.parent.exists():
        for other in file.parent.parent.glob("*"):
            shutil.rmtree(other, ignore_errors=True)
        file.parent.mkdir(parents=True, exist_ok=True)
    origins = {column: sorted(pairs) for column, pairs in made.origins.items()}
    staged = file.with_suffix(f".{uuid.uuid4().hex}")
    staged.write_text(
        json.dumps({"statement": made.statement, "inputs": sorted(made.inputs), "origins": origins}), encoding="utf-8"
    )
    staged.replace(file)
    for old in sorted(file.parent.glob("*.json"), key=lambda one: one.stat().st_mtime_ns)[:-_MOST]:
        old.unlink(missing_ok=True)


#: Most statements that lie in a home: a campaign has up to three, and a shop that tries out segments makes one for each playbook.
_MOST = 512
