"""What comes in is stored once, and what follows from it is the same whatever the order, the batches and the repetitions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shopauto_pipelines.realtime import carts, schema
from shopauto_pipelines.realtime.collected import Batch, Exit, Login, Row, Snapshot, store
from shopauto_pipelines_tests.realtime.shop_events import NOON, event, order, people, take

HOUR, MINUTE, INSTANT = timedelta(hours=1), timedelta(minutes=1), timedelta(microseconds=1)
PEOPLE, ADDRESSES = {"s1": "P1", "s2": "P2"}, {"P1": b"ana", "P2": b"bob"}


def table(connection: sa.Connection, name: str, *columns: str) -> list[tuple]:
    found = connection.execute(sa.select(*(sa.column(c) for c in columns)).select_from(sa.text(name)))
    return sorted(map(tuple, found), key=repr)


def rows_of(engine, name, *columns):
    with engine.connect() as connection:
        return table(connection, name, *columns)


def test_a_row_that_comes_again_is_stored_once_and_has_no_effect_again(engine):
    first = take(engine, event("e1", "add_to_cart", "k1"), event("e2", "page_view"))
    assert (first.new, first.repeated) == (2, 0)
    again = take(engine, event("e1", "add_to_cart", "k1"), event("e3", "page_view"), event("e3", "page_view"))
    assert (again.new, again.repeated, again.keys) == (1, 2, {("raw/events", "e3")})
    assert rows_of(engine, "collected", "key") == [("e1",), ("e2",), ("e3",)]


def test_one_key_in_two_tables_is_two_rows(engine):
    assert take(engine, event("x", "page_view"), order("x", "s1")).new == 2


def test_text_that_the_database_has_no_form_for_is_stored_without_it(engine):
    take(engine, event("e1", "page_view", url="a\0b\ud800c 😀"))
    ((row,),) = rows_of(engine, "collected", "row")
    assert row["url"] == "abc 😀"


def test_nothing_is_stored_where_any_part_cannot_be(engine):
    broken = Batch([event("e1", "page_view")], exits=[Exit("s1", "ordered", "", None)])  # type: ignore[arg-type]
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        store(connection, broken, at=NOON)
    assert rows_of(engine, "collected", "key") == []


def test_an_order_takes_back_the_messages_of_whoever_ordered_as_a_person_and_by_the_shops_id(engine):
    people(engine, PEOPLE, ADDRESSES)
    take(
        engine,
        order("o1", "s1"),
        order("o2", "s9"),
        order("o3", None),
        order("o4", "guest:1"),
        guests={"guest:1": b"bob"},
    )
    assert rows_of(engine, "exits", "customer_id", "event", "occasion", "at") == [
        ("P1", "ordered", "", NOON),
        ("P2", "ordered", "", NOON),
        ("guest:1", "ordered", "", NOON),
        ("s1", "ordered", "", NOON),
        ("s9", "ordered", "", NOON),
    ]


def test_an_order_takes_back_the_messages_about_its_cart_from_everybody_it_was_taken_for(engine):
    people(engine, PEOPLE, ADDRESSES)
    take(
        engine,
        event("e1", "add_to_cart", "k1", at=NOON - HOUR, shop_customer_id="s1"),
        event("e2", "add_to_cart", "k1", at=NOON - MINUTE, anonymous_id="a1"),
        logins=[Login("a1", None, b"bob", NOON)],
    )
    take(engine, order("o1", "s9", "k1", at=NOON))
    found = rows_of(engine, "exits", "customer_id", "event", "occasion", "at")
    assert [row for row in found if row[2]] == [(who, "ordered", "k1", NOON) for who in ("P1", "P2", "s9")]


def test_a_ticket_takes_back_the_messages_of_the_person(engine):
    people(engine, PEOPLE)
    take(engine, event("t1", "ticket_opened", shop_customer_id="s1"))
    take(engine, event("t1", "ticket_opened", at=NOON + HOUR, shop_customer_id="s1"))  # told again without its time
    left = [("P1", "ticket_opened", "", NOON), ("s1", "ticket_opened", "", NOON)]
    assert rows_of(engine, "exits", "customer_id", "event", "occasion", "at") == left


def test_what_takes_a_person_s_messages_back_for_another_reason_may_be_told_with_a_batch(engine):
    take(engine, exits=[Exit("s1", "left", "k1", NOON)] * 2)
    take(engine, exits=[Exit("s1", "left", "k1", NOON)])
    assert rows_of(engine, "exits", "customer_id", "event", "occasion") == [("s1", "left", "k1")]


def test_an_emptied_cart_takes_back_the_messages_about_it_until_it_is_filled_again(engine):
    take(engine, event("e1", "add_to_cart", "k1", shop_customer_id="s1", product_id="p", quantity=2))
    take(engine, event("e2", "remove_from_cart", "k1", at=NOON + MINUTE, product_id="p", quantity=1))
    assert rows_of(engine, "exits", "event") == []
    take(engine, event("e3", "remove_from_cart", "k1", at=NOON + 2 * MINUTE, product_id="p", quantity=1))
    left = [("s1", "cart_emptied", "k1", NOON + 2 * MINUTE)]
    assert rows_of(engine, "exits", "customer_id", "event", "occasion", "at") == left
    take(engine, event("e4", "add_to_cart", "k1", at=NOON + 3 * MINUTE, product_id="q", quantity=1))
    assert rows_of(engine, "exits", "event") == []


def test_a_cart_whose_contents_nobody_told_is_not_taken_for_an_emptied_one(engine):
    take(engine, event("e1", "checkout_started", "k1", shop_customer_id="s1"))
    assert rows_of(engine, "carts", "cart_id", "emptied") == [("k1", False)]
    take(engine, snapshots=[Snapshot("k1", NOON + MINUTE, {}, "s1", None)])
    assert rows_of(engine, "carts", "cart_id", "emptied") == [("k1", True)]


def test_of_a_visitor_the_latest_word_on_each_fact_counts(engine):
    take(engine, logins=[Login("a1", "s2", None, NOON + HOUR), Login("a1", "s1", b"ana", NOON)])
    take(engine, logins=[Login("a1", None, b"eve", NOON + 2 * HOUR), Login("a1", None, b"old", NOON - HOUR)])
    assert rows_of(engine, "visitors", "anonymous_id", "shop_customer_id", "address_hash") == [("a1", "s2", b"eve")]


@pytest.mark.parametrize(
    ("last_at", "told"),
    [(timedelta(0), False), (-58 * MINUTE, False), (-59 * MINUTE, True), (-70 * HOUR, True)],
)
def test_who_waits_for_carts_is_told_where_one_may_be_due_within_a_minute(engine, last_at, told):
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listening:
        listening.execute(f"listen {carts.CHANNEL}")
        take(engine, event("e1", "add_to_cart", "k1", at=NOON + last_at), event("e2", "page_view", at=NOON - 2 * HOUR))
        heard = list(listening.notifies(timeout=0.05, stop_after=1))
    assert bool(heard) is told


# --- whatever the order -------------------------------------------------------------------------------------------------

CARTS, BROWSERS, CUSTOMERS = ("k1", "K2"), ("a1", "A2"), ("s1", "s2", "S9", "guest:1")
AT = st.integers(0, 5).map(lambda n: NOON + n * MINUTE)


def _some(values):
    return st.sampled_from([None, *values])


EVENTS = st.builds(
    lambda kind, cart, at, who, browser, product, pieces: (
        kind,
        cart,
        at,
        {"shop_customer_id": who, "anonymous_id": browser, "product_id": product, "quantity": pieces},
    ),
    st.sampled_from(["add_to_cart", "add_to_cart", "remove_from_cart", "remove_from_cart", "page_view"]),
    st.sampled_from(CARTS),
    AT,
    _some(CUSTOMERS),
    _some(BROWSERS),
    _some(("p", "q")),
    st.sampled_from([None, 1, 2]),
)
ORDERS = st.tuples(_some(CUSTOMERS), _some(CARTS), AT)
SNAPSHOTS = st.builds(
    Snapshot,
    st.sampled_from(CARTS),
    AT,
    st.dictionaries(st.sampled_from("pq"), st.integers(0, 2)),
    _some(CUSTOMERS),
    _some(BROWSERS),
)
LOGINS = st.builds(Login, st.sampled_from(BROWSERS), _some(CUSTOMERS[:3]), _some((b"ana", b"bob", b"who")), AT)


@st.composite
def crowds(draw) -> list[Row | Snapshot | Login]:
    """Things that happen to two carts."""
    happened: list[Any] = [
        event(f"e{n}", kind, cart, at, **more)
        for n, (kind, cart, at, more) in enumerate(draw(st.lists(EVENTS, max_size=8)))
    ]
    happened += [order(f"o{n}", *told) for n, told in enumerate(draw(st.lists(ORDERS, max_size=2)))]
    return happened + draw(st.lists(SNAPSHOTS, max_size=3)) + draw(st.lists(LOGINS, max_size=3))


def _batch(things: Iterable[Row | Snapshot | Login]) -> Batch:
    things = list(things)
    return Batch(
        [t for t in things if isinstance(t, Row)],
        [t for t in things if isinstance(t, Login)],
        [t for t in things if isinstance(t, Snapshot)],
        guests={"guest:1": b"bob"} if "guest:1" in repr(things) else {},
    )


def expected(things: Iterable[Row | Snapshot | Login]) -> dict[str, Any]:
    """The state that follows from the things, whatever their order, told in another way than the program does it."""
    things = list(things)
    who: dict[str, dict[str, Any]] = {browser: {} for browser in BROWSERS}
    for login in sorted((t for t in things if isinstance(t, Login)), key=lambda t: t.at):
        same_time = [
            t for t in things if isinstance(t, Login) and (t.anonymous_id, t.at) == (login.anonymous_id, login.at)
        ]
        for fact in ("shop_customer_id", "address_hash"):
            told = [getattr(t, fact) for t in same_time if getattr(t, fact) is not None]
            if told:
                who[login.anonymous_id][fact] = max(told)

    def person(shop_customer_id: str) -> str:
        return {**PEOPLE, "guest:1": "P2"}.get(shop_customer_id, shop_customer_id)

    def behind(browser: str | None) -> set[str]:
        facts = who.get(browser or "", {})
        found = {person(facts["shop_customer_id"])} if "shop_customer_id" in facts else set()
        return found | {p for p, address in ADDRESSES.items() if address == facts.get("address_hash")}

    state: dict[str, Any] = {"carts": [], "exits": set()}
    for row in things:
        if isinstance(row, Row) and row.raw_table == "raw/orders" and row.row.get("shop_customer_id"):
            ordered_by = row.row["shop_customer_id"]
            state["exits"] |= {(one, "ordered", "", row.at) for one in (ordered_by, person(ordered_by))}
    for cart in CARTS:
        rows = [t for t in things if isinstance(t, Row) and t.cart_id == cart]
        snapshots = [t for t in things if isinstance(t, Snapshot) and t.cart_id == cart]
        if not rows and not snapshots:
            continue
        last_at = max(t.at for t in (*rows, *snapshots))
        ordered_at = min((t.at for t in rows if t.raw_table == "raw/orders"), default=None)
        said = [(t.at, t.row.get("shop_customer_id"), t.row.get("anonymous_id")) for t in rows]
        said += [(t.at, t.shop_customer_id, t.anonymous_id) for t in snapshots]
        owner = max(((at, customer) for at, customer, _ in said if customer), default=(None, None))[1]
        browser = max(((at, name) for at, _, name in said if name), default=(None, None))[1]
        # of snapshots at one instant any may count: the same one in every order
        newest = max((t.at for t in snapshots), default=None)
        counts = Counter({})
        candidates = [dict(t.contents) for t in snapshots if t.at == newest] or [{}]
        moved = False
        for t in rows:
            sign = {"add_to_cart": 1, "remove_from_cart": -1}.get(t.row.get("type"), 0)
            if sign and t.row.get("product_id") and (newest is None or t.at > newest):
                counts[t.row["product_id"]] += sign * t.row.get("quantity", 1)
                moved = True
        held = [{p: n for p in {*counts, *found} if (n := counts[p] + found.get(p, 0)) > 0} for found in candidates]
        state["carts"].append((cart, owner, browser, last_at, ordered_at, held, moved or newest is not None))
        owners = ({person(owner)} if owner else set()) | behind(browser)
        owners |= {person(t.row["shop_customer_id"]) for t in rows if t.row.get("shop_customer_id")}
        if ordered_at is not None:
            state["exits"] |= {(one, "ordered", cart, last_at) for one in owners}
        state.setdefault("emptied", {})[cart] = {(one, "cart_emptied", cart, last_at) for one in owners}
    return state


def found(connection: sa.Connection) -> dict[str, Any]:
    """Everything that is stored, and the carts as they are told when all are due."""
    names = ("collected", "visitors", "guests", "carts", "exits")
    stored = {
        name: table(
            connection,
            name,
            *(c.name for c in schema.metadata.tables[f"shopauto.{name}"].c if c.name not in ("id", "received_at")),
        )
        for name in names[:-1]
    }
    stored["exits"] = table(connection, "exits", "customer_id", "event", "occasion", "at")
    stored["next"] = carts.next_due(connection, [HOUR], at=NOON, valid=HOUR)
    carts.queue_due(connection, [HOUR], at=NOON + 2 * HOUR, valid=24 * HOUR, limit=10)
    queued = carts.batch(connection, 0, 10)
    stored["due"] = sorted(carts.due(connection, *queued)) if queued else []
    return stored


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happened=crowds(), shuffles=st.randoms(use_true_random=False))
@example(
    happened=[
        event("e1", "add_to_cart", "k1", NOON, anonymous_id="a1", product_id="p"),
        event("e2", "remove_from_cart", "k1", NOON + MINUTE, product_id="p"),
        Login("a1", "s1", None, NOON + 2 * MINUTE),
    ],
    shuffles=random.Random(1),
)
def test_any_order_any_batches_and_any_repetition_leave_the_same_behind(shared_engine, happened, shuffles):
    def deliver(things: list) -> dict[str, Any]:
        with shared_engine.connect() as connection:
            _empty(connection)
            while things:
                size = shuffles.randint(1, len(things))
                store(connection, _batch(things[:size]), at=NOON)
                things = things[size:]
            left = found(connection)
            connection.rollback()
        return left

    once = deliver(list(happened))
    many = happened + shuffles.sample(happened, len(happened) // 2)
    shuffles.shuffle(many)
    assert deliver(many) == once
    told = expected(happened)
    due_carts = {cart.cart_id: cart for cart in once["due"]}
    exits = set(told["exits"])
    for cart, owner, browser, last_at, ordered_at, held, known in told["carts"]:
        (stored,) = [row for row in once["carts"] if row[0] == cart]
        assert (stored[1], stored[3], stored[5], stored[6]) == (owner, browser, last_at, ordered_at)
        if ordered_at is None:
            assert due_carts.pop(cart).contents in held
        emptied = stored[9]
        assert emptied in [known and not one for one in held]
        exits |= told["emptied"][cart] if emptied else set()
    assert due_carts == {}
    assert set(once["exits"]) == exits


def _empty(connection: sa.Connection) -> None:
    """Nothing stored, some people known, for as long as the transaction lasts."""
    for name in ("collected", "visitors", "guests", "carts", "due_carts", "exits", "people", "people_ids"):
        connection.execute(sa.text(f"delete from {name}"))
    for shop_customer_id, customer_id in PEOPLE.items():
        told = {"s": shop_customer_id, "c": customer_id}
        connection.execute(sa.text("insert into people_ids (shop_customer_id, customer_id) values (:s, :c)"), told)
    for customer_id, address_hash in ADDRESSES.items():
        row = {"customer_id": customer_id, "address_hash": address_hash, "as_of": NOON.date()}
        flags = dict.fromkeys(("lapsed", "held_out", "discount_seeker"), False)
        connection.execute(sa.insert(schema.people).values(row | flags))


def test_several_collectors_store_the_same_things_at_once_without_blocking_each_other(engine):
    people(engine, PEOPLE, ADDRESSES)
    luck = random.Random(7)
    kinds = ["add_to_cart", "remove_from_cart", "page_view"]
    things: list[Any] = [
        event(
            f"e{n}",
            luck.choice(kinds),
            f"k{luck.randrange(12)}",
            NOON + luck.randrange(600) * MINUTE,
            anonymous_id=f"a{luck.randrange(6)}",
            product_id=luck.choice("pq"),
            quantity=1,
        )
        for n in range(300)
    ]
    things += [order(f"o{n}", luck.choice(["s1", "s2"]), f"k{n}", NOON + n * MINUTE) for n in range(4)]
    things += [
        Login(f"a{n % 6}", luck.choice(["s1", "s2"]), luck.choice([b"ana", b"bob"]), NOON + n * MINUTE)
        for n in range(30)
    ]
    things += [Snapshot(f"k{n}", NOON + 300 * MINUTE, {"p": n % 2}, None, f"a{n % 6}") for n in range(12)]

    # whose exits a cart has is exact where the login came before; where both come in at once, ``due`` tells what has happened
    take(engine, logins=[thing for thing in things if isinstance(thing, Login)])

    def deliver(seed: int) -> Counter[str]:
        mine = things.copy()
        random.Random(seed).shuffle(mine)
        counted: Counter[str] = Counter()
        for start in range(0, len(mine), 20):
            with engine.begin() as connection:
                stored = store(connection, _batch(mine[start : start + 20]), at=NOON)
            counted.update(new=stored.new, repeated=stored.repeated)
            if start % 60 == 0:
                with engine.begin() as connection:
                    carts.queue_due(connection, [HOUR], at=NOON + 400 * MINUTE, valid=24 * HOUR, limit=5)
        return counted

    with ThreadPoolExecutor(4) as pool:
        counted = sum(pool.map(deliver, range(4)), Counter())
    assert counted == {"new": 304, "repeated": 3 * 304}

    def state(connection: sa.Connection) -> dict[str, list[tuple]]:
        columns = {
            "carts": ("cart_id", "last_at", "ordered_at", "snapshot", "emptied", "shop_customer_id", "anonymous_id")
        }
        columns |= {
            "exits": ("customer_id", "event", "occasion", "at"),
            "visitors": ("anonymous_id", "shop_customer_id"),
        }
        return {name: table(connection, name, *listed) for name, listed in columns.items()}

    with engine.connect() as connection:
        at_once = state(connection)
        connection.rollback()
        _empty(connection)
        store(connection, _batch(things), at=NOON)
        assert state(connection) == at_once
        connection.rollback()
    assert defaultdict(int, Counter(row[1] for row in at_once["exits"]))["ordered"] >= 4
