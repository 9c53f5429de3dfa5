"""Every product with what its sales say: may it be recommended, is it bought once and kept, how long does a piece last.

How often owners buy again is a rate: later order days with the product ÷ years in which its owners went on ordering. Who never
ordered anything again says nothing about it. A good is *durable* where the upper end of that rate's interval is below
``durable_below_per_year``: surely bought again less than once in five years, by default.
"""

from __future__ import annotations

from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import (
    AS_OF,
    CATALOGUE,
    GOODS,
    STOCK,
    age,
    history,
    poisson_bound,
    prepare,
    purchases,
    rule,
)

#: How sure it has to be that a good is durable: upper end of a one-sided 90 % interval.
_SURE = 1.2816

#: Owner-years that the category's rate weighs in a product's, and the shop's in a category's.
_PRIOR_YEARS = 2

#: Repurchases from which on a durable's age of replacement is its own; at most ten years.
_OWN_AGE, _OLDEST = 3, 3650

#: People who must have bought a product again, and their least share of its buyers, for its pack to have a length.
_REPEAT_BUYERS, _REPEAT_SHARE = 5, 0.1


@kept
def statement() -> Prepared:
    """The statement of ``recommendations/products``."""
    return prepare(tables.PRODUCTS, products())


def products() -> ir.Table:
    """``recommendations/products``: one row for every product that was ever listed, bought or viewed."""
    sales, seen, known = _sales(), _seen(), _latest()
    rows = seen.outer_join(known, "product_id").mutate(product_id=ibis.coalesce(_.product_id, _.product_id_right))
    rows = rows.drop("product_id_right").left_join(sales, "product_id").drop("product_id_right")
    rows = rows.left_join(_stock(), "product_id").drop("product_id_right")
    rows = rows.mutate(
        **{name: _[name].fill_null(0) for name in ("buyers", "buyers_90d", "repurchases", "owned_days")},
        category=ibis.coalesce(_.category, _.seen_category),
    )
    rows = _with_rates(rows)
    declared = _declared(rows)
    too_short = _.owned_days / 365 < poisson_bound(ibis.literal(1.0), _SURE) / rule("durable_below_per_year")
    category_surely = (_.repurchases == 0) & too_short & _surely_rare(_.category_repurchases, _.category_owned_days)
    category_durable = ibis.coalesce(
        declared.category_declared, _surely_rare(_.visits_again, _.visited_days), ibis.literal(False)
    )
    rows = declared.mutate(category_durable=category_durable)
    rows = rows.mutate(
        durable_basis=ibis.cases(
            (_.product_declared.notnull() | _.category_declared.notnull(), ibis.literal("declared")),
            (_.category_durable | category_surely, "category"),
            (_surely_rare(_.repurchases, _.owned_days), "product"),
        )
    )
    rows = rows.mutate(
        durable=ibis.coalesce(_.product_declared, _.category_declared, _.durable_basis.notnull()),
        days=ibis.coalesce(
            _.product_days,
            _.category_days,
            ibis.cases(
                (_.repurchases >= _OWN_AGE, (_.owned_days / _.repurchases).clip(1, _OLDEST).round().cast("int64"))
            ),
            rule("replacement_days"),
        ),
    )
    again = (
        ~_.durable
        & (_.repeat_buyers >= _REPEAT_BUYERS)
        & (_.repeat_buyers >= _.buyers * _REPEAT_SHARE)
        & (_.gap_days > 0)
    )
    sold = ibis.coalesce(_.stock > 0, ibis.literal(True))
    listed = _.changed_at.notnull() | (CATALOGUE.count() == 0).as_scalar()
    moved = ibis.greatest(_.last_seen_on, _.changed_on)
    return rows.mutate(
        available=(sold & listed & (age(moved) < rule("off_sale_days"))).fill_null(False),
        durable_basis=ibis.cases((_.durable, _.durable_basis)),
        replacement_days=ibis.cases((_.durable | _.category_durable, _.days)),
        days_per_piece=ibis.cases((again, (_.gap_days / _.gap_pieces).round(6))),
        pieces_per_purchase=ibis.cases((again, (_.gap_pieces / _.repurchases).round(6))),
    )


def _latest() -> ir.Table:
    """Every product as the shop last described it."""
    newest = ibis.row_number().over(
        group_by="product_id", order_by=[_.changed_at.desc(), _.source, _.source_file, _.source_row]
    )
    rows = CATALOGUE.filter(_.day <= AS_OF).mutate(newest=newest).filter(_.newest == 0)
    return rows.select("product_id", "name", "category", "price_cents", "changed_at", changed_on=_.day)


