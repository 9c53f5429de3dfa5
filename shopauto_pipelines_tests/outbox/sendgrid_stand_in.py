"""A stand-in for SendGrid's mail-send call: a process of its own on loopback, quick enough for a million people.

It refuses what the published contract and the documented limits refuse, and keeps its own list of the mail it accepted:
what left, whatever the sender believes. It can be told how to behave, call by call::

    with start(contracts) as stand_in:
        stand_in.behave("rate limit:7", None, "drop after")  # the next three calls; as the provider would from then on
        ...
        assert stand_in.duplicates == 0
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic_core import from_json

API_KEY = "SG.a-key-for-tests"

#: Custom argument by which the list of accepted mail is kept.
CORRELATION = "shopauto_message"

#: A sender that sends its process id in this header can be killed by the stand-in: at that moment, and at no other.
KILL_ME = "X-Stand-In-Pid"

#: What it can be told to do with a call, apart from `None`, which is what the provider would do. "after" is always: after
#: the mail was accepted. A number after a colon is seconds.
BEHAVIOURS = {
    "rate limit": "429 with Retry-After of so many seconds",
    "rate limit reset": "429 with X-RateLimit-Reset so many seconds from now",
    "rate limit bare": "429 without a word on when to try again",
    "error": "500",
    "error after": "500",
    "unavailable": "503",
    "too large": "413, before the body is read",
    "drop before": "reads the request, closes the connection",
    "drop after": "closes the connection",
    "drop half": "resets the connection with half of the body read",
    "hang": "reads the request, never answers",
    "hang after": "never answers",
    "slow": "waits for so many seconds, then as the provider would",
    "slow after": "waits for so many seconds, then answers",
    "garbage": "answers with what is not HTTP",
    "garbage after": "answers with what is not HTTP",
    "close after": "answers properly, then closes the connection without notice",
    "kill half": "kills the sender with half of the body read",
    "kill before": "reads the request, kills the sender",
    "kill after": "kills the sender",
}

_MOST_BYTES = 30_000_000
_MOST_PEOPLE = 1_000
_MOST_OF_ONE = 10_000
_LATEST = 72 * 3600
_NOT_OURS = {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"} | {
    "to", "from", "subject", "reply-to", "cc", "bcc"
}  # fmt: skip


class StandIn:
    """The stand-in as the test holds it. What it says is asked of the process each time."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        import httpx

        self._process = process
        self._control = httpx.Client(base_url=f"{url}/stand-in/", timeout=60, trust_env=False, verify=False)
        self.url = url

    def behave(self, *calls: str | None, then: str | None = None) -> None:
        """How to take the next calls, one by one, and all that follow; forgets what it was told before."""
        for how in (*calls, then):
            if how is not None and how.partition(":")[0] not in BEHAVIOURS:
                raise ValueError(f"no such behaviour: {how}")
        self._ask("POST", "behave", json={"calls": calls, "then": then})

    def reset(self) -> None:
        """Forget all that was accepted, counted and told."""
        self._ask("POST", "reset")

    def quiet(self) -> None:
        """Wait until no call is under way any more, those of dead senders included."""
        still = 0
        while still < 2:
            still = 0 if self.counts()["pending"] else still + 1
            time.sleep(0.005)

    def counts(self) -> dict[str, int]:
        """``calls``, ``connections``, people ``accepted``, ``duplicates`` among them, calls ``pending``."""
        return self._ask("GET", "counts").json()

    @property
    def done(self) -> dict[str, int]:
        """How often it behaved how."""
        return self._ask("GET", "done").json()

    @property
    def calls(self) -> int:
        """Mail-send calls so far, whatever became of them."""
        return self.counts()["calls"]

    @property
    def connections(self) -> int:
        """Connections on which a mail-send call was made."""
        return self.counts()["connections"]

    @property
    def duplicates(self) -> int:
        """How often a message was accepted that had been accepted before."""
        return self.counts()["duplicates"]

    @property
    def message_ids(self) -> list[int]:
        """The ledger's id of every message accepted, in that order."""
        return array("q", self._ask("GET", "ids").content).tolist()

    @property
    def message_times(self) -> list[float]:
        """When the call of each of these messages came, as it had been read; seconds since 1970."""
        return array("d", self._ask("GET", "times").content).tolist()

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """Every personalisation accepted, with the bodies its reader would have ``seen``. Not kept without ``bodies``."""
        people = []
        for line in self._ask("GET", "bodies").content.splitlines():
            body = json.loads(line)
            for person in body["personalizations"]:
                seen = {content["type"]: content["value"] for content in body["content"]}
                for kind in seen:
                    for tag, value in person.get("substitutions", {}).items():
                        seen[kind] = seen[kind].replace(tag, value)
                people.append({**person, "seen": seen, "categories": body.get("categories")})
        return people

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, what: str, **more: Any):
        answer = self._control.request(method, what, **more)
        answer.raise_for_status()
        return answer


