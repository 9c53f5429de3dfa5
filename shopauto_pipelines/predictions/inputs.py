"""The inputs of the learners: what they read of a person's features, on which scale, and which columns that comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shopauto_pipelines.predictions.dataset import HABIT, Numbers
from shopauto_pipelines.predictions.process import BuyingProcess, Outlook


@dataclass(frozen=True)
class Input:
    """One input: its name and the feature columns it is computed from."""

    name: str
    sources: tuple[str, ...]


INPUTS = (
    Input("process_orders_again", HABIT),
    Input("process_expected", HABIT),
    Input("process_alive", HABIT),
    Input("orders", ("orders",)),
    Input("recency", ("recency_days",)),
    Input("tenure", ("tenure_days",)),
    Input("churn_factor", ("churn_factor",)),
    Input("orders_weighted_30d", ("orders_weighted_30d",)),
    Input("orders_weighted_120d", ("orders_weighted_120d",)),
    Input("orders_weighted_240d", ("orders_weighted_240d",)),
    Input("last_interval", ("last_interval_days",)),
    Input("interval_variation", ("interval_variation",)),
    Input("typical_order", ("typical_order_cents",)),
    Input("first_order", ("first_order_cents",)),
    Input("last_order", ("last_order_cents",)),
    Input("coupon_share", ("coupon_orders_365d", "orders_365d")),
    Input("refund_share", ("refund_cents", "revenue_cents")),
    Input("visits_30d", ("visits_30d",)),
    Input("visits_90d", ("visits_90d",)),
    Input("product_views_30d", ("product_views_30d",)),
    Input("pages_per_visit", ("pages_per_visit_90d",)),
    Input("visit_recency", ("last_visit_on",)),
    Input("carts_started", ("carts_started_365d",)),
    Input("carts_abandoned_share", ("carts_abandoned_365d", "carts_started_365d")),
    Input("open_share", ("opens_90d", "emails_sent_90d")),
    Input("clicks_90d", ("clicks_90d",)),
    Input("click_recency", ("last_click_on",)),
)
#: Feature columns the learners read.
SOURCES = tuple(dict.fromkeys(source for column in INPUTS for source in column.sources))


@dataclass(frozen=True)
class Inputs:
    """People as the learners see them: the buying process's own forecast over the horizon, and the matrix of all inputs."""

    outlook: Outlook
    orders_again: Numbers
    expected: Numbers
    matrix: Numbers


def inputs(f: Mapping[str, Numbers], process: BuyingProcess, horizon: int) -> Inputs:
    """Log odds of an order and expected orders by the process, and :data:`INPUTS`, a row a person; NaN where not known."""
    outlook = process.outlook(*(f[name] for name in HABIT))
    # of who bought daily and has been gone for years, not even a float's least order is expected
    again, expected = logit(1 - outlook.silent(horizon)), np.maximum(outlook.expected(horizon), 1e-9)
    columns = (
        again,
        np.log(expected + 1e-3),
        outlook.alive,
        np.log(f["orders"]),
        np.log1p(f["recency_days"]),
        np.log1p(f["tenure_days"]),
        np.log(np.clip(f["churn_factor"], 0.02, 50)),
        np.log(f["orders_weighted_30d"] + 0.05),
        np.log(f["orders_weighted_120d"] + 0.05),
        np.log(f["orders_weighted_240d"] + 0.05),
        np.log1p(f["last_interval_days"]),
        f["interval_variation"],
        np.log1p(np.maximum(f["typical_order_cents"], 0)),
        np.log1p(np.maximum(f["first_order_cents"], 0)),
        np.log1p(np.maximum(f["last_order_cents"], 0)),
        _share(f["coupon_orders_365d"], f["orders_365d"]),
        np.clip(_share(f["refund_cents"], f["revenue_cents"]), 0, 1),
        np.log1p(f["visits_30d"]),
        np.log1p(f["visits_90d"]),
        np.log1p(f["product_views_30d"]),
        f["pages_per_visit_90d"],
        np.log1p(f["last_visit_on"]),
        np.log1p(f["carts_started_365d"]),
        _share(f["carts_abandoned_365d"], f["carts_started_365d"]),
        _share(f["opens_90d"], f["emails_sent_90d"]),
        np.log1p(f["clicks_90d"]),
        np.log1p(f["last_click_on"]),
    )
    matrix = np.stack(columns, axis=1)
    matrix[~np.isfinite(matrix)] = np.nan
    return Inputs(outlook, again, expected, matrix)


@dataclass(frozen=True)
class Standard:
    """Mean and spread of each input over the people of a cut-off.

    Learners see people relative to the others of their cut-off: what a shop's history grows by from one cut-off to the next
    (tenure, orders) would otherwise be taken for a difference between people.
    """

    mean: Numbers
    scale: Numbers

    @classmethod
    def of(cls, matrix: Numbers) -> Standard:
        """Over the rows of a matrix; an input that never varies, or is never known, counts nothing."""
        known = np.isfinite(matrix)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, matrix, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, matrix - mean, 0) ** 2).sum(axis=0) / count)
        return cls(mean, np.where(spread > 1e-9, spread, 1.0))

    def __call__(self, matrix: Numbers) -> Numbers:
        """The inputs in spreads from their mean, at most 3; 0 where not known."""
        return np.clip(np.nan_to_num((matrix - self.mean) / self.scale), -3, 3)


def logit(p: Numbers) -> Numbers:
    """Log odds, finite."""
    p = np.clip(p, 1e-5, 1 - 1e-5)
    return np.log(p) - np.log1p(-p)


def sigmoid(x: Numbers) -> Numbers:
    """The inverse of :func:`logit`."""
    return 1 / (1 + np.exp(-x))


def aligned(odds: Numbers, level: float) -> Numbers:
    """Log odds moved so that the mean probability is ``level``."""
    return odds + shift(odds, level)


def shift(odds: Numbers, level: float) -> float:
    """What log odds are to be moved by for a mean probability of ``level``, at least 1e-9 away from 0 and 1."""
    from scipy.optimize import brentq

    level = float(np.clip(level, 1e-9, 1 - 1e-9))
    wanted = np.log(level) - np.log1p(-level)
    low, high = wanted - odds.max() - 1, wanted - odds.min() + 1  # all are below the level there, and above it
    return float(brentq(lambda by: float(sigmoid(odds + by).mean()) - level, low, high, xtol=1e-9))


def _share(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
