"""What the segments of a day are computed from, and how it is read: one way for all who evaluate segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

import ibis.expr.types as ir

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import events
from shopauto_pipelines.segments.declaration import SegmentDeclaration


@dataclass(frozen=True)
class Inputs:
    """The partitions of a day, and the daily ``rollups`` by table name, with their ``day``, that ``did`` asks about.

    ``identities`` and rollups are there where a segment asks for events.
    """

    customers_360: ir.Table
    scores: ir.Table
    identities: ir.Table | None = None
    rollups: Mapping[str, ir.Table] = field(default_factory=dict)


def read(lake: Lake, segments: Iterable[SegmentDeclaration], as_of: date) -> Inputs:
    """The inputs of ``segments``: of the rollups only those that are asked, and only the days that count.

    Raises ``MissingPartition`` where the people, scores or identities of the day, or any day that counts of a rollup that is
    asked, have not been computed: what happened on it would count as never.
    """
    asked = [did for segment in segments for did in segment.predicate.dids]
    rollups = events.rollups(asked)
    return Inputs(
        lake.on(CUSTOMER_360, as_of),
        lake.on(SCORES, as_of),
        lake.on(IDENTITIES, as_of) if rollups else None,
        {table.name: _days(lake, table, within, as_of) for table, within in rollups.items()},
    )


def _days(lake: Lake, rollup: Table, within: int | None, as_of: date) -> ir.Table:
    there = set(lake.days(rollup))
    first = min(there | {as_of})  # of what was before, nothing is known
    start = first if within is None else events.first_day(within, as_of)
    missing = {*days_between(max(first, start), as_of)} - there
    if missing:
        lake.on(rollup, max(missing))  # raises; a refresh of this day writes the earlier ones, too
    return lake.between(rollup, start, as_of)
