"""What a provider says of one message, in our words: the same for every provider. Reading and storing stand elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Event:
    """One event of one of our messages, as far as it can be told without asking the ledger.

    ``type`` is one of processed, deferred, delivered, open, click, bounce, dropped, spam_report and unsubscribe; ``at`` the
    provider's time. ``reason`` is made of known words and codes only: it quotes nothing.
    """

    event_id: str
    message_id: int
    type: str
    at: datetime
    is_machine: bool
    reason: str | None
    provider_id: str | None
    address_hash: bytes | None
