"""Large audiences: few calls, few people in memory, and every one of them gets their own message."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from datetime import timedelta
from functools import cache

import pytest

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.products import Showcase
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features import tables as features
from shopauto_pipelines.outbox import controls, links, sending
from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.channels.sendgrid import SendGrid
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.outbox.conftest import AT, DAY
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, start
from shopauto_pipelines_tests.outbox.shop import campaign, fill, write_shop

CONTRACTS = PROJECT_ROOT.parent / "shared" / "contracts"
NEWSLETTER = load_campaigns()["newsletter"]


@pytest.fixture(scope="module")
def running_stand_in():
    with start(CONTRACTS if CONTRACTS.is_dir() else None) as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(running_stand_in):
    running_stand_in.reset()
    return running_stand_in


@pytest.fixture
def live(stand_in, tmp_path) -> Settings:
    return Settings(
        _env_file=None,
        home=tmp_path,
        live=True,
        sendgrid_url=stand_in.url,
        sendgrid_api_key=API_KEY,
        from_email="hello@shop.example.org",
        postal_address="1 Example Road",
        base_url="https://mail.shop.example.org",
        shop_url="https://shop.example.org",
        secret_key="secret",
    )


def _write_readers(lake, people: int, languages: tuple[str, ...]) -> None:
    """A newsletter's readers: with and without a name, favourites in five categories and in none."""
    ids = [f"c{n:06}" for n in range(people)]
    fill(lake, raw.ORDERS, DAY, [])
    goods = [{"product_id": f"p{n:02}", "category": f"Category {n % 5}", "price_cents": 900 + n} for n in range(20)]
    about = {
        "changed_at": AT.replace(tzinfo=None) - timedelta(days=9),
        "source": "shop",
        "source_file": "f",
        "source_row": 1,
    }
    fill(lake, raw.PRODUCTS, DAY, [{**row, **about, "name": f"Cup & saucer {row['product_id']}"} for row in goods])
    sold = [
        {"shop_customer_id": "c0", "product_id": row["product_id"], "category": row["category"], "orders": 1}
        for row in goods
    ]
    fill(lake, features.DAILY_PRODUCTS, DAY, sold)
    favourites = [{"customer_id": n, "favourite_category": f"Category {count % 7}"} for count, n in enumerate(ids)]
    fill(lake, features.CUSTOMER_FEATURES, DAY, favourites)
    names = ("Ana", "Žofia <3", None, 'O"Neill', "Bob & Söhne")
    customers = [
        {"customer_id": n, "email": f"{n}@example.com", "first_name": names[k % 5], "shop_ids": 1}
        for k, n in enumerate(ids)
    ]
    fill(lake, profiles.CUSTOMERS, DAY, customers)
    planned = [
        {
            "step": "issue",
            "customer_id": n,
            "occasion": "2026-01",
            "triggered_on": DAY,
            "due_on": DAY,
            "decision": "planned",
            "reason": "due",
            "channel": "email",
            "template": "letter",
            "language": languages[count % len(languages)],
            "explanation": json.dumps({"trigger": "broadcast"}),
        }
        for count, n in enumerate(ids)
    ]
    fill(lake, audience("newsletter"), DAY, planned)


@pytest.mark.parametrize(("languages", "calls"), [(("en",), 3), (("en", "pt-BR", "sr-Latn", "ro"), 6)])
def test_2500_readers_are_3_calls_and_a_few_more_where_they_read_several_languages(
    engine, lake, live, stand_in, languages, calls
):
    _write_readers(lake, 2500, languages)
    result = dispatch(engine, lake, live, NEWSLETTER, DAY, clock=FixedClock(AT))
    assert (result.sent, result.states) == (2500, {("sent", ""): 2500})
    assert stand_in.calls == calls
    assert sorted(stand_in.message_ids) == list(range(1, 2501))

    # whose facts are alike has the same message but for the token
    renderer, showcase = sending.Renderer(NEWSLETTER, live), Showcase.read(lake, DAY)
    people = {row["customer_id"]: row for row in lake.con.to_pyarrow(lake.on(profiles.CUSTOMERS, DAY)).to_pylist()}

    @cache
    def truth(name: int, category: int, language: str):
        urls = {kind: f"{live.base_url}/{kind[0]}/TOKEN" for kind in ("unsubscribe", "preferences")}
        goods = renderer.goods(showcase.of(f"Category {category}"), language)
        return renderer.render("issue", language, people[f"c{name:06}"], urls, goods)

    seen = Counter()
    for got in stand_in.accepted:
        customer = got["to"][0]["email"].removesuffix("@example.com")
        count = int(customer[1:])
        token = got["headers"]["List-Unsubscribe"].strip("<>").rpartition("/")[2]
        assert links.token_message_id(token) == int(got["custom_args"]["shopauto_message"])
        own = truth(count % 5, count % 7, languages[count % len(languages)])
        assert got["subject"] == own.subject
        bodies = {"text/html": own.html, "text/plain": own.text}
        assert got["seen"] == {kind: body.replace("TOKEN", token) for kind, body in bodies.items()}
        seen[customer] += 1
    assert len(seen) == 2500
    assert set(seen.values()) == {1}


