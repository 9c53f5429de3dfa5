"""One campaign of the playbook as declared: trigger, audience, steps, and the rules for all of them."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, model_validator

from shopauto_pipelines.campaigns.content import FALLBACK_LANGUAGE, match_language
from shopauto_pipelines.campaigns.declaration.experiment import Experiment
from shopauto_pipelines.campaigns.declaration.fields import Declared, Name, Owner, Segment, Text
from shopauto_pipelines.campaigns.declaration.step import Incentive, Step, Wait
from shopauto_pipelines.campaigns.declaration.trigger import OCCASION_DAYS, Trigger
from shopauto_pipelines.features.customer_features import TICKET_DAYS
from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.segments.declaration import Misplaced

#: In ``audience: {include: [everyone]}``: every person the shop knows.
EVERYONE = "everyone"


class Audience(Declared):
    """To whom, beyond the trigger: members of any included segment and of no excluded one."""

    include: tuple[Segment, ...] = Field(
        (EVERYONE,), min_length=1, description="Segments; a person in any of them belongs. `everyone`: all."
    )
    exclude: tuple[Segment, ...] = Field((), description="Segments; a person in any of them does not belong.")

    @property
    def included(self) -> tuple[str, ...] | None:
        """Segments to be in; ``None`` where everyone belongs."""
        return None if EVERYONE in self.include else self.include


class Campaign(Declared):
    """One campaign of the playbook."""

    name: Name = Field(description="Name of the campaign; its table is `campaigns/<name>/audience`.")
    description: Text = Field(description="What the campaign is, in a sentence.")
    goal: Text = Field(description="What it is for, in a sentence that can turn out wrong.")
    owner: Owner = Field(description="Who answers for it: `team:<name>` or an e-mail address.")
    enabled: bool = Field(True, description="false: checked and shown like any other, but it reaches nobody.")
    kind: Literal["marketing", "transactional"] = Field(
        "marketing", description="`marketing`: all rules hold. `transactional`: about something the person did."
    )
    topic: Name = Field("news", description="What it is about: on the preference page people choose by topic.")
    priority: int = Field(0, ge=0, le=1000, description="Under the frequency cap the higher one is sent first.")
    trigger: Trigger = Field(description="When, and for whom.")
    audience: Audience | None = Field(None, description="To whom, beyond the trigger; a broadcast must say it.")
    steps: tuple[Step, ...] = Field(min_length=1, description="The messages, in order.")
    exit_on: tuple[Literal["ordered", "left_segment", "unsubscribed", "cart_emptied", "ticket_opened"], ...] = Field(
        (),
        description="What ends the journey after its trigger. The planner asks what the lake knows, the outbox, for each "
        "message, what has happened since.",
    )
    pause_while_ticket_open: bool | None = Field(
        None,
        description=f"Whether nothing is sent while the person waits for an answer of the shop's support, at most "
        f"{TICKET_DAYS} days [true for marketing].",
    )
    sunset_days: int | None = Field(
        None,
        ge=1,
        le=3650,
        description="So many days after their last sign of life (order, click, visit, sign-up) people are left alone by this "
        "campaign; none: never.",
    )
    again_after_days: int | None = Field(
        None,
        ge=1,
        le=3650,
        description="So many days after a step the person does not get it again, though they are triggered anew, as who "
        "leaves a segment and comes back; none: every occasion counts. Steps of `signed_up` come once.",
    )
    experiment: Experiment | None = Field(None, description="An A/B test in one of the steps.")
    holdout_percent: float = Field(
        0.0,
        ge=0,
        le=90,
        description="Share of people who do not get this campaign, percent; a transactional one holds nobody out.",
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
            raise Misplaced("does not say to whom: a broadcast declares its `audience`, e.g. {include: [everyone]}")
        for needs, exit_ in (("segment_entered", "left_segment"), ("cart_abandoned", "cart_emptied")):
            if exit_ in self.exit_on and self.trigger.kind != needs:
                raise Misplaced(f"`exit_on: {exit_}` needs the trigger `{needs}`", "exit_on", self.exit_on.index(exit_))
        names = [step.name for step in self.steps]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise Misplaced(f"two steps have the same name, `{name}`", "steps", place, "name")
        self._check_waits()
        if self.is_realtime:
            self._check_by_the_hour()
        if self.experiment:
            self._check_experiment(self.experiment)
        return self

    def _check_waits(self) -> None:
        unit, other = ("wait_hours", "wait_days") if self.is_realtime else ("wait_days", "wait_hours")
        for place, step in enumerate(self.steps):
            if getattr(step, unit) is None or getattr(step, other) is not None:
                says = f"step `{step.name}` says when by `{unit}`, as the trigger is `{self.trigger}`"
                raise Misplaced(says, "steps", place, other)
        for place, (earlier, later) in enumerate(pairwise(step.wait_hours or 0 for step in self.steps), start=1):
            if self.is_realtime and earlier >= later:
                raise Misplaced("each step waits longer than the one before it", "steps", place, "wait_hours")

    def _check_by_the_hour(self) -> None:
        """What is decided within seconds knows less, and waits for nothing."""
        instead = {
            "when": "use `audience`",
            "hour": "it leaves when it is due",
            "products": "it shows the cart",
        }
        for place, step in enumerate(self.steps):
            for name, does in instead.items():
                if getattr(step, name) != Step.model_fields[name].default:
                    says = f"step `{step.name}` has `{name}`; with the trigger `cart_abandoned` {does}"
                    raise Misplaced(says, "steps", place, name)
            if step.offer and step.offer.kind:
                says = "which offer a cart brings follows from the churn factor: leave `kind` out"
                raise Misplaced(says, "steps", place, "offer", "kind")
        for name in ("sunset_days", "again_after_days", "experiment"):
            if getattr(self, name):
                raise Misplaced(f"`{name}` is for campaigns by the day, not for the trigger `cart_abandoned`", name)

    def _check_experiment(self, experiment: Experiment) -> None:
        names = [step.name for step in self.steps]
        if experiment.step not in names:
            says = f"there is no step `{experiment.step}`; {nearest(experiment.step, names)}"
            raise Misplaced(says, "experiment", "step")
        step = self.step(experiment.step)
        for name, variant in experiment.variants.items():
            if variant.subject is None:
                continue
            where = ("experiment", "variants", name, "subject")
            if step.channel == "sms":
                raise Misplaced(f"step `{step.name}` is an SMS, which has no subject", *where)
            if set(variant.subject) != set(step.subject):
                said, written = (", ".join(sorted(of)) for of in (variant.subject, step.subject))
                raise Misplaced(f"is in {said}, but step `{step.name}` is written in {written}", *where)

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

    @property
    def tells_birthdays(self) -> bool:
        """Whether the day of a message tells the person's birthday."""
        return self.trigger.birthday is not None

    @property
    def pauses(self) -> bool:
        """Whether people who wait for an answer of the shop's support are left alone."""
        said = self.pause_while_ticket_open
        return self.kind == "marketing" if said is None else said

    @property
    def held_out_percent(self) -> float:
        """The share of people who are held out: nobody, where they have asked for it."""
        return self.holdout_percent if self.kind == "marketing" else 0.0

    @property
    def brings_offers(self) -> bool:
        """Whether any step, or a variant of it, may bring an offer."""
        variants = self.experiment.variants.values() if self.experiment else ()
        return any(step.offer for step in self.steps) or any(isinstance(v.offer, Incentive) for v in variants)

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

    @property
    def once(self) -> bool:
        """Whether a person gets each step once, whatever the occasion: one becomes known once, though the day may move."""
        return self.trigger.signed_up is not None

    @property
    def again_days(self) -> int | None:
        """For how many days who had a step does not get it again."""
        return max(self.again_after_days or 0, OCCASION_DAYS) if self.once else self.again_after_days

    @property
    def history_days(self) -> int:
        """How many days back what the campaign sent decides of what it sends: an occasion may come up again much later."""
        return max(self.lookback_days, self.again_days or 0, self.trigger.occasion_days)

    def step(self, name: str, variant: str | None = None) -> Step:
        """The step ``name``, as the experiment's ``variant`` has it; raises ``KeyError``."""
        for step in self.steps:
            if step.name == name:
                of_it = self.experiment and self.experiment.step == name and variant
                return self.experiment.variants[variant].of(step) if self.experiment and variant and of_it else step
        raise KeyError(f"campaign {self.name} has no step {name!r}")

    def found(self, name: str, variant: str | None = None) -> Step | None:
        """:meth:`step` of what was planned; ``None`` where the step, or its variant, has been taken out since."""
        try:
            return self.step(name, variant)
        except KeyError:
            return None

    def language(self, step: str, wanted: str | None, default: str = FALLBACK_LANGUAGE) -> str:
        """The language to write ``step`` in to a person who reads ``wanted``."""
        return match_language(wanted, self.step(step).languages, default)
