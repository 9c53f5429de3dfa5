"""Offers: who gets which incentive for which cart, and what holds for any of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopauto_pipelines.campaigns import offers
from shopauto_pipelines.campaigns.offers import FREE_SHIPPING, NONE, PERCENT, TIERS, Line, OfferRules, Tier, decide
from shopauto_pipelines.platform.settings import Settings

RULES = OfferRules(margin_percent=20.0, cost_percent=60.0, shipping_cents=500, cap=1, cap_days=90)
CART = [Line(1, 10_000, 3_000), Line(2, 2_000, None)]

_cents = st.integers(0, 100_000)
_lines = st.lists(st.builds(Line, st.integers(1, 9), st.none() | _cents, st.none() | _cents), max_size=4)
_rules = st.builds(
    OfferRules,
    margin_percent=st.floats(0, 100),
    cost_percent=st.floats(0, 100),
    shipping_cents=st.integers(0, 5_000),
    cap=st.integers(0, 3),
    cap_days=st.just(90),
)
_factors = st.floats(0, 10)


@pytest.mark.parametrize(
    ("churn_factor", "tier"),
    [
        (0, Tier(NONE)), (0.999, Tier(NONE)), (1, Tier(FREE_SHIPPING)), (1.999, Tier(FREE_SHIPPING)), (2, Tier(PERCENT, 5)),
        (3, Tier(PERCENT, 5)), (3.001, Tier(PERCENT, 10)), (100, Tier(PERCENT, 10)),
    ],
)  # fmt: skip
def test_the_tier_follows_the_churn_factor(churn_factor, tier):
    offer = decide(churn_factor, False, CART, 0, RULES)
    assert offer.tier == tier
    assert offer.reason == ("granted" if tier.kind != NONE else "reminder_only")
    assert f"{churn_factor:.2f}" in offer.why


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"discount_seeker": True}, "discount_seeker"),
        ({"churn_factor": None}, "no_churn_factor"),
        ({"granted": 1}, "cap"),
        ({"lines": [*CART, Line(1, None, 5)]}, "price_unknown"),
        ({"lines": []}, "price_unknown"),
        ({"rules": replace(RULES, cap=0)}, "cap"),
    ],
)
def test_who_gets_no_offer_is_told_why(changes, reason):
    asked = {"churn_factor": 5.0, "discount_seeker": False, "lines": CART, "granted": 0, "rules": RULES} | changes
    assert decide(**asked) == (TIERS[0], reason, offers.REASONS[reason])


def test_the_margin_decides_how_much_of_a_tier_a_cart_can_bear():
    def of(cost: int, churn_factor: float = 9.0, price: int = 10_000) -> tuple[Tier, str]:
        offer = decide(churn_factor, False, [Line(1, price, cost)], 0, RULES)
        return offer.tier, offer.reason

    assert of(7_200) == (Tier(PERCENT, 10), "granted"), "9,000 paid, 1,800 left: exactly 20 %"
    assert of(7_201) == (Tier(PERCENT, 5), "margin")
    assert of(7_600) == (Tier(PERCENT, 5), "margin")
    assert of(7_601) == (Tier(NONE), "margin")
    assert of(7_500, 1.5) == (Tier(FREE_SHIPPING), "granted"), "10,000 paid, 2,000 left after 500 of postage"
    assert of(7_501, 1.5) == (Tier(NONE), "margin")
    assert of(7_501, 2.5) == (Tier(PERCENT, 5), "granted"), "of a dear cart a percentage may cost less than postage"


def test_a_cost_that_is_not_known_is_a_share_of_the_price():
    assert decide(9, False, [Line(1, 10_000, None)], 0, replace(RULES, cost_percent=72)).tier == Tier(PERCENT, 10)
    assert decide(9, False, [Line(1, 10_000, None)], 0, replace(RULES, cost_percent=72.01)).tier == Tier(PERCENT, 5)


@given(_factors, _factors, _lines, st.integers(0, 3), _rules)
def test_nobody_is_offered_less_for_being_more_overdue(one, other, lines, granted, rules):
    low, high = sorted((one, other))
    less, more = (TIERS.index(decide(factor, False, lines, granted, rules).tier) for factor in (low, high))
    assert less <= more


@given(st.none() | _factors, st.booleans(), _lines, st.integers(0, 3), _rules)
def test_no_offer_takes_the_margin_below_the_floor_nor_goes_over_the_cap_nor_to_those_who_wait_for_it(
    churn_factor, seeker, lines, granted, rules
):
    offer = decide(churn_factor, seeker, lines, granted, rules)
    assert offer.reason in offers.REASONS
    assert offer.why
    if offer.tier.kind == NONE:
        return
    assert not seeker
    assert churn_factor is not None
    assert churn_factor >= 1
    assert granted < rules.cap
    worth = sum(line.pieces * line.price_cents for line in lines)
    cost = sum(
        line.pieces
        * (line.cost_cents if line.cost_cents is not None else line.price_cents * Fraction(rules.cost_percent) / 100)
        for line in lines
    )
    paid = worth * Fraction(100 - (offer.tier.percent or 0), 100)
    cost += rules.shipping_cents if offer.tier.kind == FREE_SHIPPING else 0
    assert paid > 0
    assert (paid - cost) / paid >= Fraction(rules.margin_percent) / 100


def test_a_code_is_the_person_s_own_for_the_occasion_and_nobody_can_guess_it():
    key, other = b"k" * 32, b"o" * 32
    codes = {
        offers.code(by, campaign, who, cart)
        for by in (key, other)
        for campaign in ("abandoned_cart", "b")
        for who in ("ann", "ben")
        for cart in ("c1", "c2")
    }
    assert len(codes) == 16
    assert offers.code(key, "b", "ann", "c1") == offers.code(key, "b", "ann", "c1")
    assert all(set(code) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567-") and len(code) == 14 for code in codes)


def test_offers_count_towards_the_cap_for_its_days():
    now = datetime(2026, 7, 1, tzinfo=UTC)
    granted = [{"granted_at": now - timedelta(days=days)} for days in (0, 89, 90, 400)]
    assert offers.counted(granted, RULES, now) == 2


def test_the_rules_are_the_settings():
    settings = Settings(
        _env_file=None, offer_margin_percent=1, offer_cost_percent=2, offer_shipping_cents=3, offer_cap=4
    )
    assert OfferRules.of(settings) == OfferRules(1.0, 2.0, 3, 4, 90)
