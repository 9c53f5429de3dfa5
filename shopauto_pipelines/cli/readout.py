"""``shopauto readout``: what the campaigns brought about, and how sure that is."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from shopauto_pipelines.cli.lakes import existing_lake
from shopauto_pipelines.cli.options import AsJson, day_option, print_json, small_table
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.platform.words import nearest

console = Console(highlight=False)

_COLOURS = {"better": "bold green", "worse": "bold red"}


class ReadoutError(ShopAutoError):
    """There is nothing to read; the text says why and what to do."""


def readout(
    campaign: Annotated[str | None, typer.Argument(help="Of this campaign only. Default: of all.")] = None,
    as_of: Annotated[date | None, day_option("--as-of", "As known on this day. Default: the newest one.")] = None,
    as_json: AsJson = False,
) -> None:
    """What the campaigns brought about: against the people held out, and variant against variant.

    Everybody who was assigned counts, sent to or not, for the same number of days. The interval holds the true lift in 95 % of
    cases, however often you look. `cannot tell yet` means just that; what so many people *can show* is the least rise that
    they would show in four of five cases.
    """
    from shopauto_pipelines.insights import report
    from shopauto_pipelines.insights.tables import CAMPAIGN_EFFECTS

    settings = load_settings()
    if campaign:
        _require_known(campaign)
    lake = existing_lake(settings)
    day = as_of or max(lake.days(CAMPAIGN_EFFECTS), default=None)
    if day is None:
        raise ReadoutError("no effects have been computed yet: run `shopauto refresh`")
    found = lake.con.to_pyarrow(lake.on(CAMPAIGN_EFFECTS, day).order_by(*CAMPAIGN_EFFECTS.key)).to_pylist()
    rows: list[dict[str, Any]] = [row for row in found if campaign in (None, row["campaign"])]
    if as_json:
        print_json([row | {"as_of": day.isoformat()} for row in rows])
        return
    console.print(f"[bold]Effects as of {day}[/bold]")
    if not rows:
        console.print(report.NOTHING, soft_wrap=True)
        return
    told: list[tuple[str, str]] = []
    for row in rows:
        if (row["comparison"], row["variant"]) not in told:
            told.append((row["comparison"], row["variant"]))
    for name in dict.fromkeys(row["campaign"] for row in rows):
        for comparison, variant in told:
            of = [r for r in rows if (r["campaign"], r["comparison"], r["variant"]) == (name, comparison, variant)]
            if of:
                _show(of, settings.currency)


def _show(rows: list[dict[str, Any]], currency: str) -> None:
    """One comparison: its metrics, a line each."""
    from shopauto_pipelines.insights import report

    first = rows[0]
    title = f"{report.heading(first)}: {first['people']:,} people against {first['control_people']:,}"
    table = small_table(("metric",), title=f"{escape(title)}, {first['within_days']} days")
    for name in ("value", "control", "lift", "95 %", "verdict"):
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    notes = []
    for row in rows:
        figures = report.figures(row, currency)
        metric = figures.metric.rpartition(", ")[0]
        shown = f"[{_COLOURS[row['verdict']]}]{row['verdict']}[/]" if row["verdict"] in _COLOURS else row["verdict"]
        table.add_row(metric, figures.value, figures.control_value, figures.lift, figures.interval, shown)
        if row["verdict"] not in _COLOURS:
            least = f"; so many people can show {figures.can_show}" if figures.can_show else ""
            notes.append(f"  {metric}: {row['note']}{least}")
    console.print()
    console.print(table)
    for note in notes:
        console.print(escape(note), soft_wrap=True)
    needed = next((row["people_needed"] for row in rows if row["metric"] == "ordered"), None)
    if needed and first["variant"] == "campaign" and first["verdict"] not in _COLOURS:
        console.print(f"  It takes some {needed:,} people in both groups to see a rise that is worth seeing.")


def _require_known(campaign: str) -> None:
    from shopauto_pipelines.campaigns.declaration import load_campaigns

    names = list(load_campaigns())
    if campaign not in names:
        raise ReadoutError(f"there is no campaign {campaign!r}: {nearest(campaign, names, quote='')}")
