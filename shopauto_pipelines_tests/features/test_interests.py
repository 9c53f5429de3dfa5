from datetime import date, timedelta

import ibis
import pytest

from shopauto_pipelines.features import tables
from shopauto_pipelines.features.customer_360 import customer_360
from shopauto_pipelines.features.interests import HALF_LIFE_DAYS, MOST, first_day, interests
from shopauto_pipelines.profiles import tables as profiles

TODAY = date(2025, 6, 30)


def ago(days):
    return TODAY - timedelta(days=days)


@pytest.fixture
def did(shop):
    """Adds what somebody did with a product of a category so many days ago."""

    def add(who, category, days, **counts):
        shop.add(
            tables.DAILY_PRODUCTS,
            ago(days),
            shop_customer_id=who,
            product_id=f"{category} 1",
            category=category,
            **counts,
        )

    return add


@pytest.fixture
def found(shop):
    """Interests of the shop: ``{person: [row, …]}``, best first."""

    def compute(as_of=TODAY):
        rows = interests(shop.table(tables.DAILY_PRODUCTS), shop.table(profiles.IDENTITIES), as_of)
        people = {}
        for row in shop.con.to_pyarrow(rows.order_by("customer_id", "rank")).to_pylist():
            people.setdefault(row.pop("customer_id"), []).append(row)
        return people

    return compute


def test_each_purchase_of_today_halves_what_is_missing_to_one(did, found):
    did("a", "tents", 0, orders=1)
    did("b", "tents", 0, orders=1)
    did("b", "tents", 0, orders=2)
    did("c", "tents", 0, carted=1)
    did("d", "tents", 0, views=9)
    did("e", "tents", HALF_LIFE_DAYS, orders=1)
    scores = {who: rows[0]["score"] for who, rows in found().items()}
    assert scores == pytest.approx(
        {"a": 0.5, "b": 0.75, "c": 1 - 0.5**0.3, "d": 1 - 0.5**0.1, "e": 1 - 0.5**0.5}, abs=1e-6
    )


def test_a_product_counts_by_its_strongest_sign_of_the_day(did, found):
    did("a", "tents", 0, orders=1, carted=2, views=5)
    assert found()["a"][0]["score"] == 0.5


def test_the_evidence_is_told_in_columns_and_in_words(did, found):
    did("a", "tents", 3, orders=1, revenue_cents=900, carted=1, views=2)
    did("a", "tents", 9, orders=2, revenue_cents=500)
    did("a", "mugs", 5, views=1)
    tents, mugs = found()["a"]
    assert {name: tents[name] for name in ("purchases", "carted", "views", "revenue_cents", "rank", "category")} == {
        "purchases": 2, "carted": 1, "views": 2, "revenue_cents": 1400, "rank": 1, "category": "tents",
    }  # fmt: skip
    assert (tents["last_bought_on"], tents["last_carted_on"], tents["last_viewed_on"]) == (ago(3),) * 3
    assert tents["why"] == (
        "bought 2 times, last on 2025-06-27; put into a cart once, on 2025-06-27; viewed 2 times, last on 2025-06-27"
    )
    assert (mugs["rank"], mugs["why"], mugs["last_on"]) == (2, "viewed once, on 2025-06-25", ago(5))
    assert mugs["last_bought_on"] is None


def test_nothing_after_the_day_and_nothing_before_the_window_counts(did, found):
    did("a", "tents", 0, orders=1)
    did("a", "mugs", 365, orders=1)
    assert [row["category"] for row in found()["a"]] == ["tents"]
    assert found(ago(1)) == {"a": found(ago(1))["a"]}
    assert [row["category"] for row in found(ago(1))["a"]] == ["mugs"]
    assert first_day(TODAY) == ago(364)


def test_the_interests_of_two_shop_ids_of_a_person_are_one(shop, did, found):
    shop.identity("a", "ada")
    shop.identity("b", "ada")
    did("a", "tents", 0, orders=1)
    did("b", "tents", 0, orders=1)
    did("c", "tents", 0, orders=1)
    assert {who: rows[0]["score"] for who, rows in found().items()} == {"ada": 0.75, "c": 0.5}


def test_ties_go_to_the_first_in_the_alphabet_and_the_weakest_of_many_are_left_out(did, found):
    for n in range(MOST + 2):
        did("a", f"c{n:02}", 1, orders=1)
    did("a", "c99", 0, orders=1)
    assert [row["category"] for row in found()["a"]] == ["c99", *(f"c{n:02}" for n in range(MOST - 1))]


def test_the_top_interest_and_the_cluster_are_columns_of_the_360_view(shop, did):
    did("a", "tents", 0, orders=1)
    did("a", "mugs", 0, views=1)
    shop.identity("a", "a")
    shop.identity("b", "b")
    for who in "ab":
        shop.add(profiles.CUSTOMERS, TODAY, customer_id=who)
        shop.add(tables.CUSTOMER_FEATURES, TODAY, customer_id=who)
    shop.add(tables.CLUSTERS, TODAY, customer_id="b", cluster="average_buyers")
    liked = interests(shop.table(tables.DAILY_PRODUCTS), shop.table(profiles.IDENTITIES), TODAY)
    rows = customer_360(
        *(shop.table(table) for table in (profiles.CUSTOMERS, tables.CUSTOMER_FEATURES)),
        liked,
        shop.table(tables.CLUSTERS),
        shop.table(profiles.CUSTOMERS).select("customer_id", best_hour=ibis.null("int64")),
        shop.table(tables.LEADS),
    )
    found = shop.con.to_pyarrow(rows.select("customer_id", "top_interest", "cluster").order_by(ibis.asc("customer_id")))
    assert [tuple(row.values()) for row in found.to_pylist()] == [("a", "tents", None), ("b", None, "average_buyers")]


def test_what_is_put_into_a_cart_is_rolled_up_by_product(shop):
    from datetime import datetime

    at = datetime(2025, 6, 30, 9)
    for product in ("tent", "tent", None):
        shop.event("add_to_cart", at, "a", product_id=product, cart_id="k")
    shop.event("remove_from_cart", at, "a", product_id="tent", cart_id="k")
    (row,) = shop.rolled(tables.DAILY_PRODUCTS)
    assert (row["product_id"], row["carted"], row["views"], row["orders"]) == ("tent", 2, 0, 0)
