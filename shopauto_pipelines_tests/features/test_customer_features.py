"""Features as of a day, each computed by hand from a few rows of the rollups or of raw."""

from datetime import date, datetime, timedelta
from random import Random
from statistics import median
from zoneinfo import ZoneInfo

import pytest

from shopauto_pipelines.features import tables
from shopauto_pipelines.features.customer_features import end_of_day

AS_OF = date(2026, 6, 30)


def ago(days: int) -> date:
    return AS_OF - timedelta(days=days)


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute)


def product(shop, who, day, product_id, category, cents, quantity=1):
    shop.add(
        tables.DAILY_PRODUCTS, day, shop_customer_id=who, product_id=product_id, category=category, orders=1,
        quantity=quantity, revenue_cents=cents,
    )  # fmt: skip


def test_thirty_days_after_the_last_order_a_rhythm_of_thirty_days_gives_churn_factor_one(shop):
    for days in (90, 60, 30):
        shop.bought("a", ago(days))
    row = shop.features(AS_OF)["a"]
    assert (row["recency_days"], row["mean_interval_days"], row["churn_factor"]) == (30, 30.0, 1.0)
    assert row["interval_imputed"] is False
    assert (row["first_order_on"], row["last_order_on"], row["tenure_days"]) == (ago(90), ago(30), 90)


def test_the_mean_interval_is_the_span_over_the_gaps(shop):
    for days in (107, 100, 7):
        shop.bought("a", ago(days))
    row = shop.features(AS_OF)["a"]
    assert (row["mean_interval_days"], row["churn_factor"]) == (50.0, 0.14)


def test_several_orders_on_a_day_are_one_purchase(shop):
    shop.bought("a", ago(40), cents=1000, orders=3)
    shop.bought("a", ago(20), cents=501)
    row = shop.features(AS_OF)["a"]
    assert (row["orders"], row["orders_30d"], row["mean_interval_days"]) == (2, 1, 20.0)
    assert (row["revenue_cents"], row["average_order_cents"]) == (1501, 751)


def test_who_bought_twice_on_one_day_only_is_a_one_order_customer_with_the_cohorts_interval(shop):
    shop.bought("a", ago(60), orders=2)
    shop.identity("b1", "b")
    shop.identity("b2", "b")
    shop.bought("b1", ago(60))  # two shop ids of one person, the same day
    shop.bought("b2", ago(60))
    for days in (90, 60):
        shop.bought("repeat", ago(days))
    rows = shop.features(AS_OF)
    for who in ("a", "b"):
        assert (rows[who]["orders"], rows[who]["mean_interval_days"], rows[who]["interval_imputed"]) == (1, 30.0, True)
        assert rows[who]["churn_factor"] == 2.0


def test_on_the_day_of_an_order_the_churn_factor_is_zero_not_missing(shop):
    for days in (1, 0):
        shop.bought("a", ago(days), orders=2)
    shop.bought("once", ago(0))
    rows = shop.features(AS_OF)
    assert (rows["a"]["mean_interval_days"], rows["a"]["churn_factor"]) == (1.0, 0.0)
    assert (rows["once"]["mean_interval_days"], rows["once"]["churn_factor"]) == (1.0, 0.0)


def test_the_churn_factor_of_a_random_shop_is_what_a_few_lines_of_python_say(shop):
    chance = Random(4)
    bought: dict[str, set[date]] = {}
    for number in range(150):
        who = f"c{number}"
        start = chance.randrange(1, 400)
        days = {ago(chance.randint(0, start)) for _ in range(chance.choice((1, 1, 2, 3, 5)))} | {ago(start)}
        for day in (*days, *chance.sample(sorted(days), 1)):  # one of them twice
            shop.bought(who, day)
        shop.bought(who, AS_OF + timedelta(days=chance.randint(1, 9)))  # not yet
        bought[who] = days
    own = {who: (max(days) - min(days)).days / (len(days) - 1) for who, days in bought.items() if len(days) > 1}
    months: dict[tuple[int, int], list[float]] = {}
    for who, interval in own.items():
        months.setdefault((min(bought[who]).year, min(bought[who]).month), []).append(interval)
    assert {len(intervals) >= 10 for intervals in months.values()} == {True, False}
    rows = shop.features(AS_OF)
    for who, days in bought.items():
        month = months.get((min(days).year, min(days).month), [])
        interval = own.get(who, median(month if len(month) >= 10 else own.values()))
        told = rows[who]
        assert (told["mean_interval_days"], told["interval_imputed"]) == (
            pytest.approx(interval, abs=1e-6),
            who not in own,
        )
        assert told["churn_factor"] == pytest.approx((AS_OF - max(days)).days / interval, abs=1e-5)


