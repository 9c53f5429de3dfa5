"""Products for each person, from what they and people like them bought and viewed.

Three things make a product worth showing, and the score is their product:

- *own interest*: purchases of it, each counting half after 180 days, and views, half after 14 days;
- *neighbourhood*: similarity to everything the person took an interest in, by the cosine of the sets of people (item-item
  collaborative filtering; Sarwar et al. 2001, Deshpande & Karypis 2004), shrunk for products of few people;
- *repurchase*: for what the person has bought, how often owners of the product buy it again.

A score is a product of powers, so it has no scale of its own and ranks the products of one person only. The constants were
chosen on earlier time splits (docs/recommendations.md).
"""

from __future__ import annotations

from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import (
    MILLION,
    PRODUCTS,
    RELATED,
    decayed,
    history,
    place,
    prepare,
)
from shopauto_pipelines.recommendations.ownership import allowed, given_back

#: Recommendations of a person, and neighbours of a product.
OF_PERSON, OF_PRODUCT = 10, 20

#: Products a person is known by: those of most interest. It bounds the pairs that heavy buyers make.
_PROFILE = 60

#: Products of the profile whose neighbours are candidates, and the candidates that are looked at closely.
_SEEDS, _SHORTLIST = 30, 25

#: Days of history.
_HISTORY_DAYS = 730

#: Days after which a purchase and a view count half, and what a day of views counts beside a day of purchase.
_BOUGHT_HALF_LIFE, _VIEWED_HALF_LIFE, _VIEW = 180, 14, 0.2

#: People that weigh in a similarity as if they had taken to only one of the two products.
_SHRINK = 30

#: Powers of the neighbourhood and of the repurchase rate in the score; own interest has 1.
_NEAR_POWER, _AGAIN_POWER = 0.4, 0.8

#: Interest and similarity of a product of which nothing is known: what lets the other factors speak.
_NO_INTEREST, _NO_SIMILARITY = 0.02, 0.001

#: Best sellers of the last 90 days that everybody is offered: of the shop, and of each of the person's categories.
_BEST_SELLERS, _CATEGORIES = 10, 2

#: Days for which a view is a reason.
_VIEWED_LATELY = 30


@kept
def of_products() -> Prepared:
    """The statement of ``recommendations/related_products``."""
    return prepare(tables.RELATED_PRODUCTS, related_products())


@kept
def of_customers() -> Prepared:
    """The statement of ``recommendations/customer_products``, for a bucket of the people."""
    return prepare(tables.CUSTOMER_PRODUCTS, customer_products())


def related_products() -> ir.Table:
    """``recommendations/related_products``: the nearest ``OF_PRODUCT`` neighbours of each product."""
    known = _interests(history()).select("customer_id", "product_id")
    people = known.group_by("product_id").aggregate(people=_.count())
    others = known.select("customer_id", related_id="product_id")
    pairs = known.inner_join(others, "customer_id").filter(_.product_id != _.related_id)
    pairs = pairs.group_by("product_id", "related_id").aggregate(people=_.count()).filter(_.people > 1)
    pairs = pairs.inner_join(people.select("product_id", own="people"), "product_id")
    pairs = pairs.inner_join(people.select(related_id="product_id", theirs="people"), "related_id")
    rows = pairs.mutate(similarity=(_.people / ((_.own * _.theirs).sqrt() + _SHRINK)).round(6))
    rows = rows.mutate(rank=place([_.similarity.desc(), _.related_id], "product_id"))
    return rows.filter(_.rank <= OF_PRODUCT)


def customer_products() -> ir.Table:
    """``recommendations/customer_products`` of the people of one bucket: at most ``OF_PERSON`` each."""
    interests = _interests(history(of_bucket=True))
    returned = given_back().mutate(returned=True)
    interests = interests.left_join(returned, ["customer_id", "product_id"]).drop(
        "customer_id_right", "product_id_right"
    )
    columns = {"interest": "int64", "times": "int64", "bought_age": "int64", "viewed_age": "int64"}
    columns |= {"returned": "boolean", "part": "int64", "strongest": "int64", "favourite": "boolean"}
    parts = [
        part.select(
            "customer_id",
            "product_id",
            **{
                name: part[name].cast(kind) if name in part.columns else ibis.null(kind)
                for name, kind in columns.items()
            },
        )
        for part in (interests, _neighbourhood(interests), _best_sellers(interests))
    ]
    rows = (
        ibis.union(*parts)
        .group_by("customer_id", "product_id")
        .aggregate(
            interest=_.interest.max().fill_null(0),
            times=_.times.max().fill_null(0),
            bought_age=_.bought_age.max(),
            viewed_age=_.viewed_age.max(),
            returned=_.returned.any().fill_null(False),
            near=_.part.sum().fill_null(0),
            strongest=_.strongest.max(),
            favourite=_.favourite.any().fill_null(False),
        )
    )
    goods = PRODUCTS.select(
        *("product_id", "name", "category", "available", "durable", "replacement_days"),
        *("buyers_90d", "repurchases_per_year"),
    )
    rows = rows.inner_join(goods, "product_id").cross_join(_usual()).mutate(score=_score())
    # the bulk is left out here, cheaply; what is left out of the rest is decided in one place for all tables
    owned = _.durable & (_.bought_age < _.replacement_days).fill_null(False) & ~_.returned
    best = [_.score.desc(), _.product_id]
    rows = rows.filter(_.available & ~owned).mutate(nth=place(best, "customer_id")).filter(_.nth <= _SHORTLIST)
    rows = allowed(rows).mutate(rank=place(best, "customer_id"))
    seeds = interests.select("customer_id", seed="nth", because_product_id="product_id")
    rows = rows.filter(_.rank <= OF_PERSON).mutate(seed=_.strongest % (_PROFILE + 1))
    return _with_reasons(rows.left_join(seeds, ["customer_id", "seed"]).drop("customer_id_right", "seed_right"))


