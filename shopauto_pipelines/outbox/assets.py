"""The Dagster face: ``outbox/<campaign>``, the asset with the side effect. What may leave is the business of ``dispatch``."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns
from shopauto_pipelines.campaigns.shown import reads as shown_from
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.outbox import gate, ledger, schema
from shopauto_pipelines.outbox.dispatch import FROM_AUDIENCE, Dispatched, dispatch, not_sent
from shopauto_pipelines.outbox.windows import closed, look
from shopauto_pipelines.platform.dagster.assets import FRESHNESS, OWNERS, asset_key, database_schema
from shopauto_pipelines.platform.dagster.io_manager import lineage_entries, lineage_metadata
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import barred, run_days
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import CUSTOMERS, IDENTITIES
from shopauto_pipelines.sources.tables import QUARANTINE


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
            "Sends only for the newest day with data, never in a backfill. It has no automation condition: the daily refresh "
            "sends it (by its schedule, from the command line or by hand), and what waits is sent by the sensors "
            "`messages_in_their_hour` and `rest_of_roll_outs`; both and the schedule are off until somebody switches them "
            "on. With live mode off every message goes to the local inbox (`shopauto inbox`). Running it again sends what "
            "is missing, nothing twice."
        ),
        owners=[campaign.owner],
        kinds={"email", "postgres"},
        tags={"shopauto/side_effect": "sends_messages"},
        metadata={"dagster/column_schema": database_schema(schema.messages.columns), "dagster/column_lineage": lineage},
        # raw/quarantine: nothing is sent on a day of which too much could not be read
        deps=[asset_key(table) for table in (planned, CUSTOMERS, CUSTOMER_FEATURES, QUARANTINE, *shown_from(campaign))],
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        freshness_policy=FRESHNESS,
    )
    def send(context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource) -> None:
        complaints: list[str] = []
        days, why_not = run_days(context.run.tags), barred(context.run, context.instance)
        database, chosen, clock = engine(settings.settings), settings.settings, settings.clock
        shut = {
            day: found
            for day in days
            if (found := closed(context.run.run_id, lake.front(), chosen, clock, day, barred=why_not))
        }
        found_of = not_sent(database, lake.front(), chosen, campaign, shut, clock=clock)
        for day in days:
            if day not in shut and look(database, lake.front(), chosen, clock, campaign.name, day, barred=why_not).open:
                with database.connect() as connection:
                    held = gate.held(connection, lake.front(), chosen, campaign, day, context.run.run_id)
                if held:
                    raise dg.Failure(held, allow_retries=False)
            result = found_of.get(day) or dispatch(
                database,
                lake.front(),
                chosen,
                campaign,
                day,
                clock=clock,
                run_id=context.run.run_id,
                barred=why_not,
            )
            metadata = _metadata(result, chosen, campaign.name, day)
            if day == days[-1]:
                metadata |= lineage_entries(lineage)
            context.add_asset_metadata(metadata, partition_key=str(day))
            complaints += _complaints(result, campaign.name, day)
        if complaints:
            raise dg.Failure("\n".join(complaints), allow_retries=False)

    return send


def _complaints(result: Dispatched, campaign: str, day: date) -> list[str]:
    """What went wrong on a day, in words that say what to do."""
    told = []
    if result.work.stopped:
        told.append(
            f"{campaign}, {day}: {result.sent:,} sent, {result.count('planned'):,} not yet: {result.work.stopped}. "
            "Nothing is lost: these stay planned; mend the cause (or `shopauto outbox resume`) and run this again."
        )
    if result.work.trouble:
        told.append(
            f"{campaign}, {day}: batches were not accepted: {'; '.join(result.work.trouble)}. What is unknown may have left "
            "and is never sent again by itself: the provider's events settle it, or `shopauto outbox resolve`. What failed "
            "has surely not left: `shopauto outbox retry` plans it again."
        )
    if result.work.put_off:
        told.append(
            f"{campaign}, {day}: put off while the others left: {'; '.join(result.work.put_off)}. Nothing is lost: these stay "
            "planned; mend the cause and run this again."
        )
    return told


def _metadata(result: Dispatched, settings: Settings, campaign: str, day: date) -> dict[str, Any]:
    """What a partition's materialisation shows. No private data."""
    states = {state: result.count(state) for state in schema.STATES}
    not_sent = [("refused", reason, n) for reason, n in result.refused.items()] + [
        (state, reason, n)
        for (state, reason), n in result.states.items()
        if state in ("suppressed", "failed", "unknown")
    ]
    where = f"at their readers, by {settings.email_via}" if settings.live else f"`shopauto inbox`, {settings.base_url}"
    shown: dict[str, Any] = {
        "dagster/row_count": sum(states.values()),
        "window": f"{'open' if result.window.open else 'closed'}: {result.window.why}",
        "sent_by_this_run": result.sent,
        "newly_planned": result.newly_planned,
        "recovered": result.recovered,
        **states,
        "not_sent_by_reason": _table(("state", "reason", "people"), not_sent) if not_sent else _nobody(states),
        "where_to_look": dg.MetadataValue.md(
            f"Messages: {where}. Ledger: `select * from shopauto.messages where campaign = '{campaign}' "
            f"and as_of = '{day}'`, changes in `shopauto.message_history`."
        ),
    }
    if result.sent:
        shown["messages_per_second"] = round(result.sent / max(result.work.seconds, 0.001), 1)
    if settings.message_price:
        shown[f"cost_{settings.currency.lower()}"] = round(states["sent"] * settings.message_price, 2)
    if result.waiting.messages:
        first = f", the first from {result.waiting.next_at:%Y-%m-%d %H:%M} UTC" if result.waiting.next_at else ""
        shown["waiting_for_their_hour"] = (
            f"{result.waiting.messages:,}{first}: the sensor `messages_in_their_hour` sends them, or run this again then"
        )
    if result.work.waiting:
        shown["roll_out"] = (
            f"{result.work.waiting}, from {result.work.rest_from:%Y-%m-%d %H:%M} UTC: run this again then"
        )
    return shown


