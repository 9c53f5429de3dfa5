"""The planner's rules, one step each, in its order: whether they hold for a person, and the values and rows they rest on.

Which one decided is what the audience says. What each rests on is read anew, from the same tables and by the same functions;
where the two differ, which late rows or a changed declaration bring about, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from shopauto_pipelines.campaigns.asked import drawn_for, leaving_day
from shopauto_pipelines.campaigns.audience import rules_for_carts, rules_of
from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.explain import raw_rows
from shopauto_pipelines.explain.case import Case
from shopauto_pipelines.explain.telling import Mark, Part, Row, Step, counted, shown
from shopauto_pipelines.profiles.consent import TOPICS_APART, WITHDRAWALS
from shopauto_pipelines.segments.declaration import SEPARATOR
from shopauto_pipelines.segments.report import without_private
from shopauto_pipelines.segments.why import Reason, Why
from shopauto_pipelines.sources.tables import CONSENTS, MESSAGE_EVENTS, TOPIC_CHOICES

_MARKS: Mapping[bool | None, Mark] = {True: "yes", False: "no", None: "unknown"}


def address(case: Case) -> Step:
    """Whether there is somewhere to send it to."""
    channel = case.step.channel
    there = case.person.has_address(channel)
    what = "phone number" if channel == "sms" else "e-mail address"
    text = f"there is {'a' if channel == 'sms' else 'an'} {what}" if there else f"there is no {what}"
    return _step(case, "address", "Address", text, {"no_address": not there})


def consent(case: Case) -> Step:
    """Whether the person agreed to the channel, and wants to hear of the topic, and the rows that say so."""
    channel, topic = case.step.channel, case.campaign.topic
    said = case.person.consent.get(channel)
    state = said["state"] if said else None
    rows: tuple[Row, ...] = ()
    if said is None:
        text = f"was never asked for consent to {channel}"
    else:
        source = said["source"]
        text, rows = f"{channel}: {state} since {shown(said['at'])} UTC, by {source}", _of_consent(case, channel, said)
    refused = said is not None and topic in (said["refused_topics"] or "").split(TOPICS_APART)
    if refused:
        text, rows = f"{text}; does not want messages about {topic}", (*rows, *_of_topic(case, channel, topic))
    refusals = {
        "no_consent": state is None,
        "opted_out": state == "opted_out",
        "pending": state == "pending",
        "opted_out_topic": refused,
    }
    return _step(case, "consent", "Consent", text, refusals, rows=rows)


def _of_topic(case: Case, channel: str, topic: str) -> list[Row]:
    """The row with the latest choice about the topic."""
    chosen = raw_rows.between(case.known.lake, TOPIC_CHOICES, date.min, case.day, case.person.ids)
    return [row for row in chosen if (row.values["channel"], row.values["topic"]) == (channel, topic)][:1]


def _of_consent(case: Case, channel: str, said: Mapping[str, Any]) -> tuple[Row, ...]:
    """The row of the shop, or the event of a message, that consent rests on."""
    days = _around(said["at"])
    ids, lake, at = case.person.ids, case.known.lake, said["at"]
    if said["source"] in WITHDRAWALS:
        return raw_rows.rows(
            lake,
            MESSAGE_EVENTS,
            days,
            ids,
            lambda row: (
                row["type"] == said["source"]
                and row["happened_at"] == at
                and not case.known.tells_birthday(row.get("campaign"))
            ),
            limit=1,
        )
    return raw_rows.rows(
        lake,
        CONSENTS,
        days,
        ids,
        lambda row: row["channel"] == channel and row["changed_at"] == at and row["source"] == said["source"],
        limit=1,
    )


def segments(case: Case) -> Step | None:
    """The campaign's audience: each segment with its condition and the values; none where everybody belongs."""
    campaign = case.campaign
    if campaign.included is None and not campaign.excluded:
        return None
    mine = {row["segment"]: row for row in case.person.memberships if row["entered_on"] <= case.day}

    def among(name: str) -> list[Mapping[str, Any]]:
        return [row for segment, row in mine.items() if name in (segment, segment.partition(SEPARATOR)[0])]

    included = [row for name in campaign.included or () for row in among(name)]
    excluded = [row for name in campaign.excluded for row in among(name) if row["through"] is None]
    parts = [_segment(case, name, among(name), wanted=True) for name in campaign.included or ()]
    parts += [_segment(case, name, among(name), wanted=False) for name in campaign.excluded]
    missing = campaign.included is not None and not included
    if missing:
        text = f"is in none of {_listed(campaign.included or ())}"
    elif excluded:
        text = f"is in {_listed(row['segment'] for row in excluded)}, which the campaign leaves out"
    else:
        told = f"is in {_listed(row['segment'] for row in included)}" if included else "everybody belongs"
        text = f"{told}, and in none of those left out" if campaign.excluded else told
    return _step(
        case, "segments", "Segments", text, {"not_in_audience": missing, "excluded": bool(excluded)}, parts=tuple(parts)
    )


