"""Next categories, replenishment, gaps in the catalogue and trends, on shops written by hand."""

import math
from datetime import date, timedelta

import pytest

from shopauto_pipelines.recommendations import tables
from shopauto_pipelines_tests.recommendations.conftest import TODAY


def _coffee(shop, people=10):
    """People who buy a pack of coffee every 30 days; the last one of person n was 10 + n days ago."""
    shop.product("coffee", "food", "Coffee 1 kg")
    for n in range(people):
        for month in range(6):
            shop.bought(f"c{n}", TODAY - timedelta(days=10 + n + 30 * month), "coffee")


def _packs(shop, **options):
    return {row["customer_id"]: row for row in shop.found(tables.REPLENISHMENT, **options)}


def test_two_packs_last_twice_as_long(shop):
    _coffee(shop)
    shop.bought("one", TODAY, "coffee")
    shop.bought("two", TODAY, "coffee", quantity=2)
    packs = _packs(shop)
    assert packs["one"]["days_per_piece"] == packs["two"]["days_per_piece"] == 30
    assert packs["one"]["used_up_on"] == TODAY + timedelta(days=30)
    assert packs["two"]["used_up_on"] == TODAY + timedelta(days=60)
    assert packs["two"]["due_on"] == TODAY + timedelta(days=57)
    assert packs["two"]["why"] == f"bought 2 on {TODAY}, which last 60 days"


def test_a_reminder_is_due_before_the_pack_is_used_up_and_a_reorder_begins_anew(shop):
    _coffee(shop)
    shop.bought("early", TODAY - timedelta(days=26), "coffee")
    shop.bought("due", TODAY - timedelta(days=27), "coffee")
    shop.bought("late", TODAY - timedelta(days=31), "coffee")
    shop.bought("gone", TODAY - timedelta(days=61), "coffee")
    states = {who: row["state"] for who, row in _packs(shop).items() if not who.startswith("c")}
    assert states == {"early": "waiting", "due": "due", "late": "overdue"}
    shop.bought("due", TODAY, "coffee")
    assert _packs(shop)["due"]["state"] == "waiting"
    assert _packs(shop)["due"]["due_on"] > TODAY


def test_own_purchases_outweigh_the_products_time_the_more_of_them_there_are(shop):
    _coffee(shop, people=100)
    for person, purchases in (("few", 2), ("many", 8)):
        for n in range(purchases):
            shop.bought(person, TODAY - timedelta(days=90 * n), "coffee")
    product = shop.found(tables.PRODUCTS)[0]["days_per_piece"]
    packs = _packs(shop)
    assert packs["few"]["days_per_piece"] == pytest.approx((90 + product) / 2, abs=1e-4)
    assert packs["many"]["days_per_piece"] == pytest.approx((7 * 90 + product) / 8, abs=1e-4)


def test_what_is_kept_sent_back_or_out_of_stock_is_not_replenished(shop):
    _coffee(shop)
    shop.bought("back", TODAY - timedelta(days=28), "coffee")
    shop.sent_back("back", TODAY - timedelta(days=20), "coffee")
    assert "back" not in _packs(shop)
    assert "c0" in _packs(shop)
    assert _packs(shop, products={"coffee": {"durable": True}}) == {}
    shop.stock("coffee", TODAY, 0)
    assert _packs(shop) == {}


def test_the_next_category_follows_from_own_purchases_and_the_shops_season(shop):
    for category in ("tea", "garden", "books"):
        shop.product(category, category)
    for n in range(30):
        shop.bought(f"c{n}", TODAY - timedelta(days=5), "garden")
        shop.bought(f"d{n}", TODAY - timedelta(days=60), "books")
    for n in range(9):
        shop.bought("reader", TODAY - timedelta(days=60 + n), "books")
    shop.viewed("visitor", TODAY, "tea")
    rows = shop.found(tables.NEXT_CATEGORIES)
    by_person = {}
    for row in rows:
        by_person.setdefault(row["customer_id"], []).append((row["category"], row["probability"]))
    assert [category for category, _ in by_person["reader"]] == ["books", "garden"]
    assert [category for category, _ in by_person["visitor"]] == ["garden", "tea"], "the season, then what was viewed"
    books = sum(0.5 ** ((60 + n) / 365) for n in range(9))
    assert by_person["reader"][0][1] == pytest.approx(books / (books + 4), abs=1e-5)
    for person, found in by_person.items():
        assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5), person


def test_where_the_shop_has_sold_nothing_lately_probabilities_are_of_what_the_person_did_alone(shop):
    for name in ("book", "tea"):
        shop.product(name, name)
    shop.bought("reader", TODAY - timedelta(days=60), "book")
    shop.bought("reader", TODAY - timedelta(days=60), "tea")
    shop.bought("drinker", TODAY - timedelta(days=200), "tea")
    found = [(row["customer_id"], row["category"], row["probability"]) for row in shop.found(tables.NEXT_CATEGORIES)]
    assert sorted(found) == [("drinker", "tea", 1.0), ("reader", "book", 0.5), ("reader", "tea", 0.5)]


