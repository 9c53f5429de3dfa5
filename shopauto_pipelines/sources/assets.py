"""The raw tables as assets, and the files they come from.

Every raw asset first lands what changed since it was loaded (:func:`landing.refresh_landing`): a few ``stat`` calls where no
file did, one reading of a database for all assets of a run, and under a lock, so that raw assets that start together land
a file once. A daily refresh thus picks up
new and grown files by itself.
"""

from datetime import date
from typing import Any

import dagster as dg

from shopauto_pipelines.platform.dagster.assets import asset_key, lake_asset
from shopauto_pipelines.platform.dagster.failures import errors_told
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources import raw
from shopauto_pipelines.sources.component import files_key
from shopauto_pipelines.sources.expressions import SOURCE_ROW
from shopauto_pipelines.sources.landing import landed_days, refresh_landing
from shopauto_pipelines.sources.mapping import computed_tables, mappings
from shopauto_pipelines.sources.tables import (
    COLLECTED_TABLES,
    MESSAGE_EVENTS,
    QUARANTINE,
    TIME_COLUMN,
)

_SOURCES = list(mappings())


#: What lands the rows that the database holds, by the tables that have some: it runs before they are read.
_COLLECTOR = dg.AssetKey(["collector", "provider_events"])
_HELD_ROWS = {table: _COLLECTOR for table in (*COLLECTED_TABLES, MESSAGE_EVENTS)}

#: Of each column of the message events the column of the provider's events that it is.
_TOLD_BY_PROVIDERS = {
    "event_id": "event_id",
    "happened_at": "at",
    "type": "type",
    "message_id": "message_id",
    "is_machine": "is_machine",
}


def _feeding(table: Table) -> list[dg.AssetKey]:
    short = table.name.removeprefix("raw/")
    return [files_key(source.name) for source in _SOURCES if short in source.tables]


def _before(table: Table) -> list[dg.AssetKey]:
    return _feeding(table) + ([_HELD_ROWS[table]] if table in _HELD_ROWS else [])


def _origins(table: Table) -> dict[str, set[tuple[str, str]]]:
    """For each column what the sources' mappings compute it from, and what the collector was told."""
    found: dict[str, set[tuple[str, str]]] = {}
    for source in _SOURCES:
        mapping = source.tables.get(table.name.removeprefix("raw/"))
        for column, expression in mapping.expressions.items() if mapping else ():
            read = {
                (files_key(source.name).to_user_string(), name) for name in expression.columns if name != SOURCE_ROW
            }
            found.setdefault(column, set()).update(read)
    for column, told in _TOLD_BY_PROVIDERS.items() if table is MESSAGE_EVENTS else ():
        found.setdefault(column, set()).add((_COLLECTOR.to_user_string(), told))
    return found | {"day": found.get(TIME_COLUMN[table.name], set())}


def _landed(settings: SettingsResource, lake: LakeResource) -> Lake:
    """The lake, with what changed on disk landed; one as known then is made of what was."""
    now = settings.clock.now().astimezone(settings.settings.zone)
    with errors_told():
        if settings.settings.known == "now":
            refresh_landing(lake.front(), _SOURCES, settings.settings, now.date())
    if landed_days(lake.front()) is None:
        raise dg.Failure(
            "Nothing has been loaded. Run `shopauto load SOURCE PATH`, or `shopauto demo` to see the sample shop.",
            allow_retries=False,
        )
    return lake.lake()


def _raw_asset(table: Table) -> dg.AssetsDefinition:
    @lake_asset(table, group="sources", deps=_before(table), origins=_origins(table))
    def rows(settings: SettingsResource, lake: LakeResource) -> Any:
        opened = _landed(settings, lake)
        return lambda start, end: raw.accepted(opened, table, start, end)

    return rows


#: What other rooms read, fed or not, and what any source feeds.
_TABLES = computed_tables(_SOURCES)


def _refusals(lake: Lake, day: date) -> dict[str, Any]:
    """Metadata of a day of the quarantine: what was refused, and why."""
    counted = raw.refusals(lake, day)
    lines = ["| table | reason | rows |", "|---|---|---:|"]
    lines += [f"| {table} | {reason} | {rows:,} |" for (table, reason), rows in counted.items()]
    return {"refused": dg.MetadataValue.md("\n".join(lines) if counted else "Nothing was refused.")}


#: A refused value may be that of any column of the files.
_REFUSED: set[tuple[str, str]] = set().union(*(origins for table in _TABLES for origins in _origins(table).values()))


@lake_asset(
    QUARANTINE,
    group="sources",
    deps=[asset_key(table) for table in _TABLES],
    summary=_refusals,
    origins={"raw_value": _REFUSED},
)
def quarantine(settings: SettingsResource, lake: LakeResource) -> Any:
    """Everything that was refused, with its reason."""
    opened = _landed(settings, lake)
    return lambda start, end: raw.rejected(opened, start, end)


ASSETS = [*(_raw_asset(table) for table in _TABLES), quarantine]
