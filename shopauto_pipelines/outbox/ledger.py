"""The ledger: one row per message in PostgreSQL, and the only code that changes it.

States: ``planned → reserved → sent | failed | unknown``; ``planned → suppressed``; ``reserved → planned`` where nothing
left; ``unknown → sent | failed`` once it is known; ``failed → planned`` by an operator. A trigger refuses every other
change and writes ``message_history``. Times come from the caller's clock. Rendering and sending do not belong here.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from shopauto_pipelines.platform.postgres import SCHEMA

#: Every state a message can be in.
STATES = ("planned", "reserved", "sent", "failed", "unknown", "suppressed")

#: States that count against the frequency cap: what has left, may have left, or is about to.
_COUNTED = ("reserved", "sent", "unknown")

#: What a planned message is made of, besides its explanation.
_PLANNED = ("campaign", "step", "customer_id", "occasion", "channel", "as_of", "language", "template", "address_hash")

_WHEN = sa.DateTime(timezone=True)

metadata = sa.MetaData(schema=SCHEMA)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, doc="number of the message"),
    sa.Column("campaign", sa.Text, nullable=False, doc="campaign"),
    sa.Column("step", sa.Text, nullable=False, doc="step of the campaign"),
    sa.Column("customer_id", sa.Text, nullable=False, doc="the person"),
    sa.Column("occasion", sa.Text, nullable=False, doc="what it is about; with the three before it: once"),
    sa.Column("state", sa.Text, nullable=False, server_default="planned", doc=", ".join(STATES)),
    sa.Column("reason", sa.Text, doc="why it is in this state"),
    sa.Column("channel", sa.Text, nullable=False, doc="email or sms"),
    sa.Column("via", sa.Text, doc="who took it: inbox or sendgrid"),
    sa.Column("as_of", sa.Date, nullable=False, doc="day of the audience it comes from"),
    sa.Column("language", sa.Text, nullable=False, doc="language it is written in"),
    sa.Column("template", sa.Text, nullable=False, doc="template it is rendered from"),
    sa.Column("explanation", JSONB, nullable=False, doc="why this person was chosen"),
    sa.Column("address_hash", sa.LargeBinary, doc="keyed hash of the address; null: there is none"),
    sa.Column("provider_id", sa.Text, doc="the channel's own id of the message"),
    sa.Column("planned_at", _WHEN, nullable=False, doc="when it was planned"),
    sa.Column("reserved_at", _WHEN, doc="when a dispatcher took it"),
    sa.Column("reserved_by", sa.Text, doc="the dispatcher"),
    sa.Column("settled_at", _WHEN, doc="when its outcome was written"),
    sa.Column("changed_at", _WHEN, nullable=False, doc="time of the latest change of state"),
    sa.Column("run_id", sa.Text, doc="the run that planned it"),
    sa.UniqueConstraint("campaign", "step", "customer_id", "occasion", name="messages_once"),
    sa.CheckConstraint(f"state in {STATES}", name="messages_state"),
    sa.CheckConstraint("(state = 'reserved') <= (reserved_by is not null)", name="messages_reserved_by"),
    sa.Index("messages_work", "campaign", "as_of", "state", "id"),
    sa.Index("messages_customer", "customer_id", "as_of"),
    sa.Index("messages_reserved", "reserved_by", postgresql_where=sa.text("state = 'reserved'")),
)
message_history = sa.Table(
    "message_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("message_id", sa.BigInteger, sa.ForeignKey(messages.c.id), nullable=False, index=False),
    sa.Column("from_state", sa.Text, doc="null: the message was new"),
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("at", _WHEN, nullable=False),
    sa.Column("why", sa.Text),
    sa.Index("message_history_message", "message_id"),
)
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("address_hash", sa.LargeBinary, primary_key=True, doc="keyed hash of the address"),
    sa.Column("channel", sa.Text, primary_key=True, doc="email or sms"),
    sa.Column("reason", sa.Text, nullable=False, doc="unsubscribe, bounce, spam_report, …"),
    sa.Column("at", _WHEN, nullable=False),
)


class MessageKey(NamedTuple):
    """What makes a message the same message."""

    campaign: str
    step: str
    customer_id: str
    occasion: str


@dataclass(frozen=True)
class Message:
    """A message of the ledger, as a dispatcher or a page needs it."""

    id: int
    key: MessageKey
    state: str
    reason: str | None
    channel: str
    via: str | None
    as_of: date
    language: str
    template: str
    explanation: Mapping[str, Any]
    address_hash: bytes | None


@dataclass(frozen=True)
class Settled:
    """The outcome of a reserved message. ``planned`` puts it back: surely nothing left."""

    message_id: int
    state: str
    reason: str | None = None
    provider_id: str | None = None


@dataclass(frozen=True)
class Cap:
    """At most ``messages`` to a person in ``days`` days, over all campaigns, the day of the send included."""

    messages: int
    days: int


@contextmanager
def dispatcher(engine: sa.Engine) -> Iterator[str]:
    """A name for a dispatcher, alive for as long as the block runs.

    Its life is an advisory lock of a database session: it ends with the process, however that ends, so that others can
    tell which reservations nobody works on any more.
    """
    name = uuid.uuid4().hex
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(_lock_of(name))))
        try:
            yield name
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_lock_of(name))))


def plan(connection: sa.Connection, rows: Sequence[Mapping[str, Any]], *, run_id: str | None, at: datetime) -> int:
    """Add planned messages; those the ledger knows already are left as they are. Returns how many are new.

    ``rows`` have the columns campaign, step, customer_id, occasion, channel, as_of, language, template, explanation and
    address_hash (:func:`~shopauto_pipelines.outbox.links.address_hash`; null where the person has no address).
    """
    if not rows:
        return 0
    given = [{**row, "explanation": json.dumps(row["explanation"])} for row in rows]
    told = _given(given, *(messages.c[name] for name in _PLANNED), sa.Column("explanation", sa.Text))
    source = sa.select(
        *(told.c[name] for name in _PLANNED),
        sa.cast(told.c.explanation, JSONB),
        sa.literal(at, _WHEN),
        sa.literal(at, _WHEN),
        sa.literal(run_id, sa.Text),
    )
    names = [*_PLANNED, "explanation", "planned_at", "changed_at", "run_id"]
    added = connection.execute(
        insert(messages).from_select(names, source).on_conflict_do_nothing().returning(messages.c.id)
    )
    return len(added.all())


def reserve(
    connection: sa.Connection, *, campaign: str, as_of: date, limit: int, by: str, via: str, cap: Cap, at: datetime
) -> tuple[list[Message], int]:
    """Take up to ``limit`` planned messages for the dispatcher ``by``; returns them and how many were looked at.

    In the same transaction each is checked again: an address that is missing or suppressed by now, or a person who has
    had ``cap`` messages, makes it ``suppressed``, with the reason. No row is ever taken by two: rows another dispatcher
    works on are skipped, and reservations wait for each other, so that two campaigns together keep the cap.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("shopauto.reserve"))))
    chosen = (
        sa.select(messages.c.id, messages.c.customer_id, messages.c.channel, messages.c.address_hash)
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of, messages.c.state == "planned")
        .order_by(messages.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    blocked = sa.case(
        (chosen.c.address_hash.is_(None), "no_address"),
        (suppressions.c.reason.is_not(None), sa.literal("suppressed_") + suppressions.c.reason),
        else_=None,
    )
    checked = (
        sa.select(chosen.c.id, chosen.c.customer_id, blocked.label("blocked"))
        .select_from(
            chosen.outerjoin(
                suppressions,
                (suppressions.c.address_hash == chosen.c.address_hash) & (suppressions.c.channel == chosen.c.channel),
            )
        )
        .cte("checked")
    )
    earlier = messages.alias("earlier")
    had = (
        sa.select(sa.func.count())
        .where(
            earlier.c.customer_id == checked.c.customer_id,
            earlier.c.as_of > as_of - timedelta(days=cap.days),
            earlier.c.as_of <= as_of,
            earlier.c.state.in_(_COUNTED),
        )
        .scalar_subquery()
    )
    turn = sa.func.row_number().over(
        partition_by=[checked.c.customer_id, checked.c.blocked.is_(None)], order_by=checked.c.id
    )
    verdict = sa.select(
        checked.c.id,
        sa.case(
            (checked.c.blocked.is_not(None), checked.c.blocked), (had + turn > cap.messages, "cap"), else_=None
        ).label("blocked"),
    ).cte("verdict")
    free = verdict.c.blocked.is_(None)
    taken = connection.execute(
        sa.update(messages)
        .where(messages.c.id == verdict.c.id)
        .values(
            state=sa.case((free, "reserved"), else_="suppressed"),
            reason=verdict.c.blocked,
            via=sa.case((free, via)),
            reserved_by=sa.case((free, by)),
            reserved_at=sa.case((free, at)),
            settled_at=sa.case((free, None), else_=at),
            changed_at=at,
        )
        .returning(messages)
    ).all()
    reserved = sorted((_message(row) for row in taken if row.state == "reserved"), key=lambda message: message.id)
    return reserved, len(taken)


def settle(connection: sa.Connection, outcomes: Sequence[Settled], *, by: str, at: datetime) -> int:
    """Write what became of messages that ``by`` reserved; returns how many rows that changed.

    A message that was given up as ``unknown`` in the meantime takes the better knowledge; one that is settled stays.
    """
    if not outcomes:
        return 0
    told = _given(
        [{"id": o.message_id, "state": o.state, "reason": o.reason, "provider_id": o.provider_id} for o in outcomes],
        *(messages.c[name] for name in ("id", "state", "reason", "provider_id")),
    )
    back = told.c.state == "planned"
    known = messages.c.state == "reserved"
    better = (messages.c.state == "unknown") & told.c.state.in_(("sent", "failed"))
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.id == told.c.id, messages.c.reserved_by == by, known | better)
        .values(
            state=told.c.state,
            reason=told.c.reason,
            provider_id=told.c.provider_id,
            settled_at=sa.case((back, None), else_=sa.cast(at, _WHEN)),
            reserved_at=sa.case((back, None), else_=messages.c.reserved_at),
            reserved_by=sa.case((back, None), else_=messages.c.reserved_by),
            via=sa.case((back, None), else_=messages.c.via),
            changed_at=at,
        )
    )
    return changed.rowcount


