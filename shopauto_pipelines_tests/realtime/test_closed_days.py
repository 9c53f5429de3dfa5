"""Events and choices of days that are over become rows of the raw tables, once, and late ones mark their day."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import ibis
import pytest

from shopauto_pipelines.outbox import consents, ledger, links, preference_page, web
from shopauto_pipelines.outbox.dispatch import land_sent
from shopauto_pipelines.outbox.preference_page import Wanted
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.profiles.consent import consent
from shopauto_pipelines.realtime import assets, closed_days
from shopauto_pipelines.realtime.closed_days import events_by_type, land_closed_days, land_held_rows
from shopauto_pipelines.realtime.collector.recording import record
from shopauto_pipelines.realtime.collector.sendgrid_events import parse
from shopauto_pipelines.sources import assets as sources_assets
from shopauto_pipelines.sources import raw, staleness, tables
from shopauto_pipelines.sources.landing import landing_root
from shopauto_pipelines_tests.outbox.conftest import AT, DAY
from shopauto_pipelines_tests.realtime.conftest import event, plan, token_of
from shopauto_pipelines_tests.realtime.shop_events import event as shop_event
from shopauto_pipelines_tests.realtime.shop_events import people
from shopauto_pipelines_tests.realtime.shop_events import take as collect

TODAY = AT.date()
YESTERDAY = TODAY - timedelta(days=1)
NOW = datetime(2026, 1, 4, 12, tzinfo=UTC)


def take(engine, settings, *events):
    with engine.begin() as connection:
        record(connection, parse(json.dumps(events).encode(), settings.hash_key).events, at=AT)


def landed(lake, table, day):
    rows = lake.con.to_pyarrow(raw.accepted(lake, table, day, day)).to_pylist()
    assert lake.con.to_pyarrow(raw.rejected(lake, day, day)).to_pylist() == []
    return rows


def files(lake):
    """Content of everything that is landed; times of files do not count."""
    return {path.name: path.read_bytes() for path in landing_root(lake).rglob("*.parquet")}


def test_the_events_of_a_day_that_is_over_are_message_events_of_that_day(engine, settings, lake):
    plan(engine, settings, 3)
    yesterday = AT - timedelta(days=1)
    take(
        engine,
        settings,
        event(1, "processed", at=yesterday),
        event(1, "delivered", at=yesterday),
        event(2, "open", at=yesterday, sg_machine_open=True),
        event(3, "deferred", at=yesterday),
        event(3, "delivered", at=AT),
    )
    assert land_closed_days(engine, lake, settings, NOW) == [YESTERDAY]
    rows = landed(lake, tables.MESSAGE_EVENTS, YESTERDAY)
    assert [(r["event_id"], r["type"], r["is_machine"]) for r in sorted(rows, key=lambda r: r["event_id"])] == [
        ("delivered-1-0", "delivered", False),
        ("open-2-0", "open", True),
    ]
    (first, _) = sorted(rows, key=lambda r: r["event_id"])
    assert first["message_id"] == "welcome:hello:c000000:2026-01-03"
    assert (first["shop_customer_id"], first["channel"], first["campaign"]) == ("c000000", "email", "welcome")
    assert first["happened_at"] == yesterday.replace(tzinfo=None)
    assert first["source"] == "outbox"
    assert landed(lake, tables.MESSAGE_EVENTS, TODAY) == []


def test_landing_again_changes_nothing_and_marks_nothing(engine, settings, lake):
    plan(engine, settings, 2)
    take(engine, settings, event(1, at=AT - timedelta(days=1)), event(2, at=AT - timedelta(days=2)))
    assert len(land_closed_days(engine, lake, settings, NOW)) == 2
    for table in (*tables.RAW_TABLES, tables.QUARANTINE):
        days = staleness.days_behind(lake, table)
        if days:
            rows = (
                raw.rejected if table is tables.QUARANTINE else lambda lake, s, e, t=table: raw.accepted(lake, t, s, e)
            )
            lake.write(table, days, rows(lake, days[0], days[-1]))
    before = files(lake)
    assert land_closed_days(engine, lake, settings, NOW) == []
    assert land_closed_days(engine, lake, settings, NOW + timedelta(hours=1)) == []
    assert files(lake) == before
    assert staleness.raw_behind(lake) == []


def test_a_late_event_lands_on_its_own_day_and_marks_it_as_behind(engine, settings, lake):
    plan(engine, settings, 2)
    two_ago = YESTERDAY - timedelta(days=1)
    take(engine, settings, event(1, at=AT - timedelta(days=2)), event(1, "open", at=AT - timedelta(days=1)))
    land_closed_days(engine, lake, settings, NOW)
    lake.write(
        tables.MESSAGE_EVENTS, [two_ago, YESTERDAY], raw.accepted(lake, tables.MESSAGE_EVENTS, two_ago, YESTERDAY)
    )
    assert staleness.days_behind(lake, tables.MESSAGE_EVENTS) == []
    take(engine, settings, event(2, at=AT - timedelta(days=2)))
    assert land_closed_days(engine, lake, settings, NOW) == [two_ago]
    assert staleness.days_behind(lake, tables.MESSAGE_EVENTS) == [two_ago, YESTERDAY]
    assert len(landed(lake, tables.MESSAGE_EVENTS, two_ago)) == 2


def test_an_event_that_is_as_late_as_may_be_is_still_found(engine, settings, lake):
    plan(engine, settings, 1)
    take(engine, settings, event(1, at=AT - timedelta(days=1)))
    land_closed_days(engine, lake, settings, NOW)
    late = AT - closed_days.LATEST
    take(engine, settings, event(1, "open", at=late))
    assert land_closed_days(engine, lake, settings, NOW) == [late.date()]


@pytest.mark.parametrize(
    ("zone", "day"),
    [("UTC", date(2026, 1, 3)), ("America/Sao_Paulo", date(2026, 1, 2)), ("Pacific/Auckland", date(2026, 1, 3))],
)
def test_a_day_is_the_shops_and_is_over_at_its_midnight(engine, settings, lake, zone, day):
    shop = settings.model_copy(update={"timezone": zone})
    plan(engine, settings, 1)
    take(engine, settings, event(1, at=datetime(2026, 1, 3, 2, tzinfo=UTC)))
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), shop.zone)
    assert land_closed_days(engine, lake, shop, midnight - timedelta(seconds=1)) == []
    assert land_closed_days(engine, lake, shop, midnight) == [day]
    assert [r["event_id"] for r in lake.con.to_pyarrow(raw.accepted(lake, tables.MESSAGE_EVENTS, day, day)).to_pylist()]
    assert events_by_type(engine, shop, day, day) == {day: {"delivered": 1}}


def test_the_rows_do_not_depend_on_the_order_in_which_events_came(engine, settings, tmp_path):
    events = [event(n, kind, at=AT - timedelta(days=1)) for n in (1, 2) for kind in ("delivered", "open", "click")]
    found = []
    for number, order in enumerate((events, events[::-1])):
        with engine.begin() as connection:
            connection.exec_driver_sql("truncate shopauto.messages, shopauto.provider_events restart identity cascade")
        plan(engine, settings, 2)
        for one in order:
            take(engine, settings, one)
        lake = Lake(tmp_path / str(number), threads=1)
        land_closed_days(engine, lake, settings, NOW)
        found.append(files(lake))
    assert found[0] == found[1]


def choose(engine, settings, message_id, on, at, less_often=False):
    with engine.begin() as connection:
        message = preference_page.message_of(connection, settings.hash_key, token_of(engine, settings, message_id))
        wanted = Wanted(["email"] if on else [], ["news"], less_often)
        preference_page.save(connection, message, ["news"], wanted, web.words("en"), at)


def test_what_people_chose_is_a_consent_that_the_profiles_obey(engine, settings, lake):
    plan(engine, settings, 3)
    first, later = AT - timedelta(days=2), AT - timedelta(days=1)
    choose(engine, settings, 1, False, first)
    choose(engine, settings, 1, True, later)
    choose(engine, settings, 2, False, later)
    choose(engine, settings, 3, True, later, less_often=True)
    take(engine, settings, event(3, "unsubscribe", at=first))
    land_closed_days(engine, lake, settings, NOW)
    days = days_between(first.date(), later.date())
    for table in (tables.CONSENTS, tables.MESSAGE_EVENTS, tables.TOPIC_CHOICES):
        lake.write(table, days, raw.accepted(lake, table, days[0], days[-1]))
    assert landed(lake, tables.CONSENTS, later.date())[0]["wording"] == "preference_page: E-mail: As it comes"

    def states(as_of):
        unknown = (profiles.CLAIMS, profiles.ATTRIBUTES, profiles.IDENTITIES)
        nobody = (ibis.memtable([], schema=table.schema) for table in unknown)
        logs = (
            lake.between(table, end=as_of) for table in (tables.CONSENTS, tables.MESSAGE_EVENTS, tables.TOPIC_CHOICES)
        )
        return {r["customer_id"]: r["state"] for r in lake.con.to_pyarrow(consent(*logs, *nobody)).to_pylist()}

    assert states(first.date()) == {"c000000": "opted_out", "c000002": "opted_out"}
    assert states(later.date()) == {"c000000": "opted_in", "c000001": "opted_out", "c000002": "opted_in"}


def test_choices_of_nobody_known_stay_in_the_database(engine, settings, lake):
    plan(engine, settings, 1)
    at, hashed = AT - timedelta(days=1), links.address_hash(settings.hash_key, "email", "c000000@example.com")
    with engine.begin() as connection:
        for topic in ("*", "news"):
            consents.choose(connection, hashed, "email", "opted_out", topic=topic, source="import", at=at)
    assert land_closed_days(engine, lake, settings, NOW) == []


def test_choices_about_a_topic_are_landed_apart(engine, settings, lake):
    plan(engine, settings, 1)
    at, hashed = AT - timedelta(days=1), links.address_hash(settings.hash_key, "email", "c000000@example.com")
    with engine.begin() as connection:
        for topic, choice in (
            ("news", "opted_out"),
            ("offers", "opted_out"),
            ("offers", "opted_in"),
            ("*", "less_often"),
        ):
            consents.choose(connection, hashed, "email", choice, topic=topic, source="page", at=at, message_id=1)
    assert land_closed_days(engine, lake, settings, NOW) == [YESTERDAY]
    chosen = [
        (row["shop_customer_id"], row["topic"], row["state"]) for row in landed(lake, tables.TOPIC_CHOICES, YESTERDAY)
    ]
    assert chosen == [("c000000", "news", "opted_out"), ("c000000", "offers", "opted_out")]
    assert [row["state"] for row in landed(lake, tables.CONSENTS, YESTERDAY)] == ["opted_in"]


def test_two_choices_at_one_instant_are_the_one_that_allows_less(engine, settings, lake):
    plan(engine, settings, 1)
    at = AT - timedelta(days=1)
    take(engine, settings, event(1, "unsubscribe", at=at), event(1, "group_unsubscribe", 1, at=at))
    land_closed_days(engine, lake, settings, NOW)
    assert [row["state"] for row in landed(lake, tables.CONSENTS, YESTERDAY)] == ["opted_out"]


def test_a_ticket_told_with_an_address_is_of_the_person_who_has_it(engine, settings, lake):
    people(engine, {"s1": "p1"}, {"p1": b"ana"})
    told = [
        shop_event(f"t{n}", "ticket_opened", at=AT - timedelta(days=1), shop_customer_id=who)
        for n, who in enumerate(["guest:1", "guest:2", "s1"])
    ]
    collect(engine, *told, guests={"guest:1": b"ana", "guest:2": b"bea"})
    assert land_closed_days(engine, lake, settings, NOW) == [YESTERDAY]
    rows = landed(lake, tables.EVENTS, YESTERDAY)
    assert {row["event_id"]: row["shop_customer_id"] for row in rows} == {"t0": "p1", "t1": "guest:2", "t2": "s1"}


def test_many_events_of_a_day_are_read_in_bounded_batches(engine, settings, lake, monkeypatch):
    monkeypatch.setattr(closed_days, "_CHUNK", 7)
    plan(engine, settings, 50)
    take(engine, settings, *(event(n, at=AT - timedelta(days=1)) for n in range(1, 51)))
    land_closed_days(engine, lake, settings, NOW)
    assert len(landed(lake, tables.MESSAGE_EVENTS, YESTERDAY)) == 50


def test_a_run_lands_the_days_that_are_over_before_it_reads_the_raw_tables(
    engine, settings, shared_engine, monkeypatch
):
    monkeypatch.setenv("SHOPAUTO_HOME", str(settings.home))
    monkeypatch.setattr(assets, "engine", lambda _: engine)
    lake = Lake(settings.lake_path, threads=1)
    plan(engine, settings, 1)
    declared = Settings(home=settings.home, _env_file=None)
    take(
        engine,
        declared,
        event(1, at=AT - timedelta(days=1)),
        event(1, "open", at=AT - timedelta(days=1), sg_machine_open=True),
    )
    lake.note_first_day(YESTERDAY)
    monkeypatch.setattr(sources_assets, "landed_days", lambda lake: (YESTERDAY, YESTERDAY))
    key = dg.AssetKey(["raw", "message_events"])
    resource = SettingsResource()
    opened = LakeResource(settings=resource)
    result = dg.materialize(
        [assets.provider_events, *(asset for asset in sources_assets.ASSETS if asset.key == key)],
        partition_key=str(YESTERDAY),
        resources={"settings": resource, "lake": opened, "lake_io": LakeIOManager(lake=opened)},
    )
    assert lake.rows(tables.MESSAGE_EVENTS, YESTERDAY) == 2
    assert len(landed(lake, tables.MESSAGE_EVENTS, TODAY)) == 1  # the message itself, which was sent
    (made,) = result.asset_materializations_for_node("collector__provider_events")
    assert made.metadata["dagster/row_count"].value == 2
    assert made.metadata["landed_by_this_run"].value is True
    assert "| open by a machine | 1 |" in made.metadata["events"].value


def test_a_message_that_turns_out_to_be_sent_is_landed_as_sent_on_its_morning(engine, settings, lake):
    plan(engine, settings, 3, "unknown")
    with engine.begin() as connection:
        ledger.resolve(connection, state="sent", why="seen in their log", at=AT, ids=[1])
    land_sent(engine, lake, settings, "welcome", DAY)
    assert [r["type"] for r in landed(lake, tables.MESSAGE_EVENTS, TODAY)] == ["sent"]
    take(engine, settings, event(2, "delivered", at=AT))
    assert land_held_rows(engine, lake, settings, NOW) == [TODAY]
    assert [r["shop_customer_id"] for r in landed(lake, tables.MESSAGE_EVENTS, TODAY)] == ["c000000", "c000001"]
    assert land_held_rows(engine, lake, settings, NOW) == []
