"""The shops' own webhooks: recorded deliveries of WooCommerce, Shopify's as their documentation words them."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import itertools
import json
import random
from datetime import UTC, datetime

import pytest

from shopauto_pipelines_tests.realtime.collecting import collecting, compact, query, rows

NOW = datetime(2026, 11, 22, 7, tzinfo=UTC)
SECRET = "hush"


@pytest.fixture
def shop(engine, monkeypatch, tmp_path):
    with collecting(
        engine, monkeypatch, tmp_path, NOW, shopify_webhook_secret=SECRET, woocommerce_webhook_secret=SECRET
    ) as client:
        yield client


def sign(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


@pytest.fixture
def woo(shop):
    def post(topic, told):
        body = compact(told)
        headers = {"X-WC-Webhook-Topic": topic, "X-WC-Webhook-Signature": sign(body)}
        return shop.post("/webhooks/woocommerce", content=body, headers=headers)

    return post


@pytest.fixture
def shopify(shop):
    def post(topic, told):
        body = compact(told)
        headers = {"X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": sign(body)}
        return shop.post("/webhooks/shopify", content=body, headers=headers)

    return post


def guest(email: str) -> str:
    return "guest:" + hashlib.sha256(email.encode()).hexdigest()[:16]


# WooCommerce


@pytest.fixture(scope="module")
def recorded(shared):
    """Deliveries of a real WooCommerce 9.9.5, with the secret they are signed with."""
    return json.loads((shared / "contracts/woocommerce/recorded/webhook_deliveries.json").read_text())


def deliver(client, delivery, body=None):
    headers = {name: value for name, value in delivery["headers"].items() if name not in ("Host", "Content-Length")}
    content = delivery["raw_body"].encode() if body is None else body
    return client.post("/webhooks/woocommerce", content=content, headers=headers)


@pytest.fixture
def woo_shop(engine, monkeypatch, tmp_path, recorded):
    with collecting(engine, monkeypatch, tmp_path, NOW, woocommerce_webhook_secret=recorded["secret"]) as client:
        yield client


def test_recorded_deliveries_are_genuine_and_become_rows(engine, woo_shop, recorded):
    told = [deliver(woo_shop, delivery) for delivery in recorded["deliveries"]]
    assert {answer.status_code for answer in told} == {200}
    assert [row["order_id"] for row in rows(engine, "raw/orders")] == ["79", "82", "83", "85"]
    assert [row["shop_customer_id"] for row in rows(engine, "raw/orders")] == [
        "11",
        guest("new@shop.test"),
        guest("new@shop.test"),
        guest("hook@shop.test"),
    ]
    assert rows(engine, "raw/orders")[0] == {
        "order_id": "79",
        "ordered_at": "2026-11-22T05:49:44.000000",
        "shop_customer_id": "11",
        "email": "cust49@shop.test",
        "currency": "USD",
        "total_cents": 1600,
        "discount_cents": 0,
        "shipping_cents": 0,
        "cart_id": "woo-79",
    }
    assert [(r["refund_id"], r["order_id"], r["amount_cents"]) for r in rows(engine, "raw/refunds")] == [
        ("84", "79", 100)
    ]
    by_id = {row["shop_customer_id"]: row for row in rows(engine, "raw/customers")}
    assert by_id["32"]["email"] == "hook2@shop.test"
    assert (by_id[guest("hook@shop.test")]["first_name"], by_id[guest("hook@shop.test")]["last_name"]) == (
        "José",
        "Ñandú",
    )


def test_deliveries_in_any_order_and_again_leave_the_same(engine, woo_shop, recorded):
    def state():
        return (
            query(engine, 'select raw_table, key, at, cart_id, "row" from collected order by 1, 2'),
            query(engine, "select cart_id, ordered_at from carts order by 1"),
            query(engine, "select * from exits order by 1, 2, 3, 4"),
        )

    for delivery in recorded["deliveries"]:
        deliver(woo_shop, delivery)
    once = state()
    shuffled = recorded["deliveries"] * 2
    random.Random(4).shuffle(shuffled)
    for delivery in shuffled:
        assert deliver(woo_shop, delivery).json()["new"] == 0
    assert state() == once


def test_a_delivery_with_one_byte_changed_or_no_signature_is_refused(engine, woo_shop, recorded):
    delivery = next(one for one in recorded["deliveries"] if one["raw_body"].startswith("{"))
    for body in (delivery["raw_body"].replace(":0", ":1", 1).encode(), delivery["raw_body"].encode() + b" ", b""):
        told = deliver(woo_shop, delivery, body)
        assert (told.status_code, told.json()) == (401, {"refused": "wrong signature"})
    bare = copy.deepcopy(delivery)
    del bare["headers"]["X-WC-Webhook-Signature"]
    assert deliver(woo_shop, bare).json() == {"refused": "not signed"}
    assert query(engine, "select count(*) from collected") == [(0,)]


def test_the_ping_that_switches_a_webhook_on_is_answered_and_does_nothing(engine, woo_shop, recorded):
    pings = [one for one in recorded["deliveries"] if one["raw_body"].startswith("webhook_id")]
    assert len(pings) == 3
    for ping in pings:
        assert deliver(woo_shop, ping).status_code == 200
    assert query(engine, "select count(*) from collected") == [(0,)]
    assert deliver(woo_shop, pings[0], b"webhook_id=4&x=1").status_code == 401


def test_without_a_secret_no_delivery_is_taken(engine, monkeypatch, tmp_path):
    with collecting(engine, monkeypatch, tmp_path) as client:
        for name, header in (("shopify", "X-Shopify-Hmac-Sha256"), ("woocommerce", "X-WC-Webhook-Signature")):
            told = client.post(f"/webhooks/{name}", content=b"{}", headers={header: sign(b"{}", "")})
            assert (told.status_code, told.json()) == (
                503,
                {"refused": f"SHOPAUTO_{name.upper()}_WEBHOOK_SECRET is not set"},
            )


@pytest.fixture
def draft(shared):
    """A draft of the checkout as WooCommerce's REST API shows it."""
    [found] = json.loads((shared / "contracts/woocommerce/recorded/orders_checkout_draft.json").read_text())["body"]
    found["billing"]["email"] = "abandon@example.com"  # the recorded one has a domain that can receive nothing
    return found


