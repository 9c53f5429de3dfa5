"""The products a message can show: what sold best lately or is new, in a favourite category or the whole shop, and any by id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.features.tables import DAILY_PRODUCTS
from shopauto_pipelines.platform import prepared
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.sources.tables import PRODUCTS

#: Days of sales that are looked at, days for which a product is new, and products in a message.
DAYS, NEW_DAYS, SHOWN = 90, 60, 3


class Pick(NamedTuple):
    """A product that a message shows, and why: a reason is worded by the text ``reason_<reason>`` of the message's language.

    ``because`` is the name of the product that the reason rests on.
    """

    product_id: str
    name: str
    category: str | None = None
    price_cents: int | None = None
    reason: str | None = None
    because: str | None = None
    last_bought_on: str | None = None


class Shelf(tuple[Pick, ...]):
    """Products that many people are shown: messages with the same shelf share a draft. Two shelves are never equal."""

    __slots__ = ()
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__


#: Of whom the shop has nothing to show.
_EMPTY = Shelf()


@dataclass(frozen=True)
class Showcase:
    """A few products of every category as of a day: few rows, kept in memory while messages are rendered."""

    by_category: Mapping[str | None, Shelf]

    @classmethod
    def read(cls, lake: Lake, as_of: date) -> Showcase:
        """The best sellers of the day, out of ``features/daily_products`` and ``raw/products``."""
        sold = lake.between(DAILY_PRODUCTS, as_of - timedelta(days=DAYS - 1), as_of)
        return cls._of(lake, best_sellers(sold, lake.between(PRODUCTS, end=as_of)))

    @classmethod
    def new(cls, lake: Lake, as_of: date) -> Showcase:
        """What has been new in the shop on the day, out of ``raw/products``."""
        return cls._of(lake, newest(lake.between(PRODUCTS, end=as_of), as_of))

    @classmethod
    def _of(cls, lake: Lake, rows: ir.Table) -> Showcase:
        by_category: dict[str | None, list[Pick]] = defaultdict(list)
        for row in lake.con.to_pyarrow(rows).to_pylist():
            by_category[row.pop("shelf")].append(Pick(**row))
        return cls({category: Shelf(picks) for category, picks in by_category.items()})

    def of(self, favourite_category: str | None) -> Shelf:
        """Up to three products of the category; else of the shop."""
        return self.by_category.get(favourite_category) or self.by_category.get(None, _EMPTY)


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
    sums = sold.group_by("product_id").agg(orders=_.orders.sum(), pieces=_.quantity.sum()).filter(_.orders > 0)
    return _shelves(sums.inner_join(_named(products), "product_id"), [_.orders.desc(), _.pieces.desc()])


def newest(products: ir.Table, as_of: date) -> ir.Table:
    """The products that came to the shop last, per ``shelf``, with the columns of :func:`best_sellers`.

    New is what was first listed within the last 60 days, and after the day of the shop's first products. Ties: the id first
    in the alphabet.
    """
    listed = products.group_by("product_id").agg(listed_on=_.changed_at.min().date())
    began = listed.listed_on.min().over(ibis.window())
    fresh = listed.mutate(began=began).filter(
        (_.listed_on > _.began) & (_.listed_on > ibis.literal(as_of - timedelta(days=NEW_DAYS)))
    )
    return _shelves(fresh.inner_join(_named(products), "product_id"), [_.listed_on.desc()])


def _named(products: ir.Table) -> ir.Table:
    return latest(products).filter(_.name.notnull()).select("product_id", "name", "category", "price_cents")


def _shelves(goods: ir.Table, order: list[Deferred]) -> ir.Table:
    """The first products of every category and of the whole shop."""
    shelves = goods.mutate(shelf=ibis.null("string")).union(goods.filter(_.category.notnull()).mutate(shelf=_.category))
    place = ibis.row_number().over(group_by=_.shelf, order_by=[*order, _.product_id.asc()])
    return (
        shelves.mutate(place=place)
        .filter(_.place < SHOWN)
        .order_by(_.shelf.asc(nulls_first=True), _.place)
        .select("shelf", "product_id", "name", "category", "price_cents")
    )
