"""Daily rollups of a few raw rows, computed by hand."""

from datetime import date, datetime

import pytest

from shopauto_pipelines.features import tables

DAY = date(2026, 3, 1)


def at(hour: int, minute: int = 0, second: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 3, day, hour, minute, second)


def _told(row: dict) -> dict:
    """What a row says besides zeros and its key."""
    return {k: v for k, v in row.items() if v and k not in ("day", "shop_customer_id")}


def test_orders_are_counted_and_paid_totals_added_up_per_customer(shop):
    shop.order("o1", at(9), "a", 1500, coupon_code="SAVE", discount_cents=100)
    shop.order("o2", at(10), "a", 500)
    shop.order("o3", at(10), "b", 700)
    first, second = shop.rolled(tables.DAILY_ACTIVITY)
    assert _told(first) == {"orders": 2, "revenue_cents": 2000, "discount_cents": 100, "coupon_orders": 1}
    assert _told(second) == {"orders": 1, "revenue_cents": 700}


def test_only_goods_are_items(shop):
    shop.line("o1", 1, at(9), "a", "mug", quantity=3)
    shop.line("o1", 2, at(9), "a", None, kind="shipping")
    shop.line("o1", 3, at(9), "a", "card", kind="gift_card")
    assert _told(shop.rolled(tables.DAILY_ACTIVITY)[0]) == {"items": 3}
    (row,) = shop.rolled(tables.DAILY_PRODUCTS)
    assert (row["product_id"], row["orders"], row["quantity"], row["revenue_cents"]) == ("mug", 1, 3, 1000)


def test_rows_of_nobody_known_are_left_out(shop):
    shop.order("o1", at(9), None, cart_id="k1")
    shop.line("o1", 1, at(9), None, "mug")
    shop.event("product_view", at(9), None, anonymous_id="x", session_id="s", product_id="mug")
    shop.event("add_to_cart", at(9), None, anonymous_id="x", session_id="s", cart_id="k1")
    shop.message("sent", at(9), None)
    assert [shop.rolled(t) for t in (tables.DAILY_ACTIVITY, tables.DAILY_PRODUCTS, tables.DAILY_CARTS)] == [[], [], []]


def test_visits_are_sessions_and_time_on_site_is_last_minus_first_event_of_each(shop):
    shop.event("page_view", at(9), "a", session_id="s1")
    shop.event("product_view", at(9, 1, 30), "a", session_id="s1", product_id="mug")
    shop.event("search", at(20), "a", session_id="s2")
    shop.event("page_view", at(20, 0, 15), "a", session_id="s2")
    (row,) = shop.rolled(tables.DAILY_ACTIVITY)
    assert _told(row) == {"visits": 2, "page_views": 3, "product_views": 1, "searches": 1, "seconds_on_site": 105}


def test_a_login_is_part_of_a_visit_and_asking_the_support_is_none(shop):
    shop.event("login", at(9), "a", session_id="s1")
    shop.event("page_view", at(9, 0, 5), "a", session_id="s1")
    shop.event("ticket_opened", at(12), "a", cart_id="k1")
    shop.event("ticket_opened", at(12), "b")
    row, asked = shop.rolled(tables.DAILY_ACTIVITY)
    ticket = {"tickets_opened": 1, "tickets_left_open": 1}
    assert _told(asked) == ticket
    assert _told(row) == {"visits": 1, "page_views": 1, "seconds_on_site": 5} | ticket
    assert shop.rolled(tables.DAILY_CARTS) == []


def test_events_without_a_session_are_one_visit_of_unknown_length(shop):
    shop.event("page_view", at(9), "a")
    shop.event("page_view", at(21), "a")
    assert _told(shop.rolled(tables.DAILY_ACTIVITY)[0]) == {"visits": 1, "page_views": 2}


def test_a_session_over_midnight_is_a_visit_on_both_days(shop):
    shop.event("page_view", at(23, 59), "a", session_id="s")
    shop.event("page_view", at(23, 59, 50), "a", session_id="s")
    shop.event("page_view", at(0, 1, day=2), "a", session_id="s")
    assert [(r["day"].day, r["visits"], r["seconds_on_site"]) for r in shop.rolled(tables.DAILY_ACTIVITY)] == [
        (1, 1, 50),
        (2, 1, 0),
    ]