def _segment(case: Case, name: str, rows: Sequence[Mapping[str, Any]], wanted: bool) -> Part:
    inside = [row for row in rows if wanted or row["through"] is None]
    about = f"{name}, which is {'included' if wanted else 'left out'}"
    if inside:
        since, through = inside[0]["entered_on"], inside[0]["through"]
        when = ", the day is not shown, as it would tell private data" if _is_telling(case, name) else f" since {since}"
        about += f": in {inside[0]['segment']}{when}" + (f", standing in from {through}" if through else "")
    else:
        about += ": not in it"
    mark: Mark = "yes" if bool(inside) == wanted else "no"
    return Part(about, mark, parts=predicates(case, name))


def predicates(case: Case, segment: str) -> tuple[Part, ...]:
    """The segment's condition for the person, part by part, with the values; nothing that tells private data."""
    found = case.known.whys.get(case.person.customer_id, {}).get(segment.partition(SEPARATOR)[0])
    return reasons(found) if found else ()


def _is_telling(case: Case, segment: str) -> bool:
    """Whether the day on which people come in tells private data: seven days before the birthday, it is the birthday."""
    found = case.known.whys.get(case.person.customer_id, {}).get(segment.partition(SEPARATOR)[0])
    return found is not None and without_private([found])[1]


def reasons(why: Why) -> tuple[Part, ...]:
    """A segment's reasons as parts."""
    (kept,), left_out = without_private([why])
    told = tuple(_reason(reason) for reason in kept.reasons)
    return (*told, Part("a part of the condition rests on private data, and is not shown")) if left_out else told


def _reason(reason: Reason) -> Part:
    text = (
        "one of these" if reason.joined == "or" else "all of these" if reason.parts else " ".join(reason.text.split())
    )
    return Part(text, _MARKS[reason.holds], "" if reason.parts else reason.words, tuple(map(_reason, reason.parts)))


def condition(case: Case) -> Step | None:
    """The step's own condition; none where it has none."""
    if not case.step.when:
        return None
    why = case.known.whys.get(case.person.customer_id, {}).get(condition_name(case.campaign.name, case.name))
    met = bool(why.member) if why else None
    text = {True: "is met", False: "is not met", None: "what it asks for is not known"}[met]
    return _step(
        case,
        "condition",
        "Condition of the step",
        text,
        {"condition": None if met is None else not met},
        parts=reasons(why) if why else (),
    )


def condition_name(campaign: str, step: str) -> str:
    """What the condition of a step is called among the segments that are evaluated."""
    return f"condition_of_{campaign}_{step}"


def fitting(case: Case) -> Step:
    """Whether it still fits: signs of life, open tickets, and what ended the journey since the trigger."""
    profile, campaign, day = case.person.profile, case.campaign, case.day
    since = case.row.get("triggered_on")
    refusals: dict[str, bool | None] = {}
    parts: list[Part] = []

    def told(rule: str, refuses: bool | None, text: str, rows: tuple[Row, ...] = ()) -> None:
        refusals[rule] = refuses
        parts.append(Part(_read(case, {rule: refuses}, text), _mark(case, rule, refuses), rows=rows))

    if case.marketing and campaign.sunset_days is not None:
        signs = (profile[name] for name in ("last_order_on", "last_click_on", "last_visit_on", "created_on"))
        seen = max((sign for sign in signs if sign), default=None)
        quiet = (day - seen).days if seen else 0
        ago = f"{seen}, {counted(quiet, 'day')} ago, at most {campaign.sunset_days - 1} are allowed"
        text = f"last sign of life: {ago if seen else 'none is known, so nothing says how long they have been quiet'}"
        told("sunset", quiet >= campaign.sunset_days, text)
    if campaign.pauses:
        waits = bool(profile["ticket_open"])
        text = "waits for an answer of the shop's support" if waits else "waits for no answer of the shop's support"
        asked_on = f", asked on {profile['last_ticket_on']}" if waits else ""
        told("ticket_open", waits, text + asked_on)
    for exit_ in campaign.exit_on:
        if case.reached or case.reason == exit_:
            told(exit_, *_exit(case, exit_, since))
        else:
            parts.append(Part(f"{_ENDS[exit_]} after the trigger would end it", "fact"))
    if case.reason == "cart_changed":
        told("cart_changed", None, REASONS["cart_changed"])
    text = "nothing has ended it" if not any(refusals.values()) else "something has ended it"
    if any(each is None for each in refusals.values()) and case.reason in refusals:
        text = REASONS[str(case.reason)].removeprefix("exit: ")
    return _step(case, "fitting", "Still fitting", text, refusals, parts=tuple(parts))


