"""The messages of a campaign: which, how long after the trigger, on what condition, with what offer, at what hour."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from shopauto_pipelines.campaigns.content import FALLBACK_LANGUAGE
from shopauto_pipelines.campaigns.declaration.fields import Declared, Hour, Language, Name, Template, Text
from shopauto_pipelines.segments.people import COLUMNS
from shopauto_pipelines.segments.predicate import Predicate, parse

#: What a step that leaves out what it must say is told.
MISSING = {
    "template": "does not say which message: name the `template`",
    "subject": "does not say which message: give it a `subject`",
    "wait": "does not say when: give `wait_days`, the days after the trigger (0 is the same day), or, for carts, `wait_hours`",
}

#: What the product block of a message may show.
Products = Literal["best_sellers", "recommended", "complements", "replenishment", "new"]


class Incentive(Declared):
    """An offer that may come with a step: which one follows from the person's churn factor and from the margin."""

    valid_days: int = Field(
        7,
        ge=1,
        le=90,
        description="Days for which the code holds, from when it is granted, and to the end of the last.",
    )
    kind: Literal["free_shipping"] | None = Field(
        None,
        description="`free_shipping`: this and no other, whatever the churn factor, for people without an order too. "
        "Not in campaigns about carts.",
    )


class Wait(NamedTuple):
    """When a step is due: from ``after`` its trigger on, for ``valid``; and for how long it may be sent, where that is less."""

    after: timedelta
    valid: timedelta
    sent_within: timedelta | None = None


class Step(Declared):
    """One message of the campaign: which, and how long after the trigger."""

    name: Name = Field(description="Name of the step, unique in the campaign.")
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
    when: str | None = Field(
        None,
        description="A condition as of the day the step is due, in the language of segments, over the same columns: "
        "whoever does not meet it does not get the step.",
    )
    offer: Incentive | None = Field(None, description="An incentive that the step may bring.")
    products: Products = Field("best_sellers", description="What the message's block of products shows.")
    hour: Hour = Field(
        "best",
        description="When it leaves, in the person's time zone: an hour, or `best`, the hour the person reads at. Never in "
        "quiet hours.",
    )
    channel: Literal["email", "sms"] = Field("email", description="Channel the message takes.")
    template: Template = Field(
        description="Name of the template: `<template>.mjml.j2` and `<template>.txt.j2`; `<template>.sms.j2` for an SMS.",
    )
    subject: dict[Language, Text] = Field(
        default_factory=dict, description="Subject of an e-mail: a text, or one per language."
    )
    languages: tuple[Language, ...] = Field(
        (), description="Languages of an SMS; an e-mail is written in those of its subject."
    )

    @model_validator(mode="before")
    @classmethod
    def _languages(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("wait_days") is None and value.get("wait_hours") is None:
            raise ValueError(MISSING["wait"])
        step = {**value, "offer": {}} if value.get("offer", 0) is None else dict(value)
        if isinstance(step.get("subject"), str):
            step["subject"] = {FALLBACK_LANGUAGE: step["subject"]}
        if step.get("channel") == "sms":
            if step.get("subject"):
                raise ValueError("an SMS has no subject: name its `languages`")
            return {"languages": (FALLBACK_LANGUAGE,), **step}
        if not step.get("subject") and step.get("channel", "email") == "email":
            raise ValueError(MISSING["subject"])
        return {**step, "languages": tuple(step["subject"])} if isinstance(step.get("subject"), dict) else step

    @field_validator("when")
    @classmethod
    def _valid_condition(cls, when: str | None) -> str | None:
        if when is not None:
            parse(when, COLUMNS)
        return when

    @property
    def condition(self) -> Predicate | None:
        """The checked condition; ``None`` where there is none."""
        return parse(self.when, COLUMNS) if self.when else None
