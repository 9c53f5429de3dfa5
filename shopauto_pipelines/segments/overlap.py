"""How large segments are and how much they overlap: as a table, and as what the UI and the command line show of it.

People are in many segments, so pairs of segments are not counted person by person: whoever is in the same segments is counted
once, as one combination, and there are far fewer combinations than people.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.segments.declaration import SEPARATOR
from shopauto_pipelines.segments.pictures import heat_map
from shopauto_pipelines.segments.report import cell, sizes, sizes_markdown
from shopauto_pipelines.segments.tables import OVERLAP

#: Segments of the heat map, the largest, and pairs listed beside it.
SHOWN = 24
LISTED = 30


@dataclass(frozen=True)
class Pair:
    """Two segments with somebody in both: sizes, people in ``both``, their share of the smaller one, and the lift.

    The lift is ``both`` over what it would be if the one had nothing to do with the other: 1 is chance.
    """

    segment: str
    other: str
    size: int
    other_size: int
    both: int
    share_of_smaller: float
    lift: float


@dataclass(frozen=True)
class Explored:
    """Sizes of the segments as of a day, the largest first, and the pairs that overlap, the most of the smaller one first."""

    as_of: date
    sizes: Mapping[str, int]
    pairs: tuple[Pair, ...]


def counted(membership: ir.Table, changes: ir.Table) -> ir.Table:
    """Rows of ``segments/sizes``, from the partitions of membership and of its changes as of the day."""
    inside = membership.select(
        "segment", size=_.through.isnull(), entered=False, left=False, standing_in=_.through.notnull()
    )
    moved = changes.select(
        "segment", size=False, entered=_.change == "entered", left=_.change == "left", standing_in=False
    )
    names = ("size", "entered", "left", "standing_in")
    return inside.union(moved).group_by("segment").aggregate(**{name: _[name].sum() for name in names})


def overlap(membership: ir.Table, everybody: ir.Table) -> ir.Table:
    """Rows of ``segments/overlap``: each pair of segments with somebody in both, once, in the order of the alphabet.

    ``membership`` is the partition of the day, ``everybody`` a row per person of the shop. Who stands in for a segment that is
    too small is not counted.
    """
    own = membership.filter(_.through.isnull())
    combinations = (
        own.group_by("customer_id")
        .aggregate(together=_.segment.collect().sort())
        .group_by("together")
        .aggregate(people=_.count())
    )
    single = combinations.select("people", "together", segment=_.together.unnest())
    sized = single.group_by("segment").aggregate(size=_.people.sum())
    pairs = single.select("people", "segment", other=_.together.unnest()).filter(_.segment < _.other)
    pairs = pairs.group_by("segment", "other").aggregate(both=_.people.sum())
    others = sized.select(other=_.segment, other_size=_.size)
    rows = pairs.inner_join(sized, "segment").inner_join(others, "other")
    total = everybody.count().as_scalar()
    return rows.select(
        "segment",
        "other",
        "size",
        "other_size",
        "both",
        share_of_smaller=(_.both / ibis.least(_.size, _.other_size)).round(6),
        lift=(_.both.cast("float64") * total / (_.size.cast("float64") * _.other_size)).round(6),
    )


def explore(lake: Lake, as_of: date, names: Collection[str] = ()) -> Explored:
    """Sizes and overlaps as of the day, of all segments or those ``names``; raises ``MissingPartition``.

    ``fans_of`` stands for every ``fans_of:<value>``. Given names, a pair counts where it has at least one of them.
    """
    found = sizes(lake, as_of)
    rows = lake.on(OVERLAP, as_of)
    if names:
        rows = rows.filter(_named(rows.segment, names) | _named(rows.other, names))
        found = {name: size for name, size in found.items() if name in names or name.partition(SEPARATOR)[0] in names}
    pairs = [Pair(**{name: row[name] for name in OVERLAP.schema}) for row in rows.to_pyarrow().to_pylist()]
    return Explored(
        as_of,
        dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))),
        tuple(sorted(pairs, key=lambda pair: (-pair.share_of_smaller, -pair.both, pair.segment, pair.other))),
    )


def _named(segment: ir.StringValue, names: Collection[str]) -> ir.BooleanValue:
    return segment.isin(names) | segment.split(SEPARATOR)[0].isin(names)


def markdown(explored: Explored) -> dict[str, str]:
    """What the UI shows: sizes, the heat map of the largest segments, and the pairs that say most."""
    largest = sorted(list(explored.sizes)[:SHOWN])
    shares = {(pair.segment, pair.other): pair.share_of_smaller for pair in explored.pairs}
    said = "Percent of the smaller segment that is in the other one too."
    picture = heat_map(largest, shares, described=said)
    return {
        "sizes": sizes_markdown(explored.sizes),
        "overlap": f"{said}\n\n{picture}",
        "pairs": pairs_markdown(explored.pairs),
    }


def pairs_markdown(pairs: Collection[Pair], limit: int = LISTED) -> str:
    """The pairs with the largest share of the smaller segment as a table. Twins of the same declaration never overlap."""
    if not pairs:
        return "No two segments have anybody in common."
    lines = [
        f"| {cell(pair.segment)} | {cell(pair.other)} | {pair.size} | {pair.other_size} | {pair.both} "
        f"| {100 * pair.share_of_smaller:.0f} % | {pair.lift:.2f} |"
        for pair in list(pairs)[:limit]
    ]
    head = [
        "| segment | other | size | its size | in both | of the smaller | lift |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    more = [f"\n{len(pairs) - limit} more."] if len(pairs) > limit else []
    return "\n".join([*head, *lines, *more])
