"""The pages behind the links in a message: who may change what, and what holds for the very next reservation."""

from __future__ import annotations

import re
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shopauto_pipelines.campaigns.content import previews
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.outbox import consents, inbox_page, ledger, links, preference_page, schema
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform import live_settings, postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows
from shopauto_pipelines_tests.outbox.shop import repeated, write_shop

LANGUAGES = {
    "en": "Your preferences",
    "pt-BR": "Suas preferências",
    "ro": "Preferințele",
    "sr-Latn": "Vaša podešavanja",
    "xx": "Your preferences",
}


class Reader:
    """Somebody who got a message and clicks its links."""

    def __init__(self, engine, settings, clock):
        self.engine, self.settings = engine, settings
        self.client = TestClient(Starlette(routes=preference_page.routes(settings, clock)), follow_redirects=False)
        with engine.connect() as connection:
            message = ledger.find(connection, 1)
        self.token = links.unsubscribe_token(settings.hash_key, message.id, message.key)

    def later(self, **more):
        """The same reader, some time later."""
        return Reader(self.engine, self.settings, FixedClock(AT + timedelta(**more)))

    def page(self):
        """What the preference page shows as ticked."""
        text = self.client.get(f"/p/{self.token}").text
        return set(re.findall(r'value="(\w+)" checked', text))

    def send(self, *channels, topics=("news", "offers"), often="usual", **more):
        asked = [*(("channel", c) for c in channels), *(("topic", t) for t in topics), ("often", often), *more.items()]
        return self.client.post(
            f"/p/{self.token}", content=urlencode(asked), headers={"Content-Type": "application/x-www-form-urlencoded"}
        )

    def next_message(self, **more):
        """State and reason of the next message to the reader, once it was tried to reserve it."""
        with self.engine.begin() as connection:
            number = connection.execute(sa.select(sa.func.count()).select_from(schema.messages)).scalar_one()
            planned = [row | more for row in rows(1, key=self.settings.hash_key, occasion=f"later {number}")]
            ledger.plan(connection, planned, run_id=None, at=AT)
            reserve(connection, cap=ledger.Cap(99, 7), at=AT + timedelta(days=1))
            newest = sa.select(schema.messages).order_by(schema.messages.c.id.desc()).limit(1)
            row = connection.execute(newest).one()
        return row.state, row.reason


@pytest.fixture
def reader(engine, settings, clock, monkeypatch):
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    monkeypatch.setattr(preference_page, "topics", lambda: ("news", "offers"))
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, key=settings.hash_key), run_id=None, at=AT)
    return Reader(engine, settings, clock)


def kept(engine):
    """Every choice, suppression, exit and event, without row numbers."""
    tables = (schema.consents, schema.suppressions, schema.exits, schema.provider_events)
    with engine.connect() as connection:
        return [
            sorted(map(repr, connection.execute(sa.select(*(c for c in table.columns if c.name != "id")))))
            for table in tables
        ]


def test_a_get_changes_nothing_and_a_post_unsubscribes_without_a_login(reader, engine):
    before = kept(engine)
    for path in ("u", "p"):
        assert reader.client.get(f"/{path}/{reader.token}").status_code == 200
        assert reader.client.head(f"/{path}/{reader.token}").status_code == 200
    assert kept(engine) == before
    assert reader.next_message()[0] == "reserved"
    done = reader.client.post(f"/u/{reader.token}", data={"List-Unsubscribe": "One-Click"})
    assert done.status_code == 200
    assert "You are unsubscribed" in done.text
    assert "set-cookie" not in done.headers
    assert reader.next_message() == ("suppressed", "suppressed_unsubscribe")


def test_unsubscribing_again_changes_nothing(reader, engine):
    reader.client.post(f"/u/{reader.token}")
    once = kept(engine)
    assert [len(rows) for rows in once] == [1, 1, 1, 1]
    assert reader.later(hours=1).client.post(f"/u/{reader.token}").status_code == 200
    assert kept(engine) == once


