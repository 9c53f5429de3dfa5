"""What a request may say: models made from the declarations of the raw tables, so that both lanes have one definition.

Names, types, allowed words and what is required come from ``sources.tables``; a route adds what only it knows (a
signature, an order's lines). Only the time may be left out: it is now. From a checked value to rows: ``reading``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines.sources.reading import LONGEST_FIELD

#: Ids that become part of other ids: of events, browsers, carts.
ID_PATTERN = r"^[A-Za-z0-9_.-]{1,128}$"

#: How ids begin that are made of a ticket's or an order's own. Browsers choose their ids, but none of these.
MADE = {"event_id": "ticket.", "anonymous_id": "woo-", "cart_id": "woo-"}

#: What only the shop's servers may send.
SERVER_TYPES = ("ticket_opened", "ticket_closed")

_PLAIN_IDS = ("event_id", "anonymous_id", "cart_id", "session_id", "submission_id", "ticket_id")

#: Characters of a form's fields as JSON: what is longer would be set aside in the lake.
LONGEST_FIELDS = LONGEST_FIELD

_LONGEST = {"url": 4000}
_MOST_LINES = 1000
_MOST_PIECES = 100_000

_INT64 = 2**63 - 1

_EXAMPLE = "2026-11-22T17:05:00Z"


def _text(longest: int, **more: Any) -> Any:
    # PostgreSQL holds every character but this one
    return Annotated[str, Field(min_length=1, max_length=longest, pattern=r"^[^\x00]*$", **more)]


def _type(table: Table, column: Column) -> Any:
    """The column's type, with everything that its table refuses."""
    words = raw.ALLOWED_VALUES.get((table.name, column.name))
    if words:
        return Literal[words]
    if column.name in _PLAIN_IDS:
        return Annotated[str, Field(pattern=ID_PATTERN)]
    if column.type == "string":
        return _text(_LONGEST.get(column.name, 400))
    if column.type == "int64":
        least = 0 if (table.name, column.name) in raw.NEVER_NEGATIVE else -_INT64
        return Annotated[int, Field(strict=True, ge=least, le=_INT64)]
    if column.type.startswith("timestamp"):
        return Annotated[datetime, Field(examples=[_EXAMPLE])]
    return {"date": date, "boolean": bool, "float64": Annotated[float, Field(allow_inf_nan=False)]}[column.type]


def model(
    name: str,
    table: Table,
    *,
    without: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    extra: Mapping[str, Any] | None = None,
    types: Mapping[str, Any] | None = None,
) -> Any:
    """A ``TypedDict`` with the columns of ``table`` but for its lineage and ``without``; ``extra`` fields beside them.

    The table's time and ``optional`` may be left out though the table requires them; ``types`` are for columns that a
    request words in another way.
    """
    left_out = {*without, *(column.name for column in raw.LINEAGE)}
    may_be_missing = {*optional, raw.TIME_COLUMN[table.name]}
    fields: dict[str, Any] = {}
    for column in table.columns:
        if column.name in left_out:
            continue
        kind = (types or {}).get(column.name) or _type(table, column)
        if column.required and column.name not in may_be_missing:
            fields[column.name] = _described(kind, column.description)
        else:
            fields[column.name] = _optional(kind, column.description)
    return _strict(name, {**fields, **(extra or {})})


def _strict(name: str, fields: dict[str, Any]) -> Any:
    """A dictionary of these fields and no others."""
    made = TypedDict(name, fields)  # type: ignore[misc,operator]
    return with_config(ConfigDict(extra="forbid", str_strip_whitespace=True))(made)


def _described(kind: Any, description: str) -> Any:
    return Annotated[kind, Field(description=description)]


def _optional(kind: Any, description: str) -> Any:
    return NotRequired[_described(kind, description) | None]  # type: ignore[misc]


_EMAIL = _text(400)
_SIGNATURE = _optional(
    Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")],
    "HMAC-SHA256 of `shop_customer_id` with SHOPAUTO_IDENTITY_SECRET, hexadecimal: the shop's proof of who is logged in",
)
_BROWSER = _optional(Annotated[str, Field(pattern=ID_PATTERN)], "browser id of the visitor who is writing")

Event = model(
    "Event",
    raw.EVENTS,
    # anybody can say anything: sums and amounts must stay within their types
    types={"quantity": Annotated[int, Field(strict=True, ge=0, le=_MOST_PIECES)]},
    extra={
        "email": _optional(_EMAIL, "of a `login`: the address the visitor gave; only its keyed hash is kept"),
        "signature": _SIGNATURE,
    },
)
Line = model(
    "Line",
    raw.ORDER_LINES,
    without=("order_id", "ordered_at", "shop_customer_id"),
    optional=("line_number", "kind"),
)
Order = model(
    "Order",
    raw.ORDERS,
    extra={
        "lines": _optional(Annotated[list[Line], Field(max_length=_MOST_LINES)], "what was bought")  # type: ignore[valid-type]
    },
)


Ticket = _strict(
    "Ticket",
    {
        "ticket_id": Annotated[
            str, Field(pattern=ID_PATTERN, max_length=120, description="the help desk's id of the ticket")
        ],
        "opened_at": _optional(Annotated[datetime, Field(examples=[_EXAMPLE])], "when, UTC"),
        "closed_at": _optional(
            Annotated[datetime, Field(examples=[_EXAMPLE])], "when it was settled, UTC: promotions go on from then"
        ),
        "shop_customer_id": _optional(_text(400), "who wrote"),
        "email": _optional(_EMAIL, "who wrote, where the shop's id is not known"),
    },
)
_Consent = _strict(
    "Consent",
    {
        "channel": Literal[raw.ALLOWED_VALUES["raw/consents", "channel"]],
        "wording": Annotated[_text(2000), Field(description="the words that were shown beside the box")],
        "state": _optional(Literal[raw.ALLOWED_VALUES["raw/consents", "state"]], "said by a server only"),
    },
)
Form = model(
    "Form",
    raw.FORM_SUBMISSIONS,
    types={"fields": dict[str, Any]},
    extra={
        "anonymous_id": _BROWSER,
        "consent": _optional(_Consent, "a box that was ticked"),
        "signature": _SIGNATURE,
    },
)

EVENT: TypeAdapter[dict[str, Any]] = TypeAdapter(Event)
ORDER: TypeAdapter[dict[str, Any]] = TypeAdapter(Order)
TICKET: TypeAdapter[Any] = TypeAdapter(Ticket)
FORM: TypeAdapter[dict[str, Any]] = TypeAdapter(Form)

#: A time in a shop's own words.
MOMENT: TypeAdapter[datetime] = TypeAdapter(datetime)

#: Whole rows, for what a shop tells in its own words.
ROWS: dict[str, TypeAdapter[dict[str, Any]]] = {
    table.name: TypeAdapter(model(table.name.removeprefix("raw/"), table))
    for table in (raw.CUSTOMERS, raw.CONSENTS, raw.ORDERS, raw.ORDER_LINES, raw.REFUNDS)
}
