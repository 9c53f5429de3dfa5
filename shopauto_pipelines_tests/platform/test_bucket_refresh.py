"""A shop that is loaded and refreshed in a bucket, by machines that share nothing else, is the one in a folder."""

import uuid
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from s3fs import S3FileSystem

from shopauto_pipelines.features.assets import ASSETS as FEATURES
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import open_lake
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.profiles.assets import ASSETS as PROFILES
from shopauto_pipelines.profiles.tables import CUSTOMERS
from shopauto_pipelines.sources.assets import ASSETS as RAW
from shopauto_pipelines.sources.landing import land
from shopauto_pipelines.sources.mapping import mapping_named
from shopauto_pipelines.sources.sample import generate
from shopauto_pipelines_tests.platform.conftest import BUCKET

#: All that is made of landed rows day by day, and who is who.
TABLES = [*RAW, *PROFILES, *FEATURES[:6]]
FIRST, LAST = date(2025, 1, 30), date(2025, 1, 31)


def refresh(start: date, *assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            assets,
            resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
            tags={"dagster/asset_partition_range_start": str(start), "dagster/asset_partition_range_end": str(LAST)},
            instance=instance,
        )


@pytest.mark.slow
def test_a_shop_refreshed_in_a_bucket_has_the_bytes_of_one_in_a_folder(s3, keys, monkeypatch, tmp_path):
    generate(tmp_path / "files", customers=20, months=1, end=LAST)
    place = f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"

    def at(home: str, lake: str | None) -> None:
        monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path / home))
        monkeypatch.setenv("SHOPAUTO_LAKE", lake or "")
        monkeypatch.setenv("SHOPAUTO_LAKE_ENDPOINT", s3.url)

    for home, lake in (("one", None), ("two", place)):
        at(home, lake)
        land(open_lake(load_settings()), mapping_named("sample"), tmp_path / "files", load_settings(), LAST)
        assert refresh(FIRST, *TABLES).success
    folder = tmp_path / "one" / "lake"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("[a-z]*/**/data.parquet")}
    store = S3FileSystem(endpoint_url=s3.url, use_listings_cache=False)
    names = [name for name in store.find(place) if name.endswith("/data.parquet")]
    found = {
        name.removeprefix(f"{place.removeprefix('s3://')}/"): content for name, content in store.cat(names).items()
    }
    assert len(found) == 2 * len(TABLES)
    assert found == files
    assert not [*(tmp_path / "two").glob("*/*/features")]  # only copies, under a name of their own

    at("three", place)
    again = refresh(LAST, *RAW, *PROFILES)
    made = [event.step_materialization_data.materialization for event in again.get_asset_materialization_events()]
    assert {one.metadata["changed"].value for one in made} == {False}
    assert open_lake(load_settings()).on(CUSTOMERS, LAST).count().execute() > 0
    assert not Path(tmp_path / "three" / "lake").exists()
