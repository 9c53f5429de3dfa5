"""The planner: which messages are due as of a day, and who gets them. One pure function for every use.

Its inputs are tables, its output is a table; nothing is read or written, and the day is an argument. It is set-based, so a
million people are planned in the engine's bounded memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.campaigns.content import FALLBACK_LANGUAGE, match_language
from shopauto_pipelines.campaigns.declaration import Campaign, Step, Wait
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
    "cart_emptied": "exit: the cart is empty",
    "ticket_opened": "exit: the person has asked the shop for help since the trigger",
    "cart_changed": "something has happened to the cart since: its wait has begun anew",
    "holdout": "the person is in the holdout of all campaigns",
    "campaign_holdout": "the person is in the holdout of this campaign",
    "cap": "the person gets as many messages as the frequency cap allows",
    "due": "the step is due and nothing speaks against it",
}

_KEY = ["step", "customer_id", "occasion"]

#: What the triggers say of a cart and its owner: microseconds from the trigger until it was so; null: it is not.
CART_FACTS = ("ordered", "emptied", "ticket_opened", "changed")


_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Inputs:
    """What is known as of the day, one table each.

    - ``triggers``: ``customer_id``, ``occasion``, ``triggered_on``; one row per customer and occasion. Of carts one row per
      pause, which also tells in microseconds its ``age``, how long it ``lasted`` (null: it still does), the longest pause
      of the cart ``before`` it (0: none), and :data:`CART_FACTS`.
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


def plan(
    campaign: Campaign, inputs: Inputs, rules: Rules, as_of: date, waits: Mapping[str, Wait] | None = None
) -> ir.Table:
    """One decision for every step, person and occasion that is due as of the day: columns of ``campaigns/<name>/audience``.

    A step is due from ``wait_days`` after its trigger, for ``valid_days``, until it has been sent for that occasion. With
    ``waits``, per step, triggers are pauses of carts: a step is due where the first pause as long as its wait has reached
    it, and may be sent for as long as it is valid. Rows of the inputs that are later than ``as_of`` change nothing.
    """
    history = inputs.history.filter(_.on <= ibis.literal(as_of))
    if waits:
        due = _due_in_pauses(campaign, inputs.triggers, waits, as_of)
    else:
        due = _due(campaign, inputs.triggers, as_of).anti_join(_sent_before(campaign, history), _KEY)
    known = _with_facts(campaign, due, inputs, history, rules, as_of)
    return _decided(campaign, known, rules)


def _due(campaign: Campaign, triggers: ir.Table, as_of: date) -> ir.Table:
    """Every step that is due, for each trigger: the row's key, its days, and what the step declares."""

    def of(step: Step, position: int) -> ir.Table:
        wait = step.wait_days or 0
        newest = as_of - timedelta(days=wait)
        oldest = newest - timedelta(days=campaign.valid_days - 1)
        return triggers.filter(_.triggered_on.between(ibis.literal(oldest), ibis.literal(newest))).select(
            *_of_step(step, position),
            due_on=(_.triggered_on.cast("timestamp(6)") + ibis.interval(days=wait)).date(),
            wait=ibis.literal(wait, "int64"),
        )

    return ibis.union(*(of(step, position) for position, step in enumerate(campaign.steps)))


def _due_in_pauses(campaign: Campaign, triggers: ir.Table, waits: Mapping[str, Wait], as_of: date) -> ir.Table:
    """:func:`_due` of carts, with :data:`CART_FACTS` as they were when the step was due."""

    def of(step: Step, position: int) -> ir.Table:
        wait = waits[step.name]
        first, end = wait.after // _MICROSECOND, (wait.after + wait.valid) // _MICROSECOND
        reached = _.lasted.isnull() | (_.lasted >= first)
        return triggers.filter((_.age >= first) & (_.age < end) & reached & (_.before < first)).select(
            *_of_step(step, position),
            **{fact: (_[fact] <= first).fill_null(False) for fact in CART_FACTS},
            due_on=ibis.literal(as_of),
            wait=ibis.literal(wait.after / timedelta(hours=1), "float64"),
        )

    return ibis.union(*(of(step, position) for position, step in enumerate(campaign.steps)))


def _of_step(step: Step, position: int) -> list[ir.Value | str | Deferred]:
    """What every row of a step says: its key, its trigger, and what the step declares."""
    return [
        "customer_id",
        "occasion",
        "triggered_on",
        ibis.literal(step.name).name("step"),
        ibis.literal(position, "int64").name("position"),
        ibis.literal(step.channel).name("channel"),
        ibis.literal(step.template).name("template"),
    ]


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
    told = {fact: _[fact] if fact in due.columns else ibis.literal(False) for fact in CART_FACTS}
    ordered_since = ((_.last_order_on > _.triggered_on) & (_.last_order_on <= today)).fill_null(False)
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
        *(column for column in due.columns if column not in CART_FACTS),
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
        **told | {"ordered": told["ordered"] | ordered_since},
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
        "cart_emptied": _.emptied if "cart_emptied" in campaign.exit_on else never,
        "ticket_opened": _.ticket_opened if "ticket_opened" in campaign.exit_on else never,
        "cart_changed": _.changed,
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
            "wait_hours" if campaign.is_realtime else "wait_days": _.wait,
            "segments": _.segments,
            "churn_probability": _.churn_probability.round(6),
            "reason": _.reason,
            "rule": ibis.cases(*((_.reason == reason, meaning) for reason, meaning in REASONS.items()), else_=""),
        }
    )
    return why.cast("json").cast("string")
