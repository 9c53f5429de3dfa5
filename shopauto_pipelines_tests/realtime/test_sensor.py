"""The sensor of abandoned carts: which run it asks for, and when, on real runs' records and a real queue of carts."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.launcher import CheckRunHealthResult, RunLauncher, WorkerStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.outbox import controls
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.realtime import abandoned_carts, sensors
from shopauto_pipelines.realtime.batch import Batch, Row
from shopauto_pipelines.realtime.collected import store
from shopauto_pipelines_tests.outbox.conftest import AT

HOUR = timedelta(hours=1)
CAMPAIGNS = [load_campaigns()["abandoned_cart"]]
SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED


class Hand:
    """Turns the sensor by hand: a daemon that ticks when it is told to, and writes down what it asks for."""

    def __init__(self, engine, settings, instance) -> None:
        self.engine, self.settings, self.instance = engine, settings, instance
        self.now, self.cursor = datetime.now(UTC), None

    def leave(self, *carts: str, ago: timedelta = HOUR) -> None:
        """Store the last event of carts."""
        at = self.now - ago
        rows = [
            Row("raw/events", f"{cart}-{at}", at, cart, {"event_id": f"{cart}-{at}", "type": "add_to_cart"} | THING)
            for cart in carts
        ]
        rows = [row._replace(row=row.row | {"cart_id": row.cart_id, "happened_at": at.isoformat()}) for row in rows]
        with self.engine.begin() as connection:
            store(connection, Batch(rows=rows), at=self.now)

    def tick(self, seconds: float = 0.0, *, remember: bool = True) -> dg.RunRequest | str:
        """One evaluation; the request, or why there is none. Without ``remember`` the daemon dies after it."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            tick = sensors._Tick(context, self.settings, FixedClock(self.now), CAMPAIGNS)
            found = tick.wait(seconds)
            if remember:
                self.cursor = context.cursor
        return found if isinstance(found, dg.RunRequest) else found.skip_message

    def launch(self, request: dg.RunRequest, status: dg.DagsterRunStatus = STARTED) -> str:
        """What the daemon makes of a request: a run, unless there is one of that key."""
        tags = {**request.tags, "dagster/run_key": request.run_key}
        if known := self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": request.run_key})):
            return known[0].run_id
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "all"), sensors.JOB)
        given = {"run_config": request.run_config, "tags": tags, "status": status, "remote_job_origin": origin}
        run = create_run_for_test(self.instance, sensors.JOB, **given)
        return run.run_id

    def end(self, run_id: str, *, well: bool = True) -> None:
        """The run ends."""
        if well:
            self.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", sensors.JOB), run_id)
        else:
            self.instance.report_run_failed(self.instance.get_run_by_id(run_id), "told to")

    def in_flight(self) -> dg.DagsterRun | None:
        return next((run for run in self.instance.get_runs() if not run.is_finished), None)


THING = {"product_id": "p1", "quantity": 1, "shop_customer_id": "c1"}


def range_of(request: dg.RunRequest) -> tuple[int, int]:
    config = request.run_config["ops"][sensors.STEP]["config"]
    return config["first_id"], config["last_id"]


@pytest.fixture
def hand(engine, settings, monkeypatch, tmp_path):
    monkeypatch.setattr(sensors, "engine", lambda _: engine)
    # in files: the sensor and the end of a run meet there, and one in memory does not wait while the other writes
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Hand(engine, settings, instance)


def test_carts_that_are_due_are_one_run_with_their_range_in_its_configuration(hand):
    hand.leave("a", "b", "c")
    hand.leave("not yet", ago=HOUR / 2)
    request = hand.tick()
    assert range_of(request) == (1, 3)
    assert request.run_key == "0:"
    assert hand.cursor == "0"


def test_without_carts_it_says_so_and_asks_for_nothing(hand):
    assert hand.tick() == "no cart is due"


def test_while_a_run_is_under_way_no_other_one_is_asked_for(hand):
    hand.leave("a")
    run_id = hand.launch(hand.tick())
    hand.leave("b")
    assert hand.tick() == f"run {run_id} is under way"
    assert hand.cursor == "0"


