"""What became of a message: the ledger with its history, what the outbox asks, and the send gate. Of now, not of the day."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.explain.case import Case
from shopauto_pipelines.explain.telling import Mark, Part, Step, counted
from shopauto_pipelines.outbox import consents, controls, gate, ledger, links
from shopauto_pipelines.outbox.gate.verdicts import Verdict
from shopauto_pipelines.outbox.schema import message_history, messages, offers, provider_events
from shopauto_pipelines.outbox.sending import ADDRESS
from shopauto_pipelines.outbox.windows import Window
from shopauto_pipelines.platform.lake import MissingPartition
from shopauto_pipelines.platform.settings import Settings

#: What states of the ledger mean.
STATES = {
    "planned": "waits to be sent",
    "reserved": "is being sent",
    "sent": "was sent",
    "failed": "was surely not sent: the channel did not take it",
    "unknown": "may or may not have been sent: the channel's answer never came",
    "suppressed": "was held back",
}

_MARKS: Mapping[str, Mark] = {"sent": "yes", "planned": "yes", "reserved": "yes", "unknown": "unknown"}

#: What holds a message back in the last moment, by the ledger's reason.
_HELD = {
    "withdrawn": "the audience was computed again and does not plan it any more",
    "window_closed": "its day was over before it could leave",
    "no_address": "there is no address any more",
    "opted_out": "the person opted out meanwhile",
    "already_sent": "the person has had it under another id, which was joined with this one afterwards",
    "no_hour": "where the person lives, the day that it was meant for was over before it could leave",
    "cap": "the person has had as many messages as the cap allows",
    "day_cap": "the person has had as many messages of this day as one may bring, which the audience did not know of",
    "less_often": "the person asked for fewer messages",
    "ordered": "the person has ordered meanwhile",
    "unsubscribed": "the person has unsubscribed meanwhile",
}


@dataclass(frozen=True)
class Change:
    """A change of a message's state."""

    at: datetime
    before: str | None
    after: str
    why: str | None


@dataclass(frozen=True)
class Kept:
    """What the ledger has of a message; ``facts`` are its row, ``events`` those of the provider, the first of each type."""

    message: ledger.Message
    facts: Mapping[str, Any]
    changes: Sequence[Change]
    events: Sequence[tuple[str, datetime]]


@dataclass(frozen=True)
class Now:
    """What the outbox would say now: why nothing of the campaign may leave, why the address gets nothing, what was chosen.

    ``granted``: offers that counted when the message was planned, as (campaign, kind, when).
    """

    stopped: str | None
    suppressed: str | None
    choices: Mapping[str, str]
    granted: Sequence[tuple[str, str, datetime]]


def of_key(connection: sa.Connection, key: ledger.MessageKey) -> Kept | None:
    """The message of the key; ``None`` where the ledger has none."""
    wanted = sa.select(messages.c.id).where(*(messages.c[name] == value for name, value in key._asdict().items()))
    number = connection.execute(wanted).scalar()
    return of_number(connection, number) if number is not None else None


def of_number(connection: sa.Connection, number: int) -> Kept | None:
    """The message with this number of the ledger; ``None`` where there is none."""
    message = ledger.find(connection, number)
    if message is None:
        return None
    names = ("run_id", "planned_at", "reserved_at", "settled_at", "send_from", "provider_id")
    facts = connection.execute(
        sa.select(*(messages.c[name] for name in names)).where(messages.c.id == number)
    ).mappings()
    history = (
        sa.select(message_history.c.at, message_history.c.from_state, message_history.c.to_state, message_history.c.why)
        .where(message_history.c.messages.op("@>")(sa.literal(number, sa.BigInteger)))
        .order_by(message_history.c.id)
    )
    events = (
        sa.select(provider_events.c.type, sa.func.min(provider_events.c.at))
        .where(provider_events.c.message_id == number, ~provider_events.c.is_machine)
        .group_by(provider_events.c.type)
        .order_by(sa.func.min(provider_events.c.at), provider_events.c.type)
    )
    return Kept(
        message,
        dict(facts.one()),
        [Change(*row) for row in connection.execute(history)],
        [(row[0], row[1]) for row in connection.execute(events)],
    )


