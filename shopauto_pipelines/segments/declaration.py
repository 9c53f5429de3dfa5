"""A segment as declared in the playbook: its fields, what makes them valid, and the reader that names file and line.

Nothing here needs data: a declaration is checked against the declared columns alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from math import isfinite
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shopauto_pipelines.platform.playbook import (
    PLAYBOOK,
    Declaration,
    PlaybookError,
    declarations,
    once_per_change,
)
from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.language.syntax import Scalar
from shopauto_pipelines.segments.people import COLUMNS, COMPUTED
from shopauto_pipelines.segments.predicate import SEPARATOR, Predicate, PredicateError, parse
from shopauto_pipelines.segments.tables import TABLES

#: Names that would clash with the room's own assets and columns.
RESERVED = frozenset({table.name.split("/")[-1] for table in TABLES} | {"customer_id"})


class SegmentDeclaration(BaseModel):
    """People who meet a condition as of a day, are in one of some segments, and in none of others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name in snake_case: the asset is `segments/<name>`, and campaigns use it.")
    description: str = Field(min_length=1, description="Who these people are, in a sentence.")
    where: str | None = Field(
        None,
        description="SQL condition over columns of `features/customer_360`, `predictions/scores`, and "
        f"{', '.join(f'`{name}`' for name in COMPUTED)}; `as_of` is the day. "
        "`did('bought', category = 'tents', at_least => 2, within => 90)` asks for events, `in_segment('vip')` for segments. "
        "Needed unless there is an `include`.",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Values for the condition, by name: `:name` stands for a text, number, truth or date.",
    )
    include: list[str] = Field(default_factory=list, description="Segments: people must be in any of them.")
    exclude: list[str] = Field(default_factory=list, description="Segments: people must be in none of them.")
    each: str | None = Field(
        None, description="Text column: one segment per value, `<name>:<value>`. People without a value are in none."
    )
    minimum_size: int | None = Field(
        None, ge=1, description="With fewer members than this the members of `fallback` stand in for it as well."
    )
    fallback: str | None = Field(None, description="Segment whose members stand in where there are too few.")
    owner: str | None = Field(None, description="Who is asked about the segment: `team:<name>` or an e-mail address.")

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
            raise ValueError(f"{name!r} is not a name in snake_case, such as big_spenders")
        if name in RESERVED:
            raise ValueError(f"{name!r} is used by the program itself: choose another name")
        return name

    @field_validator("parameters")
    @classmethod
    def _scalars(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        return {name: _scalar(name, value) for name, value in parameters.items()}

    @field_validator("include", "exclude")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        for number, name in enumerate(names):
            if name in names[:number]:
                raise Misplaced(f"`{name}` is there twice", number)
        return names

    @field_validator("each")
    @classmethod
    def _column_of_values(cls, each: str | None) -> str | None:
        possible = [
            c.name for c in COLUMNS.values() if c.type == "string" and not c.private and c.name != "customer_id"
        ]
        if each is not None and each not in possible:
            raise ValueError(f"`{each}` is not a text column that segments can be made from; {nearest(each, possible)}")
        return each

    @field_validator("owner")
    @classmethod
    def _reachable_owner(cls, owner: str | None) -> str | None:
        if owner is not None and not re.fullmatch(r"team:\S+|[^@\s:]+@[^@\s]+", owner):
            raise ValueError(f"{owner!r} is neither team:<name> nor an e-mail address")
        return owner

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.where is None and not self.include:
            raise ValueError("`where` is missing: say who is in it by a condition, or by `include`")
        if both := sorted(set(self.include) & set(self.exclude)):
            raise Misplaced(
                f"`{both[0]}` is included, too: nobody would be in the segment", "exclude", self.exclude.index(both[0])
            )
        if self.fallback is not None and self.minimum_size is None:
            raise Misplaced(
                "`minimum_size` is missing: with fewer members than that the fallback stands in", "fallback"
            )
        if self.minimum_size is not None:
            if self.fallback is None:
                raise Misplaced("`fallback` is missing: the segment that stands in", "minimum_size")
            if self.each is not None:
                raise Misplaced("a segment with `each` has no minimum size: its values are many", "minimum_size")
        try:
            unused = sorted(self.parameters.keys() - self.predicate.parameters)
        except PredicateError as error:
            raise Misplaced(str(error), "where", at=error.at) from None
        if unused:
            raise Misplaced(f"`{unused[0]}` is not used: write `:{unused[0]}` in `where`", "parameters", unused[0])
        return self

    @cached_property
    def predicate(self) -> Predicate:
        """All of it as one condition: ``where``, in any of ``include``, in none of ``exclude``."""
        condition = parse(self.where if self.where is not None else "true", COLUMNS, self.parameters, EVENTS)
        return condition.within_segments(self.include, self.exclude)

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the people that the segment needs."""
        return self.predicate.columns | ({self.each} if self.each else frozenset())

    @property
    def refers_to(self) -> frozenset[str]:
        """Names of the segments, without values, that say who its own members are."""
        return frozenset(segment.name.partition(SEPARATOR)[0] for segment in self.predicate.segments)

    @property
    def falls_back_on(self) -> frozenset[str]:
        """Name of the segment, without a value, whose members stand in; empty where none does."""
        return frozenset({self.fallback.partition(SEPARATOR)[0]} if self.fallback else ())

    @property
    def rests_on(self) -> frozenset[str]:
        """Names of the segments, without values, that say who is in it, as an own member or standing in."""
        return self.refers_to | self.falls_back_on


def _scalar(name: str, value: Any) -> Scalar:
    """The value of a parameter; a text that is a date stands for the date, as not every reader of YAML tells them apart."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise Misplaced(f"{name!r} is not a name in snake_case, such as orders", name)
    if isinstance(value, str):
        with suppress(ValueError):
            return date.fromisoformat(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else value
    if isinstance(value, bool | int | str) or type(value) is date or (isinstance(value, float) and isfinite(value)):
        return value
    raise Misplaced("must be a text, a number, true or false, or a date such as 2025-12-31", name)


class Misplaced(ValueError):
    """What is wrong with a declaration as a whole, and the field at fault: its ``path``, and the place ``at`` in its text."""

    def __init__(self, message: str, *path: str | int, at: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.at = at


@once_per_change
def load_segments(folder: Path = PLAYBOOK) -> tuple[SegmentDeclaration, ...]:
    """All segments declared under ``folder``, by name.

    Raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError` with file, line and column for the first mistake.
    """
    segments: dict[str, SegmentDeclaration] = {}
    places: dict[str, Declaration] = {}
    for declaration in declarations("Segment", folder):
        segment = declaration.validated(SegmentDeclaration, "segment")
        if (first := places.get(segment.name)) is not None:
            where = f"{first.file.parent.name}/{first.file.name}:{first.line('name')}"
            raise declaration.error(f"segment {segment.name!r} is already declared at {where}", "name")
        segments[segment.name], places[segment.name] = segment, declaration
    for name, segment in segments.items():
        _check_references(segment, places[name], segments)
    _refuse_cycles(segments, places)
    return tuple(segments[name] for name in sorted(segments))


def _check_references(segment: SegmentDeclaration, place: Declaration, known: Mapping[str, SegmentDeclaration]) -> None:
    """Raise where a segment names one that does not exist, or that has no such values."""
    lists = [(name, (field, n)) for field in ("include", "exclude") for n, name in enumerate(getattr(segment, field))]
    fallback = [(segment.fallback, ("fallback",))] if segment.fallback else []
    for name, path in (*lists, *fallback):
        try:
            check_name(name, known.values())
        except ValueError as error:
            raise place.error(f"segment {path[0]}: {error}", *path) from None
    for reference in segment.predicate.segments:
        try:
            check_name(reference.name, known.values())
        except ValueError as error:
            raise place.error(f"segment where: {error}", "where", at=reference.at) from None
    if segment.fallback and known[segment.fallback.partition(SEPARATOR)[0]].each and SEPARATOR not in segment.fallback:
        message = f"segment fallback: `{segment.fallback}` is many segments: name one, {segment.fallback}:<value>"
        raise place.error(message, "fallback")


def _refuse_cycles(segments: Mapping[str, SegmentDeclaration], places: Mapping[str, Declaration]) -> None:
    """Raise where segments refer to each other, or fall back on each other, in a circle."""
    for graph, how in (
        ({name: segment.refers_to for name, segment in segments.items()}, "refers to"),
        ({name: segment.falls_back_on for name, segment in segments.items()}, "falls back on"),
    ):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            first = circle[0]
            message = f"segment {first!r} rests on itself: {f' {how} '.join(repr(name) for name in circle)}"
            raise _at_reference(places[first], segments[first], circle[1], message) from None


def _at_reference(place: Declaration, segment: SegmentDeclaration, other: str, message: str) -> PlaybookError:
    """An error where ``segment`` refers to ``other``."""
    for field in ("include", "exclude"):
        for number, name in enumerate(getattr(segment, field)):
            if name.partition(SEPARATOR)[0] == other:
                return place.error(message, field, number)
    for reference in segment.predicate.segments:
        if reference.name.partition(SEPARATOR)[0] == other:
            return place.error(message, "where", at=reference.at)
    return place.error(message, "fallback")


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
        hint = nearest(base, known, quote="'")
        raise ValueError(f"there is no segment {name!r}; {hint}")
    if separator and known[base].each is None:
        raise ValueError(f"segment {base!r} has no values to choose from: write {base!r} alone")
    if separator and not value:
        raise ValueError(
            f"segment {name!r} names no value: write {base!r}, or '{base}:' and a value of `{known[base].each}`"
        )
