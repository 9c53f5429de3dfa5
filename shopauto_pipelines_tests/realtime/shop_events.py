"""Things that happen in a shop, as the collector reads them."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from shopauto_pipelines.realtime import schema
from shopauto_pipelines.realtime.collected import Batch, Row, Stored, store

NOON = datetime(2026, 1, 4, 12, tzinfo=UTC)


def event(event_id: str, kind: str, cart_id: str | None = None, at: datetime = NOON, **more) -> Row:
    """A row of ``raw/events``."""
    row = {"event_id": event_id, "happened_at": _text(at), "type": kind, "cart_id": cart_id, **more}
    return Row("raw/events", event_id, at, cart_id, _given(row))


def order(order_id: str, shop_customer_id: str | None, cart_id: str | None = None, at: datetime = NOON, **more) -> Row:
    """A row of ``raw/orders``."""
    row = {
        "order_id": order_id,
        "ordered_at": _text(at),
        "shop_customer_id": shop_customer_id,
        "total_cents": 100,
        "cart_id": cart_id,
    }
    return Row("raw/orders", order_id, at, cart_id, _given(row | more))


def take(engine: sa.Engine, *rows: Row, at: datetime = NOON, **more) -> Stored:
    """Store rows, and what else a batch has, in a transaction of its own."""
    with engine.begin() as connection:
        return store(connection, Batch(list(rows), **more), at=at)


def people(engine: sa.Engine, ids: dict[str, str], addresses: dict[str, bytes] | None = None) -> None:
    """Publish whose shop ids these are, and people's addresses."""
    served = {"as_of": NOON.date(), "lapsed": False, "held_out": False, "discount_seeker": False}
    with engine.begin() as connection:
        for shop_customer_id, customer_id in ids.items():
            named = {"shop_customer_id": shop_customer_id, "customer_id": customer_id}
            connection.execute(sa.insert(schema.people_ids).values(named))
        for customer_id, address_hash in (addresses or {}).items():
            named = {"customer_id": customer_id, "address_hash": address_hash}
            connection.execute(sa.insert(schema.people).values(named | served))


def _given(row: dict) -> dict:
    return {name: value for name, value in row.items() if value is not None}


def _text(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(timespec="microseconds")
