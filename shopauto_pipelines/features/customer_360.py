"""The 360° view of a person as of a day: profile and behaviour in one row. Nothing is computed here."""

from __future__ import annotations

import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features import tables


def customer_360(
    customers: ir.Table,
    features: ir.Table,
    interests: ir.Table,
    clusters: ir.Table,
    best_hours: ir.Table,
    leads: ir.Table,
) -> ir.Table:
    """``features/customer_360``: every row of ``profiles/customers`` with the person's ``features/customer_features``.

    The top one of ``features/interests``, the cluster, the best hour, the stage and the lead's score go with it. All tables
    are of the same as-of day. Every person of the profiles has features, so no required column is null.
    """
    behaviour = [column.name for column in tables.CUSTOMER_FEATURES.columns[1:]]
    top = interests.filter(_.rank == 1).select("customer_id", top_interest="category")
    rows = customers.left_join(features, "customer_id").select(customers, *behaviour)
    stage = leads.select("customer_id", journey_stage="stage", lead_score="score")
    for more in (top, clusters.select("customer_id", "cluster"), best_hours, stage):
        rows = rows.left_join(more, "customer_id").drop("customer_id_right")
    return rows
