"""Segments: who belongs to which declared group as of a day, since when, and who came and went.

A segment is one YAML file of the playbook, ``defs/segments/<name>/defs.yaml``::

    type: shopauto_pipelines.segments.component.Segment
    attributes:
      name: vip                                  # asset segments/vip, and the name campaigns use
      description: The top 5 % by revenue of a year.
      where: revenue_percentile >= 95            # SQL over the columns of people.py, `as_of` is the day
      each: favourite_category                   # optional: one segment per value, `<name>:<value>`
      owner: team:crm                            # optional: team:<name> or an e-mail address

How the day's data walks through the room:

* ``people``: one row per person, the columns of ``features/customer_360`` and ``predictions/scores`` joined, and the
  computed columns (RFM scores, revenue percentile, days to the birthday);
* ``predicate``: reads the SQL of ``where``, allows only what is known, typed and harmless, and turns it into an Ibis
  expression;
* ``declaration``: the segment as declared, read from the playbook with file and line in every error;
* ``membership``: all segments in one pass over the people, with the day each stay began; and the changes of the day;
  ``members`` finds the rows of a segment, for the rooms that come after;
* ``report``: sizes, moves, previews and the plot;
* ``assets``, ``component``: Dagster's view: two tables for all segments, and one asset per declared segment.

Membership as of a day is a function of that day's people and of the latest earlier day that has been computed, from
which the days of entry are carried over: a day computed again, over the same earlier one, gives the same bytes.
"""
