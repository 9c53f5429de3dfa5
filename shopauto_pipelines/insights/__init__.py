"""Insights: what the messages brought about, and how sure that is. Reads what was decided and what followed, acts on nothing.

1. :mod:`.followed` puts together who was assigned to what, from the audiences as they were written before each send, and what
   these people did afterwards;
2. :mod:`.effects` says what the difference is, between which ends it lies, and whether it may be told yet: pure statistics;
3. :mod:`.comparisons` says which groups are compared, and when an experiment is decided;
4. :mod:`.report` shows it: as a table, and as a plot of the intervals.

The table ``insights/campaign_effects`` holds it for each day; ``shopauto readout`` prints it.
"""
