"""A replay as a page that needs nothing else: figures, plots, both versions side by side, in light and in dark.

The same result gives the same bytes. Customer ids and figures of groups; nothing private.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from html import escape
from math import ceil

from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.replay import words
from shopauto_pipelines.replay.result import Outcome, Replay
from shopauto_pipelines.segments.pictures import axis_step

#: Messages of one version only that the page lists, of each version.
_LISTED = 20

#: Share of its size to which a plot over time shrinks on a small screen: its words stay readable, and it scrolls.
_SMALLEST = 0.6

#: Up to so many days each has a bar of its own over time; beyond, each week.
_DAYS_AS_BARS = 120

#: Lines of a plot of bars.
_BARS = 12

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1d20; --soft: #5d6470; --line: #e3e5e8; --back: #ffffff; --panel: #f6f7f8;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7; --s4: #b98500; --s5: #4a9fd0; --s6: #7f7f7f; --s7: #444444; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3abb8; --line: #33383f; --back: #15181c; --panel: #1d2126;
  --s0: #56b4e9; --s1: #f0884a; --s2: #35c79b; --s3: #dd9dc2; --s4: #e6b422; --s5: #8fd0f5; --s6: #a9a9a9; --s7: #d5d5d5; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--back); max-width: 1180px; margin: 32px auto; padding: 0 24px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 36px 0 10px; } h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 4px 0; color: var(--soft); max-width: 860px; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 20px; }
.panel { background: var(--panel); border-radius: 10px; padding: 16px 18px; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 14px 20px; }
.tiles b { display: block; font-size: 24px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 13px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } svg .grid { stroke: var(--line); }
.bars { list-style: none; margin: 0; padding: 0; font-size: 13px; line-height: 1.35; } .bars li { margin: 0 0 10px; }
.bars div { display: flex; justify-content: space-between; gap: 4px 16px; }
.bars em { font-style: normal; color: var(--soft); text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bars i { display: block; height: 8px; border-radius: 2px; } .bars li > i { background: var(--line); margin-top: 4px; }
.bars i i { background: var(--s0); min-width: 1px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); margin: 0 0 10px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.wide { overflow-x: auto; } .panel table { min-width: 420px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; } .number, .day { white-space: nowrap; } td.in { padding-left: 20px; color: var(--soft); }
td.top { font-weight: 600; }
.note { background: var(--panel); border-left: 3px solid var(--s1); padding: 6px 14px; margin: 10px 0; }
@media (max-width: 600px) { body { font-size: 14px; padding: 0 14px; } th, td { padding-right: 8px; } .panel { padding: 14px; } }
"""


def page(replay: Replay) -> str:
    """The page."""
    days = f"{replay.days[0]} to {replay.days[-1]}, {words.counted(len(replay.days), 'day')}"
    about = [replay.description, *words.notes(replay)]
    parts = [
        f"<h1>{escape(replay.campaign)}, replayed</h1><p>{days}</p>",
        *(f"<p>{escape(text)}</p>" for text in about),
        _sides(replay, _tiles),
        f"<h2>Messages over time</h2>{_key(replay)}",
        _sides(replay, _over_time),
        "<h2>What it would have done</h2>",
        _figures(replay),
        "<h2>Messages that were due and not planned, and why</h2>",
        _sides(replay, _refusals),
        f"<h2>Whom it reaches</h2><p>{_scale(replay)}</p>",
        _sides(replay, _reach),
        f"<h2>What people did within {replay.within_days} days</h2>",
        f'<div class="note">{"".join(f"<p>{escape(text)}</p>" for text in words.notes_on_aftermath(replay))}</div>',
        _aftermath(replay),
        _difference(replay),
    ]
    title = f"{replay.campaign}, replayed from {replay.days[0]} to {replay.days[-1]}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _sides(replay: Replay, draw: Callable[[Replay, Outcome], str]) -> str:
    """A panel for each version, beside each other."""
    head = "<h3>{}</h3>" if len(replay.outcomes) > 1 else ""
    panels = (f'<div class="panel">{head.format(escape(o.version))}{draw(replay, o)}</div>' for o in replay.outcomes)
    return f'<div class="sides">{"".join(panels)}</div>'


