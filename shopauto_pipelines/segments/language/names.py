"""What the names and calls of a condition stand for: while it is checked, on rows of people, and on rows of events."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import ibis
import ibis.expr.types as ir
from sqlglot import exp

from shopauto_pipelines.platform.tables import Column
from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.segments.events import LONGEST, Day, Did, Event
from shopauto_pipelines.segments.language.syntax import PredicateError, place, shown, start_of, written
from shopauto_pipelines.segments.language.translation import SOME_DAY, Translation, noun

#: Between a segment's name and the value of its ``each`` column: ``fans_of:camping``.
SEPARATOR = ":"


#: The named arguments of ``did``, and the largest number of each.
_NAMED = {"at_least": 1_000_000, "within": LONGEST}


def own_column(segment: str) -> str:
    """Name of the column that says whether a person is in the segment: its name, or ``<name>:<value>``, else null."""
    return f"in {segment}"


@dataclass(frozen=True)
class Reference:
    """A segment's ``name`` as a condition has it, and where: line and column within the condition."""

    name: str
    at: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scope:
    """The names that a condition may use; no ``did`` and no ``in_segment`` where ``events`` is none."""

    columns: Mapping[str, Column]
    events: Mapping[str, Event] | None


class Rows:
    """What names stand for, on rows that have it all."""

    def __init__(self, rows: ir.Table, dids: Iterable[Did] = ()) -> None:
        self._rows = rows
        self._dids = {did.sql: did for did in dids}

    def column(self, name: str) -> ir.Value:
        """The column of the rows."""
        return self._rows[name]

    def did(self, node: exp.Anonymous) -> ir.BooleanValue:
        """Whether it happened often enough."""
        did = self._dids[written(node)]
        return self._rows[did.column] >= did.at_least

    def in_segment(self, node: exp.Anonymous) -> ir.BooleanValue:
        """Whether the person is in any of them."""
        return reduce(operator.or_, (self._inside(name.this) for name in node.expressions))

    def _inside(self, name: str) -> ir.BooleanValue:
        base, separator, _value = name.partition(SEPARATOR)
        mark = self._rows[own_column(base)]
        return mark.notnull() & (mark == name).fill_null(False) if separator else mark.notnull()


class OfEvent:
    """The columns of an event, on rows of its rollup."""

    def __init__(self, event: Event, rows: ir.Table) -> None:
        self._event, self._rows = event, rows

    def column(self, name: str) -> ir.Value:
        """What the rollup says of the event."""
        return self._event.values[name][1](self._rows)


