"""Which columns each score is computed from. Declared here, because a fitted model is no expression it can be read off."""

from __future__ import annotations

from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.predictions.inputs import SOURCES
from shopauto_pipelines.predictions.tables import MODELS, SCORES

_FEATURES = tuple((CUSTOMER_FEATURES, name) for name in SOURCES)
_TARGET = (MODELS, "model_id")

#: Column of ``predictions/scores`` → the (table, column) pairs it comes from.
SCORES_LINEAGE = {
    "customer_id": ((CUSTOMER_FEATURES, "customer_id"),),
    "churn_probability": (*_FEATURES, _TARGET),
    "expected_orders_90d": (*_FEATURES, _TARGET),
    "next_order_on": (*_FEATURES, _TARGET),
    "next_order_from": (*_FEATURES, _TARGET),
    "next_order_to": (*_FEATURES, _TARGET),
    "value_cents_365d": (*_FEATURES, (CUSTOMER_FEATURES, "average_order_cents"), _TARGET),
    "model_id": (_TARGET,),
    "note": ((MODELS, "verdict"), (MODELS, "model_id")),
}
assert set(SCORES_LINEAGE) == {column.name for column in SCORES.columns}