def _exit(case: Case, exit_: str, since: date | None) -> tuple[bool | None, str, tuple[Row, ...]]:
    """Whether something ended the journey, in words, and the rows that say so."""
    profile, day = case.person.profile, case.day
    when = f"since {_trigger_day(case)}"
    if exit_ == "left_segment":
        segment = str(case.campaign.trigger.segment_entered)
        stays = [
            row
            for row in case.person.memberships
            if segment in (row["segment"], row["segment"].partition(SEPARATOR)[0]) and row["entered_on"] == since
        ]
        over = f"the stay in {segment} that began on {since} is over"
        return not stays, f"still in {segment} {when}" if stays else over, ()
    if case.campaign.is_realtime and exit_ in ("ordered", "ticket_opened", "cart_emptied"):
        refused = case.refused_by(exit_)
        text = {"ordered": "ordered", "ticket_opened": "asked for help", "cart_emptied": "emptied the cart"}[exit_]
        return (
            refused,
            f"{text} since the cart was left" if refused else f"has not {_perfect(exit_)} since the cart was left",
            (),
        )
    if exit_ == "unsubscribed":
        events = [row for row in case.person.events if row.values["type"] in WITHDRAWALS and since and row.day >= since]
        text = f"unsubscribed or complained {when}" if events else f"has not unsubscribed {when}"
        return bool(events), text, case.showable(events[:1])
    column, did, not_done = {
        "ordered": ("last_order_on", "ordered on", "has not ordered"),
        "ticket_opened": ("last_ticket_on", "asked for help on", "has not asked for help"),
    }[exit_]
    last = profile[column]
    ended = bool(last and since and since < last <= day)
    return ended, f"{did} {last}, {when.replace('since', 'after')}" if ended else f"{not_done} {when}", ()


#: What ends a journey, by the declaration's name.
_ENDS = {
    "ordered": "an order",
    "unsubscribed": "unsubscribing, or a complaint,",
    "left_segment": "leaving the segment",
    "cart_emptied": "emptying the cart",
    "ticket_opened": "a question to the shop's support",
}


def _perfect(exit_: str) -> str:
    return {"ordered": "ordered", "ticket_opened": "asked for help", "cart_emptied": "emptied it"}[exit_]


def holdout(case: Case) -> Step:
    """Whether the person is held out, and the variant of an experiment that is theirs. The key is never told."""
    settings, campaign, who = case.known.settings, case.campaign, case.person.customer_id
    everywhere, here = settings.holdout_percent if case.marketing else 0.0, campaign.held_out_percent
    found = {
        "holdout": is_held_out(who, holdout_key(settings.hash_key, GLOBAL), everywhere),
        "campaign_holdout": is_held_out(who, holdout_key(settings.hash_key, campaign.name), here),
    }
    of = {"holdout": ("all campaigns", everywhere), "campaign_holdout": (campaign.name, here)}
    parts = [
        Part(
            _read(
                case,
                {rule: found[rule]},
                f"{'in' if found[rule] else 'not in'} the holdout of {whose}, {percent:g} % of all people",
            ),
            _mark(case, rule, found[rule]),
        )
        for rule, (whose, percent) in of.items()
    ]
    if campaign.experiment and campaign.experiment.step == case.name:
        drawn = drawn_for(campaign, case.name, who, settings.hash_key)
        weights = ", ".join(f"{name} {variant.weight}" for name, variant in campaign.experiment.variants.items())
        parts.append(Part(f"experiment {campaign.experiment.name}: drawn for {drawn}", aside=f"weights: {weights}"))
    held = [whose for rule, (whose, _percent) in of.items() if found[rule]]
    text = f"is held out of {' and '.join(held)}, so that its effect can be measured" if held else "is not held out"
    return _step(case, "holdout", "Holdout and experiment", text, found, parts=tuple(parts))


