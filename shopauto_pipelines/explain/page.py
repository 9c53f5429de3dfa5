"""Explanations to be read: as a page of its own, light or dark, and in short as Markdown for the UI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from shopauto_pipelines.explain.telling import MARKS, Explanation, Overview, Part, Row, Step, shown
from shopauto_pipelines.segments.why import code

#: Steps that are unfolded where nothing refused: what most want to see first.
_OPEN = ("outcome", "trigger", "scores")

#: Steps that a short explanation leaves out: always, and where nothing is planned.
_LONG, _OF_PLANNED = ("outcome", "rows", "versions"), ("hour", "outbox", "offer")


def page(told: Sequence[Explanation], title: str, about: str = "") -> str:
    """A page of explanations that needs no other file; with a list of them in front where there are several."""
    index = ""
    if len(told) > 1:
        lines = [
            f'<li>{_badge(each)} <a href="#e{n}">{_name(each)}</a> <span>{escape(each.headline)}</span></li>'
            for n, each in enumerate(told)
        ]
        index = f'<ul class="index">{"".join(lines)}</ul>'
    articles = "".join(_article(each, n) for n, each in enumerate(told))
    return _framed(title, about, f"{index}{articles}")


def overview_page(told: Overview, title: str, about: str = "") -> str:
    """What all campaigns say to a person, as a page."""
    parts = []
    for heading, standings in (("Due that day", told.reached), ("Not due", told.others)):
        lines = [
            f'<li><i class="{each.mark}">{MARKS[each.mark]}</i><div><b>{escape(each.campaign)}</b> {escape(each.step or "")} '
            f"<span>{escape(each.text)}</span></div></li>"
            for each in standings
        ]
        if lines:
            parts.append(f"<section><h3>{heading}</h3><ul class='parts'>{''.join(lines)}</ul></section>")
    return _framed(title, about, f"<article>{''.join(parts)}</article>")


def markdown(told: Sequence[Explanation]) -> str:
    """Each explanation in short: the answer, every step in a line, and what decided with the values it rests on."""
    return "\n\n".join(_short(each) for each in told)


def _short(each: Explanation) -> str:
    name = f"{code(each.customer_id)}, **{each.campaign}** / {each.step}"
    lines = [f"{MARKS[each.mark]} {name}: {escape(each.headline, quote=False)}", ""]
    for step in each.steps:
        if step.key in _LONG or not step.asked or (step.key in _OF_PLANNED and each.decision != "planned"):
            continue
        ended = " **decided here**" if step.decided and step.mark == "no" else ""
        lines.append(f"- {_mark(step)}{step.title}: {escape(step.text, quote=False)}{ended}")
        if step.decided or step.key == "trigger":
            lines += [f"  - {escape(row.place, quote=False)}" for row in step.rows[:2]]
        if step.decided:
            for part in step.parts:
                for depth, line in part.lines(1):
                    aside = f": {escape(line.aside, quote=False)}" if line.aside else ""
                    lines.append(f"{'  ' * depth}- {_mark(line)}{escape(line.text, quote=False)}{aside}")
    return "\n".join(lines)


def _mark(said: Step | Part) -> str:
    """The mark before what is said in a list, which has dots of its own."""
    return "" if said.mark == "fact" else f"{MARKS[said.mark]} "


def _name(each: Explanation) -> str:
    return f"{escape(each.customer_id)} · {escape(each.campaign)} / {escape(each.step)}"


def _badge(each: Explanation) -> str:
    words = "not in the ledger" if each.decision == "planned" else "not sent"
    return f'<em class="{each.mark}">{escape(each.state or words)}</em>'


def _article(each: Explanation, number: int) -> str:
    occasion = f" · occasion {escape(each.occasion)}" if each.occasion else ""
    head = (
        f'<header>{_badge(each)}<h2 id="e{number}">{_name(each)}</h2>'
        f"<p class='where'>as of {each.as_of}{occasion}</p><p class='answer'>{escape(each.headline)}</p></header>"
    )
    return f"<article>{head}<ol>{''.join(_step(step) for step in each.steps)}</ol></article>"


def _step(step: Step) -> str:
    opened = step.decided or step.mark == "no" or step.key in _OPEN
    decided = step.decided and step.mark == "no"
    said = "<strong>decided here</strong>" if decided else "" if step.asked else "<small>not asked</small>"
    inside = _parts(step.parts) + _table(step.rows)
    head = f"<h3>{escape(step.title)}</h3> <span>{_words(step.text)}</span>{said}"
    body = (
        f"<details{' open' if opened else ''}><summary>{head}</summary>{inside}</details>"
        if inside
        else f"<div class='single'>{head}</div>"
    )
    return f'<li class="step{" decided" if decided else ""}"><i class="{step.mark}">{MARKS[step.mark]}</i>{body}</li>'


def _parts(parts: Sequence[Part]) -> str:
    if not parts:
        return ""
    widest = max((abs(part.change) for part in parts if part.change), default=0.0)
    return f'<ul class="parts">{"".join(_part(part, widest) for part in parts)}</ul>'


def _part(part: Part, widest: float) -> str:
    aside = f" <small>{_words(part.aside)}</small>" if part.aside else ""
    inside = _parts(part.parts) + _table(part.rows)
    if part.change is not None and widest:
        share = 50 * abs(part.change) / widest
        side = f"left:50%;width:{share:.1f}%" if part.change > 0 else f"right:50%;width:{share:.1f}%"
        bar = f'<span class="bar"><b class="{"up" if part.change > 0 else "down"}" style="{side}"></b></span>'
        fold = (
            f"<details><summary>{escape(part.text)}{bar}</summary>{inside}</details>" if inside else escape(part.text)
        )
        return f'<li class="moved"><div>{fold}</div></li>'
    return f'<li><i class="{part.mark}">{MARKS[part.mark]}</i><div>{_words(part.text)}{aside}{inside}</div></li>'


def _words(text: str) -> str:
    """Text with what stands between backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