def test_the_unsubscribe_is_an_event_of_the_message(reader, engine):
    reader.client.post(f"/u/{reader.token}")
    with engine.connect() as connection:
        row = connection.execute(sa.select(schema.provider_events)).one()
    assert (row.message_id, row.type, row.at, row.is_machine) == (1, "unsubscribe", AT, False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[:-2] + "AA",
        lambda t: t[:10] + ("B" if t[10] == "A" else "A") + t[11:],
        lambda t: t[:10],
        lambda t: "%00é",
        lambda t: "A" * len(t),
        lambda t: t + "A",
    ],
)
def test_a_link_that_was_not_signed_here_does_nothing(reader, engine, damage):
    before = kept(engine)
    for path in ("u", "p"):
        address = f"/{path}/{damage(reader.token)}"
        for answer in (reader.client.get(address), reader.client.post(address, data={"often": "usual"})):
            assert answer.status_code == 404
            assert "This link does not work" in answer.text
    assert kept(engine) == before


def test_the_token_of_another_message_is_another_token(reader, engine, settings):
    key = ledger.MessageKey("welcome", "hello", "c000000", "another")
    assert links.unsubscribe_token(settings.hash_key, 1, key) != reader.token
    assert not links.token_is_genuine(b"another key", reader.token, 1, key)


def test_the_page_shows_what_holds(reader):
    assert reader.page() == {"email", "usual", "news", "offers"}
    reader.send("email", topics=["offers"], often="less")
    assert reader.page() == {"email", "less", "offers"}
    reader.later(hours=1).send(topics=["offers"])
    assert reader.page() == {"usual", "offers"}


def test_saving_answers_with_a_page_that_says_so(reader):
    answer = reader.send("email")
    assert (answer.status_code, answer.headers["location"]) == (303, "?saved")
    assert "Saved." in reader.client.get(f"/p/{reader.token}?saved").text


def test_saving_what_holds_already_writes_nothing(reader, engine):
    before = kept(engine)
    assert reader.send("email").status_code == 303
    assert kept(engine) == before


def test_a_topic_that_is_not_wanted_does_not_come_and_the_others_do(reader):
    reader.send("email", topics=["offers"])
    assert reader.next_message(topic="news") == ("suppressed", "opted_out")
    assert reader.next_message(topic="offers") == ("reserved", None)
    reader.later(hours=1).send("email")
    assert reader.next_message(topic="news") == ("reserved", None)


def test_less_often_is_one_message_in_the_days_of_the_setting(reader):
    assert reader.next_message() == ("reserved", None)
    reader.send("email", often="less")
    assert reader.next_message() == ("suppressed", "less_often")
    reader.later(hours=1).send("email")
    assert reader.next_message() == ("reserved", None)


def test_who_comes_back_gets_messages_again(reader, engine):
    reader.client.post(f"/u/{reader.token}")
    assert reader.page() == {"usual", "news", "offers"}
    later = reader.later(hours=1)
    later.send("email")
    assert reader.page() == {"email", "usual", "news", "offers"}
    assert reader.next_message() == ("reserved", None)
    later.later(hours=2).send(stop="all")
    assert reader.next_message() == ("suppressed", "suppressed_unsubscribe")


def test_what_a_reader_says_counts_though_the_clock_was_ahead_when_they_said_something_else(reader):
    reader.send("email", topics=["offers"], often="less")
    reader.send("email")
    behind = reader.later(minutes=-2)
    behind.send("email", topics=["offers"])
    assert reader.next_message() == ("suppressed", "opted_out"), "the topic is news"
    behind.client.post(f"/u/{reader.token}")
    assert reader.next_message() == ("suppressed", "suppressed_unsubscribe")
    assert behind.page() == {"usual", "offers"}
    behind.send("email")
    assert reader.next_message() == ("reserved", None)
    reader.later(minutes=-1).send(stop="all")
    assert reader.next_message() == ("suppressed", "suppressed_unsubscribe")


@pytest.mark.parametrize(("set_to", "days"), [("45", 45), ("seldom", 30)], ids=["changed", "unreadable"])
def test_less_often_is_promised_as_it_is_in_force_and_an_operators_mistake_keeps_nobody_waiting(
    reader, engine, set_to, days
):
    with engine.begin() as connection:
        row = {"name": "less_often_days", "value": set_to, "by": "Eva", "at": AT}
        connection.execute(sa.insert(live_settings.table).values(row))
    assert f"one message in {days} days" in reader.client.get(f"/p/{reader.token}").text
    reader.send("email", often="less")
    with engine.connect() as connection:
        assert f"one message in {days} days" in connection.execute(sa.select(schema.consents.c.wording)).scalar_one()


