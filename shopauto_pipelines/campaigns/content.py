"""What a message says: MJML and Jinja templates to subject, HTML and text part. Not who gets it, nor sending it.

A message is written in three places, so that a translator never touches the layout and a designer never the words:

- ``<template>.mjml.j2`` and ``<template>.txt.j2`` beside the declaration. Square brackets (``[% extends … %]``, ``[[ … ]]``)
  are resolved once, when the MJML is compiled; curly ones (``{{ … }}``) for every person, in a sandbox.
- ``texts/<language>.yaml``: ``step → name → words``; a template says ``{{ text.<name> }}``. The words may hold ``{{ … }}``
  themselves: ``{% if person.first_name %}Hello {{ person.first_name }}{% else %}Hello{% endif %}``.
- The folder above holds what campaigns share: ``layout.*.j2``, ``parts.*.j2``, and ``texts/<language>.yaml``: ``name → words``.

Templates know ``text``, ``person`` (columns of ``profiles/customers``), ``products`` (``name``, ``category``, ``price`` written
as the language does, ``url``), ``shop`` (``name``, ``url``, ``postal_address``), ``links`` (``unsubscribe``), ``language`` and
``subject``. Anything else is an error: a message with a hole in it does not leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency, get_currency_precision
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, TemplateNotFound
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.declaration import Campaign
    from shopauto_pipelines.platform.settings import Settings

#: Language of a subject that names none, and of people whose language no text is written in.
FALLBACK_LANGUAGE = "en"


class ContentError(Exception):
    """A message cannot be rendered; the text names the template or text and the variable, and no private data."""


@dataclass(frozen=True)
class Rendered:
    """A message ready to send."""

    subject: str
    html: str
    text: str


def match_language(wanted: str | None, available: Sequence[str], default: str = FALLBACK_LANGUAGE) -> str:
    """The language of ``available`` for a person who reads ``wanted``: pt-PT → pt-PT, pt, any other pt, the default, en.

    Tags compare without regard to case. Where not even ``en`` is available it is the first one.
    """
    for tag in (wanted, default, FALLBACK_LANGUAGE):
        for candidate in available:
            if tag and candidate.lower() == tag.lower():
                return candidate
        base = (tag or "").split("-")[0].lower()
        for candidate in sorted(available, key=lambda c: (len(c.split("-")), c)):
            if base and candidate.split("-")[0].lower() == base:
                return candidate
    return available[0]


class Renderer:
    """Renders the messages of one campaign; templates are compiled once and kept."""

    def __init__(self, campaign: Campaign, settings: Settings) -> None:
        self._campaign = campaign
        self._currency = settings.currency
        self._shop = {
            "name": settings.shop_name,
            "url": settings.shop_url,
            "postal_address": settings.postal_address or f"{settings.shop_name}, postal address not set",
        }
        self._messages: dict[str, _Message] = {}

    def render(
        self,
        step: str,
        language: str,
        person: Mapping[str, object],
        links: Mapping[str, str],
        products: Sequence[Mapping[str, Any]] = (),
    ) -> Rendered:
        """The message of ``step`` in ``language``, one of the step's languages.

        ``person`` is a row of ``profiles/customers``; ``links`` holds ``unsubscribe``; ``products`` hold ``name``,
        ``category``, ``price_cents`` (minor units of the shop's currency) and may hold ``url``.
        Raises :class:`ContentError`.
        """
        if step not in self._messages:
            declared = self._campaign.step(step)
            self._messages[step] = _Message(self._campaign.folder, step, declared.template, declared.subject)
        goods = [
            {
                "name": product["name"],
                "category": product.get("category"),
                "price": price(product.get("price_cents"), self._currency, language),
                "url": product.get("url") or self._shop["url"],
            }
            for product in products
        ]
        context = {"person": person, "shop": self._shop, "links": links, "products": goods}
        return self._messages[step].render(language, context)


def price(cents: int | None, currency: str, language: str) -> str | None:
    """An amount of minor units as ``language`` writes it, e.g. ``R$ 1.234,50``; ``None`` where there is no price."""
    if cents is None:
        return None
    amount = Decimal(int(cents)).scaleb(-get_currency_precision(currency))
    return format_currency(amount, currency, locale=_locale(language))


def check_step(folder: Path, step: str, template: str, subject: Mapping[str, str]) -> None:
    """Raise :class:`ContentError` unless the step can be written in every language of ``subject``.

    Both parts are filled in for two people who do not exist: one of whom everything is known and one of whom nothing is.
    Each must come out with the unsubscribe link and the postal address in it. The MJML is not compiled here, so loading the
    playbook stays quick.
    """
    message = _Message(folder, step, template, subject)
    for language in subject:
        for person, goods in ((_SOMEBODY, _GOODS), (dict.fromkeys(_SOMEBODY), [])):
            context = {"person": person, "shop": _SHOP, "links": _LINKS, "products": goods}
            rendered = message.render(language, context, compiled=False)
            for part, name in ((rendered.html, f"{template}.mjml.j2"), (rendered.text, f"{template}.txt.j2")):
                if _LINKS["unsubscribe"] not in part:
                    raise ContentError(
                        f"{name} has no unsubscribe link: put {{{{ links.unsubscribe }}}} into it or its layout"
                    )
                if _SHOP["postal_address"] not in part:
                    raise ContentError(
                        f"{name} has no postal address: put {{{{ shop.postal_address }}}} into it or its layout"
                    )


#: A person, goods and links that do not exist, for checks and previews.
_SOMEBODY = {"first_name": "Alex", "last_name": "Example", "gender": None, "city": "Exampletown", "country": "GB"}
_GOODS = [{"name": "Example product", "category": "Examples", "price": "12.00", "url": "https://shop.example/p"}]
_LINKS = {"unsubscribe": "https://shop.example/unsubscribe"}
_SHOP = {"name": "Example Shop", "url": "https://shop.example", "postal_address": "1 Example Street"}


def previews(campaign: Campaign, settings: Settings) -> dict[tuple[str, str], Rendered]:
    """Every message as a person who does not exist would get it, by step and language, the MJML compiled.

    Raises :class:`ContentError` where one cannot be rendered.
    """
    goods = [{"name": f"Example product {n}", "category": "Examples", "price_cents": 1900 + 750 * n} for n in (1, 2, 3)]
    renderer = Renderer(campaign, settings)
    return {
        (step.name, language): renderer.render(step.name, language, _SOMEBODY, _LINKS, goods)
        for step in campaign.steps
        for language in step.languages
    }


class _Message:
    """One step's templates and texts."""

    def __init__(self, folder: Path, step: str, template: str, subject: Mapping[str, str]) -> None:
        self._folder, self._step, self._template, self._subject = folder, step, template, subject
        self._words: dict[str, dict[str, str]] = {}

    def render(self, language: str, context: Mapping[str, object], compiled: bool = True) -> Rendered:
        """Subject, HTML (MJML filled in but not compiled where ``compiled`` is false) and text part."""
        if language not in self._subject:
            raise ContentError(f"step {self._step} is not written in {language!r}, only in {', '.join(self._subject)}")
        if language not in self._words:
            self._words[language] = _words(self._folder, self._step, language)
        values: dict[str, object] = {**context, "language": language}
        values["text"] = _Texts(self._words[language], values, f"texts/{language}.yaml, step {self._step}")
        subject = _fill(_plain(self._subject[language]), values, f"the subject of step {self._step} ({language})")
        values["subject"] = " ".join(subject.split())
        page, source = (self._html, "") if compiled else (self._mjml, " (MJML)")
        return Rendered(
            subject=str(values["subject"]),
            html=_fill(page, values, f"{self._template}.mjml.j2{source}"),
            text=_fill(self._text, values, f"{self._template}.txt.j2").strip() + "\n",
        )

    @cached_property
    def _source(self) -> str:
        """The MJML with layout and parts put in."""
        name = f"{self._template}.mjml.j2"
        environment = SandboxedEnvironment(
            loader=_loader(self._folder),
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
        return _fill(_get(environment, name, self._folder), {}, name)

    @cached_property
    def _mjml(self) -> Template:
        return _from_string(_PAGE, self._source, f"{self._template}.mjml.j2")

    @cached_property
    def _html(self) -> Template:
        from mjml.mjml2html import mjml_to_html  # 0.3 s, and only rendering needs it

        name = f"{self._template}.mjml.j2"
        try:
            result = mjml_to_html(self._source)
        except Exception as error:
            raise ContentError(f"{name} is not valid MJML: {error}") from None
        if result.errors:
            raise ContentError(f"{name} is not valid MJML: {result.errors[0]}")
        return _from_string(_PAGE, result.html, name)

    @cached_property
    def _text(self) -> Template:
        environment = SandboxedEnvironment(
            loader=_loader(self._folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        return _get(environment, f"{self._template}.txt.j2", self._folder)


class _Texts:
    """The words of a step in one language: ``text.headline`` is filled in when a template asks for it."""

    def __init__(self, words: Mapping[str, str], values: Mapping[str, object], source: str) -> None:
        self.__words, self.__values, self.__source = words, values, source

    def __getitem__(self, name: str) -> str:
        if name not in self.__words:
            raise ContentError(f"{self.__source}: there is no text {name!r}")
        words = self.__words[name]
        return _fill(_plain(words), self.__values, f"{self.__source}, text {name!r}") if "{" in words else words


_PAGE = SandboxedEnvironment(undefined=StrictUndefined, autoescape=True)
_PLAIN = SandboxedEnvironment(undefined=StrictUndefined)


@lru_cache(maxsize=1024)
def _plain(words: str) -> Template:
    return _from_string(_PLAIN, words, "text")


def _from_string(environment: Environment, source: str, name: str) -> Template:
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ContentError(f"{name}: {error}") from None


def _get(environment: Environment, name: str, folder: Path) -> Template:
    try:
        return environment.get_template(name)
    except TemplateNotFound as error:
        raise ContentError(f"there is no {error.name} in {folder.name}/ or the folder above") from None
    except TemplateError as error:
        raise ContentError(f"{name}: {error}") from None


def _fill(template: Template, values: Mapping[str, object], name: str) -> str:
    """Render; errors name the template and, for Jinja's own, the variable. Other errors may quote values: only their kind."""
    try:
        return template.render(values)
    except TemplateNotFound as error:
        raise ContentError(f"{name}: there is no {error.name}") from None
    except TemplateError as error:
        raise ContentError(f"{name}: {error.message}") from None
    except ContentError as error:
        raise ContentError(f"{name}: {error}") from None
    except Exception as error:
        raise ContentError(f"{name}: {type(error).__name__} while it was filled in") from None


def _words(folder: Path, step: str, language: str) -> dict[str, str]:
    """The shared words and the step's own, which win."""
    shared = _read_words(folder.parent / "texts" / f"{language}.yaml")
    own = _read_words(folder / "texts" / f"{language}.yaml").get(step)
    if not isinstance(own, dict):
        raise ContentError(f"texts/{language}.yaml has no texts for step {step!r}")
    words = {**shared, **own}
    for name, value in words.items():
        if not isinstance(value, str):
            raise ContentError(f"texts/{language}.yaml: text {name!r} is not a text (quote it)")
    return words


def _read_words(path: Path) -> dict[str, Any]:
    shown = "/".join(path.parts[-3:])
    try:
        words = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContentError(f"there is no {shown}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContentError(f"{shown} is not valid YAML in UTF-8: {error}") from None
    if not isinstance(words, dict):
        raise ContentError(f"{shown} holds no texts")
    return words


def _loader(folder: Path) -> FileSystemLoader:
    return FileSystemLoader([folder, folder.parent])


@lru_cache
def _locale(language: str) -> Locale:
    try:
        return Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError):
        return Locale.parse(FALLBACK_LANGUAGE)
