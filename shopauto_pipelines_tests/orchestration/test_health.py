"""Partition health on a small lake of real landed files: what is missing or stale, why, and what repairs it."""

import json
import os
import shutil
import time
from datetime import date, timedelta

import ibis
import pyarrow.parquet as pq
import pytest
from ibis import _
from rich.console import Console

from shopauto_pipelines.cli.refreshing import RefreshError, next_command, today, wanted_days
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.orchestration.health import FailedRun, Made, as_json, examine, ranges, repair_runs
from shopauto_pipelines.platform.lake import DamagedPartition, days_between
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources import raw
from shopauto_pipelines.sources.tables import CUSTOMERS as RAW_CUSTOMERS
from shopauto_pipelines.sources.tables import ORDERS as RAW_ORDERS
from shopauto_pipelines.sources.tables import QUARANTINE
from shopauto_pipelines_tests.sources.declared import (
    CUSTOMERS,
    ORDERS,
    ORDERS_HEADER,
    an_order_a_day,
    declare,
    load,
    put,
)

COUNT = (Column("orders", "int64", "orders", required=True),)
ROLLUP = Table("features/rollup", "Orders of a day.", COUNT, ("orders",), "day")
STATE = Table("features/state", "Orders so far.", COUNT, ("orders",))
STAYS = Table("segments/stays", "Reads its own earlier partition.", COUNT, ("orders",))
AUDIENCE = Table("campaigns/hello/audience", "Reads the state.", COUNT, ("orders",))
FLOW = [
    Made(RAW_CUSTOMERS),
    Made(RAW_ORDERS),
    Made(QUARANTINE, [RAW_ORDERS, RAW_CUSTOMERS]),
    Made(ROLLUP, [RAW_ORDERS]),
    Made(STATE, [ROLLUP]),
    Made(STAYS, [STATE], [STAYS]),
    Made(AUDIENCE, [STAYS]),
]
STATES = (STATE, STAYS, AUDIENCE)
DAYS = days_between(date(2026, 1, 5), date(2026, 1, 9))
#: Of the days, those with an as-of state.
COMPUTED = DAYS[1:]


@pytest.fixture
def shop(lake, settings, tmp_path):
    """One order a day, everything computed; returns a function that writes the orders again with ``late`` rows."""
    load_with = an_order_a_day(lake, settings, tmp_path, DAYS)
    load_with()
    write_logs(lake, DAYS)
    write_states(lake, COMPUTED)
    return load_with


def load_files(lake, settings, folder, now, *orders):
    """Load the shop's files anew, with these orders alone, on the day ``now``."""
    files = put(
        folder,
        customers=f"id,changed_at,created_at,email\nc1,{now},,\n",
        orders=ORDERS_HEADER + "".join(f"{order}\n" for order in orders),
    )
    return load(lake, settings, declare(folder, CUSTOMERS, ORDERS), files, now)


def write_logs(lake, days):
    for table in (RAW_CUSTOMERS, RAW_ORDERS):
        lake.write(table, days, raw.accepted(lake, table, days[0], days[-1]))
    lake.write(QUARANTINE, days, raw.rejected(lake, days[0], days[-1]))
    rows = lake.between(RAW_ORDERS, days[0], days[-1])
    lake.write(
        ROLLUP, days, rows.group_by("day").agg(orders=_.count()) if len(days) > 1 else rows.agg(orders=_.count())
    )


def write_states(lake, days, tables=STATES):
    for day in days:
        for table in tables:
            lake.write(table, [day], lake.between(ROLLUP, end=day).agg(orders=_.orders.sum()))


def problems(lake, failed=()):
    """What is wrong: kind, reason and days by table."""
    found = examine(lake, FLOW, failed).problems
    return [
        (each.kind, each.why, {name: [day.day for day in days] for name, days in each.days.items()}) for each in found
    ]


def test_nothing_is_wrong_with_a_lake_that_was_just_computed(lake, shop):
    health = examine(lake, FLOW)
    assert health.findings == []
    assert health.partitions == 4 * len(DAYS) + 3 * len(COMPUTED)


