"""Messages with holes: what many people share is rendered once, and what differs is kept apart as values.

A million messages of a campaign differ in a few words: a name, a link. Rendering each from its template costs half a
millisecond; a :class:`Draft` is rendered once for everybody who gets the same text around the holes, and filling it in
costs a microsecond.

What makes a hole is found out, not declared. The template is given a stand-in for every text about a person (and for
every link) that can be printed and tested for being there. Whatever else a template does with one (compare it, cut it,
look inside) is refused, and from then on that field is taken by its value: people with the same value share a draft. Each
new draft is filled in and compared with what the template gives for this person and for an awkward one; where they differ,
the step is rendered message by message, as if this module were not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from markupsafe import escape

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.content import Rendered

#: How a mark begins. That of a hole is ``%sa:person.<field>%`` or ``%sa:links.<name>%``, with ``;`` before the last sign
#: where the value has to be escaped, as a name in HTML.
MARK = "%sa:"

_MARKS = re.compile(r"%sa:((?:person|links)\.\w+;?)%")

#: Most drafts kept of a step and language. Beyond it a template uses values that hardly repeat.
_KEPT = 512

#: A value that shows where a template does more with a text than to print it.
_AWKWARD = 'Zoë & <b>"o\'Neill"</b> {{ 7 }}'

Links = Mapping[str, str]
Products = Sequence[Mapping[str, Any]]


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
    return str(escape(values[name[:-1]])) if name[-1] == ";" else values[name]


Render = Callable[[str, str, Mapping[str, Any], Links, Products], "Rendered"]


class Drafts:
    """The drafts of one campaign. ``render`` is :meth:`~shopauto_pipelines.campaigns.content.Renderer.render`."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._memos: dict[tuple[str, str], _Memo] = {}
        self._lock = Lock()

    def draft(
        self, step: str, language: str, person: Mapping[str, Any], links: Links, products: Products
    ) -> tuple[Draft, dict[str, str]]:
        """The draft of a message and the values of this person's holes. Raises what ``render`` raises.

        ``products`` is known by its identity: give the same list to people who are shown the same products.
        """
        memo = self._memos.get((step, language))
        if memo is None:
            memo = self._memos.setdefault((step, language), _Memo())
        found = memo.find(person, products)
        if found is None:
            with self._lock:
                found = memo.find(person, products) or self._make(memo, step, language, person, links, products)
        draft, fields, _ = found
        values = {"links." + name: url for name, url in links.items()}
        for name, field in fields:
            value = values[name] = person[field]
            if _is_odd(value):
                return self._whole(step, language, person, links, products), {}
        return draft, values

    def _whole(self, *message: Any) -> Draft:
        rendered = self._render(*message)
        return Draft(rendered.subject, rendered.html, rendered.text)

    def _make(
        self, memo: _Memo, step: str, language: str, person: Mapping[str, Any], links: Links, products: Products
    ) -> _Entry:
        while not memo.hopeless:
            touched: set[str] = set()
            about = _Traced("person", person, touched, memo.by_value)
            try:
                made = self._render(step, language, about, _Traced("links", links, set(), frozenset()), products)  # type: ignore[arg-type]
            except _Refused as refused:
                kind, _, field = refused.name.partition(".")
                if kind == "person" and field:
                    memo.take_by_value(field)
                else:
                    memo.hopeless = True
                continue
            except Exception:
                break  # rendering the message itself will say what is wrong
            memo.touch(touched)
            html = _escaping(made.html, links)
            names = frozenset(name for part in (made.subject, made.html, made.text) for name in cut(part)[1::2])
            fields = [(name, name.partition(".")[2]) for name in sorted(names) if name.startswith("person.")]
            entry = (Draft(made.subject, html, made.text, names), fields, products)
            for probe in (person, {**person, **{field: _AWKWARD for _, field in fields}}):
                values = {f"links.{name}": url for name, url in links.items()}
                values |= {name: str(probe[field]) for name, field in fields}
                truth = self._render(step, language, probe, links, products)
                whole = (truth.subject, truth.html, truth.text)
                if not any(map(_is_odd, values.values())) and (
                    any(MARK in part for part in whole) or entry[0].fill(values) != whole
                ):
                    memo.hopeless = True
                    break
            else:
                return memo.keep(person, products, entry)
        return self._whole(step, language, person, links, products), [], products