def again(case: Case) -> Step | None:
    """Whether the person had the step lately, on another occasion; none where every occasion counts."""
    days = case.campaign.again_days
    if days is None:
        return None
    own = f":{case.row.get('occasion')}"
    lately_sent = (row for row in case.sent if (case.day - row.day).days < days)
    had = [row for row in lately_sent if not str(row.values["message_id"]).endswith(own)]
    first = None if had else _earlier_occasion(case)
    lately = f"had this step on {had[0].day}" if had else "has not had this step lately"
    lately = "had this step lately" if had and case.campaign.tells_birthdays else lately
    lately = f"is due this step for {first}, too, and that comes first" if first else lately
    text = f"{lately}; nobody gets it again within {days} days"
    return _step(case, "again", "Again", text, {"again": bool(had or first)}, rows=case.showable(had[:1]))


def _earlier_occasion(case: Case) -> str | None:
    """The first other occasion of the step on the day that no rule before this one refused, where it comes before this one."""
    passed = ("again", "cap", "day_cap", "due")
    if not case.reached:
        return None
    mine = (case.row["triggered_on"], case.row["occasion"])
    others = [
        (row["triggered_on"], row["occasion"])
        for row in case.person.decided.get(case.campaign.name, ())
        if row["step"] == case.name and row["reason"] in passed
    ]
    return min(others)[1] if others and min(others) < mine else None


def caps(case: Case) -> Step:
    """The frequency cap with the messages that count towards it, and the cap of the day with those planned before."""
    rules = rules_of(case.known.settings)
    leaves_on = leaving_day(case.campaign, case.day)
    sent = [
        row
        for row in case.person.events
        if row.values["type"] == "sent"
        and leaves_on - timedelta(days=rules.cap_days) < row.day <= case.day
        and not (case.campaign.is_realtime and row.day == case.day and row.values.get("campaign") == case.campaign.name)
    ]
    first_ones = [
        (name, row["step"])
        for name in case.before
        for row in case.person.decided.get(name, ())
        if row["decision"] == "planned"
    ]
    earlier = _earlier(case)
    today = len(first_ones) + len(earlier)
    caps_hold = case.marketing
    refusals: dict[str, bool | None] = {"cap": caps_hold and len(sent) + today >= rules.cap_messages}
    if not case.campaign.is_realtime:
        refusals["day_cap"] = caps_hold and today >= rules.cap_day_messages
    parts = [
        Part("a message whose day is not shown, as it would tell the birthday")
        if case.known.tells_birthday(row.values.get("campaign"))
        else Part(f"{row.day}: {row.values.get('campaign') or 'of no campaign'}", rows=(row,))
        for row in sent
    ]
    parts += [
        Part(
            f"{case.day}: {'a message' if case.known.tells_birthday(name) else f'{name}, {step}'}: planned first, for its "
            "priority is higher"
        )
        for name, step in first_ones
    ]
    parts += [
        Part(f"{case.day}: {case.campaign.name}, {step}: an earlier step, or occasion, of this campaign")
        for step in earlier
    ]
    if not caps_hold:
        text = "transactional: no cap holds"
    else:
        had = f"{counted(len(sent), 'message')} in the {rules.cap_days} days to {leaves_on}"
        text = f"{had}, {today} planned before this one that day; allowed are {rules.cap_messages} in {rules.cap_days} days"
        text += "" if case.campaign.is_realtime else f" and {rules.cap_day_messages} a day"
    if not case.reached:
        text += ". What others plan that day is left out of account"
    return _step(case, "caps", "Frequency caps", text, refusals, parts=tuple(parts))


