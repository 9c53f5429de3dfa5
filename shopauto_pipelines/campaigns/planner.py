"""The planner: which messages are due as of a day, and who gets them. One pure function for every use and every campaign.

Its inputs are tables, its output is a table; nothing is read or written. It is set-based, so a million people are planned in
the engine's bounded memory. What a campaign declares, the shop's rules and the day are two small tables among the inputs
(:mod:`.asked`): so one statement, compiled once (:mod:`.planning`), holds for all campaigns and days. Compiling it costs more
than planning for thousands of people. What is the same for all campaigns of a day, :func:`received` and :func:`hours`, are
inputs, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.campaigns.holdout import placed
from shopauto_pipelines.platform.time_zones import hours_between, local, utc
from shopauto_pipelines.profiles.consent import TOPICS_APART
from shopauto_pipelines.segments.declaration import SEPARATOR

#: The rules in the order they are asked, each with what its reason means. The first that holds decides. Before the holdouts
#: stands what is the same for those who get messages and those who do not, so that their effect can be measured.
REASONS = {
    "no_address": "there is no e-mail address, or no phone number for an SMS",
    "no_consent": "the person was never asked for consent",
    "opted_out": "the person does not want messages",
    "opted_out_topic": "the person does not want messages about this",
    "pending": "the person has not confirmed the consent yet",
    "not_in_audience": "the person is in none of the included segments",
    "excluded": "the person is in an excluded segment",
    "condition": "the person does not meet the step's condition",
    "sunset": "the person has shown no sign of life for so long that the campaign leaves them alone",
    "ticket_open": "the person waits for an answer of the shop's support",
    "unsubscribed": "exit: the person unsubscribed or complained after the trigger",
    "ordered": "exit: the person ordered after the trigger",
    "left_segment": "exit: the person has left the segment since the trigger",
    "cart_emptied": "exit: the cart is empty",
    "ticket_opened": "exit: the person has asked the shop for help since the trigger",
    "cart_changed": "something has happened to the cart since: its wait has begun anew",
    "no_hour": "where the person lives, no hour outside quiet hours is left of the day that it is meant for",
    "holdout": "the person is in the holdout of all campaigns",
    "campaign_holdout": "the person is in the holdout of this campaign",
    "quiet_hours": "it was due in the person's quiet hours, and is not valid any more when they end",
    "again": "the person had this step so lately, on another occasion, that they do not get it again yet",
    "cap": "the person gets as many messages as the frequency cap allows",
    "day_cap": "messages of a higher priority, or earlier steps, take the person's places of the day",
    "due": "the step is due and nothing speaks against it",
}

_KEY = ["step", "customer_id", "occasion"]

#: What the triggers say of a cart and its owner: microseconds from the trigger until it was so; null: it is not.
CART_FACTS = ("ordered", "emptied", "ticket_opened", "changed")

_TRIGGER = {"customer_id": "string", "occasion": "string", "triggered_on": "date"}
_OF_CARTS = {"told_at": "timestamp(6)"} | dict.fromkeys(("age", "lasted", "before", *CART_FACTS), "int64")
_NUMBERS = (
    "sunset_days",
    "again_days",
    "cap_messages",
    "cap_day_messages",
    "quiet_from",
    "quiet_hours",
    "quiet_to",
)
_WORDS = ("topic", "holdout_key", "holdout_end", "campaign_key", "campaign_end", "timezone")

#: Columns of the inputs, as :class:`Inputs` tells of them.
SCHEMAS = {
    name: ibis.schema(columns)
    for name, columns in {
        "triggers": _TRIGGER | {"details": "string"},
        "carts": _TRIGGER | _OF_CARTS,
        "people": {
            "customer_id": "string",
            "email_known": "boolean",
            "phone_known": "boolean",
            "language": "string",
            "time_zone": "string",
            "best_hour": "int64",
            "last_order_on": "date",
            "last_seen_on": "date",
            "last_ticket_on": "date",
            "ticket_open": "boolean",
            "churn_probability": "float64",
            "unmet": "array<string>",
        },
        "consent": dict.fromkeys(("customer_id", "channel", "state", "refused_topics"), "string"),
        "membership": {"segment": "string", "customer_id": "string", "entered_on": "date", "through": "string"},
        "history": dict.fromkeys(("customer_id", "type", "campaign", "step", "occasion"), "string") | {"on": "date"},
        "sent": dict.fromkeys(_KEY, "string") | {"on": "date"},
        "received": {"customer_id": "string", "sent": "int64", "unsubscribed_on": "date"},
        "hours": {"zone": "string", "wanted_hour": "int64", "keeps_day": "boolean"}
        | {"leaves": "int64", "send_from": "timestamp(6)"},
        "planned": {"customer_id": "string"},
        "asked": {"as_of": "date", "campaign": "string", "trigger": "string"}
        | {"included": "array<string>", "excluded": "array<string>", "segments": "array<string>", "stays_in": "string"}
        | {"exit_on": "array<string>", "marketing": "boolean", "pauses": "boolean", "keeps_day": "boolean"}
        | dict.fromkeys(_NUMBERS, "int64")
        | {"default_hour": "int64", "cap_after": "date", "leaves_after": "timestamp(6)"}
        | dict.fromkeys(_WORDS, "string"),
        "steps": {"step": "string", "position": "int64", "channel": "string", "template": "string", "hour": "int64"}
        | {"conditional": "boolean", "wait_days": "int64", "wait_hours": "float64", "oldest": "date", "newest": "date"}
        | {"reached_at": "int64", "due_until": "int64", "sent_until": "int64"}
        | {"languages": "map<string, string>", "bases": "map<string, string>", "otherwise": "string"}
        | dict.fromkeys(("experiment", "variant", "draw", "begins", "ends"), "string"),
    }.items()
}

_HOURS = 24


@dataclass(frozen=True)
class Inputs:
    """What is known as of the day and what is asked, one table each with the columns of :data:`SCHEMAS`.

    - ``triggers``: one row per customer and occasion; ``details`` say what set it off, JSON. Of carts (``carts``) one row per
      pause, which tells in microseconds its ``age`` at the time ``told_at`` (naive UTC), how long it ``lasted`` (null: it still
      does), the longest pause of the cart ``before`` it (0: none), and :data:`CART_FACTS`.
    - ``people``: ``best_hour`` is 0 to 23 in the ``time_zone`` (IANA); ``unmet`` names the steps whose condition they do not
      meet.
    - ``consent``: one row per customer and channel.
    - ``membership``: ``through`` is null where people are in the segment themselves and do not only stand in.
    - ``sent``, ``received`` and ``hours``: of the functions of these names.
    - ``planned``: a row for every message that campaigns of higher priority plan on the day.
    - ``asked`` (one row) and ``steps`` (one per step and variant): of :mod:`.asked`.

    Rows later than the day that is asked about change nothing.
    """

    triggers: ir.Table
    people: ir.Table
    consent: ir.Table
    membership: ir.Table
    sent: ir.Table
    received: ir.Table
    hours: ir.Table
    planned: ir.Table
    asked: ir.Table
    steps: ir.Table


@dataclass(frozen=True)
class Rules:
    """The shop's rules for all campaigns: settings of the same names. The key is not shown."""

    cap_messages: int
    cap_days: int
    holdout_percent: float
    language: str
    hash_key: bytes
    timezone: str = "UTC"
    cap_day_messages: int = 1
    quiet_from: int = 21
    quiet_to: int = 8
    default_hour: int = 10

    def __repr__(self) -> str:
        return (
            f"Rules({self.cap_messages} in {self.cap_days} days, {self.cap_day_messages} on one, holdout "
            f"{self.holdout_percent} %, {self.language}, quiet {self.quiet_from} to {self.quiet_to} in {self.timezone})"
        )

    @property
    def quiet_hours(self) -> int:
        """How many hours of the day are quiet."""
        return hours_between(self.quiet_from, self.quiet_to)


