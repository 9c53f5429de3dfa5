"""The switches: what they stop, what they leave alone, and that they are obeyed at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from shopauto_pipelines.outbox import controls, ledger
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows


def test_a_paused_campaign_reserves_nothing_and_says_why_and_others_go_on(engine):
    with engine.begin() as connection:
        for campaign in ("welcome", "another"):
            ledger.plan(connection, rows(2, campaign=campaign), run_id=None, at=AT)
        assert controls.pause(connection, "welcome", "wrong price", "Eva", AT)
        stopped = "the campaign is paused by Eva since 2026-01-04 05:00 UTC: wrong price"
        assert reserve(connection) == ([], 0, stopped)
        assert len(reserve(connection, campaign="another").messages) == 2
        assert ledger.counts(connection, "welcome", DAY) == {("planned", ""): 2}


def test_the_kill_switch_stops_every_campaign_and_outlives_a_campaigns_resume(engine):
    with engine.begin() as connection:
        ledger.plan(connection, rows(2), run_id=None, at=AT)
        controls.pause(connection, "*", "the shop is down", "Eva", AT)
        assert not controls.resume(connection, "welcome", "Ben", AT)
        assert (
            reserve(connection).stopped == "everything is stopped by Eva since 2026-01-04 05:00 UTC: the shop is down"
        )
        assert controls.resume(connection, "*", "Ben", AT)
        assert len(reserve(connection).messages) == 2


def test_a_campaign_goes_on_exactly_where_it_was_paused(engine):
    with engine.begin() as connection:
        ledger.plan(connection, rows(5), run_id=None, at=AT)
        before = reserve(connection, limit=2).messages
        controls.pause(connection, "welcome", "look at it", "Eva", AT)
        assert not reserve(connection).messages
        controls.resume(connection, "welcome", "Eva", AT)
        after = reserve(connection).messages
    assert [m.key.customer_id for m in [*before, *after]] == [f"c{n:06}" for n in range(5)]


def test_every_change_is_kept_with_who_and_why_and_switching_twice_is_one_change(engine):
    later = AT + timedelta(hours=1)
    with engine.begin() as connection:
        assert controls.pause(connection, "welcome", "first", "Eva", AT)
        assert not controls.pause(connection, "welcome", "second", "breaker", later)
        assert controls.controls(connection) == [("welcome", True, "first", "Eva", AT)]
        assert controls.resume(connection, "welcome", "Ben", later, why="mended")
        assert not controls.resume(connection, "welcome", "Eva", later)
        assert controls.changes(connection) == [
            ("welcome", False, "mended", "Ben", later),
            ("welcome", True, "first", "Eva", AT),
        ]


def test_a_pause_waits_for_the_reservation_under_way_and_its_batch_is_the_last(engine):
    def pause() -> None:
        with engine.begin() as connection:
            controls.pause(connection, "welcome", "now", "Eva", AT)

    with engine.begin() as connection:
        ledger.plan(connection, rows(4), run_id=None, at=AT)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            assert len(reserve(connection, limit=2).messages) == 2
            pausing = pool.submit(pause)
            with pytest.raises(TimeoutError):
                pausing.result(timeout=0.3)
        pausing.result(timeout=20)
    with engine.begin() as connection:
        assert reserve(connection).stopped
        assert ledger.counts(connection, "welcome", DAY) == {("planned", ""): 2, ("reserved", ""): 2}
