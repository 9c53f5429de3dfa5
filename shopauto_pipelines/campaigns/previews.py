"""What messages would look like and who would get them, shown before anything is sent: for the command line and the UI.

Nothing here plans or sends. Pictures need no browser on this machine: an SVG holds the message's own HTML, and whoever looks
at it lays it out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from html import escape
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from shopauto_pipelines.campaigns import audience as logic
from shopauto_pipelines.campaigns import content, tables
from shopauto_pipelines.campaigns.content import EXAMPLE_LINKS, Rendered, Renderer
from shopauto_pipelines.campaigns.declaration import Campaign, Step
from shopauto_pipelines.campaigns.planner import REASONS, SCHEMAS
from shopauto_pipelines.campaigns.shown import Reader, showing
from shopauto_pipelines.campaigns.sms import segments
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, LakeTable, MissingPartition
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import CONSENT, CUSTOMERS, IDENTITIES


@dataclass(frozen=True)
class Preview:
    """A message as somebody would get it. ``decision`` and ``reason`` are the planner's; ``why`` says it in words.

    ``decision`` is none where the trigger has not made the step due.
    """

    step: str
    language: str
    rendered: Rendered
    decision: str | None = None
    reason: str | None = None
    why: str = ""
    explanation: Mapping[str, Any] = field(default_factory=dict)


def examples(campaign: Campaign, settings: Settings, languages: Sequence[str] = ()) -> list[Preview]:
    """Every message, in the given languages or in all, as a person who does not exist would get it."""
    rendered = content.previews(campaign, settings, languages)
    return [Preview(step, language, message) for (step, language), message in rendered.items()]


def newest_day(lake: Lake) -> date | None:
    """The newest day of which people are known; ``None`` where there is none."""
    return max(lake.days(CUSTOMER_360), default=None)


def somebody(lake: Lake, campaign: Campaign, day: date, step: str | None = None) -> str | None:
    """Somebody to show the campaign by: the first of those who get a message on the day, else of those who do not.

    Where it reached nobody, the first of all who agreed to messages; ``None`` where there is nobody.
    """
    found = []
    if day in lake.days(tables.audience(campaign.name)):
        reached = lake.on(tables.audience(campaign.name), day)
        reached = reached.filter(_.step == step) if step else reached
        found.append(reached.order_by(_.decision.asc(), _.customer_id.asc()))
    agreed = lake.on(CONSENT, day).filter(_.state == "opted_in").semi_join(lake.on(CUSTOMERS, day), "customer_id")
    found.append(agreed.order_by(_.customer_id.asc()))
    for rows in found:
        for row in lake.con.to_pyarrow(rows.limit(1).select("customer_id")).to_pylist():
            return str(row["customer_id"])
    return None


def person_of(lake: Lake, day: date, wanted: str) -> str | None:
    """The person with this id, or whom one of the shop's own customer ids belongs to; ``None`` where nobody is known."""
    known = lake.on(IDENTITIES, day)
    found = known.filter((_.customer_id == wanted) | (_.shop_customer_id == wanted)).select("customer_id").distinct()
    rows = lake.con.to_pyarrow(found.order_by("customer_id").limit(1)).to_pylist()
    return rows[0]["customer_id"] if rows else None


