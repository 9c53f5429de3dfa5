"""WooCommerce's webhooks (REST API v3): orders, drafts of the checkout, customers. Stores nothing.

A draft of the checkout is a cart: its id is the order's, and so is the cart of the order it becomes. Orders name no time
in their local fields that could be relied on, so only the ``…_gmt`` ones are read. Guests exist only in ``billing``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from shopauto_pipelines.realtime.batch import Batch, Login, Snapshot
from shopauto_pipelines.realtime.collector.models import MADE
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

SIGNATURE_HEADER = "X-WC-Webhook-Signature"
TOPIC_HEADER = "X-WC-Webhook-Topic"

_ORDER_TOPICS = ("order.created", "order.updated", "order.restored")
_CUSTOMER_TOPICS = ("customer.created", "customer.updated")

#: Not paid yet, or in vain: what is in them is still a cart.
_OPEN = ("checkout-draft", "pending", "failed")
#: Placed, to be paid by a transfer: no cart any more, not paid yet.
_AWAITED = ("on-hold",)
#: Paid, whatever ``date_paid`` says: cash on delivery has none.
_PAID = ("processing", "completed", "refunded")
_CANCELLED = ("cancelled", "trash")


@careful
def read(batch: Batch, topic: str, told: dict[str, Any], reader: Reader, now: datetime) -> str | None:
    """Add what a genuine delivery says; returns why it is of no use. Raises ``Unreadable``."""
    if topic in _CUSTOMER_TOPICS:
        _customer(batch, told, reader, now)
        return None
    if topic not in _ORDER_TOPICS:
        return "a topic of no use"
    status, paid = told["status"], bool(told.get("date_paid_gmt"))
    if status in _OPEN or (status in (*_AWAITED, *_CANCELLED) and not paid):
        _cart(batch, told, reader, now, taken=status not in _OPEN)
    elif paid or status in _PAID:
        _order(batch, told, reader, now)
    else:
        return "an order of no use"
    return None


def _cart(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime, *, taken: bool) -> None:
    """What is in the draft; nothing once it is ``taken``. A guest's address is known to belong to this browser."""
    cart, at = _cart_id(told), said_at(told["date_modified_gmt"], now)
    browser = note(told.get("meta_data"), "shopauto_anonymous_id") or cart
    address = reader.address_hash(told["billing"].get("email"))
    if address:
        batch.logins.append(Login(browser, None, address, at))
    held = {} if taken else contents(told["line_items"])
    batch.snapshots.append(Snapshot(cart, at, held, text_id(told.get("customer_id")), browser))


def _order(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime) -> None:
    order_id, billing, modified = str(told["id"]), told["billing"], told["date_modified_gmt"]
    customer = reader.who(batch, text_id(told.get("customer_id")), billing.get("email"))
    at = told.get("date_paid_gmt") or told["date_created_gmt"]
    if recent(at, now):
        order = {
            "order_id": order_id,
            "ordered_at": at,
            "shop_customer_id": customer,
            "email": billing.get("email"),
            "currency": told.get("currency"),
            "total_cents": cents(told["total"]),
            "discount_cents": cents(told.get("discount_total")) + cents(told.get("discount_tax")),
            "shipping_cents": cents(told.get("shipping_total")) + cents(told.get("shipping_tax")),
            "coupon_code": next((coupon["code"] for coupon in told.get("coupon_lines") or ()), None),
            "cart_id": _cart_id(told),
        }
        reader.row(batch, raw.ORDERS, order, now)
        shared = {"order_id": order_id, "ordered_at": at, "shop_customer_id": customer}
        for number, line in enumerate(_lines(told), start=1):
            reader.row(batch, raw.ORDER_LINES, shared | {"line_number": number} | line, now)
        if customer and customer.startswith("guest:"):
            guest = _person(billing) | {"shop_customer_id": customer, "changed_at": modified, "email": billing["email"]}
            reader.row(batch, raw.CUSTOMERS, guest, now)
    _refunds(batch, told, customer, reader, now)


def _lines(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines as they were charged: with tax, after discounts."""
    lines = []
    for kind, name in (("product", "line_items"), ("shipping", "shipping_lines"), ("fee", "fee_lines")):
        for line in told.get(name) or ():
            amount = cents(line["total"]) + cents(line.get("total_tax"))
            quantity = int(line.get("quantity") or 1)
            made = {"kind": kind, "quantity": quantity, "amount_cents": amount}
            if kind == "product":
                made |= {"product_id": text_id(line.get("product_id"))}
                if quantity > 0:
                    made["unit_price_cents"] = round(amount / quantity)
            lines.append(made)
    return lines


def _refunds(batch: Batch, told: dict[str, Any], customer: str | None, reader: Reader, now: datetime) -> None:
    """What was given back, nothing else: who cancels an order gives nothing back yet, and may restore it.

    Where money goes back by hand the order is set to "refunded", and WooCommerce writes the refund of what is left.
    """
    shared = {"refunded_at": told["date_modified_gmt"], "order_id": str(told["id"]), "shop_customer_id": customer}
    for refund in told.get("refunds") or ():
        if amount := abs(cents(refund["total"])):
            row = {"refund_id": str(refund["id"]), "amount_cents": amount, "reason": refund.get("reason")}
            reader.row(batch, raw.REFUNDS, shared | row, now)


def _customer(batch: Batch, told: dict[str, Any], reader: Reader, now: datetime) -> None:
    billing = told["billing"]
    names = {name: told.get(name) or billing.get(name) for name in ("first_name", "last_name")}
    row = _person(billing) | {
        "shop_customer_id": str(told["id"]),
        "changed_at": told.get("date_modified_gmt") or told["date_created_gmt"],
        "created_at": told.get("date_created_gmt"),
        "email": told.get("email") or billing.get("email"),
    }
    reader.row(batch, raw.CUSTOMERS, row | names, now)


def _person(billing: dict[str, Any]) -> dict[str, Any]:
    return {name: billing.get(name) for name in ("first_name", "last_name", "phone", "country", "city")}


def _cart_id(told: dict[str, Any]) -> str:
    """The cart's own id where the shop's page left it with the order, else the order's."""
    own = note(told.get("meta_data"), "shopauto_cart_id") or plain_id(told["id"], MADE["cart_id"])
    if own is None:
        raise ValueError("an order without an id")
    return own
