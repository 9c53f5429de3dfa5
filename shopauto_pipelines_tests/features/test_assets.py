"""The room's assets, materialised for real: a range in one run, and a day again."""

import shutil
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from shopauto_pipelines.features import tables
from shopauto_pipelines.features.assets import ASSETS
from shopauto_pipelines.platform.dagster.assets import spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw

UPSTREAM = [
    dg.AssetSpec(**spec_arguments(table, table.room)).with_io_manager_key("lake_io")
    for table in (*raw.CORE_TABLES, raw.FORM_SUBMISSIONS, profiles.IDENTITIES, profiles.CUSTOMERS)
]
write = Lake.write
FIRST, LAST = date(2025, 1, 1), date(2025, 1, 10)

#: Assets up to the features of behaviour.
OF_BEHAVIOUR = ("daily_activity", "daily_products", "daily_carts", "customer_features")

DAYS = days_between(date(2025, 1, 9), LAST)


@pytest.fixture(scope="module")
def written(make_shop, tmp_path_factory) -> Path:
    """A home whose lake has ten days of raw rows and profiles."""
    home = tmp_path_factory.mktemp("written")
    shop, days = make_shop(5, people=20, days=10), days_between(FIRST, LAST)
    lake = Lake(home / "lake", threads=2)
    for table in raw.CORE_TABLES:
        lake.write(table, days, shop.table(table, FIRST, LAST))
    people = [{"customer_id": f"s{n}", "email": f"s{n}@example.com", "shop_ids": 1} for n in range(20)]
    for day in days:
        lake.write(profiles.IDENTITIES, [day], shop.table(profiles.IDENTITIES))
        lake.write(profiles.CUSTOMERS, [day], pa.Table.from_pylist(people, profiles.CUSTOMERS.arrow_schema))
    return home


