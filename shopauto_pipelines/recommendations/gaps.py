"""What people want and the catalogue does not give: searches that lead to no product, and products that cannot be had.

A search is *unmet* where the visitor's next step in the visit is another search, or nothing: no product was opened. Some of
that is normal, so a term is a gap where its share of unmet searches is surely above the whole shop's. A search term may be
anything somebody typed: only terms of several people are kept, and none that looks like an address or a number.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import (
    AS_OF,
    COMPLEMENTS,
    EVENTS,
    PERSONS,
    PRODUCTS,
    age,
    history,
    place,
    prepare,
    rule,
    wilson,
)

#: Days of evidence.
DAYS = 90

#: Where the address of a search page has its term: the parameter's name in the common shop systems.
_TERM = r"[?&](?:q|query|s|search|search_query|keyword|keywords|term)=([^&#]+)"

#: Characters of the longest term that is kept, and what no term may hold: an address, or a long number.
_LONGEST, _PRIVATE = 60, r"@|\d[\d \-/.]{4,}\d"

#: Two-sided 95 %.
_Z = 1.959964


@ibis.udf.scalar.builtin
def url_decode(text: str) -> str:  # type: ignore[empty-body]
    """The text with its ``%xx`` read; an error where they are no UTF-8."""


@ibis.udf.scalar.builtin(name="try")
def attempt(value: str) -> str:  # type: ignore[empty-body]
    """The value, or null where computing it is an error."""


@kept
def statement() -> Prepared:
    """The statement of ``recommendations/catalogue_gaps``."""
    return prepare(tables.CATALOGUE_GAPS, catalogue_gaps())


def catalogue_gaps() -> ir.Table:
    """``recommendations/catalogue_gaps``: terms and products that enough people wanted in the last ``DAYS`` days."""
    return _searches().union(_products())


def _searches() -> ir.Table:
    """Search terms whose share of unmet searches is surely above the shop's."""
    recent = EVENTS.filter((_.day <= AS_OF) & (age(_.day) < DAYS))
    steps = recent.filter(_.type.isin(["search", "product_view", "add_to_cart"]))
    persons = PERSONS.select("shop_customer_id", person="customer_id")
    steps = steps.left_join(persons, "shop_customer_id").mutate(
        visitor=ibis.coalesce(_.person, _.shop_customer_id, _.anonymous_id, _.session_id)
    )
    steps = steps.filter(_.visitor.notnull()).mutate(
        visit=ibis.coalesce(_.session_id, _.visitor + " " + _.day.cast("string"))
    )
    in_order = ibis.window(group_by="visit", order_by=["happened_at", "event_id"])
    steps = steps.mutate(next_step=_.type.lead().over(in_order))
    typed = _.url.re_extract(_TERM, 1).replace("+", " ")
    read = ibis.coalesce(attempt(url_decode(typed)), typed)  # anybody may ask for any address
    term = read.lower().re_replace(r"\s+", " ").strip()
    searches = steps.filter(_.type == "search").mutate(term=term, unmet=(_.next_step == "search").fill_null(True))
    searches = searches.filter((_.term.length() > 1) & (_.term.length() <= _LONGEST) & ~_.term.re_search(_PRIVATE))
    rows = searches.group_by("term").aggregate(people=_.visitor.nunique(), demand=_.count(), unmet=_.unmet.sum())
    rows = rows.mutate(usual=_.unmet.sum().over() / _.demand.sum().over(), low=wilson(_.unmet, _.demand, -_Z).round(6))
    rows = rows.filter((_.people >= rule("gap_people")) & (_.low > _.usual))
    return rows.select(
        kind=ibis.literal("search"),
        subject=_.term,
        category=ibis.null("string"),
        people=_.people,
        demand=_.demand,
        unmet=_.unmet.cast("int64"),
        unmet_share_low=_.low,
        because_product_id=ibis.null("string"),
        why=_.unmet.cast("string") + " of " + _.demand.cast("string") + " searches led to no product",
    )


def _products() -> ir.Table:
    """Products that are out of stock or not on sale any more, and are viewed, or go with what is bought."""
    missing = PRODUCTS.filter(~_.available).select("product_id", "category", sold_out=(_.stock <= 0).fill_null(False))
    recent = history().filter(_.age < DAYS)
    viewed = recent.filter(_.views > 0).select("customer_id", "day", "product_id", because=ibis.null("string"))
    pairs = COMPLEMENTS.select(complement_id="product_id", product_id="complement_id")
    bought = recent.filter(_.orders > 0).select("customer_id", "day", complement_id="product_id")
    wanted = bought.inner_join(pairs, "complement_id").select(
        "customer_id", "day", "product_id", because=_.complement_id
    )
    rows = viewed.union(wanted).inner_join(missing, "product_id")
    each = rows.group_by("product_id", "because").aggregate(times=_.count())
    most = each.filter(_.because.notnull()).mutate(nth=place([_.times.desc(), _.because], "product_id"))
    most = most.filter(_.nth == 1).select("product_id", "because")
    sums = rows.group_by("product_id", "category", "sold_out").aggregate(
        people=_.customer_id.nunique(), demand=_.count(), views=_.because.isnull().sum()
    )
    sums = sums.filter(_.people >= rule("gap_people")).left_join(most, "product_id")
    wanted_with = (_.demand - _.views).cast("string")
    return sums.select(
        kind=_.sold_out.ifelse("out_of_stock", "not_on_sale"),
        subject=_.product_id,
        category=_.category,
        people=_.people,
        demand=_.demand,
        unmet=_.demand,
        unmet_share_low=wilson(_.demand, _.demand, -_Z).round(6),
        because_product_id=_.because,
        why="viewed on " + _.views.cast("string") + " days, goes with " + wanted_with + " purchases",
    )
