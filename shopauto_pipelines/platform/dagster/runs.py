"""What a run is about: its days, and why it may not send. Read from the tags that Dagster puts on every run."""

import os
import socket
from collections.abc import Mapping
from datetime import date

import dagster as dg

from shopauto_pipelines.platform.lake import days_between
from shopauto_pipelines.platform.processes import born

#: Of a run in the process of a command line: its host, process id, and when it was born.
COMMAND_LINE_TAG = "shopauto/process"

_PARTITION = "dagster/partition"
_START = "dagster/asset_partition_range_start"
_END = "dagster/asset_partition_range_end"

#: Of a run that a backfill launched.
_BACKFILL = frozenset({"dagster/backfill", "dagster/parent_backfill_id", "dagster/root_backfill_id"})

#: Of a run that an automation condition of an asset launched.
_AUTOMATION = frozenset(
    {"dagster/from_automation_condition", "dagster/auto_materialize", "dagster/asset_evaluation_id"}
)

#: Of a run that repeats another one: that one's id, and the id of the first of them.
_REPEATS = ("dagster/parent_run_id", "dagster/root_run_id")


def this_process() -> str:
    """What :data:`COMMAND_LINE_TAG` says of a run in this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{born(os.getpid())}"


def command_line(tags: Mapping[str, str]) -> str | None:
    """Host and process of the command line that a run is of; ``None`` for one that repeats it, whose tags it has, too."""
    return None if any(name in tags for name in _REPEATS) else tags.get(COMMAND_LINE_TAG)


def run_days(tags: Mapping[str, str]) -> list[date]:
    """The days of a run, in order; raises ``ValueError`` where the run has no partition, or a partition and a range."""
    partition, start, end = tags.get(_PARTITION), tags.get(_START), tags.get(_END)
    if partition is not None:
        if start is not None or end is not None:
            raise ValueError("this run has a partition and a range of days: launch it with one of them")
        start = end = partition
    if start is None or end is None:
        raise ValueError("this run has no partition: choose a day, or a range of days, when you launch it")
    return days_between(date.fromisoformat(start), date.fromisoformat(end))


def range_tags(start: date, end: date) -> dict[str, str]:
    """Tags of one run over a range of days."""
    return {_START: start.isoformat(), _END: end.isoformat()}


def barred(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str | None:
    """Why a run may not send, whatever its days; ``None`` where it may.

    Backfills and automation conditions never send, nor does what repeats a run of theirs: Dagster takes the tag of a backfill
    off a run that is repeated once the backfill is over.
    """
    seen: set[str] = set()
    ahead = [(run.run_id, run.tags)]
    while ahead:
        run_id, tags = ahead.pop()
        seen.add(run_id)
        again = "" if run_id == run.run_id else ", and this run repeats one of its runs: launch the day on its own"
        if not _BACKFILL.isdisjoint(tags):
            return f"a backfill never sends{again}"
        if not _AUTOMATION.isdisjoint(tags):
            return f"an automation condition never sends{again}"
        for parent in {tags[name] for name in _REPEATS if name in tags} - seen:
            repeated = instance.get_run_by_id(parent)
            if repeated is None:
                return f"this run repeats run {parent}, of which nothing is known any more: launch the day on its own"
            ahead.append((parent, repeated.tags))
    return None
