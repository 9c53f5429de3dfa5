"""A segment as declared in the playbook: its fields, what makes them valid, and the reader that names file and line.

Nothing here needs data: a declaration is checked against the declared columns alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shopauto_pipelines.platform.playbook import PLAYBOOK, declarations, once_per_change
from shopauto_pipelines.segments.people import COLUMNS
from shopauto_pipelines.segments.predicate import Predicate, parse
from shopauto_pipelines.segments.tables import TABLES

#: Between a segment's name and the value of its ``each`` column: ``fans_of:camping``.
SEPARATOR = ":"

#: Names that would clash with the room's own assets and columns.
RESERVED = frozenset({table.name.split("/")[-1] for table in TABLES} | {"customer_id"})


class SegmentDeclaration(BaseModel):
    """People who meet a condition as of a day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name in snake_case: the asset is `segments/<name>`, and campaigns use it.")
    description: str = Field(min_length=1, description="Who these people are, in a sentence.")
    where: str = Field(
        description="SQL condition over columns of `features/customer_360`, `predictions/scores`, and `rfm_recency`, "
        "`rfm_frequency`, `rfm_monetary`, `revenue_percentile`, `days_to_birthday`; `as_of` is the day."
    )
    each: str | None = Field(
        None, description="Text column: one segment per value, `<name>:<value>`. People without a value are in none."
    )
    owner: str | None = Field(None, description="Who is asked about the segment: `team:<name>` or an e-mail address.")

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
            raise ValueError(f"{name!r} is not a name in snake_case, such as big_spenders")
        if name in RESERVED:
            raise ValueError(f"{name!r} is used by the program itself: choose another name")
        return name

    @field_validator("where")
    @classmethod
    def _valid_condition(cls, where: str) -> str:
        parse(where, COLUMNS)
        return where

    @field_validator("each")
    @classmethod
    def _column_of_values(cls, each: str | None) -> str | None:
        if each is None:
            return None
        possible = [
            c.name for c in COLUMNS.values() if c.type == "string" and not c.private and c.name != "customer_id"
        ]
        if each not in possible:
            close = get_close_matches(each, possible, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(possible)}"
            raise ValueError(f"`{each}` is not a text column that segments can be made from; {hint}")
        return each

    @field_validator("owner")
    @classmethod
    def _reachable_owner(cls, owner: str | None) -> str | None:
        if owner is not None and not re.fullmatch(r"team:\S+|[^@\s:]+@[^@\s]+", owner):
            raise ValueError(f"{owner!r} is neither team:<name> nor an e-mail address")
        return owner

    @cached_property
    def predicate(self) -> Predicate:
        """The checked condition."""
        return parse(self.where, COLUMNS)

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the people that the segment needs."""
        return self.predicate.columns | ({self.each} if self.each else frozenset())


@once_per_change
def load_segments(folder: Path = PLAYBOOK) -> tuple[SegmentDeclaration, ...]:
    """All segments declared under ``folder``, by name.

    Raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError` with file and line for the first mistake.
    """
    segments: dict[str, SegmentDeclaration] = {}
    places: dict[str, str] = {}
    for declaration in declarations("Segment", folder):
        try:
            segment = SegmentDeclaration.model_validate(declaration.attributes)
        except ValidationError as error:
            mistake = error.errors()[0]
            path = [part for part in mistake["loc"] if isinstance(part, str | int)]
            where = f"{'.'.join(str(part) for part in path)}: " if path else ""
            raise declaration.error(f"segment {where}{mistake['msg'].removeprefix('Value error, ')}", *path) from None
        if segment.name in segments:
            raise declaration.error(f"segment {segment.name!r} is already declared at {places[segment.name]}", "name")
        segments[segment.name] = segment
        places[segment.name] = f"{declaration.file.parent.name}/{declaration.file.name}:{declaration.line('name')}"
    return tuple(segments[name] for name in sorted(segments))


def segment_names(folder: Path = PLAYBOOK) -> tuple[str, ...]:
    """Names of the declared segments, sorted; one with ``each`` stands for all its ``<name>:<value>``."""
    return tuple(segment.name for segment in load_segments(folder))


def check_name(name: str, segments: Iterable[SegmentDeclaration]) -> None:
    """Raise ``ValueError``, with the nearest name, where ``name`` is no segment and no ``<segment>:<value>``.

    For rooms that refer to segments. Which values there are is known from the data only.
    """
    known = {segment.name: segment for segment in segments}
    base, separator, value = name.partition(SEPARATOR)
    if base not in known:
        close = get_close_matches(base, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known)) or 'none'}"
        raise ValueError(f"there is no segment {name!r}; {hint}")
    if separator and (known[base].each is None or not value):
        raise ValueError(f"segment {base!r} has no values to choose from: write {base!r} alone")
