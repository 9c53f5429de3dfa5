"""The room's assets. What they are made of is in ``comparisons``; ``report`` says what came out."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg
import ibis

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import DAILY_ACTIVITY
from shopauto_pipelines.insights import comparisons, followed, report, tables
from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.dagster.resources import SettingsResource
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

_CAMPAIGNS = load_campaigns()
_AUDIENCES = {f"audience_of_{name}": audience(name) for name in _CAMPAIGNS}

#: The statements are text in part, and the figures come from sums that no expression ties to columns any more.
_ASSIGNED_FROM = {
    mine: [(table.name, column) for table in _AUDIENCES.values() for column in columns]
    for mine, columns in {
        "customer_id": ("customer_id",),
        "occasion": ("occasion",),
        "step": ("step",),
        "arm": ("reason", "variant"),
        "comparison": ("explanation",),
    }.items()
}
_MEASURED_FROM = [
    (tables.ASSIGNMENTS.name, "arm"),
    (DAILY_ACTIVITY.name, "revenue_cents"),
    (MESSAGE_EVENTS.name, "type"),
]
_FIGURES = (
    *("value", "control_value", "lift", "lift_low", "lift_high", "relative", "verdict"),
    *("minimum_detectable_effect", "people_needed", "note"),
)
_EFFECTS_FROM = dict.fromkeys(_FIGURES, _MEASURED_FROM) | {
    mine: [(tables.ASSIGNMENTS.name, column)]
    for mine, column in {
        "campaign": "campaign",
        "comparison": "comparison",
        "variant": "arm",
        "people": "customer_id",
        "control_people": "customer_id",
        "occasions": "occasion",
        "control_occasions": "occasion",
    }.items()
}

#: How long before an assignment that counts its occasion may have begun.
_EARLIER = timedelta(days=max((campaign.lookback_days for campaign in _CAMPAIGNS.values()), default=0))


@lake_asset(tables.ASSIGNMENTS, ins=_AUDIENCES, origins=_ASSIGNED_FROM)
def assignments(**audiences: LakeTable) -> Callable:
    """What the audiences of the day say of it."""
    lake = next(iter(audiences.values())).lake

    def of_day(as_of: date) -> Any:
        # most campaigns are about nobody on most days
        used = (name for name in _CAMPAIGNS if lake.rows(audience(name), as_of))
        return followed.assignments(lake, {name: audiences[f"audience_of_{name}"].on(as_of) for name in used})

    return of_day


def _summary(lake: Lake, day: date) -> dict[str, Any]:
    counted = lake.on(tables.CAMPAIGN_EFFECTS, day).group_by("verdict").agg(n=ibis._.count()).to_pyarrow().to_pylist()
    return {row["verdict"].replace(" ", "_"): row["n"] for row in counted}


@lake_asset(
    tables.CAMPAIGN_EFFECTS,
    ins={
        "assigned": tables.ASSIGNMENTS,
        "activity": DAILY_ACTIVITY,
        "identities": IDENTITIES,
        "message_events": MESSAGE_EVENTS,
    },
    summary=_summary,
    origins=_EFFECTS_FROM,
    earlier=[tables.ASSIGNMENTS],
)
def campaign_effects(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    assigned: LakeTable,
    activity: LakeTable,
    identities: LakeTable,
    message_events: LakeTable,
) -> Callable:
    """The effects as of each day; the last one's are shown."""
    current, last = settings.settings, context.partition_keys[-1]
    rules = comparisons.Rules(current.readout_days, current.readout_percent / 100, current.readout_history_days)

    def of_day(as_of: date) -> Any:
        since = rules.since(as_of)
        known = followed.Known(
            assigned.between(since - _EARLIER, as_of),
            activity.between(since, as_of),
            identities.on(as_of),
            message_events.between(since, as_of),
        )
        found = comparisons.campaign_effects(activity.lake, _CAMPAIGNS.values(), known, as_of, rules)
        if as_of.isoformat() == last:
            rows = found.to_pylist()
            shown = f"{report.forest_plot(rows)}\n\n{report.markdown(rows, current.currency)}"
            context.add_asset_metadata({"effects": dg.MetadataValue.md(shown)}, partition_key=last)
        return ibis.memtable(found)

    return of_day


#: In flow order.
ASSETS = [assignments, campaign_effects]