def test_a_channel_of_several_calls_at_once_has_them_under_way_on_pooled_connections(engine, lake, live, stand_in):
    _write_readers(lake, 600, ("en",))
    stand_in.behave(then="slow:0.3")
    with closing(SendGrid(live)) as channel:
        channel.batch_size = 100
        result = dispatch(engine, lake, live, NEWSLETTER, DAY, clock=FixedClock(AT), channel=channel)
    assert (result.sent, stand_in.calls, stand_in.duplicates) == (600, 6, 0)
    assert 2 <= stand_in.connections <= SendGrid.calls_at_once


def test_a_switch_that_is_turned_while_a_campaign_is_sent_stops_it_within_one_batch_and_it_goes_on_exactly_there(
    engine, lake, settings
):
    write_shop(lake, people=50)

    class Watched(LocalInbox):
        batch_size = 10
        batches = 0

        def send(self, batch):
            self.batches += 1
            if self.batches == 2:
                with engine.begin() as connection:
                    controls.pause(connection, "welcome", "wrong price", "Eva", AT)
            return super().send(batch)

    channel = Watched(settings)
    first = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=channel)
    assert channel.batches == 2
    assert (first.sent, first.count("planned"), first.count("reserved")) == (20, 30, 0)
    assert "paused by Eva" in first.work.stopped
    assert "wrong price" in first.work.stopped
    again = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=channel)
    assert (again.sent, channel.batches) == (0, 2)
    with engine.begin() as connection:
        controls.resume(connection, "welcome", "Eva", AT)
    last = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=channel)
    assert (last.sent, last.states) == (30, {("sent", ""): 50})


def test_one_person_who_is_put_off_waits_for_the_next_run_and_stops_nobody_else(engine, lake, settings):
    write_shop(lake, people=30)

    class Greylisting(LocalInbox):
        batch_size = 10
        patient = False

        def send(self, batch):
            answers = super().send(batch)
            late = [] if self.patient else [n for n, e in enumerate(batch) if e.key.customer_id == "c000003"]
            return [Outcome("deferred", "try later") if n in late else answer for n, answer in enumerate(answers)]

    channel = Greylisting(settings)
    first = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=channel)
    assert (first.sent, first.count("planned"), first.work.stopped) == (29, 1, None)
    channel.patient = True
    assert dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=channel).sent == 1


def test_a_far_side_that_is_gone_in_the_middle_of_the_last_batch_is_told(engine, lake, settings):
    write_shop(lake, people=30)

    class Dying(LocalInbox):
        def send(self, batch):
            return [*super().send(batch[:10]), *[Outcome("deferred", "it hangs up")] * (len(batch) - 10)]

    result = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=Dying(settings))
    assert (result.sent, result.count("planned"), result.work.put_off) == (10, 20, ("20 email: it hangs up",))


def test_what_fails_in_a_batch_fails_the_dispatch_and_what_was_reserved_is_settled_by_the_next(engine, lake, settings):
    write_shop(lake, people=30)

    class Broken(LocalInbox):
        batch_size = 10

        def send(self, batch):
            if batch[0].key.customer_id == "c000010":
                raise RuntimeError("disk full")
            return super().send(batch)

    with pytest.raises(RuntimeError, match="disk full"):
        dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=Broken(settings))
    result = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT))
    assert result.recovered >= 10
    assert result.states == {("sent", ""): 30}
    assert len(list((settings.inbox_path / "messages").glob("*.eml"))) == 30


@pytest.mark.parametrize("state", ["unknown", "failed"])
def test_batch_after_batch_that_is_lost_stops_the_dispatch_and_the_rest_stays_planned(engine, lake, settings, state):
    write_shop(lake, people=100)

    class Down(LocalInbox):
        batch_size = 10

        def send(self, batch):
            return [Outcome(state, "it answered 500") for _ in batch]

    result = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=Down(settings))
    assert (result.count(state), result.count("planned")) == (30, 70)
    assert result.work.stopped == f"3 batches in a row are {state}: it answered 500"
    assert result.work.trouble == (f"30 messages: {state}, it answered 500",)
    assert dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT)).sent == 70


def test_a_lost_batch_among_good_ones_is_told_and_stops_nothing(engine, lake, settings):
    write_shop(lake, people=100)

    class Shaky(LocalInbox):
        batch_size = 10
        calls = 0

        def send(self, batch):
            self.calls += 1
            answers = super().send(batch) if self.calls % 3 == 0 else None
            return answers or [Outcome("unknown", "no answer")] * len(batch)

    result = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=Shaky(settings))
    assert (result.sent, result.count("unknown"), result.work.stopped) == (30, 70, None)
    assert result.work.trouble == ("70 messages: unknown, no answer",)
