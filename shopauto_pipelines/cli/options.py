"""What several commands share: options, who is asking, the database, and how answers look."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from shopauto_pipelines.platform.settings import Settings, load_settings

if TYPE_CHECKING:
    import sqlalchemy as sa

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


def in_a_folder(file: Path | None) -> Path | None:
    """The file to write, whose folder is there: a folder that is misspelt is told before the work begins."""
    if file is not None and not file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.parent}")
    if file is not None and file.is_dir():
        raise typer.BadParameter(f"{file} is a folder: name a file in it")
    return file


def me() -> str:
    """Who is at the keyboard."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "command line"


def print_json(value: Any) -> None:
    """Print for scripts."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def small_table(names: tuple[str, ...], title: str | None = None) -> RichTable:
    """A table that stays readable in a narrow window: ``names`` are columns that are never cut or folded."""
    table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.title, table.title_justify = title and f"[bold]{title}[/bold]", "left"
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


@contextmanager
def connection_and_settings() -> Iterator[tuple[sa.Connection, Settings]]:
    """A transaction and the settings; what is done is committed at the end."""
    from shopauto_pipelines.platform.postgres import engine

    settings = load_settings()
    with engine(settings).begin() as connection:
        yield connection, settings
