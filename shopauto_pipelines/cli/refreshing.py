"""What ``load``, ``refresh`` and ``demo`` do: land files, find the days to compute, run the jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from shopauto_pipelines.cli.progress import step_bar
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.clock import SystemClock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake, days_between, open_lake
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.closed_days import land_held_rows
from shopauto_pipelines.sources import arrivals, known, landing, staleness
from shopauto_pipelines.sources.mapping import mapping_named, mappings

if TYPE_CHECKING:
    from shopauto_pipelines.orchestration.health import Health


class RefreshError(ShopAutoError):
    """A refresh cannot start; the text says why and what to do."""


def load(
    lake: Lake,
    settings: Settings,
    source: str,
    path: Path,
    console: Console,
    *,
    add: bool = False,
    history: bool = False,
) -> None:
    """Land the files of ``source`` found at ``path`` and print what became of every row.

    ``history``: what is new counts as known all along, see :func:`~shopauto_pipelines.sources.landing.land`.
    """
    mapping = mapping_named(source)
    others = [m.source for m in landing.manifests(lake) if m.source not in (mapping.name, *landing.HELD_SOURCES)]
    if others and not add:
        raise RefreshError(
            f"this home already holds the shop of source `{others[0]}` ({settings.home}). Two shops do not mix: set "
            f"SHOPAUTO_HOME to another folder, or say --add where `{mapping.name}` belongs to the same shop."
        )
    with step_bar(console, f"load {mapping.name}"):
        report = landing.land(lake, mapping, path, settings, today(settings), history=history)
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


def days_over(lake: Lake, settings: Settings) -> tuple[date, date]:
    """First and last day of the shop's data that is over; raises :class:`RefreshError` before the first load."""
    span = landing.days_over(lake, today(settings))
    if span is None and landing.landed_days(lake):
        raise RefreshError("there is data of today only, and today is not over: refresh tomorrow")
    if span is None:
        raise RefreshError(
            "nothing has been loaded: run `shopauto load SOURCE PATH`, or `shopauto demo` to see the sample shop"
        )
    return span


def land_changes(lake: Lake, settings: Settings) -> None:
    """Land what has changed: the shop's files or tables, and what the database holds of the days that are over."""
    landing.refresh_landing(lake, list(mappings()), settings, today(settings), fresh_for=timedelta(0))
    land_held_rows(engine(settings), lake, settings, SystemClock().now())


def wanted_days(
    lake: Lake, settings: Settings, start: date | None, end: date | None, console: Console
) -> tuple[date, date]:
    """The days a refresh is for: as asked, or what is missing since the last refresh."""
    first, last = days_over(lake, settings)
    if start is None or end is None:
        newest = max((day for day in lake.days(CUSTOMER_360) if day <= last), default=None)
        start, end = (max(first, min(newest + timedelta(days=1), last)) if newest else last), last
    _require(start, end, (first, last), settings)
    before = [day for day in staleness.stale_days(lake, CUSTOMER_360) if day < start]
    if before:
        console.print(
            f"[yellow]Late rows changed {len(before)} days from {before[0]} on: `shopauto refresh --stale` mends them.[/yellow]"
        )
    return start, end


def _require(start: date, end: date, there: tuple[date, date], settings: Settings) -> None:
    """Raise :class:`RefreshError` where ``start`` … ``end`` are not among the days that are ``there``."""
    first, last = there
    if start > end:
        raise RefreshError(f"--from {start} is after --to {end}")
    if start < first or end > last:
        outside = start if start < first else end
        why = "is not over" if outside == today(settings) else "is outside"
        raise RefreshError(f"there is data from {first} to {last}; {outside} {why}")


def refresh(
    lake: Lake,
    settings: Settings,
    start: date,
    end: date,
    console: Console,
    *,
    logs: Collection[date] = (),
    models: Sequence[str] = (),
) -> None:
    """Write the history that is missing, then compute ``start`` … ``end``, each as one Dagster run.

    ``logs``: days before them whose logs and rollups are written again, too. ``models``: ids of those to score with instead
    of the ones in force; raises :class:`~shopauto_pipelines.predictions.store.UnknownModel`.
    """
    from shopauto_pipelines.cli import runs  # imports Dagster and every room
    from shopauto_pipelines.predictions.store import ModelStore

    ModelStore(settings.models_path).named(models)
    first, _ = days_over(lake, settings)
    with runs.instance() as instance:
        earlier = _logs_behind(lake, first, start) | {day for day in logs if day < start} if first < start else ()
        if earlier:
            runs.run_job(instance, "load_history", min(earlier), start - timedelta(days=1), console)
        runs.run_job(instance, "daily_refresh", start, end, console, models)


def _logs_behind(lake: Lake, first: date, start: date) -> set[date]:
    """Days from ``first`` on, before ``start``, that lack a raw log or a rollup, or whose logs are behind what is landed."""
    from shopauto_pipelines.cli import runs

    there = lake.days_of_all(runs.logs())
    missing = {day for day in days_between(first, start - timedelta(days=1)) if day not in there}
    return missing | {day for day in staleness.raw_behind(lake) if day < start}


