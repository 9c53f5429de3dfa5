"""The room's assets. What they are made of is in the modules that ``making`` lists; ``report`` says what came out."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import dagster as dg

from shopauto_pipelines.features.tables import DAILY_PRODUCTS
from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations import making, report, tables
from shopauto_pipelines.recommendations.declaration import load_recommendations
from shopauto_pipelines.sources import tables as raw

_BOUGHT = {"daily_products": DAILY_PRODUCTS, "identities": IDENTITIES}
_GOODS = {**_BOUGHT, "products": tables.PRODUCTS}
_PAIRS = {**_GOODS, "complements": tables.COMPLEMENTS, "refunds": raw.REFUNDS}


def _asset(table: Table, ins: Mapping[str, Table], show: Callable[[Lake, date], str] | None = None) -> Callable:
    """Decorator: the asset of ``table``; ``show`` says in Markdown what came out."""

    def summary(lake: Lake, day: date) -> Mapping[str, Any]:
        return {"what came out": dg.MetadataValue.md(show(lake, day))} if show else {}

    return lake_asset(table, ins=ins, summary=summary, origins=lambda: making.STATEMENTS[table.name]().origins)


def _made_of(table: Table, **inputs: LakeTable) -> Callable:
    """From a day to the rows of ``table``: inputs up to the day where they are partitioned by day, otherwise those of the day."""
    declared, lake = load_recommendations(), next(iter(inputs.values())).lake

    def of_day(as_of: date) -> Any:
        days = {
            name: rows.on(as_of) if rows.table.partition == "as_of" else rows.until(as_of)
            for name, rows in inputs.items()
        }
        return making.rows(lake, table, as_of, declared, **days)

    return of_day


@_asset(
    tables.PRODUCTS,
    {**_BOUGHT, "raw_products": raw.PRODUCTS, "stock_levels": raw.STOCK_LEVELS},
    report.products,
)
def products(
    daily_products: LakeTable, identities: LakeTable, raw_products: LakeTable, stock_levels: LakeTable
) -> Callable:
    """What each product's sales say: kept or used up, for how long, and whether it can be had."""
    return _made_of(
        tables.PRODUCTS,
        daily_products=daily_products,
        identities=identities,
        raw_products=raw_products,
        stock_levels=stock_levels,
    )


@_asset(tables.COMPLEMENTS, _GOODS, report.complements)
def complements(daily_products: LakeTable, identities: LakeTable, products: LakeTable) -> Callable:
    """What is bought with each product or soon after it."""
    return _made_of(tables.COMPLEMENTS, daily_products=daily_products, identities=identities, products=products)


@_asset(tables.RELATED_PRODUCTS, _BOUGHT)
def related_products(daily_products: LakeTable, identities: LakeTable) -> Callable:
    """The neighbours of each product, by the people who took to both."""
    return _made_of(tables.RELATED_PRODUCTS, daily_products=daily_products, identities=identities)


@_asset(tables.CUSTOMER_PRODUCTS, {**_PAIRS, "related_products": tables.RELATED_PRODUCTS}, report.customer_products)
def customer_products(
    daily_products: LakeTable,
    identities: LakeTable,
    products: LakeTable,
    complements: LakeTable,
    refunds: LakeTable,
    related_products: LakeTable,
) -> Callable:
    """The best products for each person, with reasons."""
    return _made_of(
        tables.CUSTOMER_PRODUCTS,
        daily_products=daily_products,
        identities=identities,
        products=products,
        complements=complements,
        refunds=refunds,
        related_products=related_products,
    )


@_asset(tables.CUSTOMER_COMPLEMENTS, _PAIRS)
def customer_complements(
    daily_products: LakeTable, identities: LakeTable, products: LakeTable, complements: LakeTable, refunds: LakeTable
) -> Callable:
    """What goes with each person's latest purchase."""
    return _made_of(
        tables.CUSTOMER_COMPLEMENTS,
        daily_products=daily_products,
        identities=identities,
        products=products,
        complements=complements,
        refunds=refunds,
    )


@_asset(tables.NEXT_CATEGORIES, _GOODS)
def next_categories(daily_products: LakeTable, identities: LakeTable, products: LakeTable) -> Callable:
    """The categories each person is likely to buy from next."""
    return _made_of(tables.NEXT_CATEGORIES, daily_products=daily_products, identities=identities, products=products)


@_asset(tables.REPLENISHMENT, {**_GOODS, "refunds": raw.REFUNDS}, report.replenishment)
def replenishment(
    daily_products: LakeTable, identities: LakeTable, products: LakeTable, refunds: LakeTable
) -> Callable:
    """When each person's packs will be used up."""
    return _made_of(
        tables.REPLENISHMENT,
        daily_products=daily_products,
        identities=identities,
        products=products,
        refunds=refunds,
    )


@_asset(tables.CATALOGUE_GAPS, {**_GOODS, "complements": tables.COMPLEMENTS, "events": raw.EVENTS}, report.gaps)
def catalogue_gaps(
    daily_products: LakeTable, identities: LakeTable, products: LakeTable, complements: LakeTable, events: LakeTable
) -> Callable:
    """What people look for and cannot have."""
    return _made_of(
        tables.CATALOGUE_GAPS,
        daily_products=daily_products,
        identities=identities,
        products=products,
        complements=complements,
        events=events,
    )


@_asset(tables.CATEGORY_TRENDS, _GOODS, report.trends)
def category_trends(daily_products: LakeTable, identities: LakeTable, products: LakeTable) -> Callable:
    """Demand of each category by week."""
    return _made_of(tables.CATEGORY_TRENDS, daily_products=daily_products, identities=identities, products=products)


#: In flow order.
ASSETS = [
    products,
    complements,
    related_products,
    customer_products,
    customer_complements,
    next_categories,
    replenishment,
    catalogue_gaps,
    category_trends,
]
