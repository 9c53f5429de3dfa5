"""What a run is about: its days, and whether it is a backfill. Read from the tags that Dagster puts on every run."""

from collections.abc import Mapping
from datetime import date

from shopauto_pipelines.platform.lake import days_between

_PARTITION = "dagster/partition"
_START = "dagster/asset_partition_range_start"
_END = "dagster/asset_partition_range_end"
_BACKFILL = "dagster/backfill"


def run_days(tags: Mapping[str, str]) -> list[date]:
    """The days of a run, in order; raises ``ValueError`` where the run has no partition."""
    start, end = tags.get(_START, tags.get(_PARTITION)), tags.get(_END, tags.get(_PARTITION))
    if start is None or end is None:
        raise ValueError("this run has no partition: choose a day, or a range of days, when you launch it")
    return days_between(date.fromisoformat(start), date.fromisoformat(end))


def range_tags(start: date, end: date) -> dict[str, str]:
    """Tags of one run over a range of days."""
    return {_START: start.isoformat(), _END: end.isoformat()}


def is_backfill(tags: Mapping[str, str]) -> bool:
    """Whether the run was launched by a backfill."""
    return _BACKFILL in tags
