"""A stand-in for SendGrid's mail-send call on loopback: refuses what the published contract refuses, keeps what it accepts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema

API_KEY = "SG.a-key-for-tests"

#: What the stand-in does with the n-th call (from 1): `None` is what the provider would do.
Behaviour = Callable[[int], str | None]


@dataclass
class StandIn:
    """What was accepted, as the reader would see it, and how often the call was made."""

    validator: jsonschema.Validator
    behaviour: Behaviour = lambda n: None
    calls: int = 0
    connections: set[tuple[str, int]] = field(default_factory=set)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    @property
    def message_ids(self) -> list[int]:
        """The ledger's id of every accepted personalisation."""
        return [int(person["custom_args"]["shopauto_message"]) for person in self.accepted]

    def accept(self, body: dict[str, Any]) -> None:
        """Keep every personalisation with its substitutions made."""
        contents = {content["type"]: content["value"] for content in body["content"]}
        for person in body["personalizations"]:
            seen = dict(contents)
            for kind in seen:
                for tag, value in person.get("substitutions", {}).items():
                    seen[kind] = seen[kind].replace(tag, value)
            self.accepted.append({**person, "seen": seen, "categories": body.get("categories")})

    def faults(self, body: Any) -> list[dict[str, str]]:
        """What is wrong with a request: the schema, the documented limits, and addresses that are none."""
        errors = [
            {"field": ".".join(map(str, error.absolute_path)), "message": "schema"}
            for error in self.validator.iter_errors(body)
        ]
        if errors:
            return errors
        if not body.get("content") or not all(content["value"] for content in body["content"]):
            errors.append({"field": "content", "message": "needed without a template"})
        if sum(len(person["to"]) for person in body["personalizations"]) > 1000:
            errors.append({"field": "personalizations", "message": "more than 1000 recipients"})
        for n, person in enumerate(body["personalizations"]):
            for limited in ("substitutions", "custom_args"):
                if len(json.dumps(person.get(limited, {}), ensure_ascii=False).encode()) > 10_000:
                    errors.append({"field": f"personalizations.{n}.{limited}", "message": "more than 10000 bytes"})
            if not person.get("subject") and not body.get("subject"):
                errors.append({"field": f"personalizations.{n}.subject", "message": "needed"})
            if any("@" not in to["email"] for to in person["to"]):
                errors.append({"field": f"personalizations.{n}.to.0.email", "message": "not an address"})
        return errors


def mail_send_schema(contracts: Path) -> dict[str, Any]:
    """The schema of a mail-send body out of the published OpenAPI file."""
    document = json.loads((contracts / "sendgrid" / "tsg_mail_v3.json").read_text())
    schema = document["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    return {**schema, "components": document["components"]}


def serve(schema: dict[str, Any]) -> tuple[StandIn, ThreadingHTTPServer]:
    """Start it on a free port; shut the server down afterwards."""
    stand_in = StandIn(jsonschema.Draft202012Validator(schema))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with stand_in.lock:
                stand_in.calls += 1
                number = stand_in.calls
                stand_in.connections.add(self.client_address)
            does = stand_in.behaviour(number)
            if self.path != "/v3/mail/send":
                return self.answer(404, [])
            if self.headers["Authorization"] != f"Bearer {API_KEY}":
                return self.answer(401, [{"field": None, "message": "wrong key"}])
            if does == "rate limit":
                return self.answer(429, [], {"Retry-After": "7"})
            if does == "drop before":
                return self.drop()
            if does == "error":
                return self.answer(503, [])
            body = json.loads(raw)
            with stand_in.lock:
                faults = stand_in.faults(body)
                sandbox = body.get("mail_settings", {}).get("sandbox_mode", {}).get("enable")
                if not faults and not sandbox:
                    stand_in.accept(body)
            if faults:
                return self.answer(413 if len(raw) > 30_000_000 else 400, faults)
            if does == "drop after":
                return self.drop()
            if does == "error after":
                return self.answer(500, [])
            return self.answer(200 if sandbox else 202, None, {"X-Message-Id": f"request-{number}"})

        def drop(self) -> None:
            self.close_connection = True
            self.connection.close()

        def answer(self, status: int, errors: list | None, headers: dict[str, str] | None = None) -> None:
            content = b"" if errors is None else json.dumps({"errors": errors}).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return stand_in, server
