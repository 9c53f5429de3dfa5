"""What the migrations make of a database with messages in it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic import command

from shopauto_pipelines.platform import postgres
from shopauto_pipelines_tests.outbox.conftest import AT, changes

_MESSAGES = """
insert into shopauto.messages (campaign, step, customer_id, occasion, channel, as_of, language, template, explanation,
                               planned_at, changed_at)
select 'welcome', 'hello', n, '', 'email', '2026-01-03', 'en', 'hello', '{}', :at, :at from generate_series(1, 9) n
"""
_CHANGE = """
update shopauto.messages set state = :state, reserved_by = 'x', reason = :why, changed_at = :at where id = any(:ids)
"""

#: All at the same time: only their order tells the story.
_CHANGES = (
    ("reserved", None, [1, 2, 3, 5, 8]),
    ("planned", "later", [1, 2, 5]),
    ("reserved", None, [1, 5, 9]),
    ("sent", None, [1, 3]),
    ("suppressed", "cap", [4, 6]),
    ("unknown", "no answer", [5]),
    ("sent", None, [5]),
)


@pytest.fixture
def earlier(shared_engine):
    """An empty database beside the others'."""
    with shared_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("drop database if exists earlier"))
        connection.execute(sa.text("create database earlier"))
    engine = sa.create_engine(shared_engine.url.set(database="earlier"))
    yield engine
    engine.dispose()


def test_the_history_that_was_a_row_per_message_tells_the_same_story_of_each(earlier):
    with earlier.begin() as connection:
        connection.execute(sa.text("create schema shopauto"))
        command.upgrade(postgres._alembic(connection), "0003")
        connection.execute(sa.text(_MESSAGES), {"at": AT})
        for state, why, ids in _CHANGES:
            connection.execute(sa.text(_CHANGE), {"state": state, "why": why, "ids": ids, "at": AT})
        told = connection.execute(
            sa.text(
                "select message_id, from_state, to_state, why from shopauto.message_history order by message_id, id"
            )
        ).all()
    assert len(told) == 9 + sum(len(ids) for *_, ids in _CHANGES)
    postgres.migrate(earlier)
    with earlier.begin() as connection:
        kept = sorted(changes(connection), key=lambda change: (change.message_id, change.id))
        assert [change[:4] for change in kept] == told
        assert len({change.id for change in kept}) < len(kept)
        connection.execute(sa.text(_CHANGE), {"state": "sent", "why": None, "ids": [9], "at": AT})
        assert changes(connection)[-1][:3] == (9, "reserved", "sent")
