"""The switches of operators and breakers: nothing of a paused campaign is reserved, and nothing at all once all is stopped.

A switch takes the lock that reservations hold until they are committed. So it waits for those under way, and from its
commit on no message is reserved. A dispatcher asks once more before it hands a batch over, and puts it back where a switch
was turned; what was past that question is finished, up to ``calls_at_once`` batches of its channel per dispatcher.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shopauto_pipelines.outbox.schema import EVERYTHING
from shopauto_pipelines.outbox.schema import control_history as history
from shopauto_pipelines.outbox.schema import controls as table


class Control(NamedTuple):
    """A switch as it stands. ``scope`` is a campaign, or ``*`` for everything."""

    scope: str
    paused: bool
    why: str | None
    by: str
    at: datetime


def pause(connection: sa.Connection, scope: str, why: str, by: str, at: datetime) -> bool:
    """Let nothing of ``scope`` be reserved any more. False where that was so already; the first cause is kept."""
    return _switch(connection, Control(scope, True, why, by, at))


def resume(connection: sa.Connection, scope: str, by: str, at: datetime, why: str | None = None) -> bool:
    """Let ``scope`` go on where it stopped. False where it was not paused."""
    return _switch(connection, Control(scope, False, why, by, at))


def controls(connection: sa.Connection) -> list[Control]:
    """Every switch that was ever used, by scope."""
    return [Control(*row) for row in connection.execute(sa.select(table).order_by(table.c.scope))]


def changes(connection: sa.Connection, limit: int = 20) -> list[Control]:
    """The latest changes of switches, the newest first."""
    columns = (history.c[name] for name in Control._fields)
    return [Control(*row) for row in connection.execute(sa.select(*columns).order_by(history.c.id.desc()).limit(limit))]


def stopped(connection: sa.Connection, campaign: str) -> str | None:
    """Why nothing of the campaign may leave now; ``None`` where it may."""
    found = connection.execute(
        sa.select(table).where(table.c.scope.in_((EVERYTHING, campaign)), table.c.paused).order_by(table.c.scope)
    ).first()
    if found is None:
        return None
    what = "everything is stopped" if found.scope == EVERYTHING else "the campaign is paused"
    return f"{what} by {found.by} since {found.at:%Y-%m-%d %H:%M} UTC: {found.why}"


def lock(connection: sa.Connection) -> None:
    """Wait for the reservations and switches under way, and make others wait for this transaction."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("shopauto.reserve"))))


def _switch(connection: sa.Connection, wanted: Control) -> bool:
    lock(connection)
    before = connection.execute(sa.select(table.c.paused).where(table.c.scope == wanted.scope)).scalar()
    if bool(before) == wanted.paused:
        return False
    values = wanted._asdict()
    connection.execute(insert(table).values(values).on_conflict_do_update(index_elements=["scope"], set_=values))
    connection.execute(sa.insert(history).values(values))
    return True
