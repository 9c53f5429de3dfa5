"""Who lets a campaign's day leave whatever the gate says, and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from shopauto_pipelines.outbox.gate.verdicts import DAYS
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.settings import Settings


def overrule(
    connection: sa.Connection, settings: Settings, campaign: str, as_of: date, *, why: str, by: str, at: datetime
) -> bool:
    """Let the campaign's messages of the day leave whatever the gate says. False where that was so already.

    Kept as the setting ``gate_overruled`` and, with name and cause, in the history of settings. Days long gone are dropped.
    """
    before = live_settings.current(connection, settings).gate_overruled.split()
    recent = str(as_of - timedelta(days=DAYS))
    kept = {each for each in before if each.partition(":")[2] > recent} | {f"{campaign}:{as_of}"}
    value = " ".join(sorted(kept, key=lambda each: each.partition(":")[::-1]))
    return live_settings.change(connection, settings, live_settings.Change("gate_overruled", value, why, by, at))


def overruled(
    connection: sa.Connection, current: Settings, campaign: str, as_of: date, parts: Iterable[str]
) -> dict[str, str]:
    """The ``parts`` as overruled for the campaign and day, each with who did it and why; empty where nobody did."""
    name = f"{campaign}:{as_of}"
    if name not in current.gate_overruled.split():
        return {}
    said = None
    for change in live_settings.changes(connection, limit=1000):
        if change.name == "gate_overruled":
            if name not in (change.value or "").split():
                break
            said = change  # the one that brought it in is the oldest of those that have it
    who = f"by {said.by}, {said.at:%Y-%m-%d %H:%M} UTC: {said.why}" if said else "by the environment"
    return dict.fromkeys(parts, who)
