"""Each shipped campaign on a small shop: whom it reaches on the day, whom it leaves out, and why."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from shopauto_pipelines.campaigns.audience import Sources, audience, reads
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY, DAILY_FORMS, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.recommendations.tables import REPLENISHMENT
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS
from shopauto_pipelines_tests.campaigns.conftest import lake_rows

TODAY = date(2026, 6, 30)
DAYS_END = date(2026, 12, 29)


def ago(days: int) -> date:
    """The day so many days before today."""
    return TODAY - timedelta(days=days)


#: What is known of people beside their address and consent; whoever is not named here is in no table.
PEOPLE: dict[str, dict[str, Any]] = {
    "signed up today": {"created_on": TODAY},
    "born tomorrow": {"birthday": date(1990, 7, 1)},
    "born today": {"birthday": date(1990, 6, 30)},
    "ordered yesterday": {"last_order_on": ago(1)},
    "ordered last week": {"last_order_on": ago(7)},
    "ordered last week and since": {"last_order_on": ago(5)},
    "ordered two weeks ago": {"last_order_on": ago(14)},
    "ordered two weeks ago, then asked for help": {"last_order_on": ago(14), "last_ticket_on": ago(13)},
    "ordered two weeks ago and sent it back": {"last_order_on": ago(14)},
    "ordered two months ago": {"last_order_on": ago(60)},
    "ordered two months ago, lapsed": {"last_order_on": ago(60)},
    "coffee is used up": {},
    "coffee will last": {},
    "a lead with the guide": {},
    "a lead with the newsletter": {},
    "a customer with the guide": {},
    "looked": {},
    "looked and put into a cart": {},
    "looked and ordered": {"last_order_on": TODAY},
    "looked, and was written to about it": {},
    "became a vip": {},
    "became a vip again": {},
    "is expected": {"last_order_on": ago(40)},
    "is expected later": {"last_order_on": ago(40)},
    "lapsed": {"last_visit_on": ago(100)},
    "lapsed, not seen for years": {"last_visit_on": ago(800), "created_on": ago(900)},
    "asked for help": {"ticket_open": True, "last_ticket_on": ago(3)},
    "a fan of camping": {},
    "active": {},
}

SEGMENTS = {
    "lapsed": ("ordered two months ago, lapsed", "lapsed", "lapsed, not seen for years"),
    "lead": ("a lead with the guide", "a lead with the newsletter"),
    "browsing_mailed": ("looked, and was written to about it",),
    "vip": ("became a vip", "became a vip again"),
    "vip_thanked": ("became a vip again",),
    "fans_of:camping": ("a fan of camping",),
    "active": ("active", "asked for help"),
    "review_candidates": ("ordered two weeks ago", "ordered two weeks ago, then asked for help"),
}

#: Campaign → the steps people are due, with the reason. Of a broadcast only some of the people.
EXPECTED: dict[str, dict[tuple[str, str], str]] = {
    "support_follow_up": {("did_we_help", "asked for help"): "due"},
    "birthday": {("wishes", "born tomorrow"): "due"},
    "post_purchase": {
        ("thanks", "ordered yesterday"): "due",
        ("goes_with_it", "ordered last week"): "due",
        ("goes_with_it", "ordered last week and since"): "ordered",
    },
    "replenishment": {("running_low", "coffee is used up"): "due"},
    "lead_nurture": {
        ("guide", "a lead with the guide"): "due",
        ("guide", "a customer with the guide"): "not_in_audience",
    },
    "welcome": {("hello", "signed up today"): "due"},
    "browse_abandonment": {
        ("second_look", "looked"): "due",
        ("second_look", "looked, and was written to about it"): "excluded",
    },
    "vip": {("thank_you", "became a vip"): "due", ("thank_you", "became a vip again"): "excluded"},
    "next_order": {("picked_for_you", "is expected"): "due"},
    "launch": {},
    "win_back": {("we_miss_you", "lapsed"): "due", ("we_miss_you", "lapsed, not seen for years"): "sunset"},
    "review": {
        ("how_was_it", "ordered two weeks ago"): "due",
        ("how_was_it", "ordered two weeks ago, then asked for help"): "ticket_opened",
        ("how_was_it", "ordered two weeks ago and sent it back"): "not_in_audience",
    },
    "cross_sell": {
        ("added_later", "ordered two months ago"): "due",
        ("added_later", "ordered two months ago, lapsed"): "excluded",
    },
    "celebration": {("years_end", "active"): "due", ("years_end", "lapsed"): "not_in_audience"},
    "newsletter": {
        ("issue", "active"): "due",
        ("issue", "lapsed"): "excluded",
        ("issue", "asked for help"): "ticket_open",
    },
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Lake:
    """What the tables say of the people, as of today and of a day in December."""
    lake = Lake(tmp_path_factory.mktemp("shop") / "lake", threads=1)

    def write(table: Table, day: date, *rows: dict[str, Any]) -> None:
        lake.write(table, [day], lake_rows(table, *rows))

    def product(who: str, **numbers: int) -> dict[str, Any]:
        return {"shop_customer_id": who, "product_id": "tent", "category": "camping", **numbers}

    entered = {"vip": ago(2), "lapsed": TODAY}
    members = [
        {"segment": name, "customer_id": who, "entered_on": entered.get(name, ago(9))}
        for name in SEGMENTS
        for who in SEGMENTS[name]
    ]
    for day in (TODAY, DAYS_END):
        write(
            CUSTOMER_360,
            day,
            *(
                {"customer_id": who, "email": "a@example.com", "created_on": ago(300), **known}
                for who, known in PEOPLE.items()
            ),
        )
        agreed = {"channel": "email", "state": "opted_in", "at": datetime(2025, 1, 1)}
        write(CONSENT, day, *({"customer_id": who, **agreed} for who in PEOPLE))
        write(IDENTITIES, day, *({"shop_customer_id": who, "customer_id": who} for who in PEOPLE))
        write(MEMBERSHIP, day, *members)
        write(MESSAGE_EVENTS, day)
    for segment, day in entered.items():
        newly = [row for row in members if row["segment"] == segment and "ordered" not in str(row["customer_id"])]
        write(CHANGES, day, *(row | {"change": "entered"} for row in newly))
    for days, who_ordered in (
        (1, "ordered yesterday"),
        (7, "ordered last week"),
        (14, "ordered two weeks ago"),
        (60, "ordered two months ago"),
    ):
        buyers = [who for who in PEOPLE if who.startswith(who_ordered)]
        write(DAILY_PRODUCTS, ago(days), *(product(who, orders=1, quantity=1, revenue_cents=900) for who in buyers))
    lookers = [who for who in PEOPLE if who.startswith("looked")]
    write(
        DAILY_PRODUCTS,
        TODAY,
        *(
            product(who, views=3, carted=int("cart" in who), orders=int("ordered" in who), revenue_cents=1)
            for who in lookers
        ),
    )
    write(DAILY_ACTIVITY, ago(3), {"shop_customer_id": "asked for help", "tickets_opened": 1})
    for day in (ago(8), ago(7), TODAY):
        expected = {"is expected": TODAY + timedelta(days=7), "is expected later": TODAY + timedelta(days=9)}
        write(SCORES, day, *({"customer_id": who, "next_order_on": on} for who, on in expected.items()))
    write(SCORES, DAYS_END)
    pack = {"product_id": "coffee", "last_bought_on": ago(30), "due_on": TODAY, "used_up_on": TODAY}
    states = {"coffee is used up": "due", "coffee will last": "waiting"}
    write(REPLENISHMENT, TODAY, *({"customer_id": who, "state": state, **pack} for who, state in states.items()))
    forms = {
        "a lead with the guide": "guide",
        "a customer with the guide": "guide",
        "a lead with the newsletter": "news",
    }
    write(
        DAILY_FORMS, TODAY, *({"shop_customer_id": who, "form": form, "submissions": 1} for who, form in forms.items())
    )
    return lake


def test_every_shipped_campaign_is_expected_to_reach_somebody_here():
    by_the_hour = {name for name, campaign in load_campaigns().items() if campaign.is_realtime}
    assert set(EXPECTED) == set(load_campaigns()) - by_the_hour


@pytest.mark.parametrize("name", EXPECTED)
def test_a_shipped_campaign_reaches_whom_it_should_and_says_why_not_the_others(name, shop, tmp_path):
    campaign = load_campaigns()[name].model_copy(update={"holdout_percent": 0.0})
    settings = Settings(home=tmp_path, holdout_percent=0, _env_file=None)
    sources = Sources({table.name: LakeTable(shop, table) for table in reads(campaign)})
    as_of = DAYS_END if name == "celebration" else TODAY
    rows = shop.con.to_pyarrow(audience(campaign, sources, settings, as_of)).to_pylist()
    found = {(row["step"], row["customer_id"]): row["reason"] for row in rows}
    if campaign.trigger.broadcast and campaign.enabled:
        assert set(found) == {(campaign.steps[0].name, who) for who in PEOPLE}
        found = {key: found[key] for key in EXPECTED[name]}
    assert found == EXPECTED[name]
