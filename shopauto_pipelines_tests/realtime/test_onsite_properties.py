"""Zero leakage: whatever happened, in whichever order it became known, nobody who is active is offered anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from shopauto_pipelines.campaigns.offers import Line
from shopauto_pipelines.outbox.schema import messages, offers
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime import lapsed_visitor, onsite, schema
from shopauto_pipelines.realtime.batch import Batch, Row
from shopauto_pipelines.realtime.collected import store
from shopauto_pipelines_tests.outbox.conftest import AT, DAY

IDS = [f"s{n}" for n in range(5)]
BOUGHT = [DAY - timedelta(days=40), DAY - timedelta(days=90)]


@dataclass
class Shop:
    """What is so, in plain Python: whose ids they are, what is served of them, when they ordered."""

    people: dict[str, dict] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    orders: list[tuple[str, datetime]] = field(default_factory=list)

    def reachable(self, shop_customer_id: str, *, again: bool = False) -> bool:
        """Whether the rule, read word by word, allows an offer; ``again``: what is given in a lapse is not taken back in it."""
        person = self.people.get(self.owner.get(shop_customer_id, shop_customer_id))
        if person is None:
            return False
        lapse_begins = datetime.combine(person["last_order_on"] + timedelta(days=1), time(), UTC)
        ids = {known for known, owner in self.owner.items() if owner == person["customer_id"]}
        return (
            person["lapsed"]
            and not person["discount_seeker"]
            and not person["held_out"]
            and (again or person["favourite_category_order_cents"] > person["category_average_order_cents"])
            and not any(who in ids and at >= lapse_begins for who, at in self.orders)
        )


def served_person(customer_id: str, draw) -> dict:
    rare = st.sampled_from([False] * 4 + [True])
    return {
        "customer_id": customer_id,
        "as_of": DAY,
        "lapsed": draw(st.sampled_from([True] * 3 + [False])),
        "held_out": draw(rare),
        "discount_seeker": draw(rare),
        "last_order_on": draw(st.sampled_from(BOUGHT)),
        "churn_factor": 5.0,
        "favourite_category": "camping",
        "favourite_category_order_cents": draw(st.sampled_from([5001, 9000, 9000, 5000])),
        "category_average_order_cents": 5000,
    }


def publish(engine: sa.Engine, shop: Shop, owner: dict[str, str], people: list[dict]) -> None:
    """What the refresh does, for a few people."""
    shop.owner, shop.people = owner, {row["customer_id"]: row for row in people}
    with engine.begin() as connection:
        for table, rows in (
            (schema.people, people),
            (schema.people_ids, [{"shop_customer_id": i, "customer_id": c} for i, c in owner.items()]),
        ):
            connection.execute(sa.delete(table))
            if rows:
                connection.execute(sa.insert(table), rows)


def order(engine: sa.Engine, shop: Shop, shop_customer_id: str, at: datetime) -> None:
    shop.orders.append((shop_customer_id, at))
    number = f"o{len(shop.orders)}"
    row = {"order_id": number, "ordered_at": at.replace(tzinfo=None).isoformat(), "shop_customer_id": shop_customer_id}
    with engine.begin() as connection:
        store(connection, Batch(rows=[Row("raw/orders", number, at, None, row)]), at=AT)


def ask(web: Starlette, who: list[str]) -> list[dict]:
    """All of them at once, each as a browser that has logged in."""

    async def at_once() -> list[dict]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web), base_url="http://shop") as client:
            asked = (client.get("/offer", params={"anonymous_id": f"browser-{known}"}) for known in who)
            return [answer.json() for answer in await asyncio.gather(*asked)]

    return asyncio.run(at_once())


@pytest.fixture
def web(tmp_path, engine, monkeypatch) -> Starlette:
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    return Starlette(routes=onsite.routes(Settings(home=tmp_path, _env_file=None), FixedClock(AT)))


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_an_offer_goes_to_those_whom_the_rule_names_and_to_nobody_else(engine, web, data):
    """Orders come under any id, before and after merges and new days, late, and at the last instant of the last order's day."""
    shop = Shop()
    owner = {known: known for known in IDS}
    emptied = (schema.people, schema.people_ids, schema.visitors, schema.collected, schema.categories, offers, messages)
    with engine.begin() as connection:
        connection.execute(sa.text(f"truncate {', '.join(map(str, emptied))}, shopauto.exits restart identity cascade"))
        rows = [
            {"anonymous_id": f"browser-{known}", "shop_customer_id": known, "shop_customer_at": AT} for known in IDS
        ]
        connection.execute(sa.insert(schema.visitors), rows)
        goods = {"category": "camping", "priced_cents": 20_000, "cost_cents": 12_000, "unknown_cents": 0}
        connection.execute(sa.insert(schema.categories).values(goods))
    last_midnights = [datetime.combine(day + timedelta(days=1), time(), UTC) for day in BOUGHT]
    moments = [m + timedelta(microseconds=n) for m in last_midnights for n in (-1, 0)] + [AT - timedelta(seconds=1)]
    for _ in range(data.draw(st.integers(2, 7))):
        match data.draw(st.sampled_from(["publish", "publish", "order", "ask"])):
            case "publish":
                if len(set(owner.values())) > 1 and data.draw(st.booleans()):
                    gone, kept = sorted(
                        data.draw(
                            st.lists(st.sampled_from(sorted(set(owner.values()))), min_size=2, max_size=2, unique=True)
                        ),
                        reverse=True,
                    )
                    owner = {known: kept if who == gone else who for known, who in owner.items()}
                known_now = {k: w for k, w in owner.items() if w != "s4"}  # who has just registered is not served yet
                publish(engine, shop, known_now, [served_person(c, data.draw) for c in sorted(set(known_now.values()))])
            case "order":
                order(engine, shop, data.draw(st.sampled_from(IDS)), data.draw(st.sampled_from(moments)))
            case "ask":
                pass
        for who, answer in zip(IDS, ask(web, IDS), strict=True):
            event(answer["reason"])
            if answer["offer"]:
                assert shop.reachable(who, again=answer["reason"] == "repeated"), answer
            else:
                assert not shop.reachable(who) or answer["reason"] == "cap", answer


