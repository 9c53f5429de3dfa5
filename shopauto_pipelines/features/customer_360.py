"""The 360° view of a person as of a day: profile and behaviour in one row. Nothing is computed here."""

from __future__ import annotations

import ibis.expr.types as ir

from shopauto_pipelines.features import tables


def customer_360(customers: ir.Table, features: ir.Table) -> ir.Table:
    """``features/customer_360``: every row of ``profiles/customers`` with the person's ``features/customer_features``.

    Both tables are of the same as-of day. Every person of the profiles has features, so no required column is null.
    """
    behaviour = [column.name for column in tables.CUSTOMER_FEATURES.columns[1:]]
    return customers.left_join(features, "customer_id").select(customers, *behaviour)
