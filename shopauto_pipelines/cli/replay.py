"""``shopauto replay``: what a campaign would have done over past days, without sending anything."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from shopauto_pipelines.cli.lakes import existing_lake
from shopauto_pipelines.cli.options import AsJson, day_option, in_a_folder, print_json, small_table
from shopauto_pipelines.platform.settings import Settings, load_settings
from shopauto_pipelines.platform.words import nearest

if TYPE_CHECKING:
    from shopauto_pipelines.replay.result import Replay

console = Console(highlight=False)

#: Width of the longest bar, and messages of one version only that are listed.
_BAR, _LISTED = 30, 10


class Others(StrEnum):
    """What counts of other campaigns' messages."""

    AS_SENT = "as-sent"
    PLANNED = "planned"


def replay(
    campaign: Annotated[str, typer.Argument(help="Name of a campaign of the playbook, e.g. `win_back`.")],
    start: Annotated[date, day_option("--from", "First day.")],
    end: Annotated[date, day_option("--to", "Last day.")],
    changed: Annotated[
        Path | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="Another version, replayed beside the present one: a whole `defs.yaml`, or only the attributes that change.",
        ),
    ] = None,
    others: Annotated[
        Others,
        typer.Option(
            help="Messages of other campaigns: those that really went out, or the whole playbook replayed by its priorities."
        ),
    ] = Others.AS_SENT,
    within: Annotated[
        int, typer.Option(min=1, max=90, metavar="DAYS", help="So many days after a message, what people did.")
    ] = 14,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out days that have not been computed.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=in_a_folder, help="Write the report as a page with plots.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay past days of a campaign: whom it would have reached, when, and at what cost. Nothing is sent.

    The planner decides as of each day, with the settings of today; what it plans counts as sent from there on, in a ledger that
    is only thought of. What people did afterwards is what happened anyway: a replay shows no effect.
    """
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.cli.progress import step_bar
    from shopauto_pipelines.replay import report
    from shopauto_pipelines.replay.replaying import replay as replayed
    from shopauto_pipelines.replay.versions import ReplayError, changed_version

    campaigns, environment = load_campaigns(), load_settings()
    if campaign not in campaigns:
        raise ReplayError(f"there is no campaign {campaign!r}: {nearest(campaign, campaigns, quote='')}")
    version = changed_version(campaigns[campaign], changed) if changed else None
    lake, settings = existing_lake(environment), _in_force(environment)
    with step_bar(Console(stderr=True), f"replay {campaign}"):
        found = replayed(
            lake,
            settings,
            campaigns,
            campaign,
            start,
            end,
            changed=version,
            others=others.value,
            within_days=within,
            skip_missing=skip_missing,
        )
    if html:
        html.write_text(report.page(found), encoding="utf-8")
    if as_json:
        print_json(found.as_json())
        return
    _show(found)
    if html:
        console.print(f"\nWith plots: [bold]{escape(str(html))}[/bold]", soft_wrap=True)


def _in_force(settings: Settings) -> Settings:
    """The settings with what was changed in the database, where there is one; it is read, nothing more."""
    from shopauto_pipelines.platform import live_settings
    from shopauto_pipelines.platform.postgres import engine

    if settings.postgres_url is None and not (settings.home / "postgres").is_dir():
        return settings
    return live_settings.current(engine(settings), settings)


def _show(found: Replay) -> None:
    from shopauto_pipelines.replay import words

    days = f"{found.days[0]} to {found.days[-1]}, {words.counted(len(found.days), 'day')}"
    console.print(f"[bold]{found.campaign}[/bold]  {escape(found.description)}\nReplayed {days}.", soft_wrap=True)
    for note in words.notes(found):
        console.print(note)
    _show_figures(found)
    _show_periods(found)
    _show_reach(found)
    _show_aftermath(found)
    _show_difference(found)


def _show_figures(found: Replay) -> None:
    from shopauto_pipelines.replay import words

    versions = [outcome.version for outcome in found.outcomes]
    table = small_table(())
    table.add_column("what it would have done", overflow="fold")
    for version in versions:
        table.add_column(version if len(versions) > 1 else "", justify="right", no_wrap=True)
    if len(versions) > 1:
        table.add_column("difference", justify="right", no_wrap=True)
    for figure in words.figures(found):
        label = f"{'  ' * figure.level}{escape(figure.label)}"
        shown = label if figure.level else f"[bold]{label}[/bold]"
        table.add_row(shown, *figure.values, *([figure.more] if len(versions) > 1 else []))
    console.print()
    console.print(table)


def _show_periods(found: Replay) -> None:
    from shopauto_pipelines.replay import words

    periods = words.periods(found)
    most = max((count for period in periods for count in period.messages), default=0)
    table = small_table(("planned on",), title="Messages over time")
    for outcome in found.outcomes:
        table.add_column(outcome.version if found.difference else "messages", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    width = _BAR // len(found.outcomes)
    for period in periods:
        cells = [cell for count in period.messages for cell in (f"{count:,}", _bar(count, most, width))]
        table.add_row(period.label, *cells)
    console.print()
    console.print(table)


def _bar(count: int, most: int, width: int) -> str:
    return "█" * max(round(width * count / most), 1) if count else ""


def _show_reach(found: Replay) -> None:
    from shopauto_pipelines.replay import words

    lines = words.reach(found)
    if not lines:
        return
    table = small_table((), title="Whom it reaches")
    table.add_column("segment, on the day of the message", overflow="fold")
    table.add_column("members", justify="right", no_wrap=True)
    for outcome in found.outcomes:
        table.add_column(outcome.version if found.difference else "reached", justify="right", no_wrap=True)
        table.add_column("share", justify="right", no_wrap=True)
    for name, members, people, shares in lines:
        cells = [cell for n, share in zip(people, shares, strict=True) for cell in (f"{n:,}", f"{share:.1%}")]
        table.add_row(escape(name), f"{members:,}", *cells)
    console.print()
    console.print(table)


def _show_aftermath(found: Replay) -> None:
    from shopauto_pipelines.replay import words

    lines = words.aftermath(found)
    title = f"What people did within {found.within_days} days"
    table = small_table(("version", "after", "who") if found.difference else ("after", "who"), title=title)
    for name in ("count", "ordered", "orders", f"{found.currency} each"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*(line if found.difference else line[1:]))
    console.print()
    if lines:
        console.print(table)
    for note in words.notes_on_aftermath(found):
        console.print(Padding(f"[dim]{escape(note)}[/dim]", (0, 0, 0, 2)))


def _show_difference(found: Replay) -> None:
    from shopauto_pipelines.replay import words

    difference = found.difference
    if difference is None:
        return
    only = ", ".join(f"{count:,} only {version}" for version, count in difference.people_only.items())
    console.print(
        f"\n[bold]Who gets it in one version only[/bold]\n{difference.people_in_both:,} people in both, {only}."
    )
    for version in difference.people_only:
        named, further = difference.only(version, _LISTED)
        for one in named:
            what = f"[bold]{escape(one.customer_id)}[/bold] {one.step}, {one.day}, only {version}"
            console.print(f"  {what}  [dim]otherwise: {escape(words.instead(one.instead))}[/dim]", soft_wrap=True)
        if named and further:
            console.print(f"  … and {words.counted(further, 'more message')} only {version}")
    if difference.named is None:
        console.print(f"  {words.UNNAMED}")
