"""What set a campaign off for a person, with the rows of files it rests on; or what its trigger looks at, where it has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta

from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.explain import raw_rows
from shopauto_pipelines.explain.case import Case
from shopauto_pipelines.explain.rules import predicates
from shopauto_pipelines.explain.telling import Part, Row, Step, shown
from shopauto_pipelines.sources.tables import CUSTOMERS, EVENTS, FORM_SUBMISSIONS, ORDER_LINES, ORDERS

#: What a trigger is, in words.
_WORDS = {
    "signed_up": "became known to the shop",
    "segment_entered": "entered the segment {}",
    "ordered": "ordered",
    "browsed": "looked at products and left it at that",
    "cart_abandoned": "left a cart",
    "next_order": "the next order is expected",
    "used_up": "what they buy again will be used up",
    "birthday": "the birthday is near",
    "submitted": "filled in the form {}",
    "ticket_opened": "asked the shop for help",
    "broadcast": "a day for the whole audience",
}


def trigger(case: Case) -> Step:
    """What set it off and when, or why it has not; with the rows behind it."""
    kind = case.campaign.trigger.kind
    about = case.campaign.trigger.segment_entered or (
        case.campaign.trigger.submitted and case.campaign.trigger.submitted.form
    )
    words = _WORDS[kind].format(about)
    if not case.campaign.enabled:
        return Step("trigger", "Trigger", "no", "the campaign is not enabled: it reaches nobody")
    if case.reached:
        return _reached(case, words)
    parts = [Part(f"{case.campaign.trigger}: {words}")]
    if window := _due(case):
        parts.append(Part(f"{case.name} is due as of {case.day} for what happened from {window[0]} to {window[1]}"))
    parts += [
        Part("sent already: nobody gets a step twice for one occasion", "no")
        if case.campaign.tells_birthdays
        else Part(f"sent already on {row.day}: nobody gets a step twice for one occasion", "no", rows=(row,))
        for row in case.sent[:1]
    ]
    facts, rows = _LAST.get(kind, _nothing)(case)
    parts += [Part(facts, rows=rows)] if facts else []
    if case.campaign.trigger.segment_entered:
        parts += _condition(case, case.campaign.trigger.segment_entered)
    if case.campaign.name not in case.person.decided and not _computed(case):
        text = f"the campaign has not been computed for {case.day}"
    else:
        text = f"has not made this step due as of {case.day}"
    return Step("trigger", "Trigger", "no", text, tuple(parts), decided=True)


def _computed(case: Case) -> bool:
    return case.known.lake.has(audience(case.campaign.name), case.day)


def _due(case: Case) -> tuple[date, date] | None:
    """Of which days a trigger makes the step due on the day."""
    if case.campaign.is_realtime:
        return None
    newest = case.day - timedelta(days=case.step.wait_days or 0)
    return newest - timedelta(days=case.campaign.valid_days - 1), newest


def _reached(case: Case, words: str) -> Step:
    kind, on = case.campaign.trigger.kind, case.row["triggered_on"]
    parts = []
    if kind == "birthday":
        text = f"{words}: the day is not shown, as it would tell the birthday"
    else:
        text = f"{words} on {on}" if kind != "broadcast" else f"{words}: {on}"
        wait = case.explanation.get("wait_days", case.explanation.get("wait_hours"))
        unit = "hour" if case.campaign.is_realtime else "day"
        after = f"{shown(wait)} {unit}{'' if wait == 1 else 's'} after it"
        due = f"due on {case.row['due_on']}: {after}" if case.row["due_on"] else f"due {after}"
        parts.append(Part(due if wait else "due at once"))
    parts += [Part(f"{name.replace('_', ' ')}: {shown(value)}") for name, value in case.details.items()]
    if kind == "segment_entered":
        parts += _condition(case, str(case.campaign.trigger.segment_entered))
    if cart := case.explanation.get("cart"):
        parts.append(Part(f"in the cart: {', '.join(f'{pieces} × {product}' for product, pieces in cart.items())}"))
    parts.append(Part(f"occasion: {case.row['occasion']}"))
    return Step("trigger", "Trigger", "yes", text, tuple(parts), rows=_BEHIND.get(kind, _no_rows)(case, on))


def _condition(case: Case, segment: str) -> list[Part]:
    """The condition of the segment that is entered, for the person."""
    told = predicates(case, segment)
    return [Part(f"the condition of {segment} as of {case.day}", parts=told)] if told else []


def _signed_up(case: Case, on: date) -> tuple[Row, ...]:
    """The record of the account, or the first order where it came before the account."""
    created = case.person.profile["created_on"]
    if created is None or created > on:
        return _ordered(case, on)
    lake, ids = case.known.lake, case.person.ids
    told = raw_rows.between(lake, CUSTOMERS, on - timedelta(days=1), case.day, ids)
    first = [row for row in reversed(told) if (at := row.values.get("created_at")) and abs((at.date() - on).days) <= 1]
    return tuple(first[:1]) or tuple(told[-1:])


def _ordered(case: Case, on: date) -> tuple[Row, ...]:
    """The day's orders, and the lines with the product the message is about."""
    lake, ids, product = case.known.lake, case.person.ids, case.details.get("product_id")
    orders = raw_rows.rows(lake, ORDERS, [on], ids, limit=case.known.limit)
    about = {row.values["order_id"] for row in orders}
    lines = raw_rows.rows(
        lake,
        ORDER_LINES,
        [on],
        about,
        lambda row: product in (None, row["product_id"]),
        limit=case.known.limit,
        column="order_id",
    )
    return (*orders, *(lines if product else ()))