def plan(inputs: Inputs, *, of_carts: bool = False) -> ir.Table:
    """One decision for every step, person and occasion that is due as of the day: columns of ``campaigns/<name>/audience``.

    A step is due from ``wait_days`` after its trigger, for ``valid_days``, until it has been sent for that occasion. What is
    planned leaves from ``send_from`` on: at the hour that the step names, or the person's best one, of the first day of the
    person that reaches it after the day is over; never in quiet hours. What is for a birthday leaves on the date after
    the day in the person's own time zone, or not at all. ``of_carts``: triggers are pauses of carts, and a step is due where the
    first pause as long as its wait has reached it, and may be sent for as long as it is valid; what is due in quiet hours leaves
    when they end.
    """
    if of_carts:
        timed = _out_of_quiet_hours(_with_facts(_due_in_pauses(inputs.triggers, inputs.steps), inputs))
    else:
        due = _due(inputs.triggers, inputs.steps).anti_join(inputs.sent, _KEY)
        had = inputs.sent.group_by(["step", "customer_id"]).agg(had_on=_.on.max())
        known = _with_facts(due.left_join(had, ["step", "customer_id"], rname="{name}_of_sent"), inputs)
        timed = _at_their_hour(known, inputs.hours)
    return _explained(_decided(timed, of_carts), of_carts)


