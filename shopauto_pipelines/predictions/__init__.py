"""Predictions: who will order again, how often, and when, as of a day, with how sure that is.

How a day's scores come about::

    features of past days ─┐
    orders after them ─────┼─ dataset ── models ── backtest ── store        [on training days]
                           └─ rules ───────────────┘  verdict    │
                                                   promotion_gate (blocking check)
    features of the day ─────────────────────────────── serving ─┴─→ predictions/scores    [every day]
                                                                     drift (check that warns)

- ``tables``: the tables with columns, units and keys.
- ``dataset``: training days and cut-offs; people as of a cut-off with their outcomes after it. Nothing later is read.
- ``btyd``: buy-till-you-die models of the books as scikit-learn estimators. ``process``: the Pareto/NBD among them, which
  every forecast starts from. ``season``: the coming horizon by what the same days saw a year before, as a factor of time.
- ``inputs``: what the learners see of a person, and the columns it comes from.
- ``models``: churn (no order within the horizon), expected orders and value, and the time to the next order.
- ``own``: a class of the shop's own in place of one of them. ``declaration``, ``component``: its place in the playbook.
- ``rules``: recency, frequency, churn factor, same as last period, BG/NBD, Pareto/NBD: what a model has to beat.
- ``backtest``: time-split test of model and rules, weights, and the verdict. ``metrics``: what is measured.
- ``store``: models as data, with their cards; a file with foreign types is refused. ``cards``: a card as people read it.
- ``serving``: the model in force on a day, and scoring in batches. ``gate``: what that means for the run.
- ``drift``: whether the people of a day are still like those the model was made for.
- ``plain``: the same for a plain list of purchases, without a shop.
- ``transactions``: any shop's plain transaction file, read for ``plain``: forecasts without a shop. ``pages``: their back-test.
- ``plots``, ``lineage``: what the UI shows. ``assets``, ``checks``: the Dagster face.

A person with one old order is not *alive by default*: what is predicted is an order within the horizon, not being alive.
"""
