"""The collector as the shop sees it, and what is in the database afterwards. Shared by the tests of what it takes in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines_tests.outbox.conftest import AT

KEY, IDENTITY = "a-servers-key", "a-key-for-signatures"


@contextmanager
def collecting(engine, monkeypatch, home, at=AT, **more) -> Iterator[TestClient]:
    """A collector at ``at`` with a servers' key and signed identities; ``more`` settings."""
    usual = {"collector_key": KEY, "identity_secret": IDENTITY}
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    settings = Settings(home=home, _env_file=None, **usual | more)
    with TestClient(app(settings, FixedClock(at)), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def served(application: Starlette) -> Iterator[str]:
    """The address of an application that is served on a free port, for a browser."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def bearer(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def event(n: int = 1, **more: Any) -> dict[str, Any]:
    """Something put into a cart."""
    usual = {
        "event_id": f"e{n}",
        "happened_at": AT.isoformat(),
        "type": "add_to_cart",
        "anonymous_id": "browser",
        "cart_id": "cart",
        "product_id": "P1",
        "quantity": 1,
    }
    return {name: value for name, value in (usual | more).items() if value is not None}


def rows(engine: sa.Engine, table: str = "raw/events") -> list[dict[str, Any]]:
    """What was stored for a raw table, in the order of its keys."""
    query = sa.text('select "row" from collected where raw_table = :table order by key')
    with engine.connect() as connection:
        return list(connection.execute(query, {"table": table}).scalars())


def query(engine: sa.Engine, statement: str) -> list[tuple]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
