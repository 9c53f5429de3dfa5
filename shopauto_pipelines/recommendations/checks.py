"""A blocking check of what is about to be shown to people, by other means than those it was made with.

Recommendations are filtered in ``ownership``, from the rollups. The check starts from the raw logs: who bought the product,
sent it back, what stock the shop has. Findings name keys, never a value.
"""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.quality import in_parts
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.declaration import load_recommendations
from shopauto_pipelines.sources import tables as raw

#: Rows that a finding lists.
_LISTED = 10


def unwanted(lake: Lake, table: Table, days: Sequence[date], refusal_days: int) -> list[tuple[str, str, int]]:
    """``(reason, as_of customer_id product_id, rows)`` for the first rows of ``table`` on ``days`` that must not be recommended.

    An owned durable younger than its age of replacement (unless all pieces of it were sent back), a product without stock, or one
    of which all that was bought last was sent back, within ``refusal_days``.
    """
    start, end = min(days), max(days)
    rows = lake.between(table, start, end).select("as_of", "customer_id", "product_id")
    ids = lake.between(IDENTITIES, start, end).select("as_of", "customer_id", "shop_customer_id")
    known = rows.left_join(ids, ["as_of", "customer_id"]).mutate(who=ibis.coalesce(_.shop_customer_id, _.customer_id))
    known = known.select("as_of", "customer_id", "product_id", "who")
    key = ["as_of", "customer_id", "product_id"]
    bought = _of_person(known, lake.between(raw.ORDER_LINES, end=end).filter(_.kind == "product"))
    bought = bought.group_by(*key, "happened_on").aggregate(pieces=_.quantity.sum())
    bought = bought.group_by(*key).aggregate(
        bought_on=_.happened_on.max(), pieces=_.pieces.argmax(_.happened_on), all_pieces=_.pieces.sum()
    )
    returned = _of_person(known, lake.between(raw.REFUNDS, end=end)).left_join(bought, key)
    lately = _.bought_on.isnull() | (_.happened_on >= _.bought_on)
    returned = returned.mutate(lately=lately).group_by(*key)
    returned = returned.aggregate(
        returned_on=_.happened_on.max(where=_.lately),
        whole=(_.lately & _.quantity.isnull()).any() | (_.quantity.sum(where=_.lately) >= _.pieces.max().fill_null(0)),
        left=_.all_pieces.max() - _.quantity.fill_null(_.pieces).sum(),
    )
    goods = lake.between(tables.PRODUCTS, start, end).select("as_of", "product_id", "durable", "replacement_days")
    facts = rows.left_join(bought, key).select(*key, "bought_on").left_join(returned, key)
    facts = facts.select(*key, "bought_on", "returned_on", "whole", "left").left_join(goods, ["as_of", "product_id"])
    facts = facts.drop("as_of_right", "product_id_right").left_join(_stock(lake, rows, end), ["as_of", "product_id"])
    owned = _.durable & (_.as_of.delta(_.bought_on, unit="day") < _.replacement_days) & (_.left.fill_null(1) > 0)
    refused = _.whole & (_.as_of.delta(_.returned_on, unit="day") < refusal_days)
    found = facts.mutate(
        reason=ibis.cases((owned, "owned durable"), (_.stock <= 0, "out of stock"), (refused, "sent back"))
    ).filter(_.reason.notnull())
    found = found.mutate(rows=_.count().over(ibis.window(group_by="reason")))
    listed = found.order_by("reason", *key).limit(_LISTED)
    return [
        (row["reason"], f"{row['as_of']} {row['customer_id']} {row['product_id']}", row["rows"])
        for row in lake.con.to_pyarrow(listed).to_pylist()
    ]


def _of_person(known: ir.Table, log: ir.Table) -> ir.Table:
    """For each row of ``known`` the rows of the log up to its day, of any shop id of the person, with its product."""
    happened = log.select("product_id", "quantity", who="shop_customer_id", happened_on="day")
    both = known.inner_join(happened, ["who", "product_id"]).filter(_.happened_on <= _.as_of)
    return both.select("as_of", "customer_id", "product_id", "quantity", "happened_on")


def _stock(lake: Lake, rows: ir.Table, end: date) -> ir.Table:
    """Pieces on hand of each product at the end of each day; only of those whose stock the shop tells."""
    asked = rows.select("as_of", "product_id").distinct()
    levels = lake.between(raw.STOCK_LEVELS, end=end).select(
        "product_id", "warehouse", "changed_at", "quantity", happened_on="day"
    )
    each = asked.inner_join(levels, "product_id").filter(_.happened_on <= _.as_of)
    newest = ibis.row_number().over(group_by=["as_of", "product_id", "warehouse"], order_by=_.changed_at.desc())
    return each.mutate(nth=newest).filter(_.nth == 0).group_by("as_of", "product_id").aggregate(stock=_.quantity.sum())


def counted(lake: Lake, table: Table, days: Sequence[date], refusal_days: int) -> tuple[dict[str, int], list[str]]:
    """How many rows must not be recommended, by reason, and which are the first of them; days are looked at in parts."""
    counts, keys = dict.fromkeys(("owned durable", "out of stock", "sent back"), 0), list[str]()
    for part in in_parts(lake, table, days):
        found = unwanted(lake, table, part, refusal_days)
        for reason, rows in {(reason, rows) for reason, _key, rows in found}:
            counts[reason] += rows
        keys += [f"{key} ({reason})" for reason, key, _rows in found]
    return counts, keys[:_LISTED]


def _check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(table),
        additional_deps=[asset_key(t) for t in (raw.ORDER_LINES, raw.REFUNDS, raw.STOCK_LEVELS, tables.PRODUCTS)],
        name="nothing_unwanted",
        blocking=True,
        description="No owned durable, no product without stock, nothing that was sent back: computed from the raw logs, "
        "independently of what filters recommendations. Stops the run before anything is sent.",
    )
    def nothing_unwanted(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        counts, keys = counted(lake.front(), table, run_days(context.run.tags), load_recommendations().refusal_days)
        return dg.AssetCheckResult(
            passed=not keys,
            description=f"{table.name}: unwanted recommendations (as_of customer_id product_id): {', '.join(keys)}"
            if keys
            else None,
            metadata={reason.replace(" ", "_"): rows for reason, rows in counts.items()},
        )

    return nothing_unwanted


CHECKS = [_check(tables.CUSTOMER_PRODUCTS), _check(tables.CUSTOMER_COMPLEMENTS)]