def test_opens_by_machines_and_by_people_are_kept_apart_and_channels_too(shop):
    for kind in ("sent", "delivered", "open", "click"):
        shop.message(kind, at(9), "a")
    shop.message("open", at(9), "a", is_machine=False)
    shop.message("open", at(9), "a", is_machine=True)
    shop.message("click", at(9), "a", is_machine=True)
    for kind in ("sent", "sent", "open", "click"):
        shop.message(kind, at(9), "a", channel="sms")
    shop.message("sent", at(9), "a", channel="push")
    (row,) = shop.rolled(tables.DAILY_ACTIVITY)
    assert _told(row) == {"emails_sent": 1, "opens": 2, "machine_opens": 1, "clicks": 1, "sms_sent": 2, "sms_clicks": 1}


def test_refunds_are_added_up_on_the_day_of_the_refund(shop):
    shop.refund("r1", at(9), "a", 300)
    shop.refund("r2", at(9), "a", 200)
    assert _told(shop.rolled(tables.DAILY_ACTIVITY)[0]) == {"refunds": 2, "refund_cents": 500}


def test_a_product_bought_and_seen_is_one_row_with_orders_counted_once(shop):
    shop.line("o1", 1, at(9), "a", "mug", 500)
    shop.line("o1", 2, at(9), "a", "mug", 700, quantity=2)
    shop.event("product_view", at(8), "a", product_id="mug")
    shop.event("product_view", at(8), "a", product_id="plate")
    mug, plate = shop.rolled(tables.DAILY_PRODUCTS)
    assert _told(mug) == {"product_id": "mug", "orders": 1, "quantity": 3, "revenue_cents": 1200, "views": 1}
    assert _told(plate) == {"product_id": "plate", "views": 1}


def test_the_category_is_the_one_known_at_the_end_of_the_day(shop):
    shop.product("mug", at(0, day=2), "cups")
    shop.product("mug", at(9, day=4), "gifts")
    shop.product("mug", at(23, day=4), "kitchen")
    shop.product("mug", at(0, day=9), None)
    for day in (1, 2, 3, 4, 5, 9):
        shop.event("product_view", at(10, day=day), "a", product_id="mug")
    assert [row["category"] for row in shop.rolled(tables.DAILY_PRODUCTS)] == [
        None, "cups", "cups", "kitchen", "kitchen", None,
    ]  # fmt: skip


def test_two_changes_of_a_product_at_the_same_time_are_settled_by_where_they_stand(shop):
    shop.product("mug", at(0), "cups", row=1)
    shop.product("mug", at(0), "gifts", row=2)
    shop.event("product_view", at(10), "a", product_id="mug")
    assert shop.rolled(tables.DAILY_PRODUCTS)[0]["category"] == "gifts"


def test_a_cart_with_its_order_is_one_row_of_the_day(shop):
    shop.event("add_to_cart", at(9), "a", cart_id="k", quantity=2)
    shop.event("add_to_cart", at(9, 5), "a", cart_id="k")
    shop.event("page_view", at(9, 6), "a", cart_id="k")
    shop.event("remove_from_cart", at(11), "a", cart_id="k", quantity=1)
    shop.event("checkout_started", at(11, 1), "a", cart_id="k")
    shop.order("o", at(11, 2), "a", cart_id="k", coupon_code="SAVE")
    (row,) = shop.rolled(tables.DAILY_CARTS)
    assert row == {
        "day": DAY, "cart_id": "k", "shop_customer_id": "a", "first_at": at(9), "last_at": at(11, 1),
        "longest_pause_seconds": 115 * 60, "items_added": 2, "ordered_at": at(11, 2), "coupon": True,
    }  # fmt: skip


