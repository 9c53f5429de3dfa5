"""What a change of declarations does to the segments: who comes, who goes, what share of the revenue they are, and why.

Two sets of declarations are computed over the same day of the same lake, so all that differs comes from the declarations.
A segment whose declaration is the same, and those of the segments it asks about or falls back on too, cannot differ and is
not computed. Who comes and goes are own members; who stands in for a segment that is too small is counted apart, since
campaigns write to them as well.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from difflib import unified_diff

import ibis
import ibis.expr.types as ir
import yaml
from ibis import _

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.segments import inputs
from shopauto_pipelines.segments.declaration import SegmentDeclaration
from shopauto_pipelines.segments.meaning import WORDS, meaning, meanings, renamed
from shopauto_pipelines.segments.membership import evaluated, own_column, standing_in
from shopauto_pipelines.segments.why import Reason, conditions, explained, with_referred


@dataclass(frozen=True)
class Moved:
    """A person who comes (``was`` is None), goes (``now`` is None) or gets another value, and why.

    ``because``: of who comes, the parts of the old condition that kept the person out, and of a segment that was not there all
    parts of the new one; of who goes, the parts of the new condition that keep the person out. None that rests on private data.
    """

    customer_id: str
    was: str | None
    now: str | None
    revenue_cents_365d: int
    because: tuple[Reason, ...]


@dataclass(frozen=True)
class SegmentDiff:
    """One segment: its ``state``, sizes, moves, the movers' shares of all people's revenue of a year (percent), and why.

    ``state`` is ``added``, ``removed``, ``renamed`` (from ``was``), ``changed``, or ``affected``: a segment that it asks about
    or falls back on has changed. ``standing_in_before`` and ``standing_in_after`` count who stands in, beside the own members;
    ``standing_in_moved`` those who begin or cease to, and are own members neither before nor after. ``other_value`` counts
    people who stay under another value of ``each``. ``let_in_by`` counts, for each part of the old condition, whom of those who
    come it kept out; ``put_out_by`` whom of those who go the parts of the new one keep out: a person counts for each such part.
    ``lines`` are the declaration's difference; ``people`` those of most revenue.
    """

    name: str
    state: str
    was: str | None
    before: int | None
    after: int | None
    entered: int
    left: int
    other_value: int
    standing_in_before: int
    standing_in_after: int
    standing_in_moved: int
    entered_revenue_percent: float
    left_revenue_percent: float
    let_in_by: Mapping[str, int]
    put_out_by: Mapping[str, int]
    lines: tuple[str, ...]
    people: tuple[Moved, ...]

    @property
    def moved_percent(self) -> float:
        """People who come, go or get another value, in percent of those before; 0 for a segment that was not there.

        Of own members among own members, or with stand-ins on both sides: whichever is more.
        """
        if self.before is None:
            return 0.0
        own = self.entered + self.left + self.other_value
        shares = ((own, self.before), (own + self.standing_in_moved, self.before + self.standing_in_before))
        return max(_percent(moved, there) if there else 100.0 * bool(moved) for moved, there in shares)


@dataclass(frozen=True)
class Diff:
    """All that differs as of a day between the playbooks called ``before`` and ``after``; so many segments are the ``same``."""

    as_of: date
    before: str
    after: str
    people: int
    revenue_cents_365d: int
    segments: tuple[SegmentDiff, ...]
    same: int

    def over(self, percent: float) -> tuple[SegmentDiff, ...]:
        """Segments of which more than so many percent move."""
        return tuple(segment for segment in self.segments if segment.moved_percent > percent)


@dataclass(frozen=True)
class _Pair:
    """A segment before and after; ``old`` or ``new`` is missing where it was added or removed."""

    old: SegmentDeclaration | None
    new: SegmentDeclaration | None
    state: str


def diff(
    lake: Lake,
    as_of: date,
    before: Sequence[SegmentDeclaration],
    after: Sequence[SegmentDeclaration],
    names: tuple[str, str] = ("before", "after"),
    who: int = 3,
) -> Diff:
    """What differs between the segments of two playbooks; ``who`` people that come, and as many that go, are told one by one.

    Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition`.
    """
    customers = lake.on(CUSTOMER_360, as_of).select("customer_id", revenue=_.revenue_cents_365d.fill_null(0))
    totals = customers.aggregate(people=_.count(), revenue=_.revenue.sum().fill_null(0)).to_pyarrow().to_pylist()[0]
    pairs = _pairs(before, after)
    found: list[SegmentDiff] = []
    if pairs:
        needed = (
            with_referred(before, [pair.old.name for pair in pairs if pair.old]),
            with_referred(after, [pair.new.name for pair in pairs if pair.new]),
        )
        with _judged(lake, as_of, needed[0]) as old, _judged(lake, as_of, needed[1]) as new:
            both = customers.inner_join(_values(old, "was", [pair.old for pair in pairs], needed[0]), "customer_id")
            both = both.inner_join(_values(new, "now", [pair.new for pair in pairs], needed[1]), "customer_id")
            comparison = _Comparison(as_of, pairs, old, new, both)
            found = [each for n in range(len(pairs)) if (each := comparison.of(n, totals["revenue"], who)) is not None]
    same = len(after) - sum(each.state != "removed" for each in found)
    return Diff(as_of, *names, totals["people"], totals["revenue"], tuple(found), same)


@contextmanager
def _judged(lake: Lake, as_of: date, segments: Sequence[SegmentDeclaration]) -> Iterator[ir.Table]:
    """People as the declarations judge them, computed once, for as long as they are looked at."""
    name = f"segments_diff_{uuid.uuid4().hex}"
    rows = evaluated(inputs.read(lake, segments, as_of), segments, as_of)
    judged = lake.con.create_table(name, rows, temp=True)
    try:
        yield judged
    finally:
        lake.con.drop_table(name)


class _Comparison:
    """People as the ``old`` and as the ``new`` declarations judge them; ``both``: who was in what, and who is now."""

    def __init__(self, as_of: date, pairs: Sequence[_Pair], old: ir.Table, new: ir.Table, both: ir.Table) -> None:
        self._as_of, self._pairs, self._old, self._new, self._both = as_of, pairs, old, new, both
        sums: dict[str, ir.Scalar] = {}
        for n in range(len(pairs)):
            sums |= {f"{n} before": both[f"was {n}"].count(), f"{n} after": both[f"now {n}"].count()}
            sums |= {f"{n} {what}": rows.sum() for what, rows in self._stand_ins(n).items()}
            for move, rows in self._moves(n).items():
                sums |= {f"{n} {move}": rows.sum(), f"{n} {move} revenue": both.revenue.sum(where=rows)}
        self._counted = both.aggregate(**sums).to_pyarrow().to_pylist()[0]

    def of(self, n: int, revenue: int, who: int) -> SegmentDiff | None:
        """The difference of a pair; None where it was not touched itself and nobody moves."""
        pair, moves = self._pairs[n], self._moves(n)
        stand_ins = {what: self._counted[f"{n} {what}"] or 0 for what in self._stand_ins(n)}
        count = {name: self._counted[f"{n} {name}"] or 0 for name in ("before", "after", *moves)}
        share = {move: _percent(self._counted[f"{n} {move} revenue"] or 0, revenue) for move in moves}
        if pair.state == "affected" and not any(count[move] for move in moves) and not stand_ins["standing_in_moved"]:
            return None
        both = pair.old is not None and pair.new is not None
        return SegmentDiff(
            name=_there(pair).name,
            state=pair.state,
            was=pair.old.name if pair.old and pair.state == "renamed" else None,
            before=count["before"] if pair.old else None,
            after=count["after"] if pair.new else None,
            entered=count["entered"],
            left=count["left"],
            other_value=count["other value"],
            **stand_ins,
            entered_revenue_percent=share["entered"],
            left_revenue_percent=share["left"],
            let_in_by=self._kept_out(pair.old, self._old, moves["entered"]) if both and count["entered"] else {},
            put_out_by=self._kept_out(pair.new, self._new, moves["left"]) if both and count["left"] else {},
            lines=_changed_lines(pair),
            people=tuple(self._people(n, who)),
        )

    def _moves(self, n: int) -> dict[str, ir.BooleanValue]:
        was, now = self._both[f"was {n}"], self._both[f"now {n}"]
        return {
            "entered": was.isnull() & now.notnull(),
            "left": was.notnull() & now.isnull(),
            "other value": (was != now).fill_null(False),
        }

    def _stand_ins(self, n: int) -> dict[str, ir.BooleanValue]:
        """Who stands in on either side, and whom of those who are own members on neither side that moves."""
        before, after = self._both[f"was {n} standing in"], self._both[f"now {n} standing in"]
        nowhere_own = self._both[f"was {n}"].isnull() & self._both[f"now {n}"].isnull()
        return {
            "standing_in_before": before,
            "standing_in_after": after,
            "standing_in_moved": nowhere_own & (before != after),
        }

    def _kept_out(self, segment: SegmentDeclaration | None, rows: ir.Table, moves: ir.BooleanValue) -> dict[str, int]:
        """How many of the people of a move each part of the condition keeps out, the most first."""
        if segment is None:
            return {}
        parts = conditions(segment, rows, self._as_of)
        people = rows.semi_join(self._both.filter(moves), "customer_id")
        kept_out = people.mutate(**{f"part {n}": ~holds for n, holds in enumerate(parts.values())})
        counts = kept_out.aggregate(**{f"part {n}": kept_out[f"part {n}"].sum() for n in range(len(parts))})
        numbers = counts.to_pyarrow().to_pylist()[0].values()
        found = {text: number for text, number in zip(parts, numbers, strict=True) if number}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def _people(self, n: int, who: int) -> Iterator[Moved]:
        """Those of most revenue: ``who`` that come, and ``who`` that go or get another value."""
        pair, moves = self._pairs[n], self._moves(n)
        came = (pair.old, self._old) if pair.old else (pair.new, self._new)
        groups = ((moves["entered"], *came), (moves["left"] | moves["other value"], pair.new, self._new))
        for rows, segment, judged in groups:
            if segment is None or not who:
                continue
            some = self._both.filter(rows).order_by(ibis.desc("revenue"), "customer_id").limit(who)
            moved = {row["customer_id"]: row for row in some.to_pyarrow().to_pylist()}
            told = explained(judged.filter(_.customer_id.isin(list(moved))), [segment], self._as_of) if moved else {}
            for customer, row in moved.items():
                answer, was, now = told[customer][segment.name], row[f"was {n}"], row[f"now {n}"]
                yield Moved(
                    customer,
                    pair.old.name + was if pair.old and was is not None else None,
                    pair.new.name + now if pair.new and now is not None else None,
                    row["revenue"],
                    tuple(r for r in (answer.failing if pair.old else answer.reasons) if not r.is_private),
                )


def _values(
    rows: ir.Table, word: str, segments: Sequence[SegmentDeclaration | None], needed: Sequence[SegmentDeclaration]
) -> ir.Table:
    """Per person and segment the ``:value``, empty without ``each``, null: not in it; and whether the person stands in.

    Names may change, so they are left out. ``needed`` are the segments that ``rows`` have been judged by.
    """
    flagged = rows.select("customer_id", **{segment.name: rows[own_column(segment.name)] for segment in needed})
    stand_ins = standing_in(flagged, needed)
    if stand_ins is not None:
        names = stand_ins.group_by("customer_id").agg(stands_in=_.segment.collect())
        rows = rows.left_join(names, "customer_id").drop("customer_id_right")
    columns: dict[str, ir.Value] = {}
    for n, segment in enumerate(segments):
        columns[f"{word} {n}"] = (
            rows[own_column(segment.name)].substr(len(segment.name)) if segment else ibis.null("string")
        )
        small = segment is not None and segment.minimum_size is not None
        columns[f"{word} {n} standing in"] = (
            rows.stands_in.contains(segment.name).fill_null(False) if segment and small else ibis.literal(False)
        )
    return rows.select("customer_id", **columns)


def _pairs(before: Sequence[SegmentDeclaration], after: Sequence[SegmentDeclaration]) -> list[_Pair]:
    """All segments that may differ, by name."""
    old, new = {segment.name: segment for segment in before}, {segment.name: segment for segment in after}
    meant, means = ({name: meaning(each) for name, each in side.items()} for side in (old, new))
    names = renamed(meanings(before), meanings(after))
    pairs = [_Pair(old[was], new[name], "renamed") for name, was in names.items()]
    pairs += [_Pair(None, new[name], "added") for name in new.keys() - old.keys() - names.keys()]
    pairs += [_Pair(old[name], None, "removed") for name in old.keys() - new.keys() - set(names.values())]
    pairs += [_Pair(old[name], new[name], "changed") for name in old.keys() & new.keys() if meant[name] != means[name]]
    touched = {segment.name for pair in pairs for segment in (pair.old, pair.new) if segment}
    while asking := {s.name for s in (*before, *after) if s.name not in touched and touched & s.rests_on}:
        touched |= asking
        pairs += [_Pair(old[name], new[name], "affected") for name in asking]
    return sorted(pairs, key=lambda pair: _there(pair).name)


def _there(pair: _Pair) -> SegmentDeclaration:
    segment = pair.new or pair.old
    assert segment is not None  # one of them is there
    return segment


def _changed_lines(pair: _Pair) -> tuple[str, ...]:
    old, new = (_as_yaml(segment, with_name=pair.state == "renamed") for segment in (pair.old, pair.new))
    return tuple(line for line in list(unified_diff(old, new, lineterm="", n=1))[2:] if not line.startswith("@@"))


def _as_yaml(segment: SegmentDeclaration | None, *, with_name: bool) -> list[str]:
    if segment is None:
        return []
    hidden = WORDS - {"name"} if with_name else WORDS
    told = segment.model_dump(mode="json", exclude=hidden, exclude_defaults=True)
    where = str(told.pop("where", "") or "").strip().splitlines()
    lines = ["where: |", *(f"  {line.strip()}" for line in where)] if where else []
    return [*lines, *(yaml.safe_dump(told, sort_keys=False, allow_unicode=True).splitlines() if told else [])]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
