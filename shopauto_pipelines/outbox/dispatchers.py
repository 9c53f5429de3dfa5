"""The lives of dispatchers: who is at work, what it hands over at this moment, and what a dead one left behind.

A dispatcher lives as long as an advisory lock of its database session. Before each call it notes what it is about to hand
over. Whoever finds it dead gives it up for good, in a row that such a note must find clear. What becomes of the messages
is written by the ``ledger``, sending is in ``sending``.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.schema import dispatchers, handed_over


@contextmanager
def dispatcher(engine: sa.Engine) -> Iterator[str]:
    """A name for a dispatcher, alive for as long as the block runs.

    Its life is an advisory lock of a database session: it ends with the process, however that ends, so that others can
    tell which reservations nobody works on any more. What it handed over is kept until all of it is settled.
    """
    name = uuid.uuid4().hex
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(_lock_of(name))))
        connection.execute(sa.insert(dispatchers).values(name=name))
        try:
            yield name
            connection.execute(sa.delete(dispatchers).where(dispatchers.c.name == name))
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_lock_of(name))))
        except BaseException:
            connection.invalidate()  # the lock ends with its session, in whatever state that is
            raise


def hand_over(connection: sa.Connection, message_ids: Collection[int], *, by: str) -> bool:
    """Note that the dispatcher ``by`` is about to hand these messages over; to be committed before it does.

    False where others have given it up for dead, because the database lost sight of it: it must not hand over anything,
    for its messages are others' by now. Of its reservations only those noted can have left. They come in batches, in the
    order of their ids, so a note is a range.
    """
    alive = (
        sa.select(dispatchers.c.name, sa.literal(min(message_ids)), sa.literal(max(message_ids)))
        .where(dispatchers.c.name == by, dispatchers.c.given_up_at.is_(None))
        .with_for_update(read=True)
    )
    note = insert(handed_over).from_select([c.name for c in handed_over.columns], alive)
    return connection.execute(note.returning(handed_over.c.dispatcher)).first() is not None


class Abandoned(NamedTuple):
    """What a dead dispatcher had reserved: what may have reached its channel, and what surely did not."""

    dispatcher: str
    handed_over: list[ledger.Message]
    held: list[ledger.Message]


@contextmanager
def abandoned(connection: sa.Connection, *, at: datetime) -> Iterator[list[Abandoned]]:
    """Reservations of dispatchers that are dead, held against others for the block. They are given up for good."""
    left = []
    for name in ledger.reserving(connection):
        if connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_lock_of(name)))).scalar_one():
            noted = _give_up(connection, name, at)
            found = Abandoned(name, [], [])
            # only now: until it was given up it may have reserved more, and handed that over
            for message in ledger.reserved(connection, name):
                gone = any(first <= message.id <= last for first, last in noted)
                (found.handed_over if gone else found.held).append(message)
            left.append(found)
    yield left


def _give_up(connection: sa.Connection, name: str, at: datetime) -> list[tuple[int, int]]:
    """End a dispatcher, and return its notes: ranges of the messages it may have handed over."""
    # waits for a note under way; after it the dispatcher can make none, should it be alive after all
    given_up = insert(dispatchers).values(name=name, given_up_at=at)
    connection.execute(
        given_up.on_conflict_do_update(index_elements=["name"], set_={"given_up_at": given_up.excluded.given_up_at})
    )
    noted = connection.execute(
        sa.delete(handed_over)
        .where(handed_over.c.dispatcher == name)
        .returning(handed_over.c.first_id, handed_over.c.last_id)
    )
    return [(first, last) for first, last in noted]


def _lock_of(name: str) -> int:
    """The advisory lock that shows that a dispatcher lives: the first 63 bits of its name."""
    return int(name[:16], 16) >> 1
