"""The event webhook over HTTP and a real database: what is stored, what follows from it, and what is refused."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from shopauto_pipelines.outbox import consents, ledger, links
from shopauto_pipelines.outbox.channels.sendgrid import CORRELATION
from shopauto_pipelines.outbox.schema import exits, messages, provider_events, suppressions
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.sendgrid_events import SIGNATURE_HEADER, TIMESTAMP_HEADER
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines_tests.outbox.conftest import AT, reserve, rows
from shopauto_pipelines_tests.realtime.conftest import event, everything, plan


def column(engine, wanted):
    with engine.connect() as connection:
        return list(connection.execute(sa.select(wanted).order_by(wanted)).scalars())


def state_of(engine, number=1):
    with engine.connect() as connection:
        return ledger.find(connection, number).state


def next_reservation(engine, settings, **more):
    """State and reason of a further message to the first person, after it was tried to reserve it."""
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, key=settings.hash_key, occasion="later", **more), run_id=None, at=AT)
        reserve(connection, cap=ledger.Cap(9, 7))
        row = connection.execute(sa.select(messages).where(messages.c.occasion == "later")).one()
    return row.state, row.reason


def test_an_event_is_on_disk_when_it_is_answered(engine, settings, web):
    plan(engine, settings, 1)
    answer = web.post([event(1, "delivered")])
    assert (answer.status_code, answer.json()) == (200, {"new": 1, "repeated": 0, "not_ours": 0})
    with engine.connect() as connection:
        row = connection.execute(sa.select(provider_events)).one()
    assert (row.event_id, row.message_id, row.type, row.at, row.received_at) == (
        "delivered-1-0",
        1,
        "delivered",
        AT,
        AT,
    )


def test_nothing_is_answered_with_success_where_it_cannot_be_stored(engine, settings, web, monkeypatch, caplog):
    plan(engine, settings, 1)
    gone = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    monkeypatch.setattr(postgres, "engine", lambda _: gone)
    answer = web.post([event(1)])
    assert answer.status_code == 503
    assert web.client.get("/health").status_code == 503
    assert "example.com" not in answer.text + caplog.text
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    assert web.post([event(1)]).json()["new"] == 1
    assert web.client.get("/health").status_code == 200


def test_an_error_in_the_database_undoes_the_whole_request(engine, settings, web, monkeypatch, caplog):
    plan(engine, settings, 2, "unknown")

    def broken(*_, **__):
        raise sa.exc.OperationalError("insert", {"secret": "c000001@example.com"}, Exception("c000001@example.com"))

    monkeypatch.setattr(consents, "suppress", broken)
    answer = web.post([event(1), event(2, "bounce")])
    assert answer.status_code == 503
    assert "example.com" not in answer.text + caplog.text
    assert column(engine, provider_events.c.event_id) == []
    assert state_of(engine) == "unknown"


def test_what_is_said_twice_is_stored_once(engine, settings, web):
    plan(engine, settings, 2)
    assert web.post([event(1), event(1), event(2)]).json() == {"new": 2, "repeated": 1, "not_ours": 0}
    once = everything(engine)
    assert web.post([event(2), event(1)]).json() == {"new": 0, "repeated": 2, "not_ours": 0}
    assert everything(engine) == once


def test_events_of_others_are_counted_and_leave_nothing(engine, settings, web):
    plan(engine, settings, 1)
    before = everything(engine)
    stranger = event(1, "bounce", email="somebody@else.com", sg_message_id="other.recvd-1")
    unknown_number = event(99)
    no_number = {k: v for k, v in event(1).items() if k != CORRELATION}
    answer = web.post([stranger, unknown_number, no_number, event(1, "account_status_change")])
    assert answer.json() == {"new": 0, "repeated": 0, "not_ours": 3, "ignored": 1}
    assert everything(engine) == before


def test_an_event_is_ours_by_the_providers_id_too(engine, settings, web):
    """A provider may write an address in another way than we do."""
    plan(engine, settings, 1)
    assert web.post([event(1, email="C000000@xn--example.com")]).json()["new"] == 1


def test_a_machine_open_is_told_apart_from_a_persons(engine, settings, web):
    plan(engine, settings, 1)
    web.post([event(1, "open", 1, sg_machine_open=True), event(1, "open", 2, sg_machine_open=False), event(1, "click")])
    with engine.connect() as connection:
        found = connection.execute(sa.select(provider_events.c.event_id, provider_events.c.is_machine)).all()
    assert sorted(found) == [("click-1-0", False), ("open-1-1", True), ("open-1-2", False)]


@pytest.mark.parametrize(
    ("given", "blocked"),
    [
        (event(1, "bounce", status="5.1.1"), "suppressed_bounce"),
        (event(1, "spamreport"), "suppressed_spam_report"),
        (event(1, "unsubscribe"), "suppressed_unsubscribe"),
        (event(1, "group_unsubscribe"), "suppressed_unsubscribe"),
        (event(1, "dropped", reason="Bounced Address"), "suppressed_bounce"),
        (event(1, "dropped", reason="Unsubscribed Address"), "suppressed_unsubscribe"),
        (event(1, "dropped", reason="Spam Reporting Address"), "suppressed_spam_report"),
        (event(1, "dropped", reason="Spam Content"), None),
        (event(1, "bounce", type="blocked", status="5.7.1"), None),
        (event(1, "deferred"), None),
        (event(1, "open"), None),
        (event(1, "click"), None),
    ],
)
def test_the_very_next_reservation_obeys_what_an_event_said(engine, settings, web, given, blocked):
    plan(engine, settings, 1)
    assert web.post([given]).json()["new"] == 1
    assert next_reservation(engine, settings) == (("suppressed", blocked) if blocked else ("reserved", None))


def test_who_unsubscribes_leaves_every_journey_that_ends_with_that(engine, settings, web):
    plan(engine, settings, 1)
    web.post([event(1, "unsubscribe")])
    with engine.connect() as connection:
        assert connection.execute(sa.select(exits)).all() == [("c000000", "unsubscribed", "", AT)]
        hashed = links.address_hash(settings.hash_key, "email", "c000000@example.com")
        assert consents.choices(connection, hashed, "email") == {"*": "opted_out"}


def test_an_unsubscribe_that_comes_in_late_does_not_undo_a_later_opt_in(engine, settings, web):
    plan(engine, settings, 1)
    hashed = links.address_hash(settings.hash_key, "email", "c000000@example.com")
    with engine.begin() as connection:
        consents.choose(connection, hashed, "email", "opted_in", source="preference_page", at=AT)
    web.post([event(1, "unsubscribe", at=AT - timedelta(hours=1))])
    assert next_reservation(engine, settings) == ("reserved", None)


@pytest.mark.parametrize("kind", ["processed", "delivered", "open", "click", "bounce", "dropped", "spamreport"])
def test_an_event_settles_a_message_whose_outcome_was_unclear(engine, settings, web, kind):
    plan(engine, settings, 2, "unknown")
    web.post([event(1, kind)])
    assert [state_of(engine, 1), state_of(engine, 2)] == ["sent", "unknown"]


def test_an_event_that_overtakes_its_dispatcher_leaves_nothing_unclear(engine, settings, web):
    plan(engine, settings, 1, "reserved")
    web.post([event(1, "delivered")])
    with engine.begin() as connection:
        ledger.settle(connection, [ledger.Settled(1, "unknown", "no answer")], by="me", at=AT)
    assert state_of(engine) == "sent"


def stream(count, seed):
    """Events of ``count`` events' worth of messages as they happen to people: a plausible clean stream."""
    dice = random.Random(seed)
    events, message = [], 0
    while len(events) < count:
        message += 1
        at = AT + timedelta(seconds=message)
        fate = dice.random()
        if fate < 0.05:
            events.append(event(message, "dropped", at=at, reason=dice.choice(["Bounced Address", "Spam Content"])))
            continue
        events.append(event(message, "processed", at=at))
        if fate < 0.10:
            events.append(event(message, "bounce", at=at, status="5.1.1", type=dice.choice(["bounce", "blocked"])))
            continue
        events.append(event(message, "delivered", at=at))
        for n in range(dice.choice([0, 1, 1, 2])):
            events.append(event(message, "open", n, at + timedelta(minutes=n), sg_machine_open=dice.random() < 0.5))
        for kind, chance in (("click", 0.3), ("unsubscribe", 0.05), ("group_unsubscribe", 0.02), ("spamreport", 0.03)):
            if dice.random() < chance:
                events.append(event(message, kind, at=at + timedelta(hours=1)))
    return events[:count], message