def start(contracts: Path | None, *, bodies: bool = True) -> StandIn:
    """Start one on a free port. It ends with :meth:`StandIn.close`, or with this process.

    ``contracts`` is the folder of the published contracts; without it only the documented limits are enforced. Without
    ``bodies`` it keeps the ids of accepted messages alone: 8 bytes a person.
    """
    schema = contracts / "sendgrid" / "tsg_mail_v3.json" if contracts else ""
    process = subprocess.Popen(
        [sys.executable, __file__, str(schema), "bodies" if bodies else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    port = process.stdout.readline().decode().strip()
    assert port, "the stand-in did not start"
    return StandIn(process, f"http://127.0.0.1:{port}")


class _Server:
    """The process's side."""

    def __init__(self, schema: Path | None, keep_bodies: bool) -> None:
        self._validator = _validator(schema) if schema else None
        self._keep_bodies = keep_bodies
        self._pending = 0
        self._reset()

    def _reset(self) -> None:
        self._next: deque[str | None] = deque()
        self._then: str | None = None
        self._calls = self._people = self._connections = 0
        self._ids, self._times = array("q"), array("d")
        self._bodies: list[bytes] = []
        self._done: Counter[str] = Counter()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until it ends."""
        used = False
        try:
            while True:
                method, path, headers = _parsed(await reader.readuntil(b"\r\n\r\n"))
                length = int(headers.get("content-length", "0"))
                if path.startswith("/stand-in/"):
                    writer.write(
                        self._control(method, path.removeprefix("/stand-in/"), await reader.readexactly(length))
                    )
                    continue
                self._connections += not used
                used = True
                self._pending += 1
                try:
                    content, lasts = await self._call(method, path, headers, length, reader, writer)
                finally:
                    self._pending -= 1
                writer.write(content)
                await writer.drain()
                if not lasts or headers.get("connection", "").lower() == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _call(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        length: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> tuple[bytes, bool]:
        """One call: the bytes to answer with, and whether the connection lasts."""
        self._calls += 1
        number = self._calls
        does, _, seconds = ((self._next.popleft() if self._next else self._then) or "").partition(":")
        if does:
            self._done[does] += 1
        if does == "too large":
            return _answer(413, [{"field": None, "message": "told to"}]), False
        if does in ("drop half", "kill half"):
            await reader.readexactly(length // 2)
            if does == "kill half":
                os.kill(int(headers[KILL_ME.lower()]), signal.SIGKILL)
            writer.transport.abort()
            return b"", False
        raw = await reader.readexactly(length)
        if (method, path) != ("POST", "/v3/mail/send"):
            return _answer(404, []), True
        if headers.get("authorization") != f"Bearer {API_KEY}":
            return _answer(401, [{"field": None, "message": "wrong key"}]), True
        if does == "rate limit":
            return _answer(429, [], {"Retry-After": seconds or "7"}), True
        if does == "rate limit reset":
            return _answer(429, [], {"X-RateLimit-Reset": str(round(time.time() + float(seconds or 7)))}), True
        if does == "rate limit bare":
            return _answer(429, []), True
        if does in ("error", "unavailable"):
            return _answer(500 if does == "error" else 503, []), True
        if does == "slow":
            await asyncio.sleep(float(seconds or 1))
        elif does and not does.endswith(" after"):
            return await self._stop(does, headers, reader)
        answer = self._judge(raw, headers, number)
        if does in ("error after", "slow after", "close after"):
            await asyncio.sleep(float(seconds or 1) if does == "slow after" else 0)
            return _answer(500, []) if does == "error after" else answer, does != "close after"
        return await self._stop(does, headers, reader) if does.endswith(" after") else (answer, True)

    async def _stop(self, does: str, headers: dict[str, str], reader: asyncio.StreamReader) -> tuple[bytes, bool]:
        """End a call without an answer to it."""
        match does.split()[0]:
            case "hang":
                await reader.read(1)  # nothing more comes: this is the end of the sender or of its patience
            case "kill":
                os.kill(int(headers[KILL_ME.lower()]), signal.SIGKILL)
            case "garbage":
                return b"\x00\xffnobody expects this\r\n\r\n", False
        return b"", False

    def _judge(self, raw: bytes, headers: dict[str, str], number: int) -> bytes:
        """Accept or refuse, as the provider does."""
        came = time.time()
        if headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        if len(raw) > _MOST_BYTES:
            return _answer(413, [{"field": None, "message": "more than 30 MB"}])
        try:
            body = from_json(raw)  # twice as quick as the standard library's
        except ValueError:
            return _answer(400, [{"field": None, "message": "not JSON"}])
        if faults := self._faults(body):
            return _answer(400, faults)
        sandbox = body.get("mail_settings", {}).get("sandbox_mode", {}).get("enable")
        if not sandbox:
            self._people += len(body["personalizations"])
            for person in body["personalizations"]:
                if (message := person.get("custom_args", {}).get(CORRELATION)) is not None:
                    self._ids.append(int(message))
                    self._times.append(came)
            if self._keep_bodies:
                self._bodies.append(json.dumps(body).encode())
        return _answer(200 if sandbox else 202, None, {"X-Message-Id": f"request-{number}"})

    def _faults(self, body: Any) -> list[dict[str, str]]:
        """What is wrong with a request: the schema, the documented limits, and addresses that are none."""
        if self._validator and not self._validator.is_valid(body):
            return [
                {"field": ".".join(map(str, error.instance_path)), "message": "schema"}
                for error in self._validator.iter_errors(body)
            ]
        people, faults = body["personalizations"], []
        contents = body.get("content", [])
        if not body.get("template_id") and (not contents or not all(content["value"] for content in contents)):
            faults.append(("content", "needed without a template"))
        if [content["type"] for content in contents] not in (
            [],
            ["text/plain"],
            ["text/html"],
            ["text/plain", "text/html"],
        ):
            faults.append(("content", "text/plain must be first, then text/html"))
        if not people:
            faults.append(("personalizations", "nobody"))
        if sum(len(person.get(to, ())) for person in people for to in ("to", "cc", "bcc")) > _MOST_PEOPLE:
            faults.append(("personalizations", "more than 1000 recipients"))
        for n, person in enumerate(people):
            faults += [(f"personalizations.{n}.{field}", why) for field, why in _faults_of(person, body)]
        return [{"field": field, "message": why} for field, why in faults]

    def _control(self, method: str, what: str, content: bytes) -> bytes:
        if (method, what) == ("POST", "behave"):
            told = json.loads(content)
            self._next, self._then = deque(told["calls"]), told["then"]
            return _answer(200, None)
        if (method, what) == ("POST", "reset"):
            self._reset()
            return _answer(200, None)
        if what == "done":
            return _response(200, json.dumps(self._done).encode())
        if what == "ids":
            return _response(200, self._ids.tobytes())
        if what == "times":
            return _response(200, self._times.tobytes())
        if what == "bodies":
            return _response(200, b"\n".join(self._bodies))
        counts = {
            "calls": self._calls,
            "connections": self._connections,
            "accepted": self._people,
            "duplicates": len(self._ids) - len(set(self._ids)),
            "pending": self._pending,
        }
        return _response(200, json.dumps(counts).encode())


def _faults_of(person: dict[str, Any], body: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with one personalisation beyond the schema."""
    faults = []
    if not person["to"]:
        faults.append(("to", "nobody"))
    for n, to in enumerate(person["to"]):
        if not _ADDRESS.fullmatch(to["email"]):
            faults.append((f"to.{n}.email", "not an address"))
    if not person.get("subject") and not body.get("subject"):
        faults.append(("subject", "needed"))
    for limited in ("substitutions", "custom_args"):
        values = person.get(limited)
        # four bytes a character at most: the exact count only where it can matter
        if (
            values
            and 4 * (sum(map(len, values)) + sum(map(len, map(str, values.values()))) + 6 * len(values)) > _MOST_OF_ONE
            and len(json.dumps(values, ensure_ascii=False).encode()) > _MOST_OF_ONE
        ):
            faults.append((limited, "more than 10000 bytes"))
    for name, value in person.get("headers", {}).items():
        if name.lower() in _NOT_OURS:
            faults.append((f"headers.{name}", "may not be set"))
        if not isinstance(value, str) or "\n" in value or "\r" in value:
            faults.append((f"headers.{name}", "not a line of text"))
    if person.get("send_at", 0) > time.time() + _LATEST:
        faults.append(("send_at", "more than 72 hours away"))
    return faults


_ADDRESS = re.compile(r"[^\s@<>,;\x00-\x1f]+@[^\s@<>,;\x00-\x1f]+")


def _validator(path: Path) -> Any:
    """Of a mail-send body, compiled from the published OpenAPI file."""
    import jsonschema_rs

    document = json.loads(path.read_text())
    schema = document["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})


def _parsed(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path and headers (names in lower case) of a request."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    return method, path, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _answer(status: int, errors: list | None, headers: dict[str, str] | None = None) -> bytes:
    return _response(status, b"" if errors is None else json.dumps({"errors": errors}).encode(), headers)


def _response(status: int, content: bytes, headers: dict[str, str] | None = None) -> bytes:
    lines = {"Date": formatdate(usegmt=True), "Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} \r\n{head}\r\n".encode() + content


async def _serve(schema: Path | None, keep_bodies: bool) -> None:
    it = _Server(schema, keep_bodies)
    server = await asyncio.start_server(it.connected, "127.0.0.1", 0, limit=4 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # ends with the process that started it
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]) if sys.argv[1] else None, bool(sys.argv[2])))
