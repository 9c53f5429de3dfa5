"""Replay: what a campaign would have done over days that are past, without a single message.

1. :mod:`.versions` reads another version of the campaign's declaration, to be replayed beside the one of the playbook;
2. :mod:`.simulation` takes day after day: the planner decides as of each, and what it plans counts as sent in a ledger that is
   only thought of (:mod:`.ledger`), so that later steps follow, caps are reached, and nothing is planned twice;
3. :mod:`.readings` says what came of it: messages, people, refusals, overlaps, costs, segments, and what these people did;
4. :mod:`.report` shows it as a page with plots.

Nothing here reads or writes the outbox's ledger, nor anything in the lake: all of it lies in temporary tables of one connection.
``shopauto replay`` is the front.
"""
