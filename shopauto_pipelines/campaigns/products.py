"""The products a message shows: what sold best lately, in the reader's favourite category or in the whole shop, and carts'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from shopauto_pipelines.features.tables import DAILY_PRODUCTS
from shopauto_pipelines.platform import prepared
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


class Product(NamedTuple):
    """A product as the shop last described it; prices and costs of a piece in minor units."""

    name: str | None
    category: str | None
    price_cents: int | None
    cost_cents: int | None


def products(lake: Lake, as_of: date, wanted: Collection[str]) -> dict[str, Product]:
    """Those of the ``wanted`` products that were known at the end of the day, by id."""
    if not wanted:
        return {}
    asked = pa.table({"product_id": sorted(wanted)})
    given = {"wanted_products": asked, "changes_of_products": lake.between(PRODUCTS, end=as_of)}
    found = prepared.run(lake, of_wanted(), given).to_pylist()
    return {row.pop("product_id"): Product(**row) for row in found}


@cache
def of_wanted() -> str:
    """The statement of :func:`products`."""
    wanted = ibis.table({"product_id": "string"}, name="wanted_products")
    changes = prepared.unseen(PRODUCTS, "changes_of_products")
    return prepared.compiled(latest(changes.semi_join(wanted, "product_id")).select("product_id", *Product._fields))


def latest(changes: ir.Table) -> ir.Table:
    """The latest row of every product in ``raw/products``."""
    newest = ibis.row_number().over(
        group_by=_.product_id, order_by=[_.changed_at.desc(), _.source, _.source_file, _.source_row]
    )
    return changes.mutate(age=newest).filter(_.age == 0)


def best_sellers(sold: ir.Table, products: ir.Table) -> ir.Table:
    """The products with the most orders, per ``shelf``: each category, and null for the whole shop.

    ``sold`` are rows of ``features/daily_products``, ``products`` of ``raw/products``. Columns: ``shelf``, ``product_id``,
    ``name``, ``category``, ``price_cents`` (minor units), in order. Ties: more pieces, then the id first in the alphabet.
    """
    named = latest(products).filter(_.name.notnull()).select("product_id", "name", "category", "price_cents")
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
