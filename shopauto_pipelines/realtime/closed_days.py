"""Events and choices of days that are over → the lake: ``raw/message_events`` and ``raw/consents``, as a source of our own.

A day of the shop is landed as one file that holds all its rows, so landing again gives the same file, and a row that came
in late changes its day, which marks what was computed from it as stale, as late rows of any other source do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from shopauto_pipelines.outbox.dispatch import land_sent
from shopauto_pipelines.outbox.schema import ALL_TOPICS, consents, messages, provider_events
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import OWN_SOURCE, land_rows, read_manifest

#: How late a row may come in and still be noticed: well over the 24 hours in which the provider tries again.
LATEST = timedelta(days=40)

_CHUNK = 10_000


def land_own_rows(engine: sa.Engine, lake: Lake, settings: Settings, now: datetime) -> list[date]:
    """Bring the lake up to date with the database; returns the days whose rows changed."""
    return sorted({*land_closed_days(engine, lake, settings, now), *land_late_sends(engine, lake, settings)})


def land_closed_days(engine: sa.Engine, lake: Lake, settings: Settings, now: datetime) -> list[date]:
    """Land the events and choices of every day that is over and is not in the lake as in the database; returns these days."""
    today = now.astimezone(settings.zone).date()
    changed: set[date] = set()
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        # one at a time: a slower one must not land what it read before a faster one
        connection.execute(sa.select(sa.func.pg_advisory_lock(_LOCK)))
        connection.rollback()  # the view of the database begins after the wait
        try:
            for table, rows in ((raw.MESSAGE_EVENTS, _events()), (raw.CONSENTS, _choices())):
                landed = _landed(lake, table)
                for day, count in _counts(connection, rows, settings, max(landed, default=None)):
                    if day < today and landed.get(day) != count:
                        name = f"{_name(table)}-{day}"
                        land_rows(
                            lake, OWN_SOURCE, table, name, _read(connection, table, rows, day, settings), settings
                        )
                        changed.add(day)
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
        .where(at >= _midnight(start, settings), at < _midnight(end + timedelta(days=1), settings))
        .group_by(day, kind)
        .order_by(day, kind)
    )
    found: dict[date, dict[str, int]] = {}
    with engine.connect() as connection:
        for on, name, count in connection.execute(wanted):
            found.setdefault(on, {})[name] = count
    return found


def land_late_sends(engine: sa.Engine, lake: Lake, settings: Settings) -> list[date]:
    """Land the messages that were found to be sent after their dispatch had landed what it knew; returns their days."""
    landed = {
        (name[1], date.fromisoformat(name[2])): known.counts["read"]
        for known in read_manifest(lake, OWN_SOURCE).files.values()
        if (name := re.fullmatch(r"(\w+)-(\d{4}-\d\d-\d\d)\.parquet", known.file))
    }
    sent = sa.select(messages.c.campaign, messages.c.as_of, sa.func.count()).where(messages.c.state == "sent")
    if landed:
        sent = sent.where(messages.c.as_of > max(day for _, day in landed) - LATEST)
    with engine.connect() as connection:
        rows = connection.execute(sent.group_by(messages.c.campaign, messages.c.as_of)).all()
    behind = sorted((campaign, day) for campaign, day, count in rows if landed.get((campaign, day)) != count)
    for campaign, day in behind:
        land_sent(engine, lake, settings, campaign, day)
    return sorted({day + timedelta(days=1) for _, day in behind})


_LOCK = sa.func.hashtext("shopauto.land_closed_days")


def _events() -> sa.Subquery:
    """The provider's events as rows of ``raw/message_events``; those of no interest after the day stay behind."""
    return (
        sa.select(
            provider_events.c.event_id,
            provider_events.c.at.label("happened_at"),
            provider_events.c.type,
            sa.func.concat_ws(":", *(messages.c[n] for n in ("campaign", "step", "customer_id", "occasion"))).label(
                "message_id"
            ),
            messages.c.customer_id.label("shop_customer_id"),
            messages.c.channel,
            messages.c.campaign,
            provider_events.c.is_machine,
        )
        .outerjoin(messages, messages.c.id == provider_events.c.message_id)  # outer: to count, it is not read at all
        .where(
            provider_events.c.message_id.is_not(None),
            provider_events.c.type.in_(raw.ALLOWED_VALUES[raw.MESSAGE_EVENTS.name, "type"]),
        )
        .subquery()
    )


def _choices() -> sa.Subquery:
    """Choices about everything on a channel as rows of ``raw/consents``; of two at one instant the one that allows less."""
    state = sa.case((consents.c.choice == "opted_out", "opted_out"), else_="opted_in")
    return (
        sa.select(
            messages.c.customer_id.label("shop_customer_id"),
            consents.c.channel,
            sa.func.max(state).label("state"),
            sa.func.min(sa.func.concat_ws(": ", consents.c.source, consents.c.wording)).label("wording"),
            consents.c.at.label("changed_at"),
        )
        .join(messages, messages.c.id == consents.c.message_id)
        .where(consents.c.topic == ALL_TOPICS)
        .group_by(messages.c.customer_id, consents.c.channel, consents.c.at)
        .subquery()
    )


def _name(table: Table) -> str:
    """Files of this name; no campaign, whose name has no hyphen, has such a one."""
    return "provider-events" if table is raw.MESSAGE_EVENTS else "preference-choices"


def _landed(lake: Lake, table: Table) -> dict[date, int]:
    """Rows of each day that is landed."""
    prefix, suffix = f"{_name(table)}-", ".parquet"
    files = (landed for landed in read_manifest(lake, OWN_SOURCE).files.values() if landed.file.startswith(prefix))
    return {
        date.fromisoformat(landed.file.removeprefix(prefix).removesuffix(suffix)): landed.counts["read"]
        for landed in files
    }


def _counts(
    connection: sa.Connection, rows: sa.Subquery, settings: Settings, newest: date | None
) -> list[tuple[date, int]]:
    """Rows of each day in the database, from :data:`LATEST` before the ``newest`` landed day on."""
    at = _time(rows)
    day = sa.cast(sa.func.timezone(settings.timezone, at), sa.Date)
    wanted = sa.select(day, sa.func.count()).group_by(day).order_by(day)
    if newest is not None:
        wanted = wanted.where(at >= _midnight(newest, settings) - LATEST)
    return [(row[0], row[1]) for row in connection.execute(wanted)]


def _read(
    connection: sa.Connection, table: Table, rows: sa.Subquery, day: date, settings: Settings
) -> pa.RecordBatchReader:
    """A day's rows in a total order, read in bounded batches."""
    at = _time(rows)
    schema = pa.schema([table.arrow_schema.field(name) for name in (column.name for column in rows.c)])
    texts = (column.collate("C") for column in rows.c if isinstance(column.type, sa.Text))
    wanted = (
        sa.select(rows)
        .where(at >= _midnight(day, settings), at < _midnight(day + timedelta(days=1), settings))
        .order_by(at, *texts)
    )

    def chunks() -> Iterator[pa.RecordBatch]:
        for part in connection.execution_options(yield_per=_CHUNK).execute(wanted).partitions():
            columns = zip(*(map(_plain, row) for row in part), strict=True)
            yield pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, chunks())


def _time(rows: sa.Subquery) -> sa.ColumnElement[datetime]:
    return next(column for column in rows.c if column.name in ("happened_at", "changed_at"))


def _plain(value: Any) -> Any:
    """Times as the lake has them: UTC, without a zone."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _midnight(day: date, settings: Settings) -> datetime:
    return datetime.combine(day, time(), settings.zone)
