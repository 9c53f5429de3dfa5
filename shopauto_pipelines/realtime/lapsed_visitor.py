"""The on-site offer to a visitor who is a lapsed customer: who gets it, and why everybody else does not. Pure.

The rule is read in two ways (setting ``onsite_rule``). ``history``: the offer is for customers who have spent more per order
in their favourite category than all customers do there on average. ``basket``: it is for every lapsed customer, and holds
for a basket that is above that average. A lapse begins with the last order; there is one offer in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from shopauto_pipelines.campaigns.offers import PERCENT, Line, OfferRules, Tier, keeps_margin
from shopauto_pipelines.platform.settings import Settings

#: Reasons with which something is offered: now, or again.
OFFERED = ("granted", "repeated")


@dataclass(frozen=True)
class Offer:
    """A discount on a category, to be used once with its code. ``minimum_cents``: the least basket, minor units."""

    percent: int
    category: str
    code: str
    expires_at: datetime
    minimum_cents: int | None = None


@dataclass(frozen=True)
class Visitor:
    """What is known of a visitor who is a customer. The first fields are of ``people``.

    ``ordered`` is whether they bought after ``last_order_on``, ``other_offers`` the number of offers they had for other
    reasons in the days that the cap counts, ``offer`` the one of this lapse, ``goods`` a basket of the favourite category.
    """

    customer_id: str
    as_of: date
    lapsed: bool
    held_out: bool
    discount_seeker: bool
    last_order_on: date | None
    churn_factor: float | None
    favourite_category: str | None
    favourite_category_order_cents: int | None
    category_average_order_cents: int | None
    ordered: bool
    other_offers: int
    offer: Offer | None
    goods: tuple[Line, ...] = ()

    @property
    def occasion(self) -> str:
        """The lapse, named by the day of the last order: the ledger's key knows one message of it."""
        return str(self.last_order_on)


def refusal(visitor: Visitor | None, settings: Settings, *, now: datetime) -> str | None:
    """Why nothing is offered; ``None`` where something is. The first reason that holds.

    ``unknown``; ``stale``, in live mode; ``not_lapsed``; ``ordered`` since; ``discount_seeker``; ``holdout``; ``expired``,
    the offer of this lapse; ``no_favourite``; ``below_average``; ``cap`` of offers; ``price_unknown``; ``margin``, where the
    discount would take it below the floor. Whether somebody can be written to is not
    asked: they came by themselves, and nothing is sent.
    """
    if visitor is None:
        return "unknown"
    if settings.live and stale(visitor.as_of, settings, now):
        return "stale"
    if not visitor.lapsed:
        return "not_lapsed"
    if visitor.ordered:
        return "ordered"
    if visitor.discount_seeker:
        return "discount_seeker"
    if visitor.held_out:
        return "holdout"
    if visitor.offer:
        return None if now < visitor.offer.expires_at else "expired"
    own, average = visitor.favourite_category_order_cents, visitor.category_average_order_cents
    if visitor.last_order_on is None or visitor.favourite_category is None or average is None:
        return "no_favourite"
    if settings.onsite_rule == "history" and (own is None or own <= average):
        return "below_average"
    rules = OfferRules.of(settings)
    if visitor.other_offers >= rules.cap:
        return "cap"
    if not visitor.goods:
        return "price_unknown"
    return None if keeps_margin(Tier(PERCENT, settings.onsite_percent), visitor.goods, rules) else "margin"


def offer(visitor: Visitor, settings: Settings, code: str, *, now: datetime) -> Offer:
    """What is offered to a visitor with whom :func:`refusal` finds nothing wrong: theirs again, or a new one."""
    if visitor.offer:
        return visitor.offer
    assert visitor.favourite_category is not None
    assert visitor.category_average_order_cents is not None
    return Offer(
        percent=settings.onsite_percent,
        category=visitor.favourite_category,
        code=code,
        expires_at=now + timedelta(days=settings.onsite_valid_days),
        minimum_cents=visitor.category_average_order_cents + 1 if settings.onsite_rule == "basket" else None,
    )


def why(visitor: Visitor, settings: Settings) -> str:
    """The rule that an offer rests on, in a sentence for whoever reads the ledger."""
    if settings.onsite_rule == "basket":
        return f"lapsed; holds for a basket above the average of {visitor.favourite_category}"
    return f"lapsed; has spent more per order in {visitor.favourite_category} than customers do on average"


def explanation(visitor: Visitor, made: Offer, settings: Settings) -> dict[str, Any]:
    """Why this person was chosen, for the ledger: facts and the offer, without private data."""
    return {
        "trigger": "visit",
        "occasion": visitor.occasion,
        "profile_day": str(visitor.as_of),
        "segments": ["lapsed"],
        "scores": {"churn_factor": visitor.churn_factor},
        "facts": {
            "last_order_on": visitor.occasion,
            "favourite_category": visitor.favourite_category,
            "favourite_category_order_cents": visitor.favourite_category_order_cents,
            "category_average_order_cents": visitor.category_average_order_cents,
        },
        "offer": {
            "kind": "percent",
            "percent": made.percent,
            "category": made.category,
            "code": made.code,
            "minimum_cents": made.minimum_cents,
            "expires_on": str(made.expires_at.astimezone(settings.zone).date()),
            "why": why(visitor, settings),
        },
    }


def stale(as_of: date, settings: Settings, now: datetime) -> bool:
    """Whether what is served is too old to decide on."""
    return (now.astimezone(settings.zone).date() - as_of).days > settings.realtime_profile_days