def test_orders_across_the_leap_day_are_days_apart_by_the_calendar(shop):
    shop.bought("a", date(2024, 2, 28))
    shop.bought("a", date(2024, 2, 29))
    shop.bought("a", date(2024, 3, 1))
    row = shop.features(date(2024, 3, 2))["a"]
    assert (row["mean_interval_days"], row["recency_days"], row["churn_factor"]) == (1.0, 1, 1.0)
    assert shop.features(date(2025, 2, 28))["a"]["orders_365d"] == 1  # 1 March 2024 to 28 February 2025 is 365 days


def test_windows_end_with_the_as_of_day_and_begin_so_many_days_before(shop):
    for days in (0, 29, 30, 89, 90, 364, 365):
        shop.bought("a", ago(days), cents=10 ** (days % 7), visits=1, items=2)
    row = shop.features(AS_OF)["a"]
    assert [row[f"orders_{n}d"] for n in (30, 90, 365)] == [2, 4, 6]
    assert row["orders"] == 7
    assert [row[f"visits_{n}d"] for n in (30, 90, 365)] == [2, 4, 6]
    assert row["items_365d"] == 12
    assert row["revenue_cents_30d"] == 1 + 10


def test_one_order_customers_take_the_median_of_the_month_they_first_ordered_in(shop):
    for number in range(10):  # ten repeat buyers who began in January: intervals 1 … 10, median 5.5
        shop.bought(f"january{number}", date(2026, 1, 5))
        shop.bought(f"january{number}", date(2026, 1, 6) + timedelta(days=number))
    for number in range(9):  # nine who began in February: one too few for a median of their own
        shop.bought(f"february{number}", date(2026, 2, 5))
        shop.bought(f"february{number}", date(2026, 3, 7))
    shop.bought("once in January", date(2026, 1, 31))
    shop.bought("once in February", date(2026, 2, 1))
    rows = shop.features(AS_OF)
    january, february = rows["once in January"], rows["once in February"]
    assert (january["mean_interval_days"], january["interval_imputed"]) == (5.5, True)
    assert january["churn_factor"] == pytest.approx(150 / 5.5, abs=1e-6)
    assert february["mean_interval_days"] == 10.0  # of 1 … 10 and nine times 30
    assert rows["january3"]["interval_imputed"] is False


def test_without_any_repeat_buyer_no_interval_is_known(shop):
    shop.bought("a", ago(3))
    row = shop.features(AS_OF)["a"]
    assert (row["recency_days"], row["mean_interval_days"], row["interval_imputed"], row["churn_factor"]) == (
        3, None, None, None,
    )  # fmt: skip


def test_people_without_an_order_have_zeros_and_nulls(shop):
    shop.identity("a", "a")
    shop.bought("repeat", ago(9))
    shop.bought("repeat", ago(2))
    row = shop.features(AS_OF)["a"]
    required = {c.name for c in tables.CUSTOMER_FEATURES.columns if c.required}
    assert not any(row[name] for name in required - {"customer_id"})
    assert None not in {row[name] for name in required}
    assert {v for k, v in row.items() if k not in required} == {None}


def test_shop_ids_of_one_person_are_added_up_and_unknown_ids_stay_themselves(shop):
    shop.identity("a1", "a1")
    shop.identity("a2", "a1")
    shop.bought("a1", ago(20), visits=1)
    shop.bought("a2", ago(20), visits=1)
    shop.bought("a2", ago(10))
    shop.bought("stranger", ago(5))
    rows = shop.features(AS_OF)
    assert set(rows) == {"a1", "stranger"}
    assert (rows["a1"]["orders"], rows["a1"]["revenue_cents"], rows["a1"]["visits_30d"]) == (2, 3000, 2)
    assert rows["a1"]["mean_interval_days"] == 10.0


def test_days_after_the_as_of_day_are_not_seen(shop):
    shop.bought("a", ago(10))
    shop.bought("a", AS_OF + timedelta(days=1))
    shop.bought("later", AS_OF + timedelta(days=1))
    rows = shop.features(AS_OF)
    assert set(rows) == {"a"}
    assert rows["a"]["orders"] == 1


def test_the_favourite_category_weighs_spend_by_age(shop):
    shop.identity("a", "a")
    product(shop, "a", ago(180), "old mug", "cups", 1900)  # weighs half: 950
    product(shop, "a", ago(0), "spoon", "cutlery", 1000)
    assert shop.features(AS_OF)["a"]["favourite_category"] == "cutlery"
    product(shop, "a", ago(180), "old cup", "cups", 101)  # 1,000.5
    assert shop.features(AS_OF)["a"]["favourite_category"] == "cups"