@contextmanager
def abandoned(connection: sa.Connection, via: str) -> Iterator[list[tuple[str, list[Message]]]]:
    """Reservations through ``via`` of dispatchers that are dead, by dispatcher, held against others for the block."""
    found = connection.execute(
        sa.select(messages).where(messages.c.state == "reserved", messages.c.via == via).order_by(messages.c.id)
    ).all()
    by_dispatcher: dict[str, list[Message]] = {}
    for row in found:
        by_dispatcher.setdefault(row.reserved_by, []).append(_message(row))
    dead = {
        name: rows
        for name, rows in by_dispatcher.items()
        if connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_lock_of(name)))).scalar_one()
    }
    yield list(dead.items())


def retry_failed(connection: sa.Connection, campaign: str, as_of: date, *, at: datetime) -> int:
    """Plan the failed messages of a day again: an operator's decision, once the cause is mended. Returns how many."""
    forgotten = dict.fromkeys(("settled_at", "reserved_at", "reserved_by", "via"))
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of, messages.c.state == "failed")
        .values(state="planned", reason="retry", changed_at=at, **forgotten)
    )
    return changed.rowcount


def suppress(connection: sa.Connection, address_hash: bytes, channel: str, reason: str, *, at: datetime) -> bool:
    """Never write to this address again on this channel. False where that was so already."""
    added = connection.execute(
        insert(suppressions)
        .values(address_hash=address_hash, channel=channel, reason=reason, at=at)
        .on_conflict_do_nothing()
        .returning(suppressions.c.channel)
    )
    return added.first() is not None


