"""What a shop of any size would take, reckoned from what ``refresh.py`` measured. Nothing is run.

    python benchmarks/simulation.py [--customers N] [--events-a-month N] [--months N] [--hours H] [--measured FILE]

The constants come from two measured shops, the largest and the next smaller one, and from seconds of all cores, which hold on
a machine that has other things to do. All is taken to grow in proportion; what cannot be known from the two is given as two
bounds:

- a daily refresh costs something that is always the same, and something that grows with the shop. The *low* bound lets that
  grow with the people, the *high* one with the rows of their history. The truth is in between: profiles, scores and audiences
  follow people, rollups follow the days on which somebody did something, of which there are fewer than events.
- a core of a cluster is taken to do as much as one here (factor 1), or a third of it (factor 3). The factor is an assumption:
  a cluster shuffles rows between machines, which one machine does not.

Ends with a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth_plot import MEASURED, measured

MILLION = 1_000_000

#: How much of a cluster's cores works while a job runs; how many cores' work a core of a cluster takes.
BUSY, FACTORS = 0.7, (1, 3)


@dataclass(frozen=True)
class Constants:
    """What was measured: seconds of all cores and bytes; ``rows_of_a_day``: how a day's raw rows stand to people."""

    fixed: float
    per_million_people: float
    per_million_rows_of_history: float
    full_per_million_rows: float
    bytes_of_a_raw_row: float
    bytes_of_a_persons_day: float

    @classmethod
    def of(cls, smaller: dict[str, Any], larger: dict[str, Any]) -> Constants:
        """From two runs; the one full recompute that is largest of them."""
        people = (larger["customers"] - smaller["customers"]) / MILLION
        rows = (larger["raw_rows"] - smaller["raw_rows"]) / MILLION
        more = larger["daily_seconds_cpu"] - smaller["daily_seconds_cpu"]
        full = larger if "full_seconds_cpu" in larger else smaller
        return cls(
            fixed=larger["daily_seconds_cpu"] - more / people * larger["customers"] / MILLION,
            per_million_people=more / people,
            per_million_rows_of_history=more / rows,
            full_per_million_rows=full["full_seconds_cpu"] / (full["raw_rows"] / MILLION),
            bytes_of_a_raw_row=larger["raw_mib"] * 2**20 / larger["raw_rows"],
            bytes_of_a_persons_day=larger["states_of_a_day_mib"] * 2**20 / larger["customers"],
        )


def main() -> None:
    """Print the constants and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--customers", type=float, default=100e6)
    parser.add_argument("--events-a-month", type=float, default=10e9)
    parser.add_argument("--months", type=int, default=37, help="history that is kept")
    parser.add_argument("--hours", type=float, default=2, help="a daily refresh has so long")
    parser.add_argument("--measured", type=Path, default=MEASURED)
    options = parser.parse_args()
    runs = measured(options.measured)
    if len({run["customers"] for run in runs}) < 2:
        sys.exit(f"{options.measured} has runs of one size: the constants come from shops of two sizes")
    larger = runs[-1]
    smaller = [run for run in runs if run["customers"] < larger["customers"]][-1]
    known = Constants.of(smaller, larger)
    print(f"Measured at {smaller['customers']:,} and {larger['customers']:,} customers:")
    for line in (
        f"a daily refresh, whatever the shop: {known.fixed:,.0f} s of all cores",
        f"and for each million people: {known.per_million_people:,.0f} s",
        f"or for each million raw rows of history: {known.per_million_rows_of_history:,.1f} s",
        f"a full recompute for each million raw rows: {known.full_per_million_rows:,.0f} s",
        f"a raw row: {known.bytes_of_a_raw_row:,.1f} bytes in the lake",
        f"all states of a person on a day: {known.bytes_of_a_persons_day:,.0f} bytes",
    ):
        print(f"- {line}")
    print()
    print("\n".join(table(known, options.customers, options.events_a_month, options.months, options.hours)))


def table(known: Constants, customers: float, events_a_month: float, months: int, hours: float) -> list[str]:
    """The table in Markdown."""
    people, rows = customers / MILLION, events_a_month * months / MILLION
    low = known.fixed + known.per_million_people * people
    high = known.fixed + known.per_million_rows_of_history * rows
    low, high = min(low, high), max(low, high)
    full = known.full_per_million_rows * rows

    def cores(seconds: float, within: float, factor: int) -> str:
        return f"{seconds * factor / (within * 3600 * BUSY):,.0f}"

    lines = [
        f"| {customers / MILLION:,.0f} M customers, {events_a_month / 1e9:,.0f} G events a month, {months} months | low | high |",
        "|---|---:|---:|",
        f"| core hours of a daily refresh | {low / 3600:,.0f} | {high / 3600:,.0f} |",
        *(
            f"| cores for it within {hours:g} h, factor {factor} | {cores(low, hours, factor)} | {cores(high, hours, factor)} |"
            for factor in FACTORS
        ),
        f"| core hours of a full recompute | {full / 3600:,.0f} | {full / 3600:,.0f} |",
        f"| days of it on 512 cores, factor {FACTORS[0]} and {FACTORS[-1]} | "
        f"{full / 512 / BUSY / 86400:,.1f} | {full * FACTORS[-1] / 512 / BUSY / 86400:,.1f} |",
        f"| raw rows in the lake, TiB a month | {events_a_month * known.bytes_of_a_raw_row / 2**40:,.2f} | |",
        f"| raw rows in the lake, TiB in all | {rows * MILLION * known.bytes_of_a_raw_row / 2**40:,.1f} | |",
        f"| states, TiB a day that is kept | {customers * known.bytes_of_a_persons_day / 2**40:,.2f} | |",
    ]
    return lines


if __name__ == "__main__":
    main()
