"""The generic webhook: signed, halved where a message is at fault, asked again only where the receiver promises."""

from __future__ import annotations

import hashlib
import hmac
import json

import httpx
import pytest

from shopauto_pipelines.outbox.channels import webhook as module
from shopauto_pipelines.outbox.channels.webhook import Webhook, signature
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import envelope
from shopauto_pipelines_tests.outbox.far_sides import Receiver


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def channel(receiver, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", httpx.Timeout(0.5))
    made = []

    def make(now=None, **more) -> Webhook:
        usual = {"home": tmp_path, "webhook_url": receiver.url, "webhook_secret": receiver.SECRET}
        arguments = {"now": now} if now else {}
        made.append(Webhook(Settings(_env_file=None, **(usual | more)), sleep=lambda _: None, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def states(outcomes) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_the_signature_is_over_the_timestamp_and_the_raw_body():
    body = json.dumps({"name": "Žana 🎉"}).encode()
    expected = hmac.new(b"key", b"1767500000." + body, hashlib.sha256).hexdigest()
    assert signature(b"key", "1767500000", body) == f"sha256={expected}"


@pytest.mark.parametrize("wrong", [{"webhook_secret": "another"}, {"now": lambda: 1_000_000_000.0}])
def test_a_request_that_does_not_verify_or_is_old_puts_everything_back(receiver, channel, wrong):
    outcomes = channel(**wrong).send([envelope(1), envelope(2)])
    assert states(outcomes) == ["deferred", "deferred"]
    assert "401" in outcomes[0].reason
    assert receiver.accepted == []


def test_a_request_that_is_refused_is_halved_until_the_message_at_fault_is_alone(receiver, channel):
    batch = [envelope(n, **({"text": "poison"} if n in (3, 40) else {})) for n in range(1, 65)]
    outcomes = channel().send(batch)
    assert [n for n, state in enumerate(states(outcomes), start=1) if state == "failed"] == [3, 40]
    assert outcomes[2].reason == "the receiver answered 422"
    assert len(receiver.accepted) == len({seen.to for seen in receiver.accepted}) == 62


def test_a_receiver_that_takes_fewer_at_once_gets_fewer(receiver, channel):
    receiver.most_messages = 10
    assert states(channel().send([envelope(n) for n in range(1, 41)])) == ["sent"] * 40
    assert len(receiver.accepted) == 40


def test_a_receiver_can_refuse_some_of_a_request_with_its_reason_which_keeps_no_address(receiver, channel):
    outcomes = channel().send([envelope(1), envelope(2, to="nobody@example.com")])
    assert states(outcomes) == ["sent", "failed"]
    assert outcomes[1].reason == "refused by the receiver: no such person: … …"


@pytest.mark.parametrize("lost", ["drop before", "drop after", "hang after", "garbage after", "error after"])
def test_a_receiver_that_promises_to_take_a_key_once_is_asked_again_and_takes_it_once(receiver, channel, lost):
    receiver.behave(lost, lost)
    assert states(channel(webhook_idempotent=True).send([envelope(1), envelope(2)])) == ["sent", "sent"]
    assert receiver.calls == 3
    assert len(receiver.accepted) == 2


def test_a_receiver_that_promises_and_never_answers_leaves_the_messages_unknown(receiver, channel):
    receiver.behave(*["drop after"] * 9)
    (outcome,) = channel(webhook_idempotent=True).send([envelope(1)])
    assert outcome.state == "unknown"
    assert len(receiver.accepted) == 1


def test_a_receiver_that_is_still_at_work_on_a_key_is_asked_again_with_it(receiver, channel):
    receiver.behave("hang after", 409, 409)
    assert states(channel(webhook_idempotent=True).send([envelope(1), envelope(2)])) == ["sent", "sent"]
    assert (receiver.calls, len(receiver.accepted)) == (4, 2)


@pytest.mark.parametrize("in_doubt", ["drop after", "hang after", "error after", 409])
@pytest.mark.parametrize("refusal", [302, 400, 401, 404, 413, 422])
def test_a_refusal_of_what_may_have_been_taken_leaves_the_messages_unknown(receiver, channel, in_doubt, refusal):
    receiver.behave(in_doubt, refusal)
    outcomes = channel(webhook_idempotent=True).send([envelope(1), envelope(2)])
    assert states(outcomes) == ["unknown", "unknown"]
    assert outcomes[0].reason.endswith(f", then {refusal}")
    assert receiver.calls == 2, "nothing leaves again under another key"


def test_a_receiver_that_stays_at_work_leaves_the_messages_unknown(receiver, channel):
    receiver.behave("drop after", *[409] * 9)
    assert states(channel(webhook_idempotent=True).send([envelope(1), envelope(2)])) == ["unknown", "unknown"]
    assert len(receiver.accepted) == 2


@pytest.mark.parametrize("lost", ["drop before", "error after"])
def test_a_receiver_that_does_not_promise_is_asked_once(receiver, channel, lost):
    receiver.behave(lost)
    assert states(channel().send([envelope(1)])) == ["unknown"]
    assert receiver.calls == 1


def test_the_same_messages_have_the_same_key_and_others_another(receiver, channel):
    webhook = channel()
    webhook.send([envelope(1), envelope(2)])
    webhook.send([envelope(1), envelope(2)])
    assert len(receiver.accepted) == 2, "the receiver knows the key"
    webhook.send([envelope(1)])
    assert len(receiver.accepted) == 3
