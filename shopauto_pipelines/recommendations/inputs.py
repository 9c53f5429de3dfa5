"""What the statements of the room are made of: tables they have not seen yet, and the expressions that several share.

Statements are compiled once and run for every day (``platform.prepared``), so the day is a row of the table ``rules``, as are the
numbers a shop may declare. Weights are whole millionths: sums of them are exact and the same in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features.tables import DAILY_PRODUCTS
from shopauto_pipelines.platform.prepared import Prepared, kept, unseen
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.declaration import GOODS_SCHEMA, RULES_SCHEMA
from shopauto_pipelines.sources import tables as raw

#: Unit of weights.
MILLION = 1_000_000

DAILY = unseen(DAILY_PRODUCTS, "daily_products", partitions=True)
PERSONS = unseen(IDENTITIES, "identities")
CATALOGUE = unseen(raw.PRODUCTS, "raw_products", partitions=True)
STOCK = unseen(raw.STOCK_LEVELS, "stock_levels", partitions=True)
REFUNDS = unseen(raw.REFUNDS, "refunds", partitions=True)
EVENTS = unseen(raw.EVENTS, "events", partitions=True)
PRODUCTS = unseen(tables.PRODUCTS, "products")
COMPLEMENTS = unseen(tables.COMPLEMENTS, "complements")
RELATED = unseen(tables.RELATED_PRODUCTS, "related_products")
RULES = ibis.table(RULES_SCHEMA, name="rules")
GOODS = ibis.table(ibis.Schema.from_pyarrow(GOODS_SCHEMA), name="goods")
BUCKET = ibis.table({"number": "int64", "of": "int64"}, name="bucket")

#: The lake's tables behind the names that statements know them by.
BEHIND: Mapping[str, Table] = {
    "daily_products": DAILY_PRODUCTS,
    "identities": IDENTITIES,
    "raw_products": raw.PRODUCTS,
    "stock_levels": raw.STOCK_LEVELS,
    "refunds": raw.REFUNDS,
    "events": raw.EVENTS,
    "products": tables.PRODUCTS,
    "complements": tables.COMPLEMENTS,
    "related_products": tables.RELATED_PRODUCTS,
}


def rule(name: str) -> ir.Scalar:
    """A number the shop may declare, or ``as_of``, the day."""
    return RULES[name].as_scalar()


AS_OF = rule("as_of")


def prepare(table: Table, expression: ir.Table) -> Prepared:
    """The statement of one of the room's tables."""
    return Prepared.of(expression.select(*table.schema), BEHIND)


def history(*, of_bucket: bool = False) -> ir.Table:
    """What every person bought and viewed: ``features/daily_products`` with ``customer_id`` and ``age``, days before the day.

    A shop id that ``profiles/identities`` does not know is a person of its own. Rows after the day are left out; ``of_bucket``
    leaves those of one bucket of the people, for statements that are run bucket by bucket.
    """
    persons = PERSONS.select("shop_customer_id", person="customer_id")
    rows = DAILY.filter(_seen_by(AS_OF)).left_join(persons, "shop_customer_id")
    rows = rows.select(
        customer_id=ibis.coalesce(_.person, _.shop_customer_id),
        product_id=_.product_id,
        category=_.category,
        day=_.day,
        age=age(_.day),
        orders=_.orders,
        quantity=_.quantity,
        revenue_cents=_.revenue_cents,
        views=_.views,
    )
    return rows.filter(in_bucket(_.customer_id)) if of_bucket else rows


def in_bucket(customer_id: Any) -> Any:
    """True for the people of the bucket that the statement is run for."""
    return _bucket_of(customer_id) == BUCKET.number.as_scalar()


def _bucket_of(customer_id: Any) -> Any:
    return (customer_id.hash().cast("int64") % BUCKET.of.as_scalar()).abs()


@kept
def by_bucket() -> Prepared:
    """The rows that :func:`history` is made of, with their bucket as ``number``, in the order of the buckets.

    So that a statement which is run bucket by bucket need not read, for each, what everybody ever did.
    """
    persons = PERSONS.select("shop_customer_id", person="customer_id")
    rows = DAILY.filter(_seen_by(AS_OF)).left_join(persons, "shop_customer_id")
    rows = rows.select(DAILY.columns, number=_bucket_of(ibis.coalesce(_.person, _.shop_customer_id)))
    return Prepared.of(rows.order_by("number"), BEHIND)


def _seen_by(day: Any) -> Any:
    return (_.day <= day) & ((_.orders > 0) | (_.views > 0))  # not what was only put into a cart from a list


def purchases(*, of_bucket: bool = False) -> ir.Table:
    """One row per person, product and order day: ``customer_id``, ``product_id``, ``day``, ``age``, ``quantity``."""
    return (
        history(of_bucket=of_bucket)
        .filter(_.orders > 0)
        .group_by("customer_id", "product_id", "day")
        .aggregate(age=_.age.min(), quantity=ibis.greatest(_.quantity.sum(), 1))
    )


def age(day: Any) -> Any:
    """Days from ``day`` to the day."""
    return -day.delta(AS_OF, unit="day")


def decayed(age: Any, half_life: int) -> Any:
    """Weight of something of that age, in whole millionths."""
    return (0.5 ** (age / half_life) * MILLION).round().cast("int64")


def place(by: list[Any], of: str | list[str]) -> Any:
    """1 for the first row of each group, 2 for the next; ``by`` has to order it totally."""
    return ibis.row_number().over(group_by=of, order_by=by) + 1


def poisson_bound(count: Any, z: float) -> Any:
    """Bound of a gamma distribution of shape ``count`` and rate 1, ``z`` standard normal deviations from its middle.

    Wilson & Hilferty (1931): the cube root of such a variable is nearly normal. Never below 0.
    """
    root = 1 - 1 / (9 * count) + z / (3 * count.sqrt())
    return count * ibis.greatest(root, 0.0) ** 3


def wilson(successes: Any, trials: Any, z: float) -> Any:
    """Bound of a share, ``z`` standard normal deviations from it (Wilson 1927); within 0 and 1, also for few trials."""
    share = successes / trials
    middle = share + z * z / (2 * trials)
    spread = z * (share * (1 - share) / trials + z * z / (4 * trials * trials)).sqrt()
    return ((middle + spread) / (1 + z * z / trials)).clip(0.0, 1.0)