def _escaping(html: str, links: Links) -> str:
    """HTML whose marks say that the value has to be escaped; a link that needs none is the same mark as in the text."""
    plain = {f"links.{name}" for name, url in links.items() if escape(url) == url}
    return _MARKS.sub(lambda mark: mark[0] if mark[1] in plain else f"{mark[0][:-1]};%", html)


_Entry = tuple[Draft, list[tuple[str, str]], Products]


class _Memo:
    """The drafts of a step in a language, by what they depend on."""

    def __init__(self) -> None:
        self.by_value: frozenset[str] = frozenset()
        self.hopeless = False
        self._touched: tuple[str, ...] = ()
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def find(self, person: Mapping[str, Any], products: Products) -> _Entry | None:
        return self._entries.get(self._key(person, products))

    def keep(self, person: Mapping[str, Any], products: Products, entry: _Entry) -> _Entry:
        if len(self._entries) >= _KEPT:
            self._entries = {}
        self._entries[self._key(person, products)] = entry
        return entry

    def touch(self, fields: set[str]) -> None:
        if not fields <= set(self._touched):
            self._touched, self._entries = tuple(sorted(fields.union(self._touched))), {}

    def take_by_value(self, field: str) -> None:
        self.by_value, self._entries = self.by_value | {field}, {}

    def _key(self, person: Mapping[str, Any], products: Products) -> tuple[Any, ...]:
        key: list[Any] = [id(products)]
        for field in self._touched:
            value = person[field]
            key.append(_HOLE if _is_hole(value) and field not in self.by_value else (type(value), value))
        return tuple(key)


_HOLE = object()


def _is_hole(value: object) -> bool:
    return type(value) is str and value != ""


def _is_odd(value: str) -> bool:
    """Whether a value may come out otherwise than as it stands: a template takes space away, and a mark is ours."""
    return MARK in value or value != " ".join(value.split())


class _Refused(BaseException):
    """A template does more with a hole than to print it. Not an ``Exception``: rendering turns those into words."""

    def __init__(self, name: str) -> None:
        self.name = name


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
        raise _Refused(object.__getattribute__(self, "_name"))


def _refuse(self: _Hole, *_: object) -> Any:
    raise _Refused(object.__getattribute__(self, "_name"))


for _operation in (
    *("str", "repr", "html", "format", "hash", "len", "iter", "contains", "getitem", "call", "int", "float", "index"),
    *("eq", "ne", "lt", "le", "gt", "ge", "add", "radd", "mul", "rmul", "mod", "rmod"),
):
    setattr(_Hole, f"__{_operation}__", _refuse)


class _Traced:
    """A mapping whose texts are holes, and which notes what was asked for."""

    def __init__(self, kind: str, values: Mapping[str, Any], touched: set[str], by_value: frozenset[str]) -> None:
        self._kind, self._values, self._touched, self._by_value = kind, values, touched, by_value

    def __getitem__(self, field: str) -> Any:
        value = self._values[field]
        self._touched.add(field)
        return _Hole(f"{self._kind}.{field}") if _is_hole(value) and field not in self._by_value else value

    def __getattr__(self, name: str) -> Any:
        if hasattr(dict, name):  # `items`, `get`: the template looks at the whole person
            raise _Refused(self._kind)
        raise AttributeError(name)

    def __iter__(self) -> Any:
        raise _Refused(self._kind)

    __len__ = __contains__ = __iter__  # type: ignore[assignment]


def printed(value: Any) -> Any:
    """What a template prints for a value: the mark of a hole, anything else as it is. For ``finalize`` of Jinja."""
    return f"{MARK}{object.__getattribute__(value, '_name')}%" if type(value) is _Hole else value
