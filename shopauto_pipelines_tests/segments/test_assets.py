import importlib
import json
import sys
from datetime import date, timedelta

import dagster as dg
import ibis
import pytest

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.dagster.assets import asset_key, spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.partitions import DAILY
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import assets, component, report
from shopauto_pipelines.segments.assets import ASSETS
from shopauto_pipelines.segments.component import SegmentScaffolder, observe, segment_asset
from shopauto_pipelines.segments.declaration import load_segments, segment_names
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.membership import membership
from shopauto_pipelines.segments.overlap import counted
from shopauto_pipelines.segments.report import sizes
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP, OVERLAP, SIZES

UPSTREAM = (
    CUSTOMER_360,
    SCORES,
    IDENTITIES,
    features.DAILY_ACTIVITY,
    features.DAILY_PRODUCTS,
    features.DAILY_MESSAGES,
    features.DAILY_FORMS,
)

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
def shop(tmp_path, monkeypatch, customers_rows, scores_rows, shipped):
    """Four days of people: the others are as many as the day's number, and one buys tea, leaves and comes back.

    A shop of a few of the shipped segments: what each of them does is tested without Dagster.
    """
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    few = tuple(shipped[name] for name in ("birthday", "fans_of", "lead", "repeat_buyers", "vip"))
    for module in (assets, component):
        monkeypatch.setattr(module, "load_segments", lambda: few)
    lake = Lake(tmp_path / "lake", threads=2)
    for n, day in enumerate(DAYS, start=1):
        people = {f"lead {i}": {} for i in range(n)}
        people["tea|lover"] = {"orders": 2, "orders_365d": 2 if n != 3 else 1, "favourite_category": "tea | herbs"}
        lake.write(CUSTOMER_360, [day], customers_rows(people))
        lake.write(SCORES, [day], scores_rows({}))
        for table in UPSTREAM[2:]:
            lake.write(table, [day], table.arrow_schema.empty_table())
    return lake


def run(assets, selection, start, end, in_range=True):
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    specs = [dg.AssetSpec(**spec_arguments(table, table.room)) for table in UPSTREAM]
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
    assert last["sizes over time"].value.startswith("![size of the segment](data:image/svg+xml;base64,")
    assert last["why"].value.startswith("`tea|lover` is in `fans_of:tea | herbs`".replace("|", "\\|"))
    assert "- ✓ `orders_365d >= 2`: orders_365d: 2" in last["why"].value
    assert "note" not in last

    overlapping = metadata_by_day(result, "overlap")[DAYS[-1]]
    assert overlapping["overlap"].value.count("data:image/svg+xml;base64,") == 1
    assert "| repeat_buyers |" in overlapping["pairs"].value

    leads = metadata_by_day(result, "lead")
    assert [leads[d]["size"].value for d in DAYS] == [1, 2, 3, 4]
    assert "values" not in leads[DAYS[-1]]
    assert metadata_by_day(result, "vip")[DAYS[-1]]["latest members"].value == "Nobody is in this segment."


def test_a_segment_that_is_too_small_says_who_stands_in(lake, declare, inputs_of, customers_rows, monkeypatch):
    monkeypatch.setattr(report, "_whys", lambda *_: {})
    segments = (declare("active", "orders > 0"), declare("rich", "orders > 8", minimum_size=3, fallback="active"))
    people = {who: {"orders": 9 if who == "a" else 1} for who in "abcd"}
    lake.write(CUSTOMER_360, [DAYS[0]], customers_rows(people))
    lake.write(MEMBERSHIP, [DAYS[0]], membership(inputs_of(people), None, segments, DAYS[0]))
    lake.write(CHANGES, [DAYS[0]], CHANGES.arrow_schema.empty_table())
    lake.write(SIZES, [DAYS[0]], counted(lake.on(MEMBERSHIP, DAYS[0]), lake.on(CHANGES, DAYS[0])))
    shown = observe(lake, segments[1], segments, DAYS[0], DAYS[0])[DAYS[0]]
    assert (shown["size"], shown["share_percent"]) == (1, 25.0)
    assert shown["note"].value == ("1 of the 3 people it takes to be useful: 3 more, members of `active`, stand in.")
    assert "stands in from" in shown["latest members"].value
    assert "note" not in observe(lake, segments[0], segments, DAYS[0], DAYS[0])[DAYS[0]]


def test_where_everybody_stands_in_the_page_does_not_say_that_nobody_is_there(lake, declare, inputs_of, customers_rows):
    segments = (declare("active", "orders > 0"), declare("rich", "orders > 8", minimum_size=3, fallback="active"))
    people = {who: {"orders": 1} for who in "ab"}
    lake.write(CUSTOMER_360, [DAYS[0]], customers_rows(people))
    lake.write(SCORES, [DAYS[0]], SCORES.arrow_schema.empty_table())
    lake.write(MEMBERSHIP, [DAYS[0]], membership(inputs_of(people), None, segments, DAYS[0]))
    lake.write(
        SIZES, [DAYS[0]], counted(lake.on(MEMBERSHIP, DAYS[0]), ibis.memtable(CHANGES.arrow_schema.empty_table()))
    )
    shown = observe(lake, segments[1], segments, DAYS[0], DAYS[0])[DAYS[0]]
    assert "| a |" in shown["latest members"].value
    assert shown["why"].value == "Nobody meets the condition."


