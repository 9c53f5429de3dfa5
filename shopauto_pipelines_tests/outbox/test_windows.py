"""Which days may be sent for: judged by what was sent, not by the clock alone."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox import ledger, schema
from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.dispatch import dispatch, land_sent
from shopauto_pipelines.outbox.windows import closed, landed_sends, look
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import landing_root
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows
from shopauto_pipelines_tests.outbox.shop import campaign, fill, repeated, write_shop

LATER = DAY + timedelta(days=2)


def _sent(
    engine, name: str, day: date = LATER, *, state: str = "sent", via: str = "sendgrid", at: datetime = AT
) -> None:
    """A message of a campaign and day has this state."""
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, campaign=name, as_of=day), run_id=None, at=at)
        if state != "planned":
            (taken,) = reserve(connection, campaign=name, as_of=day, via=via, at=at).messages
            ledger.settle(connection, [ledger.Settled(taken.id, state)], by="me", at=at)


def _look(engine, lake, settings, at: datetime = AT, **more):
    return look(engine, lake, settings, FixedClock(at), "welcome", DAY, **more)


@pytest.fixture
def live(settings) -> Settings:
    """Settings of live mode, without anybody to send by."""
    return settings.model_copy(update={"live": True})


@pytest.fixture
def shop(lake):
    """A lake whose newest day is ``DAY``."""
    fill(lake, raw.ORDERS, DAY, [])
    return lake


def test_what_a_run_finds_closed_for_all_campaigns_is_closed_for_each_and_stays_so(engine, shop, settings):
    clock, before = FixedClock(AT), DAY - timedelta(days=1)

    def of_run(run: str, day: date = DAY, barred: str | None = None):
        return closed(run, shop, settings, clock, day, barred=barred)

    assert of_run("first") is None, "ask for the campaign"
    assert of_run("first", before) == look(engine, shop, settings, clock, "welcome", before)
    assert of_run("first", barred="a backfill never sends").why == "a backfill never sends"
    fill(shop, raw.ORDERS, LATER, [])
    assert of_run("first") is None
    assert not _look(engine, shop, settings).open, "what the run does not say the campaign's window does"
    assert of_run("second").why == _look(engine, shop, settings).why
    shop.delete(raw.ORDERS, LATER)
    assert _look(engine, shop, settings).open
    assert of_run("second"), "in the run that has seen it closed it is never opened"


def test_nothing_leaves_for_a_day_as_known_then(engine, shop, settings, live):
    for mode in (settings, live):
        assert _look(engine, shop, mode).open
        seen = _look(engine, shop, mode.model_copy(update={"known": "then"}))
        assert (seen.open, seen.why) == (False, "a lake as known then never sends")


@pytest.mark.parametrize("name", ["welcome", "newsletter", "a_campaign_that_is_gone"])
@pytest.mark.parametrize("state", ["sent", "unknown"])
def test_a_day_is_over_once_a_later_one_has_been_sent_of_any_campaign(engine, shop, settings, live, name, state):
    assert _look(engine, shop, settings).open
    assert _look(engine, shop, live).open
    _sent(engine, name, state=state)
    for mode in (settings, live):
        found = _look(engine, shop, mode)
        assert (found.open, found.why) == (
            False,
            f"{DAY} is over: messages of {LATER} have been sent already ({name})",
        )


def test_what_has_not_left_and_what_goes_out_by_the_hour_ends_no_day(engine, shop, settings):
    _sent(engine, "newsletter", state="planned")
    _sent(engine, "welcome", state="failed")
    _sent(engine, "abandoned_cart")
    _sent(engine, "win_back", DAY)
    assert _look(engine, shop, settings).open


def test_what_went_to_the_local_inbox_alone_ends_no_day_of_live_mode(engine, shop, settings, live):
    _sent(engine, "newsletter", via="inbox")
    assert not _look(engine, shop, settings).open
    assert _look(engine, shop, live).open


def test_the_lake_closes_no_day_of_live_mode_either_where_the_ledger_says_that_all_went_to_the_local_inbox(
    engine, lake, settings, live
):
    tomorrow = DAY + timedelta(days=1)
    write_shop(lake, people=2, day=tomorrow)  # in live mode a day that goes on
    assert dispatch(engine, lake, settings, campaign(), tomorrow, clock=FixedClock(AT)).sent == 2
    assert landed_sends(lake) == {("welcome", tomorrow): 2}
    assert _look(engine, lake, live).open
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.messages).where(schema.messages.c.customer_id == "c000001"))
    assert f"messages of {tomorrow} have been sent already (welcome)" in _look(engine, lake, live).why


def test_the_latest_of_several_later_days_is_told(engine, shop, settings):
    _sent(engine, "welcome", LATER)
    _sent(engine, "newsletter", LATER + timedelta(days=1))
    assert (
        f"messages of {LATER + timedelta(days=1)} have been sent already (newsletter)"
        in _look(engine, shop, settings).why
    )


def test_in_live_mode_a_clock_behind_the_ledger_closes_every_day(engine, shop, settings, live):
    _sent(engine, "newsletter", DAY, at=AT + timedelta(days=90))
    assert _look(engine, shop, settings).open, "the local inbox asks no clock"
    assert "the clock says 2026-01-04 05:00 UTC, and messages left at 2026-04-04 05:00" in _look(engine, shop, live).why
    with engine.begin() as connection:
        connection.execute(sa.update(schema.messages).values(settled_at=AT + timedelta(minutes=59)))
    assert _look(engine, shop, live).open, "two machines' clocks may differ"


def test_a_ledger_that_was_set_back_sends_nothing_again_and_the_lake_keeps_what_it_knows(engine, lake, settings):
    write_shop(lake, people=3)
    clock = FixedClock(AT)
    assert dispatch(engine, lake, settings, campaign(), DAY, clock=clock).sent == 3
    assert landed_sends(lake) == {("welcome", DAY): 3}
    one = sa.select(sa.func.min(schema.messages.c.id)).scalar_subquery()
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.messages).where(schema.messages.c.id > one))
    again = dispatch(engine, lake, settings, campaign(), DAY, clock=clock)
    assert (again.sent, again.newly_planned) == (0, 0)
    assert again.window.why.startswith(f"2 messages of {DAY} have left of which the ledger knows nothing")
    land_sent(engine, lake, settings, "welcome", DAY)
    assert landed_sends(lake) == {("welcome", DAY): 3}


def test_a_lake_that_knows_of_a_later_day_keeps_a_day_closed_where_the_ledger_is_gone(engine, lake, settings):
    write_shop(lake, people=1, day=LATER)
    assert dispatch(engine, lake, settings, campaign(), LATER, clock=FixedClock(AT)).sent == 1
    for table in (raw.ORDERS, raw.PRODUCTS):
        shutil.rmtree(lake.path(table, LATER).parent)
    fill(lake, raw.ORDERS, DAY, [])
    with engine.begin() as connection:
        connection.execute(sa.delete(schema.messages))
    assert f"messages of {LATER} have been sent already (welcome)" in _look(engine, lake.session(), settings).why
    shutil.rmtree(landing_root(lake) / "outbox")
    assert _look(engine, lake.session(), settings).why == f"{DAY} is the newest day with data"


def test_what_failed_is_sent_by_a_later_run_of_the_day_and_the_next_day_is_sent_too(engine, lake, settings):
    class Refusing(LocalInbox):
        def send(self, batch):
            return [Outcome("failed", "a wrong sender") for _ in batch]

    write_shop(lake, people=2)
    refused = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=Refusing(settings))
    assert refused.count("failed") == 2
    with engine.begin() as connection:
        assert ledger.retry_failed(connection, "welcome", DAY, at=AT) == 2
    an_hour_later = FixedClock(AT + timedelta(hours=1))
    assert [dispatch(engine, lake, settings, campaign(), DAY, clock=an_hour_later).sent for _ in range(2)] == [2, 0]
    write_shop(lake, people=1, day=LATER)
    assert dispatch(engine, lake.session(), settings, repeated(), LATER, clock=FixedClock(AT)).sent == 1


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (datetime(2026, 1, 4, 5, tzinfo=UTC), f"{DAY} is the newest day with data"),
        (datetime(2026, 1, 5, 5, tzinfo=UTC), f"{DAY} is not the newest day with data, which is 2026-01-04"),
        (datetime(2026, 1, 3, 5, tzinfo=UTC), f"{DAY} ends only at 2026-01-04 00:00 UTC"),
        (datetime(2010, 1, 1, 5, tzinfo=UTC), f"{DAY} ends only at 2026-01-04 00:00 UTC"),
    ],
)
def test_what_happened_this_morning_does_not_close_the_day_that_is_over(engine, shop, settings, live, at, why):
    fill(shop, raw.EVENTS, DAY + timedelta(days=1), [])
    assert _look(engine, shop, live, at).why == why
    assert _look(engine, shop, settings, at).open == _look(engine, shop, live, at).open
    _sent(engine, "newsletter", DAY + timedelta(days=1))
    assert not _look(engine, shop, live, at).open, "the clock has been set back into a day that was sent"


def test_a_clock_that_is_years_behind_opens_no_day_of_the_past(engine, shop, live):
    fill(shop, raw.EVENTS, DAY + timedelta(days=300), [])
    assert not _look(engine, shop, live).open
