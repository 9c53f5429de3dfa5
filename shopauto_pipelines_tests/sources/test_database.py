"""A source whose rows are in a database: SQLite files, and the embedded PostgreSQL as a shop's server."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.postgres import postgres_url
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import assets, database, raw, tables
from shopauto_pipelines.sources.component import files_asset
from shopauto_pipelines.sources.landing import land, landing_root, read_manifest, refresh_landing, touched_days
from shopauto_pipelines.sources.reading import LandingError

from .declared import CUSTOMERS, LINES, ORDERS, ORDERS_HEADER, TODAY, declare, landed, load, put, refused

PLACE = "env:TEST_SHOP_DATABASE"
AT_ONCE = timedelta(0)

ORDER_ROWS = [
    ("1", "2026-01-05 10:00:00", "c1", None, "12.50"),
    ("2", "2026-01-05 11:00:00", "c2", "", "7.00"),
    ("3", "2026-01-06 09:30:00", "c1", "a@example.com", "3.00"),
    ("4", "2027-01-06 09:30:00", "c1", None, "1.00"),
]
CUSTOMER_ROWS = [
    ("c1", "2026-01-01 00:00:00", "2026-01-01 00:00:00", "c1@example.com"),
    ("c2", "2026-01-02 00:00:00", "2026-01-02 00:00:00", "c2@example.com"),
]
LINE_ROWS = [("1", 1, "2026-01-05 10:00:00", "product", 2, "12.50"), ("9", 1, "2026-01-05 10:00:00", "product", 1, "7")]

DDL = {
    "customers": "id {text} primary key, changed_at {time}, created_at {time}, email {text}",
    "orders": "order_id integer primary key, ordered_at {time}, customer {text}, email {text}, total {money}",
    "lines": "order_id {text}, line integer, ordered_at {time}, kind {text}, quantity integer, amount {money}",
}
ROWS = {"customers": CUSTOMER_ROWS, "orders": ORDER_ROWS, "lines": LINE_ROWS}


def _in_database(declared, schema=""):
    """The declaration of files, with tables in their place."""
    for name in DDL:
        declared = declared.replace(f"files: {name}*.csv", f"table: {schema}{name}")
    return declared


def _fill(url, schema="", **types):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        if schema:
            connection.exec_driver_sql(f"create schema {schema.rstrip('.')}")
        for name, columns in DDL.items():
            connection.exec_driver_sql(f"create table {schema}{name} ({columns.format(**types)})")
            values = ", ".join(f":v{n}" for n in range(len(ROWS[name][0])))
            rows = [{f"v{n}": value for n, value in enumerate(row)} for row in ROWS[name]]
            if types["time"] == "timestamp":
                values = ", ".join(
                    f"cast(:v{n} as {kind.strip().split()[1]})"
                    for n, kind in enumerate(columns.format(**types).split(","))
                )
            connection.execute(sa.text(f"insert into {schema}{name} values ({values})"), rows)
    return engine


@pytest.fixture
def sqlite_shop(tmp_path, monkeypatch):
    """A SQLite file with the shop's three tables; returns its path."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("TEST_SHOP_DATABASE", f"sqlite:///{path}")
    _fill(f"sqlite:///{path}", text="text", time="text", money="real").dispose()
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of a PostgreSQL server."""
    return postgres_url(Settings(home=tmp_path_factory.mktemp("server"), _env_file=None))


@pytest.fixture
def postgres_shop(server, monkeypatch):
    """The same tables in schema ``webshop`` of a PostgreSQL server; an engine."""
    monkeypatch.setenv("TEST_SHOP_DATABASE", server.replace("postgresql+psycopg://", "postgres://"))
    engine = _fill(server, "webshop.", text="varchar", time="timestamp", money="numeric")
    yield engine
    with engine.begin() as connection:
        connection.exec_driver_sql("drop schema webshop cascade")


def _execute(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _mapping(tmp_path, *declared, schema=""):
    return declare(tmp_path, *(_in_database(d, schema) for d in declared or (CUSTOMERS, ORDERS, LINES)))


def _forget_when_it_was_read(lake):
    """As if an hour had passed."""
    known = landing_root(lake) / "shop" / "manifest.json"
    manifest = json.loads(known.read_text())
    for table in manifest["files"].values():
        table["mtime_ns"] -= 3_600_000_000_000
    known.write_text(json.dumps(manifest))


def _partitions(lake):
    """Every raw table and the quarantine, without the lineage that names the file."""
    days = (date(2026, 1, 1), TODAY)
    found = {
        table.name: lake.con.to_pyarrow(raw.accepted(lake, table, *days).drop("source_file")).to_pylist()
        for table in (tables.CUSTOMERS, tables.ORDERS, tables.ORDER_LINES)
    }
    found["quarantine"] = lake.con.to_pyarrow(raw.rejected(lake, *days).drop("source_file")).to_pylist()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def _from_csv(tmp_path, settings):
    """What the raw tables are where the same rows come from CSV files."""
    folder = tmp_path / "csv"
    folder.mkdir()
    texts = {
        name: "\n".join(
            [header, *(",".join("" if v is None else str(v) for v in row) for row in ROWS[name])]
        ) + "\n"
        for name, header in {
            "customers": "id,changed_at,created_at,email",
            "orders": ORDERS_HEADER.strip(),
            "lines": "order_id,line,ordered_at,kind,quantity,amount",
        }.items()
    }  # fmt: skip
    lake = Lake(folder / "lake", threads=2)
    load(lake, settings, declare(folder, CUSTOMERS, ORDERS, LINES), put(folder, **texts))
    return _partitions(lake)


def test_a_sqlite_file_gives_the_raw_tables_that_csv_files_of_the_same_rows_give(lake, settings, sqlite_shop, tmp_path):
    report = load(lake, settings, _mapping(tmp_path), PLACE)
    assert _partitions(lake) == _from_csv(tmp_path, settings)
    assert {(f.file, f.table, f.read) for f in report.files} == {
        ("customers", "customers", 2), ("orders", "orders", 4), ("lines", "order_lines", 2)
    }  # fmt: skip
    assert {row["source_file"] for row in landed(lake)} == {"orders"}


def test_a_postgres_schema_gives_the_raw_tables_that_csv_files_of_the_same_rows_give(
    lake, settings, postgres_shop, tmp_path
):
    load(lake, settings, _mapping(tmp_path, schema="webshop."), PLACE)
    found = _partitions(lake)
    assert found == _from_csv(tmp_path, settings)
    assert sorted(row["total_cents"] for row in found["raw/orders"]) == [300, 700, 1250]
    assert [row["reason"] for row in found["quarantine"]] == ["unknown order", "in the future"]
    assert {row["source_file"] for row in landed(lake)} == {"webshop.orders"}


def test_times_with_offset_flags_and_numbers_of_postgres_are_read_as_what_they_are(
    lake, settings, postgres_shop, tmp_path
):
    with postgres_shop.begin() as connection:
        connection.exec_driver_sql("set timezone = 'Asia/Tokyo'")
        connection.exec_driver_sql(
            "create table webshop.odd (id uuid primary key, at timestamptz, paid boolean, data jsonb, total double precision,"
            ' "Note %% No" varchar)'
        )
        connection.exec_driver_sql(
            "insert into webshop.odd values"
            " ('00000000-0000-0000-0000-00000000000b', '2026-01-05 10:00:00.5+02', true, '{\"sum\": 1}', 4.575, null),"
            " ('00000000-0000-0000-0000-00000000000a', '2026-01-06 10:00:00+02', true, null, 2.5e5, 'n'),"
            " ('00000000-0000-0000-0000-00000000000c', 'infinity', true, null, 1, null),"
            " ('00000000-0000-0000-0000-00000000000d', '2026-01-05 10:00:00+02', false, null, 1, null)"
        )
    mapping = declare(
        tmp_path,
        "orders:\n  table: webshop.odd\n  where: flag(paid)\n  columns:\n    order_id: id\n    ordered_at: at\n"
        "    total_cents: cents(total)\n    coupon_code: coalesce(json_extract_string(data, '$.sum'), \"Note % No\")",
        head="timezone: Europe/Berlin",
    )
    report = load(lake, settings, mapping, PLACE)
    assert [(r["order_id"][-1], r["source_row"], r["total_cents"], r["coupon_code"]) for r in landed(lake)] == [
        ("b", 2, 458, "1"), ("a", 3, 25_000_000, "n")
    ]  # fmt: skip
    assert landed(lake)[0]["ordered_at"] == datetime(2026, 1, 5, 8, 0, 0, 500_000)
    assert (report.total("excluded"), report.reasons) == (1, {"in the future": 1})


def test_a_changed_row_lands_again_and_touches_only_its_days(lake, settings, sqlite_shop, tmp_path):
    mapping = _mapping(tmp_path)
    load(lake, settings, mapping, PLACE)
    _execute(sqlite_shop, "update orders set total = 99 where order_id = 3")
    report = load(lake, settings, mapping, PLACE)
    assert {f.table: f.unchanged for f in report.files} == {"customers": True, "orders": False, "order_lines": True}
    assert touched_days(report) == [date(2026, 1, 6)]
    assert 9900 in [row["total_cents"] for row in landed(lake)]


def test_a_row_keeps_its_number_when_others_come_and_go(lake, settings, sqlite_shop, tmp_path):
    mapping = _mapping(tmp_path)
    _execute(sqlite_shop, "delete from orders where order_id = 4")
    load(lake, settings, mapping, PLACE)
    _execute(
        sqlite_shop,
        "delete from orders where order_id = 1",
        "insert into orders values (0, '2026-01-07', 'c1', null, 5)",
    )
    report = load(lake, settings, mapping, PLACE)
    assert {row["order_id"]: row["source_row"] for row in landed(lake)} == {"0": 0, "2": 2, "3": 3}
    assert touched_days(report) == [date(2026, 1, 5), date(2026, 1, 7)]


def test_a_table_without_a_numeric_key_is_read_in_the_order_of_time(lake, settings, sqlite_shop, tmp_path):
    mapping = _mapping(tmp_path, LINES)
    load(lake, settings, mapping, PLACE)
    before = landed(lake, "order_lines")
    _execute(sqlite_shop, "insert into lines values ('0', 1, '2026-01-07', 'product', 1, 1)")
    report = load(lake, settings, mapping, PLACE)
    assert landed(lake, "order_lines")[:2] == before
    assert touched_days(report) == [date(2026, 1, 7)]


def test_a_refresh_reads_a_database_again_but_not_once_for_every_asset(
    lake, settings, sqlite_shop, tmp_path, monkeypatch
):
    mapping = _mapping(tmp_path)
    load(lake, settings, mapping, PLACE)
    _execute(sqlite_shop, "update orders set total = 99 where order_id = 3")
    assert refresh_landing(lake, [mapping], settings, TODAY) == [], "it was read a moment ago"
    [report] = refresh_landing(lake, [mapping], settings, TODAY, fresh_for=AT_ONCE)
    assert touched_days(report) == [date(2026, 1, 6)]
    [report] = refresh_landing(lake, [mapping], settings, TODAY, fresh_for=AT_ONCE)
    assert touched_days(report) == []
    monkeypatch.delenv("TEST_SHOP_DATABASE")
    assert refresh_landing(lake, [mapping], settings, TODAY) == []
    with pytest.raises(LandingError, match="TEST_SHOP_DATABASE is not set"):
        refresh_landing(lake, [mapping], settings, TODAY, fresh_for=AT_ONCE)


def test_assets_that_start_together_read_a_database_once(lake, settings, sqlite_shop, tmp_path):
    mapping = _mapping(tmp_path)
    load(lake, settings, mapping, PLACE)
    _forget_when_it_was_read(lake)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: refresh_landing(lake, [mapping], settings, TODAY), range(4)))
    assert sorted(len(report) for report in reports) == [0, 0, 0, 1]


def test_all_tables_of_postgres_are_read_as_they_were_at_one_moment(lake, settings, postgres_shop, tmp_path):
    def shop_goes_on(what, done, total):
        if (what, done) == ("read shop", 2):
            with postgres_shop.begin() as connection:
                connection.exec_driver_sql("update webshop.orders set total = 1000")

    land(lake, _mapping(tmp_path, schema="webshop."), PLACE, settings, TODAY, shop_goes_on)
    assert [row["total_cents"] for row in landed(lake)] == [1250, 700, 300]
    load(lake, settings, _mapping(tmp_path, schema="webshop."), PLACE)
    assert {row["total_cents"] for row in landed(lake)} == {100_000}


@pytest.mark.slow
def test_a_run_of_all_raw_assets_reads_the_database_once(sqlite_shop, tmp_path, settings, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    mapping = _mapping(tmp_path)
    lake = Lake(tmp_path / "lake", threads=2)
    load(lake, settings, mapping, PLACE)
    _execute(sqlite_shop, "update orders set total = 99 where order_id = 3")
    _forget_when_it_was_read(lake)
    readings = []
    monkeypatch.setattr(
        database, "opened", lambda place, opened=database.opened: readings.append(place) or opened(place)
    )
    monkeypatch.setattr(assets, "_SOURCES", [mapping])
    resource = SettingsResource()
    opened = LakeResource(settings=resource)
    result = dg.materialize(
        assets.ASSETS,
        resources={"settings": resource, "lake": opened, "lake_io": LakeIOManager(lake=opened)},
        tags={"dagster/asset_partition_range_start": "2026-01-05", "dagster/asset_partition_range_end": "2026-01-06"},
    )
    assert result.success
    assert readings == [PLACE]
    assert lake.on(tables.ORDERS, date(2026, 1, 6)).total_cents.execute().tolist() == [9900]


def test_a_key_that_is_no_number_is_an_error_that_does_not_tell_it(lake, settings, sqlite_shop, tmp_path):
    _execute(
        sqlite_shop,
        "create table odd (order_id bigint primary key, ordered_at text, customer text, email text, total real)",
        "insert into odd select * from orders",
        "update odd set order_id = 'ann@example.com' where order_id = 2",
    )
    with pytest.raises(LandingError, match="the primary key of some rows is not a whole number") as caught:
        load(lake, settings, declare(tmp_path, ORDERS.replace("files: orders*.csv", "table: odd")), PLACE)
    assert "ann@" not in str(caught.value)


def test_a_changed_mapping_or_a_day_that_has_come_is_landed_at_the_next_refresh(lake, settings, sqlite_shop, tmp_path):
    load(lake, settings, _mapping(tmp_path, ORDERS), PLACE)
    assert {row["reason"] for row in refused(lake)} >= {"in the future"}
    changed = _mapping(tmp_path, ORDERS.replace("cents(total)", "cents(total) + 1"))
    [report] = refresh_landing(lake, [changed], settings, TODAY)
    assert not any(file.unchanged for file in report.files)
    [report] = refresh_landing(lake, [changed], settings, date(2027, 1, 7))
    assert "in the future" not in report.reasons


def test_text_that_is_not_utf8_is_set_aside_and_the_rest_is_read(lake, settings, sqlite_shop, tmp_path):
    _execute(sqlite_shop, "update orders set customer = cast(x'636166e9' as text) where order_id = 2")
    load(lake, settings, _mapping(tmp_path, ORDERS), PLACE)
    assert (2, "customer", "not valid UTF-8") in {(r["source_row"], r["column"], r["reason"]) for r in refused(lake)}
    assert 1 in {row["source_row"] for row in landed(lake)}


def test_many_rows_are_read_in_batches_to_the_same_landing(lake, settings, sqlite_shop, tmp_path, monkeypatch):
    with closing(sqlite3.connect(sqlite_shop)) as connection, connection:
        rows = [(n, "2026-01-08 10:00:00", "c1", None, 1.25) for n in range(100, 1100)]
        connection.executemany("insert into orders values (?, ?, ?, ?, ?)", rows)
    mapping = _mapping(tmp_path, ORDERS)
    load(lake, settings, mapping, PLACE)
    at_once = landed(lake)
    monkeypatch.setattr(database, "_BATCH", 64)
    lake = Lake(tmp_path / "second", threads=2)
    load(lake, settings, mapping, PLACE)
    assert len(at_once) > 1000
    assert landed(lake) == at_once


def test_a_view_is_read_like_a_table(lake, settings, sqlite_shop, tmp_path):
    _execute(sqlite_shop, "create view paid as select * from orders where order_id < 3")
    load(
        lake, settings, _mapping(tmp_path, ORDERS.replace("orders*.csv", "x").replace("files: x", "table: paid")), PLACE
    )
    assert [row["order_id"] for row in landed(lake)] == ["1", "2"]


def test_an_empty_table_lands_no_rows(lake, settings, sqlite_shop, tmp_path):
    _execute(sqlite_shop, "delete from orders")
    report = load(lake, settings, _mapping(tmp_path, ORDERS), PLACE)
    assert (report.total("read"), landed(lake)) == (0, [])


def test_a_missing_table_or_column_is_named_with_the_nearest_one(lake, settings, postgres_shop, tmp_path):
    def message(table, columns="order_id: order_id"):
        declared = (
            f"orders:\n  table: {table}\n  columns: {{ordered_at: ordered_at, total_cents: cents(total), {columns}}}"
        )
        with pytest.raises(LandingError) as caught:
            load(lake, settings, declare(tmp_path, declared), PLACE)
        return str(caught.value)

    assert "has no table `webshop.ordrs`; did you mean `webshop.orders`?" in message("webshop.ordrs")
    assert "schema `webshp` holds no table; did you mean `webshop`?" in message("webshp.orders")
    text = message("webshop.orders", "order_id: ordr_id")
    assert "webshop.orders: missing column `ordr_id` (needed by orders; did you mean `order_id`?)" in text
    assert "The table has `order_id`, `ordered_at`" in text
    assert landed(lake) == []


def test_an_optional_table_may_be_missing(lake, settings, sqlite_shop, tmp_path):
    optional = "ad_spend:\n  table: nowhere\n  optional: true\n  columns: {day_at: at}"
    columns = ", ".join(
        f"{c.name}: x" for c in tables.AD_SPEND.columns if c.required and not c.name.startswith("source")
    )
    mapping = _mapping(tmp_path, ORDERS, optional.replace("day_at: at", columns))
    report = load(lake, settings, mapping, PLACE)
    assert [file.table for file in report.files] == ["orders"]
    assert refresh_landing(lake, [mapping], settings, TODAY) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "the environment variable TEST_SHOP_DATABASE is not set"),
        ("hunter2", "is not a database URL"),
        ("postgresql://shop:hunter2@127.0.0.1:1/none", "127.0.0.1:1/none): cannot be read: connection failed"),
        ("postgresql://shop@127.0.0.1:1/none?password=hunter2", "cannot be read: connection failed"),
        ("nonsense://shop:hunter2@host/none", "cannot be used"),
        ("sqlite:////nowhere/shop.db", "there is no such file"),
    ],
)
def test_a_database_that_cannot_be_read_is_named_without_its_password(
    lake, settings, tmp_path, monkeypatch, value, text
):
    monkeypatch.delenv("TEST_SHOP_DATABASE", raising=False)
    if value:
        monkeypatch.setenv("TEST_SHOP_DATABASE", value)
    with pytest.raises(LandingError) as caught:
        load(lake, settings, _mapping(tmp_path), PLACE)
    assert text in str(caught.value)
    assert str(caught.value).startswith(PLACE)
    assert "hunter2" not in str(caught.value)


def test_the_manifest_remembers_the_variable_and_not_the_url(lake, settings, sqlite_shop, tmp_path):
    load(lake, settings, _mapping(tmp_path), Path(PLACE))
    assert read_manifest(lake, "shop").path == PLACE
    known = (landing_root(lake) / "shop" / "manifest.json").read_text()
    assert "sqlite" not in known
    assert json.loads(known)["files"]["orders:orders"]["size"] == len(ORDER_ROWS)


def test_files_are_not_loaded_from_a_database_nor_tables_from_a_folder(lake, settings, sqlite_shop, tmp_path):
    with pytest.raises(LandingError, match="is read from a database: give env:NAME"):
        load(lake, settings, _mapping(tmp_path), tmp_path)
    files = declare(tmp_path, ORDERS)
    with pytest.raises(LandingError, match="is read from files"):
        load(lake, settings, files, PLACE)
    load(lake, settings, files, put(tmp_path, orders=ORDERS_HEADER))
    with pytest.raises(LandingError, match=r"was loaded from .*/files, and its rows would stay beside"):
        load(lake, settings, _mapping(tmp_path, ORDERS), PLACE)


def test_the_sources_asset_says_which_tables_are_read(sqlite_shop, tmp_path):
    spec = files_asset(_mapping(tmp_path, ORDERS))
    assert spec.kinds == {"sql"}
    assert "| `orders` | `orders` |" in spec.description
    assert "shopauto load shop env:NAME" in spec.description


def test_reading_changes_nothing_in_the_database(lake, settings, sqlite_shop, tmp_path):
    before = sqlite_shop.read_bytes()
    load(lake, settings, _mapping(tmp_path), PLACE)
    assert sqlite_shop.read_bytes() == before
