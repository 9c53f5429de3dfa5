"""Faults of a template that can be seen in its source, with their lines. What only filling it in shows is not looked for here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

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
_IMAGES = ("img", "mj-image", "mj-carousel-image")


def faults(mjml: str) -> Iterator[tuple[int, str]]:
    """Line and description of each fault of an MJML source: unknown and unclosed tags, images without a text instead."""
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
