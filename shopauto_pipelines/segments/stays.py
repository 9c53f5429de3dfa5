"""What an earlier day's membership says of today's segments and people: stays go on under other names and ids.

A segment that only got another name keeps its members' days of entry, and so does a person whose account was joined with an
older one, which the person is called by from then on. A segment that was not declared on the earlier day has nobody to compare
with: nobody enters it on its first day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date
from functools import reduce
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
    before, now = (_declared(lake, each) for each in (day, as_of)) if lake.has(DECLARED, day) else ({}, {})
    names = renamed(before, now)
    joined = lake.on(IDENTITIES, as_of)
    return Previous(day, continued(rows, joined, names), frozenset(now.keys() - before.keys() - names.keys()))


def continued(rows: ir.Table, identities: ir.Table, names: Mapping[str, str]) -> ir.Table:
    """Rows of an earlier membership by today's names and ids; ``names``: today's name → the earlier one.

    Where two people have become one, their stay is the longer one.
    """

    def under_its_name(segment: ir.StringValue, pair: tuple[str, str]) -> ir.StringValue:
        now, before = pair
        return ibis.ifelse(rows.segment.split(SEPARATOR)[0] == before, now + rows.segment.substr(len(before)), segment)

    others = identities.filter(_.shop_customer_id != _.customer_id).select(
        other="shop_customer_id", person="customer_id"
    )
    known = rows.mutate(segment=reduce(under_its_name, names.items(), rows.segment))
    known = known.left_join(others, known.customer_id == others.other)
    known = known.mutate(customer_id=ibis.coalesce(_.person, _.customer_id))
    return known.group_by("segment", "customer_id", "through").aggregate(entered_on=_.entered_on.min())


def declared(segments: Iterable[SegmentDeclaration]) -> pa.Table:
    """Rows of ``segments/declared``."""
    rows = [
        {"segment": each.name, "meaning": hashlib.sha256(repr(meaning(each)).encode()).hexdigest()} for each in segments
    ]
    return pa.Table.from_pylist(rows, schema=DECLARED.arrow_schema)


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


def _declared(lake: Lake, day: date) -> dict[str, str]:
    return {row["segment"]: row["meaning"] for row in lake.con.to_pyarrow(lake.on(DECLARED, day)).to_pylist()}