def _nobody(states: Mapping[str, int]) -> str:
    """What is said where nobody was refused and nothing went wrong."""
    everybody = states["sent"] and not states["planned"] and not states["reserved"]
    return "Everybody was sent theirs." if everybody else "Nobody was refused, and not everybody has been sent theirs."


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dg.TableMetadataValue:
    """Rows as the UI shows a table."""
    return dg.MetadataValue.table([dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows])


#: Most unknown messages listed one by one.
_LISTED = 100


def unknown_asset(campaigns: Iterable[Campaign]) -> dg.AssetsDefinition:
    """The asset ``outbox/unknown``: what may or may not have left, of all campaigns."""
    campaigns = [*campaigns]
    shown = ("id", "campaign", "step", "as_of", "via", "changed_at", "reason")
    lineage = lineage_metadata({name: [(f"outbox/{each.name}", name) for each in campaigns] for name in shown})

    @dg.asset(
        key=["outbox", "unknown"],
        group_name="outbox",
        description=(
            "Messages of which nobody knows whether they have left: a call that was not answered, a dispatcher that died "
            "in one. They are never sent again by themselves. The provider's events settle them; what no event speaks of "
            "is settled by hand, `shopauto outbox resolve`. Always the state of now, whichever day is made."
        ),
        owners=OWNERS,
        kinds={"postgres"},
        metadata={"dagster/column_schema": database_schema(c for c in schema.messages.columns if c.name in shown)},
        deps=[dg.AssetKey(["outbox", campaign.name]) for campaign in campaigns],
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        freshness_policy=FRESHNESS,
    )
    def unknown(context: dg.AssetExecutionContext, settings: SettingsResource) -> None:
        with engine(settings.settings).connect() as connection:
            counts = ledger.unknown_counts(connection)
            listed = ledger.unknown(connection, limit=_LISTED)
        metadata: dict[str, Any] = {"dagster/row_count": sum(counts.values()), "unknown": sum(counts.values())}
        metadata |= lineage_entries(lineage)
        if counts:
            days = [(campaign, str(day), n) for (campaign, day), n in counts.items()]
            metadata["by_campaign"] = _table(("campaign", "as_of", "messages"), days)
            rows = [
                (m.id, m.key.campaign, m.key.step, str(m.as_of), m.via, str(m.changed_at), m.reason) for m in listed
            ]
            metadata["the_oldest"] = _table(shown, rows)
            metadata["what_to_do"] = dg.MetadataValue.md(
                "Look them up at the provider by `shopauto_message` (the id), then "
                "`shopauto outbox resolve`: sent, or failed where the provider has never seen them."
            )
        context.add_asset_metadata(metadata, partition_key=str(run_days(context.run.tags)[-1]))

    return unknown


def _column_lineage(audience_name: str) -> dg.TableColumnLineage:
    """What the ledger takes over from the audience, and the address it keeps only a hash of."""
    origins = {name: [(audience_name, name)] for name in FROM_AUDIENCE}
    origins["triggered_at"] = [(audience_name, "triggered_on")]
    origins["other_ids"] = [(IDENTITIES.name, name) for name in ("shop_customer_id", "customer_id")]
    of_people = {"address_hash": ("email", "phone"), "time_zone": ("time_zone",)}
    return lineage_metadata(
        origins | {mine: [(CUSTOMERS.name, name) for name in names] for mine, names in of_people.items()}
    )


#: Campaigns that are sent day by day; what goes out by the hour is sent by the job of its trigger.
_DAILY = [campaign for campaign in load_campaigns().values() if not campaign.is_realtime]

#: The room's assets: one per campaign, and what is unknown of all.
ASSETS = [*outbox_assets(_DAILY), unknown_asset(_DAILY)]
