"""Offers of campaigns by the day: the same decisions as for carts, made by the engine; codes and caps when they are granted."""

import json
from datetime import UTC, datetime, timedelta

import ibis
import pyarrow as pa
import pytest

from shopauto_pipelines.campaigns.daily_offers import grant, places, with_offers
from shopauto_pipelines.campaigns.declaration import Step
from shopauto_pipelines.campaigns.grants import Grants
from shopauto_pipelines.campaigns.offers import TIERS, Line, OfferRules, decide, keeps_margin, least_order_cents
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.campaigns.conftest import declared

RULES = OfferRules(margin_percent=20, cost_percent=60, shipping_cents=500, cap=1, cap_days=90)
NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)


def _campaign(**more):
    steps = [
        Step(name="gift", wait_days=0, subject={"en": "Hi"}, template="a", offer={"valid_days": 7}),
        Step(name="plain", wait_days=1, subject={"en": "Hi"}, template="a"),
        Step(name="free", wait_days=2, subject={"en": "Hi"}, template="a", offer={"kind": "free_shipping"}),
    ]
    return declared(steps=steps, **more)


def _offers(campaign, rows, people, rules=RULES) -> dict:
    """The offers by customer, step and variant."""
    names = ("customer_id", "step", "variant", "decision")
    listed = [dict(zip(names, row, strict=True)) for row in rows]
    rows = ibis.memtable(pa.Table.from_pylist(listed, pa.schema([(name, pa.string()) for name in names])))
    known = ibis.memtable(
        pa.table(
            {
                "customer_id": [str(n) for n in range(len(people))],
                "churn_factor": pa.array([p[0] for p in people], pa.float64()),
                "discount_seeker": pa.array([p[1] for p in people], pa.bool_()),
                "typical_order_cents": pa.array([p[2] for p in people], pa.int64()),
            }
        )
    )
    found = ibis.duckdb.connect().to_pyarrow(with_offers(places(campaign), rows, known, rules)).to_pylist()
    return {
        (row["customer_id"], row["step"], row["variant"]): row["offer"] and json.loads(row["offer"]) for row in found
    }


@pytest.mark.parametrize(
    "rules",
    [RULES, RULES.__class__(32, 60, 500, 1, 90), RULES.__class__(37.5, 60.5, 0, 1, 90), RULES.__class__(39.9, 60, 100, 1, 90)],
)  # fmt: skip
def test_a_typical_order_brings_what_a_cart_of_its_price_would(rules):
    factors = (None, 0.0, 0.99, 1.0, 1.5, 2.0, 2.5, 3.0, 3.01, 40.0)
    people = [(f, s, w) for f in factors for s in (False, True, None) for w in (None, 400, 2_600, 12_345, 10**8)]
    found = _offers(_campaign(), [(str(n), "gift", None, "planned") for n in range(len(people))], people, rules)
    for n, (factor, seeker, worth) in enumerate(people):
        cart = decide(factor, bool(seeker), [Line(1, worth, None)], 0, rules)
        offer = found[str(n), "gift", None]
        assert (offer["kind"], offer["percent"], offer["reason"]) == (*cart.tier, cart.reason), (factor, seeker, worth)
        assert offer["why"] == cart.why


