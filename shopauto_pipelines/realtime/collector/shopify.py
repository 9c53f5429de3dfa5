"""Shopify's webhooks (Admin REST payloads): orders, checkouts, carts, customers, refunds. Stores nothing.

The cart is known by its token: carts, checkouts and orders name it, and so does the page (``/cart.js``). Carts name nobody;
whose they are is known from the checkout, or from a browser id that the page left among the cart's attributes.
"""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

from shopauto_pipelines.realtime.batch import Batch, Login, Snapshot
from shopauto_pipelines.realtime.collector.reading import Reader
from shopauto_pipelines.realtime.collector.shop_words import (
    careful,
    cents,
    contents,
    note,
    plain_id,
    recent,
    refusal,
    said_at,
    text_id,
)
from shopauto_pipelines.sources import tables as raw

__all__ = ["SIGNATURE_HEADER", "TOPIC_HEADER", "read", "refusal"]

SIGNATURE_HEADER = "X-Shopify-Hmac-Sha256"
TOPIC_HEADER = "X-Shopify-Topic"

#: Money has come in. Of the others (pending, authorized) the cart is taken and the order is not paid yet.
_PAID = ("paid", "partially_paid", "partially_refunded", "refunded")
_AWAITED = ("pending", "authorized")

#: Their state of a consent → ours. Others (not_subscribed, invalid, redacted) were never asked, or say nothing.
_CONSENT = {"subscribed": "opted_in", "pending": "pending", "unsubscribed": "opted_out"}


@careful
def read(batch: Batch, topic: str, told: dict[str, Any], reader: Reader, now: datetime) -> str | None:
    """Add what a genuine delivery says; returns why it is of no use. Raises ``Unreadable``."""
    subject, _, happened = topic.partition("/")
    if subject == "orders" and happened in ("create", "paid", "updated"):
        return _order(batch, told, reader, now)
    if subject in ("checkouts", "carts") and happened in ("create", "update"):
        return _cart(batch, told, reader, now)
    if subject == "customers" and happened in ("create", "update"):
        return _customer(batch, told, reader, now)
    if topic == "refunds/create":
        return _refund(batch, told, reader, now)
    return "a topic of no use"


def _cart(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime) -> str | None:
    """What is in a cart or a checkout, and whose it is where that is said."""
    if told.get("completed_at"):
        return "a checkout that an order took"
    cart, at = _cart_id(told), said_at(told["updated_at"], now)
    browser = note(told.get("note_attributes"), "shopauto_anonymous_id") or cart
    address = reader.address_hash(told.get("email"))
    if address:
        batch.logins.append(Login(browser, None, address, at))
    owner = text_id((told.get("customer") or {}).get("id"))
    batch.snapshots.append(Snapshot(cart, at, contents(told["line_items"]), owner, browser))
    return None


def _order(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime) -> str | None:
    if told.get("test"):
        return "a test order"
    status, at = told.get("financial_status"), told.get("processed_at") or told["created_at"]
    if not recent(at, now):
        return "an old order"
    if status in _AWAITED:
        if told.get("cart_token") or told.get("checkout_token"):
            batch.snapshots.append(Snapshot(_cart_id(told), said_at(told["created_at"], now), {}, None, None))
        return None
    if status not in _PAID:
        return "an order of no use"
    order_id, email = str(told["id"]), told.get("email") or told.get("contact_email")
    customer = reader.who(batch, text_id((told.get("customer") or {}).get("id")), email)
    lines = _lines(told)
    order = {
        "order_id": order_id,
        "ordered_at": at,
        "shop_customer_id": customer,
        "email": email,
        "currency": told.get("currency"),
        "total_cents": cents(told["total_price"]),
        "discount_cents": cents(told.get("total_discounts")),
        "shipping_cents": sum(line["amount_cents"] for line in lines if line["kind"] == "shipping"),
        "coupon_code": next((code["code"] for code in told.get("discount_codes") or ()), None),
        "cart_id": _cart_id(told) if told.get("cart_token") or told.get("checkout_token") else None,
    }
    reader.row(batch, raw.ORDERS, order, now)
    shared = {"order_id": order_id, "ordered_at": at, "shop_customer_id": customer}
    for number, line in enumerate(lines, start=1):
        reader.row(batch, raw.ORDER_LINES, shared | {"line_number": number} | line, now)
    return None


