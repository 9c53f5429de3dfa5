"""Messages with holes: what many people share is rendered once, and what differs is kept apart as values.

A million messages of a campaign differ in a few words: a name, a link. Rendering each from its template costs half a
millisecond; a :class:`Draft` is rendered once for everybody who gets the same text around the holes, and filling it in
costs a microsecond.

What makes a hole is found out, not declared. The template is given a stand-in for every text about a person, their cart and
their offer (and for every link) that can be printed and tested for being there. Whatever else a template does with one
(compare it, cut it, look inside) is refused, and from then on that field is taken by its value: people with the same value
share a draft. Each new draft is filled in and compared with what the template gives for this person and for an awkward one;
where they differ, the step is rendered message by message, as if this module were not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import UndefinedError
from markupsafe import escape

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.content import Rendered

#: How a mark begins. That of a hole is ``%sa:person.<field>%``, ``%sa:cart.<n>.<field>%`` (or ``products``, ``about``),
#: ``%sa:offer.<field>%`` (or ``details``, ``links``), with ``;`` before the last sign where the value has to be escaped, as
#: a name in HTML.
MARK = "%sa:"

_MARKS = re.compile(r"%sa:((?:person|links|offer|details|(?:cart|products|about)\.\d+)\.\w+;?)%")

_SPECIAL = re.compile("[&<>\"']").search

#: Most drafts kept of a step and language. Beyond it a template uses values that hardly repeat.
_KEPT = 512

#: A value that shows where a template does more with a text than to print it.
_AWKWARD = 'Zoë & <b>"o\'Neill"</b> {{ 7 }}'

#: Spaces that hold words together, as in an amount of money: a template leaves them as they are.
_TIES = str.maketrans({"\u00a0": "_", "\u202f": "_"})

Links = Mapping[str, str]
Products = Sequence[Mapping[str, Any]]


class Own(tuple[Mapping[str, Any], ...]):
    """Products that were chosen for one person, worded in the message's language: their texts are holes.

    Others are known by their identity: give the same list to people who are shown the same products.
    """

    __slots__ = ()


class Shown(NamedTuple):
    """What a message shows beside its words; :class:`~shopauto_pipelines.campaigns.content.Renderer` says what is in it."""

    products: Products = ()
    cart: Products = ()
    offer: Mapping[str, Any] | None = None
    about: Products = ()
    details: Mapping[str, Any] | None = None
    variant: str | None = None


@dataclass(frozen=True, eq=False)
class Draft:
    """Subject, HTML and text with marks of holes in them, to be filled in with values by name.

    ``names`` are the holes; a draft without any is a message as it stands, whatever looks like a mark in it.
    """

    subject: str
    html: str
    text: str
    names: frozenset[str] = frozenset()

    def fill(self, values: Mapping[str, str]) -> tuple[str, str, str]:
        """Subject, HTML and text of one person."""
        return self.filled_subject(values), self.filled_html(values), self.filled_text(values)

    def filled_subject(self, values: Mapping[str, str]) -> str:
        """The subject of one person."""
        return fill(self._cut[0], values)

    def filled_html(self, values: Mapping[str, str]) -> str:
        """The HTML of one person."""
        return fill(self._cut[1], values)

    def filled_text(self, values: Mapping[str, str]) -> str:
        """The text part of one person."""
        return fill(self._cut[2], values)

    @cached_property
    def _cut(self) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        parts = (self.subject, self.html, self.text)
        if not self.names:
            return tuple((part,) for part in parts)  # type: ignore[return-value]
        return tuple(cut(part) for part in parts)  # type: ignore[return-value]


def cut(text: str) -> list[str]:
    """A text cut at its marks: every second piece is the name of a hole."""
    return _MARKS.split(text)


def fill(pieces: Sequence[str], values: Mapping[str, str]) -> str:
    """The text that :func:`cut` cut, with the values in the holes."""
    if len(pieces) == 1:
        return pieces[0]
    whole = list(pieces)
    whole[1::2] = [valued(name, values) for name in pieces[1::2]]
    return "".join(whole)


def valued(name: str, values: Mapping[str, str]) -> str:
    """What is to stand where the mark ``name`` stands."""
    if name[-1] != ";":
        return values[name]
    value = values[name[:-1]]
    return str(escape(value)) if _SPECIAL(value) else value


#: Step, language, person, links, and the parts of :class:`Shown`.
Render = Callable[..., "Rendered"]

#: What a message is about, by name: ``person``, each product of the cart, ``cart.0``, ``cart.1``, …, ``offer``, and so on.
_Subjects = dict[str, Mapping[str, Any]]


class _Asked(NamedTuple):
    """The draft that is looked for, but for the subjects: which message, and which products by their identity."""

    step: str
    language: str
    variant: str | None
    products: Products


class Drafts:
    """The drafts of one campaign. ``render`` is :meth:`~shopauto_pipelines.campaigns.content.Renderer.render`."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._memos: dict[tuple[str, str, str | None], _Memo] = {}
        self._lock = Lock()

    def draft(
        self, step: str, language: str, person: Mapping[str, Any], links: Links, *shown: Any
    ) -> tuple[Draft, dict[str, str]]:
        """The draft of a message and the values of this person's holes; ``shown`` are the parts of :class:`Shown`.

        Raises what ``render`` raises.
        """
        parts = Shown(*shown)
        subjects: _Subjects = {"person": person}
        for name, listed in (("products", parts.products), ("cart", parts.cart), ("about", parts.about)):
            if listed and (name != "products" or type(listed) is Own):
                subjects |= {f"{name}.{n}": product for n, product in enumerate(listed)}
        if parts.offer:
            subjects["offer"] = parts.offer
        if parts.details:
            subjects["details"] = parts.details
        asked = _Asked(step, language, parts.variant, _OWN if type(parts.products) is Own else parts.products)
        memo = self._memos.get(asked[:3])
        if memo is None:
            memo = self._memos.setdefault(asked[:3], _Memo())
        found = memo.find(subjects, asked.products)
        if found is None:
            with self._lock:
                found = memo.find(subjects, asked.products) or self._make(memo, asked, subjects, links)
        draft, holes, _ = found
        values = {"links." + name: url for name, url in links.items()}
        for name, subject, field, in_subject_line in holes:
            value = values[name] = subjects[subject][field]
            if _is_odd(value, in_subject_line):
                return self._whole(asked, subjects, links), {}
        return draft, values

    def _whole(self, asked: _Asked, subjects: _Subjects, links: Links) -> Draft:
        shown = Shown(
            products=_listed(subjects, "products") if asked.products is _OWN else asked.products,
            cart=_listed(subjects, "cart"),
            offer=subjects.get("offer"),
            about=_listed(subjects, "about"),
            details=subjects.get("details"),
            variant=asked.variant,
        )
        rendered = self._render(asked.step, asked.language, subjects["person"], links, *shown)
        return Draft(rendered.subject, rendered.html, rendered.text)

    def _make(self, memo: _Memo, asked: _Asked, subjects: _Subjects, links: Links) -> _Entry:
        while not memo.hopeless:
            touched: set[_Field] = set()
            traced: Any = {name: _Traced(name, values, touched, memo.by_value) for name, values in subjects.items()}
            no_links: Any = _Traced("links", links, set(), frozenset())
            try:
                made = self._whole(asked, traced, no_links)
            except _Refused as refused:
                memo.refuse(refused)
                continue
            except Exception:
                break  # rendering the message itself will say what is wrong
            memo.touch(touched)
            html = _escaping(made.html, links)
            in_subject_line = frozenset(cut(made.subject)[1::2])
            names = in_subject_line.union(*(cut(part)[1::2] for part in (made.html, made.text)))
            holes = [_place(name, in_subject_line) for name in sorted(names) if not name.startswith("links.")]
            entry: _Entry = (Draft(made.subject, html, made.text, names), holes, asked.products)
            awkward: _Subjects = {
                name: {**values, **{hole.field: _AWKWARD for hole in holes if hole.subject == name}}
                for name, values in subjects.items()
            }
            for probe in (subjects, awkward):
                values = {f"links.{name}": url for name, url in links.items()}
                values |= {hole.name: str(probe[hole.subject][hole.field]) for hole in holes}
                truth = self._whole(asked, probe, links)
                whole = (truth.subject, truth.html, truth.text)
                odd = any(_is_odd(value, name in in_subject_line) for name, value in values.items())
                if not odd and (any(MARK in part for part in whole) or entry[0].fill(values) != whole):
                    memo.hopeless = True
                    break
            else:
                return memo.keep(subjects, asked.products, entry)
        return self._whole(asked, subjects, links), [], asked.products


