"""A generic channel: signed requests to an address of one's own, for e-mail and SMS alike.

A request is ``POST`` with JSON ``{"messages": [{"id", "channel", "to", "subject", …}]}`` (:func:`payload`) and these headers:

- ``X-ShopAuto-Timestamp``: seconds since 1970, ``X-ShopAuto-Signature``: ``sha256=`` and, in hexadecimal, the HMAC-SHA256 of
  the timestamp, a full stop and the body, keyed with ``webhook_secret``. A receiver refuses old timestamps.
- ``Idempotency-Key``: the same for the same messages. A receiver that promises to take a key once is asked again where its
  answer was lost or it is still at work, which is a 409 (``webhook_idempotent``), and a refusal after that leaves the messages
  ``unknown``; every other one is not, and they are ``unknown`` at once.

The answer 2xx takes all messages, but for those it names: ``{"refused": [{"id": "…", "reason": "…"}]}``. 400, 413 and 422
refuse the request: it is halved until the messages at fault are alone. 429 is obeyed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from shopauto_pipelines.outbox.channels import Envelope, Outcome
from shopauto_pipelines.outbox.channels.asking import TIMEOUT, Asking, tls
from shopauto_pipelines.outbox.channels.mime import display_name, list_headers, one_line
from shopauto_pipelines.outbox.channels.refusals import sift
from shopauto_pipelines.platform.settings import Settings

#: The request's fault, so perhaps one message's.
_DIVISIBLE = (400, 413, 422)


class Webhook:
    """Delivers to ``webhook_url``."""

    name = "webhook"
    batch_size = 100
    calls_at_once = 1

    def __init__(
        self,
        settings: Settings,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        if settings.webhook_url is None or settings.webhook_secret is None:
            raise ValueError("SHOPAUTO_WEBHOOK_URL or SHOPAUTO_WEBHOOK_SECRET is not set")
        self._settings, self._asking, self._now = settings, Asking("the receiver", sleep), now
        self._url = settings.webhook_url
        self._secret = settings.webhook_secret.get_secret_value().encode()
        self._client = httpx.Client(timeout=TIMEOUT, verify=tls())

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Send; outcomes in the order of the batch."""
        good, outcomes = sift(batch, "email", "sms")
        outcomes |= self._deliver(good)
        return [outcomes[envelope.message_id] for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """The receiver cannot be asked."""
        return Outcome("unknown", "the dispatcher died while it sent")

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _deliver(self, envelopes: Sequence[Envelope]) -> dict[int, Outcome]:
        if not envelopes:
            return {}
        answer = self._post(envelopes)
        if isinstance(answer, Outcome):
            return {envelope.message_id: answer for envelope in envelopes}
        if answer.status_code in _DIVISIBLE and len(envelopes) > 1:
            middle = len(envelopes) // 2
            return self._deliver(envelopes[:middle]) | self._deliver(envelopes[middle:])
        outcome, refused = _verdict(answer)
        return {
            e.message_id: Outcome("failed", refused[e.reference]) if e.reference in refused else outcome
            for e in envelopes
        }

    def _post(self, envelopes: Sequence[Envelope]) -> httpx.Response | Outcome:
        body = json.dumps({"messages": [payload(e, self._settings) for e in envelopes]}, ensure_ascii=False).encode()
        key = hashlib.sha256("\n".join(envelope.reference for envelope in envelopes).encode()).hexdigest()

        def post() -> httpx.Response:
            timestamp = str(int(self._now()))
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": key,
                "X-ShopAuto-Timestamp": timestamp,
                "X-ShopAuto-Signature": signature(self._secret, timestamp, body),
            }
            return self._client.post(self._url, content=body, headers=headers)

        return self._asking.ask(post, idempotent=self._settings.webhook_idempotent)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What ``X-ShopAuto-Signature`` says about a body sent at a time."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def payload(envelope: Envelope, settings: Settings) -> dict[str, Any]:
    """A message as JSON: an e-mail has a subject, HTML and headers, an SMS text only."""
    campaign, step, _customer, occasion = envelope.key
    told: dict[str, Any] = {
        "id": envelope.reference,
        "channel": envelope.channel,
        "to": envelope.to,
        "to_name": display_name(envelope.to_name),
        "from_name": settings.from_name or settings.shop_name,
        "text": envelope.text,
        "language": envelope.language,
        "unsubscribe_url": envelope.unsubscribe_url,
        "campaign": campaign,
        "step": step,
        "occasion": occasion,
    }
    if envelope.channel == "email":
        told |= {
            "from": str(settings.from_email),
            "subject": one_line(envelope.subject),
            "html": envelope.html,
            "headers": list_headers(envelope),
        }
    return told


def _verdict(response: httpx.Response) -> tuple[Outcome, dict[str, str]]:
    """The outcome of the request's messages, and the reason of each one that is named as refused, by its id."""
    status = response.status_code
    if 200 <= status < 300:
        return Outcome("sent"), _refused(response)
    if status in _DIVISIBLE:
        return Outcome("failed", f"the receiver answered {status}"), {}
    if 300 <= status < 500:
        return Outcome("deferred", f"the receiver answered {status}: check SHOPAUTO_WEBHOOK_URL and its secret"), {}
    return Outcome("unknown", f"the receiver answered {status}"), {}


def _refused(response: httpx.Response) -> dict[str, str]:
    try:
        refused = response.json()["refused"]
        return {str(one["id"]): f"refused by the receiver: {_nameless(str(one.get('reason')))}" for one in refused}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _nameless(words: str) -> str:
    """Somebody else's words without addresses and numbers that may be in them."""
    return re.sub(r"\S*@\S*|\+?\d[\d ().-]{5,}\d", "…", words)[:100]