def _browsed(case: Case, on: date) -> tuple[Row, ...]:
    product = case.details.get("product_id")
    return raw_rows.rows(
        case.known.lake,
        EVENTS,
        [on],
        case.person.ids,
        lambda row: row["type"] == "product_view" and product in (None, row["product_id"]),
        limit=case.known.limit,
    )


def _used_up(case: Case, on: date) -> tuple[Row, ...]:
    bought = case.details.get("last_bought_on")
    return _ordered(case, date.fromisoformat(bought)) if bought else ()


def _submitted(case: Case, on: date) -> tuple[Row, ...]:
    asked = case.campaign.trigger.submitted
    form = asked.form if asked else None
    # who has no account yet is known by the address alone, which is not read
    return raw_rows.rows(
        case.known.lake,
        FORM_SUBMISSIONS,
        [on],
        case.person.ids,
        lambda row: row["form"] == form,
        limit=case.known.limit,
    )


def _ticket(case: Case, on: date) -> tuple[Row, ...]:
    return raw_rows.rows(
        case.known.lake,
        EVENTS,
        [on],
        case.person.ids,
        lambda row: row["type"] == "ticket_opened",
        limit=case.known.limit,
    )


def _cart(case: Case, on: date) -> tuple[Row, ...]:
    """What happened to the cart until it was left."""
    days = [on - timedelta(days=n) for n in range(-1, 2) if on - timedelta(days=n) <= case.day]
    cart = {str(case.row["occasion"])}
    return raw_rows.rows(case.known.lake, EVENTS, days, cart, limit=case.known.limit, column="cart_id")


def _last_order(case: Case, on: date) -> tuple[Row, ...]:
    """The latest order up to the day: what a rhythm, and a stay in a segment, begins with."""
    days = [day for day in case.person.days["ordered"] if day <= case.day][:1]
    return raw_rows.rows(case.known.lake, ORDERS, days, case.person.ids, limit=1)


def _birthday(case: Case, on: date) -> tuple[Row, ...]:
    """The latest record of the account; the birthday in it is not read."""
    return tuple(raw_rows.between(case.known.lake, CUSTOMERS, date.min, case.day, case.person.ids)[:1])


def _no_rows(case: Case, on: date) -> tuple[Row, ...]:
    return ()


_BEHIND: Mapping[str, Callable[[Case, date], tuple[Row, ...]]] = {
    "signed_up": _signed_up,
    "segment_entered": _last_order,
    "ordered": _ordered,
    "browsed": _browsed,
    "cart_abandoned": _cart,
    "next_order": _last_order,
    "used_up": _used_up,
    "birthday": _birthday,
    "submitted": _submitted,
    "ticket_opened": _ticket,
}


def _known_since(case: Case) -> tuple[str, tuple[Row, ...]]:
    profile = case.person.profile
    since = min(filter(None, (profile["created_on"], profile["first_order_on"])), default=None)
    return f"known since {since}" if since else "not known since when", _signed_up(case, since) if since else ()


def _lately(what: str, column: str) -> Callable[[Case], tuple[str, tuple[Row, ...]]]:
    def told(case: Case) -> tuple[str, tuple[Row, ...]]:
        on = case.person.profile[column]
        return f"last {what}: {on or 'never'}", _last_order(case, on) if on and column == "last_order_on" else ()

    return told


def _expected(case: Case) -> tuple[str, tuple[Row, ...]]:
    score = case.known.scores.get(case.person.customer_id)
    if score is None:
        return "no next order is expected: only who has ordered is scored", ()
    if score["next_order_on"] is None and score["next_order_from"] is None:
        return f"when the next order is expected is not known: {score['note'] or 'no model says'}", ()
    return f"next order expected on {score['next_order_on'] or 'no day within a year'}", ()


def _schedule(case: Case) -> tuple[str, tuple[Row, ...]]:
    schedule = case.campaign.trigger.broadcast
    assert schedule
    said = ", ".join(f"{name} {value}" for name, value in schedule.model_dump(exclude_none=True).items())
    return f"its day: {said}", ()


def _nothing(case: Case) -> tuple[str, tuple[Row, ...]]:
    return "", ()


#: What the trigger looks at, where it has not reached the person.
_LAST: Mapping[str, Callable[[Case], tuple[str, tuple[Row, ...]]]] = {
    "signed_up": _known_since,
    "ordered": _lately("order", "last_order_on"),
    "browsed": _lately("visit", "last_visit_on"),
    "ticket_opened": _lately("question to the shop's support", "last_ticket_on"),
    "next_order": _expected,
    "broadcast": _schedule,
}
