"""The category a person is likely to buy from next.

A person's own share of each category, purchases counting half after some months and views a little, is mixed with the shop's
share of the last weeks, which knows the season: the fewer own purchases, the more of the shop's (a Dirichlet prior, as in
language models: Zhai & Lafferty 2004).
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import MILLION, PRODUCTS, decayed, history, place, prepare

#: Categories listed for a person.
OF_PERSON = 5

#: Days after which a purchase and a view count half; what a day of views counts beside a day of purchase.
_BOUGHT_HALF_LIFE, _VIEWED_HALF_LIFE, _VIEW = 365, 14, 0.2

#: Days whose purchases are the shop's share, and what that share weighs, in fresh purchases of the person.
_SHOP_DAYS, _PRIOR = 28, 4.0

#: Categories of the shop that everybody may come to.
_POPULAR = 10


@kept
def statement() -> Prepared:
    """The statement of ``recommendations/next_categories``."""
    return prepare(tables.NEXT_CATEGORIES, next_categories())


def next_categories() -> ir.Table:
    """``recommendations/next_categories``: the ``OF_PERSON`` likeliest for whoever bought or viewed any."""
    goods = PRODUCTS.filter(_.category.notnull()).select("product_id", shelf="category")
    rows = history().inner_join(goods, "product_id")
    days = rows.group_by("customer_id", "product_id", "shelf", "day").aggregate(
        age=_.age.min(), bought=_.orders.sum() > 0, viewed=_.views.sum() > 0
    )
    weight = _.bought.ifelse(decayed(_.age, _BOUGHT_HALF_LIFE), 0) + _.viewed.ifelse(
        (decayed(_.age, _VIEWED_HALF_LIFE) * _VIEW).round().cast("int64"), 0
    )
    own = days.group_by("customer_id", category=_.shelf).aggregate(weight=weight.sum())
    people = own.group_by("customer_id").aggregate(total=_.weight.sum())
    shop = days.filter(_.bought & (_.age < _SHOP_DAYS)).group_by(category=_.shelf).aggregate(sold=_.count())
    shop = shop.mutate(
        share=_.sold / _.sold.sum().over(), popular=ibis.row_number().over(order_by=[_.sold.desc(), _.category])
    )
    everybody = people.select("customer_id").cross_join(shop.filter(_.popular < _POPULAR).select("category"))
    rows = own.select("customer_id", "category").union(everybody, distinct=True)
    rows = rows.left_join(own, ["customer_id", "category"]).select("customer_id", "category", "weight")
    rows = rows.left_join(shop, "category").inner_join(people, "customer_id")
    # a shop that sold nothing of late tells nothing
    prior = ibis.ifelse(shop.count().as_scalar() > 0, _PRIOR * MILLION, 0.0)
    probability = (_.weight.fill_null(0) + _.share.fill_null(0.0) * prior) / (_.total + prior).nullif(0.0)
    rows = rows.mutate(probability=probability.round(6))
    rows = rows.mutate(rank=place([_.probability.desc(), _.category], "customer_id"))
    return rows.filter((_.rank <= OF_PERSON) & (_.probability > 0))
