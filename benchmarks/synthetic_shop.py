"""What benchmarks over made-up tables share: a catalogue, and how a day of a table is written from a query. No sample shop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from shopauto_pipelines.features.tables import DAILY_PRODUCTS
from shopauto_pipelines.sources.tables import PRODUCTS

if TYPE_CHECKING:
    from datetime import date

    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.tables import Table


def catalogue() -> dict[Table, str]:
    """48 products in twelve categories, and one order of each: queries by table."""
    return {
        PRODUCTS: """
            select format('p{}', n) as product_id, format('Product {}', n) as "name",
                   format('Category {}', n % 12) as category, 990 + 100 * n as price_cents,
                   timestamp '2025-01-01' as changed_at, 'shop' as "source", 'products.csv' as source_file, n as source_row
            from range(48) t(n)""",
        DAILY_PRODUCTS: """
            select format('c{:08d}', n) as shop_customer_id, format('p{}', n) as product_id,
                   format('Category {}', n % 12) as category, 1 as orders, 1 as quantity, 990 as revenue_cents
            from range(48) t(n)""",
    }


def write(lake: Lake, table: Table, day: date, sql: str) -> None:
    """Write what a query gives as a day of a table; columns it does not give are empty."""
    given = lake.con.sql(sql)
    missing = {n: kind for n, kind in table.schema.items() if n not in given.columns}
    blank = {
        n: (
            ibis.null().cast(kind)
            if kind.nullable
            else ibis.literal(False)
            if kind.is_boolean()
            else ibis.literal(0).cast(kind)
            if kind.is_numeric()
            else ibis.literal(day).cast(kind)
            if kind.is_temporal()
            else ibis.literal("")
        )
        for n, kind in missing.items()
    }
    lake.write(table, [day], given.mutate(**blank))
