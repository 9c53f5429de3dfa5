"""Carts become due when nothing has happened for as long as a step waits, are queued once, and are told as they are now."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopauto_pipelines.realtime import carts
from shopauto_pipelines.realtime.collected import Batch, Login, Snapshot, store
from shopauto_pipelines_tests.realtime.shop_events import NOON, event, order, people, take

HOUR, MINUTE, INSTANT = timedelta(hours=1), timedelta(minutes=1), timedelta(microseconds=1)
WAITS = (HOUR, 24 * HOUR, 72 * HOUR)
VALID = 12 * HOUR


def queue(engine, at, *, waits=WAITS, valid=VALID, limit=1000) -> int:
    with engine.begin() as connection:
        return carts.queue_due(connection, waits, at=at, valid=valid, limit=limit)


def next_due(engine, at, waits=WAITS):
    with engine.begin() as connection:
        return carts.next_due(connection, waits, at=at, valid=VALID)


def due(engine, first=1, last=1_000_000) -> list[carts.DueCart]:
    with engine.begin() as connection:
        return carts.due(connection, first, last)


def test_a_cart_is_due_when_nothing_has_happened_for_the_wait_and_not_an_instant_before(engine):
    take(engine, event("e1", "add_to_cart", "k1", shop_customer_id="s1", product_id="p", quantity=2))
    assert next_due(engine, NOON) == NOON + HOUR
    assert queue(engine, NOON + HOUR - INSTANT) == 0
    assert queue(engine, NOON + HOUR) == 1
    (cart,) = due(engine)
    assert cart == carts.DueCart("k1", "s1", NOON, HOUR, ordered=False, changed=False, contents={"p": 2})


def test_a_cart_is_queued_once_for_each_wait(engine):
    take(engine, event("e1", "add_to_cart", "k1"))
    queued = [queue(engine, NOON + hours * HOUR) for hours in (1, 1, 2, 23, 24, 25, 72, 72, 500)]
    assert queued == [1, 0, 0, 0, 1, 0, 1, 0, 0]
    assert [cart.waited for cart in due(engine)] == list(WAITS)
    assert next_due(engine, NOON + 72 * HOUR) is None


def test_new_activity_starts_all_waits_again_and_what_was_queued_is_told_to_have_changed(engine):
    take(engine, event("e1", "add_to_cart", "k1"))
    queue(engine, NOON + HOUR)
    take(engine, event("e2", "page_view", "k1", at=NOON + 2 * HOUR))
    assert [cart.changed for cart in due(engine)] == [True]
    assert next_due(engine, NOON + 2 * HOUR) == NOON + 3 * HOUR
    assert queue(engine, NOON + 3 * HOUR) == 1
    assert [(c.triggered_at, c.changed) for c in due(engine)] == [(NOON, True), (NOON + 2 * HOUR, False)]


def test_an_event_that_comes_in_late_but_happened_before_the_last_one_starts_nothing_again(engine):
    take(engine, event("e1", "add_to_cart", "k1", product_id="p", quantity=1))
    queue(engine, NOON + HOUR)
    take(engine, event("e0", "add_to_cart", "k1", at=NOON - MINUTE, product_id="q", quantity=1), at=NOON + HOUR)
    assert next_due(engine, NOON + HOUR) == NOON + 24 * HOUR
    (cart,) = due(engine)
    assert (cart.changed, cart.contents) == (False, {"p": 1, "q": 1})


@pytest.mark.parametrize("order_comes_first", [True, False])
@pytest.mark.parametrize("ordered", [-HOUR, timedelta(0), HOUR])
def test_a_cart_that_an_order_took_is_never_due_whatever_comes_later(engine, order_comes_first, ordered):
    happenings = [event("e1", "add_to_cart", "k1"), order("o1", "s1", "k1", at=NOON + ordered)]
    for one in happenings[::-1] if order_comes_first else happenings:
        take(engine, one)
    take(engine, event("e2", "add_to_cart", "k1", at=NOON + 2 * HOUR))
    assert next_due(engine, NOON) is None
    assert queue(engine, NOON + 100 * HOUR) == 0


def test_an_order_after_a_cart_was_queued_is_told(engine):
    take(engine, event("e1", "add_to_cart", "k1"))
    queue(engine, NOON + HOUR)
    take(engine, order("o1", "s1", "k1", at=NOON + HOUR))
    assert [cart.ordered for cart in due(engine)] == [True]


def test_what_was_due_too_long_ago_is_never_queued_and_the_next_wait_still_is(engine):
    take(engine, event("e1", "add_to_cart", "k1"))
    assert queue(engine, NOON + HOUR + VALID + INSTANT) == 0
    assert next_due(engine, NOON + HOUR + VALID + INSTANT) == NOON + 24 * HOUR
    assert queue(engine, NOON + 24 * HOUR + VALID) == 1
    assert [cart.waited for cart in due(engine)] == [24 * HOUR]


def test_waits_that_change_between_ticks_neither_drop_nor_repeat_a_wait(engine):
    take(engine, event("e1", "add_to_cart", "k1"))
    assert queue(engine, NOON + HOUR) == 1
    assert queue(engine, NOON + 2 * HOUR, waits=(2 * HOUR, 72 * HOUR)) == 1, "a longer threshold is another wait"
    assert queue(engine, NOON + 24 * HOUR, waits=(2 * HOUR, 72 * HOUR)) == 0
    assert queue(engine, NOON + 24 * HOUR) == 1, "a wait that was taken away and is there again"
    assert queue(engine, NOON + 24 * HOUR, waits=(HOUR,)) == 0
    assert [cart.waited / HOUR for cart in due(engine)] == [1, 2, 24]


def test_a_round_takes_the_earliest_up_to_its_limit_and_the_next_ones_take_the_rest(engine):
    take(engine, *(event(f"e{n}", "add_to_cart", f"k{n}", at=NOON + n * MINUTE) for n in (3, 1, 4, 0, 2)))
    assert [queue(engine, NOON + 2 * HOUR, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [cart.cart_id for cart in due(engine)] == ["k0", "k1", "k2", "k3", "k4"]


def test_batches_are_ranges_that_follow_each_other(engine):
    take(engine, *(event(f"e{n}", "add_to_cart", f"k{n}") for n in range(5)))
    queue(engine, NOON + HOUR)
    with engine.connect() as connection:
        assert carts.batch(connection, 0, 3) == (1, 3)
        assert carts.batch(connection, 3, 3) == (4, 5)
        assert carts.batch(connection, 5, 3) is None


MINUTES = st.integers(0, 300).map(lambda n: NOON + n * MINUTE)
ARRIVALS = st.tuples(st.sampled_from(["k1", "k2"]), st.booleans(), MINUTES, st.integers(0, 90))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrivals=st.lists(ARRIVALS, max_size=8),
    ticks=st.lists(MINUTES, min_size=1, max_size=8, unique=True),
    waits=st.lists(st.sampled_from([10, 30, 60, 120]), min_size=1, unique=True),
    valid=st.sampled_from([5, 45, 500]),
)
def test_every_pause_that_a_tick_sees_is_queued_once_and_nothing_else_is(shared_engine, arrivals, ticks, waits, valid):
    """An arrival: a cart, whether it is an order, when it happened, and how many minutes later it came in."""
    due_after, valid_for = [minutes * MINUTE for minutes in waits], valid * MINUTE
    came_in = sorted((at + late * MINUTE, n) for n, (_, _, at, late) in enumerate(arrivals))
    wanted, known = set(), {}
    with shared_engine.connect() as connection:
        for table in ("collected", "carts", "due_carts"):
            connection.execute(sa.text(f"delete from {table}"))
        for now in sorted(ticks):
            while came_in and came_in[0][0] <= now:
                received, n = came_in.pop(0)
                cart, ordered, at, _ = arrivals[n]
                row = order(f"o{n}", None, cart, at) if ordered else event(f"e{n}", "page_view", cart, at)
                store(connection, Batch([row]), at=received)
                last_at, taken = known.get(cart, (at, False))
                known[cart] = (max(last_at, at), taken or ordered)
            carts.queue_due(connection, due_after, at=now, valid=valid_for, limit=100)
            wanted |= {
                (cart, wait, last_at)
                for cart, (last_at, taken) in known.items()
                for wait in due_after
                if not taken and wait <= now - last_at <= wait + valid_for
            }
        queued = carts.batch(connection, 0, 1000)
        found = carts.due(connection, *queued) if queued else []
        assert carts.next_due(connection, due_after, at=now, valid=valid_for) == min(
            (
                last_at + wait
                for cart, (last_at, taken) in known.items()
                for wait in due_after
                if not taken and last_at + wait > now
            ),
            default=None,
        )
        connection.rollback()
    told = [(cart.cart_id, cart.waited, cart.triggered_at) for cart in found]
    assert len(told) == len(set(told))
    assert set(told) == wanted


def test_without_a_wait_nothing_is_due(engine):
    take(engine, event("e1", "add_to_cart", "k1"))
    assert queue(engine, NOON + HOUR, waits=()) == 0
    assert next_due(engine, NOON, waits=()) is None


def test_two_that_queue_at_once_queue_each_cart_once_in_the_order_of_their_numbers(engine):
    take(engine, *(event(f"e{n}", "add_to_cart", f"k{n:03}", at=NOON + n * INSTANT) for n in range(200)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: queue(engine, NOON + 2 * HOUR, limit=30), range(8)))
    assert (sum(found), found.count(0)) == (200, 1)
    assert [cart.cart_id for cart in due(engine)] == [f"k{n:03}" for n in range(200)]


def test_a_cart_that_is_being_written_to_is_left_for_the_next_round(engine):
    take(engine, event("e1", "add_to_cart", "k1"), event("e2", "add_to_cart", "k2"))
    with engine.begin() as writing:
        writing.execute(sa.text("select from carts where cart_id = 'k1' for update"))
        assert queue(engine, NOON + HOUR) == 1
    assert queue(engine, NOON + HOUR) == 1


@pytest.mark.parametrize("looks", ["_QUEUE_DUE", "_NEXT_DUE"])
def test_looking_for_due_carts_costs_the_same_however_many_there_were(engine, looks):
    def blocks(history: int) -> int:
        with engine.begin() as connection:
            connection.execute(sa.text("truncate carts"))
            connection.execute(
                sa.text("""
                    insert into carts (cart_id, last_at, ordered_at, waited_seconds)
                    select 'h' || n, :at - make_interval(secs => n), case when n % 2 = 0 then now() end, (n % 4) * 86400
                    from generate_series(1000000, 1000000 + :history) as n
                """),
                {"at": NOON, "history": history},
            )
            connection.execute(sa.text("insert into carts (cart_id, last_at) values ('k1', :at)"), {"at": NOON - HOUR})
            connection.execute(sa.text("analyze carts"))
            asked = {"waits": [3600, 86400, 259200], "at": NOON, "valid": VALID, "limit": 100}
            statement = sa.text("explain (analyze, buffers, format json) " + getattr(carts, looks).text)
            asked = {name: asked[name] for name in statement.compile().params}
            (plan,) = connection.execute(statement, asked).scalar_one()
            connection.rollback()
        return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]

    few, many = blocks(200), blocks(20_000)
    assert many <= few + 25, json.dumps([few, many])


@pytest.mark.parametrize(
    ("happened", "owner"),
    [
        ({"events": [{"shop_customer_id": "s1"}]}, "P1"),
        ({"events": [{"shop_customer_id": "s9"}]}, "s9"),
        ({"events": [{"anonymous_id": "a1"}]}, None),
        ({"events": [{"anonymous_id": "a1"}], "logins": [Login("a1", "s1", None, NOON)]}, "P1"),
        ({"events": [{"anonymous_id": "a1"}], "logins": [Login("a1", "s9", None, NOON)]}, "s9"),
        ({"events": [{"anonymous_id": "a1"}], "logins": [Login("a1", None, b"ana", NOON)]}, "P1"),
        ({"events": [{"anonymous_id": "a1"}], "logins": [Login("a1", None, b"who", NOON)]}, None),
        (
            {"events": [{"anonymous_id": "a1", "shop_customer_id": "s2"}], "logins": [Login("a1", "s1", b"x", NOON)]},
            "P2",
        ),
        ({"events": [{"shop_customer_id": "s2"}, {"shop_customer_id": "s1"}]}, "P1"),
        ({"events": [{"anonymous_id": "a2"}, {"anonymous_id": "a1"}], "logins": [Login("a1", "s1", None, NOON)]}, "P1"),
        ({"events": [{"shop_customer_id": "guest:1"}], "guests": {"guest:1": b"ana"}}, "P1"),
        ({"events": [{"shop_customer_id": "guest:2"}], "guests": {"guest:2": b"who"}}, "guest:2"),
        (
            {
                "events": [{"shop_customer_id": "guest:2", "anonymous_id": "a1"}],
                "logins": [Login("a1", "s2", None, NOON)],
                "guests": {"guest:2": b"who"},
            },
            "P2",
        ),
    ],
)
def test_a_cart_belongs_to_whom_it_names_or_to_who_is_behind_its_browser(engine, happened, owner):
    people(engine, {"s1": "P1", "s2": "P2"}, {"P1": b"ana", "P2": b"bob"})
    told = happened.pop("events")
    take(
        engine,
        *(event(f"e{n}", "add_to_cart", "k1", at=NOON + n * MINUTE, **more) for n, more in enumerate(told)),
        **happened,
    )
    queue(engine, NOON + 2 * HOUR)
    assert [cart.customer_id for cart in due(engine)] == [owner]


def test_contents_are_the_latest_snapshot_and_what_was_put_in_and_taken_out_after_it(engine):
    take(
        engine,
        event("e1", "add_to_cart", "k1", at=NOON, product_id="before", quantity=9),
        event("e2", "add_to_cart", "k1", at=NOON + 2 * MINUTE, product_id="a", quantity=2),
        event("e3", "remove_from_cart", "k1", at=NOON + 3 * MINUTE, product_id="b", quantity=1),
        event("e4", "add_to_cart", "k1", at=NOON + 3 * MINUTE, product_id="c"),
        event("e5", "remove_from_cart", "k1", at=NOON + 4 * MINUTE, product_id="never there", quantity=3),
        event("e7", "add_to_cart", "k1", at=NOON + 4 * MINUTE, product_id="d", quantity=2**62),
        event("e8", "add_to_cart", "k1", at=NOON + 4 * MINUTE, product_id="d", quantity=2**62),
        event("e6", "checkout_started", "k1", at=NOON + 4 * MINUTE, product_id="a", quantity=5),
        snapshots=[
            Snapshot("k1", NOON + MINUTE, {"a": 1, "b": 1, "none": 0}, "s1", None),
            Snapshot("k1", NOON, {"old": 1}, None, None),
        ],
    )
    queue(engine, NOON + 2 * HOUR)
    (cart,) = due(engine)
    assert cart.contents == {"a": 3, "c": 1, "d": 1_000_000}
    assert cart.customer_id == "s1"


def test_who_reads_a_due_cart_waits_for_who_is_writing_to_it(engine):
    take(engine, event("e1", "add_to_cart", "k1", product_id="p"))
    queue(engine, NOON + HOUR)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as writing:
            writing.execute(sa.text("update carts set ordered_at = last_at where cart_id = 'k1'"))
            reading = pool.submit(due, engine)
            with pytest.raises(TimeoutError):
                reading.result(timeout=0.2)
        assert [cart.ordered for cart in reading.result()] == [True]
