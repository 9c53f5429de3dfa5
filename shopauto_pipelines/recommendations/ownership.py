"""What must not be recommended to whom: what is out of stock or off sale, what the person owns and keeps, what they sent back."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.recommendations.inputs import (
    AS_OF,
    COMPLEMENTS,
    PERSONS,
    PRODUCTS,
    REFUNDS,
    age,
    in_bucket,
    purchases,
    rule,
)

#: Letters of the shortest word that tells what a product is.
_SHORTEST_WORD = 4


def allowed(candidates: ir.Table) -> ir.Table:
    """Those rows of ``candidates`` (``customer_id``, ``product_id``, …) whose product may be recommended to the person.

    Left out are

    - products that are not ``available``;
    - durables the person owns (bought, and not sent back), until their age of replacement;
    - what would replace an owned durable: of a category that is durable altogether any other product, otherwise a durable of
      the same category whose name shares a word with it; both unless it is a complement of the owned one;
    - refused products: all of the latest purchase was sent back, within ``refusal_days``.
    """
    goods = PRODUCTS.select("product_id", "category", "available", "durable", "category_durable", "replacement_days")
    owned = purchases(of_bucket=True).group_by("customer_id", "product_id").aggregate(owned_days=_.age.min())
    kept = owned.inner_join(goods, "product_id").filter(
        (_.durable | _.category_durable) & (_.owned_days < _.replacement_days)
    )
    kept = kept.anti_join(given_back(), ["customer_id", "product_id"]).select(
        "customer_id", "category", "durable", "category_durable", owned_id="product_id"
    )
    rows = candidates.semi_join(goods.filter(_.available), "product_id")
    own = kept.filter(_.durable).select("customer_id", product_id="owned_id")
    rows = rows.anti_join(own, ["customer_id", "product_id"]).anti_join(refused(), ["customer_id", "product_id"])
    return rows.anti_join(_replacements(candidates, kept, goods), ["customer_id", "product_id"])


def refused() -> ir.Table:
    """``customer_id``, ``product_id`` where all of the latest purchase was sent back, within ``refusal_days``.

    Who sends some of the pieces back keeps the others, and whoever buys again has changed their mind.
    """
    lately = _.bought_on.isnull() | (_.returned_on >= _.bought_on)
    sums = _returns().filter(lately).group_by("customer_id", "product_id")
    sums = sums.aggregate(
        returned_on=_.returned_on.max(),
        whole=_.quantity.isnull().any() | (_.quantity.sum() >= _.pieces.max().fill_null(0)),
    )
    return sums.filter(_.whole & (age(_.returned_on) < rule("refusal_days"))).select("customer_id", "product_id")


def given_back() -> ir.Table:
    """``customer_id``, ``product_id`` where nothing is left of what was bought: all pieces were sent back, whenever."""
    sums = _returns().filter(_.bought_on.notnull()).group_by("customer_id", "product_id")
    sums = sums.aggregate(left=_.all_pieces.max() - _.quantity.fill_null(_.pieces).sum())
    return sums.filter(_.left <= 0).select("customer_id", "product_id")


def _returns() -> ir.Table:
    """Refunds of products up to the day, each with the purchases of the product by the person.

    ``customer_id``, ``product_id``, ``returned_on``, its ``quantity`` (null: all of a purchase); of the latest purchase
    ``bought_on`` and ``pieces``, of all of them ``all_pieces``: null where none is known.
    """
    persons = PERSONS.select("shop_customer_id", person="customer_id")
    back = REFUNDS.filter((_.day <= AS_OF) & _.shop_customer_id.notnull() & _.product_id.notnull())
    back = back.left_join(persons, "shop_customer_id").mutate(customer_id=ibis.coalesce(_.person, _.shop_customer_id))
    back = back.filter(in_bucket(_.customer_id)).select("customer_id", "product_id", "quantity", returned_on=_.day)
    bought = purchases(of_bucket=True).group_by("customer_id", "product_id")
    bought = bought.aggregate(bought_on=_.day.max(), pieces=_.quantity.argmax(_.day), all_pieces=_.quantity.sum())
    return back.left_join(bought, ["customer_id", "product_id"]).drop("customer_id_right", "product_id_right")


def _replacements(candidates: ir.Table, kept: ir.Table, goods: ir.Table) -> ir.Table:
    """``customer_id``, ``product_id`` of candidates that would replace something kept, and do not go with it."""
    offered = candidates.select("customer_id", "product_id").inner_join(
        goods.select("product_id", "category"), "product_id"
    )
    both = offered.inner_join(kept, ["customer_id", "category"]).filter(_.product_id != _.owned_id)
    both = both.select("customer_id", "product_id", "owned_id", "category_durable")
    pair = ["owned_id", "product_id"]
    replaced = both.filter(_.category_durable).union(both.filter(~_.category_durable).semi_join(_alike(), pair))
    with_it = COMPLEMENTS.select(owned_id="product_id", product_id="complement_id")
    return replaced.anti_join(with_it, pair).select("customer_id", "product_id")


def _alike() -> ir.Table:
    """``owned_id``, ``product_id`` of durables of one category whose names share a word that is not the category's own."""
    words = _words(PRODUCTS.filter(_.durable & _.category.notnull()), "name")
    own = _words(PRODUCTS.filter(_.category.notnull()), "category").select("category", "word").distinct()
    words = words.anti_join(own, ["category", "word"])
    others = words.select("category", "word", owned_id="product_id")
    return words.inner_join(others, ["category", "word"]).select("owned_id", "product_id").distinct()


def _words(rows: ir.Table, column: str) -> ir.Table:
    """``product_id``, ``category`` and each ``word`` of a column: letters alone, in small ones."""
    each = rows.select("product_id", "category", word=rows[column].fill_null("").lower().re_split(r"[^\pL]+").unnest())
    return each.filter(_.word.length() >= _SHORTEST_WORD)