def _interests(rows: ir.Table) -> ir.Table:
    """Per person the ``_PROFILE`` products of most interest: what they bought and viewed, each day once."""
    days = (
        rows.filter(_.age < _HISTORY_DAYS)
        .group_by("customer_id", "product_id", "day")
        .aggregate(age=_.age.min(), bought=_.orders.sum() > 0, viewed=_.views.sum() > 0)
    )
    interests = days.group_by("customer_id", "product_id").aggregate(
        own=_.bought.ifelse(decayed(_.age, _BOUGHT_HALF_LIFE), 0).sum(),
        seen=_.viewed.ifelse(decayed(_.age, _VIEWED_HALF_LIFE), 0).sum(),
        times=_.bought.sum(),
        bought_age=_.age.min(where=_.bought),
        viewed_age=_.age.min(where=_.viewed),
    )
    interests = interests.mutate(interest=_.own + (_.seen * _VIEW).round().cast("int64"))
    interests = interests.mutate(nth=place([_.interest.desc(), _.product_id], "customer_id"))
    return interests.filter(_.nth <= _PROFILE)


def _neighbourhood(interests: ir.Table) -> ir.Table:
    """What each product of interest adds to the neighbourhood of others: ``part``, in millionths.

    ``strongest`` is the same with the place of the product of interest in it, so that the largest tells which one it was.
    """
    near = RELATED.select("product_id", "related_id", "similarity")
    seeds = interests.filter(_.nth <= _SEEDS).select("customer_id", "interest", "nth", "product_id")
    each = seeds.inner_join(near, "product_id").mutate(part=(_.interest * _.similarity).round().cast("int64"))
    return each.select("customer_id", "part", product_id=_.related_id, strongest=_.part * (_PROFILE + 1) + _.nth)


def _best_sellers(interests: ir.Table) -> ir.Table:
    """For everybody the best sellers of the shop, and (``favourite``) of the categories they take most interest in."""
    goods = PRODUCTS.filter(_.available & (_.buyers_90d > 0)).select("product_id", "category", "buyers_90d")
    best = [_.buyers_90d.desc(), _.product_id]
    goods = goods.mutate(in_shop=ibis.row_number().over(order_by=best) + 1, in_category=place(best, "category"))
    of_product = PRODUCTS.filter(_.category.notnull()).select("product_id", "category")
    liked = interests.inner_join(of_product, "product_id").group_by("customer_id", "category")
    liked = liked.aggregate(interest=_.interest.sum())
    liked = liked.mutate(nth=place([_.interest.desc(), _.category], "customer_id")).filter(_.nth <= _CATEGORIES)
    of_category = goods.filter(_.in_category <= _BEST_SELLERS).select("product_id", "category")
    theirs = liked.inner_join(of_category, "category").select("customer_id", "product_id", favourite=True)
    of_shop = goods.filter(_.in_shop <= _BEST_SELLERS).select("product_id")
    everybody = interests.select("customer_id").distinct().cross_join(of_shop)
    return theirs.union(everybody.select("customer_id", "product_id", favourite=False))


def _usual() -> ir.Table:
    """One row: how often owners buy a product again, a year, on average; and the buyers of the best seller."""
    return PRODUCTS.aggregate(
        usual_rate=((_.repurchases_per_year * MILLION).round().cast("int64") * _.buyers).sum()
        / _.buyers.sum().nullif(0),
        most_buyers=_.buyers_90d.max(),
    )


def _score() -> Any:
    """The three factors, each to its power; where all else is equal, what sells better comes first."""
    own = (_.interest / MILLION) + _NO_INTEREST
    near = (_.near / MILLION) + _NO_SIMILARITY * (1 + _.buyers_90d / _.most_buyers.nullif(0)).fill_null(1.0)
    again = ((_.repurchases_per_year * MILLION) / _.usual_rate.nullif(0)).fill_null(1.0)
    return (own * near**_NEAR_POWER * (_.times > 0).ifelse(again**_AGAIN_POWER, 1.0)).round(9)


def _with_reasons(rows: ir.Table) -> ir.Table:
    """The rows with why: the first of bought before, viewed lately, bought together, popular that holds."""
    names = PRODUCTS.select(because_product_id="product_id", because_name=ibis.coalesce(_.name, _.product_id))
    rows = rows.left_join(names, "because_product_id").drop("because_product_id_right")
    bought, viewed = _.times > 0, (_.viewed_age < _VIEWED_LATELY).fill_null(False)
    rows = rows.mutate(
        reason=ibis.cases(
            (bought, "bought_before"),
            (viewed, "viewed"),
            (_.because_product_id.notnull(), "bought_together"),
            (_.favourite, "popular_in_category"),
            else_="popular",
        )
    )
    why = ibis.cases(
        (_.reason == "bought_before", _days_ago("bought " + _times(_.times) + ", last", _.bought_age)),
        (_.reason == "viewed", _days_ago("viewed", _.viewed_age)),
        (_.reason == "bought_together", "people who like " + _.because_name + " like it too"),
        (_.reason == "popular_in_category", "popular in " + _.category),
        else_="popular in the shop",
    )
    because = ibis.cases((_.reason == "bought_together", _.because_product_id))
    return rows.mutate(why=why, because_product_id=because)


def _times(count: Any) -> Any:
    return (count == 1).ifelse("once", count.cast("string") + " times")


def _days_ago(what: Any, age: Any) -> Any:
    return what + ibis.cases(
        (age == 0, " today"), (age == 1, " yesterday"), else_=" " + age.cast("string") + " days ago"
    )
