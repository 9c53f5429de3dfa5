"""What the messages and offers of an audience cost. Nothing is decided here, and nothing is known of what really happened.

What an offer costs is reckoned on an order like the person's typical one, as :mod:`.daily_offers` decides: so many percent of it,
or the shop's shipping.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from itertools import islice
from math import ceil

from shopauto_pipelines.campaigns.audience import planned
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.offers import FREE_SHIPPING, NONE, OfferRules, Tier
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.predictions.tables import SCORES


@dataclass(frozen=True)
class OfferCost:
    """An offer, how many ``people`` it is planned for, and what it costs the shop, minor units.

    ``all_used_cents``: where everybody uses it once, on a typical order. ``expected_cents``: where those do who are expected to
    order while it is valid anyway; how many more the offer itself brings is not in it.
    """

    offer: Tier
    people: int
    all_used_cents: int
    expected_cents: int


def cost_cents(offer: Tier, typical_order_cents: int | None, rules: OfferRules) -> int:
    """What an offer costs the shop once it is used on a typical order, minor units, rounded up."""
    if offer.kind == FREE_SHIPPING:
        return rules.shipping_cents
    return ceil((offer.percent or 0) * (typical_order_cents or 0) / 100)


def order_probability(churn_probability: float | None, valid_days: int, horizon_days: int) -> float:
    """Of an order while an offer is valid, at an even pace over the horizon; 1 where there is no score."""
    if churn_probability is None:
        return 1.0
    return 1 - churn_probability ** (valid_days / horizon_days)


def offer_costs(lake: Lake, campaign: Campaign, as_of: date, rules: OfferRules, horizon_days: int) -> list[OfferCost]:
    """The offers planned as of the day, dearest last; raises ``MissingPartition``. Empty where the campaign brings none."""
    people, scores = Lookup(lake, CUSTOMER_360, as_of), Lookup(lake, SCORES, as_of)
    rows = planned(lake, audience(campaign.name), as_of, ["customer_id", "step", "variant", "offer"])
    sums: dict[Tier, list[int]] = defaultdict(lambda: [0, 0, 0])
    while chunk := [*islice(rows, _CHUNK)]:
        known, scored = (each.rows({row["customer_id"] for row in chunk}) for each in (people, scores))
        for row in chunk:
            said, incentive = json.loads(row["offer"] or "{}"), campaign.step(row["step"], row["variant"]).offer
            if said.get("kind", NONE) == NONE or incentive is None:
                continue
            who = row["customer_id"]
            offer = Tier(said["kind"], said["percent"])
            cost = cost_cents(offer, known.get(who, {}).get("typical_order_cents"), rules)
            churn = scored.get(who, {}).get("churn_probability")
            chance = order_probability(churn, incentive.valid_days, horizon_days)
            for place, value in enumerate((1, cost, round(cost * chance))):
                sums[offer][place] += value
    return [OfferCost(offer, *sums[offer]) for offer in sorted(sums, key=lambda offer: offer.percent or 0)]


#: So many planned rows are reckoned together.
_CHUNK = 10_000
