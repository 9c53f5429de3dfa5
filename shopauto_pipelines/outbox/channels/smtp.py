"""SMTP, for e-mail through a relay of one's own or of a provider (RFC 5321). DKIM is the relay's business.

One connection a batch, one transaction a message. The relay has a message from the moment the line with the final dot may
have reached it: a connection lost before is opened again, one lost after leaves the message ``unknown``.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from shopauto_pipelines.outbox.channels import Envelope, Outcome
from shopauto_pipelines.outbox.channels.mime import compose
from shopauto_pipelines.outbox.channels.refusals import sift
from shopauto_pipelines.platform.settings import Settings

_TRIES = 3

#: Replies that have nothing to do with the message: no login, a login that is too weak.
_OURS_TO_MEND = (530, 534, 535)


class Smtp:
    """Delivers to an SMTP relay."""

    name = "smtp"
    batch_size = 100
    calls_at_once = 4

    def __init__(self, settings: Settings, timeout: float = 60.0, sleep: Callable[[float], None] = time.sleep) -> None:
        if settings.smtp_host is None:
            raise ValueError("SHOPAUTO_SMTP_HOST is not set")
        self._settings, self._timeout, self._sleep = settings, timeout, sleep
        self._trusted = None if settings.smtp_security == "none" else ssl.create_default_context()

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Send one by one over one connection; where there is no relay, the rest of the batch is put back."""
        good, outcomes = sift(batch, "email")
        session = _Session(self._settings, self._trusted, self._timeout, self._sleep)
        try:
            for envelope in good:
                outcomes[envelope.message_id] = session.deliver(envelope)
        except _NoRelay as why:
            outcomes = {e.message_id: Outcome("deferred", str(why)) for e in good} | outcomes
        finally:
            session.close()
        return [outcomes[envelope.message_id] for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """A relay cannot be asked; its log knows the message by ``Message-ID: <reference@…>``."""
        return Outcome("unknown", "the dispatcher died while it sent")

    def close(self) -> None:
        """Nothing to let go of: a connection lives as long as its batch."""


class _NoRelay(Exception):
    """Nothing can be sent now, whatever the message; the text says why."""


class _Session:
    """A connection to the relay, opened when it is needed and again when it is lost.

    Everything ``smtplib`` raises is an ``OSError``.
    """

    def __init__(
        self, settings: Settings, trusted: ssl.SSLContext | None, timeout: float, sleep: Callable[[float], None]
    ) -> None:
        self._settings, self._trusted, self._timeout, self._sleep = settings, trusted, timeout, sleep
        self._relay: smtplib.SMTP | None = None

    def deliver(self, envelope: Envelope) -> Outcome:
        """One transaction; raises :class:`_NoRelay`."""
        content = re.sub(rb"(?m)^\.", b"..", compose(envelope, self._settings))
        why = ""
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(2.0**attempt)
            try:
                relay = self._relay or self._connect()
                refused = self._offer(relay, envelope.to, len(content))
                if refused is None:
                    relay.send(content)
            except OSError as error:  # the final dot has not left
                why = type(error).__name__
                self._drop()
                continue
            if refused is None:
                return self._confirm(relay, envelope.reference)
            if refused[0] != 421:
                self._forget(relay)
                return _verdict(*refused)
            why = "421"
            self.close()
        raise _NoRelay(f"the relay cannot be reached or hangs up ({why})")

    def close(self) -> None:
        """Take leave of the relay."""
        if self._relay is not None:
            with suppress(OSError):
                self._relay.quit()
        self._drop()

    def _drop(self) -> None:
        if self._relay is not None:
            self._relay.close()
        self._relay = None

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        assert settings.smtp_host is not None
        try:
            relay = (
                smtplib.SMTP_SSL(settings.smtp_host, settings.smtp_port, timeout=self._timeout, context=self._trusted)
                if settings.smtp_security == "ssl"
                else smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=self._timeout)
            )
            if settings.smtp_security == "starttls":
                relay.starttls(context=self._trusted)
            relay.ehlo_or_helo_if_needed()
            if settings.smtp_user:
                password = settings.smtp_password
                relay.login(settings.smtp_user, password.get_secret_value() if password else "")
        except ssl.SSLError as error:
            raise _NoRelay(f"no safe connection to the relay: {error.reason}") from None
        except smtplib.SMTPNotSupportedError:
            raise _NoRelay("the relay offers no STARTTLS or no login: check SHOPAUTO_SMTP_SECURITY") from None
        except UnicodeEncodeError:
            raise _NoRelay("the login can have ASCII letters only: check SHOPAUTO_SMTP_USER and its password") from None
        except smtplib.SMTPAuthenticationError as error:
            raise _NoRelay(f"the relay answered {error.smtp_code} to the login: check SHOPAUTO_SMTP_USER") from None
        except smtplib.SMTPResponseException as error:
            raise _NoRelay(f"the relay answered {error.smtp_code} to the connection") from None
        if relay.sock is not None:  # content and final dot leave apart, and neither may wait for the other's receipt
            relay.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._relay = relay
        return relay

    def _offer(self, relay: smtplib.SMTP, to: str, size: int) -> tuple[int, bytes] | None:
        """Announce the message; ``None`` where the relay waits for its content, else its refusal."""
        code, text = _reply(
            relay.mail(str(self._settings.from_email), [f"size={size}"] if relay.has_extn("size") else [])
        )
        if code >= 500 and code != 552:
            raise _NoRelay(f"the relay answered {code} to the sender: check SHOPAUTO_FROM_EMAIL and SHOPAUTO_SMTP_USER")
        if code < 400:
            code, text = _reply(relay.rcpt(to))
        if code < 400:
            code, text = _reply(relay.docmd("data"))
        if code in _OURS_TO_MEND:
            raise _NoRelay(f"the relay answered {code}: check SHOPAUTO_SMTP_USER")
        return (code, text) if code >= 400 else None

    def _confirm(self, relay: smtplib.SMTP, reference: str) -> Outcome:
        """Say that the message is whole. From here on, no answer means: it may have been accepted."""
        try:
            relay.send(b".\r\n")
            code, text = _reply(relay.getreply())
        except OSError as error:
            self._drop()
            return Outcome("unknown", f"no answer from the relay: {type(error).__name__}")
        return _verdict(code, text) if code >= 400 else Outcome("sent", provider_id=reference)

    def _forget(self, relay: smtplib.SMTP) -> None:
        """End the refused transaction."""
        try:
            relay.rset()
        except OSError:
            self._drop()


def _reply(answer: tuple[int, bytes]) -> tuple[int, bytes]:
    """The answer, where it is one: a relay that talks nonsense is one that is not there."""
    if not 200 <= answer[0] < 600:
        raise smtplib.SMTPServerDisconnected("not a reply")
    return answer


def _verdict(code: int, text: bytes) -> Outcome:
    """What a refusal means. Its words may quote the address; only its codes (RFC 3463) are repeated."""
    enhanced = re.match(rb"[245]\.\d{1,3}\.\d{1,3}", text)
    shown = " ".join([str(code), *([enhanced[0].decode()] if enhanced else [])])
    return Outcome("deferred" if code < 500 else "failed", f"the relay answered {shown}")
