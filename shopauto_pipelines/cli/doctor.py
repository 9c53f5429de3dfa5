"""Looks an installation over and says what is wrong and how to mend it. Repairs nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings, load_settings

#: What the project's ``dagster.yaml`` names as storage, and a deployment's, too.
_OUR_STORAGE = "shopauto_pipelines.platform.dagster.storage"


@dataclass(frozen=True)
class Finding:
    """One line of the examination; ``remedy`` is a command or a sentence."""

    level: Literal["ok", "note", "problem"]
    subject: str
    text: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, in the order a person would look."""
    try:
        settings = load_settings()
    except ShopAutoError as error:
        yield Finding("problem", "settings", str(error), "correct the value, or remove it to take the default")
        return
    mode = "local: every message goes to the inbox"
    if settings.live:
        mode = f"live: e-mail leaves by {settings.email_via}, SMS by {settings.sms_via or 'nothing'}"
    yield Finding("ok", "settings", f"home {settings.home}, {mode}")
    if settings.live and settings.email_via == "sendgrid" and settings.sendgrid_webhook_key is None:
        yield Finding(
            "note",
            "events",
            "SendGrid's events are not heard: bounces and complaints suppress nobody, unclear messages stay unclear",
            "set SHOPAUTO_SENDGRID_WEBHOOK_KEY and run `shopauto collect` (docs/collector.md)",
        )
    parts: list[tuple[str, Callable[[Settings], Iterator[Finding]]]] = [
        ("dagster", _dagster),
        ("playbook", _playbook),
        ("database", _database),
        ("lake", _lake),
        ("disk", _disk),
    ]
    told: set[str] = set()
    for subject, part in parts:
        try:
            yield from part(settings)
        except ShopAutoError as error:
            if str(error) not in told:  # what is stale is judged by the playbook, and meets its mistakes again
                yield Finding("problem", subject, str(error))
            told.add(str(error))


def _dagster(settings: Settings) -> Iterator[Finding]:
    """A DAGSTER_HOME that takes Dagster's storage away from the project's PostgreSQL; nothing where it does not."""
    own = os.environ.get("DAGSTER_HOME")
    if not own:
        return
    try:
        ours = _OUR_STORAGE in (Path(own) / "dagster.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        yield Finding(
            "note",
            "dagster",
            f"DAGSTER_HOME is {own}, without this project's dagster.yaml: `dagster dev` does not keep its runs in PostgreSQL",
            f"unset DAGSTER_HOME, start it with `make dev`, or set it to {PROJECT_ROOT}",
        )


def _playbook(settings: Settings) -> Iterator[Finding]:
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.predictions.declaration import load_predictions
    from shopauto_pipelines.recommendations.declaration import load_recommendations
    from shopauto_pipelines.segments.declaration import load_segments
    from shopauto_pipelines.sources.mapping import mappings

    load_predictions(), load_recommendations()
    campaigns = load_campaigns()
    counts = (len(list(mappings())), len(load_segments()), len(campaigns))
    yield Finding("ok", "playbook", "{} sources, {} segments, {} campaigns, all valid".format(*counts))
    texting = [name for name, one in campaigns.items() if any(step.channel == "sms" for step in one.steps)]
    if settings.live and texting and settings.sms_via is None:
        text = f"{', '.join(texting)} would send SMS, and nothing is set to send them by"
        yield Finding("note", "playbook", text, "set SHOPAUTO_SMS_VIA (docs/channels.md)")


