"""Which columns models and scores are computed from. Declared here, as a fitted model is no expression it can be read off."""

from __future__ import annotations

from datetime import date, datetime

from shopauto_pipelines.features.customer_features import customer_features
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES, DAILY_ACTIVITY, DAILY_CARTS, DAILY_PRODUCTS
from shopauto_pipelines.platform.prepared import Prepared, unseen
from shopauto_pipelines.predictions.inputs import SOURCES
from shopauto_pipelines.predictions.tables import MODELS, SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES

_FEATURES = tuple((CUSTOMER_FEATURES.name, name) for name in SOURCES)
_TARGET = (MODELS.name, "model_id")

#: Column of ``predictions/scores`` → the (table, column) pairs it comes from.
SCORES_LINEAGE = {
    "customer_id": ((CUSTOMER_FEATURES.name, "customer_id"),),
    "churn_probability": (*_FEATURES, _TARGET),
    "expected_orders_90d": (*_FEATURES, _TARGET),
    "next_order_on": (*_FEATURES, _TARGET),
    "next_order_from": (*_FEATURES, _TARGET),
    "next_order_to": (*_FEATURES, _TARGET),
    "value_cents_365d": (*_FEATURES, (CUSTOMER_FEATURES.name, "average_order_cents"), _TARGET),
    "model_id": (_TARGET,),
    "note": tuple(
        (MODELS.name, name) for name in ("verdict", "model_id", "named", "trained_as_of", "challenger_passed")
    ),
}
assert set(SCORES_LINEAGE) == {column.name for column in SCORES.columns}

#: Columns of ``predictions/models`` that say what came out of learning. The others are the playbook's and the calendar's.
_LEARNT = ("model_id", "challenger_id", "challenger_passed", "verdict", "metrics")


def models_lineage() -> dict[str, frozenset[tuple[str, str]]]:
    """Column of ``predictions/models`` → what the features of training days are made of, whichever days these are."""
    rollups = {"activity": DAILY_ACTIVITY, "products": DAILY_PRODUCTS, "carts": DAILY_CARTS}
    days = {name: unseen(table, name, partitions=True) for name, table in rollups.items()}
    made = customer_features(**days, identities=unseen(IDENTITIES, "who"), as_of=date.max, day_end=datetime.max)
    origins = Prepared.of(made, rollups).origins
    learnt_from = frozenset().union(*(origins[name] for name in SOURCES))
    return dict.fromkeys(_LEARNT, learnt_from)
