"""Column lineage read off an Ibis expression: which columns of which lake tables each output column is computed from."""

from __future__ import annotations

from typing import Protocol

import ibis.expr.operations as ops
import ibis.expr.types as ir

from shopauto_pipelines.platform.tables import Table

#: ``(table name, column)`` pairs.
Origins = frozenset[tuple[str, str]]


class KnowsTables(Protocol):
    """What tells which table of the lake a view stands for: a lake, or a statement that was compiled for one."""

    def table_of(self, view: str, /) -> Table | None:
        """The table behind the view; ``None`` where it is not one of the lake's."""

    def origins_of(self, name: str, column: str, /) -> Origins:
        """Where a column comes from that is neither an expression's nor one of the lake's tables'."""


def column_lineage(expression: ir.Table, lake: KnowsTables) -> dict[str, Origins]:
    """For each output column the lake columns its value is computed from (filters and join keys are not counted)."""
    known: dict[tuple[ops.Relation, str], Origins] = {}

    def of_column(relation: ops.Relation, name: str) -> Origins:
        if (relation, name) not in known:
            known[relation, name] = _resolve(relation, name)
        return known[relation, name]

    def _resolve(relation: ops.Relation, name: str) -> Origins:
        if isinstance(relation, ops.PhysicalTable):
            table = lake.table_of(relation.name) if hasattr(relation, "name") else None
            return frozenset({(table.name, name)}) if table else lake.origins_of(getattr(relation, "name", ""), name)
        if isinstance(relation, ops.Set):
            return of_column(relation.left, name) | of_column(relation.right, name)
        if isinstance(relation, ops.JoinReference):
            return of_column(relation.parent, name)
        value = relation.values.get(name) if hasattr(relation, "values") else None
        if value is None:
            return frozenset()
        return of_value(value)

    def of_value(value: ops.Node) -> Origins:
        if isinstance(value, ops.Field):
            return of_column(value.rel, value.name)
        found: Origins = frozenset()
        for argument in value.__args__:
            for node in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(node, ops.Node) and not isinstance(node, ops.Relation):
                    found |= of_value(node)
                elif isinstance(node, ops.Relation):  # a scalar subquery
                    found |= frozenset().union(*(of_column(node, name) for name in node.schema))
        return found

    relation = expression.op()
    return {name: of_column(relation, name) for name in expression.columns}
