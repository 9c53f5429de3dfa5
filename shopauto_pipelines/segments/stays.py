"""What an earlier day's membership says of today's segments and people: stays go on under other names and ids.

A segment that only got another name keeps its members' days of entry, and so does a person whose account was joined with an
older one, which the person is called by from then on. A segment that was not declared on the earlier day has nobody to compare
with: nobody enters it on its first day.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import date
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.predicate import clauses
from shopauto_pipelines.segments.tables import DECLARED, MEMBERSHIP

#: Fields that say nothing of who is in a segment.
WORDS = {"name", "description", "owner"}


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


def declared(segments: Iterable[SegmentDeclaration]) -> pa.Table:
    """Rows of ``segments/declared``."""
    rows = [{"segment": name, "meaning": digest} for name, digest in meanings(segments).items()]
    return pa.Table.from_pylist(rows, schema=DECLARED.arrow_schema)


def meanings(segments: Iterable[SegmentDeclaration]) -> dict[str, str]:
    """Digest of each segment's meaning by its name: of those that it rests on their meaning counts, not their names."""
    known = {segment.name: segment for segment in segments}
    rests_on = {name: segment.rests_on & known.keys() for name, segment in known.items()}
    digests = dict[str, str]()
    for name in TopologicalSorter(rests_on).static_order():
        text = repr(meaning(known[name]))
        for other in rests_on[name]:
            text = re.sub(rf"'{re.escape(other)}(?=['{SEPARATOR}])", f"'{digests[other]}", text)
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def meaning(segment: SegmentDeclaration) -> tuple[object, ...]:
    """What decides who is in a segment: the same however the condition is laid out."""
    predicate = segment.predicate
    rest = segment.model_dump(exclude=WORDS | {"where", "parameters", "include", "exclude"})
    return predicate.joined, *(part.sql for part in clauses(predicate)), *sorted(rest.items(), key=lambda item: item[0])


def renamed(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, str]:
    """Of segments by their meaning, those that only got another name: the present one → the earlier one."""
    gone, names = {name: each for name, each in before.items() if name not in now}, dict[str, str]()
    for name in now.keys() - before.keys():
        twin = next((other for other in sorted(gone) if gone[other] == now[name]), None)
        if twin is not None:
            names[name] = twin
            del gone[twin]
    return names


def _declared(lake: Lake, start: date, end: date) -> dict[date, dict[str, str]]:
    """The meaning of each segment by its name, of each of these days of which it is known."""
    found: dict[date, dict[str, str]] = {}
    for row in lake.con.to_pyarrow(lake.between(DECLARED, start, end)).to_pylist():
        found.setdefault(row["as_of"], {})[row["segment"]] = row["meaning"]
    return found
