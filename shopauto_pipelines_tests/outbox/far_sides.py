"""Far sides of the channels on loopback, each of which refuses what its published contract refuses and keeps what it accepts.

``Relay`` is an SMTP relay (aiosmtpd, RFC 5321), ``TwilioStandIn`` Twilio's Messages call (its OpenAPI file and its own magic
numbers), ``Receiver`` what somebody would write from the docstring of ``channels.webhook``. SendGrid's has a module of its own.

Each can be told what to do with the next calls: one of ``BEHAVIOURS``, or ``None`` for what the real one would do;
those behind HTTP also a status, to answer with that and take nothing.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import re
import ssl
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import SMTP as POLICY
from email.utils import parseaddr
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlparse

import jsonschema_rs
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

#: "after" is always: after the messages were accepted.
BEHAVIOURS = ("rate limit", "drop before", "drop after", "hang after", "garbage after", "error after", "refuse all")


@dataclass(frozen=True)
class Seen:
    """A message as its reader has it."""

    to: str
    to_name: str | None
    subject: str | None
    text: str
    html: str | None
    headers: dict[str, str]


class _Told:
    """What it was told, and what it has accepted."""

    def __init__(self) -> None:
        self.accepted: list[Seen] = []
        self.calls = 0
        self.connections: set[Any] = set()
        self.lock = threading.Lock()
        self._next: deque[str | int | None] = deque()

    def behave(self, *calls: str | int | None) -> None:
        """What to do with the next calls."""
        assert {call for call in calls if not isinstance(call, int)} <= {None, *BEHAVIOURS}
        self._next = deque(calls)

    def next_behaviour(self) -> str | int | None:
        """What to do with this call."""
        with self.lock:
            self.calls += 1
            return self._next.popleft() if self._next else None


class Relay(_Told):
    """An SMTP relay. It knows no ``nobody@…``, and the mailbox of ``full@…`` is full."""

    def __init__(self, implicit_tls: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__()
        self.greeted = 0
        self._options = {"enable_SMTPUTF8": False, "data_size_limit": 33_554_432, **options}
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(self._connected, "127.0.0.1", 0, ssl=implicit_tls)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""

        def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_soon(self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(10)

    def _connected(self) -> SMTP:
        self.greeted += 1
        return SMTP(self, loop=self._loop, **self._options)

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list) -> str:
        """Take the sender."""
        session.told = self.next_behaviour()
        if session.told == "drop before":
            server.transport.abort()
        if session.told == "rate limit":
            server.transport.write(b"421 4.7.0 too many, come back later\r\n")
            server.transport.close()
        if session.told == "refuse all":
            return "550 5.7.1 not from there"
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list) -> str:
        """Take the recipient, where there is such a mailbox."""
        if address.startswith("nobody@"):
            return f"550 5.1.1 <{address}> unknown"
        if address.startswith("full@"):
            return f"452 4.2.2 <{address}> is full"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take the message, where it is one."""
        content = envelope.content
        assert isinstance(content, bytes)
        if not content.isascii() or any(len(line) > 998 for line in content.split(b"\r\n")) or b"spam" in content:
            return "554 5.6.0 refused"
        mail = message_from_bytes(content, policy=POLICY)
        parts = list(mail.walk())
        (to,) = envelope.rcpt_tos
        if any(part.defects for part in parts) or [a.addr_spec for a in mail["To"].addresses] != [to]:
            return "554 5.6.0 not a message"
        if session.told == "error after":
            return "451 4.3.0 not now"  # a relay that says so has not taken it, RFC 5321 4.2.5
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        self.accepted.append(
            Seen(
                to,
                display_name(content),
                mail["Subject"],
                text.get_content().replace("\r\n", "\n") if text else "",
                html.get_content().replace("\r\n", "\n") if html else None,
                dict(mail.items()),
            )
        )
        if session.told == "drop after":
            server.transport.abort()
        if session.told == "hang after":
            await asyncio.sleep(3600)
        if session.told == "garbage after":
            return "nobody expects this"
        return "250 2.0.0 queued"


def display_name(mail: bytes) -> str | None:
    """The recipient's name. ``email.policy.SMTP`` leaves spaces between the encoded words of a name (before Python 3.13)."""
    return str(make_header(decode_header(parseaddr(message_from_bytes(mail)["To"])[0]))) or None


def login(user: str, password: str) -> dict[str, Any]:
    """Options of a relay that asks for a login."""

    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: LoginPassword) -> AuthResult:
        known = (given.login, given.password) == (user.encode(), password.encode())
        return AuthResult(success=known, handled=False)

    return {"authenticator": check, "auth_required": True, "auth_require_tls": False}