def test_a_draft_of_the_checkout_is_a_cart_of_whoever_has_the_address(engine, woo, draft):
    assert woo("order.updated", draft).json() == {"new": 0, "repeated": 0, "carts": 1}
    at = datetime(2026, 11, 22, 5, 51, 16, tzinfo=UTC)
    assert query(engine, "select cart_id, anonymous_id, last_at, snapshot from carts") == [
        ("woo-81", "woo-81", at, {"21": 2})
    ]
    assert query(engine, "select anonymous_id, shop_customer_id, address_hash is not null from visitors") == [
        ("woo-81", None, True)
    ]
    assert rows(engine, "raw/customers") == []


def test_the_order_a_draft_becomes_takes_its_cart_in_any_order_of_deliveries(engine, woo, draft):
    paid = {
        **draft,
        "status": "processing",
        "date_paid_gmt": "2026-11-22T05:55:00",
        "date_modified_gmt": "2026-11-22T05:55:00",
    }
    states = set()
    for order in itertools.permutations([("order.created", draft), ("order.updated", paid), ("order.updated", draft)]):
        with engine.begin() as connection:
            connection.exec_driver_sql("truncate shopauto.collected, shopauto.carts, shopauto.exits, shopauto.visitors")
        for topic, told in order:
            assert woo(topic, told).status_code == 200
        states.add(repr(query(engine, "select cart_id, last_at, ordered_at, snapshot from carts")))
        assert query(engine, "select ordered_at from carts") == [(datetime(2026, 11, 22, 5, 55, tzinfo=UTC),)]
    assert len(states) == 1


def test_an_order_to_be_paid_by_a_transfer_takes_the_cart_and_is_an_order_once_it_is_paid(engine, woo, draft):
    woo("order.updated", draft)
    woo("order.updated", {**draft, "status": "on-hold", "date_modified_gmt": "2026-11-22T05:56:00"})
    assert query(engine, "select snapshot from carts") == [({},)]
    assert rows(engine, "raw/orders") == []
    paid = {"status": "processing", "date_paid_gmt": "2026-11-22T06:30:00", "date_modified_gmt": "2026-11-22T06:30:00"}
    woo("order.updated", draft | paid)
    assert [row["total_cents"] for row in rows(engine, "raw/orders")] == [3200]


def test_a_page_names_browser_and_cart_of_an_order_in_its_meta_data(engine, woo, draft):
    meta = [
        {"id": 1, "key": "_shopauto_anonymous_id", "value": "b-7"},
        {"id": 2, "key": "shopauto_cart_id", "value": "c-9"},
    ]
    woo("order.updated", {**draft, "meta_data": meta})
    assert query(engine, "select cart_id, anonymous_id from carts") == [("c-9", "b-7")]


