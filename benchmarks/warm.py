"""Imports what a command spends the most time importing; :func:`measuring.shopauto_forked` forks its commands from here.

Nothing that is imported reads a setting: the commands have theirs from their own environment.
"""

import ibis.backends.duckdb
import matplotlib.pyplot
import scipy.stats
import sklearn.ensemble
import skops.io

from shopauto_pipelines.platform import quality

with quality._without_spark():
    import great_expectations

__all__ = ["great_expectations", "ibis", "matplotlib", "scipy", "sklearn", "skops"]
