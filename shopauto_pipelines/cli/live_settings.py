"""``shopauto live-settings``: caps, rates and thresholds that are changed while everything runs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from shopauto_pipelines.cli.options import AsJson, connection_and_settings, me, print_json, small_table
from shopauto_pipelines.platform.settings import PREFIX

console = Console(highlight=False)

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Caps, rates and thresholds, changed while everything runs and on all machines that share the database: whatever "
        "begins after the change obeys it, without a restart. `unset` gives a setting back to the environment.\n\n"
        "Switches are turned by `shopauto outbox pause`, `resume`, `stop` and `start`."
    ),
)

_Name = Annotated[str, typer.Argument(help="Name of the setting, e.g. `cap_messages` or `SHOPAUTO_CAP_MESSAGES`.")]


@app.command("list")
def show(as_json: AsJson = False) -> None:
    """Show every setting that can be changed: the value in force, the environment's, and who changed it, when and why."""
    from shopauto_pipelines.platform import live_settings

    with connection_and_settings() as (connection, settings):
        current = live_settings.current(connection, settings)
        changed = live_settings.changed(connection)
    names = live_settings.names()
    if as_json:
        print_json(
            {
                name: {"value": getattr(current, name), "environment": getattr(settings, name)}
                | ({"why": c.why, "by": c.by, "at": c.at.isoformat()} if (c := changed.get(name)) else {})
                for name in names
            }
        )
        return
    table = small_table(("setting", "in force", "environment"), title="Settings that change while everything runs")
    table.add_column("changed (UTC)", overflow="fold")
    for name in names:
        c = changed.get(name)
        since = f"{c.at:%Y-%m-%d %H:%M} by {c.by}: {c.why or ''}" if c else ""
        cells = name, str(getattr(current, name)), str(getattr(settings, name)), since
        table.add_row(*map(escape, cells), style="bold" if c else None)
    console.print(table)


@app.command("set")
def set_value(
    name: _Name,
    value: Annotated[str, typer.Argument(help="The value, as it would stand in the environment.")],
    why: Annotated[str, typer.Option("--why", help="The cause, for the others: it is shown and kept with the change.")],
) -> None:
    """Change a setting from now on. A value that the environment would not be allowed is refused, with what it must be."""
    if not why.strip():
        raise typer.BadParameter("say why: the others will ask", param_hint="--why")
    _change(name, value.strip(), why)


@app.command()
def unset(
    name: _Name,
    why: Annotated[str, typer.Option("--why", help="The cause, for the others; kept with the change.")] = "",
) -> None:
    """Give a setting back: from now on the environment's value holds again."""
    _change(name, None, why)


@app.command()
def history(
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to show, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the latest changes, the newest first: what was set to which value, by whom, when and why."""
    from shopauto_pipelines.platform import live_settings

    with connection_and_settings() as (connection, _):
        found = live_settings.changes(connection, limit)
    if as_json:
        print_json([c._asdict() | {"at": c.at.isoformat()} for c in found])
        return
    table = small_table(("when (UTC)", "setting", "value"), title="Changes, the newest first")
    for column in ("by", "why"):
        table.add_column(column, overflow="fold")
    for c in found:
        value = "(the environment's)" if c.value is None else c.value
        table.add_row(*map(escape, (f"{c.at:%Y-%m-%d %H:%M}", c.name, value, c.by, c.why or "")))
    console.print(table if found else "Nothing was ever changed.")


def _change(name: str, value: str | None, why: str) -> None:
    from shopauto_pipelines.platform import live_settings
    from shopauto_pipelines.platform.clock import SystemClock

    name = name.lower().replace("-", "_").removeprefix(PREFIX.lower())
    with connection_and_settings() as (connection, settings):
        wanted = live_settings.Change(name, value, why.strip(), me(), SystemClock().now())
        changed = live_settings.change(connection, settings, wanted)
    own = f"{getattr(settings, name, '')}, the environment's"
    if not changed:
        console.print(escape(f"{name} is {value or own} already; nothing was changed."), soft_wrap=True)
    else:
        console.print(escape(f"{name} is {value or own} from now on."), soft_wrap=True)
