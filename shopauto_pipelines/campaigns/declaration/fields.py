"""What the parts of a campaign's declaration have in common: the base of their models, and the types of their fields."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _of_form(pattern: str, form: str) -> AfterValidator:
    """Refuses a text that is not of the form; an error says in words what the form is."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {form}")
        return text

    return AfterValidator(check)


def _hour(value: Any) -> Any:
    if value == "best" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 23):
        return value
    raise ValueError(f"{value!r} is not an hour: write 0 to 23, or best")


_NAME = r"[a-z][a-z0-9_]{0,62}"

#: Name of a campaign, a step, a variant or a topic.
Name = Annotated[str, _of_form(_NAME, "a name in snake_case, such as spring_sale")]

#: A segment, or one of its values: ``fans_of:camping``.
Segment = Annotated[str, _of_form(f"{_NAME}(:.+)?", "the name of a segment, such as lapsed or fans_of:camping")]

#: A language tag, e.g. ``pt-BR``.
Language = Annotated[
    str, _of_form(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?", "a language tag, such as en, pt-BR or sr-Latn")
]

#: A text that says something.
Text = Annotated[str, _of_form(r"(?s).*\S.*", "a text: it is empty")]

#: Name of a template, without its endings.
Template = Annotated[str, _of_form(r"[\w-]+", "the name of a template: leave its endings out")]

#: Who answers for a campaign.
Owner = Annotated[str, _of_form(r"team:[\w-]+|[^@\s]+@[^@\s]+", "team:<name> or an e-mail address")]

#: An hour of the day in the reader's time zone, or the hour at which the person reads.
Hour = Annotated[Annotated[int, Field(ge=0, le=23)] | Literal["best"], BeforeValidator(_hour)]


class Declared(BaseModel):
    """A part of a declaration: what it does not know is refused, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
