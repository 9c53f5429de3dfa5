"""Group commit, the bound on memory, and how fast an address may send."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.realtime.batch import Batch, Row
from shopauto_pipelines.realtime.collected import Stored
from shopauto_pipelines.realtime.collector.intake import ComeAgain, Rates, Room
from shopauto_pipelines.realtime.collector.writer import Writer
from shopauto_pipelines_tests.outbox.conftest import AT


def batch(*keys: str) -> Batch:
    return Batch(rows=[Row("raw/events", key, AT, None, {}) for key in keys])


class Store:
    """Remembers every commit; waits before the first one until it is let go."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.known: set[tuple[str, str]] = set()
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, given: Batch) -> Stored:
        self.begun.set()
        assert self.go.wait(10)
        keys = [row.key for row in given.rows]
        self.commits.append(keys)
        if "bad" in keys:
            raise sa.exc.DataError("insert", {}, Exception("bad"))
        new = frozenset((row.raw_table, row.key) for row in given.rows) - self.known
        self.known |= new
        return Stored(len(new), len(given.rows) - len(new), new)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def writer(store):
    made = Writer(store)
    yield made
    store.go.set()
    made.close()


def put_while_busy(writer, store, *batches):
    """Put the first, and the others while it is being stored."""
    first = writer.put(batches[0])
    assert store.begun.wait(10)
    rest = [writer.put(one) for one in batches[1:]]
    store.go.set()
    wait([first, *rest], 10)
    return [first, *rest]


def test_those_who_come_while_a_transaction_is_under_way_share_the_next_one(writer, store):
    done = put_while_busy(writer, store, batch("a"), batch("b"), batch("c", "d"))
    assert store.commits == [["a"], ["b", "c", "d"]]
    assert [sorted(key for _, key in one.result()) for one in done] == [["a"], ["b"], ["c", "d"]]


def test_what_two_of_them_say_is_news_of_the_first(writer, store):
    done = put_while_busy(writer, store, batch("a"), batch("b", "b"), batch("b", "c"))
    assert [sorted(key for _, key in one.result()) for one in done] == [["a"], ["b"], ["c"]]


def test_one_that_cannot_be_stored_is_not_the_others_loss(writer, store):
    done = put_while_busy(writer, store, batch("a"), batch("b"), batch("bad"), batch("c"))
    assert isinstance(done[2].exception(), sa.exc.DataError)
    assert [len(done[n].result()) for n in (0, 1, 3)] == [1, 1, 1]
    assert store.known == {("raw/events", key) for key in "abc"}


def test_one_that_is_given_up_harms_no_other(writer, store):
    first = writer.put(batch("a"))
    assert store.begun.wait(10)
    given_up, last = writer.put(batch("b")), writer.put(batch("c"))
    assert given_up.cancel()
    assert not first.cancel()
    store.go.set()
    assert len(last.result(10)) == 1
    assert store.commits == [["a"], ["c"]]


def test_a_transaction_is_bounded(writer, store):
    put_while_busy(writer, store, batch("a"), *(batch(*(f"{n}-{i}" for i in range(900))) for n in range(5)))
    assert [len(keys) for keys in store.commits] == [1, 2700, 1800]


def test_what_waits_at_the_end_is_stored(store):
    writer = Writer(store)
    done = [writer.put(batch("a")), writer.put(batch("b"))]
    store.go.set()
    writer.close()
    assert all(one.done() for one in done)
    with pytest.raises(RuntimeError, match="closed"):
        writer.put(batch("c"))


def test_the_room_is_bounded_and_given_back():
    room = Room(1)
    room.hold(600_000)
    with pytest.raises(ComeAgain, match="too much is waiting") as full:
        room.hold(600_000)
    assert (full.value.status, full.value.seconds) == (429, 1)
    room.release(600_000)
    room.hold(600_000)


def test_an_address_has_its_rate_and_a_reserve_of_ten_seconds():
    now = [0.0]
    rates = Rates(100, lambda: now[0])
    rates.spend("a", 1000)
    with pytest.raises(ComeAgain) as fast:
        rates.spend("a", 150)
    assert fast.value.seconds == 2
    rates.spend("b", 1000)
    now[0] = 1.5
    rates.spend("a", 150)
    with pytest.raises(Refused):
        rates.spend("a", 1)
    now[0] = 1000
    rates.spend("a", 1000)
    with pytest.raises(Refused):
        rates.spend("a", 1)


def test_no_number_of_addresses_fills_the_memory():
    now = [0.0]
    rates = Rates(100, lambda: now[0])
    for n in range(30_000):
        rates.spend(f"address-{n}", 1000)
        now[0] += 0.0001
    assert len(rates._left) <= 10_001
    with pytest.raises(Refused):
        rates.spend("address-29999", 1)
