"""The Dagster face: ``collector/provider_events``, which hands the days that are over to the raw tables before they are read."""

from typing import Any

import dagster as dg

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.outbox import schema
from shopauto_pipelines.platform.dagster.assets import (
    FRESHNESS,
    LANE_TAG,
    OWNERS,
    PARTITION_TAG,
    asset_key,
    database_schema,
)
from shopauto_pipelines.platform.dagster.io_manager import lineage_entries, lineage_metadata
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CUSTOMERS, IDENTITIES
from shopauto_pipelines.realtime import abandoned_carts as abandoned_carts_logic
from shopauto_pipelines.realtime import serving
from shopauto_pipelines.realtime.closed_days import collected_rows, events_by_type, land_held_rows
from shopauto_pipelines.realtime.schema import people as people_table
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import PRODUCTS


@dg.asset(
    key=["collector", "provider_events"],
    group_name="collector",
    description=(
        "What the collector (`shopauto collect`) was told: what became of the messages, what people chose on the preference "
        "page, and what visitors and the shop's servers did. It acts at once in PostgreSQL; once its day is over it becomes "
        "rows of `raw/message_events`, `raw/consents`, `raw/events`, `raw/orders` and others. Any run hands over every day "
        "that is over and not in the lake yet, or that got late rows."
    ),
    owners=OWNERS,
    kinds={"postgres", "parquet"},
    tags={PARTITION_TAG: "day"},
    metadata={"dagster/column_schema": database_schema(schema.provider_events.columns)},
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    freshness_policy=FRESHNESS,
)
def provider_events(context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
    """Land what is over; say what each day of the run holds."""
    database, declared = engine(settings.settings), settings.settings
    landed = land_held_rows(database, lake.front(), declared, settings.clock.now())
    days = run_days(context.run.tags)
    events = events_by_type(database, declared, days[0], days[-1])
    collected = collected_rows(lake.front())
    for day in days:
        shown = _metadata(events.get(day, {}), collected.get(day, {}), day in landed)
        context.add_asset_metadata(shown, partition_key=str(day))


def _metadata(events: dict[str, int], collected: dict[str, int], landed: bool) -> dict[str, Any]:
    return {
        "dagster/row_count": sum(events.values()) + sum(collected.values()),
        "landed_by_this_run": landed,
        "events": _listed("event", events),
        "collected": _listed("table", collected),
    }


def _listed(what: str, counts: dict[str, int]) -> dg.MetadataValue:
    lines = [f"| {what} | number |", "|---|---:|", *(f"| {name} | {n:,} |" for name, n in counts.items())]
    return dg.MetadataValue.md("\n".join(lines) if counts else "None.")


_PEOPLE_LINEAGE = lineage_metadata(
    {
        column.name: [(CUSTOMER_360.name, column.name)]
        for column in people_table.columns
        if column.name in CUSTOMER_360.schema.names
    }
    | {
        "address_hash": [(CUSTOMER_360.name, "email")],
        "lapsed": [(MEMBERSHIP.name, "segment")],
        "held_out": [(CUSTOMER_360.name, "customer_id")],
    }
)


@dg.asset(
    key=["realtime", "people"],
    group_name="realtime",
    description=(
        "What is known of each person, in PostgreSQL: what the collector asks within milliseconds, for the on-site offer and "
        "for whose cart it is. Only the newest day that has been computed is served; computing an older one changes nothing. "
        "Nobody is published as lapsed whom features and segments do not call so."
    ),
    owners=OWNERS,
    kinds={"postgres"},
    tags={"shopauto/side_effect": "publishes_people"},
    metadata={"dagster/column_schema": database_schema(people_table.columns)},
    deps=[asset_key(table) for table in (*serving.SOURCES, CUSTOMER_FEATURES, DAILY_PRODUCTS, PRODUCTS)],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    freshness_policy=FRESHNESS,
)
def people(context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
    """Publish the newest day, where it is among those of the run; say what is served."""
    database, days, newest = engine(settings.settings), run_days(context.run.tags), serving.newest_day(lake.front())
    shown: dict[str, Any] = {"served": f"not changed: {newest or 'no day'} is the newest day that has been computed"}
    if newest in days:
        done = serving.publish(database, lake.front(), settings.settings, newest, at=settings.clock.now())
        shown = done._asdict() | {
            "day": str(newest),
            "served": f"{newest}, from now on",
            "dagster/row_count": done.people,
        }
    for day in days:
        last = {**shown, **lineage_entries(_PEOPLE_LINEAGE)} if day == days[-1] else {}
        context.add_asset_metadata(last, partition_key=str(day))


#: What is known of a person is that of the newest computed day; the cart itself is the collector's, in PostgreSQL.
_CARTS_LINEAGE = lineage_metadata(
    {
        "customer_id": [(IDENTITIES.name, "customer_id")],
        "language": [(CUSTOMER_360.name, "language")],
        "address_hash": [(CUSTOMERS.name, "email"), (CUSTOMERS.name, "phone")],
        "time_zone": [(CUSTOMERS.name, "time_zone")],
        "send_from": [(CUSTOMER_360.name, "time_zone")],
        "explanation": [
            (MEMBERSHIP.name, "segment"),
            (SCORES.name, "churn_probability"),
            *((CUSTOMER_360.name, name) for name in ("last_click_on", "last_order_on", "last_visit_on", "ticket_open")),
        ],
    }
)


class CartRange(dg.Config):
    """The queued carts of a run: numbers in ``shopauto.due_carts``."""

    first_id: int
    last_id: int


@dg.asset(
    key=["realtime", "abandoned_carts"],
    group_name="realtime",
    description=(
        "Writes to the owners of carts that were left, at the hours their campaign says, each step once. The sensor "
        "`abandoned_carts` asks for it, with a range of queued carts; with live mode off every message goes to the local inbox. "
        "What is known of a person is that of the newest computed day; an order, an emptied cart, an opt-out or a ticket are "
        "asked for once more in the transaction that reserves the message."
    ),
    owners=OWNERS,
    kinds={"email", "postgres"},
    tags={LANE_TAG: "realtime", "shopauto/side_effect": "sends_messages"},
    metadata={
        "dagster/column_schema": database_schema(schema.messages.columns),
        "dagster/column_lineage": _CARTS_LINEAGE,
    },
    deps=[asset_key(table) for table in abandoned_carts_logic.PROFILE_TABLES],
)
def abandoned_carts(
    context: dg.AssetExecutionContext, config: CartRange, settings: SettingsResource, lake: LakeResource
) -> None:
    """Handle the carts; what was not taken fails the run, which is then tried again."""
    handled = abandoned_carts_logic.handle(
        engine(settings.settings),
        lake.front(),
        settings.settings,
        load_campaigns().values(),
        config.first_id,
        config.last_id,
        clock=settings.clock,
        run_id=context.run.run_id,
    )
    context.add_output_metadata(_about(handled) | lineage_entries(_CARTS_LINEAGE))
    if handled.complaints:
        raise dg.Failure("\n".join(handled.complaints), metadata=_about(handled), allow_retries=False)


def _about(handled: abandoned_carts_logic.Handled) -> dict[str, Any]:
    """What the materialisation shows. No private data."""
    shown: dict[str, Any] = {
        "carts": handled.carts,
        "planned": handled.planned,
        "sent": handled.sent,
        "recovered": handled.recovered,
        "profile_day": str(handled.profile_day),
        "refused": dg.MetadataValue.md(
            "\n".join(
                ["| reason | number |", "|---|---:|", *(f"| {why} | {n:,} |" for why, n in handled.refused.items())]
            )
            if handled.refused
            else "Nobody."
        ),
    }
    if handled.seconds:
        middle, most = len(handled.seconds) // 2, int(len(handled.seconds) * 0.95)
        shown["seconds_after_due_median"] = round(handled.seconds[middle], 2)
        shown["seconds_after_due_95_percent"] = round(handled.seconds[most], 2)
    return shown


ASSETS = [provider_events, people, abandoned_carts]