def sent(history: ir.Table, asked: ir.Table) -> ir.Table:
    """What the campaign sent up to the day, ``on`` which one. ``history``: what became of messages of all campaigns."""
    until = history.cross_join(asked.select("as_of", mine="campaign"))
    mine = until.filter((_.type == "sent") & (_.campaign == _.mine) & (_.on <= _.as_of))
    return mine.group_by(_KEY).agg(on=_.on.max())


def received(history: ir.Table, asked: ir.Table) -> ir.Table:
    """By person how many messages they were ``sent`` after the day ``cap_after``, and when they unsubscribed last, if ever."""
    until = history.cross_join(asked.select("as_of", "cap_after")).filter(_.on <= _.as_of)
    return until.group_by("customer_id").agg(
        sent=((_.type == "sent") & (_.on > _.cap_after)).cast("int64").sum(),
        unsubscribed_on=_.on.max(where=_.type.isin(["unsubscribe", "spam_report"])),
    )


def hours(people: ir.Table, asked: ir.Table) -> ir.Table:
    """The hour at which what is wanted at an hour ``leaves`` in a time zone, and when the clocks there show it first.

    What would be in quiet hours leaves at the nearest hour that is not. What ``keeps_day`` leaves on the date after the day and
    no other, at the nearest hour at which it can: after the day is over and before the next one is; null where there is none.
    Reckoned for each time zone and hour, not for each person: the engine looks a zone up anew for every row.
    """

    def midnight(days: int) -> Any:
        return _.as_of.cast("timestamp(6)") + ibis.interval(days=days)

    of_zone = ("zone", "as_of", "timezone", "quiet_from", "quiet_hours", "quiet_to")
    zones = people.cross_join(asked.select(*of_zone[1:]))
    zones = zones.mutate(zone=ibis.coalesce(_.time_zone, _.timezone)).select(*of_zone)
    every = zones.distinct().mutate(wanted_hour=ibis.range(_HOURS).unnest().cast("int64"))
    every = every.mutate(
        into=_into(_.wanted_hour), ends=utc(midnight(1), _.timezone), closes=utc(midnight(2), _.timezone)
    )
    nearest = ibis.ifelse(2 * _.into < _.quiet_hours, (_.quiet_from + _HOURS - 1) % _HOURS, _.quiet_to)
    every = every.mutate(leaves=ibis.ifelse(_.into < _.quiet_hours, nearest, _.wanted_hour).cast("int64"))
    every = every.mutate(opens=local(_.ends, _.zone), at=utc(midnight(1) + _.leaves.as_interval("h"), _.zone))
    can = ibis.ifelse((_.at >= _.ends) & (_.at < _.closes), _.at, ibis.null("timestamp(6)"))
    every = every.mutate(first=can.min().over(group_by="zone"), last=can.max().over(group_by="zone"))
    within = ibis.ifelse(_.first.isnull(), _.first, ibis.least(ibis.greatest(_.at, _.first), _.last))
    on_day = every.mutate(keeps_day=True, send_from=within)
    on_day = on_day.mutate(leaves=local(_.send_from, _.zone).hour().cast("int64"))
    whenever = every.mutate(keeps_day=False, send_from=_next(_.opens, _.leaves))
    return whenever.select(*SCHEMAS["hours"]).union(on_day.select(*SCHEMAS["hours"]))


