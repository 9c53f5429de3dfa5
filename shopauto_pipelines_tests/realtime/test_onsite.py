"""``GET /offer`` over HTTP and a real database: who is offered what, once a lapse, and what is written before it is answered."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.offers import ONSITE
from shopauto_pipelines.outbox import controls
from shopauto_pipelines.outbox.schema import exits, message_history, messages, offers
from shopauto_pipelines.platform import live_settings, postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.playbook import PLAYBOOK, PlaybookError
from shopauto_pipelines.realtime import onsite, schema, serving
from shopauto_pipelines.realtime.closed_days import land_late_sends
from shopauto_pipelines.sources import raw
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS
from shopauto_pipelines_tests.outbox.conftest import AT, DAY
from shopauto_pipelines_tests.realtime.people import person, product, write_people

LAST = DAY - timedelta(days=150)


@pytest.fixture
def settings(settings):
    """Nobody is held out."""
    return settings.model_copy(update={"holdout_percent": 0.0})


@pytest.fixture
def ask(engine, lake, settings, monkeypatch):
    """Publishes people, makes their browsers known, and asks."""
    monkeypatch.setattr(postgres, "engine", lambda _: engine)

    class Ask:
        settings_now = settings

        def publish(self, *people, day=DAY, **more):
            write_people(lake, *people, day=day, **more)
            serving.publish(engine, lake, settings, day, at=AT)
            with engine.begin() as connection:
                for row in people:
                    for known in row["ids"]:
                        login(connection, f"browser-{known}", known)

        def __call__(self, about="a", *, at=AT, status=200, key=None, **parameters):
            parameters = parameters or {"anonymous_id": f"browser-{about}"}
            web = Starlette(routes=onsite.routes(self.settings_now, FixedClock(at)))
            with TestClient(web) as client:
                headers = {"Authorization": f"Bearer {key}"} if key else None
                answer = client.get("/offer", params=parameters, headers=headers)
            assert answer.status_code == status, answer.text
            return answer.json()

        def reason(self, *arguments, **named):
            answer = self(*arguments, **named)
            assert (answer["offer"] is None) == (answer["reason"] not in ("granted", "repeated"))
            return answer["reason"]

    return Ask()


def login(connection, browser, shop_customer_id):
    row = {"anonymous_id": browser, "shop_customer_id": shop_customer_id, "shop_customer_at": AT}
    connection.execute(sa.insert(schema.visitors).values(row))


def write(engine, table, **row):
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(row))


def rows(engine, table, *columns):
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*(table.c[name] for name in columns)))]


def test_a_lapsed_visitor_who_spends_more_than_others_is_offered_ten_percent_in_the_favourite_category(ask):
    ask.publish(person("a"))
    answer = ask()
    code = answer["offer"].pop("code")
    expires = (AT + timedelta(days=7)).isoformat()
    assert answer == {"offer": {"percent": 10, "category": "camping", "expires_at": expires}, "reason": "granted"}
    assert len(code) >= 10


def test_what_is_granted_is_in_the_ledger_and_among_the_offers(ask, engine):
    ask.publish(person("a"))
    code = ask()["offer"]["code"]
    key = ("lapsed_visitor", "offer", "a", str(LAST))
    assert rows(engine, messages, "campaign", "step", "customer_id", "occasion", "state", "channel", "as_of") == [
        (*key, "sent", "onsite", DAY)
    ]
    assert rows(engine, message_history, "from_state", "to_state") == [(None, "sent")]
    assert rows(engine, offers, "code", "campaign", "customer_id", "occasion", "percent", "category", "expires_at") == [
        (code, "lapsed_visitor", "a", str(LAST), 10, "camping", AT + timedelta(days=7))
    ]
    (explained,) = rows(engine, messages, "explanation")[0]
    assert explained["offer"]["code"] == code
    assert explained["facts"]["favourite_category_order_cents"] == 9000
    assert "example.com" not in str(explained)


def test_who_asks_again_gets_the_same_code_until_it_expires_and_then_nothing_in_this_lapse(ask, engine):
    ask.publish(person("a"))
    first = ask()["offer"]
    again = ask(at=AT + timedelta(days=6))
    assert again == {"offer": first, "reason": "repeated"}
    assert ask.reason(at=AT + timedelta(days=7)) == "expired"
    assert len(rows(engine, offers, "code")) == 1


def test_the_next_lapse_is_another_occasion_but_the_cap_holds(ask, engine):
    ask.publish(person("a"))
    first = ask()["offer"]["code"]
    later = DAY + timedelta(days=60)
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.visitors))
    ask.publish(person("a", last_order_on=DAY + timedelta(days=5)), day=later)
    assert ask.reason(at=AT + timedelta(days=61)) == "cap"
    second = ask(at=AT + timedelta(days=91))
    assert second["reason"] == "granted"
    assert second["offer"]["code"] != first


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (person("a", "active", churn_factor=0.4), "not_lapsed"),
        (person("a", "cooling", churn_factor=2.0), "not_lapsed"),
        (person("a", discount_seeker=True), "discount_seeker"),
        (person("a", favourite_category=None), "no_favourite"),
        (person("a", category_average_order_cents=None), "no_favourite"),
        (person("a", favourite_category_order_cents=5000), "below_average"),
        (person("a", favourite_category_order_cents=5001), "granted"),
        (person("a", email=None), "granted"),
    ],
)
def test_everybody_else_is_offered_nothing_and_the_reason_is_known(ask, engine, who, reason):
    ask.publish(who)
    assert ask.reason() == reason
    assert len(rows(engine, messages, "id")) == (reason == "granted")


def test_in_the_other_reading_everybody_who_lapsed_gets_it_for_a_basket_above_the_average(ask, engine, settings):
    ask.settings_now = settings.model_copy(update={"onsite_rule": "basket"})
    ask.publish(person("a", favourite_category_order_cents=4000))
    assert ask()["offer"]["minimum_cents"] == 5001
    assert ask()["offer"]["minimum_cents"] == 5001
    assert rows(engine, offers, "minimum_cents") == [(5001,)]


def test_who_is_held_out_is_offered_nothing(ask, settings, engine, lake):
    write_people(lake, *(person(f"c{n:02}") for n in range(20)))
    held = settings.model_copy(update={"onsite_holdout_percent": 50.0})
    serving.publish(engine, lake, held, DAY, at=AT)
    with engine.begin() as connection:
        expected = dict(connection.execute(sa.select(schema.people.c.customer_id, schema.people.c.held_out)).all())
        for name in expected:
            login(connection, f"browser-{name}", name)
    assert set(expected.values()) == {True, False}
    assert {name: ask.reason(name) for name in expected} == {
        name: "holdout" if out else "granted" for name, out in expected.items()
    }


@pytest.mark.parametrize("bought_as", ["a", "a2"])
def test_one_who_has_ordered_since_is_not_lapsed_any_more_under_whichever_of_their_ids(ask, engine, bought_as):
    ask.publish(person("a", ids=["a2"]))
    assert ask.reason() == "granted"
    midnight = datetime.combine(LAST + timedelta(days=1), datetime.min.time(), UTC)
    write(engine, exits, customer_id=bought_as, event="ordered", at=midnight - timedelta(microseconds=1))
    assert ask.reason() == "repeated"
    write(engine, exits, customer_id=bought_as, event="ticket_opened", at=AT)
    assert ask.reason() == "repeated"
    write(engine, exits, customer_id=bought_as, event="ordered", at=midnight)
    assert ask.reason() == "ordered"


def test_a_visitor_is_found_by_any_id_of_theirs_and_has_one_offer(ask, engine):
    ask.publish(person("a", ids=["a2"]))
    assert ask("a2")["offer"] == ask("a")["offer"] == ask(shop_customer_id="a2")["offer"]
    assert len(rows(engine, messages, "id")) == 1


def test_an_offer_stays_the_persons_where_two_accounts_turn_out_to_be_one(ask, engine):
    ask.publish(person("b"))
    first = ask("b")["offer"]
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.visitors))
    ask.publish(person("a", ids=["b"]))
    assert ask("b") == ask("a") == {"offer": first, "reason": "repeated"}
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.visitors))
    ask.publish(person("a", ids=["b"], last_order_on=LAST + timedelta(days=1)))
    assert ask.reason("a") == "cap"
    assert len(rows(engine, offers, "code")) == 1


def test_nobody_we_know_is_offered_nothing(ask, engine):
    ask.publish(person("a"))
    with engine.begin() as connection:
        login(connection, "browser-new", "registered-a-minute-ago")
    assert ask.reason("stranger") == "unknown"
    assert ask.reason("new") == "unknown"
    assert ask.reason(shop_customer_id="nobody") == "unknown"


def test_an_address_that_was_typed_proves_nobody(ask, engine, settings):
    ask.publish(person("a"))
    with engine.connect() as connection:
        (address,) = connection.execute(sa.select(schema.people.c.address_hash)).scalars()
    write(engine, schema.visitors, anonymous_id="curious", address_hash=address, address_at=AT)
    assert ask.reason(anonymous_id="curious") == "unknown"


def test_a_switch_and_a_setting_act_on_the_next_question(ask, engine, settings):
    ask.publish(person("a"), person("b", favourite_category_order_cents=1))
    with engine.begin() as connection:
        controls.pause(connection, ONSITE, "test", "me", AT)
    assert ask.reason() == "paused"
    with engine.begin() as connection:
        controls.resume(connection, ONSITE, "me", AT)
        controls.pause(connection, "*", "test", "me", AT)
    assert ask.reason() == "paused"
    with engine.begin() as connection:
        controls.resume(connection, "*", "me", AT)
        for name, value in (("onsite_rule", "basket"), ("onsite_percent", "15")):
            live_settings.change(connection, settings, live_settings.Change(name, value, "test", "me", AT))
    assert ask("b")["offer"]["percent"] == 15
    with engine.begin() as connection:
        live_settings.change(connection, settings, live_settings.Change("offer_cap", "0", "test", "me", AT))
    assert ask.reason("a") == "cap"


def test_an_offer_of_another_campaign_counts_for_the_cap(ask, engine):
    ask.publish(person("a"))
    granted = AT - timedelta(days=89)
    row = {"campaign": "abandoned_cart", "customer_id": "a", "occasion": "cart-1", "kind": "percent", "why": "test"}
    write(engine, offers, code="X", granted_at=granted, expires_at=granted, **row)
    assert ask.reason() == "cap"
    assert ask.reason(at=AT + timedelta(days=2)) == "granted"


@pytest.mark.parametrize(
    ("products", "reason"),
    [
        ([product("tent", 10_000, 7_200)], "granted"),
        ([product("tent", 10_000, 7_201)], "margin"),
        ([product("tent", 10_000, None)], "granted"),
        ([product("tent", None, None)], "price_unknown"),
        ([product("lamp", 10_000, 1_000, "home")], "price_unknown"),
    ],
)
def test_the_discount_leaves_the_category_its_margin(ask, products, reason):
    """Of 90.00 paid at least 18.00 stay: 20 %, where what is not known is taken to cost 60 % of its price."""
    ask.publish(person("a"), products=products)
    assert ask.reason() == reason


def live(settings):
    return settings.model_copy(update={"live": True})


def test_in_live_mode_nothing_is_offered_on_old_knowledge(ask, settings):
    ask.publish(person("a"))
    old = AT + timedelta(days=30)
    assert ask.reason(at=old) == "granted"
    ask.settings_now = live(settings)
    assert ask(at=old) == {"offer": None}
    assert ask(at=AT + timedelta(days=2))["offer"]


def test_in_live_mode_a_browser_is_not_told_why_it_is_offered_nothing(ask, settings):
    ask.publish(person("a", discount_seeker=True))
    ask.settings_now = live(settings)
    assert ask() == {"offer": None}


def test_only_the_shops_servers_may_ask_for_a_customer_and_are_told_why(ask, settings):
    ask.publish(person("a", discount_seeker=True))
    ask.settings_now = live(settings)
    assert ask(shop_customer_id="a", status=503)["refused"]
    ask.settings_now = live(settings).model_copy(update={"collector_key": SecretStr("the key")})
    assert ask(shop_customer_id="a", status=401)["refused"]
    assert ask(shop_customer_id="a", key="another key", status=401)["refused"]
    assert ask(anonymous_id="browser-a", key="another key", status=401)["refused"]
    assert ask(shop_customer_id="a", key="the key") == {"offer": None, "reason": "discount_seeker"}


def test_an_address_that_asks_too_fast_is_told_to_come_again(ask, settings):
    ask.settings_now = settings.model_copy(update={"collector_events_per_second": 1})
    web = Starlette(routes=onsite.routes(ask.settings_now, FixedClock(AT)))
    with TestClient(web) as client:
        answers = [client.get("/offer", params={"anonymous_id": "stranger"}) for _ in range(12)]
    assert [answer.status_code for answer in answers][:10] == [200] * 10
    assert answers[-1].status_code == 429
    assert answers[-1].headers["Retry-After"]


def test_the_addresses_of_one_ipv6_network_ask_as_one(ask, settings):
    ask.settings_now = settings.model_copy(update={"collector_events_per_second": 1})
    web = Starlette(routes=onsite.routes(ask.settings_now, FixedClock(AT)))

    async def asked(host):
        transport = httpx.ASGITransport(app=web, client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return (await client.get("/offer", params={"anonymous_id": "stranger"})).status_code

    async def several():
        return [await asked(f"2001:db8::{n:x}") for n in range(12)], await asked("2001:db8:0:1::1")

    network, neighbour = asyncio.run(several())
    assert (network[:10], network[-1], neighbour) == ([200] * 10, 429, 200)


def test_answers_are_counted_together(ask, engine):
    ask.publish(person("a"), person("b", discount_seeker=True))
    for who in ("a", "b", "stranger"):
        ask(who)
    ask("a")
    web = Starlette(routes=onsite.routes(ask.settings_now, FixedClock(AT)))

    async def several():
        transport = httpx.ASGITransport(app=web)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            for _ in range(3):
                await client.get("/offer", params={"anonymous_id": "browser-b"})

    asyncio.run(several())
    found = rows(engine, schema.decisions, "at", "customer_id", "offered", "reason", "count")
    assert sorted(found, key=str) == sorted(
        [
            (AT, "a", True, "repeated", 1),
            (AT, "b", False, "discount_seeker", 1),
            (AT, None, False, "unknown", 1),
            (AT, "b", False, "discount_seeker", 3),
        ],
        key=str,
    )


def test_questions_at_the_same_moment_get_one_code_and_make_one_message(ask, engine):
    ask.publish(person("a"))
    web = Starlette(routes=onsite.routes(ask.settings_now, FixedClock(AT)))

    async def at_once():
        transport = httpx.ASGITransport(app=web)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            asked = (client.get("/offer", params={"anonymous_id": "browser-a"}) for _ in range(20))
            return [answer.json() for answer in await asyncio.gather(*asked)]

    answers = asyncio.run(at_once())
    assert len({answer["offer"]["code"] for answer in answers}) == 1
    assert sorted(answer["reason"] for answer in answers) == ["granted", *["repeated"] * 19]
    assert len(rows(engine, messages, "id")) == len(rows(engine, offers, "code")) == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"x": "1"},
        {"anonymous_id": "a", "shop_customer_id": "b"},
        {"anonymous_id": ""},
        {"anonymous_id": "a:b"},
        {"anonymous_id": "a" * 129},
        {"anonymous_id": "a\0"},
        {"shop_customer_id": ""},
        {"shop_customer_id": "a\0"},
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_with_a_reason(ask, parameters):
    assert ask(status=422, **parameters)["refused"]


def test_where_the_database_does_not_answer_it_says_so_and_goes_on_when_it_does(ask, engine, monkeypatch, caplog):
    ask.publish(person("a"))
    gone = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    monkeypatch.setattr(postgres, "engine", lambda _: gone)
    assert ask(status=503) == {"refused": "cannot be decided now"}
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    assert ask.reason() == "granted"


def test_what_was_granted_is_a_message_of_the_next_morning_in_the_lake(ask, engine, lake, settings):
    ask.publish(person("a"))
    ask()
    assert land_late_sends(engine, lake, settings) == [DAY + timedelta(days=1)]
    morning = DAY + timedelta(days=1)
    found = lake.con.to_pyarrow(raw.accepted(lake, MESSAGE_EVENTS, morning, morning)).to_pylist()
    assert [(row["type"], row["channel"], row["campaign"], row["shop_customer_id"]) for row in found] == [
        ("sent", "onsite", ONSITE, "a")
    ]
    assert land_late_sends(engine, lake, settings) == []


def test_no_campaign_of_the_playbook_can_take_its_name(tmp_path):
    shutil.copytree(PLAYBOOK, tmp_path, dirs_exist_ok=True)
    declared = tmp_path / "campaigns" / "welcome" / "defs.yaml"
    declared.write_text(declared.read_text().replace("name: welcome", f"name: {ONSITE}", 1))
    with pytest.raises(
        PlaybookError, match=r"welcome/defs.yaml:3.*'lapsed_visitor' is the on-site offer: choose another name"
    ):
        load_campaigns(tmp_path)
