"""The commands of ``shopauto``. Modules that take long to import are imported where they are used: ``--help`` is instant."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from shopauto_pipelines import __version__
from shopauto_pipelines.cli import (
    explain,
    health,
    live_settings,
    outbox,
    predict,
    preview,
    readout,
    reference,
    replay,
    segments,
)
from shopauto_pipelines.cli.options import day_option
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import (
    CHANGEABLE,
    PREFIX,
    PROJECT_ROOT,
    Settings,
    SettingsError,
    load_settings,
)

if TYPE_CHECKING:
    from shopauto_pipelines.platform.lake import Lake

console = Console(highlight=False)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Marketing automation for online shops: raw shop data → customers → features → predictions → segments → "
        "campaigns → messages, as Dagster assets.\n\n"
        "First steps: `shopauto demo` shows everything on the sample shop; `shopauto load NAME PATH` and "
        "`shopauto refresh` do the same with your own files. Nothing leaves this machine until SHOPAUTO_LIVE=true."
    ),
)


#: Commands that are about what is sent, what is loaded, or how the lake of everyday stands.
_NOT_THEN = ("demo", "load", "outbox", "live-settings", "health", "inbox", "collect", "doctor", "migrate")

#: What the machine does not allow: a full disk, a folder that is none, missing rights. Other errors of files are bugs.
_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}

#: Commands that look at days as known then.
_LOOK = ("segments", "explain", "preview", "replay", "readout")


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"shopauto {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    known: Annotated[
        str | None,
        typer.Option(
            metavar="now|then",
            help="Past days as known now, or as known then: from what had been loaded when each was refreshed. Unset: "
            "SHOPAUTO_KNOWN, else now.",
        ),
    ] = None,
) -> None:
    """Say which of the two lakes a command is about."""
    if known not in (None, "now", "then"):
        raise typer.BadParameter(f"{known!r} is neither now nor then", param_hint="--known")
    if known:
        os.environ[f"{PREFIX}KNOWN"] = known
    with suppress(SettingsError):  # the command will tell
        settings = load_settings()
        if settings.known == "then" and context.invoked_subcommand in _NOT_THEN:
            raise typer.BadParameter(
                f"`shopauto {context.invoked_subcommand}` is not about days as known then: leave --known then "
                f"and {PREFIX}KNOWN out"
            )
        if settings.known == "then" and context.invoked_subcommand in _LOOK:
            from shopauto_pipelines.sources.known import told

            Console(stderr=True, highlight=False).print(f"[cyan]{escape(told(settings))}[/cyan]", soft_wrap=True)


app.add_typer(outbox.app, name="outbox")
app.add_typer(live_settings.app, name="live-settings")
app.add_typer(segments.app, name="segments")


@app.command()
def demo() -> None:
    """Load the sample shop, refresh its last week, deliver to the local inbox, and say what was done.

    Running it again changes nothing and sends nothing twice.
    """
    from shopauto_pipelines.cli import refreshing, summary

    settings = load_settings()
    lake = _lake(settings)
    console.rule("[bold]1/3  Load the sample shop")
    refreshing.load(lake, settings, "sample", PROJECT_ROOT / "data", console)
    last = refreshing.days_over(lake, settings)[1]
    console.rule("[bold]2/3  Refresh its last week")
    refreshing.refresh(lake, settings, last - timedelta(days=6), last, console)
    console.rule("[bold]3/3  What was done")
    summary.show(lake, settings, last, console)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write the CSV files to; made where it is missing.")],
    customers: Annotated[int, typer.Option(min=1, help="How many customers.")] = 3000,
    months: Annotated[int, typer.Option(min=2, help="How many months of history.")] = 18,
    end: Annotated[date, day_option("--end", "Last day.")] = date(2026, 6, 30),
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = 7,
) -> None:
    """Write a made-up shop as CSV files: customers with real habits, orders, visits, carts, refunds, past messages.

    What is true of each customer (rhythm, drop-out, orders to come) goes to `truth/`, apart from what a shop would know.
    """
    from shopauto_pipelines.cli.progress import step_bar
    from shopauto_pipelines.platform.progress import report
    from shopauto_pipelines.sources.sample import generate

    with step_bar(console, f"sample shop of {customers:,} customers"):
        made = generate(folder, customers=customers, months=months, end=end, seed=seed, progress=report)
    table = RichTable("file", title=f"Written to {escape(str(folder))}", title_justify="left")
    table.add_column("rows", justify="right")
    for name, rows in made.rows.items():
        table.add_row(name, f"{rows:,}")
    console.print(table)
    console.print(f"Next: [bold]shopauto load sample {escape(str(folder))}[/bold]", soft_wrap=True)


@app.command()
def load(
    source: Annotated[str, typer.Argument(help="Name of a source of the playbook (`defs/sources`), e.g. `sample`.")],
    path: Annotated[Path, typer.Argument(help="The file, the folder of the files, or `env:NAME` of a database's URL.")],
    add: Annotated[bool, typer.Option("--add", help="Add to a shop that already has another source.")] = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="What is new was known all along: `--known then` sees it on days that were refreshed before this load, too.",
        ),
    ] = False,
) -> None:
    """Take a source's files into the lake. Rows that cannot be read are set aside with their reason, never lost.

    `shopauto load online-retail PATH` reads Online Retail II; a source of your own is a YAML file that says which column
    means what (docs/sources.md).
    """
    from shopauto_pipelines.cli import refreshing

    settings = load_settings()
    lake = _lake(settings)
    refreshing.load(lake, settings, source, path, console, add=add, history=history)
    console.print(f"Next: [bold]{refreshing.next_command(lake, settings)}[/bold]")


@app.command()
def refresh(
    day: Annotated[date | None, day_option("--day", "The day to refresh.")] = None,
    start: Annotated[date | None, day_option("--from", "First day of a range.")] = None,
    end: Annotated[date | None, day_option("--to", "Last day of a range.")] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Refresh every day that is stale; `shopauto health` says which and why.")
    ] = False,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="ID",
            help="Score with this model instead of the one in force; once for churn, once for orders.",
        ),
    ] = None,
) -> None:
    """Compute a day, or a range of days in one run: profiles, features, predictions, segments, audiences, messages.

    Without a day: what is missing since the last refresh, up to the newest day with data that is over. Messages are sent for
    the newest day only; older days are computed and never sent. Running it again changes nothing and sends nothing twice.

    `shopauto --known then refresh --from … --to …` computes days from what had been loaded when they were refreshed, beside
    the lake of everyday, and sends nothing.
    """
    from shopauto_pipelines.cli import refreshing, summary

    if (day and (start or end)) or (stale and (day or start or end)):
        raise typer.BadParameter("give --day, or --from and --to, or --stale, or nothing")
    if stale and models:
        raise typer.BadParameter(
            "--stale repairs with the models in force: give --model with --day, or --from and --to"
        )
    if bool(start) != bool(end):
        raise typer.BadParameter("a range needs both --from and --to")
    settings = load_settings()
    if settings.known == "then":
        if not (day or start):
            raise typer.BadParameter("as known then: say which days, with --day, or --from and --to")
        refreshing.refresh_then(settings, day or start, day or end, console, models=models or ())  # type: ignore[arg-type]
        return
    lake = _lake(settings)
    refreshing.land_changes(lake, settings)
    if stale:
        mended = refreshing.repair(lake, settings, console)
        if mended is None:
            return
        last = mended
    else:
        first, last = refreshing.wanted_days(lake, settings, day or start, day or end, console)
        refreshing.refresh(lake, settings, first, last, console, models=models or ())
    summary.show(lake, settings, last, console)


app.command()(predict.predict)
app.command()(explain.explain)
app.command()(readout.readout)
app.command()(replay.replay)
app.command()(preview.preview)
app.command()(reference.reference)
app.command()(health.health)


@app.command()
def inbox(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 8025,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Serve the local inbox: every message, and why each person was chosen. Stop with Ctrl+C."""
    import uvicorn

    from shopauto_pipelines.outbox.inbox_page import app as inbox_app

    settings = load_settings()
    console.print(f"Local inbox: [bold]http://{host}:{port}[/bold]  (Ctrl+C stops)")
    uvicorn.run(inbox_app(settings), host=host, port=port, log_level="warning")


