"""``shopauto outbox``: what an operator does with messages under way: look, stop, go on, settle what is unclear, suppress."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from shopauto_pipelines.cli.options import (
    AsJson,
    connection_and_settings,
    day_option,
    in_a_folder,
    me,
    print_json,
    small_table,
)
from shopauto_pipelines.platform.errors import ShopAutoError

if TYPE_CHECKING:
    from shopauto_pipelines.outbox.controls import Control

console = Console(highlight=False)

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Messages under way: see where they are, stop and go on, settle what is unclear, suppress addresses.\n\n"
        "`pause CAMPAIGN` and `stop` act at once, in every process and on every machine: only what is being handed over to "
        "the provider at that moment still leaves. `resume` and `start` let the next refresh go on with exactly the people "
        "who are left."
    ),
)
suppressions = typer.Typer(
    no_args_is_help=True,
    help=(
        "Addresses that get nothing, whatever a campaign says. Lists are CSV files; addresses are kept as keyed hashes "
        "only, so a list outlives the erasure of a person and a new import of the same shop."
    ),
)
app.add_typer(suppressions, name="suppress")


class Ending(StrEnum):
    """What an unclear message turned out to be."""

    SENT = "sent"
    FAILED = "failed"


class Reason(StrEnum):
    """Why the addresses of a list get nothing."""

    UNSUBSCRIBE = "unsubscribe"
    BOUNCE = "bounce"
    SPAM_REPORT = "spam_report"
    IMPORT = "import"


_Campaign = Annotated[str, typer.Argument(help="Name of a campaign of the playbook.")]
_Why = Annotated[str, typer.Option("--why", help="The cause, for the others: it is shown and kept with the switch.")]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the newest day of every campaign: how many messages are where, and what is paused.

    `unknown` messages may or may not have left: they are never sent again by themselves (`shopauto outbox unknown`).
    """
    from shopauto_pipelines.outbox import controls, ledger
    from shopauto_pipelines.outbox.schema import EVERYTHING, STATES

    with connection_and_settings() as (connection, _):
        switches = {switch.scope: switch for switch in controls.controls(connection) if switch.paused}
        unclear = ledger.unknown_counts(connection)
        rows = []
        for name in sorted({*_campaigns(), *(campaign for campaign, _ in unclear)}):
            day = ledger.newest_day(connection, name)
            states: Counter[str] = Counter()
            for (state, _reason), count in ledger.counts(connection, name, day).items() if day else ():
                states[state] += count
            rows.append((name, day, states))
    stopped = switches.pop(EVERYTHING, None)
    if as_json:
        print_json(
            {
                "stopped": stopped and stopped.why,
                "unknown": sum(unclear.values()),
                "campaigns": [
                    {
                        "campaign": name,
                        "day": day and day.isoformat(),
                        "paused": switches[name].why if name in switches else None,
                        **{state: states[state] for state in STATES},
                    }
                    for name, day, states in rows
                ],
            }
        )
        return
    if stopped:
        console.print(f"[red]Everything is stopped[/red] {_told(stopped)}", soft_wrap=True)
        console.print("`shopauto outbox start` lets it go on.")
    table = small_table(("campaign", "day"), title="Messages of the newest day")
    shown = [state for state in STATES if any(states[state] for _, _, states in rows)] or ["sent"]
    for state in shown:
        table.add_column(state, justify="right", no_wrap=True)
    for name, day, states in rows:
        table.add_row(name, str(day or "none yet"), *(f"{states[state]:,}" if day else "" for state in shown))
    console.print(table)
    for name, switch in switches.items():
        console.print(f"[yellow]{name} is paused[/yellow] {_told(switch)}", soft_wrap=True)
    if unclear:
        console.print(f"{sum(unclear.values()):,} messages of all days are unclear: `shopauto outbox unknown`.")


@app.command()
def pause(campaign: _Campaign, why: _Why) -> None:
    """Let nothing more of a campaign leave. What is being handed over at this moment still does."""
    _switch(_known(campaign), True, why)


@app.command()
def resume(campaign: _Campaign, why: _Why = "") -> None:
    """Let a paused campaign go on, from the very next person, at its next refresh."""
    _switch(_known(campaign), False, why)


@app.command()
def stop(why: _Why) -> None:
    """Stop everything: no message of any campaign leaves any more, until `start`."""
    _switch(None, True, why)


@app.command()
def start(why: _Why = "") -> None:
    """Let messages leave again after `stop`. Campaigns that were paused one by one stay paused."""
    _switch(None, False, why)


