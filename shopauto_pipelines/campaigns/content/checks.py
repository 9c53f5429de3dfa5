"""What a step has to stand before it loads: every part is filled in for people who do not exist."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopauto_pipelines.campaigns.content.examples import EXAMPLE_LINKS, EXAMPLE_OFFER, EXAMPLE_PERSON
from shopauto_pipelines.campaigns.content.fault import ContentError
from shopauto_pipelines.campaigns.content.message import Message
from shopauto_pipelines.campaigns.content.rendering import DETAILS, NO_DETAILS, REASONS
from shopauto_pipelines.campaigns.content.templates import fill, plain
from shopauto_pipelines.campaigns.content.words import own_words, read_words, shared_words, written_at
from shopauto_pipelines.campaigns.sms import MOST_SEGMENTS, says_how_to_stop, segments
from shopauto_pipelines.platform.words import nearest

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.declaration import Step


def check_step(folder: Path, step: Step) -> None:
    """Raise :class:`ContentError` unless the step can be written in each of its languages, and may be sent.

    Every part is filled in for people who do not exist, with and without products, with one of which little is known, with each
    kind of offer and without one: for a person of whom everything is known, and where something of a person is asked for, for
    everybody who differs in it.
    An e-mail must come out with the unsubscribe link and the postal address in both parts, and without a link that leads
    nowhere; an SMS with the shop's name and a way to end the messages. The MJML is read but not compiled here, so loading
    the playbook stays quick.
    """
    message = Message(folder, step)
    if step.channel == "email":
        message.check_source()
    for language in step.languages:
        _check_reasons(folder, language)
        asked: set[str] = set()
        for number, known in enumerate(_extremes(step, first=language == step.languages[0])):
            for person in _people(asked):
                context = {"shop": _SHOP, "links": EXAMPLE_LINKS, "person": _Person(person, asked), **known}
                rendered = message.render(language, context, compiled=False)
                if step.channel == "sms":
                    _check_sms(rendered.text, f"{step.template}.sms.j2 ({language})")
                    continue
                _check_email_part(rendered.html, f"{step.template}.mjml.j2")
                _check_email_part(rendered.text, f"{step.template}.txt.j2")
                if language == step.languages[0]:  # words hold no links
                    message.check_links(rendered.html, language, (number, *person.values()))
    _check_names(folder, step)


def _extremes(step: Step, first: bool) -> Iterator[dict[str, Any]]:
    """Everything that can be known of what set the message off, with each kind of offer; and nothing, or little.

    Little is known of products in the ``first`` language alone: all have the same templates, and this is asked of every campaign.
    """
    offered = EXAMPLE_OFFER | {"percent": "10%", "expires_on": "1 January 2030"}
    offers = (offered, offered | {"kind": "free_shipping", "percent": None}) if step.offer else ()
    nothing: dict[str, Any] = {
        "products": (),
        "cart": (),
        "offer": None,
        "about": (),
        "details": NO_DETAILS,
    }
    known: dict[str, Any]
    if step.wait_hours is None:
        known = {"products": _GOODS, "about": _GOODS, "details": _DETAILS}
    else:
        known = {"cart": _CART}
        yield nothing | {"cart": [dict.fromkeys(_CART[0]) | {"name": "A", "pieces": 1, "label": "A"}]}
    yield from (nothing | known | {"offer": offer} for offer in (*offers, None))
    yield nothing
    if first and step.wait_hours is None:
        yield nothing | {"products": _GOODS[1:], "about": _GOODS[1:], "details": _DETAILS}


#: What may be known of a person, and that it is not.
_KNOWN = {name: (value, None) for name, value in EXAMPLE_PERSON.items()} | {"gender": ("female", "male", "other", None)}


def _people(asked: Collection[str]) -> Iterator[dict[str, Any]]:
    """Everybody who differs in what is ``asked`` of a person; it may become more with every one of them."""
    had: list[dict[str, Any]] = []

    def everybody() -> Iterator[dict[str, Any]]:
        for values in product(*(every if name in asked else every[:1] for name, every in _KNOWN.items())):
            yield dict(zip(_KNOWN, values, strict=True))

    while new := [person for person in everybody() if person not in had]:
        had += new
        yield from new


class _Person(Mapping[str, Any]):
    """What messages may say of a person, which notes what is asked of it. Raises :class:`ContentError` for anything else."""

    def __init__(self, known: Mapping[str, Any], asked: set[str]) -> None:
        self._known, self._asked = known, asked

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            raise ContentError(f"a message cannot use person.{name}; {nearest(name, self._known)}")
        self._asked.add(name)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _check_names(folder: Path, step: Step) -> None:
    """Raise :class:`ContentError` where a language has other texts than the first: what is optional would be missing there."""
    first, *others = step.languages
    names = set(read_words(own_words(folder, first))[step.name])
    for language in others:
        file = own_words(folder, language)
        for name in sorted(names ^ set(read_words(file)[step.name])):
            if name in names:
                where, what = (
                    written_at(file, step.name),
                    f"step {step.name} lacks the text {name!r}, which {first}.yaml has",
                )
            else:
                where, what = (
                    written_at(file, step.name, name),
                    f"step {step.name} has no text {name!r} in {first}.yaml",
                )
            raise ContentError(f"{where}: {what}")


def _check_reasons(folder: Path, language: str) -> None:
    """Raise :class:`ContentError` where the words why a product is shown cannot be filled in."""
    words = read_words(shared_words(folder, language))
    values = {"because": "Example", "category": "Examples", "last_bought_on": "1 January 2030"}
    for reason in REASONS:
        if f"reason_{reason}" in words:
            try:
                fill(plain(str(words[f"reason_{reason}"])), values, "")
            except ContentError as error:
                where = written_at(shared_words(folder, language), f"reason_{reason}")
                raise ContentError(f"{where}: text 'reason_{reason}': {error}") from None


def _check_email_part(part: str, name: str) -> None:
    if EXAMPLE_LINKS["unsubscribe"] not in part:
        raise ContentError(f"{name} has no unsubscribe link: put {{{{ links.unsubscribe }}}} into it or its layout")
    if _SHOP["postal_address"] not in part:
        raise ContentError(f"{name} has no postal address: put {{{{ shop.postal_address }}}} into it or its layout")


def _check_sms(text: str, name: str) -> None:
    if not says_how_to_stop(text) and EXAMPLE_LINKS["unsubscribe"] not in text:
        raise ContentError(
            f"{name} does not say how to end it: name a word such as STOP, or {{{{ links.unsubscribe }}}}"
        )
    if _SHOP["name"] not in text:
        raise ContentError(f"{name} does not say who writes: put {{{{ shop.name }}}} into it")
    if segments(text) > MOST_SEGMENTS:
        raise ContentError(f"{name} is {segments(text)} SMS long, at most {MOST_SEGMENTS} are put together")


_SHOP = {
    "name": "Example Shop",
    "url": "https://shop.example",
    "cart_url": "https://shop.example/cart",
    "postal_address": "1 Example Street",
}


_GOODS = (
    {
        "name": "Example",
        "category": "Examples",
        "price": "12.00",
        "url": "https://shop.example/p",
        "reason": "A reason",
    },
    {"name": "Other", "category": None, "price": None, "url": "https://shop.example/p", "reason": None},
)


_DETAILS = {name: "1 January 2030" if kind == "day" else "Example" for name, kind in DETAILS.items()}


_CART = [
    {"name": "Example", "pieces": 2, "label": "2 × Example", "category": "Examples", "price": "12.00"},
    {"name": "Other", "pieces": 1, "label": "Other", "category": "Examples", "price": "9.50"},
]
