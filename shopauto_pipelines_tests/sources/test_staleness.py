from datetime import date

import ibis
import pytest

from shopauto_pipelines.platform.dagster.io_manager import _made
from shopauto_pipelines.platform.lake import days_between
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources import raw, staleness, tables
from shopauto_pipelines.sources.conversion import Conversion

from .declared import CUSTOMERS, ORDERS, an_order_a_day, declare, load, put

STATE = Table("features/state", "A table as of a day.", (Column("orders", "int64", "orders so far"),), ("orders",))
DAYS = days_between(date(2026, 1, 5), date(2026, 1, 9))


@pytest.fixture
def shop(lake, settings, tmp_path):
    """One order a day, everything computed; returns a function that writes the orders again with ``late`` rows."""
    load_with = an_order_a_day(lake, settings, tmp_path, DAYS)
    load_with()
    _refresh(lake)
    return load_with


def _refresh(lake):
    """What a refresh does: the raw days that are behind, then the as-of days that are stale or missing."""
    behind = staleness.raw_behind(lake)
    stale = {*staleness.stale_days(lake, STATE), *(set(DAYS) - set(lake.days(STATE)))}
    if behind:
        _write_raw(lake, behind[0], DAYS[-1])
    for day in sorted(stale):
        _write_state(lake, day)


def _write_raw(lake, start, end):
    for table in (tables.CUSTOMERS, tables.ORDERS):
        lake.write(table, days_between(start, end), raw.accepted(lake, table, start, end))
    lake.write(tables.QUARANTINE, days_between(start, end), raw.rejected(lake, start, end))


def _write_state(lake, day):
    orders = lake.between(tables.ORDERS, end=day)
    lake.write(STATE, [day], orders.agg(orders=ibis._.count()))


def test_what_was_just_computed_is_neither_behind_nor_stale(lake, shop):
    assert staleness.raw_behind(lake) == []
    assert staleness.stale_days(lake, STATE) == []


def test_a_late_row_makes_exactly_the_days_from_its_own_on_stale_until_they_are_refreshed(lake, shop):
    shop("late,2026-01-07,c1,,1")
    assert staleness.stale_days(lake, STATE) == DAYS[2:]
    assert staleness.raw_behind(lake) == DAYS[2:]
    _refresh(lake)
    assert staleness.stale_days(lake, STATE) == []
    assert staleness.raw_behind(lake) == []
    counted = [lake.con.to_pyarrow(lake.on(STATE, day))["orders"][0].as_py() for day in DAYS]
    assert counted == [1, 2, 4, 5, 6]


def test_a_late_row_that_is_loaded_while_its_day_is_computed_makes_it_behind(lake, shop):
    def computed(table, rows):
        _made(rows, lake, table, DAYS)

    def orders(start, end):
        seen = raw.accepted(lake, tables.ORDERS, start, end)
        shop("late,2026-01-07,c1,,1")  # by another process, say
        return seen

    computed(tables.CUSTOMERS, lambda start, end: raw.accepted(lake, tables.CUSTOMERS, start, end))
    computed(tables.ORDERS, orders)
    computed(tables.QUARANTINE, lambda start, end: raw.rejected(lake, start, end))
    assert staleness.raw_behind(lake) == DAYS[2:]
    _refresh(lake)
    assert [lake.con.to_pyarrow(lake.on(STATE, day))["orders"][0].as_py() for day in DAYS] == [1, 2, 4, 5, 6]
    assert staleness.raw_behind(lake) == staleness.stale_days(lake, STATE) == []


def test_what_is_computed_while_a_file_is_converted_has_not_seen_it(lake, shop, monkeypatch):
    convert = Conversion.run

    def run(conversion, target):
        done = convert(conversion, target)
        _write_raw(lake, DAYS[0], DAYS[-1])  # by another process, before the manifest tells of what was landed
        return done

    monkeypatch.setattr(Conversion, "run", run)
    shop("late,2026-01-07,c1,,1")
    assert staleness.raw_behind(lake) == DAYS[2:]


def test_a_late_row_lands_in_its_own_day_and_leaves_the_others_untouched(lake, shop):
    before = {day: lake.path(tables.ORDERS, day).stat().st_mtime_ns for day in DAYS}
    shop("late,2026-01-07,c1,,1")
    _refresh(lake)
    after = {day: lake.path(tables.ORDERS, day).stat().st_mtime_ns for day in DAYS}
    assert [day for day in DAYS if after[day] != before[day]] == [DAYS[2]]


def test_days_stay_stale_where_only_the_raw_tables_were_made_again(lake, shop):
    shop("late,2026-01-07,c1,,1")
    for day in DAYS:
        _write_state(lake, day)
    _write_raw(lake, DAYS[2], DAYS[-1])
    assert staleness.stale_days(lake, STATE) == DAYS[2:], "they were computed from the raw days before the late row"


def test_a_load_that_changes_nothing_in_the_raw_tables_leaves_no_day_stale_after_a_refresh(lake, shop):
    shop("9,2026-01-07,c1,,1")  # refused: the order is there already
    _refresh(lake)
    assert staleness.raw_behind(lake) == []
    assert staleness.stale_days(lake, STATE) == []


def test_a_new_day_makes_no_earlier_day_stale(lake, shop):
    shop("new,2026-01-10,c1,,1")
    assert staleness.raw_behind(lake) == [date(2026, 1, 10)]
    assert staleness.stale_days(lake, STATE) == []


def test_a_late_customer_brings_back_the_orders_that_waited_for_him(lake, settings, shop, tmp_path):
    shop("x,2026-01-07,late,,1")
    _refresh(lake)
    assert lake.rows(tables.ORDERS, DAYS[2]) == 1
    customers = "id,changed_at,created_at,email\nc1,2026-01-05,,\nlate,2026-01-06,,\n"
    load(lake, settings, declare(tmp_path, CUSTOMERS, ORDERS), put(tmp_path, customers=customers))
    assert staleness.stale_days(lake, STATE) == DAYS[1:]
    _refresh(lake)
    assert lake.rows(tables.ORDERS, DAYS[2]) == 2
