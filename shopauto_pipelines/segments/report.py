"""What people look at: sizes over the days, moves, a preview of members, the plot. Reads the lake, writes nothing.

Customer ids and days only: nothing here touches private data.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from io import BytesIO

import ibis
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.segments.declaration import SEPARATOR
from shopauto_pipelines.segments.membership import members
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP

#: Most lines of a plot: the largest values of a segment with ``each``.
_LINES = 8


@dataclass(frozen=True)
class Moves:
    """People who ``entered`` and who ``left`` on a day."""

    entered: int = 0
    left: int = 0


def sizes(lake: Lake, as_of: date) -> dict[str, int]:
    """Members of every segment that has any as of the day, by name; raises ``MissingPartition``."""
    counted = lake.on(MEMBERSHIP, as_of).group_by("segment").agg(size=_.count()).order_by("segment")
    return dict(counted.execute().itertuples(index=False, name=None))


def history(lake: Lake, name: str, start: date, end: date) -> dict[str, dict[date, int]]:
    """Size of the segment, or of each of its ``<name>:<value>``, on every computed day from ``start`` to ``end``.

    One query for all days. A day without members has 0; a segment without any has one line of zeros.
    """
    days = [day for day in lake.days(MEMBERSHIP) if start <= day <= end]
    rows = members(lake.between(MEMBERSHIP, start, end), name)
    counted = rows.group_by("segment", "as_of").agg(size=_.count()).order_by("segment", "as_of").to_pyarrow()
    found: dict[str, dict[date, int]] = {}
    for row in counted.to_pylist():
        found.setdefault(row["segment"], dict.fromkeys(days, 0))[row["as_of"]] = row["size"]
    return found or {name: dict.fromkeys(days, 0)}


def moves(lake: Lake, name: str, start: date, end: date) -> dict[date, Moves]:
    """Who entered and left the segment on each computed day from ``start`` to ``end``, in one query."""
    days = [day for day in lake.days(CHANGES) if start <= day <= end]
    rows = members(lake.between(CHANGES, start, end), name)
    counted = rows.group_by("as_of").agg(entered=(_.change == "entered").sum(), left=(_.change == "left").sum())
    found = {row["as_of"]: Moves(row["entered"], row["left"]) for row in counted.to_pyarrow().to_pylist()}
    return {day: found.get(day, Moves()) for day in days}


def preview(lake: Lake, name: str, as_of: date, limit: int = 10) -> list[tuple[str, str, date]]:
    """``(segment, customer_id, entered_on)`` of the latest to enter; raises ``MissingPartition``."""
    rows = members(lake.on(MEMBERSHIP, as_of), name).select("segment", "customer_id", "entered_on")
    latest = rows.order_by(ibis.desc("entered_on"), "customer_id", "segment").limit(limit).to_pyarrow()
    return [(row["segment"], row["customer_id"], row["entered_on"]) for row in latest.to_pylist()]


def preview_markdown(rows: Sequence[tuple[str, str, date]]) -> str:
    """A preview as a table."""
    if not rows:
        return "Nobody is in this segment."
    lines = [f"| {_cell(customer)} | {entered} | {_cell(segment)} |" for segment, customer, entered in rows]
    return "\n".join(["| customer_id | entered_on | segment |", "| --- | --- | --- |", *lines])


def sizes_markdown(of_values: Mapping[str, int], limit: int = 30) -> str:
    """Sizes by value as a table, the largest first."""
    ordered = sorted(of_values.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"| {_cell(name)} | {size} |" for name, size in ordered[:limit]]
    more = [f"\n{len(ordered) - limit} more."] if len(ordered) > limit else []
    return "\n".join(["| segment | size |", "| --- | ---: |", *lines, *more])


def size_plot(lines: Mapping[str, Mapping[date, int]]) -> str:
    """Sizes over the days as a Markdown image (PNG in a data URI). Up to eight lines: the largest on the last day."""
    # Imported here: matplotlib takes half a second that no other use of this module should pay.
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    largest = sorted(lines, key=lambda name: (-list(lines[name].values())[-1] if lines[name] else 0, name))[:_LINES]
    figure = Figure(figsize=(7.2, 2.6), dpi=80)
    # Fixed margins: a layout engine would draw everything twice, for each of the shop's segments.
    axes = figure.add_axes((0.09, 0.19, 0.65 if len(largest) > 1 else 0.89, 0.77))
    for name in largest:
        days = list(lines[name])
        marker = "o" if len(days) < 15 else None
        axes.plot(date2num(days), list(lines[name].values()), linewidth=1.6, marker=marker, label=_short(name))
    most = max((size for name in largest for size in lines[name].values()), default=0)
    axes.set_ylim(0, 1.15 * most or 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylabel("people")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(largest) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    image = BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return f"![size of the segment]({'data:image/png;base64,' + base64.b64encode(image.getvalue()).decode()})"


def total(lines: Mapping[str, Mapping[date, int]]) -> dict[date, int]:
    """Sizes by day, summed over the values of a segment: a person has one value only."""
    summed: dict[date, int] = {}
    for sizes_by_day in lines.values():
        for day, size in sizes_by_day.items():
            summed[day] = summed.get(day, 0) + size
    return summed


def _short(name: str) -> str:
    value = name.partition(SEPARATOR)[2] or name
    # A leading underscore hides a legend entry, a dollar sign starts a formula.
    return "\u200b" * value.startswith("_") + (value if len(value) <= 18 else f"{value[:17]}…").replace("$", r"\$")


def _cell(text: str) -> str:
    """A value of the shop's data inside a Markdown table."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
