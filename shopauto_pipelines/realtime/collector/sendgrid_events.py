"""SendGrid's event webhook: whether a request is theirs, and what its events say. Pure functions; nothing is stored here.

An address is hashed as soon as it is read, and the words of foreign mail servers, which may quote it, are not kept.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shopauto_pipelines.outbox import links
from shopauto_pipelines.outbox.channels.sendgrid import CORRELATION
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.realtime.collector.events import Event

#: Headers of a signed request.
SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"

#: Their name of an event → ours. Others (deferred groups, account changes) are ignored.
TYPES = {
    "processed": "processed",
    "deferred": "deferred",
    "delivered": "delivered",
    "open": "open",
    "click": "click",
    "bounce": "bounce",
    "dropped": "dropped",
    "spamreport": "spam_report",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "unsubscribe",
}

#: Why they drop a message that they took: their words → ours.
_DROPPED = {
    "Bounced Address": "bounced_before",
    "Unsubscribed Address": "unsubscribed_before",
    "Spam Reporting Address": "reported_before",
    "Invalid": "invalid_address",
    "Spam Content": "spam_content",
    "Recipient List over Package Quota": "over_quota",
}

#: A clock may be so much ahead of ours.
_AHEAD = timedelta(minutes=5)

_EVENT_ID = re.compile(r"[\w+/=.-]{1,200}", re.ASCII)
_STATUS = re.compile(r"[245](\.[0-9]{1,3}){2}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class WebhookKeyError(ShopAutoError):
    """The verification key cannot be read; the text says which setting and where to get it."""


@dataclass(frozen=True)
class Parsed:
    """The events of a request, and how many others it held: ``not_ours``, ``ignored`` (of no use), ``unreadable``."""

    events: tuple[Event, ...]
    left_out: Mapping[str, int]


class Verifier:
    """Tells whether a request was signed with SendGrid's key, lately."""

    def __init__(self, public_key: str, window: timedelta) -> None:
        """``public_key`` as their settings page shows it. Raises :class:`WebhookKeyError`."""
        from sendgrid.helpers.eventwebhook import EventWebhook

        try:
            self._webhook = EventWebhook(public_key.strip())
        except ValueError:
            raise WebhookKeyError(
                "SHOPAUTO_SENDGRID_WEBHOOK_KEY is not a verification key: copy it from SendGrid, Mail Settings, "
                "Event Webhook, Signature Verification"
            ) from None
        self._window = window

    def refusal(self, body: bytes, headers: Mapping[str, str], now: datetime) -> str | None:
        """Why the request is refused; ``None`` where it is theirs. Checked over the raw bytes, before any parsing."""
        signature, timestamp = headers.get(SIGNATURE_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
        if not signature or not timestamp:
            return "not signed"
        try:
            # the helper skips what is no base64, and trailing bits: two texts would stand for one signature
            canonical = base64.b64encode(base64.b64decode(signature, validate=True)).decode() == signature
            genuine = canonical and self._webhook.verify_signature(body.decode(), signature, timestamp)
        except ValueError:
            genuine = False
        if not genuine:
            return "wrong signature"
        if not _NUMBER.fullmatch(timestamp):
            return "no time"
        age = now.timestamp() - int(timestamp)
        if not -_AHEAD.total_seconds() <= age <= self._window.total_seconds():
            return "too old, or from the future"
        return None


def parse(body: bytes, hash_key: bytes) -> Parsed:
    """The events of a request. Raises ``ValueError`` where it is no JSON list; one bad event spoils no other."""
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(found, list):
        raise ValueError("not a list of events")
    events: list[Event] = []
    left_out: Counter[str] = Counter()
    for entry in found:
        read = _event(entry, hash_key)
        if isinstance(read, Event):
            events.append(read)
        else:
            left_out[read] += 1
    return Parsed(tuple(events), left_out)


def _event(entry: Any, hash_key: bytes) -> Event | str:
    """The event, or why it is left out."""
    if not isinstance(entry, dict):
        return "unreadable"
    number = entry.get(CORRELATION)
    if number is None:
        return "not_ours"
    kind = TYPES.get(str(entry.get("event")))
    if kind is None:
        return "ignored"
    event_id, at = entry.get("sg_event_id"), _time(entry.get("timestamp"))
    if not (_is(_NUMBER, str(number)) and _is(_EVENT_ID, event_id) and at):
        return "unreadable"
    provider_id = str(entry.get("sg_message_id")).partition(".")[0]
    email = entry.get("email")
    try:
        address_hash = links.address_hash(hash_key, "email", email) if isinstance(email, str) else None
    except UnicodeEncodeError:  # half a character
        address_hash = None
    return Event(
        event_id=str(event_id),
        message_id=int(number),
        type=kind,
        at=at,
        is_machine=kind == "open" and entry.get("sg_machine_open") is True,
        reason=_reason(kind, entry),
        provider_id=provider_id if _is(_EVENT_ID, provider_id) else None,
        address_hash=address_hash,
    )


def _is(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _time(value: Any) -> datetime | None:
    """Seconds since 1970, as a number or as digits."""
    if isinstance(value, bool) or not _is(_NUMBER, str(value)):
        return None
    try:
        return datetime.fromtimestamp(int(value), UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _reason(kind: str, entry: Mapping[str, Any]) -> str | None:
    """Why it was not delivered: the mail server's status code and whether it only blocked us, or why it was dropped."""
    if kind == "dropped":
        return _DROPPED.get(str(entry.get("reason")), "other")
    if kind in ("bounce", "deferred"):
        blocked = "blocked" if entry.get("type") == "blocked" else ""
        code = str(entry.get("status"))
        return " ".join(filter(None, (blocked, code if _is(_STATUS, code) else ""))) or None
    return None