def test_the_pause_before_the_order_counts_and_what_follows_the_order_does_not(shop):
    shop.event("add_to_cart", at(9), "a", cart_id="k")
    shop.order("o", at(10), "a", cart_id="k")
    shop.event("remove_from_cart", at(20), "a", cart_id="k")
    (row,) = shop.rolled(tables.DAILY_CARTS)
    assert (row["longest_pause_seconds"], row["last_at"], row["coupon"]) == (3600, at(20), False)


@pytest.mark.parametrize("who", ["ab", "ba"], ids=lambda order: f"rows of {order}")
def test_of_two_who_come_back_to_a_cart_at_the_same_time_the_first_in_the_alphabet_has_the_pause(shop, who):
    shop.event("add_to_cart", at(9), "b", cart_id="k")
    for each in who:
        shop.event("checkout_started", at(12), each, cart_id="k")
    pauses = {row["shop_customer_id"]: row["longest_pause_seconds"] for row in shop.rolled(tables.DAILY_CARTS)}
    assert pauses == {"a": 3 * 3600, "b": 0}


def test_events_before_the_log_in_belong_to_who_ordered_or_was_first_known(shop):
    shop.event("add_to_cart", at(9), None, cart_id="k1", anonymous_id="x")
    shop.order("o", at(9, 1), "a", cart_id="k1")
    shop.event("add_to_cart", at(9), None, cart_id="k2", anonymous_id="x")
    shop.event("checkout_started", at(9, 1), "b", cart_id="k2")
    carts = [(r["cart_id"], r["shop_customer_id"], r["first_at"]) for r in shop.rolled(tables.DAILY_CARTS)]
    assert carts == [("k1", "a", at(9)), ("k2", "b", at(9))]


def test_an_order_of_a_cart_without_events_that_day_has_no_event_times(shop):
    shop.order("o", at(9), "a", cart_id="k")
    (row,) = shop.rolled(tables.DAILY_CARTS)
    assert (row["first_at"], row["last_at"], row["ordered_at"], row["items_added"]) == (None, None, at(9), 0)


def test_a_ticket_is_left_open_where_the_last_word_of_the_day_is_a_question(shop):
    for who, *words in (("asks", "ticket_opened"), ("settled", "ticket_opened", "ticket_closed"),
                        ("again", "ticket_opened", "ticket_closed", "ticket_opened"), ("later", "ticket_closed")):  # fmt: skip
        for hour, word in enumerate(words):
            shop.event(word, at(9 + hour), who)
    found = {row["shop_customer_id"]: row for row in shop.rolled(tables.DAILY_ACTIVITY)}
    counted = ("tickets_opened", "tickets_closed", "tickets_left_open")
    assert {who: tuple(row[name] for name in counted) for who, row in found.items()} == {
        "asks": (1, 0, 1), "settled": (1, 1, 0), "again": (2, 1, 1), "later": (0, 1, 0),
    }  # fmt: skip
    assert not any(row["visits"] for row in found.values())


def test_messages_are_counted_by_channel_and_campaign_and_what_machines_do_is_left_out(shop):
    for kind in ("sent", "delivered", "open", "click", "bounce"):
        shop.message(kind, at(9), "a", channel="email", campaign="welcome")
    shop.message("open", at(9), "a", channel="email", campaign="welcome", is_machine=True)
    shop.message("sent", at(9), "a", channel="sms", campaign=None)
    shop.message("open", at(9), "b", channel="email", campaign="welcome", is_machine=True)
    found = [_told(row) for row in shop.rolled(tables.DAILY_MESSAGES)]
    assert sorted(found, key=str) == [
        {"channel": "email", "campaign": "welcome", "sent": 1, "opens": 1, "clicks": 1},
        {"channel": "sms", "sent": 1},
    ]


def test_forms_are_counted_by_name_for_who_is_known(shop):
    for who, form in (("a", "wish"), ("a", "wish"), ("a", "quiz"), (None, "wish")):
        shop.form(form, at(9), who)
    assert sorted((row["form"], row["submissions"]) for row in shop.rolled(tables.DAILY_FORMS)) == [
        ("quiz", 1),
        ("wish", 2),
    ]
