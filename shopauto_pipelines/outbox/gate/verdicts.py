"""What the gate says, and what it calls usual."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median

import pyarrow.compute as pc
import pyarrow.parquet as pq

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table

#: Weeks, or else days, that the usual is taken from, and the fewest of each that make one.
WEEKS, DAYS, FEWEST_WEEKS, FEWEST_DAYS = 8, 28, 3, 7

#: Orders of a usual day below which they say nothing, and people below which a share does.
FEW = 20


@dataclass(frozen=True)
class Finding:
    """What one part of the gate found: in words, which where it fails say what to do, and in figures."""

    part: str
    passed: bool
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a campaign and day. ``overruled``: parts that failed and were overruled, with who and why."""

    campaign: str
    as_of: date
    findings: tuple[Finding, ...]
    overruled: Mapping[str, str] = field(default_factory=dict)

    @property
    def stops(self) -> tuple[Finding, ...]:
        """The findings that stop the send."""
        return tuple(each for each in self.findings if not each.passed and each.part not in self.overruled)

    @property
    def text(self) -> str | None:
        """Why nothing may leave and what to do; ``None`` where it may."""
        if not self.stops:
            return None
        told = "\n".join(f"- {each.part}: {each.text}" for each in self.stops)
        command = f'shopauto outbox overrule {self.campaign} --day {self.as_of} --why "…"'
        return (
            f"The gate holds {self.campaign} of {self.as_of}, nothing of it leaves:\n{told}\n"
            f"Then refresh the day again. Where all is as it should be: `{command}`."
        )


def planned(lake: Lake, table: Table, day: date) -> int:
    """How many rows of an audience are planned; raises ``MissingPartition``."""
    if not lake.rows(table, day):
        return 0
    decisions = pq.read_table(lake.path(table, day), columns=["decision"], partitioning=None)["decision"]
    return int(pc.sum(pc.equal(decisions, "planned")).as_py() or 0)


def usual_of(rows: Callable[[date], int], days: set[date], as_of: date) -> float | None:
    """The median of the same weekdays before ``as_of``, or of all days; ``None`` where there are too few."""
    weeks = [day for n in range(1, WEEKS + 1) if (day := as_of - timedelta(weeks=n)) in days]
    recent = [day for n in range(1, DAYS + 1) if (day := as_of - timedelta(days=n)) in days]
    chosen = weeks if len(weeks) >= FEWEST_WEEKS else recent if len(recent) >= FEWEST_DAYS else []
    return median(rows(day) for day in chosen) if chosen else None