def test_every_choice_is_kept_with_its_source_wording_and_time(reader, engine):
    reader.send("email", often="less")
    with engine.connect() as connection:
        row = connection.execute(sa.select(schema.consents)).one()
    assert (row.topic, row.choice, row.source, row.at, row.message_id) == ("*", "less_often", "preference_page", AT, 1)
    assert row.wording == "E-mail: Less often: at most one message in 30 days"
    reader.later(hours=1).send("email", topics=["offers"], often="less")
    reader.later(hours=2).send(stop="all")
    with engine.connect() as connection:
        wanted = sa.select(schema.consents.c.topic, schema.consents.c.choice, schema.consents.c.wording)
        rows = connection.execute(wanted.order_by(schema.consents.c.id)).all()
    assert rows[1:] == [
        ("news", "opted_out", "E-mail: News and ideas"),
        ("*", "opted_out", "Unsubscribe from everything"),
    ]


def test_who_unsubscribes_while_nothing_could_go_there_is_unsubscribed_once_the_bounce_is_mended(
    reader, engine, settings
):
    hashed = links.address_hash(settings.hash_key, "email", "c000000@example.com")
    with engine.begin() as connection:
        consents.suppress(connection, hashed, "email", "bounce", at=AT)
    reader.client.post(f"/u/{reader.token}")
    reader.send(stop="all")
    assert [len(rows) for rows in kept(engine)] == [1, 1, 1, 1]
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.suppressions))
    assert reader.next_message() == ("suppressed", "opted_out")


@pytest.mark.parametrize("reason", ["bounce", "spam_report", "import"])
def test_what_the_person_cannot_take_back_stays(reader, engine, settings, reason):
    hashed = links.address_hash(settings.hash_key, "email", "c000000@example.com")
    with engine.begin() as connection:
        consents.suppress(connection, hashed, "email", "unsubscribe", at=AT)
        consents.suppress(connection, hashed, "email", reason, at=AT)
    text = reader.client.get(f"/p/{reader.token}").text
    assert "disabled" in text
    before = kept(engine)
    reader.send("email", often="less")
    assert kept(engine) == before
    assert reader.next_message() == ("suppressed", f"suppressed_{reason}")


def test_the_page_shows_every_channel_on_which_the_shop_knows_an_address(reader, engine, settings):
    number = links.address_hash(settings.hash_key, "sms", "+447700900123")
    with engine.begin() as connection:
        sms = {"channel": "sms", "address_hash": number, "occasion": "sms"}
        ledger.plan(connection, rows(1, key=settings.hash_key, **sms), run_id=None, at=AT)
    assert reader.page() >= {"email", "sms"}
    reader.send("email")
    assert reader.page() >= {"email"}
    assert "sms" not in reader.page()
    assert reader.next_message(channel="sms", address_hash=number) == ("suppressed", "suppressed_unsubscribe")
    assert reader.next_message() == ("reserved", None)
    with engine.connect() as connection:  # an SMS opt-out is no event of the e-mail whose link it was
        assert connection.execute(sa.select(schema.provider_events)).all() == []


def test_who_saves_what_is_shown_takes_back_nothing_that_was_refused_before_another_channel_was_known(
    reader, engine, settings
):
    reader.send("email", topics=["news"])
    phone = links.address_hash(settings.hash_key, "sms", "+447700900123")
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, channel="sms", address_hash=phone, occasion="sms"), run_id=None, at=AT)
    assert reader.page() == {"email", "sms", "usual", "news"}
    reader.later(hours=1).send("email", "sms", topics=["news"], often="less")
    with engine.connect() as connection:
        told = {name: consents.choices(connection, address, name)["offers"] for name, address in (
            ("email", links.address_hash(settings.hash_key, "email", "c000000@example.com")), ("sms", phone)
        )}  # fmt: skip
    assert told == {"email": "opted_out", "sms": "opted_out"}


