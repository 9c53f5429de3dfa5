"""The day's membership as one statement that is compiled once for all days: only the day and the partitions differ.

Making the expression of some forty segments and compiling it costs half a second, running it on a small shop less than that.
What the statement says is the business of ``membership``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import Prepared, kept, unseen
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import inputs
from shopauto_pipelines.segments.declaration import SegmentDeclaration
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.inputs import Inputs
from shopauto_pipelines.segments.membership import membership
from shopauto_pipelines.segments.stays import Previous, previous
from shopauto_pipelines.segments.tables import MEMBERSHIP

#: The lake's tables by the names that the statement knows them by.
_BEHIND = {
    f"membership_{table.name.replace('/', '_')}": table
    for table in (CUSTOMER_360, SCORES, IDENTITIES, MEMBERSHIP, *{event.rollup for event in EVENTS.values()})
}
_NAMES = {table: name for name, table in _BEHIND.items()}
_VIEW = "membership_of_the_day"
_DAY = "membership_as_of"


@ibis.udf.scalar.builtin
def getvariable(variable: str) -> dt.date:  # type: ignore[empty-body]
    """A variable of the connection: known when a statement is planned, so the engine takes it for a constant."""


def statement(segments: Sequence[SegmentDeclaration]) -> Prepared:
    """The statement of ``segments``, with its column lineage; made once in a process."""
    return _statement(tuple(segment.model_dump_json() for segment in segments))


@kept
def _statement(declared: tuple[str, ...]) -> Prepared:
    segments = [SegmentDeclaration.model_validate_json(text) for text in declared]
    rollups = {event.rollup for event in EVENTS.values()}
    given = Inputs(
        unseen(CUSTOMER_360, _NAMES[CUSTOMER_360]),
        unseen(SCORES, _NAMES[SCORES]),
        unseen(IDENTITIES, _NAMES[IDENTITIES]),
        {table.name: unseen(table, _NAMES[table], partitions=True) for table in rollups},
    )
    before = Previous(date.min, unseen(MEMBERSHIP, _NAMES[MEMBERSHIP]))
    return Prepared.of(membership(given, before, segments, getvariable(_DAY)), _BEHIND)


def rows(lake: Lake, segments: Sequence[SegmentDeclaration], as_of: date) -> ir.Table:
    """Rows of ``segments/membership`` as of the day.

    They are computed when they are read. What was asked for before on this connection must have been read by then. Raises
    ``MissingPartition`` as :func:`inputs.read` does.
    """
    given = inputs.read(lake, segments, as_of)
    earlier = previous(lake, as_of)
    tables = {
        CUSTOMER_360.name: given.customers_360,
        SCORES.name: given.scores,
        IDENTITIES.name: given.identities,
        MEMBERSHIP.name: earlier.rows if earlier else lake.between(MEMBERSHIP, date.min, date.min),
        **given.rollups,
    }
    prepared = statement(segments)
    for name in sorted(prepared.inputs):
        lake.engine.put(name, tables[_BEHIND[name].name])
    lake.engine.variable(_DAY, as_of)
    lake.engine.put(_VIEW, prepared.query)
    return lake.con.table(_VIEW)
