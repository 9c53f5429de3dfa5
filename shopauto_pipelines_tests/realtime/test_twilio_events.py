"""Twilio's webhooks: what is theirs, what it does to the ledger, and what an answer to an SMS ends."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import timedelta
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from shopauto_pipelines.outbox import consents, ledger, links
from shopauto_pipelines.outbox.schema import exits, messages, provider_events
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines.realtime.collector.twilio_events import SIGNATURE_HEADER, TwilioVerifier
from shopauto_pipelines_tests.outbox.conftest import AT, reserve, rows

TOKEN, BASE = "a-token-for-tests", "https://shop.example.org"
SID = "SM" + "0a" * 16


def number(n: int) -> str:
    return f"+4477009{n:05}"


def sign(path: str, fields: dict[str, str]) -> str:
    """As their documentation says, written apart from the code."""
    text = BASE + path
    for name in sorted(fields):
        text += name + fields[name]
    return base64.b64encode(hmac.new(TOKEN.encode(), text.encode(), hashlib.sha1).digest()).decode()


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path, twilio_auth_token=TOKEN, base_url=BASE, _env_file=None)


@pytest.fixture
def web(engine, settings, clock, monkeypatch) -> TestClient:
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    return TestClient(app(settings, clock))


@pytest.fixture
def sent(engine, settings):
    """Three SMS: the first is unknown, the others are sent."""
    planned = [
        {**row, "channel": "sms", "address_hash": links.address_hash(settings.hash_key, "sms", number(n))}
        for n, row in enumerate(rows(3), start=1)
    ]
    with engine.begin() as connection:
        ledger.plan(connection, planned, run_id=None, at=AT)
        taken = reserve(connection, via="twilio").messages
        outcomes = [ledger.Settled(taken[0].id, "unknown", "no answer from Twilio: ReadTimeout")]
        outcomes += [ledger.Settled(m.id, "sent", None, SID.replace("0a", f"0{m.id}")) for m in taken[1:]]
        ledger.settle(connection, outcomes, by="me", at=AT)


def post(web: TestClient, path: str, fields: dict[str, str], **headers):
    headers = {SIGNATURE_HEADER: sign(path, fields), "Content-Type": "application/x-www-form-urlencoded", **headers}
    return web.post(path, content=urlencode(fields), headers=headers)


def status(web: TestClient, message: int, kind: str, **more):
    fields = {
        "MessageSid": SID,
        "SmsStatus": kind,
        "MessageStatus": kind,
        "To": number(message),
        "From": "+15005550006",
    }
    return post(web, f"/webhooks/twilio/{message}", fields | more)


def state(engine, message: int) -> tuple[str, str | None]:
    with engine.connect() as connection:
        row = connection.execute(sa.select(messages).where(messages.c.id == message)).one()
        return row.state, row.provider_id


def suppression(engine, settings, message: int) -> str | None:
    with engine.connect() as connection:
        return consents.suppression(connection, links.address_hash(settings.hash_key, "sms", number(message)), "sms")


@pytest.mark.parametrize(
    ("caller", "signature"),
    [("+14158675309", "RSOYDt4T1cUTdK1PDd93/VVr8B8="), ("+12349013030", "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")],
)
def test_the_examples_of_their_documentation_verify_and_a_changed_byte_does_not(caller, signature):
    fields = {"CallSid": "CA1234567890ABCDE", "Caller": caller, "Digits": "1234", "From": caller, "To": "+18005551212"}
    verifier, path = TwilioVerifier("12345", "https://mycompany.com"), "/myapp.php?foo=1&bar=2"
    body = urlencode(fields).encode()
    assert verifier.refusal(path, body, signature) is None
    for n in range(len(body)):
        changed = body[:n] + bytes([body[n] ^ 1]) + body[n + 1 :]
        assert verifier.refusal(path, changed, signature) == "wrong signature"
    for n in range(len(signature)):
        changed = signature[:n] + chr(ord(signature[n]) ^ 1) + signature[n + 1 :]
        assert verifier.refusal(path, body, changed) == "wrong signature"
    assert verifier.refusal("/another", body, signature) == "wrong signature"
    assert verifier.refusal(path, body, "") == "not signed"


def test_a_status_settles_what_was_unclear(web, engine, sent):
    assert state(engine, 1) == ("unknown", None)
    assert status(web, 1, "sent").status_code == 200
    assert state(engine, 1) == ("sent", SID)


def test_a_status_that_is_sent_again_is_one_event(web, engine, sent):
    for _ in range(3):
        assert status(web, 1, "delivered").status_code == 200
    with engine.connect() as connection:
        (event,) = connection.execute(sa.select(provider_events)).all()
    assert (event.message_id, event.type, event.provider_id) == (1, "delivered", SID)


@pytest.mark.parametrize(
    ("kind", "code", "becomes"),
    [
        ("undelivered", "30005", "bounce"),
        ("undelivered", "30006", "bounce"),
        ("undelivered", "30003", None),
        ("undelivered", "30007", None),
        ("undelivered", "", None),
        ("failed", "21610", "unsubscribe"),
        ("failed", "30008", None),
        ("delivered", "", None),
    ],
)
def test_a_number_is_given_up_where_it_will_never_take_an_sms(web, engine, settings, sent, kind, code, becomes):
    assert status(web, 1, kind, ErrorCode=code).status_code == 200
    assert suppression(engine, settings, 1) == becomes


def test_a_status_of_a_message_to_somebody_else_changes_nothing(web, engine, sent):
    assert status(web, 1, "delivered", To=number(2)).status_code == 200
    assert state(engine, 1) == ("unknown", None)


@pytest.mark.parametrize("path", ["/webhooks/twilio/0", "/webhooks/twilio/x", "/webhooks/twilio/" + "9" * 5000])
def test_what_is_no_message_is_not_found(web, engine, path):
    assert post(web, path, {"MessageSid": SID, "MessageStatus": "sent"}).status_code == 404


@pytest.mark.parametrize(
    "fields", [{}, {"MessageSid": "x", "MessageStatus": "sent"}, {"MessageSid": SID}, {f"f{n}": "" for n in range(300)}]
)
def test_a_request_that_is_no_status_is_refused_with_a_reason(web, engine, sent, fields):
    answer = post(web, "/webhooks/twilio/1", fields)
    assert answer.status_code == 400
    assert answer.json()["refused"]


def test_a_request_that_is_not_theirs_changes_nothing(web, engine, settings, sent):
    fields = {"From": number(2), "Body": "STOP"}
    assert post(web, "/webhooks/twilio", fields, **{SIGNATURE_HEADER: "x"}).status_code == 401
    assert post(web, "/webhooks/twilio", fields, **{SIGNATURE_HEADER: ""}).status_code == 401
    assert suppression(engine, settings, 2) is None


def test_nothing_is_taken_without_the_token(engine, tmp_path, clock):
    web = TestClient(app(Settings(home=tmp_path, _env_file=None), clock))
    assert post(web, "/webhooks/twilio", {"From": number(1), "Body": "STOP"}).status_code == 503


@pytest.mark.parametrize(
    "answer",
    [{"Body": "STOP"}, {"Body": " stop\n"}, {"Body": "Unsubscribe"}, {"Body": "ne više", "OptOutType": "STOP"}],
)
def test_somebody_who_answers_stop_gets_no_more_sms_from_the_next_reservation_on(web, engine, settings, sent, answer):
    response = post(web, "/webhooks/twilio", {"From": number(2), "To": "+15005550006", **answer})
    assert (response.status_code, response.text) == (200, "<Response/>")
    assert suppression(engine, settings, 2) == "unsubscribe"
    with engine.begin() as connection:
        hashed = links.address_hash(settings.hash_key, "sms", number(2))
        assert consents.choices(connection, hashed, "sms") == {"*": "opted_out"}
        assert connection.execute(sa.select(exits.c.customer_id, exits.c.event)).all() == [("c000001", "unsubscribed")]
        (row,) = rows(1, start=1, campaign="another")
        ledger.plan(connection, [{**row, "channel": "sms", "address_hash": hashed}], run_id=None, at=AT)
        assert reserve(connection, campaign="another", via="twilio").messages == []


def test_who_answers_stop_gets_no_sms_though_the_clock_was_ahead_when_they_opted_in(web, engine, settings, sent):
    hashed = links.address_hash(settings.hash_key, "sms", number(2))
    with engine.begin() as connection:
        ahead = AT + timedelta(minutes=2)
        consents.choose(connection, hashed, "sms", "opted_in", source="preference_page", at=ahead)
    post(web, "/webhooks/twilio", {"From": number(2), "Body": "STOP"})
    assert suppression(engine, settings, 2) == "unsubscribe"


def test_somebody_unknown_who_answers_stop_gets_no_sms_either(web, engine, settings, sent):
    post(web, "/webhooks/twilio", {"From": number(77), "Body": "STOP"})
    assert suppression(engine, settings, 77) == "unsubscribe"


def test_any_other_answer_ends_nothing(web, engine, settings, sent):
    for said in ("", "thanks", "please stop by the shop", "START"):
        assert post(web, "/webhooks/twilio", {"From": number(2), "Body": said}).status_code == 200
    assert suppression(engine, settings, 2) is None
