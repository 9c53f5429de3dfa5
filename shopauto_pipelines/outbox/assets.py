"""The Dagster face: ``outbox/<campaign>``, the asset with the side effect. What may leave is the business of ``dispatch``."""

from collections.abc import Iterable
from datetime import date
from typing import Any

import dagster as dg

from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.dispatch import Dispatched, dispatch
from shopauto_pipelines.platform.dagster.assets import FRESHNESS, asset_key
from shopauto_pipelines.platform.dagster.io_manager import lineage_metadata
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import is_backfill, run_days
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import CUSTOMERS
from shopauto_pipelines.sources.tables import QUARANTINE

_FROM_AUDIENCE = ("step", "customer_id", "occasion", "channel", "language", "template", "explanation")


def outbox_assets(campaigns: Iterable[Campaign]) -> list[dg.AssetsDefinition]:
    """One asset per campaign, in the campaigns' order."""
    return [outbox_asset(campaign) for campaign in campaigns]


def outbox_asset(campaign: Campaign) -> dg.AssetsDefinition:
    """The asset ``outbox/<campaign>``: materialising the newest day sends its messages, once; other days send nothing."""
    planned = audience(campaign.name)
    lineage = _column_lineage(planned.name)

    @dg.asset(
        key=["outbox", campaign.name],
        group_name="outbox",
        description=(
            f"Sends the messages of the campaign {campaign.name}, each exactly once, through the ledger in PostgreSQL.\n\n"
            "Sends only for the newest day with data, never in a backfill and never by automation; with live mode off "
            "every message goes to the local inbox (`shopauto inbox`). Running it again sends what is missing, nothing "
            "twice."
        ),
        owners=[campaign.owner],
        kinds={"email", "postgres"},
        tags={"shopauto/side_effect": "sends_messages"},
        metadata={"dagster/column_schema": _column_schema(), "dagster/column_lineage": lineage},
        # raw/quarantine: nothing is sent on a day of which too much could not be read
        deps=[asset_key(table) for table in (planned, CUSTOMERS, CUSTOMER_FEATURES, QUARANTINE)],
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        freshness_policy=FRESHNESS,
    )
    def send(context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
        stopped = None
        days = run_days(context.run.tags)
        for day in days:
            result = dispatch(
                engine(settings.settings),
                lake.lake(),
                settings.settings,
                campaign,
                day,
                clock=settings.clock,
                run_id=context.run.run_id,
                backfill=is_backfill(context.run.tags),
            )
            metadata = _metadata(result, settings.settings, campaign.name, day)
            if day == days[-1]:
                metadata["dagster/column_lineage"] = lineage
            context.add_asset_metadata(metadata, partition_key=str(day))
            stopped = stopped or result.deferred
        if stopped:
            raise dg.Failure(
                f"Not everything could be sent: {stopped}. Nothing is lost: the rest stays planned; run this again.",
                allow_retries=False,
            )

    return send


def _metadata(result: Dispatched, settings: Settings, campaign: str, day: date) -> dict[str, Any]:
    """What a partition's materialisation shows. No private data."""
    states = {state: result.count(state) for state in ledger.STATES}
    refusals = dict(result.refused) | {
        f"{state}: {reason}": n
        for (state, reason), n in result.states.items()
        if state in ("suppressed", "failed", "unknown")
    }
    lines = ["| reason | people |", "|---|---:|", *(f"| {reason} | {n:,} |" for reason, n in refusals.items())]
    where = "at their readers, by SendGrid" if settings.live else f"`shopauto inbox`, {settings.base_url}"
    return {
        "dagster/row_count": sum(states.values()),
        "window": f"{'open' if result.window.open else 'closed'}: {result.window.why}",
        "sent_by_this_run": result.sent,
        "newly_planned": result.newly_planned,
        "recovered": result.recovered,
        **states,
        "refused_by_reason": dg.MetadataValue.md("\n".join(lines) if refusals else "Nobody was refused."),
        "where_to_look": dg.MetadataValue.md(
            f"Messages: {where}. Ledger: `select * from shopauto.messages where campaign = '{campaign}' "
            f"and as_of = '{day}'`, changes in `shopauto.message_history`."
        ),
    }


def _column_schema() -> dg.TableSchema:
    """The ledger's columns."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                str(column.type).lower(),
                column.doc,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in ledger.messages.columns
        ]
    )


def _column_lineage(audience_name: str) -> dg.TableColumnLineage:
    """What the ledger takes over from the audience, and the address it keeps only a hash of."""
    origins = {name: [(audience_name, name)] for name in _FROM_AUDIENCE}
    return lineage_metadata(origins | {"address_hash": [(CUSTOMERS.name, name) for name in ("email", "phone")]})


#: The room's assets, one per campaign of the playbook.
ASSETS = outbox_assets(load_campaigns().values())
