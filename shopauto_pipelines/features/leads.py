"""How far each person is on the way to a first order, as of a day: the stage, and for leads a score with its reasons.

A score is the sum of the points of the :data:`SIGNS` that hold, 0 to 100: *fit*, how much they are like those who buy, and
*intent*, what they have done lately. The points are declared, not learned: whoever reads a score can check it by hand.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import reduce
from operator import add
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
from ibis import Deferred, _

#: Days in which carts, forms and product pages count as lately.
LATELY_DAYS = 30

#: A country in which at least this share of the buyers lives is one the shop sells to.
SOLD_TO = 0.05

#: From so many points on a lead is at the stage of decision, as with a cart.
READY = 60


class Sign(NamedTuple):
    """Something that makes an order likelier: what it counts, in words, and the condition."""

    kind: str
    points: int
    words: str
    holds: Deferred


#: What a lead's score is made of; the points add up to 100.
SIGNS = (
    Sign("fit", 15, "can be reached by e-mail", _.email.notnull()),
    Sign("fit", 5, "has told their name", _.first_name.notnull()),
    Sign("fit", 10, "has an account", _.created_on.notnull()),
    Sign("fit", 10, "lives where buyers live", _.sold_to),
    Sign("intent", 20, f"filled in a form within {LATELY_DAYS} days", _.last_form_on >= _.lately),
    Sign("intent", 15, f"put something into a cart within {LATELY_DAYS} days", _.last_carted_on >= _.lately),
    Sign("intent", 10, f"saw 3 product pages or more within {LATELY_DAYS} days", _.product_views_30d >= 3),
    Sign("intent", 5, f"saw a product page within {LATELY_DAYS} days", _.product_views_30d >= 1),
    Sign("intent", 5, "visited within 7 days", _.last_visit_on > _.today - ibis.interval(days=7)),
    Sign("intent", 5, "clicked in a message within 90 days", _.clicked),
)


def first_day(as_of: date) -> date:
    """The first of the days that carts are read from."""
    return as_of - timedelta(days=LATELY_DAYS - 1)


def leads(
    customers: ir.Table, features: ir.Table, products: ir.Table, forms: ir.Table, identities: ir.Table, as_of: date
) -> ir.Table:
    """Rows of ``features/leads``: every person of ``customers``.

    ``customers``, ``features`` (``features/customer_features``) and ``identities`` are of the day; ``products`` is
    ``features/daily_products`` with its ``day``, ``forms`` is ``raw/form_submissions``; rows after the day are left out.
    """
    of_person = identities.select(shop_customer_id=_.shop_customer_id, person=_.customer_id)

    def by_person(rows: ir.Table) -> ir.Table:
        known = rows.filter(_.shop_customer_id.notnull()).left_join(of_person, "shop_customer_id")
        return known.select(rows, customer_id=ibis.coalesce(of_person.person, rows.shop_customer_id))

    told = by_person(forms.filter(_.day <= as_of))
    first = ibis.struct(
        {"at": _.submitted_at, "source": _.utm_source, "medium": _.utm_medium, "campaign": _.utm_campaign}
    )
    filled_in = told.group_by("customer_id").agg(
        first=first.min(),
        last=ibis.struct({"at": _.submitted_at, "form": _.form, "day": _.day}).max(),
    )
    carted = by_person(products.filter((_.carted > 0) & _.day.between(first_day(as_of), as_of)))
    carted = carted.group_by("customer_id").agg(last_carted_on=_.day.max())
    behaviour = features.select(
        "customer_id",
        *("orders", "product_views_30d", "product_views_90d", "last_visit_on", "clicks_90d", "sms_clicks_90d"),
    )
    known = customers.select("customer_id", "email", "first_name", "country", "created_on")
    for more in (behaviour, filled_in, carted):
        known = known.left_join(more, "customer_id").drop("customer_id_right")
    buyers = (_.orders > 0).cast("int64").sum()
    facts = known.mutate(
        last_form_on=_["last"]["day"],
        today=ibis.literal(as_of),
        lately=ibis.literal(first_day(as_of)),
        clicked=(_.clicks_90d > 0) | (_.sms_clicks_90d > 0),
        sold_to=buyers.over(group_by="country") >= SOLD_TO * buyers.over(),
    ).mutate(sold_to=_.sold_to & _.country.notnull() & (buyers.over() > 0))
    signs = {f"sign_{n}": sign.holds.fill_null(False) for n, sign in enumerate(SIGNS)}
    points = {
        kind: reduce(
            add, (ibis.ifelse(_[f"sign_{n}"], sign.points, 0) for n, sign in enumerate(SIGNS) if sign.kind == kind)
        )
        for kind in ("fit", "intent")
    }
    why = ibis.array(
        [
            ibis.ifelse(_[f"sign_{n}"], f"{sign.words}: {sign.points}", ibis.null("string"))
            for n, sign in enumerate(SIGNS)
        ]
    )
    scored = (
        facts.mutate(**signs).mutate(**points, why=why).mutate(why=_.why.filter(lambda each: each.notnull()).join("; "))
    )
    is_lead = (_.orders == 0).fill_null(True)
    score = _.fit + _.intent
    looked = (_.product_views_90d > 0) | _.clicked | _.last_form_on.notnull()
    return scored.select(
        "customer_id",
        "last_form_on",
        stage=ibis.cases(
            (~is_lead, "customer"),
            ((_.last_carted_on.notnull() | (score >= READY)), "decision"),
            (looked.fill_null(False), "consideration"),
            else_="awareness",
        ),
        score=ibis.ifelse(is_lead, score, ibis.null("int64")),
        fit=ibis.ifelse(is_lead, _.fit, ibis.null("int64")),
        intent=ibis.ifelse(is_lead, _.intent, ibis.null("int64")),
        why=ibis.ifelse(is_lead, _.why, ibis.null("string")),
        first_source=_["first"]["source"],
        first_medium=_["first"]["medium"],
        first_campaign=_["first"]["campaign"],
        last_form=_["last"]["form"],
    )
