"""What an audience's offers cost: on typical orders, if everybody uses theirs, and as expected."""

import json
from datetime import date

import pytest

from shopauto_pipelines.campaigns import tables
from shopauto_pipelines.campaigns.costs import OfferCost, cost_cents, offer_costs, order_probability
from shopauto_pipelines.campaigns.declaration import Step
from shopauto_pipelines.campaigns.offers import TIERS, OfferRules
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines_tests.campaigns.conftest import declared, lake_rows

DAY = date(2026, 6, 30)
RULES = OfferRules(margin_percent=20, cost_percent=60, shipping_cents=500, cap=1, cap_days=90)
NOTHING, SHIPPING, FIVE, TEN = TIERS


def test_an_offer_costs_a_part_of_the_typical_order_or_the_shipping():
    assert [cost_cents(tier, 1_999, RULES) for tier in TIERS] == [0, 500, 100, 200]
    assert cost_cents(SHIPPING, None, RULES) == 500


@pytest.mark.parametrize(
    ("churn", "days", "chance"), [(None, 7, 1.0), (0.25, 90, 0.75), (0.25, 45, 0.5), (1.0, 7, 0.0)]
)
def test_an_order_comes_at_an_even_pace_over_the_horizon(churn, days, chance):
    assert order_probability(churn, days, 90) == pytest.approx(chance)


def test_the_costs_of_an_audience_count_planned_offers_by_kind(lake):
    campaign = declared(
        steps=[Step(name="gift", wait_days=0, subject={"en": "Hi"}, template="a", offer={"valid_days": 45})]
    )
    planned = [("a", TEN, "planned"), ("b", TEN, "planned"), ("c", SHIPPING, "planned"), ("d", NOTHING, "planned")]
    rows = [
        {
            "step": "gift",
            "customer_id": who,
            "decision": decision,
            "triggered_on": DAY,
            "due_on": DAY,
            "offer": json.dumps({"kind": tier.kind, "percent": tier.percent, "reason": "granted", "why": "because"}),
        }
        for who, tier, decision in planned
    ]
    rows.append({**rows[0], "customer_id": "e", "decision": "refused", "offer": None})
    lake.write(tables.audience("hello"), [DAY], lake_rows(tables.audience("hello"), *rows))
    people = [{"customer_id": who, "typical_order_cents": 10_000} for who in "abde"] + [{"customer_id": "c"}]
    lake.write(CUSTOMER_360, [DAY], lake_rows(CUSTOMER_360, *people))
    scores = [{"customer_id": "a", "churn_probability": 0.25}, {"customer_id": "c", "churn_probability": 0.01}]
    lake.write(SCORES, [DAY], lake_rows(SCORES, *scores))

    found = offer_costs(lake, campaign, DAY, RULES, 90)
    assert found == [OfferCost(SHIPPING, 1, 500, 450), OfferCost(TEN, 2, 2_000, 500 + 1_000)]
