"""The collector over the outbox's database, and somebody who signs as SendGrid does."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.testclient import TestClient

from shopauto_pipelines.outbox import ledger, links, schema
from shopauto_pipelines.outbox.channels.sendgrid import CORRELATION
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.sendgrid_events import SIGNATURE_HEADER, TIMESTAMP_HEADER
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines_tests.outbox.conftest import (
    AT,
    changes,
    clock,
    database_home,
    engine,
    reserve,
    rows,
    shared_engine,
)

__all__ = ["clock", "database_home", "engine", "shared_engine"]


@dataclass
class Provider:
    """Signs as SendGrid does."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def public_key(self) -> str:
        return base64.b64encode(
            self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode()

    def headers(self, body: bytes, at: datetime = AT) -> dict[str, str]:
        timestamp = str(int(at.timestamp()))
        signature = self.private.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        return {SIGNATURE_HEADER: base64.b64encode(signature).decode(), TIMESTAMP_HEADER: timestamp}


@pytest.fixture(scope="session")
def provider() -> Provider:
    return Provider()


@pytest.fixture
def settings(tmp_path, provider) -> Settings:
    """Settings with the provider's key."""
    return Settings(home=tmp_path, sendgrid_webhook_key=provider.public_key, _env_file=None)


def event(message: int, kind: str = "delivered", n: int = 0, at: datetime = AT, **more) -> dict:
    """An event as SendGrid words it, of the message to ``c<message - 1>@example.com``."""
    usual = {
        "email": f"c{message - 1:06}@example.com",
        "event": kind,
        "timestamp": int(at.timestamp()),
        "sg_event_id": f"{kind}-{message}-{n}",
        "sg_message_id": f"batch{message % 3}.recvd-abc-1-{message}.0",
        "smtp-id": "<x@geopod>",
        "category": ["welcome"],
        CORRELATION: str(message),
    }
    return usual | more


def plan(engine: sa.Engine, settings: Settings, count: int, state: str = "sent", **more) -> None:
    """Messages 1 … ``count``, in a state."""
    with engine.begin() as connection:
        ledger.plan(connection, rows(count, key=settings.hash_key, **more), run_id=None, at=AT)
        if state != "planned":
            taken = reserve(connection, limit=count, via="sendgrid").messages
            outcomes = [ledger.Settled(m.id, state, None, f"batch{m.id % 3}") for m in taken if state != "reserved"]
            ledger.settle(connection, outcomes, by="me", at=AT)


def everything(engine: sa.Engine) -> dict[str, list[tuple]]:
    """Every row of every table, without the numbers that only count rows."""
    found = {}
    with engine.connect() as connection:
        for table in schema.metadata.sorted_tables:
            columns = [column for column in table.columns if not (table.name == "consents" and column.name == "id")]
            found[table.name] = sorted(map(repr, connection.execute(sa.select(*columns))))
        found["message_history"] = sorted(repr(change[:-1]) for change in changes(connection))
    return found


@dataclass
class Web:
    """The collector, as the provider sees it."""

    client: TestClient
    provider: Provider

    def post(self, events: list, at: datetime = AT):
        return self.raw(json.dumps(events).encode(), at)

    def raw(self, body: bytes, at: datetime = AT):
        headers = self.provider.headers(body, at) | {"Content-Type": "application/json"}
        return self.client.post("/webhooks/sendgrid", content=body, headers=headers)


@pytest.fixture
def web(engine, settings, clock, provider, monkeypatch) -> Web:
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    return Web(TestClient(app(settings, clock)), provider)


def token_of(engine: sa.Engine, settings: Settings, message_id: int = 1) -> str:
    """The token of a message's links."""
    with engine.connect() as connection:
        message = ledger.find(connection, message_id)
    return links.unsubscribe_token(settings.hash_key, message.id, message.key)
