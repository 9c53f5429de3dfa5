"""The room's asset: a few of the newest day's decisions, explained. It makes no table: what it shows is metadata and a page."""

from collections.abc import Sequence

import dagster as dg

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.explain import examples, page
from shopauto_pipelines.platform.dagster.assets import FRESHNESS, OWNERS, PARTITION_TAG, asset_key
from shopauto_pipelines.platform.dagster.failures import errors_told
from shopauto_pipelines.platform.dagster.io_manager import lineage_entries, lineage_metadata
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.platform.postgres import engine

_CAMPAIGNS = load_campaigns()

#: What is shown of each decision, and what it means.
_COLUMNS = {
    "step": "step of the campaign",
    "customer_id": "the person",
    "occasion": "what the message is about",
    "decision": "planned or refused",
    "reason": "the rule that decided",
}

_LINEAGE = lineage_metadata({name: [(audience(campaign).name, name) for campaign in _CAMPAIGNS] for name in _COLUMNS})


@dg.asset(
    key=["explain", "decisions"],
    group_name="explain",
    description=(
        "Why people got a message, or did not: of the newest day of the run a person for each kind of decision, every rule in "
        "the planner's order with the values it rests on. `shopauto explain` explains anybody, and any message."
    ),
    owners=OWNERS,
    kinds={"python", "postgres"},
    tags={PARTITION_TAG: "as_of"},
    metadata={
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, "string", described) for name, described in _COLUMNS.items()]
        ),
        "dagster/column_lineage": _LINEAGE,
    },
    deps=[
        *(asset_key(audience(name)) for name in _CAMPAIGNS),
        *(dg.AssetKey(["outbox", name]) for name, campaign in _CAMPAIGNS.items() if not campaign.is_realtime),
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    freshness_policy=FRESHNESS,
)
def decisions(context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
    """The newest day's examples; earlier days of the run show nothing of their own."""
    day = run_days(context.run.tags)[-1]
    with errors_told(), engine(settings.settings).connect() as connection:
        chosen, clock = settings.settings, settings.clock
        shown = examples.explained(lake.front(), chosen, load_campaigns(), day, connection, clock)
    metadata = {
        "dagster/row_count": len(shown.told),
        "explained": dg.MetadataValue.md(page.markdown(shown.told) or "Nobody was due a message."),
        "page": dg.MetadataValue.path(shown.page),
        **_sums(shown.decisions),
        "ask_yourself": dg.MetadataValue.md(
            "`shopauto explain MESSAGE`, `shopauto explain CUSTOMER --campaign NAME --day "
            f"{day}`; `--html FILE` writes the page."
        ),
    }
    context.add_asset_metadata(metadata | lineage_entries(_LINEAGE), partition_key=str(day))


def _sums(found: Sequence[examples.Decision]) -> dict[str, int | str]:
    """How many are planned and refused; and how many of the planned are about carts, which are sent by the hour."""
    planned = [one for one in found if one.decision == "planned"]
    sums: dict[str, int | str] = {"planned": sum(one.people for one in planned)}
    if carts := sum(one.people for one in planned if _CAMPAIGNS[one.campaign].is_realtime):
        which = (
            "all of these are" if carts == sums["planned"] else f"of these {carts:,} {'is' if carts == 1 else 'are'}"
        )
        sums["planned_about_carts"] = (
            f"{which} about carts: sent by the job `abandoned_carts`, never by the daily refresh"
        )
    return sums | {"refused": sum(one.people for one in found if one.decision == "refused")}


#: The room's assets.
ASSETS = [decisions]