def refresh_then(settings: Settings, start: date, end: date, console: Console, *, models: Sequence[str] = ()) -> None:
    """Compute ``start`` … ``end`` as known on each of the days, in the lake beside that of everyday.

    Days between which nothing came in late are one run; logs and rollups of earlier days are written again before it, where
    late rows changed them. What does not finish is done again by the next call.
    """
    lake = known.opened(settings)
    there = days_over(lake, settings)
    from shopauto_pipelines.cli import runs  # looks up the lake's first day
    from shopauto_pipelines.predictions.store import ModelStore

    _require(start, end, there, settings)
    ModelStore(settings.models_path).named(models)
    if gap := _days_left_out(lake, settings, start):
        newest, begin = gap
        how = (
            f"comes from {newest}, as the days between"
            if newest
            else f"begins anew with {start}, as the days before it"
        )
        console.print(
            f"What carries over from day to day (membership of segments, behaviour clusters, assignments) {how} have not been "
            f"computed as known then. To have it as it was, begin earlier: "
            f"[bold]shopauto --known then refresh --from {begin} --to {end}[/bold]",
            soft_wrap=True,
        )
    with known.alone(lake, settings), runs.instance() as instance:
        for step in arrivals.steps(lake, start, end, *runs.logs()):
            if step.late:
                console.print(_came_in_late(step), soft_wrap=True)
            if step.logs:
                runs.run_job(instance, "load_history", *step.logs, console)
            runs.run_job(instance, "daily_refresh", *step.days, console, models)
    shown = f"{start}" if start == end else f"{start} … {end}"
    console.print(
        f"{shown} as known that day: each from what had been loaded when it was refreshed. Nothing was sent.\n"
        f"Every table as Parquet: {escape(str(lake.root))}\n"
        f"Look with the same commands, e.g. [bold]shopauto --known then segments list --as-of {end}[/bold]",
        soft_wrap=True,
    )


def _days_left_out(lake: Lake, settings: Settings, start: date) -> tuple[date | None, date] | None:
    """Of refreshed days before ``start`` that are not computed as known then: the computed one before them, and the first.

    ``None`` where the day before it that was refreshed is there.
    """
    newest = max((day for day in lake.days(CUSTOMER_360) if day < start), default=None)
    refreshed = open_lake(settings.model_copy(update={"known": "now"})).days(CUSTOMER_360)
    begin = min((day for day in refreshed if (newest or date.min) < day < start), default=None)
    return (newest, begin) if begin else None


def _came_in_late(step: arrivals.Step) -> str:
    days = f"{step.late[0]}" if len(step.late) == 1 else f"{len(step.late)} days, {step.late[0]} … {step.late[-1]}"
    return f"Came in late, and was known with the refresh of {step.days[0]}: rows of {days}."


def health(lake: Lake, settings: Settings) -> Health:
    """What is wrong with the lake's partitions, why, and how to repair it."""
    from shopauto_pipelines.cli import runs
    from shopauto_pipelines.orchestration.health import examine

    with runs.instance() as instance:
        return examine(lake, runs.made_in_order(), runs.failed_runs(instance), today(settings))


def next_command(lake: Lake, settings: Settings) -> str:
    """What to run after a load: the days that rows came in late for, before what is new."""
    computed = lake.days(CUSTOMER_360)
    late = staleness.stale_days(lake, CUSTOMER_360) if computed else []
    there = landing.days_over(lake, today(settings))
    new = not computed or (there is not None and computed[-1] < there[1])
    return " && ".join(
        [*(["shopauto refresh --stale"] if late else []), *(["shopauto refresh"] if new or not late else [])]
    )


def repair(lake: Lake, settings: Settings, console: Console) -> date | None:
    """Compute again what is stale, of an earlier version, or missing on days that were refreshed.

    Days that follow each other are one run. Returns the last of them, the newest refreshed day where only logs were written
    again, and nothing, which it says, where there is nothing to do.
    """
    from shopauto_pipelines.cli import runs
    from shopauto_pipelines.orchestration.health import repair_runs

    newest = max(lake.days(CUSTOMER_360), default=None)
    if newest is None:
        raise RefreshError("no day has been refreshed yet: run `shopauto refresh`")
    days, logs = repair_runs(health(lake, settings), runs.made_in_order())
    if not days and not logs:
        console.print("Nothing is stale.")
        return None
    done = date.min
    for start, end in days:
        refresh(lake, settings, start, end, console, logs=[day for day in logs if done < day])
        done = end
    if logs and logs[-1] > done:
        with runs.instance() as instance:
            runs.run_job(instance, "load_history", next(day for day in logs if day > done), logs[-1], console)
    return done if days else newest


def today(settings: Settings) -> date:
    """The shop's current day: the front may ask the wall clock."""
    now: datetime = SystemClock().now()
    return now.astimezone(settings.zone).date()
