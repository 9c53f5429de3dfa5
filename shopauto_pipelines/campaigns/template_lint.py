"""Faults of a template with their lines: what its source shows, and the links of what comes out when it is filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

#: Every tag of MJML 4, https://documentation.mjml.io/.
_TAGS = frozenset(
    ["mjml"]
    + [
        f"mj-{name}"
        for name in (
            *(
                "head",
                "attributes",
                "all",
                "class",
                "breakpoint",
                "font",
                "html-attributes",
                "selector",
                "html-attribute",
            ),
            *("preview", "style", "title", "raw", "include"),
            *(
                "body",
                "wrapper",
                "section",
                "group",
                "column",
                "hero",
                "text",
                "button",
                "image",
                "divider",
                "spacer",
                "table",
            ),
            *("accordion", "accordion-element", "accordion-title", "accordion-text", "carousel", "carousel-image"),
            *("navbar", "navbar-link", "social", "social-element"),
        )
    ]
)
#: Of these MJML keeps the tags in them alone: words between these tags, conditions too, are gone once it is compiled.
_BLOCKS = frozenset(
    ["mjml"]
    + [
        f"mj-{name}"
        for name in (
            *("head", "attributes", "body", "wrapper", "section", "group", "column", "hero"),
            *("accordion", "accordion-element", "carousel", "navbar", "social"),
        )
    ]
)
_IMAGES = ("img", "mj-image", "mj-carousel-image")


def faults(mjml: str) -> Iterator[tuple[int, str]]:
    """Line and description of each fault of an MJML source: unknown and unclosed tags, images without a text instead, words that
    MJML leaves out.
    """
    reader = _Reader()
    reader.feed(mjml)
    reader.close()
    yield from reader.faults
    for tag, line in reader.opened:
        yield line, f"<{tag}> is not closed"


def locate(line: str, files: Iterable[Path]) -> tuple[Path, int] | None:
    """File and number of the line that ``line`` of the source was made from; ``[[ … ]]`` stands for anything."""
    wanted = line.strip()
    for file in files:
        for number, written in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            literal = re.split(r"\[\[.*?\]\]", written.strip())
            if len("".join(literal)) > 3 and re.fullmatch(".*".join(map(re.escape, literal)), wanted):
                return file, number
    return None


#: Attribute of a tag that says on which line of the source it stands: what is filled in has other lines.
_LINE = "data-line"

_TAG = re.compile(r"<(a|img|mj-[a-z-]+)(?=[\s>/])")


def numbered(mjml: str) -> str:
    """The source with the number of its line in every link, image and MJML tag, for :func:`dead_ends`."""
    lines = mjml.split("\n")
    return "\n".join(_TAG.sub(rf'<\1 {_LINE}="{n}"', line) for n, line in enumerate(lines, start=1))


def dead_ends(filled: str) -> Iterator[tuple[int, str]]:
    """Line (of the source) and description of each link that leads nowhere or says nothing; ``filled`` is numbered MJML."""
    reader = _Links()
    reader.feed(filled)
    reader.close()
    yield from reader.faults


def fault_of_link(address: str) -> str | None:
    """What is wrong with an address that a message links to; ``None`` where a click leads somewhere."""
    if not address.strip() or address.startswith("#"):
        return "leads nowhere"
    parts = _parts(address)
    leads = bool(parts.netloc) if parts.scheme in ("http", "https") else bool(parts.path)
    if parts.scheme not in ("http", "https", "mailto", "tel") or not leads or any(c.isspace() for c in address):
        return f"leads to {address!r}, which no mail program can open: begin with https://, mailto: or tel:"
    return None


def _parts(address: str) -> SplitResult:
    """The parts of an address; of what is none, such as ``https://[shop]``, all are empty."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


class _Links(HTMLParser):
    """Looks at the links of a filled-in message: where they lead, and whether there is something to read in them."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[tuple[int, str]] = []
        self._in_body = False
        self._open: tuple[str, int] | None = None
        self._read = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_body = self._in_body or tag == "mj-body"
        if not self._in_body:  # what stands in the head are defaults
            return
        said = {name: value or "" for name, value in attrs}
        line = int(said.get(_LINE, 1))
        if "href" in said and (fault := fault_of_link(said["href"])):
            self.faults.append((line, f"a link {fault}"))
        if tag == "a" and "href" not in said:
            self.faults.append((line, "a link leads nowhere: <a> has no href"))
        if tag == "mj-button" and "href" not in said:
            self.faults.append((line, "a button leads nowhere: give it an href"))
        if tag in _IMAGES:
            source = said.get("src", "")
            if _parts(source).scheme not in ("http", "https", "cid", "data"):
                self.faults.append((line, f"an image comes from {source!r}: mail programs need an https:// address"))
            if "href" in said and not said.get("alt"):
                self.faults.append((line, 'an image is a link and has no text: say in alt="…" where it leads'))
            self._read += said.get("alt", "")
        if tag in ("a", "mj-button"):
            self._open, self._read = (tag, line), said.get("aria-label", "")

    def handle_data(self, data: str) -> None:
        self._read += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[0]:
            if not self._read:
                self.faults.append((self._open[1], "a link has nothing to read in it"))
            self._open = None


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.faults: list[tuple[int, str]] = []
        self.opened: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag.startswith("mj"):
            self.opened.append((tag, self.getpos()[0]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line, _ = self.getpos()
        if tag.startswith("mj") and tag not in _TAGS:
            self.faults.append((line, f"MJML has no <{tag}>"))
        defaults = any(opened == "mj-attributes" for opened, _ in self.opened)
        if tag in _IMAGES and not defaults and "alt" not in dict(attrs):
            self.faults.append(
                (line, f'<{tag}> has no text for those who do not see it: give it alt="…", or alt="" to a decoration')
            )

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1][0] in _BLOCKS and (words := data.strip()):
            line = self.getpos()[0] + data[: data.index(words)].count("\n")
            what = (
                f"{words.splitlines()[0]!r} stands between the tags of <{self.opened[-1][0]}>, where MJML leaves it out"
            )
            self.faults.append((line, f"{what}: put it into <mj-raw>…</mj-raw>, or words into <mj-text>"))

    def handle_endtag(self, tag: str) -> None:
        if not tag.startswith("mj"):
            return
        if self.opened and self.opened[-1][0] == tag:
            self.opened.pop()
        elif tag not in [opened for opened, _ in self.opened]:
            self.faults.append((self.getpos()[0], f"</{tag}> closes nothing"))
        else:
            while self.opened[-1][0] != tag:
                unclosed, line = self.opened.pop()
                self.faults.append((line, f"<{unclosed}> is not closed"))
            self.opened.pop()