def _stock() -> ir.Table:
    """Pieces on hand per product over all warehouses; no row where the shop does not say."""
    newest = ibis.row_number().over(
        group_by=["product_id", "warehouse"], order_by=[_.changed_at.desc(), _.source, _.source_file, _.source_row]
    )
    rows = STOCK.filter(_.day <= AS_OF).mutate(newest=newest).filter(_.newest == 0)
    return rows.group_by("product_id").aggregate(stock=_.quantity.sum())


def _seen() -> ir.Table:
    """The last day on which anybody bought or viewed each product, and its category then."""
    return (
        history()
        .group_by("product_id")
        .aggregate(last_seen_on=_.day.max(), seen_category=_.category.max(where=_.category.notnull()))
    )


def _sales() -> ir.Table:
    """Per product: buyers, later order days of owners, and what the time between two purchases used up."""
    bought = purchases()
    last = bought.group_by("customer_id").aggregate(ordered_until=_.day.max())
    owned = bought.group_by("customer_id", "product_id").aggregate(
        first_on=_.day.min(),
        last_on=_.day.max(),
        times=_.count(),
        pieces=_.quantity.sum(),
        last_pieces=_.quantity.argmax(_.day),
        recent=_.age.min() < 90,
    )
    owned = owned.inner_join(last, "customer_id")
    again = _.times > 1
    return owned.group_by("product_id").aggregate(
        buyers=_.count(),
        buyers_90d=_.recent.sum(),
        repurchases=(_.times - 1).sum(),
        owned_days=_.ordered_until.delta(_.first_on, unit="day").sum(),
        repeat_buyers=again.sum(),
        gap_days=_.last_on.delta(_.first_on, unit="day").sum(where=again),
        gap_pieces=(_.pieces - _.last_pieces).sum(where=again),
    )


def _with_rates(rows: ir.Table) -> ir.Table:
    """How often a product, a product of the category, and anything of the category is bought again, a year."""
    of_category = ibis.window(group_by="category")
    rows = rows.mutate(
        shop_rate=(_.repurchases.sum().over() + 1) / (_.owned_days.sum().over() / 365 + _PRIOR_YEARS),
        category_repurchases=_.repurchases.sum().over(of_category),
        category_owned_days=_.owned_days.sum().over(of_category),
    )
    pooled = (_.category_repurchases + _PRIOR_YEARS * _.shop_rate) / (_.category_owned_days / 365 + _PRIOR_YEARS)
    rows = rows.mutate(
        repurchases_per_year=((_.repurchases + _PRIOR_YEARS * pooled) / (_.owned_days / 365 + _PRIOR_YEARS)).round(6)
    )
    bought = purchases()
    last = bought.group_by("customer_id").aggregate(ordered_until=_.day.max())
    visits = bought.inner_join(rows.select("product_id", in_category="category"), "product_id")
    visits = visits.filter(_.in_category.notnull()).group_by("customer_id", "in_category")
    visits = visits.aggregate(first_on=_.day.min(), days=_.day.nunique()).inner_join(last, "customer_id")
    visited = visits.group_by("in_category").aggregate(
        visits_again=(_.days - 1).sum(),
        visited_days=_.ordered_until.delta(_.first_on, unit="day").sum(),
    )
    return rows.left_join(visited, rows.category == visited.in_category).drop("in_category")


def _declared(rows: ir.Table) -> ir.Table:
    """The rows with what the playbook says of the product and of its category; an age alone makes durable."""

    def said_of(kind: str) -> ir.Table:
        said = GOODS.filter(_.kind == kind)
        return said.select(
            **{
                f"of_{kind}": _.subject,
                f"{kind}_declared": ibis.coalesce(_.durable, ibis.cases((_.replacement_days.notnull(), True))),
                f"{kind}_days": _.replacement_days,
            }
        )

    product, category = said_of("product"), said_of("category")
    joined = rows.left_join(product, rows.product_id == product.of_product)
    return joined.left_join(category, joined.category == category.of_category).drop("of_product", "of_category")


def _surely_rare(count: Any, days: Any) -> Any:
    """True where the rate, ``count`` in so many ``days``, is surely below what makes a durable."""
    return ((days > 0) & (poisson_bound(count + 1.0, _SURE) * 365 < days * rule("durable_below_per_year"))).fill_null(
        False
    )
