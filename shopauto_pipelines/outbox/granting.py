"""The offers of messages that go into the ledger by the day: their codes, and how many a person may have.

Which offer a message brings the audience says. What people were granted meanwhile, by a cart or on the site, only the
database knows. An offer whose messages were all held back was shown to nobody: it is taken back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from shopauto_pipelines.campaigns.daily_offers import grant
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.grants import Grants
from shopauto_pipelines.campaigns.offers import OfferRules
from shopauto_pipelines.outbox.people import People
from shopauto_pipelines.outbox.schema import messages, offers
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.settings import Settings


def with_codes(
    connection: sa.Connection,
    rows: Sequence[dict[str, Any]],
    people: People,
    campaign: Campaign,
    settings: Settings,
    now: datetime,
) -> list[dict[str, Any]]:
    """Planned rows of an audience with ``offer`` in their explanation, where their step may bring one; the code is stored.

    The same rows again get the same codes.
    """
    asked = {row["customer_id"] for row in rows if row["offer"] and _brings(campaign, row)}
    if not asked:
        return list(rows)
    of_campaign = offers.c.campaign == campaign.name
    offered = offers_of(connection, asked, people, of_campaign, settings=settings, now=now)
    grants = Grants(campaign.name, offered, settings, now)
    rules, granted, explained = OfferRules.of(settings), [], []
    for row in rows:
        if row["offer"] and _brings(campaign, row):
            told, offer = grant(campaign, row, grants, rules)
            granted += [offer] if offer else []
            explained.append(row | {"explanation": _told(row, told)})
        else:
            explained.append(row)
    store(connection, granted)
    return explained


def store(connection: sa.Connection, granted: Sequence[Mapping[str, Any]]) -> None:
    """Keep offers; one that is there already goes with its person to the id that the person carries now."""
    if granted:
        new = insert(offers)
        moved = new.excluded.customer_id
        connection.execute(
            new.on_conflict_do_update(
                index_elements=["code"], set_={"customer_id": moved}, where=offers.c.customer_id != moved
            ),
            list(granted),
        )


def offers_of(
    connection: sa.Connection,
    persons: Iterable[str],
    people: People,
    always: sa.ColumnElement[bool],
    *,
    settings: Settings,
    now: datetime,
) -> list[dict[str, Any]]:
    """Rows of ``shopauto.offers`` that these persons were granted within the cap's days, and those that ``always`` count.

    Under whichever of their shop ids: ``customer_id`` is the one they carry now.
    """
    who = {person: person for person in persons}
    who |= {other: person for person, others in people.other_ids(who).items() for other in others}
    of_them = offers.c.customer_id == sa.any_(sa.cast(sorted(who), ARRAY(sa.Text)))
    recent = offers.c.granted_at >= now - timedelta(days=settings.offer_cap_days)
    found = connection.execute(sa.select(offers).where(of_them, recent | always)).mappings()
    return [{**row, "customer_id": who[row["customer_id"]]} for row in found]


def take_back(engine: sa.Engine, settings: Settings, campaign: Campaign, now: datetime) -> int:
    """Delete the offers of the campaign whose messages were all held back, so that they do not count; returns how many.

    Only as far back as offers count. A message to another id of the person has shown the offer, too.
    """
    if not campaign.brings_offers:
        return 0
    about = (messages.c.campaign == offers.c.campaign) & (messages.c.customer_id == offers.c.customer_id)
    theirs = sa.select(messages.c.id).where(about, messages.c.occasion == offers.c.occasion)
    before = messages.alias("before")
    shown_before = sa.exists().where(
        before.c.customer_id == sa.any_(messages.c.other_ids),
        *(before.c[name] == messages.c[name] for name in ("campaign", "occasion")),
        before.c.state != "suppressed",
    )
    with engine.begin() as connection:
        days = live_settings.current(connection, settings).offer_cap_days
        gone = sa.delete(offers).where(
            offers.c.campaign == campaign.name,
            offers.c.granted_at >= now - timedelta(days=days),
            theirs.exists(),
            ~theirs.where((messages.c.state != "suppressed") | shown_before).exists(),
        )
        return connection.execute(gone).rowcount


def _brings(campaign: Campaign, row: Mapping[str, Any]) -> bool:
    """Whether the row's step may bring an offer, as it is declared now."""
    step = campaign.found(row["step"], row["variant"])
    return step is not None and step.offer is not None


def _told(row: Mapping[str, Any], offer: Mapping[str, Any]) -> str:
    return json.dumps(json.loads(row["explanation"]) | {"offer": offer}, ensure_ascii=False)
