"""What a campaign declares, and the loader that refuses a wrong one with file and line.

A campaign that does not say which message, to whom and when does not load. Deciding who gets it is the planner's work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from shopauto_pipelines.campaigns.content import FALLBACK_LANGUAGE, ContentError, check_step, match_language
from shopauto_pipelines.campaigns.offers import ONSITE
from shopauto_pipelines.platform.playbook import PLAYBOOK, Declaration, PlaybookError, declarations, once_per_change
from shopauto_pipelines.segments.declaration import SegmentDeclaration, check_name, load_segments

#: In ``audience: {include: [everyone]}``: every person the shop knows.
EVERYONE = "everyone"

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_Segment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}(:.+)?$")]
_Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$")]
_Text = Annotated[str, Field(min_length=1)]

_MISSING = {
    "steps": "does not say which message: declare `steps`",
    "trigger": "does not say when: declare a `trigger` (signed_up, segment_entered, broadcast or cart_abandoned)",
    "template": "does not say which message: name the `template`",
    "subject": "does not say which message: give it a `subject`",
    "wait": "does not say when: give `wait_days`, the days after the trigger (0 is the same day), or, for carts, `wait_hours`",
}


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignedUp(_Declared):
    """Triggered by the first account, or by the first order where the shop knows no account."""


class CartAbandoned(_Declared):
    """Triggered by a cart to which nothing has happened for a step's wait, and that no order took."""


class Broadcast(_Declared):
    """Sent to the whole audience: once, ``on`` a day, or ``monthly`` on a day of the month or on the ``last`` one."""

    on: date | None = Field(None, description="The day, e.g. 2026-06-30.")
    monthly: Annotated[int, Field(ge=1, le=28)] | Literal["last"] | None = Field(
        None, description="Day of every month, 1 to 28, or `last`."
    )

    @model_validator(mode="after")
    def _one_schedule(self) -> Broadcast:
        if (self.on is None) == (self.monthly is None):
            raise ValueError("a broadcast says when by exactly one of `on` and `monthly`")
        return self

    def days(self, start: date, end: date) -> list[date]:
        """The days of the broadcast from ``start`` to ``end``, both included."""
        every = (start + timedelta(days=n) for n in range((end - start).days + 1))
        if self.on is not None:
            return [day for day in every if day == self.on]
        if self.monthly == "last":
            return [day for day in every if (day + timedelta(days=1)).day == 1]
        return [day for day in every if day.day == self.monthly]


class Trigger(_Declared):
    """What starts the campaign for a person: exactly one of the four."""

    signed_up: SignedUp | None = Field(None, description="The person became known to the shop.")
    segment_entered: _Segment | None = Field(None, description="The person entered this segment.")
    broadcast: Broadcast | None = Field(None, description="A day for the whole audience.")
    cart_abandoned: CartAbandoned | None = Field(
        None, description="The person left a cart. Decided within seconds, by the hour, not once a day."
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: {} if v is None and k in ("signed_up", "cart_abandoned") else v for k, v in value.items()}

    @model_validator(mode="after")
    def _exactly_one(self) -> Trigger:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("declare exactly one of signed_up, segment_entered, broadcast and cart_abandoned")
        return self

    def __str__(self) -> str:
        """The trigger in a word, e.g. ``segment_entered:lapsed``."""
        (kind,) = self.model_dump(exclude_none=True)
        return f"{kind}:{self.segment_entered}" if self.segment_entered else str(kind)


class Audience(_Declared):
    """To whom, beyond the trigger: members of any included segment and of no excluded one."""

    include: tuple[_Segment, ...] = Field(
        (EVERYONE,), description="Segments; a person in any of them belongs. `everyone`: all."
    )
    exclude: tuple[_Segment, ...] = Field((), description="Segments; a person in any of them does not belong.")

    @property
    def included(self) -> tuple[str, ...] | None:
        """Segments to be in; ``None`` where everyone belongs."""
        return None if EVERYONE in self.include else self.include


class Incentive(_Declared):
    """An offer that may come with a step: which one follows from the person's churn factor and the cart's margin."""

    valid_days: int = Field(7, ge=1, le=90, description="Days for which the code holds, from when it is granted.")


