"""Twilio, for SMS: its Messages call, one message each, over pooled connections.

The call has no idempotency key, so a time-out or a 5xx leaves a message ``unknown``. Twilio tells what becomes of each
message at ``<base_url>/webhooks/twilio/<message id>``. It answers STOP and the like itself and refuses the number afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from shopauto_pipelines.outbox.channels import Envelope, Outcome
from shopauto_pipelines.outbox.channels.asking import TIMEOUT, Asking, tls
from shopauto_pipelines.outbox.channels.refusals import sift
from shopauto_pipelines.platform.settings import Settings

_AT_ONCE = 8

#: Not the messages' fault: a wrong token, an account or a sender that may not send.
_OURS_TO_MEND = (401, 403, 404, 408)
_SENDER_AT_FAULT = (21212, 21603, 21606, 21659, 21701, 21703, 21705)
#: Nor is this: as much waits at the sender as it sends in hours.
_QUEUE_FULL = 21611

#: https://www.twilio.com/docs/api/errors
_MEANINGS = {
    21211: "the number is not valid",
    21408: "the account may not send to this country",
    21610: "the person answered STOP",
    21612: "the number cannot be reached from this sender",
    21614: "the number is not a mobile one",
    21617: "the text is too long",
}


class Twilio:
    """Delivers SMS through the Messages resource of the API 2010-04-01."""

    name = "twilio"
    batch_size = 100
    calls_at_once = 1

    def __init__(self, settings: Settings, sleep: Callable[[float], None] = time.sleep) -> None:
        account, token = settings.twilio_account_sid, settings.twilio_auth_token
        if account is None or token is None or settings.twilio_from is None:
            raise ValueError(
                "SHOPAUTO_TWILIO_ACCOUNT_SID, SHOPAUTO_TWILIO_AUTH_TOKEN or SHOPAUTO_TWILIO_FROM is not set"
            )
        self._settings, self._asking = settings, Asking("Twilio", sleep)
        self._path = f"/2010-04-01/Accounts/{account}/Messages.json"
        self._client = httpx.Client(
            base_url=settings.twilio_url, auth=(account, token.get_secret_value()), timeout=TIMEOUT, verify=tls()
        )
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="twilio")

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Send, some at a time; outcomes in the order of the batch."""
        good, outcomes = sift(batch, "sms")
        for envelope, outcome in zip(good, self._threads.map(self._deliver, good), strict=True):
            outcomes[envelope.message_id] = outcome
        return [outcomes[envelope.message_id] for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """The provider cannot be asked by our name of a message: only its events will tell."""
        return Outcome("unknown", "the dispatcher died while it sent")

    def close(self) -> None:
        """Close the pooled connections."""
        self._threads.shutdown()
        self._client.close()

    def _deliver(self, envelope: Envelope) -> Outcome:
        answer = self._asking.ask(lambda: self._client.post(self._path, data=form(envelope, self._settings)))
        return answer if isinstance(answer, Outcome) else _verdict(answer)


def form(envelope: Envelope, settings: Settings) -> dict[str, str]:
    """The fields of a Messages call."""
    sender = settings.twilio_from or ""
    return {
        "To": envelope.to,
        "MessagingServiceSid" if sender.startswith("MG") and len(sender) == 34 else "From": sender,
        "Body": envelope.text.strip(),
        "StatusCallback": f"{settings.base_url.rstrip('/')}/webhooks/twilio/{envelope.message_id}",
    }


def _verdict(response: httpx.Response) -> Outcome:
    status = response.status_code
    try:
        told = response.json()
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    if status == 201 and told.get("sid"):
        return Outcome("sent", provider_id=str(told["sid"]))
    if not 400 <= status < 500:
        return Outcome("unknown", f"Twilio answered {status}")
    code = told.get("code")
    said = f"Twilio answered {status}" + (f", error {code}" if isinstance(code, int) else "")
    if code == _QUEUE_FULL:
        return Outcome("deferred", f"{said}: the sender's queue is full")
    if status in _OURS_TO_MEND or code in _SENDER_AT_FAULT:
        return Outcome("deferred", f"{said}: check SHOPAUTO_TWILIO_…")
    meaning = _MEANINGS.get(code) if isinstance(code, int) else None
    return Outcome("failed", f"{said}: {meaning}" if meaning else said)
