"""Who is in which segment as of a day, since when, and who entered and left: all segments in one pass.

Pure functions from tables to tables. Where the tables are kept is the business of ``assets``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.people import people

_KEY = ["segment", "customer_id"]

#: The latest earlier day that has been computed, and its partition.
Previous = tuple[date, ir.Table] | None


def flags(customers_360: ir.Table, scores: ir.Table, segments: Sequence[SegmentDeclaration], as_of: date) -> ir.Table:
    """One row per person: ``customer_id`` and a text column per segment, its name where the person is in it, else null.

    With ``each`` the text is ``<name>:<value>``.
    """
    columns = frozenset[str]().union(*(segment.columns for segment in segments))
    rows = people(customers_360, scores, as_of, columns)
    names = {}
    for segment in segments:
        inside, name = segment.predicate.apply(rows, as_of), ibis.literal(segment.name)
        if segment.each:
            value = rows[segment.each]
            inside, name = inside & value.notnull() & (value != ""), name + SEPARATOR + value
        names[segment.name] = ibis.ifelse(inside, name, ibis.null("string"))
    return rows.select("customer_id", **names)


def membership(
    customers_360: ir.Table, scores: ir.Table, previous: Previous, segments: Sequence[SegmentDeclaration], as_of: date
) -> ir.Table:
    """Rows of ``segments/membership`` as of the day, from that day's people and the previous partition of this table.

    Whoever was in the segment in ``previous`` keeps the day of entry; everybody else enters on ``as_of``. On the first
    day ever computed all members enter. Between computed days nothing is known: a stay is taken to have lasted.
    """
    if not segments:
        return customers_360.filter(ibis.literal(False)).select(
            "customer_id", segment=ibis.null("string"), entered_on=ibis.null("date")
        )
    flagged = flags(customers_360, scores, segments, as_of)
    inside = ibis.array([flagged[segment.name] for segment in segments]).filter(lambda name: name.notnull())
    members = flagged.select("customer_id", segment=inside.unnest())
    if previous is None:
        return members.mutate(entered_on=ibis.literal(as_of))
    earlier = _before(previous, as_of).select(*_KEY, since="entered_on")
    return members.left_join(earlier, _KEY).select(*_KEY, entered_on=_.since.fill_null(ibis.literal(as_of)))


def changes(current: ir.Table, previous: Previous, as_of: date) -> ir.Table:
    """Rows of ``segments/changes``: who is in ``current`` and was not in ``previous``, and the reverse.

    Both are partitions of ``segments/membership``, ``current`` that of ``as_of``. Empty where there is no previous one.
    """
    if previous is None:
        return current.filter(ibis.literal(False)).select(*_KEY, "entered_on", change=ibis.literal("entered"))
    earlier = _before(previous, as_of)
    entered = current.anti_join(earlier, _KEY).select(*_KEY, "entered_on", change=ibis.literal("entered"))
    left = earlier.anti_join(current, _KEY).select(*_KEY, "entered_on", change=ibis.literal("left"))
    return entered.union(left)


def members(rows: ir.Table, *names: str) -> ir.Table:
    """Those of ``rows`` (of membership or changes) that belong to the named segments.

    ``fans_of`` stands for every ``fans_of:<value>``, ``fans_of:camping`` for that one.
    """
    return rows.filter(_.segment.isin(names) | _.segment.split(SEPARATOR)[0].isin(names))


def _before(previous: tuple[date, ir.Table], as_of: date) -> ir.Table:
    day, rows = previous
    if day >= as_of:
        raise ValueError(f"the previous partition of {as_of} cannot be that of {day}")
    return rows
