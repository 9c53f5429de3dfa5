"""Why a person is in a segment, or is not: every part of its condition, whether it holds, and the values it rests on.

What is shown are the columns that a segment may ask for; of those, none that is made from private data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import Any

import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.segments import inputs
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.membership import evaluated, own_column
from shopauto_pipelines.segments.people import COMPUTED
from shopauto_pipelines.segments.predicate import Predicate, clauses

#: Computed columns that tell something private: whoever knows the days to the birthday knows the birthday.
_TELLING = {name for name, made in COMPUTED.items() if made.is_telling}

#: How ``holds`` is shown.
MARKS = {True: "✓", False: "✗", None: "?"}


class NobodyThere(ShopAutoError):
    """There is no such person on the day; the text names the nearest id."""


@dataclass(frozen=True)
class Reason:
    """A part of a condition: its ``text``, whether it ``holds`` (None: what it needs is not known), and its ``values``.

    ``values`` are by column, in words. A part made of several has these as ``parts`` and is ``joined`` by ``and`` or ``or``.
    """

    text: str
    holds: bool | None
    values: Mapping[str, str]
    parts: tuple[Reason, ...] = ()
    joined: str | None = None

    @property
    def words(self) -> str:
        """``orders_365d: 3, country: not known``."""
        return ", ".join(f"{name}: {value}" for name, value in self.values.items())

    @property
    def is_private(self) -> bool:
        """Whether it rests on private data.

        Next to a customer's id even the condition tells: who is seven days from the birthday was born on a known day.
        """
        return not _TELLING.isdisjoint(self.values)

    def lines(self, depth: int = 0) -> Iterator[tuple[int, Reason]]:
        """This part and all below it, each with its depth."""
        yield depth, self
        for part in self.parts:
            yield from part.lines(depth + 1)


@dataclass(frozen=True)
class Why:
    """One person and one segment. Who is in it has its name, or ``<name>:<value>``, as ``member``, and all ``reasons`` hold."""

    segment: str
    customer_id: str
    member: str | None
    reasons: tuple[Reason, ...]

    @property
    def failing(self) -> tuple[Reason, ...]:
        """The reasons that do not hold: why the person is not a member."""
        return tuple(reason for reason in self.reasons if not reason.holds)


def why(
    lake: Lake,
    as_of: date,
    segments: Sequence[SegmentDeclaration],
    customers: Iterable[str],
    names: Collection[str] | None = None,
) -> list[Why]:
    """Person by person, in the order given, the segments called ``names`` [all].

    ``segments`` are all of a playbook. Raises :class:`NobodyThere` for an id that is no person's as of the day, and
    :class:`~shopauto_pipelines.platform.lake.MissingPartition`.
    """
    ids = list(dict.fromkeys(customers))
    wanted = [segment for segment in segments if names is None or segment.name in names]
    needed = with_referred(segments, [segment.name for segment in wanted])
    rows = evaluated(inputs.read(lake, needed, as_of), needed, as_of)
    found = explained(rows.filter(_.customer_id.isin(ids)), wanted, as_of) if ids else {}
    for who in ids:
        if who not in found:
            raise _nobody(lake, as_of, who)
    return [found[who][segment.name] for who in ids for segment in wanted]


def explained(rows: ir.Table, segments: Sequence[SegmentDeclaration], as_of: date) -> dict[str, dict[str, Why]]:
    """By person and segment, for all of ``rows``, which are a few of ``membership.evaluated``. One query."""
    parts = {segment.name: _parts(segment.predicate) for segment in segments}
    asked = [part.predicate.value(rows, as_of) for of_segment in parts.values() for part in of_segment]
    names = [f"part {number}" for number in range(len(asked))]
    found: dict[str, dict[str, Why]] = {}
    for row in rows.mutate(**dict(zip(names, asked, strict=True))).to_pyarrow().to_pylist():
        of_person = found.setdefault(row["customer_id"], {})
        answers = (row[name] for name in names)
        for segment in segments:
            root = _reason(parts[segment.name], answers, row)
            reasons = root.parts if root.joined == "and" else (root,)
            if segment.each:
                value = {segment.each: _shown(segment.each, row[segment.each])}
                reasons += (Reason(_known(segment.each), bool(row[segment.each]), value),)
            member = row[own_column(segment.name)]
            of_person[segment.name] = Why(segment.name, row["customer_id"], member, reasons)
    return found


def conditions(segment: SegmentDeclaration, rows: ir.Table, as_of: date) -> dict[str, ir.BooleanValue]:
    """Whether each of a segment's reasons holds, never null, by its text: all of them hold for a member."""
    predicate = segment.predicate
    parts = clauses(predicate) if predicate.joined == "and" else (predicate,)
    found = {_text(part): part.apply(rows, as_of) for part in parts}
    if segment.each:
        value = rows[segment.each]
        found[_known(segment.each)] = value.notnull() & (value != "")
    return found