@pytest.mark.parametrize("margin", [0, 20, 33.3, 36, 38, 39.9, 90])
@pytest.mark.parametrize("tier", TIERS[1:], ids=str)
def test_from_the_least_order_on_the_margin_is_kept_and_well_below_it_is_not(tier, margin):
    rules = OfferRules(margin_percent=margin, cost_percent=60, shipping_cents=500, cap=1, cap_days=90)
    least = least_order_cents(tier, rules)
    if least is None:
        assert not keeps_margin(tier, [Line(1, 10**9 + 7, None)], rules)
    else:
        assert all(keeps_margin(tier, [Line(1, least + n, None)], rules) for n in range(250))
        assert least < 250 or not keeps_margin(tier, [Line(1, least * 9 // 10 - 100, None)], rules)


def test_only_planned_messages_of_steps_that_may_bring_an_offer_have_one():
    people = [(5.0, False, 10_000), (None, False, None), (None, True, None), (5.0, False, 600)]
    rows = [(str(n), step, None, "planned") for n in range(4) for step in ("plain", "free")]
    found = _offers(_campaign(), [*rows, ("0", "gift", None, "refused")], people)
    assert [found[str(n), "plain", None] for n in range(4)] == [None] * 4
    assert found["0", "gift", None] is None
    free = [found[str(n), "free", None] for n in range(4)]
    assert [(offer["kind"], offer["reason"]) for offer in free] == [
        ("free_shipping", "granted"), ("free_shipping", "granted"), ("none", "discount_seeker"), ("none", "margin"),
    ]  # fmt: skip


def test_a_variant_of_a_step_brings_its_own_offer():
    experiment = {
        "name": "test", "step": "gift", "sample_size": 100,
        "variants": {"control": {}, "dearer": {"offer": {"kind": "free_shipping"}}, "bare": {"offer": "none"}},
    }  # fmt: skip
    campaign = _campaign(experiment=experiment)
    rows = [("0", "gift", variant, "planned") for variant in ("control", "dearer", "bare")]
    found = _offers(campaign, rows, [(5.0, False, 10_000)])
    assert found["0", "gift", "control"]["percent"] == 10
    assert found["0", "gift", "dearer"]["kind"] == "free_shipping"
    assert found["0", "gift", "bare"] is None


def _granted(*before, cap: int = 1, timezone: str = "UTC", **changes):
    settings = Settings(_env_file=None, secret_key="k", offer_cap=cap, timezone=timezone)
    offer = {"kind": "percent", "percent": 5, "reason": "granted", "why": "because"}
    row = {
        "step": "gift",
        "variant": None,
        "customer_id": "a",
        "occasion": "2026",
        "offer": json.dumps(offer),
    } | changes
    return grant(_campaign(), row, Grants("hello", before, settings, NOW), OfferRules.of(settings))


def _earlier(**changes):
    known = {"code": "X", "campaign": "other", "customer_id": "a", "occasion": "o", "kind": "percent", "percent": 10}
    more = {"category": None, "granted_at": NOW - timedelta(days=1), "expires_at": NOW + timedelta(days=1), "why": "w"}
    return known | more | changes


def test_a_granted_offer_has_a_code_of_its_own_to_the_end_of_the_day_that_is_told():
    told, offer = _granted()
    assert (offer["kind"], offer["percent"], offer["expires_at"]) == ("percent", 5, datetime(2026, 7, 9, tzinfo=UTC))
    said = {"kind": "percent", "percent": 5, "reason": "granted", "why": "because"}
    assert told == said | {"code": offer["code"], "expires_on": "2026-07-08"}
    told, there = _granted(timezone="Pacific/Auckland")
    assert (told["expires_on"], there["expires_at"]) == ("2026-07-08", datetime(2026, 7, 8, 12, tzinfo=UTC))
    assert _granted(occasion="2027")[1]["code"] != offer["code"]
    assert _granted()[1]["code"] == offer["code"]


def test_what_was_granted_elsewhere_counts_towards_the_cap_and_the_same_occasion_brings_the_same_code():
    told, offer = _granted(_earlier())
    assert (told["kind"], told["reason"], offer) == ("none", "cap", None)
    assert _granted(_earlier(), cap=2)[1] is not None
    assert _granted(_earlier(granted_at=NOW - timedelta(days=91)))[1] is not None
    told, offer = _granted(_earlier(campaign="hello", occasion="2026"))
    assert (told["code"], offer["percent"]) == ("X", 10)
    told, offer = _granted(_earlier(campaign="hello", occasion="2026", expires_at=NOW))
    assert (told["reason"], offer) == ("expired", None)
    assert "cart" not in told["why"], "there is none"
