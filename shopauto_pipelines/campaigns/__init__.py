"""Campaigns: who is to get which message on which day, and why everybody else is not. Deciding only; the outbox sends.

A campaign is declared in the playbook, ``defs/campaigns/<name>/``:

- ``defs.yaml``: trigger, audience, steps, exit rules, holdout, priority (:mod:`.declaration` reads and checks it);
- ``<template>.mjml.j2`` and ``<template>.txt.j2``: each message's e-mail and its text part (:mod:`.content` renders them);
- ``texts/<language>.yaml``: the words of each step, one file per language.

Each becomes one table, ``campaigns/<name>/audience``, one row per step, person and occasion that is due as of the day:

1. :mod:`.triggers` says who was triggered when, as of a day;
2. :mod:`.audience` reads what the planner needs from the lake; what all campaigns of a day need is :mod:`.shared`;
3. :mod:`.planner` decides: one pure function, the same for the daily batch, for real time and for a replay. The
   first rule that refuses a row gives its reason. :mod:`.holdout` says who gets nothing so that the effect can be measured.

A journey keeps no state: the step that is due follows from the day of the trigger and from what was sent before. So the
audience of any past day can be computed again, and computing it never sends.

A campaign about carts is decided within seconds, and by the hour: :mod:`.live` runs the same planner on carts that were left
just now (:mod:`.pauses` finds those of a past day). Its table tells each day as history has it, and nothing is sent from there.

:mod:`.offers` says which incentive comes with a step; :mod:`.daily_offers` makes the same decisions for a whole audience, and
:mod:`.grants` gives them codes. :mod:`.shown` is what a message shows beside its words: products, a cart, an offer.
:mod:`.scaffold` writes a campaign to start from.

Campaigns of one day share the frequency cap, so they are planned in the order of their priority: each reads the audiences
of those before it.
"""
