"""The room's assets materialised for real, and the check that stands between a mistake and a message."""

from datetime import date, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

from shopauto_pipelines.platform import quality
from shopauto_pipelines.platform.dagster.assets import asset_key, spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.progress import listening
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.assets import ASSETS
from shopauto_pipelines.recommendations.checks import CHECKS, counted, unwanted
from shopauto_pipelines.recommendations.inputs import BEHIND
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.recommendations.conftest import TODAY, random_shop

_UPSTREAM = [*(table for table in BEHIND.values() if table.room != "recommendations"), raw.ORDER_LINES]


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """A random shop whose rows lie in the lake of the settings' home, order lines too."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    shop = random_shop(Lake(tmp_path / "lake", threads=2), seed=5, people=30, days=120)
    lines = [
        {"order_id": f"o{n}", "line_number": 1, "shop_customer_id": row["shop_customer_id"], "kind": "product",
         "product_id": row["product_id"], "quantity": row["quantity"], "day": row["day"]}
        for n, row in enumerate(shop.rows["daily_products"]) if row["orders"]
    ]  # fmt: skip
    schema = raw.ORDER_LINES.arrow_schema.append(pa.field("day", pa.date32()))
    logs = {table: shop.table(name) for name, table in BEHIND.items() if table.partition == "day"}
    logs[raw.ORDER_LINES] = pa.Table.from_pylist(lines, schema)
    for table, rows in logs.items():
        days = sorted({day for day in rows["day"].to_pylist() if day <= TODAY})
        shop.lake.write(
            table, [*days, date(2000, 1, 1)], rows.filter(pa.compute.less_equal(rows["day"], pa.scalar(TODAY)))
        )
    shop.lake.write(BEHIND["identities"], [TODAY], shop.table("identities"))
    return shop


@pytest.mark.slow
def test_a_day_is_materialised_and_a_mistake_would_stop_the_run(filled):
    settings = SettingsResource()
    resource = LakeResource(settings=settings)
    specs = [dg.AssetSpec(**spec_arguments(t, t.room)).with_io_manager_key("lake_io") for t in _UPSTREAM]
    with dg.DagsterInstance.ephemeral() as instance:

        def run(*chosen):
            return dg.materialize(
                [*specs, *ASSETS, *CHECKS],
                selection=dg.AssetSelection.assets(*chosen) if chosen else dg.AssetSelection.groups("recommendations"),
                partition_key=str(TODAY),
                resources={"settings": settings, "lake": resource, "lake_io": LakeIOManager(lake=resource)},
                instance=instance,
                raise_on_error=False,
            )

        result = run()
        assert result.success
        assert [c.passed for c in result.get_asset_check_evaluations()] == [True, True]
        (made,) = result.asset_materializations_for_node("recommendations__customer_products")
        assert made.metadata["dagster/row_count"].value > 100
        assert "| bought_before |" in made.metadata["what came out"].value
        lineage = made.metadata["dagster/column_lineage"].value.deps_by_column
        assert {dep.asset_key.path[-1] for dep in lineage["score"]} >= {
            "daily_products",
            "related_products",
            "products",
        }
        assert all(table.schema.keys() == set(made_columns(filled.lake, table)) for table in tables.TABLES)
        # stock runs out after the products were looked at: only the raw log knows
        shown = filled.lake.on(tables.CUSTOMER_PRODUCTS, TODAY).to_pyarrow().to_pylist()[0]["product_id"]
        level = {
            "product_id": shown,
            "warehouse": "w",
            "quantity": -5,
            "source": "s",
            "source_file": "f",
            "source_row": 1,
        }
        level |= {"changed_at": filled.rows["raw_products"][0]["changed_at"].replace(year=2027)}
        filled.lake.write(raw.STOCK_LEVELS, [TODAY], pa.Table.from_pylist([level], raw.STOCK_LEVELS.arrow_schema))
        stopped = run(asset_key(tables.CUSTOMER_PRODUCTS))
        assert not stopped.success
        (check,) = stopped.get_asset_check_evaluations()
        assert "out of stock" in check.description


def made_columns(lake, table):
    """Columns of the file of the day."""
    return pa.parquet.read_schema(lake.path(table, TODAY)).names


def test_many_days_are_checked_in_parts_of_bounded_rows(filled, monkeypatch):
    lake, days = filled.lake, [TODAY - timedelta(days=1), TODAY]
    lake.write(raw.STOCK_LEVELS, [date(2000, 1, 2)], pa.Table.from_pylist(
        [{"product_id": "gone", "warehouse": "w", "quantity": 0, "changed_at": datetime(2000, 1, 2),
          "source": "s", "source_file": "f", "source_row": 1}], raw.STOCK_LEVELS.arrow_schema))  # fmt: skip
    for day, people in zip(days, (["a"], ["a", "b"]), strict=True):
        rows = [
            {"customer_id": who, "rank": 1, "product_id": "gone", "score": 1.0, "reason": "popular", "why": "x"}
            for who in people
        ]
        lake.write(tables.CUSTOMER_PRODUCTS, [day], pa.Table.from_pylist(rows, tables.CUSTOMER_PRODUCTS.arrow_schema))
        lake.write(tables.PRODUCTS, [day], pa.Table.from_pylist([], tables.PRODUCTS.arrow_schema))
    whole = counted(lake, tables.CUSTOMER_PRODUCTS, days, 365)
    assert whole[0] == {"owned durable": 0, "out of stock": 3, "sent back": 0}
    assert whole[1] == [f"{day} {who} gone (out of stock)" for day, who in ((days[0], "a"), (TODAY, "a"), (TODAY, "b"))]
    monkeypatch.setattr(quality, "ROWS_AT_ONCE", 1)
    told = []
    with listening(lambda *report: told.append(report)):
        assert counted(lake, tables.CUSTOMER_PRODUCTS, days, 365) == whole
    assert [done for _, done, _ in told] == [1, 2]


def test_the_check_finds_each_kind_by_itself(filled):
    lake = filled.lake
    bought = next(r for r in filled.rows["daily_products"] if r["orders"] and r["day"] <= TODAY)
    owner = {r["shop_customer_id"]: r["customer_id"] for r in filled.rows["identities"]}[bought["shop_customer_id"]]
    product = bought["product_id"]

    def check(durable, days=10_000, product_id=product):
        goods = [{"product_id": product_id, "durable": durable, "replacement_days": days if durable else None,
                  "available": True, "category_durable": False, "buyers": 1, "buyers_90d": 1, "repurchases": 0}]  # fmt: skip
        rows = [
            {"customer_id": owner, "rank": 1, "product_id": product_id, "score": 1.0, "reason": "popular", "why": "x"}
        ]
        lake.write(tables.PRODUCTS, [TODAY], pa.Table.from_pylist(goods, tables.PRODUCTS.arrow_schema))
        lake.write(tables.CUSTOMER_PRODUCTS, [TODAY], pa.Table.from_pylist(rows, tables.CUSTOMER_PRODUCTS.arrow_schema))
        return [reason for reason, _key, _rows in unwanted(lake, tables.CUSTOMER_PRODUCTS, [TODAY], 365)]

    assert check(durable=True) == ["owned durable"]
    assert check(durable=True, days=1) == []
    back = {"refund_id": "x", "shop_customer_id": bought["shop_customer_id"], "product_id": product, "amount_cents": 1}
    back |= {
        "refunded_at": filled.rows["raw_products"][0]["changed_at"],
        "source": "s",
        "source_file": "f",
        "source_row": 1,
    }
    lake.write(raw.REFUNDS, [TODAY], pa.Table.from_pylist([back], raw.REFUNDS.arrow_schema))
    assert check(durable=False) == ["sent back"]
    assert check(durable=True) == ["sent back"], "nobody owns what they sent back"