def as_row(kept: Kept) -> dict[str, Any]:
    """What the ledger knows of a message, as the audience would say it; of a cart it does not know the day it was due."""
    message, why = kept.message, kept.message.explanation
    triggered_on = date.fromisoformat(why["triggered_on"]) if "triggered_on" in why else message.as_of
    details = why.get("details")
    return {
        "step": message.key.step,
        "customer_id": message.key.customer_id,
        "occasion": message.key.occasion,
        "triggered_on": triggered_on,
        "due_on": None if "wait_hours" in why else message.as_of,
        "decision": "planned",
        "reason": "due",
        "channel": message.channel,
        "template": message.template,
        "language": message.language,
        "variant": why.get("variant"),
        "send_from": kept.facts["send_from"] and kept.facts["send_from"].astimezone(UTC).replace(tzinfo=None),
        "offer": None,
        "details": json.dumps(details) if details else None,
        "explanation": message.explained,
    }


def standing(connection: sa.Connection, settings: Settings, case: Case, kept: Kept | None) -> Now:
    """What the outbox asks of each message in the last moment, asked now."""
    channel = case.step.channel
    address = case.person.profile[ADDRESS[channel]]
    digest = kept.message.address_hash if kept else links.address_hash(settings.hash_key, channel, address)
    until = kept.facts["planned_at"] if kept else settings.midnight(case.day + timedelta(days=1))
    granted = (
        sa.select(offers.c.campaign, offers.c.kind, offers.c.granted_at)
        .where(
            offers.c.customer_id == case.person.customer_id,
            offers.c.granted_at > until - timedelta(days=settings.offer_cap_days),
            offers.c.granted_at <= until,
            (offers.c.campaign != case.campaign.name) | (offers.c.occasion != case.row.get("occasion", "")),
        )
        .order_by(offers.c.granted_at.desc(), offers.c.code)
    )
    return Now(
        controls.stopped(connection, case.campaign.name),
        consents.suppression(connection, bytes(digest), channel) if digest else None,
        consents.choices(connection, bytes(digest), channel) if digest else {},
        [(row[0], row[1], row[2]) for row in connection.execute(granted)],
    )


def of_later(case: Case, kept: Kept | None) -> bool:
    """Whether the day refused what was planned only on a later one: what became of it then is no answer for this day."""
    return kept is not None and case.row.get("decision") == "refused" and kept.message.as_of > case.day


def sent(case: Case, kept: Kept | None) -> Step:
    """Whether it was sent: the ledger's state now, how it came there, and by which run."""
    title = "Sent?"
    if kept is None:
        if not case.reached:
            text = f"no: the trigger has not made the step due as of {case.day}"
        elif case.row["decision"] == "planned":
            text = (
                "planned, but the ledger does not know it: nothing was sent for that day, or the day was computed again"
            )
        else:
            text = f"no: it was refused by the rule `{case.reason}`"
        planned = case.reached and case.row["decision"] == "planned"
        return Step("outcome", title, "unknown" if planned else "no", text)
    message, facts = kept.message, kept.facts
    text = STATES[message.state] + (f" by {message.via}" if message.via else "")
    if facts["settled_at"]:
        text += _when(case, facts["settled_at"], ", {}")
    if message.reason:
        text += (
            f": {held(message.reason)}" if message.state == "suppressed" else f" ({without_addresses(message.reason)})"
        )
    parts = [
        Part(f"message {message.id}: {':'.join(message.key)}"),
        Part(f"{message.channel}, in {message.language}, template {message.template}, topic {message.topic}"),
    ]
    if facts["run_id"]:
        parts.append(Part(f"planned by run {facts['run_id']}"))
    if case.of_ledger:
        carts = "decided when it was due, and the day's audience is computed afterwards"
        other = "the day's audience does not have it: it was computed again since"
        parts.append(
            Part(carts if case.campaign.is_realtime else other, "fact" if case.campaign.is_realtime else "unknown")
        )
    if of_later(case, kept):
        text = f"not as of {case.day}: refused by the rule `{case.reason}`. Planned as of {_its_day(case, kept)}, it {text}"
    elif not _is_of(case, message.as_of):
        parts.append(Part(f"in the ledger it is of {_its_day(case, kept)}", "unknown"))
    parts += [
        Part(
            f"{_when(case, change.at, '{}: ')}{change.before or 'new'} → {change.after}",
            aside=without_addresses(change.why or ""),
        )
        for change in kept.changes
    ]
    parts += [Part(f"{_when(case, at, '{}: ')}{kind}", aside="the provider's event") for kind, at in kept.events]
    mark = "no" if of_later(case, kept) else _MARKS.get(message.state, "no")
    return Step("outcome", title, mark, f"{text}, as the ledger has it now", tuple(parts))


