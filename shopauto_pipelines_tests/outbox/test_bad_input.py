"""Bad input on the whole way from the lake to the far side: what cannot be sent is refused with its reason, the others go."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features import tables as features
from shopauto_pipelines.outbox.assets import _complaints
from shopauto_pipelines.outbox.channels.choice import ByKind
from shopauto_pipelines.outbox.channels.smtp import Smtp
from shopauto_pipelines.outbox.channels.twilio import Twilio
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.outbox.schema import messages
from shopauto_pipelines.platform.playbook import PLAYBOOK
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.outbox.conftest import DAY
from shopauto_pipelines_tests.outbox.far_sides import Relay, TwilioStandIn
from shopauto_pipelines_tests.outbox.shop import fill

STEP = {"step": "hello", "channel": "email", "template": "hello"}

#: Customers whose data is as bad as it gets, each with what becomes of the message.
PEOPLE = [
    ({"customer_id": "plain"}, "sent", None),
    ({"customer_id": "no-address", "email": "not an address"}, "failed", "the address is not valid"),
    ({"customer_id": "two", "email": "a@example.com,b@example.com"}, "failed", "the address is not valid"),
    ({"customer_id": "injects", "email": "a@example.com\r\nBcc: b@example.com"}, "failed", "the address is not valid"),
    ({"customer_id": "unknown", "email": "nobody@example.com"}, "failed", "the relay answered 550 5.1.1"),
    ({"customer_id": "none", "email": None}, "suppressed", "no_address"),
    ({"customer_id": "long", "first_name": "x" * 300, "last_name": "y" * 300}, "sent", None),
    ({"customer_id": "emoji", "first_name": "🎉 Žana", "last_name": "李"}, "sent", None),
    ({"customer_id": "header", "first_name": "Ana\r\nBcc: all@example.com"}, "sent", None),
    ({"customer_id": "markup", "first_name": "<script>{{ shop.name }}</script>"}, "sent", None),
    ({"customer_id": "variable", "first_name": "Missing"}, "failed", "hello.txt.j2:8: 'discount' is undefined"),
    ({"customer_id": "divides", "first_name": "Divides"}, "failed", "hello.txt.j2:8: ZeroDivisionError"),
    ({"customer_id": "large", "first_name": "Large"}, "failed", "the message has 40,"),
    ({"customer_id": "last"}, "sent", None),
]

#: What load cannot know: it fails for some people only.
TEMPLATE = (
    "{% if person.first_name == 'Missing' %}{{ discount }}{% elif person.first_name == 'Divides' %}{{ 1 / 0 }}"
    "{% elif person.first_name == 'Large' %}{% for n in range(80000) %}{{ 'word ' * 100 }}{% endfor %}{% endif %}"
)


@pytest.fixture
def welcome(tmp_path):
    playbook = shutil.copytree(PLAYBOOK, tmp_path / "defs")
    template = playbook / "campaigns/welcome/hello.txt.j2"
    template.write_text(template.read_text().replace("{{ text.intro }}", TEMPLATE))
    return load_campaigns(playbook)["welcome"]


@pytest.fixture
def relay():
    made = Relay()
    yield made
    made.close()


def _write(lake, campaign: str, people: list[dict], steps: list[dict]) -> None:
    for table in (raw.ORDERS, features.DAILY_PRODUCTS, raw.PRODUCTS):
        fill(lake, table, DAY, [])
    fill(lake, features.CUSTOMER_FEATURES, DAY, [{"customer_id": person["customer_id"]} for person in people])
    fill(lake, profiles.CUSTOMERS, DAY, [{"shop_ids": 1, **person} for person in people])
    decided = {
        "occasion": str(DAY),
        "triggered_on": DAY,
        "due_on": DAY,
        "decision": "planned",
        "reason": "due",
        "language": "en",
        "explanation": json.dumps({"trigger": "signed_up"}),
    }
    due = [{**decided, **step, "customer_id": person["customer_id"]} for step in steps for person in people]
    fill(lake, audience(campaign), DAY, due)


def _found(engine) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason by step and customer."""
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(messages.c.step, messages.c.customer_id, messages.c.state, messages.c.reason)
        )
        return {(row.step, row.customer_id): (row.state, row.reason) for row in rows}


def test_what_cannot_be_sent_is_refused_with_its_reason_and_the_others_go(
    engine, lake, settings, clock, welcome, relay
):
    people = [{"email": f"{p['customer_id']}@example.com", "first_name": "Ana", **p} for p, _, _ in PEOPLE]
    _write(lake, "welcome", sorted(people, key=lambda p: p["customer_id"]), [STEP])
    live = settings.model_copy(update={"smtp_host": "127.0.0.1", "smtp_port": relay.port, "smtp_security": "none"})
    dispatch(engine, lake, live, welcome, DAY, clock=clock, channel=Smtp(live))
    found = _found(engine)
    for person, state, reason in PEOPLE:
        became, why = found["hello", person["customer_id"]]
        assert became == state, person
        assert (reason or "") in (why or ""), person
        assert "@" not in (why or "")
    by_address = {seen.to: seen for seen in relay.accepted}
    assert len(relay.accepted) == len(by_address) == sum(state == "sent" for _, state, _ in PEOPLE)
    assert by_address["long@example.com"].to_name == "x" * 100
    assert by_address["emoji@example.com"].to_name == "🎉 Žana 李"
    assert by_address["header@example.com"].headers.keys() == by_address["plain@example.com"].headers.keys()
    assert "<script" not in by_address["markup@example.com"].html
    assert "{{ shop.name }}" in by_address["markup@example.com"].html


