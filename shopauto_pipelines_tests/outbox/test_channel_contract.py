"""What every channel promises, whatever its far side is. A new channel joins by one more entry in ``CHANNELS``."""

from __future__ import annotations

import email
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.policy import default
from pathlib import Path

import httpx
import pytest

from shopauto_pipelines.outbox.channels import Channel, Envelope
from shopauto_pipelines.outbox.channels import sendgrid as sendgrid_module
from shopauto_pipelines.outbox.channels import twilio as twilio_module
from shopauto_pipelines.outbox.channels import webhook as webhook_module
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.channels.mime import one_line
from shopauto_pipelines.outbox.channels.sendgrid import SendGrid
from shopauto_pipelines.outbox.channels.smtp import Smtp
from shopauto_pipelines.outbox.channels.twilio import Twilio
from shopauto_pipelines.outbox.channels.webhook import Webhook
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines_tests.outbox import sendgrid_stand_in
from shopauto_pipelines_tests.outbox.conftest import envelope
from shopauto_pipelines_tests.outbox.far_sides import Receiver, Relay, Seen, TwilioStandIn, display_name

SECRETS = (sendgrid_stand_in.API_KEY, TwilioStandIn.TOKEN, Receiver.SECRET)


@dataclass
class Far:
    """A channel and what is at its other end. ``behave`` takes a word of ``far_sides.BEHAVIOURS``; ``None``: it is not told."""

    channel: Channel
    accepted: Callable[[], list[Seen]]
    behave: Callable[..., None] | None = None
    #: An address that the far side, not we, refuses.
    refused: str | None = None
    carries: tuple[str, ...] = ("email",)
    waits: list[float] = field(default_factory=list)
    #: A channel of the same kind whose far side is not there.
    nowhere: Callable[[], Channel] | None = None


def _closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def contracts() -> Path | None:
    folder = PROJECT_ROOT.parent / "shared" / "contracts"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="module")
def running_sendgrid(contracts) -> Iterator[sendgrid_stand_in.StandIn]:
    with sendgrid_stand_in.start(contracts) as stand_in:
        yield stand_in


@pytest.fixture
def inbox(settings) -> Far:
    def accepted() -> list[Seen]:
        found = []
        for file in sorted((settings.inbox_path / "messages").iterdir()):
            mail = email.message_from_bytes(file.read_bytes(), policy=default)
            html = mail.get_body(("html",))
            found.append(
                Seen(
                    mail["To"].addresses[0].addr_spec.removesuffix("@sms.invalid"),
                    display_name(file.read_bytes()),
                    mail["Subject"],
                    mail.get_body(("plain",)).get_content().replace("\r\n", "\n"),
                    html.get_content().replace("\r\n", "\n") if html else None,
                    dict(mail.items()),
                )
            )
        return found

    return Far(LocalInbox(settings), accepted, carries=("email", "sms"))


@pytest.fixture
def sendgrid(running_sendgrid, settings, monkeypatch) -> Iterator[Far]:
    stand_in = running_sendgrid
    stand_in.reset()
    monkeypatch.setattr(sendgrid_module, "TIMEOUT", httpx.Timeout(1.0))
    live = settings.model_copy(update={"sendgrid_url": stand_in.url, "sendgrid_api_key": _secret(SECRETS[0])})
    waits: list[float] = []

    def accepted() -> list[Seen]:
        return [
            Seen(
                one["to"][0]["email"],
                one["to"][0].get("name"),
                one["subject"],
                one["seen"]["text/plain"],
                one["seen"]["text/html"],
                one["headers"],
            )
            for one in stand_in.accepted
        ]

    def behave(*calls: str | None) -> None:
        wrong_key = live.model_copy(update={"sendgrid_api_key": _secret("SG.wrong")})
        if calls == ("refuse all",):
            far.channel = SendGrid(wrong_key, sleep=waits.append)
        else:
            stand_in.behave(*calls)

    far = Far(
        SendGrid(live, sleep=waits.append),
        accepted,
        behave,
        waits=waits,
        nowhere=lambda: SendGrid(
            live.model_copy(update={"sendgrid_url": f"http://127.0.0.1:{_closed_port()}"}), sleep=waits.append
        ),
    )
    yield far
    far.channel.close()


