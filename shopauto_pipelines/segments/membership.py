"""Who is in which segment as of a day, since when, and who entered and left: all segments in one pass.

Pure functions from tables to tables. Where the tables are kept is the business of ``assets``, what is read of ``inputs``.

Own members are those who meet a segment's declaration. A segment with fewer of them than its ``minimum_size`` is joined by
the members of its ``fallback``: they stand in, and each row says so in ``through``. Stays, changes, and other segments that
refer to it are about own members alone, so they do not jump when a segment crosses its minimum size.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from graphlib import TopologicalSorter

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.segments import events
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.events import Day
from shopauto_pipelines.segments.inputs import Inputs
from shopauto_pipelines.segments.people import people
from shopauto_pipelines.segments.predicate import own_column
from shopauto_pipelines.segments.stays import Previous

_KEY = ["segment", "customer_id"]


def evaluated(inputs: Inputs, segments: Sequence[SegmentDeclaration], as_of: Day) -> ir.Table:
    """One row per person: ``customer_id``, the columns that conditions use, and for each segment who its own members are.

    How often a ``did`` happened is under the ``column`` of that question, zero for never. A segment's text is under
    ``own_column(name)``: its name, with ``each`` ``<name>:<value>``, and null for who is not in it. ``segments`` holds every
    segment that another one refers to.
    """
    rows = people(
        inputs.customers_360, inputs.scores, as_of, frozenset[str]().union(*(segment.columns for segment in segments))
    )
    asked = {did.column: did for segment in segments for did in segment.predicate.dids}
    if asked:
        if inputs.identities is None:
            raise ValueError("a segment asks for events: identities and rollups are needed, see inputs.read")
        for number, counted in enumerate(events.counts(asked.values(), inputs.rollups, inputs.identities, as_of)):
            rows = rows.left_join(counted, "customer_id", rname=f"{{name}}_{number}").drop(f"customer_id_{number}")
        rows = rows.mutate(**{name: rows[name].fill_null(0).cast("int64") for name in asked})
    for level in _levels(segments):
        rows = rows.mutate(**_own(level, rows, as_of))
    return rows


def flags(inputs: Inputs, segments: Sequence[SegmentDeclaration], as_of: Day) -> ir.Table:
    """One row per person: ``customer_id`` and a text column per segment, its name for its own members, else null.

    With ``each`` the text is ``<name>:<value>``.
    """
    rows = evaluated(inputs, segments, as_of)
    return rows.select("customer_id", **{segment.name: rows[own_column(segment.name)] for segment in segments})


def membership(
    inputs: Inputs, previous: Previous | None, segments: Sequence[SegmentDeclaration], as_of: Day
) -> ir.Table:
    """Rows of ``segments/membership`` as of the day, from that day's inputs and the previous partition of this table.

    Whoever was in the segment in ``previous``, in the same way, keeps the day of entry; everybody else enters on ``as_of``.
    On the first day of a segment all members enter. Between computed days nothing is known: a stay is taken to have lasted.
    """
    if not segments:
        return inputs.customers_360.filter(ibis.literal(False)).select(
            "customer_id", segment=ibis.null("string"), entered_on=ibis.null("date"), through=ibis.null("string")
        )
    flagged = flags(inputs, segments, as_of)
    own = flagged.select("customer_id", segment=_names_in(flagged), through=ibis.null("string"))
    rows = _since(own, previous, as_of, _KEY)
    others = standing_in(flagged, segments)
    return rows if others is None else rows.union(_since(others, previous, as_of, [*_KEY, "through"]))


def changes(current: ir.Table, previous: Previous | None, as_of: date) -> ir.Table:
    """Rows of ``segments/changes``: who is an own member in ``current`` and was not in ``previous``, and the reverse.

    ``current`` is the partition of ``segments/membership`` of ``as_of``. Nobody enters a segment that is new; empty where there
    is no previous partition.
    """
    current = current.filter(_.through.isnull())
    if previous is None:
        return current.filter(ibis.literal(False)).select(*_KEY, "entered_on", change=ibis.literal("entered"))
    earlier = _before(previous, as_of).filter(_.through.isnull())
    entered = current.anti_join(earlier, _KEY).select(*_KEY, "entered_on", change=ibis.literal("entered"))
    if previous.new:
        entered = entered.filter(~_.segment.split(SEPARATOR)[0].isin(sorted(previous.new)))
    left = earlier.anti_join(current, _KEY).select(*_KEY, "entered_on", change=ibis.literal("left"))
    return entered.union(left)


def members(rows: ir.Table, *names: str, own: bool = False) -> ir.Table:
    """Those of ``rows`` (of membership or changes) that belong to the named segments.

    ``fans_of`` stands for every ``fans_of:<value>``, ``fans_of:camping`` for that one. ``own`` leaves out the rows of membership
    of who only stands in.
    """
    found = rows.filter(_.segment.isin(names) | _.segment.split(SEPARATOR)[0].isin(names))
    return found.filter(_.through.isnull()) if own else found


def _own(segments: Sequence[SegmentDeclaration], rows: ir.Table, as_of: Day) -> dict[str, ir.StringValue]:
    marks = {}
    for segment in segments:
        inside, name = segment.predicate.apply(rows, as_of), ibis.literal(segment.name)
        if segment.each:
            value = rows[segment.each]
            inside, name = inside & value.notnull() & (value != ""), name + SEPARATOR + value
        marks[own_column(segment.name)] = ibis.ifelse(inside, name, ibis.null("string"))
    return marks


def _levels(segments: Sequence[SegmentDeclaration]) -> list[list[SegmentDeclaration]]:
    """The segments, those that others refer to in front: each level refers to earlier ones only."""
    known = {segment.name: segment for segment in segments}
    order = TopologicalSorter({segment.name: segment.refers_to for segment in segments})
    order.prepare()
    levels = []
    while order.is_active():
        ready = order.get_ready()
        levels.append([known[name] for name in sorted(ready)])
        order.done(*ready)
    return levels


def standing_in(flagged: ir.Table, segments: Sequence[SegmentDeclaration]) -> ir.Table | None:
    """Who stands in for segments that are too small: customer_id, segment, through; ``None``: none has a minimum size.

    ``flagged`` is what :func:`flags` gives for ``segments``, which hold every segment that another one falls back on.
    A fallback that is too small itself is joined by its own fallback, and stands in as that.
    """
    small = [segment for segment in segments if segment.minimum_size]
    if not small:
        return None
    sizes = flagged.aggregate(**{segment.name: flagged[segment.name].count() for segment in small})
    known, inside = {segment.name: segment for segment in small}, dict[str, ir.BooleanValue]()

    def with_fallback(name: str) -> ir.BooleanValue:
        """Whether a person is in the segment, on their own or standing in."""
        if name not in inside:
            own, segment = flagged[name.partition(SEPARATOR)[0]], known.get(name)
            inside[name] = (own == name).fill_null(False)
            if segment is not None and segment.fallback is not None:
                too_small = sizes[name].as_scalar() < segment.minimum_size
                inside[name] = inside[name] | (too_small & with_fallback(segment.fallback))
        return inside[name]

    found = {
        segment.name: ibis.ifelse(
            flagged[segment.name].isnull() & with_fallback(segment.name), segment.name, ibis.null("string")
        )
        for segment in small
    }
    through = ibis.cases(*((_.segment == segment.name, segment.fallback) for segment in small))
    marks = flagged.select("customer_id", **found)
    return marks.select("customer_id", segment=_names_in(marks)).mutate(through=through)


def _names_in(marks: ir.Table) -> ir.StringValue:
    """A row per name found in the columns beside ``customer_id``."""
    names = ibis.array([marks[name] for name in marks.columns if name != "customer_id"])
    return names.filter(lambda name: name.notnull()).unnest()


def _since(rows: ir.Table, previous: Previous | None, as_of: Day, key: list[str]) -> ir.Table:
    """Rows with ``entered_on``: the day that the previous partition has for those with the same key, else ``as_of``."""
    today = ibis.literal(as_of) if isinstance(as_of, date) else as_of
    if previous is None:
        return rows.select(*_KEY, "through", entered_on=today)
    own = _.through.isnull() if key == _KEY else _.through.notnull()
    earlier = _before(previous, as_of).filter(own).select(*key, since="entered_on")
    return rows.left_join(earlier, key).select(*_KEY, "through", entered_on=_.since.fill_null(today))


def _before(previous: Previous, as_of: Day) -> ir.Table:
    if isinstance(as_of, date) and previous.day >= as_of:
        raise ValueError(f"the previous partition of {as_of} cannot be that of {previous.day}")
    return previous.rows