def test_an_old_order_that_is_refunded_is_a_refund_and_no_new_order(engine, woo, draft):
    old = {
        "status": "completed",
        "date_created_gmt": "2025-11-22T05:50:29",
        "date_paid_gmt": "2025-11-22T05:50:29",
        "refunds": [{"id": 9, "reason": "torn", "total": "-12.35"}],
    }
    woo("order.updated", draft | old)
    assert rows(engine, "raw/orders") == []
    [refund] = rows(engine, "raw/refunds")
    assert (refund["refund_id"], refund["amount_cents"], refund["reason"]) == ("9", 1235, "torn")


@pytest.mark.parametrize(
    ("told", "refunds"),
    [
        ([{"status": "cancelled"}], []),
        ([{"status": "cancelled"}, {"status": "trash"}], []),
        ([{"status": "trash"}, {"status": "processing"}], []),
        ([{"status": "cancelled"}, {"status": "cancelled", "refunds": [(9, "-32.00")]}], [("9", 3200)]),
        ([{"status": "cancelled"}, {"status": "refunded", "refunds": [(9, "-32.00")]}], [("9", 3200)]),
        ([{"refunds": [(9, "-12.00")]}, {"status": "cancelled", "refunds": [(9, "-12.00")]}], [("9", 1200)]),
        ([{"refunds": [(9, "0.00")]}], []),
    ],
)
def test_the_refunds_of_an_order_are_what_was_given_back_whatever_becomes_of_it(engine, woo, draft, told, refunds):
    order = draft | {"status": "processing", "date_paid_gmt": "2026-11-22T05:55:00"}
    for change in ({}, *told, *reversed(told)):
        given = [{"id": number, "reason": "", "total": total} for number, total in change.get("refunds", ())]
        assert "ignored" not in woo("order.updated", order | change | {"refunds": given}).json()
    assert [(row["refund_id"], row["amount_cents"]) for row in rows(engine, "raw/refunds")] == refunds
    assert [row["total_cents"] for row in rows(engine, "raw/orders")] == [3200]


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        ("order.updated", {}),
        ("order.updated", {"id": 1, "status": "processing", "billing": None}),
        (
            "order.updated",
            {"id": 1, "status": "checkout-draft", "billing": {}, "line_items": 5, "date_modified_gmt": 1},
        ),
        ("customer.created", {"id": 1}),
        ("customer.created", {"id": 1, "billing": {}, "date_created_gmt": "soon"}),
    ],
)
def test_a_genuine_delivery_of_another_form_is_answered_with_success_and_leaves_nothing(engine, woo, topic, told):
    """A shop gives up a webhook that fails several times; then it would be deaf for all orders."""
    answer = woo(topic, told)
    assert answer.status_code == 200
    assert answer.json()["ignored"].startswith("unreadable")
    assert query(engine, "select count(*) from collected") == query(engine, "select count(*) from carts") == [(0,)]


# Shopify

ORDER = {
    "id": 5512,
    "admin_graphql_api_id": "gid://shopify/Order/5512",
    "cart_token": "c1-68778783ad298f1c80c3bafcddeea02f",
    "checkout_token": "bd5a8aa1ecd019dd3520ff791ee3a24c",
    "contact_email": "jon@example.com",
    "created_at": "2026-11-22T01:05:00-05:00",
    "processed_at": "2026-11-22T01:04:58-05:00",
    "currency": "USD",
    "email": "jon@example.com",
    "financial_status": "paid",
    "taxes_included": False,
    "test": False,
    "total_discounts": "5.00",
    "total_price": "47.70",
    "discount_codes": [{"code": "SPRING", "amount": "5.00", "type": "fixed_amount"}],
    "customer": {"id": 207, "email": "jon@example.com"},
    "line_items": [
        {
            "id": 1,
            "product_id": 632,
            "variant_id": 808,
            "quantity": 2,
            "price": "20.00",
            "gift_card": False,
            "discount_allocations": [{"amount": "5.00"}],
            "tax_lines": [{"price": "2.80", "rate": 0.08}],
        },
        {"id": 2, "product_id": None, "quantity": 1, "price": "5.00", "gift_card": True, "tax_lines": []},
    ],
    "shipping_lines": [{"id": 3, "price": "4.90", "discount_allocations": [], "tax_lines": []}],
}
CHECKOUT = {
    "id": 981,
    "token": "bd5a8aa1ecd019dd3520ff791ee3a24c",
    "cart_token": "c1-68778783ad298f1c80c3bafcddeea02f",
    "email": "jon@example.com",
    "created_at": "2026-11-22T00:50:00-05:00",
    "updated_at": "2026-11-22T00:58:00-05:00",
    "completed_at": None,
    "customer": {"id": 207},
    "line_items": [{"product_id": 632, "variant_id": 808, "quantity": 2}],
}