@pytest.fixture
def smtp(settings) -> Iterator[Far]:
    relay = Relay()
    live = settings.model_copy(update={"smtp_host": "127.0.0.1", "smtp_port": relay.port, "smtp_security": "none"})
    waits: list[float] = []

    def nowhere() -> Channel:
        return Smtp(live.model_copy(update={"smtp_port": _closed_port()}), 1.0, waits.append)

    yield Far(
        Smtp(live, 1.0, waits.append),
        lambda: relay.accepted,
        relay.behave,
        refused="nobody@example.com",
        waits=waits,
        nowhere=nowhere,
    )
    relay.close()


@pytest.fixture
def twilio(contracts, settings, monkeypatch) -> Iterator[Far]:
    stand_in = TwilioStandIn(contracts)
    monkeypatch.setattr(twilio_module, "TIMEOUT", httpx.Timeout(1.0))
    live = settings.model_copy(
        update={
            "twilio_url": stand_in.url,
            "twilio_account_sid": stand_in.ACCOUNT,
            "twilio_auth_token": _secret(stand_in.TOKEN),
            "twilio_from": stand_in.SENDER,
            "base_url": "https://shop.example.org",
        }
    )
    waits: list[float] = []
    channel = Twilio(live, sleep=waits.append)
    yield Far(
        channel,
        lambda: stand_in.accepted,
        stand_in.behave,
        refused="+15005550004",
        carries=("sms",),
        waits=waits,
        nowhere=lambda: Twilio(
            live.model_copy(update={"twilio_url": f"http://127.0.0.1:{_closed_port()}"}), sleep=waits.append
        ),
    )
    stand_in.close()
    channel.close()


@pytest.fixture
def webhook(settings, monkeypatch) -> Iterator[Far]:
    receiver = Receiver()
    monkeypatch.setattr(webhook_module, "TIMEOUT", httpx.Timeout(1.0))
    live = settings.model_copy(update={"webhook_url": receiver.url, "webhook_secret": _secret(receiver.SECRET)})
    waits: list[float] = []
    channel = Webhook(live, sleep=waits.append)
    yield Far(
        channel,
        lambda: receiver.accepted,
        receiver.behave,
        refused="nobody@example.com",
        carries=("email", "sms"),
        waits=waits,
        nowhere=lambda: Webhook(
            live.model_copy(update={"webhook_url": f"http://127.0.0.1:{_closed_port()}"}), sleep=waits.append
        ),
    )
    receiver.close()
    channel.close()


def _secret(value: str):
    return Settings(_env_file=None, secret_key=value).secret_key


#: Fixture of each channel, in this module.
CHANNELS = ("inbox", "sendgrid", "smtp", "twilio", "webhook")


@pytest.fixture(params=CHANNELS)
def far(request) -> Far:
    return request.getfixturevalue(request.param)


@pytest.fixture
def told(far) -> Far:
    """Of the channels whose far side is elsewhere."""
    if far.behave is None:
        pytest.skip("its far side is the file system")
    return far


def message(far: Far, n: int, **more) -> Envelope:
    """A message that the channel carries."""
    if "email" in far.carries:
        return envelope(n, **more)
    return envelope(n, **{"channel": "sms", "to": f"+4477009{n:05}", "html": "", **more})


def states(outcomes) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_a_channel_says_what_it_is(far):
    assert far.channel.name
    assert 1 <= far.channel.batch_size <= 1000
    assert far.channel.calls_at_once >= 1


def test_every_message_arrives_once_as_it_was_written_and_has_one_outcome_in_order(far):
    batch = [message(far, n) for n in range(1, 31)]
    outcomes = far.channel.send(batch)
    assert states(outcomes) == ["sent"] * 30
    arrived = {seen.to: seen for seen in far.accepted()}
    assert len(far.accepted()) == 30
    for sent in batch:
        seen = arrived[sent.to]
        assert seen.text.strip() == sent.text.strip()
        if sent.channel == "email":
            assert (seen.to_name, seen.subject) == (sent.to_name, sent.subject)
            assert seen.html.strip() == sent.html.strip()


def test_marketing_mail_has_its_unsubscribe_headers(far):
    if "email" not in far.carries:
        pytest.skip("it carries no e-mail")
    far.channel.send([message(far, 1)])
    (seen,) = far.accepted()
    assert seen.headers["List-Unsubscribe"] == "<http://localhost:8025/u/1>"
    assert seen.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_what_leaves_the_machine_does_not_say_why_a_person_was_chosen(told):
    told.channel.send([message(told, 1)])
    (seen,) = told.accepted()
    assert "churn" not in str(seen)
    assert "c000001" not in str(seen).replace("c000001@example.com", "")


