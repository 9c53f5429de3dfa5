"""The files: what is read, how it is written, and SQL of it as one table."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import glob
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import duckdb

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.predictions.transactions.names import USUAL
from shopauto_pipelines.sources.expressions import plain

_NO_VALUE = "('', 'nan', 'null', 'none', 'n/a', '<na>', 'nat', '\\n')"
_DATA = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")


class TransactionsError(ShopAutoError):
    """A transaction file cannot be used; the text says why, and which option helps."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written, and the names of its columns."""

    delimiter: str
    quote: str
    escape: str
    comment: str
    skip: int
    header: bool
    names: tuple[str, ...]
    encoding: str

    def reader(self, files: Sequence[Path]) -> str:
        """SQL that reads such files as text, and keeps count of the lines that do not fit."""
        columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in self.names)
        return (
            f"read_csv({_listed(files)}, auto_detect = false, delim = {text(self.delimiter)}, quote = {text(self.quote)}, "
            f"escape = {text(self.escape)}, comment = {text(self.comment)}, skip = {self.skip}, "
            f"header = {str(self.header).lower()}, store_rejects = true, encoding = {text(self.encoding)}, "
            f"columns = {{{columns}}})"
        )


@dataclass(frozen=True)
class File:
    """The files as one table. ``types`` are those of the columns that all files have, for CSV as the sniffer sees them.

    ``parts``: CSV files by how they are written; none where the files are Parquet.
    """

    shown: str
    files: tuple[Path, ...]
    types: Mapping[str, str]
    parts: Mapping[Dialect, tuple[Path, ...]]

    @classmethod
    def found(cls, con: duckdb.DuckDBPyConnection, path: str | Path) -> File:
        """The files at a path; raises :class:`TransactionsError` where there are none, or not tables."""
        files = tuple(_files(path))
        kinds = {_kind(file) for file in files}
        if len(kinds) > 1:
            raise TransactionsError(f"{path}: holds CSV and Parquet files; say which, e.g. '{path}/*.csv'")
        if kinds == {"parquet"}:
            made = cls(str(path), files, {}, {})
            described = con.execute(f"describe select * from {made.relation}").fetchall()
            return replace(made, types={name: kind for name, kind, *_ in described})
        parts: dict[Dialect, tuple[Path, ...]] = {}
        types: dict[str, str] = {}
        for file in files:
            dialect, found = _dialect(con, file)
            types = {name: kind for name, kind in types.items() if name in found} if parts else found
            parts[dialect] = (*parts.get(dialect, ()), file)
        if not types:
            raise TransactionsError(f"{path}: the files have no column in common; give one of them, or a pattern")
        return cls(str(path), files, types, parts)

    @property
    def relation(self) -> str:
        """SQL of all rows, to select from; the values of CSV files are text."""
        if not self.parts:
            return f"read_parquet({_listed(self.files)}, union_by_name = true, binary_as_string = true)"
        columns = ", ".join(map(quoted, self.types))
        readers = (f"select {columns} from {dialect.reader(files)}" for dialect, files in self.parts.items())
        return f"({' union all '.join(readers)})"

    @property
    def values(self) -> str:
        """SQL of all rows: text is trimmed, and null where it says that there is none."""
        texts = {name for name in self.types if self.type(name) == "VARCHAR"}
        trimmed, said = [], []
        for name in self.types:
            column = quoted(name)
            trimmed.append(f"trim({column}) as {column}" if name in texts else column)
            none = f"case when length({column}) > 4 or lower({column}) not in {_NO_VALUE} then {column} end as {column}"
            said.append(none if name in texts else column)
        return f"(select {', '.join(said)} from (select {', '.join(trimmed)} from {self.relation}))"

    @property
    def encodings(self) -> set[str]:
        """What CSV files are read as."""
        return {dialect.encoding for dialect in self.parts}

    def as_latin_1(self) -> File:
        """The same files, where what was taken for UTF-8 is not."""
        parts = {replace(d, encoding="latin-1") if d.encoding == "utf-8" else d: f for d, f in self.parts.items()}
        return replace(self, parts=parts)

    def type(self, column: str) -> str:
        """The type in which the engine sees a column."""
        return "VARCHAR" if self.parts else self.types[column]

    def listed(self) -> str:
        """The columns, for an error."""
        return "The file has " + ", ".join(f"`{name}`" for name in self.types) + "."


def _files(path: str | Path) -> list[Path]:
    """The data files at a path or that a glob stands for, in order of their names."""
    shown, place = str(path), Path(path).expanduser()
    if place.is_dir():
        inside = (file for file in sorted(place.rglob("*")) if file.is_file())
        files = [f for f in inside if f.name.lower().endswith(_DATA) and not f.name.startswith((".", "_"))]
        if not files:
            raise TransactionsError(f"{shown}: the folder holds no CSV and no Parquet file")
        return files
    if place.exists():
        return [place]
    if any(mark in shown for mark in "*?["):
        if files := sorted(Path(found) for found in glob(str(place), recursive=True) if Path(found).is_file()):
            return files
        raise TransactionsError(f"{shown}: no file is called like that")
    raise TransactionsError(f"{shown}: there is no such file")