def test_the_cursor_moves_when_the_run_has_succeeded_and_what_came_meanwhile_is_next(hand):
    hand.leave("a", "b")
    run_id = hand.launch(hand.tick())
    hand.leave("c")
    hand.end(run_id)
    request = hand.tick()
    assert (hand.cursor, request.run_key, range_of(request)) == ("2", "2:", (3, 3))


def test_a_run_that_ends_while_the_sensor_waits_is_followed_at_once(hand):
    hand.leave("a")
    run_id = hand.launch(hand.tick())
    hand.leave("b")
    threading.Timer(0.3, hand.end, [run_id]).start()
    began = time.monotonic()
    assert range_of(hand.tick(10)) == (2, 2)
    assert time.monotonic() - began < 5


def test_a_failed_batch_is_tried_again_later_with_a_new_key_and_with_what_has_come_since(hand):
    hand.leave("a")
    first = hand.launch(hand.tick())
    hand.end(first, well=False)
    hand.leave("b")
    assert "are tried again in" in hand.tick()
    hand.now += timedelta(seconds=6)
    request = hand.tick()
    assert (request.run_key, range_of(request), hand.cursor) == (f"0:{first}", (1, 2), "0")
    second = hand.launch(request)
    hand.end(second, well=False)
    hand.now = datetime.now(UTC) + timedelta(seconds=8)
    assert "are tried again in" in hand.tick()
    hand.now += timedelta(seconds=3)
    assert hand.tick().run_key == f"0:{second}"


def test_a_batch_that_fails_for_days_is_tried_again_every_five_minutes(hand, monkeypatch):
    hand.leave("a")
    hand.end(hand.launch(hand.tick()), well=False)
    monkeypatch.setattr(hand.instance, "get_runs_count", lambda _: 5_000)
    hand.now = datetime.now(UTC) + timedelta(seconds=290)
    assert "are tried again in" in hand.tick()
    hand.now += timedelta(seconds=20)
    assert range_of(hand.tick()) == (1, 1)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_failed_batch_is_tried_again_after_somebody_has_started_or_deleted_one_of_its_runs_by_hand(hand, deleted):
    hand.leave("a")
    runs = []
    for _ in range(3):
        runs.append(hand.launch(hand.tick()))
        hand.end(runs[-1], well=False)
        hand.now += timedelta(seconds=400)
    if deleted:
        hand.instance.delete_run(runs[-1])
    else:  # the UI gives the new run all tags of the old one
        origin = hand.instance.get_run_by_id(runs[0])
        given = {"run_config": origin.run_config, "tags": origin.tags, "status": STARTED}
        again = create_run_for_test(hand.instance, sensors.JOB, **given, remote_job_origin=origin.remote_job_origin)
        hand.end(again.run_id, well=False)
    hand.now += timedelta(seconds=4_000)
    before = {run.run_id for run in hand.instance.get_runs()}
    assert hand.launch(hand.tick()) not in before


def test_a_cart_that_becomes_due_wakes_the_waiting_sensor(hand, monkeypatch):
    hand.leave("a", ago=HOUR - timedelta(seconds=0.5))
    real = FixedClock(hand.now)
    began = time.monotonic()
    monkeypatch.setattr(
        FixedClock, "now", lambda clock: real.at + timedelta(seconds=time.monotonic() - began), raising=True
    )
    assert range_of(hand.tick(20)) == (1, 1)
    assert 0.4 < time.monotonic() - began < 5


def test_a_late_event_whose_cart_is_due_already_wakes_the_waiting_sensor(hand):
    threading.Timer(0.5, hand.leave, ["late"]).start()
    began = time.monotonic()
    assert range_of(hand.tick(20)) == (1, 1)
    assert time.monotonic() - began < 5


def test_a_daemon_that_dies_after_a_tick_loses_nothing_and_doubles_nothing(hand):
    hand.leave("a")
    request = hand.tick(remember=False)  # it died before it made the run
    again = hand.tick(remember=False)
    assert (again.run_key, range_of(again)) == (request.run_key, range_of(request))
    run_id = hand.launch(again)  # it died before it noted the cursor
    assert hand.tick() == f"run {run_id} is under way"
    hand.end(run_id)
    assert hand.tick() == "no cart is due"
    assert hand.cursor == "1"