def test_a_channel_with_nothing_to_send_sends_nothing(far):
    assert list(far.channel.send([])) == []
    assert far.accepted() == []


def test_a_channel_refuses_the_kind_it_does_not_carry(far):
    kinds = {"email": envelope(1), "sms": envelope(2, channel="sms", to="+447700900123", html="")}
    for kind, one in kinds.items():
        (outcome,) = far.channel.send([one])
        assert outcome.state == ("sent" if kind in far.carries else "failed")


def test_a_person_whom_the_far_side_refuses_fails_alone_and_is_not_named(told):
    if told.refused is None:
        pytest.skip("its far side refuses no person that we do not")
    batch = [message(told, 1), message(told, 2, to=told.refused), message(told, 3)]
    outcomes = told.channel.send(batch)
    assert states(outcomes) == ["sent", "failed", "sent"]
    assert told.refused not in outcomes[1].reason
    assert outcomes[1].reason
    assert sorted(seen.to for seen in told.accepted()) == sorted([batch[0].to, batch[2].to])


def test_a_rate_limit_is_waited_for_and_nothing_is_sent_twice(told):
    told.behave("rate limit", "rate limit")
    assert states(told.channel.send([message(told, 1)])) == ["sent"]
    assert len(told.waits) >= 2
    assert len(told.accepted()) == 1


def test_where_the_far_side_takes_nobody_now_the_messages_are_put_back(told):
    told.behave("refuse all")
    (outcome,) = told.channel.send([message(told, 1)])
    assert outcome.state == "deferred"
    assert outcome.reason
    assert told.accepted() == []


def test_where_the_far_side_is_not_there_the_messages_are_put_back(told):
    channel = told.nowhere()
    outcomes = channel.send([message(told, n) for n in range(1, 4)])
    channel.close()
    assert states(outcomes) == ["deferred"] * 3
    assert "cannot be reached" in outcomes[0].reason


@pytest.mark.parametrize("how", ["drop after", "hang after", "garbage after"])
def test_an_answer_that_is_lost_leaves_a_message_unknown_and_is_not_asked_again(told, how):
    told.behave(how)
    (outcome,) = told.channel.send([message(told, 1)])
    assert outcome.state == "unknown"
    assert outcome.reason
    assert len(told.accepted()) == 1
    assert states(told.channel.send([message(told, 2)])) == ["sent"], "the channel goes on"


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_its_calls_nobody_gets_a_message_twice_and_no_outcome_lies(told, seed):
    chance = random.Random(seed)
    happenings = [None, "rate limit", "drop before", "drop after", "garbage after", "error after"]
    waiting = {n: message(told, n) for n in range(1, 31)}
    final: dict[int, str] = {}
    for _ in range(100):
        batch = list(waiting.values())[: chance.randint(1, 8)]
        if not batch:
            break
        told.behave(*chance.choices(happenings, k=chance.randint(0, 4)))
        for one, outcome in zip(batch, told.channel.send(batch), strict=True):
            if outcome.state != "deferred":  # what is put back is sent by the next run
                final[one.message_id] = outcome.state
                del waiting[one.message_id]
    assert not waiting
    accepted = Counter(seen.to for seen in told.accepted())
    times = {n: accepted[message(told, n).to] for n in final}
    assert max(accepted.values()) == 1, "nobody gets it twice"
    assert {times[n] for n, state in final.items() if state == "sent"} == {1}, "sent is sent"
    assert {times[n] for n, state in final.items() if state == "failed"} <= {0}
    assert sum(times.values()) == sum(accepted.values())


def test_what_died_in_the_middle_is_not_called_failed(far):
    assert far.channel.recall(message(far, 1).reference).state in ("unknown", "deferred")


def test_a_channel_can_be_closed_more_than_once(far):
    far.channel.close()
    far.channel.close()


def test_no_secret_and_no_address_is_logged(far, caplog):
    caplog.set_level(logging.DEBUG)
    far.channel.send([message(far, 1), message(far, 2, to="nobody at all")])
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name != "mail.log"
    )  # that is the relay's
    assert not [secret for secret in SECRETS if secret in ours]
    assert message(far, 1).to not in ours


