"""The local inbox: its files, and the page that shows them."""

from __future__ import annotations

import json
import time
from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from shopauto_pipelines.outbox import inbox_page, ledger, links
from shopauto_pipelines.outbox.channels.inbox import LocalInbox, compose, message_path
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT, envelope, rows


def _read(settings, sent):
    return message_from_bytes(message_path(settings, sent.reference).read_bytes(), policy=default)


def test_a_message_is_an_eml_file_that_mail_programs_understand(settings):
    sent = envelope(1, to_name='Žana "Z" Müller', subject="Grüße 🎉")
    (outcome,) = LocalInbox(settings).send([sent])
    email = _read(settings, sent)
    assert outcome.state == "sent"
    assert email.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in email.iter_parts()] == ["text/plain", "text/html"]
    assert email["To"].addresses[0].display_name == 'Žana "Z" Müller'
    assert email["Subject"] == "Grüße 🎉"
    assert email["Date"].datetime == AT
    assert email["List-Unsubscribe"] == "<http://localhost:8025/u/1>"
    assert email["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert json.loads(email["X-ShopAuto-Explanation"]) == sent.explanation
    assert email.get_body(("html",)).get_content().strip() == sent.html
    assert not email.defects


def test_the_same_message_gives_the_same_bytes(settings):
    assert compose(envelope(), settings) == compose(envelope(), settings)


def test_a_message_delivered_twice_is_one_file_with_the_first_content(settings):
    inbox = LocalInbox(settings)
    assert [o.state for o in inbox.send([envelope(), envelope(subject="Another")])] == ["sent", "sent"]
    assert _read(settings, envelope())["Subject"] == "Welcome, Ana 1"
    assert len(list((settings.inbox_path / "messages").iterdir())) == 1
    assert list((settings.inbox_path / "staging").iterdir()) == []


def test_the_inbox_knows_what_a_dead_sender_delivered(settings):
    inbox = LocalInbox(settings)
    inbox.send([envelope(1)])
    assert inbox.recall(envelope(1).reference).state == "sent"
    assert inbox.recall(envelope(2).reference).state == "deferred"


def test_an_address_that_is_none_fails_alone(settings):
    states = [o.state for o in LocalInbox(settings).send([envelope(1, to="no address"), envelope(2)])]
    assert states == ["failed", "sent"]


def test_an_sms_is_text_only(settings):
    LocalInbox(settings).send([envelope(channel="sms", to="+447700900123")])
    email = _read(settings, envelope())
    assert email.get_content_type() == "text/plain"
    assert email["To"].addresses[0].addr_spec == "+447700900123@sms.invalid"


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    name=st.text(max_size=40),
    subject=st.text(max_size=40),
    explanation=st.dictionaries(st.text(max_size=20), st.text(max_size=60) | st.integers() | st.none(), max_size=4),
)
def test_no_name_subject_or_explanation_breaks_a_message_or_adds_a_header(name, subject, explanation):
    settings = Settings(_env_file=None)
    sent = envelope(to_name=name, subject=subject, explanation=explanation)
    email = message_from_bytes(compose(sent, settings), policy=default)
    plain = message_from_bytes(compose(envelope(), settings), policy=default)
    assert email.keys() == plain.keys()
    assert json.loads(email["X-ShopAuto-Explanation"]) == explanation
    assert email["To"].addresses[0].addr_spec == sent.to


@pytest.fixture
def page(settings):
    """The page over 120 messages of two campaigns."""
    inbox = LocalInbox(settings)
    inbox.send([envelope(n) for n in range(120)])
    key = ledger.MessageKey("win_back", "miss_you", "c9", "2026-01-02")
    evil = "<script>alert(1)</script>\"'"
    inbox.send(
        [
            envelope(
                200,
                key=key,
                subject=evil,
                to_name=evil,
                text=evil,
                explanation={evil: [evil], "churn_factor": 2.5, "rules": [{"name": "lapsed"}]},
                html=f"<p>{evil}</p>",
            )
        ]
    )
    return TestClient(inbox_page.app(settings))


def test_the_list_pages_searches_and_filters(page):
    first = page.get("/").text
    assert first.count("<li>") == inbox_page.PAGE_SIZE
    assert "1–50 of 121" in first
    assert "101–121 of 121" in page.get("/?page=3").text
    assert "101–121 of 121" in page.get("/?page=99").text
    assert "of 1<" in page.get("/?q=c000007@").text
    assert "of 1<" in page.get("/?q=c000007").text
    assert "of 1<" in page.get("/?campaign=win_back").text
    assert "Nothing found" in page.get("/?q=%25").text
    assert page.get("/?page=-1").status_code == page.get("/?page=x").status_code == 200


def test_the_list_shows_what_arrives_while_it_is_open_and_forgets_what_is_gone(page, settings):
    page.get("/")
    LocalInbox(settings).send([envelope(500)])
    assert "of 122" in page.get("/").text
    message_path(settings, envelope(500).reference).unlink()
    assert "of 121" in page.get("/").text


def test_a_message_is_shown_with_its_reason_and_nothing_in_it_runs(page):
    reference = links.reference(ledger.MessageKey("win_back", "miss_you", "c9", "2026-01-02"))
    shown = page.get(f"/messages/{reference}")
    assert "<script" not in shown.text
    assert "<script" not in page.get("/").text
    assert "&lt;script&gt;" in shown.text
    assert "churn factor" in shown.text
    assert 'sandbox="allow-popups' in shown.text
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    body = page.get(f"/messages/{reference}/html")
    assert "<script>" in body.text
    assert "sandbox" in body.headers["content-security-policy"]
    assert "script-src" not in body.headers["content-security-policy"]


@pytest.mark.parametrize("reference", ["0" * 32, "..%2f..%2fsecret.key", "x", "0" * 31])
def test_a_message_that_is_not_there_is_a_page_that_says_so(page, reference):
    for path in ("", "/html", "/eml"):
        assert page.get(f"/messages/{reference}{path}").status_code == 404


@pytest.mark.slow
def test_ten_thousand_messages_are_listed_in_a_moment(settings):
    LocalInbox(settings).send([envelope(n) for n in range(10_000)])
    client = TestClient(inbox_page.app(settings))
    client.get("/")
    start = time.perf_counter()
    assert "9,951–10,000 of 10,000" in client.get("/?page=200").text
    assert "of 1<" in client.get("/?q=c001234@").text
    assert time.perf_counter() - start < 1.0


def test_the_inbox_answers_the_links_in_its_messages(engine, settings, clock, monkeypatch):
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    with engine.begin() as connection:
        ledger.plan(connection, rows(1), run_id=None, at=AT)
        message = ledger.find(connection, 1)
    token = links.unsubscribe_token(settings.hash_key, message.id, message.key)
    client = TestClient(inbox_page.app(settings, clock))
    assert "Unsubscribe from" in client.get(f"/u/{token}").text
    assert "Your preferences" in client.get(f"/p/{token}").text
