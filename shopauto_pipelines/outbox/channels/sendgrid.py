"""SendGrid, the usual channel of live mode. Payloads by its own package, sent by a pooled client with time-outs.

The provider has no idempotency key, so only what was surely not accepted is ever tried again: 429 (after the wait it
asks for), and a connection that could not be opened. 5xx, a time-out or a dropped connection are ``unknown``. Several
threads may send at once; a wait that one of them is asked for holds for all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from pydantic_core import to_json

from shopauto_pipelines.outbox.channels import Envelope, Outcome
from shopauto_pipelines.outbox.channels.asking import TIMEOUT, Asking, tls
from shopauto_pipelines.outbox.channels.mime import display_name, list_headers, one_line
from shopauto_pipelines.outbox.channels.refusals import sift
from shopauto_pipelines.outbox.channels.shared_content import Folded, Folder
from shopauto_pipelines.platform.settings import Settings

#: Custom argument that carries the ledger's id with every event of a message. No personal data goes in there.
CORRELATION = "shopauto_message"

#: Not the messages' fault: a wrong key, a sender that may not send, a request that did not arrive whole.
_OURS_TO_MEND = (401, 403, 408)


class SendGrid:
    """Delivers through the v3 mail-send call, one call per shared body and at most 1,000 people."""

    name = "sendgrid"
    batch_size = 1000
    calls_at_once = 4

    def __init__(self, settings: Settings, sleep: Callable[[float], None] = time.sleep) -> None:
        if settings.sendgrid_api_key is None:
            raise ValueError("SHOPAUTO_SENDGRID_API_KEY is not set")
        self._settings = settings
        self._folder = Folder()
        self._asking = Asking("SendGrid", sleep)
        self._client = httpx.Client(
            base_url=settings.sendgrid_url,
            headers={
                "Authorization": f"Bearer {settings.sendgrid_api_key.get_secret_value()}",
                "Content-Type": "application/json",
            },
            timeout=TIMEOUT,
            verify=tls(),
        )

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Send; outcomes in the order of the batch."""
        if len(batch) > self.batch_size:
            raise ValueError(f"at most {self.batch_size} messages a call")
        good, outcomes = sift(batch, "email")
        for folded in self._folder.fold(good):
            outcomes |= self._send_folded(folded)
        return [outcomes[envelope.message_id] for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """The provider cannot be asked: only its events will tell."""
        return Outcome("unknown", "the dispatcher died while it sent")

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _send_folded(self, folded: Folded) -> dict[int, Outcome]:
        """Send; people the provider finds fault with are taken out and the others sent without them."""
        outcomes: dict[int, Outcome] = {}
        while folded.envelopes:
            outcome, faults = self._post(payload(folded, self._settings))
            if not faults:
                return outcomes | {envelope.message_id: outcome for envelope in folded.envelopes}
            outcomes |= {folded.envelopes[n].message_id: Outcome("failed", why) for n, why in faults.items()}
            kept = [n for n in range(len(folded.envelopes)) if n not in faults]
            folded = Folded(
                tuple(folded.envelopes[n] for n in kept),
                folded.html,
                folded.text,
                tuple(folded.pieces[n] for n in kept),
            )
        return outcomes

    def _post(self, body: dict[str, Any]) -> tuple[Outcome, dict[int, str]]:
        """One accepted, refused or lost call: the outcome of all, or what is wrong with some (by index)."""
        content = to_json(body)  # five times as quick as the standard library's
        answer = self._asking.ask(lambda: self._client.post("/v3/mail/send", content=content))
        if isinstance(answer, Outcome):
            return answer, {}
        return _verdict(answer, len(body["personalizations"]), self._settings.sendgrid_sandbox)


def payload(folded: Folded, settings: Settings) -> dict[str, Any]:
    """The JSON of a mail-send call. Categories and custom arguments hold no personal data.

    Made by the ``sendgrid`` package but for the people in it, who are written as the package would write them: its
    objects take 30 µs a person, more than everything else on the way together.
    """
    from sendgrid.helpers import mail

    first = folded.envelopes[0]
    message = mail.Mail(from_email=mail.From(str(settings.from_email), settings.from_name or settings.shop_name))
    message.subject = one_line(first.subject)
    message.content = [mail.Content("text/plain", folded.text), mail.Content("text/html", folded.html)]
    message.category = mail.Category(first.key.campaign[:255])
    if settings.sendgrid_sandbox:
        message.mail_settings = mail.MailSettings(sandbox_mode=mail.SandBoxMode(enable=True))
    body = message.get()
    body["personalizations"] = [_person(e, pieces) for e, pieces in zip(folded.envelopes, folded.pieces, strict=True)]
    return body


def _person(envelope: Envelope, pieces: dict[str, str]) -> dict[str, Any]:
    """One personalisation, as the package's own classes would write it."""
    to = {"email": envelope.to}
    if name := display_name(envelope.to_name):
        to["name"] = name
    person = {
        "to": [to],
        "subject": one_line(envelope.subject),
        "headers": list_headers(envelope),
        "custom_args": {CORRELATION: str(envelope.message_id)},
    }
    if pieces:
        person["substitutions"] = pieces
    return person


def _verdict(response: httpx.Response, people: int, sandbox: bool) -> tuple[Outcome, dict[int, str]]:
    status = response.status_code
    if status == 202:
        return Outcome("sent", provider_id=response.headers.get("X-Message-Id")), {}
    if status == 200 and sandbox:
        return Outcome("failed", "sandbox mode: valid, not delivered"), {}
    if status in _OURS_TO_MEND:
        return Outcome("deferred", f"SendGrid answered {status}: check the API key and the sender"), {}
    if 400 <= status < 500:
        return Outcome("failed", f"SendGrid answered {status}: {_fields(response)}"), _faults(response, people)
    return Outcome("unknown", f"SendGrid answered {status}"), {}


def _errors(response: httpx.Response) -> list[dict[str, Any]]:
    try:
        errors = response.json()["errors"]
    except (ValueError, KeyError, TypeError):
        return []
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _fields(response: httpx.Response) -> str:
    """The fields it finds fault with. Its messages may quote an address, so they are not repeated."""
    return ", ".join(sorted({str(error.get("field")) for error in _errors(response)})) or "no field named"


def _faults(response: httpx.Response, people: int) -> dict[int, str]:
    """Index of each person the provider names in its errors, with the field."""
    faults = {}
    for error in _errors(response):
        found = re.match(r"personalizations\.(\d+)\.(.+)", str(error.get("field")))
        if found and int(found[1]) < people:
            faults[int(found[1])] = f"SendGrid answered {response.status_code}: {found[2]}"
    return faults
