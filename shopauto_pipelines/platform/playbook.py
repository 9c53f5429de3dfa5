"""Reads the playbook: the YAML declarations under ``defs/``, with the lines they stand on, for good error messages.

The same files are Dagster Components; this reader serves the logic, the command line and the tests without Dagster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, wraps
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.platform.words import closest, nearest

#: The playbook that ships with the package.
PLAYBOOK = PROJECT_ROOT / "shopauto_pipelines" / "defs"


_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)


class PlaybookError(ShopAutoError):
    """A declaration is wrong; the text starts with ``file:line:column``."""


@dataclass(frozen=True)
class Declaration:
    """One YAML document of the playbook: its ``attributes``, and where it stands."""

    file: Path
    attributes: dict[str, Any]
    root: yaml.Node

    @property
    def folder(self) -> Path:
        """Folder of the file: templates stand beside it."""
        return self.file.parent

    def line(self, *path: str | int) -> int:
        """Line of ``attributes[path[0]][path[1]]…``; of the nearest parent where that is not in the file."""
        return self._node(*path).start_mark.line + 1

    def error(self, message: str, *path: str | int, at: tuple[int, int] | None = None) -> PlaybookError:
        """An error that names file, line and column of ``attributes[path[0]][path[1]]…``, or of its nearest parent.

        ``at`` is a place within a text that stands there, 1-based line and column: the place in the file is found however
        the text is written, plain, quoted, or as a block.
        """
        node = self._node(*path)
        if at is not None and isinstance(node, yaml.ScalarNode):
            return _error(self.file, *_place_within(self.file.read_text(encoding="utf-8"), node, at), message)
        return self._error(node, message)

    def validated(self, model: type[_M], what: str) -> _M:
        """The attributes as a ``model``, ``what`` in words: a segment. Raises :class:`PlaybookError` for the first mistake."""
        try:
            return model.model_validate(self.attributes)
        except ValidationError as error:
            raise self.mistake(error, model, what) from None

    def mistake(self, error: ValidationError, model: type[BaseModel], what: str) -> PlaybookError:
        """The first mistake of a validation in words, with its place.

        The ``ValueError`` of a validator may say more by attributes: ``path``, the field below the one validated, and
        ``at``, line and column within its text.
        """
        found = error.errors(include_url=False)[0]
        if unknown := self.unknown(found, model, what):
            return unknown
        cause = found.get("ctx", {}).get("error")
        kind, path = found["type"], self._real((*found["loc"], *getattr(cause, "path", ())), found["type"])
        where = ".".join(str(step) for step in path)
        if kind == "missing":
            return self.error(f"{what}: `{where}` is missing", *path[:-1])
        if kind == "extra_forbidden":
            return self._no_such(path, model, what)
        if found["loc"][-1:] == ("[key]",) and kind in _WANTED:
            node = self._node(*path)
            key = next((key for key, _value in _items(node) if not key.tag.endswith(":str")), node)
            return self._error(
                key, f"{what} {where}: the name `{key.value}` is {_noun(found['input'])}: put it in quotes"
            )
        if kind in _WANTED:
            text = f"must be {_WANTED[kind]}, not {_noun(found['input'])}"
            if kind == "string_type" and isinstance(found["input"], bool | int | float | date):
                text += ": put it in quotes"
        else:
            text = (
                found["msg"]
                .removeprefix("Value error, ")
                .replace("Input should", "must")
                .replace("must be be", "must be")
            )
            if kind == "literal_error" and (near := closest(str(found["input"]), _choices(found["ctx"]["expected"]))):
                text += f"; did you mean {near!r}?"
        at = getattr(cause, "at", None)
        return self.error(f"{what} {where}: {text}" if where else f"{what}: {text}", *path, at=at)

    def unknown(self, found: Mapping[str, Any], model: type[BaseModel], what: str) -> PlaybookError | None:
        """The first unknown name where a mistake of pydantic's misses something: more often than not, that is what it stands for.

        None where the mistake is another, or every name is known.
        """
        kind, loc = found["type"], found["loc"]
        if kind not in ("missing", "value_error"):
            return None
        path = self._real(loc[:-1] if kind == "missing" else loc, kind)
        known, node = _fields(model, path), self._node(*path)
        names = [key.value for key, _value in _items(node)] if known else []
        strange = next((name for name in names if name not in known), None)
        return None if strange is None else self._no_such((*path, strange), model, what)

    def _no_such(self, path: tuple[str | int, ...], model: type[BaseModel], what: str) -> PlaybookError:
        """Said of a name that does not exist, with the nearest of those that are left."""
        known = [name for name in _fields(model, path[:-1]) if _child(self._node(*path[:-1]), name) is None]
        hint = nearest(str(path[-1]), known) if known else "remove it"
        where = ".".join(str(step) for step in path)
        return self._error(self._node(*path, key=True), f"{what}: there is no `{where}`; {hint}")

    def _error(self, node: yaml.Node, message: str) -> PlaybookError:
        return _error(self.file, node.start_mark.line + 1, node.start_mark.column + 1, message)

    def _node(self, *path: str | int, key: bool = False) -> yaml.Node:
        """The node at the path, or of the nearest parent that is in the file; its ``key`` rather than its value."""
        node = self.root
        for step in ("attributes", *path):
            child = _child(node, step)
            if child is None:
                return node
            node, name = child, next((k for k, value in _items(node) if value is child), node)
        return name if key else node

    def _real(self, path: Sequence[str | int], kind: str) -> tuple[str | int, ...]:
        """The path without what pydantic adds to it: the names of the types of a union that it tried."""
        real: list[str | int] = []
        for n, step in enumerate(path):
            of_its_own = n == len(path) - 1 and kind in ("missing", "extra_forbidden")
            if of_its_own or _child(self._node(*real), step) is not None:
                real.append(step)
        return tuple(real)


#: What a field wants, by the type of pydantic's error.
_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "fields with values",
    "model_type": "fields with values",
    "model_attributes_type": "fields with values",
}


def _noun(value: object) -> str:
    """What a value of a YAML file is, in words."""
    if value is None:
        return "empty"
    if isinstance(value, str | int | float):
        kind = "true or false" if isinstance(value, bool) else "the text" if isinstance(value, str) else "the number"
        return kind if isinstance(value, bool) else f"{kind} {value!r}"[:60]
    return (
        "a list" if isinstance(value, list | tuple) else "fields with values" if isinstance(value, dict) else "a date"
    )


def declarations(component: str, folder: Path = PLAYBOOK) -> Iterator[Declaration]:
    """Every declaration whose ``type`` ends in ``component`` (a class name), in path order.

    Raises :class:`PlaybookError` for a file that is not YAML.
    """
    for file in sorted(folder.rglob("defs.yaml")):
        for root, document in _documents(file, file.stat().st_mtime_ns):
            if isinstance(document, dict) and str(document.get("type", "")).rsplit(".", 1)[-1] == component:
                yield Declaration(file, document.get("attributes") or {}, root)


def documents(file: Path) -> list[Declaration]:
    """The YAML documents of a file that is no part of the playbook, whatever their type: each with all it says.

    A document may be a declaration, or ``attributes`` alone without saying so. Raises :class:`PlaybookError`.
    """
    found = []
    for root, document in _documents(file, file.stat().st_mtime_ns):
        if isinstance(document, dict) and "attributes" in document:
            found.append(Declaration(file, document["attributes"] or {}, root))
        elif isinstance(document, dict):
            name = yaml.ScalarNode("tag:yaml.org,2002:str", "attributes", root.start_mark, root.start_mark)
            found.append(Declaration(file, document, yaml.MappingNode(root.tag, [(name, root)], root.start_mark)))
    return found


def declared_once(folder: Path, model: type[_M], what: str) -> _M:
    """The only declaration of its kind under ``folder``, as a ``model``; its defaults where there is none.

    ``what`` names it in words, in the plural; in capitals it is the component's class: ``predictions``, ``Predictions``.
    Raises :class:`PlaybookError` for a mistake, or a second one.
    """
    found: _M | None = None
    for declaration in declarations(what.capitalize(), folder):
        if found is not None:
            raise declaration.error(f"{what} are declared twice: put both into one file")
        found = declaration.validated(model, what)
    return found or model.model_validate({})


def once_per_change(load: Callable[[Path], _T]) -> Callable[..., _T]:
    """Decorates a loader of the playbook: it reads a folder once, and again when any file in it is new, changed or gone.

    What it returns is shared: not to be changed.
    """

    @lru_cache(maxsize=64)
    def loaded(folder: Path, state: tuple[tuple[str, int], ...]) -> _T:
        return load(folder)

    @wraps(load)
    def load_if_changed(folder: Path = PLAYBOOK) -> _T:
        # asked at every step of a run, so without a Path for each file
        files = sorted(os.path.join(where, name) for where, _folders, names in os.walk(folder) for name in names)
        return loaded(folder, tuple((file, os.stat(file).st_mtime_ns) for file in files))

    return load_if_changed


@lru_cache(maxsize=1024)
def _documents(file: Path, mtime_ns: int) -> list[tuple[yaml.Node, Any]]:
    """The YAML documents of a file, each as nodes with their lines and as values; read again when the file changes."""
    try:
        text = file.read_text(encoding="utf-8")
        nodes = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
        values = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _error(file, line, column, f"not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _error(file, 1, 1, f"not valid YAML: {error}") from None
    except ValueError as error:  # a value such as 2025-02-30
        wrong = next((scalar for node in nodes for scalar in _scalars(node) if not _can_be_read(scalar)), nodes[0])
        mark = wrong.start_mark
        raise _error(file, mark.line + 1, mark.column + 1, f"not valid YAML: {error}") from None
    for node in nodes:
        _refuse_doubles(file, node)
    return list(zip(nodes, values, strict=True))


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for child in node.value if isinstance(node, yaml.SequenceNode) else (value for _key, value in _items(node)):
        yield from _scalars(child)


def _can_be_read(node: yaml.ScalarNode) -> bool:
    try:
        yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError:
        return False
    return True


def _refuse_doubles(file: Path, node: yaml.Node) -> None:
    """Raise for a key that a mapping has twice: YAML would take the last one silently."""
    seen: dict[str, int] = {}
    for key, value in _items(node):
        if key.value in seen:
            mark = key.start_mark
            message = f"`{key.value}` is already there in line {seen[key.value]}: remove one of the two"
            raise _error(file, mark.line + 1, mark.column + 1, message)
        seen[key.value] = key.start_mark.line + 1
        _refuse_doubles(file, value)
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        _refuse_doubles(file, item)


def _items(node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Keys and values of a mapping; keys that are lists or mappings are left out."""
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in _items(node) if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _error(file: Path, line: int, column: int, message: str) -> PlaybookError:
    shown = file.relative_to(PROJECT_ROOT) if file.is_relative_to(PROJECT_ROOT) else file
    return PlaybookError(f"{shown}:{line}:{column}: {message}")


