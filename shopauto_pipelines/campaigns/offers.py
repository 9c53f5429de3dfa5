"""Which incentive a person gets with a message, and why none. Pure: no table is read here.

The more overdue a person is by their own rhythm (the churn factor, as in ``features/customer_features``), the more is offered,
as far as the margin of the cart, or of a typical order, bears it. Offers are for people who would not come back by
themselves, so somebody who waits for coupons gets none, and nobody gets them again and again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from shopauto_pipelines.platform.settings import Settings

#: The on-site offer among the campaigns, in the ledger and the switches; no campaign of the playbook can be called so.
ONSITE = "lapsed_visitor"

#: Kinds of offers. ``none``: the message is a reminder only.
NONE, FREE_SHIPPING, PERCENT = "none", "free_shipping", "percent"

#: Every reason of a decision, with what it means.
REASONS = {
    "granted": "the tier of the churn factor",
    "margin": "the tier of the churn factor would take the margin below the floor: the highest that does not",
    "reminder_only": "orders are not overdue by the person's own rhythm",
    "no_churn_factor": "the person has no churn factor: no order yet",
    "discount_seeker": "the person waits for coupons",
    "cap": "the person has had as many offers as the cap allows",
    "price_unknown": "what is in the cart, or usual in an order, has no known price: nobody can tell what an offer would cost",
    "expired": "the offer for this occasion has expired",
}


class Tier(NamedTuple):
    """What is offered: free shipping or so many percent."""

    kind: str
    percent: int | None = None

    def __str__(self) -> str:
        """The tier in words."""
        return {NONE: "a reminder only", FREE_SHIPPING: "free shipping"}.get(self.kind) or f"{self.percent} % off"


#: The tiers, each better for the customer than the one before it.
TIERS = (Tier(NONE), Tier(FREE_SHIPPING), Tier(PERCENT, 5), Tier(PERCENT, 10))


class Line(NamedTuple):
    """A product in the cart: how many, and the price and cost of one, minor units; null where the shop does not say."""

    pieces: int
    price_cents: int | None
    cost_cents: int | None


#: A piece of a product that nobody knows.
UNKNOWN = Line(1, None, None)


@dataclass(frozen=True)
class OfferRules:
    """The shop's rules: settings of the same names, with ``offer_`` before them."""

    margin_percent: float
    cost_percent: float
    shipping_cents: int
    cap: int
    cap_days: int

    @classmethod
    def of(cls, settings: Settings) -> OfferRules:
        """The rules out of the settings."""
        return cls(
            margin_percent=settings.offer_margin_percent,
            cost_percent=settings.offer_cost_percent,
            shipping_cents=settings.offer_shipping_cents,
            cap=settings.offer_cap,
            cap_days=settings.offer_cap_days,
        )


class Offer(NamedTuple):
    """A decision: the tier, its reason (a key of :data:`REASONS`), and what it rests on, in words without private data."""

    tier: Tier
    reason: str
    why: str


def decide(
    churn_factor: float | None, discount_seeker: bool, lines: Sequence[Line], granted: int, rules: OfferRules
) -> Offer:
    """What a person is offered for a cart of ``lines``, who has been ``granted`` so many offers within the cap's days.

    Never less to a person with a higher churn factor, all else being equal.
    """

    def none(reason: str) -> Offer:
        return Offer(TIERS[0], reason, REASONS[reason])

    if discount_seeker:
        return none("discount_seeker")
    if churn_factor is None:
        return none("no_churn_factor")
    wanted = tier(churn_factor)
    if wanted == TIERS[0]:
        return Offer(wanted, "reminder_only", f"churn factor {churn_factor:.2f}: {REASONS['reminder_only']}")
    if granted >= rules.cap:
        return none("cap")
    if not lines or any(line.price_cents is None for line in lines):
        return none("price_unknown")
    for found in reversed(TIERS[: TIERS.index(wanted) + 1]):
        if found == TIERS[0] or keeps_margin(found, lines, rules):
            break
    if found == wanted:
        return Offer(found, "granted", f"churn factor {churn_factor:.2f}: {found}")
    floor = f"{wanted} would leave a margin below {rules.margin_percent:g} %"
    return Offer(found, "margin", f"churn factor {churn_factor:.2f}: {found}, as {floor}")


def tier(churn_factor: float) -> Tier:
    """The tier of a churn factor: below 1 a reminder only, from 1 free shipping, from 2 5 %, above 3 10 %."""
    if churn_factor > 3:
        return TIERS[3]
    return TIERS[2] if churn_factor >= 2 else TIERS[1] if churn_factor >= 1 else TIERS[0]


def keeps_margin(offered: Tier, lines: Sequence[Line], rules: OfferRules) -> bool:
    """Whether the cart, with the offer, still earns the margin floor: (paid - cost) ÷ paid, both for its goods.

    A product whose cost is not known is taken to cost ``cost_percent`` of its price. Free shipping costs the shop
    ``shipping_cents``. Reckoned in whole hundredths of a minor unit, rounded against the offer.
    """
    worth = sum(line.pieces * (line.price_cents or 0) for line in lines)
    cost = sum(line.pieces * _cost(line, rules) for line in lines)
    discount = -(-worth * (offered.percent or 0) // 100)
    if offered.kind == FREE_SHIPPING:
        cost += 100 * rules.shipping_cents
    paid = worth - discount
    return paid > 0 and 100 * paid - cost >= exactly(rules.margin_percent) * paid


def _cost(line: Line, rules: OfferRules) -> int:
    """Cost of a piece, hundredths of a minor unit."""
    if line.cost_cents is not None:
        return 100 * line.cost_cents
    return ceil(exactly(rules.cost_percent) * (line.price_cents or 0))


def least_order_cents(offered: Tier, rules: OfferRules) -> int | None:
    """The order total from which on the offer keeps the margin floor, however amounts are rounded; ``None``: never.

    For orders of which nothing is known but the total: goods cost ``cost_percent`` of it.
    """
    kept = 100 - exactly(rules.margin_percent)
    per_cent = kept * (100 - (offered.percent or 0)) / 100 - exactly(rules.cost_percent)
    lost = 1 + (kept if offered.percent else 0) + (100 * rules.shipping_cents if offered.kind == FREE_SHIPPING else 0)
    return max(ceil(lost / per_cent), 2) if per_cent > 0 else None


def exactly(percent: float) -> Fraction:
    """A percentage as it is written: 12.3 is 123 ÷ 10, not the nearest binary number."""
    return Fraction(str(percent))


def code(key: bytes, campaign: str, customer_id: str, occasion: str) -> str:
    """The code of a person's offer for an occasion: nobody can guess it, and every step of the campaign shows the same.

    Twelve signs of base 32, which hold no 0, 1 or 8: they are easily mistaken.
    """
    text = "\0".join(("offer", campaign, customer_id, occasion))
    digest = base64.b32encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return "-".join((digest[:4], digest[4:8], digest[8:12]))


def counted(granted: Iterable[Mapping[str, Any]], rules: OfferRules, now: datetime) -> int:
    """How many of the offers ``granted`` (with ``granted_at``) count towards the cap."""
    since = now - timedelta(days=rules.cap_days)
    return sum(offer["granted_at"] > since for offer in granted)
