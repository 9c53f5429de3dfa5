"""Predictions: who will order again, how often, and when, as of a day, with how sure that is.

How a day's scores come about::

    features of past days ─┐
    orders after them ─────┼─ dataset ── models ── backtest ── store        [on training days]
                           └─ rules ───────────────┘  verdict    │
                                                   promotion_gate (blocking check)
    features of the day ─────────────────────────────── serving ─┴─→ predictions/scores    [every day]

- ``tables``: the tables with columns, units and keys.
- ``dataset``: training days and cut-offs; people as of a cut-off with their outcomes after it. Nothing later is read.
- ``process``: a four-number model of the buying process, the strongest input and itself one of the rules.
- ``models``: churn (no order within the horizon), expected orders, and the time to the next order.
- ``rules``: recency, frequency, churn factor, same as last period, BG/NBD: what a model has to beat.
- ``backtest``: time-split test of model and rules, and the verdict.
- ``store``: models as data, with their back-test; a file with foreign types is refused.
- ``serving``: the model in force on a day, and scoring in batches. ``gate``: what that means for the run.
- ``plots``, ``lineage``: what the UI shows. ``assets``, ``checks``: the Dagster face.

A person with one old order is not *alive by default*: what is predicted is an order within the horizon, not being alive.
"""