def _database(settings: Settings) -> Iterator[Finding]:
    from shopauto_pipelines.outbox import controls, ledger
    from shopauto_pipelines.outbox.schema import EVERYTHING
    from shopauto_pipelines.platform import live_settings
    from shopauto_pipelines.platform.postgres import engine

    with engine(settings).connect() as connection:
        changed = live_settings.changed(connection).values()
        version = connection.scalar(sa.text("show server_version"))
        unclear = sum(ledger.unknown_counts(connection).values())
        paused = [switch for switch in controls.controls(connection) if switch.paused]
        sent = connection.scalar(sa.text("select count(*) from messages where state = 'sent'")) or 0
    kind = "embedded" if settings.postgres_url is None else "your own"
    yield Finding("ok", "database", f"PostgreSQL {version} ({kind}), tables up to date")
    for change in changed:
        since = f"{change.at:%Y-%m-%d %H:%M} UTC, by {change.by}: {change.why or 'no reason given'}"
        yield Finding(
            "note",
            "live settings",
            f"{change.name} is {change.value} since {since}",
            f"shopauto live-settings unset {change.name}",
        )
    try:
        live_settings.overlay(settings, {change.name: change.value or "" for change in changed})
    except ShopAutoError as error:
        yield Finding("problem", "live settings", str(error))
    yield Finding("ok", "outbox", f"{sent:,} messages sent")
    if unclear:
        yield Finding(
            "note",
            "outbox",
            f"{unclear:,} messages have an unclear outcome; they are never sent again by themselves",
            "shopauto outbox unknown",
        )
    for switch in paused:
        everything = switch.scope == EVERYTHING
        yield Finding(
            "note",
            "outbox",
            f"{'everything is stopped' if everything else f'{switch.scope} is paused'}: {switch.why}",
            "shopauto outbox start" if everything else f"shopauto outbox resume {switch.scope}",
        )


def _lake(settings: Settings) -> Iterator[Finding]:
    from shopauto_pipelines.cli import refreshing
    from shopauto_pipelines.features.tables import CUSTOMER_360
    from shopauto_pipelines.platform.lake import open_lake
    from shopauto_pipelines.sources import landing
    from shopauto_pipelines.sources.tables import QUARANTINE

    lake = open_lake(settings)
    if settings.lake_bucket:
        yield Finding("ok", "bucket", lake.storage.check())
    span = landing.landed_days(lake)
    if span is None:
        yield Finding("note", "lake", "empty", "shopauto demo, or shopauto load SOURCE PATH")
        return
    yield Finding("ok", "lake", f"data from {span[0]} to {span[1]}")
    refused = sum(lake.rows(QUARANTINE, day) for day in lake.days(QUARANTINE))
    if refused:
        yield Finding(
            "note",
            "quarantine",
            f"{refused:,} rows were set aside",
            "read raw/quarantine, mend the file, load it again",
        )
    computed, over = lake.days(CUSTOMER_360), landing.days_over(lake, refreshing.today(settings))
    if over is None:
        yield Finding("note", "refresh", "there is data of today only, and today is not over", "refresh tomorrow")
    elif not computed:
        yield Finding("note", "refresh", "no day has been refreshed", "shopauto refresh")
    elif computed[-1] < over[1]:
        yield Finding("note", "refresh", f"last refreshed {computed[-1]}, data reaches {over[1]}", "shopauto refresh")
    else:
        yield Finding("ok", "refresh", f"{len(computed):,} days, the last {computed[-1]}")
    for found in refreshing.health(lake, settings).problems:
        if found.kind != "behind":
            days = sorted({day for of_table in found.days.values() for day in of_table})
            when = f"{days[0]}" if len(days) == 1 else f"{len(days):,} days, {days[0]} … {days[-1]}"
            level: Literal["note", "problem"] = "problem" if found.kind == "failed" else "note"
            yield Finding(level, found.kind, f"{when}: {found.why}", f"{found.repair}; `shopauto health` says more")


def _disk(settings: Settings) -> Iterator[Finding]:
    """The room on the disks of the home and the lake, once where they are on the same one."""
    places = [
        next(folder for folder in (each, *each.parents) if folder.is_dir())
        for each in (settings.home, settings.lake_path)
    ]
    for place in {place.stat().st_dev: place for place in reversed(places)}.values():
        free = shutil.disk_usage(place).free / 1024**3
        level: Literal["ok", "problem"] = "ok" if free >= 1 else "problem"
        yield Finding(level, "disk", f"{free:.0f} GiB free at {place}", "" if free >= 1 else "free some room")
