"""A batch of carts that are due: whose they are, what the planner says to them, ledger, channel.

The cart and what happened to it are known to the second, everything else about a person as of the newest day that has been
computed. Every step can be interrupted and run again: what a batch has planned and sent is not planned and sent again.
Finding the batches is the sensor's work.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.live import CartTrigger, decide, realtime
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.channels import Channel
from shopauto_pipelines.outbox.channels.choice import channel_for
from shopauto_pipelines.outbox.dispatch import ledger_rows, recover
from shopauto_pipelines.outbox.granting import offers_of, store, take_back
from shopauto_pipelines.outbox.people import People
from shopauto_pipelines.outbox.schema import messages, offers
from shopauto_pipelines.outbox.sending import Sent, send_planned
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CUSTOMERS, IDENTITIES
from shopauto_pipelines.realtime import carts
from shopauto_pipelines.segments.tables import MEMBERSHIP

#: What must have been computed of a day for its people to be written to.
PROFILE_TABLES = (CUSTOMERS, IDENTITIES, CUSTOMER_FEATURES, CUSTOMER_360, SCORES, MEMBERSHIP)

#: Most carts of one batch.
MOST_CARTS = 10_000

#: Why a cart's owner gets nothing, beside the planner's reasons: nobody knows who they are; the decision failed.
UNKNOWN, UNDECIDABLE = "unknown_visitor", "undecidable"

#: Carts on which the decision may fail. Where there are more of them, it is not the carts.
_MOST_UNDECIDABLE = 10

_log = logging.getLogger(__name__)

_LOCK = sa.func.hashtext("shopauto.abandoned_carts")


class ProfileError(ShopAutoError):
    """There are no profiles to write to, or they are too old."""


@dataclass(frozen=True)
class Handled:
    """What became of a batch.

    ``refused`` are people and steps by the planner's reason, and carts of nobody we know. ``seconds`` are those from the
    moment a step was due to its reservation, right before the provider is called, of each message of the batch that left.
    """

    carts: int
    profile_day: date
    planned: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    recovered: int = 0
    work: Mapping[str, Sent] = field(default_factory=dict)
    seconds: Sequence[float] = ()

    @property
    def sent(self) -> int:
        """Messages that left."""
        return sum(sent.messages for sent in self.work.values())

    @property
    def complaints(self) -> list[str]:
        """What somebody has to look at, a sentence a campaign."""
        return [
            f"{name}: {'; '.join(filter(None, (sent.stopped, *sent.trouble)))}"
            for name, sent in self.work.items()
            if sent.stopped or sent.trouble
        ]


def handle(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    campaigns: Iterable[Campaign],
    first: int,
    last: int,
    *,
    clock: Clock,
    run_id: str | None = None,
    channel: Channel | None = None,
) -> Handled:
    """Send what is due to the owners of the queued carts ``first`` … ``last``; one batch at a time, others wait.

    Raises :class:`ProfileError` where no day has been computed, or, in live mode, none of the last
    ``realtime_profile_days``.
    """
    current = live_settings.current(engine, settings)
    to = channel or channel_for(settings)
    try:
        with _alone(engine):
            day = profile_day(lake, current, clock.now())
            recovered = recover(engine, lake, settings, to, clock)
            with engine.begin() as connection:
                found = carts.due(connection, first, last)
            batch = _Batch(engine, lake, current, day, found, clock, run_id)
            done = [batch.plan(campaign) for campaign in realtime(campaigns)]
            work = {
                campaign.name: send_planned(
                    engine, lake, settings, campaign, batch.as_of, to, clock, profile_day=day, staged=False
                )
                for campaign in realtime(campaigns)
            }
            for campaign in realtime(campaigns):
                take_back(engine, settings, campaign, clock.now())
            return Handled(
                carts=len(found),
                profile_day=day,
                planned=sum(done),
                refused=dict(batch.refused.most_common()),
                recovered=recovered,
                work=work,
                seconds=batch.seconds(),
            )
    finally:
        if channel is None:
            to.close()


def profile_day(lake: Lake, settings: Settings, now: datetime) -> date:
    """The newest day of which all that is known of people has been computed; raises :class:`ProfileError`."""
    days = set.intersection(*(set(lake.days(table)) for table in PROFILE_TABLES))
    if not days:
        raise ProfileError("no day has been computed yet, so nobody is known to write to: run `shopauto refresh`")
    newest = max(days)
    age = (now.astimezone(settings.zone).date() - newest).days
    if settings.live and age < 0:
        raise ProfileError(
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, and {newest} has been computed: the clock has been set back"
        )
    if settings.live and age > settings.realtime_profile_days:
        raise ProfileError(
            f"the newest computed day is {newest}, {age} days ago, and messages about carts rest on profiles of at most "
            f"{settings.realtime_profile_days} days (SHOPAUTO_REALTIME_PROFILE_DAYS): run `shopauto refresh`"
        )
    return newest


def is_at_work(connection: sa.Connection) -> bool:
    """Whether a process handles a batch at this moment; on whatever machine, however it ends."""
    free = connection.execute(sa.select(sa.func.pg_try_advisory_lock_shared(_LOCK))).scalar_one()
    if free:
        connection.execute(sa.select(sa.func.pg_advisory_unlock_shared(_LOCK)))
    return not free


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(_LOCK)))
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))


class _Batch:
    """The carts of a run, and what is planned for their owners."""

    def __init__(
        self,
        engine: sa.Engine,
        lake: Lake,
        settings: Settings,
        profile_day: date,
        found: Sequence[carts.DueCart],
        clock: Clock,
        run_id: str | None,
    ) -> None:
        self._engine, self._lake, self._settings, self._clock, self._run_id = engine, lake, settings, clock, run_id
        self._day = profile_day
        self._people = People(lake, profile_day)
        self._triggers = [
            CartTrigger(c.customer_id, c.cart_id, c.triggered_at, c.waited, c.contents, c.ordered, c.changed)
            for c in found
            if c.customer_id is not None
        ]
        self._due: dict[tuple[str, str, str, str], datetime] = {}
        self.refused: Counter[str] = Counter(
            {UNKNOWN: unknown} if (unknown := len(found) - len(self._triggers)) else {}
        )
        self.as_of = clock.now().astimezone(settings.zone).date() - timedelta(days=1)

    def plan(self, campaign: Campaign) -> int:
        """Put what the planner decides into the ledger, and the offers beside it; returns how many messages are new."""
        now = self._clock.now()
        waits = campaign.waits(timedelta(minutes=self._settings.cart_abandoned_minutes))
        rows = self._decided(campaign, self._triggers, now, self._offered(now))
        planned = [row for row in rows if row["decision"] == "planned"]
        self.refused.update(row["reason"] for row in rows if row["decision"] != "planned")
        for row in planned:
            key = (campaign.name, row["step"], row["customer_id"], row["occasion"])
            self._due[key] = row["triggered_at"] + waits[row["step"]].after
        by_day: dict[date, list[dict[str, Any]]] = {}
        for row in planned:
            by_day.setdefault(self._day_of(row["send_from"]), []).append(row)
        written = [
            message
            for day, rows in by_day.items()
            for message in ledger_rows(rows, self._people, self._settings, campaign, day)
        ]
        granted = [row["offer"] for row in planned if row["offer"]]
        late = {step: now - wait.after - wait.valid for step, wait in waits.items()}
        with self._engine.begin() as connection:
            store(connection, granted)
            new = ledger.plan(connection, written, run_id=self._run_id, at=now)
            ledger.expire(connection, campaign.name, self.as_of, at=now, late=late)
        return new

    def _day_of(self, send_from: datetime) -> date:
        """The day that a message is of: what waits for the morning is of the day that the morning follows."""
        leaves_on = send_from.replace(tzinfo=UTC).astimezone(self._settings.zone).date()
        return max(self.as_of, leaves_on - timedelta(days=1))

    def _decided(
        self, campaign: Campaign, triggers: Sequence[CartTrigger], now: datetime, offered: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """The planner's rows. A cart that nobody foresaw is left out, for it must not hold all others up for ever."""
        try:
            return decide(
                campaign, triggers, self._lake, self._settings, profile_day=self._day, now=now, offered=offered
            )
        except ShopAutoError:
            raise
        except Exception as error:
            if len(triggers) > 1:
                half = len(triggers) // 2
                parts = (triggers[:half], triggers[half:])
                return [row for part in parts for row in self._decided(campaign, part, now, offered)]
            if not triggers or self.refused[UNDECIDABLE] == _MOST_UNDECIDABLE:
                raise
            _log.error("no decision on the cart %s: %s", triggers[0].occasion, type(error).__name__)
            self.refused[UNDECIDABLE] += 1
            return []

    def seconds(self) -> list[float]:
        """Of each planned message that left: seconds from when it was due to its reservation, the shortest first."""
        wanted = sa.select(*(messages.c[name] for name in ledger.MessageKey._fields), messages.c.reserved_at).where(
            messages.c.campaign.in_({key[0] for key in self._due}),
            messages.c.as_of == self.as_of,
            messages.c.state == "sent",
            messages.c.occasion == sa.any_(sa.cast(sorted({key[3] for key in self._due}), ARRAY(sa.Text))),
        )
        with self._engine.connect() as connection:
            found = {tuple(row[:4]): row[4] for row in connection.execute(wanted)}
        return sorted((found[key] - due).total_seconds() for key, due in self._due.items() if key in found)

    def _offered(self, now: datetime) -> list[dict[str, Any]]:
        """What these people were offered within the cap's days, and for these carts."""
        persons = self._people.persons(trigger.customer_id for trigger in self._triggers).values()
        occasions = sorted({trigger.occasion for trigger in self._triggers})
        for_these = offers.c.occasion == sa.any_(sa.cast(occasions, ARRAY(sa.Text)))
        with self._engine.connect() as connection:
            return offers_of(connection, persons, self._people, for_these, settings=self._settings, now=now)
