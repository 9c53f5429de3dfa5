"""What ``load``, ``refresh`` and ``demo`` do: land files, find the days to compute, run the jobs."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from shopauto_pipelines.cli.progress import step_bar
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY
from shopauto_pipelines.platform.clock import SystemClock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.closed_days import land_held_rows
from shopauto_pipelines.sources import landing, staleness
from shopauto_pipelines.sources.mapping import mapping_named, mappings


class RefreshError(ShopAutoError):
    """A refresh cannot start; the text says why and what to do."""


def load(lake: Lake, settings: Settings, source: str, path: Path, console: Console, *, add: bool = False) -> None:
    """Land the files of ``source`` found at ``path`` and print what became of every row."""
    mapping = mapping_named(source)
    others = [m.source for m in landing.manifests(lake) if m.source not in (mapping.name, *landing.HELD_SOURCES)]
    if others and not add:
        raise RefreshError(
            f"this home already holds the shop of source `{others[0]}` ({settings.home}). Two shops do not mix: set "
            f"SHOPAUTO_HOME to another folder, or say --add where `{mapping.name}` belongs to the same shop."
        )
    with step_bar(console, f"load {mapping.name}"):
        report = landing.land(lake, mapping, path, settings, _today(settings))
    shown = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    shown.add_column("table", no_wrap=True)
    for heading in ("read", "loaded", "set aside", "left out", "folded"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("file", overflow="fold")
    for file in report.files:
        numbers = (file.read, file.landed, file.quarantined, file.excluded, file.folded)
        shown.add_row(file.table, *(f"{number:,}" for number in numbers), escape(file.file))
    console.print(shown)
    if report.reasons:
        listed = "\n".join(f"  {count:,} × {reason}" for reason, count in list(report.reasons.items())[:10])
        console.print(f"Set aside, each row with its reason in raw/quarantine:\n{escape(listed)}")


def landed(lake: Lake) -> tuple[date, date]:
    """First and last day of the shop's data; raises :class:`RefreshError` before the first load."""
    span = landing.landed_days(lake)
    if span is None:
        raise RefreshError(
            "nothing has been loaded: run `shopauto load SOURCE PATH`, or `shopauto demo` to see the sample shop"
        )
    return span


def wanted_days(
    lake: Lake, settings: Settings, start: date | None, end: date | None, *, stale: bool, console: Console
) -> tuple[date, date]:
    """The days a refresh is for: as asked, or what is stale, or what is missing since the last refresh.

    Before that it lands what has changed: the shop's files or tables, and what the database holds of the days that are over.
    """
    landing.refresh_landing(lake, list(mappings()), settings, _today(settings), fresh_for=timedelta(0))
    land_held_rows(engine(settings), lake, settings, SystemClock().now())
    first, last = landed(lake)
    if start is None or end is None:
        newest = max((day for day in lake.days(CUSTOMER_360) if day <= last), default=None)
        start, end = (min(newest + timedelta(days=1), last) if newest else last), last
    if start > end:
        raise RefreshError(f"--from {start} is after --to {end}")
    if start < first or end > last:
        raise RefreshError(f"there is data from {first} to {last}; {start if start < first else end} is outside")
    outdated = staleness.stale_days(lake, CUSTOMER_360)
    if stale:
        if not outdated:
            console.print("Nothing is stale.")
            return last, last
        return outdated[0], outdated[-1]
    before = [day for day in outdated if day < start]
    if before:
        console.print(
            f"[yellow]Late rows changed {len(before)} days from {before[0]} on: `shopauto refresh --stale` mends them.[/yellow]"
        )
    return start, end


def refresh(lake: Lake, settings: Settings, start: date, end: date, console: Console) -> None:
    """Write the history that is missing, then compute ``start`` … ``end``, each as one Dagster run."""
    from shopauto_pipelines.cli import runs  # imports Dagster and every room

    first, _ = landed(lake)
    with runs.instance() as instance:
        if first < start:
            written = set(lake.days(DAILY_ACTIVITY))
            missing = [day for day in days_between(first, start - timedelta(days=1)) if day not in written]
            behind = sorted({*missing, *(day for day in staleness.raw_behind(lake) if day < start)})
            if behind:
                runs.run_job(instance, "load_history", behind[0], start - timedelta(days=1), console)
        runs.run_job(instance, "daily_refresh", start, end, console)


def _today(settings: Settings) -> date:
    """The shop's current day: the front may ask the wall clock."""
    now: datetime = SystemClock().now()
    return now.astimezone(settings.zone).date()
