import hashlib
from datetime import date

import pytest

from shopauto_pipelines.platform.lake import days_between
from shopauto_pipelines.sources import raw, staleness, tables

from .declared import CUSTOMERS, LINES, ORDERS, ORDERS_HEADER, declare, load, put

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)


def _accepted(lake, table, column, start=FIRST, end=LAST):
    return lake.con.to_pyarrow(raw.accepted(lake, table, start, end).order_by(table.key))[column].to_pylist()


def _rejected(lake, start=FIRST, end=LAST):
    rows = lake.con.to_pyarrow(raw.rejected(lake, start, end)).to_pylist()
    return sorted((r["table"], r["source_file"], r["source_row"], r["reason"], r["raw_value"]) for r in rows)


def test_of_rows_with_one_key_in_several_files_the_earliest_day_stays_and_nothing_is_lost(lake, settings, tmp_path):
    first = ORDERS_HEADER + "1,2026-01-05,c1,,1\n2,2026-01-09,c1,,2\n"
    second = ORDERS_HEADER + "1,2026-01-05,c1,,3\n2,2026-01-06,c1,,4\n3,2026-01-07,c1,,5\n"
    load(lake, settings, declare(tmp_path, ORDERS), put(tmp_path, orders_a=first, orders_b=second))
    assert _accepted(lake, tables.ORDERS, "total_cents") == [100, 400, 500]
    assert _rejected(lake) == [
        ("raw/orders", "orders_a.csv", 2, "duplicate key", "2"),
        ("raw/orders", "orders_b.csv", 1, "duplicate key", "1"),
    ]


def test_a_day_is_judged_alike_alone_and_within_a_range(lake, settings, tmp_path):
    first = ORDERS_HEADER + "1,2026-01-05,c1,,1\n2,2026-01-09,c1,,2\n"
    second = ORDERS_HEADER + "1,2026-01-06,c1,,3\n2,2026-01-06,c1,,4\n"
    load(lake, settings, declare(tmp_path, ORDERS), put(tmp_path, orders_a=first, orders_b=second))
    by_day = [
        total
        for day in days_between(FIRST, date(2026, 1, 9))
        for total in _accepted(lake, tables.ORDERS, "total_cents", day, day)
    ]
    assert sorted(by_day) == sorted(_accepted(lake, tables.ORDERS, "total_cents")) == [100, 400]
    rejected = [row for day in days_between(date(2026, 1, 4), date(2026, 1, 9)) for row in _rejected(lake, day, day)]
    assert sorted(rejected) == _rejected(lake)


@pytest.fixture
def shop(lake, settings, tmp_path):
    """Customers known from different days, their orders and lines."""
    customers = (
        "id,changed_at,created_at,email\n"
        "old,2026-01-20,2025-06-01,\n"  # a snapshot of today's record: known since it was created
        "new,2026-01-10,,\n"
    )
    orders = ORDERS_HEADER + (
        "1,2026-01-05,old,,1\n"
        "2,2026-01-05,new,,1\n"
        "3,2026-01-10,new,,1\n"
        "4,2026-01-10,nobody,,1\n"
        "5,2026-01-10,,,1\n"
        "6,2026-01-10,,g@example.com,1\n"
        "7,2026-01-10,old,,free\n"
    )
    lines = "order_id,line,ordered_at,kind,quantity,amount\n" + "".join(
        f"{n},1,2026-01-{'05' if n < 3 else '10'},product,1,1\n" for n in range(1, 9)
    )
    load(
        lake,
        settings,
        declare(tmp_path, CUSTOMERS, ORDERS, LINES),
        put(tmp_path, customers=customers, orders=orders, lines=lines),
    )


def test_orders_of_unknown_customers_are_quarantined_but_not_guests_and_anonymous_sales(lake, shop):
    assert _accepted(lake, tables.ORDERS, "order_id") == ["1", "3", "5", "6"]
    unknown = [row[2:] for row in _rejected(lake) if row[3] == "unknown customer"]
    assert unknown == [(2, "unknown customer", "new"), (4, "unknown customer", "nobody")]


