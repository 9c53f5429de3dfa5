"""The time, passed in. Only fronts (command line, schedules, the outbox's live window) take a ``SystemClock``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the current time in UTC."""

    def now(self) -> datetime:
        """The current time, aware, UTC."""
        ...


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        """The machine's time in UTC."""
        return datetime.now(UTC)


@dataclass(frozen=True)
class FixedClock:
    """A clock that stands still: for replays and tests."""

    at: datetime

    def now(self) -> datetime:
        """Always ``at``, in UTC."""
        return self.at.astimezone(UTC)