_CODE = re.compile(r"`([^`]+)`")


def _table(rows: Sequence[Row]) -> str:
    """Rows of files, those of a table below each other."""
    tables = []
    for name in dict.fromkeys(row.table for row in rows):
        mine = [row for row in rows if row.table == name]
        columns = list(dict.fromkeys(column for row in mine for column in row.values))
        head = "".join(f"<th>{escape(column)}</th>" for column in ("file", "row", *columns))
        lines = "".join(
            f"<tr><td title='source {escape(row.source, quote=True)}'>{escape(row.file)}</td><td>{row.number}</td>"
            + "".join(f"<td>{escape(shown(row.values[c])) if c in row.values else ''}</td>" for c in columns)
            + "</tr>"
            for row in mine
        )
        tables.append(
            f"<div class='rows'><table><caption>{escape(name)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{lines}</tbody></table></div>"
        )
    return "".join(tables)


def _framed(title: str, about: str, inside: str) -> str:
    said = f"<p class='about'>{escape(about)}</p>" if about else ""
    return _PAGE.replace("{title}", escape(title)).replace("{about}", said).replace("{inside}", inside)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
:root { --ink: #1d2024; --soft: #636b74; --line: #dfe3e8; --paper: #f6f7f9; --card: #fff; --yes: #15803d; --no: #c02626;
  --unknown: #a16207; --fact: #8a929b; --up: #d97706; --down: #2563eb; --tint: #fdf2f2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ad; --line: #30363d; --paper: #111417; --card: #1a1e23;
  --yes: #4ade80; --no: #f87171; --unknown: #facc15; --fact: #7b848e; --up: #fbbf24; --down: #60a5fa; --tint: #2a1c1e; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--paper); margin: 0; padding: 32px 20px 64px; }
main { max-width: 940px; margin: 0 auto; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 0; } h3 { font-size: 15px; margin: 0; display: inline; }
section + section { margin-top: 18px; } .about { color: var(--soft); margin: 0 0 20px; } a { color: inherit; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px 26px 12px; margin: 20px 0; }
header { position: relative; padding-bottom: 14px; border-bottom: 1px solid var(--line); }
.where { color: var(--soft); margin: 2px 0 10px; } .answer { font-size: 17px; margin: 0; }
em { font-style: normal; font-size: 12px; font-weight: 600; border: 1px solid currentColor; border-radius: 99px;
  padding: 2px 10px; } code { font: 13px ui-monospace, Menlo, Consolas, monospace; }
header em { float: right; } .yes { color: var(--yes); } .no { color: var(--no); }
.unknown { color: var(--unknown); } .fact { color: var(--fact); }
i { font-style: normal; font-weight: 700; }
ol, ul { list-style: none; margin: 0; padding: 0; }
.index { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 20px; }
.index li { padding: 5px 0; } .index span, summary > span, .single > span, .parts span { color: var(--soft); }
.step { display: flex; gap: 14px; padding: 11px 0; border-bottom: 1px solid var(--line); } .step:last-child { border: 0; }
.step > i { width: 18px; flex: none; text-align: center; } .step > details, .step > div { flex: 1; min-width: 0; }
.decided { background: var(--tint); margin: 0 -26px; padding: 11px 26px; }
strong { color: var(--no); font-size: 12px; margin-left: 8px; white-space: nowrap; }
summary { cursor: pointer; list-style: none; } summary::-webkit-details-marker { display: none; }
.step > details > summary::after { content: "▸"; float: right; color: var(--fact); }
.step > details[open] > summary::after { content: "▾"; }
.parts { margin: 6px 0 2px; } .parts .parts { margin: 2px 0; }
.parts > li { display: flex; gap: 8px; padding: 2px 0; } .parts > li > i { flex: none; width: 16px; text-align: center; }
.parts > li > div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
small { color: var(--soft); font-size: 13px; margin-left: 6px; }
.moved summary { display: flex; align-items: center; gap: 12px; } .moved { padding-left: 24px !important; }
.moved summary::before { content: "▸"; color: var(--fact); font-size: 12px; }
.moved details[open] > summary::before { content: "▾"; }
.bar { position: relative; margin-left: auto; flex: none; width: 220px; height: 12px; border-radius: 3px; background:
  linear-gradient(var(--fact), var(--fact)) center / 1px 100% no-repeat, color-mix(in srgb, var(--line) 55%, transparent); }
.bar b { position: absolute; top: 1px; bottom: 1px; border-radius: 2px; }
.up { background: var(--up); } .down { background: var(--down); }
.rows { overflow-x: auto; margin: 6px 0 8px; } table { border-collapse: collapse; font-size: 13px; }
caption { text-align: left; color: var(--soft); padding-bottom: 2px; }
th { text-align: left; font-weight: 600; color: var(--soft); } th, td { padding: 3px 14px 3px 0; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
td:first-child, td:nth-child(2) { font-family: ui-monospace, Menlo, Consolas, monospace; }
@media (max-width: 640px) { .bar { width: 110px; } article { padding: 18px 16px 8px; }
  .decided { margin: 0 -16px; padding: 11px 16px; } }
</style></head><body><main><h1>{title}</h1>{about}{inside}</main></body></html>
"""
