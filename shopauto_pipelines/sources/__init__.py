"""Where data comes in: a shop's files become canonical raw tables, one partition a day, and nothing is lost on the way.

1. ``mapping`` reads what the playbook declares (``defs/sources/<name>/defs.yaml``): which file feeds which table, and the
   SQL expression behind each column (``expressions``: helpers such as ``cents``, and what an expression may not do).
2. ``landing`` converts each file once into typed rows and quarantined rows under ``<lake>/landing``; ``reading`` copes with
   what is in the file: ragged rows, broken UTF-8, endless fields. `shopauto load` stops here.
3. ``raw`` makes the tables of ``tables`` from what is landed: one row per key, orders of known customers, lines of known
   orders. The rest is in ``raw/quarantine`` with its reason, the value, the file and the row.
4. ``staleness`` tells which days rows that came late have changed.

Raw tables are change logs: a row lies on the day it happened, however late it came. The lineage columns ``source``,
``source_file`` and ``source_row`` lead from any decision back to the line of the file.

``sample`` makes the sample shop in ``data/``. ``assets``, ``checks`` and ``component`` are the face to Dagster.
"""
