"""Channels: the far side of the outbox. One small interface; each way to send is a module here.

A channel is handed rendered messages and says what became of each. It knows nothing of campaigns, caps or the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from shopauto_pipelines.outbox.ledger import MessageKey


@dataclass(frozen=True)
class Envelope:
    """One message, rendered and addressed. ``reference`` names it for ever, ``message_id`` is the ledger's number."""

    message_id: int
    reference: str
    key: MessageKey
    channel: str
    to: str
    to_name: str
    subject: str
    html: str
    text: str
    language: str
    unsubscribe_url: str
    explanation: Mapping[str, Any]
    date: datetime


@dataclass(frozen=True)
class Outcome:
    """What became of a message.

    ``sent``: accepted. ``failed``: surely not accepted, and trying again will not help by itself. ``deferred``: surely
    not accepted, for a reason that has nothing to do with the message. ``unknown``: it may or may not have left.
    """

    state: Literal["sent", "failed", "deferred", "unknown"]
    reason: str | None = None
    provider_id: str | None = None


class Channel(Protocol):
    """A way to send."""

    #: Its name in the ledger.
    name: str
    #: Most messages of one :meth:`send`.
    batch_size: int

    def send(self, batch: Sequence[Envelope]) -> Sequence[Outcome]:
        """Send; one outcome per envelope, in order. Raises nothing for what the far side does."""
        ...

    def recall(self, reference: str) -> Outcome:
        """What became of a message whose sender died before it could say so."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
