"""The ``Campaign`` component: one campaign of the playbook becomes the asset ``campaigns/<name>/audience`` and its check.

What makes a declaration valid is the business of ``declaration``, who gets what the planner's.
"""

from datetime import date
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.campaigns import audience as logic
from shopauto_pipelines.campaigns import costs, previews, scaffold, tables
from shopauto_pipelines.campaigns.declaration import Campaign as Declared
from shopauto_pipelines.campaigns.declaration import Step, load_campaigns, planned_before
from shopauto_pipelines.campaigns.offers import OfferRules
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.dagster.assets import OWNERS, asset_key, lake_asset
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings, load_settings


class CampaignScaffolder(dg.Scaffolder[scaffold.Wanted]):
    """Writes a campaign that loads: ``dg scaffold defs shopauto_pipelines.campaigns.component.Campaign campaigns/<name>``."""

    @classmethod
    def get_scaffold_params(cls) -> type[scaffold.Wanted]:
        """What may be said of it, as options of the command."""
        return scaffold.Wanted

    def scaffold(self, request: dg.ScaffoldRequest[scaffold.Wanted]) -> None:
        """A campaign of one message, named after its folder, that reaches nobody yet."""
        scaffold.scaffold(request.target_path, request.type_name, request.params or scaffold.Wanted())


@dg.scaffold_with(CampaignScaffolder)
class Campaign(dg.Component):
    """A campaign: a trigger, an audience, and the messages that follow the trigger by so many days."""

    def __init__(self, campaign: Declared, before: tuple[str, ...]) -> None:
        self.campaign, self.before = campaign, before

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How the component presents itself in the UI."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=["campaigns"], owners=OWNERS, produces=["asset"])

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The attributes of the YAML file."""
        return Declared

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The component of a YAML file; raises ``PlaybookError`` with file and line for a wrong declaration."""
        assert isinstance(attributes, Declared)
        campaigns = load_campaigns(context.defs_module_path)
        return cls(campaigns[attributes.name], tuple(planned_before(attributes.name, campaigns)))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The campaign's audience and the check that nobody is reached who must not be."""
        return dg.Definitions(
            assets=[audience_asset(self.campaign, self.before)], asset_checks=[left_alone(self.campaign)]
        )


def audience_asset(campaign: Declared, before: tuple[str, ...]) -> dg.AssetsDefinition:
    """The asset ``campaigns/<name>/audience``. ``before`` names the campaigns that are planned first on a day.

    It depends on the last of them, which comes after the others: with an edge to each nobody could read the graph.
    """
    table = tables.audience(campaign.name)
    first = [tables.audience(name) for name in before]
    read = {upstream.name.replace("/", "_"): upstream for upstream in logic.reads(campaign)}
    summary = _Decisions(campaign)

    @lake_asset(
        table,
        ins=read,
        deps=[asset_key(audience) for audience in first[-1:]],
        description=_description(campaign),
        owners=[campaign.owner],
        summary=summary,
        earlier=logic.reads_earlier(campaign),
    )
    def audience(
        context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource, **upstream: LakeTable
    ) -> Any:
        """The planner's decisions, and a preview of every message: a message that cannot be rendered stops here."""
        chosen = summary.settings = live_settings.current(engine(settings.settings), settings.settings)
        shown = previews.kept(campaign, chosen)
        context.add_asset_metadata(
            {"preview": dg.MetadataValue.md(shown.markdown), "preview_page": dg.MetadataValue.path(shown.page)},
            partition_key=context.partition_keys[-1],
        )
        sources = logic.Sources(
            {of.name: upstream[name] for name, of in read.items()},
            tuple(LakeTable(lake.lake(), audience) for audience in first),
        )
        return lambda as_of: logic.audience(campaign, sources, chosen, as_of)

    return audience


def left_alone(campaign: Declared) -> dg.AssetChecksDefinition:
    """Blocking check: nobody is planned who is held out or has not agreed. Reads what was written, not how it came about."""
    table = tables.audience(campaign.name)

    @dg.asset_check(
        asset=asset_key(table),
        name="left_alone",
        blocking=True,
        description="Nobody is planned who is in a holdout or has not opted in. A single one stops the day's messages.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, settings: SettingsResource
    ) -> dg.AssetCheckResult:
        wrong: dict[str, int] = {}
        for day in run_days(context.run.tags):
            for kind, count in logic.leaks(campaign, lake.front(), settings.settings, day).items():
                wrong[kind] = wrong.get(kind, 0) + count
        passed = not any(wrong.values())
        found = ", ".join(f"{count:,} {kind}" for kind, count in wrong.items() if count)
        return dg.AssetCheckResult(
            passed=passed,
            metadata=wrong,
            description=None if passed else f"{table.name} plans messages to people to be left alone: {found}",
        )

    return check


