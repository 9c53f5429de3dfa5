"""The dispatcher: takes a campaign's audience of a day through the ledger to a channel, once.

Every step can be interrupted and run again, by several processes at once: planning adds only what is missing, a
reservation belongs to one dispatcher, and what a dead one left behind is settled by asking the channel. Messages are
handled in batches of at most 1,000, and a few batches are in memory, whatever the size of the audience. How a batch
leaves is in ``sending``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, timedelta
from functools import cache
from itertools import chain, islice
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from shopauto_pipelines.campaigns import tables as campaign_tables
from shopauto_pipelines.campaigns.audience import counts as decided
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.outbox import dispatchers, ledger, links
from shopauto_pipelines.outbox.channels import Channel, Outcome
from shopauto_pipelines.outbox.channels.choice import channel_for
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.granting import take_back, with_codes
from shopauto_pipelines.outbox.hours import NOBODY_WAITS, Hours, Waiting, waiting
from shopauto_pipelines.outbox.people import People
from shopauto_pipelines.outbox.sending import ADDRESS, BATCH, Sent, send_planned, settled
from shopauto_pipelines.outbox.windows import Window, landed_sends, look
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import OWN_SOURCE, land_rows

_Row = TypeVar("_Row")

#: What a planned message takes over from the audience as it stands there.
FROM_AUDIENCE = ("step", "customer_id", "occasion", "channel", "template", "language", "explanation", "send_from")

#: What makes a message of a campaign the same message.
_IN_CAMPAIGN = ledger.MessageKey._fields[1:]


@dataclass(frozen=True)
class Dispatched:
    """What a dispatch found and did.

    ``states`` are the ledger's messages of the campaign and day by (state, reason), whoever sent them; ``refused`` the
    audience's refusals by reason. ``work`` is what this dispatch sent, how fast, and why it stopped early. ``waiting`` are the
    planned messages whose hour has not come.
    """

    window: Window
    states: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    newly_planned: int = 0
    work: Sent = field(default_factory=Sent)
    recovered: int = 0
    waiting: Waiting = NOBODY_WAITS

    @property
    def sent(self) -> int:
        """Messages that this dispatch sent."""
        return self.work.messages

    def count(self, state: str) -> int:
        """Messages in a state."""
        return sum(n for (found, _), n in self.states.items() if found == state)


def dispatch(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    campaign: Campaign,
    as_of: date,
    *,
    clock: Clock,
    run_id: str | None = None,
    barred: str | None = None,
    channel: Channel | None = None,
) -> Dispatched:
    """Send what ``campaigns/<name>/audience`` planned for ``as_of``, where its window is open.

    ``barred`` is why it must not, whatever the day.
    Reports its progress through :func:`~shopauto_pipelines.platform.progress.report`. Raises
    :class:`~shopauto_pipelines.platform.lake.MissingPartition` where the day's audience or profiles are missing.
    """
    refused = _refused(lake, campaign.name, as_of)
    found = look(engine, lake, settings, clock, campaign.name, as_of, barred=barred)
    planned, recovered, work = 0, 0, Sent()
    if found.open:
        to = channel or channel_for(settings)
        try:
            recovered = recover(engine, lake, settings, to, clock)
            planned = plan(engine, lake, settings, campaign, as_of, run_id=run_id, clock=clock)
            work = send_planned(engine, lake, settings, campaign, as_of, to, clock)
            take_back(engine, settings, campaign, clock.now())
        finally:
            if channel is None:
                to.close()
    land_sent(engine, lake, settings, campaign.name, as_of)
    with engine.connect() as connection:
        states = ledger.counts(connection, campaign.name, as_of)
        in_force = Hours.of(live_settings.current(connection, settings))
        held = waiting(connection, campaign.name, as_of, in_force, clock.now())
    return Dispatched(found, states, refused, planned, work, recovered, held)


def not_sent(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    campaign: Campaign,
    windows: Mapping[date, Window],
    *,
    clock: Clock,
) -> dict[date, Dispatched]:
    """What :func:`dispatch` says of days that are closed (``windows``), asked once for all of them.

    What was sent for them and was not landed is landed now. Raises ``MissingPartition`` as :func:`dispatch` does.
    """
    refused = {day: _refused(lake, campaign.name, day) for day in windows}
    if not windows:
        return {}
    with engine.connect() as connection:
        states = ledger.counts_by_day(connection, campaign.name, min(windows), max(windows))
    found = {day: Dispatched(shut, states.get(day, {}), refused[day]) for day, shut in windows.items()}
    told = landed_sends(lake) if any(of_day.count("sent") for of_day in found.values()) else {}
    for day, of_day in found.items():
        if of_day.count("sent") > told.get((campaign.name, day), 0):
            land_sent(engine, lake, settings, campaign.name, day)
        if of_day.count("planned"):
            with engine.connect() as connection:
                in_force = Hours.of(live_settings.current(connection, settings))
                held = waiting(connection, campaign.name, day, in_force, clock.now())
            found[day] = replace(of_day, waiting=held)
    return found


def recover(engine: sa.Engine, lake: Lake, settings: Settings, channel: Channel, clock: Clock) -> int:
    """Settle what dead dispatchers had reserved, of any campaign, by asking the channel; returns how many messages.

    What they had not handed over yet is planned again. What was handed to another channel than today's cannot be asked for,
    but in the local inbox, which is always there.
    """
    held = Outcome("deferred", "the dispatcher died before it handed it over")
    askable: dict[str, Channel] = {LocalInbox.name: LocalInbox(settings), channel.name: channel}
    gone = Outcome("unknown", "the dispatcher died while it sent, and its channel is not set up any more")
    count = 0
    touched: set[tuple[str, date]] = set()
    with engine.begin() as connection, dispatchers.abandoned(connection, at=clock.now()) as left:
        for found in left:
            outcomes = [settled(message.id, held) for message in found.held]
            for message in found.handed_over:
                asked = askable.get(message.via or "")
                outcome = asked.recall(links.reference(message.key)) if asked else gone
                outcomes.append(settled(message.id, outcome))
            touched |= {(message.key.campaign, message.as_of) for message in found.handed_over}
            count += ledger.settle(connection, outcomes, by=found.dispatcher, at=clock.now())
    for campaign, as_of in sorted(touched):
        land_sent(engine, lake, settings, campaign, as_of)
    return count


def land_sent(engine: sa.Engine, lake: Lake, settings: Settings, campaign: str, as_of: date) -> None:
    """Hand what was sent for a day to the sources, as message events of the next morning: caps and reports read them.

    Idempotent: the same ledger gives the same rows, so a day that is run again mends what a crash kept from landing. A ledger
    that knows of fewer than the lake was told has been set back: the lake keeps what it knows.
    """
    morning = settings.midnight(as_of + timedelta(days=1)).astimezone(UTC).replace(tzinfo=None)
    names = [column.name for column in raw.MESSAGE_EVENTS.columns[: -len(raw.LINEAGE)]]
    schema = pa.schema([raw.MESSAGE_EVENTS.arrow_schema.field(name) for name in names])

    def events(sent: Sequence[tuple[ledger.MessageKey, str]]) -> pa.RecordBatch:
        ids = [":".join(key) for key, _ in sent]
        columns = {
            "event_id": [f"{message_id}:sent" for message_id in ids],
            "happened_at": [morning] * len(ids),
            "type": ["sent"] * len(ids),
            "message_id": ids,
            "shop_customer_id": [key.customer_id for key, _ in sent],
            "channel": [channel for _, channel in sent],
            "campaign": [campaign] * len(ids),
            "is_machine": [False] * len(ids),
        }
        return pa.RecordBatch.from_pydict({name: columns[name] for name in names}, schema)

    with engine.begin() as connection:
        # one at a time, from reading to landing: a slower dispatcher must not land what it read before a faster one
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("shopauto.land_sent"))))
        if landed_sends(lake).get((campaign, as_of), 0) > ledger.sent_count(connection, campaign, as_of):
            return
        batches = map(events, _chunks(ledger.sent_keys(connection, campaign, as_of)))
        first = next(batches, None)
        if first is not None:
            rows = pa.RecordBatchReader.from_batches(schema, chain([first], batches))
            land_rows(lake, OWN_SOURCE, raw.MESSAGE_EVENTS, name=f"{campaign}-{as_of}", rows=rows, settings=settings)


def _refused(lake: Lake, campaign: str, as_of: date) -> dict[str, int]:
    found: Counter[str] = Counter()
    for count in decided(lake, campaign_tables.audience(campaign), as_of):
        if count.decision == "refused":
            found[count.reason] += count.people
    return dict(sorted(found.items()))


def plan(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    campaign: Campaign,
    as_of: date,
    *,
    run_id: str | None,
    clock: Clock,
) -> int:
    """Put the audience's planned rows into the ledger; returns how many were new. What earlier days left is given up.

    Where the audience was computed again since, what it does not plan any more is taken back as ``withdrawn``, as long as it
    still waits in the ledger; what it still plans says what the audience says now.

    Rows of one step and language are put in by the thousand, so that they are reserved together and leave in one call.
    """
    people = People(lake, as_of)
    audience = campaign_tables.audience(campaign.name)
    total = lake.rows(audience, as_of)
    waiting: dict[tuple[str, str], list[dict[str, Any]]] = {}
    new = looked_at = 0
    with engine.connect() as connection:
        known = ledger.newest_id(connection)

    def put(rows: Sequence[dict[str, Any]]) -> int:
        for row in rows:
            # the planner has judged the day of the trigger: what happens after it takes the message back
            row["triggered_at"] = settings.midnight(row.pop("triggered_on") + timedelta(days=1))
        with engine.begin() as connection:
            if campaign.brings_offers:
                current = live_settings.current(connection, settings)
                rows = with_codes(connection, rows, people, campaign, current, clock.now())
            planned = ledger_rows(rows, people, settings, campaign, as_of)
            return ledger.plan(connection, planned, run_id=run_id, at=clock.now())

    columns = [*FROM_AUDIENCE, "triggered_on", *(("variant", "offer") if campaign.brings_offers else ())]
    for batch in pq.ParquetFile(lake.path(audience, as_of)).iter_batches(10 * BATCH, columns=[*columns, "decision"]):
        wanted = batch.filter(pc.equal(batch["decision"], "planned")).select(columns)
        for row in wanted.to_pylist():
            waiting.setdefault((row["step"], row["language"]), []).append(row)
        for rows in waiting.values():
            while len(rows) >= BATCH:
                new += put(rows[:BATCH])
                del rows[:BATCH]
        looked_at += batch.num_rows
        report(f"plan {campaign.name}", looked_at, total)
    for rows in waiting.values():
        new += put(rows)
    with engine.begin() as connection:
        not_planned = _not_planned(connection, lake, campaign.name, as_of, known)
        ledger.withdraw(connection, not_planned, at=clock.now())
        ledger.expire(connection, campaign.name, as_of, at=clock.now())
    return new


def _not_planned(connection: sa.Connection, lake: Lake, campaign: str, as_of: date, newest: int) -> list[int]:
    """Of the messages up to ``newest``, numbers of those that wait in the ledger and that the audience does not plan."""
    schema = pa.schema([("id", pa.int64()), *((name, pa.string()) for name in _IN_CAMPAIGN)])
    rows = ({"id": n, **key._asdict()} for n, key in ledger.planned_keys(connection, campaign, as_of, newest))
    batches = [pa.RecordBatch.from_pylist(chunk, schema) for chunk in _chunks(rows)]
    if not batches:
        return []
    planned = lake.on(campaign_tables.audience(campaign), as_of).filter(ibis._.decision == "planned")
    left = ibis.memtable(pa.Table.from_batches(batches)).anti_join(planned, _IN_CAMPAIGN)
    return lake.con.to_pyarrow(left.select("id").order_by("id"))["id"].to_pylist()


def ledger_rows(
    rows: Iterable[Mapping[str, Any]], people: People, settings: Settings, campaign: Campaign, as_of: date
) -> list[dict[str, Any]]:
    """Rows of an audience as :func:`~shopauto_pipelines.outbox.ledger.plan` takes them.

    They have ``triggered_at``, and the audience's step, customer_id, occasion, channel, template, language, explanation,
    send_from.
    """
    rows = list(rows)
    persons = {row["customer_id"] for row in rows}
    found, other_ids = people.rows(persons), people.other_ids(persons)
    return [
        {
            **{name: row[name] for name in (*FROM_AUDIENCE, "triggered_at")},
            "send_from": row["send_from"] and row["send_from"].replace(tzinfo=UTC),
            "time_zone": _known_zone(found.get(row["customer_id"], {}).get("time_zone")),
            "other_ids": other_ids.get(row["customer_id"], []),
            "campaign": campaign.name,
            "as_of": as_of,
            "topic": campaign.topic,
            "exit_on": campaign.exit_on,
            "explanation": json.loads(row["explanation"]),
            "address_hash": links.address_hash(
                settings.hash_key, row["channel"], found.get(row["customer_id"], {}).get(ADDRESS[row["channel"]])
            ),
        }
        for row in rows
    ]


@cache
def _known_zone(name: str | None) -> str | None:
    """The time zone, where there is one of that name."""
    try:
        return ZoneInfo(name).key if name else None
    except (KeyError, ValueError):
        return None


def _chunks(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    source = iter(rows)
    while chunk := list(islice(source, 10 * BATCH)):
        yield chunk
