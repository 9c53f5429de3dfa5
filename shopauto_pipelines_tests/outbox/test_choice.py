"""Which channel the settings choose, and what live mode asks for before it starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.choice import ByKind, ChannelError, channel_for
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import envelope

LIVE = {
    "live": True,
    "from_email": "hello@shop.example.org",
    "postal_address": "1 Example Road",
    "base_url": "https://shop.example.org",
    "shop_url": "https://shop.example.org",
    "secret_key": "secret",
}
SENDGRID = {"sendgrid_api_key": "SG.key"}
SMTP = {"email_via": "smtp", "smtp_host": "localhost"}
TWILIO = {
    "sms_via": "twilio",
    "twilio_account_sid": "AC" + "0" * 32,
    "twilio_auth_token": "token",
    "twilio_from": "+15005550006",
}
WEBHOOK = {"webhook_url": "https://hooks.example.org", "webhook_secret": "secret"}
OWN = "shopauto_pipelines_tests.outbox.test_choice:Carrier"


class Carrier:
    """A channel of somebody's own."""

    name = "carrier"
    batch_size = 7
    calls_at_once = 2

    def __init__(self, settings: Settings) -> None:
        self.closed = 0
        self.sent: list[int] = []
        self.recalled = Outcome("deferred")

    def send(self, batch):
        self.sent += [one.message_id for one in batch]
        return [Outcome("sent", provider_id=f"{self.name}-{one.message_id}") for one in batch]

    def recall(self, reference):
        return self.recalled

    def close(self) -> None:
        self.closed += 1


def live(**more) -> Settings:
    return Settings(_env_file=None, **LIVE | more)


def test_nothing_leaves_the_machine_unless_live_mode_is_declared():
    quiet = Settings(_env_file=None, **{**LIVE, "live": False}, **SENDGRID, **TWILIO)
    assert isinstance(channel_for(quiet), LocalInbox)


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        (SENDGRID, "sendgrid"),
        (SMTP, "smtp"),
        (WEBHOOK | {"email_via": "webhook"}, "webhook"),
        (WEBHOOK | {"email_via": "webhook", "sms_via": "webhook"}, "webhook"),
        (SENDGRID | TWILIO, "sendgrid+twilio"),
        (SMTP | WEBHOOK | {"sms_via": "webhook"}, "smtp+webhook"),
        ({"email_via": OWN}, "carrier"),
        (SENDGRID | {"sms_via": OWN}, "sendgrid+carrier"),
    ],
)
def test_live_mode_sends_by_what_the_settings_name(chosen, name):
    channel = channel_for(live(**chosen))
    assert channel.name == name
    channel.close()


@pytest.mark.parametrize(
    ("chosen", "missing"),
    [
        ({}, ["SHOPAUTO_SENDGRID_API_KEY (SHOPAUTO_EMAIL_VIA is sendgrid)"]),
        ({"email_via": "smtp"}, ["SHOPAUTO_SMTP_HOST (SHOPAUTO_EMAIL_VIA is smtp)"]),
        (SMTP | {"smtp_user": "shop"}, ["SHOPAUTO_SMTP_PASSWORD (SHOPAUTO_SMTP_USER is set)"]),
        (
            {"email_via": "webhook", "sms_via": "twilio"},
            [
                "SHOPAUTO_WEBHOOK_URL (SHOPAUTO_EMAIL_VIA is webhook)",
                "SHOPAUTO_WEBHOOK_SECRET (SHOPAUTO_EMAIL_VIA is webhook)",
                "SHOPAUTO_TWILIO_ACCOUNT_SID (SHOPAUTO_SMS_VIA is twilio)",
                "SHOPAUTO_TWILIO_AUTH_TOKEN (SHOPAUTO_SMS_VIA is twilio)",
                "SHOPAUTO_TWILIO_FROM (SHOPAUTO_SMS_VIA is twilio)",
            ],
        ),
    ],
)
def test_live_mode_does_not_start_without_what_the_chosen_channels_need(chosen, missing):
    with pytest.raises(ValidationError) as caught:
        live(**chosen)
    assert f"live mode needs {', '.join(missing)}; set them" in str(caught.value)


@pytest.mark.parametrize("name", ["from_email", "postal_address", "base_url", "shop_url", "secret_key"])
def test_live_mode_does_not_start_without_what_every_message_needs(name):
    with pytest.raises(ValidationError, match=f"live mode needs SHOPAUTO_{name.upper()}; set them"):
        Settings(_env_file=None, **{key: value for key, value in LIVE.items() if key != name}, **SENDGRID)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mail.shop.example.org", "base_url"),
        ("https://müller.example.org", "base_url"),
        ("https://mail.shop.example.org/ x>", "base_url"),
        ("http://mail.shop.example.org", "live mode needs SHOPAUTO_BASE_URL with https://"),
    ],
)
def test_live_mode_does_not_start_with_an_address_that_mail_programs_cannot_unsubscribe_at(address, says):
    with pytest.raises(ValidationError, match=says):
        Settings(_env_file=None, **LIVE | {"base_url": address}, **SENDGRID)


def test_a_sender_with_other_letters_is_written_as_headers_carry_it():
    assert live(**SENDGRID | {"from_email": "hallo@müller-möbel.de"}).from_email == "hallo@xn--mller-mbel-kcb9d.de"
    with pytest.raises(ValidationError, match="the part before the @ has letters that mail headers do not carry"):
        live(**SENDGRID | {"from_email": "möbel@shop.example.org"})


@pytest.mark.parametrize(("name", "value"), [("email_via", "twilio"), ("sms_via", "sendgrid"), ("email_via", "fax")])
def test_a_channel_that_does_not_carry_the_kind_is_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        live(**SENDGRID, **{name: value})


@pytest.mark.parametrize("name", ["nowhere.at_all:Channel", "shopauto_pipelines.outbox.channels:Nothing"])
def test_a_channel_of_ones_own_that_is_not_there_is_named(name):
    with pytest.raises(ChannelError, match=f"there is no channel '{name}'"):
        channel_for(live(email_via=name))


def test_each_kind_goes_by_its_own_channel_and_the_outcomes_keep_their_order():
    email, sms = Carrier(live(**SENDGRID)), Carrier(live(**SENDGRID))
    both = ByKind(email, sms)
    texts = {2, 3, 5}
    batch = [envelope(n, channel="sms" if n in texts else "email") for n in range(1, 6)]
    assert [outcome.provider_id for outcome in both.send(batch)] == [f"carrier-{n}" for n in range(1, 6)]
    assert (email.sent, sms.sent) == ([1, 4], [2, 3, 5])
    both.close()
    assert (email.closed, sms.closed) == (1, 1)


def test_what_became_of_a_message_is_in_doubt_while_either_channel_is():
    email, sms = Carrier(live(**SENDGRID)), Carrier(live(**SENDGRID))
    both = ByKind(email, sms)
    assert both.recall("0" * 32).state == "deferred"
    sms.recalled = Outcome("unknown")
    assert both.recall("0" * 32).state == "unknown"
    email.recalled = Outcome("sent")
    assert both.recall("0" * 32).state == "sent"


@pytest.mark.parametrize("chosen", [SMTP, WEBHOOK | {"email_via": "webhook"}, {"email_via": OWN}])
def test_an_sms_leaves_by_nothing_unless_a_way_is_set_for_it_and_says_so(chosen):
    channel = channel_for(live(**chosen))
    (outcome,) = channel.send([envelope(1, channel="sms", to="+447700900123", html="")])
    channel.close()
    assert (outcome.state, outcome.reason) == ("failed", "no way to send sms is set up")