@pytest.mark.slow
def test_ten_thousand_shuffled_and_repeated_events_give_the_tables_of_the_clean_stream(engine, settings, web):
    events, people = stream(10_000, seed=3)
    # half of the people share one address with another: the order of their events must not matter either
    shared = {n: n - n % 2 for n in range(1, people + 1)}
    given = [e | {"email": f"c{shared[int(e[CORRELATION])]:06}@example.com"} for e in events]

    def tables(batches):
        with engine.begin() as connection:
            names = ", ".join(str(t) for t in messages.metadata.sorted_tables)
            connection.execute(sa.text(f"truncate {names} restart identity"))
            planned = [
                row | {"address_hash": links.address_hash(settings.hash_key, "email", f"c{shared[n]:06}@example.com")}
                for n, row in enumerate(rows(people, key=settings.hash_key), start=1)
            ]
            ledger.plan(connection, planned, run_id=None, at=AT)
            taken = reserve(connection, limit=people, via="sendgrid").messages
            states = ("sent", "unknown", None)
            settled = [ledger.Settled(m.id, s, None, "x") for m in taken if (s := states[m.id % 3])]
            ledger.settle(connection, settled, by="me", at=AT)
        new = 0
        for batch in batches:
            answer = web.post(batch)
            assert answer.status_code == 200
            new += answer.json()["new"]
        assert new == len(given)
        return everything(engine)

    clean = tables([given[n : n + 1000] for n in range(0, len(given), 1000)])
    dice = random.Random(7)
    repeated = given + dice.sample(given, 2500) + dice.sample(given, 2500)
    dice.shuffle(repeated)
    batches, start = [], 0
    while start < len(repeated):
        size = dice.randint(1, 900)
        batches.append(repeated[start : start + size])
        start += size
    shuffled = tables(batches)
    assert {name: len(found) for name, found in shuffled.items()} == {name: len(found) for name, found in clean.items()}
    assert shuffled == clean
    assert len(clean["provider_events"]) == 10_000
    assert len(clean["suppressions"]) > 100


