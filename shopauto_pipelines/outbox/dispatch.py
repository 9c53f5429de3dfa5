"""The dispatcher: takes a campaign's audience of a day through the ledger to a channel, once.

Every step can be interrupted and run again, by several processes at once: planning adds only what is missing, a
reservation belongs to one dispatcher, and what a dead one left behind is settled by asking the channel. Messages are
handled in batches of at most 1,000, whatever the size of the audience.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar

import ibis
import pyarrow as pa
import sqlalchemy as sa

from shopauto_pipelines.campaigns import tables as campaign_tables
from shopauto_pipelines.campaigns.content import ContentError, Renderer
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.products import Showcase
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.outbox import ledger, links
from shopauto_pipelines.outbox.channels import Channel, Envelope, Outcome
from shopauto_pipelines.outbox.windows import Window, newest_day, window
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import OWN_SOURCE, land_rows

_Row = TypeVar("_Row")

#: Most messages planned, reserved or sent at once.
BATCH = 1000

#: Which column of ``profiles/customers`` a channel writes to.
_ADDRESS = {"email": "email", "sms": "phone"}


@dataclass(frozen=True)
class Dispatched:
    """What a dispatch found and did.

    ``states`` are the ledger's messages of the campaign and day by (state, reason), whoever sent them; ``refused`` the
    audience's refusals by reason. ``sent`` counts what this dispatch sent, ``deferred`` says why it stopped early.
    """

    window: Window
    states: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    newly_planned: int = 0
    sent: int = 0
    recovered: int = 0
    deferred: str | None = None

    def count(self, state: str) -> int:
        """Messages in a state."""
        return sum(n for (found, _), n in self.states.items() if found == state)


def channel_for(settings: Settings) -> Channel:
    """The local inbox, unless live mode is declared."""
    if settings.live:
        from shopauto_pipelines.outbox.channels.sendgrid import SendGrid

        return SendGrid(settings)
    from shopauto_pipelines.outbox.channels.inbox import LocalInbox

    return LocalInbox(settings)


def dispatch(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    campaign: Campaign,
    as_of: date,
    *,
    clock: Clock,
    run_id: str | None = None,
    backfill: bool = False,
    channel: Channel | None = None,
) -> Dispatched:
    """Send what ``campaigns/<name>/audience`` planned for ``as_of``, where its window is open.

    Reports its progress through :func:`~shopauto_pipelines.platform.progress.report`. Raises
    :class:`~shopauto_pipelines.platform.lake.MissingPartition` where the day's audience or profiles are missing.
    """
    refused = _refused(lake, campaign.name, as_of)
    found = window(as_of, newest_day(lake), settings, clock, backfill=backfill)
    planned, sent, recovered, deferred = 0, 0, 0, None
    if found.open:
        to = channel or channel_for(settings)
        try:
            recovered = recover(engine, lake, settings, to, clock)
            planned = _plan(engine, lake, settings, campaign.name, as_of, run_id, clock)
            sent, deferred = _send_all(engine, lake, settings, campaign, as_of, to, clock)
        finally:
            if channel is None:
                to.close()
    land_sent(engine, lake, settings, campaign.name, as_of)
    with engine.connect() as connection:
        states = ledger.counts(connection, campaign.name, as_of)
    return Dispatched(found, states, refused, planned, sent, recovered, deferred)


def recover(engine: sa.Engine, lake: Lake, settings: Settings, channel: Channel, clock: Clock) -> int:
    """Settle what dead dispatchers had reserved, of any campaign, by asking the channel; returns how many messages."""
    count = 0
    touched: set[tuple[str, date]] = set()
    with engine.begin() as connection, ledger.abandoned(connection, channel.name) as left:
        for name, messages in left:
            outcomes = [_settled(m.id, channel.recall(links.reference(m.key))) for m in messages]
            touched |= {(message.key.campaign, message.as_of) for message in messages}
            for part in _batches(outcomes):
                count += ledger.settle(connection, part, by=name, at=clock.now())
    for campaign, as_of in sorted(touched):
        land_sent(engine, lake, settings, campaign, as_of)
    return count


def land_sent(engine: sa.Engine, lake: Lake, settings: Settings, campaign: str, as_of: date) -> None:
    """Hand what was sent for a day to the sources, as message events of the next morning: caps and reports read them.

    Idempotent: the same ledger gives the same rows, so a day that is run again mends what a crash kept from landing.
    """
    morning = datetime.combine(as_of + timedelta(days=1), time(), settings.zone).astimezone(UTC).replace(tzinfo=None)
    columns: dict[str, list[Any]] = {column.name: [] for column in raw.MESSAGE_EVENTS.columns[: -len(raw.LINEAGE)]}
    with engine.begin() as connection:
        # one at a time, from reading to landing: a slower dispatcher must not land what it read before a faster one
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("shopauto.land_sent"))))
        for key, channel in ledger.sent_keys(connection, campaign, as_of):
            message_id = ":".join(key)
            row = {
                "event_id": f"{message_id}:sent",
                "happened_at": morning,
                "type": "sent",
                "message_id": message_id,
                "shop_customer_id": key.customer_id,
                "channel": channel,
                "campaign": campaign,
                "is_machine": False,
            }
            for name, values in columns.items():
                values.append(row[name])
        schema = pa.schema([raw.MESSAGE_EVENTS.arrow_schema.field(name) for name in columns])
        if columns["event_id"]:
            rows = pa.table(columns, schema=schema)
            land_rows(lake, OWN_SOURCE, raw.MESSAGE_EVENTS, name=f"{campaign}-{as_of}", rows=rows, settings=settings)


def _refused(lake: Lake, campaign: str, as_of: date) -> dict[str, int]:
    audience = lake.on(campaign_tables.audience(campaign), as_of)
    reasons = audience.filter(ibis._.decision == "refused").group_by("reason").agg(n=ibis._.count()).order_by("reason")
    found = lake.con.to_pyarrow(reasons).to_pydict()
    return dict(zip(found["reason"], found["n"], strict=True))


def _plan(
    engine: sa.Engine, lake: Lake, settings: Settings, campaign: str, as_of: date, run_id: str | None, clock: Clock
) -> int:
    """Put the audience's planned rows into the ledger; returns how many were new."""
    customers = lake.on(profiles.CUSTOMERS, as_of).select("customer_id", "email", "phone")
    audience = lake.on(campaign_tables.audience(campaign), as_of).filter(ibis._.decision == "planned")
    wanted = audience.left_join(customers, "customer_id").select(
        "step", "customer_id", "occasion", "channel", "template", "language", "explanation", "email", "phone"
    )
    ordered = wanted.order_by("step", "customer_id", "occasion")
    new = 0
    for batch in lake.con.to_pyarrow_batches(ordered, chunk_size=BATCH):
        for part in _batches(batch.to_pylist()):
            rows = []
            for row in part:
                address = row[_ADDRESS[row["channel"]]]
                del row["email"], row["phone"]
                row |= {
                    "campaign": campaign,
                    "as_of": as_of,
                    "explanation": json.loads(row["explanation"]),
                    "address_hash": links.address_hash(settings.hash_key, row["channel"], address),
                }
                rows.append(row)
            with engine.begin() as connection:
                new += ledger.plan(connection, rows, run_id=run_id, at=clock.now())
    return new


