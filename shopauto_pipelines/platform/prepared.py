"""Expressions that are compiled once and run on tables by name: for whoever cannot wait for a compilation at every use.

Compiling a large Ibis expression costs half a second, running it on a few rows some milliseconds. So where seconds count it is
built over ``ibis.table(schema, name=…)``, compiled in advance, and run here on what has those names by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TypeAlias

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.platform.tables import Table


def unseen(table: Table, name: str, *, partitions: bool = False) -> ir.Table:
    """A partition of a lake's table that is not known yet, under the name it will have; or several, with their column."""
    columns = {column: kind.copy(nullable=True) for column, kind in table.schema.items()}
    return ibis.table(columns | ({table.partition: "date"} if partitions else {}), name=name)


def compiled(expression: ir.Table) -> str:
    """The statement of an expression over unseen tables."""
    return str(ibis.to_sql(expression, dialect="duckdb", pretty=False))


def run(lake: Lake, statement: str, tables: Mapping[str, Rows]) -> pa.Table:
    """The rows of a statement, with the ``tables`` under their names."""
    with _under_their_names(lake, tables):
        return lake.con.con.sql(statement).to_arrow_table()


@contextmanager
def _under_their_names(lake: Lake, tables: Mapping[str, Rows]) -> Iterator[None]:
    """Views of the connection with the names that a statement knows its tables by, for as long as it runs."""
    con = lake.con.con
    for name, rows in tables.items():
        if isinstance(rows, pa.Table):
            con.register(name, rows)
        else:
            con.execute(f'create or replace temp view "{name}" as {_selecting(rows)}')
    try:
        yield
    finally:
        for name in reversed([*tables]):
            con.execute(f'drop view if exists "{name}"')


def _selecting(rows: ir.Table | Prepared) -> str:
    if isinstance(rows, Prepared):
        return rows.statement
    relation = rows.op()
    if isinstance(relation, ops.PhysicalTable) and hasattr(relation, "name"):
        return f'select * from "{relation.name}"'
    return compiled(rows)


@dataclass(frozen=True)
class Prepared:
    """An expression over unseen tables, compiled once and run for many days: for what is too slow to compile every day.

    ``inputs`` are the names of the tables it reads; ``origins`` is its column lineage, read off the expression: of each
    column the ``(table, column)`` pairs it comes from.
    """

    statement: str
    inputs: frozenset[str]
    origins: Mapping[str, frozenset[tuple[str, str]]]

    @classmethod
    def of(cls, expression: ir.Table, behind: Mapping[str, Table]) -> Prepared:
        """Compile ``expression``; ``behind`` are the lake's tables by the names it knows them by."""
        names = frozenset(table.name for table in expression.op().find(ops.UnboundTable))
        known = SimpleNamespace(table_of=behind.get, origins_of=lambda name, column: frozenset())
        return cls(compiled(expression), names, column_lineage(expression, known))

    def rows(self, lake: Lake, name: str, tables: Mapping[str, Rows], buckets: int = 1) -> ir.Table:
        """The rows, in a temporary table ``name`` of the lake's connection: on disk where they do not fit into memory.

        Those of ``tables`` that it does not read are ignored. Where there are ``buckets``, the statement is run once for
        each, with the one-row table ``bucket`` (``number``, ``of``).
        """
        con = lake.con.con
        for number in range(buckets):
            given = self._needed({**tables, "bucket": pa.table({"number": [number], "of": [buckets]})})
            with _under_their_names(lake, given):
                how = f'insert into "{name}"' if number else f'create or replace temp table "{name}" as'
                con.execute(f"{how} {self.statement}")
        return lake.con.table(name)

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
