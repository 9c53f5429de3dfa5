"""One embedded PostgreSQL for the room's tests, and messages to fill its ledger with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns.drafts import Draft
from shopauto_pipelines.outbox import ledger, links, schema
from shopauto_pipelines.outbox.channels import Envelope
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.postgres import SCHEMA
from shopauto_pipelines.platform.postgres import engine as open_engine
from shopauto_pipelines.platform.settings import Settings

DAY = date(2026, 1, 3)
AT = datetime(2026, 1, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="session")
def database_home() -> Iterator[Path]:
    """Home whose embedded PostgreSQL the whole session shares.

    Not below pytest's own folder: as root the server runs as another user, and every start of pytest shuts that folder.
    """
    with tempfile.TemporaryDirectory(prefix="shopauto-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_engine(database_home) -> sa.Engine:
    """The migrated database."""
    return without_sync(open_engine(Settings(home=database_home, _env_file=None)))


def without_sync(engine: sa.Engine) -> sa.Engine:
    """The database, which no longer waits for the disk: what is committed outlives every process, if not the machine."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("alter system set fsync = off"))
        connection.execute(sa.text("select pg_reload_conf()"))
    return engine


@pytest.fixture
def engine(shared_engine) -> sa.Engine:
    """The database with empty tables."""
    return emptied(shared_engine)


def emptied(engine: sa.Engine) -> sa.Engine:
    """The database with empty tables, which count from 1. Those that nobody has touched are left alone: it takes time."""
    with engine.begin() as connection:
        touched = [name for (name,) in connection.execute(sa.text(_touched(engine)))]
        if touched:
            connection.execute(sa.text(f"truncate {', '.join(touched)} restart identity cascade"))
    return engine


@cache
def _touched(engine: sa.Engine) -> str:
    """The statement that finds tables, of the other rooms too, that have rows or have counted some."""
    names = [f"{SCHEMA}.{name}" for name in sa.inspect(engine).get_table_names(SCHEMA) if name != "alembic_version"]
    counted = (
        "select from pg_sequence join pg_depend on objid = seqrelid "
        "where refobjid = '{0}'::regclass and pg_sequence_last_value(seqrelid) is not null"
    )
    return " union all ".join(
        f"select '{name}' where exists (select from {name}) or exists ({counted.format(name)})" for name in names
    )


@pytest.fixture
def clock() -> FixedClock:
    """The morning after the day."""
    return FixedClock(AT)


def rows(count: int, *, campaign: str = "welcome", key: bytes = b"key", start: int = 0, **more) -> list[dict]:
    """Messages to plan, one per customer."""
    return [
        {
            "campaign": campaign,
            "step": "hello",
            "customer_id": f"c{n:06}",
            "occasion": "2026-01-03",
            "channel": "email",
            "as_of": DAY,
            "language": "en",
            "template": "hello",
            "explanation": {"trigger": "signed_up"},
            "address_hash": links.address_hash(key, "email", f"c{n:06}@example.com"),
            **more,
        }
        for n in range(start, start + count)
    ]


def reserve(connection: sa.Connection, *, by: str = "me", limit: int = 1000, **more):
    """``ledger.reserve`` with the test's usual values."""
    usual = {"campaign": "welcome", "as_of": DAY, "via": "inbox", "cap": ledger.Cap(3, 7), "at": AT}
    return ledger.reserve(connection, by=by, limit=limit, **(usual | more))


class Change(NamedTuple):
    """A change of one message, as the history tells it."""

    message_id: int
    from_state: str | None
    to_state: str
    why: str | None
    id: int


def changes(connection: sa.Connection) -> list[Change]:
    """Every change of every message, in order."""
    history = schema.message_history.c
    found = connection.execute(
        sa.select(history.messages, history.from_state, history.to_state, history.why, history.id).order_by(history.id)
    )
    return [Change(n, *row) for numbers, *row in found for part in numbers for n in range(part.lower, part.upper)]


def envelope(n: int = 1, **more) -> Envelope:
    """A rendered message to one person."""
    key = ledger.MessageKey("welcome", "hello", f"c{n:06}", "2026-01-03")
    words = {
        "subject": f"Welcome, Ana {n}",
        "html": f'<html><body><h1>Hello Ana {n}</h1><p>Good to see you</p><a href="https://x.test/u/{n}">bye</a></body></html>',
        "text": f"Hello Ana {n}\n\nGood to see you\nhttps://x.test/u/{n}\n",
    }
    why = {"trigger": "signed_up", "scores": {"churn_factor": 1.25}, "segments": ["new"], "consent": True}
    draft = Draft(**{name: more.pop(name, words[name]) for name in words})
    usual = {
        "message_id": n,
        "key": key,
        "channel": "email",
        "to": f"c{n:06}@example.com",
        "to_name": f"Ana {n}",
        "draft": draft,
        "values": {},
        "language": "en",
        "unsubscribe_url": f"http://localhost:8025/u/{n}",
        "explained": json.dumps(more.pop("explanation", why)),
        "date": AT,
    }
    return Envelope(**(usual | more))
