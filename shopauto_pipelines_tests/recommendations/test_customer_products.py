"""Products for each person: what must never be among them, and why each is."""

from datetime import date, timedelta

import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.recommendations import ranking, tables
from shopauto_pipelines_tests.recommendations.conftest import TODAY, random_shop


def _fill(shop):
    """People who like either tea things or garden things."""
    for kind in ("tea", "garden"):
        for n in range(6):
            shop.product(f"{kind}{n}", kind)
    for person in range(40):
        kind = "tea" if person % 2 else "garden"
        for n in range(4):
            shop.bought(f"c{person:02}", TODAY - timedelta(days=20 + 30 * n), f"{kind}{(person // 2 + n) % 6}")


def _of(shop, who, **options):
    rows = [row for row in shop.found(tables.CUSTOMER_PRODUCTS, **options) if row["customer_id"] == who]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["product_id"] for row in rows}) == len(rows)
    return {row["product_id"]: row for row in rows}


def test_a_person_gets_what_people_alike_buy_with_a_reason(shop):
    _fill(shop)
    shop.bought("new", TODAY - timedelta(days=3), "tea0", "tea0 twin")
    shop.bought("new", TODAY - timedelta(days=40), "tea0")
    shop.viewed("new", TODAY - timedelta(days=1), "garden5")
    rows = _of(shop, "new")
    first = list(rows)
    assert set(first[:7]) == {*(f"tea{n}" for n in range(6)), "garden5"}
    assert (rows["tea0"]["reason"], rows["tea0"]["why"]) == ("bought_before", "bought 2 times, last 3 days ago")
    assert (rows["garden5"]["reason"], rows["garden5"]["why"]) == ("viewed", "viewed yesterday")
    assert (rows["tea3"]["reason"], rows["tea3"]["because_product_id"]) == ("bought_together", "tea0")
    assert rows["tea3"]["why"] == "people who like tea0 like it too"
    assert "tea0 twin" not in rows, "the shop does not list it"


def test_somebody_without_neighbours_gets_what_is_popular(shop):
    _fill(shop)
    shop.product("odd", "tea")
    shop.viewed("new", TODAY, "odd")
    rows = _of(shop, "new")
    assert {row["reason"] for name, row in rows.items() if name.startswith("tea")} == {"popular_in_category"}
    assert {row["reason"] for name, row in rows.items() if name.startswith("garden")} == {"popular"}


def test_an_owned_durable_is_not_recommended_until_its_age_of_replacement(shop):
    _fill(shop)
    own = {f"garden{n}" for n in range(4)}
    kept = {"products": {name: {"replacement_days": 100} for name in own}}
    assert own <= set(_of(shop, "c00"))
    # bought 20, 50, 80 and 110 days ago
    assert own & set(_of(shop, "c00", **kept)) == {"garden3"}


def test_who_sent_a_durable_back_owns_none(shop):
    _fill(shop)
    declared = {"categories": {"garden": {"durable": True, "replacement_days": 2000}}}
    for who in ("returned", "kept one of two", "kept the first"):
        shop.bought(who, TODAY - timedelta(days=500), "garden0", quantity=2 if "two" in who else 1)
        shop.viewed(who, TODAY, "garden1")
        if "first" in who:
            shop.bought(who, TODAY - timedelta(days=450), "garden0")
        shop.sent_back(who, TODAY - timedelta(days=400), "garden0", None if who == "returned" else 1)
    assert {"garden0", "garden1"} <= set(_of(shop, "returned", **declared))
    assert not {"garden0", "garden1"} & set(_of(shop, "kept one of two", **declared))
    assert not {"garden0", "garden1"} & set(_of(shop, "kept the first", **declared))
    refused = _of(shop, "returned", refusal_days=401, **declared)
    assert "garden1" in refused, "another one of its kind is what they may look for"
    assert "garden0" not in refused


def test_nothing_replaces_an_owned_durable_but_its_complements_stay(shop):
    for name in ("spring mattress", "foam mattress", "mattress cover", "oak bed", "pine bed", "bed drawer"):
        shop.product(name, "bedroom")
    for n in range(30):
        shop.bought(f"c{n:02}", TODAY - timedelta(days=100), "foam mattress", "mattress cover", "oak bed")
        shop.bought(f"d{n:02}", TODAY - timedelta(days=100), "spring mattress", "bed drawer", "pine bed")
        shop.bought(f"e{n:02}", TODAY - timedelta(days=100), f"other{n}")
    durable = {
        name: {"durable": True}
        for name in ("spring mattress", "foam mattress", "mattress cover", "oak bed", "pine bed")
    }
    shop.bought("me", TODAY - timedelta(days=5), "foam mattress")
    shop.viewed("me", TODAY, "spring mattress", "mattress cover")
    rows = _of(shop, "me", products=durable)
    assert "spring mattress" not in rows, "shares a word with what is owned, and nobody buys both"
    assert {"mattress cover", "oak bed"} <= set(rows), "they go with it"
    rows = _of(shop, "me", categories={"bedroom": {"durable": True}})
    assert set(rows) == {"mattress cover", "oak bed"}, "of a category that is durable altogether only complements"