class _Decisions:
    """Metadata of a written partition: how many are planned and refused, and why, and what messages and offers cost.

    ``settings`` are those by which the audience is planned.
    """

    def __init__(self, campaign: Declared) -> None:
        self.campaign, self.table = campaign, tables.audience(campaign.name)
        self.settings: Settings | None = None

    def __call__(self, lake: Lake, day: date) -> dict[str, Any]:
        counted = logic.counts(lake, self.table, day)
        if not counted:
            return {"planned": 0, "refused": 0, "decisions": dg.MetadataValue.md("Nobody was due a step.")}
        lines = ["| step | decision | reason | people |", "|---|---|---|---:|"]
        lines += [f"| {c.step} | {c.decision} | {c.reason} | {c.people:,} |" for c in counted]
        planned = sum(c.people for c in counted if c.decision == "planned")
        said: dict[str, Any] = {
            "planned": planned,
            "refused": sum(c.people for c in counted if c.decision == "refused"),
            "decisions": dg.MetadataValue.md("\n".join(lines)),
        }
        settings = self.settings or load_settings()
        if planned and settings.message_price:
            said[f"messages_cost_{settings.currency.lower()}"] = round(planned * settings.message_price, 2)
        offers = planned and self.campaign.brings_offers
        return said | (_offers(lake, self.campaign, day, settings) if offers else {})


def _offers(lake: Lake, campaign: Declared, day: date, settings: Settings) -> dict[str, Any]:
    """Who is offered what on the day, and what that costs."""
    found = costs.offer_costs(lake, campaign, day, OfferRules.of(settings), settings.horizon_days)
    if not found:
        return {}
    lines = ["| offer | people | all used | expected |", "|---|---:|---:|---:|"]
    lines += [
        f"| {each.offer} | {each.people:,} | {each.all_used_cents / 100:,.2f} | {each.expected_cents / 100:,.2f} |"
        for each in found
    ]
    told = (
        f"\n\n{settings.currency}, on orders like each person's typical one, by the settings of today. *All used*: by everybody, "
        "once. *Expected*: by those who are expected to order while the offer is valid anyway."
    )
    code = settings.currency.lower()
    return {
        "offers": dg.MetadataValue.md("\n".join(lines) + told),
        f"offers_all_used_{code}": round(sum(each.all_used_cents for each in found) / 100, 2),
        f"offers_expected_{code}": round(sum(each.expected_cents for each in found) / 100, 2),
    }


def _description(campaign: Declared) -> str:
    steps = "\n".join(
        f"{n}. `{step.name}`: {_wait(step)}, {_shown(step)}" for n, step in enumerate(campaign.steps, start=1)
    )
    audience = ", ".join(f"`{name}`" for name in campaign.included or ()) or "everyone who is triggered"
    without = f", without {', '.join(f'`{name}`' for name in campaign.excluded)}" if campaign.excluded else ""
    off = "" if campaign.enabled else "**Not enabled: it reaches nobody.**\n\n"
    return (
        f"{off}{campaign.description}\n\n**Goal:** {campaign.goal}\n\n**Trigger:** `{campaign.trigger}`. "
        f"**Audience:** {audience}{without}.\n\n{steps}\n\nOne row per step, person and occasion that is due as of the day: "
        "planned or refused, each with its reason. Computing it never sends."
        + (f"\n\n{_BY_THE_HOUR}" if campaign.is_realtime else "")
    )


#: Said of a campaign whose messages do not wait for the day's end.
_BY_THE_HOUR = (
    "The messages themselves leave within seconds of being due, by `realtime/abandoned_carts`. This table is the day as "
    "history tells it, for reports and backfills."
)


def _wait(step: Step) -> str:
    if step.wait_hours is None:
        return f"{step.wait_days} days after the trigger"
    return (
        f"{step.wait_hours:g} hours without a sign of life" if step.wait_hours else "as soon as the cart is abandoned"
    )


def _shown(step: Step) -> str:
    message = "an SMS" if step.channel == "sms" else f"subject `{next(iter(step.subject.values()))}`"
    more = ["with an offer"] if step.offer else []
    return ", ".join([message, *more, *([f"to whom `{' '.join(step.when.split())}`"] if step.when else [])])