def test_a_paid_order_of_shopify_becomes_an_order_with_its_lines(engine, shopify):
    assert shopify("orders/paid", ORDER).json() == {"new": 4, "repeated": 0, "carts": 0}
    assert shopify("orders/create", ORDER).json() == {"new": 0, "repeated": 4, "carts": 0}
    assert rows(engine, "raw/orders") == [
        {
            "order_id": "5512",
            "ordered_at": "2026-11-22T06:04:58.000000",
            "shop_customer_id": "207",
            "email": "jon@example.com",
            "currency": "USD",
            "total_cents": 4770,
            "discount_cents": 500,
            "shipping_cents": 490,
            "coupon_code": "SPRING",
            "cart_id": "c1-68778783ad298f1c80c3bafcddeea02f",
        }
    ]
    lines = [
        (row["kind"], row.get("product_id"), row["quantity"], row["amount_cents"])
        for row in rows(engine, "raw/order_lines")
    ]
    assert lines == [("product", "632", 2, 3780), ("gift_card", None, 1, 500), ("shipping", None, 1, 490)]
    assert sum(amount for *_, amount in lines) == 4770


def test_carts_and_checkouts_of_shopify_are_one_cart_and_the_order_takes_it(engine, shopify):
    cart = {
        "id": ORDER["cart_token"],
        "token": ORDER["cart_token"],
        "updated_at": "2026-11-22T05:49:00.000Z",
        "line_items": [{"product_id": 632, "variant_id": 808, "quantity": 1}],
    }
    shopify("carts/create", cart)
    shopify("checkouts/update", CHECKOUT)
    token = "c1-68778783ad298f1c80c3bafcddeea02f"
    assert query(engine, "select cart_id, shop_customer_id, last_at, snapshot, ordered_at from carts") == [
        (token, "207", datetime(2026, 11, 22, 5, 58, tzinfo=UTC), {"632": 2}, None)
    ]
    shopify("orders/create", ORDER)
    assert query(engine, "select cart_id, ordered_at from carts") == [
        (token, datetime(2026, 11, 22, 6, 4, 58, tzinfo=UTC))
    ]


def test_a_checkout_of_somebody_without_an_account_is_known_by_the_address(engine, shopify):
    shopify("checkouts/create", {**CHECKOUT, "customer": None, "cart_token": None})
    assert query(engine, "select cart_id, anonymous_id, shop_customer_id from carts") == [
        (CHECKOUT["token"], CHECKOUT["token"], None)
    ]
    assert query(engine, "select anonymous_id, address_hash is not null from visitors") == [(CHECKOUT["token"], True)]


def test_the_page_leaves_its_browser_among_the_carts_attributes(engine, shopify):
    shopify("checkouts/create", {**CHECKOUT, "note_attributes": [{"name": "shopauto_anonymous_id", "value": "b-7"}]})
    assert query(engine, "select anonymous_id from carts") == [("b-7",)]


@pytest.mark.parametrize("token", ["hWN2Hj?key=abc", "Z2NwLXVz:01JA/x=="])
def test_any_token_of_a_cart_becomes_an_id(engine, shopify, token):
    shopify("checkouts/create", {**CHECKOUT, "cart_token": token})
    shopify("orders/create", {**ORDER, "cart_token": token})
    assert query(engine, "select count(*), count(ordered_at) from carts") == [(1, 1)]


@pytest.mark.parametrize(
    ("change", "orders", "carts"),
    [
        ({"financial_status": "pending"}, 0, [({},)]),
        ({"financial_status": "authorized"}, 0, [({},)]),
        ({"financial_status": "voided"}, 0, []),
        ({"test": True}, 0, []),
        ({"processed_at": "2026-01-01T00:00:00Z"}, 0, []),
    ],
)
def test_an_order_that_is_not_paid_is_no_order_yet(engine, shopify, change, orders, carts):
    assert shopify("orders/create", ORDER | change).status_code == 200
    assert len(rows(engine, "raw/orders")) == orders
    assert query(engine, "select snapshot from carts") == carts


