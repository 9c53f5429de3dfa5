"""What segments mean whatever their names and layout: digests to compare, the table ``segments/declared``, which were renamed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

import pyarrow as pa

from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.predicate import clauses
from shopauto_pipelines.segments.tables import DECLARED

#: Fields that say nothing of who is in a segment.
WORDS = {"name", "description", "owner"}


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