def test_late_rows_are_told_by_their_file_with_all_that_rests_on_them(lake, shop):
    shop("late,2026-01-08,c1,,1")
    late = [8, 9]
    names = [RAW_ORDERS.name, QUARANTINE.name, ROLLUP.name, STATE.name, STAYS.name, AUDIENCE.name]
    assert problems(lake) == [("stale", "late rows of orders.csv (shop)", dict.fromkeys(names, late))]
    assert repair_runs(examine(lake, FLOW), FLOW) == ([(DAYS[3], DAYS[4])], DAYS[3:])
    write_logs(lake, DAYS[3:])
    write_states(lake, DAYS[3:])
    assert problems(lake) == []


def test_a_day_that_was_computed_again_with_other_rows_makes_stale_what_was_computed_from_it(lake, shop):
    rows = ibis.memtable({"orders": [7]}, schema={"orders": "int64"})
    lake.write(STATE, [DAYS[3]], rows)
    why = "features/state was computed again later"
    assert problems(lake) == [("stale", why, {STAYS.name: [8, 9], AUDIENCE.name: [8, 9]})]


def test_the_same_rows_again_make_nothing_stale(lake, shop):
    write_logs(lake, DAYS[:2])
    write_states(lake, DAYS[1:2])
    assert problems(lake) == []


def test_earlier_days_computed_afterwards_make_stale_what_carries_over_from_day_to_day(lake, shop):
    write_states(lake, DAYS[:1])
    stale = [day.day for day in COMPUTED]
    why = "segments/stays was computed again later"
    assert problems(lake) == [("stale", why, {STAYS.name: stale, AUDIENCE.name: stale})]


def test_what_is_missing_on_a_refreshed_day_is_told_with_the_run_that_failed(lake, shop):
    lake.delete(AUDIENCE, DAYS[4])
    assert problems(lake) == [("missing", "never computed", {AUDIENCE.name: [9]})]
    now = time.time_ns()
    of_others = FailedRun("1" * 32, (DAYS[4], DAYS[4]), frozenset({STATE.name}), now + 9, "of another asset")
    of_another_day = FailedRun("2" * 32, (DAYS[0], DAYS[3]), frozenset(), now + 9, "of another day")
    failed = FailedRun("3" * 32, (DAYS[3], DAYS[4]), frozenset({AUDIENCE.name}), now, "campaigns/hello: no template")
    found = problems(lake, [of_others, of_another_day, failed])
    assert found == [("missing", "run 33333333 failed: campaigns/hello: no template", {AUDIENCE.name: [9]})]


def test_a_partition_whose_file_was_deleted_and_whose_folder_was_left_is_missing(lake, shop):
    lake.path(AUDIENCE, DAYS[4]).unlink()
    assert problems(lake) == [("missing", "never computed", {AUDIENCE.name: [9]})]


def test_where_the_files_begin_after_all_refreshed_days_health_is_told_and_a_refresh_begins_with_them(
    lake, settings, shop, tmp_path
):
    lake.write(CUSTOMER_360, [DAYS[4]], CUSTOMER_360.arrow_schema.empty_table())
    later = days_between(date(2026, 1, 20), date(2026, 1, 22))
    customers = "id,changed_at,created_at,email\nc1,2026-01-20,,\n"
    orders = ORDERS_HEADER + "".join(f"{day.day},{day},c1,,1\n" for day in later)
    load(lake, settings, declare(tmp_path, CUSTOMERS, ORDERS), put(tmp_path, customers=customers, orders=orders))
    assert any(why.startswith("late rows of") for _kind, why, _days in problems(lake))
    assert wanted_days(lake, settings, None, None, Console()) == (later[0], later[-1])


def test_a_first_run_that_stopped_between_two_tables_leaves_no_day_that_counts_as_older_than_a_table(lake, shop):
    for day in DAYS[1:4]:
        lake.delete(AUDIENCE, day)
    of_days = (DAYS[1], DAYS[3])
    newer = [("note", "not computed then: the table is newer")]
    before = FailedRun("5" * 32, of_days, frozenset(), 1, "it failed before the states of these days were computed")
    assert [(each.kind, each.why) for each in examine(lake, FLOW, [before]).findings] == newer
    stopped = FailedRun("6" * 32, of_days, frozenset(), time.time_ns(), "interrupted")
    found = examine(lake, FLOW, [stopped])
    missing = [day.day for day in DAYS[1:4]]
    assert problems(lake, [stopped]) == [("missing", "run 66666666 failed: interrupted", {AUDIENCE.name: missing})]
    assert found.findings == found.problems
    assert repair_runs(found, FLOW) == ([of_days], [])


