"""``shopauto preview``: a campaign's messages as a person would get them, and why they would or would not get them."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel

from shopauto_pipelines.cli.lakes import existing_lake, has_lake
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.platform.words import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shopauto_pipelines.campaigns.declaration import Campaign
    from shopauto_pipelines.campaigns.previews import Preview
    from shopauto_pipelines.platform.settings import Settings

console = Console(highlight=False)


class PreviewError(ShopAutoError):
    """There is nothing to show; the text says what there is."""


def preview(
    campaign: Annotated[str, typer.Argument(help="Name of a campaign of the playbook, e.g. `welcome`.")],
    step: Annotated[str | None, typer.Option(metavar="NAME", help="One step. Default: all.")] = None,
    customer: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Whose messages. Default: somebody whom the campaign reached on the newest computed day."
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="TAG", help="Language, e.g. pt-BR. Default: the person's.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the messages in the browser.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write the page. Default: `previews` under the home.")
    ] = None,
) -> None:
    """Show the messages of a campaign as a person would get them, and why they would or would not.

    The person is real where a day has been computed, and an example where none has. Nothing is planned or sent. The messages
    are written as a page, at the width of a phone and of a desktop, light and dark.
    """
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.campaigns.previews import page

    settings = load_settings()
    chosen = load_campaigns().get(campaign)
    if chosen is None:
        raise PreviewError(_unknown("campaign", campaign, load_campaigns()))
    names = [each.name for each in chosen.steps]
    if step is not None and step not in names:
        raise PreviewError(f"{_unknown('step', step, names)}")
    spoken = sorted({tag for each in chosen.steps for tag in each.languages})
    if language is not None and language not in spoken:
        raise PreviewError(f"{campaign} is not written in {language!r}, only in {', '.join(spoken)}")
    about, previews = _previews(chosen, settings, [step] if step else [], customer, language)
    console.print(f"[bold]{campaign}[/bold]  {escape(chosen.description)}\n{escape(about)}", soft_wrap=True)
    for each in previews:
        _show(each)
    folder = out or settings.computed_path / "previews"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{campaign}-preview.html"
    file.write_text(page(chosen, previews, about), encoding="utf-8")
    console.print(f"With its layout, for phone and desktop: [bold]{escape(str(file))}[/bold]", soft_wrap=True)
    if open_page:
        webbrowser.open(file.resolve().as_uri())


def _previews(
    campaign: Campaign, settings: Settings, steps: list[str], customer: str | None, language: str | None
) -> tuple[str, list[Preview]]:
    """Whose messages these are, in words, and the messages."""
    from shopauto_pipelines.campaigns import previews

    lake = existing_lake(settings) if has_lake(settings) else None
    day = previews.newest_day(lake) if lake else None
    if customer and day is None:
        raise PreviewError("no day has been computed yet: run `shopauto refresh` first")
    if lake is not None and day is not None:
        who = previews.person_of(lake, day, customer) if customer else previews.somebody(lake, campaign, day, *steps)
        if who:
            about = f"What customer {who} would get, as of {day}:"
            return about, previews.of_person(lake, settings, campaign, who, day, steps, language)
        if customer:
            raise PreviewError(f"nobody is known by the id {customer!r} as of {day}")
    found = previews.examples(campaign, settings, [language or campaign.steps[0].languages[0]])
    why = f"Nobody is known as of {day}" if day else "No day has been computed yet"
    about = f"{why}: this is what an example person would get."
    return about, [each for each in found if not steps or each.step.split(" (")[0] in steps]


def _show(preview: Preview) -> None:
    message = preview.rendered
    marks = {"planned": "[green]planned[/green]", "refused": "[yellow]not sent[/yellow]", None: "[dim]not due[/dim]"}
    title = f"[bold]{escape(preview.step)}[/bold] ({preview.language})  {escape(message.subject)}"
    console.print()
    console.print(title, soft_wrap=True)
    if preview.why:
        reason = f" [bold]{preview.reason}[/bold]" if preview.decision else ""
        console.print(Padding(f"{marks[preview.decision]}{reason}  {escape(preview.why)}".strip(), (0, 0, 0, 2)))
    console.print(Panel(escape(message.text.rstrip()), width=min(console.width, 88)))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    hint = nearest(name, known, quote="'")
    return f"there is no {what} {name!r}: {hint}"
