"""The promotion gate: what the models of a day mean for what follows in the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

State = Literal["passed", "warn", "stop"]

#: From good to bad.
STATES: tuple[State, ...] = ("passed", "warn", "stop")


@dataclass(frozen=True)
class Ruling:
    """``passed``: nothing to say against. ``warn``: the last good model stays, or one was asked for by name. ``stop``: nothing
    good is in force.
    """

    state: State
    text: str


def rule(models: Sequence[Mapping[str, Any]]) -> Ruling:
    """The ruling on the rows of ``predictions/models`` of one day; the worst of the targets counts."""
    found: list[Ruling] = []
    for row in models:
        target, verdict = row["target"], row["verdict"]
        if row.get("named"):
            found.append(Ruling("warn", f"{target}: {verdict}"))
        elif row["challenger_passed"] or row["challenger_passed"] is None:
            found.append(Ruling("passed", f"{target}: {verdict}"))
        elif row["model_id"]:
            found.append(Ruling("warn", f"{target}: {verdict}. {row['model_id']} stays in force"))
        else:
            found.append(Ruling("stop", f"{target}: {verdict}. No earlier model is good enough to stay in force"))
    worst = max((ruling.state for ruling in found), key=STATES.index, default=STATES[-1])
    return Ruling(worst, "; ".join(ruling.text for ruling in found) or "predictions/models has no rows for the day")


def rule_range(rulings: Mapping[date, Ruling]) -> Ruling:
    """The ruling on a run over several days: the worst, where only the latest day can stop it.

    On earlier days nobody is scored where nothing is in force, and nothing is sent. So they warn, and the later ones go on.
    """
    latest = max(rulings)
    mild = {
        day: Ruling("warn", f"{day}: {ruling.text}; nobody is scored on that day")
        if ruling.state == "stop" and day < latest
        else ruling
        for day, ruling in rulings.items()
    }
    return max(mild.values(), key=lambda ruling: STATES.index(ruling.state))
