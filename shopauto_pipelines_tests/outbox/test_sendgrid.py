"""SendGrid: what is sent keeps the published contract, and every way a call can end leaves nothing sent twice."""

from __future__ import annotations

import socket
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.outbox.channels.sendgrid import SendGrid
from shopauto_pipelines.outbox.channels.shared_content import MOST_BYTES, fold
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, envelope
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, start
from shopauto_pipelines_tests.outbox.shop import campaign, write_shop


@pytest.fixture(scope="module")
def running_stand_in(shared):
    with start(shared / "contracts") as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(running_stand_in):
    running_stand_in.reset()
    return running_stand_in


@pytest.fixture
def live(stand_in, tmp_path) -> Settings:
    return Settings(
        home=tmp_path,
        live=True,
        sendgrid_url=stand_in.url,
        sendgrid_api_key=API_KEY,
        from_email="hello@shop.example.org",
        postal_address="1 Example Road",
        base_url="https://shop.example.org",
        shop_url="https://shop.example.org",
        secret_key="secret",
        _env_file=None,
    )


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def channel(live, waits):
    made = SendGrid(live, sleep=waits.append)
    yield made
    made.close()


def test_a_thousand_people_are_one_call_that_keeps_the_contract_and_each_gets_their_own_message(stand_in, channel):
    batch = [envelope(n) for n in range(1, 1001)]
    outcomes = channel.send(batch)
    assert {(o.state, o.provider_id) for o in outcomes} == {("sent", "request-1")}
    assert stand_in.calls == 1
    assert stand_in.message_ids == list(range(1, 1001))
    for sent, got in zip(batch, stand_in.accepted, strict=True):
        assert got["seen"] == {"text/html": sent.html, "text/plain": sent.text}
        assert got["subject"] == sent.subject
        assert got["to"] == [{"email": sent.to, "name": sent.to_name}]
        assert got["headers"]["List-Unsubscribe"] == f"<{sent.unsubscribe_url}>"
        assert got["categories"] == ["welcome"]
        assert set(got["custom_args"]) == {"shopauto_message"}


def test_the_connection_is_used_again(stand_in, channel):
    for n in range(5):
        channel.send([envelope(n)])
    assert (stand_in.calls, stand_in.connections) == (5, 1)


def test_a_rate_limit_is_waited_for_as_asked_and_then_obeyed(stand_in, channel, waits):
    stand_in.behave("rate limit:7", "rate limit:7")
    assert [o.state for o in channel.send([envelope(1)])] == ["sent"]
    assert waits == [7.0, 7.0]
    stand_in.behave(then="rate limit")
    assert [(o.state, o.reason) for o in channel.send([envelope(2)])] == [("deferred", "SendGrid's rate limit")]
    assert stand_in.message_ids == [1]


def test_a_rate_limit_that_names_the_end_of_its_window_is_waited_for_until_then(stand_in, channel, waits):
    stand_in.behave("rate limit reset:9")
    assert [o.state for o in channel.send([envelope(1)])] == ["sent"]
    assert waits == [pytest.approx(9, abs=1.5)]


@pytest.mark.parametrize(
    "how",
    ["drop before", "drop half", "drop after", "error", "error after", "unavailable", "garbage", "garbage after"],
)
def test_an_unclear_answer_is_unknown_and_not_tried_again(stand_in, channel, how):
    stand_in.behave(then=how)
    assert [o.state for o in channel.send([envelope(1), envelope(2)])] == ["unknown", "unknown"]
    assert stand_in.calls == 1


def test_a_connection_that_the_provider_closes_between_calls_is_opened_again(stand_in, channel):
    stand_in.behave(then="close after")
    for n in range(3):
        assert channel.send([envelope(n)])[0].state == "sent"
        time.sleep(0.1)  # a call in the very moment of the closing is unknown, as it must be
    assert stand_in.message_ids == [0, 1, 2]


_PERSON = {"to": [{"email": "a@example.com"}], "subject": "Hello"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 202),
        ({"personalizations": []}, 400),
        ({"personalizations": [{"subject": "to nobody"}]}, 400),
        ({"personalizations": [{**_PERSON, "to": []}]}, 400),
        ({"personalizations": [_PERSON] * 1001}, 400),
        ({"personalizations": [{**_PERSON, "to": [{"email": f"a{n}@example.com"} for n in range(1001)]}]}, 400),
        ({"personalizations": [{**_PERSON, "substitutions": {"%a%": "x" * 10_001}}]}, 400),
        ({"personalizations": [{**_PERSON, "substitutions": {"%a%": "ž" * 5_001}}]}, 400),
        ({"personalizations": [{**_PERSON, "custom_args": {"a": "x" * 10_001}}]}, 400),
        ({"personalizations": [{**_PERSON, "headers": {"Subject": "x"}}]}, 400),
        ({"personalizations": [{**_PERSON, "headers": {"X-A": "x\r\nBcc: b@example.com"}}]}, 400),
        ({"personalizations": [{**_PERSON, "send_at": int(time.time()) + 73 * 3600}]}, 400),
        ({"personalizations": [{"to": _PERSON["to"]}]}, 400),
        ({"content": []}, 400),
        ({"content": [{"type": "text/html", "value": "x"}, {"type": "text/plain", "value": "x"}]}, 400),
        ({"categories": [str(n) for n in range(11)]}, 400),
        ({"categories": ["x" * 256]}, 400),
        ({"content": [{"type": "text/plain", "value": "x" * 30_000_001}]}, 413),
    ],
)
def test_the_stand_in_refuses_what_the_contract_and_the_documented_limits_refuse(stand_in, change, status):
    body = {
        "from": {"email": "shop@example.com"},
        "personalizations": [_PERSON],
        "content": [{"type": "text/plain", "value": "Hello"}],
    }
    headers = {"Authorization": f"Bearer {API_KEY}"}
    answer = httpx.post(f"{stand_in.url}/v3/mail/send", json=body | change, headers=headers)
    assert answer.status_code == status, answer.text
    assert stand_in.counts()["accepted"] == (1 if not change else 0)


