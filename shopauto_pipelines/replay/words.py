"""The result of a replay in words and figures: what the table in the terminal and the page have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from typing import NamedTuple

from shopauto_pipelines.campaigns.offers import PERCENT, Tier
from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.replay.result import FEW, Aftermath, Outcome, Overlap, Replay

#: Up to so many days each has a line of its own; beyond, each week.
_DAYS = 14

#: Said in place of names where the day of a message is the day of a birthday, or so many days before.
UNNAMED = "The messages are not listed: their days would tell birthdays."

#: Said of what people did.
ANYWAY = (
    "The replay sent nothing, so this is what happened anyway: it says whom the campaign reaches and what they are worth. "
    "It is no effect of the messages."
)


class Figure(NamedTuple):
    """A line: what it is, its figure in each version, how much the second has more (where they can be compared), its level."""

    label: str
    values: tuple[str, ...]
    more: str = ""
    level: int = 0


class Period(NamedTuple):
    """A day or a week, and the messages of each version planned in it."""

    label: str
    messages: tuple[int, ...]


def figures(replay: Replay) -> Iterator[Figure]:
    """The figures in order: messages, people, caps, who is left out and why, overlaps, costs."""

    def count(label: str, of: Callable[[Outcome], int], level: int = 0) -> Figure:
        numbers = [of(outcome) for outcome in replay.outcomes]
        return Figure(label, tuple(f"{one:,}" for one in numbers), _more(numbers, "{:+,}"), level)

    def money(label: str, cents: Callable[[Outcome], int], level: int = 0) -> Figure:
        sums = [cents(outcome) for outcome in replay.outcomes]
        more = _more([one / 100 for one in sums], "{:+,.2f}")
        return Figure(f"{label}, {replay.currency}", tuple(f"{one / 100:,.2f}" for one in sums), more, level)

    yield count("messages", lambda o: o.messages)
    for step in replay.steps:
        yield count(step, partial(_of_step, step), 1)
    yield count("people with a message", lambda o: o.people)
    yield count("messages that really went out then", lambda o: o.really_sent)
    yield count("messages that met a cap", lambda o: o.capped.met)
    yield count("and were planned on a later day", lambda o: o.capped.later, 1)
    yield count("messages that were due and not planned", lambda o: sum(one.messages for one in o.refusals))
    for reason in _reasons(replay):
        yield count(REASONS.get(reason, reason), partial(_refused, reason), 1)
    yield count("same day as another campaign's message", lambda o: _overlap(None, o).same_day)
    yield count(f"within {replay.cap_days} days of one", partial(_near, None))
    for other in _others(replay):
        yield count(other or "of no campaign", partial(_near, other), 1)
    if _priced(replay):
        yield money("cost of the messages", lambda o: o.message_cents or 0)
    if any(outcome.offers for outcome in replay.outcomes):
        yield count("offers granted", lambda o: sum(one.offers for one in o.offers))
        for tier in _tiers(replay):
            yield count(str(tier), partial(_granted, tier), 1)
        yield count("to people who ordered anyway meanwhile", lambda o: sum(one.ordered_anyway for one in o.offers), 1)
        if any(one.open for outcome in replay.outcomes for one in outcome.offers):
            label = f"not known yet: no order until {replay.known_until}, where the data ends, and they hold longer"
            yield count(label, lambda o: sum(one.open for one in o.offers), 1)
        yield money("cost of the offers, if all are used", lambda o: sum(one.at_most_cents for one in o.offers))
        yield money("given to those who ordered anyway", lambda o: sum(one.anyway_cents for one in o.offers), 1)


def _priced(replay: Replay) -> bool:
    """Whether it is set what a message costs."""
    return all(outcome.message_cents is not None for outcome in replay.outcomes)


def _more(numbers: Sequence[float], form: str) -> str:
    """How much more the second is; nothing where there is but one."""
    if len(numbers) < 2:
        return ""
    return form.format(numbers[1] - numbers[0]) if numbers[1] != numbers[0] else "="


def _of_step(step: str, outcome: Outcome) -> int:
    return sum(one.messages for one in outcome.steps if one.step == step)


def _refused(reason: str, outcome: Outcome) -> int:
    return outcome.refused(reason).messages


def _overlap(campaign: str | None, outcome: Outcome) -> Overlap:
    return next((one for one in outcome.overlaps if one.campaign == campaign), Overlap(campaign, 0, 0))


def _near(campaign: str | None, outcome: Outcome) -> int:
    return _overlap(campaign, outcome).within_cap_days


def _granted(tier: Tier, outcome: Outcome) -> int:
    return sum(one.offers for one in outcome.offers if (one.kind, one.percent) == tier)


def _reasons(replay: Replay) -> list[str]:
    """Reasons of messages that were never planned, in the planner's order."""
    found = {one.reason for outcome in replay.outcomes for one in outcome.refusals if one.messages}
    return [reason for reason in REASONS if reason in found] + sorted(found - set(REASONS))


def _others(replay: Replay, most: int = 6) -> list[str]:
    """The other campaigns that overlap most."""
    found: dict[str, int] = {}
    for outcome in replay.outcomes:
        for one in outcome.overlaps:
            if one.campaign is not None:
                found[one.campaign] = max(found.get(one.campaign, 0), one.within_cap_days)
    return sorted(found, key=lambda name: (-found[name], name))[:most]


def _tiers(replay: Replay) -> list[Tier]:
    """What is offered, the least in front."""
    found = {Tier(one.kind, one.percent) for outcome in replay.outcomes for one in outcome.offers}
    return sorted(found, key=lambda tier: (tier.kind == PERCENT, tier.percent or 0))