class Checking:
    """What names stand for while a condition is checked: values without rows. Notes what has been used."""

    def __init__(self, scope: Scope, sql: str | None, event: str | None = None) -> None:
        self._scope, self._sql, self._event = scope, sql, event
        self.columns: set[str] = set()
        self.dids: list[Did] = []
        self.segments: list[Reference] = []

    def column(self, name: str) -> ir.Value:
        """A value of the declared type; raises for a name that does not exist, or is private."""
        column = self._scope.columns.get(name)
        if column is None:
            what = f"`{self._event}` has no column `{name}`" if self._event else f"there is no column `{name}`"
            public = [known for known, c in self._scope.columns.items() if not c.private]
            hint = nearest(name, public, most=12) if public else "it has none to filter by"
            text = "" if hint.startswith("did you mean") else f"; a text is written in quotes: '{name}'"
            raise PredicateError(f"{what}; {hint}{text}")
        if column.private:
            instead = "; use `days_to_birthday`" if name == "birthday" else ""
            raise PredicateError(f"`{name}` holds private data and cannot be used in a segment{instead}")
        self.columns.add(name)
        return ibis.table({name: column.type}, name="people")[name]

    def did(self, node: exp.Anonymous) -> ir.BooleanValue:
        """Any truth; raises for a question that cannot be asked."""
        event = self._event_named(node)
        filters, at_least, within = self._said(event, node.expressions[1:])
        whole = exp.and_(*filters, dialect="duckdb") if filters else exp.true()

        def when(rows: ir.Table, as_of: Day) -> ir.BooleanValue:
            return ibis.coalesce(Translation(OfEvent(event, rows), as_of).of(whole), ibis.literal(False))

        filtered = (written(whole), when) if filters else ("", None)
        did = Did(event.name, filtered[0], at_least, within, written(node), filtered[1])
        if did not in self.dids:
            self.dids.append(did)
        return ibis.literal(True)

    def in_segment(self, node: exp.Anonymous) -> ir.BooleanValue:
        """Any truth; raises for what are no names."""
        self._calls_allowed(node)
        names = node.expressions
        if not names or not all(isinstance(name, exp.Literal) and name.is_string for name in names):
            raise self._error(node, f"`{shown(node)}`: in_segment takes names of segments in quotes")
        for name in names:
            self.segments.append(Reference(name.this, place(self._sql, start_of(name)) if self._sql else None))
        return ibis.literal(True)

    def _event_named(self, node: exp.Anonymous) -> Event:
        events = self._calls_allowed(node)
        first = node.expressions[0] if node.expressions else None
        if not (isinstance(first, exp.Literal) and first.is_string):
            raise self._error(node, f"`{shown(node)}`: did begins with an event in quotes; {nearest('', events)}")
        if first.this not in events:
            hint = nearest(first.this, events, quote="'")
            raise self._error(first, f"there is no event '{first.this}'; {hint}")
        return events[first.this]

    def _said(self, event: Event, parts: Iterable[exp.Expr]) -> tuple[list[exp.Expr], int, int | None]:
        """Filters, ``at_least`` and ``within`` of a question."""
        named: dict[str, int] = {}
        filters = []
        for part in parts:
            name = part.this.name.lower() if isinstance(part, exp.Kwarg | exp.PropertyEQ | exp.EQ) else ""
            if isinstance(part, exp.Kwarg):
                if name not in _NAMED:
                    raise self._error(part, f"did has no `{name} =>`; {nearest(name, _NAMED)}")
                if name in named:
                    raise self._error(part, f"`{name} =>` is there twice")
                named[name] = self._number(name, part.expression)
            elif isinstance(part, exp.PropertyEQ) or (name in _NAMED and name not in event.columns):
                raise self._error(part, f"`{shown(part)}`: write `{name} => {shown(part.expression)}`")
            else:
                filters.append(self._filter(event, part))
        return filters, named.get("at_least", 1), named.get("within")

    def _filter(self, event: Event, part: exp.Expr) -> exp.Expr:
        """A condition on the event's columns: checked as any other, with those columns alone."""
        of_event = Checking(Scope(event.columns, None), self._sql, event.name)
        value = Translation(of_event, SOME_DAY, self._sql).of(part)
        if not value.type().is_boolean():
            raise self._error(
                part, f"`{shown(part)}` is {noun(value)}: a filter of did is a condition, or `name => number`"
            )
        return part

    def _number(self, name: str, node: exp.Expr) -> int:
        most = _NAMED[name]
        text = node.this if isinstance(node, exp.Literal) and not node.is_string else ""
        if not (text.isdigit() and 1 <= int(text) <= most):
            raise self._error(node, f"`{name} => {shown(node)}`: {name} is a whole number from 1 to {most}")
        return int(text)

    def _calls_allowed(self, node: exp.Anonymous) -> Mapping[str, Event]:
        if self._scope.events is None:
            where = f"in a filter on `{self._event}`" if self._event else "here; make it a segment, and name that"
            raise self._error(node, f"`{shown(node)}`: {str(node.this).lower()} cannot be used {where}")
        return self._scope.events

    def _error(self, node: exp.Expr, message: str) -> PredicateError:
        return PredicateError(message, place(self._sql, start_of(node)) if self._sql else None)