def test_a_run_that_was_killed_between_two_tables_is_the_reason_why_the_second_is_stale(lake, shop):
    lake.write(STATE, [DAYS[4]], ibis.memtable({"orders": [7]}, schema={"orders": "int64"}))
    killed = FailedRun("4" * 32, (DAYS[4], DAYS[4]), frozenset(), time.time_ns(), "killed")
    assert problems(lake, [killed]) == [("stale", "run 44444444 failed: killed", {STAYS.name: [9], AUDIENCE.name: [9]})]


def test_a_partition_of_an_earlier_version_is_outdated(lake, shop):
    path = lake.path(AUDIENCE, DAYS[2])
    table, stat = pq.read_table(path), path.stat()
    pq.write_table(table.rename_columns(["other"]), path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    why = "written by an earlier version, without `orders`"
    assert problems(lake) == [("outdated", why, {AUDIENCE.name: [7]})]


@pytest.mark.parametrize("left", [0, 5, 200])
def test_a_file_that_a_power_cut_left_without_its_end_is_damaged_and_computed_again(lake, shop, left):
    file = lake.path(STATE, DAYS[3])
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    stay = (file.stat().st_atime_ns, file.parent.stat().st_mtime_ns - 1)
    os.utime(file, ns=stay)  # the disk had the time, not the rows
    for reading in (lake.session().on, lake.rows):
        with pytest.raises(
            DamagedPartition, match=r"features/state of 2026-01-08 is damaged.*`shopauto refresh --stale`"
        ):
            reading(STATE, DAYS[3])
    [found] = [each for each in examine(lake, FLOW).problems if each.kind == "damaged"]
    assert "cut off" in found.why
    assert (found.days[STATE.name], found.repair) == ([DAYS[3]], "shopauto refresh --stale")
    assert DAYS[3] in [day for days in repair_runs(examine(lake, FLOW), FLOW)[0] for day in days_between(*days)]
    write_states(lake, DAYS[3:])
    assert (file.read_bytes(), problems(lake)) == (whole, [])


def test_a_log_that_lacks_days_makes_stale_what_was_computed_without_them(lake, shop):
    lake.delete(ROLLUP, DAYS[0])
    assert problems(lake) == [
        ("missing", "never computed", {ROLLUP.name: [5]}),
        (
            "stale",
            "features/rollup is missing: never computed",
            {table.name: [6, 7, 8, 9] for table in STATES},
        ),
    ]


def test_days_with_data_and_without_a_refresh_are_behind(lake, shop):
    shop("new,2026-01-10,c1,,1", "newer,2026-01-12,c1,,1")
    [found] = examine(lake, FLOW).findings
    assert (found.kind, found.span, found.repair) == (
        "behind",
        [(date(2026, 1, 10), date(2026, 1, 12))],
        "shopauto refresh",
    )


def test_of_the_day_that_goes_on_nothing_is_missed_though_its_rows_have_come_in(lake, settings, shop, tmp_path):
    now = today(settings)
    shop("new,2026-01-10,c1,,1")
    assert examine(lake, FLOW, today=date(2026, 1, 10)).findings == []
    assert [each.kind for each in examine(lake, FLOW, today=date(2026, 1, 11)).findings] == ["behind"]
    of_yesterday = f"{now - timedelta(days=1)},c1,,1"
    late = load_files(lake, settings, tmp_path, now, f"1,{of_yesterday}", f"2,{now},c1,,1")
    assert now in late.days
    yesterday = now - timedelta(days=1)
    assert wanted_days(lake, settings, None, None, Console()) == (yesterday, yesterday)
    with pytest.raises(RefreshError, match=f"to {yesterday}; {now} is not over"):
        wanted_days(lake, settings, now, now, Console())
    load_files(lake, settings, tmp_path, now, f"2,{now},c1,,1")
    with pytest.raises(RefreshError, match="today is not over: refresh tomorrow"):
        wanted_days(lake, settings, None, None, Console())
    assert next_command(lake, settings) == "shopauto refresh"


def test_a_refresh_of_new_days_that_failed_is_told_with_what_it_failed_on(lake, shop):
    shop("new,2026-01-10,c1,,1")
    day, bad = date(2026, 1, 10), "raw/orders:quality: total_cents is too large"
    alone = FailedRun("1" * 32, (day, day), frozenset({AUDIENCE.name}), 9, "a single asset by hand")
    before = FailedRun("2" * 32, (DAYS[0], DAYS[4]), frozenset(), 9, "of another day")
    assert problems(lake, [alone, before])[0][0] == "behind"
    failed = FailedRun("3" * 32, (day, day), frozenset({"raw/orders", AUDIENCE.name}), 8, bad)
    [found] = examine(lake, FLOW, [alone, before, failed]).problems
    assert (found.kind, found.span, found.repair) == ("failed", [(day, day)], "shopauto refresh")
    assert "run 33333333" in found.why
    assert found.why.endswith(bad)


def test_a_first_refresh_that_failed_is_told_too(lake, shop):
    for table in STATES:
        for day in DAYS:
            lake.delete(table, day)
    failed = FailedRun("3" * 32, (DAYS[4], DAYS[4]), frozenset(), 8, "a bad row")
    [found] = examine(lake, FLOW, [failed]).problems
    assert (found.kind, found.repair) == ("failed", "shopauto refresh")


def test_days_left_out_and_tables_that_are_newer_are_notes_that_name_the_command(lake, shop):
    for table in STATES:
        lake.delete(table, DAYS[2])
    lake.delete(AUDIENCE, DAYS[1])
    health = examine(lake, FLOW)
    assert health.problems == []
    told = [(each.why, each.span, each.repair) for each in health.findings]
    assert told == [
        (
            "not refreshed, between days that were",
            [(DAYS[2], DAYS[2])],
            "shopauto refresh --from 2026-01-07 --to 2026-01-07",
        ),
        (
            "not computed then: the table is newer",
            [(DAYS[1], DAYS[1])],
            "shopauto refresh --from 2026-01-06 --to 2026-01-06",
        ),
    ]


def test_scripts_get_every_table_and_range(lake, shop):
    shop("late,2026-01-08,c1,,1")
    told = json.loads(as_json(examine(lake, FLOW)))
    assert told["findings"][0]["repair"] == "shopauto refresh --stale"
    assert told["findings"][0]["tables"][STATE.name] == [{"from": "2026-01-08", "to": "2026-01-09"}]


def test_before_the_first_load_there_is_nothing_to_say(lake):
    assert examine(lake, FLOW).findings == []


def test_where_what_was_loaded_is_gone_health_does_not_say_that_all_is_well(lake, shop):
    shutil.rmtree(lake.root / "landing")
    [found] = examine(lake, FLOW).problems
    assert (found.kind, found.repair) == ("missing", "shopauto load SOURCE PATH")
    assert "what was loaded is gone" in found.why
    assert found.span == [(COMPUTED[0], COMPUTED[-1])]


def test_ranges_are_days_that_follow_each_other():
    day = date(2026, 2, 27)
    days = [day, day + timedelta(days=1), day + timedelta(days=2), day + timedelta(days=9)]
    assert ranges(days[::-1]) == [(days[0], days[2]), (days[3], days[3])]
    assert ranges([]) == []


def test_after_a_load_the_next_command_mends_what_came_late_before_it_computes_what_is_new(lake, settings, shop):
    assert next_command(lake, settings) == "shopauto refresh", "nothing has been refreshed yet"
    nobody = CUSTOMER_360.arrow_schema.empty_table()
    lake.write(CUSTOMER_360, [DAYS[3]], nobody)
    assert next_command(lake, settings) == "shopauto refresh"
    shop("late,2026-01-06,c1,,1")
    assert next_command(lake, settings) == "shopauto refresh --stale && shopauto refresh"
    lake.write(CUSTOMER_360, [DAYS[4]], nobody)
    assert next_command(lake, settings) == "shopauto refresh --stale"
