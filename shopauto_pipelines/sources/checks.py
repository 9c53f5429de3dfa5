"""Suites on the raw tables: what landing cannot judge row by row, because each row is well-formed.

A batch that breaks one of them stops the run before anything downstream, the send included, is computed from it.
"""

from typing import Any

import ibis.expr.types as ir

from shopauto_pipelines.platform.dagster.checks import suite_check
from shopauto_pipelines.platform.quality import Expect, Suite
from shopauto_pipelines.sources import tables

#: An amount of one row above this is taken for a mistake (wrong unit, wrong column), minor units.
MOST_CENTS = 100_000_000

#: Sets the day aside where more rows than this were refused; a handful of bad rows is no reason to stop.
MOST_QUARANTINED = 1_000


def _between(column: str, lowest: float | None, highest: float | None = None, **options: Any) -> Expect:
    limits = {"min_value": lowest, "max_value": highest}
    return Expect(
        "ExpectColumnValuesToBeBetween", column, {k: v for k, v in limits.items() if v is not None}, **options
    )


def _in_set(column: str, *values: str) -> Expect:
    return Expect("ExpectColumnValuesToBeInSet", column, {"value_set": list(values)})


def _refused_rows(rows: ir.Table) -> dict[str, ir.Value]:
    return {"refused_rows": rows.count()}


SUITES = (
    Suite.of(tables.CUSTOMERS),
    Suite.of(
        tables.CONSENTS,
        _in_set("channel", "email", "sms", "push"),
        _in_set("state", "pending", "opted_in", "opted_out"),
    ),
    Suite.of(tables.TOPIC_CHOICES, _in_set("channel", "email", "sms"), _in_set("state", "opted_in", "opted_out")),
    Suite.of(tables.PRODUCTS, _between("price_cents", 0, MOST_CENTS), _between("cost_cents", 0, MOST_CENTS)),
    Suite.of(tables.ORDERS, _between("total_cents", 0, MOST_CENTS), _between("discount_cents", 0, MOST_CENTS)),
    Suite.of(
        tables.ORDER_LINES,
        _in_set("kind", "product", "shipping", "fee", "discount", "gift_card", "adjustment"),
        _between("amount_cents", -MOST_CENTS, MOST_CENTS),
    ),
    Suite.of(tables.REFUNDS, _between("amount_cents", 0, MOST_CENTS)),
    Suite.of(tables.EVENTS),
    Suite.of(tables.MESSAGE_EVENTS),
    Suite.of(tables.FORM_SUBMISSIONS),
    Suite.of(tables.STOCK_LEVELS),
    Suite(tables.QUARANTINE, (_between("refused_rows", None, MOST_QUARANTINED, fact=True),), _refused_rows),
)

CHECKS = [suite_check(suite) for suite in SUITES]
