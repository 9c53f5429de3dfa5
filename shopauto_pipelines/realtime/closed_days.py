"""Rows of days that are over → the lake: the shop's that were collected, and as a source of our own what became of messages.

A day of the shop is landed as one file that holds all its rows, so landing again gives the same file, and a row that came
in late changes its day, which marks what was computed from it as stale, as late rows of any other source do. Collected rows
are landed as the text they came as, so they are read and judged as the rows of a file are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import sqlalchemy as sa

from shopauto_pipelines.campaigns.pauses import KEPT_DAYS
from shopauto_pipelines.outbox.dispatch import land_sent
from shopauto_pipelines.outbox.schema import ALL_TOPICS, consents, messages, provider_events
from shopauto_pipelines.outbox.windows import landed_sends
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.realtime.collected import forget
from shopauto_pipelines.realtime.schema import collected
from shopauto_pipelines.realtime.statements import known
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import COLLECTOR_SOURCE, OWN_SOURCE, land_rows, read_manifest
from shopauto_pipelines.sources.mapping import mappable

#: How late a row may come in and still be noticed: well over the 24 hours in which the provider tries again.
LATEST = timedelta(days=40)

_CHUNK = 10_000


def land_held_rows(engine: sa.Engine, lake: Lake, settings: Settings, now: datetime) -> list[date]:
    """Bring the lake up to date with the database; returns the days whose rows changed."""
    return sorted({*land_closed_days(engine, lake, settings, now), *land_late_sends(engine, lake, settings)})


def land_closed_days(engine: sa.Engine, lake: Lake, settings: Settings, now: datetime) -> list[date]:
    """Land every day that is over and is not in the lake as in the database; returns these days.

    Collected rows older than :data:`KEPT_DAYS` are forgotten then.
    """
    today = now.astimezone(settings.zone).date()
    oldest = today - timedelta(days=KEPT_DAYS)
    changed: set[date] = set()
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        # one at a time: a slower one must not land what it read before a faster one
        connection.execute(sa.select(sa.func.pg_advisory_lock(_LOCK)))
        connection.rollback()  # the view of the database begins after the wait
        try:
            for feed in _feeds():
                landed = _landed(lake, feed)
                for day, count in _counts(connection, feed, settings, max(landed, default=None)):
                    forgotten = day < oldest and count < landed.get(day, 0)
                    if day < today and landed.get(day) != count and not forgotten:
                        rows = _read(connection, feed, day, settings)
                        name, tomorrow = f"{feed.prefix}{day}", day + timedelta(days=1)
                        land_rows(lake, feed.source, feed.table, name, rows, settings, today=tomorrow)
                        changed.add(day)
            told = [feed for feed in _feeds() if feed.source == COLLECTOR_SOURCE]
            landed_days = {feed.table.name: [day for day in _landed(lake, feed) if day < oldest] for feed in told}
            with engine.begin() as forgetting:
                forget(forgetting, landed_days, before=settings.midnight(oldest), zone=settings.timezone)
        finally:
            connection.rollback()
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))
    return sorted(changed)


def events_by_type(engine: sa.Engine, settings: Settings, start: date, end: date) -> dict[date, dict[str, int]]:
    """Number of the provider's events of each day from ``start`` to ``end`` by type; machine opens are apart."""
    at = provider_events.c.at
    day = sa.cast(sa.func.timezone(settings.timezone, at), sa.Date)
    kind = sa.case((provider_events.c.is_machine, "open by a machine"), else_=provider_events.c.type)
    wanted = (
        sa.select(day, kind, sa.func.count())
        .where(at >= settings.midnight(start), at < settings.midnight(end + timedelta(days=1)))
        .group_by(day, kind)
        .order_by(day, kind)
    )
    found: dict[date, dict[str, int]] = {}
    with engine.connect() as connection:
        for on, name, count in connection.execute(wanted):
            found.setdefault(on, {})[name] = count
    return found


def collected_rows(lake: Lake) -> dict[date, dict[str, int]]:
    """Collected rows that are landed, those that were refused too: day → table → number."""
    found: dict[date, dict[str, int]] = {}
    for feed in _feeds():
        if feed.source == COLLECTOR_SOURCE:
            for day, count in _landed(lake, feed).items():
                found.setdefault(day, {})[feed.table.name] = count
    return found


def land_late_sends(engine: sa.Engine, lake: Lake, settings: Settings) -> list[date]:
    """Land the messages that were found to be sent after their dispatch had landed what it knew; returns their days."""
    landed = landed_sends(lake)
    sent = sa.select(messages.c.campaign, messages.c.as_of, sa.func.count()).where(messages.c.state == "sent")
    if landed:
        sent = sent.where(messages.c.as_of > max(day for _, day in landed) - LATEST)
    with engine.connect() as connection:
        rows = connection.execute(sent.group_by(messages.c.campaign, messages.c.as_of)).all()
    behind = sorted((campaign, day) for campaign, day, count in rows if landed.get((campaign, day), 0) < count)
    for campaign, day in behind:
        land_sent(engine, lake, settings, campaign, day)
    return sorted({day + timedelta(days=1) for _, day in behind})


_LOCK = sa.func.hashtext("shopauto.land_closed_days")


class _Feed(NamedTuple):
    """Rows of the database that become rows of ``table``: columns of it, ``at``, which decides the day, and maybe a ``key``.

    Columns of type text that are no text in the table are read as those of a file.
    """

    table: Table
    source: str
    prefix: str
    rows: sa.Subquery