NAME = "Ana 'the \"Ă\"' 🎉 <b>{{ 7 }}</b>"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"to": ""}, "the address is not valid"),
        ({"to": "no address"}, "the address is not valid"),
        ({"to": "two@at@example.com"}, "the address is not valid"),
        ({"to": "a@nowhere"}, "the address is not valid"),
        ({"to": ".a@example.com"}, "the address is not valid"),
        ({"to": "a..b@example.com"}, "the address is not valid"),
        ({"to": "a@example..com"}, "the address is not valid"),
        ({"to": "a@-example.com"}, "the address is not valid"),
        ({"to": "ž@example.com"}, "the address is not valid"),
        ({"to": "a@example.com\r\nBcc: all@example.com"}, "the address is not valid"),
        ({"to": "a@example.com, b@example.com"}, "the address is not valid"),
        ({"to": "Ana <a@example.com>"}, "the address is not valid"),
        ({"to": "a" * 65 + "@example.com"}, "the address is not valid"),
        ({"to": "a@" + "b" * 60 + ".example" * 30 + ".com"}, "the address is not valid"),
        ({"to": "0044 7700 900123"}, "the address is not valid"),
        ({"to": "+0123456789"}, "the address is not valid"),
        ({"to_name": "half \ud83c"}, "half a character"),
        ({"text": " \n"}, "empty"),
        ({"text": "x" * 40_000_000}, "40,000,"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_message_that_cannot_be_sent_is_refused_with_its_reason_and_the_others_go(far, more, reason):
    outcomes = far.channel.send([message(far, 1), message(far, 2, **more), message(far, 3)])
    assert states(outcomes) == ["sent", "failed", "sent"]
    assert reason in outcomes[1].reason
    assert "@" not in outcomes[1].reason
    assert len(far.accepted()) == 2


def test_a_body_of_40_mb_is_refused_and_the_others_go(far):
    if "email" not in far.carries:
        pytest.skip("it carries no e-mail")
    outcomes = far.channel.send([message(far, 1), message(far, 2, html="<p>ăîș</p>" * 3_200_000), message(far, 3)])
    assert states(outcomes) == ["sent", "failed", "sent"]
    assert outcomes[1].reason.startswith("the message has 4")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 300, "x" * 100),
        ("word " * 60, ("word " * 20).strip()),
        ("🎉" * 300, "🎉" * 100),
        (NAME, NAME),
        ("Ana\r\nBcc: all@example.com", "Ana Bcc: all@example.com"),
        ("Ana\nSubject: won", "Ana Subject: won"),
        ("=?utf-8?b?QmNj?=", "=?utf-8?b?QmNj?="),
        ('", <all@example.com>, "', '", <all@example.com>, "'),
        ("", None),
        ("\x00\x07", None),
    ],
    ids=range(10),
)
def test_no_name_breaks_a_message_or_adds_a_recipient_or_a_header(far, name, shown):
    if "email" not in far.carries:
        pytest.skip("it carries no names")
    plain, odd = message(far, 1), message(far, 2, to_name=name)
    assert states(far.channel.send([plain, odd])) == ["sent", "sent"]
    by_address = {seen.to: seen for seen in far.accepted()}
    assert by_address.keys() == {plain.to, odd.to}
    assert by_address[odd.to].to_name == shown
    assert by_address[odd.to].headers.keys() == by_address[plain.to].headers.keys()


@pytest.mark.parametrize(
    "subject",
    ["won\r\nBcc: all@example.com", "won\nContent-Type: text/evil", "s" * 998, "🎉" * 300, "=?utf-8?q?x?=", NAME],
    ids=range(6),
)
def test_no_subject_breaks_a_message_or_adds_a_header(far, subject):
    if "email" not in far.carries:
        pytest.skip("it has no subjects")
    plain, odd = message(far, 1), message(far, 2, subject=subject)
    assert states(far.channel.send([plain, odd])) == ["sent", "sent"]
    by_address = {seen.to: seen for seen in far.accepted()}
    assert by_address[odd.to].subject == one_line(subject)
    assert by_address[odd.to].headers.keys() == by_address[plain.to].headers.keys()


@pytest.mark.parametrize(
    "text",
    ["line\n.\nQUIT\n..two\n", "a" * 1500, "🎉ăș" * 200, "tab\tand  spaces", "=3D =\nx", "--=_boundary\n", "From me\n"],
    ids=range(7),
)
def test_a_text_arrives_as_it_was_written_whatever_is_in_it(far, text):
    assert states(far.channel.send([message(far, 1, text=text)])) == ["sent"]
    assert [seen.text.strip() for seen in far.accepted()] == [text.strip()]
