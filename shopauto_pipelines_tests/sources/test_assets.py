import importlib
from datetime import date, timedelta

import dagster as dg
import pytest

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.partitions import DAILY
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.sources import tables
from shopauto_pipelines.sources.assets import ASSETS
from shopauto_pipelines.sources.component import files_asset
from shopauto_pipelines.sources.landing import land
from shopauto_pipelines.sources.mapping import mapping_named, mappings

FIRST = date.fromisoformat(DAILY.get_first_partition_key())
LAST = FIRST + timedelta(days=2)
TABLES = (*tables.CORE_TABLES, tables.FORM_SUBMISSIONS, tables.QUARANTINE)

HEADERS = {
    "customers": "shop_customer_id,changed_at,created_at,email,phone,first_name,last_name,gender,birthday,country,city,language",
    "consents": "shop_customer_id,channel,state,wording,changed_at",
    "products": "product_id,changed_at,name,category,price,cost",
    "orders": "order_id,ordered_at,shop_customer_id,email,currency,total,discount,shipping,coupon_code,cart_id",
    "order_lines": "order_id,line_number,ordered_at,shop_customer_id,product_id,kind,quantity,unit_price,amount",
    "refunds": "refund_id,refunded_at,order_id,shop_customer_id,product_id,kind,quantity,amount,reason",
    "events": "event_id,happened_at,type,shop_customer_id,anonymous_id,session_id,cart_id,product_id,quantity,url",
    "message_events": "event_id,happened_at,type,message_id,shop_customer_id,channel,campaign,is_machine",
}


def _write(folder, **rows):
    for name, header in HEADERS.items():
        (folder / f"{name}.csv").write_text("\n".join([header, *rows.get(name, [])]) + "\n")


@pytest.fixture
def shop(tmp_path, settings, monkeypatch):
    """The files of a shop with two orders, loaded as the source ``sample``; returns the lake and the files' folder."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    folder = tmp_path / "files"
    folder.mkdir()
    customers = [f"c1,{FIRST},{FIRST},c1@example.com,,Ann,,,,GB,,en"]
    orders = [f"o1,{FIRST},c1,,EUR,10.50,,,,", f"o2,{LAST},nobody,,EUR,1,,,,"]
    _write(folder, customers=customers, orders=orders)
    lake = Lake(tmp_path / "lake", threads=2)
    land(lake, mapping_named("sample"), folder, settings, LAST + timedelta(days=30))
    return lake, folder


def _run(start=FIRST, end=LAST, **options):
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    return dg.materialize(
        ASSETS,
        resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
        tags={"dagster/asset_partition_range_start": str(start), "dagster/asset_partition_range_end": str(end)},
        **options,
    )


def _bytes(lake):
    return {(t.name, day): lake.path(t, day).read_bytes() for t in TABLES for day in lake.days(t)}


@pytest.mark.slow
def test_a_range_of_days_is_written_in_one_run_and_again_to_the_same_bytes(shop):
    lake, _ = shop
    result = _run()
    assert lake.rows(tables.ORDERS, FIRST) == 1
    assert lake.rows(tables.ORDERS, LAST) == 0
    assert all(lake.days(table) == [FIRST, FIRST + timedelta(days=1), LAST] for table in TABLES)
    events = result.asset_materializations_for_node("raw__quarantine")
    assert "| raw/orders | unknown customer | 1 |" in events[-1].metadata["refused"].value
    before = _bytes(lake)
    for day in (FIRST, LAST):
        _run(day, day)
    assert _bytes(lake) == before


@pytest.mark.slow
def test_a_run_lands_what_changed_on_disk_first(shop):
    lake, folder = shop
    _run()
    customers = [f"{who},{FIRST},{FIRST},{who}@example.com,,Ann,,,,GB,,en" for who in ("c1", "nobody")]
    (folder / "customers.csv").write_text("\n".join([HEADERS["customers"], *customers]) + "\n")
    _run()
    assert lake.rows(tables.CUSTOMERS, FIRST) == 2
    assert lake.rows(tables.ORDERS, LAST) == 1
    assert lake.rows(tables.QUARANTINE, LAST) == 0


def test_a_file_that_can_no_longer_be_read_fails_the_run_with_the_reason(shop):
    _, folder = shop
    (folder / "orders.csv").write_text("order_id,date\n")
    result = _run(raise_on_error=False)
    messages = [
        event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    ]
    assert messages
    assert "orders.csv: missing columns `ordered_at`" in messages[0]


def test_every_source_is_an_asset_that_the_raw_tables_it_feeds_depend_on():
    tree = dg.ComponentTree.from_module(
        importlib.import_module("shopauto_pipelines.defs.sources"), project_root=PROJECT_ROOT
    )
    keys = {asset.key for asset in tree.build_defs().assets}
    assert keys == {dg.AssetKey(["files", mapping.name]) for mapping in mappings()}
    by_key = {asset.key: asset for asset in ASSETS}
    for mapping in mappings():
        spec = files_asset(mapping)
        assert (spec.group_name, spec.kinds) == ("sources", {"csv", "parquet"})
        for table in mapping.tables:
            assert spec.key in by_key[dg.AssetKey(["raw", table])].asset_deps[dg.AssetKey(["raw", table])]


def test_the_tables_that_later_rooms_read_are_assets_of_the_sources_group():
    assert {asset.key for asset in ASSETS} >= {asset_key(table) for table in TABLES}
    assert {spec.group_name for asset in ASSETS for spec in asset.specs} == {"sources"}
