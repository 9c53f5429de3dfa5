"""Offers that are granted: each with a code of its own, once per person and occasion, and no more than the cap allows.

What is offered, and why, :mod:`.offers` decides; here it is set against what people have been granted before. Reads and
writes nothing: whoever calls brings the rows of ``shopauto.offers`` and puts the new ones there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from shopauto_pipelines.campaigns import offers
from shopauto_pipelines.platform.settings import Settings

#: Columns of an offer.
_OFFER = (
    *("code", "campaign", "customer_id", "occasion", "kind", "percent", "category"),
    *("granted_at", "expires_at", "why"),
)

#: Decides for somebody who has been granted so many offers within the cap's days.
Decide = Callable[[int], offers.Offer]


class Grants:
    """The offers of one round of decisions: those ``offered`` before, and those granted in it, count towards the cap.

    ``offered`` are rows of ``shopauto.offers``: all within the cap's days of the people asked about, and any of the occasions.
    """

    def __init__(self, campaign: str, offered: Iterable[Mapping[str, Any]], settings: Settings, now: datetime) -> None:
        self._campaign, self._settings, self._now = campaign, settings, now
        self._rules = offers.OfferRules.of(settings)
        self._of: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for offer in offered:
            self._of[offer["customer_id"]].append(offer)

    def grant(
        self, customer_id: str, occasion: str, valid_days: int, decide: Decide
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What the explanation tells of the offer, and the offer itself, a row of ``shopauto.offers``, where there is one.

        Every step of an occasion shows the same offer, until it expires: after ``valid_days``, at the end of the shop's day, the
        one that messages tell.
        """
        granted = self._of[customer_id]
        for before in granted:
            if (before["campaign"], before["occasion"]) == (self._campaign, occasion):
                if before["expires_at"] <= self._now:
                    return told(offers.Offer(offers.TIERS[0], "expired", offers.REASONS["expired"])), None
                return self._again(before)
        decided = decide(offers.counted(granted, self._rules, self._now))
        if decided.tier.kind == offers.NONE:
            return told(decided), None
        last_day = (self._now + timedelta(days=valid_days)).astimezone(self._settings.zone).date()
        offer = {
            "code": offers.code(self._settings.hash_key, self._campaign, customer_id, occasion),
            "campaign": self._campaign,
            "customer_id": customer_id,
            "occasion": occasion,
            "kind": decided.tier.kind,
            "percent": decided.tier.percent,
            "category": None,
            "granted_at": self._now,
            "expires_at": self._settings.midnight(last_day + timedelta(days=1)),
            "why": decided.why,
        }
        granted.append(offer)
        return told(decided) | self._shown(offer), offer

    def _again(self, before: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        known = {"kind": before["kind"], "percent": before["percent"], "reason": "granted", "why": before["why"]}
        return known | self._shown(before), {column: before[column] for column in _OFFER}

    def _shown(self, offer: Mapping[str, Any]) -> dict[str, Any]:
        expires_on = (offer["expires_at"] - timedelta.resolution).astimezone(self._settings.zone).date()
        return {"code": offer["code"], "expires_on": expires_on.isoformat()}


def told(decided: offers.Offer) -> dict[str, Any]:
    """A decision as explanations tell it."""
    return {
        "kind": decided.tier.kind,
        "percent": decided.tier.percent,
        "reason": decided.reason,
        "why": decided.why,
    }
