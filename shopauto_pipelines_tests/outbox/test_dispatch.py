"""The dispatcher, on a real lake, a real PostgreSQL and the real local inbox."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns import tables as campaign_tables
from shopauto_pipelines.campaigns.declaration import Experiment, Incentive
from shopauto_pipelines.campaigns.declaration.experiment import Variant
from shopauto_pipelines.outbox import consents, ledger, links, schema
from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.dispatch import dispatch, not_sent
from shopauto_pipelines.outbox.dispatchers import dispatcher
from shopauto_pipelines.outbox.windows import window
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.landing import landing_root
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows
from shopauto_pipelines_tests.outbox.shop import campaign, fill, write_people, write_shop


def _delivered(settings: Settings) -> list[Path]:
    return sorted((settings.inbox_path / "messages").glob("*.eml"))


def _run(engine, lake, settings, **more):
    return dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), run_id="run", **more)


def test_the_planned_are_sent_once_and_the_refused_are_counted_by_reason(engine, lake, settings):
    write_shop(lake, people=7, refused=3)
    first = _run(engine, lake, settings)
    assert (first.sent, first.newly_planned, first.refused) == (7, 7, {"no_consent": 3})
    assert first.states == {("sent", ""): 7}
    bytes_of = {path: path.read_bytes() for path in _delivered(settings)}
    again = _run(engine, lake, settings)
    assert (again.sent, again.newly_planned, again.states) == (0, 0, first.states)
    assert {path: path.read_bytes() for path in _delivered(settings)} == bytes_of
    assert len(bytes_of) == 7


def test_who_gets_another_id_as_an_older_account_is_loaded_gets_nothing_twice(engine, lake, settings):
    write_shop(lake, people=2)
    assert _run(engine, lake, settings).sent == 2
    audience = lake.on(campaign_tables.audience("welcome"), DAY).to_pyarrow().drop(["as_of"]).to_pylist()
    renamed = [row | {"customer_id": row["customer_id"].replace("c000001", "b000001")} for row in audience]
    write_people(lake, {"c000000": ["c000000"], "b000001": ["b000001", "c000001"]})
    fill(lake, campaign_tables.audience("welcome"), DAY, renamed)
    again = _run(engine, lake, settings)
    assert (again.sent, again.states) == (0, {("sent", ""): 2, ("suppressed", "already_sent"): 1})
    assert len(_delivered(settings)) == 2


def test_a_message_says_who_it_is_for_and_carries_a_link_that_unsubscribes_this_person(engine, lake, settings):
    write_shop(lake, people=1)
    _run(engine, lake, settings)
    email = message_from_bytes(_delivered(settings)[0].read_bytes(), policy=default)
    assert email["To"].addresses[0].addr_spec == "c000000@example.com"
    link = email["List-Unsubscribe"].strip("<>")
    assert link in email.get_body(("html",)).get_content()
    assert link in email.get_body(("plain",)).get_content()
    with engine.connect() as connection:
        message = ledger.find(connection, links.token_message_id(link.rpartition("/")[2]))
    assert message.key.customer_id == "c000000"
    assert message.address_hash == links.address_hash(settings.hash_key, "email", "c000000@example.com")


def test_no_address_or_name_is_in_the_ledger(engine, lake, settings):
    write_shop(lake, people=2)
    _run(engine, lake, settings)
    with engine.connect() as connection:
        for table in schema.metadata.sorted_tables:
            text = str(connection.execute(sa.select(table)).all())
            assert "example.com" not in text
            assert "Ana" not in text


def test_what_was_sent_becomes_message_events_of_the_next_morning(engine, lake, settings):
    write_shop(lake, people=3)
    _run(engine, lake, settings)
    files = sorted((landing_root(lake) / "outbox").rglob("*.parquet"))
    landed = [
        row
        for file in files
        if "quarantine" not in file.name
        for row in lake.con.read_parquet(file).to_pyarrow().to_pylist()
    ]
    assert len(landed) == 3
    assert {row["type"] for row in landed} == {"sent"}
    assert {row["happened_at"] for row in landed} == {datetime(2026, 1, 4)}
    assert sorted(row["message_id"] for row in landed)[0] == "welcome:hello:c000000:2026-01-03"


def test_closed_days_are_told_of_at_once_as_each_on_its_own_and_land_what_a_crash_kept_from_landing(
    engine, lake, settings
):
    write_shop(lake, people=3, refused=2)
    _run(engine, lake, settings)
    with engine.begin() as connection:
        ledger.plan(connection, rows(2, as_of=DAY, send_from=AT + timedelta(hours=2)), run_id=None, at=AT)
    fill(lake, raw.ORDERS, DAY + timedelta(days=2), [])
    alone = _run(engine, lake, settings)
    assert not alone.window.open
    shutil.rmtree(landing_root(lake) / "outbox")
    told = not_sent(engine, lake, settings, campaign(), {DAY: alone.window}, clock=FixedClock(AT))
    assert told == {DAY: alone}
    assert (landing_root(lake) / "outbox" / "manifest.json").exists()


def test_a_day_run_again_after_it_closed_lands_what_a_crash_kept_from_landing(engine, lake, settings):
    write_shop(lake, people=3)
    _run(engine, lake, settings)
    shutil.rmtree(landing_root(lake) / "outbox")
    fill(lake, raw.EVENTS, DAY + timedelta(days=2), [])
    assert not _run(engine, lake, settings).window.open
    assert (landing_root(lake) / "outbox" / "manifest.json").exists()
    assert len(_delivered(settings)) == 3


def test_people_suppressed_after_the_audience_was_planned_get_nothing(engine, lake, settings):
    write_shop(lake, people=2)
    with engine.begin() as connection:
        hashed = links.address_hash(settings.hash_key, "email", "c000001@example.com")
        consents.suppress(connection, hashed, "email", "unsubscribe", at=AT)
    assert _run(engine, lake, settings).states == {("sent", ""): 1, ("suppressed", "suppressed_unsubscribe"): 1}
    assert len(_delivered(settings)) == 1


def test_a_day_that_is_computed_again_sends_nobody_a_second_message_of_the_day(engine, lake, settings):
    """As after a late row by which somebody is due for another campaign, too, whose message of the day has left."""
    write_shop(lake, people=2)
    with dispatcher(engine) as me, engine.begin() as connection:
        ledger.plan(connection, rows(1, campaign="win_back", step="we_miss_you"), run_id=None, at=AT)
        [left] = reserve(connection, campaign="win_back", by=me).messages
        ledger.settle(connection, [ledger.Settled(left.id, "sent")], by=me, at=AT)
    assert _run(engine, lake, settings).states == {("sent", ""): 1, ("suppressed", "day_cap"): 1}
    two = settings.model_copy(update={"cap_day_messages": 2})
    write_shop(lake, people=3)
    assert _run(engine, lake, two).states == {("sent", ""): 2, ("suppressed", "day_cap"): 1}


def test_a_backfill_and_a_closed_day_send_nothing_and_say_why(engine, lake, settings):
    write_shop(lake, people=2)
    assert _run(engine, lake, settings, barred="a backfill never sends").window.why == "a backfill never sends"
    fill(lake, raw.EVENTS, DAY + timedelta(days=2), [])
    closed = _run(engine, lake, settings)
    assert not closed.window.open
    assert "2026-01-05" in closed.window.why
    assert _delivered(settings) == []
    assert closed.states == {}


def test_our_own_events_of_the_next_morning_do_not_close_the_day(engine, lake, settings):
    write_shop(lake, people=1)
    fill(lake, raw.MESSAGE_EVENTS, DAY + timedelta(days=1), [])
    assert _run(engine, lake, settings).sent == 1


@pytest.mark.parametrize(("hours", "is_open"), [(-25, False), (1, True), (35, True), (36, False), (1000, False)])
def test_live_sends_are_open_from_the_days_end_in_the_shops_time_zone_for_the_grace_hours(hours, is_open):
    settings = Settings(
        _env_file=None,
        live=True,
        timezone="America/Sao_Paulo",
        sendgrid_api_key="k",
        from_email="a@shop.test.example.org",
        postal_address="1 Road",
        base_url="https://shop.example.org",
        shop_url="https://shop.example.org",
        secret_key="s",
    )
    end = datetime(2026, 1, 4, 3, tzinfo=UTC)
    assert window(DAY, DAY, settings, FixedClock(end + timedelta(hours=hours))).open is is_open


def test_what_a_channel_puts_off_stays_planned_and_is_sent_by_the_next_run(engine, lake, settings):
    class Busy(LocalInbox):
        batch_size = 2

        def send(self, batch):
            return [Outcome("deferred", "rate limit") for _ in batch]

    write_shop(lake, people=5)
    stopped = _run(engine, lake, settings, channel=Busy(settings))
    assert (stopped.work.stopped, stopped.sent, stopped.count("planned")) == ("rate limit", 0, 5)
    assert _run(engine, lake, settings).sent == 5


def test_a_day_that_is_computed_again_takes_back_what_it_does_not_plan_any_more(engine, lake, settings):
    class Down(LocalInbox):
        def send(self, batch):
            return [Outcome("deferred", "down") for _ in batch]

    class First(LocalInbox):
        batch_size = 1

        def send(self, batch):
            if any(envelope.key.customer_id != "c000000" for envelope in batch):
                return [Outcome("deferred", "enough") for _ in batch]
            return super().send(batch)

    write_shop(lake, people=5)
    assert (_run(engine, lake, settings, channel=Down(settings)).count("planned"), _delivered(settings)) == (5, [])
    assert _run(engine, lake, settings, channel=First(settings)).sent == 1
    table = campaign_tables.audience("welcome")
    told = lake.con.to_pyarrow(lake.on(table, DAY).order_by("customer_id")).to_pylist()
    for row in (told[0], told[1]):  # of these the first has gone
        row |= {"decision": "refused", "reason": "opted_out"}
    told[2] |= {"explanation": json.dumps({"trigger": "as it is known now"})}
    fill(lake, table, DAY, [row for row in told if row["customer_id"] != "c000003"])
    again = _run(engine, lake.session(), settings)
    assert again.states == {("sent", ""): 3, ("suppressed", "withdrawn"): 2}
    assert (again.sent, again.newly_planned, len(_delivered(settings))) == (2, 0, 3)
    with engine.connect() as connection:
        kept = sa.select(schema.messages.c.customer_id, schema.messages.c.state, schema.messages.c.explanation)
        found = {row[0][-1]: (row[1], row[2]["trigger"]) for row in connection.execute(kept)}
    assert {who: state for who, (state, _) in found.items()} == {
        "0": "sent",
        "1": "suppressed",
        "2": "sent",
        "3": "suppressed",
        "4": "sent",
    }
    assert (found["2"][1], found["4"][1]) == ("as it is known now", "signed_up")


def test_messages_of_a_step_or_a_variant_that_is_declared_no_more_fail_alone(engine, lake, settings):
    write_shop(lake, people=4)
    table = campaign_tables.audience("welcome")
    told = lake.con.to_pyarrow(lake.on(table, DAY).order_by("customer_id")).to_pylist()
    for row, variant in zip(told, ("gone", "control", "other", None), strict=True):
        row |= {"variant": variant, "explanation": json.dumps({"trigger": "signed_up", "variant": variant})}
    told[3] |= {"step": "gone", "offer": json.dumps({"kind": "percent"})}
    told[0] |= {"offer": json.dumps({"kind": "percent"})}
    fill(lake, table, DAY, told)
    variants = {"control": Variant(), "other": Variant(offer=Incentive(valid_days=7))}
    tried = Experiment(name="gifts", step="hello", sample_size=10, variants=variants)
    changed = campaign().model_copy(update={"experiment": tried})
    changed._folder = campaign().folder
    done = dispatch(engine, lake.session(), settings, changed, DAY, clock=FixedClock(AT), run_id="run")
    gone = "its step, or its variant of the experiment, is not declared any more"
    assert done.states == {("sent", ""): 2, ("failed", gone): 2}
    assert _run(engine, lake, settings).states == done.states


@pytest.mark.parametrize(("kind", "state"), [("marketing", ("suppressed", "cap")), ("transactional", ("sent", ""))])
def test_the_cap_holds_marketing_back_and_nothing_else(engine, lake, settings, kind, state):
    write_shop(lake, people=1)
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, campaign="another"), run_id=None, at=AT)
        (earlier,) = reserve(connection, campaign="another").messages
        ledger.settle(connection, [ledger.Settled(earlier.id, "sent")], by="me", at=AT)
    strict = settings.model_copy(update={"cap_messages": 1})
    of_kind = campaign().model_copy(update={"kind": kind})
    assert dispatch(engine, lake, strict, of_kind, DAY, clock=FixedClock(AT)).states == {state: 1}


@pytest.mark.slow
def test_four_dispatchers_at_once_deliver_each_of_2000_messages_once(engine, lake, settings):
    write_shop(lake, people=2000)
    delivered: list[int] = []

    class Counting(LocalInbox):
        batch_size = 100

        def send(self, batch):
            delivered.extend(envelope.message_id for envelope in batch)
            return super().send(batch)

    def work(_: int) -> int:
        return _run(engine, Lake(lake.root, threads=1), settings, channel=Counting(settings)).sent

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 2000
    assert len(delivered) == len(set(delivered)) == 2000
    assert len(_delivered(settings)) == 2000


_LIVE = "from pg_locks join pg_database on oid = database where locktype = 'advisory' and datname = current_database()"


def test_a_dispatcher_whose_session_ended_tells_what_happened_and_is_not_alive_any_more(engine):
    def work() -> None:
        with dispatcher(engine), engine.connect() as connection:
            assert connection.execute(sa.text(f"select pg_terminate_backend(pid, 10000) {_LIVE}")).all() == [(True,)]
            raise TimeoutError("the provider did not answer")

    with pytest.raises(TimeoutError, match="the provider"):
        work()
    with engine.connect() as connection:
        assert not connection.execute(sa.text(f"select pid {_LIVE}")).all()


def _spawn(database: Path, **values) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "shopauto_pipelines_tests.outbox.shop", json.dumps(values), str(database)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
    )


def _wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, "the dispatcher ended before it could be killed"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_dispatcher_killed_in_the_middle_loses_nothing_and_sends_nothing_twice(engine, database_home, lake, settings):
    write_shop(lake, people=2000)
    process = _spawn(database_home, home=str(settings.home))
    folder = settings.inbox_path / "messages"
    _wait_until(lambda: folder.is_dir() and len(os.listdir(folder)) > 1050, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.read_bytes() for path in _delivered(settings)}
    assert 1050 < len(before) < 2000
    with engine.connect() as connection:
        assert ledger.counts(connection, "welcome", DAY)["reserved", ""] > 0
    after = _run(engine, lake, settings)
    assert after.recovered > 0
    assert after.states == {("sent", ""): 2000}
    assert len(_delivered(settings)) == 2000
    assert {path: path.read_bytes() for path in before} == before