@pytest.fixture
def texting(tmp_path):
    """The welcome with an SMS beside its e-mail."""
    playbook = shutil.copytree(PLAYBOOK, tmp_path / "defs")
    folder = playbook / "campaigns/welcome"
    declared = folder / "defs.yaml"
    step = "    - {name: text, wait_days: 0, channel: sms, template: text, languages: [en]}\n"
    declared.write_text(declared.read_text().replace("  steps:\n", f"  steps:\n{step}"))
    (folder / "texts/en.yaml").write_text((folder / "texts/en.yaml").read_text() + "text: {hi: Welcome}\n")
    (folder / "text.sms.j2").write_text(
        "{% extends 'layout.sms.j2' %}{% block content %}{{ text.hi }}, {{ person.first_name or '' }}!{% endblock %}"
    )
    return load_campaigns(playbook)["welcome"]


@pytest.fixture
def twilio():
    made = TwilioStandIn(None)
    yield made
    made.close()


def _live(home, relay: Relay, twilio: TwilioStandIn, **more) -> Settings:
    usual = {
        "cap_day_messages": 2,
        "smtp_host": "127.0.0.1",
        "smtp_port": relay.port,
        "smtp_security": "none",
        "twilio_url": twilio.url,
        "twilio_account_sid": twilio.ACCOUNT,
        "twilio_auth_token": twilio.TOKEN,
        "twilio_from": twilio.SENDER,
    }
    return Settings(_env_file=None, home=home, **usual | more)


SMS = {"step": "text", "channel": "sms", "template": "text"}


def test_a_relay_that_is_not_there_stops_the_dispatch_also_where_an_address_is_not_valid(engine, lake, clock, tmp_path):
    people = [{"customer_id": n, "email": f"{n}@example.com" if n != "b" else "nobody"} for n in "abc"]
    _write(lake, "welcome", people, [STEP])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = Settings(_env_file=None, home=tmp_path, smtp_host="127.0.0.1", smtp_port=free.getsockname()[1])
    channel = Smtp(gone, sleep=lambda _: None)
    result = dispatch(engine, lake, gone, load_campaigns(PLAYBOOK)["welcome"], DAY, clock=clock, channel=channel)
    assert (result.count("failed"), result.count("planned")) == (1, 2)
    assert "the relay cannot be reached" in result.work.stopped


def test_e_mail_leaves_while_all_sms_are_put_off_and_the_dispatch_says_so(
    engine, lake, clock, tmp_path, relay, twilio, texting
):
    people = [
        {"customer_id": n, "email": f"{n}@example.com", "phone": f"+44770090000{k}"} for k, n in enumerate("abc", 1)
    ]
    _write(lake, "welcome", people, [STEP, SMS])
    live = _live(tmp_path, relay, twilio, twilio_auth_token="wrong")
    channel = ByKind(Smtp(live), Twilio(live))
    result = dispatch(engine, lake, live, texting, DAY, clock=clock, channel=channel)
    channel.close()
    assert (result.sent, result.count("planned"), result.work.stopped) == (3, 3, None)
    (told,) = _complaints(result, "welcome", DAY)
    assert "put off while the others left: 3 sms: Twilio answered 401, error 20003: check SHOPAUTO_TWILIO_…" in told


def test_e_mail_and_sms_of_one_campaign_leave_by_their_own_channels(
    engine, lake, clock, tmp_path, relay, twilio, texting
):
    live = _live(tmp_path, relay, twilio)
    people = [
        {"customer_id": "a", "first_name": "Ana", "email": "a@example.com", "phone": "+447700900001"},
        {"customer_id": "b", "first_name": "Bo", "email": "b@example.com", "phone": "07700 900002"},
        {"customer_id": "c", "first_name": "Cy", "email": "c@example.com", "phone": "+15005550004"},
        {"customer_id": "d", "first_name": "Di", "email": "d@example.com", "phone": None},
        {"customer_id": "e", "first_name": "Ed", "email": "nobody", "phone": "+447700900005"},
    ]
    _write(lake, "welcome", people, [STEP, SMS])
    channel = ByKind(Smtp(live), Twilio(live))
    dispatch(engine, lake, live, texting, DAY, clock=clock, channel=channel)
    channel.close()
    assert _found(engine) == {
        ("hello", "a"): ("sent", None),
        ("hello", "b"): ("sent", None),
        ("hello", "c"): ("sent", None),
        ("hello", "d"): ("sent", None),
        ("hello", "e"): ("failed", "the address is not valid"),
        ("text", "a"): ("sent", None),
        ("text", "b"): ("failed", "the address is not valid"),
        ("text", "c"): ("failed", "Twilio answered 400, error 21610: the person answered STOP"),
        ("text", "d"): ("suppressed", "no_address"),
        ("text", "e"): ("sent", None),
    }
    assert {seen.to: seen.text for seen in twilio.accepted} == {
        "+447700900001": "Sample Shop: Welcome, Ana! Reply STOP to end these messages.",
        "+447700900005": "Sample Shop: Welcome, Ed! Reply STOP to end these messages.",
    }
    assert sorted(seen.to for seen in relay.accepted) == [f"{n}@example.com" for n in "abcd"]
