"""When a campaign starts for a person: the triggers there are, and what each can be told.

Who is triggered by them on which day is the business of :mod:`~shopauto_pipelines.campaigns.triggers`.
"""

from __future__ import annotations

import re
from calendar import isleap
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from shopauto_pipelines.campaigns.declaration.fields import Declared, Segment, Text

#: Days for which an occasion whose day may move is remembered.
OCCASION_DAYS = 366


class SignedUp(Declared):
    """Triggered by the first account or the first order, whichever comes first: an account opened later begins nothing anew."""


class CartAbandoned(Declared):
    """Triggered by a cart to which nothing has happened for a step's wait, and that no order took."""


class Ordered(Declared):
    """Triggered by a day with an order of goods."""

    first: bool | None = Field(None, description="true: the first order day only; false: later ones only.")
    category: Text | None = Field(None, description="Only orders with goods of this category.")


class Browsed(Declared):
    """Triggered by a day on which somebody looked at products and neither put any into a cart nor ordered."""


class Birthday(Declared):
    """Triggered once a year; 29 February is kept on 28 February in other years."""

    days_before: int = Field(0, ge=0, le=60, description="So many days before the birthday.")


class NextOrder(Declared):
    """Triggered once between two orders, when the next one is expected soon."""

    days_before: int = Field(3, ge=1, le=30, description="So many days before the day the next order is expected on.")


class UsedUp(Declared):
    """Triggered when a pack that is bought again and again will soon be used up; a re-order ends it."""


class Submitted(Declared):
    """Triggered by a day on which the person filled in a form."""

    form: Text = Field(description="Name of the form.")


class TicketOpened(Declared):
    """Triggered by a day on which the person asked the shop for help."""


def _monthly(value: Any) -> Any:
    if value in (None, "last") or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 28):
        return value
    raise ValueError(f"{value!r} is not a day of every month: write 1 to 28, or last")


class Broadcast(Declared):
    """Sent to the whole audience: once, ``on`` a day, or on a day of every month or year."""

    on: date | None = Field(None, description="The day, e.g. 2026-06-30.")
    monthly: Annotated[Annotated[int, Field(ge=1, le=28)] | Literal["last"] | None, BeforeValidator(_monthly)] = Field(
        None, description="Day of every month, 1 to 28, or `last`."
    )
    yearly: str | None = Field(
        None, description='Day of every year, e.g. "12-24"; 29 February is kept on 28 February in other years.'
    )

    @model_validator(mode="before")
    @classmethod
    def _on(cls, value: Any) -> Any:
        # YAML 1.1 takes a bare `on` for true
        return (
            {"on" if name is True else name: said for name, said in value.items()} if isinstance(value, dict) else value
        )

    @field_validator("yearly")
    @classmethod
    def _day_of_year(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                if not re.fullmatch(r"\d\d-\d\d", value):
                    raise ValueError
                date.fromisoformat(f"2024-{value}")
            except ValueError:
                raise ValueError(f'{value!r} is not a day of the year: write month and day, such as "12-24"') from None
        return value

    @model_validator(mode="after")
    def _one_schedule(self) -> Broadcast:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("a broadcast says when by exactly one of `on`, `monthly` and `yearly`")
        return self

    def days(self, start: date, end: date) -> list[date]:
        """The days of the broadcast from ``start`` to ``end``, both included."""
        every = (start + timedelta(days=n) for n in range((end - start).days + 1))
        if self.on is not None:
            return [day for day in every if day == self.on]
        if self.yearly is not None:
            return [day for day in every if day == in_year(self.yearly, day.year)]
        if self.monthly == "last":
            return [day for day in every if (day + timedelta(days=1)).day == 1]
        return [day for day in every if day.day == self.monthly]


def in_year(month_and_day: str, year: int) -> date:
    """The day ``12-24`` of a year; 29 February is kept on 28 February where there is none."""
    month, day = (int(part) for part in month_and_day.split("-"))
    return date(year, month, 28 if (month, day) == (2, 29) and not isleap(year) else day)


class Trigger(Declared):
    """What starts the campaign for a person: exactly one of these."""

    signed_up: SignedUp | None = Field(None, description="The person became known to the shop.")
    segment_entered: Segment | None = Field(
        None, description="The person entered this segment; nobody does on its first day."
    )
    ordered: Ordered | None = Field(None, description="The person ordered: any order, the first, one of a category.")
    browsed: Browsed | None = Field(None, description="The person looked at products and left it at that.")
    cart_abandoned: CartAbandoned | None = Field(
        None, description="The person left a cart. Decided within seconds, by the hour, not once a day."
    )
    next_order: NextOrder | None = Field(None, description="The person's next order is expected.")
    used_up: UsedUp | None = Field(None, description="What the person buys again and again will be used up.")
    birthday: Birthday | None = Field(None, description="The person's birthday.")
    submitted: Submitted | None = Field(None, description="The person filled in a form.")
    ticket_opened: TicketOpened | None = Field(None, description="The person asked the shop for help.")
    broadcast: Broadcast | None = Field(None, description="A day for the whole audience.")

    @model_validator(mode="before")
    @classmethod
    def _empty_mapping(cls, value: Any) -> Any:
        """A trigger with nothing to say may be written without braces: ``browsed:``."""
        if not isinstance(value, dict):
            return value
        silent = {name for name in cls.model_fields if name not in ("segment_entered", "broadcast", "submitted")}
        return {name: {} if said is None and name in silent else said for name, said in value.items()}

    @model_validator(mode="after")
    def _exactly_one(self) -> Trigger:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError(f"declare exactly one of {', '.join(list(Trigger.model_fields)[:-1])} and broadcast")
        return self

    @property
    def kind(self) -> str:
        """Which of the triggers it is."""
        (kind,) = self.model_dump(exclude_none=True)
        return str(kind)

    @property
    def occasion_days(self) -> int:
        """For how many days an occasion may set it off anew, as the day is forecast, or corrected; 0: an occasion has one day."""
        return OCCASION_DAYS if self.kind in ("birthday", "next_order", "used_up") else 0

    def __str__(self) -> str:
        """The trigger in a word: which, and what it is about, e.g. ``segment_entered:lapsed``."""
        about = [self.segment_entered, self.submitted and self.submitted.form]
        if self.ordered:
            about += [{None: None, True: "first", False: "again"}[self.ordered.first], self.ordered.category]
        return ":".join([self.kind, *(part for part in about if part)])
