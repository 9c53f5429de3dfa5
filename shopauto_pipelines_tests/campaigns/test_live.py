"""Carts that were left just now: who gets which step, with which offer, from what the lake knows of their owners."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from shopauto_pipelines.campaigns import live, offers, shown
from shopauto_pipelines.campaigns.content import Renderer
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.live import CartTrigger, cart_waits, decide, longest_valid
from shopauto_pipelines.campaigns.products import Product
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform import prepared
from shopauto_pipelines.platform.lake import Lake, MissingPartition
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import PRODUCTS
from shopauto_pipelines_tests.campaigns.conftest import lake_rows

DAY = date(2026, 6, 30)
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CART = {"lamp": 1, "bulb": 4}
CAMPAIGN = load_campaigns()["abandoned_cart"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """A day of a small shop; each person differs from ``ann`` by what their name says."""
    lake = Lake(tmp_path_factory.mktemp("lake"), threads=2)
    ann = {"email": "ann@example.com", "email_consent": "opted_in", "churn_factor": 2.5, "language": "pt-BR"}
    people = {
        "ann": {},
        "asked": {"email_consent": "pending"},
        "at_ease": {"churn_factor": 0.5},
        "bought": {"last_order_on": DAY},
        "late": {"churn_factor": 4.0},
        "never_bought": {"churn_factor": None},
        "seeker": {"discount_seeker": True, "churn_factor": 9.0},
        "unreachable": {"email": None},
    }
    rows = [{"customer_id": name, "discount_seeker": False} | ann | differs for name, differs in people.items()]
    lake.write(CUSTOMER_360, [DAY], lake_rows(CUSTOMER_360, *rows))
    lake.write(SCORES, [DAY], lake_rows(SCORES, {"customer_id": "ann", "churn_probability": 0.25}))
    ids = [{"shop_customer_id": name, "customer_id": name} for name in people]
    lake.write(IDENTITIES, [DAY], lake_rows(IDENTITIES, *ids, {"shop_customer_id": "guest:ann", "customer_id": "ann"}))
    lake.write(MEMBERSHIP, [DAY], lake_rows(MEMBERSHIP, {"segment": "vip", "customer_id": "ann", "entered_on": DAY}))
    wares = [
        {
            "product_id": "lamp",
            "changed_at": datetime(2026, 1, 1),
            "name": "Old lamp",
            "price_cents": 1,
            "cost_cents": 1,
        },
        {
            "product_id": "lamp",
            "changed_at": datetime(2026, 2, 1),
            "name": "Lamp",
            "price_cents": 9000,
            "cost_cents": 3000,
        },
        {"product_id": "bulb", "changed_at": datetime(2026, 2, 1), "name": "Bulb", "price_cents": 500},
    ]
    lake.write(PRODUCTS, [DAY], lake_rows(PRODUCTS, *wares))
    return lake


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path, secret_key="k", holdout_percent=0, language="en")


@pytest.fixture
def decided(lake, settings):
    """``decided(trigger, …)``: the decisions now, as of the profile day."""
    campaign = CAMPAIGN.model_copy(update={"holdout_percent": 0.0})

    def run(*triggers: CartTrigger, offered=(), now=NOW, changed: Settings = settings, of=campaign) -> list[dict]:
        return decide(of, triggers, lake, changed, profile_day=DAY, now=now, offered=offered)

    return run


def left(customer: str = "ann", hours: float = 1, cart: str = "c1", **changes) -> CartTrigger:
    """A cart left so many hours ago."""
    gone = timedelta(hours=hours)
    return CartTrigger(customer, cart, NOW - gone, gone, CART)._replace(**changes)


def test_a_cart_left_for_an_hour_is_due_its_first_step(decided):
    (row,) = decided(left())
    explanation = json.loads(row.pop("explanation"))
    assert row == {
        "step": "reminder",
        "customer_id": "ann",
        "occasion": "c1",
        "triggered_on": date(2026, 7, 1),
        "due_on": date(2026, 7, 1),
        "decision": "planned",
        "reason": "due",
        "channel": "email",
        "template": "cart",
        "language": "pt-BR",
        "triggered_at": NOW - HOUR,
        "send_from": NOW.replace(tzinfo=None),
        "variant": None,
        "offer": None,
        "details": None,
    }
    assert explanation["trigger"] == "cart_abandoned"
    assert (explanation["wait_hours"], explanation["churn_probability"]) == (1.0, 0.25)
    assert explanation["cart"] == CART
    assert "offer" not in explanation


@pytest.mark.parametrize(
    ("hours", "steps"),
    [
        (0.99, []), (1, ["reminder"]), (12.99, ["reminder"]), (13, []), (23.99, []), (24, ["help"]), (35.99, ["help"]),
        (36, []), (72, ["last_call"]), (83.99, ["last_call"]), (84, []),
    ],
)  # fmt: skip
def test_a_step_is_due_for_its_valid_hours_from_its_wait_on(decided, hours, steps):
    assert [row["step"] for row in decided(left(hours=hours))] == steps


def test_no_step_is_due_before_the_cart_counts_as_abandoned(decided, settings):
    patient = settings.model_copy(update={"cart_abandoned_minutes": 90})
    hasty = settings.model_copy(update={"cart_abandoned_minutes": 30})
    for hours, threshold, due in ((1.4, patient, 0), (1.5, patient, 1), (0.4, hasty, 0), (0.5, hasty, 1)):
        assert len(decided(left(hours=hours), changed=threshold)) == due
    slow = settings.model_copy(update={"cart_abandoned_minutes": 30 * 60})
    assert [row["step"] for row in decided(left(hours=30), changed=slow)] == ["help"], "the turn of the first is over"


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        (left("unreachable"), "no_address"),
        (left("somebody nobody knows"), "no_address"),
        (left("asked"), "pending"),
        (left(ordered=True), "ordered"),
        (left("bought", hours=75), "ordered"),
        (left(contents={}), "cart_emptied"),
        (left(contents={"lamp": 0}), "cart_emptied"),
        (left(changed=True), "cart_changed"),
    ],
)
def test_who_gets_nothing_has_a_reason(decided, trigger, reason):
    (row,) = decided(trigger)
    assert (row["decision"], row["reason"], row["offer"]) == ("refused", reason, None)


def test_the_day_of_a_decision_is_the_shops_own(decided, settings):
    there = settings.model_copy(update={"timezone": "Pacific/Auckland"})
    (row,) = decided(left(), changed=there)
    assert (row["triggered_on"], row["due_on"]) == (date(2026, 7, 1), date(2026, 7, 2))


def test_the_campaign_s_segments_are_those_of_the_profile_day(decided):
    only_vips = CAMPAIGN.model_validate(
        CAMPAIGN.model_dump(exclude_none=True) | {"audience": {"include": ["vip"]}, "holdout_percent": 0}
    )
    rows = decided(left("ann"), left("late", cart="c2"), of=only_vips)
    assert [(row["customer_id"], row["reason"]) for row in rows] == [("ann", "due"), ("late", "not_in_audience")]


def test_a_cart_is_decided_once_for_the_person_whoever_the_shop_says_they_are(decided):
    rows = decided(left("guest:ann", hours=3), left("ann", hours=2), left("guest:ann", hours=1, cart="c2"))
    assert [(row["customer_id"], row["occasion"], row["triggered_at"]) for row in rows] == [
        ("ann", "c1", NOW - 2 * HOUR),
        ("ann", "c2", NOW - HOUR),
    ]


def test_nobody_is_decided_without_profiles(decided, lake, settings):
    with pytest.raises(MissingPartition):
        decide(CAMPAIGN, [left()], lake, settings, profile_day=DAY + timedelta(days=1), now=NOW, offered=())


@pytest.mark.parametrize(
    ("customer", "kind", "percent", "reason"),
    [
        ("ann", "percent", 5, "granted"),
        ("late", "percent", 10, "granted"),
        ("at_ease", "none", None, "reminder_only"),
        ("never_bought", "none", None, "no_churn_factor"),
        ("seeker", "none", None, "discount_seeker"),
    ],
)
def test_the_second_step_brings_what_the_churn_factor_calls_for(decided, settings, customer, kind, percent, reason):
    (row,) = decided(left(customer, hours=24))
    told = json.loads(row["explanation"])["offer"]
    assert (told["kind"], told["percent"], told["reason"]) == (kind, percent, reason)
    assert told["why"]
    if kind == "none":
        assert row["offer"] is None
        assert "code" not in told
        return
    code = offers.code(settings.hash_key, "abandoned_cart", customer, "c1")
    assert (told["code"], told["expires_on"]) == (code, "2026-07-08")
    assert row["offer"] == {
        "code": code,
        "campaign": "abandoned_cart",
        "customer_id": customer,
        "occasion": "c1",
        "kind": kind,
        "percent": percent,
        "category": None,
        "granted_at": NOW,
        "expires_at": datetime(2026, 7, 9, tzinfo=UTC),
        "why": told["why"],
    }


def test_a_product_that_nobody_knows_brings_no_offer(decided):
    (row,) = decided(left(hours=24, contents={"lamp": 1, "mystery": 1}))
    assert json.loads(row["explanation"])["offer"]["reason"] == "price_unknown"
    assert row["offer"] is None


def test_the_third_step_brings_the_offer_of_the_second_as_long_as_it_holds(decided):
    (second,) = decided(left(hours=24))
    later = NOW + 2 * timedelta(days=1)
    trigger = left(hours=24)._replace(waited=72 * HOUR)
    (third,) = decided(trigger, now=later, offered=[second["offer"] | {"minimum_cents": None}])
    assert third["step"] == "last_call"
    assert third["offer"] == second["offer"]
    assert json.loads(third["explanation"])["offer"] == json.loads(second["explanation"])["offer"]
    expired = second["offer"] | {"expires_at": later}
    (reminder,) = decided(trigger, now=later, offered=[expired])
    assert reminder["offer"] is None
    assert json.loads(reminder["explanation"])["offer"]["reason"] == "expired"


def test_two_carts_of_a_person_share_the_cap_of_offers(decided, settings):
    both = [left(hours=24, cart="c1"), left(hours=24, cart="c2")]
    reasons = [json.loads(row["explanation"])["offer"]["reason"] for row in decided(*both)]
    assert reasons == ["granted", "cap"]
    generous = settings.model_copy(update={"offer_cap": 2})
    assert all(row["offer"] for row in decided(*both, changed=generous))


def test_an_offer_of_long_ago_or_of_another_campaign_counts_by_its_day(decided):
    earlier = {
        "campaign": "lapsed_visitor", "customer_id": "ann", "occasion": "x", "code": "A", "kind": "percent", "percent": 10,
        "expires_at": NOW, "why": "",
    }  # fmt: skip
    for days, reason in ((89, "cap"), (90, "granted")):
        (row,) = decided(left(hours=24), offered=[earlier | {"granted_at": NOW - timedelta(days=days)}])
        assert json.loads(row["explanation"])["offer"]["reason"] == reason


def test_the_order_of_the_triggers_changes_nothing(decided):
    triggers = [left(who, hours, cart) for who, hours, cart in (("ann", 24, "b"), ("late", 24, "a"), ("ann", 25, "c"))]
    assert decided(*triggers) == decided(*reversed(triggers))


def test_the_waits_of_carts_are_those_of_every_campaign_about_carts(settings):
    shipped = load_campaigns().values()
    assert cart_waits(shipped, settings) == [HOUR, 24 * HOUR, 72 * HOUR]
    assert longest_valid(shipped) == 12 * HOUR
    none = [c.model_copy(update={"enabled": False}) if c.is_realtime else c for c in shipped]
    assert (cart_waits(none, settings), longest_valid(none)) == ([], timedelta())


def test_a_message_shows_the_cart_and_the_offer_of_its_explanation(decided, lake, settings):
    trigger = left(hours=24, contents={"bulb": 4, "lamp": 1, "mystery": 1, "gone": 0})
    (with_offer,) = decided(left(hours=24))
    (without,) = decided(trigger)
    showing = shown.showing(CAMPAIGN, lake, DAY, Renderer(CAMPAIGN, settings))
    readers = [shown.Reader("ann", "en", row["explanation"], row["step"]) for row in (with_offer, without)]
    readers.append(shown.Reader("ann", "pt-BR", json.dumps({"reason": "due"}), "help"))
    first, second, third = showing.of(readers)
    lamp = {"name": "Lamp", "pieces": 1, "label": "Lamp", "category": None, "price": "€90.00"}
    bulbs = {"name": "Bulb", "pieces": 4, "label": "4 × Bulb", "category": None, "price": "€5.00"}
    assert first.cart == second.cart == [lamp, bulbs], "what is worth most first, and nothing that has no name"
    code = with_offer["offer"]["code"]
    assert first.offer == {"kind": "percent", "percent": "5%", "code": code, "expires_on": "July 8, 2026"}
    assert second.offer is None
    assert third == shown.Shown(cart=[])


def test_products_of_a_cart_of_one_name_and_price_are_shown_whatever_else_the_shop_knows_of_them(settings):
    wares = {
        "blue": Product("Shirt", "shirts", 1900, None),
        "red": Product("Shirt", "shirts", 1900, 700),
        "white": Product("Shirt", None, 1900, None),
    }
    renderer = Renderer(CAMPAIGN, settings)
    shirts = renderer.cart({"red": 1, "white": 1, "blue": 1}, wares, "en")
    assert [ware["category"] for ware in shirts] == ["shirts", "shirts", None], "in the order of their ids"
    assert shirts == renderer.cart({"blue": 1, "white": 1, "red": 1}, wares, "en")


def test_what_is_compiled_in_advance_is_what_decisions_run(decided, monkeypatch):
    live.prepare()
    campaign = load_campaigns()["abandoned_cart"]
    monkeypatch.setattr(prepared, "compiled", lambda expression: pytest.fail("compiled again"))
    assert len(decided(left(hours=25), of=campaign)) == 1
