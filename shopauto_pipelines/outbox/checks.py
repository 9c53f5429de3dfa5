"""The send gate as a blocking check of each audience: between what is planned and what leaves. What it asks is in ``gate``."""

from collections.abc import Iterable
from datetime import date
from typing import Any

import dagster as dg

from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns
from shopauto_pipelines.campaigns.shown import reads
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.outbox import gate
from shopauto_pipelines.outbox.windows import closed, look
from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import barred, run_days
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.predictions.tables import MODELS, SCORES
from shopauto_pipelines.profiles.tables import CUSTOMERS
from shopauto_pipelines.recommendations.tables import PRODUCTS
from shopauto_pipelines.sources import tables as raw


def gate_checks(campaigns: Iterable[Campaign]) -> list[dg.AssetChecksDefinition]:
    """One check per campaign: its parts are metadata, as a check of its own would cost each of them a step."""
    return [send_gate(campaign) for campaign in campaigns]


def send_gate(campaign: Campaign) -> dg.AssetChecksDefinition:
    """The blocking check ``send_gate`` of ``campaigns/<name>/audience``; it asks about the newest day, the one that is sent."""
    table = audience(campaign.name)
    read = (raw.ORDERS, raw.EVENTS, PRODUCTS, CUSTOMERS, CUSTOMER_FEATURES, DAILY_PRODUCTS, MODELS, SCORES)

    @dg.asset_check(
        asset=asset_key(table),
        additional_deps=[asset_key(each) for each in (*read, *reads(campaign))],
        name="send_gate",
        blocking=True,
        description=(
            "Before anything is sent: have the day's orders and events come in, are as many people planned as usual, are "
            "addresses suppressed that should not be planned, is the model behind it healthy, can the orders be filled? "
            "A part that fails holds the campaign's messages of the day; `shopauto outbox overrule` lets them go."
        ),
    )
    def check(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, settings: SettingsResource
    ) -> dg.AssetCheckResult:
        day, why_not = run_days(context.run.tags)[-1], barred(context.run, context.instance)
        database, chosen = engine(settings.settings), settings.settings
        sends = closed(context.run.run_id, lake.front(), chosen, settings.clock, day, barred=why_not)
        if not sends:
            sends = look(database, lake.front(), chosen, settings.clock, campaign.name, day, barred=why_not)
        if not sends.open:
            return dg.AssetCheckResult(passed=True, description=f"nothing is sent: {sends.why}")
        with database.connect() as connection:
            verdict = gate.examine(connection, lake.front(), chosen, campaign, day)
        gate.remember(context.run.run_id, verdict)
        return dg.AssetCheckResult(passed=not verdict.stops, description=verdict.text, metadata=metadata(verdict, day))

    return check


def metadata(verdict: gate.Verdict, day: date) -> dict[str, Any]:
    """Each part in words, and all figures."""
    words = {each.part: f"{'' if each.passed else 'held: '}{each.text}" for each in verdict.findings}
    figures = {f"{each.part}: {name}": value for each in verdict.findings for name, value in each.figures.items()}
    overruled = {f"{part}, overruled": who for part, who in verdict.overruled.items()}
    return {"day": str(day), **words, **figures, **overruled}


#: Of the campaigns that are sent day by day; what goes out by the hour is decided cart by cart.
CHECKS = gate_checks(campaign for campaign in load_campaigns().values() if not campaign.is_realtime)
