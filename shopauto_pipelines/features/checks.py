"""Suites on the features: counts that must not be negative, windows that contain each other, nothing from the future."""

import ibis

from shopauto_pipelines.features import tables
from shopauto_pipelines.platform.dagster.checks import suite_check
from shopauto_pipelines.platform.quality import Expect, Suite


def _at_least_zero(*columns: str) -> tuple[Expect, ...]:
    return tuple(Expect("ExpectColumnValuesToBeBetween", column, {"min_value": 0}) for column in columns)


SUITES = (
    Suite.of(tables.DAILY_ACTIVITY, *_at_least_zero("orders", "items", "visits", "seconds_on_site")),
    Suite.of(tables.DAILY_PRODUCTS),
    Suite.of(tables.DAILY_CARTS),
    Suite.of(tables.DAILY_FORMS),
    Suite.of(tables.DAILY_MESSAGES),
    Suite.of(tables.DAILY_HOURS, *_at_least_zero("signs")),
    Suite.of(
        tables.CUSTOMER_FEATURES,
        *_at_least_zero("recency_days", "tenure_days", "orders", "revenue_cents", "mean_interval_days", "churn_factor"),
        Expect("ExpectColumnValuesToBeBetween", "windows_out_of_order", {"max_value": 0}, fact=True),
        Expect("ExpectColumnValuesToBeBetween", "from_the_future", {"max_value": 0}, fact=True),
        facts=lambda rows: {
            "windows_out_of_order": (
                (rows.orders_30d > rows.orders_90d)
                | (rows.orders_90d > rows.orders_365d)
                | (rows.orders_365d > rows.orders)
            ).sum(),
            "from_the_future": ibis.or_(
                rows.last_order_on > rows.as_of, rows.last_visit_on > rows.as_of, rows.last_click_on > rows.as_of
            ).sum(),
        },
    ),
    Suite.of_large(
        tables.INTERESTS,
        Expect("ExpectColumnValuesToBeBetween", "from_the_future", {"max_value": 0}, fact=True),
        Expect("ExpectColumnValuesToBeBetween", "out_of_scale", {"max_value": 0}, fact=True),
        facts=lambda rows: {
            "from_the_future": (rows.last_on > rows.as_of).sum(),
            "out_of_scale": (~rows.score.between(0, 1)).sum(),
        },
    ),
    Suite.of(tables.CLUSTER_MODELS),
    Suite.of_large(tables.CLUSTERS),
    Suite.of_large(tables.LEADS),
    Suite.of(tables.CUSTOMER_360),
)

CHECKS = [suite_check(suite) for suite in SUITES]
