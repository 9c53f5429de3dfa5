"""Reads from the lake what the planner needs as of a day, and lets it decide. The decisions themselves are the planner's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.campaigns import tables
from shopauto_pipelines.campaigns.declaration import Campaign, Wait
from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.campaigns.planner import Inputs, Rules, plan
from shopauto_pipelines.campaigns.triggers import pauses, triggered
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.tables import CONSENT


@dataclass(frozen=True)
class Sources:
    """The lake's tables behind an audience; ``before`` are the audiences of campaigns that are planned first.

    ``events`` and ``orders`` are for campaigns about carts only.
    """

    customer_360: LakeTable
    scores: LakeTable
    consent: LakeTable
    identities: LakeTable
    membership: LakeTable
    changes: LakeTable
    message_events: LakeTable
    before: tuple[LakeTable, ...] = ()
    events: LakeTable | None = None
    orders: LakeTable | None = None


def audience(campaign: Campaign, sources: Sources, settings: Settings, as_of: date) -> ir.Table:
    """The rows of ``campaigns/<name>/audience`` as of the day.

    Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition` where a table of the day has not been computed.
    """
    rules = rules_of(settings)
    start = as_of - timedelta(days=max(campaign.lookback_days, rules.cap_days))
    people = sources.customer_360.on(as_of)
    if campaign.is_realtime:
        return _of_carts(campaign, sources, settings, as_of, start)
    inputs = Inputs(
        triggers=triggered(campaign, people, sources.changes.between(start, as_of), as_of),
        people=with_scores(people, sources.scores.on(as_of)),
        consent=sources.consent.on(as_of),
        membership=sources.membership.on(as_of),
        history=history(sources.message_events.between(start, as_of), sources.identities.on(as_of)),
        planned=planned([table.on(as_of) for table in sources.before], people),
    )
    return plan(campaign, inputs, rules, as_of)


def _of_carts(campaign: Campaign, sources: Sources, settings: Settings, as_of: date, start: date) -> ir.Table:
    """Whose carts made a step due on the day, whatever has become of it: the messages themselves left within seconds.

    What the campaign sent on the day itself is no reason to plan less of it.
    """
    if sources.events is None or sources.orders is None:
        raise ValueError(f"{campaign.name} is about carts: it is planned from events and orders")
    begins, ends = settings.midnight(as_of), settings.midnight(as_of + timedelta(days=1))
    day = ends.astimezone(UTC) - begins.astimezone(UTC)
    waits = campaign.waits(timedelta(minutes=settings.cart_abandoned_minutes))
    longest = max(wait.after for wait in waits.values()) + day
    first = as_of - timedelta(days=2 * campaign.lookback_days)
    identities, people = sources.identities.on(as_of), sources.customer_360.on(as_of)
    inputs = Inputs(
        triggers=pauses(
            sources.events.between(first, as_of),
            sources.orders.between(first, as_of),
            identities,
            until=ends.astimezone(UTC).replace(tzinfo=None) - timedelta(microseconds=1),
            longest=longest,
            zone=settings.zone,
        ),
        people=with_scores(people, sources.scores.on(as_of)),
        consent=sources.consent.on(as_of),
        membership=sources.membership.on(as_of),
        history=history(sources.message_events.between(start, as_of), identities).filter(
            (_.on < ibis.literal(as_of)) | (_.campaign != campaign.name)
        ),
        planned=planned([], people),
    )
    return plan(campaign, inputs, rules_of(settings), as_of, {step: Wait(w.after, day) for step, w in waits.items()})


def rules_of(settings: Settings) -> Rules:
    """The planner's rules out of the settings."""
    return Rules(
        cap_messages=settings.cap_messages,
        cap_days=settings.cap_days,
        holdout_percent=settings.holdout_percent,
        language=settings.language,
        hash_key=settings.hash_key,
    )


def with_scores(people: ir.Table, scores: ir.Table, *others: str) -> ir.Table:
    """What the planner knows of a person, columns of ``people`` in :class:`~.planner.Inputs`, and ``others``."""
    churn = scores.select("customer_id", "churn_probability")
    return people.left_join(churn, "customer_id").select(
        "customer_id",
        "language",
        "last_order_on",
        "churn_probability",
        email_known=_.email.notnull(),
        phone_known=_.phone.notnull(),
        **{name: _[name] for name in others},
    )


def history(message_events: ir.Table, identities: ir.Table) -> ir.Table:
    """What became of messages, by person: ``customer_id``, ``type``, ``campaign``, ``step``, ``occasion``, ``on``.

    Our own messages are called ``<campaign>:<step>:<customer>:<occasion>``; the customer's id may hold colons. Others have
    no step. The person is the one that the recipient's id belongs to today, whoever it was when the message left.
    """
    events = message_events.filter(_.shop_customer_id.notnull()).left_join(identities, "shop_customer_id")
    parts = _.message_id.split(":")
    own = _.message_id.startswith(_.campaign + ":") & (parts.length() >= 4)
    return events.select(
        "type",
        "campaign",
        customer_id=ibis.coalesce(_.customer_id, _.shop_customer_id),
        step=ibis.ifelse(own, parts[1], ibis.null("string")),
        occasion=ibis.ifelse(own, parts[parts.length() - 1], ibis.null("string")),
        on=_.day,
    )


def planned(audiences: Sequence[ir.Table], people: ir.Table) -> ir.Table:
    """Who of ``people`` gets a message from the ``audiences``: ``customer_id``, once per message."""
    nobody = people.filter(ibis.literal(False)).select("customer_id")
    return ibis.union(nobody, *(rows.filter(_.decision == "planned").select("customer_id") for rows in audiences))


@dataclass(frozen=True)
class Count:
    """How many people of a step met with a decision, and why."""

    step: str
    decision: str
    reason: str
    people: int


def counts(lake: Lake, table: Table, as_of: date) -> list[Count]:
    """Decisions of an audience as of the day by step and reason; raises ``MissingPartition``."""
    rows = lake.on(table, as_of).group_by("step", "decision", "reason").agg(people=_.count())
    return [Count(**row) for row in lake.con.to_pyarrow(rows.order_by("step", "decision", "reason")).to_pylist()]


def leaks(campaign: Campaign, lake: Lake, settings: Settings, as_of: date) -> dict[str, int]:
    """How many of the messages planned as of the day go to people who must be left alone; all zero where all is well.

    Counted anew from the written audience, consent and the plain form of the hash: an error in the planner shows.
    """
    planned_rows = lake.on(tables.audience(campaign.name), as_of).filter(_.decision == "planned")
    agreed = lake.on(CONSENT, as_of).filter(_.state == "opted_in")
    no_consent = planned_rows.anti_join(agreed, ["customer_id", "channel"]).count()
    everywhere = holdout_key(settings.hash_key, GLOBAL)
    here = holdout_key(settings.hash_key, campaign.name)
    held = {"holdout": 0, "campaign_holdout": 0}
    for batch in lake.con.to_pyarrow_batches(planned_rows.select("customer_id")):
        for customer_id in batch.column("customer_id").to_pylist():
            held["holdout"] += is_held_out(customer_id, everywhere, settings.holdout_percent)
            held["campaign_holdout"] += is_held_out(customer_id, here, campaign.holdout_percent)
    return {"without consent": lake.con.to_pyarrow(no_consent).as_py(), **held}
