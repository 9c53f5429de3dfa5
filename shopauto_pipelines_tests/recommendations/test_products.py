"""What the sales of a product say: kept or used up, for how long, and whether it can be had."""

from datetime import timedelta

import pytest

from shopauto_pipelines.recommendations import tables
from shopauto_pipelines_tests.recommendations.conftest import TODAY


def _fill(shop):
    """Forty people who buy coffee every month for a year and, once, one of two drills; and books, never the same twice."""
    shop.product("coffee", "food")
    for name in ("drill", "big drill"):
        shop.product(name, "drills")
    for n in range(12):
        shop.product(f"book {n}", "books")
    for person in range(40):
        who = f"c{person:02}"
        for month in range(12):
            day = TODAY - timedelta(days=360 - 30 * month - person % 5)
            shop.bought(who, day, "coffee", f"book {month}", quantity=1 + person % 2)
        shop.bought(who, TODAY - timedelta(days=350), "drill" if person % 10 else "big drill")


def _products(shop, **declared):
    return {row["product_id"]: row for row in shop.found(tables.PRODUCTS, **declared)}


def test_what_owners_never_buy_again_is_durable_and_so_is_a_category_they_do_not_come_back_to(shop):
    _fill(shop)
    found = _products(shop)
    assert [(found[name]["durable"], found[name]["category_durable"]) for name in ("drill", "coffee", "book 0")] == [
        (True, True),
        (False, False),
        (True, False),
    ]
    assert found["drill"]["replacement_days"] == 1825
    assert found["coffee"]["replacement_days"] is None
    assert (found["drill"]["durable_basis"], found["book 0"]["durable_basis"]) == ("category", "product")
    assert found["big drill"]["durable"], "four owners say little, but nobody buys any drill again"


def test_what_is_declared_wins_and_the_product_over_its_category(shop):
    _fill(shop)
    found = _products(
        shop,
        categories={"drills": {"durable": False}, "food": {"replacement_days": 90}},
        products={"big drill": {"durable": True, "replacement_days": 3000}},
    )
    assert [found[name]["durable"] for name in ("drill", "big drill", "coffee")] == [False, True, True]
    assert [found[name]["replacement_days"] for name in ("big drill", "coffee")] == [3000, 90]
    assert found["coffee"]["durable_basis"] == "declared"
    assert found["drill"]["durable_basis"] is None


def test_who_never_ordered_again_says_nothing_about_how_long_a_thing_lasts(shop):
    shop.product("lamp", "lamps")
    for n in range(500):
        shop.bought(f"c{n}", TODAY - timedelta(days=700), "lamp")
    assert not _products(shop)["lamp"]["durable"]


def test_a_pack_lasts_the_days_between_purchases_by_the_pieces_of_the_first(shop):
    _fill(shop)
    coffee = _products(shop)["coffee"]
    # 11 times 30 days; half of the people buy one piece at a time, half of them two
    assert coffee["days_per_piece"] == pytest.approx(40 * 330 / (20 * 11 * 1 + 20 * 11 * 2))
    assert coffee["pieces_per_purchase"] == pytest.approx(1.5)
    assert coffee["repurchases"] == 40 * 11


def test_a_product_can_be_had_while_any_warehouse_has_it_and_the_shop_still_sells_it(shop):
    for name in ("plenty", "elsewhere", "gone", "silent", "old"):
        shop.product(name)
        shop.viewed("c1", TODAY - timedelta(days=200 if name == "old" else 3), name)
    shop.bought("c1", TODAY, "unlisted")
    for name, levels in {"plenty": [("a", 5)], "elsewhere": [("a", 0), ("b", 1)], "gone": [("a", 4), ("a", 0)]}.items():
        for n, (warehouse, level) in enumerate(levels):
            shop.stock(name, TODAY - timedelta(days=9 - n), level, warehouse)
    shop.stock("plenty", TODAY + timedelta(days=1), 0, "a")  # not known yet
    found = _products(shop)
    assert {name: row["available"] for name, row in found.items()} == {
        "plenty": True,
        "elsewhere": True,
        "gone": False,
        "silent": True,
        "old": False,
        "unlisted": False,
    }
    assert {name: row["stock"] for name, row in found.items() if row["stock"] is not None} == {
        "plenty": 5,
        "elsewhere": 1,
        "gone": 0,
    }
    assert _products(shop, off_sale_days=201)["old"]["available"]


def test_two_shop_ids_of_one_person_are_one_buyer(shop):
    shop.product("lamp", "lamps")
    shop.person("s1", "s1")
    shop.person("s2", "s1")
    shop.bought("s1", TODAY - timedelta(days=9), "lamp")
    shop.bought("s2", TODAY - timedelta(days=2), "lamp")
    lamp = _products(shop)["lamp"]
    assert (lamp["buyers"], lamp["repurchases"]) == (1, 1)
