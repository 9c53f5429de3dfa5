"""What people look at: sizes over the days, moves, a preview of members, the plot. Reads the lake, writes nothing.

Customer ids and days only: nothing here touches private data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from html import escape

import ibis
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.membership import members
from shopauto_pipelines.segments.pictures import line_plot
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP, SIZES
from shopauto_pipelines.segments.why import Why
from shopauto_pipelines.segments.why import why as explain

#: Most lines of a plot: the largest values of a segment with ``each``.
_LINES = 8

#: Members that a page lists, the latest to enter, and those of them of whom it says why.
LATEST = 10
EXPLAINED = 3

#: A size that is so many times what it was, or the reverse, is a jump where it is about so many people.
JUMP = 2.0
MANY = 100


@dataclass(frozen=True)
class Moves:
    """People who ``entered`` and who ``left`` on a day."""

    entered: int = 0
    left: int = 0


def sizes(lake: Lake, as_of: date) -> dict[str, int]:
    """Own members of every segment that has any as of the day, by name; raises ``MissingPartition``."""
    own = lake.on(MEMBERSHIP, as_of).filter(_.through.isnull())
    counted = own.group_by("segment").agg(size=_.count()).order_by("segment")
    return dict(counted.execute().itertuples(index=False, name=None))


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


def shown(lake: Lake, segments: Sequence[SegmentDeclaration], start: date, end: date) -> Shown:
    """Counts of the computed days from ``start`` to ``end``, members and reasons as of ``end``.

    All segments' pages are made one after the other, so what was read last is kept: the many pages cost three queries.
    Raises ``MissingPartition`` where membership, sizes or what the segments are computed from is missing for ``end``.
    """
    stamps = (_stamp(lake, table, end) for table in (SIZES, MEMBERSHIP))
    key = (lake.root, start, end, *stamps, *(segment.model_dump_json() for segment in segments))
    if key not in _kept:
        newest = latest(lake, end)
        read = Shown(history(lake, start, end), newest, _whys(lake, segments, newest, end))
        _kept.clear()
        _kept[key] = read
    return _kept[key]


_kept: dict[tuple[object, ...], Shown] = {}


def _stamp(lake: Lake, table: Table, day: date) -> tuple[int, int]:
    """Tells one state of a partition from another."""
    rows, file = lake.rows(table, day), lake.path(table, day).stat()
    return rows, file.st_mtime_ns


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
    """Why the first of each segment's ``newest`` own members are in it, all in one evaluation."""
    own = {
        name: [member.customer_id for member in members if member.through is None][:EXPLAINED]
        for name, members in newest.items()
    }
    everybody = sorted({who for ids in own.values() for who in ids})
    answers = {(why.segment, why.customer_id): why for why in explain(lake, as_of, segments, everybody)}
    return {name: [answers[name, who] for who in ids if (name, who) in answers] for name, ids in own.items()}


def moves(lake: Lake, name: str, start: date, end: date) -> dict[date, Moves]:
    """Who entered and left the segment on each computed day from ``start`` to ``end``, in one query."""
    days = [day for day in lake.days(CHANGES) if start <= day <= end]
    rows = members(lake.between(CHANGES, start, end), name)
    counted = rows.group_by("as_of").agg(entered=(_.change == "entered").sum(), left=(_.change == "left").sum())
    found = {row["as_of"]: Moves(row["entered"], row["left"]) for row in counted.to_pyarrow().to_pylist()}
    return {day: found.get(day, Moves()) for day in days}


def preview(lake: Lake, name: str, as_of: date, limit: int = 10) -> list[tuple[str, str, date]]:
    """``(segment, customer_id, entered_on)`` of the latest to enter; raises ``MissingPartition``."""
    rows = members(lake.on(MEMBERSHIP, as_of), name).select("segment", "customer_id", "entered_on")
    latest = rows.order_by(ibis.desc("entered_on"), "customer_id", "segment").limit(limit).to_pyarrow()
    return [(row["segment"], row["customer_id"], row["entered_on"]) for row in latest.to_pylist()]


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