@given(
    lapsed=st.booleans(),
    ordered=st.booleans(),
    seeker=st.booleans(),
    held=st.booleans(),
    own=st.none() | st.integers(0, 10_000),
    average=st.none() | st.integers(0, 10_000),
    others=st.integers(0, 2),
    cost=st.sampled_from([None, 60, 72, 73]),
    age=st.integers(0, 10),
    granted=st.none() | st.integers(-2, 2),
    rule=st.sampled_from(["history", "basket"]),
    live=st.booleans(),
)
def test_whoever_is_not_refused_is_lapsed_and_left_alone_by_nothing(
    lapsed, ordered, seeker, held, own, average, others, cost, age, granted, rule, live
):
    now = datetime(2026, 1, 4, 5, tzinfo=UTC)
    config = Settings(_env_file=None).model_copy(update={"onsite_rule": rule, "live": live})
    earlier = None if granted is None else lapsed_visitor.Offer(10, "camping", "CODE", now + timedelta(days=granted))
    visitor = lapsed_visitor.Visitor(
        "a", now.date() - timedelta(days=age), lapsed, held, seeker, date(2025, 9, 1), 5.0, "camping", own, average, ordered,
        others, earlier, (Line(1, 100, cost),),
    )  # fmt: skip
    reason = lapsed_visitor.refusal(visitor, config, now=now)
    if reason is not None:
        return
    assert lapsed
    assert (ordered, seeker, held) == (False, False, False)
    assert not live or age <= config.realtime_profile_days
    made = lapsed_visitor.offer(visitor, config, "NEW", now=now)
    assert made.expires_at > now
    if not earlier:
        assert cost != 73
    if earlier:
        assert made == earlier
    elif rule == "history":
        assert own > average
        assert made.minimum_cents is None
        assert not others
    else:
        assert made.minimum_cents == average + 1
        assert not others