#: Stands for products that are among the subjects.
_OWN = Own()


def _listed(subjects: _Subjects, name: str) -> Own:
    return Own(values for subject, values in subjects.items() if subject.startswith(f"{name}."))


def _escaping(html: str, links: Links) -> str:
    """HTML whose marks say that the value has to be escaped; a link that needs none is the same mark as in the text."""
    plain = {f"links.{name}" for name, url in links.items() if escape(url) == url}
    return _MARKS.sub(lambda mark: mark[0] if mark[1] in plain else f"{mark[0][:-1]};%", html)


#: A subject and a field of it, both by name.
_Field = tuple[str, str]


class _Place(NamedTuple):
    """A hole: its name, whose field it is, and whether it stands in the subject line too."""

    name: str
    subject: str
    field: str
    in_subject_line: bool


def _place(name: str, in_subject_line: Collection[str]) -> _Place:
    subject, _, field = name.rpartition(".")
    return _Place(name, subject, field, name in in_subject_line)


#: A draft, its holes, and the products it shows.
_Entry = tuple[Draft, list[_Place], Products]


class _Memo:
    """The drafts of a step in a language, by what they depend on."""

    def __init__(self) -> None:
        self.by_value: frozenset[_Field] = frozenset()
        self.hopeless = False
        self._touched: tuple[_Field, ...] = ()
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def find(self, subjects: _Subjects, products: Products) -> _Entry | None:
        return self._entries.get(self._key(subjects, products))

    def keep(self, subjects: _Subjects, products: Products, entry: _Entry) -> _Entry:
        if len(self._entries) >= _KEPT:
            self._entries = {}
        self._entries[self._key(subjects, products)] = entry
        return entry

    def touch(self, fields: set[_Field]) -> None:
        if not fields <= set(self._touched):
            self._touched, self._entries = tuple(sorted(fields.union(self._touched))), {}

    def refuse(self, refused: _Refused) -> None:
        """From now on take what the template looked into by its value; a link has none, nor has a person as a whole."""
        if refused.field and refused.subject != "links":
            self.by_value, self._entries = self.by_value | {(_kind(refused.subject), refused.field)}, {}
        else:
            self.hopeless = True

    def _key(self, subjects: _Subjects, products: Products) -> tuple[Any, ...]:
        key: list[Any] = [id(products), *subjects]
        for subject, field in self._touched:
            if subject not in subjects:
                continue
            value = subjects[subject][field]
            hole = _is_hole(value) and (_kind(subject), field) not in self.by_value
            key.append(_HOLE if hole else (type(value), value))
        return tuple(key)