def of_person(
    lake: Lake,
    settings: Settings,
    campaign: Campaign,
    customer_id: str,
    day: date,
    steps: Sequence[str] = (),
    language: str | None = None,
) -> list[Preview]:
    """The messages of a person as of the day, and what the planner says to each.

    Where the trigger has not reached them for a step, it says what would be, had it reached them so that the step is due.
    Raises ``MissingPartition`` where the day has not been computed.
    """
    table = tables.audience(campaign.name)
    planned = day in lake.days(table)
    decided = {row["step"]: row for row in _rows(lake, lake.on(table, day), customer_id)} if planned else {}
    wanted = [step for step in campaign.steps if not steps or step.name in steps]
    renderer = Renderer(campaign, settings)
    person = Lookup(lake, CUSTOMERS, day).rows([customer_id])[customer_id]
    show = showing(campaign, lake, day, renderer)
    found = []
    for step in wanted:
        row = decided.get(step.name) or supposed(lake, settings, campaign, step, customer_id, day)
        written = campaign.language(step.name, language or person["language"], settings.language)
        explained = json.loads(row.get("explanation", "{}"))
        as_written = campaign.found(step.name, explained.get("variant"))
        if as_written is None:  # its variant is not declared any more: as the step is now
            as_written, explained["variant"] = step, None
        told = json.dumps(explained | _offer(as_written, row, day))
        shown = show.of([Reader(customer_id, written, told, step.name)])[0]
        reason = row.get("reason")
        why = _why(campaign, day, reason, planned=planned, reached=step.name in decided)
        if campaign.is_realtime:
            shown = content.example(renderer, campaign, step, written)
            why += ". Cart and offer are examples: they are known when the message is sent"
        rendered = renderer.render(step.name, written, person, EXAMPLE_LINKS, *shown)
        found.append(
            Preview(
                step.name,
                written,
                rendered,
                decided.get(step.name, {}).get("decision"),
                reason,
                why,
                json.loads(told),
            )
        )
    return found


def _offer(step: Step, row: Mapping[str, Any], day: date) -> dict[str, Any]:
    """The offer that was decided for a person; its code is made when the message is put into the ledger, the day after."""
    decided = json.loads(row.get("offer") or "{}")
    if not step.offer or decided.get("kind", "none") == "none":
        return {}
    ends = day + timedelta(days=1 + step.offer.valid_days)
    return {"offer": {**decided, "code": "CODE-OF-THEIR-OWN", "expires_on": ends.isoformat()}}


def _why(campaign: Campaign, day: date, reason: str | None, *, planned: bool, reached: bool) -> str:
    meaning = REASONS.get(reason or "", "")
    if reached:
        return f"As of {day}: {meaning}"
    why = f"The trigger {campaign.trigger} has not made this step due as of {day}"
    if not planned:
        why = f"{tables.audience(campaign.name).name} has not been computed for {day}"
    return f"{why}. Were the step due: {meaning}" if meaning else why


def _rows(lake: Lake, rows: ir.Table, customer_id: str) -> list[dict[str, Any]]:
    """What was decided on a person, the latest occasion of each step last."""
    mine = rows.filter(_.customer_id == customer_id).order_by("step", "triggered_on", "occasion")
    return lake.con.to_pyarrow(mine.select(tables.audience("any").schema.names)).to_pylist()


def supposed(
    lake: Lake, settings: Settings, campaign: Campaign, step: Step, customer_id: str, day: date
) -> Mapping[str, Any]:
    """What the planner says of a step, had the trigger reached the person on just the day that makes it due.

    Columns of the audience; empty for a campaign about carts: there would have to be a cart. Other messages of the day are
    left out of account, and so is the exit ``left_segment``: whoever had entered the segment would be in it.
    """
    if campaign.is_realtime:
        return {}
    reached = {
        "customer_id": customer_id,
        "occasion": "supposed",
        "triggered_on": day - timedelta(days=step.wait_days or 0),
    }
    triggered = pa.Table.from_pylist([reached], SCHEMAS["triggers"].to_pyarrow())
    sources = logic.Sources({table.name: LakeTable(lake, table) for table in logic.reads(campaign)})
    alone = settings.model_copy(update={"cap_day_messages": 100})
    exits = tuple(name for name in campaign.exit_on if name != "left_segment")
    campaign = campaign.model_copy(update={"exit_on": exits})
    try:
        rows = logic.audience(campaign, sources, alone, day, triggered=triggered)
    except MissingPartition:  # a table that only this campaign asks for
        return {}
    return next((row for row in _rows(lake, rows, customer_id) if row["step"] == step.name), {})


def page(campaign: Campaign, previews: Sequence[Preview], about: str = "", stamp: str = "") -> str:
    """A page with the messages at the width of a phone and of a desktop, light or dark, and their text parts."""
    sections = []
    for step, of_step in groupby(previews, key=lambda preview: preview.step):
        folds = [_fold(preview, opened=n == 0) for n, preview in enumerate(of_step)]
        sections.append(f"<section><h2>{escape(step)}</h2>{''.join(folds)}</section>")
    return _PAGE.format(
        stamp=stamp,
        title=escape(campaign.name),
        description=escape(campaign.description),
        about=f"<p>{escape(about)}</p>" if about else "",
        sections="".join(sections),
        never=_NEVER,
        always=_ALWAYS,
    )


