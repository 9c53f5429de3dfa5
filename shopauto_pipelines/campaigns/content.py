"""What a message says: MJML and Jinja templates to subject, HTML and text part. Not who gets it, nor sending it.

A message is written in three places, so that a translator never touches the layout and a designer never the words:

- ``<template>.mjml.j2`` and ``<template>.txt.j2`` beside the declaration, ``<template>.sms.j2`` for an SMS. Square brackets
  (``[% extends … %]``, ``[[ … ]]``) are resolved once, when the MJML is compiled; curly ones (``{{ … }}``) for every person,
  in a sandbox.
- ``texts/<language>.yaml``: ``step → name → words``; a template says ``{{ text.<name> }}``. The words may hold ``{{ … }}``
  themselves: ``{% if person.first_name %}Hello {{ person.first_name }}{% else %}Hello{% endif %}``.
- The folder above holds what campaigns share: ``layout.*.j2``, ``parts.*.j2``, and ``texts/<language>.yaml``: ``name → words``.

Templates know ``text``, ``person`` (columns of ``profiles/customers``), ``products`` (``name``, ``category``, ``price`` written
as the language does, ``url``), ``shop`` (``name``, ``url``, ``cart_url``, ``postal_address``), ``links`` (``unsubscribe``,
``preferences``), ``language`` and ``subject``; and of a cart that was left ``cart`` (``name``, ``pieces``, both as
``label``, ``2 × Lamp``, ``price``, ``category``; empty in other campaigns) and ``offer`` (``kind``: ``percent`` or
``free_shipping``, ``percent``, ``code``, ``expires_on``; none where none was granted). Anything else is an error: a message
with a hole in it does not leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import yaml
from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_currency, format_percent, get_currency_precision
from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.sandbox import SandboxedEnvironment

from shopauto_pipelines.campaigns.drafts import printed
from shopauto_pipelines.campaigns.products import Product
from shopauto_pipelines.campaigns.sms import MOST_SEGMENTS, says_how_to_stop, segments
from shopauto_pipelines.campaigns.template_lint import faults, locate

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.declaration import Campaign, Step
    from shopauto_pipelines.platform.settings import Settings

#: Language of a subject that names none, and of people whose language no text is written in.
FALLBACK_LANGUAGE = "en"

#: Most products of a cart that a template is given.
_MOST_PRODUCTS = 6

#: File and line of a line of a source that was put together.
_At = Callable[[int], str]


class ContentError(Exception):
    """A message cannot be rendered; the text names the template or text and the variable, and no private data.

    ``attribute`` is the path to what is at fault in the step's declaration.
    """

    def __init__(self, text: str, *attribute: str) -> None:
        super().__init__(text)
        self.attribute = attribute or ("template",)


@dataclass(frozen=True)
class Rendered:
    """A message ready to send; an SMS is text alone."""

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
            "cart_url": settings.cart_url or f"{settings.shop_url.rstrip('/')}/cart",
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
        cart: Sequence[Mapping[str, Any]] = (),
        offer: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """The message of ``step`` in ``language``, one of the step's languages.

        ``person`` is a row of ``profiles/customers``; ``links`` holds ``unsubscribe`` and ``preferences``; ``products`` hold
        ``name``, ``category``, ``price_cents`` (minor units of the shop's currency) and may hold ``url``. ``cart`` and
        ``offer`` are as :meth:`cart` and :meth:`offer` word them. Raises :class:`ContentError`.
        """
        if step not in self._messages:
            self._messages[step] = _Message(self._campaign.folder, self._campaign.step(step))
        goods = [
            {
                "name": product["name"],
                "category": product.get("category"),
                "price": price(product.get("price_cents"), self._currency, language),
                "url": product.get("url") or self._shop["url"],
            }
            for product in products
        ]
        context = {
            "person": person,
            "shop": self._shop,
            "links": links,
            "products": goods,
            "cart": cart,
            "offer": offer,
        }
        return self._messages[step].render(language, context)

    def cart(self, contents: Mapping[str, int], wares: Mapping[str, Product], language: str) -> list[dict[str, Any]]:
        """What is in a cart as ``language`` writes it, what is worth most first; nameless products are left out.

        At most six: a template that shows five can say that there are more, and large carts share their drafts.
        """
        known = [(wares[ware], pieces) for ware, pieces in contents.items() if pieces > 0 and ware in wares]
        known.sort(key=lambda each: (-(each[0].price_cents or 0) * each[1], each[0]))
        return [
            {
                "name": ware.name,
                "pieces": pieces,
                "label": ware.name if pieces == 1 else f"{pieces:,} × {ware.name}",
                "category": ware.category,
                "price": price(ware.price_cents, self._currency, language),
            }
            for ware, pieces in known
            if ware.name
        ][:_MOST_PRODUCTS]

    def offer(self, granted: Mapping[str, Any] | None, language: str) -> dict[str, Any] | None:
        """The offer of a message's explanation as ``language`` writes it; ``None`` where none was granted."""
        if not granted or not granted.get("code"):
            return None
        percent = granted["percent"] and _percent(granted["percent"], language)
        shown = {"kind": granted["kind"], "percent": percent, "code": granted["code"]}
        return shown | {"expires_on": _day(granted["expires_on"], language)}


@lru_cache(maxsize=65_536)
def price(cents: int | None, currency: str, language: str) -> str | None:
    """An amount of minor units as ``language`` writes it, e.g. ``R$ 1.234,50``; ``None`` where there is no price."""
    if cents is None:
        return None
    amount = Decimal(int(cents)).scaleb(-get_currency_precision(currency))
    return format_currency(amount, currency, locale=_locale(language))


@lru_cache
def _percent(percent: int, language: str) -> str:
    """A percentage as ``language`` writes it, e.g. ``5 %``."""
    return format_percent(Decimal(percent) / 100, locale=_locale(language))


@lru_cache
def _day(day: str, language: str) -> str:
    """A day, ISO, as ``language`` writes it."""
    return format_date(date.fromisoformat(day), "long", locale=_locale(language))


def check_step(folder: Path, step: Step) -> None:
    """Raise :class:`ContentError` unless the step can be written in each of its languages, and may be sent.

    Every part is filled in for people who do not exist: one of whom everything is known and one of whom nothing is, after a
    cart with and without an offer.
    An e-mail must come out with the unsubscribe link and the postal address in both parts, an SMS with the shop's name and
    a way to end the messages. The MJML is read but not compiled here, so loading the playbook stays quick.
    """
    message = _Message(folder, step)
    if step.channel == "email":
        message.check_source()
    for language in step.languages:
        for known in _extremes(step):
            context = {"shop": _SHOP, "links": _LINKS, **known}
            rendered = message.render(language, context, compiled=False)
            if step.channel == "sms":
                _check_sms(rendered.text, f"{step.template}.sms.j2 ({language})")
            else:
                _check_email_part(rendered.html, f"{step.template}.mjml.j2")
                _check_email_part(rendered.text, f"{step.template}.txt.j2")


def _extremes(step: Step) -> Iterator[dict[str, Any]]:
    """Everything that can be known of a person, and nothing; of a cart with each kind of offer, and with none."""
    nobody = dict.fromkeys(_SOMEBODY)
    if step.wait_hours is None:
        yield {"person": _SOMEBODY, "products": _GOODS, "cart": [], "offer": None}
        yield {"person": nobody, "products": [], "cart": [], "offer": None}
        return
    shown = _OFFER | {"percent": "10%", "expires_on": "1 January 2030"}
    for offer in (shown, shown | {"kind": "free_shipping", "percent": None}) if step.offer else ():
        yield {"person": _SOMEBODY, "products": [], "cart": _CART, "offer": offer}
    yield {"person": _SOMEBODY, "products": [], "cart": _CART, "offer": None}
    yield {
        "person": nobody,
        "products": [],
        "cart": [dict.fromkeys(_CART[0]) | {"name": "A", "pieces": 1, "label": "A"}],
        "offer": None,
    }
    yield {"person": nobody, "products": [], "cart": [], "offer": None}


def _check_email_part(part: str, name: str) -> None:
    if _LINKS["unsubscribe"] not in part:
        raise ContentError(f"{name} has no unsubscribe link: put {{{{ links.unsubscribe }}}} into it or its layout")
    if _SHOP["postal_address"] not in part:
        raise ContentError(f"{name} has no postal address: put {{{{ shop.postal_address }}}} into it or its layout")


def _check_sms(text: str, name: str) -> None:
    if not says_how_to_stop(text) and _LINKS["unsubscribe"] not in text:
        raise ContentError(
            f"{name} does not say how to end it: name a word such as STOP, or {{{{ links.unsubscribe }}}}"
        )
    if _SHOP["name"] not in text:
        raise ContentError(f"{name} does not say who writes: put {{{{ shop.name }}}} into it")
    if segments(text) > MOST_SEGMENTS:
        raise ContentError(f"{name} is {segments(text)} SMS long, at most {MOST_SEGMENTS} are put together")


#: A person, goods and links that do not exist, for checks and previews.
_SOMEBODY = {"first_name": "Alex", "last_name": "Example", "gender": None, "city": "Exampletown", "country": "GB"}
_GOODS = [{"name": "Example product", "category": "Examples", "price": "12.00", "url": "https://shop.example/p"}]
_LINKS = {"unsubscribe": "https://shop.example/unsubscribe", "preferences": "https://shop.example/preferences"}
_SHOP = {
    "name": "Example Shop",
    "url": "https://shop.example",
    "cart_url": "https://shop.example/cart",
    "postal_address": "1 Example Street",
}
_CART = [
    {"name": "Example", "pieces": 2, "label": "2 × Example", "category": "Examples", "price": "12.00"},
    {"name": "Other", "pieces": 1, "label": "Other", "category": "Examples", "price": "9.50"},
]
_OFFER = {"kind": "percent", "percent": 10, "code": "ABCD-EFGH-IJKL", "expires_on": "2030-01-01"}


def previews(campaign: Campaign, settings: Settings) -> dict[tuple[str, str], Rendered]:
    """Every message as a person who does not exist would get it, by step and language, the MJML compiled.

    Raises :class:`ContentError` where one cannot be rendered.
    """
    wares = {str(n): Product(f"Example product {n}", "Examples", 1900 + 750 * n, None) for n in (1, 2, 3)}
    goods = [ware._asdict() for ware in wares.values()]
    renderer = Renderer(campaign, settings)

    def preview(step: Step, language: str) -> Rendered:
        cart = renderer.cart(dict.fromkeys(wares, 1), wares, language) if campaign.is_realtime else ()
        offer = renderer.offer(_OFFER if step.offer else None, language)
        return renderer.render(step.name, language, _SOMEBODY, _LINKS, goods, cart, offer)

    return {(step.name, language): preview(step, language) for step in campaign.steps for language in step.languages}


class _Message:
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
            self._words[language] = _words(self._folder, step, language)
        values: dict[str, object] = {**context, "language": language}
        values["text"] = _Texts(self._words[language], values, lambda name: self._written(language, name))
        if self._step.channel == "sms":
            return Rendered("", "", _fill(self._text, values, f"{self._template}.sms.j2").strip())
        try:
            subject = _fill(_plain(self._step.subject[language]), values, "")
        except ContentError as error:
            raise ContentError(f"the subject of step {step} ({language}): {error}", "subject", language) from None
        values["subject"] = " ".join(subject.split())
        if compiled:
            html = _fill(self._html, values, f"{self._template}.mjml.j2")
        else:
            html = _fill(self._mjml, values, f"{self._template}.mjml.j2", self._at)
        return Rendered(
            subject=str(values["subject"]),
            html=html,
            text=_fill(self._text, values, f"{self._template}.txt.j2").strip() + "\n",
        )

    def check_source(self) -> None:
        """Raise :class:`ContentError` for the first fault that the MJML shows without being filled in."""
        for line, fault in faults(self._source):
            raise ContentError(f"{self._at(line)}: {fault}")

    def _written(self, language: str, name: str) -> str:
        """File and line that a text is written in; of the step where it is not."""
        step = self._step.name
        own, shared = (folder / "texts" / f"{language}.yaml" for folder in (self._folder, self._folder.parent))
        for file, keys in ((own, (step, name)), (shared, (name,)), (own, (step,))):
            node = yaml.compose(file.read_text(encoding="utf-8"))
            for key in keys:
                pairs = node.value if isinstance(node, yaml.MappingNode) else []
                node = next((value for found, value in pairs if found.value == key), None)
            if node is not None:
                return f"{'/'.join(file.parts[-3:])}:{node.start_mark.line + 1}, step {step}"
        return f"texts/{language}.yaml, step {step}"

    def _at(self, line: int) -> str:
        """File and line that a line of the MJML, with layout and parts put in, was written in."""
        own = self._folder / f"{self._template}.mjml.j2"
        shared = sorted(self._folder.parent.glob("*.mjml.j2"))
        found = locate(self._source.splitlines()[line - 1], [own, *shared])
        return f"{found[0].name}:{found[1]}" if found else own.name

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
        return _from_string(_PAGE, self._source, f"{self._template}.mjml.j2", self._at)

    @cached_property
    def _html(self) -> Template:
        name = f"{self._template}.mjml.j2"
        try:
            html = _html_of(self._source)
        except Exception as error:
            raise ContentError(f"{name} is not valid MJML: {error}") from None
        return _from_string(_PAGE, html, name)

    @cached_property
    def _text(self) -> Template:
        environment = SandboxedEnvironment(
            loader=_loader(self._folder),
            undefined=StrictUndefined,
            finalize=printed,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        suffix = "sms" if self._step.channel == "sms" else "txt"
        return _get(environment, f"{self._template}.{suffix}.j2", self._folder)


class _Texts:
    """The words of a step in one language: ``text.headline`` is filled in when a template asks for it."""

    def __init__(self, words: Mapping[str, str], values: Mapping[str, object], written: Callable[[str], str]) -> None:
        self.__words, self.__values, self.__written = words, values, written

    def __getitem__(self, name: str) -> str:
        if name not in self.__words:
            raise ContentError(f"{self.__written(name)}: there is no text {name!r}")
        words = self.__words[name]
        if "{" not in words:
            return words
        try:
            return _fill(_plain(words), self.__values, "")
        except ContentError as error:
            raise ContentError(f"{self.__written(name)}, text {name!r}: {error}") from None


@lru_cache(maxsize=64)
def _html_of(source: str) -> str:
    """MJML as HTML: several steps may have one template, and a process may render a campaign many times."""
    from mjml.mjml2html import mjml_to_html  # 0.3 s, and only rendering needs it

    result = mjml_to_html(source)
    if result.errors:
        raise ValueError(result.errors[0])
    return result.html


_PAGE = SandboxedEnvironment(undefined=StrictUndefined, autoescape=True, finalize=printed)
_PLAIN = SandboxedEnvironment(undefined=StrictUndefined, finalize=printed)


@lru_cache(maxsize=1024)
def _plain(words: str) -> Template:
    return _from_string(_PLAIN, words, "")


def _from_string(environment: Environment, source: str, name: str, at: _At | None = None) -> Template:
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise _error(at(error.lineno) if at else name, error.message) from None


def _get(environment: Environment, name: str, folder: Path) -> Template:
    try:
        return environment.get_template(name)
    except TemplateNotFound as error:
        raise ContentError(f"there is no {error.name} in {folder.name}/ or the folder above") from None
    except TemplateSyntaxError as error:
        raise ContentError(f"{error.name or name}:{error.lineno}: {error.message}") from None


def _fill(template: Template, values: Mapping[str, object], name: str, at: _At | None = None) -> str:
    """Render; errors name the template, its line (of a source without a file: as ``at`` says) and, for Jinja's own, the
    variable. Other errors may quote values: only their kind.
    """
    try:
        return template.render(values)
    except TemplateSyntaxError as error:
        raise _error(f"{error.name or name}:{error.lineno}", error.message) from None
    except TemplateNotFound as error:
        raise _error(_line(error, name, at), f"there is no {error.name}") from None
    except TemplateError as error:
        raise _error(_line(error, name, at), error.message) from None
    except ContentError as error:
        raise _error(_line(error, name, at), str(error)) from None
    except Exception as error:
        raise _error(_line(error, name, at), f"{type(error).__name__} while it was filled in") from None


def _error(where: str, what: str | None) -> ContentError:
    return ContentError(f"{where}: {what}" if where else str(what))


def _line(error: Exception, name: str, at: _At | None) -> str:
    """The innermost line of a template that the error passed; ``name`` where there is none."""
    where = name
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.endswith(".j2"):
            where = f"{Path(file).name}:{line}"
        elif file == "<template>" and at:
            where = at(line)
    return where


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
