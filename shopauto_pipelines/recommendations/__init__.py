"""Recommendations: what to show to whom, what goes with what, what will be needed again, what is missing. As of a day.

How the day's data walks through the room::

    features/daily_products ─┬─ products ──────┬─ complements ─── customer_complements
    raw/products, stock      │   kept or used  ├─ related_products ─ customer_products ── nothing_unwanted (blocking check)
                             │   up, to be had ├─ next_categories, replenishment
    raw/events (searches) ───┴─────────────────┴─ catalogue_gaps, category_trends

- ``tables``: the tables with columns, units and keys.
- ``declaration``: what a shop may say of its goods, read from the playbook; everything else is found out from the data.
- ``inputs``: the tables that statements have not seen yet, and the expressions several share.
- ``products``: durables and how long they last; ``complements``; ``ranking``: neighbours and the products for each person;
  ``next_categories``; ``replenishment``; ``gaps``; ``trends``.
- ``ownership``: what must not be recommended to whom.
- ``making``: all of it, from tables of the lake or from rows in memory.
- ``report``: what the UI shows. ``assets``, ``checks``, ``component``: the Dagster face.

Each table is one statement, compiled once and run for every day. A day's rows are a function of the raw data up to that day: the
same with any number of threads, since only whole numbers are added up and every order is total.
"""