def held(reason: str) -> str:
    """Why the outbox held a message back, in words."""
    if reason.startswith("suppressed_"):
        return f"the address is suppressed: {reason.removeprefix('suppressed_')}"
    return _HELD.get(reason, without_addresses(reason))


def without_addresses(text: str) -> str:
    """A provider's words without what looks like an address or a phone number."""
    return _ADDRESS.sub("[address]", text)


_ADDRESS = re.compile(r"[^\s<>\"',;:()]+@[^\s<>\"',;:()]+|\+?\d[\d ()/-]{7,}\d")


def outbox(case: Case, kept: Kept | None, now: Now, verdict: Verdict | None, window: Window | None) -> Step:
    """What stands between the plan and the channel: the send gate, switches, suppressed addresses."""
    parts = []
    if verdict is not None:
        for found in verdict.findings:
            overruled = verdict.overruled.get(found.part)
            aside = f"overruled {overruled}" if overruled else ""
            parts.append(
                Part(f"send gate, {found.part}: {found.text}", "yes" if found.passed or overruled else "no", aside)
            )
    if window is not None:
        parts.append(
            Part(f"its window is {'open' if window.open else 'closed'}: {window.why}", "yes" if window.open else "no")
        )
    parts.append(Part(now.stopped or "nothing is paused or stopped now", "no" if now.stopped else "yes"))
    suppressed = f"the address is suppressed: {now.suppressed}" if now.suppressed else "the address is not suppressed"
    parts.append(Part(suppressed, "no" if now.suppressed else "yes"))
    for topic, choice in sorted(now.choices.items()):
        of = "all topics" if topic == "*" else f"topic {topic}"
        parts.append(Part(f"chose {choice} for {of} on {case.step.channel}", "no" if choice == "opted_out" else "fact"))
    if case.step.offer:
        days = case.known.settings.offer_cap_days
        each = tuple(
            Part(f"{'' if case.known.tells_birthday(of) else f'{_shown(at)}: '}{of}, {kind.replace('_', ' ')}")
            for of, kind, at in now.granted
        )
        many = counted(len(each), "other offer") if each else "no other offer"
        parts.append(Part(f"{many} granted in the {days} days before it was planned", parts=each))
    if kept and kept.message.state == "suppressed":
        text, mark = f"held it back: {held(str(kept.message.reason))}", "no"
    elif verdict is not None and verdict.stops:
        text, mark = f"the gate holds {case.campaign.name} of {case.day}", "no"
    elif window is not None and not window.open:
        text, mark = f"messages of {case.day} do not leave any more", "no"
    else:
        text, mark = "nothing holds it", "yes"
        if any(part.mark == "no" for part in parts):
            text, mark = "a message would not leave now", "no"
    return Step("outbox", "Outbox", mark, f"{text}; asked now, not that day", tuple(parts))  # type: ignore[arg-type]


def examine(connection: sa.Connection, case: Case) -> Verdict | None:
    """The gate's verdict on the campaign's day; ``None`` where it cannot be asked."""
    if not case.known.lake.has(audience(case.campaign.name), case.day):
        return None
    try:
        return gate.examine(connection, case.known.lake, case.known.settings, case.campaign, case.day)
    except MissingPartition:
        return None


def headline(case: Case, kept: Kept) -> str:
    """What became of a planned message, in a sentence."""
    message = kept.message
    if of_later(case, kept):
        refused = REASONS.get(str(case.reason), "").removeprefix("exit: ")
        return f"Not sent as of {case.day}: {refused}. Planned as of {_its_day(case, kept)}, it {STATES[message.state]}"
    if message.state == "suppressed":
        return f"Planned, and held back by the outbox: {held(str(message.reason))}"
    if message.state == "sent":
        when = _when(case, kept.facts["settled_at"], ", {}")
        return f"Sent by {message.via}{when}: the step was due and nothing spoke against it"
    return f"Planned; it {STATES[message.state]}"


def _is_of(case: Case, as_of: date) -> bool:
    """Whether a message of ``as_of`` is the one of the day: a cart's leaves on the day by what is known of the one before."""
    return as_of == case.day or (case.campaign.is_realtime and as_of == case.day - timedelta(days=1))


def _its_day(case: Case, kept: Kept) -> str:
    """The day that a message is of; where it would tell the birthday, that it is another one."""
    return "another day" if case.campaign.tells_birthdays else str(kept.message.as_of)


def _when(case: Case, at: datetime, form: str) -> str:
    """The time of something that happened to a message; nothing where it would tell the birthday."""
    return "" if case.campaign.tells_birthdays else form.format(_shown(at))


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
