"""Features: what each person does in the shop, as of a day, with nothing from the future.

How the tables follow from each other::

    raw/orders, order_lines, refunds, events, message_events, products        profiles/identities   profiles/customers
       │                                                                           │                      │
       ├─ rollups.daily_activity ─┐                                                │                      │
       ├─ rollups.daily_products ─┼── [day, by shop id] ── customer_features ──────┘ [as of, by person]   │
       └─ rollups.daily_carts ────┘                              └──────── customer_360 ──────────────────┘ [as of]

- ``tables``: the tables with columns, units and keys.
- ``rollups``: raw change logs → one row per shop customer (and product, and cart) and day. A day never changes unless
  its raw rows do, so a refresh computes one day of rollups and reads the others.
- ``customer_features``: rollups up to a day → one row per person: recency, frequency, value, interval and churn factor,
  favourites, carts, engagement. The definitions are in its docstrings. Shop ids become persons only from here on, so no
  rollup is rewritten when two shop ids turn out to be one person.
- ``interests``: rollups of a year → the categories each person is interested in, with the evidence.
- ``clusters``: features → people who buy alike, under labels that stay; a model that is carried from day to day.
- ``hours``: when people open, click, visit and order → the hour at which each is best written to.
- ``leads``: how far each person is on the way to the first order, and for those without one a score with its reasons.
- ``customer_360``: profile ⟕ features, top interest, cluster and more of the kind: what segments and campaigns read.
- ``assets``: the Dagster face.

All sums are of whole numbers and every choice among equals is settled by the alphabet: a recompute of any past day, in
one pass or day by day, on any number of threads, gives the same bytes.
"""
