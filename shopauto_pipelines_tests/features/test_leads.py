"""Stages and scores of leads: every point has its reason, and nothing after the day counts."""

from datetime import date, datetime, timedelta

import pytest

from shopauto_pipelines.features import tables
from shopauto_pipelines.features.leads import LATELY_DAYS, READY, SIGNS, leads
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw

TODAY = date(2025, 6, 30)


def ago(days):
    return TODAY - timedelta(days=days)


@pytest.fixture
def person(shop):
    """Adds a person with what is known of them: profile and behaviour."""

    def add(who, *, email=None, first_name=None, country=None, created_on=None, **behaviour):
        shop.identity(who, who)
        profile = {"email": email, "first_name": first_name, "country": country, "created_on": created_on}
        shop.add(profiles.CUSTOMERS, TODAY, customer_id=who, **profile)
        shop.add(tables.CUSTOMER_FEATURES, TODAY, customer_id=who, **behaviour)

    return add


@pytest.fixture
def form(shop):
    def add(who, days, name="guide", **utm):
        at = datetime.combine(ago(days), datetime.min.time()) + timedelta(hours=9)
        number = len(shop.rows(raw.FORM_SUBMISSIONS))
        shop.add(
            raw.FORM_SUBMISSIONS,
            ago(days),
            submission_id=f"s{number}",
            submitted_at=at,
            form=name,
            shop_customer_id=who,
            **{f"utm_{key}": value for key, value in utm.items()},
        )

    return add


@pytest.fixture
def found(shop):
    def compute():
        logs = (tables.DAILY_PRODUCTS, raw.FORM_SUBMISSIONS, profiles.IDENTITIES)
        known = (shop.table(profiles.CUSTOMERS), shop.table(tables.CUSTOMER_FEATURES))
        rows = shop.con.to_pyarrow(leads(*known, *map(shop.table, logs), TODAY)).to_pylist()
        return {row.pop("customer_id"): row for row in rows}

    return compute


def test_the_points_add_up_to_a_hundred_and_the_score_is_the_sum_of_its_reasons(shop, person, form, found):
    assert sum(sign.points for sign in SIGNS) == 100
    person("buyer", country="GB", orders=3)
    person(
        "eager",
        **{"email": "a@example.com", "first_name": "A", "country": "GB", "created_on": ago(9), "clicks_90d": 1},
        product_views_30d=4,
        product_views_90d=4,
        last_visit_on=ago(1),
    )
    form("eager", 3, source="search", campaign="spring")
    form("eager", 40, source="friend", medium="mail")
    shop.add(tables.DAILY_PRODUCTS, ago(2), shop_customer_id="eager", product_id="p", carted=1)
    eager = found()["eager"]
    assert (eager["score"], eager["fit"], eager["intent"], eager["stage"]) == (100, 40, 60, "decision")
    assert eager["why"] == "; ".join(f"{sign.words}: {sign.points}" for sign in SIGNS)
    assert (eager["first_source"], eager["first_medium"], eager["first_campaign"]) == ("friend", "mail", None)
    assert (eager["last_form"], eager["last_form_on"]) == ("guide", ago(3))


def test_stages_follow_what_somebody_does(shop, person, form, found):
    person("known", email="a@example.com")
    person("reader", product_views_90d=1)
    person("clicker", clicks_90d=1)
    person("texted", sms_clicks_90d=1)
    person("asked", email="b@example.com")
    form("asked", LATELY_DAYS + 20)
    person("carter")
    shop.add(tables.DAILY_PRODUCTS, ago(LATELY_DAYS - 1), shop_customer_id="carter", product_id="p", carted=2)
    person("late")
    shop.add(tables.DAILY_PRODUCTS, ago(LATELY_DAYS), shop_customer_id="late", product_id="p", carted=2)
    person("buyer", orders=1)
    stages = {who: row["stage"] for who, row in found().items()}
    assert stages == {
        "known": "awareness",
        "reader": "consideration",
        "clicker": "consideration",
        "texted": "consideration",
        "asked": "consideration",
        "carter": "decision",
        "late": "awareness",
        "buyer": "customer",
    }
    assert found()["buyer"]["score"] is None
    assert found()["asked"]["score"] == 15 < READY  # the form is too long ago to say much of intent


def test_nothing_after_the_day_counts_and_a_country_counts_where_buyers_live(shop, person, form, found):
    for n in range(20):
        person(f"buyer {n}", country="GB", orders=1)
    person("near", country="GB")
    person("far", country="NZ")
    person("nowhere")
    before = found()
    form("near", -1)
    shop.add(tables.DAILY_PRODUCTS, ago(-1), shop_customer_id="near", product_id="p", carted=1)
    assert found() == before
    assert [before[who]["score"] for who in ("near", "far", "nowhere")] == [10, 0, 0]
