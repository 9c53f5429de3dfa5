"""What the collector stored becomes raw rows once its day is over: the rows that a file with the same content becomes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.realtime import closed_days
from shopauto_pipelines.realtime.closed_days import collected_rows, land_closed_days
from shopauto_pipelines.realtime.collected import Batch, Row, store
from shopauto_pipelines.realtime.collector.reading import Reader, row_of
from shopauto_pipelines.sources import raw, staleness, tables
from shopauto_pipelines.sources.landing import land, landed_days, landing_root
from shopauto_pipelines.sources.mapping import SourceMapping, TableMapping, mappable
from shopauto_pipelines_tests.realtime.shop_events import NOON, event, order, take

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
DAY = timedelta(days=1)
NIGHT = datetime(2026, 1, 3, 1, 30, tzinfo=UTC)

EVENTS = [
    {"event_id": "e1", "happened_at": "2026-01-03T10:00:00Z", "type": "page_view", "url": " https://shop/ä?a=1,2 "},
    {"event_id": "e2", "happened_at": "2026-01-03T10:00:00.123456+02:00", "type": "login", "anonymous_id": "a1"},
    {"event_id": "e3", "happened_at": "2026-01-02 23:59:59", "type": "add_to_cart", "cart_id": "k1", "quantity": 2},
    {"event_id": "e4", "happened_at": "2026-01-03T01:00:00Z", "type": "search", "shop_customer_id": "s1"},
    {"event_id": "e5", "happened_at": "2026-01-03T10:00:00-05:00", "type": "ticket_opened", "shop_customer_id": "s1"},
    {"event_id": "e6", "happened_at": "2026-01-03T12:00:00Z", "type": "product_view", "product_id": 'a "quoted", one'},
]
ORDERS = [
    {
        "order_id": "o1",
        "ordered_at": "2026-01-03T09:00:00Z",
        "shop_customer_id": "s1",
        "total_cents": 1250,
        "currency": "EUR",
        "cart_id": "k1",
    },
    {"order_id": "o2", "ordered_at": "2026-01-03T23:30:00Z", "email": " Ana@Example.com", "total_cents": 0},
    {"order_id": "o3", "ordered_at": "2026-01-02T09:00:00Z", "total_cents": 99, "discount_cents": 1},
    {"order_id": "o4", "ordered_at": "2026-01-02T09:00:00Z", "email": "n/a", "total_cents": 99},
]
LINES = [
    {"order_id": "o1", "line_number": 1, "product_id": "p", "kind": "product", "quantity": 2, "amount_cents": 1000},
    {"order_id": "o1", "line_number": 2, "kind": "shipping", "quantity": 1, "amount_cents": 250},
]
FORMS = [
    {
        "submission_id": "f1",
        "submitted_at": "2026-01-03T09:00:00Z",
        "form": "newsletter",
        "email": "ana@example.com",
        "fields": {"wishes": 'tea, "green"', "n": 3},
        "utm_source": "ads",
    }
]


TOLD_BY_SHOPS = {
    tables.CUSTOMERS: [
        {
            "shop_customer_id": "s1",
            "changed_at": "2026-01-03T08:00:00Z",
            "email": "Ana@Example.com",
            "first_name": "Ána",
            "birthday": "1990-02-28",
        },
        {"shop_customer_id": "s2", "changed_at": "2026-01-03T08:00:00+01:00", "created_at": "2020-01-01T00:00:00Z"},
    ],
    tables.CONSENTS: [
        {"shop_customer_id": "s1", "channel": "email", "state": "opted_in", "changed_at": "2026-01-03T08:00:00Z"}
    ],
    tables.REFUNDS: [
        {
            "refund_id": "r1",
            "refunded_at": "2026-01-03T08:00:00Z",
            "order_id": "o1",
            "kind": "product",
            "amount_cents": 5,
        }
    ],
}


def collected_lane(engine, settings, lake: Lake) -> Lake:
    reader, batch = Reader(settings), Batch()
    for one in EVENTS:
        email = {"email": "ana@example.com"} if one["type"] == "login" else {}
        reader.event(batch, one | email, NOON, trusted=True)
    for one in ORDERS:
        lines = [
            {k: v for k, v in line.items() if k != "order_id"} for line in LINES if line["order_id"] == one["order_id"]
        ]
        reader.order(batch, one | ({"lines": lines} if lines else {}), NOON)
    for one in FORMS:
        reader.form(batch, one, NOON, trusted=True)
    for table, told in TOLD_BY_SHOPS.items():
        for one in told:
            reader.row(batch, table, one, NOON)
    with engine.begin() as connection:
        store(connection, batch, at=NOON)
    land_closed_days(engine, lake, settings, NOON + DAY)
    return lake


def file_lane(settings, tmp_path) -> Lake:
    ordered = {one["order_id"]: one for one in ORDERS}
    lines = [line | {n: ordered[line["order_id"]].get(n) for n in ("ordered_at", "shop_customer_id")} for line in LINES]
    forms = [one | {"fields": json.dumps(one["fields"], ensure_ascii=False, separators=(",", ":"))} for one in FORMS]
    content = {"events": EVENTS, "orders": ORDERS, "order_lines": lines, "form_submissions": forms}
    told = {table.name.removeprefix("raw/"): rows for table, rows in TOLD_BY_SHOPS.items()}
    return load_files(settings, tmp_path, content | told)


def load_files(settings, tmp_path: Path, content: Mapping[str, Iterable[Mapping[str, Any]]]) -> Lake:
    """Files with these rows, loaded as ``shopauto load`` does it, by a mapping that takes every column as it is."""
    folder, declared = tmp_path / "files", {table.name.removeprefix("raw/"): table for table in tables.RAW_TABLES}
    folder.mkdir()
    for name, rows in content.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, mappable(declared[name]))
            writer.writeheader()
            writer.writerows(rows)
    mapping = SourceMapping(
        name="files",
        timezone="UTC",
        tables={
            name: TableMapping(columns={c: f'"{c}"' for c in mappable(declared[name])}, files=f"{name}.csv")
            for name in content
        },
    )
    lake = Lake(tmp_path / "loaded", threads=2)
    land(lake, mapping, folder, settings, TODAY)
    return lake


def rows(lake: Lake, table: Table, start: date = date(2025, 1, 1), end: date = TODAY) -> list[dict[str, Any]]:
    """Accepted rows of the days without their lineage, by key."""
    lineage = {column.name for column in tables.LINEAGE}
    found = lake.con.to_pyarrow(raw.accepted(lake, table, start, end)).to_pylist()
    kept = [{name: value for name, value in row.items() if name not in lineage} for row in found]
    return sorted(kept, key=lambda row: [str(row[name]) for name in table.key])


def refused(lake: Lake) -> list[tuple]:
    """What is in the quarantine, without where it came from."""
    found = lake.con.to_pyarrow(raw.rejected(lake, date(2025, 1, 1), TODAY)).to_pylist()
    return sorted((row["table"], row["column"], row["reason"], row["raw_value"], row["day"]) for row in found)


def test_the_collector_and_a_file_with_the_same_content_make_the_same_rows(engine, settings, tmp_path):
    shop = settings.model_copy(update={"timezone": "America/Sao_Paulo"})
    collected, loaded = collected_lane(engine, shop, Lake(tmp_path / "lake", threads=2)), file_lane(shop, tmp_path)
    told = {tables.EVENTS: EVENTS, tables.ORDERS: ORDERS, tables.ORDER_LINES: LINES, tables.FORM_SUBMISSIONS: FORMS}
    told |= TOLD_BY_SHOPS
    assert told.keys() == set(tables.COLLECTED_TABLES)
    for table, entries in told.items():
        assert len(rows(collected, table)) == len(entries)
        assert rows(collected, table) == rows(loaded, table)
    assert refused(collected) == refused(loaded) == []
    assert landed_days(collected) == landed_days(loaded)


def test_what_is_told_both_ways_is_there_once_as_the_file_has_it(engine, settings, tmp_path):
    told = {"order_id": "o1", "ordered_at": "2026-01-03T10:00:00", "shop_customer_id": "s1", "total_cents": 100}
    lake = load_files(settings, tmp_path, {"orders": [told]})
    at = datetime(2026, 1, 3, 10, tzinfo=UTC)
    take(engine, order("o1", "s1", at=at, currency="EUR"), order("o2", "s1", at=at))
    land_closed_days(engine, lake, settings, NOON)
    accepted = lake.con.to_pyarrow(raw.accepted(lake, tables.ORDERS, YESTERDAY, TODAY)).to_pylist()
    assert sorted((row["order_id"], row["source"]) for row in accepted) == [("o1", "files"), ("o2", "collector")]
    assert refused(lake) == []


def test_the_lines_of_an_order_that_is_told_both_ways_are_those_of_the_file(engine, settings, tmp_path):
    at = {"ordered_at": "2026-01-03T10:00:00"}
    content = {
        "orders": [at | {"order_id": "o1", "total_cents": 1250}],
        "order_lines": [at | line | {"line_number": 7000 + line["line_number"]} for line in LINES],
    }
    lake = load_files(settings, tmp_path, content)
    told = [order(name, None, at=datetime(2026, 1, 3, 10, tzinfo=UTC)) for name in ("o1", "o2")]
    lines = [line | {"order_id": one.key, **at} for one in told for line in LINES]
    take(engine, *told, *(row_of(tables.ORDER_LINES, line | {"ordered_at": told[0].at}) for line in lines))
    land_closed_days(engine, lake, settings, NOON)
    found = [(row["order_id"], row["line_number"]) for row in rows(lake, tables.ORDER_LINES)]
    assert found == [("o1", 7001), ("o1", 7002), ("o2", 1), ("o2", 2)]
    assert refused(lake) == []


def test_what_is_wrong_with_a_row_is_told_as_of_a_file(engine, settings, tmp_path):
    told = [
        {"event_id": "ok", "happened_at": "2026-01-03T10:00:00", "type": "page_view", "quantity": "3"},
        {"event_id": "b1", "happened_at": "2026-01-03T10:00:00", "type": "dance"},
        {"event_id": "b2", "happened_at": "2026-01-03T10:00:00", "type": "add_to_cart", "quantity": "two"},
        {"event_id": "b3", "happened_at": "2026-01-03T10:00:00", "type": "add_to_cart", "quantity": "-1"},
        {"event_id": "b4", "happened_at": "2026-01-03T10:00:00", "type": ""},
        {"event_id": "b5", "happened_at": "2026-01-03T10:00:00", "type": "page_view", "url": "x" * 10_001},
        {"event_id": "b6", "happened_at": "2026-01-03T10:00:00", "type": "add_to_cart", "quantity": "1.5"},
    ]
    at = datetime(2026, 1, 3, 10, tzinfo=UTC)
    take(engine, *(Row("raw/events", row["event_id"], at, None, row) for row in told))
    lake = Lake(tmp_path / "collected", threads=2)
    land_closed_days(engine, lake, settings, NOON)
    loaded = load_files(settings, tmp_path, {"events": told})
    assert rows(lake, tables.EVENTS) == rows(loaded, tables.EVENTS)
    assert refused(lake) == refused(loaded)
    assert len(refused(lake)) == 6


def test_a_day_is_landed_when_it_is_over_in_the_shops_time_zone(engine, settings, lake):
    shop = settings.model_copy(update={"timezone": "America/Sao_Paulo"})
    take(engine, event("e1", "page_view", at=NIGHT))  # still the day before over there
    midnight = datetime(2026, 1, 3, 3, tzinfo=UTC)
    assert land_closed_days(engine, lake, shop, midnight - timedelta(seconds=1)) == []
    assert land_closed_days(engine, lake, shop, midnight) == [date(2026, 1, 2)]
    assert collected_rows(lake) == {date(2026, 1, 2): {"raw/events": 1}}
    assert [row["happened_at"] for row in rows(lake, tables.EVENTS)] == [NIGHT.replace(tzinfo=None)]
    (row,) = lake.con.to_pyarrow(raw.accepted(lake, tables.EVENTS, date(2026, 1, 2), TODAY)).to_pylist()
    assert (row["source"], row["source_file"], row["source_row"]) == ("collector", "2026-01-02.parquet", 1)


def test_landing_again_changes_nothing_and_a_late_row_marks_its_day(engine, settings, lake):
    take(engine, event("e1", "page_view", at=NOON - 2 * DAY), event("e2", "page_view", at=NOON - DAY))
    assert land_closed_days(engine, lake, settings, NOON) == [YESTERDAY - DAY, YESTERDAY]
    lake.write(tables.EVENTS, [YESTERDAY - DAY, YESTERDAY], raw.accepted(lake, tables.EVENTS, YESTERDAY - DAY, TODAY))
    assert land_closed_days(engine, lake, settings, NOON + timedelta(hours=1)) == []
    assert staleness.days_behind(lake, tables.EVENTS) == []
    take(engine, event("e0", "page_view", at=NOON - 2 * DAY))
    assert land_closed_days(engine, lake, settings, NOON) == [YESTERDAY - DAY]
    assert staleness.days_behind(lake, tables.EVENTS) == [YESTERDAY - DAY, YESTERDAY]
    assert [row["event_id"] for row in rows(lake, tables.EVENTS)] == ["e0", "e1", "e2"]


def test_the_bytes_in_the_lake_do_not_depend_on_the_order_in_which_rows_came(engine, settings, tmp_path):
    told = [event(f"e{n}", "page_view", at=NOON - DAY + (n % 3) * timedelta(seconds=1), url=f"u{n}") for n in range(9)]
    found = []
    for number, ranked in enumerate((told, told[::-1])):
        with engine.begin() as connection:
            connection.execute(sa.text("truncate collected"))
        for one in ranked:
            take(engine, one)
        lake = Lake(tmp_path / str(number), threads=1)
        land_closed_days(engine, lake, settings, NOON)
        found.append({path.name: path.read_bytes() for path in landing_root(lake).rglob("*.parquet")})
    assert found[0] == found[1]


def test_an_order_of_a_customer_nobody_told_the_collector_of_is_taken(engine, settings, lake):
    changed = NOON - DAY
    row = {"shop_customer_id": "s1", "changed_at": changed.replace(tzinfo=None).isoformat()}
    take(engine, Row("raw/customers", "s1:x", changed, None, row), order("o1", "s2", at=changed))
    land_closed_days(engine, lake, settings, NOON)
    assert [row["shop_customer_id"] for row in rows(lake, tables.ORDERS)] == ["s2"]


KEPT = closed_days.KEPT_DAYS * DAY


def stored_keys(engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text("select key from collected order by key")).scalars())


def test_rows_that_are_landed_and_old_are_forgotten_and_their_days_stay_in_the_lake(engine, settings, lake):
    old = NOON - KEPT - DAY
    take(engine, event("e1", "page_view", at=old), event("e2", "add_to_cart", "k1", at=old), order("o1", "s1", at=old))
    take(engine, event("e3", "page_view", at=NOON - KEPT), event("e4", "page_view", at=NOON - DAY))
    assert len(land_closed_days(engine, lake, settings, NOON)) == 3
    assert stored_keys(engine) == ["e3", "e4"]
    assert land_closed_days(engine, lake, settings, NOON) == []
    assert [row["event_id"] for row in rows(lake, tables.EVENTS)] == ["e1", "e2", "e3", "e4"]
    assert [row["order_id"] for row in rows(lake, tables.ORDERS)] == ["o1"]
    with engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from carts")).scalar_one() == 0


def test_of_a_cart_that_lives_on_nothing_is_forgotten_and_its_old_days_are_not_landed_again(engine, settings, lake):
    old = NOON - KEPT - DAY
    take(engine, event("e1", "add_to_cart", "k1", at=old, product_id="p"), event("e2", "page_view", at=old))
    take(engine, event("e3", "page_view", "k1", at=NOON - DAY))
    land_closed_days(engine, lake, settings, NOON)
    assert stored_keys(engine) == ["e1", "e3"]
    assert land_closed_days(engine, lake, settings, NOON + timedelta(hours=1)) == []
    assert [row["event_id"] for row in rows(lake, tables.EVENTS)] == ["e1", "e2", "e3"]


def test_a_late_row_of_a_day_that_became_old_before_it_was_landed_again_is_not_lost(engine, settings, lake):
    day = NOON - 30 * DAY
    take(engine, event("e1", "page_view", at=day))
    land_closed_days(engine, lake, settings, NOON)
    take(engine, event("e2", "page_view", at=day))
    long_after = NOON + KEPT
    assert land_closed_days(engine, lake, settings, long_after) == [day.date()]
    assert stored_keys(engine) == []
    assert [row["event_id"] for row in rows(lake, tables.EVENTS)] == ["e1", "e2"]
