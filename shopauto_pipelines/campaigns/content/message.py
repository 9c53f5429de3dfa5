"""One step's message: its templates and its words put together."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Template, TemplateSyntaxError

from shopauto_pipelines.campaigns.content.fault import ContentError, error_at
from shopauto_pipelines.campaigns.content.templates import (
    fill,
    html_of,
    named,
    newest_of,
    page,
    places_of,
    plain,
    source_of,
    texts_of,
)
from shopauto_pipelines.campaigns.content.words import Texts, words_of, written_at
from shopauto_pipelines.campaigns.template_lint import dead_ends, faults, locate, numbered

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.declaration import Step


@dataclass(frozen=True)
class Rendered:
    """A message ready to send; an SMS is text alone."""

    subject: str
    html: str
    text: str


#: More than one empty line: blocks that have nothing to say leave them.
_EMPTY_LINES = re.compile(r"\n{3,}")


class Message:
    """One step's templates and texts."""

    def __init__(self, folder: Path, step: Step) -> None:
        self._folder, self._step, self._template = folder, step, step.template
        self._words: dict[str, dict[str, str]] = {}

    def render(self, language: str, context: Mapping[str, object], compiled: bool = True) -> Rendered:
        """Subject, HTML (MJML filled in but not compiled where ``compiled`` is false) and text part."""
        step = self._step.name
        if language not in self._step.languages:
            raise ContentError(f"step {step} is not written in {language!r}, only in {', '.join(self._step.languages)}")
        if language not in self._words:
            self._words[language] = words_of(self._folder, step, language)
        values: dict[str, object] = {**context, "language": language}
        values["text"] = Texts(self._words[language], values, lambda name: self._written(language, name))
        if self._step.channel == "sms":
            return Rendered("", "", fill(self._text, values, f"{self._template}.sms.j2").strip())
        try:
            subject = fill(plain(self._step.subject[language]), values, "")
        except ContentError as error:
            raise ContentError(f"the subject of step {step} ({language}): {error}", "subject", language) from None
        values["subject"] = " ".join(subject.split())
        if compiled:
            html = fill(self._html, values, f"{self._template}.mjml.j2")
        else:
            html = fill(self._mjml, values, f"{self._template}.mjml.j2", self._at)
        return Rendered(
            subject=str(values["subject"]),
            html=html,
            text=_EMPTY_LINES.sub("\n\n", fill(self._text, values, f"{self._template}.txt.j2").strip()) + "\n",
        )

    def check_source(self) -> None:
        """Raise :class:`ContentError` for the first fault that the MJML shows without being filled in."""
        for line, fault in faults_of(self._source):
            raise ContentError(f"{self._at(line)}: {fault}")

    def check_links(self, mjml: str, language: str, extreme: Hashable) -> None:
        """Raise :class:`ContentError` for the first link of the filled-in MJML that leads nowhere or cannot be read.

        Not asked again of a template that was filled in with the same extreme, for a step that may show as much and has texts of
        the same names, empty or not.
        """
        shows = self._step.wait_hours is None, self._step.offer is None
        texts = frozenset((name, bool(words.strip())) for name, words in self._words[language].items())
        key = (self._source, extreme, shows, texts)
        if key in _SOUND:
            return
        for line, fault in dead_ends(mjml):
            raise ContentError(f"{self._at(line)}: {fault}")
        _SOUND.add(key)

    def _written(self, language: str, name: str) -> str:
        """File and line that a text is written in; of the step where it is not."""
        step = self._step.name
        own, shared = (folder / "texts" / f"{language}.yaml" for folder in (self._folder, self._folder.parent))
        for file, keys in ((own, (step, name)), (shared, (name,)), (own, (step,))):
            if where := written_at(file, *keys):
                return f"{where}, step {step}"
        return f"texts/{language}.yaml, step {step}"

    def _at(self, line: int) -> str:
        """File and line that a line of the MJML, with layout and parts put in, was written in."""
        own = self._folder / f"{self._template}.mjml.j2"
        shared = sorted(self._folder.parent.glob("*.mjml.j2"))
        found = locate(self._source.splitlines()[line - 1], [file for file in (own, *shared) if file.is_file()])
        return f"{found[0].name}:{found[1]}" if found else own.name

    @cached_property
    def _source(self) -> str:
        """The MJML with layout and parts put in."""
        return source_of(places_of(self._folder), self._folder.name, self._template, newest_of(self._folder))

    @cached_property
    def _mjml(self) -> Template:
        try:
            return page(numbered(self._source))
        except TemplateSyntaxError as error:
            raise error_at(self._at(error.lineno), error.message) from None

    @cached_property
    def _html(self) -> Template:
        name = f"{self._template}.mjml.j2"
        try:
            return page(html_of(self._source))
        except Exception as error:
            raise ContentError(f"{name} is not valid MJML: {error}") from None

    @cached_property
    def _text(self) -> Template:
        suffix = "sms" if self._step.channel == "sms" else "txt"
        return named(texts_of(places_of(self._folder)), f"{self._template}.{suffix}.j2", self._folder.name)


#: Templates whose links were looked at, with what they were filled in with.
_SOUND: set[tuple[object, ...]] = set()


@lru_cache(maxsize=64)
def faults_of(source: str) -> Sequence[tuple[int, str]]:
    """:func:`~.template_lint.faults`, once for all steps that share a template."""
    return tuple(faults(source))
