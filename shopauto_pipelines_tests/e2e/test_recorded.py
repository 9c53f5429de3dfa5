"""What a refresh records on every asset: read off the instance of a shop that was refreshed through the command line."""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("recorded")]

#: Columns that come from no other column, and why. Assets and columns are patterns.
COME_FROM_NOWHERE = {
    ("*", "as_of"): "the day that is computed",
    ("raw/*", "source*"): "names the file and the row it was read from, written where it is loaded",
    ("raw/form_submissions", "*"): "the sample shop has no such file",
    ("raw/stock_levels", "*"): "the sample shop has no such file",
    ("raw/topic_choices", "*"): "what people choose on the preference page: it begins here",
    ("raw/quarantine", "day"): "the day of the row that was refused, which may itself be why",
    ("raw/quarantine", "table"): "names the table that refused the row",
    ("raw/quarantine", "column"): "names the column that was wrong",
    ("raw/quarantine", "reason"): "the rule that was broken",
    ("collector/provider_events", "*"): "what providers tell the collector: it begins here",
    ("profiles/claims", "field"): "names what is claimed: an address, a name",
    ("profiles/claims", "kind"): "names where it was claimed: an account, an order",
    ("profiles/identities", "rules_version"): "version of the rules",
    ("features/cluster_models", "fitted_on"): "a day of the calendar of fits",
    ("predictions/models", "target"): "names what is forecast",
    ("predictions/models", "*trained_as_of"): "a day of the calendar of trainings",
    ("predictions/models", "challenger_as_of"): "a day of the calendar of trainings",
    ("predictions/models", "named"): "what the run was asked for",
    ("segments/declared", "*"): "the playbook says it",
    (
        "segments/membership",
        "entered_on",
    ): "the day that was computed when the person came in, carried on from day to day",
    ("segments/membership", "through"): "names a segment of the playbook",
    ("segments/changes", "change"): "entered or left",
    ("campaigns/*/audience", "step"): "the playbook says it",
    ("campaigns/*/audience", "channel"): "the playbook says it",
    ("campaigns/*/audience", "template"): "the playbook says it",
    ("campaigns/*/audience", "variant"): "drawn by a keyed hash, or none",
    ("campaigns/*/audience", "offer"): "the campaign has none",
    ("campaigns/*/audience", "details"): "nothing more is known of what set it off",
    ("campaigns/birthday/audience", "occasion"): "the year",
    **{
        (f"campaigns/{campaign}/audience", column): "a day of the calendar sets it off"
        for campaign in ("celebration", "launch", "newsletter")
        for column in ("occasion", "triggered_on", "due_on")
    },
    (
        "campaigns/abandoned_cart/audience",
        "due_on",
    ): "the day that is computed, as a step belongs to the day its wait ends",
    ("insights/assignments", "campaign"): "names a campaign of the playbook",
    ("insights/campaign_effects", "metric"): "names what is measured",
    ("insights/campaign_effects", "within_days"): "a setting",
    **{
        ("outbox/*", column): "the ledger writes it"
        for column in (
            *("id", "state", "reason", "via", "provider_id", "run_id"),
            *("planned_at", "reserved_at", "reserved_by", "settled_at", "changed_at"),
        )
    },
    ("outbox/*", "campaign"): "names a campaign of the playbook",
    ("outbox/*", "topic"): "the playbook says it",
    ("outbox/*", "exit_on"): "the playbook says it",
    ("realtime/abandoned_carts", "*"): "a cart of this moment, the ledger or the playbook says it",
}

_Column = tuple[str, str]


class Lineage:
    """Columns of all assets, and what each comes from."""

    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self.assets = found
        self.columns = {(asset, name) for asset, told in found.items() for name in told["columns"]}
        self.origins: dict[_Column, list[_Column]] = {
            (asset, name): [tuple(origin) for origin in origins]
            for asset, told in found.items()
            for name, origins in (told["lineage"] or {}).items()
        }

    def made(self) -> Iterator[_Column]:
        """Columns of what is made here."""
        return (column for column in sorted(self.columns) if self.assets[column[0]]["made_here"])

    def ends(self, column: _Column) -> set[_Column]:
        """Where the way back from a column ends."""
        ends, seen, ahead = set(), set(), [column]
        while ahead:
            here = ahead.pop()
            if here in seen:
                continue
            seen.add(here)
            before = [origin for origin in self.origins.get(here, []) if origin != here]
            ahead += before
            if not before:
                ends.add(here)
        return ends


