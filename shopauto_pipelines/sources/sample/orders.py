"""What is bought: baskets, prices, coupons, shipping and refunds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from shopauto_pipelines.sources.sample.files import Bools, Ints, money, numbered, position, times
from shopauto_pipelines.sources.sample.lists import CATEGORY_SEASON, REASONS
from shopauto_pipelines.sources.sample.mail import Mail
from shopauto_pipelines.sources.sample.people import Ids, People
from shopauto_pipelines.sources.sample.rhythm import Rhythm
from shopauto_pipelines.sources.sample.shop import CATEGORIES, DAY, HORIZON_DAYS, Counters, Shop

_FREE_SHIPPING_CENTS, _SHIPPING_CENTS, _WRAP_CENTS = 6000, 490, 250


_CODES = (None, "WELCOME10", "NEWS10", "SAVE10", "COMEBACK15")


_PERCENT = np.array([0, 10, 10, 10, 15])


@dataclass
class Orders:
    """Orders in time order, those of the 90 days after the end last; lines sorted by order."""

    person: Ints
    seconds: Ints
    by_guest: Bools
    recovered: Bools  # an abandoned cart that was bought later
    tracked: Bools  # the visit is in the events
    code: Ints  # index in ``_CODES``
    subtotal: Ints
    discount: Ints
    shipping: Ints
    line_order: Ints
    product: Ints  # −1 is gift wrapping
    quantity: Ints
    unit: Ints
    past: int  # how many orders are up to the end

    @property
    def total(self) -> Ints:
        """What was paid, cents."""
        return self.subtotal - self.discount + self.shipping


def draw_orders(rng: np.random.Generator, shop: Shop, people: People, rhythm: Rhythm, mail: Mail) -> Orders:
    """All orders from the opening day to the end of the 90 days after, with their lines."""
    person = np.concatenate([rhythm.person, mail.order_person])
    seconds = np.concatenate([rhythm.seconds, mail.order_seconds])
    by_mail = np.arange(len(person)) >= len(rhythm.person)
    keep = np.flatnonzero((seconds >= shop.opens) & (seconds < shop.closes + HORIZON_DAYS * DAY))
    keep = keep[np.lexsort((by_mail[keep], person[keep], seconds[keep]))]
    person, seconds, by_mail = person[keep], seconds[keep], by_mail[keep]
    n = len(person)
    opening = seconds == rhythm.bought_from[person]
    by_guest = people.guest[person] | ((rng.random(n) < 0.02) & ~opening)
    seeker = people.seeker[person] & ~by_guest
    draw, coupon = rng.random(n), rng.random(n)
    recovered = ~by_guest & (draw < np.where(seeker, 0.72, 0.05))
    code = np.select(
        [
            seeker & recovered & (coupon < 0.92),
            by_mail & (coupon < 0.4),
            opening & (coupon < 0.15),
            coupon < np.where(seeker, 0.25, 0.04),
        ],
        [np.where(draw < 0.4, 4, 3), 2, 1, 3],
        0,
    )
    line_order, product, quantity, unit = _baskets(rng, shop, people, person, seconds)
    subtotal = np.bincount(line_order, weights=quantity * unit, minlength=n).astype(np.int64)
    discount = (subtotal * _PERCENT[code] + 50) // 100
    shipping = np.where(subtotal - discount >= _FREE_SHIPPING_CENTS, 0, _SHIPPING_CENTS)
    return Orders(
        person=person,
        seconds=seconds,
        by_guest=by_guest,
        recovered=recovered,
        tracked=rng.random(n) < 0.95,
        code=code,
        subtotal=subtotal,
        discount=discount,
        shipping=shipping,
        line_order=line_order,
        product=product,
        quantity=quantity,
        unit=unit,
        past=int(np.searchsorted(seconds, shop.closes)),
    )


def _baskets(
    rng: np.random.Generator, shop: Shop, people: People, person: Ints, seconds: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """Order, product, quantity and unit price of the lines: a loved category first, then complements or other loves."""
    n, catalogue = len(person), shop.catalogue
    extra = np.minimum(rng.poisson(people.basket[person]), 6)
    order = np.repeat(np.arange(n), extra + 1)
    product = pick(rng, shop, people, person[order], seconds[order])
    first = np.concatenate([[0], np.cumsum(extra + 1)[:-1]]).astype(np.int64) if n else np.empty(0, np.int64)
    lead = product[first[order]]
    beside = catalogue.complement[lead, rng.integers(0, catalogue.complement.shape[1], len(order))]
    follows = (np.arange(len(order)) != first[order]) & (beside >= 0) & (rng.random(len(order)) < 0.6)
    product = np.where(follows, beside, product)
    owned = catalogue.durable[product] & _seen_before(person[order], product)
    beside = catalogue.complement[product, 0]
    product = np.where(owned & (beside >= 0), beside, product)
    keep = ~_seen_before(order, product)
    order, product = order[keep], product[keep]
    quantity = np.where(
        catalogue.durable[product], 1, 1 + np.searchsorted([0.8, 0.95], rng.random(len(order)), side="right")
    )
    month = (np.array(seconds, "datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12) + 1
    wrapped = np.flatnonzero(rng.random(n) < np.where(month == 12, 0.14, 0.02))
    order, product = np.concatenate([order, wrapped]), np.concatenate([product, np.full(len(wrapped), -1)])
    quantity = np.concatenate([quantity, np.ones(len(wrapped), np.int64)])
    by_order = np.argsort(order, kind="stable")
    order, product, quantity = order[by_order], product[by_order], quantity[by_order]
    unit = np.where(product < 0, _WRAP_CENTS, catalogue.price_at(product, seconds[order]))
    return order, product, quantity, unit


def pick(rng: np.random.Generator, shop: Shop, people: People, person: Ints, seconds: Ints) -> Ints:
    """A product the person would choose at the time: by love, season and taste."""
    month = np.array(seconds, "datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12
    season = np.array([CATEGORY_SEASON[name] for name in CATEGORIES]).T
    weights = np.cumsum(people.love[person] * season[month], axis=1)
    category = (rng.random((len(person), 1)) * weights[:, -1:] >= weights).sum(axis=1)
    taste = np.abs(people.taste[person] + rng.normal(0, 0.24, len(person)))
    taste = np.where(taste > 1, 2 - taste, taste).clip(0, 0.999)
    return category * shop.catalogue.per_category + (taste * shop.catalogue.per_category).astype(np.int64)


def _seen_before(group: Ints, value: Ints) -> Bools:
    """True where the same pair stands earlier."""
    _, first = np.unique(group * 1000 + value, return_index=True)
    seen = np.ones(len(group), bool)
    seen[first] = False
    return seen


def order_rows(orders: Orders, numbers: Ints, account: pa.Array, ids: Ids, cart: Ints) -> dict[str, Any]:
    """The rows of orders.csv."""
    past = slice(0, orders.past)
    guest_mail = ids.typed_email(orders.person[past], orders.by_guest[past])
    return {
        "order_id": numbered("o", numbers[past]),
        "ordered_at": times(orders.seconds[past]),
        "shop_customer_id": account[past],
        "email": guest_mail,
        "currency": pa.repeat("EUR", orders.past),
        "total": money(orders.total[past]),
        "discount": money(orders.discount[past]),
        "shipping": money(orders.shipping[past]),
        "coupon_code": pa.array(_CODES).take(pa.array(orders.code[past])),
        "cart_id": numbered("k", cart[past], cart[past] > 0),
    }


def line_rows(shop: Shop, orders: Orders, numbers: Ints, account: pa.Array) -> dict[str, Any]:
    """The rows of order_lines.csv."""
    past = np.flatnonzero(orders.line_order < orders.past)
    order, product = orders.line_order[past], orders.product[past]
    goods = product >= 0
    return {
        "order_id": numbered("o", numbers[order]),
        "line_number": pa.array(position(order) + 1),
        "ordered_at": times(orders.seconds[order]),
        "shop_customer_id": account.take(pa.array(order)),
        "product_id": pa.array(shop.catalogue.ids).take(pa.array(product, mask=~goods)),
        "kind": pa.array(["fee", "product"]).take(pa.array(goods.astype(np.int64))),
        "quantity": pa.array(orders.quantity[past]),
        "unit_price": money(orders.unit[past]),
        "amount": money(orders.quantity[past] * orders.unit[past]),
    }


def refund_rows(
    rng: np.random.Generator,
    shop: Shop,
    people: People,
    orders: Orders,
    numbers: Ints,
    account: pa.Array,
    counters: Counters,
) -> dict[str, Any]:
    """Lines that came back, at what was paid for them: their amount less their part of the discount, rounded down."""
    order, goods = orders.line_order, orders.product >= 0
    at = orders.seconds[order] + (rng.uniform(4, 26, len(order)) * DAY).astype(np.int64)
    back = goods & (rng.random(len(order)) < people.returns[orders.person[order]]) & (at < shop.closes)
    line = np.flatnonzero(back)
    line = line[np.argsort(at[line], kind="stable")]
    order, amount = order[line], (orders.quantity * orders.unit)[line]
    reason = rng.integers(0, len(REASONS), len(line))
    return {
        "refund_id": numbered("r", counters.take("refund", len(line)) + np.arange(len(line))),
        "refunded_at": times(at[line]),
        "order_id": numbered("o", numbers[order]),
        "shop_customer_id": account.take(pa.array(order)),
        "product_id": pa.array(shop.catalogue.ids).take(pa.array(orders.product[line])),
        "kind": pa.repeat("product", len(line)),
        "quantity": pa.array(orders.quantity[line]),
        "amount": money(amount - -(-amount * orders.discount[order] // np.maximum(orders.subtotal[order], 1))),
        "reason": pa.array(REASONS).take(pa.array(reason)),
    }


def future_rows(orders: Orders, ids: Ids) -> dict[str, Any]:
    """The rows of truth/future_orders.csv."""
    future = slice(orders.past, len(orders.person))
    person = orders.person[future]
    return {
        "shop_customer_id": ids.shop.take(pa.array(person)),
        "email": ids.email.take(pa.array(person)),
        "ordered_at": times(orders.seconds[future]),
        "total": money(orders.total[future]),
    }
