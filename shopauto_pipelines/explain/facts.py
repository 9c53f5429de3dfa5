"""What is known of a few people at the end of a day, read once for all of them: what the rules ask, and when they did what.

Read from the tables that the planner reads, up to the day. Of addresses it is known whether there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from ibis import _

from shopauto_pipelines.campaigns import tables as campaign_tables
from shopauto_pipelines.explain import raw_rows
from shopauto_pipelines.explain.telling import Row
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

#: What people did, by the columns of ``features/daily_activity`` that count it; of messages it counts less than they heard.
_DID = {
    "ordered": ("orders",),
    "acted": ("visits", "tickets_opened", "tickets_closed"),
    "heard": ("emails_sent", "sms_sent", "opens", "clicks", "sms_clicks"),
}


@dataclass(frozen=True)
class Person:
    """A person as of a day.

    ``ids``: the shop's ids of them. ``profile``: the row of ``features/customer_360``. ``consent``: by channel. ``events``: what
    became of messages to them lately, the newest first. ``days``: those on which they ``ordered``, ``acted`` on the site or
    ``heard`` from the shop, the newest first. ``decided``: rows of the day's audiences by campaign.
    """

    customer_id: str
    ids: frozenset[str]
    profile: Mapping[str, Any]
    consent: Mapping[str, Mapping[str, Any]]
    memberships: Sequence[Mapping[str, Any]]
    events: Sequence[Row]
    days: Mapping[str, Sequence[date]]
    decided: Mapping[str, Sequence[Mapping[str, Any]]]

    def has_address(self, channel: str) -> bool:
        """Whether there is an address for the channel."""
        return self.profile["phone" if channel == "sms" else "email"] is not None


def people(lake: Lake, day: date, ids: Iterable[str], campaigns: Collection[str], since: date) -> dict[str, Person]:
    """Those of ``ids`` who are known on the day, by id; ``campaigns``: whose audiences, ``since``: from when on messages count.

    Raises ``MissingPartition`` where what is known of people has not been computed for the day.
    """
    profiles = Lookup(lake, CUSTOMER_360, day).rows(set(ids))
    asked = sorted(profiles)
    consents = Lookup(lake, CONSENT, day).every(asked)
    shop_ids = _shop_ids(lake, day, asked)
    persons = {shop_id: who for who, mine in shop_ids.items() for shop_id in mine}
    members = _memberships(lake, day, asked)
    events = _by_person(raw_rows.between(lake, MESSAGE_EVENTS, since, day, persons), persons)
    days = _days(lake, day, persons)
    decided = {name: _decided(lake, name, day, asked) for name in campaigns}
    return {
        who: Person(
            who,
            frozenset(shop_ids[who]),
            profiles[who],
            {row["channel"]: row for row in consents.get(who, ())},
            members[who],
            events[who],
            {**days[who], "heard": _latest_first({*days[who]["heard"], *(row.day for row in events[who])})},
            {name: rows[who] for name, rows in decided.items() if who in rows},
        )
        for who in asked
    }


def _shop_ids(lake: Lake, day: date, people: Sequence[str]) -> dict[str, set[str]]:
    found = {who: {who} for who in people}
    for row in raw_rows.partition(lake, IDENTITIES, day, people):
        found[row["customer_id"]].add(row["shop_customer_id"])
    return found


def _memberships(lake: Lake, day: date, people: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in raw_rows.partition(lake, MEMBERSHIP, day, people):
        found[row["customer_id"]].append(row)
    return found


def _decided(lake: Lake, campaign: str, day: date, people: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in raw_rows.partition(lake, campaign_tables.audience(campaign), day, people):
        found[row["customer_id"]].append(row)
    return found


def _by_person(rows: Iterable[Row], persons: Mapping[str, str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[persons[row.values["shop_customer_id"]]].append(row)
    return found


def _days(lake: Lake, day: date, persons: Mapping[str, str]) -> dict[str, dict[str, list[date]]]:
    """When they did what, up to the day."""
    found: dict[str, dict[str, set[date]]] = defaultdict(lambda: {name: set() for name in _DID})
    if persons:
        counted = sorted({column for columns in _DID.values() for column in columns})
        rows = lake.between(DAILY_ACTIVITY, None, day).filter(_.shop_customer_id.isin(sorted(persons)))
        for row in rows.select("shop_customer_id", "day", *counted).to_pyarrow().to_pylist():
            of_person = found[persons[row["shop_customer_id"]]]
            for name, columns in _DID.items():
                if any(row[column] for column in columns):
                    of_person[name].add(row["day"])
    return defaultdict(
        lambda: {name: [] for name in _DID},
        {who: {name: _latest_first(days) for name, days in did.items()} for who, did in found.items()},
    )


def _latest_first(days: Iterable[date]) -> list[date]:
    return sorted(days, reverse=True)


def since(day: date, history_days: int, cap_days: int) -> date:
    """From when on the planner counts messages."""
    return day - timedelta(days=max(history_days, cap_days))