def _fold(preview: Preview, opened: bool) -> str:
    message = preview.rendered
    frame = '<iframe loading="lazy" sandbox="allow-popups" title="{0}" class="{0}"{1}></iframe>'
    html = escape(message.html.replace(_DARK, _NEVER), quote=True)
    both = frame.format("phone", f' srcdoc="{html}"') + frame.format("desktop", "")
    frames = f"<div class='frames'>{both}</div>" if message.html else ""
    why = f"<p class='why'><b>{escape(preview.reason or '')}</b> {escape(preview.why)}</p>" if preview.why else ""
    return (
        f"<details{' open' if opened else ''}><summary><i>{escape(preview.language)}</i> "
        f"{escape(_headline(message))}</summary>{why}{frames}"
        f"<details{'' if message.html else ' open'}><summary>Text part</summary><pre>{escape(message.text)}</pre></details>"
        "</details>"
    )


#: What makes a message dark where its reader wants that; on the page a box is ticked for it.
_DARK, _NEVER, _ALWAYS = "@media (prefers-color-scheme: dark)", "@media not all", "@media all"

_PAGE = """<!doctype html>{stamp}
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; color: #1b1d20;
  max-width: 1290px; margin: 32px auto; padding: 0 24px; }}
h1 {{ font-size: 26px; margin: 0; }} h2 {{ font-size: 18px; margin: 32px 0 8px; }} p {{ margin: 6px 0; color: #555; }}
label {{ float: right; }} summary {{ cursor: pointer; padding: 6px 0; }}
i {{ color: #777; font-style: normal; padding-right: 8px; }}
.frames {{ display: flex; gap: 24px; overflow-x: auto; padding: 8px 0; }}
iframe {{ border: 1px solid #ddd; border-radius: 12px; height: 760px; flex: none; }}
.phone {{ width: 390px; }} .desktop {{ width: 800px; }}
pre {{ background: #f6f6f4; padding: 16px; border-radius: 8px; white-space: pre-wrap; }} .why b {{ color: #1f5f4a; }}
</style></head><body>
<label><input type="checkbox" id="dark"> dark</label>
<h1>{title}</h1><p>{description}</p>{about}
{sections}
<script>
const frames = [...document.querySelectorAll(".frames")];
const fill = (from, to) => frames.forEach(both => {{
  const [phone, desktop] = both.children;
  desktop.srcdoc = phone.srcdoc = phone.srcdoc.replaceAll(from, to);
}});
const light = "{never}", dark = "{always}";
fill(light, light);
document.getElementById("dark").onchange = box => box.target.checked ? fill(light, dark) : fill(dark, light);
</script>
</body></html>
"""


