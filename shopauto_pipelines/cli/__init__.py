"""The command line ``shopauto``: load data, refresh days, read the inbox, look after the installation.

A thin front: it reads arguments, shows progress, words errors. What the commands do is in the rooms, and a refresh is a
real Dagster run, seen in the UI like any other.
"""

from __future__ import annotations

import gc

#: New objects before Python looks for garbage. What a run imports and builds lives as long as its process: looking through it as
#: often as by default was a tenth of a small shop's refresh.
_BETWEEN_COLLECTIONS = 50_000


def main() -> None:
    """Entry point of the ``shopauto`` command."""
    gc.set_threshold(_BETWEEN_COLLECTIONS)
    from shopauto_pipelines.cli.app import run

    run()
