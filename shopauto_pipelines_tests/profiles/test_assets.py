import os
from datetime import date, datetime

import dagster as dg
import ibis
import pyarrow as pa
import pytest
from ibis import _

from shopauto_pipelines.platform.dagster.assets import asset_key, lake_asset
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.profiles import tables
from shopauto_pipelines.profiles.assets import ASSETS
from shopauto_pipelines.sources import tables as raw

FIRST, LAST = date(2025, 3, 1), date(2025, 3, 3)
AT = {"source": "shop", "source_file": "f.csv", "source_row": 1}
ROWS = {
    raw.CUSTOMERS: [
        {"shop_customer_id": "c1", "changed_at": datetime(2025, 3, 1, 9), "email": "anna@example.com", "country": "DE"},
        {"shop_customer_id": "c2", "changed_at": datetime(2025, 3, 3, 9), "email": "ANNA@example.com"},
    ],
    raw.ORDERS: [
        {"order_id": "o1", "shop_customer_id": "guest:1", "ordered_at": datetime(2025, 3, 2, 9)}
        | {"email": "anna@example.com", "total_cents": 5}
    ],
    raw.CONSENTS: [
        {"shop_customer_id": "c1", "channel": "email", "state": "opted_in", "changed_at": datetime(2025, 3, 1, 9)}
    ],
    raw.MESSAGE_EVENTS: [
        {"event_id": "e1", "shop_customer_id": "c1", "happened_at": datetime(2025, 3, 3, 9)}
        | {"type": "unsubscribe", "channel": "email"}
    ],
}


def _raw_asset(table):
    """The raw table as an asset that gives the rows above: the far side of this room."""

    @lake_asset(table)
    def asset():
        columns = pa.schema([*table.arrow_schema, pa.field("day", pa.date32())])
        at = raw.TIME_COLUMN[table.name]
        rows = [AT | row | {"day": row[at].date()} for row in ROWS[table]]
        made = pa.Table.from_pylist(rows, schema=columns)

        def between(start, end):
            return ibis.memtable(made).filter(_.day.between(start, end))

        return between

    return asset


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Materialises the room with Dagster: a range of days in one run, or one day."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SHOPAUTO_HOME", os.fspath(tmp_path_factory.mktemp("home")))
    settings = SettingsResource()
    lake = LakeResource(settings=settings)

    def materialise(start, end):
        span = {
            "dagster/asset_partition_range_start": start.isoformat(),
            "dagster/asset_partition_range_end": end.isoformat(),
        }
        return dg.materialize(
            [*(_raw_asset(table) for table in ROWS), *ASSETS],
            tags=span,
            resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
        )

    yield materialise
    patch.undo()


@pytest.fixture(scope="module")
def computed(run):
    """The lake after all days were computed in one run, and that run."""
    result = run(FIRST, LAST)
    return Lake(load_settings().lake_path), result


def test_dagster_computes_the_room_for_a_range_of_days_in_one_run(computed):
    lake, result = computed
    assert result.success
    days = days_between(FIRST, LAST)
    assert all(lake.days(table) == days for table in tables.TABLES)

    def people(day):
        rows = lake.on(tables.CUSTOMERS, day).to_pyarrow().to_pylist()
        return [(row["customer_id"], row["shop_ids"], row["email_consent"], row["language"]) for row in rows]

    assert [people(day) for day in days] == [
        [("c1", 1, "opted_in", "de")],
        [("c1", 2, "opted_in", "de")],
        [("c1", 3, "opted_out", "de")],
    ]
    lineage = result.asset_materializations_for_node("profiles__customers")[-1].metadata["dagster/column_lineage"]
    email = lineage.value.deps_by_column["email"]
    assert (asset_key(tables.ATTRIBUTES), "value") in {(dep.asset_key, dep.column_name) for dep in email}


def test_computing_a_day_again_changes_no_byte(computed, run):
    def files():
        return [lake.path(table, day).read_bytes() for table in tables.TABLES for day in days_between(FIRST, LAST)]

    lake, _ = computed
    before = files()
    for table in tables.TABLES:
        lake.delete(table, LAST)
    assert run(LAST, LAST).success
    assert files() == before


def test_the_assets_are_the_rooms_tables_in_flow_order():
    assert [asset.key for asset in ASSETS] == [asset_key(table) for table in tables.TABLES]
    assert {asset.specs_by_key[asset.key].group_name for asset in ASSETS} == {"profiles"}