def with_referred(segments: Sequence[SegmentDeclaration], names: Iterable[str]) -> list[SegmentDeclaration]:
    """Those of ``segments`` called ``names``, and all that these refer to or fall back on, and so on; in the order given."""
    by_name = {segment.name: segment for segment in segments}
    found: set[str] = set()
    open_ = [name for name in names if name in by_name]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += by_name[name].rests_on
    return [segment for segment in segments if segment.name in found]


def markdown(answers: Sequence[Why]) -> str:
    """Answers as lists in Markdown."""
    blocks = []
    for answer in answers:
        state = f"is in {code(answer.member)}" if answer.member else f"is not in {code(answer.segment)}"
        lines = [f"{code(answer.customer_id)} {state}", ""]
        for depth, part in (line for reason in answer.reasons for line in reason.lines()):
            aside = f": {escape(part.words, quote=False)}" if part.values and not part.parts else ""
            lines.append(f"{'  ' * depth}- {MARKS[part.holds]} {code(part.text)}{aside}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


@dataclass(frozen=True)
class _Part:
    """A part of a condition, its text, and how many of those that follow it in the list are inside it."""

    predicate: Predicate
    text: str
    inside: int


def _parts(predicate: Predicate) -> list[_Part]:
    """The condition and all parts of it, each before what it is made of."""
    below = [part for clause in clauses(predicate) for part in _parts(clause)] if predicate.joined else []
    return [_Part(predicate, _text(predicate), len(below)), *below]


def _reason(parts: Sequence[_Part], answers: Iterator[bool | None], row: Mapping[str, Any]) -> Reason:
    """The first of ``parts`` with what is inside it; ``answers`` come in the order of the parts."""
    first, holds, rest, made = parts[0], next(answers), list(parts[1 : 1 + parts[0].inside]), []
    while rest:
        made.append(_reason(rest, answers, row))
        rest = rest[1 + rest[0].inside :]
    predicate = first.predicate
    return Reason(first.text, holds, _values(predicate, row), tuple(made), predicate.joined)


def _values(predicate: Predicate, row: Mapping[str, Any]) -> dict[str, str]:
    """What a condition rests on: columns, how often events happened, and which value of another segment it is."""
    values = {name: _shown(name, row[name]) for name in sorted(predicate.columns)}
    values |= {did.column: _times(row[did.column] or 0) for did in predicate.dids}
    names = {reference.name.partition(SEPARATOR)[0] for reference in predicate.segments}
    own = {name: row[own_column(name)] for name in sorted(names)}
    return values | {name: member for name, member in own.items() if member and member != name}


def _text(predicate: Predicate) -> str:
    """A condition in one line, with its parameters filled in."""
    parts = clauses(predicate)
    if predicate.joined == "and":
        return " and ".join(f"({_text(part)})" if part.joined else part.sql for part in parts)
    return f" {predicate.joined} ".join(map(_text, parts)) if predicate.joined else parts[0].sql


def _known(column: str) -> str:
    return f"{column} is known"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times" if count else "never"


def _shown(name: str, value: Any) -> str:
    """A value in words."""
    if name in _TELLING:
        return "not shown"
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")  # six digits as stored: 94.99997 is not 95
    return f"'{value}'" if isinstance(value, str) else str(value)


def code(text: str) -> str:
    """Text of the shop's data, or a condition over several lines, as code in one line of Markdown."""
    shown = " ".join(text.split()).replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def _nobody(lake: Lake, as_of: date, who: str) -> NobodyThere:
    people = lake.on(CUSTOMER_360, as_of).select("customer_id")
    near = people.filter(_.customer_id.levenshtein(who) <= 2).order_by(_.customer_id.levenshtein(who), _.customer_id)
    close = near.limit(1).to_pyarrow().to_pylist()
    hint = f"; did you mean {close[0]['customer_id']!r}?" if close else ""
    return NobodyThere(f"there is no customer {who!r} as of {as_of}{hint}")
