"""Expressions that are compiled once and run on tables by name: for whoever cannot wait for a compilation at every use.

Compiling a large Ibis expression costs half a second, running it on a few rows some milliseconds. So where seconds count it is
built over ``ibis.table(schema, name=…)``, compiled in advance, and run here on what has those names by then.
"""

from __future__ import annotations

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table


def unseen(table: Table, name: str) -> ir.Table:
    """A partition of a lake's table that is not known yet, under the name it will have."""
    return ibis.table({column: kind.copy(nullable=True) for column, kind in table.schema.items()}, name=name)


def compiled(expression: ir.Table) -> str:
    """The statement of an expression over unseen tables."""
    return str(ibis.to_sql(expression, dialect="duckdb", pretty=False))


def run(lake: Lake, statement: str, tables: Mapping[str, ir.Table | pa.Table]) -> pa.Table:
    """The rows of a statement, with the ``tables`` under their names: the lake's own, and rows in memory."""
    con = lake.con.con
    for name, rows in tables.items():
        if isinstance(rows, pa.Table):
            con.register(name, rows)
        else:
            con.execute(f'create or replace temp view "{name}" as select * from "{rows.get_name()}"')
    try:
        return con.sql(statement).to_arrow_table()
    finally:
        for name in tables:
            con.execute(f'drop view if exists "{name}"')