@pytest.mark.parametrize(("language", "title"), LANGUAGES.items())
def test_the_pages_speak_the_language_of_the_message(engine, settings, clock, monkeypatch, language, title):
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, key=settings.hash_key, language=language), run_id=None, at=AT)
    reader = Reader(engine, settings, clock)
    page = reader.client.get(f"/p/{reader.token}").text
    assert title in page
    assert f'<html lang="{language if language != "xx" else "en"}">' in page
    for answer in (reader.client.get(f"/u/{reader.token}"), reader.client.post(f"/u/{reader.token}")):
        assert settings.shop_name in answer.text
        assert "{" not in re.sub(r"<style>.*</style>", "", answer.text, flags=re.DOTALL)


def test_no_page_needs_a_script_or_lets_one_run_or_says_who_it_is_for(reader):
    for path in (f"/u/{reader.token}", f"/p/{reader.token}", "/p/wrong"):
        answer = reader.client.get(path)
        assert "<script" not in answer.text
        assert "c000000" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "body", [b"", b"x" * 20_000, b"\xff\xfe", b"often=less&" + b"topic=t&" * 200, b"channel=email"]
)
def test_what_is_not_the_pages_form_is_a_bad_request_and_opts_nobody_out(reader, engine, body):
    before = kept(engine)
    assert reader.client.post(f"/p/{reader.token}", content=body).status_code == 400
    assert kept(engine) == before


def test_a_database_that_is_gone_is_a_page_that_says_try_again_and_no_text_that_names_anybody(
    reader, monkeypatch, caplog
):
    gone = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    monkeypatch.setattr(postgres, "engine", lambda _: gone)
    for answer in (
        reader.client.get(f"/p/{reader.token}"),
        reader.client.post(f"/u/{reader.token}"),
        reader.send("email"),
    ):
        assert answer.status_code == 503
        assert "Nothing was changed" in answer.text
    assert reader.token not in caplog.text


def test_the_playbooks_topics_are_on_the_page(engine, settings, clock, monkeypatch):
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, key=settings.hash_key, as_of=DAY), run_id=None, at=AT)
    assert set(preference_page.topics()) <= Reader(engine, settings, clock).page()
    assert preference_page.topics()


def test_no_link_or_form_says_where_the_pages_are_so_that_a_proxy_may_put_them_anywhere(reader):
    for answer in (reader.client.get(f"/u/{reader.token}"), reader.client.get(f"/p/{reader.token}")):
        assert re.findall(r'(?:action|href)="/', answer.text) == []


@pytest.mark.parametrize("name", load_campaigns())
def test_every_shipped_message_links_to_the_preferences_in_every_language(settings, name):
    campaign = load_campaigns()[name]
    for (name, language), message in previews(campaign, settings).items():
        step = name.partition(" (")[0]  # a variant of it
        if campaign.step(step).channel == "email":
            assert '<a href="https://shop.example/preferences"' in message.html, language
            assert "https://shop.example/preferences" in message.text, language


def test_the_one_click_address_of_a_message_that_was_sent_stops_the_next_one_to_this_person(
    engine, lake, settings, monkeypatch
):
    monkeypatch.setattr(postgres, "engine", lambda _: engine)

    def send(days):
        write_shop(lake, people=2, day=DAY + timedelta(days=days))
        clock = FixedClock(AT + timedelta(days=days))
        return dispatch(
            engine, lake, settings, repeated(), DAY + timedelta(days=days), clock=clock, run_id="run"
        ).states

    assert send(0) == {("sent", ""): 2}
    files = (settings.inbox_path / "messages").glob("*.eml")
    (email,) = (
        email
        for email in (message_from_bytes(path.read_bytes(), policy=default) for path in files)
        if "c000000@example.com" in email["To"]
    )
    assert email["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = email["List-Unsubscribe"].strip("<>")
    assert link.replace("/u/", "/p/") in email.get_body(("plain",)).get_content()
    browser = TestClient(inbox_page.app(settings, FixedClock(AT)), base_url=settings.base_url)
    assert browser.post(link, data={"List-Unsubscribe": "One-Click"}).status_code == 200
    assert send(1) == {("sent", ""): 1, ("suppressed", "suppressed_unsubscribe"): 1}
