"""Where the files of a lake are: in a folder, or (:mod:`~shopauto_pipelines.platform.object_storage`) in a bucket.

Names are relative to the lake, with ``/`` between their parts. The file of a partition stands in a folder of its own, named
``<partition column>=<date>``. Whoever reads gets a local file, so that engines and libraries read both kinds alike.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

#: Name of a partition's file in its folder.
FILE = "data.parquet"

#: Local folder, under the root, of what is not part of the lake yet, or no more.
STAGING = "_staging"

#: To so many seconds it is noted when a file was last asked for.
_USE_SECONDS = 600


class Replaced(Exception):
    """A file is no more what it was when it was looked up: look again."""


class Times(NamedTuple):
    """When a partition's rows last ``changed``, and when it was last ``computed``, whether or not they did: ns since 1970.

    ``columns``: a mark of those it was computed with, where that is known without reading it.
    """

    changed: int
    computed: int
    columns: str = ""


#: Whether a partition's bytes changed; asked when it is in place.
Outcome: TypeAlias = Callable[[], bool]


class Stored(Protocol):
    """One file that is in the storage."""

    @property
    def folder(self) -> str:
        """Name of the folder it stands in, without those above."""

    @property
    def version(self) -> tuple[int | str, ...]:
        """Another one after the file was replaced."""

    @property
    def size(self) -> int:
        """Bytes."""


class Storage(Protocol):
    """Files of a lake. ``root`` is local: the lake's folder, or the one of this machine's copies. ``place`` is for people."""

    root: Path
    place: str

    def prepare(self) -> None:
        """Make the local folders that a lake needs."""

    def days(self, table: str) -> list[str]:
        """Folders of the partitions of a table, in no order."""

    def partitions(self, table: str) -> Mapping[str, Stored]:
        """The files of all partitions of a table, by folder."""

    def partition(self, table: str, folder: str) -> Stored | None:
        """The file of one partition; ``None`` where there is none."""

    def times(self, tables: Sequence[str]) -> dict[str, dict[str, Times]]:
        """Of every partition of the tables, by table and folder."""

    def local(self, files: Sequence[Stored]) -> list[Path]:
        """Local files with their bytes, each in a folder named as its own; raises :class:`Replaced`."""

    def replacing(
        self, table: str, columns: str, partitions: int, began: int | None = None
    ) -> AbstractContextManager[Callable[[str, Path], Outcome]]:
        """Gives a function that replaces a partition, to call for each of so many: ``replaced(folder, staged)``.

        ``staged`` is a local file, alone in its folder, which goes away. A reader sees the old file or the new one. It was
        computed ``began``, ns, or just now, also where its bytes stay: what it is made of was read since. Everything is in place
        when the block ends.
        """

    def delete(self, table: str, folder: str) -> None:
        """Remove a partition; nothing happens where there is none."""

    def text(self, name: str) -> str | None:
        """What a small file says; ``None`` where there is none."""

    def put_text(self, name: str, text: str) -> None:
        """Write a small file, at once."""

    def pull(self, folder: str) -> None:
        """Bring the local ``folder`` under the root to what is stored; what this machine changed since the last push stays."""

    def push(self, folder: str) -> None:
        """Store what changed in the local ``folder``: a reader never finds a note that tells of files which are not there."""

    def reset(self, folder: str) -> None:
        """As :meth:`pull`, and what was changed without being pushed is undone: its process was killed."""

    def url(self, name: str) -> str:
        """How a file is called on other machines."""

    def check(self) -> str:
        """Try what a lake needs; returns what was found, raises where something is wrong."""


class LocalFile(NamedTuple):
    """A file in the lake's folder."""

    path: str

    @property
    def folder(self) -> str:
        """Name of the folder it stands in."""
        return self.path.rsplit("/", 2)[1]

    @property
    def version(self) -> tuple[int | str, ...]:
        """Size and time."""
        stat = os.stat(self.path)
        return stat.st_size, stat.st_mtime_ns

    @property
    def size(self) -> int:
        """As the file system has it."""
        return os.stat(self.path).st_size


