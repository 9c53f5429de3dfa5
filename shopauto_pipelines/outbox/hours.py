"""Whether a message's hour has come: what a reservation asks, and what tells a sensor that there is something to send.

A message leaves from its ``send_from`` on, and not while its reader's hours are quiet: those who come late to it wait for the
morning. Which hour is whose is the campaigns room's business. All of this holds in live mode: the inbox gets all at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.outbox import controls
from shopauto_pipelines.outbox.schema import open_messages
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.time_zones import hours_between


@dataclass(frozen=True)
class Hours:
    """From which hour to which nothing is sent, of the clock in ``time_zone`` for those whose own is not known.

    ``keeps_day``: a message that has not left on the date of its hour, by that clock, does not leave any more.
    """

    quiet_from: int
    quiet_to: int
    time_zone: str
    keeps_day: bool = False

    @classmethod
    def of(cls, settings: Settings, *, keeps_day: bool = False) -> Hours | None:
        """The hours in force; ``None`` where live mode is off: no message waits for its hour."""
        return cls(settings.quiet_from, settings.quiet_to, settings.timezone, keeps_day) if settings.live else None


def parameters(hours: Hours | None, at: datetime) -> Mapping[str, Any]:
    """The parameters of :func:`has_come` and :func:`day_is_over`."""
    asked = hours or Hours(0, 0, "UTC")
    return {
        "at_any_hour": hours is None,
        "now": at,
        "quiet_from": asked.quiet_from,
        "quiet_hours": hours_between(asked.quiet_from, asked.quiet_to),
        "clock": asked.time_zone,
        "keeps_day": asked.keeps_day,
    }


def has_come() -> sa.ColumnElement[bool]:
    """Whether an open message may leave at this hour; takes the :func:`parameters`."""
    now = sa.bindparam("now", type_=sa.DateTime(timezone=True))
    hour = sa.cast(sa.extract("hour", _shown(now, open_messages.c.time_zone)), sa.Integer)
    into = (hour - sa.bindparam("quiet_from", type_=sa.Integer) + 24) % 24
    return sa.or_(
        sa.bindparam("at_any_hour", type_=sa.Boolean),
        open_messages.c.send_from.is_(None),
        (open_messages.c.send_from <= now) & (into >= sa.bindparam("quiet_hours", type_=sa.Integer)),
    )


def day_is_over(message: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether a message that keeps its day comes too late for it; takes the :func:`parameters`."""
    now = sa.bindparam("now", type_=sa.DateTime(timezone=True))
    today, meant = (sa.cast(_shown(at, message.c.time_zone), sa.Date) for at in (now, message.c.send_from))
    return sa.bindparam("keeps_day", type_=sa.Boolean) & (today > meant)


def _shown(at: sa.ColumnElement[Any], time_zone: sa.ColumnElement[str]) -> sa.ColumnElement[datetime]:
    """What the person's clock shows at a moment."""
    return sa.func.timezone(sa.func.coalesce(time_zone, sa.bindparam("clock", type_=sa.Text)), at)


class Waiting(NamedTuple):
    """How many planned messages of a campaign and day wait for their hour, and when the first of them may leave, if later."""

    messages: int
    next_at: datetime | None


#: Nothing waits.
NOBODY_WAITS = Waiting(0, None)


def waiting(connection: sa.Connection, campaign: str, as_of: date, hours: Hours | None, at: datetime) -> Waiting:
    """What waits of a campaign and day."""
    now = sa.bindparam("now", type_=sa.DateTime(timezone=True))
    ahead = sa.func.min(open_messages.c.send_from).filter(open_messages.c.send_from > now)
    found = sa.select(sa.func.count(), ahead).where(
        open_messages.c.campaign == campaign, open_messages.c.as_of == as_of, open_messages.c.planned, ~has_come()
    )
    return Waiting(*connection.execute(found, parameters(hours, at)).one())


class Come(NamedTuple):
    """A campaign and day of which messages may leave at this hour."""

    campaign: str
    as_of: date
    messages: int


def come(connection: sa.Connection, hours: Hours | None, at: datetime) -> list[Come]:
    """Campaigns and days that have messages which have waited for this hour, but for campaigns that are stopped.

    Of a campaign there may be several days: messages about carts that are held over a night are of the day after.
    """
    of = (open_messages.c.campaign, open_messages.c.as_of)
    waited = open_messages.c.planned & open_messages.c.send_from.is_not(None) & has_come()
    found = sa.select(*of, sa.func.count()).where(waited).group_by(*of).order_by(*of)
    rows = [Come(*row) for row in connection.execute(found, parameters(hours, at))]
    return [row for row in rows if not controls.stopped(connection, row.campaign)]


def quarter(at: datetime) -> str:
    """The quarter of an hour of a moment, in UTC: what a sensor asks for at most once. Hours of all zones begin with one."""
    return f"{at.replace(minute=at.minute // 15 * 15):%Y-%m-%dT%H:%M}"
