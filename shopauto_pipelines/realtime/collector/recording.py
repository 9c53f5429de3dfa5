"""Events → ``shopauto.provider_events``, and what follows from them, in the same transaction.

An event settles its message if that was unclear; a withdrawal or a bounce suppresses the address, so the very next
reservation obeys it. Only new events have effects, and what they leave behind does not depend on their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shopauto_pipelines.outbox import consents, ledger
from shopauto_pipelines.outbox.schema import given, messages, provider_events
from shopauto_pipelines.realtime.collector.events import Event

#: Dropped because of what happened before: the provider knows, and we learn it now.
_KNOWN_BEFORE = {
    "bounced_before": "bounce",
    "invalid_address": "bounce",
    "unsubscribed_before": "unsubscribe",
    "reported_before": "spam_report",
}

_COLUMNS = ("event_id", "message_id", "type", "at", "is_machine", "reason", "provider_id")


def record(connection: sa.Connection, events: Sequence[Event], *, at: datetime) -> dict[str, int]:
    """Store events and do what follows from them; returns how many were ``new``, ``repeated`` and ``not_ours``.

    An event is ours where the message it names is in the ledger and went to the address it names, or has the provider's
    id it names: another installation that sends through the same account numbers its messages too.
    """
    known = _messages(connection, events)
    ours = {event.event_id: event for event in events if _belongs(event, known.get(event.message_id))}
    foreign = sum(not _belongs(event, known.get(event.message_id)) for event in events)
    # in one order everywhere, so that two requests with the same events wait for each other instead of blocking each other
    added = _store(connection, [ours[event_id] for event_id in sorted(ours)], at)
    new = sorted((ours[event_id] for event_id in added), key=lambda event: (event.at, event.event_id))
    accepted = {event.message_id: (event.message_id, "sent", event.provider_id) for event in new}
    ledger.settle_by_event(connection, list(accepted.values()), at=at)
    addressed = [(event, message) for event in new if (message := known[event.message_id]).address_hash is not None]
    for event, message in sorted(addressed, key=lambda pair: bytes(pair[1].address_hash)):
        _follow(connection, event, message)
    return {"new": len(added), "repeated": len(events) - foreign - len(added), "not_ours": foreign}


def _messages(connection: sa.Connection, events: Sequence[Event]) -> Mapping[int, sa.Row]:
    columns = (messages.c[name] for name in ("id", "customer_id", "channel", "address_hash", "provider_id"))
    wanted = sorted({event.message_id for event in events})
    found = connection.execute(
        sa.select(*columns).where(messages.c.id == sa.any_(sa.cast(wanted, sa.ARRAY(sa.BigInteger))))
    )
    return {row.id: row for row in found}


def _belongs(event: Event, message: sa.Row | None) -> bool:
    if message is None:
        return False
    same_address = event.address_hash is not None and event.address_hash == message.address_hash
    return same_address or (event.provider_id is not None and event.provider_id == message.provider_id)


def _store(connection: sa.Connection, events: Sequence[Event], at: datetime) -> set[str]:
    """Add the events that are new, and return their ids."""
    rows = [{name: getattr(event, name) for name in _COLUMNS} for event in events]
    told = given(rows, *(provider_events.c[name] for name in _COLUMNS))
    source = sa.select(*told.c, sa.literal(at, provider_events.c.received_at.type))
    statement = insert(provider_events).from_select([*_COLUMNS, "received_at"], source).on_conflict_do_nothing()
    return set(connection.execute(statement.returning(provider_events.c.event_id)).scalars())


def _follow(connection: sa.Connection, event: Event, message: sa.Row) -> None:
    """What an event means for the messages to come."""
    to = (message.address_hash, message.channel)
    if event.type in ("unsubscribe", "spam_report"):
        consents.withdraw(
            connection,
            *to,
            source=event.type,
            at=event.at,
            customer_id=message.customer_id,
            message_id=message.id,
            reason=event.type,
        )
    elif event.type == "bounce" and not (event.reason or "").startswith("blocked"):
        consents.suppress(connection, *to, "bounce", at=event.at)
    elif event.type == "dropped" and event.reason in _KNOWN_BEFORE:
        consents.suppress(connection, *to, _KNOWN_BEFORE[event.reason], at=event.at)
