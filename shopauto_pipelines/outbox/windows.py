"""Which days may still be sent for. A message about a day long gone helps nobody; a backfill must never send."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, timedelta

from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import landed_days


@dataclass(frozen=True)
class Window:
    """Whether a day's messages may leave, and why or why not."""

    open: bool
    why: str


def newest_day(lake: Lake) -> date | None:
    """Newest day of the shop's data, landed or already written; our own message events, a day ahead, do not count."""
    landed = landed_days(lake)
    days = [lake.days(table)[-1:] for table in raw.CORE_TABLES if table is not raw.MESSAGE_EVENTS]
    return max([*(last for found in days for last in found), *([landed[1]] if landed else [])], default=None)


def window(as_of: date, newest: date | None, settings: Settings, clock: Clock, *, backfill: bool = False) -> Window:
    """A day is open while it is the newest one with raw data; in live mode also only for ``live_grace_hours`` after it.

    The day ends at midnight of the shop's time zone. A ``backfill`` finds every window closed.
    """
    if backfill:
        return Window(False, "a backfill never sends")
    if newest is None:
        return Window(False, "no raw data has been loaded")
    if as_of != newest:
        return Window(False, f"{as_of} is not the newest day with data, which is {newest}")
    if settings.live:
        ends = settings.midnight(as_of + timedelta(days=1)).astimezone(UTC)
        closes = ends + timedelta(hours=settings.live_grace_hours)
        if clock.now() >= closes:
            return Window(False, f"live sends for {as_of} closed at {closes:%Y-%m-%d %H:%M} UTC")
        if clock.now() < ends:
            return Window(False, f"{as_of} ends only at {ends:%Y-%m-%d %H:%M} UTC")
    return Window(True, f"{as_of} is the newest day with data")