#: What stands before the first character of a text: an anchor or tag, and the quote, or the header of a block.
_OPENING = re.compile(r"(?:[&!]\S*\s+)*(?:[|>][^\n]*\n|['\"])?")

#: What is one character, or none, of a quoted text, by the quote.
_WRITTEN = {
    "'": re.compile(r"''|[^\s]"),
    '"': re.compile(r"\\(?:x..|u.{4}|U.{8}|.)|[^\s]", re.DOTALL),
}

#: Escapes of a double-quoted text that stand for white space, or for nothing.
_BLANK_ESCAPES = frozenset(("\\n", "\\r", "\\t", "\\ ", "\\\t", "\\\n", "\\v", "\\f", "\\_", "\\N", "\\L", "\\P"))


def _place_within(file_text: str, node: yaml.ScalarNode, at: tuple[int, int]) -> tuple[int, int]:
    """Line and column in the file of a line and column within a text's value.

    White space is folded, indented or escaped in YAML; everything else stands in the file in the same order. So the place
    is found by counting the other characters.
    """
    line, column = at
    before = "\n".join([*node.value.split("\n")[: line - 1], node.value.split("\n")[line - 1][: column - 1]])
    ahead = len("".join(before.split()))
    lines = file_text.splitlines(keepends=True)
    start = sum(len(text) for text in lines[: node.start_mark.line]) + node.start_mark.column
    opening = _OPENING.match(file_text, start)
    begin = opening.end() if opening else start
    quote = file_text[begin - 1] if begin > start else ""
    signs = (_WRITTEN[quote] if quote in _WRITTEN else re.compile(r"\S")).finditer(file_text, begin)
    offset = next(islice((sign.start() for sign in signs if sign.group() not in _BLANK_ESCAPES), ahead, None), start)
    return file_text.count("\n", 0, offset) + 1, offset - (file_text.rfind("\n", 0, offset) + 1) + 1


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the fields that may stand at the path: those of every model there; none where names are free."""
    types: list[Any] = [model]
    for step in path:
        types = [found for each in types for found in _below(each, step)]
    return list(dict.fromkeys(name for each in types if _is_model(each) for name in each.model_fields))


def _below(annotation: Any, step: str | int) -> list[Any]:
    """The types of what stands under a name, or at a place, of a type."""
    if _is_model(annotation):
        field = annotation.model_fields.get(str(step))
        return _alternatives(field.annotation) if field else []
    return (
        _alternatives(get_args(annotation)[-1 if get_origin(annotation) is dict else 0]) if get_args(annotation) else []
    )


def _alternatives(annotation: Any) -> list[Any]:
    """The types of a union; else the type itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [found for each in get_args(annotation) for found in _alternatives(each)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _choices(expected: str) -> list[str]:
    """What pydantic says may stand there: ``'a', 'b' or 'c'``."""
    return re.findall(r"'([^']*)'", expected)
