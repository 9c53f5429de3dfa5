"""Complements, not substitutes: golden cases on a shop written by hand."""

from datetime import date, timedelta

import pytest

from shopauto_pipelines.recommendations import tables
from shopauto_pipelines_tests.recommendations.conftest import TODAY


def _fill(shop, fine: bool) -> None:
    """Mattresses and camping chairs with what goes with them, and soap that everybody buys; two years of sixty people.

    ``fine``: categories as fine as `mattresses`; otherwise all of a room of the house is one category.
    """
    goods = {
        "spring mattress": ("mattresses", "bedroom"),
        "foam mattress": ("mattresses", "bedroom"),
        "fitted sheet": ("sheets", "bedroom"),
        "pillow": ("pillows", "bedroom"),
        "wardrobe": ("wardrobes", "bedroom"),
        "camping chair": ("camping chairs", "camping"),
        "folding table": ("camping tables", "camping"),
        "folding bed": ("camping beds", "camping"),
        "camping stove": ("camping stoves", "camping"),
        "soap": ("soap", "bathroom"),
        "towel": ("towels", "bathroom"),
    }
    for name, categories in goods.items():
        shop.product(name, categories[0 if fine else 1])
    start = TODAY - timedelta(days=700)
    for n in range(60):
        who, day = f"c{n:02}", start + timedelta(days=11 * n)
        if n % 2:
            mattress = "spring mattress" if n % 4 == 1 else "foam mattress"
            shop.bought(who, day, mattress, *(["soap"] if n % 3 else []))
            if n % 10 != 7:
                shop.bought(who, day + timedelta(days=6), *(["fitted sheet", "pillow"] if n % 3 else ["fitted sheet"]))
            if n % 5 == 0:
                shop.bought(who, day + timedelta(days=200), "wardrobe")
        else:
            shop.bought(who, day, "camping chair", *([["folding table"], ["folding table", "folding bed"]][n % 4 == 0]))
            if n % 10 == 0:
                shop.bought(who, day + timedelta(days=90), "camping stove")
        for later in range(60, 500, 40):
            shop.bought(who, day + timedelta(days=later + n % 7), "soap", *(["towel"] if (n + later) % 3 else []))


def _pairs(rows):
    return {(row["product_id"], row["complement_id"]) for row in rows}


@pytest.mark.parametrize("fine", [True, False], ids=["fine categories", "coarse categories"])
def test_after_a_mattress_come_sheets_and_pillows_never_a_mattress_and_after_a_chair_table_and_folding_bed(shop, fine):
    _fill(shop, fine)
    pairs = _pairs(shop.found(tables.COMPLEMENTS))
    for mattress in ("spring mattress", "foam mattress"):
        assert (mattress, "fitted sheet") in pairs
        assert (mattress, "pillow") in pairs
    assert not {(a, b) for a, b in pairs if "mattress" in a and "mattress" in b}
    assert {b for a, b in pairs if a == "camping chair"} == {"folding table", "folding bed"}


@pytest.mark.parametrize("fine", [True, False], ids=["fine categories", "coarse categories"])
def test_what_everybody_buys_is_nobodys_complement(shop, fine):
    _fill(shop, fine)
    assert not {pair for pair in _pairs(shop.found(tables.COMPLEMENTS)) if "soap" in pair[1]}


def test_counts_lift_and_bounds_are_those_counted_by_hand(shop):
    for name, category in (("tent", "tents"), ("peg", "pegs"), ("book", "books")):
        shop.product(name, category)
    first = date(2025, 1, 1)
    for n in range(10):  # ten tents: eight with pegs within the window, one too late, one with none
        shop.bought(f"t{n}", first, "tent")
        if n < 9:
            shop.bought(f"t{n}", first + timedelta(days=31 if n == 8 else n), "peg")
    for n in range(80):
        shop.bought(f"b{n}", first, "book")
    (row,) = [r for r in shop.found(tables.COMPLEMENTS) if (r["product_id"], r["complement_id"]) == ("tent", "peg")]
    # order days: 10 of tents, 8 more of pegs alone (one is on the tent's own day), 80 of books; pegs follow 8 + 8 of them
    order_days, after_any = 10 + 8 + 80, 8 + 8
    assert (row["triggers"], row["pairs"], row["rank"]) == (10, 8, 1)
    assert row["support"] == pytest.approx(8 / order_days, abs=1e-6)
    expected = 10 * after_any / order_days
    assert row["lift"] == pytest.approx((8 + 1) / (expected + 1), abs=1e-5)
    assert row["confidence"] == pytest.approx((8 + 5 * after_any / order_days) / (10 + 5), abs=1e-5)
    assert 1 < row["lift_low"] < row["lift"]
    # Wilson's interval of 8 in 10, at 99 %
    assert row["confidence_low"] == pytest.approx(0.4008, abs=1e-4)
    assert row["confidence_high"] == pytest.approx(0.9598, abs=1e-4)