def periods(replay: Replay) -> list[Period]:
    """The days, or where there are many the weeks, each with its messages."""
    first, last = replay.days[0], replay.days[-1]
    length = 1 if (last - first).days < _DAYS else 7
    found = []
    for start in (first + timedelta(days=n) for n in range(0, (last - first).days + 1, length)):
        end = min(start + timedelta(days=length - 1), last)
        if length == 1 and start not in replay.days:
            continue
        numbers = tuple(_between(outcome, start, end) for outcome in replay.outcomes)
        found.append(Period(f"{start}" if length == 1 else f"{start} … {end:%m-%d}", numbers))
    return found


def _between(outcome: Outcome, start: date, end: date) -> int:
    return sum(one.messages for one in outcome.by_day if start <= one.day <= end)


def reach(replay: Replay, most: int = 12) -> list[tuple[str, int, tuple[int, ...], tuple[float, ...]]]:
    """Segments with the most people reached: name, members, and in each version people and share."""
    found: dict[str, list[int]] = {}
    members: dict[str, int] = {}
    for number, outcome in enumerate(replay.outcomes):
        for one in outcome.reach:
            found.setdefault(one.segment, [0] * len(replay.outcomes))[number] = one.people
            members[one.segment] = one.members
    order = sorted(found, key=lambda name: (-max(found[name]), name))[:most]
    return [(name, members[name], tuple(found[name]), tuple(n / members[name] for n in found[name])) for name in order]


class Group(NamedTuple):
    """A line about what people did: the version, after which message, planned or held out, and figures."""

    version: str
    after: str
    group: str
    number: str
    ordered: str
    orders: str
    revenue: str


def aftermath(replay: Replay) -> list[Group]:
    """What people did afterwards; beside those with messages those held out, where there are enough."""
    lines = []
    for outcome in replay.outcomes:
        for step in (None, *replay.steps):
            for one in sorted(outcome.aftermath, key=lambda one: one.group, reverse=True):
                if one.step == step and (one.group == "planned" or one.count >= FEW):
                    lines.append(_group(outcome.version, one))
    return lines


def _group(version: str, one: Aftermath) -> Group:
    after = "first message" if one.step is None else one.step
    group = "with a message" if one.group == "planned" else "held out"
    if not one.count:
        return Group(version, after, group, "0", "", "", "")
    each = one.revenue_cents / one.count / 100
    return Group(
        version, after, group, f"{one.count:,}", f"{one.ordered / one.count:.1%}", f"{one.orders:,}", f"{each:,.2f}"
    )


def notes_on_aftermath(replay: Replay) -> list[str]:
    """What has to be said beside it."""
    notes = [ANYWAY]
    if really := max(outcome.really_sent for outcome in replay.outcomes):
        notes.append(f"But {really:,} of the messages really went out then, by the campaign itself.")
    recent = max(sum(one.recent for one in outcome.aftermath if one.step is None) for outcome in replay.outcomes)
    if recent:
        who, whose = ("1 person is", "the") if recent == 1 else (f"{recent:,} people are", "their")
        days = counted(replay.within_days, "day")
        notes.append(
            f"{who} left out: {whose} {days} after the message go beyond {replay.known_until}, where the data ends."
        )
    groups = [[one for one in o.aftermath if one.group == "held" and one.step is None] for o in replay.outcomes]
    held = max(sum(one.count for one in group) for group in groups)
    if held < FEW:
        late = max(sum(one.recent for one in group) for group in groups)
        more = f"; the days of {late:,} more are not over" if late else ""
        notes.append(f"The held out are too few to say anything of them: {held}, and it takes {FEW}{more}.")
    return notes


def notes(replay: Replay) -> list[str]:
    """How the replay was made."""
    really = "Of other campaigns those messages count that really went out."
    planned = "All campaigns of the playbook are replayed, in the order of their priority."
    told = [f"Nothing was sent. {really if replay.others == 'as-sent' else planned}"]
    if not replay.enabled:
        told.append("The campaign is switched off (`enabled: false`), and is replayed as if it were on.")
    if replay.offers_unknown:
        told.append(
            "What a cart brings as an offer depends on what was in it at that minute: these offers are not counted."
        )
    if not _priced(replay):
        told.append("What the messages cost is left out, as no price is set (`SHOPAUTO_MESSAGE_PRICE`).")
    if replay.last_unknown:
        told.append(
            f"Messages of {replay.days[-1]} leave on the day after it, of which there is no data yet: none of them counts as "
            "really sent, neither of this campaign nor of others."
        )
    if replay.skipped:
        first, last, many = replay.skipped[0], replay.skipped[-1], len(replay.skipped)
        which = f"1 day, {first}, has" if many == 1 else f"{many:,} days from {first} to {last} have"
        told.append(f"{which} not been computed: nothing is decided there.")
    if replay.untold:
        days, last, how = replay.untold
        which, them = ("this day has", "it") if len(days) == 1 else ("these days have", "them")
        told.append(
            f"Whom {spans(days)} triggered is not known, as {which} not been computed: the steps after {them}, which may be due "
            f"up to {last}, are missing. To have all: {how}."
        )
    return told


def spans(days: Sequence[date]) -> str:
    """Days in words, those that follow each other as one: ``2026-06-01 to 2026-06-10, 2026-06-12``."""
    found: list[list[date]] = []
    for day in days:
        if found and (day - found[-1][-1]).days == 1:
            found[-1] = [found[-1][0], day]
        else:
            found.append([day])
    return ", ".join(" to ".join(str(day) for day in span) for span in found)


def counted(number: int, what: str) -> str:
    """How many there are: ``1 day``, ``1,200 days``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def instead(reason: str | None) -> str:
    """Why the other version does not plan a message."""
    if reason is None:
        return "not due there"
    return "planned on another day" if reason == "due" else REASONS.get(reason, reason)
