"""Reads from the lake what the planner needs as of a day, and lets it decide. The decisions themselves are the planner's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, timedelta
from functools import cache

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from shopauto_pipelines.campaigns import tables, triggers
from shopauto_pipelines.campaigns.asked import asked, drawn_for
from shopauto_pipelines.campaigns.daily_offers import with_offers
from shopauto_pipelines.campaigns.declaration import Campaign, Wait
from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.campaigns.offers import OfferRules
from shopauto_pipelines.campaigns.pauses import pauses
from shopauto_pipelines.campaigns.planner import SCHEMAS, Rules
from shopauto_pipelines.campaigns.planning import nothing, planned_rows
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.prepared import Prepared, Rows, unseen
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.segments.people import people as columns_of
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import EVENTS, MESSAGE_EVENTS, ORDERS

#: What every campaign reads.
_ALWAYS = (CUSTOMER_360, SCORES, CONSENT, IDENTITIES, MESSAGE_EVENTS)


@dataclass(frozen=True)
class Sources:
    """The lake's tables behind an audience by name, those that the campaign :func:`reads`.

    ``before`` are the audiences of campaigns that are planned first.
    """

    tables: Mapping[str, LakeTable]
    before: tuple[LakeTable, ...] = ()

    def __getitem__(self, table: Table) -> LakeTable:
        """The table of the lake."""
        return self.tables[table.name]


def reads(campaign: Campaign) -> tuple[Table, ...]:
    """The tables that decide who gets the campaign. What it does not ask for it does not read."""
    of_trigger = (EVENTS, ORDERS) if campaign.is_realtime else triggers.reads(campaign)
    members = (MEMBERSHIP,) if campaign.segments else ()
    return tuple(dict.fromkeys((*_ALWAYS, *members, *of_trigger)))


@dataclass(frozen=True)
class Virtual:
    """Messages that nobody sent, and that count as if they had been: a history of what would have happened.

    Tables on the lake's connection. ``messages``: columns of the planner's ``history``. ``real``: ``campaign``, ``until``: what
    these campaigns really sent counts up to and with that day only. ``planned``: ``customer_id``, once for each message of
    campaigns that are planned first on the day.
    """

    messages: ir.Table
    real: ir.Table
    planned: ir.Table


def audience(
    campaign: Campaign, sources: Sources, settings: Settings, as_of: date, triggered: pa.Table | None = None
) -> ir.Table:
    """The rows of ``campaigns/<name>/audience`` as of the day; ``triggered``: as if these, and nobody else, had been.

    Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition` where a table of the day has not been computed.
    """
    decided = decisions(campaign, sources, settings, as_of, triggered)
    if campaign.is_realtime:
        return decided
    return with_offers(campaign, decided, sources[CUSTOMER_360].on(as_of), OfferRules.of(settings))


def decisions(
    campaign: Campaign,
    sources: Sources,
    settings: Settings,
    as_of: date,
    triggered: pa.Table | None = None,
    virtual: Virtual | None = None,
) -> ir.Table:
    """:func:`audience` without its offers; ``virtual``: as if these messages had been sent."""
    lake, people, scores = sources[CUSTOMER_360].lake, sources[CUSTOMER_360].on(as_of), sources[SCORES].on(as_of)
    rules = rules_for_carts(settings) if campaign.is_realtime else rules_of(settings)
    start = as_of - timedelta(days=max(campaign.lookback_days, rules.cap_days))
    events, identities = sources[MESSAGE_EVENTS].between(start, as_of), sources[IDENTITIES].on(as_of)
    known: dict[str, Rows] = {
        "people": facts(campaign, people, scores, as_of) if any(step.when for step in campaign.steps) else _facts(),
        "consent": sources[CONSENT].on(as_of),
        "membership": sources[MEMBERSHIP].on(as_of) if campaign.segments else nothing("membership"),
        "history": _history() if virtual is None else _virtual_history(),
    }
    if campaign.is_realtime:
        known |= _of_carts(campaign, sources, settings, rules, as_of)
        happened = history(events, identities)
        if virtual is not None:
            happened = with_virtual(happened, virtual.messages, virtual.real)
        known["history"] = happened.filter((_.on < ibis.literal(as_of)) | (_.campaign != campaign.name))
    else:
        known |= asked(campaign, rules, as_of)
        known["triggers"] = (
            _told(triggers.triggered(campaign, sources.tables, as_of)) if triggered is None else triggered
        )
        known["planned"] = _planned() if sources.before else nothing("planned")
    others: dict[str, Rows] = {
        "customer_360": people,
        "scores": scores,
        "message_events": events,
        "identities": identities,
    }
    if sources.before:
        others["before"] = lake.together([other.table for other in sources.before], as_of)
    if virtual is not None:
        others |= {_VIRTUAL: virtual.messages, _REAL: virtual.real}
        if not campaign.is_realtime:
            known["planned"] = virtual.planned
    return planned_rows(lake, f"planned_{campaign.name}", known, others, campaign.is_realtime)


def _told(reached: ir.Table) -> ir.Table:
    """The triggers, with ``details`` where they have none."""
    return reached if "details" in reached.columns else reached.mutate(details=ibis.null("string"))


@cache
def _facts() -> Prepared:
    """:func:`facts` of campaigns that ask for no condition."""
    people, scores = unseen(CUSTOMER_360, "customer_360"), unseen(SCORES, "scores")
    return Prepared.of(with_scores(people, scores), {"customer_360": CUSTOMER_360, "scores": SCORES})


@cache
def _planned() -> Prepared:
    """Who gets a message of the audiences ``before``: ``customer_id``, once per message."""
    audiences = unseen(tables.audience("before"), "before")
    return Prepared.of(audiences.filter(_.decision == "planned").select("customer_id"), {})


#: The tables of :class:`Virtual` as statements know them.
_VIRTUAL, _REAL = "virtual_messages", "really_sent_until"


@cache
def _history() -> Prepared:
    """:func:`history` as a statement."""
    return Prepared.of(_unseen_history(), _BEHIND_HISTORY)


@cache
def _virtual_history() -> Prepared:
    """:func:`with_virtual` as a statement."""
    messages = ibis.table(SCHEMAS["history"], name=_VIRTUAL)
    real = ibis.table({"campaign": "string", "until": "date"}, name=_REAL)
    return Prepared.of(with_virtual(_unseen_history(), messages, real), _BEHIND_HISTORY)


_BEHIND_HISTORY = {"message_events": MESSAGE_EVENTS, "identities": IDENTITIES}


def _unseen_history() -> ir.Table:
    events = unseen(MESSAGE_EVENTS, "message_events", partitions=True)
    return history(events, unseen(IDENTITIES, "identities"))


def _of_carts(campaign: Campaign, sources: Sources, settings: Settings, rules: Rules, as_of: date) -> dict[str, Rows]:
    """Whose carts made a step due on the day, whatever has become of it: the messages themselves left within seconds.

    What the campaign sent on the day itself is no reason to plan less of it.
    """
    begins, ends = settings.midnight(as_of), settings.midnight(as_of + timedelta(days=1))
    day = ends.astimezone(UTC) - begins.astimezone(UTC)
    waits = campaign.waits(timedelta(minutes=settings.cart_abandoned_minutes))
    first = as_of - timedelta(days=2 * campaign.lookback_days)
    left = pauses(
        sources[EVENTS].between(first, as_of),
        sources[ORDERS].between(first, as_of),
        sources[IDENTITIES].on(as_of),
        until=ends.astimezone(UTC).replace(tzinfo=None) - timedelta(microseconds=1),
        longest=max(wait.after for wait in waits.values()) + day,
        zone=settings.zone,
    )
    of_day = {step: Wait(wait.after, day, wait.valid) for step, wait in waits.items()}
    reached = left if campaign.enabled else left.filter(ibis.literal(False))
    return {"triggers": reached, "planned": nothing("planned"), **asked(campaign, rules, as_of, of_day)}


def rules_of(settings: Settings) -> Rules:
    """The planner's rules out of the settings of the same names."""
    return Rules(**{field.name: getattr(settings, field.name) for field in fields(Rules)})


def rules_for_carts(settings: Settings) -> Rules:
    """:func:`rules_of` what is decided at the moment it is due: with live mode off the inbox gets it at any hour."""
    rules = rules_of(settings)
    return rules if settings.live else replace(rules, quiet_from=0, quiet_to=0)


def facts(campaign: Campaign, people: ir.Table, scores: ir.Table, as_of: date) -> ir.Table:
    """What the planner is told of people, and in ``unmet`` the steps whose condition they do not meet."""
    known = with_scores(people, scores)
    conditions = {step.name: step.condition for step in campaign.steps if step.condition}
    if not conditions:
        return known
    rows = columns_of(people, scores, as_of, frozenset().union(*(one.columns for one in conditions.values())))
    never = ibis.null("string")
    steps = [ibis.ifelse(one.apply(rows, as_of), never, ibis.literal(name)) for name, one in conditions.items()]
    judged = rows.select("customer_id", unmet=ibis.array(steps))
    return known.drop("unmet").left_join(judged, "customer_id").drop("customer_id_right")


def with_scores(people: ir.Table, scores: ir.Table, *others: str) -> ir.Table:
    """What the planner knows of a person, columns of ``people`` in :class:`~.planner.Inputs`, and ``others``."""
    churn = scores.select("customer_id", "churn_probability")
    return people.left_join(churn, "customer_id").select(
        "customer_id",
        "language",
        "time_zone",
        "best_hour",
        "last_order_on",
        "churn_probability",
        "ticket_open",
        "last_ticket_on",
        email_known=_.email.notnull(),
        phone_known=_.phone.notnull(),
        last_seen_on=ibis.greatest(_.last_order_on, _.last_click_on, _.last_visit_on, _.created_on),
        unmet=ibis.null("array<string>"),
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


def with_virtual(happened: ir.Table, messages: ir.Table, real: ir.Table) -> ir.Table:
    """:func:`history` with ``messages`` and ``real`` of :class:`Virtual`. What people did, unsubscribing above all, stays."""
    kept = happened.left_join(real, "campaign").drop("campaign_right")
    kept = kept.filter((_.type != "sent") | _.until.isnull() | (_.on <= _.until)).drop("until")
    return kept.select(*SCHEMAS["history"]).union(messages.select(*SCHEMAS["history"]))


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

    Counted anew from the written audience, consent and the plain form of the hash: an error in the planner shows. Of an
    experiment also those are counted who are planned for a variant that they were not drawn for.
    """
    planned_rows = lake.on(tables.audience(campaign.name), as_of).filter(_.decision == "planned")
    agreed = lake.on(CONSENT, as_of).filter(_.state == "opted_in")
    no_consent = planned_rows.anti_join(agreed, ["customer_id", "channel"]).count()
    everywhere = holdout_key(settings.hash_key, GLOBAL)
    here = holdout_key(settings.hash_key, campaign.name)
    everybody = settings.holdout_percent if campaign.kind == "marketing" else 0.0
    held = {"holdout": 0, "campaign_holdout": 0} | ({"another variant": 0} if campaign.experiment else {})
    for batch in lake.con.to_pyarrow_batches(planned_rows.select("customer_id", "step", "variant")):
        for customer_id, step, variant in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            held["holdout"] += is_held_out(customer_id, everywhere, everybody)
            held["campaign_holdout"] += is_held_out(customer_id, here, campaign.holdout_percent)
            if campaign.experiment:
                held["another variant"] += variant != drawn_for(campaign, step, customer_id, settings.hash_key)
    return {"without consent": lake.con.to_pyarrow(no_consent).as_py(), **held}
