"""Twilio's webhooks: whether a request is theirs, what became of a message, and what its reader answers. Stores nothing.

Their requests name no time that can be relied on (``RawDlrDoneDate`` has no zone), so an event happens when it is received.
A request that is sent again is the same event. Numbers are hashed as soon as they are read.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import datetime
from urllib.parse import parse_qsl

from shopauto_pipelines.campaigns.sms import OPT_OUT_WORDS
from shopauto_pipelines.outbox import links
from shopauto_pipelines.realtime.collector.events import Event

SIGNATURE_HEADER = "X-Twilio-Signature"

#: Their status of a message → our type of event. Others (scheduled, receiving, …) are ignored.
TYPES = {
    "queued": "processed",
    "sending": "processed",
    "sent": "processed",
    "delivered": "delivered",
    "undelivered": "bounce",
    "failed": "dropped",
}

#: Errors that say the number will never take an SMS: it does not exist, or is a landline. Others block one message.
_FOR_EVER = ("30005", "30006")
#: Error of a message to somebody who has answered STOP.
_STOPPED = "21610"

_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
_CODE = re.compile(r"[0-9]{5}")


class TwilioVerifier:
    """Tells whether a request was signed with the account's token, https://www.twilio.com/docs/usage/security."""

    def __init__(self, auth_token: str, base_url: str) -> None:
        """``base_url`` is ours as they know it, whatever stands in between."""
        self._key, self._base = auth_token.encode(), base_url.rstrip("/")

    def refusal(self, path: str, body: bytes, signature: str) -> str | None:
        """Why the request to ``path`` is refused; ``None`` where it is theirs."""
        if not signature:
            return "not signed"
        fields = sorted(set(_fields(body)))
        signed = (self._base + path + "".join(name + value for name, value in fields)).encode()
        genuine = base64.b64encode(hmac.digest(self._key, signed, "sha1"))
        return None if hmac.compare_digest(genuine, signature.encode(errors="replace")) else "wrong signature"


def status_event(message_id: int, body: bytes, hash_key: bytes, at: datetime) -> Event | None:
    """The event of a status callback; ``None`` for one of no use. Raises ``ValueError`` for what is none."""
    told = dict(_fields(body))
    sid, status, code = (told.get(name, "") for name in ("MessageSid", "MessageStatus", "ErrorCode"))
    if not _SID.fullmatch(sid) or not status or message_id >= 2**63:
        raise ValueError("not a status callback")
    kind = TYPES.get(status)
    if kind is None:
        return None
    return Event(
        event_id=f"{sid}:{status}",
        message_id=message_id,
        type=kind,
        at=at,
        is_machine=False,
        reason=_reason(kind, code),
        provider_id=sid,
        address_hash=links.address_hash(hash_key, "sms", told.get("To")),
    )


def stopped(body: bytes, hash_key: bytes) -> bytes | None:
    """The hash of the number of somebody who answers that they want no more; ``None`` for any other answer."""
    told = dict(_fields(body))
    wants_no_more = told.get("OptOutType") == "STOP" or told.get("Body", "").strip().upper() in OPT_OUT_WORDS
    return links.address_hash(hash_key, "sms", told.get("From")) if wants_no_more else None


def _fields(body: bytes) -> list[tuple[str, str]]:
    """The form's fields; raises ``ValueError`` for what is no form."""
    return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200)


def _reason(kind: str, code: str) -> str | None:
    if kind == "dropped" and code == _STOPPED:
        return "unsubscribed_before"
    if kind not in ("bounce", "dropped") or not _CODE.fullmatch(code):
        return None if kind != "bounce" else "blocked"
    return code if kind == "dropped" or code in _FOR_EVER else f"blocked {code}"
