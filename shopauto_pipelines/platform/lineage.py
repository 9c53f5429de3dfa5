"""Column lineage read off an Ibis expression: which columns of which lake tables each output column is computed from."""

from __future__ import annotations

from collections.abc import Iterator
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
    """For each output column the lake columns its value is computed from.

    The sum, the latest, the number of a group's rows comes also from what chose these rows: the conditions of filters below the
    group, down to a table or a union, of a join along its first table. A number of rows besides from what names them: the keys
    of its group, and of the groups that it counts. Other filters, and the keys of joins, are left out: everything would come
    from everything.
    """
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
        if isinstance(relation, ops.Aggregate) and name in relation.metrics:
            return of_values(value, *_deciding(relation, counts=bool(value.find(ops.CountStar))))
        return of_value(value)

    def of_value(value: ops.Node) -> Origins:
        if isinstance(value, ops.Field):
            return of_column(value.rel, value.name)
        found: Origins = frozenset()
        for argument in value.__args__:
            for node in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(node, ops.Relation):
                    if isinstance(value, ops.Subquery):  # a count names its relation, and reads none of its columns
                        found |= frozenset().union(*(of_column(node, name) for name in node.schema))
                elif isinstance(node, ops.Node):
                    found |= of_value(node)
        return found

    def of_values(*values: ops.Node) -> Origins:
        return frozenset().union(*map(of_value, values))

    relation = expression.op()
    return {name: of_column(relation, name) for name in expression.columns}


def _deciding(group: ops.Aggregate, *, counts: bool) -> Iterator[ops.Node]:
    """What decides which rows are in a group, and with ``counts`` what names them."""
    step: ops.Relation | None = group
    while step is not None:
        if isinstance(step, ops.Filter):
            yield from step.predicates
        elif counts and isinstance(step, ops.Aggregate):
            yield from step.groups.values()
        step = getattr(step, "first", None) or getattr(step, "parent", None)
