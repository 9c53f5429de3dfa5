"""People to be served: their features, segments and ids in a lake, and what a test asks of the served tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.realtime import schema
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import PRODUCTS
from shopauto_pipelines_tests.outbox.conftest import DAY
from shopauto_pipelines_tests.outbox.shop import fill


def person(customer_id: str, *segments: str, ids: Sequence[str] = (), **more) -> dict:
    """One who is five times later than usual and has spent more than others on camping, unless told otherwise."""
    usual = {
        "customer_id": customer_id,
        "email": f"{customer_id}@example.com",
        "last_order_on": DAY - timedelta(days=150),
        "first_order_on": DAY - timedelta(days=400),
        "recency_days": 150,
        "mean_interval_days": 30.0,
        "churn_factor": 5.0,
        "discount_seeker": False,
        "favourite_category": "camping",
        "favourite_category_order_cents": 9000,
        "category_average_order_cents": 5000,
        "shop_ids": 1 + len(ids),
        "orders": 6,
    }
    return usual | more | {"segments": segments or ("lapsed",), "ids": [customer_id, *ids]}


def product(product_id: str, price_cents: int | None, cost_cents: int | None, category: str | None = "camping") -> dict:
    """A product of a shop that makes no secret of its costs."""
    price = {"price_cents": price_cents, "cost_cents": cost_cents}
    return {"product_id": product_id, "category": category, "changed_at": datetime(2025, 1, 1), **price}


TENT = product("tent", 20_000, 12_000)


def write_people(lake: Lake, *people: dict, day: date = DAY, products: Sequence[dict] = (TENT,)) -> None:
    """A day of the tables that people are published from."""
    fill(lake, PRODUCTS, day, list(products))
    fill(lake, DAILY_PRODUCTS, day, [])
    fill(lake, CUSTOMER_360, day, [_columns(CUSTOMER_360, row) for row in people])
    fill(lake, CUSTOMER_FEATURES, day, [_columns(CUSTOMER_FEATURES, row) for row in people])
    fill(
        lake,
        MEMBERSHIP,
        day,
        [
            {"segment": segment, "customer_id": row["customer_id"], "entered_on": day}
            for row in people
            for segment in row["segments"]
        ],
    )
    fill(
        lake,
        IDENTITIES,
        day,
        [
            {"shop_customer_id": known, "customer_id": row["customer_id"], "rule": "email", "rules_version": 1}
            for row in people
            for known in row["ids"]
        ],
    )


def _columns(table, row: dict) -> dict:
    return {name: value for name, value in row.items() if name in table.schema.names}


def everything_served(engine: sa.Engine) -> tuple[list, list]:
    """Both tables, in order."""
    with engine.connect() as connection:
        return tuple(
            [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
            for table in (schema.people, schema.people_ids)
        )