@pytest.fixture(scope="module")
def recorded(new_shop, refreshed) -> dict[str, dict[str, Any]]:
    """Of each asset its columns, and what its latest materialisation says; what is made by the hour has none."""
    shop = new_shop(like=refreshed)
    printed = shop.python(
        """
        import json
        from hashlib import sha256
        from dagster import AssetKey, DagsterEventType
        from dagster._core.definitions.data_version import DATA_VERSION_TAG, INPUT_DATA_VERSION_TAG_PREFIX
        from shopauto_pipelines.cli import runs
        from shopauto_pipelines.definitions import defs
        from shopauto_pipelines.platform.dagster.runs import run_days

        def version(instance, name, days):
            made = instance.event_log_storage.get_latest_tags_by_partition(
                AssetKey.from_user_string(name), DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG], days
            )
            return sha256("".join(made[day][DATA_VERSION_TAG] for day in sorted(made)).encode()).hexdigest()

        repository, found = defs().get_repository_def(), {}
        graph = repository.asset_graph
        daily = repository.get_job("daily_refresh").asset_layer.executable_asset_keys
        with runs.instance() as instance:
            for key in graph.get_all_asset_keys():
                node, event = graph.get(key), instance.get_latest_materialization_event(key)
                declared = node.metadata
                metadata = event.asset_materialization.metadata if event else declared if key not in daily else {}
                schema, lineage = declared.get("dagster/column_schema"), metadata.get("dagster/column_lineage")
                rows = metadata.get("dagster/row_count")
                tags = event.asset_materialization.tags if event else {}
                read = {name.removeprefix(f"{INPUT_DATA_VERSION_TAG_PREFIX}/"): tags[name] for name in tags
                        if name.startswith(INPUT_DATA_VERSION_TAG_PREFIX) and key in daily}
                days = [day.isoformat() for day in run_days(instance.get_run_by_id(event.run_id).tags)] if read else []
                found[key.to_user_string()] = {
                    "daily": key in daily,
                    "made_here": node.is_executable,
                    "partition": event.asset_materialization.partition if event else None,
                    "rows": rows.value if rows else None,
                    "columns": [column.name for column in getattr(schema, "value", schema).columns] if schema else [],
                    "lineage": {
                        column: [[dep.asset_key.to_user_string(), dep.column_name] for dep in deps]
                        for column, deps in getattr(lineage, "value", lineage).deps_by_column.items()
                    } if lineage else None,
                    "read": {name: [told, version(instance, name, days)] for name, told in read.items()},
                    "told": "where columns come from" in metadata,
                }
        print(json.dumps(found))
        """
    )
    return json.loads(printed.splitlines()[-1])


@pytest.fixture(scope="module")
def lineage(recorded) -> Lineage:
    """The columns of all assets, and what each comes from."""
    return Lineage(recorded)


def test_a_refresh_records_partition_rows_and_lineage_of_every_asset(recorded):
    daily = {name: said for name, said in recorded.items() if said["daily"]}
    assert {name for name, said in daily.items() if said["partition"] != "2026-06-30"} == set()
    assert {name for name, said in daily.items() if said["rows"] is None and said["columns"]} == set()
    assert {name for name, said in daily.items() if said["lineage"] is None} == {"collector/provider_events"}
    assert {name for name, said in daily.items() if not said["told"]} == {"collector/provider_events"}


def test_each_partition_says_which_versions_of_its_inputs_it_was_made_of(recorded):
    daily = {name for name, said in recorded.items() if said["daily"]}
    read = {
        (name, each): pair for name, said in recorded.items() for each, pair in said["read"].items() if each in daily
    }
    assert len(read) > 200
    assert {edge for edge, (noted, stored) in read.items() if noted != stored} == set()


def why_from_nowhere(column: _Column) -> str | None:
    """The reason that is listed above."""
    patterns = (pattern for pattern in COME_FROM_NOWHERE if all(map(fnmatch, column, pattern)))
    return next((COME_FROM_NOWHERE[pattern] for pattern in patterns), None)


def test_every_column_of_every_asset_says_what_it_comes_from_or_is_known_to_come_from_nowhere(lineage):
    silent = [column for column in lineage.made() if not set(lineage.origins.get(column, [])) - {column}]
    assert [column for column in silent if not why_from_nowhere(column)] == []
    unneeded = [p for p in COME_FROM_NOWHERE if not any(all(map(fnmatch, column, p)) for column in silent)]
    assert unneeded == [], "each of the reasons is one of some column"
    assert len(lineage.origins) > len(silent)


def test_no_column_comes_from_one_that_does_not_exist(lineage):
    named = {*lineage.origins, *(origin for origins in lineage.origins.values() for origin in origins)}
    assert sorted(named - lineage.columns) == []
    assert ("files/sample", "total") in lineage.origins["raw/orders", "total_cents"]
    assert lineage.origins["segments/vip", "customer_id"] == [("segments/membership", "customer_id")]
    assert ("campaigns/welcome/audience", "explanation") in lineage.origins["outbox/welcome", "explanation"]


def test_whatever_a_message_says_goes_back_to_the_shops_rows(lineage):
    outbox = [column for column in lineage.origins if column[0].startswith("outbox/")]
    assert len({asset for asset, _ in outbox}) > 10
    for column in outbox:
        for end in lineage.ends(column):
            assert end[0].startswith("files/") or why_from_nowhere(end), (column, end)
    about_people = {"customer_id", "address_hash", "time_zone", "language", "explanation", "send_from"}
    for column in outbox:
        if column[1] in about_people and column[0] != "outbox/unknown":
            assert any(end[0].startswith("files/") for end in lineage.ends(column)), column
