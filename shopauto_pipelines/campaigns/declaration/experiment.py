"""A/B tests as declared: what is compared with what, by which measure, on how many people, all said before it begins."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from shopauto_pipelines.campaigns.content import FALLBACK_LANGUAGE
from shopauto_pipelines.campaigns.declaration.fields import Declared, Hour, Language, Name, Template, Text
from shopauto_pipelines.campaigns.declaration.step import Incentive, Step
from shopauto_pipelines.segments.declaration import Misplaced

#: The variant that leaves the step as it is.
CONTROL = "control"


class Variant(Declared):
    """One of the things compared: the step with these of its attributes changed."""

    weight: int = Field(50, ge=1, le=1000, description="Share of the people, against the other variants' weights.")
    subject: dict[Language, Text] | None = Field(None, description="Another subject, in every language of the step.")
    template: Template | None = Field(None, description="Another template.")
    offer: Incentive | Literal["none"] | None = Field(None, description="Another offer; `none`: no offer.")
    hour: Hour | None = Field(None, description="Another hour.")

    @model_validator(mode="before")
    @classmethod
    def _one_language(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("subject"), str):
            return {**value, "subject": {FALLBACK_LANGUAGE: value["subject"]}}
        return value

    @property
    def changes(self) -> dict[str, Any]:
        """The step's attributes that it changes, with what they are instead."""
        names = ("subject", "template", "offer", "hour")
        return {name: said for name in names if (said := getattr(self, name)) is not None}

    def of(self, step: Step) -> Step:
        """The step as this variant has it."""
        changes = self.changes
        return step.model_copy(update=changes | ({"offer": None} if self.offer == "none" else {}))


class Experiment(Declared):
    """What is compared in a step: every person is given a variant once, and keeps it."""

    name: Name = Field(description="Name of the experiment; another name draws anew.")
    step: Name = Field(description="The step that differs.")
    variants: dict[Name, Variant] = Field(
        min_length=2, description="The variants: `control`, the step as it is, and one or more others."
    )
    metric: Literal["ordered", "clicked", "revenue"] = Field(
        "ordered", description="What decides: the share who order or click, or revenue per person, minor units."
    )
    within_days: int = Field(14, ge=1, le=90, description="Days after the step was due in which it counts.")
    sample_size: int = Field(ge=10, description="People of each variant after whom it is decided, not earlier.")

    @property
    def others(self) -> tuple[str, ...]:
        """The variants but for `control`."""
        return tuple(name for name in self.variants if name != CONTROL)

    @model_validator(mode="before")
    @classmethod
    def _empty_variants(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("variants"), dict):
            variants = {name: {} if said is None else said for name, said in value["variants"].items()}
            return {**value, "variants": variants}
        return value

    @model_validator(mode="after")
    def _comparable(self) -> Experiment:
        if CONTROL not in self.variants:
            raise ValueError("one of the `variants` is called `control`: the step as it is")
        for name, variant in self.variants.items():
            changed = variant.changes
            if name == CONTROL and changed:
                says = "`control` is the step as it is: it changes nothing but its weight"
                raise Misplaced(says, "variants", CONTROL, next(iter(changed)))
            if name != CONTROL and not changed:
                raise Misplaced("changes nothing: give it a subject, template, offer or hour", "variants", name)
        return self
