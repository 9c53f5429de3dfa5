"""Complements, not substitutes: what is bought with a product or soon after it, and what of that each person lacks.

A *trigger* is an order day of a person with a product; a *pair* is a trigger on which, or within ``complement_days`` after which,
the person buys another product. What is expected is how often that other product follows any order day at all, so that what
everybody buys is nobody's complement (lift). Products of one category attract each other because people love the category, and
replace each other as often as not: between them the comparison is with the order days of that category, or the pair must be
the rule. Small counts are shrunk to a lift of 1, and the lower end of the interval decides (DuMouchel 1999, gamma-Poisson).
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import (
    COMPLEMENTS,
    GOODS,
    PRODUCTS,
    place,
    poisson_bound,
    prepare,
    purchases,
    rule,
    wilson,
)
from shopauto_pipelines.recommendations.ownership import allowed, given_back

#: Days of history that pairs are counted in.
HISTORY_DAYS = 730

#: A basket of more products than this says little about any two of them, and its pairs grow with its square: left out.
LARGEST_BASKET = 50

#: Most complements of a product, and of a person.
OF_PRODUCT, OF_PERSON = 10, 5

#: Pairs that a lift of 1 weighs in a lift, and triggers that what is expected weighs in a confidence.
_PRIOR_PAIRS, _PRIOR_TRIGGERS = 1.0, 5.0

#: From this share of the triggers on (lower end), a pair of one category is the rule.
_THE_RULE = 0.15

#: Two-sided 99 %: a shop has many pairs, and of those that mean nothing one in twenty would pass at 95 %.
_Z = 2.575829


@kept
def of_products() -> Prepared:
    """The statement of ``recommendations/complements``."""
    return prepare(tables.COMPLEMENTS, complements())


@kept
def of_customers() -> Prepared:
    """The statement of ``recommendations/customer_complements``."""
    return prepare(tables.CUSTOMER_COMPLEMENTS, customer_complements())


def complements() -> ir.Table:
    """``recommendations/complements``: at most ``OF_PRODUCT`` per product, strongest first."""
    goods = PRODUCTS.select("product_id", "category", "category_durable")
    basket = ibis.window(group_by=["customer_id", "day"])
    lines = purchases().filter(_.age < HISTORY_DAYS).mutate(products=_.count().over(basket))
    lines = lines.filter(_.products <= LARGEST_BASKET).inner_join(goods, "product_id")
    lines = lines.select("customer_id", "day", "product_id", "category", "category_durable")
    order_days = lines.select("customer_id", "day").distinct()

    # what follows an order day, each product once however often
    bought = lines.select("customer_id", bought_on="day", complement_id="product_id", complement_category="category")
    soon = (
        (order_days.customer_id == bought.customer_id)
        & (bought.bought_on >= order_days.day)
        & (bought.bought_on.delta(order_days.day, unit="day") <= rule("complement_days"))
    )
    followed = order_days.inner_join(bought, soon).select("customer_id", "day", "complement_id", "complement_category")
    followed = followed.distinct()
    after_any = followed.group_by("complement_id").aggregate(after_any=_.count())

    each = lines.inner_join(followed, ["customer_id", "day"]).filter(_.product_id != _.complement_id)
    pairs = each.group_by("product_id", "complement_id").aggregate(pairs=_.count(), people=_.customer_id.nunique())
    pairs = pairs.filter(_.people >= rule("complement_people"))
    triggers = lines.group_by("product_id").aggregate(triggers=_.count())
    rows = pairs.inner_join(triggers, "product_id").inner_join(after_any, "complement_id")
    rows = rows.inner_join(goods, "product_id").inner_join(_peers(lines, each), "complement_id")
    declared = GOODS.filter((_.kind == "category") & _.substitutes).select(substituted="subject")
    rows = rows.left_join(declared, rows.category == declared.substituted)

    rows = rows.cross_join(order_days.aggregate(days=_.count()))
    same = (_.category == _.complement_category).fill_null(False)
    rows = rows.mutate(same=same, expected=_.triggers * _.after_any / _.days)
    rows = rows.mutate(
        support=(_.pairs / _.days).round(6),
        lift=((_.pairs + _PRIOR_PAIRS) / (_.expected + _PRIOR_PAIRS)).round(6),
        lift_low=(poisson_bound(_.pairs + _PRIOR_PAIRS, -_Z) / (_.expected + _PRIOR_PAIRS)).round(6),
        peer_lift_low=poisson_bound(_.pairs + _PRIOR_PAIRS, -_Z)
        / (_.triggers * _.after_peers / _.peers + _PRIOR_PAIRS),
        confidence_low=wilson(_.pairs, _.triggers, -_Z).round(6),
        confidence_high=wilson(_.pairs, _.triggers, _Z).round(6),
    )
    usual = _.confidence_low >= _THE_RULE
    among_peers = usual | ((_.peer_lift_low > 1).fill_null(False) & ~_.category_durable)
    goes_with = ~_.same | (among_peers & _.substituted.isnull())
    rows = rows.filter((_.lift_low > 1) & goes_with)
    rows = rows.mutate(
        confidence=((_.pairs + _.after_any / _.days * _PRIOR_TRIGGERS) / (_.triggers + _PRIOR_TRIGGERS)).round(6),
        rank=place([_.lift_low.desc(), _.complement_id], "product_id"),
    )
    return rows.filter(_.rank <= OF_PRODUCT)


def _peers(lines: ir.Table, each: ir.Table) -> ir.Table:
    """For each product: order days with another product of its category, ``peers``, and those it follows, ``after_peers``."""
    of_category = lines.group_by("customer_id", "day", "category").aggregate(
        products=_.count(), product_id=_.product_id.min()
    )
    days = of_category.group_by("category").aggregate(category_days=_.count())
    alone = of_category.filter(_.products == 1).group_by(complement_id=_.product_id).aggregate(alone=_.count())
    within = each.filter(_.category == _.complement_category).select("customer_id", "day", "complement_id").distinct()
    followed = within.group_by("complement_id").aggregate(after_peers=_.count())
    rows = lines.select("category", complement_id="product_id").distinct().left_join(days, "category")
    rows = rows.left_join(alone, "complement_id").left_join(followed, "complement_id")
    return rows.select(
        complement_id=_.complement_id,
        complement_category=_.category,
        peers=(_.category_days - _.alone.fill_null(0)).nullif(0),
        after_peers=_.after_peers.fill_null(0),
    )


def customer_complements() -> ir.Table:
    """``recommendations/customer_complements``: what goes with the latest purchase, and neither is owned nor was just bought.

    What was sent back altogether is no purchase to complement.
    """
    bought = purchases(of_bucket=True)
    latest = bought.anti_join(given_back(), ["customer_id", "product_id"])
    latest = latest.mutate(bought_on=_.day.max().over(ibis.window(group_by="customer_id"))).filter(_.day == _.bought_on)
    latest = latest.select("customer_id", "bought_on", bought_product_id="product_id")
    pairs = COMPLEMENTS.select("complement_id", "lift", "lift_low", "confidence", bought_product_id="product_id")
    rows = latest.inner_join(pairs, "bought_product_id").rename(product_id="complement_id")
    rows = rows.mutate(
        nth=place([_.lift_low.desc(), _.bought_product_id], ["customer_id", "product_id"]),
    ).filter(_.nth == 1)
    just = bought.filter(_.age <= rule("complement_days")).select("customer_id", "product_id").distinct()
    rows = allowed(rows.anti_join(just, ["customer_id", "product_id"]))
    rows = rows.mutate(rank=place([_.lift_low.desc(), _.product_id], "customer_id")).filter(_.rank <= OF_PERSON)
    names = PRODUCTS.select(bought_product_id="product_id", bought_name=ibis.coalesce(_.name, _.product_id))
    return rows.inner_join(names, "bought_product_id").mutate(why="goes with " + _.bought_name + ", bought last")