class Step(_Declared):
    """One message of the campaign: which, and how long after the trigger."""

    name: _Name = Field(description="Name of the step, unique in the campaign.")
    wait_days: int | None = Field(
        None, ge=0, le=365, description="Days after the trigger that the step is due; 0 is the same day."
    )
    wait_hours: float | None = Field(
        None,
        ge=0,
        le=720,
        description="Hours without any sign of life in the cart that the step is due after; 0: as soon as the cart counts "
        "as abandoned (`cart_abandoned_minutes`). It is never due before.",
    )
    offer: Incentive | None = Field(None, description="An incentive that the step may bring; steps after a cart only.")
    channel: Literal["email", "sms"] = Field("email", description="Channel the message takes.")
    template: str = Field(
        pattern=r"^[\w-]+$",
        description="Name of the template: `<template>.mjml.j2` and `<template>.txt.j2`; `<template>.sms.j2` for an SMS.",
    )
    subject: dict[_Language, _Text] = Field(
        default_factory=dict, description="Subject of an e-mail: a text, or one per language."
    )
    languages: tuple[_Language, ...] = Field(
        (), description="Languages of an SMS; an e-mail is written in those of its subject."
    )

    @model_validator(mode="before")
    @classmethod
    def _languages(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("wait_days") is None and value.get("wait_hours") is None:
            raise ValueError(_MISSING["wait"])
        step = {**value, "offer": {}} if value.get("offer", 0) is None else dict(value)
        if isinstance(step.get("subject"), str):
            step["subject"] = {FALLBACK_LANGUAGE: step["subject"]}
        if step.get("channel") == "sms":
            if step.get("subject"):
                raise ValueError("an SMS has no subject: name its `languages`")
            return {"languages": (FALLBACK_LANGUAGE,), **step}
        if not step.get("subject") and step.get("channel", "email") == "email":
            raise ValueError(_MISSING["subject"])
        return {**step, "languages": tuple(step["subject"])} if isinstance(step.get("subject"), dict) else step


class Wait(NamedTuple):
    """When a step is due: from ``after`` its trigger on, for ``valid``."""

    after: timedelta
    valid: timedelta


class Campaign(_Declared):
    """One campaign of the playbook."""

    name: _Name = Field(description="Name of the campaign; its table is `campaigns/<name>/audience`.")
    description: str = Field(min_length=1, description="What the campaign is, in a sentence.")
    goal: str = Field(min_length=1, description="What it is for, in a sentence that can turn out wrong.")
    owner: str = Field(
        pattern=r"^(team:[\w-]+|[^@\s]+@[^@\s]+)$",
        description="Who answers for it: `team:<name>` or an e-mail address.",
    )
    topic: _Name = Field("news", description="What it is about: on the preference page people choose by topic.")
    priority: int = Field(0, ge=0, le=1000, description="Under the frequency cap the higher one is sent first.")
    trigger: Trigger = Field(description="When, and for whom.")
    audience: Audience | None = Field(None, description="To whom, beyond the trigger; a broadcast must say it.")
    steps: tuple[Step, ...] = Field(min_length=1, description="The messages, in order.")
    exit_on: tuple[Literal["ordered", "left_segment", "unsubscribed", "cart_emptied", "ticket_opened"], ...] = Field(
        (),
        description="What ends the journey after its trigger. The planner asks what the lake knows, the outbox, for each "
        "message, what has happened since. A ticket only the outbox knows of, but for carts.",
    )
    holdout_percent: float = Field(
        0.0, ge=0, le=90, description="Share of people who do not get this campaign, percent."
    )
    valid_days: int = Field(
        3, ge=1, le=30, description="Days, from the day a step is due, that it may still be planned."
    )
    valid_hours: float = Field(
        12, gt=0, le=168, description="With `wait_hours`: hours, from when a step is due, that it may still be sent."
    )

    _folder: Path = PrivateAttr()

    @model_validator(mode="after")
    def _complete(self) -> Campaign:
        if self.trigger.broadcast and not self.audience:
            raise ValueError("does not say to whom: a broadcast declares its `audience`, e.g. {include: [everyone]}")
        if "left_segment" in self.exit_on and not self.trigger.segment_entered:
            raise ValueError("`exit_on: left_segment` needs the trigger `segment_entered`")
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError("two steps have the same name")
        self._check_waits()
        if "cart_emptied" in self.exit_on and not self.is_realtime:
            raise ValueError("`exit_on: cart_emptied` needs the trigger `cart_abandoned`")
        return self

    def _check_waits(self) -> None:
        unit, other = ("wait_hours", "wait_days") if self.is_realtime else ("wait_days", "wait_hours")
        for step in self.steps:
            if getattr(step, unit) is None or getattr(step, other) is not None:
                raise ValueError(f"step {step.name} says when by `{unit}`, as the trigger is `{self.trigger}`")
            if step.offer and not self.is_realtime:
                raise ValueError(f"step {step.name} has an `offer`, which needs the trigger `cart_abandoned`")
        waits = [step.wait_hours or 0 for step in self.steps]
        if self.is_realtime and any(earlier >= later for earlier, later in pairwise(waits)):
            raise ValueError("each step waits longer than the one before it: look at `wait_hours`")

    @property
    def folder(self) -> Path:
        """Folder of the declaration: its templates and texts stand there."""
        return self._folder

    @property
    def included(self) -> tuple[str, ...] | None:
        """Segments of which a person must be in one; ``None``: everyone belongs."""
        return self.audience.included if self.audience else None

    @property
    def excluded(self) -> tuple[str, ...]:
        """Segments that a person must not be in."""
        return self.audience.exclude if self.audience else ()

    @property
    def segments(self) -> tuple[str, ...]:
        """Every segment the campaign rests on, in alphabetical order."""
        trigger = (self.trigger.segment_entered,) if self.trigger.segment_entered else ()
        return tuple(sorted({*trigger, *(self.included or ()), *self.excluded}))

    @property
    def is_realtime(self) -> bool:
        """Whether steps follow their trigger by the hour: sent by the cart job, not by the daily refresh."""
        return self.trigger.cart_abandoned is not None

    def waits(self, threshold: timedelta) -> dict[str, Wait]:
        """When each step of a cart is due, where a cart counts as abandoned after ``threshold``.

        No step is due before its cart counts as abandoned, nor any more once it is the next one's turn.
        """
        after = [max(timedelta(hours=step.wait_hours or 0), threshold) for step in self.steps]
        turns = [later - earlier for earlier, later in pairwise(after)]
        valid = [min(timedelta(hours=self.valid_hours), turn) for turn in (*turns, timedelta.max)]
        return {step.name: Wait(a, v) for step, a, v in zip(self.steps, after, valid, strict=True)}

    @property
    def lookback_days(self) -> int:
        """How many days after its trigger a person may still be due a step."""
        if self.is_realtime:
            return ceil(max(step.wait_hours or 0 for step in self.steps) / 24) + 1
        return max(step.wait_days or 0 for step in self.steps) + self.valid_days

    def step(self, name: str) -> Step:
        """The step ``name``; raises ``KeyError``."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"campaign {self.name} has no step {name!r}")

    def language(self, step: str, wanted: str | None, default: str = FALLBACK_LANGUAGE) -> str:
        """The language to write ``step`` in to a person who reads ``wanted``."""
        return match_language(wanted, self.step(step).languages, default)


@once_per_change
def load_campaigns(folder: Path = PLAYBOOK) -> dict[str, Campaign]:
    """Every campaign under ``folder`` by name, those that are planned first in front.

    Raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError`, ``file:line: what is wrong``, for a declaration that
    is not valid, names a segment that does not exist, or has a template that cannot be sent.
    """
    segments = load_segments(folder)
    loaded: dict[str, Campaign] = {}
    for declaration in declarations("Campaign", folder):
        campaign = _load(declaration, segments)
        if campaign.name == ONSITE:
            raise declaration.error(f"{ONSITE!r} is the on-site offer: choose another name", "name")
        if campaign.name in loaded:
            raise declaration.error(f"there is another campaign {campaign.name!r}", "name")
        loaded[campaign.name] = campaign
    return dict(sorted(loaded.items(), key=lambda item: (-item[1].priority, item[0])))


def planned_before(campaign: str, campaigns: Mapping[str, Campaign]) -> list[str]:
    """Names of the campaigns that are planned before ``campaign`` on the same day.

    One that sends by the hour is planned on no day: what it has sent counts towards the cap as sent.
    """
    if campaigns[campaign].is_realtime:
        return []
    names = [name for name, other in campaigns.items() if not other.is_realtime]
    return names[: names.index(campaign)]


def _load(declaration: Declaration, segments: Sequence[SegmentDeclaration]) -> Campaign:
    try:
        campaign = Campaign.model_validate(declaration.attributes)
    except ValidationError as error:
        raise _worded(declaration, error) from None
    campaign._folder = declaration.folder
    for segment, path in _segments_with_lines(campaign):
        try:
            check_name(segment, segments)
        except ValueError as error:
            raise declaration.error(str(error), *path) from None
    for index, step in enumerate(campaign.steps):
        try:
            check_step(campaign.folder, step)
        except ContentError as error:
            raise declaration.error(str(error), "steps", index, *error.attribute) from None
    return campaign


def _segments_with_lines(campaign: Campaign) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    if campaign.trigger.segment_entered:
        yield campaign.trigger.segment_entered, ("trigger", "segment_entered")
    if campaign.audience:
        for side in ("include", "exclude"):
            for index, segment in enumerate(getattr(campaign.audience, side)):
                if (side, segment) != ("include", EVERYONE):
                    yield segment, ("audience", side, index)


def _worded(declaration: Declaration, error: ValidationError) -> PlaybookError:
    """The first mistake in words, with its line."""
    mistake = error.errors()[0]
    path = mistake["loc"]
    where = ".".join(str(part) for part in path)
    if mistake["type"] == "missing":
        message = _MISSING.get(str(path[-1]), f"`{where}` is missing")
        return declaration.error(f"campaign {declaration.attributes.get('name', '')!r} {message}", *path)
    if mistake["type"] == "extra_forbidden":
        return declaration.error(f"`{where}` is not known here", *path)
    return declaration.error(": ".join(filter(None, (where, mistake["msg"].removeprefix("Value error, ")))), *path)
