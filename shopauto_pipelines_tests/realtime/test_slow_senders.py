"""Bodies that do not come to an end: they keep nobody out but who sends them. Over real connections, from two addresses."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines_tests.outbox.conftest import AT
from shopauto_pipelines_tests.realtime.collecting import KEY, bearer, event, served

SLOW = "127.0.0.2"
MIB = 2**20
LARGE = [event(n, url="x" * 3000) for n in range(2, 500)]
STORED = {"stored": 498, "repeated": 0, "refused": []}

SIGNED = {
    "/webhooks/sendgrid": ("X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"),
    "/webhooks/twilio": ("X-Twilio-Signature",),
    "/webhooks/twilio/7": ("X-Twilio-Signature",),
    "/webhooks/shopify": ("X-Shopify-Hmac-Sha256",),
    "/webhooks/woocommerce": ("X-WC-Webhook-Signature",),
}


@pytest.fixture
def collector(engine, monkeypatch, tmp_path, provider):
    """Host and port of a collector that all webhooks are set up for, with a room of 16 MiB."""
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    secrets = {"shopify_webhook_secret": "hush", "woocommerce_webhook_secret": "hush", "twilio_auth_token": "hush"}
    settings = Settings(
        home=tmp_path,
        _env_file=None,
        collector_key=KEY,
        collector_queue_mib=16,
        sendgrid_webhook_key=provider.public_key,
        **secrets,
    )
    with served(app(settings, FixedClock(AT))) as url:
        yield url.removeprefix("http://")


def begin(collector: str, path: str, length: int, headers: tuple[str, ...] = (), sent: int = 0) -> socket.socket:
    """A request from the slow address, of whose body only the first ``sent`` bytes come."""
    host, port = collector.split(":")
    connection = socket.create_connection((host, int(port)), timeout=10, source_address=(SLOW, 0))
    told = "".join(f"{name}: 1\r\n" for name in headers)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{told}\r\n".encode())
    connection.sendall(b" " * sent)
    return connection


def wait(connections: list[socket.socket], answered: int) -> None:
    """Until so many have an answer."""
    deadline = time.monotonic() + 10
    while len(select.select(connections, [], [], 0)[0]) < answered and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("path", ["/events", *SIGNED])
def test_who_sends_slowly_fills_a_part_of_the_room_and_all_others_go_on(collector, path):
    with ExitStack() as stack:
        headers = SIGNED.get(path, ())
        slow = [stack.enter_context(begin(collector, path, MIB, headers, sent=MIB - 1)) for _ in range(16)]
        wait(slow, answered=14)  # an eighth of the room is 2 MiB
        assert httpx.post(f"http://{collector}/events", json=event(1)).status_code == 200
        with httpx.Client(transport=httpx.HTTPTransport(local_address=SLOW)) as neighbour:
            server = neighbour.post(f"http://{collector}/events", json=LARGE, headers=bearer())
        assert server.json() == STORED, "who has the key is not counted with others of its address"
        answers = [connection.recv(100) for connection in select.select(slow, [], [], 0)[0]]
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 429"}
        assert 14 <= len(answers) < 16
    with httpx.Client(transport=httpx.HTTPTransport(local_address=SLOW)) as again:
        deadline = time.monotonic() + 10
        while (told := again.post(f"http://{collector}/events", json=LARGE)).status_code == 429:
            assert time.monotonic() < deadline, "what broke off gives its part back"
            time.sleep(0.1)
    assert told.json() == STORED | {"stored": 0, "repeated": 498}


@pytest.mark.parametrize("path", SIGNED)
def test_a_webhook_without_a_signature_is_refused_before_its_body_is_read(collector, path):
    for left_out in SIGNED[path]:
        others = tuple(name for name in SIGNED[path] if name != left_out)
        with begin(collector, path, 1000, others) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 401")
