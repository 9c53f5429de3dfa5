"""Makes the tables of the room for a day, from tables of the lake or from rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import Prepared
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.recommendations import (
    complements,
    gaps,
    next_categories,
    products,
    ranking,
    replenishment,
    tables,
    trends,
)
from shopauto_pipelines.recommendations.declaration import RecommendationsDeclaration
from shopauto_pipelines.recommendations.inputs import by_bucket

#: People whose rows are computed at a time, for tables with much to weigh per person: what bounds the memory it takes.
BUCKET_PEOPLE = 50_000

#: What people did, in the order of their buckets.
_PARTED = "made_daily_products_by_bucket"

#: The statement of each table, compiled when it is first asked for.
STATEMENTS: Mapping[str, Callable[[], Prepared]] = {
    tables.PRODUCTS.name: products.statement,
    tables.COMPLEMENTS.name: complements.of_products,
    tables.RELATED_PRODUCTS.name: ranking.of_products,
    tables.CUSTOMER_PRODUCTS.name: ranking.of_customers,
    tables.CUSTOMER_COMPLEMENTS.name: complements.of_customers,
    tables.NEXT_CATEGORIES.name: next_categories.statement,
    tables.REPLENISHMENT.name: replenishment.statement,
    tables.CATALOGUE_GAPS.name: gaps.statement,
    tables.CATEGORY_TRENDS.name: trends.statement,
}


def rows(
    lake: Lake,
    table: Table,
    as_of: date,
    declared: RecommendationsDeclaration,
    **inputs: ir.Table | pa.Table,
) -> ir.Table:
    """The rows of ``table`` as of the day, on the lake's connection until it is asked for them again.

    ``inputs`` are the tables its statement reads, by the names of :data:`inputs.BEHIND`: partitions up to the day of what is
    partitioned by day, and the day's of the others. Raises ``KeyError`` where one is missing.
    """
    statement = STATEMENTS[table.name]()
    given = {**inputs, "rules": declared.rules(as_of), "goods": declared.goods()}
    missing = statement.inputs - given.keys() - {"bucket"}
    if missing:
        raise KeyError(f"{table.name} is made of {', '.join(sorted(missing))} too")
    name = f"made_{table.name.replace('/', '_')}"
    if "bucket" not in statement.inputs:
        return statement.rows(lake, name, given)
    people = inputs["identities"]
    count = people.num_rows if isinstance(people, pa.Table) else lake.con.to_pyarrow(people.count()).as_py()
    if count < BUCKET_PEOPLE:
        return statement.rows(lake, name, given)
    buckets = 1 + count // BUCKET_PEOPLE
    everybody = pa.table({"number": [0], "of": [buckets]})
    parted = by_bucket().rows(lake, _PARTED, {**given, "bucket": everybody})

    def of_bucket(number: int) -> dict[str, ir.Table]:
        return {"daily_products": parted.filter(_.number == number).drop("number")}

    try:
        return statement.rows(lake, name, given, buckets, of_bucket)
    finally:
        lake.engine.drop(_PARTED)
