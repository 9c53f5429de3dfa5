"""Runs the planner: its statement is compiled once in a process, and run for every campaign and day.

What is asked is a table of its inputs (:mod:`.asked`); what is known is told by whoever calls. The decisions are the planner's.
"""

from __future__ import annotations

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from shopauto_pipelines.campaigns.planner import SCHEMAS, Inputs, plan
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lineage import Origins, column_lineage
from shopauto_pipelines.platform.prepared import Prepared, Rows, kept
from shopauto_pipelines.platform.tables import Table


def given_name(name: str) -> str:
    """The name that the statement knows an input by, a field of :class:`~.planner.Inputs`."""
    return f"planner_{name}"


def unseen(name: str, schema: str | None = None) -> ir.Table:
    """An input of the planner that is not known yet, for statements about it."""
    return ibis.table(SCHEMAS[schema or name], name=given_name(name))


def nothing(name: str) -> pa.Table:
    """An input without rows."""
    return SCHEMAS[name].to_pyarrow().empty_table()


@kept
def statement(of_carts: bool) -> Prepared:
    """The planner's statement."""
    others = [name for name in Inputs.__dataclass_fields__ if name != "triggers"]
    triggers = unseen("triggers", "carts" if of_carts else "triggers")
    inputs = Inputs(triggers=triggers, **{name: unseen(name) for name in others})
    named = {given_name(name): Table(given_name(name), "", (), ()) for name in Inputs.__dataclass_fields__}
    return Prepared.of(plan(inputs, of_carts=of_carts), named)


def planned_rows(
    lake: Lake, name: str, inputs: Mapping[str, Rows], others: Mapping[str, Rows], of_carts: bool
) -> ir.Table:
    """The decisions, in a temporary table ``name`` of the lake's connection, which knows where its columns come from.

    ``inputs`` are fields of :class:`~.planner.Inputs`; ``others`` are tables that statements among them read, by name.
    """
    chosen = statement(of_carts)
    told = {**others, **{given_name(key): rows for key, rows in inputs.items()}}
    rows = chosen.rows(lake, name, told)
    origins = {given_name(key): _origins(rows, lake) for key, rows in inputs.items()}
    lake.note_origins(
        name,
        {
            column: frozenset().union(*(origins[of].get(behind, frozenset()) for of, behind in pairs))
            for column, pairs in chosen.origins.items()
        },
    )
    return rows


def _origins(rows: Rows, lake: Lake) -> Mapping[str, Origins]:
    if isinstance(rows, pa.Table):
        return {}
    return rows.origins if isinstance(rows, Prepared) else column_lineage(rows, lake)
