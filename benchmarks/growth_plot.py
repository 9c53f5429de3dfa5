"""Draws how a refresh grows with the shop, from what ``refresh.py`` measured at several sizes.

    python benchmarks/growth_plot.py [--measured FILE] [--to FILE]

Each line of ``measured/refresh.jsonl`` is the last line of a run of ``refresh.py``. Prints how much more time and memory the
largest shop takes than the next smaller one, and ends with it as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MEASURED = Path(__file__).with_name("measured") / "refresh.jsonl"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "growth.png"

#: What is drawn: the figure, its name, its colour.
SECONDS = (
    ("full_seconds_cpu", "full recompute, with training", "tab:red"),
    ("daily_seconds_cpu", "daily refresh", "tab:blue"),
    ("ours_seconds_cpu", "features and segments from raw rows", "tab:green"),
)
MEMORY = (
    ("full_peak_mib", "full recompute, with training", "tab:red"),
    ("daily_peak_mib", "daily refresh", "tab:blue"),
    ("ours_mib", "features and segments from raw rows", "tab:green"),
)


def main() -> None:
    """Draw the picture and print the growth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=MEASURED)
    parser.add_argument("--to", type=Path, default=PICTURE)
    options = parser.parse_args()
    runs = measured(options.measured)
    draw(runs, options.to)
    figures = growth(runs)
    for name, value in figures.items():
        print(f"{name:40}  {value}")
    print(json.dumps(figures))


def measured(file: Path) -> list[dict[str, Any]]:
    """The runs in a file, the smallest shop first; ends the program where there is none."""
    if not file.exists() or not file.read_text().strip():
        sys.exit(f"{file} has no runs: put the last line of each run of benchmarks/refresh.py there")
    return sorted(
        (json.loads(line) for line in file.read_text().split("\n") if line.strip()), key=lambda run: run["customers"]
    )


def growth(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures of the largest shop over those of the next smaller one that has them."""
    found: dict[str, float] = {}
    shown = (name for name, _label, _colour in (*SECONDS, *MEMORY))
    for name in ("customers", "raw_rows", "full_seconds", "daily_seconds", *shown):
        values = [run[name] for run in runs if name in run]
        if len(values) > 1:
            found[f"growth_{name}"] = round(values[-1] / values[-2], 2)
    return found


def draw(runs: Sequence[dict[str, Any]], file: Path) -> None:
    """Seconds of all cores, and highest memory, over customers; dashed: in proportion to customers."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, lines, title in (
        (axes[0], SECONDS, "Seconds of all cores"),
        (axes[1], MEMORY, "Highest memory, MiB"),
    ):
        for name, label, colour in lines:
            points = [(run["customers"], run[name]) for run in runs if name in run]
            if not points:
                continue
            people, values = zip(*points, strict=True)
            axis.plot(people, values, marker="o", color=colour, label=label)
            axis.plot(people, [values[0] * n / people[0] for n in people], "--", color=colour, alpha=0.4, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="customers", title=title)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()