_HOLE = object()


def _kind(subject: str) -> str:
    """``cart`` of ``cart.3``: what is done with one product of a list is done with the others."""
    return subject.partition(".")[0]


def _is_hole(value: object) -> bool:
    return type(value) is str and value != ""


def _is_odd(value: str, in_subject_line: bool) -> bool:
    """Whether a value may come out otherwise than as it stands: a template takes space away, and a mark is ours."""
    if value == " ".join(value.split()):
        return MARK in value
    tied = value.translate(_TIES)
    return in_subject_line or value != value.strip() or tied != " ".join(tied.split()) or MARK in value


class _Refused(BaseException):
    """A template does more with a hole than to print it. Not an ``Exception``: rendering turns those into words."""

    def __init__(self, subject: str, field: str = "") -> None:
        self.subject, self.field = subject, field


class _Hole:
    """Stands for a text that is there."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __bool__(self) -> bool:
        return True

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # asked by filters such as `default`
            return _Hole
        return _refuse(self)


def _refuse(self: _Hole, *_: object) -> Any:
    raise _Refused(*object.__getattribute__(self, "_name").rsplit(".", 1))


for _operation in (
    *("str", "repr", "html", "format", "hash", "len", "iter", "contains", "getitem", "call", "int", "float", "index"),
    *("eq", "ne", "lt", "le", "gt", "ge", "add", "radd", "mul", "rmul", "mod", "rmod"),
):
    setattr(_Hole, f"__{_operation}__", _refuse)


class _Traced:
    """A mapping whose texts are holes, and which notes what was asked for."""

    def __init__(
        self, subject: str, values: Mapping[str, Any], touched: set[_Field], by_value: frozenset[_Field]
    ) -> None:
        self._subject, self._values, self._touched, self._by_value = subject, values, touched, by_value

    def __getitem__(self, field: str) -> Any:
        value = self._values[field]
        self._touched.add((self._subject, field))
        if _is_hole(value) and (_kind(self._subject), field) not in self._by_value:
            return _Hole(f"{self._subject}.{field}")
        return value

    def __getattr__(self, name: str) -> Any:
        if hasattr(dict, name):  # `items`, `get`: the template looks at the whole person
            raise _Refused(self._subject)
        raise AttributeError(name)

    def __bool__(self) -> bool:
        return True  # whether there is an offer is known before its draft is chosen

    def __iter__(self) -> Any:
        raise _Refused(self._subject)

    __len__ = __contains__ = __iter__  # type: ignore[assignment]


def printed(value: Any) -> Any:
    """What a template prints for a value: the mark of a hole, anything else as it is. For ``finalize`` of Jinja.

    Raises ``UndefinedError`` for what is not known: nobody is to read "None".
    """
    if value is None:
        raise UndefinedError("what is printed here may be unknown: ask with {% if … %}, or print {{ … or '' }}")
    return f"{MARK}{object.__getattribute__(value, '_name')}%" if type(value) is _Hole else value
