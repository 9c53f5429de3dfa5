"""What an earlier day's membership says of today's segments and people: stays go on under other names and ids.

A segment that only got another name keeps its members' days of entry, and so does a person whose account was joined with an
older one, which the person is called by from then on. A segment that was not declared on the earlier day has nobody to compare
with: nobody enters it on its first day.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.declaration import SEPARATOR
from shopauto_pipelines.segments.meaning import renamed
from shopauto_pipelines.segments.tables import DECLARED, MEMBERSHIP


class Previous(NamedTuple):
    """The latest earlier day that was computed; its rows of membership, by today's names and ids; the segments that are new."""

    day: date
    rows: ir.Table
    new: frozenset[str] = frozenset()


def previous(lake: Lake, as_of: date) -> Previous | None:
    """What came before ``as_of``; ``None``: nothing. ``segments/declared`` and ``profiles/identities`` of it must be there."""
    found = LakeTable(lake, MEMBERSHIP).before(as_of)
    if found is None:
        return None
    day, rows = found
    # nothing is known of a day that was computed before the table was kept
    declared_on = _declared(lake, day, as_of)
    before, now = (declared_on.get(each, {}) for each in (day, as_of)) if day in declared_on else ({}, {})
    names = {was: name for name, was in renamed(before, now).items()}
    joined = lake.on(IDENTITIES, as_of)
    return Previous(day, continued(rows, joined, names), frozenset(now.keys() - before.keys() - set(names.values())))


def continued(rows: ir.Table, identities: ir.Table, names: Mapping[str, str]) -> ir.Table:
    """Rows of an earlier membership by today's names and ids; ``names``: the earlier name → today's.

    Where two people have become one, their stay is the longer one.
    """
    others = identities.filter(_.shop_customer_id != _.customer_id).select(
        other="shop_customer_id", person="customer_id"
    )
    known = under_names(rows, names, "segment", "through")
    known = known.left_join(others, known.customer_id == others.other)
    known = known.mutate(customer_id=ibis.coalesce(_.person, _.customer_id))
    return known.group_by("segment", "customer_id", "through").aggregate(entered_on=_.entered_on.min())


def under_names(rows: ir.Table, names: Mapping[str, str], *columns: str) -> ir.Table:
    """Rows with the segments in ``columns`` by today's names; ``names``: the earlier name → today's."""

    def named(column: ir.StringValue) -> ir.StringValue:
        base = column.split(SEPARATOR)[0]
        found = (ibis.ifelse(base == was, now + column.substr(len(was)), None) for was, now in names.items())
        return ibis.coalesce(*found, column)

    return rows.mutate(**{column: named(rows[column]) for column in columns}) if names else rows


def earlier_names(lake: Lake, start: date, as_of: date) -> dict[str, str]:
    """Of the segments of ``as_of`` the other names that they had since ``start``: the earlier name → today's."""
    declared_on = sorted(_declared(lake, start, as_of).items())
    names = dict[str, str]()
    for (_day, before), (_next, now) in pairwise(declared_on):
        came = {was: name for name, was in renamed(before, now).items()}
        names = {was: came.get(name, name) for was, name in (names | came).items() if was not in now}
    return names


def _declared(lake: Lake, start: date, end: date) -> dict[date, dict[str, str]]:
    """The meaning of each segment by its name, of each of these days of which it is known."""
    found: dict[date, dict[str, str]] = {}
    for row in lake.con.to_pyarrow(lake.between(DECLARED, start, end)).to_pylist():
        found.setdefault(row["as_of"], {})[row["segment"]] = row["meaning"]
    return found
