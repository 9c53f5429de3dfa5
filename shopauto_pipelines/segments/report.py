"""What people look at: sizes over the days, the latest members and why, the plot. Reads the lake, writes nothing.

Customer ids and days only: nothing here touches private data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from html import escape

import ibis
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.segments import inputs
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.membership import evaluated
from shopauto_pipelines.segments.pictures import line_plot
from shopauto_pipelines.segments.tables import MEMBERSHIP, SIZES
from shopauto_pipelines.segments.why import Why, explained

#: Most lines of a plot: the largest values of a segment with ``each``.
_LINES = 8

#: Members that a page lists, the latest to enter, and those of them of whom it says why.
LATEST = 10
EXPLAINED = 3

#: A size that is so many times what it was, or the reverse, is a jump where it is about so many people.
JUMP = 2.0
MANY = 100


def sizes(lake: Lake, as_of: date) -> dict[str, int]:
    """Own members of every segment that has any as of the day, by name; raises ``MissingPartition``."""
    rows = lake.on(SIZES, as_of).filter(_.size > 0).order_by("segment").to_pyarrow()
    return {row["segment"]: row["size"] for row in rows.to_pylist()}


@dataclass(frozen=True)
class Count:
    """A segment on a day: people in it, who of them entered, who left, and who stands in for it from its fallback."""

    size: int = 0
    entered: int = 0
    left: int = 0
    standing_in: int = 0

    def __add__(self, other: Count) -> Count:
        """Both together: the values of a segment with ``each``, of which a person has one."""
        return Count(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Count)))


@dataclass(frozen=True)
class Member:
    """Somebody in a segment since a day; ``through`` names the fallback whose member stands in."""

    segment: str
    customer_id: str
    entered_on: date
    through: str | None


@dataclass(frozen=True)
class Shown:
    """What the pages of all segments show, read in one go: for each segment its counts, its latest members, and why.

    ``counts`` are by name, ``<name>:<value>`` where it has values, and computed day; the others by the declared name.
    """

    counts: Mapping[str, Mapping[date, Count]]
    latest: Mapping[str, Sequence[Member]]
    whys: Mapping[str, Sequence[Why]]

    def of(self, name: str) -> dict[str, dict[date, Count]]:
        """Counts of the segment, or of each of its ``<name>:<value>``."""
        return {one: dict(line) for one, line in self.counts.items() if one.partition(SEPARATOR)[0] == name}


def shown(lake: Lake, segments: Sequence[SegmentDeclaration], start: date, end: date, run: str | None = None) -> Shown:
    """Counts of the computed days from ``start`` to ``end``, members and reasons as of ``end``.

    A run makes all segments' pages one after the other, so what was read is kept for the ``run`` that is named: its many pages
    cost three queries. Raises ``MissingPartition`` where membership, sizes or what the segments are computed from is missing
    for ``end``.
    """
    key = (run, lake.place, start, end, *(segment.model_dump_json() for segment in segments))
    if run is not None and key in _kept:
        return _kept[key]
    lake.rows(SIZES, end)  # raises for a day that is missing
    newest = latest(lake, end)
    read = Shown(history(lake, start, end), newest, _whys(lake, segments, newest, end))
    _kept.clear()
    if run is not None:
        _kept[key] = read
    return read


_kept: dict[tuple[object, ...], Shown] = {}


def history(lake: Lake, start: date, end: date) -> dict[str, dict[date, Count]]:
    """Counts of every segment on every computed day from ``start`` to ``end``; a day without members has zeros."""
    days = [day for day in lake.days(SIZES) if start <= day <= end]
    rows = lake.between(SIZES, start, end).order_by("segment", "as_of").to_pyarrow()
    found: dict[str, dict[date, Count]] = {}
    for row in rows.to_pylist():
        line = found.setdefault(row["segment"], dict.fromkeys(days, Count()))
        line[row["as_of"]] = Count(*(row[field.name] for field in fields(Count)))
    return found


@dataclass(frozen=True)
class Jump:
    """A segment whose size is far from what it was on the computed day ``before``."""

    segment: str
    before: int
    after: int


def jumps(lake: Lake, as_of: date) -> list[Jump]:
    """Segments that are :data:`JUMP` times as large or small as on the computed day before, by :data:`MANY` people or more.

    None on the first day. Raises ``MissingPartition``.
    """
    lake.rows(SIZES, as_of)  # raises for a day that is missing
    earlier = [day for day in lake.days(SIZES) if day < as_of]
    found = []
    for name, line in history(lake, earlier[-1], as_of).items() if earlier else ():
        before, after = line[earlier[-1]].size, line[as_of].size
        if abs(after - before) >= MANY and max(before, after) >= JUMP * min(before, after):
            found.append(Jump(name, before, after))
    return found


def latest(lake: Lake, as_of: date, limit: int = LATEST) -> dict[str, list[Member]]:
    """The latest to enter each declared segment, own members before those who stand in; raises ``MissingPartition``."""
    rows = lake.on(MEMBERSHIP, as_of).mutate(declared=_.segment.split(SEPARATOR)[0])
    order = [_.through.notnull(), ibis.desc("entered_on"), _.customer_id, _.segment]
    rows = rows.mutate(place=ibis.row_number().over(group_by="declared", order_by=order)).filter(_.place < limit)
    found: dict[str, list[Member]] = {}
    for row in rows.order_by("declared", "place").to_pyarrow().to_pylist():
        member = Member(row["segment"], row["customer_id"], row["entered_on"], row["through"])
        found.setdefault(row["declared"], []).append(member)
    return found


def _whys(
    lake: Lake, segments: Sequence[SegmentDeclaration], newest: Mapping[str, Sequence[Member]], as_of: date
) -> dict[str, list[Why]]:
    """Why the first of each segment's ``newest`` own members are in it, all in one evaluation.

    Who has gone since membership was computed, or a segment that has, is left out.
    """
    own = {
        name: [member.customer_id for member in members if member.through is None][:EXPLAINED]
        for name, members in newest.items()
    }
    everybody = sorted({who for ids in own.values() for who in ids})
    if not everybody:
        return {}
    rows = evaluated(inputs.read(lake, segments, as_of), segments, as_of).filter(_.customer_id.isin(everybody))
    answers = explained(rows, segments, as_of)
    return {name: [answers[who][name] for who in ids if name in answers.get(who, ())] for name, ids in own.items()}


def without_private(whys: Sequence[Why]) -> tuple[list[Why], bool]:
    """``whys`` without the reasons that rest on private data, and whether there were any."""
    kept = [replace(why, reasons=tuple(r for r in why.reasons if not r.is_private)) for why in whys]
    return kept, any(len(one.reasons) < len(why.reasons) for one, why in zip(kept, whys, strict=True))


def latest_markdown(rows: Sequence[Member]) -> str:
    """Members as a table; who stands in is marked where anybody does."""
    if not rows:
        return "Nobody is in this segment."
    columns = [
        "customer_id",
        "entered_on",
        "segment",
        *(["stands in from"] if any(row.through for row in rows) else []),
    ]
    lines = [
        [cell(row.customer_id), str(row.entered_on), cell(row.segment), f"{cell(row.through)}" if row.through else ""]
        for row in rows
    ]
    table = [columns, ["---"] * len(columns), *(line[: len(columns)] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def sizes_markdown(of_values: Mapping[str, int], limit: int = 30) -> str:
    """Sizes by value as a table, the largest first."""
    ordered = sorted(of_values.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"| {cell(name)} | {size} |" for name, size in ordered[:limit]]
    more = [f"\n{len(ordered) - limit} more."] if len(ordered) > limit else []
    return "\n".join(["| segment | size |", "| --- | ---: |", *lines, *more])


def size_plot(lines: Mapping[str, Mapping[date, int]]) -> str:
    """Sizes over the days as a Markdown image. Up to eight lines: the largest on the last day."""
    largest = sorted(lines, key=lambda name: (-list(lines[name].values())[-1] if lines[name] else 0, name))[:_LINES]
    shown = {name.partition(SEPARATOR)[2] or name: lines[name] for name in largest}
    return line_plot(shown, described="size of the segment")


def total(lines: Mapping[str, Mapping[date, Count]]) -> dict[date, Count]:
    """Counts by day, summed over the values of a segment: a person has one value only."""
    summed: dict[date, Count] = {}
    for by_day in lines.values():
        for day, count in by_day.items():
            summed[day] = summed.get(day, Count()) + count
    return summed


def cell(text: str) -> str:
    """A value of the shop's data inside a Markdown table."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
