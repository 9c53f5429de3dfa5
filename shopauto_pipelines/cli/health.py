"""``shopauto health``: what of the lake is missing or stale, why, and the command that repairs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from shopauto_pipelines.cli.lakes import existing_lake
from shopauto_pipelines.cli.options import AsJson
from shopauto_pipelines.platform.settings import load_settings

if TYPE_CHECKING:
    from shopauto_pipelines.orchestration.health import Finding

console = Console(highlight=False)

#: Tables and ranges of days that are named; ``--json`` has them all.
_MOST_TABLES, _MOST_RANGES = 6, 3


def health(as_json: AsJson = False) -> None:
    """Say which days of which tables are missing or stale, why, and what repairs them. Exit code 1 where something is wrong.

    Looks at every partition of the lake and at the runs that failed; changes nothing. `shopauto refresh --stale` repairs all
    that is missing, stale or of an earlier version on the days that have been refreshed.
    """
    from shopauto_pipelines.cli import refreshing
    from shopauto_pipelines.orchestration.health import as_json as written

    settings = load_settings()
    found = refreshing.health(existing_lake(settings), settings)
    if as_json:
        print(written(found))
    else:
        for finding in found.findings:
            _show(finding)
        if not found.problems:
            console.print(f"[green]✓[/green] {found.partitions:,} partitions, none is missing or stale")
    if found.problems:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    """One reason, the tables it holds for, and the command."""
    from shopauto_pipelines.orchestration.health import EVERY_TABLE, ranges

    spans = [str(a) if a == b else f"{a} … {b}" for a, b in finding.span]
    more = f" and {len(spans) - _MOST_RANGES} more ranges" if len(spans) > _MOST_RANGES else ""
    mark = "[red]✗[/red]" if finding.is_problem else "[yellow]•[/yellow]"
    when = ", ".join(spans[:_MOST_RANGES]) + more
    console.print(f"{mark} [bold]{finding.kind}[/bold]  {when}: {escape(finding.why)}", soft_wrap=True)
    tables = [(name, days) for name, days in finding.days.items() if name != EVERY_TABLE]
    for name, days in tables[:_MOST_TABLES]:
        first, last = ranges(days)[0][0], ranges(days)[-1][1]
        shown = f"{len(days):,} days, {first} … {last}" if len(days) > 1 else f"{first}"
        console.print(f"    [dim]{escape(name)}  {shown}[/dim]", soft_wrap=True)
    if len(tables) > _MOST_TABLES:
        console.print(f"    [dim]and {len(tables) - _MOST_TABLES} more tables[/dim]")
    console.print(f"    → {escape(finding.repair)}", soft_wrap=True)
