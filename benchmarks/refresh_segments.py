"""Segments of the sample shop, each said three times: in the language of segments, in SQL, and in pandas.

SQL and pandas are conditions on one wide table of people: the columns of the 360° view, of the scores, and the numbers that
``refresh_by_hand`` and ``refresh_in_pandas`` count for themselves. They owe nothing to how the project translates conditions.
Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shopauto_pipelines.segments.declaration import SegmentDeclaration

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Said:
    """A segment in three languages; ``each``: one segment per value of the column, ``<name>:<value>``."""

    name: str
    where: str
    sql: str
    pandas: Callable[[pd.DataFrame], pd.Series]
    each: str | None = None

    @property
    def declaration(self) -> SegmentDeclaration:
        """The segment as the playbook declares it."""
        return SegmentDeclaration(
            name=self.name, description=f"People of {self.name}.", where=self.where, each=self.each
        )


#: A category of the sample shop.
CATEGORY = "camping"

SEGMENTS = (
    Said("frequent", "orders >= 4", "orders >= 4", lambda p: p.orders >= 4),
    Said("recent", "recency_days <= 30", "recency_days <= 30", lambda p: p.recency_days <= 30),
    Said(
        "lapsed",
        "orders >= 2 and churn_factor > 2",
        "orders >= 2 and churn_factor > 2",
        lambda p: (p.orders >= 2) & (p.churn_factor > 2),
    ),
    Said(
        "champions",
        "rfm_recency = 5 and rfm_frequency >= 4",
        "rfm_recency = 5 and rfm_frequency >= 4",
        lambda p: (p.rfm_recency == 5) & (p.rfm_frequency >= 4),
    ),
    Said(
        "big_spenders",
        "rfm_monetary = 5 or revenue_percentile >= 95",
        "rfm_monetary = 5 or revenue_percentile >= 95",
        lambda p: (p.rfm_monetary == 5) | (p.revenue_percentile >= 95),
    ),
    Said("buyers_in", "orders > 0", "orders > 0", lambda p: p.orders > 0, each="country"),
    Said(
        "fans_of",
        "orders_365d >= 2",
        "orders_365d >= 2",
        lambda p: p.orders_365d >= 2,
        each="favourite_category",
    ),
    Said(
        "cart_leavers",
        "carts_abandoned_365d >= 2 and not discount_seeker",
        "carts_abandoned_365d >= 2 and not discount_seeker",
        lambda p: (p.carts_abandoned_365d >= 2) & ~p.discount_seeker,
    ),
    Said(
        "readers",
        "opens_90d > 0 and clicks_90d = 0 and email_consent = 'opted_in'",
        "opens_90d > 0 and clicks_90d = 0 and email_consent = 'opted_in'",
        lambda p: (p.opens_90d > 0) & (p.clicks_90d == 0) & (p.email_consent == "opted_in"),
    ),
    Said(
        "at_risk",
        "churn_probability >= 0.6 and value_cents_365d > 1000",
        "churn_probability >= 0.6 and value_cents_365d > 1000",
        lambda p: (p.churn_probability >= 0.6) & (p.value_cents_365d > 1000),
    ),
    Said(
        "campers",
        f"did('bought', category = '{CATEGORY}', within => 365)",
        "camping_bought_365d >= 1",
        lambda p: p.camping_bought_365d >= 1,
    ),
    Said(
        "future_campers",
        f"did('viewed', category = '{CATEGORY}', at_least => 2, within => 90)"
        f" and not did('bought', category = '{CATEGORY}', within => 90)",
        "camping_viewed_90d >= 2 and camping_bought_90d = 0",
        lambda p: (p.camping_viewed_90d >= 2) & (p.camping_bought_90d == 0),
    ),
    Said(
        "fillers_of_carts",
        "did('carted', at_least => 3, within => 90) and orders_90d = 0",
        "carted_90d >= 3 and orders_90d = 0",
        lambda p: (p.carted_90d >= 3) & (p.orders_90d == 0),
    ),
    Said(
        "only_with_coupon",
        "did('ordered', with_coupon, at_least => 2) and not did('ordered', not with_coupon)",
        "coupon_days >= 2 and order_days = coupon_days",
        lambda p: (p.coupon_days >= 2) & (p.order_days == p.coupon_days),
    ),
    Said(
        "large_orders",
        "did('ordered', amount_cents >= 10000, at_least => 2)",
        "large_days >= 2",
        lambda p: p.large_days >= 2,
    ),
    Said(
        "window_shoppers",
        "did('visited', at_least => 2, within => 14) and not orders_30d > 0",
        "visited_14d >= 2 and orders_30d = 0",
        lambda p: (p.visited_14d >= 2) & (p.orders_30d == 0),
    ),
    Said(
        "searchers",
        "did('searched', at_least => 2, within => 180)",
        "searched_180d >= 2",
        lambda p: p.searched_180d >= 2,
    ),
    Said(
        "deaf",
        "did('mailed', at_least => 4, within => 60) and not did('opened', within => 60)",
        "mailed_60d >= 4 and opened_60d = 0",
        lambda p: (p.mailed_60d >= 4) & (p.opened_60d == 0),
    ),
    Said(
        "clickers",
        "did('clicked', within => 45)",
        "clicked_45d >= 1",
        lambda p: p.clicked_45d >= 1,
    ),
    Said(
        "frequent_and_recent",
        "in_segment('frequent') and in_segment('recent')",
        "orders >= 4 and recency_days <= 30",
        lambda p: (p.orders >= 4) & (p.recency_days <= 30),
    ),
)
