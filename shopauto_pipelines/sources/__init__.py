"""Where data comes in: a shop's files or database tables become canonical raw tables, a partition a day, and nothing is lost.

1. ``mapping`` reads what the playbook declares (``defs/sources/<name>/defs.yaml``): which file or database table feeds which
   canonical table, and the SQL expression behind each column (``expressions``: helpers such as
   ``cents``, and what an expression may not do).
2. ``landing`` decides what has to be landed again, and keeps what is in ``<lake>/landing``; ``reading`` copes with what is in
   a file: ragged rows, broken UTF-8, endless fields; ``database`` reads tables; ``conversion`` makes of either typed rows
   and quarantined rows. `shopauto load` stops here.
3. ``raw`` makes the tables of ``tables`` from what is landed: one row per key, orders of known customers, lines of known
   orders. The rest is in ``raw/quarantine`` with its reason, the value, the file and the row.
4. ``staleness`` tells which days rows that came late have changed.

Raw tables are change logs: a row lies on the day it happened, however late it came. The lineage columns ``source``,
``source_file`` and ``source_row`` lead from any decision back to the line of the file.

``sample`` makes the sample shop in ``data/``. ``assets``, ``checks`` and ``component`` are the face to Dagster.
"""
