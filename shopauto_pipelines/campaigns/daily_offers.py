"""Offers of campaigns by the day: which one each planned message brings, by the rules of :mod:`.offers`, as a column.

There is no cart, so the margin is that of a typical order of the person. Decided as of the day; the code, and the cap on offers,
which knows what was granted meanwhile, come when the message is put into the ledger (:func:`grant`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from functools import partial, reduce
from operator import or_
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.grants import Grants, told
from shopauto_pipelines.campaigns.offers import (
    FREE_SHIPPING,
    NONE,
    REASONS,
    TIERS,
    Offer,
    OfferRules,
    Tier,
    least_order_cents,
)
from shopauto_pipelines.campaigns.planning import as_named, noted
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import Prepared, kept, unseen

_FACTS = ("churn_factor", "discount_seeker", "typical_order_cents")


class Place(NamedTuple):
    """Where a campaign may bring an offer: a step, its variant where it is experimented with; ``fixed``: of one kind for all."""

    step: str
    variant: str | None
    fixed: bool


def places(campaign: Campaign) -> tuple[Place, ...]:
    """Every place of the campaign."""
    found: list[Place] = []
    tried = campaign.experiment
    for step in campaign.steps:
        variants = tried.variants if tried and tried.step == step.name else (None,)
        for variant in variants:
            incentive = campaign.step(step.name, variant).offer
            if incentive:
                found.append(Place(step.name, variant, bool(incentive.kind)))
    return tuple(found)


def with_offers(places: Sequence[Place], rows: ir.Table, people: ir.Table, rules: OfferRules) -> ir.Table:
    """``rows`` of the audience with ``offer``: of each planned one whose step may bring an offer, what and why; JSON.

    ``people`` are ``features/customer_360`` as of the day.
    """
    if not places:
        return rows
    known = rows.left_join(people.select("customer_id", *_FACTS), "customer_id").drop("customer_id_right")
    kinds = ((False, _by_churn(rules)), (True, _fixed(rules)))
    branches = [
        (here & condition, text)
        for fixed, decisions in kinds
        if (here := _any(_here(place) for place in places if place.fixed is fixed)) is not None
        for condition, text in decisions
    ]
    nothing = ibis.null("string")
    return known.mutate(offer=ibis.cases((_.decision != "planned", nothing), *branches, else_=nothing)).drop(*_FACTS)


def offered(lake: Lake, campaign: Campaign, rows: ir.Table, people: ir.Table, rules: OfferRules) -> ir.Table:
    """:func:`with_offers`, as a statement that is compiled once; ``rows``, a table of the lake's connection, is dropped."""
    chosen = _statement(places(campaign), astuple(rules))
    told = noted(lake, f"offered_{campaign.name}", chosen, {"decided": rows, "customer_360": people})
    lake.engine.drop(rows.get_name())  # it may be as large as what is told
    return told


@kept
def _statement(places: tuple[Place, ...], rules: tuple[Any, ...]) -> Prepared:
    rows, people = unseen(audience("decided"), "decided"), unseen(CUSTOMER_360, "customer_360")
    told = with_offers(places, rows, people, OfferRules(*rules))
    return Prepared.of(told, as_named("decided", "customer_360"))


def _any(conditions: Iterable[Deferred]) -> Deferred | None:
    found = list(conditions)
    return reduce(or_, found) if found else None


def _here(place: Place) -> Deferred:
    return (_.step == place.step) & (_.variant == place.variant) if place.variant else _.step == place.step


#: Decisions in order, the first that holds counts: its condition, and what is told of it, JSON.
_Decisions = list[tuple[Deferred, Deferred | str]]


def _by_churn(rules: OfferRules) -> _Decisions:
    """:func:`~.offers.decide` on one piece of the price of a typical order, cap aside: a flat list, so that it stays small."""
    factor, order = _.churn_factor, _.typical_order_cents
    decisions: _Decisions = [
        (_.discount_seeker.fill_null(False), _told(TIERS[0], "discount_seeker")),
        (factor.isnull(), _told(TIERS[0], "no_churn_factor")),
        (factor < 1, _with_factor(TIERS[0], "reminder_only", REASONS["reminder_only"])),
        (order.isnull(), _told(TIERS[0], "price_unknown")),
    ]
    for place, overdue in ((3, factor > 3), (2, factor >= 2), (1, factor >= 1)):
        wanted = TIERS[place]
        floor = f"{wanted} would leave a margin below {rules.margin_percent:g} %"
        for tier in TIERS[place:0:-1]:
            least = least_order_cents(tier, rules)
            if least is None:
                continue
            reason = "granted" if tier == wanted else "margin"
            why = str(tier) if tier == wanted else f"{tier}, as {floor}"
            decisions.append((overdue & (order >= least), _with_factor(tier, reason, why)))
        decisions.append((overdue, _with_factor(TIERS[0], "margin", f"{TIERS[0]}, as {floor}")))
    return decisions


def _fixed(rules: OfferRules) -> _Decisions:
    """Free shipping for everybody but discount seekers, where a typical order bears it or is not known yet."""
    free, least = Tier(FREE_SHIPPING), least_order_cents(Tier(FREE_SHIPPING), rules)
    unborne = _.typical_order_cents.notnull() & (_.typical_order_cents < least if least is not None else True)
    floor = f"{free} would leave a margin below {rules.margin_percent:g} %"
    return [
        (_.discount_seeker.fill_null(False), _told(TIERS[0], "discount_seeker")),
        (unborne, _told(TIERS[0], "margin", floor)),
        (ibis.literal(True), _told(free, "granted", f"{free}, as the step declares")),
    ]


def _told(tier: Tier, reason: str, why: str | None = None) -> str:
    return json.dumps(told(Offer(tier, reason, REASONS[reason] if why is None else why)), ensure_ascii=False)


def _with_factor(tier: Tier, reason: str, why: str) -> Deferred:
    """:func:`_told` with the person's churn factor in it."""
    before, after = _told(tier, reason, f"churn factor \0: {why}").split("\\u0000")
    return before + _.churn_factor.round(2).cast("decimal(18,2)").cast("string") + after


def grant(
    campaign: Campaign, row: Mapping[str, Any], grants: Grants, rules: OfferRules
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the explanation of a planned row tells of its ``offer``, and the row of ``shopauto.offers`` where there is one."""
    incentive = campaign.step(row["step"], row["variant"]).offer
    if incentive is None:
        raise ValueError(f"step {row['step']} of {campaign.name} brings no offer")
    decided = partial(_within_cap, json.loads(row["offer"]), rules)
    return grants.grant(row["customer_id"], row["occasion"], incentive.valid_days, decided)


def _within_cap(said: Mapping[str, Any], rules: OfferRules, granted: int) -> Offer:
    if said["kind"] != NONE and granted >= rules.cap:
        return Offer(TIERS[0], "cap", REASONS["cap"])
    return Offer(Tier(said["kind"], said["percent"]), said["reason"], said["why"])
