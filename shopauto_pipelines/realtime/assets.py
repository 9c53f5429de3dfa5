"""The Dagster face: ``realtime/provider_events``, which hands the days that are over to the raw tables before they are read."""

from typing import Any

import dagster as dg

from shopauto_pipelines.outbox import schema
from shopauto_pipelines.platform.dagster.assets import FRESHNESS, OWNERS, PARTITION_TAG
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.realtime.closed_days import events_by_type, land_own_rows


@dg.asset(
    key=["realtime", "provider_events"],
    group_name="realtime",
    description=(
        "What became of the messages, as the provider told the collector (`shopauto collect`), and what people chose on the "
        "preference page. They act at once in PostgreSQL; once their day is over they become rows of `raw/message_events` "
        "and `raw/consents`. Any run hands over every day that is over and not in the lake yet, or that got late rows."
    ),
    owners=OWNERS,
    kinds={"postgres", "parquet"},
    tags={PARTITION_TAG: "day"},
    metadata={
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(c.name, str(c.type).lower(), c.doc, dg.TableColumnConstraints(nullable=bool(c.nullable)))
                for c in schema.provider_events.columns
            ]
        )
    },
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    freshness_policy=FRESHNESS,
)
def provider_events(context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
    """Land what is over; say what each day of the run holds."""
    database, declared = engine(settings.settings), settings.settings
    landed = land_own_rows(database, lake.lake(), declared, settings.clock.now())
    days = run_days(context.run.tags)
    counts = events_by_type(database, declared, days[0], days[-1])
    for day in days:
        context.add_asset_metadata(_metadata(counts.get(day, {}), day in landed), partition_key=str(day))


def _metadata(counts: dict[str, int], landed: bool) -> dict[str, Any]:
    lines = ["| event | number |", "|---|---:|", *(f"| {name} | {n:,} |" for name, n in counts.items())]
    return {
        "dagster/row_count": sum(counts.values()),
        "landed_by_this_run": landed,
        "events": dg.MetadataValue.md("\n".join(lines) if counts else "No events."),
    }


ASSETS = [provider_events]
