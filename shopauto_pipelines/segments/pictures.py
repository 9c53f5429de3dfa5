"""Pictures for the UI, drawn as SVG: sizes over days, and how much segments overlap. Nothing here reads data.

Written by hand: a plotting library takes a hundred times as long for each of a shop's segments, and half a second to import.
The same numbers give the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from math import ceil, floor, log10

#: Colours of lines, told apart by people who see colours differently (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")

_STYLE = "<style>text{font:11px system-ui,sans-serif;fill:#444}.grid{stroke:#ddd}.axis{stroke:#888}</style>"


def line_plot(lines: Mapping[str, Mapping[date, int]], *, described: str, width: int = 720, height: int = 230) -> str:
    """Numbers over days as a Markdown image: a line per name, with a legend where there are several (up to eight)."""
    days = sorted({day for line in lines.values() for day in line})
    if not days:
        return image("", described, width, height)
    right = 190 if len(lines) > 1 else 20
    left, top, bottom = 52, 12, 28
    step = axis_step(max((n for line in lines.values() for n in line.values()), default=0))
    most = step * max(1, ceil(max((n for line in lines.values() for n in line.values()), default=0) / step))
    length = max((days[-1] - days[0]).days, 1)

    def x(day: date) -> float:
        return left + (width - left - right) * ((day - days[0]).days / length if len(days) > 1 else 0.5)

    def y(number: float) -> float:
        return height - bottom - (height - top - bottom) * number / most

    parts = []
    for number in range(0, most + 1, step):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(number):.1f}" y2="{y(number):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(number) + 4:.1f}" text-anchor="end">{number:,}</text>')
    for day in days[:: max(1, ceil(len(days) / 7))]:
        parts.append(f'<text x="{x(day):.1f}" y="{height - 8}" text-anchor="middle">{day:%d %b}</text>')
    for colour, line in zip(COLOURS, lines.values(), strict=False):
        points = [(x(day), y(line[day])) for day in days if day in line]
        drawn = " ".join(f"{at:.1f},{up:.1f}" for at, up in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{drawn}"/>')
        if len(points) < 15:
            parts += [f'<circle cx="{at:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>' for at, up in points]
    if len(lines) > 1:
        for n, (colour, name) in enumerate(zip(COLOURS, lines, strict=False)):
            at, up = width - right + 14, top + 16 + 22 * n
            parts.append(f'<rect x="{at}" y="{up - 9}" width="12" height="12" fill="{colour}"/>')
            parts.append(f'<text x="{at + 18}" y="{up + 1}">{_text(name, 24)}</text>')
    return image("".join(parts), described, width, height)


def heat_map(names: Sequence[str], shares: Mapping[tuple[str, str], float], *, described: str) -> str:
    """Shares (0 to 1) of pairs as a Markdown image: a square per pair of ``names``, the darker the more, with its percent.

    ``shares`` has each pair once, in either order; a pair that is missing has nothing in common.
    """
    cell, left, top = 34, 190, 150
    width, height = left + cell * len(names) + 130, top + cell * len(names) + 10
    parts = []
    for row, name in enumerate(names):
        up = top + cell * row
        parts.append(f'<text x="{left - 8}" y="{up + 21}" text-anchor="end">{_text(name, 28)}</text>')
        at = left + cell * row + 20
        parts.append(f'<text transform="translate({at},{top - 8}) rotate(-45)">{_text(name, 28)}</text>')
        for column, other in enumerate(names):
            place = f'x="{left + cell * column}" y="{up}" width="{cell - 1}" height="{cell - 1}"'
            if row == column:
                parts.append(f'<rect {place} fill="#eee"/>')
                continue
            share = shares.get((name, other), shares.get((other, name), 0.0))
            parts.append(f'<rect {place} fill="{_shade(share)}"/>')
            if share >= 0.005:
                middle = f'x="{left + cell * column + 16}" y="{up + 21}" text-anchor="middle"'
                light = ' style="fill:#fff"' if share > 0.5 else ""
                parts.append(f"<text {middle}{light}>{100 * share:.0f}</text>")
    return image("".join(parts), described, width, height)


def image(drawn: str, described: str, width: int, height: int) -> str:
    """An SVG as a Markdown image that needs no file."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f'{_STYLE}<rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>'
    )
    return f"![{described}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def axis_step(most: int) -> int:
    """A round number that divides an axis up to ``most`` into at most five parts."""
    if most <= 5:
        return 1
    size = 10 ** floor(log10(most / 5))
    return next(size * n for n in (1, 2, 5, 10) if most / (size * n) <= 5)


def _shade(share: float) -> str:
    """White for nothing, dark blue for everything."""
    white, blue = (247, 250, 253), (8, 69, 148)
    mixed = (round(a + (b - a) * min(max(share, 0.0), 1.0)) for a, b in zip(white, blue, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _text(name: str, most: int) -> str:
    return escape(name if len(name) <= most else f"{name[: most - 1]}…")