class LocalStorage:
    """A folder. A partition's folder comes by one rename with its file in it, so it never stands there without.

    The file's time says when the rows changed, its folder's when they were last computed.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.place = str(root)

    def prepare(self) -> None:
        """The staging folder."""
        (self.root / STAGING).mkdir(parents=True, exist_ok=True)

    def days(self, table: str) -> list[str]:
        """One look into the table's folder."""
        try:
            with os.scandir(self.root / table) as entries:
                return [entry.name for entry in entries if "=" in entry.name]
        except FileNotFoundError:
            return []

    def partitions(self, table: str) -> dict[str, LocalFile]:
        """One look into the table's folder."""
        return {folder: LocalFile(f"{self.place}/{table}/{folder}/{FILE}") for folder in self.days(table)}

    def partition(self, table: str, folder: str) -> LocalFile | None:
        """One ``stat``."""
        file = f"{self.place}/{table}/{folder}/{FILE}"
        return LocalFile(file) if os.path.exists(file) else None

    def times(self, tables: Sequence[str]) -> dict[str, dict[str, Times]]:
        """Two ``stat`` for each partition."""
        return {
            table: {folder: times for folder in self.days(table) if (times := self._times(table, folder))}
            for table in tables
        }

    def local(self, files: Sequence[Stored]) -> list[Path]:
        """The files themselves."""
        return [Path(file.path) for file in files if isinstance(file, LocalFile)]

    @contextmanager
    def replacing(
        self, table: str, columns: str, partitions: int, began: int | None = None
    ) -> Iterator[Callable[[str, Path], Outcome]]:
        """Compare, and rename or touch."""

        def replaced(folder: str, staged: Path) -> Outcome:
            try:
                changed = self._replace(self.root / table / folder / FILE, staged, began)
            finally:
                shutil.rmtree(staged.parent, ignore_errors=True)
            return lambda: changed

        yield replaced

    @staticmethod
    def _replace(target: Path, staged: Path, began: int | None) -> bool:
        now = (time.time_ns(),) * 2  # the file system's own clock goes in steps of some milliseconds
        computed = (began or now[0],) * 2
        if target.exists() and filecmp.cmp(staged, target, shallow=False):
            os.utime(target.parent, ns=computed)
            return False
        os.utime(staged, ns=now)
        os.utime(staged.parent, ns=computed)
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(staged.parent, target.parent)  # a new partition: the folder with its file
        except OSError:  # the partition is there already
            os.replace(staged, target)
            os.utime(target.parent, ns=computed)
        return True

    def delete(self, table: str, folder: str) -> None:
        """One rename out of the table."""
        removed = staged_name(self.root, "removed")
        with suppress(FileNotFoundError):
            os.rename(self.root / table / folder, removed)
        shutil.rmtree(removed, ignore_errors=True)

    def text(self, name: str) -> str | None:
        """Read as a whole."""
        try:
            return (self.root / name).read_text()
        except FileNotFoundError:
            return None

    def put_text(self, name: str, text: str) -> None:
        """Written beside, and renamed."""
        staged = staged_name(self.root, "text")
        staged.write_text(text)
        os.replace(staged, self.root / name)

    def pull(self, folder: str) -> None:
        """What is stored is the folder itself."""

    def push(self, folder: str) -> None:
        """What is stored is the folder itself."""

    def reset(self, folder: str) -> None:
        """What is stored is the folder itself."""

    def url(self, name: str) -> str:
        """Its path."""
        return f"{self.place}/{name}"

    def check(self) -> str:
        """A folder needs nothing."""
        return self.place

    def _times(self, table: str, folder: str) -> Times | None:
        path = f"{self.place}/{table}/{folder}"
        with suppress(FileNotFoundError):  # somebody deleted the file and left the folder
            return Times(os.stat(f"{path}/{FILE}").st_mtime_ns, os.stat(path).st_mtime_ns)
        return None


def used(file: Path) -> bool:
    """Whether there is a file; its access time says, to some minutes, when it was last asked for."""
    try:
        stat = file.stat()
        if time.time() - stat.st_atime > _USE_SECONDS:
            os.utime(file, ns=(time.time_ns(), stat.st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def staged_name(root: Path, what: str) -> Path:
    """A name of its own under :data:`STAGING`."""
    return root / STAGING / f"{what}-{os.getpid()}-{uuid.uuid4().hex}"
