"""Runs the planner: its statement is compiled once in a process, and run for every campaign and day.

What is asked is a table of its inputs (:mod:`.asked`); what is known is told by whoever calls. The decisions are the planner's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from shopauto_pipelines.campaigns.planner import SCHEMAS, Inputs, hours, plan, received, sent
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lineage import Origins, column_lineage
from shopauto_pipelines.platform.prepared import Prepared, Rows, kept
from shopauto_pipelines.platform.prepared import unseen as of_lake
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
    named = as_named(*map(given_name, Inputs.__dataclass_fields__))
    return Prepared.of(plan(inputs, of_carts=of_carts), named)


@kept
def told(name: str) -> Prepared:
    """The statement of an input that is made of others: ``sent``, ``received`` or ``hours``, of :mod:`.planner`."""
    make, of = _TOLD[name]
    return Prepared.of(make(*map(unseen, of)), as_named(*map(given_name, of)))


_TOLD: Mapping[str, tuple[Callable[..., ir.Table], tuple[str, ...]]] = {
    "sent": (sent, ("history", "asked")),
    "received": (received, ("history", "asked")),
    "hours": (hours, ("people", "asked")),
}


def planned_rows(
    lake: Lake, name: str, inputs: Mapping[str, Rows], others: Mapping[str, Rows], of_carts: bool
) -> ir.Table:
    """The decisions, in a temporary table ``name`` of the lake's connection, which knows where its columns come from.

    ``inputs`` are fields of :class:`~.planner.Inputs` and what these are made of; ``others`` are tables that statements among
    them read, by name. Where nobody is triggered the planner is not asked: it takes a while to find that out.
    """
    chosen, triggers, reached = statement(of_carts), inputs["triggers"], f"{name}_triggers"
    given = {**others, **{given_name(key): rows for key, rows in inputs.items()}}
    if isinstance(triggers, Prepared):
        triggers = given[given_name("triggers")] = noted(lake, reached, triggers, others)
    if _anybody(lake, triggers):
        rows = chosen.rows(lake, name, given)
    else:
        rows = _nobody().rows(lake, name, {_NOBODY: audience(_NOBODY).arrow_schema.empty_table()})
    _note(lake, name, chosen, given)
    lake.engine.drop(reached)
    return rows


def _anybody(lake: Lake, triggers: ir.Table | pa.Table) -> bool:
    found = triggers if isinstance(triggers, pa.Table) else lake.con.to_pyarrow(triggers.select("customer_id").limit(1))
    return bool(found.num_rows)


@kept
def _nobody() -> Prepared:
    """No decisions."""
    return Prepared.of(of_lake(audience(_NOBODY), _NOBODY).filter(ibis.literal(False)), {})


_NOBODY = "nobody"


def as_named(*names: str) -> dict[str, Table]:
    """What stands behind the names of a statement whose lineage is told by :func:`noted`."""
    return {name: Table(name, "", (), ()) for name in names}


def noted(lake: Lake, name: str, statement: Prepared, given: Mapping[str, Rows]) -> ir.Table:
    """The rows of a statement :func:`as_named`, in a temporary table that knows where its columns come from.

    ``given`` is what it reads, and before that what statements among these read.
    """
    rows = statement.rows(lake, name, given)
    _note(lake, name, statement, given)
    return rows


def _note(lake: Lake, name: str, statement: Prepared, given: Mapping[str, Rows]) -> None:
    of_tables: dict[str, Mapping[str, Origins]] = {}

    def behind(table: str, column: str) -> Origins:
        rows = given.get(table)
        if rows is None:
            return frozenset({(table, column)})
        if isinstance(rows, Prepared):
            return _all(behind(*pair) for pair in rows.origins.get(column, ()))
        if isinstance(rows, pa.Table):
            return frozenset()
        if table not in of_tables:
            of_tables[table] = column_lineage(rows, lake)
        return of_tables[table].get(column, frozenset())

    lake.note_origins(
        name, {column: _all(behind(*pair) for pair in pairs) for column, pairs in statement.origins.items()}
    )


def _all(origins: Iterable[Origins]) -> Origins:
    return frozenset().union(*origins)
