"""The words of messages: read from ``texts/<language>.yaml``, the shared ones and a step's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from shopauto_pipelines.campaigns.content.fault import ContentError
from shopauto_pipelines.campaigns.content.templates import fill, plain

#: The parser in C is ten times as quick, where PyYAML was built with it.
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def words_of(folder: Path, step: str, language: str) -> dict[str, str]:
    """The shared words and the step's own, which win."""
    shared = read_words(shared_words(folder, language))
    own = read_words(own_words(folder, language)).get(step)
    if not isinstance(own, dict):
        raise ContentError(f"texts/{language}.yaml has no texts for step {step!r}")
    words = {**shared, **own}
    for name, value in words.items():
        if not isinstance(name, str):
            told = "put it in quotes, as YAML takes yes, no, on and off for true and false"
            raise ContentError(f"texts/{language}.yaml: the name {name!r} is not a text: {told}")
        if not isinstance(value, str):
            raise ContentError(f"texts/{language}.yaml: text {name!r} is not a text (quote it)")
    return words


def shared_words(folder: Path, language: str) -> Path:
    """The file of the words that all campaigns share."""
    return folder.parent / "texts" / f"{language}.yaml"


def own_words(folder: Path, language: str) -> Path:
    """The file of a campaign's own words."""
    return folder / "texts" / f"{language}.yaml"


def read_words(path: Path) -> Mapping[str, Any]:
    """What a file of texts holds, read once and again when it has changed."""
    try:
        return _parsed_words(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise ContentError(f"there is no {'/'.join(path.parts[-3:])}") from None


@lru_cache(maxsize=512)
def _parsed_words(path: Path, changed_at: int) -> Mapping[str, Any]:
    shown = "/".join(path.parts[-3:])
    try:
        words = yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContentError(f"{shown} is not valid YAML in UTF-8: {error}") from None
    if not isinstance(words, dict):
        raise ContentError(f"{shown} holds no texts")
    return words


def written_at(file: Path, *keys: str) -> str | None:
    """File and line that a text is written in, under its keys."""
    node = yaml.compose(file.read_text(encoding="utf-8"))
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for found, value in pairs if found.value == key), None)
    return f"{'/'.join(file.parts[-3:])}:{node.start_mark.line + 1}" if node is not None else None


class Texts:
    """The words of a step in one language: ``text.headline`` is filled in when a template asks for it."""

    def __init__(self, words: Mapping[str, str], values: Mapping[str, object], written: Callable[[str], str]) -> None:
        self.__words, self.__values, self.__written = words, values, written

    def __contains__(self, name: str) -> bool:
        return name in self.__words

    def __getitem__(self, name: str) -> str:
        if name not in self.__words:
            near = "".join(f", did you mean {match!r}?" for match in get_close_matches(name, self.__words, 1))
            raise ContentError(f"{self.__written(name)}: there is no text {name!r}{near}")
        words = self.__words[name]
        if "{" not in words:
            return words
        try:
            return fill(plain(words), self.__values, "")
        except ContentError as error:
            raise ContentError(f"{self.__written(name)}, text {name!r}: {error}") from None
