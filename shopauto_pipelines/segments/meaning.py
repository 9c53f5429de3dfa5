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
    """Digest of each segment's meaning by its name: of those that it rests on their meaning counts, not their names.

    A segment may fall back on one that refers to it: that one asks for own members alone. So what makes these is digested
    first, of all segments, and who stands in after it.
    """
    known = {segment.name: segment for segment in segments}
    own = _digests({name: (segment.refers_to, _of_own(segment)) for name, segment in known.items()})
    return _digests({name: (s.falls_back_on, (own[name], s.minimum_size, s.fallback)) for name, s in known.items()})


def meaning(segment: SegmentDeclaration) -> tuple[object, ...]:
    """What decides who is in a segment: the same however the condition is laid out."""
    return *_of_own(segment), segment.minimum_size, segment.fallback


def _of_own(segment: SegmentDeclaration) -> tuple[object, ...]:
    """What decides who its own members are."""
    predicate = segment.predicate
    return predicate.joined, *(part.sql for part in clauses(predicate)), segment.each


def _digests(told: Mapping[str, tuple[frozenset[str], object]]) -> dict[str, str]:
    """By name the digest of what is ``told`` of each, with the digests of those that it names in place of their names."""
    named = {name: names & told.keys() for name, (names, _what) in told.items()}
    digests = dict[str, str]()
    for name in TopologicalSorter(named).static_order():
        text = repr(told[name][1])
        for other in named[name]:
            text = re.sub(rf"'{re.escape(other)}(?=['{SEPARATOR}])", f"'{digests[other]}", text)
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def renamed(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, str]:
    """Of segments by their meaning, those that only got another name: the present one → the earlier one.

    Of several that mean the same the first in the alphabet has it.
    """
    gone, names = {name: each for name, each in before.items() if name not in now}, dict[str, str]()
    for name in sorted(now.keys() - before.keys()):
        twin = next((other for other in sorted(gone) if gone[other] == now[name]), None)
        if twin is not None:
            names[name] = twin
            del gone[twin]
    return names
