"""What an explanation is made of: steps with their marks, parts below them, and rows of the shop's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any, Literal

#: ``yes``: it holds, or speaks for the message; ``no``: it stops it; ``unknown``: nobody asked or knows; ``fact``: neither.
Mark = Literal["yes", "no", "unknown", "fact"]

#: How marks are shown.
MARKS: Mapping[Mark, str] = {"yes": "✓", "no": "✗", "unknown": "?", "fact": "·"}


@dataclass(frozen=True)
class Row:
    """A row of a raw table with its place: ``number`` is the data row of the ``file``, or the key in a database table.

    ``values`` are its columns that are not private and not empty.
    """

    table: str
    source: str
    file: str
    number: int
    day: date
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.file}, row {self.number} (source {self.source})"

    @property
    def words(self) -> str:
        """What it says."""
        return ", ".join(f"{name} {shown(value)}" for name, value in self.values.items())


@dataclass(frozen=True)
class Part:
    """Something that is said below a step; ``aside`` are the values it rests on, ``change`` what it moved a score by."""

    text: str
    mark: Mark = "fact"
    aside: str = ""
    parts: tuple[Part, ...] = ()
    rows: tuple[Row, ...] = ()
    change: float | None = None

    def lines(self, depth: int = 0) -> Iterator[tuple[int, Part]]:
        """This part and all below it, each with its depth."""
        yield depth, self
        for part in self.parts:
            yield from part.lines(depth + 1)


@dataclass(frozen=True)
class Step:
    """One question, in the order the planner asks them.

    ``decided``: the planner's reason is from here; ``asked``: false where it had decided before, and of scores
    where the campaign does not rest on them.
    """

    key: str
    title: str
    mark: Mark
    text: str
    parts: tuple[Part, ...] = ()
    rows: tuple[Row, ...] = ()
    decided: bool = False
    asked: bool = True


@dataclass(frozen=True)
class Explanation:
    """Why one person got one message, or did not.

    ``decision`` and ``reason`` are the planner's; ``decision`` is none where the trigger has not made the step due. ``state`` is
    the ledger's of now, ``message_id`` its number; none where the ledger does not know the message. What was refused that day and
    planned on a later one has no ``state`` either.
    """

    customer_id: str
    campaign: str
    step: str
    occasion: str | None
    as_of: date
    decision: str | None
    reason: str | None
    state: str | None
    message_id: int | None
    headline: str
    steps: tuple[Step, ...]

    @property
    def mark(self) -> Mark:
        """Whether it was sent or is on its way; unknown where the ledger cannot tell."""
        if self.state is None:
            return "unknown" if self.decision == "planned" else "no"
        return "no" if self.state in ("failed", "suppressed") else "unknown" if self.state == "unknown" else "yes"

    def of(self, key: str) -> Step:
        """The step with this key; raises ``KeyError``."""
        for step in self.steps:
            if step.key == key:
                return step
        raise KeyError(key)


@dataclass(frozen=True)
class Standing:
    """What a campaign said to a person on a day, in a line; ``step`` is none where it has none for them."""

    campaign: str
    step: str | None
    mark: Mark
    reason: str | None
    text: str


@dataclass(frozen=True)
class Overview:
    """What every campaign said to a person on a day: those that reached them, and those that could have."""

    customer_id: str
    as_of: date
    reached: tuple[Standing, ...]
    others: tuple[Standing, ...] = field(default=())


def as_json(told: Explanation | Overview) -> dict[str, Any]:
    """As values of JSON: what is empty is left out."""
    return _plain(asdict(told))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _plain(each) for name, each in value.items()}
        return {
            name: each
            for name, each in kept.items()
            if each not in ("", [], {}) and (name != "change" or each is not None)
        }
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, date | datetime):
        return value.isoformat()
    return value


def shown(value: Any) -> str:
    """A value in words."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)


def counted(count: int, what: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
