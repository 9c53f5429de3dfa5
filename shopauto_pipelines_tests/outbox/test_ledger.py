"""The ledger, on a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.outbox import ledger, links
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows


def _plan(engine: sa.Engine, planned: list[dict]) -> int:
    with engine.begin() as connection:
        return ledger.plan(connection, planned, run_id="run", at=AT)


def _history(engine: sa.Engine, message_id: int) -> list[tuple]:
    history = ledger.message_history
    with engine.connect() as connection:
        found = connection.execute(
            sa.select(history.c.from_state, history.c.to_state, history.c.why)
            .where(history.c.message_id == message_id)
            .order_by(history.c.id)
        )
        return [tuple(row) for row in found]


def test_the_migrated_tables_are_the_declared_ones(engine):
    def ours(name, kind, parent_names):
        return kind != "schema" or name == "shopauto"

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": ours,
                "version_table_schema": "shopauto",
                "compare_type": True,
            },
        )
        known = {f"{table.schema}.{table.name}" for table in ledger.metadata.tables.values()}
        differences = [d for d in compare_metadata(context, ledger.metadata) if not _foreign(d, known)]
    assert differences == []


def _foreign(difference, known: set[str]) -> bool:
    """Whether a difference is about a table of another room."""
    table = difference[1] if isinstance(difference, tuple) and difference[0] == "remove_table" else None
    return table is not None and f"{table.schema}.{table.name}" not in known


def test_planning_the_same_messages_again_adds_nothing(engine):
    assert _plan(engine, rows(5)) == 5
    assert _plan(engine, rows(7)) == 2


def test_a_message_goes_from_planned_to_sent_and_every_change_is_kept(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), _ = reserve(connection)
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
        assert reserve(connection, by="other") == ([], 0)


def test_only_the_dispatcher_that_reserved_a_message_settles_it(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), _ = reserve(connection)
        assert ledger.settle(connection, [ledger.Settled(message.id, "sent")], by="somebody else", at=AT) == 0


def test_a_message_put_back_is_reserved_by_the_next(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), _ = reserve(connection)
        ledger.settle(connection, [ledger.Settled(message.id, "planned", "rate limit")], by="me", at=AT)
    with engine.begin() as connection:
        (again,), _ = reserve(connection, by="other")
    assert again.id == message.id


def test_an_unknown_message_is_never_reserved_and_takes_better_knowledge(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), _ = reserve(connection)
        ledger.settle(connection, [ledger.Settled(message.id, "unknown", "time-out")], by="me", at=AT)
    with engine.begin() as connection:
        assert reserve(connection) == ([], 0)
        assert ledger.settle(connection, [ledger.Settled(message.id, "planned")], by="me", at=AT) == 0
        assert ledger.settle(connection, [ledger.Settled(message.id, "sent")], by="me", at=AT) == 1


def test_an_address_suppressed_after_planning_gets_nothing_and_the_ledger_says_why(engine):
    _plan(engine, rows(2))
    with engine.begin() as connection:
        hashed = links.address_hash(b"key", "email", " C000001@Example.com ")
        assert ledger.suppress(connection, hashed, "email", "unsubscribe", at=AT)
        assert not ledger.suppress(connection, hashed, "email", "bounce", at=AT)
    with engine.begin() as connection:
        reserved, _ = reserve(connection)
        assert [message.key.customer_id for message in reserved] == ["c000000"]
        assert ledger.counts(connection, "welcome", DAY)["suppressed", "suppressed_unsubscribe"] == 1


def test_a_person_without_an_address_gets_nothing_and_the_ledger_says_why(engine):
    _plan(engine, rows(1, address_hash=None))
    with engine.begin() as connection:
        assert reserve(connection) == ([], 1)
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
                reserved, looked_at = reserve(connection, by=name, limit=37)
            if not looked_at:
                return mine
            mine += [message.id for message in reserved]

    with ThreadPoolExecutor(4) as pool:
        taken = [n for part in pool.map(work, (uuid.uuid4().hex for _ in range(4))) for n in part]
    assert len(taken) == len(set(taken)) == 2000


def test_reservations_are_abandoned_only_once_their_dispatcher_is_gone(engine):
    _plan(engine, rows(2))
    with ledger.dispatcher(engine) as name:
        with engine.begin() as connection:
            reserve(connection, by=name)
        with engine.begin() as connection, ledger.abandoned(connection, "inbox") as left:
            assert left == []
    with engine.begin() as connection, ledger.abandoned(connection, "inbox") as left:
        assert [(who, len(found)) for who, found in left] == [(name, 2)]
    with engine.begin() as connection, ledger.abandoned(connection, "sendgrid") as left:
        assert left == []


def test_failed_messages_are_planned_again_only_by_an_operator(engine):
    _plan(engine, rows(1))
    with engine.begin() as connection:
        (message,), _ = reserve(connection)
        ledger.settle(connection, [ledger.Settled(message.id, "failed", "400")], by="me", at=AT)
        assert reserve(connection) == ([], 0)
        assert ledger.retry_failed(connection, "welcome", DAY, at=AT) == 1
        assert len(reserve(connection)[0]) == 1


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
@given(path=st.lists(st.sampled_from(ledger.STATES), min_size=1, max_size=6))
def test_the_database_refuses_every_change_of_state_that_must_not_be_and_keeps_the_others(engine, path):
    customer = uuid.uuid4().hex
    _plan(engine, rows(1, customer_id=customer))
    with engine.connect() as connection:
        mine = ledger.messages.c.customer_id == customer
        message_id = connection.execute(sa.select(ledger.messages.c.id).where(mine)).scalar_one()
    state, expected = "planned", [(None, "planned", None)]
    for wanted in path:
        change = sa.update(ledger.messages).where(mine).values(state=wanted, reserved_by="x", changed_at=AT)
        if wanted == state or (state, wanted) in _ALLOWED:
            with engine.begin() as connection:
                connection.execute(change)
            if wanted != state:
                expected.append((state, wanted, None))
            state = wanted
        else:
            with pytest.raises(sa.exc.IntegrityError, match=f"cannot go from {state} to {wanted}"), engine.begin() as c:
                c.execute(change)
    assert _history(engine, message_id) == expected
