"""The offers of messages that go into the ledger by the day: their codes, and how many a person may have.

Which offer a message brings the audience says. What people were granted meanwhile, by a cart or on the site, only the
database knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from shopauto_pipelines.campaigns.daily_offers import grant
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.grants import Grants
from shopauto_pipelines.campaigns.offers import OfferRules
from shopauto_pipelines.outbox.schema import offers
from shopauto_pipelines.platform.settings import Settings


def with_codes(
    connection: sa.Connection, rows: Sequence[dict[str, Any]], campaign: Campaign, settings: Settings, now: datetime
) -> list[dict[str, Any]]:
    """Planned rows of an audience with ``offer`` in their explanation, where their step may bring one; the code is stored.

    The same rows again get the same codes.
    """
    asked = [row for row in rows if row["offer"]]
    if not asked:
        return list(rows)
    people = sorted({row["customer_id"] for row in asked})
    of_them = offers.c.customer_id == sa.any_(sa.cast(people, ARRAY(sa.Text)))
    recent = offers.c.granted_at >= now - timedelta(days=settings.offer_cap_days)
    wanted = sa.select(offers).where(of_them, recent | (offers.c.campaign == campaign.name))
    offered = [dict(row) for row in connection.execute(wanted).mappings()]
    grants = Grants(campaign.name, offered, settings, now)
    rules, granted, explained = OfferRules.of(settings), [], []
    for row in rows:
        if row["offer"]:
            told, offer = grant(campaign, row, grants, rules)
            granted += [offer] if offer else []
            explained.append(row | {"explanation": _told(row, told)})
        else:
            explained.append(row)
    if granted:
        connection.execute(insert(offers).on_conflict_do_nothing(), granted)
    return explained


def _told(row: Mapping[str, Any], offer: Mapping[str, Any]) -> str:
    return json.dumps(json.loads(row["explanation"]) | {"offer": offer}, ensure_ascii=False)
