"""The planner: which messages are due as of a day, and who gets them. One pure function for every use.

Its inputs are tables, its output is a table; nothing is read or written, and the day is an argument. It is set-based, so a
million people are planned in the engine's bounded memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.campaigns.content import FALLBACK_LANGUAGE, match_language
from shopauto_pipelines.campaigns.declaration import Campaign, Step
from shopauto_pipelines.campaigns.holdout import GLOBAL, held_out, holdout_key
from shopauto_pipelines.segments.declaration import SEPARATOR
from shopauto_pipelines.segments.membership import members

#: The rules in the order they are asked, each with what its reason means. The first that holds decides.
REASONS = {
    "no_address": "there is no e-mail address, or no phone number for an SMS",
    "no_consent": "the person was never asked for consent",
    "opted_out": "the person does not want messages",
    "pending": "the person has not confirmed the consent yet",
    "not_in_audience": "the person is in none of the included segments",
    "excluded": "the person is in an excluded segment",
    "unsubscribed": "exit: the person unsubscribed or complained after the trigger",
    "ordered": "exit: the person ordered after the trigger",
    "left_segment": "exit: the person has left the segment since the trigger",
    "holdout": "the person is in the holdout of all campaigns",
    "campaign_holdout": "the person is in the holdout of this campaign",
    "cap": "the person gets as many messages as the frequency cap allows",
    "due": "the step is due and nothing speaks against it",
}

_KEY = ["step", "customer_id", "occasion"]


@dataclass(frozen=True)
class Inputs:
    """What is known as of the day, one table each.

    - ``triggers``: ``customer_id``, ``occasion``, ``triggered_on``; one row per customer and occasion.
    - ``people``: ``customer_id``, ``email_known`` and ``phone_known`` (boolean), ``language``, ``last_order_on``,
      ``churn_probability``.
    - ``consent``: ``customer_id``, ``channel``, ``state``; one row per customer and channel.
    - ``membership``: ``segment``, ``customer_id``, ``entered_on``.
    - ``history``: what became of messages: ``customer_id``, ``type``, ``campaign``, ``step``, ``occasion``, ``on`` (date).
    - ``planned``: ``customer_id`` of every message that campaigns of higher priority plan on the day.
    """

    triggers: ir.Table
    people: ir.Table
    consent: ir.Table
    membership: ir.Table
    history: ir.Table
    planned: ir.Table


@dataclass(frozen=True)
class Rules:
    """The shop's rules for all campaigns: settings of the same names. The key is not shown."""

    cap_messages: int
    cap_days: int
    holdout_percent: float
    language: str
    hash_key: bytes

    def __repr__(self) -> str:
        return f"Rules({self.cap_messages} in {self.cap_days} days, holdout {self.holdout_percent} %, {self.language})"


def plan(campaign: Campaign, inputs: Inputs, rules: Rules, as_of: date) -> ir.Table:
    """One decision for every step, person and occasion that is due as of the day: columns of ``campaigns/<name>/audience``.

    A step is due from ``wait_days`` after its trigger, for ``valid_days``, until it has been sent for that occasion. Rows
    of the inputs that are later than ``as_of`` change nothing.
    """
    history = inputs.history.filter(_.on <= ibis.literal(as_of))
    due = _due(campaign, inputs.triggers, as_of).anti_join(_sent_before(campaign, history), _KEY)
    known = _with_facts(campaign, due, inputs, history, rules, as_of)
    return _decided(campaign, known, rules)


def _due(campaign: Campaign, triggers: ir.Table, as_of: date) -> ir.Table:
    """Every step that is due, for each trigger: the row's key, its days, and what the step declares."""

    def of(step: Step, position: int) -> ir.Table:
        newest = as_of - timedelta(days=step.wait_days)
        oldest = newest - timedelta(days=campaign.valid_days - 1)
        rows = triggers.filter(_.triggered_on.between(ibis.literal(oldest), ibis.literal(newest)))
        return rows.select(
            "customer_id",
            "occasion",
            "triggered_on",
            step=ibis.literal(step.name),
            position=ibis.literal(position, "int64"),
            due_on=(_.triggered_on.cast("timestamp(6)") + ibis.interval(days=step.wait_days)).date(),
            wait_days=ibis.literal(step.wait_days, "int64"),
            channel=ibis.literal(step.channel),
            template=ibis.literal(step.template),
        )

    return ibis.union(*(of(step, position) for position, step in enumerate(campaign.steps)))


def _sent_before(campaign: Campaign, history: ir.Table) -> ir.Table:
    """What the campaign has sent already."""
    return history.filter((_.type == "sent") & (_.campaign == campaign.name)).select(*_KEY).distinct()