def _due(triggers: ir.Table, steps: ir.Table) -> ir.Table:
    """Every step that is due, for each trigger, as the person's variant has it."""
    reached = [triggers.triggered_on >= steps.oldest, triggers.triggered_on <= steps.newest]
    each = triggers.inner_join(steps, reached)
    place = placed(_.customer_id + ":" + _.draw)
    drawn = each.filter(ibis.ifelse(_.draw.isnull(), True, (place >= _.begins) & (place < _.ends)))
    return drawn.mutate(due_on=(_.triggered_on.cast("timestamp(6)") + _.wait_days.as_interval("D")).date())


def _due_in_pauses(triggers: ir.Table, steps: ir.Table) -> ir.Table:
    """:func:`_due` of carts, with :data:`CART_FACTS` as they were when the step was due, ``due_at`` and ``valid_until``."""
    each = triggers.cross_join(steps)
    reached = _.lasted.isnull() | (_.lasted >= _.reached_at)
    due = each.filter((_.age >= _.reached_at) & (_.age < _.due_until) & reached & (_.before < _.reached_at))
    began = _.told_at - _.age.as_interval("us")
    return due.mutate(
        **{fact: (_[fact] <= _.reached_at).fill_null(False) for fact in CART_FACTS},
        due_at=began + _.reached_at.as_interval("us"),
        valid_until=began + _.sent_until.as_interval("us"),
    )


def _with_facts(due: ir.Table, inputs: Inputs) -> ir.Table:
    """``due`` with what the rules ask about each person and what is asked; one row stays one row."""
    of_segments = inputs.asked.select("as_of", "segments", "included", "excluded", "stays_in")
    membership = inputs.membership.cross_join(of_segments).filter(_.entered_on <= _.as_of)
    membership = membership.mutate(base=_.segment.split(SEPARATOR)[0])
    joined = due
    for table, key in (
        (inputs.people, ["customer_id"]),
        (inputs.consent.select(*SCHEMAS["consent"]), ["customer_id", "channel"]),
        (inputs.received, ["customer_id"]),
        (inputs.planned.group_by("customer_id").agg(planned=_.count()), ["customer_id"]),
        (_segments(membership), ["customer_id"]),
        (_stays(membership), ["customer_id", "triggered_on"]),
    ):
        joined = joined.left_join(table, key, rname=f"{{name}}_of_{len(joined.columns)}")
    asked = inputs.asked.rename({"stay_segments": "segments", "included_segments": "included"})
    known = joined.cross_join(asked.rename({"excluded_segments": "excluded"})).mutate(wanted=_.language.lower())
    spoken = ibis.coalesce(_.languages.get(_.wanted), _.bases.get(_.wanted.split("-")[0]), _.otherwise)
    return known.mutate(language=spoken)


def _segments(membership: ir.Table) -> ir.Table:
    """Per person: whether the audience includes or excludes them, and the segments the campaign rests on that they are in.

    ``fans_of`` stands for every ``fans_of:<value>``. Nobody is excluded for standing in a segment that they only fill up.
    """

    def among(names: Any) -> Any:
        return (names.contains(_.segment) | names.contains(_.base)).fill_null(False)

    return (
        membership.filter(among(_.segments))
        .mutate(
            is_included=among(_.included),
            is_excluded=among(_.excluded) & _.through.isnull(),
            stay=ibis.struct({"segment": _.segment, "entered_on": _.entered_on.strftime("%Y-%m-%d")}),
        )
        .group_by("customer_id")
        .agg(included=_.is_included.any(), excluded=_.is_excluded.any(), segments=_.stay.collect())
        .mutate(segments=_.segments.sort())  # a third of the time of an ordered aggregate
    )


