"""What each person is interested in as of a day: categories they bought, put into a cart or viewed, with the evidence.

A row of the rollup, a product on a day, counts by its strongest sign (:data:`WEIGHTS`), and half as much for every
:data:`HALF_LIFE_DAYS` of its age. Every whole weight halves what is missing to 1::

    score = 1 − ½ ^ (sum of weights)

A single purchase of today is 0.5, three are 0.875, ten products viewed today are 0.5 too. Scores compare between people.
Weights are summed in whole millionths: the same rows give the same bytes with any number of threads.
"""

from __future__ import annotations

from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

#: Days that are looked at: what is older has lost fifteen sixteenths of its weight.
WINDOW_DAYS = 365

#: Days after which a sign of interest counts half.
HALF_LIFE_DAYS = 90

#: What a product counts on a day, by its strongest sign, in millionths.
WEIGHTS = {"orders": 1_000_000, "carted": 300_000, "views": 100_000}

#: Categories that are kept of each person, and the lowest score that is worth keeping.
MOST = 10
LOWEST = 0.01


def first_day(as_of: date) -> date:
    """The first of the days that interests as of ``as_of`` are read from."""
    return as_of - timedelta(days=WINDOW_DAYS - 1)


def interests(products: ir.Table, identities: ir.Table, as_of: date) -> ir.Table:
    """Rows of ``features/interests``: up to :data:`MOST` categories of each person, the strongest first.

    ``products`` is ``features/daily_products`` with its ``day`` column, rows outside the window are left out; a shop id
    that is missing in ``identities`` is a person of its own. Ties are settled by the alphabet.
    """
    persons = identities.select(shop_customer_id=_.shop_customer_id.cast("string"), person=_.customer_id.cast("string"))
    rows = products.filter(_.category.notnull() & _.day.between(first_day(as_of), as_of))
    rows = rows.left_join(persons, "shop_customer_id").select(
        rows, customer_id=ibis.coalesce(persons.person, rows.shop_customer_id.cast("string"))
    )
    bought, carted, viewed = (rows[name] > 0 for name in WEIGHTS)
    strongest = ibis.cases(*zip((bought, carted, viewed), WEIGHTS.values(), strict=True), else_=0)
    weight = strongest * 0.5 ** ((ibis.literal(as_of).delta(rows.day, unit="day")) / HALF_LIFE_DAYS)
    found = rows.group_by("customer_id", "category").aggregate(
        weight=weight.round().cast("int64").sum(),
        purchases=bought.cast("int64").sum(),
        carted=carted.cast("int64").sum(),
        views=rows.views.sum(),
        revenue_cents=rows.revenue_cents.sum(),
        last_bought_on=rows.day.max(where=bought),
        last_carted_on=rows.day.max(where=carted),
        last_viewed_on=rows.day.max(where=viewed),
        last_on=rows.day.max(where=strongest > 0),
    )
    best_first = [ibis.desc("weight"), ibis.asc("category")]
    found = found.mutate(
        score=(1 - 0.5 ** (_.weight / 1_000_000)).round(6),
        rank=1 + ibis.row_number().over(group_by="customer_id", order_by=best_first),
    )
    found = found.filter((_.rank <= MOST) & (_.score >= LOWEST))
    signs = (
        _sign("bought", found.purchases, found.last_bought_on),
        _sign("put into a cart", found.carted, found.last_carted_on),
        _sign("viewed", found.views, found.last_viewed_on),
    )
    return found.mutate(why=ibis.array(signs).filter(lambda sign: sign.notnull()).join("; "))


def _sign(did: str, times: ir.IntegerValue, last_on: ir.DateValue) -> ir.StringValue:
    """``bought 3 times, last on 2025-05-01``, or null."""
    often = ibis.ifelse(times == 1, "once, on ", times.cast("string") + " times, last on ")
    return ibis.ifelse(times > 0, ibis.literal(f"{did} ") + often + last_on.cast("string"), ibis.null("string"))