def test_the_favourite_product_is_the_one_bought_most_weighted_by_age(shop):
    shop.identity("a", "a")
    product(shop, "a", ago(180), "mug", "cups", 9000, quantity=3)  # 1.5 pieces
    product(shop, "a", ago(0), "spoon", None, 10, quantity=2)
    row = shop.features(AS_OF)["a"]
    assert (row["favourite_product_id"], row["favourite_category"]) == ("spoon", "cups")


def test_ties_of_favourites_go_to_the_first_in_the_alphabet(shop):
    shop.identity("x", "x")
    for name in ("b", "ä", "a", "B"):
        product(shop, "x", ago(3), name, name, 500)
    row = shop.features(AS_OF)["x"]
    assert (row["favourite_category"], row["favourite_product_id"]) == ("B", "B")


def test_things_only_looked_at_are_no_favourites(shop):
    shop.add(tables.DAILY_PRODUCTS, ago(1), shop_customer_id="a", product_id="mug", category="cups", views=5)
    shop.identity("a", "a")
    row = shop.features(AS_OF)["a"]
    assert (row["favourite_category"], row["favourite_product_id"]) == (None, None)


def test_own_spend_in_the_favourite_category_is_set_against_everybodys(shop):
    for who in ("a", "b"):
        shop.bought(who, ago(9))
    product(shop, "a", ago(9), "mug", "cups", 1000)
    product(shop, "a", ago(9), "cup", "cups", 1000)  # one order day of 2000
    product(shop, "a", ago(2), "mug", "cups", 1001)
    product(shop, "b", ago(9), "mug", "cups", 100)
    row = shop.features(AS_OF)["a"]
    assert row["favourite_category_order_cents"] == 1501  # 3001 over two order days
    assert row["category_average_order_cents"] == 1034  # 3101 over three


def test_a_cart_is_abandoned_when_the_threshold_has_passed_by_the_end_of_the_day(shop):
    shop.event("add_to_cart", at(AS_OF, 22, 59), "a", cart_id="k1")
    shop.event("add_to_cart", at(AS_OF, 23, 0), "b", cart_id="k2")
    shop.event("add_to_cart", at(AS_OF, 23, 1), "c", cart_id="k3")
    rows = shop.features(AS_OF, from_raw=True)
    assert [rows[who]["carts_started_365d"] for who in "abc"] == [1, 1, 1]
    assert [rows[who]["carts_abandoned_365d"] for who in "abc"] == [1, 1, 0]
    assert shop.features(AS_OF, minutes=62, from_raw=True)["a"]["carts_abandoned_365d"] == 0


def test_a_cart_ordered_over_midnight_within_the_threshold_is_not_abandoned(shop):
    shop.event("add_to_cart", at(ago(2), 23, 30), "a", cart_id="k")
    shop.order("o", at(ago(1), 0, 29), "a", cart_id="k")
    assert shop.features(ago(2), minutes=31, from_raw=True)["a"]["carts_abandoned_365d"] == 0
    assert shop.features(AS_OF, from_raw=True)["a"]["carts_abandoned_365d"] == 0
    assert shop.features(AS_OF, minutes=59, from_raw=True)["a"]["carts_abandoned_365d"] == 1


def test_who_comes_back_later_through_the_checkout_had_abandoned_the_cart(shop):
    for cart, back in (("k1", ago(4)), ("k2", ago(5))):  # on a later day, and later on the same day
        shop.event("add_to_cart", at(ago(5), 9), "a", cart_id=cart)
        shop.event("checkout_started", at(back, 12), "a", cart_id=cart)
        shop.order(f"o{cart}", at(back, 12, 1), "a", cart_id=cart, coupon_code="SAVE" if cart == "k1" else None)
    row = shop.features(AS_OF, from_raw=True)["a"]
    assert (row["carts_abandoned_365d"], row["carts_recovered_with_coupon_365d"]) == (2, 1)


def test_what_happens_to_a_cart_after_its_order_does_not_matter(shop):
    shop.event("add_to_cart", at(ago(5), 9), "a", cart_id="k")
    shop.order("o", at(ago(5), 9, 5), "a", cart_id="k")
    shop.event("remove_from_cart", at(ago(5), 15), "a", cart_id="k")
    shop.event("remove_from_cart", at(ago(3), 15), "a", cart_id="k")
    assert shop.features(AS_OF, from_raw=True)["a"]["carts_abandoned_365d"] == 0