@app.command()
def overrule(
    campaign: _Campaign,
    day: Annotated[date, day_option("--day", "Day of the messages.")],
    why: Annotated[str, typer.Option("--why", help="Why it is right all the same; kept with your name.")],
) -> None:
    """Let a campaign's messages of a day leave that the send gate holds. The next refresh of the day sends them.

    For this campaign and day alone. A limit that is wrong for your shop is a setting: `shopauto live-settings set gate_…`.
    Holdouts, consent, caps and suppressed addresses hold as ever.
    """
    from shopauto_pipelines.outbox import gate
    from shopauto_pipelines.platform.clock import SystemClock

    _known(campaign)
    if not why.strip():
        raise typer.BadParameter("say why, for the others", param_hint="--why")
    with connection_and_settings() as (connection, settings):
        new = gate.overrule(connection, settings, campaign, day, why=why, by=me(), at=SystemClock().now())
    console.print(f"{campaign} of {day} {'now leaves' if new else 'left already'} whatever the gate says.")
    console.print(f"Next: [bold]shopauto refresh --day {day}[/bold]")


@app.command()
def unknown(
    campaign: Annotated[str | None, typer.Option("--campaign", help="Of this campaign only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to list, the oldest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List messages that may or may not have left: the provider was asked and its answer never came.

    They are settled by the provider's events, or by you, once you have looked: `shopauto outbox resolve`.
    """
    from shopauto_pipelines.outbox import ledger

    if campaign:
        _known(campaign)
    with connection_and_settings() as (connection, _):
        counts = {key: n for key, n in ledger.unknown_counts(connection).items() if campaign in (None, key[0])}
        found = ledger.unknown(connection, campaign, limit=limit)
    total = sum(counts.values())
    if as_json:
        print_json(
            [
                message.key._asdict()
                | {
                    "id": message.id,
                    "via": message.via,
                    "day": message.as_of.isoformat(),
                    "since": message.changed_at.isoformat(),
                    "reason": message.reason,
                }
                for message in found
            ]
        )
        return
    if not total:
        console.print("Nothing is unclear.")
        return
    table = small_table(("id", "campaign", "step", "person", "occasion"))
    for name in ("via", "since (UTC)", "why"):
        table.add_column(name, overflow="fold")
    for message in found:
        cells = (
            message.id,
            *message.key,
            message.via or "",
            f"{message.changed_at:%Y-%m-%d %H:%M}",
            message.reason or "",
        )
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    if total > len(found):
        console.print(f"The oldest {len(found):,} of {total:,}; `--limit` shows more.")
    for (name, day), count in counts.items():
        console.print(f"{name} of {day}: {count:,}")


@app.command()
def resolve(
    ending: Annotated[Ending, typer.Option("--as", help="What became of them.")],
    why: Annotated[str, typer.Option("--why", help="How you know; kept with each message.")],
    ids: Annotated[list[int] | None, typer.Argument(help="Ids, as `shopauto outbox unknown` shows them.")] = None,
    campaign: Annotated[str | None, typer.Option("--campaign", help="All of this campaign.")] = None,
    day: Annotated[date | None, day_option("--day", "All of this day.")] = None,
    via: Annotated[str | None, typer.Option("--via", help="All that went this way, e.g. `sendgrid`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
) -> None:
    """Settle unclear messages by hand: `sent` if they left, `failed` if they surely did not.

    `sent` is safe: nothing leaves again. What you settle as `failed` can be planned again with `shopauto outbox retry`,
    and would reach people twice if it had left after all. Filters are combined; only unclear messages are touched.
    """
    from shopauto_pipelines.outbox import ledger
    from shopauto_pipelines.platform.clock import SystemClock

    if everything == any((ids, campaign, day, via)):
        raise typer.BadParameter("say which messages: ids, --campaign, --day, --via, or --all for every one")
    if campaign:
        _known(campaign)
    with connection_and_settings() as (connection, _):
        count = ledger.resolve(
            connection,
            state=ending.value,
            why=f"by hand, {me()}: {why}",
            at=SystemClock().now(),
            ids=ids or None,
            campaign=campaign,
            as_of=day,
            via=via,
        )
    console.print(f"{count:,} messages are settled as {ending.value}.")
    if ids and count < len(set(ids)):
        console.print(f"{len(set(ids)) - count:,} of the ids are not unclear, or do not exist: they were not touched.")


@app.command()
def retry(
    campaign: _Campaign,
    day: Annotated[date, day_option("--day", "Day of the messages.")],
) -> None:
    """Plan the failed messages of a campaign's day again, once the cause is mended.

    `failed` means that the provider surely did not take them, so nobody gets a message twice. They leave with the next
    refresh of that day, if it is still open; every check is made again.
    """
    from shopauto_pipelines.outbox import ledger
    from shopauto_pipelines.platform.clock import SystemClock

    _known(campaign)
    with connection_and_settings() as (connection, _):
        count = ledger.retry_failed(connection, campaign, day, at=SystemClock().now())
    console.print(f"{count:,} messages of {campaign} of {day} are planned again.")


@suppressions.command("import")
def import_list(
    file: Annotated[
        typer.FileText,
        typer.Argument(encoding="utf-8-sig", help="CSV file with a header; `-` reads the standard input."),
    ],
    reason: Annotated[
        Reason | None, typer.Option("--reason", help="Why, for all of them. Without it: the list's own, else `import`.")
    ] = None,
) -> None:
    """Take a suppression list: a column `email` or `phone` of any other tool, or both, or `hash` of `suppress export`.

    Other columns are left alone. What is no address is counted and shown by its line's number; the others are taken.
    An address that was suppressed for a graver reason keeps it. Taking a list twice changes nothing.
    """
    from shopauto_pipelines.outbox import suppression_lists
    from shopauto_pipelines.platform.clock import SystemClock

    with connection_and_settings() as (connection, settings):
        done = suppression_lists.read(
            connection, file, settings, at=SystemClock().now(), reason=reason.value if reason else None
        )
    console.print(f"{done.new:,} addresses are suppressed now, {done.known:,} were already.")
    if done.refused_count:
        console.print(f"[yellow]{done.refused_count:,} addresses were left out:[/yellow]")
        for line, why in done.refused:
            console.print(f"  line {line}: {escape(why)}")
        raise typer.Exit(1)


@suppressions.command("export")
def export_list(
    file: Annotated[
        Path | None, typer.Argument(callback=in_a_folder, help="File to write; without it, the standard output.")
    ] = None,
) -> None:
    """Write every suppressed address as its keyed hash, with channel, reason and time, as CSV.

    The hashes are of use only where SHOPAUTO_SECRET_KEY is the same.
    """
    from shopauto_pipelines.outbox import consents, suppression_lists

    with ExitStack() as stack:
        connection, _ = stack.enter_context(connection_and_settings())
        target = stack.enter_context(file.open("w", encoding="utf-8", newline="")) if file else sys.stdout
        count = suppression_lists.write(consents.suppressed(connection), target)
    if file:
        console.print(f"{count:,} suppressed addresses are in {escape(str(file))}.", soft_wrap=True)


def _switch(campaign: str | None, paused: bool, why: str) -> None:
    from shopauto_pipelines.outbox import controls
    from shopauto_pipelines.outbox.schema import EVERYTHING
    from shopauto_pipelines.platform.clock import SystemClock

    if paused and not why.strip():
        raise typer.BadParameter("say why: the others will ask", param_hint="--why")
    with connection_and_settings() as (connection, _):
        change = controls.pause if paused else controls.resume
        changed = change(connection, campaign or EVERYTHING, by=me(), at=SystemClock().now(), why=why.strip())
        left = controls.stopped(connection, campaign) if campaign else None
    what = campaign or "Everything"
    done = ("is paused" if campaign else "is stopped") if paused else "goes on"
    console.print(f"{what} {done}." if changed else f"{what} {done} already; nothing was changed.")
    if not paused and left:
        console.print(f"But {escape(left)}. `shopauto outbox start` lets messages leave again.")


def _told(switch: Control) -> str:
    return f"since {switch.at:%Y-%m-%d %H:%M} UTC by {escape(switch.by)}: {escape(switch.why or '')}"


def _campaigns() -> set[str]:
    """Names of the playbook's campaigns and the on-site offer; none where it cannot be read: stopping must work all the same."""
    from shopauto_pipelines.campaigns.offers import ONSITE
    from shopauto_pipelines.platform.playbook import declarations

    try:
        return {ONSITE, *(str(declaration.attributes.get("name")) for declaration in declarations("Campaign"))}
    except ShopAutoError:
        return set()


def _known(campaign: str) -> str:
    names = _campaigns()
    if names and campaign not in names:
        raise typer.BadParameter(f"there is no campaign {campaign!r}; there are {', '.join(sorted(names))}")
    return campaign