class _Web(_Told):
    """Something behind HTTP; ``judge`` says what it answers to a request, and keeps what it accepts."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                outer.connections.add(self.client_address)
                does = outer.next_behaviour()
                if does == "drop before":
                    return self.end()
                if does == "rate limit":
                    return self.answer(429, {}, {"Retry-After": "7"})
                if does == "refuse all":
                    return self.answer(401, {})
                if isinstance(does, int):
                    return self.answer(does, {})
                with outer.lock:
                    status, body = outer.judge(self.path, dict(self.headers), raw)
                if does == "drop after":
                    return self.end()
                if does == "hang after":
                    outer.hanging.wait(60)
                    return self.end()
                if does == "garbage after":
                    self.wfile.write(b"nobody expects this\r\n\r\n")
                    return self.end()
                return self.answer(500, {}) if does == "error after" else self.answer(status, body)

            def end(self) -> None:
                self.close_connection = True
                self.connection.close()

            def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def judge(self, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        raise NotImplementedError

    def close(self) -> None:
        """End it."""
        self.hanging.set()
        self._server.shutdown()
        self._server.server_close()


@cache
def _messages_call(contracts: Path) -> tuple[Any, dict[str, Any]]:
    """Validator of the call's fields, and an example of its answer, out of the published OpenAPI file."""
    document = json.loads(gzip.decompress((contracts / "twilio" / "twilio_api_v2010.json.gz").read_bytes()))
    call = document["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"]
    schema = call["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    strict = {**schema, "additionalProperties": False, "components": document["components"]}
    answer = call["responses"]["201"]["content"]["application/json"]["examples"]["create"]["value"]
    return jsonschema_rs.Draft202012Validator(strict, validate_formats=True), answer


class TwilioStandIn(_Web):
    """Twilio's Messages call, with the magic numbers of its test credentials."""

    ACCOUNT, TOKEN, SENDER = "AC" + "0a" * 16, "a-token-for-tests", "+15005550006"
    #: https://www.twilio.com/docs/iam/test-credentials
    FULL = "+15005550008"
    MAGIC: ClassVar = {
        "+15005550001": 21211,
        "+15005550002": 21612,
        "+15005550003": 21408,
        "+15005550004": 21610,
        "+15005550009": 21614,
    }

    def __init__(self, contracts: Path | None) -> None:
        self._validator, self._example = _messages_call(contracts) if contracts else (None, {})
        super().__init__()

    def judge(self, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, Any]:
        """As the API answers."""
        if path != f"/2010-04-01/Accounts/{self.ACCOUNT}/Messages.json":
            return 404, {"code": 20404, "status": 404}
        if headers["Authorization"] != "Basic " + base64.b64encode(f"{self.ACCOUNT}:{self.TOKEN}".encode()).decode():
            return 401, {"code": 20003, "status": 401, "message": "Authenticate"}
        if headers["Content-Type"] != "application/x-www-form-urlencoded":
            return 400, {"code": 20001, "status": 400}
        fields = dict(parse_qsl(raw.decode(), keep_blank_values=True, strict_parsing=True))
        if self._validator and not self._validator.is_valid(fields):
            return 400, {"code": 20001, "status": 400, "message": str(next(self._validator.iter_errors(fields)))}
        if code := self._fault(fields):
            return 400, {"code": code, "status": 400, "message": f"'To' number: {fields.get('To')} is not valid"}
        sid = "SM" + uuid.uuid4().hex
        self.accepted.append(Seen(fields["To"], None, None, fields["Body"], None, fields))
        return 201, {
            **self._example,
            "sid": sid,
            "to": fields["To"],
            "body": fields["Body"],
            "status": "queued",
        }

    def _fault(self, fields: dict[str, str]) -> int | None:
        if not fields.get("Body"):
            return 21602
        if len(fields["Body"]) > 1600:
            return 21617
        if ("From" in fields) == ("MessagingServiceSid" in fields):
            return 21603
        if fields.get("From", self.SENDER) != self.SENDER:
            return 21611 if fields["From"] == self.FULL else 21606
        if not urlparse(fields.get("StatusCallback", "https://x.example")).hostname:
            return 21609
        if not re.fullmatch(r"\+[1-9]\d{6,14}", fields["To"]):
            return 21211
        return self.MAGIC.get(fields["To"])


class Receiver(_Web):
    """A receiver of the signed webhook that takes every ``Idempotency-Key`` once. It wants nothing for ``nobody@…``."""

    SECRET = "a-secret-for-tests"

    def __init__(self) -> None:
        self._answers: dict[str, tuple[int, Any]] = {}
        self.most_messages = 1000
        super().__init__()

    def judge(self, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, Any]:
        """Verify, then take."""
        timestamp = headers["X-ShopAuto-Timestamp"]
        signed = hmac.new(self.SECRET.encode(), f"{timestamp}.".encode() + raw, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"sha256={signed}", headers["X-ShopAuto-Signature"]):
            return 401, {"why": "signature"}
        if abs(time.time() - int(timestamp)) > 300:
            return 401, {"why": "too old"}
        key = headers["Idempotency-Key"]
        if key in self._answers:
            return self._answers[key]
        messages = json.loads(raw)["messages"]
        if len(messages) > self.most_messages:
            return 413, {}
        if any("poison" in message["text"] for message in messages):
            return 422, {}
        refused = []
        for message in messages:
            assert re.fullmatch("[0-9a-f]{32}", message["id"])
            if message["to"].startswith("nobody@"):
                refused.append({"id": message["id"], "reason": f"no such person: <{message['to']}>, +44 7700 900123"})
                continue
            html, subject = message.get("html"), message.get("subject")
            assert (message["channel"] == "email") == (html is not None) == (subject is not None)
            headers = message.get("headers", {})
            self.accepted.append(
                Seen(message["to"], message["to_name"] or None, subject, message["text"], html, headers)
            )
        self._answers[key] = 200, {"refused": refused}
        return self._answers[key]


def tls(certificate: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate and key in one file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