def test_a_term_that_leads_to_no_product_is_a_gap_and_private_or_rare_terms_are_none(shop):
    for n in range(40):
        day, visit = TODAY - timedelta(days=n % 20), f"v{n}"
        shop.event("search", f"c{n}", day, "/search?q=camping+chair", visit)
        shop.event("product_view", f"c{n}", day, "/p/1", visit)
        if n < 12:
            shop.event("search", f"c{n}", day, "/suche?x=1&q=Hammock%20", f"w{n}")
            shop.event("page_view", f"c{n}", day, "/", f"w{n}")
            shop.event("search", f"c{n}", day, f"/search?q=ann{n % 2}@example.com", f"x{n}")
            shop.event("search", f"c{n}", day, "/search?q=0171 123456789", f"y{n}")
        if n < 4:
            shop.event("search", f"c{n}", day, "/search?q=rare", f"z{n}")
    shop.event("search", "c1", TODAY - timedelta(days=95), "/search?q=hammock", "long ago")
    shop.event("search", "c1", TODAY, "/search?q=caf%E9%", "of a machine that writes no UTF-8")
    (gap,) = shop.found(tables.CATALOGUE_GAPS)
    assert (gap["kind"], gap["subject"], gap["people"], gap["demand"], gap["unmet"]) == (
        "search",
        "hammock",
        12,
        12,
        12,
    )
    assert gap["why"] == "12 of 12 searches led to no product"
    assert gap["unmet_share_low"] == pytest.approx(1 / (1 + 1.959964**2 / 12), abs=1e-5)


def test_a_sold_out_complement_is_a_gap_with_what_it_goes_with(shop):
    for name in ("tent", "peg", "book"):
        shop.product(name, name)
    for n in range(20):
        shop.bought(f"t{n}", TODAY - timedelta(days=40), "tent", "peg")
        shop.bought(f"b{n}", TODAY - timedelta(days=40), "book")
    shop.viewed("t1", TODAY, "peg")
    assert shop.found(tables.CATALOGUE_GAPS) == []
    shop.stock("peg", TODAY, 0)
    (gap,) = shop.found(tables.CATALOGUE_GAPS)
    assert (gap["kind"], gap["subject"], gap["because_product_id"]) == ("out_of_stock", "peg", "tent")
    assert (gap["people"], gap["demand"]) == (20, 21)
    assert gap["why"] == "viewed on 1 days, goes with 20 purchases"


def _weeks(shop, name, start, units):
    for n, count in enumerate(units):
        shop.bought("c", start + timedelta(days=7 * n + n % 7), name, quantity=count)


def test_a_season_is_no_trend_where_the_year_before_is_known(shop):
    monday = date(2024, 12, 30)
    season = [20 + round(15 * math.sin(2 * math.pi * n / 52)) for n in range(61)]
    for name, growth in (("steady", 1.0), ("growing", 1.6)):
        shop.product(name, name)
        _weeks(shop, name, monday, [round(units * (growth if n >= 52 else 1)) for n, units in enumerate(season)])
    rows = {r["category"]: r for r in shop.found(tables.CATEGORY_TRENDS) if r["week_on"] == date(2026, 2, 23)}
    assert (rows["steady"]["basis"], rows["steady"]["trend"]) == ("year_ago", "steady")
    assert rows["growing"]["trend"] == "rising"
    assert rows["growing"]["change_percent"] == pytest.approx(60, abs=3)
    assert rows["growing"]["units_8w"] == sum(round(u * 1.6) for u in season[53:61])
    assert rows["growing"]["units_year_ago"] == season[60 - 52]


def test_without_a_year_before_the_share_of_the_shop_is_compared_and_it_says_so(shop):
    monday = date(2025, 10, 27)
    for name in ("even", "fading", "large"):
        shop.product(name, name)
    # the whole shop doubles after nine weeks; one category does not
    shop_size = [1] * 9 + [2] * 8
    _weeks(shop, "even", monday, [20 * size for size in shop_size])
    _weeks(shop, "large", monday, [5000 * size for size in shop_size])
    _weeks(shop, "fading", monday, [20] * 17)
    rows = {r["category"]: r for r in shop.found(tables.CATEGORY_TRENDS) if r["week_on"] == date(2026, 2, 16)}
    assert {r["basis"] for r in rows.values()} == {"previous_weeks"}
    assert {name: r["trend"] for name, r in rows.items()} == {"even": "steady", "large": "steady", "fading": "falling"}
    early = [r for r in shop.found(tables.CATEGORY_TRENDS) if r["week_on"] == date(2025, 12, 15)]
    assert {(r["basis"], r["change_percent"], r["trend"]) for r in early} == {(None, None, "unknown")}


def test_a_week_that_is_not_over_and_the_first_cut_one_are_not_listed(shop):
    shop.product("a", "a")
    for n in range(40):
        shop.bought("c", TODAY - timedelta(days=n), "a")  # TODAY is a Sunday
    weeks = [r["week_on"] for r in shop.found(tables.CATEGORY_TRENDS)]
    assert weeks[-1] == TODAY - timedelta(days=6)
    assert min(weeks) == date(2026, 1, 26), "21 January, the first day, is a Wednesday"
    saturday = [r["week_on"] for r in shop.found(tables.CATEGORY_TRENDS, as_of=TODAY - timedelta(days=1))]
    assert saturday[-1] == TODAY - timedelta(days=13)