def test_the_same_events_at_the_same_time_over_several_requests_block_nobody(engine, settings, web):
    events, people = stream(600, seed=5)
    plan(engine, settings, people, "unknown")
    answers = []

    def send(seed):
        mine = list(events)
        random.Random(seed).shuffle(mine)
        for start in range(0, len(mine), 150):
            answers.append(web.post(mine[start : start + 150]))

    senders = [threading.Thread(target=send, args=(seed,)) for seed in range(6)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["new"] for answer in answers) == 600
    assert len(column(engine, provider_events.c.event_id)) == 600


def test_a_full_batch_of_events_is_stored_in_a_moment(engine, settings, web):
    plan(engine, settings, 1000)
    batch = [event(n, "delivered") for n in range(1, 1001)]
    start = time.perf_counter()
    assert web.post(batch).json()["new"] == 1000
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({SIGNATURE_HEADER: None}, 401),
        ({TIMESTAMP_HEADER: None}, 401),
        ({SIGNATURE_HEADER: "no base64!"}, 401),
        ({SIGNATURE_HEADER: "AAAA"}, 401),
        ({TIMESTAMP_HEADER: "1"}, 401),
    ],
)
def test_a_request_that_is_not_theirs_changes_nothing(engine, settings, web, changed, status):
    plan(engine, settings, 1)
    body = json.dumps([event(1, "unsubscribe")]).encode()
    headers = {k: v for k, v in (web.provider.headers(body) | changed).items() if v is not None}
    answer = web.client.post("/webhooks/sendgrid", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["refused"]
    assert column(engine, provider_events.c.event_id) == column(engine, suppressions.c.reason) == []


def test_a_request_that_was_caught_and_is_sent_again_a_day_later_is_refused(engine, settings, web, monkeypatch):
    plan(engine, settings, 1)
    body = json.dumps([event(1)]).encode()
    headers = web.provider.headers(body)

    def at(hours):
        client = TestClient(app(settings, FixedClock(AT + timedelta(hours=hours))))
        return client.post("/webhooks/sendgrid", content=body, headers=headers).status_code

    assert [at(0), at(24), at(26), at(-1)] == [200, 200, 401, 401]


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"null", b"\xff\xfe", b"[" * 50_000])
def test_what_is_signed_and_no_list_of_events_is_a_bad_request(web, body):
    assert web.raw(body).status_code in (400, 401)


def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(web, settings, provider):
    def chunks():
        for _ in range(10_000):
            sent.append(1)
            yield b"x" * 65_536

    sent: list[int] = []
    assert web.raw(b" " * (settings.collector_max_kib * 1024 + 1)).status_code == 413
    headers = provider.headers(b"x")
    assert web.client.post("/webhooks/sendgrid", content=chunks(), headers=headers).status_code == 413


def test_without_a_key_events_are_refused_so_that_they_come_again(engine, settings, clock):
    keyless = Settings(home=settings.home, _env_file=None)
    answer = TestClient(app(keyless, clock)).post("/webhooks/sendgrid", content=b"[]")
    assert answer.status_code == 503
    assert "SHOPAUTO_SENDGRID_WEBHOOK_KEY" in answer.text


def test_nothing_that_names_a_person_is_logged(engine, settings, web, caplog):
    caplog.set_level(logging.DEBUG)
    plan(engine, settings, 2)
    web.post([event(1, "bounce", reason="550 c000000@example.com"), event(2, "unsubscribe"), event(9)])
    web.raw(b'["c000000@example.com"')
    hashed = links.address_hash(settings.hash_key, "email", "c000000@example.com").hex()
    assert "new 2, not_ours 1" in caplog.text
    assert "example.com" not in caplog.text
    assert hashed not in caplog.text


def test_other_methods_and_addresses_are_refused(web):
    assert web.client.get("/webhooks/sendgrid").status_code == 405
    assert web.client.post("/webhooks/other").status_code == 404
    assert web.client.get("/").status_code == 404
