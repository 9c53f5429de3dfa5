"""The products a message shows: what sold best lately, in the reader's favourite category or in the whole shop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features.tables import DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.sources.tables import PRODUCTS

#: Days of sales that are looked at, and products in a message.
DAYS, SHOWN = 90, 3


@dataclass(frozen=True)
class Showcase:
    """The best sellers of every category as of a day: few rows, kept in memory while messages are rendered."""

    by_category: Mapping[str | None, Sequence[Mapping[str, Any]]]

    @classmethod
    def read(cls, lake: Lake, as_of: date) -> Showcase:
        """The showcase of the day, out of ``features/daily_products`` and ``raw/products``."""
        sold = lake.between(DAILY_PRODUCTS, as_of - timedelta(days=DAYS - 1), as_of)
        rows = lake.con.to_pyarrow(best_sellers(sold, lake.between(PRODUCTS, end=as_of))).to_pylist()
        by_category: dict[str | None, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            by_category[row.pop("shelf")].append(row)
        return cls(by_category)

    def of(self, favourite_category: str | None) -> Sequence[Mapping[str, Any]]:
        """Up to three products (``product_id``, ``name``, ``category``, ``price_cents``) of the category; else of the shop."""
        return self.by_category.get(favourite_category) or self.by_category.get(None, ())


def best_sellers(sold: ir.Table, products: ir.Table) -> ir.Table:
    """The products with the most orders, per ``shelf``: each category, and null for the whole shop.

    ``sold`` are rows of ``features/daily_products``, ``products`` of ``raw/products``. Columns: ``shelf``, ``product_id``,
    ``name``, ``category``, ``price_cents`` (minor units), in order. Ties: more pieces, then the id first in the alphabet.
    """
    newest = ibis.row_number().over(
        group_by=_.product_id, order_by=[_.changed_at.desc(), _.source, _.source_file, _.source_row]
    )
    known = products.mutate(age=newest).filter((_.age == 0) & _.name.notnull())
    named = known.select("product_id", "name", "category", "price_cents")
    sums = sold.group_by("product_id").agg(orders=_.orders.sum(), pieces=_.quantity.sum()).filter(_.orders > 0)
    goods = sums.inner_join(named, "product_id")
    shelves = goods.mutate(shelf=ibis.null("string")).union(goods.filter(_.category.notnull()).mutate(shelf=_.category))
    place = ibis.row_number().over(group_by=_.shelf, order_by=[_.orders.desc(), _.pieces.desc(), _.product_id.asc()])
    return (
        shelves.mutate(place=place)
        .filter(_.place < SHOWN)
        .order_by(_.shelf.asc(nulls_first=True), _.place)
        .select("shelf", "product_id", "name", "category", "price_cents")
    )