def find(connection: sa.Connection, message_id: int) -> Message | None:
    """The message with this id."""
    row = connection.execute(sa.select(messages).where(messages.c.id == message_id)).one_or_none()
    return _message(row) if row else None


def counts(connection: sa.Connection, campaign: str, as_of: date) -> dict[tuple[str, str], int]:
    """Messages of a campaign and day by state and reason (empty where there is none), in order."""
    state, reason = messages.c.state, sa.func.coalesce(messages.c.reason, "")
    rows = connection.execute(
        sa.select(state, reason, sa.func.count())
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of)
        .group_by(state, reason)
        .order_by(state, reason)
    )
    return {(row[0], row[1]): row[2] for row in rows}


def sent_keys(connection: sa.Connection, campaign: str, as_of: date) -> Iterator[tuple[MessageKey, str]]:
    """Key and channel of every message of a campaign and day that was sent, in key order, read in bounded batches."""
    rows = connection.execution_options(yield_per=10_000).execute(
        sa.select(messages.c.campaign, messages.c.step, messages.c.customer_id, messages.c.occasion, messages.c.channel)
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of, messages.c.state == "sent")
        .order_by(*(messages.c[name].collate("C") for name in MessageKey._fields[1:]))
    )
    for row in rows:
        yield MessageKey(*row[:4]), row.channel


def _given(rows: Sequence[Mapping[str, Any]], *columns: sa.Column[Any]) -> sa.TableValuedAlias:
    """Rows as a table of a statement: one array a column, which is several times quicker than a parameter a value."""
    arrays = [_array([row[column.name] for row in rows], column.type) for column in columns]
    return sa.func.unnest(*arrays).table_valued(*(sa.column(c.name, c.type) for c in columns)).render_derived("told")


def _array(values: list[Any], kind: Any) -> sa.BindParameter[Any]:
    return sa.bindparam(None, values, type_=ARRAY(kind), unique=True)


def _lock_of(name: str) -> int:
    """The advisory lock that shows that a dispatcher lives: the first 63 bits of its name."""
    return int(name[:16], 16) >> 1


def _message(row: sa.Row[Any]) -> Message:
    return Message(
        id=row.id,
        key=MessageKey(row.campaign, row.step, row.customer_id, row.occasion),
        state=row.state,
        reason=row.reason,
        channel=row.channel,
        via=row.via,
        as_of=row.as_of,
        language=row.language,
        template=row.template,
        explanation=row.explanation,
        address_hash=None if row.address_hash is None else bytes(row.address_hash),
    )