@pytest.fixture
def filled(written, tmp_path, monkeypatch) -> Lake:
    """That lake, where the settings' home is."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return Lake(tmp_path / "lake", threads=2)


@pytest.fixture(scope="module")
def made(written, tmp_path_factory) -> tuple[Lake, dg.ExecuteInProcessResult]:
    """That lake with :data:`DAYS` computed in one run, and the run."""
    home = Path(shutil.copytree(written, tmp_path_factory.mktemp("made"), dirs_exist_ok=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPAUTO_HOME", str(home))
        result = _materialise(**_range(DAYS[0], DAYS[-1]))
    return Lake(home / "lake", threads=2), result


def _materialise(selection=ASSETS, **chosen) -> dg.ExecuteInProcessResult:
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*UPSTREAM, *ASSETS],
            selection=selection,
            resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
            instance=instance,
            **chosen,
        )


def _range(start: date, end: date) -> dict:
    return {"tags": {"dagster/asset_partition_range_start": str(start), "dagster/asset_partition_range_end": str(end)}}


def test_a_range_that_holds_too_many_rows_is_made_in_parts_with_the_same_files(made, filled, monkeypatch):
    asked = []
    monkeypatch.setattr("shopauto_pipelines.platform.engine.DuckDB.room", 1)
    monkeypatch.setattr(
        Lake, "write", lambda lake, table, days, *more: asked.append(days) or write(lake, table, days, *more)
    )
    result = _materialise([*ASSETS[:2]], **_range(DAYS[0], DAYS[-1]))
    assert asked == [[day] for _asset in range(2) for day in DAYS]
    for asset in ASSETS[:2]:
        table = tables.DAILY_ACTIVITY if asset is ASSETS[0] else tables.DAILY_PRODUCTS
        assert len(result.asset_materializations_for_node(asset.op.name)) == len(DAYS)
        for day in DAYS:
            assert filled.path(table, day).read_bytes() == made[0].path(table, day).read_bytes()


def test_features_of_many_people_are_made_part_by_part_with_the_same_files_and_lineage(made, filled, monkeypatch):
    lake, run = made
    kept, keep = [], Lake.kept
    monkeypatch.setattr("shopauto_pipelines.features.assets.MANY_PEOPLE", 0)
    monkeypatch.setattr(Lake, "kept", lambda lake, name, rows: kept.append((lake, name)) or keep(lake, name, rows))
    result = _materialise([asset for asset in ASSETS if asset.key.path[-1] in OF_BEHAVIOUR], **_range(DAYS[0], LAST))
    assert len(kept) == 7 * len(DAYS)
    assert not {name for _lake, name in kept} & {*kept[0][0].con.list_tables()}, (
        "they are dropped when the rows are written"
    )
    for day in DAYS:
        assert (
            filled.path(tables.CUSTOMER_FEATURES, day).read_bytes()
            == lake.path(tables.CUSTOMER_FEATURES, day).read_bytes()
        )

    def lineage(of: dg.ExecuteInProcessResult) -> dg.TableColumnLineage:
        told = of.asset_materializations_for_node("features__customer_features")[-1].metadata
        return told["dagster/column_lineage"].value

    assert lineage(result) == lineage(run)


def test_a_range_and_its_days_one_by_one_give_the_same_files(made, filled):
    def files(lake: Lake) -> dict[Path, bytes]:
        return {path.relative_to(lake.root): path.read_bytes() for path in lake.root.glob("features/**/*.parquet")}

    lake, run = made
    assert run.success
    assert len(files(lake)) == len(tables.TABLES) * len(DAYS)
    for day in DAYS:
        result = _materialise(partition_key=str(day))
    assert files(filled) == files(lake)
    facts = result.asset_materializations_for_node("features__customer_360")[0].metadata
    assert facts["dagster/row_count"].value == 20


@pytest.mark.usefixtures("filled")
def test_a_table_that_does_not_fit_into_the_engine_s_memory_says_what_to_change(monkeypatch):
    monkeypatch.setenv("SHOPAUTO_ENGINE_MEMORY", "1MB")
    with pytest.raises(
        dg.Failure, match=r"features/daily_activity does not fit .* give it more by SHOPAUTO_ENGINE_MEMORY"
    ):
        _materialise(partition_key=str(DAYS[0]))


def test_every_feature_names_the_columns_it_comes_from(made):
    _, result = made
    for table in (tables.CUSTOMER_FEATURES, tables.CUSTOMER_360):
        node = table.name.replace("/", "__")
        lineage = result.asset_materializations_for_node(node)[-1].metadata["dagster/column_lineage"].value
        assert set(lineage.deps_by_column) == set(table.schema.names)
    columns = {(d.asset_key.to_user_string(), d.column_name) for d in lineage.deps_by_column["churn_factor"]}
    assert columns == {("features/customer_features", "churn_factor")}


def test_numbers_and_latest_days_come_from_what_counts_them_and_a_cluster_from_its_model(made):
    _, result = made

    def origins(table: Table, column: str) -> set[str]:
        told = result.asset_materializations_for_node(table.name.replace("/", "__"))[-1].metadata
        deps = told["dagster/column_lineage"].value.deps_by_column[column]
        return {f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps}

    activity = {f"features/daily_activity.{name}" for name in ("day", "orders")}
    orders = {"features/daily_activity.shop_customer_id", "profiles/identities.customer_id"}
    assert origins(tables.DAILY_ACTIVITY, "orders") == {"raw/orders.day", "raw/orders.shop_customer_id"}
    assert origins(tables.DAILY_ACTIVITY, "items") == {
        f"raw/order_lines.{name}" for name in ("quantity", "kind", "shop_customer_id")
    }
    assert origins(tables.CUSTOMER_FEATURES, "orders") == activity | orders
    for column in ("orders_90d", "last_order_on", "recency_days"):
        assert origins(tables.CUSTOMER_FEATURES, column) == activity
    assert origins(tables.CUSTOMER_FEATURES, "revenue_cents_90d") == {
        f"features/daily_activity.{name}" for name in ("day", "revenue_cents")
    }
    assert origins(tables.CUSTOMER_FEATURES, "favourite_category") == {"features/daily_products.category"}
    cluster = origins(tables.CLUSTERS, "cluster")
    assert cluster >= {f"features/cluster_models.{name}" for name in ("cluster", "centre", "scale")}
    assert {name.rsplit(".")[0] for name in cluster} == {"features/cluster_models", "features/customer_features"}


def test_the_360_view_has_everybody_of_the_profiles_with_behaviour(made):
    lake, _ = made
    rows = lake.con.to_pyarrow(lake.on(tables.CUSTOMER_360, LAST)).to_pylist()
    assert [row["customer_id"] for row in rows] == sorted(f"s{n}" for n in range(20))
    assert sum(row["orders"] or 0 for row in rows) > 0
    assert {row["email"] for row in rows} == {f"s{n}@example.com" for n in range(20)}


@pytest.mark.slow
def test_the_abandonment_threshold_and_the_shop_s_midnight_come_from_the_settings(filled, monkeypatch):
    day = date(2025, 1, 9)
    cart = {"event_id": "late", "happened_at": datetime(2025, 1, 9, 23, 30), "type": "add_to_cart",
            "shop_customer_id": "s1", "cart_id": "late", "source": "t", "source_file": "t", "source_row": 1}  # fmt: skip
    filled.write(raw.EVENTS, [day], pa.Table.from_pylist([cart], raw.EVENTS.arrow_schema))

    behaviour = [asset for asset in ASSETS if asset.key.path[-1] in OF_BEHAVIOUR]

    def abandoned() -> int:
        _materialise(behaviour, **_range(date(2025, 1, 8), day))
        rows = filled.con.to_pyarrow(filled.on(tables.CUSTOMER_FEATURES, day)).to_pylist()
        return next(row["carts_abandoned_365d"] for row in rows if row["customer_id"] == "s1")

    before = abandoned()
    monkeypatch.setenv("SHOPAUTO_CART_ABANDONED_MINUTES", "30")
    assert abandoned() > before
    monkeypatch.delenv("SHOPAUTO_CART_ABANDONED_MINUTES")
    monkeypatch.setenv("SHOPAUTO_TIMEZONE", "America/Sao_Paulo")  # its day ends three hours later
    assert abandoned() > before