def test_a_person_the_provider_finds_fault_with_fails_alone(stand_in, channel):
    states = [o.state for o in channel.send([envelope(1), envelope(2, to="none"), envelope(3)])]
    assert states == ["sent", "failed", "sent"]
    assert stand_in.message_ids == [1, 3]


def test_the_reason_of_a_failure_holds_no_address(channel):
    (outcome,) = channel.send([envelope(1, to="private.person")])
    assert outcome.reason == "the address is not valid"


def test_a_wrong_key_puts_messages_off_instead_of_failing_them(live, stand_in):
    wrong = live.model_copy(update={"sendgrid_api_key": type(live.sendgrid_api_key)("SG.wrong")})
    (outcome,) = SendGrid(wrong).send([envelope(1)])
    assert outcome.state == "deferred"
    assert "API key" in outcome.reason
    assert "SG.wrong" not in outcome.reason


def test_a_provider_that_cannot_be_reached_puts_messages_off(live, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = live.model_copy(update={"sendgrid_url": f"http://127.0.0.1:{free.getsockname()[1]}"})
    assert SendGrid(gone, sleep=waits.append).send([envelope(1)])[0].state == "deferred"
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, (1, 2, 4, 8), strict=True))


@pytest.mark.parametrize("wrong", [{"sendgrid_api_key": f"{API_KEY}\n"}, {"sendgrid_url": "api.sendgrid.test"}])
def test_a_request_that_cannot_be_written_puts_messages_off_and_shows_no_key(live, stand_in, waits, wrong):
    channel = SendGrid(Settings(_env_file=None, **wrong, **live.model_dump(exclude={*wrong})), sleep=waits.append)
    (outcome,) = channel.send([envelope(1)])
    assert (outcome.state, waits, stand_in.calls) == ("deferred", [], 0)
    assert "check the address and the key" in outcome.reason
    assert API_KEY not in outcome.reason


def test_a_proxy_that_lets_nothing_through_puts_messages_off(live, stand_in, waits, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", stand_in.url)
    channel = SendGrid(live.model_copy(update={"sendgrid_url": "https://api.sendgrid.test"}), sleep=waits.append)
    assert [outcome.state for outcome in channel.send([envelope(1)])] == ["deferred"]
    assert stand_in.accepted == []


def test_sandbox_mode_delivers_nothing_and_says_so(live, stand_in):
    (outcome,) = SendGrid(live.model_copy(update={"sendgrid_sandbox": True})).send([envelope(1)])
    assert (outcome.state, outcome.reason) == ("failed", "sandbox mode: valid, not delivered")
    assert stand_in.accepted == []


_WORD = st.text("ab<>%- \nséž😀{}[]hasat01", max_size=30)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    people=st.lists(
        st.tuples(_WORD, _WORD, st.sampled_from(["", "<b>x</b>", "%sah0%", "z" * 12_000, "ž" * 6_000])),
        min_size=1,
        max_size=8,
    )
)
def test_folded_messages_unfold_to_exactly_what_was_rendered(people):
    batch = [
        envelope(n, html=f"<p>{one}</p>same<a href='{two}'>{three}</a>", text=f"{two}\nsame\n{one}{three}\n")
        for n, (one, two, three) in enumerate(people)
    ]
    seen = {}
    for folded in fold(batch):
        for sent, pieces in zip(folded.envelopes, folded.pieces, strict=True):
            assert sum(len(k) + len(v.encode()) for k, v in pieces.items()) <= MOST_BYTES
            html, text = folded.html, folded.text
            for tag, value in pieces.items():
                html, text = html.replace(tag, value), text.replace(tag, value)
            assert sent.message_id not in seen
            seen[sent.message_id] = (html, text)
    assert seen == {sent.message_id: (sent.html, sent.text) for sent in batch}


def test_a_real_campaign_folds_into_few_calls(engine, lake, stand_in, live):
    write_shop(lake, people=300)
    result = dispatch(engine, lake, live, campaign(), DAY, clock=FixedClock(AT))
    assert (result.sent, stand_in.calls) == (300, 1)
    for person in stand_in.accepted:
        name = person["to"][0]["name"]
        assert f"{name}</" in person["seen"]["text/html"] or f"{name}," in person["seen"]["text/html"]
        assert person["headers"]["List-Unsubscribe"].strip("<>") in person["seen"]["text/html"]


def test_unknown_messages_stay_unknown_in_the_ledger_and_are_not_sent_by_the_next_run(engine, lake, stand_in, live):
    write_shop(lake, people=5)
    stand_in.behave(then="error after")
    assert dispatch(engine, lake, live, campaign(), DAY, clock=FixedClock(AT)).count("unknown") == 5
    stand_in.behave()
    again = dispatch(engine, lake, live, campaign(), DAY, clock=FixedClock(AT))
    assert (again.sent, again.count("unknown")) == (0, 5)
    assert len(stand_in.message_ids) == 5