def _feeds() -> list[_Feed]:
    """What is landed. No campaign, whose name has no hyphen, has files with these prefixes."""
    return [
        _Feed(raw.MESSAGE_EVENTS, OWN_SOURCE, "provider-events-", _events()),
        _Feed(raw.CONSENTS, OWN_SOURCE, "preference-choices-", _of_channels()),
        _Feed(raw.TOPIC_CHOICES, OWN_SOURCE, "topic-choices-", _of_topics()),
        *(_Feed(table, COLLECTOR_SOURCE, "", _collected(table)) for table in raw.COLLECTED_TABLES),
    ]


def _collected(table: Table) -> sa.Subquery:
    """Rows that were collected for ``table``, as text, and their key.

    A ticket tells a guest's id, and no address by which the profiles could know whose it is: it is of the person who is served
    with that address.
    """
    told = {name: collected.c.row[name].astext for name in mappable(table)}
    if table is raw.EVENTS:
        who = told["shop_customer_id"]
        person = sa.literal_column(known("""collected."row" ->> 'shop_customer_id'"""), sa.Text)
        told["shop_customer_id"] = sa.case((who.startswith("guest:"), sa.func.coalesce(person, who)), else_=who)
    columns = (text.label(name) for name, text in told.items())
    return sa.select(*columns, collected.c.at, collected.c.key).where(collected.c.raw_table == table.name).subquery()


def _events() -> sa.Subquery:
    """The provider's events as rows of ``raw/message_events``; those of no interest after the day stay behind."""
    return (
        sa.select(
            provider_events.c.event_id,
            _utc(provider_events.c.at).label("happened_at"),
            provider_events.c.type,
            sa.func.concat_ws(":", *(messages.c[n] for n in ("campaign", "step", "customer_id", "occasion"))).label(
                "message_id"
            ),
            messages.c.customer_id.label("shop_customer_id"),
            messages.c.channel,
            messages.c.campaign,
            provider_events.c.is_machine,
            provider_events.c.at,
        )
        .outerjoin(messages, messages.c.id == provider_events.c.message_id)  # outer: to count, it is not read at all
        .where(
            provider_events.c.message_id.is_not(None),
            provider_events.c.type.in_(raw.ALLOWED_VALUES[raw.MESSAGE_EVENTS.name, "type"]),
        )
        .subquery()
    )


def _choices(about: sa.ColumnElement[bool], *told: sa.ColumnElement[str]) -> sa.Subquery:
    """Choices of people we know, with the columns ``told`` of the table they are rows of; of two at one instant the stricter."""
    state = sa.case((consents.c.choice == "opted_out", "opted_out"), else_="opted_in")
    return (
        sa.select(
            messages.c.customer_id.label("shop_customer_id"),
            consents.c.channel,
            sa.func.max(state).label("state"),
            *told,
            _utc(consents.c.at).label("changed_at"),
            consents.c.at,
        )
        .join(messages, messages.c.id == consents.c.message_id)
        .where(about)
        .group_by(messages.c.customer_id, consents.c.channel, consents.c.at, consents.c.topic)
        .subquery()
    )


def _of_channels() -> sa.Subquery:
    """Choices about everything on a channel as rows of ``raw/consents``."""
    said = sa.func.min(sa.func.concat_ws(": ", consents.c.source, consents.c.wording)).label("wording")
    return _choices(consents.c.topic == ALL_TOPICS, said)


def _of_topics() -> sa.Subquery:
    """Choices about one topic as rows of ``raw/topic_choices``."""
    return _choices(consents.c.topic != ALL_TOPICS, consents.c.topic)


def _utc(at: sa.ColumnElement[datetime]) -> sa.ColumnElement[datetime]:
    """A time as the lake has it: UTC, without a zone."""
    return sa.func.timezone("UTC", at, type_=sa.DateTime)


def _landed(lake: Lake, feed: _Feed) -> dict[date, int]:
    """Rows of each day that is landed."""
    name = re.compile(re.escape(feed.prefix) + r"(\d{4}-\d\d-\d\d)\.parquet")
    return {
        date.fromisoformat(day[1]): landed.counts["read"]
        for landed in read_manifest(lake, feed.source).files.values()
        if f"raw/{landed.table}" == feed.table.name and (day := name.fullmatch(landed.file))
    }


def _counts(connection: sa.Connection, feed: _Feed, settings: Settings, newest: date | None) -> list[tuple[date, int]]:
    """Rows of each day in the database, from :data:`LATEST` before the ``newest`` landed day on."""
    day = sa.cast(sa.func.timezone(settings.timezone, feed.rows.c.at), sa.Date)
    wanted = sa.select(day, sa.func.count()).group_by(day).order_by(day)
    if newest is not None:
        wanted = wanted.where(feed.rows.c.at >= settings.midnight(newest) - LATEST)
    return [(row[0], row[1]) for row in connection.execute(wanted)]


def _read(connection: sa.Connection, feed: _Feed, day: date, settings: Settings) -> pa.RecordBatchReader:
    """A day's rows in a total order, read in bounded batches."""
    columns = [column for column in feed.rows.c if column.name in feed.table.schema.names]
    schema = pa.schema(
        [
            (c.name, pa.string() if isinstance(c.type, sa.Text) else feed.table.arrow_schema.field(c.name).type)
            for c in columns
        ]
    )
    ranked = [feed.rows.c.key] if "key" in feed.rows.c else [c for c in columns if isinstance(c.type, sa.Text)]
    wanted = (
        sa.select(*columns)
        .where(feed.rows.c.at >= settings.midnight(day), feed.rows.c.at < settings.midnight(day + timedelta(days=1)))
        .order_by(feed.rows.c.at, *(column.collate("C") for column in ranked))
    )

    def chunks() -> Iterator[pa.RecordBatch]:
        for part in connection.execute(wanted.execution_options(yield_per=_CHUNK)).partitions():
            values = zip(*part, strict=True)
            yield pa.record_batch([pa.array(v, f.type) for v, f in zip(values, schema, strict=True)], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, chunks())