def _stays(membership: ir.Table) -> ir.Table:
    """Who is still in the trigger's segment, by the day the stay began."""
    present = membership.filter((_.segment == _.stays_in) | (_.base == _.stays_in))
    return present.select("customer_id", triggered_on="entered_on", staying=ibis.literal(True)).distinct()


def _at_their_hour(known: ir.Table, hours: ir.Table) -> ir.Table:
    """``hour`` and ``send_from``: the hour in the person's time zone, and when the clocks there show it first."""
    wanted = known.mutate(
        zone=ibis.coalesce(_.time_zone, _.timezone), wanted_hour=ibis.coalesce(_.hour, _.best_hour, _.default_hour)
    )
    return wanted.left_join(hours, ["zone", "wanted_hour", "keeps_day"], rname="{name}_of_hours").mutate(hour=_.leaves)


def _out_of_quiet_hours(known: ir.Table) -> ir.Table:
    """``send_from`` of what is due at a moment: that moment, or the end of the quiet hours it is in.

    What is decided only ``leaves_after`` it was due, as after an outage, is asked about at the later of the two moments.
    """
    goes_at = ibis.greatest(_.due_at, ibis.coalesce(_.leaves_after, _.due_at))
    zoned = known.mutate(zone=ibis.coalesce(_.time_zone, _.timezone), goes_at=goes_at)
    shown = zoned.mutate(shown=local(_.goes_at, _.zone))
    quiet = _into(_.shown.hour().cast("int64")) < _.quiet_hours
    return shown.mutate(send_from=ibis.ifelse(quiet, _next(_.shown, _.quiet_to), _.goes_at))


def _into(hour: Any) -> Any:
    """How many hours the quiet ones have begun before the hour; as many as there are of them or more: it is not quiet."""
    return (hour - _.quiet_from + _HOURS) % _HOURS


def _next(shown: Any, hour: Any) -> ir.TimestampValue:
    """When the clocks of ``zone``, which show ``shown``, come to the full hour next (or show it now), UTC."""
    of_day = shown.truncate("D") + hour.as_interval("h")
    return utc(ibis.ifelse(of_day < shown, of_day + ibis.interval(days=1), of_day), _.zone)


