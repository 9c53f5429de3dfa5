"""The ledger, on a real PostgreSQL."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.outbox import consents, controls, dispatchers, ledger, links, schema
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, changes, reserve, rows
from shopauto_pipelines_tests.outbox.reserving import Reserving


def _plan(engine: sa.Engine, planned: list[dict]) -> int:
    with engine.begin() as connection:
        return ledger.plan(connection, planned, run_id="run", at=AT)


def _history(engine: sa.Engine, message_id: int) -> list[tuple]:
    with engine.connect() as connection:
        return [change[1:4] for change in changes(connection) if change.message_id == message_id]


def test_a_database_that_goes_away_while_messages_are_planned_names_nobody_in_its_error(engine):
    with engine.connect() as connection, engine.connect() as other:
        other.execute(sa.select(sa.func.pg_terminate_backend(connection.scalar(sa.select(sa.func.pg_backend_pid())))))
        with pytest.raises(sa.exc.OperationalError) as raised:
            ledger.plan(connection, rows(1), run_id=None, at=AT)
    assert "insert into shopauto.messages" in str(raised.value).lower()
    assert "c000000" not in str(raised.value)


def test_planning_the_same_messages_again_adds_nothing(engine):
    assert _plan(engine, rows(5)) == 5
    assert _plan(engine, rows(7)) == 2


def test_a_message_goes_from_planned_to_sent_and_every_change_is_kept(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), *_ = reserve(connection)
    with engine.begin() as connection:
        assert ledger.settle(connection, [ledger.Settled(message.id, "sent", None, "p1")], by="me", at=AT) == 1
        assert ledger.counts(connection, "welcome", DAY) == {("sent", ""): 1}
    assert _history(engine, message.id) == [
        (None, "planned", None),
        ("planned", "reserved", None),
        ("reserved", "sent", None),
    ]


def test_a_reserved_message_is_not_reserved_again(engine):
    _plan(engine, rows(3))
    with engine.begin() as connection:
        assert len(reserve(connection)[0]) == 3
    with engine.begin() as connection:
        assert reserve(connection, by="other") == ([], 0, None)


def test_only_the_dispatcher_that_reserved_a_message_settles_it(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), *_ = reserve(connection)
        assert ledger.settle(connection, [ledger.Settled(message.id, "sent")], by="somebody else", at=AT) == 0


def test_a_message_put_back_is_reserved_by_the_next(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), *_ = reserve(connection)
        ledger.settle(connection, [ledger.Settled(message.id, "planned", "rate limit")], by="me", at=AT)
    with engine.begin() as connection:
        (again,), *_ = reserve(connection, by="other")
    assert again.id == message.id


def test_an_unknown_message_is_never_reserved_and_takes_better_knowledge(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), *_ = reserve(connection)
        ledger.settle(connection, [ledger.Settled(message.id, "unknown", "time-out")], by="me", at=AT)
    with engine.begin() as connection:
        assert reserve(connection) == ([], 0, None)
        assert ledger.settle(connection, [ledger.Settled(message.id, "planned")], by="me", at=AT) == 0
        assert ledger.settle(connection, [ledger.Settled(message.id, "sent")], by="me", at=AT) == 1


def test_an_address_suppressed_after_planning_gets_nothing_and_the_ledger_says_why(engine):
    _plan(engine, rows(2))
    with engine.begin() as connection:
        hashed = links.address_hash(b"key", "email", " C000001@Example.com ")
        assert consents.suppress(connection, hashed, "email", "unsubscribe", at=AT)
        assert not consents.suppress(connection, hashed, "email", "unsubscribe", at=AT)
    with engine.begin() as connection:
        reserved, *_ = reserve(connection)
        assert [message.key.customer_id for message in reserved] == ["c000000"]
        assert ledger.counts(connection, "welcome", DAY)["suppressed", "suppressed_unsubscribe"] == 1


def test_a_person_without_an_address_gets_nothing_and_the_ledger_says_why(engine):
    _plan(engine, rows(1, address_hash=None))
    with engine.begin() as connection:
        assert reserve(connection) == ([], 1, None)
        assert ledger.counts(connection, "welcome", DAY) == {("suppressed", "no_address"): 1}


def test_the_cap_holds_over_campaigns_and_within_a_batch(engine):
    cap = ledger.Cap(2, 7)
    _plan(engine, rows(1, campaign="news"))
    _plan(engine, [rows(1, step=step)[0] for step in ("one", "two", "three")])
    with engine.begin() as connection:
        assert len(reserve(connection, campaign="news", cap=cap)[0]) == 1
    with engine.begin() as connection:
        assert len(reserve(connection, cap=cap)[0]) == 1
        assert ledger.counts(connection, "welcome", DAY) == {("reserved", ""): 1, ("suppressed", "cap"): 2}


def test_the_cap_forgets_what_was_sent_before_its_days(engine):
    week_ago = DAY - timedelta(days=7)
    _plan(engine, rows(1, occasion="old", as_of=week_ago))
    _plan(engine, rows(1))
    with engine.begin() as connection:
        assert len(reserve(connection, as_of=week_ago, cap=ledger.Cap(1, 7))[0]) == 1
        assert len(reserve(connection, cap=ledger.Cap(1, 7))[0]) == 1


def test_the_cap_counts_later_days_too_as_days_may_be_sent_in_any_order(engine):
    _plan(engine, rows(1, occasion="later", as_of=DAY + timedelta(days=1)))
    _plan(engine, rows(1))
    with engine.begin() as connection:
        assert len(reserve(connection, as_of=DAY + timedelta(days=1), cap=ledger.Cap(1, 7)).messages) == 1
        assert reserve(connection, cap=ledger.Cap(1, 7)) == ([], 1, None)


def test_a_day_that_is_computed_again_brings_nobody_more_than_a_day_may(engine):
    """Whatever the audiences say then: what has left for the day counts, of the campaigns that share the day."""
    cap = ledger.Cap(3, 7, a_day=1, sharing=("news", "welcome"))
    _plan(engine, rows(1, campaign="news"))
    _plan(engine, rows(1, start=1, campaign="carts"))
    _plan(engine, rows(1, start=2, campaign="news", as_of=DAY - timedelta(days=1)))
    with engine.begin() as connection:
        for campaign, as_of in (("news", DAY), ("carts", DAY), ("news", DAY - timedelta(days=1))):
            assert len(reserve(connection, campaign=campaign, as_of=as_of, cap=cap).messages) == 1
    _plan(engine, rows(4))
    _plan(engine, rows(1, start=3, step="second"))
    with engine.begin() as connection:
        free = reserve(connection, cap=cap).messages
        assert [message.key.customer_id for message in free] == ["c000001", "c000002", "c000003"]
        assert ledger.counts(connection, "welcome", DAY) == {("reserved", ""): 3, ("suppressed", "day_cap"): 2}
    _plan(engine, rows(1, step="third"))
    with engine.begin() as connection:
        assert len(reserve(connection, cap=ledger.Cap(3, 7, a_day=2, sharing=("news",))).messages) == 1


def test_without_a_cap_any_number_leaves(engine):
    _plan(engine, rows(1))
    _plan(engine, rows(1, campaign="shipped"))
    with engine.begin() as connection:
        assert len(reserve(connection).messages) == 1
        none = ledger.Cap(None, 7)
        assert len(reserve(connection, campaign="shipped", cap=none).messages) == 1


def test_two_campaigns_at_once_keep_the_cap_together(engine):
    names = [f"campaign{n}" for n in range(4)]
    for name in names:
        _plan(engine, rows(200, campaign=name))

    def take(name: str) -> list[str]:
        with engine.begin() as connection:
            return [m.key.customer_id for m in reserve(connection, campaign=name, cap=ledger.Cap(2, 7))[0]]

    with ThreadPoolExecutor(4) as pool:
        taken = Counter(customer for part in pool.map(take, names) for customer in part)
    assert set(taken.values()) == {2}
    assert len(taken) == 200


def test_dispatchers_at_once_never_take_the_same_message(engine):
    _plan(engine, rows(2000))

    def work(name: str) -> list[int]:
        mine: list[int] = []
        while True:
            with engine.begin() as connection:
                reserved, looked_at, _ = reserve(connection, by=name, limit=37)
            if not looked_at:
                return mine
            mine += [message.id for message in reserved]

    with ThreadPoolExecutor(4) as pool:
        taken = [n for part in pool.map(work, (uuid.uuid4().hex for _ in range(4))) for n in part]
    assert len(taken) == len(set(taken)) == 2000


@contextmanager
def _dying(engine: sa.Engine) -> Iterator[str]:
    """A dispatcher that does not come to its end; the database has noticed it when the block is over."""
    with suppress(KeyboardInterrupt, sa.exc.OperationalError), dispatchers.dispatcher(engine) as name:
        yield name
        raise KeyboardInterrupt
    with engine.connect() as connection:
        for _ in range(1000):
            if not connection.scalar(sa.text(f"select count(*) from ({_LOCKS}) locks")):
                return
            time.sleep(0.01)
    raise AssertionError("its session does not end")


#: The sessions of dispatchers.
_LOCKS = "select pid from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()"
_ENDED = f"select pg_terminate_backend(pid, 10000) from ({_LOCKS}) locks"


def test_reservations_are_abandoned_only_once_their_dispatcher_is_gone(engine):
    _plan(engine, rows(2))
    with _dying(engine) as name:
        with engine.begin() as connection:
            reserve(connection, by=name)
        with engine.begin() as connection, dispatchers.abandoned(connection, at=AT) as left:
            assert left == []
    with engine.begin() as connection, dispatchers.abandoned(connection, at=AT) as left:
        assert [(found.dispatcher, len(found.held), len(found.handed_over)) for found in left] == [(name, 2, 0)]


def test_of_what_a_dead_dispatcher_had_reserved_only_what_it_handed_over_can_have_left(engine):
    _plan(engine, rows(6))
    with _dying(engine) as name:
        batches, after = [], 0
        for _ in range(3):
            with engine.begin() as connection:
                found = reserve(connection, by=name, limit=2, after=after)
                batches.append([message.id for message in found.messages])
                after = max(batches[-1])
        for batch in (batches[0], batches[2]):
            with engine.begin() as connection:
                assert dispatchers.hand_over(connection, batch, by=name)
    with engine.begin() as connection, dispatchers.abandoned(connection, at=AT) as left:
        (found,) = left
        assert [message.id for message in found.handed_over] == [*batches[0], *batches[2]]
        assert [message.id for message in found.held] == batches[1]


def test_a_dispatcher_that_others_gave_up_for_dead_hands_nothing_over(engine):
    _plan(engine, rows(1))
    with engine.connect() as other, _dying(engine) as name:
        with engine.begin() as connection:
            (message,) = reserve(connection, by=name).messages
        # as a restart of the database would: the session that shows that it lives ends
        assert all(other.execute(sa.text(_ENDED)).scalars())
        with engine.begin() as connection, dispatchers.abandoned(connection, at=AT) as left:
            assert [found.dispatcher for found in left] == [name]
        with engine.begin() as connection:
            assert not dispatchers.hand_over(connection, [message.id], by=name)


def test_what_a_dispatcher_hands_over_while_others_look_for_what_it_left_counts_as_handed_over(engine):
    _plan(engine, rows(4))
    with engine.connect() as other, _dying(engine) as name:
        with engine.begin() as connection:
            before = reserve(connection, by=name, limit=2).messages
        assert all(other.execute(sa.text(_ENDED)).scalars())  # it lives on, and does not know that others cannot see it
        meanwhile: list[int] = []

        def goes_on(_connection, _cursor, statement, *_):
            if "pg_try_advisory_xact_lock" in statement and not meanwhile:
                with engine.begin() as another:
                    meanwhile.extend(message.id for message in reserve(another, by=name, after=before[-1].id).messages)
                with engine.begin() as another:
                    assert dispatchers.hand_over(another, meanwhile, by=name)

        sa.event.listen(engine, "before_cursor_execute", goes_on)
        with engine.begin() as connection, dispatchers.abandoned(connection, at=AT) as left:
            (found,) = left
        sa.event.remove(engine, "before_cursor_execute", goes_on)
    assert len(meanwhile) == 2
    assert [message.id for message in found.handed_over] == meanwhile
    assert [message.id for message in found.held] == [message.id for message in before]


def test_what_was_sent_to_another_id_of_the_person_is_not_sent_again(engine):
    (message,) = rows(1)
    _plan(engine, [message])
    with engine.begin() as connection:
        (taken,) = reserve(connection).messages
        ledger.settle(connection, [ledger.Settled(taken.id, "sent")], by="me", at=AT)
    older = message | {"customer_id": "older", "other_ids": [message["customer_id"]]}
    assert _plan(engine, [older, older | {"occasion": "another", "step": "next"}]) == 2
    with engine.begin() as connection:
        (free,) = reserve(connection).messages
        assert (free.key.step, free.key.customer_id) == ("next", "older")
        assert ledger.counts(connection, "welcome", DAY)[("suppressed", "already_sent")] == 1


def test_what_waits_under_another_id_of_the_person_is_withdrawn(engine):
    (message,) = rows(1)
    _plan(engine, [message])
    _plan(engine, [message | {"customer_id": "older", "other_ids": [message["customer_id"]]}])
    with engine.begin() as connection:
        assert [found.key.customer_id for found in reserve(connection).messages] == ["older"]
        assert ledger.counts(connection, "welcome", DAY) == {("reserved", ""): 1, ("suppressed", "withdrawn"): 1}


def test_a_message_that_comes_once_is_not_sent_again_on_another_occasion(engine):
    first, other = rows(2)
    _plan(engine, [first])
    with engine.begin() as connection:
        assert len(reserve(connection, once=True).messages) == 1
    moved = [{**first, "occasion": "2025-12-24"}, {**other, "occasion": "2025-12-24"}]
    _plan(engine, [*moved, {**first, "step": "next"}])
    with engine.begin() as connection:
        left = [(found.key.step, found.key.customer_id) for found in reserve(connection, once=True).messages]
        assert left == [("hello", other["customer_id"]), ("next", first["customer_id"])]
        assert ledger.counts(connection, "welcome", DAY)[("suppressed", "already_sent")] == 1


@pytest.mark.parametrize("limit", [{"messages": 1, "days": 7}, {"messages": 9, "days": 7, "a_day": 1}])
def test_caps_count_what_all_ids_of_a_person_had(engine, limit):
    (message,) = rows(1)
    _plan(engine, [message])
    cap = ledger.Cap(**limit, sharing=("welcome", "news"))
    with engine.begin() as connection:
        assert len(reserve(connection, cap=cap).messages) == 1
    other = {"campaign": "news", "customer_id": "older", "occasion": "today"}
    _plan(engine, [message | other | {"other_ids": [message["customer_id"]]}, message | other | {"customer_id": "new"}])
    with engine.begin() as connection:
        assert [found.key.customer_id for found in reserve(connection, campaign="news", cap=cap).messages] == ["new"]
        held = "day_cap" if "a_day" in limit else "cap"
        assert ledger.counts(connection, "news", DAY)[("suppressed", held)] == 1


def test_what_happened_to_another_id_of_the_person_takes_a_message_back(engine):
    (message,) = rows(1, exit_on=["ordered"], triggered_at=AT)
    _plan(engine, [message | {"other_ids": ["younger"]}])
    with engine.begin() as connection:
        connection.execute(
            sa.insert(schema.exits).values(customer_id="younger", event="ordered", at=AT + timedelta(hours=1))
        )
        assert reserve(connection).messages == []
        assert ledger.counts(connection, "welcome", DAY) == {("suppressed", "ordered"): 1}


def test_failed_messages_are_planned_again_only_by_an_operator(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), *_ = reserve(connection)
        ledger.settle(connection, [ledger.Settled(message.id, "failed", "400")], by="me", at=AT)
        assert reserve(connection) == ([], 0, None)
        assert ledger.retry_failed(connection, "welcome", DAY, at=AT) == 1
        assert len(reserve(connection)[0]) == 1


def test_a_new_day_takes_over_what_an_earlier_day_left_planned(engine):
    _plan(engine, rows(3))
    with engine.begin() as connection:
        reserve(connection, limit=1)
    tomorrow = {
        "as_of": DAY + timedelta(days=1),
        "language": "de",
        "template": "hallo",
        "explanation": {"trigger": "still waiting"},
        "address_hash": links.address_hash(b"key", "email", "new@example.com"),
        "topic": "offers",
        "triggered_at": AT,
        "exit_on": ["ordered"],
    }
    assert _plan(engine, rows(4, **tomorrow)) == 3  # two taken over, one new; the reserved one stays where it is
    with engine.begin() as connection:
        assert ledger.counts(connection, "welcome", DAY) == {("reserved", ""): 1}
        assert reserve(connection) == ([], 0, None)
        first, *_ = reserve(connection, as_of=DAY + timedelta(days=1)).messages
        row = connection.execute(sa.select(schema.messages).where(schema.messages.c.id == first.id)).one()
    assert {name: getattr(row, name) for name in tomorrow} == tomorrow
    assert _history(engine, first.id) == [
        (None, "planned", None),
        ("planned", "planned", "taken_over"),
        ("planned", "reserved", None),
    ]


def test_a_day_that_is_planned_again_says_what_it_says_now_and_takes_nothing_from_a_later_day(engine):
    _plan(engine, rows(2))
    with engine.begin() as connection:
        reserve(connection, limit=1)
    assert _plan(engine, rows(2, template="another")) == 0, "new to their day is none"
    assert _plan(engine, rows(2, as_of=DAY - timedelta(days=1), template="of yesterday")) == 0
    with engine.begin() as connection:
        assert [m.template for m in reserve(connection).messages] == ["another"]
        kept = connection.execute(sa.select(schema.messages.c.template).order_by(schema.messages.c.id)).scalars().all()
    assert kept == ["hello", "another"], "the reserved one may be on its way, and stays as it was"


def test_planning_the_same_again_writes_nothing(engine):
    exact = {"send_from": AT, "time_zone": "Asia/Tokyo", "triggered_at": AT, "exit_on": ["ordered"], "topic": "news"}
    _plan(engine, rows(2, **exact))
    with engine.begin() as connection:
        before = connection.execute(sa.text("select id, xmin::text from shopauto.messages order by id")).all()
    _plan(engine, rows(2, **exact))
    with engine.begin() as connection:
        assert connection.execute(sa.text("select id, xmin::text from shopauto.messages order by id")).all() == before


def test_only_what_waits_is_withdrawn(engine):
    _plan(engine, rows(3))
    with engine.begin() as connection:
        (first,) = reserve(connection, limit=1).messages
        ledger.settle(connection, [ledger.Settled(first.id, "sent")], by="me", at=AT)
        (second,) = reserve(connection, limit=1).messages
        newest = ledger.newest_id(connection)
        ((waits, key),) = ledger.planned_keys(connection, "welcome", DAY, newest)
        assert key.customer_id == "c000002"
        assert list(ledger.planned_keys(connection, "welcome", DAY, newest - 1)) == []
        assert ledger.withdraw(connection, [first.id, second.id, waits], at=AT) == 1
        assert ledger.counts(connection, "welcome", DAY) == {
            ("reserved", ""): 1,
            ("sent", ""): 1,
            ("suppressed", "withdrawn"): 1,
        }
        assert ledger.withdraw(connection, [], at=AT) == 0


def test_the_same_message_twice_among_those_to_plan_is_one(engine):
    assert _plan(engine, rows(1) + rows(1)) == 1
    assert _plan(engine, rows(1, as_of=DAY + timedelta(days=1)) * 2) == 1


def test_a_day_that_takes_over_waits_for_a_reservation_under_way_and_leaves_it_alone(engine):
    _plan(engine, rows(1))
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            assert len(reserve(connection).messages) == 1
            planning = pool.submit(_plan, engine, rows(1, as_of=DAY + timedelta(days=1)))
            with pytest.raises(TimeoutError):
                planning.result(timeout=0.3)
        assert planning.result(timeout=20) == 0
    with engine.begin() as connection:
        assert ledger.counts(connection, "welcome", DAY) == {("reserved", ""): 1}


def test_a_reservation_does_not_wait_for_a_day_that_takes_over_and_looks_behind_it(engine):
    _plan(engine, rows(5))
    with engine.begin() as taking, engine.begin() as connection:
        ledger.plan(taking, rows(4, as_of=DAY + timedelta(days=1)), run_id=None, at=AT)
        connection.execute(sa.text("set local lock_timeout = '2s'"))
        assert [m.key.customer_id for m in reserve(connection, limit=2).messages] == ["c000004"]
        assert reserve(connection, limit=2) == ([], 0, None)


def test_a_message_whose_event_is_being_stored_is_not_passed_over(engine):
    _plan(engine, rows(1))
    event = {"event_id": "e", "type": "open", "at": AT, "received_at": AT, "is_machine": False}
    with engine.begin() as storing, engine.begin() as connection:
        message_id = storing.execute(sa.select(schema.messages.c.id)).scalar_one()
        storing.execute(sa.insert(schema.provider_events).values(message_id=message_id, **event))
        connection.execute(sa.text("set local lock_timeout = '2s'"))
        assert len(reserve(connection).messages) == 1


def test_what_closed_days_left_planned_is_given_up_and_the_ledger_says_why(engine):
    _plan(engine, rows(2))
    _plan(engine, rows(1, campaign="another"))
    _plan(engine, rows(1, start=5, as_of=DAY + timedelta(days=1)))
    with engine.begin() as connection:
        (message,) = reserve(connection, limit=1).messages
        assert ledger.expire(connection, "welcome", DAY, at=AT) == 0
        assert ledger.expire(connection, "welcome", DAY + timedelta(days=1), at=AT) == 1
        assert ledger.counts(connection, "welcome", DAY) == {("reserved", ""): 1, ("suppressed", "window_closed"): 1}
        assert ledger.counts(connection, "another", DAY) == {("planned", ""): 1}
        ledger.settle(connection, [ledger.Settled(message.id, "sent")], by="me", at=AT)
        assert len(reserve(connection, as_of=DAY + timedelta(days=1)).messages) == 1


def test_what_is_reserved_at_this_moment_is_not_given_up(engine):
    _plan(engine, rows(1))
    with engine.begin() as first, engine.begin() as second:
        assert len(reserve(first).messages) == 1
        assert ledger.expire(second, "welcome", DAY + timedelta(days=1), at=AT) == 0


@pytest.mark.parametrize(
    ("topic", "channel", "goes"),
    [("*", "email", False), ("news", "email", False), ("offers", "email", True), ("*", "sms", True)],
)
def test_who_opts_out_after_planning_gets_nothing_of_that_topic_and_channel(engine, topic, channel, goes):
    (row,) = rows(1)
    _plan(engine, [row])
    with engine.begin() as connection:
        consents.choose(connection, row["address_hash"], channel, "opted_out", source="test", at=AT, topic=topic)
    with engine.begin() as connection:
        assert bool(reserve(connection).messages) is goes
        assert (("suppressed", "opted_out") in ledger.counts(connection, "welcome", DAY)) is not goes


def test_the_latest_choice_counts_whenever_it_was_learnt(engine):
    (row,) = rows(1)
    _plan(engine, [row])
    with engine.begin() as connection:
        for choice, hours in (("opted_out", -3), ("opted_in", -1), ("opted_out", -2)):
            at = AT + timedelta(hours=hours)
            consents.choose(connection, row["address_hash"], "email", choice, source="test", at=at)
    with engine.begin() as connection:
        assert len(reserve(connection).messages) == 1


def test_who_asked_for_less_gets_one_message_in_that_many_days(engine):
    cap = ledger.Cap(3, 7, less_often_days=30)
    _plan(engine, rows(2, occasion="long ago", as_of=DAY - timedelta(days=29)))
    with engine.begin() as connection:
        consents.choose(connection, rows(1)[0]["address_hash"], "email", "less_often", source="test", at=AT)
        assert len(reserve(connection, as_of=DAY - timedelta(days=29), cap=cap).messages) == 2
    _plan(engine, rows(2))
    with engine.begin() as connection:
        assert [m.key.customer_id for m in reserve(connection, cap=cap).messages] == ["c000001"]
        assert ledger.counts(connection, "welcome", DAY)["suppressed", "less_often"] == 1
    _plan(engine, rows(1, occasion="later", as_of=DAY + timedelta(days=1)))
    with engine.begin() as connection:
        assert len(reserve(connection, as_of=DAY + timedelta(days=1), cap=cap).messages) == 1


def test_who_asked_for_less_gets_every_transactional_message(engine):
    _plan(engine, [*rows(1, step="one"), *rows(1, step="two")])
    with engine.begin() as connection:
        consents.choose(connection, rows(1)[0]["address_hash"], "email", "less_often", source="test", at=AT)
        assert len(reserve(connection, cap=ledger.Cap(None, 7)).messages) == 2


@pytest.mark.parametrize(("topic", "goes"), [("*", False), ("news", False), ("offers", True)])
def test_who_asked_for_less_of_a_topic_gets_less_of_that_topic(engine, topic, goes):
    _plan(engine, [*rows(1, step="one"), *rows(1, step="two")])
    with engine.begin() as connection:
        hashed = rows(1)[0]["address_hash"]
        consents.choose(connection, hashed, "email", "less_often", source="test", at=AT, topic=topic)
        assert len(reserve(connection).messages) == 1 + goes


@pytest.mark.parametrize(
    ("exit_on", "event", "minutes", "goes"),
    [
        (["ordered", "left_segment"], "ordered", 1, False),
        (["ordered"], "ordered", 0, False),
        (["ordered"], "ordered", -1, True),
        (["left_segment"], "ordered", 1, True),
        ([], "ordered", 1, True),
    ],
)
def test_what_happened_since_the_trigger_takes_a_message_back(engine, exit_on, event, minutes, goes):
    triggered = AT - timedelta(days=1)
    _plan(engine, rows(2, exit_on=exit_on, triggered_at=triggered))
    with engine.begin() as connection:
        consents.left(connection, "c000000", event, at=triggered + timedelta(minutes=minutes))
        assert [m.key.customer_id for m in reserve(connection).messages] == ["c000000", "c000001"][not goes :]
        assert (("suppressed", event) in ledger.counts(connection, "welcome", DAY)) is not goes


def test_without_a_moment_of_its_trigger_a_message_is_taken_back_by_what_happened_since_it_was_planned(engine):
    _plan(engine, rows(2, exit_on=["ordered"]))
    with engine.begin() as connection:
        consents.left(connection, "c000000", "ordered", at=AT + timedelta(minutes=1))
        consents.left(connection, "c000001", "ordered", at=AT - timedelta(minutes=1))
        assert [m.key.customer_id for m in reserve(connection).messages] == ["c000001"]


def test_a_dispatcher_that_says_how_far_it_is_gets_only_what_comes_after(engine):
    _plan(engine, rows(4))
    with engine.begin() as connection:
        first, second = reserve(connection, limit=2).messages
        ledger.settle(connection, [ledger.Settled(first.id, "planned", "busy")], by="me", at=AT)
        assert [m.key.customer_id for m in reserve(connection, after=second.id).messages] == ["c000002", "c000003"]
        assert [m.id for m in reserve(connection).messages] == [first.id]


def test_an_event_settles_what_is_unclear_and_what_a_dispatcher_still_holds_and_nothing_else(engine):
    _plan(engine, rows(5))
    with engine.begin() as connection:
        a, b, c, d = (m.id for m in reserve(connection, limit=4).messages)
        settled = [ledger.Settled(a, "unknown"), ledger.Settled(b, "unknown"), ledger.Settled(c, "sent", None, "mine")]
        ledger.settle(connection, settled, by="me", at=AT)
        planned = connection.execute(sa.select(sa.func.max(schema.messages.c.id))).scalar_one()
        outcomes = [
            (a, "sent", "p1"),
            (b, "failed", None),
            (c, "failed", "p3"),
            (d, "sent", "p4"),
            (planned, "sent", None),
        ]
        assert ledger.settle_by_event(connection, [*outcomes, (a, "sent", "p1"), (10**9, "sent", None)], at=AT) == 3
        assert ledger.settle_by_event(connection, outcomes, at=AT) == 0
        found = connection.execute(
            sa.select(schema.messages.c.state, schema.messages.c.provider_id).order_by(schema.messages.c.id)
        ).all()
        assert [tuple(row) for row in found] == [
            ("sent", "p1"),
            ("failed", None),
            ("sent", "mine"),
            ("sent", "p4"),
            ("planned", None),
        ]
        # the dispatcher comes late: what it was told by a time-out does not undo what the event knew
        assert ledger.settle(connection, [ledger.Settled(d, "unknown", "time-out")], by="me", at=AT) == 0
    assert _history(engine, d)[-1] == ("reserved", "sent", None)


def test_a_dispatcher_and_events_that_settle_the_same_messages_at_once_do_not_block_each_other_for_ever(engine):
    _plan(engine, rows(50))
    with engine.begin() as connection:
        taken = [message.id for message in reserve(connection).messages]

    def by_dispatcher() -> int:
        with engine.begin() as connection:
            return ledger.settle(connection, [ledger.Settled(n, "sent") for n in reversed(taken)], by="me", at=AT)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            ledger.settle_by_event(connection, [(taken[0], "sent", None)], at=AT)
            settling = pool.submit(by_dispatcher)
            with pytest.raises(TimeoutError):
                settling.result(timeout=0.5)
            assert ledger.settle_by_event(connection, [(taken[-1], "sent", None)], at=AT) == 1
        assert settling.result(timeout=20) == 48
    assert _count(engine, "sent") == 50


def test_what_a_provider_answers_is_kept_even_where_it_is_no_text(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,) = reserve(connection).messages
        ledger.settle(connection, [ledger.Settled(message.id, "failed", "no\0\ud800 “ok”")], by="me", at=AT)
        assert ledger.counts(connection, "welcome", DAY) == {("failed", "no? “ok”"): 1}


def test_unclear_messages_are_listed_and_settled_by_hand_as_far_as_the_filters_go(engine):
    for campaign in ("welcome", "another"):
        _plan(engine, rows(3, campaign=campaign))
        with engine.begin() as connection:
            taken = reserve(connection, campaign=campaign, limit=2).messages
            ledger.settle(connection, [ledger.Settled(m.id, "unknown", "time-out") for m in taken], by="me", at=AT)
    with engine.begin() as connection:
        assert ledger.unknown_counts(connection) == {("another", DAY): 2, ("welcome", DAY): 2}
        first, second = ledger.unknown(connection, "welcome")
        assert (first.reason, first.changed_at, first.via) == ("time-out", AT, "inbox")
        assert len(ledger.unknown(connection, limit=3)) == 3

        def resolve(**filters) -> int:
            return ledger.resolve(connection, state="sent", why="seen in their log", at=AT, **filters)

        assert resolve(as_of=DAY - timedelta(days=1)) == resolve(via="sendgrid") == resolve(ids=[]) == 0
        assert resolve(ids=[first.id, 10**9]) == 1
        assert resolve(campaign="another", as_of=DAY, via="inbox") == 2
        assert ledger.resolve(connection, state="failed", why="refused", at=AT) == 1
        assert ledger.unknown(connection) == []
    assert _history(engine, first.id)[-1] == ("unknown", "sent", "seen in their log")
    assert _history(engine, second.id)[-1] == ("unknown", "failed", "refused")


def test_rates_count_messages_not_events(engine):
    _plan(engine, rows(6))
    with engine.begin() as connection:
        taken = reserve(connection, limit=5).messages
        early, *late = taken
        ledger.settle(connection, [ledger.Settled(early.id, "sent")], by="me", at=AT - timedelta(hours=2))
        ledger.settle(connection, [ledger.Settled(m.id, "sent") for m in late], by="me", at=AT)
        types = [
            ["delivered", "delivered", "spam_report"],
            ["bounce", "dropped"],
            ["delivered", "open"],
            [],
            ["spam_report"],
        ]
        events = [
            {
                "event_id": f"{message.id}-{n}",
                "message_id": message.id,
                "type": kind,
                "at": AT,
                "received_at": AT,
                "is_machine": False,
            }
            for message, kinds in zip([*late, early], types, strict=True)
            for n, kind in enumerate(kinds)
        ]
        connection.execute(sa.insert(schema.provider_events), events)
        assert ledger.rates(connection, "welcome", AT - timedelta(hours=1)) == (4, 2, 1, 1)
        assert ledger.rates(connection, "welcome", AT - timedelta(hours=3)) == (5, 2, 1, 2)
        assert ledger.rates(connection, "another", AT - timedelta(hours=3)) == (0, 0, 0, 0)


def _begun(engine: sa.Engine, campaigns: list[str]) -> list[Reserving]:
    """Dispatchers that begin together."""
    processes = [Reserving(engine, campaign) for campaign in campaigns]
    for process in processes:
        process.begin()
    return processes


def test_processes_share_the_work_and_keep_the_cap_over_campaigns(engine):
    campaigns = ["one", "two", "three"]
    for campaign in campaigns:
        _plan(engine, rows(400, campaign=campaign))
    processes = _begun(engine, [*campaigns, "one"])
    taken = [pair for process in processes for pair in process.end().taken]
    assert len({message for message, _ in taken}) == len(taken) == 800
    assert set(Counter(customer for _, customer in taken).values()) == {2}
    with engine.connect() as connection:
        states = Counter()
        for campaign in campaigns:
            states.update(ledger.counts(connection, campaign, DAY))
    assert states == {("sent", ""): 800, ("suppressed", "cap"): 400}


def test_from_the_commit_of_a_pause_on_no_process_reserves_and_afterwards_nobody_is_missed(engine):
    _plan(engine, rows(3000))
    processes = _begun(engine, ["welcome"] * 3)
    while not _count(engine, "sent"):
        pass
    with engine.begin() as connection:
        controls.pause(connection, "welcome", "wrong price", "Eva", AT)
    at_the_pause = 3000 - _count(engine, "planned")
    ends = [process.end() for process in processes]
    assert 3000 - _count(engine, "planned") == at_the_pause < 3000
    assert sum(len(end.taken) for end in ends) == at_the_pause
    assert all("wrong price" in end.stopped for end in ends)
    with engine.begin() as connection:
        controls.resume(connection, "welcome", "Eva", AT)
    ends += [process.end() for process in _begun(engine, ["welcome"] * 2)]
    taken = [message for end in ends for message, _ in end.taken]
    assert len(taken) == len(set(taken)) == _count(engine, "sent") == 3000


def _count(engine: sa.Engine, state: str) -> int:
    with engine.connect() as connection:
        return sum(n for (found, _), n in ledger.counts(connection, "welcome", DAY).items() if found == state)


_ALLOWED = {
    ("planned", "reserved"),
    ("planned", "suppressed"),
    ("reserved", "sent"),
    ("reserved", "failed"),
    ("reserved", "unknown"),
    ("reserved", "planned"),
    ("unknown", "sent"),
    ("unknown", "failed"),
    ("failed", "planned"),
}


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(st.sampled_from(schema.STATES), min_size=1, max_size=6))
def test_the_database_refuses_every_change_of_state_that_must_not_be_and_keeps_the_others(engine, path):
    customer = uuid.uuid4().hex
    _plan(engine, rows(1, customer_id=customer, send_from=AT, time_zone="Europe/London"))
    with engine.connect() as connection:
        mine = schema.messages.c.customer_id == customer
        message_id = connection.execute(sa.select(schema.messages.c.id).where(mine)).scalar_one()
    state, expected = "planned", [(None, "planned", None)]
    for wanted in path:
        change = sa.update(schema.messages).where(mine).values(state=wanted, reserved_by="x", changed_at=AT)
        if wanted == state or (state, wanted) in _ALLOWED:
            with engine.begin() as connection:
                connection.execute(change)
                assert _open(connection) == _not_at_their_end(connection)
            if wanted != state:
                expected.append((state, wanted, None))
            state = wanted
        else:
            with pytest.raises(sa.exc.IntegrityError, match="message_history_follows"), engine.begin() as c:
                c.execute(change)
    assert _history(engine, message_id) == expected


def _open(connection: sa.Connection) -> list[tuple]:
    found = schema.open_messages
    return [tuple(row) for row in connection.execute(sa.select(found).order_by(found.c.message_id))]


def _not_at_their_end(connection: sa.Connection) -> list[tuple]:
    of = schema.messages.c
    wanted = sa.select(of.id, of.campaign, of.as_of, of.state == "planned", of.send_from, of.time_zone)
    ending = of.state.in_(("sent", "failed", "suppressed"))
    return [tuple(row) for row in connection.execute(wanted.where(~ending).order_by(of.id))]


def test_changes_of_state_rewrite_no_index(engine):
    _plan(engine, rows(200))
    with engine.begin() as connection:
        before = _updates(connection)
        taken = reserve(connection).messages
        assert _updates(connection) - before == {"all": 200, "in place": 200}
    with engine.begin() as connection:
        before = _updates(connection)
        ledger.settle(connection, [ledger.Settled(m.id, "sent", None, "x" * 22) for m in taken], by="me", at=AT)
        assert _updates(connection) - before == {"all": 200, "in place": 200}


def _updates(connection: sa.Connection) -> Counter[str]:
    """Messages this session has lately updated, and how many of them without a new entry in any index."""
    kinds = {"all": "updated", "in place": "hot_updated"}
    counted = (f"pg_stat_get_xact_tuples_{kind}('shopauto.messages'::regclass)" for kind in kinds.values())
    return Counter(dict(zip(kinds, connection.execute(sa.text(f"select {', '.join(counted)}")).one(), strict=True)))
