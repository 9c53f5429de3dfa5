"""Answers to an SMS that end the messages, and what follows from them."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from shopauto_pipelines.outbox import consents
from shopauto_pipelines.outbox.schema import messages


def stop(connection: sa.Connection, address_hash: bytes, *, at: datetime) -> None:
    """No SMS to this number any more. The answer names no message, so it is taken to answer the latest one sent there."""
    sent = (messages.c.channel == "sms") & (messages.c.address_hash == address_hash)
    query = sa.select(messages.c.id, messages.c.customer_id).where(sent).order_by(messages.c.id.desc()).limit(1)
    latest = connection.execute(query).one_or_none()
    consents.withdraw(
        connection,
        address_hash,
        "sms",
        source="sms_reply",
        at=at,
        customer_id=latest.customer_id if latest else None,
        message_id=latest.id if latest else None,
        now=True,
    )