def _lines(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines as they were charged: after their discounts, with tax."""
    lines = []
    for line in told.get("line_items") or ():
        quantity = int(line["quantity"])
        kind = "gift_card" if line.get("gift_card") else "product"
        amount = cents(line["price"]) * quantity - _discounts(line) + _tax(told, line)
        made = {"kind": kind, "product_id": text_id(line.get("product_id")), "quantity": quantity}
        lines.append(made | {"unit_price_cents": cents(line["price"]), "amount_cents": amount})
    for line in told.get("shipping_lines") or ():
        amount = cents(line["price"]) - _discounts(line) + _tax(told, line)
        lines.append({"kind": "shipping", "quantity": 1, "amount_cents": amount})
    return lines


def _discounts(line: dict[str, Any]) -> int:
    return sum(cents(part["amount"]) for part in line.get("discount_allocations") or ())


def _tax(told: dict[str, Any], line: dict[str, Any]) -> int:
    """Tax that is not in the price."""
    return 0 if told.get("taxes_included") else sum(cents(tax["price"]) for tax in line.get("tax_lines") or ())


def _refund(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime) -> str | None:
    """A row for each line that came back, and one for what was given back beside them; together the money that moved.

    Lines name what they cost, also where less or nothing is given back for them: each has its share then.
    """
    given = sum(
        cents(part["amount"])
        for part in told.get("transactions") or ()
        if part.get("kind") == "refund" and part.get("status") in (None, "success", "pending")
    )
    if given <= 0:
        return "no money was given back"
    shared = {
        "refunded_at": told.get("processed_at") or told["created_at"],
        "order_id": text_id(told.get("order_id")),
        "reason": (told.get("note") or "")[:400],
    }
    lines = told.get("refund_line_items") or ()
    worth = [cents(line.get("subtotal")) + cents(line.get("total_tax")) for line in lines]
    for line, amount in zip(lines, _shares(worth, given), strict=True):
        row = {
            "refund_id": f"{told['id']}.{line['id']}",
            "product_id": text_id((line.get("line_item") or {}).get("product_id")),
            "kind": "product",
            "quantity": int(line.get("quantity") or 0),
            "amount_cents": amount,
        }
        reader.row(batch, raw.REFUNDS, shared | row, now)
    if given > sum(worth):
        row = {"refund_id": str(told["id"]), "kind": "adjustment", "amount_cents": given - sum(worth)}
        reader.row(batch, raw.REFUNDS, shared | row, now)
    return None


def _shares(worth: list[int], given: int) -> list[int]:
    """What each line is ``worth``, or, where less than all of it is ``given``, its share of that to the cent."""
    whole = sum(worth)
    if given >= whole:
        return worth
    ends = [given * end // whole for end in accumulate(worth, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def _customer(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime) -> str | None:
    address = told.get("default_address") or {}
    customer = reader.who(batch, str(told["id"]), told.get("email"))
    row = {
        "shop_customer_id": customer,
        "changed_at": told.get("updated_at") or told["created_at"],
        "created_at": told.get("created_at"),
        "email": told.get("email"),
        "phone": told.get("phone") or address.get("phone"),
        "first_name": told.get("first_name"),
        "last_name": told.get("last_name"),
        "country": address.get("country_code"),
        "city": address.get("city"),
    }
    reader.row(batch, raw.CUSTOMERS, row, now)
    for channel, name in (("email", "email_marketing_consent"), ("sms", "sms_marketing_consent")):
        consent = told.get(name) or {}
        state, at = _CONSENT.get(consent.get("state") or ""), consent.get("consent_updated_at")
        if state and at and recent(at, now):
            level = consent.get("opt_in_level") or "no level"
            given = {"shop_customer_id": customer, "channel": channel, "state": state, "changed_at": at}
            reader.row(batch, raw.CONSENTS, given | {"wording": f"Shopify, {level}"}, now)
    return None


def _cart_id(told: dict[str, Any]) -> str:
    # a cart's own token; a checkout and an order name the cart's beside their own
    token = told.get("cart_token") or told.get("checkout_token") or told.get("token") or told["id"]
    found = plain_id(token, "")
    if found is None:
        raise ValueError("a cart without a token")
    return found
