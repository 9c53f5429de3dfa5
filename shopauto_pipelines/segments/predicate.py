"""The language of ``where``: a SQL condition on one person, checked when it is loaded, then an Ibis expression.

The SQL is DuckDB's dialect, bounded: see ``language``. Two functions reach beyond the person's columns: ``did`` asks for
events, ``in_segment`` for other segments; what they need is listed on the predicate, and brought along as columns by whoever
applies it. Which columns, events and segments there are is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import ibis
import ibis.expr.types as ir
from sqlglot import exp

from shopauto_pipelines.platform.tables import Column
from shopauto_pipelines.segments.events import Day, Did, Event
from shopauto_pipelines.segments.language.names import SEPARATOR, Checking, Reference, Rows, Scope, own_column
from shopauto_pipelines.segments.language.syntax import (
    LIMITS,
    PredicateError,
    Scalar,
    place,
    shown,
    start_of,
    tree_of,
    written,
)
from shopauto_pipelines.segments.language.translation import AS_OF, SOME_DAY, Translation, chain, noun

__all__ = ["AS_OF", "LIMITS", "SEPARATOR", "Predicate", "PredicateError", "clauses", "own_column", "parse"]


@dataclass(frozen=True)
class Predicate:
    """A checked condition: its ``sql``, and what it needs: ``columns``, answers to ``dids``, other ``segments`` by name.

    ``parameters`` are the names of those it used.
    """

    sql: str
    columns: frozenset[str]
    dids: tuple[Did, ...]
    segments: tuple[Reference, ...]
    parameters: frozenset[str]
    _tree: exp.Expr = field(repr=False, compare=False)
    _scope: Scope = field(repr=False, compare=False)

    def apply(self, rows: ir.Table, as_of: Day) -> ir.BooleanValue:
        """True for the rows that meet the condition; false, never null, for all others.

        ``rows`` have the ``columns``, a count for each of ``dids`` under its ``column``, and :func:`own_column` of each of
        ``segments``.
        """
        return ibis.coalesce(self.value(rows, as_of), ibis.literal(False))

    def value(self, rows: ir.Table, as_of: Day) -> ir.BooleanValue:
        """As :meth:`apply`, but null where it is not known whether the row meets the condition."""
        return Translation(Rows(rows, self.dids), as_of).of(self._tree)

    @property
    def joined(self) -> str | None:
        """How its clauses are joined: ``and``, ``or``; ``None`` where it is a single one."""
        top = self._tree.unnest()
        return "and" if isinstance(top, exp.And) else "or" if isinstance(top, exp.Or) else None

    def within_segments(self, include: Iterable[str], exclude: Iterable[str]) -> Predicate:
        """This condition, in any of the segments ``include`` (where there are any) and in none of ``exclude``."""
        include, exclude = tuple(include), tuple(exclude)
        if not include and not exclude:
            return self
        parts = [] if isinstance(self._tree, exp.Boolean) and self._tree.this else [self._tree]
        parts += [_in_segment(include)] if include else []
        parts += [exp.Not(this=_in_segment(exclude))] if exclude else []
        return _checked(exp.and_(*parts, dialect="duckdb"), self._scope, self.parameters)


def parse(
    sql: str,
    columns: Mapping[str, Column],
    parameters: Mapping[str, Scalar] | None = None,
    events: Mapping[str, Event] | None = None,
) -> Predicate:
    """Check ``sql`` against the declared ``columns``; raises :class:`PredicateError`.

    ``parameters`` are what ``:name`` stands for. Without ``events`` the condition is on columns alone: no ``did``, no
    ``in_segment``. Whether the segments it names exist is not known here.
    """
    tree, used = tree_of(sql, parameters or {})
    return _checked(tree, Scope(columns, events), used, sql)


def clauses(predicate: Predicate) -> tuple[Predicate, ...]:
    """The conditions that a condition joins by ``and``, or by ``or``, at its top; itself where it is a single one.

    Each can be taken apart again. Their ``sql`` has the parameters filled in.
    """
    top = predicate._tree.unnest()
    parts = chain(top) if isinstance(top, exp.And | exp.Or) else [top]
    return tuple(_checked(part.unnest(), predicate._scope, predicate.parameters) for part in parts)


def _checked(tree: exp.Expr, scope: Scope, parameters: frozenset[str], sql: str | None = None) -> Predicate:
    """``sql`` is the text the tree was read from; without it the tree's own is taken, and errors have no place."""
    checking = Checking(scope, sql)
    try:
        value = Translation(checking, SOME_DAY, sql).of(tree)
    except RecursionError:
        raise PredicateError("the condition is nested too deeply") from None
    if not value.type().is_boolean():
        at = place(sql, start_of(tree)) if sql else None
        raise PredicateError(f"the condition must be true or false, but `{shown(tree)}` is {noun(value)}", at)
    return Predicate(
        written(tree) if sql is None else sql,
        frozenset(checking.columns),
        tuple(checking.dids),
        tuple(checking.segments),
        parameters,
        tree,
        scope,
    )


def _in_segment(names: Iterable[str]) -> exp.Expr:
    return exp.Anonymous(this="in_segment", expressions=[exp.Literal.string(name) for name in names])