def _tiles(replay: Replay, outcome: Outcome) -> str:
    tiles = [
        (f"{outcome.messages:,}", "messages"),
        (f"{outcome.people:,}", "people"),
        (f"{outcome.capped.met:,}", "messages met a cap"),
        (f"{outcome.held_out:,}", "people held out"),
        (f"{sum(one.offers for one in outcome.offers):,}", "offers"),
    ]
    offers = sum(one.at_most_cents for one in outcome.offers)
    if outcome.message_cents is not None:
        tiles.append((_money(outcome.message_cents + offers), f"cost, {replay.currency} at most"))
    elif outcome.offers:
        tiles.append((_money(offers), f"cost of the offers, {replay.currency} at most"))
    return f'<div class="tiles">{"".join(f"<div><b>{number}</b><span>{name}</span></div>" for number, name in tiles)}</div>'


def _key(replay: Replay) -> str:
    """Which colour is which step."""
    named = enumerate(replay.steps)
    return f'<div class="key">{"".join(f"<span>{_swatch(n)}{escape(step)}</span>" for n, step in named)}</div>'


def _swatch(number: int) -> str:
    return f'<i style="background:var(--s{number % 8})"></i>'


def _over_time(replay: Replay, outcome: Outcome) -> str:
    """Messages of each day, or of each week of a long time, a bar with a part for each step; all versions to the same scale."""
    width, height, left, right, top, bottom = 520 if replay.difference else 1060, 220, 40, 8, 10, 26
    first, last = replay.days[0], replay.days[-1]
    length = 1 if (last - first).days < _DAYS_AS_BARS else 7
    every = [first + timedelta(days=n) for n in range(0, (last - first).days + 1, length)]
    bars = {each.version: _in_bars(each, first, length) for each in replay.outcomes}
    heights = [sum(counts[n, name] for name in replay.steps) for counts in bars.values() for n in range(len(every))]
    tallest = max(heights, default=0)
    step = axis_step(tallest)
    most = step * max(1, ceil(tallest / step))
    slot = (width - left - right) / len(every)

    def y(number: int) -> float:
        return height - bottom - (height - top - bottom) * number / most

    parts = []
    for number in range(0, most + 1, step):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(number):.1f}" y2="{y(number):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(number) + 4:.1f}" text-anchor="end">{number:,}</text>')
    labelled = every[:: max(1, ceil(len(every) / (width // 85)))]
    for n, day in enumerate(every):
        at, sofar = left + slot * n, 0
        for place, name in enumerate(replay.steps):
            if count := bars[outcome.version][n, name]:
                up, down = y(sofar + count), y(sofar)
                shape = f'x="{at + slot * 0.1:.1f}" y="{up:.1f}" width="{slot * 0.8:.1f}" height="{down - up:.1f}"'
                told = f"{day if length == 1 else f'week from {day}'}, {escape(name)}: {count:,}"
                parts.append(f'<rect {shape} fill="var(--s{place % 8})"><title>{told}</title></rect>')
                sofar += count
        if day in labelled:
            middle = min(max(at + slot / 2, 20), width - 20)
            parts.append(f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{day:%d %b}</text>')
    drawn = _svg(parts, width, height, f"messages planned {'on each day' if length == 1 else 'in each week'}, by step")
    return f'<div class="wide"><div style="min-width: {round(width * _SMALLEST)}px">{drawn}</div></div>'


def _in_bars(outcome: Outcome, first: date, length: int) -> Counter[tuple[int, str]]:
    """Messages by bar of so many days, counted from 0, and step."""
    found: Counter[tuple[int, str]] = Counter()
    for one in outcome.by_day:
        found[(one.day - first).days // length, one.step] += one.messages
    return found


def _refusals(replay: Replay, outcome: Outcome) -> str:
    most = max((one.messages for each in replay.outcomes for one in each.refusals), default=0)
    rows = [
        (REASONS.get(one.reason, one.reason), one.messages / most, f"{one.messages:,}")
        for one in outcome.refusals
        if one.messages
    ]
    return _bars(rows, "messages that were not planned, by reason")


def _scale(replay: Replay) -> str:
    """What the bars of :func:`_reach` show."""
    most = max((max(shares) for *_, shares in words.reach(replay, _BARS)), default=0.0)
    return f"Of each segment's members, those with a message on a day on which they were in it. The longest bar is {most:.1%}."


def _reach(replay: Replay, outcome: Outcome) -> str:
    place = replay.outcomes.index(outcome)
    lines = words.reach(replay, _BARS)
    most = max((max(shares) for *_, shares in lines), default=0.0)
    rows = [
        (name, shares[place] / most if most else 0.0, f"{people[place]:,} of {members:,} · {shares[place]:.1%}")
        for name, members, people, shares in lines
    ]
    return _bars(rows, "share of each segment that is reached")


def _bars(rows: Sequence[tuple[str, float, str]], described: str) -> str:
    """Lines with a name, a bar (0 to 1) below it, and what it says; as wide as the panel, and names wrap."""
    if not rows:
        return "<p>None.</p>"
    lines = (
        f"<li><div><span>{escape(name)}</span><em>{escape(told)}</em></div>"
        f'<i><i style="width: {100 * share:.1f}%"></i></i></li>'
        for name, share, told in rows
    )
    return f'<ul class="bars" aria-label="{escape(described)}">{"".join(lines)}</ul>'


def _figures(replay: Replay) -> str:
    several = len(replay.outcomes) > 1
    heads = [
        "",
        *([o.version for o in replay.outcomes] if several else ["as declared"]),
        *(["difference"] if several else []),
    ]
    rows = []
    for figure in words.figures(replay):
        cells = [*figure.values, *([figure.more] if several else [])]
        label = f'<td class="{"in" if figure.level else "top"}">{escape(figure.label)}</td>'
        rows.append(label + "".join(f'<td class="number">{cell}</td>' for cell in cells))
    return _table(heads, rows, numbers_from=1)


def _aftermath(replay: Replay) -> str:
    heads = ["version", "after", "who", "count", "ordered", "orders", f"{replay.currency} each"]
    skip = 0 if len(replay.outcomes) > 1 else 1
    rows = []
    for line in words.aftermath(replay):
        cells = line[skip:]
        rows.append(
            "".join(
                f"<td{' class=number' if n >= 3 - skip else ''}>{escape(cell)}</td>" for n, cell in enumerate(cells)
            )
        )
    return _table(heads[skip:], rows, numbers_from=3 - skip) if rows else "<p>Nobody got a message.</p>"


def _difference(replay: Replay) -> str:
    difference = replay.difference
    if difference is None:
        return ""
    only = ", ".join(f"{count:,} only {version}" for version, count in difference.people_only.items())
    parts = [f"<h2>Who gets it in one version only</h2><p>{difference.people_in_both:,} people in both, {only}.</p>"]
    parts.append('<div class="sides">')
    for version, count in difference.messages_only.items():
        named, further = difference.only(version, _LISTED)
        rows = [
            f"<td>{escape(one.customer_id)}</td><td>{escape(one.step)}</td><td class=day>{one.day}</td>"
            f"<td>{escape(words.instead(one.instead))}</td>"
            for one in named
        ]
        more = f"<p>… and {words.counted(further, 'more message')}.</p>" if named and further else ""
        nobody = words.UNNAMED if difference.named is None and count else "Nobody."
        table = _table(["customer", "step", "day", "in the other version"], rows) if rows else f"<p>{nobody}</p>"
        parts.append(
            f'<div class="panel"><h3>Only {escape(version)}: {words.counted(count, "message")}</h3>{table}{more}</div>'
        )
    return "".join(parts) + "</div>"


def _table(heads: Sequence[str], rows: Iterable[str], numbers_from: int = 99) -> str:
    names = "".join(f"<th{' class=number' if n >= numbers_from else ''}>{escape(h)}</th>" for n, h in enumerate(heads))
    return f'<div class="wide"><table><tr>{names}</tr>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'


def _svg(parts: Iterable[str], width: int, height: int, described: str) -> str:
    told = f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(described)}"'
    return f"<svg {told}>{''.join(parts)}</svg>"


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"
