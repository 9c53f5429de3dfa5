"""The command line ``shopauto``: load data, refresh days, read the inbox, look after the installation.

A thin front: it reads arguments, shows progress, words errors. What the commands do is in the rooms, and a refresh is a
real Dagster run, seen in the UI like any other.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``shopauto`` command."""
    from shopauto_pipelines.cli.app import run

    run()