def _send_all(
    engine: sa.Engine, lake: Lake, settings: Settings, campaign: Campaign, as_of: date, channel: Channel, clock: Clock
) -> tuple[int, str | None]:
    """Reserve, render, send and settle until nothing is planned; how many were sent, and why it stopped early."""
    writer = _Writer(lake, settings, campaign, as_of)
    cap = ledger.Cap(settings.cap_messages, settings.cap_days)
    with engine.connect() as connection:
        states = ledger.counts(connection, campaign.name, as_of)
    waiting = sum(n for (state, _), n in states.items() if state == "planned")
    done = sent = 0
    with ledger.dispatcher(engine) as me:
        while True:
            with engine.begin() as connection:
                taken, looked_at = ledger.reserve(
                    connection,
                    campaign=campaign.name,
                    as_of=as_of,
                    limit=min(BATCH, channel.batch_size),
                    by=me,
                    via=channel.name,
                    cap=cap,
                    at=clock.now(),
                )
            if not looked_at:
                return sent, None
            envelopes, outcomes = writer.write(taken)
            answers = channel.send(envelopes)
            outcomes |= {e.message_id: answer for e, answer in zip(envelopes, answers, strict=True)}
            settled = [_settled(message_id, outcome) for message_id, outcome in outcomes.items()]
            with engine.begin() as connection:
                ledger.settle(connection, settled, by=me, at=clock.now())
            sent += sum(outcome.state == "sent" for outcome in outcomes.values())
            done += looked_at
            report(f"outbox/{campaign.name}", done, max(done, waiting))
            deferred = next((o.reason for o in outcomes.values() if o.state == "deferred"), None)
            if deferred:
                return sent, deferred