def _with_facts(
    campaign: Campaign, due: ir.Table, inputs: Inputs, history: ir.Table, rules: Rules, as_of: date
) -> ir.Table:
    """``due`` with what the rules ask about each person; one row stays one row, and no fact the rules rest on is null."""
    today = ibis.literal(as_of)
    since = ibis.literal(as_of - timedelta(days=rules.cap_days))
    received = history.group_by("customer_id").agg(
        sent=((_.type == "sent") & (_.on > since)).cast("int64").sum(),
        unsubscribed_on=_.on.max(where=_.type.isin(["unsubscribe", "spam_report"])),
    )
    membership = inputs.membership.filter(_.entered_on <= today)
    joined = due
    for table, key in (
        (inputs.people, ["customer_id"]),
        (inputs.consent.select("customer_id", "channel", "state"), ["customer_id", "channel"]),
        (received, ["customer_id"]),
        (inputs.planned.group_by("customer_id").agg(planned=_.count()), ["customer_id"]),
        (_segments(campaign, membership), ["customer_id"]),
        (_stays(campaign, membership), ["customer_id", "triggered_on"]),
    ):
        joined = joined.left_join(table, key, rname=f"{{name}}_of_{len(joined.columns)}")
    return joined.select(
        *due.columns,
        "language",
        "churn_probability",
        "segments",
        address_known=ibis.ifelse(_.channel == "sms", _.phone_known, _.email_known).fill_null(False),
        state=_.state.fill_null("never asked"),
        received=_.sent.fill_null(0) + _.planned.fill_null(0),
        included=_.included.fill_null(False),
        excluded=_.excluded.fill_null(False),
        staying=_.staying.fill_null(False),
        unsubscribed=(_.unsubscribed_on >= _.triggered_on).fill_null(False),
        ordered=((_.last_order_on > _.triggered_on) & (_.last_order_on <= today)).fill_null(False),
    )


def _segments(campaign: Campaign, membership: ir.Table) -> ir.Table:
    """Per person: whether the audience includes or excludes them, and the segments the campaign rests on that they are in."""
    return (
        members(membership, *campaign.segments)
        .mutate(
            included=_among(campaign.included or ()),
            excluded=_among(campaign.excluded),
            stay=ibis.struct({"segment": _.segment, "entered_on": _.entered_on.strftime("%Y-%m-%d")}),
        )
        .group_by("customer_id")
        .agg(included=_.included.any(), excluded=_.excluded.any(), segments=_.stay.collect(order_by=_.segment))
    )


def _among(names: Collection[str]) -> ir.BooleanValue:
    """Whether the segment is one of ``names``; ``fans_of`` stands for every ``fans_of:<value>``."""
    return _.segment.isin(names) | _.segment.split(SEPARATOR)[0].isin(names)


def _stays(campaign: Campaign, membership: ir.Table) -> ir.Table:
    """Who is still in the trigger's segment, by the day the stay began."""
    present = members(membership, campaign.trigger.segment_entered or "")
    return present.select("customer_id", triggered_on="entered_on", staying=ibis.literal(True)).distinct()


def _decided(campaign: Campaign, known: ir.Table, rules: Rules) -> ir.Table:
    """The rules, in order; the cap last, because only what would be sent counts towards it."""

    def held(name: str, percent: float) -> ir.BooleanValue:
        return held_out(_.customer_id, holdout_key(rules.hash_key, name), percent)

    never = ibis.literal(False)
    refusals = {
        "no_address": ~_.address_known,
        "no_consent": ~_.state.isin(["opted_in", "opted_out", "pending"]),
        "opted_out": _.state == "opted_out",
        "pending": _.state == "pending",
        "not_in_audience": never if campaign.included is None else ~_.included,
        "excluded": _.excluded,
        "unsubscribed": _.unsubscribed if "unsubscribed" in campaign.exit_on else never,
        "ordered": _.ordered if "ordered" in campaign.exit_on else never,
        "left_segment": ~_.staying if "left_segment" in campaign.exit_on else never,
        "holdout": held(GLOBAL, rules.holdout_percent),
        "campaign_holdout": held(campaign.name, campaign.holdout_percent),
    }
    judged = known.mutate(refusal=ibis.cases(*((holds, reason) for reason, holds in refusals.items()), else_=""))
    earlier = ibis.row_number().over(
        group_by=[_.customer_id, _.refusal], order_by=[_.position, _.triggered_on, _.occasion]
    )
    over_cap = (_.refusal == "") & (_.received + earlier >= rules.cap_messages)
    reasoned = judged.mutate(over_cap=over_cap).mutate(
        reason=ibis.cases((_.refusal != "", _.refusal), (_.over_cap, "cap"), else_="due")
    )
    return reasoned.select(
        "step",
        "customer_id",
        "occasion",
        "triggered_on",
        "due_on",
        "reason",
        "channel",
        "template",
        decision=ibis.ifelse(_.reason == "due", "planned", "refused"),
        language=_language(campaign, rules.language),
        explanation=_explanation(campaign),
    )


def _language(campaign: Campaign, default: str) -> ir.StringValue:
    """:func:`~.content.match_language` as a column: the step's language for the person's."""
    wanted = _.language.lower()
    base = wanted.split("-")[0]

    def of(step: Step) -> ir.StringValue:
        available = step.languages
        bases = sorted({language.split("-")[0].lower() for language in available})
        return ibis.cases(
            *((wanted == language.lower(), language) for language in available),
            *((base == language, match_language(language, available)) for language in bases),
            else_=match_language(None, available, default),
        )

    return ibis.cases(*((_.step == step.name, of(step)) for step in campaign.steps), else_=FALLBACK_LANGUAGE)


def _explanation(campaign: Campaign) -> ir.StringValue:
    """Why, as JSON: no private data."""
    why = ibis.struct(
        {
            "trigger": ibis.literal(str(campaign.trigger)),
            "triggered_on": _.triggered_on.strftime("%Y-%m-%d"),
            "wait_days": _.wait_days,
            "segments": _.segments,
            "churn_probability": _.churn_probability.round(6),
            "reason": _.reason,
            "rule": ibis.cases(*((_.reason == reason, meaning) for reason, meaning in REASONS.items()), else_=""),
        }
    )
    return why.cast("json").cast("string")
