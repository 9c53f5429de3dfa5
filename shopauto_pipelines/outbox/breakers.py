"""What stops a campaign by itself: too many complaints or bounces, and the first stage of a large one.

A breaker that trips pauses the campaign through its switch, with the reason; a person resumes it. A staged roll-out lets a
small share of a large audience go first, so that a bad message is noticed by few; the rest goes once the wait is over and
no breaker has tripped. Nothing here sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil

import sqlalchemy as sa

from shopauto_pipelines.outbox import controls, ledger
from shopauto_pipelines.outbox.schema import messages, open_messages
from shopauto_pipelines.platform.settings import Settings

#: How far back a rate looks, and the fewest complaints or bounces that can trip: one angry reader is no rate.
_WINDOW, _FEWEST = timedelta(hours=24), 3

#: Who the switch says has paused the campaign.
BREAKER = "breaker"

_GONE = ("reserved", "sent", "failed", "unknown")


@dataclass(frozen=True)
class Stage:
    """How many messages of a campaign and day may leave now (``None``: all), why not more, and when the rest may."""

    limit: int | None = None
    why: str | None = None
    rest_from: datetime | None = None


def trip(
    connection: sa.Connection, settings: Settings, campaign: str, as_of: date | None = None, *, at: datetime
) -> str | None:
    """Pause the campaign where its complaints or bounces are too many; returns why, ``None`` where they are not.

    Rates are of the messages sent in the last 24 hours, or since the campaign was last resumed: complaints by what was
    delivered, bounces by what was sent. Few messages are not judged, unless they are the first stage of the day ``as_of``.
    """
    resumed = (switch.at for switch in controls.controls(connection) if switch.scope == campaign and not switch.paused)
    found = ledger.rates(connection, campaign, max([at - _WINDOW, *resumed]))
    judged = {
        "complaints": (found.complained, found.delivered, settings.breaker_complaint_percent),
        "bounces": (found.bounced, found.sent, settings.breaker_bounce_percent),
    }
    for what, (count, of, limit) in judged.items():
        too_many = of and count >= _FEWEST and 100 * count > limit * of
        if too_many and (of >= settings.breaker_messages or _first_has_gone(connection, settings, campaign, as_of)):
            why = f"{count:,} {what} among {of:,} messages are {100 * count / of:.2f} %, the limit is {limit:g} %"
            controls.pause(connection, campaign, why, BREAKER, at)
            return why
    return None


def stage(connection: sa.Connection, settings: Settings, campaign: str, as_of: date, *, at: datetime) -> Stage:
    """How much of the campaign's day may leave now. Everything, unless in live mode the audience is large."""
    if (found := _roll_out(connection, settings, campaign, as_of)) is None:
        return Stage()
    first, gone, total = found
    wait = timedelta(minutes=settings.rollout_wait_minutes)
    named = f"the first {first:,} of {total:,} messages"
    if gone < first:
        return Stage(first - gone, f"{named} go now, the rest once complaints and bounces are known", at + wait)
    # people's hours spread the first stage over the day: the wait begins when it is full
    went_at = sa.func.coalesce(messages.c.settled_at, messages.c.reserved_at)
    filled = connection.execute(
        sa.select(went_at)
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of, messages.c.state.in_(_GONE))
        .order_by(went_at)
        .offset(first - 1)
        .limit(1)
    ).scalar()
    if filled is not None and at < filled + wait:
        return Stage(0, f"{named} have gone, the rest waits for complaints and bounces", filled + wait)
    return Stage()


def _roll_out(connection: sa.Connection, settings: Settings, campaign: str, as_of: date) -> tuple[int, int, int] | None:
    """How many messages of a day go first, how many have gone, and of how many; ``None`` where there are no stages."""
    if not settings.live or settings.rollout_percent >= 100:
        return None
    counts = ledger.counts(connection, campaign, as_of)
    total = sum(n for (state, _), n in counts.items() if state != "suppressed")
    if total < settings.rollout_from:
        return None
    gone = sum(n for (state, _), n in counts.items() if state in _GONE)
    return ceil(total * settings.rollout_percent / 100), gone, total


def _first_has_gone(connection: sa.Connection, settings: Settings, campaign: str, as_of: date | None) -> bool:
    found = _roll_out(connection, settings, campaign, as_of) if as_of else None
    return found is not None and found[0] <= found[1]


def rests_due(connection: sa.Connection, settings: Settings, *, at: datetime) -> list[tuple[str, date, int]]:
    """Campaigns and days whose first stage has gone and whose rest may leave now, with how many messages have gone."""
    planned = connection.execute(
        sa.select(open_messages.c.campaign, sa.func.max(open_messages.c.as_of))
        .where(open_messages.c.planned)
        .group_by(open_messages.c.campaign)
        .order_by(open_messages.c.campaign)
    ).all()
    due = []
    for campaign, as_of in planned:
        counts = ledger.counts(connection, campaign, as_of)
        gone = sum(n for (state, _), n in counts.items() if state in _GONE)
        total = gone + sum(n for (state, _), n in counts.items() if state == "planned")
        staged = settings.live and settings.rollout_percent < 100 and total >= settings.rollout_from
        may = staged and gone and not controls.stopped(connection, campaign)
        if may and stage(connection, settings, campaign, as_of, at=at).limit is None:
            due.append((campaign, as_of, gone))
    return due
