"""Twilio: what is sent keeps the published contract."""

from __future__ import annotations

import pytest

from shopauto_pipelines.outbox.channels.twilio import Twilio
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import envelope
from shopauto_pipelines_tests.outbox.far_sides import TwilioStandIn


@pytest.fixture
def stand_in(shared):
    made = TwilioStandIn(shared / "contracts")
    yield made
    made.close()


@pytest.fixture
def channel(stand_in, tmp_path):
    made = []

    def make(**more) -> Twilio:
        usual = {
            "home": tmp_path,
            "twilio_url": stand_in.url,
            "twilio_account_sid": stand_in.ACCOUNT,
            "twilio_auth_token": stand_in.TOKEN,
            "twilio_from": stand_in.SENDER,
            "base_url": "https://shop.example.org/",
        }
        made.append(Twilio(Settings(_env_file=None, **(usual | more)), sleep=lambda _: None))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sms(n: int, **more):
    return envelope(
        n, **{"channel": "sms", "to": f"+4477009{n:05}", "html": "", "text": f"Hello {n}. STOP ends", **more}
    )


def test_a_message_is_one_call_with_its_sender_and_the_address_its_status_goes_to(stand_in, channel):
    (outcome,) = channel().send([sms(7, text="Grüße, ţi-ar plăcea 🎉? STOP\n")])
    (seen,) = stand_in.accepted
    assert outcome.state == "sent"
    assert outcome.provider_id.startswith("SM")
    assert seen.headers == {
        "To": "+447700900007",
        "From": "+15005550006",
        "Body": "Grüße, ţi-ar plăcea 🎉? STOP",
        "StatusCallback": "https://shop.example.org/webhooks/twilio/7",
    }


def test_a_messaging_service_is_named_as_one(stand_in, channel):
    service = "MG" + "1f" * 16
    (outcome,) = channel(twilio_from=service).send([sms(1)])
    assert outcome.state == "sent"
    assert stand_in.accepted[0].headers["MessagingServiceSid"] == service


def test_calls_share_a_few_connections(stand_in, channel):
    outcomes = channel().send([sms(n) for n in range(100)])
    assert {outcome.state for outcome in outcomes} == {"sent"}
    assert len({outcome.provider_id for outcome in outcomes}) == 100
    assert stand_in.calls == 100
    assert len(stand_in.connections) <= 8


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("+15005550001", "error 21211: the number is not valid"),
        ("+15005550002", "error 21612: the number cannot be reached from this sender"),
        ("+15005550003", "error 21408: the account may not send to this country"),
        ("+15005550004", "error 21610: the person answered STOP"),
        ("+15005550009", "error 21614: the number is not a mobile one"),
    ],
)
def test_a_number_that_cannot_be_written_to_fails_alone_with_what_is_wrong(stand_in, channel, number, says):
    outcomes = channel().send([sms(1), sms(2, to=number), sms(3)])
    assert [outcome.state for outcome in outcomes] == ["sent", "failed", "sent"]
    assert outcomes[1].reason == f"Twilio answered 400, {says}"


@pytest.mark.parametrize(
    "wrong", [{"twilio_from": "+15005550007"}, {"twilio_auth_token": "x"}, {"twilio_account_sid": "AC" + "1" * 32}]
)
def test_a_wrong_sender_token_or_account_puts_everything_back(stand_in, channel, wrong):
    outcomes = channel(**wrong).send([sms(1), sms(2)])
    assert [outcome.state for outcome in outcomes] == ["deferred", "deferred"]
    assert "check SHOPAUTO_TWILIO_" in outcomes[0].reason
    assert stand_in.accepted == []


def test_a_sender_whose_queue_is_full_puts_everything_back(stand_in, channel):
    outcomes = channel(twilio_from=stand_in.FULL).send([sms(1), sms(2)])
    assert [outcome.state for outcome in outcomes] == ["deferred", "deferred"]
    assert outcomes[0].reason == "Twilio answered 400, error 21611: the sender's queue is full"


def test_an_error_of_theirs_may_come_after_they_accepted(stand_in, channel):
    stand_in.behave("error after")
    (outcome,) = channel().send([sms(1)])
    assert (outcome.state, outcome.reason) == ("unknown", "Twilio answered 500")


def test_an_sms_that_is_too_long_for_all_networks_is_refused(channel):
    (outcome,) = channel().send([sms(1, text="x" * 1601)])
    assert (outcome.state, outcome.reason) == ("failed", "the text has 1,601 characters, an SMS at most 1,600")