def _decided(known: ir.Table, of_carts: bool) -> ir.Table:
    """``reason`` and ``decision``: the rules, in order; the caps last, because only what would be sent counts towards them."""

    def held(key: Any, end: Any) -> Any:
        return ibis.ifelse(end.notnull(), placed(_.customer_id + ":" + key) < end, False)

    def exits(name: str, holds: Any) -> Any:
        return _.exit_on.contains(name) & holds

    def since_trigger(day: Any) -> Any:
        """Whether the day is after the trigger's. Of a cart's own day :data:`CART_FACTS` tell, to the microsecond."""
        return (day > _.triggered_on) & (day < _.as_of if of_carts else day <= _.as_of)

    address = ibis.ifelse(_.channel == "sms", _.phone_known, _.email_known)
    ordered, asked_for_help = since_trigger(_.last_order_on), since_trigger(_.last_ticket_on)
    refusals: dict[str, Any] = {
        "no_address": ~address.fill_null(False),
        "no_consent": ~_.state.fill_null("never asked").isin(["opted_in", "opted_out", "pending"]),
        "opted_out": _.state == "opted_out",
        "opted_out_topic": _.refused_topics.split(TOPICS_APART).contains(_.topic),
        "pending": _.state == "pending",
        "not_in_audience": _.included_segments.notnull() & ~_.included.fill_null(False),
        "excluded": _.excluded,
        "condition": _.conditional & (_.unmet.isnull() | _.unmet.contains(_.step)),
        "sunset": _.marketing & (-_.last_seen_on.delta(_.as_of, unit="day") >= _.sunset_days),
        "ticket_open": _.pauses & _.ticket_open,
        "unsubscribed": exits("unsubscribed", _.unsubscribed_on >= _.triggered_on),
        "ordered": exits("ordered", _.ordered | ordered.fill_null(False) if of_carts else ordered),
        "left_segment": exits("left_segment", _.staying.isnull()),
        "cart_emptied": exits("cart_emptied", _.emptied) if of_carts else None,
        "ticket_opened": exits(
            "ticket_opened", _.ticket_opened | asked_for_help.fill_null(False) if of_carts else asked_for_help
        ),
        "cart_changed": _.changed if of_carts else None,
        "no_hour": None if of_carts else _.keeps_day & _.send_from.isnull(),
        "holdout": _.marketing & held(_.holdout_key, _.holdout_end),
        "campaign_holdout": held(_.campaign_key, _.campaign_end),
        "quiet_hours": _.send_from >= _.valid_until if of_carts else None,
        "again": None if of_carts else -_.had_on.delta(_.as_of, unit="day") < _.again_days,
    }
    rules = [(holds, reason) for reason, holds in refusals.items() if holds is not None]
    judged = known.mutate(refusal=ibis.cases(*rules, else_=""))
    if not of_carts:  # of several occasions on the day one is enough, too
        nth = ibis.row_number().over(group_by=[_.customer_id, _.step, _.refusal], order_by=[_.triggered_on, _.occasion])
        again = (_.refusal == "") & _.again_days.notnull() & (nth > 0)
        judged = judged.mutate(refusal=ibis.ifelse(again, "again", _.refusal))
    earlier = ibis.row_number().over(
        group_by=[_.customer_id, _.refusal], order_by=[_.position, _.triggered_on, _.occasion]
    )
    counted = judged.mutate(on_the_day=_.planned.fill_null(0) + earlier)
    caps = [(_.marketing & (_.sent.fill_null(0) + _.on_the_day >= _.cap_messages), "cap")]
    if not of_carts:  # a day's carts are not planned together, so there is no day to share out
        caps.append((_.marketing & (_.on_the_day >= _.cap_day_messages), "day_cap"))
    reasoned = counted.mutate(reason=ibis.cases((_.refusal != "", _.refusal), *caps, else_="due"))
    return reasoned.mutate(decision=ibis.ifelse(_.reason == "due", "planned", "refused"))


def _explained(decided: ir.Table, of_carts: bool) -> ir.Table:
    """The columns of the audience."""
    told = decided.mutate(
        due_on=_.as_of if of_carts else _.due_on,
        details=ibis.null("string") if of_carts else _.details,
    )
    return told.select(
        "step",
        "customer_id",
        "occasion",
        "triggered_on",
        "due_on",
        "reason",
        "channel",
        "template",
        "decision",
        "variant",
        "details",
        "language",
        send_from=ibis.ifelse(_.decision == "planned", _.send_from, ibis.null("timestamp(6)")),
        offer=ibis.null("string"),
        explanation=_explanation(told, of_carts),
    )


def _explanation(decided: ir.Table, of_carts: bool) -> Any:
    """Why, as JSON: no private data. What the row has no more of is left out."""
    meanings = ibis.literal(REASONS, "map<string, string>")
    why: dict[str, Any] = {
        "trigger": _.trigger,
        "triggered_on": _.triggered_on.strftime("%Y-%m-%d"),
        **({"wait_hours": _.wait_hours} if of_carts else {"wait_days": _.wait_days}),
        "segments": _.segments,
        "churn_probability": _.churn_probability.round(6),
        **({} if of_carts else {"hour": _.hour}),
        "reason": _.reason,
        "rule": meanings.get(decided.reason),
    }
    told = ibis.struct(why).cast("json").cast("string")
    of_trigger = ',"details":' + _.details
    # both are names, which JSON takes as they are
    drawn = ',"experiment":"' + _.experiment + '","variant":"' + _.variant + '"'
    return told.substr(0, told.length() - 1) + of_trigger.fill_null("") + drawn.fill_null("") + "}"
