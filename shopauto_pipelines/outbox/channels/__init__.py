"""Channels: the far side of the outbox. One small interface; each way to send is a module here.

A channel is handed rendered messages and says what became of each. It knows nothing of campaigns, caps or the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from shopauto_pipelines.campaigns.drafts import Draft
from shopauto_pipelines.outbox.ledger import MessageKey
from shopauto_pipelines.outbox.links import reference


@dataclass(slots=True)
class Envelope:
    """One message, rendered and addressed. ``message_id`` is the ledger's number.

    What it says is a ``draft``, shared by everybody who gets the same but for the ``values`` in its holes. Its ``date`` is when
    it leaves; where live mode is off, the end of its day, so that the inbox's files are the same whenever they are written.
    """

    message_id: int
    key: MessageKey
    channel: str
    to: str
    to_name: str
    draft: Draft
    values: Mapping[str, str]
    language: str
    unsubscribe_url: str
    explained: str
    date: datetime

    @property
    def reference(self) -> str:
        """Names the message for ever, in every run and on every machine."""
        return reference(self.key)

    @property
    def explanation(self) -> dict[str, Any]:
        """Why this person was chosen; read from its JSON at every use, as most channels never ask."""
        return json.loads(self.explained)

    @property
    def subject(self) -> str:
        """The subject of this person."""
        return self.draft.filled_subject(self.values)

    @property
    def html(self) -> str:
        """The HTML of this person."""
        return self.draft.filled_html(self.values)

    @property
    def text(self) -> str:
        """The text part of this person."""
        return self.draft.filled_text(self.values)


@dataclass(frozen=True)
class Outcome:
    """What became of a message.

    ``sent``: accepted. ``failed``: surely not accepted, and trying again will not help by itself. ``deferred``: surely
    not accepted for now, be it this one (a full mailbox) or every one (no connection, a wrong key). ``unknown``: it may
    or may not have left.
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
    #: How many threads may be in :meth:`send` at the same time.
    calls_at_once: int

    def send(self, batch: Sequence[Envelope]) -> Sequence[Outcome]:
        """Send; one outcome per envelope, in order. Raises nothing for what the far side does."""
        ...

    def recall(self, reference: str) -> Outcome:
        """What became of a message whose sender died before it could say so."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
