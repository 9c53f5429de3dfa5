"""Options that several commands share."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

#: ``--json``: for scripts.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def day_option(name: str, help: str) -> typer.models.OptionInfo:
    """An option that takes a day."""
    return typer.Option(name, parser=_day, metavar="YYYY-MM-DD", help=help)


def _day(text: str | date) -> date:
    try:
        return text if isinstance(text, date) else date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day; write it like 2026-06-30") from None