class _Writer:
    """Turns reserved messages into rendered, addressed ones. Names and addresses are read for a batch at a time."""

    def __init__(self, lake: Lake, settings: Settings, campaign: Campaign, as_of: date) -> None:
        self._lake, self._settings = lake, settings
        self._renderer = Renderer(campaign, settings)
        favourites = lake.on(CUSTOMER_FEATURES, as_of).select("customer_id", "favourite_category")
        self._people = lake.on(profiles.CUSTOMERS, as_of).left_join(favourites, "customer_id").drop("customer_id_right")
        self._showcase = Showcase.read(lake, as_of)

    def write(self, taken: Sequence[ledger.Message]) -> tuple[list[Envelope], dict[int, Outcome]]:
        """The envelopes, and the outcome of each message that cannot be put into one, by its number."""
        envelopes: list[Envelope] = []
        outcomes: dict[int, Outcome] = {}
        wanted = sorted({message.key.customer_id for message in taken})
        found = self._lake.con.to_pyarrow(self._people.filter(ibis._.customer_id.isin(wanted))) if wanted else None
        people = {person["customer_id"]: person for person in found.to_pylist()} if found else {}
        for message in taken:
            person = people.get(message.key.customer_id, {})
            address = person.get(_ADDRESS[message.channel])
            hashed = links.address_hash(self._settings.hash_key, message.channel, address)
            if not address or hashed != message.address_hash:
                outcomes[message.id] = Outcome("failed", "the address has changed since it was planned")
                continue
            try:
                envelopes.append(self._envelope(message, person, address))
            except ContentError as error:
                outcomes[message.id] = Outcome("failed", f"not rendered: {error}"[:200])
        return envelopes, outcomes

    def _envelope(self, message: ledger.Message, person: Mapping[str, Any], address: str) -> Envelope:
        token = links.unsubscribe_token(self._settings.hash_key, message.id, message.key)
        unsubscribe = f"{self._settings.base_url.rstrip('/')}/u/{token}"
        goods = self._showcase.of(person["favourite_category"])
        rendered = self._renderer.render(
            message.key.step, message.language, person, {"unsubscribe": unsubscribe}, goods
        )
        return Envelope(
            message_id=message.id,
            reference=links.reference(message.key),
            key=message.key,
            channel=message.channel,
            to=address,
            to_name=" ".join(name for name in (person["first_name"], person["last_name"]) if name),
            subject=rendered.subject,
            html=rendered.html,
            text=rendered.text,
            language=message.language,
            unsubscribe_url=unsubscribe,
            explanation=message.explanation,
            date=datetime.combine(message.as_of + timedelta(days=1), time(), UTC),
        )


def _settled(message_id: int, outcome: Outcome) -> ledger.Settled:
    state = "planned" if outcome.state == "deferred" else outcome.state
    return ledger.Settled(message_id, state, outcome.reason, outcome.provider_id)


def _batches(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
