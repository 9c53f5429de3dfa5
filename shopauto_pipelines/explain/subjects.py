"""Who and what is meant: a message by its number or name, a person by our id or one of the shop's; with hints where nobody is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa
from ibis import _

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.previews import person_of
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.explain import outcome, raw_rows
from shopauto_pipelines.explain.explanation import Asked, NothingThere, day_of
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.profiles.tables import IDENTITIES

#: Parts of a message's name: campaign, step, customer (which may hold colons itself) and occasion.
_PARTS = 4


@dataclass(frozen=True)
class Subject:
    """What is asked about as of a ``day``. ``asked`` is none where it is all campaigns; ``aside`` is to be said beside it."""

    customer_id: str
    day: date
    asked: Asked | None
    aside: str = ""


def find(
    connection: sa.Connection,
    lake: Lake,
    campaigns: Mapping[str, Campaign],
    text: str,
    campaign: str | None = None,
    day: date | None = None,
    step: str | None = None,
) -> Subject:
    """What ``text`` means. Raises :class:`NothingThere` with the nearest name where it means nothing.

    A number is a message of the ledger, unless a ``campaign`` is named: then it is a person.
    """
    if campaign is not None:
        _require("campaign", campaign, campaigns)
        if step is not None:
            _require(f"step of {campaign}", step, [each.name for each in campaigns[campaign].steps])
    named = text.split(":")
    if campaign is None and (text.isdecimal() or len(named) >= _PARTS):
        found = (
            _of_number(connection, lake, campaigns, text, day)
            if text.isdecimal()
            else _of_name(connection, lake, campaigns, named, day)
        )
        if found is not None:
            if step is not None:
                raise NothingThere(
                    f"{text!r} is a message of step {found.asked.step if found.asked else ''}: leave --step out"
                )
            return found
    when = day_of(lake, day)
    who = person_of(lake, when, text)
    if who is None:
        raise NothingThere(_nobody(connection, lake, when, text, campaign))
    if campaign is None:
        if step is not None:
            raise NothingThere("--step asks about a step of one campaign: name it with --campaign")
        return Subject(who, when, None)
    return Subject(who, when, Asked(who, campaign, step))


def _of_number(
    connection: sa.Connection, lake: Lake, campaigns: Mapping[str, Campaign], text: str, day: date | None
) -> Subject | None:
    number = int(text)
    message = ledger.find(connection, number) if number < 2**63 else None
    if message is None:
        return None
    _require("campaign", message.key.campaign, campaigns)
    _require(
        f"step of {message.key.campaign}", message.key.step, [s.name for s in campaigns[message.key.campaign].steps]
    )
    campaign = campaigns[message.key.campaign]
    _require_day(campaign, day)
    when, aside = _computed(lake, day or _decided(lake, campaign, message.key.customer_id, message.as_of))
    aside += _too_early(campaign, day, message.as_of)
    if person_of(lake, when, text):
        aside = f"{aside}There is also a customer {text}: --campaign NAME asks about them. "
    asked = Asked(message.key.customer_id, message.key.campaign, message.key.step, message.key.occasion)
    return Subject(message.key.customer_id, when, asked, aside.strip())


def _of_name(
    connection: sa.Connection, lake: Lake, campaigns: Mapping[str, Campaign], named: list[str], day: date | None
) -> Subject:
    key = ledger.MessageKey(named[0], named[1], ":".join(named[2:-1]), named[-1])
    _require("campaign", key.campaign, campaigns)
    _require(f"step of {key.campaign}", key.step, [step.name for step in campaigns[key.campaign].steps])
    campaign = campaigns[key.campaign]
    _require_day(campaign, day)
    kept = outcome.of_key(connection, key)
    asked = Asked(key.customer_id, key.campaign, key.step, key.occasion)
    if kept is not None:
        as_of = kept.message.as_of
        when, aside = _computed(lake, day or _decided(lake, campaign, key.customer_id, as_of))
        return Subject(key.customer_id, when, asked, (aside + _too_early(campaign, day, as_of)).strip())
    decided = _decided_on(lake, key, day)
    if decided is None:
        raise NothingThere(_no_message(connection, lake, key, day))
    return Subject(key.customer_id, decided, asked)


def _require_day(campaign: Campaign, day: date | None) -> None:
    """Of a message for a birthday the day has to be named: to find it would tell the birthday."""
    if campaign.tells_birthdays and day is None:
        raise NothingThere(
            f"the day of a message of {campaign.name} would tell the birthday, so it is not looked up: name it with --day"
        )


def _too_early(campaign: Campaign, day: date | None, as_of: date) -> str:
    """What is said of a day before the one that a message is of, unless that would tell the birthday."""
    if day is None or day >= as_of or campaign.tells_birthdays:
        return ""
    return f"The message is of {as_of}, {day} was before it: without --day it is explained as of its day. "


def _decided(lake: Lake, campaign: Campaign, customer_id: str, as_of: date) -> date:
    """The day on which a message of ``as_of`` was decided: a cart's on the next one, with what happened to the cart.

    Where the person has become one with somebody else by its end, only the day before knows them.
    """
    if not campaign.is_realtime:
        return as_of
    next_day = as_of + timedelta(days=1)
    joined = next_day in lake.days(IDENTITIES) and person_of(lake, next_day, customer_id) != customer_id
    return as_of if joined else next_day


def _decided_on(lake: Lake, key: ledger.MessageKey, day: date | None) -> date | None:
    """The newest day on which something was decided on the message, or ``day`` where it was on that."""
    table = audience(key.campaign)
    days = [each for each in reversed(lake.days(table)) if day in (None, each)]
    for each in days:
        rows = raw_rows.partition(lake, table, each, [key.customer_id], names=["step", "occasion", "customer_id"])
        if any((row["step"], row["occasion"]) == (key.step, key.occasion) for row in rows):
            return each
    return None


def _computed(lake: Lake, day: date) -> tuple[date, str]:
    """The day, or the newest computed one before it, and what is said of that."""
    try:
        return day_of(lake, day), ""
    except NothingThere:
        newest = day_of(lake, None)
        if newest > day:
            raise
        return newest, f"{day} has not been computed: people are shown as of {newest}. "


def _require(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise NothingThere(f"there is no {what} {name!r}: {nearest(name, names, quote=chr(39))}")


def _no_message(connection: sa.Connection, lake: Lake, key: ledger.MessageKey, day: date | None) -> str:
    """What there is instead of a message that nobody has heard of."""
    when = day_of(lake, day)
    who = person_of(lake, when, key.customer_id)
    if who is None:
        return _nobody(connection, lake, when, key.customer_id)
    text = f"nothing was decided on {':'.join(key)}" + (f" on {day}" if day else "")
    table = audience(key.campaign)
    occasions: dict[str, None] = {}
    for each in reversed(lake.days(table)):
        rows = raw_rows.partition(lake, table, each, [who], names=["step", "occasion", "customer_id"])
        occasions |= {row["occasion"]: None for row in rows if row["step"] == key.step}
    known = f": {nearest(key.occasion, occasions, quote=chr(39))}" if occasions else ""
    return (
        f"{text}{known}{'' if known.endswith('?') else '.'} `shopauto explain {who} --campaign {key.campaign}` says why"
    )


def _nobody(connection: sa.Connection, lake: Lake, day: date, text: str, campaign: str | None = None) -> str:
    known = lake.on(IDENTITIES, day)
    ids = known.select(known=_.customer_id).union(known.select(known=_.shop_customer_id)).distinct()
    near = ids.mutate(far=_.known.levenshtein(text)).filter(_.far <= 2).order_by("far", "known").limit(1)
    close = lake.con.to_pyarrow(near).to_pylist()
    hint = f"; did you mean {close[0]['known']!r}?" if close else ""
    if campaign is not None and text.isdecimal() and int(text) < 2**63 and ledger.find(connection, int(text)):
        hint = f"; message {text} of the ledger is explained without --campaign"
    elif campaign is None and text.isdecimal():
        newest = ledger.newest_id(connection)
        of_ledger = f"the ledger's numbers go up to {newest}" if newest else "the ledger is empty"
        return f"there is no message {text} ({of_ledger}), and no customer {text!r} as of {day}{hint}"
    return f"there is no customer {text!r} as of {day}{hint}"
