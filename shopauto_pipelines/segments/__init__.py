"""Segments: who belongs to which declared group as of a day, since when, and who came and went.

A segment is one YAML file of the playbook, ``defs/segments/<name>/defs.yaml``::

    type: shopauto_pipelines.segments.component.Segment
    attributes:
      name: vip                                  # asset segments/vip, and the name campaigns use
      description: The top 5 % by revenue of a year.
      where: revenue_percentile >= :top          # SQL over the columns of people.py, `as_of` is the day
      parameters: {top: 95}                      # optional: what `:name` stands for
      include: [active]                          # optional: in any of these segments (then `where` may be left out)
      exclude: [discount_seekers]                # optional: in none of these
      each: favourite_category                   # optional: one segment per value, `<name>:<value>`
      minimum_size: 100                          # optional, without `each`: with fewer members …
      fallback: active                           # … those of the fallback stand in, too
      owner: team:crm                            # optional: team:<name> or an e-mail address

How the day's data walks through the room:

* ``people``: one row per person, the columns of ``features/customer_360`` and ``predictions/scores`` joined, and the
  computed columns (RFM scores, revenue percentile, days to the birthday);
* ``language`` and ``predicate``: the SQL of ``where``, bounded to what is known, typed and harmless, as an Ibis expression;
  its parts (``clauses``), for whoever explains;
* ``events``: what ``did(…)`` may ask, and the counts, one pass over each daily rollup for all questions of the day;
* ``declaration``: the segment as declared, read from the playbook with file, line and column in every error; who refers to
  whom, without circles;
* ``inputs``: what a day's segments are computed from, and no more of it than they ask for;
* ``meaning``: what a segment means whatever its name, so that one with another name is known again;
* ``stays``: what the latest earlier day says of today's segments and people, under other names and ids perhaps;
* ``membership``: all segments in one pass over the people, with the day each stay began; who stands in where a segment is
  too small; and the changes of the day;
  ``members`` finds the rows of a segment, for the rooms that come after;
* ``overlap``: sizes and moves of the day, and how many people every two segments have in common;
* ``why``, ``diff``: why somebody is in a segment, or is not; what a change of the declarations would do;
* ``report``, ``pictures``: what the pages show, read for all segments at once: sizes, members, reasons, plots;
* ``assets``, ``checks``, ``component``: Dagster's view: five tables for all segments, and one asset per declared segment.

Membership as of a day is a function of that day's people and of the latest earlier day that has been computed, from
which the days of entry are carried over: a day computed again, over the same earlier one, gives the same bytes.
"""