def markdown(previews: Sequence[Preview]) -> str:
    """The messages as Markdown: every text, and e-mails side by side as pictures of a phone; an SMS is text alone.

    The pictures stand last: the UI shows the end of a long text first.
    """
    told = []
    for preview in previews:
        head = f"**{preview.step}** ({preview.language}): {_headline(preview.rendered)}"
        text = "\n".join(fill(line, _COLUMNS) for line in preview.rendered.text.rstrip().split("\n"))
        told.append(f"{head}\n\n```\n{text}\n```")
    drawn = [preview for preview in previews if preview.rendered.html]
    for row in (drawn[n : n + _IN_A_ROW] for n in range(0, len(drawn), _IN_A_ROW)):
        heads = [f"**{preview.step}**: {preview.rendered.subject.replace('|', '&#124;')}" for preview in row]
        height = max(_height(preview.rendered) for preview in row)
        pictures = [picture(preview.rendered, preview.step, height) for preview in row]
        told.append("\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(row), pictures)))
    return "\n\n".join(told)


#: Pictures beside each other, and characters of a line.
_IN_A_ROW, _COLUMNS = 3, 100


def _headline(message: Rendered) -> str:
    """The subject of an e-mail, the length of an SMS."""
    return message.subject or f"{segments(message.text)} SMS"


#: Width of a phone and of its picture; pixels for a line of text, around a block, and for what every message has.
_PHONE, _WIDTH, _LINE, _GAP, _FIXED = 390, 350, 26, 18, 180


def _height(message: Rendered) -> int:
    """About how tall a message is on a phone, reckoned from its text part."""
    lines = [line.partition("http")[0] for line in message.text.splitlines() if line.strip()]
    return _FIXED + sum(_LINE * -(-len(line) // 44) + _GAP for line in lines)


def picture(message: Rendered, described: str, height: int) -> str:
    """A message as a Markdown image, as a phone of that ``height`` shows it."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_PHONE} {height}"'
        f' width="{_WIDTH}" height="{height * _WIDTH // _PHONE}">'
        f'<foreignObject width="{_PHONE}" height="{height}">{_Xhtml.of(message.html)}</foreignObject></svg>'
    )
    return f"![{described}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


_SPACE = re.compile(r"\s+")


class _Xhtml(HTMLParser):
    """HTML as XML, which an SVG takes: closed tags, quoted attributes, no comments, nothing that a picture does not show."""

    _VOID = frozenset(("area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []

    @classmethod
    def of(cls, html: str) -> str:
        """The element ``html`` with its namespace."""
        reader = cls()
        reader.feed(html)
        reader.close()
        return "".join(reader._parts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "link"):
            return
        said = {name: value or "" for name, value in attrs if ":" not in name}
        if tag in ("html", "body"):
            said["style"] = f"height:100%;margin:0;{said.get('style', '')}"
        if tag == "html":
            said["xmlns"] = "http://www.w3.org/1999/xhtml"
        told = "".join(f' {name}="{escape(value)}"' for name, value in said.items())
        self._parts.append(f"<{tag}{told}{'/' if tag in self._VOID else ''}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self._parts.append(f"</{tag}>")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            self._parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self._parts.append(escape(_SPACE.sub(" ", data), quote=False))


@dataclass(frozen=True)
class Kept:
    """What the UI shows of a campaign's messages: Markdown, and the page in all languages."""

    markdown: str
    page: Path


def kept(campaign: Campaign, settings: Settings) -> Kept:
    """The messages as a person who does not exist would get them, under ``home``; made anew where anything has changed.

    Raises :class:`~.content.ContentError` where one cannot be rendered.
    """
    folder = settings.home / "previews"
    file, told, stamp = folder / f"{campaign.name}.html", folder / f"{campaign.name}.md", _stamp(campaign, settings)
    if not (file.is_file() and told.is_file() and stamp in file.read_text(encoding="utf-8")[:200]):
        previews = examples(campaign, settings)
        folder.mkdir(parents=True, exist_ok=True)
        first = [next(of_step) for _name, of_step in groupby(previews, key=lambda preview: preview.step)]
        told.write_text(markdown(first), encoding="utf-8")
        file.write_text(page(campaign, previews, stamp=stamp), encoding="utf-8")
    return Kept(told.read_text(encoding="utf-8"), file)


def _stamp(campaign: Campaign, settings: Settings) -> str:
    """A comment that is another one when the declaration, a template, a text, a setting or this module has changed."""
    files = [file for folder in (campaign.folder, campaign.folder.parent) for file in folder.glob("*.*")]
    files += [file for folder in (campaign.folder, campaign.folder.parent) for file in folder.glob("texts/*.yaml")]
    said = [f"{file.name} {file.stat().st_mtime_ns}" for file in sorted(files)]
    said += [str(getattr(settings, name)) for name in _SHOWN_SETTINGS]
    said.append(str(Path(__file__).stat().st_mtime_ns))
    return f"<!-- {hashlib.sha256(' '.join(said).encode()).hexdigest()[:16]} -->"


#: Settings that an example shows.
_SHOWN_SETTINGS = ("shop_name", "shop_url", "cart_url", "product_url", "postal_address", "currency", "language")
