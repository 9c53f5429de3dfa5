import importlib
import json
import sys
from datetime import date, timedelta

import dagster as dg
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.dagster.assets import asset_key, spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.partitions import DAILY
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments.assets import ASSETS
from shopauto_pipelines.segments.component import SegmentScaffolder, segment_asset
from shopauto_pipelines.segments.declaration import load_segments, segment_names
from shopauto_pipelines.segments.report import sizes
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP

FIRST = date.fromisoformat(DAILY.get_first_partition_key())
DAYS = [FIRST + timedelta(days=n) for n in range(4)]


def tree_of(module, project_root):
    return dg.ComponentTree.from_module(importlib.import_module(module), project_root=project_root)


@pytest.fixture(scope="module")
def segment_assets():
    """The assets that the shipped segments declare, loaded by Dagster from their YAML files."""
    return list(tree_of("shopauto_pipelines.defs.segments", PROJECT_ROOT).build_defs().assets)


@pytest.fixture(scope="module")
def some_assets(segment_assets):
    """A few of them: each takes a moment to plot."""
    return [asset for asset in segment_assets if asset.key.path[-1] in ("fans_of", "lead", "vip", "birthday")]


@pytest.fixture
def shop(tmp_path, monkeypatch, customers_rows, scores_rows):
    """Four days of people: the others are as many as the day's number, and one buys tea, leaves and comes back."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake = Lake(tmp_path / "lake", threads=2)
    for n, day in enumerate(DAYS, start=1):
        people = {f"lead {i}": {} for i in range(n)}
        people["tea|lover"] = {"orders": 2, "orders_365d": 2 if n != 3 else 1, "favourite_category": "tea | herbs"}
        lake.write(CUSTOMER_360, [day], customers_rows(people))
        lake.write(SCORES, [day], scores_rows({}))
    return lake


def run(assets, selection, start, end, in_range=True):
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    specs = [dg.AssetSpec(**spec_arguments(table, table.room)) for table in (CUSTOMER_360, SCORES)]
    upstream = [spec.with_io_manager_key("lake_io") for spec in specs]
    return dg.materialize(
        [*upstream, *assets],
        selection=selection,
        resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
        partition_key=None if in_range else str(start),
        tags={"dagster/asset_partition_range_start": str(start), "dagster/asset_partition_range_end": str(end)}
        if in_range
        else None,
    )


def metadata_by_day(result, key):
    return {
        date.fromisoformat(event.partition): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(["segments", key])
    }


def test_a_range_of_days_shows_each_segments_size_and_moves_per_partition(shop, some_assets):
    result = run([*ASSETS, *some_assets], None, DAYS[0], DAYS[-1])
    assert result.success

    facts = metadata_by_day(result, "fans_of")
    shown = [(facts[d]["size"].value, facts[d]["entered"].value, facts[d]["left"].value) for d in DAYS]
    assert shown == [(1, 0, 0), (1, 0, 0), (0, 0, 1), (1, 1, 0)]
    assert [facts[d]["share_percent"].value for d in DAYS] == [50.0, 33.33, 0.0, 20.0]
    assert all("latest members" not in facts[d] and "sizes over time" not in facts[d] for d in DAYS[:-1])
    last = facts[DAYS[-1]]
    assert f"| tea\\|lover | {DAYS[3]} | fans_of:tea \\| herbs |" in last["latest members"].value
    assert "| fans_of:tea \\| herbs | 1 |" in last["sizes"].value
    assert last["values"].value == 1
    assert last["sizes over time"].value.startswith("![size of the segment](data:image/png;base64,iVBOR")
    assert len(last["sizes over time"].value) < 60_000

    leads = metadata_by_day(result, "lead")
    assert [leads[d]["size"].value for d in DAYS] == [1, 2, 3, 4]
    assert "values" not in leads[DAYS[-1]]
    assert metadata_by_day(result, "vip")[DAYS[-1]]["latest members"].value == "Nobody is in this segment."


def test_a_range_in_one_run_writes_the_same_bytes_as_daily_runs(shop):
    run(ASSETS, None, DAYS[0], DAYS[-1])
    files = [shop.path(table, day) for table in (MEMBERSHIP, CHANGES) for day in DAYS]
    in_one_run = [file.read_bytes() for file in files]
    for table in (MEMBERSHIP, CHANGES):
        for day in DAYS:
            shop.delete(table, day)
    for day in DAYS:
        run(ASSETS, None, day, day)
    assert [file.read_bytes() for file in files] == in_one_run
    found = sizes(shop, DAYS[3])
    assert (found["lead"], found["fans_of:tea | herbs"], found.get("vip")) == (4, 1, None)


def test_a_single_day_can_be_shown_again_later(shop, segment_assets):
    run(ASSETS, None, DAYS[0], DAYS[-1])
    fans = [asset for asset in segment_assets if asset.key.path[-1] == "fans_of"]
    result = run([*ASSETS, *fans], [fans[0].key], DAYS[1], DAYS[1], in_range=False)
    facts = metadata_by_day(result, "fans_of")
    assert list(facts) == [DAYS[1]]
    assert facts[DAYS[1]]["size"].value == 1
    assert "sizes over time" in facts[DAYS[1]]


def test_a_segment_without_computed_membership_says_what_to_run(shop, segment_assets):
    fans = [asset for asset in segment_assets if asset.key.path[-1] == "fans_of"]
    with pytest.raises(Exception, match=r"segments/membership has not been computed for .* run `shopauto refresh"):
        run([*ASSETS, *fans], [fans[0].key], DAYS[1], DAYS[1])


def test_every_segment_of_the_playbook_is_an_asset_that_explains_itself(segment_assets):
    specs = {spec.key.path[-1]: spec for asset in segment_assets for spec in asset.specs}
    assert sorted(specs) == list(segment_names())
    for name, spec in specs.items():
        assert spec.key.path == ["segments", name]
        assert spec.group_name == "segments"
        assert spec.owners
        assert spec.kinds
        assert "```sql\n" in spec.description
        assert spec.partitions_def == DAILY
        assert [c.name for c in spec.metadata["dagster/column_schema"].columns][1:] == list(MEMBERSHIP.schema)
        assert {dep.asset_key for dep in spec.deps} == {asset_key(MEMBERSHIP), asset_key(CHANGES)}


def test_no_private_value_is_in_what_is_shown(shop, some_assets, customers_rows):
    private = {
        "email": "ada@example.com",
        "phone": "+441632960001",
        "first_name": "Ada-Augusta",
        "last_name": "King-Noel",
    }
    birthday = {"birthday": (DAYS[0] + timedelta(days=3)).replace(year=1951)}
    shop.write(CUSTOMER_360, [DAYS[0]], customers_rows({"c1": private | birthday | {"orders": 1, "tenure_days": 1}}))
    result = run([*ASSETS, *some_assets], None, DAYS[0], DAYS[0])
    assert metadata_by_day(result, "birthday")[DAYS[0]]["size"].value == 1
    shown = json.dumps(
        [
            {key: str(value.value) for key, value in event.materialization.metadata.items()}
            for event in result.get_asset_materialization_events()
        ]
    )
    assert "c1" in shown
    assert not any(value in shown for value in (*private.values(), str(birthday["birthday"])))


def test_a_scaffolded_segment_is_valid_as_it_stands(tmp_path):
    folder = tmp_path / "segments" / "recent_orders"
    folder.mkdir(parents=True)
    request = dg.ScaffoldRequest(
        type_name="shopauto_pipelines.segments.component.Segment",
        target_path=folder,
        scaffold_format="yaml",
        project_root=tmp_path,
        params=None,
    )
    SegmentScaffolder().scaffold(request)
    (segment,) = load_segments(tmp_path)
    assert segment.name == "recent_orders"
    assert segment_asset(segment).key.path == ["segments", "recent_orders"]


def test_dagster_names_file_and_line_of_a_wrong_segment(tmp_path, monkeypatch):
    file = tmp_path / "a_shop" / "defs" / "typo" / "defs.yaml"
    file.parent.mkdir(parents=True)
    for package in (file.parents[2], file.parents[1]):
        (package / "__init__.py").touch()
    file.write_text(
        "type: shopauto_pipelines.segments.component.Segment\n"
        "attributes:\n  name: typo\n  description: Has a typo.\n  where: |\n    churn_factr > 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(Exception) as error:  # noqa: PT011 (Dagster's own class; the cause is what matters)
            tree_of("a_shop.defs", tmp_path).build_defs()
    finally:
        for module in [name for name in sys.modules if name.split(".")[0] == "a_shop"]:
            del sys.modules[module]
    assert "typo/defs.yaml:5: segment where: there is no column `churn_factr`; did you mean `churn_factor`?" in str(
        error.value.__cause__
    )
