"""What people chose and what happened to them, as far as it decides whether a message may still leave.

Choices are kept for ever, and the latest one for an address, channel and topic counts. A suppressed address gets nothing
on that channel, whatever it chose. All of it is kept by the keyed hash of the address, never the address itself, so that
it outlives an erasure and a new import of the same person.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert

from shopauto_pipelines.outbox.schema import ALL_TOPICS, consents, exits, given, suppressions

#: How strong reasons of a suppression are. A person can take an unsubscribe back, so it gives way to every other.
_STRENGTH = {"unsubscribe": 0, "bounce": 2, "spam_report": 3}
_USUAL = 1


class Suppression(NamedTuple):
    """An address that gets nothing on a channel."""

    address_hash: bytes
    channel: str
    reason: str
    at: datetime


def choose(
    connection: sa.Connection,
    address_hash: bytes,
    channel: str,
    choice: str,
    *,
    source: str,
    at: datetime,
    topic: str = ALL_TOPICS,
    wording: str | None = None,
    message_id: int | None = None,
    now: bool = False,
) -> None:
    """Record what a person chose: ``opted_in``, ``opted_out`` or ``less_often``, for a topic or for all (``*``).

    ``message_id`` is the message whose link or event said so. ``now``: the person says so at this moment, so it counts whatever
    they chose before; where a clock was ahead then, it is kept with the time of that. Opting in to everything on the preference
    page also lifts a suppression, if unsubscribing was its reason: an address that bounced or complained stays suppressed.
    """
    when: sa.ColumnElement[datetime] = sa.literal(at, consents.c.at.type)
    if now:
        before = sa.select(sa.func.max(consents.c.at)).where(
            consents.c.address_hash == address_hash, consents.c.channel == channel, consents.c.topic == topic
        )
        when = sa.func.greatest(when, before.scalar_subquery())
    connection.execute(
        sa.insert(consents).values(
            address_hash=address_hash,
            channel=channel,
            topic=topic,
            choice=choice,
            source=source,
            wording=wording,
            message_id=message_id,
            at=when,
        )
    )
    if source == "preference_page" and topic == ALL_TOPICS and choice != "opted_out":
        connection.execute(
            sa.delete(suppressions).where(
                suppressions.c.address_hash == address_hash,
                suppressions.c.channel == channel,
                suppressions.c.reason == "unsubscribe",
            )
        )


def withdraw(
    connection: sa.Connection,
    address_hash: bytes,
    channel: str,
    *,
    source: str,
    at: datetime,
    customer_id: str | None = None,
    message_id: int | None = None,
    wording: str | None = None,
    reason: str = "unsubscribe",
    now: bool = False,
) -> None:
    """Stop everything on a channel because its reader said so: opted out, suppressed, and out of what ends with that.

    Where the person has opted in again after ``at``, what comes in late, which is not ``now``, is kept but suppresses nothing,
    unless it is a ``spam_report``. ``customer_id`` is whose journeys end; ``None``: nobody is known. The others are as in
    :func:`choose`.
    """
    told: dict[str, Any] = {"source": source, "at": at, "wording": wording, "message_id": message_id, "now": now}
    choose(connection, address_hash, channel, "opted_out", **told)
    if customer_id is not None:
        left(connection, customer_id, "unsubscribed", at=at)
    if reason == "spam_report" or choices(connection, address_hash, channel)[ALL_TOPICS] == "opted_out":
        suppress(connection, address_hash, channel, reason, at=at)


def choices(connection: sa.Connection, address_hash: bytes, channel: str) -> dict[str, str]:
    """The choice that counts by topic, ``*`` for all topics; a topic without a choice is missing."""
    rows = connection.execute(
        sa.select(consents.c.topic, consents.c.choice)
        .ext(distinct_on(consents.c.topic))
        .where(consents.c.address_hash == address_hash, consents.c.channel == channel)
        .order_by(consents.c.topic, consents.c.at.desc(), consents.c.id.desc())
    )
    return {topic: choice for topic, choice in rows}


def suppress(connection: sa.Connection, address_hash: bytes, channel: str, reason: str, *, at: datetime) -> bool:
    """Never write to this address again on this channel. False where that was so already.

    Of several reasons the strongest is kept, with its earliest time, whichever came first.
    """
    return suppress_all(connection, [Suppression(address_hash, channel, reason, at)]) > 0


def suppress_all(connection: sa.Connection, wanted: Iterable[Suppression]) -> int:
    """:func:`suppress` for many; returns how many addresses were not suppressed before."""
    strongest: dict[tuple[bytes, str], Suppression] = {}
    for one in wanted:
        known = strongest.setdefault((one.address_hash, one.channel), one)
        if (_STRENGTH.get(known.reason, _USUAL), one.at) < (_STRENGTH.get(one.reason, _USUAL), known.at):
            strongest[one.address_hash, one.channel] = one
    if not strongest:
        return 0
    told = given([one._asdict() for one in sorted(strongest.values())], *suppressions.columns)
    added = insert(suppressions).from_select([c.name for c in suppressions.columns], sa.select(told))
    stronger, kept = _strength(added.excluded.reason), _strength(suppressions.c.reason)
    changed: sa.ScalarResult[bool] = connection.execute(
        added.on_conflict_do_update(
            index_elements=["address_hash", "channel"],
            set_={"reason": added.excluded.reason, "at": added.excluded.at},
            where=(kept < stronger) | ((kept == stronger) & (suppressions.c.at > added.excluded.at)),
        ).returning(sa.literal_column("xmax = 0"))  # whether the row is new, not changed
    ).scalars()
    return sum(changed)


def suppressed(connection: sa.Connection) -> Iterator[Suppression]:
    """Every suppression in a fixed order, read in bounded batches."""
    rows = connection.execute(
        sa.select(*suppressions.columns).order_by(suppressions.c.channel, suppressions.c.address_hash),
        execution_options={"yield_per": 10_000},
    )
    for row in rows:
        yield Suppression(bytes(row[0]), *row[1:])


def _strength(reason: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    return sa.case(_STRENGTH, value=reason, else_=_USUAL)


def suppression(connection: sa.Connection, address_hash: bytes, channel: str) -> str | None:
    """Why this address gets nothing on this channel; ``None`` where it may."""
    return connection.execute(
        sa.select(suppressions.c.reason).where(
            suppressions.c.address_hash == address_hash, suppressions.c.channel == channel
        )
    ).scalar()


def said_to_the_shop(state: str, channel: str) -> str:
    """The name among ``exits`` of what a person told the shop: ``opted_out_email``. It counts until the planner knows it too."""
    return f"{state}_{channel}"


def left(connection: sa.Connection, customer_id: str, event: str, *, at: datetime) -> None:
    """Record that a person ordered, left the segment or unsubscribed: messages that exit on it are not sent any more."""
    connection.execute(insert(exits).values(customer_id=customer_id, event=event, at=at).on_conflict_do_nothing())
