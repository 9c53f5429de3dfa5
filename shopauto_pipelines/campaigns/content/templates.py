"""Templates from files to something that can be filled in: what is compiled is compiled once in a process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb
from typing import Any
from xml.sax.saxutils import unescape

from jinja2 import (
    BytecodeCache,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.bccache import Bucket
from jinja2.sandbox import SandboxedEnvironment

from shopauto_pipelines.campaigns.content.fault import At, ContentError, error_at
from shopauto_pipelines.campaigns.drafts import printed


def places_of(folder: Path) -> tuple[Path, ...]:
    """Where a campaign's templates are looked for: the shared ones alone, where it has none of its own."""
    return (folder, folder.parent) if any(folder.glob("*.j2")) else (folder.parent,)


def newest_of(folder: Path) -> tuple[tuple[str, int], ...]:
    """What the layout templates are now: another value when one has changed."""
    files = [file for place in places_of(folder) for file in place.glob("*.mjml.j2")]
    return tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def source_of(places: tuple[Path, ...], campaign: str, template: str, _changed: object) -> str:
    """The MJML of a template with layout and parts put in."""
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(places),
        bytecode_cache=_COMPILED,
        undefined=StrictUndefined,
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    name = f"{template}.mjml.j2"
    return fill(named(environment, name, campaign), {}, name)


@lru_cache(maxsize=64)
def texts_of(places: tuple[Path, ...]) -> Environment:
    """The environment of the text parts; it reads a template again when its file has changed."""
    return SandboxedEnvironment(
        loader=FileSystemLoader(places),
        bytecode_cache=_COMPILED,
        undefined=StrictUndefined,
        finalize=printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class _Compiled(BytecodeCache):
    """Compiled templates of this process: campaigns share layout, parts and most of their templates."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._known.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._known[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


@lru_cache(maxsize=64)
def html_of(source: str) -> str:
    """MJML as HTML: several steps may have one template, and a process may render a campaign many times.

    The compiler takes what stands in the brackets of a template for words, and escapes it: it is put back as it was written.
    """
    from mjml.mjml2html import mjml_to_html  # 0.3 s, and only rendering needs it

    result = mjml_to_html(source)
    if result.errors:
        raise ValueError(result.errors[0])
    return _BRACKETS.sub(lambda brackets: unescape(brackets[0]), result.html)


_BRACKETS = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)

_PAGE = SandboxedEnvironment(undefined=StrictUndefined, autoescape=True, finalize=printed)


_PLAIN = SandboxedEnvironment(undefined=StrictUndefined, finalize=printed)


@lru_cache(maxsize=128)
def page(source: str) -> Template:
    """A template that is HTML; raises ``TemplateSyntaxError``."""
    return _PAGE.from_string(source)


@lru_cache(maxsize=4096)
def plain(words: str) -> Template:
    """Words that are plain text, as a template; raises :class:`ContentError`."""
    try:
        return _PLAIN.from_string(words)
    except TemplateSyntaxError as error:
        raise ContentError(str(error.message)) from None


def named(environment: Environment, name: str, campaign: str) -> Template:
    """The template of a file; raises :class:`ContentError` where there is none, or it cannot be read."""
    try:
        return environment.get_template(name)
    except TemplateNotFound as error:
        raise ContentError(f"there is no {error.name} in {campaign}/ or the folder above") from None
    except TemplateSyntaxError as error:
        raise ContentError(f"{error.name or name}:{error.lineno}: {error.message}") from None
    except UnicodeDecodeError:
        raise ContentError(f"{name} is not in UTF-8: save it so") from None


def fill(template: Template, values: Mapping[str, object], name: str, at: At | None = None) -> str:
    """Render; errors name the template, its line (of a source without a file: as ``at`` says) and, for Jinja's own, the
    variable. Other errors may quote values: only their kind.
    """
    try:
        return template.render(values)
    except TemplateSyntaxError as error:
        raise error_at(f"{error.name or name}:{error.lineno}", error.message) from None
    except TemplateNotFound as error:
        raise error_at(_line(error, name, at), f"there is no {error.name}") from None
    except TemplateError as error:
        raise error_at(_line(error, name, at), error.message) from None
    except ContentError as error:
        raise error_at(_line(error, name, at), str(error)) from None
    except Exception as error:
        raise error_at(_line(error, name, at), f"{type(error).__name__} while it was filled in") from None


def _line(error: Exception, name: str, at: At | None) -> str:
    """The innermost line of a template that the error passed; ``name`` where there is none."""
    where = name
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.endswith(".j2"):
            where = f"{Path(file).name}:{line}"
        elif file == "<template>" and at:
            where = at(line)
    return where
