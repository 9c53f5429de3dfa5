"""Tables of the predictions room: the models in force and the scores they give."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles.tables import CUSTOMER_ID

MODELS = Table(
    "predictions/models",
    "The model in force for each target as of the day, with the verdict on the latest challenger.",
    (
        Column("target", "string", "churn or orders", required=True),
        Column("model_id", "string", "model in force; null: none has passed the gate yet"),
        Column("trained_as_of", "date", "day the model in force was trained as of"),
        Column("challenger_id", "string", "latest challenger; null: not enough data to train one"),
        Column("challenger_as_of", "date", "day the challenger was trained as of"),
        Column("challenger_passed", "boolean", "true where it beats every rule and is calibrated"),
        Column("verdict", "string", "why it was promoted, kept out, or not trained", required=True),
        Column("metrics", "string", "back-test of the challenger and of the rules, JSON"),
        Column("named", "boolean", "true where the run asked for the model by name, whatever was in force"),
    ),
    ("target",),
)
SCORES = Table(
    "predictions/scores",
    "Churn probability, next order and value of every person with an order, as of the day.",
    (
        CUSTOMER_ID,
        Column("churn_probability", "float64", "probability of no order within the horizon [90 days]"),
        Column("expected_orders_90d", "float64", "expected order days in the next 90 days"),
        Column("next_order_on", "date", "median of the next order's date"),
        Column("next_order_from", "date", "lower end of the 80 % interval of the next order's date"),
        Column("next_order_to", "date", "upper end of that interval; null: later than a year"),
        Column("value_cents_365d", "float64", "expected order totals of the next 365 days, minor units"),
        Column("model_id", "string", "model that scored; null where none is in force"),
        Column("note", "string", "why a score is missing or weak, e.g. `not enough data`"),
    ),
    ("customer_id",),
)

#: Every table of the room, in reading order.
TABLES = (MODELS, SCORES)