def test_what_is_out_of_stock_is_not_recommended(shop):
    _fill(shop)
    assert "tea5" in _of(shop, "c01")
    shop.stock("tea5", TODAY, 0)
    assert "tea5" not in _of(shop, "c01")


def test_who_sends_some_of_the_pieces_back_keeps_the_others(shop):
    _fill(shop)
    shop.bought("c00", TODAY - timedelta(days=9), "garden0", quantity=5)
    shop.sent_back("c00", TODAY - timedelta(days=7), "garden0", 2)
    assert "garden0" in _of(shop, "c00")
    shop.sent_back("c00", TODAY - timedelta(days=6), "garden0", 3)
    assert "garden0" not in _of(shop, "c00")


def test_what_was_sent_back_is_not_recommended_until_bought_again(shop):
    _fill(shop)
    assert "garden0" in _of(shop, "c00")
    shop.sent_back("c00", TODAY - timedelta(days=10), "garden0")
    assert "garden0" not in _of(shop, "c00")
    assert "garden0" in _of(shop, "c00", refusal_days=10)
    shop.bought("c00", TODAY - timedelta(days=9), "garden0")
    assert "garden0" in _of(shop, "c00")


@pytest.fixture(scope="module")
def lakes(tmp_path_factory):
    """The same shop in a lake of one thread and in one of four, with all tables of the room; and these."""
    folder = tmp_path_factory.mktemp("recommendations")
    shops = [random_shop(Lake(folder / f"lake{threads}", threads=threads), seed=3) for threads in (1, 4)]
    return shops, [shop.everything() for shop in shops]


def test_rows_after_the_day_change_nothing(lakes):
    (shop, _other), (made, _again) = lakes
    assert any(row["day"] > TODAY for row in shop.rows["daily_products"])
    assert made == shop.everything(until=TODAY)
    assert [name for name, rows in made.items() if not rows.num_rows] == []


def test_the_same_rows_give_the_same_bytes_with_any_number_of_threads(lakes):
    one, four = lakes[0]
    for table in tables.TABLES:
        assert one.lake.path(table, TODAY).read_bytes() == four.lake.path(table, TODAY).read_bytes(), table.name


def test_people_in_buckets_get_the_same(lakes, monkeypatch):
    (shop, _other), (made, _again) = lakes
    monkeypatch.setattr("shopauto_pipelines.recommendations.making.BUCKET_PEOPLE", 13)
    assert shop.made(tables.CUSTOMER_PRODUCTS).equals(made[tables.CUSTOMER_PRODUCTS.name])


def test_a_random_shop_recommends_nothing_that_is_owned_missing_or_refused(lakes):
    (shop, _other), (made, _again) = lakes
    goods = {row["product_id"]: row for row in made[tables.PRODUCTS.name].to_pylist()}
    owner = {row["shop_customer_id"]: row["customer_id"] for row in shop.rows["identities"]}

    def last(name, product="product_id"):
        days = {}
        for row in shop.rows[name]:
            if row["day"] <= TODAY and row.get("orders", 1):
                key = (owner[row["shop_customer_id"]], row[product])
                days[key] = max(days.get(key, date.min), row["day"])
        return days

    bought, back = last("daily_products"), last("refunds")
    rows = made[tables.CUSTOMER_PRODUCTS.name].to_pylist()
    assert len(rows) > 300
    for row in rows:
        key = (row["customer_id"], row["product_id"])
        product = goods[row["product_id"]]
        assert product["available"]
        assert not (product["durable"] and key in bought) or bought[key] <= back.get(key, date.min)
        lately = TODAY - back.get(key, date.min) < timedelta(days=365)
        assert not (lately and bought.get(key, date.min) <= back[key])


def test_without_the_filter_there_would_be_some(lakes, monkeypatch, tmp_path):
    (shop, _other), (made, _again) = lakes
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))  # where no statement with the filter is kept
    monkeypatch.setattr(ranking, "allowed", lambda rows: rows)
    ranking.of_customers.cache_clear()
    try:
        unfiltered = shop.made(tables.CUSTOMER_PRODUCTS)
    finally:
        ranking.of_customers.cache_clear()
    key = ("customer_id", "product_id")
    assert {*zip(*(unfiltered[name].to_pylist() for name in key), strict=True)} - {
        *zip(*(made[tables.CUSTOMER_PRODUCTS.name][name].to_pylist() for name in key), strict=True)
    }