def _kind(file: Path) -> Literal["csv", "parquet"]:
    """What a file is, by how it begins; raises :class:`TransactionsError` for what is not read."""
    try:
        head = _head(file)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the file is damaged"
        raise TransactionsError(f"{file}: cannot be read: {reason}") from None
    if not head.strip():
        raise TransactionsError(f"{file}: the file is empty")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise TransactionsError(f"{file}: this is an Excel file or an archive; save the table as CSV, or unpack it")
    if head.startswith((b"{", b"[{", b"[\n")):
        raise TransactionsError(f"{file}: this is JSON; CSV and Parquet are read")
    compressed = head.startswith(b"\x28\xb5\x2f\xfd")  # Zstandard
    if b"\0" in head and not compressed and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise TransactionsError(f"{file}: this is neither text nor Parquet; CSV and Parquet are read")
    return "csv"


def _head(file: Path, size: int = 1 << 16) -> bytes:
    """How a file begins."""
    with _opened(file) as stream:
        return stream.read(size)


def _opened(file: Path) -> gzip.GzipFile | BufferedReader:
    """The bytes of a file, decompressed where it is gzip."""
    with file.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(file) if zipped else file.open("rb")


def _dialect(con: duckdb.DuckDBPyConnection, file: Path) -> tuple[Dialect, dict[str, str]]:
    """How a CSV file is written, and its columns with the types that the sniffer sees."""
    encoding = "utf-16" if _head(file)[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        found = _sniffed(con, file, encoding)
    except duckdb.Error as error:
        found = None
        if "utf-8" in str(error).lower():
            encoding = "latin-1"
            with suppress(duckdb.Error):
                found = _sniffed(con, file, encoding)
    types = {column["name"]: column["type"] for column in found["Columns"]} if found else {}
    # broken lines, or columns of text alone, mislead the sniffer
    unsure = not found or len(types) < 2 or found["SkipRows"] or not found["HasHeader"]
    if unsure and (seen := _seen(file, encoding)):
        return seen, dict.fromkeys(seen.names, "VARCHAR")
    if not found:
        raise TransactionsError(f"{file}: no table can be made out; CSV with a header line and Parquet are read")
    if len(types) < 2:
        raise TransactionsError(
            f"{file}: only one column was found, `{next(iter(types))}`; a customer, a time and an amount are needed, "
            "with `,`, `;`, `|` or tabs between them"
        )
    delimiter, quote, escape, comment = (
        "" if found[name] == "(empty)" else found[name] for name in ("Delimiter", "Quote", "Escape", "Comment")
    )
    quote = quote or '"'  # none in the sample does not mean none further down
    return (
        Dialect(
            delimiter, quote, escape or quote, comment, found["SkipRows"], found["HasHeader"], tuple(types), encoding
        ),
        types,
    )


def lines_of(file: Path) -> int:
    """Lines after the first that are not empty."""
    with _opened(file) as stream:
        return sum(bool(line.strip()) for line in stream) - 1


def _sniffed(con: duckdb.DuckDBPyConnection, file: Path, encoding: str) -> dict[str, Any]:
    cursor = con.execute(f"from sniff_csv({text(_literally(file))}, encoding = {text(encoding)})")
    names = [column[0] for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchall()[0], strict=True))


def _seen(file: Path, encoding: str) -> Dialect | None:
    """The dialect by a first line with at least two usual names, as many as most lines have fields."""
    lines = _head(file).decode(encoding, "replace").removeprefix("\ufeff").splitlines()[:200]
    for delimiter in ",;\t|":
        names, *rows = csv.reader(lines, delimiter=delimiter)
        fit = sum(len(row) == len(names) for row in rows) * 2 > len(rows)
        if fit and len(set(names)) == len(names) and sum(plain(name) in USUAL for name in names) >= 2:
            return Dialect(delimiter, '"', '"', "", 0, True, tuple(name.strip() for name in names), encoding)
    return None


def _listed(files: Sequence[Path]) -> str:
    """SQL of a list of files."""
    return "[" + ", ".join(text(_literally(file)) for file in files) + "]"


def _literally(file: Path) -> str:
    """A file's name as a pattern that means this file alone."""
    return re.sub(r"([*?\[])", r"[\1]", str(file))


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def quoted(name: str) -> str:
    """SQL of a name."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """SQL of a text."""
    return "'" + value.replace("'", "''") + "'"
