"""What people look at: the effects as a table, and as a plot of their intervals. Figures of groups, nothing about a person."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import floor, log10
from typing import Any, NamedTuple

from shopauto_pipelines.insights.effects import BETTER, WORSE

_COLOURS = {BETTER: "#15803d", WORSE: "#b91c1c"}
_GREY, _GRID, _BLACK = "#9ca3af", "#e5e7eb", "#111827"

#: Most comparisons of a plot: those with a verdict, then those of most people.
_SHOWN = 24


class Figures(NamedTuple):
    """A row in words; ``metric`` says its days, ``interval`` and ``can_show`` are empty where there is none."""

    comparison: str
    metric: str
    people: str
    control_people: str
    value: str
    control_value: str
    lift: str
    interval: str
    verdict: str
    can_show: str


#: What the :class:`Figures` are called, in their order.
HEADINGS = ("comparison", "metric", "people", "control", "value", "its control", "lift", "95 %", "verdict", "can show")


def heading(row: Mapping[str, Any]) -> str:
    """What is compared, in words."""
    against = {"campaign_holdout": "against its holdout", "global_holdout": "against the holdout of all campaigns"}
    told = against.get(row["comparison"], f"{row['comparison']}: {row['variant']} against control")
    return f"{row['campaign']} {told}" if row["comparison"] in against else f"{row['campaign']}, {told}"


def figures(row: Mapping[str, Any], currency: str) -> Figures:
    """A row in words: rates in percent and points, money in major units."""
    low, high = (_signed(row[name], row["metric"]) for name in ("lift_low", "lift_high"))
    least = _figure(row["minimum_detectable_effect"], row["metric"])
    relative = "" if row["relative"] is None else f" ({row['relative']:+.0%})"
    metric = f"revenue, {currency}" if row["metric"] == "revenue" else row["metric"]
    return Figures(
        heading(row),
        f"{metric}, {row['within_days']} days",
        f"{row['people']:,}",
        f"{row['control_people']:,}",
        _figure(row["value"], row["metric"]),
        _figure(row["control_value"], row["metric"]),
        _signed(row["lift"], row["metric"]) + relative,
        f"{low} … {high}" if low and high else "",
        row["verdict"] + (f": {row['note']}" if row["note"] else ""),
        f"+{least}" if least else "",
    )


def markdown(rows: Sequence[Mapping[str, Any]], currency: str) -> str:
    """The rows as a table."""
    if not rows:
        return NOTHING
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|---:|---:|---:|---:|---:|---|---|---:|"]
    return "\n".join([*lines, *("| " + " | ".join(figures(row, currency)) + " |" for row in rows)])


#: Said where there is nothing to compare.
NOTHING = (
    "Nothing to compare yet: a campaign needs people whose days are over since it sent its first message, and others who were "
    "held out (`holdout_percent`) or given another variant (`experiment`)."
)


def forest_plot(rows: Iterable[Mapping[str, Any]]) -> str:
    """:func:`drawing` as a Markdown image."""
    drawn = drawing(rows)
    if not drawn:
        return ""
    return f"![effects of the campaigns](data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()})"


def drawing(rows: Iterable[Mapping[str, Any]]) -> str:
    """Relative lifts with their intervals, a line per comparison, as SVG; empty where none can be drawn."""
    told = [row for row in rows if row["control_value"] and row["lift_low"] is not None]
    told.sort(key=lambda row: (row["verdict"] not in _COLOURS, -row["people"], heading(row), row["metric"]))
    drawn = sorted(told[:_SHOWN], key=lambda row: (heading(row), row["metric"]))
    if not drawn:
        return ""
    spans = [tuple(100 * row[end] / row["control_value"] for end in ("lift_low", "lift", "lift_high")) for row in drawn]
    # one group that is still tiny must not press all others into a point
    ends = sorted(max(abs(low), abs(high)) for low, _lift, high in spans)
    widest = max(min(4 * ends[len(ends) // 2], ends[-1]), 1.0)
    left, width, line, top = 400, 480, 22, 8
    bottom = top + line * len(drawn)

    def x(percent: float) -> float:
        return round(left + width / 2 * (1 + max(-1.0, min(1.0, percent / widest))), 1)

    step = _step(widest)
    ticks = [n * step for n in range(-int(widest // step), int(widest // step) + 1)]
    parts = [
        f'<line x1="{x(t)}" y1="{top}" x2="{x(t)}" y2="{bottom}" stroke="{_BLACK if not t else _GRID}"/>'
        f'<text x="{x(t)}" y="{bottom + 16}" text-anchor="middle">{f"{t:+g}" if t else 0} %</text>'
        for t in ticks
    ]
    for n, (row, (low, lift, high)) in enumerate(zip(drawn, spans, strict=True)):
        y, colour = top + line * n + line // 2, _COLOURS.get(row["verdict"], _GREY)
        parts.append(
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(heading(row))}, {row["metric"]}</text>'
            f'<line x1="{x(low)}" y1="{y}" x2="{x(high)}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
            f'<rect x="{x(lift) - 4}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'
        )
    middle = left + width // 2
    parts.append(f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">more than the control (95 %)</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 40}" height="{bottom + 42}" '
        f'font-family="sans-serif" font-size="12" fill="{_BLACK}"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>"
    )


def _step(widest: float) -> float:
    """A round distance of some three or four ticks on each side of zero."""
    power = 10 ** floor(log10(widest / 3))
    return next(n * power for n in (5, 2, 1) if n * power <= widest / 2)


def _figure(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{value / 100:,.2f}" if metric == "revenue" else f"{100 * value:.2f} %"


def _signed(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{value / 100:+,.2f}" if metric == "revenue" else f"{100 * value:+.2f}"
