"""SendGrid: what is sent keeps the published contract, and every way a call can end leaves nothing sent twice."""

from __future__ import annotations

import signal
import socket
import subprocess

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.channels.sendgrid import SendGrid
from shopauto_pipelines.outbox.channels.shared_content import MOST_BYTES, fold
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, envelope
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, mail_send_schema, serve
from shopauto_pipelines_tests.outbox.shop import campaign, write_shop
from shopauto_pipelines_tests.outbox.test_dispatch import _spawn, _wait_until


@pytest.fixture(scope="module")
def schema(shared):
    return mail_send_schema(shared / "contracts")


@pytest.fixture
def stand_in(schema):
    stand_in, server = serve(schema)
    yield stand_in
    server.shutdown()
    server.server_close()


def _live(stand_in, tmp_path, **more) -> dict:
    return {
        "home": str(tmp_path),
        "live": True,
        "sendgrid_url": stand_in.url,
        "sendgrid_api_key": API_KEY,
        "from_email": "hello@shop.example.org",
        "postal_address": "1 Example Road",
        "base_url": "https://shop.example.org",
        "shop_url": "https://shop.example.org",
        "secret_key": "secret",
        **more,
    }


@pytest.fixture
def live(stand_in, tmp_path) -> Settings:
    return Settings(_env_file=None, **_live(stand_in, tmp_path))


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
    assert (stand_in.calls, len(stand_in.connections)) == (5, 1)


def test_a_rate_limit_is_waited_for_as_asked_and_then_obeyed(stand_in, channel, waits):
    stand_in.behaviour = lambda n: "rate limit" if n < 3 else None
    assert [o.state for o in channel.send([envelope(1)])] == ["sent"]
    assert waits == [7.0, 7.0]
    stand_in.behaviour = lambda n: "rate limit"
    assert [(o.state, o.reason) for o in channel.send([envelope(2)])] == [("deferred", "SendGrid's rate limit")]
    assert stand_in.message_ids == [1]


@pytest.mark.parametrize("how", ["drop before", "drop after", "error", "error after"])
def test_an_unclear_answer_is_unknown_and_not_tried_again(stand_in, channel, how):
    stand_in.behaviour = lambda n: how
    assert [o.state for o in channel.send([envelope(1), envelope(2)])] == ["unknown", "unknown"]
    assert stand_in.calls == 1


def test_a_person_the_provider_finds_fault_with_fails_alone(stand_in, channel):
    states = [o.state for o in channel.send([envelope(1), envelope(2, to="none"), envelope(3)])]
    assert states == ["sent", "failed", "sent"]
    assert stand_in.message_ids == [1, 3]


def test_the_reason_of_a_failure_holds_no_address(channel):
    (outcome,) = channel.send([envelope(1, to="private.person")])
    assert outcome.reason == "SendGrid answered 400: to.0.email"


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
    assert waits == [1.0, 2.0, 4.0, 8.0]


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
    stand_in.behaviour = lambda n: "error after"
    assert dispatch(engine, lake, live, campaign(), DAY, clock=FixedClock(AT)).count("unknown") == 5
    stand_in.behaviour = lambda n: None
    again = dispatch(engine, lake, live, campaign(), DAY, clock=FixedClock(AT))
    assert (again.sent, again.count("unknown")) == (0, 5)
    assert len(stand_in.message_ids) == 5


@pytest.mark.slow
def test_a_dispatcher_killed_in_a_call_sends_nothing_twice_and_what_is_unclear_is_unknown(
    engine, database_home, lake, stand_in, live, tmp_path
):
    write_shop(lake, people=2100)
    seen: list[subprocess.Popen] = []

    def killed_in_the_second_call(number: int) -> str | None:
        if number == 2:
            seen[0].send_signal(signal.SIGKILL)
            seen[0].wait()
        return None

    stand_in.behaviour = killed_in_the_second_call
    seen.append(_spawn(database_home, **_live(stand_in, tmp_path)))
    _wait_until(lambda: len(stand_in.accepted) >= 1000, seen[0])
    assert seen[0].wait(timeout=60) == -signal.SIGKILL
    result = dispatch(engine, lake, live, campaign(), DAY, clock=FixedClock(AT))
    assert result.states == {("sent", ""): 1100, ("unknown", "the dispatcher died while it sent"): 1000}
    assert len(stand_in.message_ids) == len(set(stand_in.message_ids)) == 2100
    with engine.connect() as connection:
        sent = set(
            connection.execute(sa.select(ledger.messages.c.id).where(ledger.messages.c.state == "sent")).scalars()
        )
    assert sent <= set(stand_in.message_ids)
