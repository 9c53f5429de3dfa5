"""Carts of a day as history tells them: which pauses make which step due, and what has become of the cart by then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import ibis
import pytest

from shopauto_pipelines.campaigns.asked import asked
from shopauto_pipelines.campaigns.declaration import Step, Wait
from shopauto_pipelines.campaigns.pauses import pauses
from shopauto_pipelines.campaigns.planning import given_name, nothing, statement
from shopauto_pipelines.platform import prepared
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.tables import EVENTS, ORDERS
from shopauto_pipelines_tests.campaigns.conftest import RULES, declared, lake_rows, table

DAY = date(2026, 6, 30)
MIDNIGHT = datetime.combine(DAY, time())
HOUR = timedelta(hours=1)
WAITS = {"first": HOUR, "second": 24 * HOUR}
MANY = [f"p{n}" for n in range(400)]
PEOPLE = ["ann", "ben", *MANY]


@pytest.fixture(scope="module")
def due():
    """``due(events, orders)``: step, person, cart and reason of every decision of the day, all people being reachable."""
    campaign = declared(
        trigger={"cart_abandoned": {}},
        exit_on=["ordered", "cart_emptied", "ticket_opened"],
        steps=[
            Step(name=name, wait_hours=wait / HOUR, subject={"en": "Hi"}, template="cart")
            for name, wait in WAITS.items()
        ],
    )
    con = ibis.duckdb.connect(threads=1)
    triggers = pauses(
        prepared.unseen(EVENTS, "events"),
        prepared.unseen(ORDERS, "orders"),
        prepared.unseen(IDENTITIES, "identities"),
        until=MIDNIGHT + 24 * HOUR - timedelta(microseconds=1),
        longest=48 * HOUR,
        zone="UTC",
    )
    day_long = {step.name: Wait(WAITS[step.name], 24 * HOUR) for step in campaign.steps}
    con.con.execute("set TimeZone = 'UTC'")
    reached = prepared.compiled(triggers)

    def run(
        events: list[dict[str, Any]], orders: list[dict[str, Any]] = (), last_order_on: date | None = None
    ) -> list[tuple[str, str, str, str]]:
        con.con.register("events", lake_rows(EVENTS, *events))
        con.con.register("orders", lake_rows(ORDERS, *orders))
        ids = [{"shop_customer_id": who, "customer_id": who} for who in PEOPLE]
        con.con.register("identities", lake_rows(IDENTITIES, *ids, {"shop_customer_id": "guest", "customer_id": "ann"}))
        con.con.register(
            "planner_people", table("people", [(who, True, "en", last_order_on, None, True) for who in PEOPLE])
        )
        con.con.register("planner_consent", table("consent", [(who, "email", "opted_in") for who in PEOPLE]))
        for name in ("membership", "received", "planned"):
            con.con.register(given_name(name), nothing(name))
        for name, rows in asked(campaign, RULES, DAY, day_long).items():
            con.con.register(given_name(name), rows)
        con.con.execute(f"create or replace temp view {given_name('triggers')} as {reached}")
        rows = con.con.sql(statement(of_carts=True).statement).to_arrow_table().to_pylist()
        found = sorted((row["step"], row["customer_id"], row["occasion"], row["reason"]) for row in rows)
        assert len({row[:3] for row in found}) == len(found), "one row for each step, person and cart"
        return found

    return run


def event(hours: float, kind: str = "add_to_cart", **columns: Any) -> dict[str, Any]:
    """Something that happens so many hours after the day's first midnight, in ann's cart if it does not say otherwise."""
    at = MIDNIGHT + timedelta(hours=hours)
    return {"event_id": "e", "happened_at": at, "type": kind, "shop_customer_id": "ann", "cart_id": "c"} | columns


def order(hours: float, **columns: Any) -> dict[str, Any]:
    at = MIDNIGHT + timedelta(hours=hours)
    return {"order_id": "o", "ordered_at": at, "shop_customer_id": "ann", "cart_id": "c"} | columns


FIRST, SECOND = ("first", "ann", "c", "due"), ("second", "ann", "c", "due")


@pytest.mark.parametrize(
    ("hours", "found"),
    [
        (-1.01, [SECOND]),
        (-1, [FIRST, SECOND]),
        (10, [FIRST]),
        (22.99, [FIRST]),
        (23, []),
        (-24.01, []),
        (-24, [SECOND]),
        (-2, [SECOND]),
    ],
)
def test_a_step_is_due_on_the_day_its_wait_ends(due, hours, found):
    assert due([event(hours)]) == found


def test_whatever_happens_to_the_cart_begins_its_wait_anew(due):
    assert due([event(10), event(10.9, "page_view"), event(22.5)]) == [FIRST]
    assert due([event(22, "product_view"), event(22.9), event(23.8)]) == []


def test_a_step_is_due_once_for_a_cart_however_often_it_is_left(due):
    assert due([event(2), event(10), event(20)]) == [FIRST]
    assert due([event(-10), event(2), event(10)]) == [], "the first step was due yesterday"


def test_an_order_ends_it_all(due):
    assert due([event(2), event(5)], [order(2.5)]) == []
    assert due([event(2), event(5)], [order(3.5)]) == [FIRST], "an hour had passed before the order"
    assert due([event(-20)], [order(3)]) == []
    assert due([event(2)], [order(25)]) == [FIRST], "an order of tomorrow is not known today"


def test_an_order_of_the_person_without_the_cart_is_an_exit(due):
    refused = ("first", "ann", "c", "ordered")
    assert due([event(2)], [order(2.5, cart_id=None)]) == [refused]
    assert due([event(2)], [order(2.5, cart_id=None, shop_customer_id="guest")]) == [refused]
    assert due([event(2)], [order(3.5, cart_id=None)]) == [FIRST]
    assert due([event(2)], [order(1.5, cart_id=None)]) == [FIRST]


def test_an_order_later_on_the_day_takes_no_message_back_that_had_left(due):
    assert due([event(-20)], [order(10)], last_order_on=DAY) == [SECOND], "at four, and the order was at ten"
    assert due([event(-20)], [order(3, cart_id=None)], last_order_on=DAY) == [("second", "ann", "c", "ordered")]


def test_a_ticket_is_an_exit_from_its_time_on(due):
    ticket = {"cart_id": None, "kind": "ticket_opened"}
    assert due([event(2), event(2.5, **ticket)]) == [("first", "ann", "c", "ticket_opened")]
    assert due([event(2), event(3.5, **ticket)]) == [FIRST]
    assert due([event(2), event(2.5, **ticket, shop_customer_id="ben")]) == [FIRST]


def test_a_cart_from_which_everything_was_taken_is_empty(due):
    emptied = ("first", "ann", "c", "cart_emptied")
    out = event(3, "remove_from_cart")
    assert due([event(2.5), out]) == [emptied]
    assert due([event(2.5, quantity=2), out]) == [FIRST]
    assert due([event(2.5, quantity=2), {**out, "quantity": 2}]) == [emptied]
    assert due([event(2.5), out, event(3)]) == [FIRST], "at one moment what is put in counts last"


def test_a_cart_is_theirs_who_logged_in_with_its_browser(due):
    unknown = {"shop_customer_id": None, "anonymous_id": "browser"}
    login = event(5, "login", cart_id=None, anonymous_id="browser", shop_customer_id="ben")
    assert due([event(2, **unknown)]) == []
    assert due([event(2, **unknown), login]) == [("first", "ben", "c", "due")]
    assert due(
        [event(2, **unknown), login, {**login, "happened_at": MIDNIGHT + 6 * HOUR, "shop_customer_id": "guest"}]
    ) == [FIRST]
    assert due([event(2, anonymous_id="browser"), login]) == [FIRST], "who is named in the cart is its owner"


def test_what_is_due_is_what_a_walk_along_each_cart_finds(due):
    chance = random.Random(20260630)
    kinds = ("add_to_cart", "remove_from_cart", "page_view")

    def half_hours() -> float:
        return chance.randrange(-40 * 2, 30 * 2) / 2

    happened = {who: [(half_hours(), chance.choice(kinds)) for _ in range(chance.randrange(8))] for who in MANY}
    bought = {who: [half_hours() for _ in range(chance.choice((0, 0, 1, 2)))] for who in MANY}
    events = [
        event(hours, kind, cart_id=f"cart of {who}", shop_customer_id=who)
        for who in MANY
        for hours, kind in happened[who]
    ]
    orders = [order(hours, cart_id=f"cart of {who}", shop_customer_id=who) for who in MANY for hours in bought[who]]
    expected = sorted(
        (step, who, f"cart of {who}", reason) for who in MANY for step, reason in _walk(happened[who], bought[who])
    )
    assert {reason for *_, reason in expected} >= {"due", "cart_emptied"}
    assert due(events, orders) == expected
    assert due(events[::-1], orders[::-1]) == expected


def _walk(happened: list[tuple[float, str]], bought: list[float]) -> Iterator[tuple[str, str]]:
    """The steps of a cart that are due on the day, each with its reason: thing by thing, in plain Python."""
    pieces = {"add_to_cart": 1, "remove_from_cart": -1, "page_view": 0}
    touched = sorted((hours, pieces[kind]) for hours, kind in happened if hours < 24)
    taken = min((hours for hours in bought if hours < 24), default=float("inf"))
    for step, wait in ((step, wait / HOUR) for step, wait in WAITS.items()):
        for place, (hours, _) in enumerate(touched):
            if taken < hours:
                break
            ends = min([taken, *(later for later, _ in touched[place + 1 : place + 2])])
            if ends - hours < wait:
                continue
            so_far = [changed for _, changed in touched[: place + 1]]
            if 0 <= hours + wait < 24:
                emptied = sum(so_far) <= 0 and min(so_far) < 0
                yield step, "ordered" if taken <= hours + wait else "cart_emptied" if emptied else "due"
            break
