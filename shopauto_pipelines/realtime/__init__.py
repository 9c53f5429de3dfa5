"""Real time: what reaches us from outside within seconds, durable before it is answered.

- ``collector``        the web service (``shopauto collect``): what happens in the shop, webhooks, offers, preferences.
- ``batch``            what a shop's events, orders, forms and webhooks are read into.
- ``collected``        batches → ``shopauto.collected``, visitors and exits, in one transaction.
- ``cart_state``       what happens to carts → ``shopauto.carts``, by the events' own times; ``carts``: which are due.
- ``serving``          the lake → ``people``: what answers in milliseconds rest on; ``checks``: nobody active is called lapsed.
- ``lapsed_visitor``   who gets the on-site offer, and why everybody else does not. Pure.
- ``onsite``           ``GET /offer``; ``questions``: what the database says of visitors, many at a time.
- ``landing_pages``    pages with a form as the playbook declares them; ``component`` checks them, the collector serves them.
- ``closed_days``      what a day that is over holds → the lake, for features, planner and reports.
- ``abandoned_carts``  a batch of due carts: profiles, planner, ledger, channel; ``rehearsal`` does beforehand what it can.
- ``sensors``          wait for due carts, and for those whose quiet hours are over; one run at a time. Off until switched on.
- ``assets``           the Dagster face: ``collector/provider_events``, which runs before the raw tables, ``realtime/people`` at
  the refresh's end, and ``realtime/abandoned_carts``, which no refresh makes.

Events repeat and come in any order: what is stored is the same whatever order they came in.
"""