def test_a_pair_of_too_few_people_is_none_however_often_they_buy_it(shop):
    shop.product("a", "x")
    shop.product("b", "y")
    shop.product("c", "z")
    for n in range(20):
        shop.bought("one", date(2025, 1, 1) + timedelta(days=n), "a", "b")
        shop.bought(f"other{n}", date(2025, 1, 1), "c")
    assert shop.found(tables.COMPLEMENTS) == []
    assert _pairs(shop.found(tables.COMPLEMENTS, complement_people=1)) == {("a", "b"), ("b", "a")}


def test_a_giant_basket_says_nothing(shop):
    goods = [f"g{n}" for n in range(60)]
    for product in goods:
        shop.product(product, product)
    for n in range(6):
        shop.bought(f"wholesaler{n}", date(2025, 1, 1), *goods)
    for n in range(40):
        shop.bought(f"c{n}", date(2025, 1, 1), f"g{n}")
    assert shop.found(tables.COMPLEMENTS) == []


def test_a_category_declared_as_substitutes_has_no_complements_within(shop):
    _fill(shop, fine=False)
    pairs = _pairs(shop.found(tables.COMPLEMENTS, categories={"camping": {"substitutes": True}}))
    assert not {pair for pair in pairs if pair[0] == "camping chair"}
    assert ("foam mattress", "fitted sheet") in pairs


def test_a_person_is_offered_what_goes_with_the_latest_purchase_and_is_not_there_yet(shop):
    _fill(shop, fine=True)
    shop.bought("new", TODAY - timedelta(days=2), "foam mattress")
    shop.bought("supplied", TODAY - timedelta(days=2), "foam mattress", "fitted sheet")
    shop.bought("camper", TODAY - timedelta(days=200), "folding table")
    shop.bought("camper", TODAY, "camping chair")
    shop.stock("pillow", TODAY - timedelta(days=1), 0)
    rows = shop.found(tables.CUSTOMER_COMPLEMENTS, products={"folding table": {"durable": True}})
    offered = {who: [r["product_id"] for r in rows if r["customer_id"] == who] for who in ("new", "supplied", "camper")}
    assert offered["new"] == ["fitted sheet"], "pillows are out of stock"
    assert offered["supplied"] == []
    assert offered["camper"] == ["folding bed"], "a table is owned already"
    (row,) = [r for r in rows if r["customer_id"] == "new"]
    assert (row["bought_product_id"], row["bought_on"]) == ("foam mattress", TODAY - timedelta(days=2))
    assert row["why"] == "goes with foam mattress, bought last"


def test_what_was_sent_back_draws_no_complements(shop):
    _fill(shop, fine=True)
    for who in ("kept", "returned", "turned"):
        if who == "turned":
            shop.bought(who, TODAY - timedelta(days=50), "camping chair")
        shop.bought(who, TODAY - timedelta(days=40), "foam mattress")
        if who != "kept":
            shop.sent_back(who, TODAY - timedelta(days=20), "foam mattress")
    rows = shop.found(tables.CUSTOMER_COMPLEMENTS)
    offered = {
        (r["customer_id"], r["bought_product_id"]) for r in rows if r["customer_id"] in ("kept", "returned", "turned")
    }
    assert offered == {("kept", "foam mattress"), ("turned", "camping chair")}


def test_a_durable_is_offered_again_at_its_age_of_replacement(shop):
    _fill(shop, fine=True)
    shop.bought("camper", TODAY - timedelta(days=400), "folding table")
    shop.bought("camper", TODAY, "camping chair")

    def offered(days):
        rows = shop.found(tables.CUSTOMER_COMPLEMENTS, products={"folding table": {"replacement_days": days}})
        return {r["product_id"] for r in rows if r["customer_id"] == "camper"}

    assert offered(401) == {"folding bed"}
    assert offered(400) == {"folding bed", "folding table"}
