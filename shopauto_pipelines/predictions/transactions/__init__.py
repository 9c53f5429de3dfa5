"""Any shop's plain transaction file, CSV or Parquet, → one row per customer and day: what forecasts are made from.

- ``files``: what is read, and how it is written;
- ``names``, ``columns``: which column means what, as told or guessed;
- ``values``: what stands in them: customers, times, amounts;
- ``reading``: rows judged and added up.

DuckDB reads the files in one pass and adds up; only the sums, one row per customer and day, come into memory. A row that
cannot be used is never lost: it is counted under its reason. What forecasts are, is not known here.
"""