def _earlier(case: Case) -> list[str]:
    """Steps of the same campaign that come first on the day for the person, of what only the caps may refuse."""
    if not case.reached:
        return []
    places = {step.name: place for place, step in enumerate(case.campaign.steps)}

    def turn(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return places.get(row["step"], 0), row["triggered_on"], row["occasion"]

    rivals = [
        row for row in case.person.decided.get(case.campaign.name, ()) if row["reason"] in ("due", "cap", "day_cap")
    ]
    return [row["step"] for row in sorted(rivals, key=turn) if turn(row) < turn(case.row)]


def hour(case: Case) -> Step:
    """When it may leave, on the person's clock, and the quiet hours."""
    settings = case.known.settings
    carts = case.campaign.is_realtime
    rules = rules_for_carts(settings) if carts else rules_of(settings)
    zone = case.person.profile["time_zone"] or rules.timezone
    at = case.row.get("send_from")
    parts = [
        Part(f"quiet from {rules.quiet_from}:00 to {rules.quiet_to}:00" if rules.quiet_hours else "no hours are quiet"),
        Part(f"time zone {zone}" + ("" if case.person.profile["time_zone"] else ", the shop's: theirs is not known")),
    ]
    if not carts:
        best = case.person.profile["best_hour"]
        said = (
            f"the hour they read at: {best}" if best is not None else f"not known when they read: {rules.default_hour}"
        )
        wanted = (best if best is not None else rules.default_hour) if case.step.hour == "best" else case.step.hour
        leaves = case.explanation.get("hour", wanted)
        why = "quiet, or cannot be on the day" if case.campaign.tells_birthdays else "quiet"
        moved = "" if leaves in (wanted, None) else f"; that is {why}, so it leaves at {leaves}:00"
        parts.append(Part(f"hour of the step: {said if case.step.hour == 'best' else wanted}{moved}"))
    rule = "quiet_hours" if carts else "no_hour" if case.campaign.tells_birthdays else None
    refused = case.refused_by(rule) if rule else None
    if rule and refused:
        text = REASONS[rule]
    elif at is None:
        text = "nothing is planned" if case.row else "not known"
    else:
        there = at.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
        at_what = "%H:%M" if case.campaign.tells_birthdays else "%Y-%m-%d %H:%M"
        text = f"may leave from {there:{at_what}} of their clock, {at:{at_what}} UTC"
        if not settings.live:
            text += "; at once while live mode is off"
    refusals = {rule: refused} if rule else {}
    fact = not refused and (not carts or at is None)
    return _step(case, "hour", "Quiet hours", text, refusals, parts=tuple(parts), fact=fact)


def _step(
    case: Case,
    key: str,
    title: str,
    text: str,
    refusals: Mapping[str, bool | None],
    *,
    parts: tuple[Part, ...] = (),
    rows: tuple[Row, ...] = (),
    fact: bool = False,
) -> Step:
    """A step of one or several rules; ``refusals`` say of each whether it refuses by what is known now."""
    marks = {rule: _mark(case, rule, refuses) for rule, refuses in refusals.items()}
    order: Sequence[Mark] = ("no", "unknown", "yes")
    mark: Mark = "fact" if fact else next((each for each in order if each in marks.values()), "yes")
    differing = [rule for rule, refuses in refusals.items() if differs(case, rule, refuses)]
    said = tuple(
        Part(
            f"recorded that day: {'refused' if case.refused_by(rule) else 'passed'} by `{rule}`; read anew it is the other way: "
            "rows came late, or the declaration or a setting has changed since",
            "unknown",
        )
        for rule in differing
    )
    asked = not case.reached or not refusals or any(case.refused_by(rule) is not None for rule in refusals)
    decided = case.reached and case.reason in refusals
    told = _read(case, refusals, text)
    return Step(key, title, mark, told, (*parts, *said), rows, decided=decided, asked=asked)


def _read(case: Case, refusals: Mapping[str, bool | None], text: str) -> str:
    """The text, which is of now: said where the mark beside it, which is of what was recorded, says otherwise."""
    return f"read anew: {text}" if any(differs(case, *one) for one in refusals.items()) else text


def differs(case: Case, rule: str, refuses: bool | None) -> bool:
    """Whether what was recorded of a rule is not what is known now."""
    recorded = case.refused_by(rule) if case.reached else None
    return recorded is not None and refuses is not None and recorded != refuses


def _mark(case: Case, rule: str, refuses: bool | None) -> Mark:
    """What was recorded counts, then what is known."""
    recorded = case.refused_by(rule) if case.reached else None
    told = refuses if recorded is None else recorded
    return "unknown" if told is None else "no" if told else "yes"


def _trigger_day(case: Case) -> str:
    """The day of the trigger; of a birthday it would tell the birthday."""
    return "the trigger" if case.campaign.tells_birthdays else str(case.row.get("triggered_on"))


def _around(at: datetime) -> list[date]:
    """The day of a time in any time zone."""
    return [at.date() + timedelta(days=n) for n in (-1, 0, 1)]


def _listed(names: Any) -> str:
    return ", ".join(dict.fromkeys(names)) or "none"


#: The rules in the planner's order.
RULES = (address, consent, segments, condition, fitting, holdout, again, caps, hour)
