"""Forecasts for a plain list of purchases, without a shop behind it: the same features, models and back-test as in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis import _

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.features.customer_features import customer_features, end_of_day
from shopauto_pipelines.platform.engine import batches
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.predictions import backtest, serving
from shopauto_pipelines.predictions.dataset import COLUMNS, NotEnoughData, Shop, sampled, to_numpy
from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel, one_thread
from shopauto_pipelines.predictions.transactions.reading import TRANSACTIONS


@dataclass(frozen=True)
class Forecast:
    """What is forecast of each customer, and how far it can be trusted.

    ``scores``: ``customer_id``, ``orders`` (order days so far), ``last_order_on``; within the horizon
    ``probability_of_order``, ``expected_orders``, ``value_cents``; ``next_order_on`` with the 80 % interval ``next_order_from``
    to ``next_order_to`` (dates; null: later than a year); ``value_cents_365d``. Sorted by customer. ``metrics``: the back-test
    of each target, with its verdict. ``notes``: what the reader should know.
    """

    scores: pa.Table
    metrics: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


def forecast(transactions: pa.Table, as_of: date, horizon: int) -> Forecast:
    """Train, back-test and score as of a day; raises :class:`NotEnoughData` with the reason. Later rows are not looked at."""
    con = ibis.duckdb.connect()
    con.create_table("purchases", transactions.cast(TRANSACTIONS))
    purchases = con.table("purchases").filter(_.day <= as_of)
    customers = con.create_table(
        "customers", purchases.select(customer_id=_.customer_id, shop_customer_id=_.customer_id).distinct()
    )
    some, learned_from = sampled(con, customers, purchases.mutate(shop_customer_id=_.customer_id))
    with one_thread():
        challengers = backtest.train(_shop(con, learned_from, some), as_of, horizon)
        churn, orders = challengers["churn"].model, challengers["orders"].model
        if not isinstance(churn, ChurnModel) or not isinstance(orders, OrdersModel):
            raise NotEnoughData(challengers["churn"].verdict.removeprefix("not enough data: "))
        report(f"scoring {con.execute(customers.count()):,} customers", 0, 1)
        everybody = _shop(con, purchases, customers).everybody(as_of).order_by("customer_id")
        parts = batches(con.to_pyarrow_batches(everybody, chunk_size=serving.BATCH), serving.BATCH)
        scores = pa.concat_tables([_scored(part, churn, orders, as_of) for part in parts])
    metrics = {name: {**each.metrics, "verdict": each.verdict} for name, each in challengers.items()}
    notes = [each.verdict for each in challengers.values() if not each.passed]
    if (tested := metrics["churn"]["tested_days"]) < horizon:
        notes.append(f"tested over {tested} days, the history is too short for {horizon}")
    if not metrics["churn"]["season_known"]:
        notes.append(backtest.SEASON_UNKNOWN)
    return Forecast(scores, metrics, tuple(notes))


def _scored(people: pa.Table, churn: ChurnModel, orders: OrdersModel, as_of: date) -> pa.Table:
    """The scores of a batch of people."""
    features = {name: to_numpy(people[name]) for name in COLUMNS}
    told, spent = serving.forecasts(features, churn, orders, churn.horizon, 365), orders.spent_per_order(features)
    assert told.silent is not None
    assert told.expected is not None
    expected, year = told.expected.T
    expected = np.maximum(
        expected, 1 - told.silent
    )  # the two are blended apart; a mean is no less than P(at least one)
    last = (as_of - date(1970, 1, 1)).days - features["recency_days"]
    return pa.table(
        {
            "customer_id": people["customer_id"].cast(pa.string()),
            "orders": features["orders"].astype(np.int64),
            "last_order_on": pa.array(last.astype(np.int32)).cast(pa.date32()),
            "probability_of_order": np.round(1 - told.silent, 6),
            "expected_orders": np.round(expected, 6),
            **serving.dates(told, as_of),
            "value_cents": np.round(expected * spent),
            "value_cents_365d": np.round(year * spent),
        }
    )


def _shop(con: Any, purchases: ir.Table, who: ir.Table) -> Shop:
    """The purchases as a shop that knows nothing but orders."""
    sums = [c.name for c in features.DAILY_ACTIVITY.columns if c.type == "int64"]
    known = {"orders": ibis.literal(1, "int64"), "revenue_cents": _.cents}
    activity = purchases.select(
        "day",
        shop_customer_id=_.customer_id,
        **{name: known.get(name, ibis.literal(0, "int64")) for name in sums},
    )
    products, carts = (
        ibis.memtable(table.arrow_schema.append(pa.field("day", pa.date32())).empty_table())
        for table in (features.DAILY_PRODUCTS, features.DAILY_CARTS)
    )
    first = con.to_pyarrow(purchases.day.min()).as_py()
    return Shop(
        con=con,
        features=lambda day, end: customer_features(activity, products, carts, who, day, end),
        activity=activity,
        identities=who,
        first_day=first or date.min + timedelta(days=1),
        end_of_day=lambda day: end_of_day(day, UTC),
    )
