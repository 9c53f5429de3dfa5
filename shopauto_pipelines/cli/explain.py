"""``shopauto explain``: why a person got a message or did not, step by step, down to the rows of the shop's files."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from shopauto_pipelines.cli.lakes import existing_lake
from shopauto_pipelines.cli.options import AsJson, connection_and_settings, day_option, in_a_folder, print_json
from shopauto_pipelines.platform.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopauto_pipelines.explain.telling import Explanation, Mark, Overview, Part, Row, Standing, Step

console = Console(highlight=False)

_COLOURS: dict[Mark, str] = {"yes": "green", "no": "red", "unknown": "yellow", "fact": "dim"}

#: Rows of a table that the terminal shows; the page has all.
_ROWS = 3


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MESSAGE|CUSTOMER",
            help="A message: its number in the ledger, or its name `campaign:step:customer:occasion`. Or a person: our id, "
            "or one of the shop's own.",
        ),
    ],
    campaign: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which campaign, of a person. Default: all, a line each.")
    ] = None,
    day: Annotated[date | None, day_option("--day", "As of this day. Default: the message's, or the newest.")] = None,
    step: Annotated[str | None, typer.Option(metavar="NAME", help="One step of the campaign. Default: all.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=in_a_folder, help="Also write it as a page, with all rows.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a person got a message or did not: every rule in the planner's order, with the values it rests on.

    Each is shown with ✓ (it holds), ✗ or ? (not known), and the rows it rests on with their file and number. All of it is as of
    the day; what became of the message, and what the outbox would say, is as of now. Nothing private is shown.
    """
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.explain import page, subjects
    from shopauto_pipelines.explain.explanation import Explainer, NothingThere
    from shopauto_pipelines.explain.telling import as_json as plain
    from shopauto_pipelines.platform.clock import SystemClock

    campaigns = load_campaigns()
    lake = existing_lake(load_settings())
    with connection_and_settings() as (connection, settings):
        subject = subjects.find(connection, lake, campaigns, what, campaign, day, step)
        explainer = Explainer(lake, settings, campaigns, subject.day, connection, clock=SystemClock())
        told = explainer.explain([subject.asked]) if subject.asked else []
        overview = None if subject.asked else explainer.overview(subject.customer_id)
    if overview is None and not told:
        raise NothingThere(f"nothing is known of {subject.customer_id!r} as of {subject.day}")
    if html:
        title = "Why they got it, or did not" if overview is None else f"{subject.customer_id} and all campaigns"
        about = f"{subject.aside} " if subject.aside else ""
        about += f"As of {subject.day}; what became of messages is as of now. Nothing private is shown."
        text = page.overview_page(overview, title, about) if overview else page.page(told, title, about)
        html.write_text(text, encoding="utf-8")
    if as_json:
        print_json(
            plain(overview) if overview else {"as_of": subject.day.isoformat(), "explanations": [*map(plain, told)]}
        )
        return
    if subject.aside:
        console.print(f"[yellow]{escape(subject.aside)}[/yellow]", soft_wrap=True)
    if overview:
        _show_overview(overview)
    above: list[Step] = []
    for each in told:
        _show(each, above)
        above += each.steps
    if html:
        console.print(f"\nAs a page: [bold]{escape(str(html))}[/bold]", soft_wrap=True)


def _show_overview(told: Overview) -> None:
    console.print(f"[bold]{escape(told.customer_id)}[/bold] as of {told.as_of}")
    for heading, standings in (("Due that day", told.reached), ("Not due", told.others)):
        if standings:
            console.print(f"\n{heading}")
        for each in standings:
            _indented(_standing(each), 2)
    first = next((each.campaign for each in (*told.reached, *told.others)), "NAME")
    day = f" --day {told.as_of}"
    console.print(
        f"\nMore: [bold]shopauto explain {escape(told.customer_id)} --campaign {first}{day}[/bold]", soft_wrap=True
    )


def _standing(each: Standing) -> str:
    name = f"[bold]{each.campaign}[/bold]" + (f" {each.step}" if each.step else "")
    reason = f" [dim]({each.reason})[/dim]" if each.reason not in (None, "due") else ""
    return f"{_mark(each.mark)} {name}  {escape(each.text)}{reason}"


def _show(told: Explanation, above: Sequence[Step]) -> None:
    """An explanation; steps that say the same as one ``above`` are not said again."""
    occasion = f"  [dim]{escape(told.occasion)}[/dim]" if told.occasion else ""
    name = f"[bold]{escape(told.customer_id)}[/bold]  {told.campaign} / {told.step}{occasion}"
    console.print(f"\n{name}  as of {told.as_of}")
    console.print(f"{_mark(told.mark)} [bold]{escape(told.headline)}[/bold]")
    for step in told.steps:
        if step in above and (step.parts or step.rows):
            _indented(f"{_mark(step.mark)} [bold]{step.title}[/bold]  [dim]as above[/dim]", 0)
        else:
            _show_step(step, told.customer_id)


def _show_step(step: Step, who: str) -> None:
    ended = "  [bold red]← decided here[/bold red]" if step.decided and step.mark == "no" else ""
    ended = ended if step.asked else "  [dim](not asked)[/dim]"
    _indented(f"{_mark(step.mark)} [bold]{step.title}[/bold]  {escape(step.text)}{ended}", 0)
    _show_rows(step.rows, who, 2)
    for part in step.parts:
        for depth, line in part.lines(1):
            _show_part(line, 2 * depth, who)


def _show_part(part: Part, indent: int, who: str) -> None:
    aside = f"  [dim]{escape(part.aside)}[/dim]" if part.aside else ""
    _indented(f"{_mark(part.mark)} {escape(part.text)}{aside}", indent)
    _show_rows(part.rows, who, indent + 2)


def _show_rows(rows: Sequence[Row], who: str, indent: int) -> None:
    from shopauto_pipelines.explain.telling import counted

    for row in rows[:_ROWS]:
        said = {name: value for name, value in row.values.items() if value != who}
        words = escape(type(row)(**{**vars(row), "values": said}).words)
        _indented(f"[cyan]{escape(row.place)}[/cyan]  [dim]{words}[/dim]", indent)
    if len(rows) > _ROWS:
        _indented(f"[dim]… and {counted(len(rows) - _ROWS, 'more row')}: --html or --json[/dim]", indent)


def _mark(mark: Mark) -> str:
    from shopauto_pipelines.explain.telling import MARKS

    return f"[{_COLOURS[mark]}]{MARKS[mark]}[/]"


def _indented(text: str, spaces: int) -> None:
    console.print(Padding(text, (0, 0, 0, spaces), expand=False))