def test_an_account_that_was_made_of_an_order_is_its_customers(lake, settings, tmp_path):
    customers = "id,changed_at,created_at,email\nc1,2026-01-20,2026-01-05T23:55:10,\nc2,2026-01-20,2026-01-07T09:00,\n"
    orders = ORDERS_HEADER + "1,2026-01-05T23:50:00,c1,,1\n2,2026-01-05T23:50:00,c2,,1\n"
    load(lake, settings, declare(tmp_path, ORDERS, CUSTOMERS), put(tmp_path, customers=customers, orders=orders))
    assert _accepted(lake, tables.ORDERS, "order_id") == ["1"]
    assert _rejected(lake) == [("raw/orders", "orders.csv", 2, "unknown customer", "c2")]


def test_lines_whose_order_was_refused_or_is_missing_are_quarantined(lake, shop):
    assert _accepted(lake, tables.ORDER_LINES, "order_id") == ["1", "3", "5", "6"]
    unknown = [row[2:] for row in _rejected(lake) if row[3] == "unknown order"]
    assert unknown == [(n, "unknown order", str(n)) for n in (2, 4, 7, 8)]


def test_a_line_that_does_not_say_whose_it_is_is_of_whoever_ordered(lake, shop):
    guest = "guest:" + hashlib.sha256(b"g@example.com").hexdigest()[:16]
    assert _accepted(lake, tables.ORDER_LINES, "shop_customer_id") == ["old", "new", None, guest]


REFUNDS = """
    refunds:
      files: refunds*.csv
      columns:
        refund_id: id
        refunded_at: refunded_at
        order_id: order_id
        shop_customer_id: customer
        amount_cents: cents(amount)
        reason: why
"""


def test_a_refund_that_does_not_say_whose_it_is_is_of_whoever_had_ordered_by_then(lake, settings, tmp_path):
    orders = ORDERS_HEADER + "1,2026-01-05,c1,,1\n2,2026-01-10,c2,,1\n"
    refunds = "id,refunded_at,order_id,customer,amount,why\n" + (
        "a,2026-01-07,1,,1,too small\n"
        "b,2026-01-07,1,other,1,too small\n"
        "c,2026-01-07,2,,1,too small\n"  # its order comes later
        "d,2026-01-07,9,,1,too small\n"
        "e,2026-01-07,,,1,too small\n"
    )
    mapping = declare(tmp_path, ORDERS, REFUNDS)
    load(lake, settings, mapping, put(tmp_path, orders=orders, refunds=refunds))
    assert _accepted(lake, tables.REFUNDS, "shop_customer_id") == ["c1", "other", None, None, None]
    assert _accepted(lake, tables.REFUNDS, "reason") == ["too small"] * 5
    assert _rejected(lake) == []
    day = date(2026, 1, 7)
    lake.write(tables.REFUNDS, [day], raw.accepted(lake, tables.REFUNDS, day, day))
    assert staleness.days_behind(lake, tables.REFUNDS) == []
    load(lake, settings, mapping, put(tmp_path, orders=orders + "9,2026-01-06,c9,,1\n"))
    assert staleness.days_behind(lake, tables.REFUNDS) == [day], "an order came late, and with it whose refund it is"
    assert _accepted(lake, tables.REFUNDS, "shop_customer_id")[3] == "c9"


def test_landed_rows_are_either_accepted_or_in_the_quarantine(lake, shop):
    counts = {
        t.name: len(_accepted(lake, t, "source_row")) for t in (tables.CUSTOMERS, tables.ORDERS, tables.ORDER_LINES)
    }
    for name, _, _, _, _ in _rejected(lake):
        counts[name] += 1
    assert counts == {"raw/customers": 2, "raw/orders": 7, "raw/order_lines": 8}


def test_a_source_without_customers_is_not_asked_for_them(lake, settings, tmp_path):
    load(lake, settings, declare(tmp_path, ORDERS), put(tmp_path, orders=ORDERS_HEADER + "1,2026-01-05,c1,,1\n"))
    assert _accepted(lake, tables.ORDERS, "order_id") == ["1"]


def test_a_table_that_no_source_feeds_is_empty(lake):
    assert _accepted(lake, tables.EVENTS, "event_id") == []
    assert _rejected(lake) == []


def test_a_day_written_again_has_the_same_bytes(lake, shop):
    day = date(2026, 1, 10)
    lake.write(tables.ORDERS, [day], raw.accepted(lake, tables.ORDERS, day, day))
    before = lake.path(tables.ORDERS, day).read_bytes()
    span = days_between(FIRST, LAST)
    written = lake.write(tables.ORDERS, span, raw.accepted(lake, tables.ORDERS, FIRST, LAST))
    assert not written[day].changed
    assert lake.path(tables.ORDERS, day).read_bytes() == before