def test_a_range_in_one_run_writes_the_same_bytes_as_daily_runs(shop):
    days = DAYS[:2]
    run(ASSETS, None, days[0], days[-1])
    files = [shop.path(table, day) for table in (MEMBERSHIP, CHANGES, SIZES, OVERLAP) for day in days]
    in_one_run = [file.read_bytes() for file in files]
    for table in (MEMBERSHIP, CHANGES, SIZES, OVERLAP):
        for day in days:
            shop.delete(table, day)
    for day in days:
        run(ASSETS, None, day, day)
    assert [file.read_bytes() for file in files] == in_one_run
    found = sizes(shop, days[-1])
    assert (found["lead"], found["fans_of:tea | herbs"], found.get("vip")) == (2, 1, None)


def test_a_single_day_can_be_shown_again_later(shop, segment_assets):
    run(ASSETS, None, DAYS[1], DAYS[1])
    fans = [asset for asset in segment_assets if asset.key.path[-1] == "fans_of"]
    result = run([*ASSETS, *fans], [fans[0].key], DAYS[1], DAYS[1], in_range=False)
    facts = metadata_by_day(result, "fans_of")
    assert list(facts) == [DAYS[1]]
    assert facts[DAYS[1]]["size"].value == 1
    assert "sizes over time" in facts[DAYS[1]]


def test_a_segment_without_computed_membership_says_what_to_run(shop, segment_assets):
    fans = [asset for asset in segment_assets if asset.key.path[-1] == "fans_of"]
    with pytest.raises(Exception, match=r"segments/sizes has not been computed for .* run `shopauto refresh"):
        run([*ASSETS, *fans], [fans[0].key], DAYS[1], DAYS[1])


def test_every_segment_of_the_playbook_is_an_asset_that_explains_itself(segment_assets):
    specs = {spec.key.path[-1]: spec for asset in segment_assets for spec in asset.specs}
    assert sorted(specs) == list(segment_names())
    for name, spec in specs.items():
        assert spec.key.path == ["segments", name]
        assert spec.group_name == "segments"
        assert spec.owners
        assert spec.kinds
        assert "```sql\n" in spec.description or "- in any of" in spec.description
        assert spec.partitions_def == DAILY
        assert [c.name for c in spec.metadata["dagster/column_schema"].columns][1:] == list(MEMBERSHIP.schema)
        assert {dep.asset_key for dep in spec.deps} == {asset_key(MEMBERSHIP), asset_key(SIZES)}


def test_the_description_of_a_segment_says_all_of_its_declaration(declare):
    segment = declare(
        "some",
        "orders >= :few\nand not did('ordered', within => 30)",
        parameters={"few": 2},
        include=["active", "fans_of:tea"],
        exclude=["vip"],
        minimum_size=50,
        fallback="active",
    )
    (spec,) = segment_asset(segment).specs
    assert spec.description == (
        "People of some\n\n```sql\norders >= :few\nand not did('ordered', within => 30)\n```\n\n"
        "- `:few` is `2`\n- in any of `active`, `fans_of:tea`\n- in none of `vip`\n"
        "- with fewer than 50 people, those of `active` stand in"
    )


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
    facts = metadata_by_day(result, "birthday")[DAYS[0]]
    assert facts["size"].value == 1
    assert facts["why"].value == "`c1` is in `birthday`\n\nParts that rest on private data are not shown."
    assert facts["latest members"].value == "Not shown: the day on which people came in would tell private data."
    shown = json.dumps(
        [
            {key: str(value.value) for key, value in event.materialization.metadata.items()}
            for event in result.get_asset_materialization_events()
        ]
    )
    assert "c1" in shown
    assert not any(value in shown for value in (*private.values(), str(birthday["birthday"])))


def test_membership_waits_for_every_table_that_an_event_is_counted_from():
    upstream = {asset_key(event.rollup) for event in EVENTS.values()}
    (membership,) = (asset for asset in ASSETS if asset.key == asset_key(MEMBERSHIP))
    assert upstream <= set(membership.dependency_keys)
    (overlap,) = (asset for asset in ASSETS if asset.key == asset_key(OVERLAP))
    assert asset_key(SIZES) in overlap.dependency_keys, "its page shows them"


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
    assert "typo/defs.yaml:6:5: segment where: there is no column `churn_factr`; did you mean `churn_factor`?" in str(
        error.value.__cause__
    )