def test_carts_started_more_than_a_year_ago_do_not_count(shop):
    shop.event("add_to_cart", at(ago(365), 9), "a", cart_id="k1")
    shop.event("add_to_cart", at(ago(1), 9), "a", cart_id="k1")
    shop.event("add_to_cart", at(ago(364), 9), "a", cart_id="k2")
    assert shop.features(AS_OF, from_raw=True)["a"]["carts_started_365d"] == 1


@pytest.mark.parametrize(
    ("recovered", "other_orders", "expected"),
    [(2, 2, True), (2, 3, False), (1, 0, False)],
    ids=["half of the orders used a coupon", "fewer than half", "one recovered cart is not enough"],
)
def test_a_discount_seeker_buys_abandoned_carts_with_coupons(shop, recovered, other_orders, expected):
    for number in range(recovered):
        shop.event("add_to_cart", at(ago(9), 9), "a", cart_id=f"k{number}")
        shop.order(f"o{number}", at(ago(8), 9), "a", cart_id=f"k{number}", coupon_code="SAVE")
    for number in range(other_orders):
        shop.order(f"p{number}", at(ago(7), 9), "a")
    row = shop.features(AS_OF, from_raw=True)["a"]
    assert row["carts_recovered_with_coupon_365d"] == recovered
    assert row["discount_seeker"] is expected


def test_a_cart_begun_by_one_shop_id_and_ordered_by_another_belongs_to_who_ordered_it(shop):
    shop.event("add_to_cart", at(ago(9), 9), "a", cart_id="k")
    shop.order("o", at(ago(8), 9), "b", cart_id="k")
    rows = shop.features(AS_OF, from_raw=True)
    assert (rows["a"]["carts_started_365d"], rows["b"]["carts_started_365d"]) == (0, 1)


def test_engagement_is_counted_per_channel_over_ninety_days(shop):
    for days in (0, 89, 90):
        shop.add(
            tables.DAILY_ACTIVITY, ago(days), shop_customer_id="a", emails_sent=2, opens=1, machine_opens=1,
            clicks=1 if days == 89 else 0, sms_sent=1, sms_clicks=0,
        )  # fmt: skip
    row = shop.features(AS_OF)["a"]
    told = {k: row[k] for k in row if k.endswith(("sent_90d", "opens_90d", "clicks_90d"))}
    assert told == {
        "emails_sent_90d": 4, "opens_90d": 2, "machine_opens_90d": 2, "clicks_90d": 1, "sms_sent_90d": 2,
        "sms_clicks_90d": 0,
    }  # fmt: skip
    assert row["last_click_on"] == ago(89)


def test_a_ticket_is_open_for_fourteen_days_or_until_a_later_day_settles_it(shop):
    opened, closed = {"tickets_opened": 1, "tickets_left_open": 1}, {"tickets_closed": 1}
    for who, days in {
        "fresh": {13: opened},
        "old": {14: opened},
        "settled": {5: opened, 4: closed},
        "again": {5: opened, 4: closed, 2: opened},
        "never": {4: closed},
    }.items():
        for ago_days, told in days.items():
            shop.add(tables.DAILY_ACTIVITY, ago(ago_days), shop_customer_id=who, **told)
    rows = shop.features(AS_OF)
    assert {who: row["ticket_open"] for who, row in rows.items()} == {
        "fresh": True, "old": False, "settled": False, "again": True, "never": False,
    }  # fmt: skip
    assert [rows[who]["last_ticket_on"] for who in ("old", "again", "never")] == [ago(14), ago(2), None]


def test_depth_of_visits_is_pages_per_visit_and_null_without_a_visit(shop):
    shop.add(tables.DAILY_ACTIVITY, ago(10), shop_customer_id="a", visits=3, page_views=10, seconds_on_site=60)
    shop.bought("b", ago(1))
    rows = shop.features(AS_OF)
    assert (rows["a"]["pages_per_visit_90d"], rows["a"]["last_visit_on"]) == (3.333333, ago(10))
    assert (rows["b"]["pages_per_visit_90d"], rows["b"]["last_visit_on"]) == (None, None)


def test_the_day_ends_at_midnight_of_the_shop():
    assert end_of_day(date(2026, 6, 30), ZoneInfo("America/Sao_Paulo")) == datetime(2026, 7, 1, 3)
    assert end_of_day(date(2026, 3, 29), ZoneInfo("Europe/Berlin")) == datetime(2026, 3, 29, 22)  # the clocks went on
