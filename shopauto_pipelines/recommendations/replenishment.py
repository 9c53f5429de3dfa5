"""When what a person uses up and buys again will be used up, by how many pieces they bought.

The time from one purchase to the next uses up the pieces of the first. Days per piece are those times ÷ those pieces: of the
person, and shrunk to what the product lasts all who buy it again, which weighs as much as one purchase of theirs. A person
with one purchase has the product's. A re-order is a later purchase, from which the time begins anew.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import AS_OF, PRODUCTS, prepare, purchases, rule
from shopauto_pipelines.recommendations.ownership import refused

#: Purchases that the product's time weighs in a person's.
_PRIOR_PURCHASES = 1.0

#: Who has not bought again for so many times the expected time has turned to something else: no row any more.
_GIVEN_UP = 2.0

#: A reminder comes at most this share of the time before it is used up.
_EARLIEST = 0.25


@kept
def statement() -> Prepared:
    """The statement of ``recommendations/replenishment``."""
    return prepare(tables.REPLENISHMENT, replenishment())


def replenishment() -> ir.Table:
    """``recommendations/replenishment``: everybody who has bought something that is bought again, unless they gave it up."""
    packs = PRODUCTS.filter(_.days_per_piece.notnull()).select(
        "product_id", "available", "pieces_per_purchase", usual_days="days_per_piece"
    )
    owned = (
        purchases(of_bucket=True)
        .group_by("customer_id", "product_id")
        .aggregate(
            last_bought_on=_.day.max(),
            first_on=_.day.min(),
            purchases=_.count(),
            pieces=_.quantity.sum(),
            quantity=_.quantity.argmax(_.day),
        )
    )
    rows = owned.inner_join(packs.filter(_.available), "product_id").anti_join(refused(), ["customer_id", "product_id"])
    prior = _.pieces_per_purchase * _PRIOR_PURCHASES
    own_days = _.last_bought_on.delta(_.first_on, unit="day")
    rows = rows.mutate(days_per_piece=((own_days + prior * _.usual_days) / (_.pieces - _.quantity + prior)).round(6))
    lasts = (_.days_per_piece * _.quantity).round().cast("int64").clip(1, 3650)
    rows = rows.mutate(lasts=lasts, passed=-_.last_bought_on.delta(AS_OF, unit="day"))
    rows = rows.filter(_.passed <= _.lasts * _GIVEN_UP)
    early = ibis.least(rule("remind_days"), (rows.lasts * _EARLIEST).floor().cast("int64"))
    rows = rows.mutate(early=early)
    rows = rows.mutate(
        used_up_on=_.last_bought_on + _.lasts.as_interval("D"),
        due_on=_.last_bought_on + (_.lasts - _.early).as_interval("D"),
    )
    return rows.mutate(
        state=ibis.cases((_.passed < _.lasts - _.early, "waiting"), (_.passed <= _.lasts, "due"), else_="overdue"),
        used_up_on=_.used_up_on.cast("date"),
        due_on=_.due_on.cast("date"),
        why="bought "
        + _.quantity.cast("string")
        + " on "
        + _.last_bought_on.cast("string")
        + ", which last "
        + _.lasts.cast("string")
        + " days",
    )