def test_a_refund_of_shopify_is_a_row_for_each_line_and_one_for_the_rest(engine, shopify):
    refund = {
        "id": 88,
        "order_id": 5512,
        "created_at": "2026-11-22T06:30:00Z",
        "note": "torn",
        "refund_line_items": [
            {"id": 1, "quantity": 1, "subtotal": "17.50", "total_tax": "1.40", "line_item": {"product_id": 632}}
        ],
        "transactions": [{"kind": "refund", "status": "success", "amount": "23.80"}],
    }
    shopify("refunds/create", refund)
    found = [(r["refund_id"], r["kind"], r["amount_cents"], r.get("product_id")) for r in rows(engine, "raw/refunds")]
    assert found == [("88", "adjustment", 490, None), ("88.1", "product", 1890, "632")]


GIVEN_BACK = {"kind": "refund", "status": "success"}


@pytest.mark.parametrize(
    ("transactions", "refunds"),
    [
        ([], []),
        ([{"kind": "void", "status": "success", "amount": "23.80"}], []),
        ([GIVEN_BACK | {"status": "failure", "amount": "23.80"}], []),
        ([GIVEN_BACK | {"amount": "23.80"}], [("5.6", 2000), ("5.7", 380)]),
        (
            [GIVEN_BACK | {"amount": "7.00"}, GIVEN_BACK | {"status": "pending", "amount": "4.90"}],
            [("5.6", 1000), ("5.7", 190)],
        ),
        ([GIVEN_BACK | {"amount": "0.01"}], [("5.6", 0), ("5.7", 1)]),
        ([GIVEN_BACK | {"amount": "10.00"}], [("5.6", 840), ("5.7", 160)]),
        ([GIVEN_BACK | {"amount": "25.00"}], [("5", 120), ("5.6", 2000), ("5.7", 380)]),
    ],
)
def test_refunds_of_shopify_are_the_money_that_was_given_back(engine, shopify, transactions, refunds):
    """Goods come back for less than they cost, or for nothing: from an order that was never paid, in exchange."""
    lines = [(6, "17.00", "3.00"), (7, "3.80", "0.00")]
    refund = {
        "id": 5,
        "order_id": 5512,
        "created_at": "2026-11-22T06:30:00Z",
        "refund_line_items": [
            {"id": number, "quantity": 1, "subtotal": subtotal, "total_tax": tax, "line_item": {"product_id": 632}}
            for number, subtotal, tax in lines
        ],
        "transactions": transactions,
    }
    told = shopify("refunds/create", refund).json()
    assert told.get("ignored") == (None if refunds else "no money was given back")
    assert [(row["refund_id"], row["amount_cents"]) for row in rows(engine, "raw/refunds")] == refunds


def test_a_customer_of_shopify_comes_with_consents(engine, shopify):
    customer = {
        "id": 207,
        "email": "jon@example.com",
        "first_name": "Jon",
        "last_name": "Żak",
        "phone": None,
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-22T06:00:00Z",
        "default_address": {"country_code": "PL", "city": "Łódź", "phone": "+48 600 000 000"},
        "email_marketing_consent": {
            "state": "subscribed",
            "opt_in_level": "confirmed_opt_in",
            "consent_updated_at": "2026-11-22T06:00:00Z",
        },
        "sms_marketing_consent": {"state": "not_subscribed", "consent_updated_at": None},
    }
    shopify("customers/update", customer)
    [row] = rows(engine, "raw/customers")
    assert (row["shop_customer_id"], row["last_name"], row["country"], row["phone"]) == (
        "207",
        "Żak",
        "PL",
        "+48 600 000 000",
    )
    assert [(r["channel"], r["state"], r["wording"]) for r in rows(engine, "raw/consents")] == [
        ("email", "opted_in", "Shopify, confirmed_opt_in")
    ]


def test_a_delivery_of_shopify_that_is_not_signed_is_refused(engine, shop, shopify):
    body = compact(ORDER)
    for signature in ("", sign(body, "other"), sign(body).lower(), "é", sign(body + b" ")):
        headers = {"X-Shopify-Topic": "orders/paid", "X-Shopify-Hmac-Sha256": signature.encode()}
        assert shop.post("/webhooks/shopify", content=body, headers=headers).status_code == 401
    assert shopify("products/update", {"id": 1}).json()["ignored"] == "a topic of no use"
    assert query(engine, "select count(*) from collected") == [(0,)]