@app.command()
def collect(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 8026,
    host: Annotated[
        str, typer.Option(help="Address to serve on; 0.0.0.0 for all, behind your reverse proxy.")
    ] = "127.0.0.1",
) -> None:
    """Serve the collector: what happens in the shop, webhooks, offers, unsubscribe links, preferences. Stop with Ctrl+C.

    `/docs` describes every address; `/demo` is a page to try it with, while live is off. SHOPAUTO_BASE_URL is where the
    outside world reaches it. What has no key in the settings is not taken (docs/collector.md).
    """
    import gc
    import logging

    import uvicorn

    from shopauto_pipelines.outbox.preference_page import topics
    from shopauto_pipelines.platform.postgres import engine
    from shopauto_pipelines.realtime.collector.service import app as collector_app

    settings = load_settings()
    collector = collector_app(settings)
    engine(settings)  # a wrong database, or a wrong playbook, is told at the start
    topics()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("shopauto_pipelines").setLevel(logging.INFO)
    console.print(f"Collector: [bold]http://{host}:{port}[/bold]  (Ctrl+C stops)")
    console.print(f"What it takes: http://{host}:{port}/docs")
    missing = {
        "the shop's servers": settings.collector_key or not settings.live,
        "logins from browsers": settings.identity_secret or not settings.live,
        "SendGrid": settings.sendgrid_webhook_key,
        "Shopify": settings.shopify_webhook_secret,
        "WooCommerce": settings.woocommerce_webhook_secret,
        "Twilio": settings.twilio_auth_token,
    }
    if unheard := [name for name, there in missing.items() if not there]:
        console.print(f"No key is set for: {', '.join(unheard)}.", soft_wrap=True)
    gc.collect()
    gc.freeze()  # all that is imported stays: to look through it again would hold answers up by a tenth of a second
    # no access log: the links name people
    uvicorn.run(collector, host=host, port=port, log_level="warning", access_log=False, server_header=False)


