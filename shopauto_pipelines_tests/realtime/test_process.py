"""``shopauto collect`` as a process of its own: real HTTP, a real database, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock

import httpx
import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox.schema import consents, provider_events
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.schema import collected
from shopauto_pipelines_tests.e2e.forks import Forked
from shopauto_pipelines_tests.realtime.conftest import event, plan, token_of


@contextmanager
def collecting(home, log, key):
    """A collector on a free port; yields its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    environment = kept | {"SHOPAUTO_HOME": str(home), "SHOPAUTO_SENDGRID_WEBHOOK_KEY": key}
    log.touch()
    process = Forked(["shopauto", "collect", "--port", str(port)], environment, str(log))
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{url}/health", timeout=10).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.is_alive(), log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.join()


@pytest.fixture
def settings(database_home, provider):
    """The home whose database the session shares: the process joins it."""
    return Settings(home=database_home, sendgrid_webhook_key=provider.public_key, _env_file=None)


def visited(batch):
    """Visits of the shop's pages with the ids of these events."""
    return [{"event_id": e["sg_event_id"], "type": "page_view", "anonymous_id": e["sg_event_id"]} for e in batch]


@pytest.mark.slow
def test_what_was_answered_survives_a_kill_and_nothing_that_names_a_person_is_logged(
    engine, settings, provider, tmp_path
):
    plan(engine, settings, 400)
    now = datetime.now(UTC)
    batches = [[event(n, "delivered", at=now) for n in range(start, start + 20)] for start in range(1, 401, 20)]
    log = tmp_path / "collector.log"
    answered, visits, once = [], [], Lock()

    with collecting(settings.home, log, provider.public_key) as (url, process), httpx.Client(timeout=30) as client:
        token = token_of(engine, settings, 7)

        def post(batch):
            body = json.dumps(batch).encode()
            try:
                answer = client.post(
                    f"{url}/webhooks/sendgrid", content=body, headers=provider.headers(body, now), timeout=30
                )
                assert answer.status_code == 200, answer.text
                answered.extend(e["sg_event_id"] for e in batch)
                told = client.post(f"{url}/events", json=visited(batch))
                assert told.json()["stored"] == len(batch), told.text
                visits.extend(e["sg_event_id"] for e in batch)
            except httpx.TransportError:
                return
            if len(answered) >= 100 and once.acquire(blocking=False):
                process.kill()

        assert client.post(f"{url}/u/{token}").status_code == 200
        assert client.get(f"{url}/p/{token}").status_code == 200
        assert client.post(f"{url}/webhooks/sendgrid", content=b"[]").status_code == 401
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(post, batches))
    with engine.connect() as connection:
        stored = set(connection.execute(sa.select(provider_events.c.event_id)).scalars())
        assert connection.execute(sa.select(consents.c.choice)).scalars().all() == ["opted_out"]
        kept = set(connection.execute(sa.select(collected.c.key)).scalars())
    assert 100 <= len(answered) < 400
    assert set(answered) <= stored
    assert 40 <= len(visits) < 400
    assert set(visits) <= kept
    told = log.read_text()
    assert "new 20" in told
    assert token not in told
    assert "example.com" not in told

    # the provider sends what was not answered again, and more than that: nothing is counted twice
    with collecting(settings.home, log, provider.public_key) as (url, process), httpx.Client(timeout=30) as client:
        for batch in batches:
            body = json.dumps(batch).encode()
            assert (
                client.post(f"{url}/webhooks/sendgrid", content=body, headers=provider.headers(body, now)).status_code
                == 200
            )
            told = client.post(f"{url}/events", json=visited(batch)).json()
            assert told["stored"] + told["repeated"] == len(batch)
        os.kill(process.pid, signal.SIGTERM)
        process.join(30)
        assert process.exitcode in (0, -signal.SIGTERM)
    with engine.connect() as connection:
        wanted = sa.select(sa.func.count()).where(provider_events.c.type == "delivered")
        assert connection.execute(wanted).scalar_one() == 400
        assert connection.execute(sa.select(sa.func.count()).select_from(collected)).scalar_one() == 400


def test_a_key_that_is_none_stops_the_start_with_what_to_do(shopauto, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_SENDGRID_WEBHOOK_KEY", "nonsense")
    shown = shopauto("collect", code=1)
    assert "SHOPAUTO_SENDGRID_WEBHOOK_KEY is not a verification key" in shown
    assert "Traceback" not in shown
