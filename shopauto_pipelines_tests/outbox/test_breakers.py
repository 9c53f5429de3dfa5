"""What stops a campaign by itself: rates of complaints and bounces, and the stages of a large one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import dagster as dg
import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox import breakers, controls, dispatchers, ledger, schema
from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.outbox.sensors import rest_of_roll_outs
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.dagster.resources import SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows
from shopauto_pipelines_tests.outbox.shop import campaign, write_shop


def _sent(connection, people: int, *, at=AT, start: int = 0) -> list[int]:
    ledger.plan(connection, rows(people, start=start), run_id=None, at=at)
    taken = reserve(connection, limit=people, at=at).messages
    ledger.settle(connection, [ledger.Settled(m.id, "sent") for m in taken], by="me", at=at)
    return [message.id for message in taken]


def _events(connection, kind: str, messages: list[int]) -> None:
    values = [
        {"event_id": f"{kind}{n}", "message_id": n, "type": kind, "at": AT, "received_at": AT, "is_machine": False}
        for n in messages
    ]
    if values:
        connection.execute(sa.insert(schema.provider_events), values)


@pytest.fixture
def strict(settings):
    return settings.model_copy(update={"breaker_messages": 100, "breaker_complaint_percent": 2.0})


@pytest.mark.parametrize(
    ("complaints", "bounces", "tripped"),
    [(0, 0, None), (4, 0, None), (5, 0, "5 complaints"), (2, 10, None), (0, 11, "11 bounces")],
)
def test_a_rate_over_its_limit_pauses_the_campaign_and_says_why(engine, strict, complaints, bounces, tripped):
    with engine.begin() as connection:
        sent = _sent(connection, 200)
        _events(connection, "delivered", sent)
        _events(connection, "spam_report", sent[:complaints])
        _events(connection, "bounce", sent[-bounces:] if bounces else [])
        why = breakers.trip(connection, strict, "welcome", at=AT + timedelta(hours=1))
        stopped = controls.stopped(connection, "welcome")
        assert controls.stopped(connection, "another") is None
    assert (why is None) == (stopped is None) == (tripped is None)
    if tripped:
        assert tripped in stopped
        assert "paused by breaker" in stopped


def test_few_messages_and_long_past_ones_are_not_judged(engine, strict):
    with engine.begin() as connection:
        sent = _sent(connection, 90)
        _events(connection, "spam_report", sent)
        _events(connection, "delivered", sent)
        assert breakers.trip(connection, strict, "welcome", at=AT) is None
        more = _sent(connection, 20, start=90)
        _events(connection, "delivered", more)
        assert breakers.trip(connection, strict, "welcome", at=AT + timedelta(hours=25)) is None
        assert breakers.trip(connection, strict, "welcome", at=AT) is not None


def test_a_campaign_that_was_resumed_is_judged_by_what_came_after(engine, strict):
    later = AT + timedelta(hours=2)
    with engine.begin() as connection:
        sent = _sent(connection, 200)
        _events(connection, "delivered", sent)
        _events(connection, "spam_report", sent[:50])
        assert breakers.trip(connection, strict, "welcome", at=AT)
        controls.resume(connection, "welcome", "Eva", at=later)
        assert breakers.trip(connection, strict, "welcome", at=later) is None


def test_a_dispatch_stops_where_the_breaker_trips(engine, lake, strict):
    write_shop(lake, people=210)
    first = dispatch(engine, lake, strict, campaign(), DAY, clock=FixedClock(AT), channel=_First(strict, 200))
    assert first.sent == 200
    with engine.begin() as connection:
        sent = list(
            connection.execute(sa.select(schema.messages.c.id).where(schema.messages.c.state == "sent")).scalars()
        )
        _events(connection, "delivered", sent)
        _events(connection, "spam_report", sent[:9])
    stopped = dispatch(engine, lake, strict, campaign(), DAY, clock=FixedClock(AT))
    assert (stopped.sent, stopped.count("planned")) == (0, 10)
    assert "9 complaints among 200 messages are 4.50 %, the limit is 2 %" in stopped.work.stopped


class _First(LocalInbox):
    """Takes so many messages and puts the rest off."""

    def __init__(self, settings, most: int) -> None:
        super().__init__(settings)
        self.batch_size = most
        self._left = most

    def send(self, batch):
        if not self._left:
            return [Outcome("deferred", "enough") for _ in batch]
        self._left -= len(batch)
        return super().send(batch)


@pytest.fixture
def staged(settings):
    """Live settings with stages; sent into the local inbox all the same, by a channel given."""
    return settings.model_copy(update={"live": True, "rollout_from": 200, "rollout_percent": 1.0})


def test_a_large_campaign_sends_its_first_stage_then_waits_then_sends_the_rest(engine, lake, settings, staged):
    write_shop(lake, people=250)
    after_day = AT  # 05:00 of the next day: the window is open

    def at(minutes: int):
        clock = FixedClock(after_day + timedelta(minutes=minutes))
        return dispatch(engine, lake, staged, campaign(), DAY, clock=clock, channel=LocalInbox(settings))

    first = at(0)
    assert (first.sent, first.count("planned"), first.work.stopped) == (3, 247, None)
    assert "the first 3 of 250 messages go now" in first.work.waiting
    early = at(59)
    assert (early.sent, early.work.rest_from) == (0, after_day + timedelta(minutes=60))
    assert "the rest waits" in early.work.waiting
    rest = at(60)
    assert (rest.sent, rest.work.waiting, rest.states) == (247, None, {("sent", ""): 250})


def test_dispatchers_that_start_together_send_one_first_stage_and_all_wait(engine, lake, settings, staged, monkeypatch):
    write_shop(lake, people=250)
    together, begin = Barrier(2, timeout=60), dispatchers.dispatcher

    def begin_together(engine):
        together.wait()  # each has asked by now how many may leave
        return begin(engine)

    def run(_: int):
        own = Lake(lake.root, threads=1)
        return dispatch(engine, own, staged, campaign(), DAY, clock=FixedClock(AT), channel=LocalInbox(settings))

    monkeypatch.setattr(dispatchers, "dispatcher", begin_together)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    assert sum(result.sent for result in results) == 3
    assert {result.work.rest_from for result in results} == {AT + timedelta(minutes=60)}
    with engine.connect() as connection:
        assert ledger.counts(connection, "welcome", DAY) == {("planned", ""): 247, ("sent", ""): 3}


def test_the_wait_begins_when_the_first_stage_is_full(engine, staged):
    with engine.begin() as connection:
        ledger.plan(connection, rows(200), run_id=None, at=AT)
        for number, minutes in enumerate((0, 120)):
            at = AT + timedelta(minutes=minutes)
            (taken,) = reserve(connection, limit=1, by=f"run {number}", at=at).messages
            ledger.settle(connection, [ledger.Settled(taken.id, "sent")], by=f"run {number}", at=at)

        def stage(minutes: int) -> breakers.Stage:
            return breakers.stage(connection, staged, "welcome", DAY, at=AT + timedelta(minutes=minutes))

        assert (stage(179).limit, stage(179).rest_from) == (0, AT + timedelta(minutes=180))
        assert stage(180) == breakers.Stage()


@pytest.mark.parametrize("fewest", [50, 200])
def test_a_first_stage_that_people_complain_about_is_the_last(engine, lake, settings, staged, fewest):
    write_shop(lake, people=250)
    strict = staged.model_copy(update={"breaker_messages": fewest, "rollout_percent": 40.0})

    def at(minutes: int):
        clock = FixedClock(AT + timedelta(minutes=minutes))
        return dispatch(engine, lake, strict, campaign(), DAY, clock=clock, channel=LocalInbox(settings))

    assert at(0).sent == 100
    with engine.begin() as connection:
        sent = list(
            connection.execute(sa.select(schema.messages.c.id).where(schema.messages.c.state == "sent")).scalars()
        )
        _events(connection, "delivered", sent)
        _events(connection, "spam_report", sent[:3])
    stopped = at(60)
    assert stopped.sent == 0
    assert "3 complaints among 100 messages" in stopped.work.stopped


@pytest.mark.parametrize("changed", [{"live": False}, {"rollout_from": 251}, {"rollout_percent": 100.0}])
def test_the_local_inbox_small_campaigns_and_who_does_not_want_them_have_no_stages(
    engine, lake, settings, staged, changed
):
    write_shop(lake, people=250)
    whole = staged.model_copy(update=changed)
    result = dispatch(engine, lake, whole, campaign(), DAY, clock=FixedClock(AT), channel=LocalInbox(settings))
    assert (result.sent, result.work.waiting) == (250, None)


def test_the_sensor_starts_the_rest_of_a_roll_out_once_its_wait_is_over(engine, lake, settings, staged, monkeypatch):
    write_shop(lake, people=250)
    dispatch(engine, lake, staged, campaign(), DAY, clock=FixedClock(AT), channel=LocalInbox(settings))

    def requests(minutes: int) -> list[dg.RunRequest]:
        resource = SettingsResource()
        monkeypatch.setattr(SettingsResource, "settings", staged)
        monkeypatch.setattr(SettingsResource, "clock", FixedClock(AT + timedelta(minutes=minutes)))
        monkeypatch.setattr("shopauto_pipelines.outbox.sensors.engine", lambda _: engine)
        with dg.build_sensor_context(resources={"settings": resource}) as context:
            return [said for said in rest_of_roll_outs(context) if isinstance(said, dg.RunRequest)]

    assert requests(59) == []
    (request,) = requests(60)
    assert (request.run_key, request.partition_key) == (f"welcome:{DAY}:3", str(DAY))
    assert request.asset_selection == [dg.AssetKey(["outbox", "welcome"])]
    with engine.begin() as connection:
        controls.pause(connection, "welcome", "wrong price", "Eva", AT)
    assert requests(60) == []
