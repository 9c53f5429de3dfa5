"""The local inbox, the default channel: every message is an ``.eml`` file under ``<home>/inbox/messages``.

The file's name is the message's reference, and a file appears whole or not at all, so the inbox itself says whether a
message was delivered. Nothing leaves the machine. The page that shows the files is ``outbox.inbox_page``.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from shopauto_pipelines.outbox.channels import Envelope, Outcome, mime
from shopauto_pipelines.outbox.channels.refusals import sift
from shopauto_pipelines.platform.settings import Settings


class LocalInbox:
    """Delivers into a folder."""

    name = "inbox"
    batch_size = 1000
    calls_at_once = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.inbox_path / "messages"
        self._staging = settings.inbox_path / "staging"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._staging.mkdir(parents=True, exist_ok=True)

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Write one file per message; a message that is there already stays as it is."""
        good, outcomes = sift(batch, "email", "sms")
        outcomes |= {envelope.message_id: self._deliver(envelope) for envelope in good}
        return [outcomes[envelope.message_id] for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """Delivered where the file is there; surely not where it is not."""
        if message_path(self._settings, reference).exists():
            return Outcome("sent", provider_id=reference)
        return Outcome("deferred", "the dispatcher died before it delivered")

    def close(self) -> None:
        """Nothing to let go of."""

    def _deliver(self, envelope: Envelope) -> Outcome:
        staged = self._staging / uuid.uuid4().hex
        try:
            staged.write_bytes(compose(envelope, self._settings))
            os.link(staged, message_path(self._settings, envelope.reference))
        except FileExistsError:
            pass  # delivered before, by this process or another one
        finally:
            staged.unlink(missing_ok=True)
        return Outcome("sent", provider_id=envelope.reference)


def message_path(settings: Settings, reference: str) -> Path:
    """File of a message, whether or not it exists; raises ``ValueError`` for what is no reference."""
    if not re.fullmatch("[0-9a-f]{32}", reference):
        raise ValueError("not a message reference")
    return settings.inbox_path / "messages" / f"{reference}.eml"


def compose(envelope: Envelope, settings: Settings) -> bytes:
    """The message with what the inbox's page shows about it: whom it is for, and why they were chosen."""
    names = ("Campaign", "Step", "Customer", "Occasion")
    about = {name: mime.unstructured(value) for name, value in zip(names, envelope.key, strict=True)}
    about |= {"Channel": envelope.channel, "Explanation": _explanation(envelope)}
    return mime.compose(envelope, settings, {f"X-ShopAuto-{name}": value for name, value in about.items()})


def _explanation(envelope: Envelope) -> str:
    """ASCII JSON; ``=?`` would be read as an encoded word."""
    return json.dumps(dict(envelope.explanation), sort_keys=True).replace("=?", "\\u003d?")