def test_a_cursor_that_was_taken_back_walks_over_what_has_been_done(hand):
    for cart in "abc":
        hand.leave(cart)
        hand.end(hand.launch(hand.tick()))
    hand.cursor = None
    assert hand.tick() == "no cart is due"
    assert hand.cursor == "3"


class Knowing(RunLauncher):
    """A launcher that knows how its runs are."""

    status = WorkerStatus.RUNNING
    supports_check_run_worker_health = True

    def launch_run(self, context):
        raise AssertionError

    def terminate(self, run_id):
        raise AssertionError

    def check_run_worker_health(self, run):
        return CheckRunHealthResult(self.status, run_worker_id="1")


def test_a_run_whose_process_is_gone_has_failed_and_is_tried_again(hand, monkeypatch):
    monkeypatch.setattr(hand.instance, "_run_launcher", Knowing())
    hand.leave("a")
    run_id = hand.launch(hand.tick())
    assert "is under way" in hand.tick()
    monkeypatch.setattr(Knowing, "status", WorkerStatus.NOT_FOUND)
    assert "are tried again in" in hand.tick()
    assert hand.instance.get_run_by_id(run_id).status == FAILURE


def test_where_nobody_knows_a_run_is_dead_when_it_stands_still_and_no_process_has_the_lock(hand):
    hand.leave("a")
    dead = hand.launch(hand.tick())
    hand.now += timedelta(seconds=90)
    with abandoned_carts._alone(hand.engine):
        assert "is under way" in hand.tick()
    assert hand.tick().run_key == f"0:{dead}"


def test_a_run_that_waits_in_the_queue_is_not_dead(hand):
    hand.leave("a")
    hand.launch(hand.tick(), dg.DagsterRunStatus.QUEUED)
    hand.now += timedelta(days=1)
    assert "is under way" in hand.tick()


def test_nothing_is_asked_for_while_the_campaign_is_stopped_and_all_of_it_afterwards(hand):
    with hand.engine.begin() as connection:
        controls.pause(connection, "abandoned_cart", "wrong prices", "ann", AT)
    hand.leave("a")
    assert "the campaign is paused by ann" in hand.tick()
    with hand.engine.begin() as connection:
        controls.resume(connection, "abandoned_cart", "ann", AT)
    assert range_of(hand.tick()) == (1, 1)


@given(
    happenings=st.lists(
        st.sampled_from(["carts", "tick", "dies unasked", "dies unnoted", "ends well", "ends badly", "later"]),
        max_size=20,
    )
)
@hypothesis_settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_fails_and_whenever_the_daemon_dies_each_cart_is_dealt_with_once(hand, happenings):
    hand.cursor = None
    with hand.engine.begin() as connection:
        connection.exec_driver_sql("truncate collected, carts, due_carts restart identity")
    for run in hand.instance.get_runs():
        hand.instance.delete_run(run.run_id)
    hand.instance._run_launcher = Knowing()
    made = 0
    done: list[int] = []

    def happen(what: str) -> None:
        nonlocal made
        run = hand.in_flight()
        if what == "carts":
            hand.leave(f"cart-{made}", f"cart-{made + 1}")
            made += 2
        elif what == "later":
            hand.now += timedelta(minutes=6)
        elif what in ("ends well", "ends badly"):
            if run:
                first, last = range_of(dg.RunRequest(run_config=run.run_config))
                done.extend(range(first, last + 1) if what == "ends well" else [])
                hand.end(run.run_id, well=what == "ends well")
        else:
            found = hand.tick(remember=what == "tick")
            if isinstance(found, dg.RunRequest) and what != "dies unasked":
                assert run is None
                hand.launch(found)

    for what in happenings:
        happen(what)
    for _ in range(4):
        for what in ("later", "tick", "ends well", "tick"):
            happen(what)
    assert done == list(range(1, made + 1))