@app.command()
def doctor() -> None:
    """Look the installation over: settings, playbook, database, lake, stale days, messages. Exit code 1 on a problem."""
    from shopauto_pipelines.cli.doctor import examine

    problems = 0
    for finding in examine():
        mark = {"ok": "[green]✓[/green]", "note": "[yellow]•[/yellow]", "problem": "[red]✗[/red]"}[finding.level]
        console.print(f"{mark} [bold]{finding.subject}[/bold]  {escape(finding.text)}", soft_wrap=True)
        if finding.remedy:
            console.print(f"    → {escape(finding.remedy)}", soft_wrap=True)
        problems += finding.level == "problem"
    if problems:
        raise typer.Exit(1)


@app.command()
def migrate() -> None:
    """Bring the tables in the shop's own PostgreSQL to this version. The embedded database does this by itself."""
    import sqlalchemy as sa

    from shopauto_pipelines.platform import postgres

    postgres.migrate(sa.create_engine(postgres.postgres_url(load_settings())))
    console.print("The database is up to date.")


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference page, docs/settings.md.")] = False,
) -> None:
    """Show every setting with its value when a process starts now. Secrets are masked.

    `shopauto live-settings list` shows what was changed since, while everything runs.
    """
    if markdown:
        print(settings_page(), end="")
        return
    values = load_settings()
    table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=30)
    table.add_column("what it does", overflow="fold")
    for name, field in Settings.model_fields.items():
        value = getattr(values, name)
        changed = value != field.get_default()
        shown = "" if value is None else escape(str(value))
        table.add_row(f"{PREFIX}{name.upper()}", f"[bold]{shown}[/bold]" if changed else shown, field.description)
    console.print(table)


def settings_page() -> str:
    """The reference of all settings in Markdown."""
    lines = [
        "# Settings",
        "",
        "Read from the environment and from `.env` beside `workspace.yaml`; the environment wins. `shopauto settings` shows",
        "them. This page is written by `shopauto settings --markdown`.",
        "",
        "Those marked • can be changed while everything runs, for all machines that share the database: `shopauto live-settings",
        'set cap_messages 2 --why "sale week"` holds for whatever begins afterwards, until `unset`; `list` shows them,',
        "`history` who changed what.",
        "",
        "| variable | default | | what it does |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = "" if default is None else f"`{str(default).replace(str(PROJECT_ROOT) + os.sep, '')}`"
        mark = "•" if field.json_schema_extra == CHANGEABLE else ""
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {mark} | {field.description} |")
    return "\n".join(lines) + "\n"


def run() -> None:
    """Run the command line; expected errors become one message and exit code 1, wrong arguments exit code 2."""
    warnings.filterwarnings("ignore", module=r"(ibis|dagster|pandas|skops)")
    try:
        app(prog_name="shopauto")
    except ShopAutoError as error:
        told = str(error)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        told = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    else:
        return
    Console(stderr=True, highlight=False).print(f"[red]Error:[/red] {escape(told)}", soft_wrap=True)
    sys.exit(1)


def _lake(settings: Settings) -> Lake:
    from shopauto_pipelines.platform.lake import open_lake

    return open_lake(settings)
