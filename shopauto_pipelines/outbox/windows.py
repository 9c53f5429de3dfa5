"""Which days may still be sent for. A message about a day long gone helps nobody; a backfill must never send.

A day is judged by what cannot be set back: the shop's data, the ledger, and what the lake was told of earlier sends. The clock
can only close a day that these leave open.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import OWN_SOURCE, landed_days, read_manifest

#: How far the clocks of two machines may be apart.
_APART = timedelta(hours=1)


@dataclass(frozen=True)
class Window:
    """Whether a day's messages may leave, and why or why not."""

    open: bool
    why: str


class Past(NamedTuple):
    """What has been sent, whatever the clock says.

    ``later``: campaign and day of messages of a day after the one that is asked about. ``forgotten``: how many messages of the
    campaign's day the lake was told of and the ledger does not know. ``ahead``: when the ledger was written last, where that is
    yet to come by the clock.
    """

    later: tuple[str, date] | None = None
    forgotten: int = 0
    ahead: datetime | None = None


#: Nothing has been sent.
NOTHING = Past()


def newest_day(lake: Lake) -> date | None:
    """Newest day of the shop's data, landed or already written; our own message events, a day ahead, do not count."""
    landed = landed_days(lake)
    days = [lake.days(table)[-1:] for table in raw.CORE_TABLES if table is not raw.MESSAGE_EVENTS]
    return max([*(last for found in days for last in found), *([landed[1]] if landed else [])], default=None)


def look(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    clock: Clock,
    campaign: str,
    as_of: date,
    *,
    barred: str | None = None,
) -> Window:
    """Whether the campaign's messages of a day may leave, by all that is known. ``barred``: why not, whatever the day."""
    newest = newest_day(lake)
    if shut := _closed(as_of, newest, settings, clock, barred):
        return shut
    with engine.connect() as connection:
        return window(as_of, newest, settings, clock, past(connection, lake, settings, clock, campaign, as_of))


def closed(
    run_id: str, lake: Lake, settings: Settings, clock: Clock, as_of: date, *, barred: str | None = None
) -> Window | None:
    """Why nothing of a day can leave, whatever the campaign; ``None``: ask :func:`look`, which knows all reasons.

    For a run of many days and campaigns. Its newest day of data is looked for once: while the run goes on there may come a newer
    one, and where the data were set back what is closed here stays closed. So nothing is open that :func:`look` would close.
    """
    newest = _newest_of.get(run_id) or newest_day(lake)
    if newest is not None and run_id not in _newest_of:
        _newest_of.clear()
        _newest_of[run_id] = newest
    return _closed(as_of, newest, settings, clock, barred)


def _closed(as_of: date, newest: date | None, settings: Settings, clock: Clock, barred: str | None) -> Window | None:
    found = Window(False, barred) if barred else window(as_of, newest, settings, clock)
    return None if found.open else found


#: The newest day of data that the latest run of this process has found.
_newest_of: dict[str, date] = {}


def window(as_of: date, newest: date | None, settings: Settings, clock: Clock, past: Past = NOTHING) -> Window:
    """A day is open while it is the newest one with raw data; in live mode also only for ``live_grace_hours`` after it.

    A newest day that has only begun leaves the day before it open: sources tell of this morning, too. Days end at midnight of
    the shop's time zone. A day that was the newest once stays closed where the data has been set back to it, and so
    does every day where the past says that the ledger, or the clock, has been set back.
    """
    if settings.known == "then":
        return Window(False, "a lake as known then never sends")
    if newest is None:
        return Window(False, "no raw data has been loaded")
    before = newest - timedelta(days=1)
    goes_on = clock.now() < _end(newest, settings)
    if settings.live and goes_on and as_of == newest:
        return Window(False, f"{as_of} ends only at {_end(newest, settings):%Y-%m-%d %H:%M} UTC")
    has_begun = goes_on and clock.now() >= _end(before, settings)
    last = before if as_of != newest and (has_begun or (settings.live and goes_on)) else newest
    if as_of != last:
        return Window(False, f"{as_of} is not the newest day with data, which is {last}")
    if past.later:
        campaign, day = past.later
        return Window(False, f"{as_of} is over: messages of {day} have been sent already ({campaign})")
    if past.forgotten:
        return Window(
            False,
            f"{past.forgotten:,} messages of {as_of} have left of which the ledger knows nothing: it has been set back, and "
            "they would leave again",
        )
    if settings.live:
        ends = _end(as_of, settings)
        closes = ends + timedelta(hours=settings.live_grace_hours)
        if clock.now() >= closes:
            return Window(False, f"live sends for {as_of} closed at {closes:%Y-%m-%d %H:%M} UTC")
        if clock.now() < ends:
            return Window(False, f"{as_of} ends only at {ends:%Y-%m-%d %H:%M} UTC")
        if past.ahead:
            return Window(
                False,
                f"the clock says {clock.now():%Y-%m-%d %H:%M} UTC, and messages left at {past.ahead:%Y-%m-%d %H:%M} already: it "
                "has been set back",
            )
    return Window(True, f"{as_of} is the newest day with data")


def _end(day: date, settings: Settings) -> datetime:
    return settings.midnight(day + timedelta(days=1)).astimezone(UTC)


def past(connection: sa.Connection, lake: Lake, settings: Settings, clock: Clock, campaign: str, as_of: date) -> Past:
    """What the ledger and the lake know of sends that speak against the campaign's day.

    Campaigns that are sent by the hour are always ahead of the data, so they close nothing. In live mode neither does what only
    went to the local inbox.
    """
    hourly = {each.name for each in load_campaigns().values() if each.is_realtime}
    shown_only = LocalInbox.name if settings.live else None
    told = landed_sends(lake)
    later = ledger.sent_later(connection, as_of, without=hourly, without_via=shown_only)
    if later is None:  # what the ledger knows has judged by now, and by the channel, which the lake is not told of
        later = next((one for one in _later(told, as_of, hourly) if _forgotten(connection, told, *one)), None)
    ahead = ledger.settled_after(connection, clock.now() + _APART) if settings.live else None
    return Past(later, _forgotten(connection, told, campaign, as_of), ahead)


def landed_sends(lake: Lake) -> dict[tuple[str, date], int]:
    """How many messages of each campaign and day the lake was told to have been sent."""
    return {
        (name[1], date.fromisoformat(name[2])): known.counts["read"]
        for known in read_manifest(lake, OWN_SOURCE).files.values()
        if (name := re.fullmatch(r"(\w+)-(\d{4}-\d\d-\d\d)\.parquet", known.file))
    }


def _later(told: Iterable[tuple[str, date]], as_of: date, without: Collection[str]) -> list[tuple[str, date]]:
    """Campaigns and days after ``as_of`` that the lake was told of, the latest day first."""
    found = sorted(((day, campaign) for campaign, day in told if day > as_of and campaign not in without), reverse=True)
    return [(campaign, day) for day, campaign in found]


def _forgotten(connection: sa.Connection, told: Mapping[tuple[str, date], int], campaign: str, as_of: date) -> int:
    """How many messages of a campaign and day the lake was told of and the ledger does not know."""
    landed = told.get((campaign, as_of), 0)
    return max(0, landed - ledger.sent_count(connection, campaign, as_of)) if landed else 0
