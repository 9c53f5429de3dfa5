"""Reads the playbook: the YAML declarations under ``defs/``, with the lines they stand on, for good error messages.

The same files are Dagster Components; this reader serves the logic, the command line and the tests without Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import yaml

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import PROJECT_ROOT

#: The playbook that ships with the package.
PLAYBOOK = PROJECT_ROOT / "shopauto_pipelines" / "defs"


_T = TypeVar("_T")


class PlaybookError(ShopAutoError):
    """A declaration is wrong; the text starts with ``file:line``."""


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
        node = self.root
        for step in ("attributes", *path):
            child = _child(node, step)
            if child is None:
                break
            node = child
        return node.start_mark.line + 1

    def error(self, message: str, *path: str | int) -> PlaybookError:
        """An error that names file and line."""
        shown = self.file.relative_to(PROJECT_ROOT) if self.file.is_relative_to(PROJECT_ROOT) else self.file
        return PlaybookError(f"{shown}:{self.line(*path)}: {message}")


def declarations(component: str, folder: Path = PLAYBOOK) -> Iterator[Declaration]:
    """Every declaration whose ``type`` ends in ``component`` (a class name), in path order.

    Raises :class:`PlaybookError` for a file that is not YAML.
    """
    for file in sorted(folder.rglob("defs.yaml")):
        for root, document in _documents(file, file.stat().st_mtime_ns):
            if isinstance(document, dict) and str(document.get("type", "")).rsplit(".", 1)[-1] == component:
                yield Declaration(file, document.get("attributes") or {}, root)


def once_per_change(load: Callable[[Path], _T]) -> Callable[..., _T]:
    """Decorates a loader of the playbook: it reads a folder once, and again when any file in it is new, changed or gone.

    What it returns is shared: not to be changed.
    """

    @lru_cache(maxsize=64)
    def loaded(folder: Path, state: tuple[tuple[Path, int], ...]) -> _T:
        return load(folder)

    @wraps(load)
    def load_if_changed(folder: Path = PLAYBOOK) -> _T:
        files = (path for path in folder.rglob("*") if path.is_file())
        return loaded(folder, tuple(sorted((path, path.stat().st_mtime_ns) for path in files)))

    return load_if_changed


@lru_cache(maxsize=1024)
def _documents(file: Path, mtime_ns: int) -> list[tuple[yaml.Node, Any]]:
    """The YAML documents of a file, each as nodes with their lines and as values; read again when the file changes."""
    try:
        text = file.read_text(encoding="utf-8")
        nodes = yaml.compose_all(text, Loader=yaml.CSafeLoader)
        return list(zip(nodes, yaml.load_all(text, Loader=yaml.CSafeLoader), strict=True))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlaybookError(f"{file}:{line}: not valid YAML: {error.problem}") from None


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None
