"""Reads a shop's file, CSV or Parquet, whatever is in it, into a clean staged Parquet file plus a list of its defects.

Bounded memory: one block of the file at a time. A row that cannot be read (ragged, not UTF-8, a field that is too long)
becomes a defect, never an error; a file that cannot be read is a :class:`LandingError`. What the columns mean is not known
here.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.sources.expressions import nearest, plain

#: Longest field, characters.
LONGEST_FIELD = 10_000

#: Longest value kept in the quarantine, characters.
LONGEST_RAW = 200

#: Bytes read at a time; also the longest row.
_BLOCK = 16 << 20
_BATCH = 131_072

#: Bytes at the end of a file that tell whether its last quote is closed.
_TAIL = 1024
_SUFFIXES = (".csv", ".csv.gz", ".parquet")

_DEFECTS = pa.schema(
    [("_row", pa.int64()), ("column", pa.string()), ("reason", pa.string()), ("raw_value", pa.string())]
)


class LandingError(ShopAutoError):
    """A source cannot be loaded; the text names the file and what to do."""


@dataclass
class Staged:
    """A file or table as it was read: ``rows`` (Parquet, columns by plain name and ``_row``), ``defects`` (Parquet), count."""

    rows: Path
    defects: Path
    count: int = 0
    defect_count: int = 0
    #: Defects that spoil the whole row: it is not among ``rows``.
    ragged: int = 0
    columns: dict[str, str] = field(default_factory=dict)


def check_suffix(path: Path) -> None:
    """Raise :class:`LandingError` for a kind of file that is not read."""
    if not path.name.lower().endswith(_SUFFIXES):
        raise LandingError(f"{path}: only {', '.join(_SUFFIXES)} files can be loaded; export the table as one of these")


def stage(
    path: Path, wanted: dict[str, tuple[list[str], str]], folder: Path, stem: str, delimiter: str = ","
) -> Staged:
    """Read ``path`` into ``folder``.

    ``wanted`` has, by plain name, the names a column may have in the file and what needs it (for the error). Raises
    :class:`LandingError` for an empty or unreadable file, or one without a wanted column.
    """
    check_suffix(path)
    staged = Staged(folder / f"{stem}.rows.parquet", folder / f"{stem}.defects.parquet")
    try:
        if path.stat().st_size == 0:
            raise LandingError(f"{path}: the file is empty (0 bytes); a file without rows still needs its header")
        if path.name.lower().endswith(".parquet"):
            write(_parquet_batches(path, wanted, staged), staged, path.name)
        else:
            write(_csv_batches(path, wanted, staged, delimiter), staged, path.name)
    except (pa.ArrowException, OSError, EOFError, csv.Error) as error:
        raise LandingError(f"{path}: cannot be read: {_worded(error)}") from None
    return staged


def _worded(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "straddling" in text:
        return f"a row is longer than {_BLOCK >> 20} MB; is a quote left open? ({text})"
    return text


def resolve(
    shown: object, header: list[str], wanted: dict[str, tuple[list[str], str]], kind: str = "file"
) -> dict[str, int]:
    """Where each wanted column stands in the ``header``, by plain name; raises :class:`LandingError` for missing ones."""
    exact = {name: n for n, name in reversed(list(enumerate(header)))}
    loose = {plain(name): n for n, name in reversed(list(enumerate(header)))}
    found, missing = {}, []
    for name, (names, needed_by) in wanted.items():
        places = [exact[n] for n in names if n in exact] or [loose[plain(n)] for n in names if plain(n) in loose]
        if places:
            found[name] = places[0]
        else:
            missing.append(f"`{names[0]}` (needed by {needed_by}; {nearest(names[0], header)})")
    if missing:
        have = ", ".join(f"`{name}`" for name in header)
        raise LandingError(
            f"{shown}: missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. The {kind} has {have}."
        )
    return found


def _csv_batches(
    path: Path, wanted: dict[str, tuple[list[str], str]], staged: Staged, delimiter: str
) -> Iterator[tuple[pa.RecordBatch, list]]:
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(1 << 20)
    if not head.strip():
        raise LandingError(f"{path}: the file is empty; a file without rows still needs its header")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise LandingError(f"{path}: the file is UTF-16; save it as UTF-8")
    first_line = head.removeprefix(b"\xef\xbb\xbf").splitlines()[0]
    header = next(csv.reader([first_line.decode("utf-8", "replace")], delimiter=delimiter), [])
    header = [name.strip() for name in header]
    places = resolve(path, header, wanted)
    if len(header) == 1 and len(wanted) > 1:
        raise LandingError(
            f"{path}: only one column was found, `{header[0]}`; the mapping says the delimiter is {delimiter!r}"
        )
    staged.columns = {name: header[place] for name, place in places.items()}
    if len(head) < (1 << 20) and not head.removeprefix(b"\xef\xbb\xbf")[len(first_line) :].strip():
        return
    ragged: list[tuple[int, str, str]] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} fields instead of {row.expected_columns}"
        ragged.append(
            (
                row.number - 1,
                reason,
                row.text if isinstance(row.text, str) else bytes(row.text).decode("utf-8", "replace"),
            )
        )
        return "skip"

    numbered = [str(n) for n in range(len(header))]
    last = numbered[-1]
    used = sorted({*(str(place) for place in places.values()), last}, key=int)
    with pa.input_stream(str(path), compression="detect") as stream:
        reader = pa_csv.open_csv(
            stream,
            pa_csv.ReadOptions(use_threads=False, column_names=numbered, skip_rows=1, block_size=_BLOCK),
            pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            pa_csv.ConvertOptions(
                check_utf8=False,
                column_types={name: pa.binary() for name in used},
                include_columns=used,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        good = 0
        handled = 0
        held: pa.RecordBatch | None = None
        for batch in itertools.chain(reader, [None]):
            if held is not None:
                numbers = _numbers(good, held.num_rows, [r for r, _, _ in ragged])
                good += held.num_rows
                defects: list[tuple[int, str | None, str, str]] = [
                    (r, None, why, text) for r, why, text in ragged[handled:]
                ]
                staged.ragged += len(defects)
                handled = len(ragged)
                if batch is None and held.num_rows and not (ragged and ragged[-1][0] > numbers[-1]):
                    defects += _open_quote(held, last, numbers, path)
                columns = {name: held.column(str(place)) for name, place in places.items()}
                yield pa.RecordBatch.from_pydict({"_row": pa.array(numbers), **columns}), defects
            held = batch
        if len(ragged) > handled:
            staged.ragged += len(ragged) - handled
            empty = {name: pa.array([], pa.binary()) for name in places}
            yield (
                pa.RecordBatch.from_pydict({"_row": pa.array([], pa.int64()), **empty}),
                [(r, None, why, text) for r, why, text in ragged[handled:]],
            )


def _numbers(before: int, count: int, ragged: list[int]) -> np.ndarray:
    """Data row numbers of the next ``count`` readable rows, after ``before`` of them, with ``ragged`` ones in between."""
    numbers = np.arange(before + 1, before + count + 1, dtype=np.int64)
    if ragged:
        # Readable rows that come before the n-th ragged one: its own number less the ragged ones up to it.
        readable_before = np.asarray([row - n for n, row in enumerate(ragged, start=1)])
        numbers += np.searchsorted(readable_before, numbers - 1, side="right")
    return numbers


def _open_quote(
    batch: pa.RecordBatch, last: str, numbers: np.ndarray, path: Path
) -> list[tuple[int, str | None, str, str]]:
    """A quote that is never closed swallows the rest of the file into the last value, and no quote follows it."""
    value = batch.column(last)[-1].as_py()
    if value is None or not (b"\n" in value or b"\r" in value):
        return []
    end = value.replace(b'"', b'""')[-_TAIL // 2 :] + b'"'
    if _tail(path).rstrip(b"\r\n").endswith(end):
        return []
    text = value.decode("utf-8", "replace")
    return [(int(numbers[-1]), None, "a quote is never closed: the rest of the file was read as one value", text)]


def _tail(path: Path) -> bytes:
    """The last bytes of a file's text."""
    tail = b""
    with pa.input_stream(str(path), compression="detect") as stream:
        while block := stream.read(_BLOCK):
            tail = (tail + block)[-_TAIL:]
    return tail


def _parquet_batches(
    path: Path, wanted: dict[str, tuple[list[str], str]], staged: Staged
) -> Iterator[tuple[pa.RecordBatch, list]]:
    with pq.ParquetFile(path) as file:
        header = file.schema_arrow.names
        places = resolve(path, header, wanted)
        staged.columns = {name: header[place] for name, place in places.items()}
        row = 0
        for batch in file.iter_batches(_BATCH, columns=[header[place] for place in sorted(set(places.values()))]):
            columns = {name: batch.column(header[place]) for name, place in places.items()}
            numbers = np.arange(row + 1, row + batch.num_rows + 1, dtype=np.int64)
            row += batch.num_rows
            yield pa.RecordBatch.from_pydict({"_row": pa.array(numbers), **columns}), []


def write(batches: Iterator[tuple[pa.RecordBatch, list]], staged: Staged, shown: str) -> None:
    """Write batches (``_row``, columns by plain name; defects) as ``staged``, text made sound, and count them."""
    rows: pq.ParquetWriter | None = None
    with pq.ParquetWriter(staged.defects, _DEFECTS, compression="lz4") as defects:
        try:
            for batch, found in batches:
                cleaned, more = _clean(batch)
                found = [*found, *more]
                rows = rows or pq.ParquetWriter(staged.rows, cleaned.schema, compression="lz4")
                if cleaned.num_rows:
                    rows.write_batch(cleaned)
                staged.count += cleaned.num_rows
                staged.defect_count += len(found)
                if found:
                    columns = list(zip(*((r, c, why, _cut(text)) for r, c, why, text in found), strict=True))
                    defects.write_table(
                        pa.table([pa.array(v, f.type) for v, f in zip(columns, _DEFECTS, strict=True)], schema=_DEFECTS)
                    )
                report(f"read {shown}", staged.count, staged.count)
            if rows is None:
                names = ["_row", *staged.columns]
                schema = pa.schema([(n, pa.int64() if n == "_row" else pa.string()) for n in names])
                rows = pq.ParquetWriter(staged.rows, schema, compression="lz4")
        finally:
            if rows:
                rows.close()
    staged.count += staged.ragged


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_RAW else text[: LONGEST_RAW - 1] + "…"


def _clean(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[tuple[int, str | None, str, str]]]:
    """Text columns as valid UTF-8 of bearable length, no NUL; what is wrong with the others, by row and plain column name."""
    columns, defects = [], []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        if (
            pa.types.is_large_string(column.type)
            or pa.types.is_large_binary(column.type)
            or pa.types.is_string_view(column.type)
        ):
            column = column.cast(pa.large_binary() if not pa.types.is_string_view(column.type) else pa.binary()).cast(
                pa.binary()
            )
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        if pa.types.is_binary(column.type):
            column, found = _clean_text(column)
            defects += [(batch.column("_row")[n].as_py(), name, why, text) for n, why, text in found]
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names), defects


def _clean_text(column: pa.BinaryArray) -> tuple[pa.StringArray, list[tuple[int, str, str]]]:
    found: list[tuple[int, str, str]] = []
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    try:
        text = column.cast(pa.string())
        if longest <= LONGEST_FIELD and not pc.any(pc.match_substring(text, "\0")).as_py():
            return text, found
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    for n, raw in enumerate(column.to_pylist()):
        try:
            value = raw.decode("utf-8") if raw is not None else None
        except UnicodeDecodeError:
            found.append((n, "not valid UTF-8", raw[: 4 * LONGEST_RAW].decode("utf-8", "replace")))
            value = None
        if value is not None and len(value) > LONGEST_FIELD:
            found.append((n, f"{len(value):,} characters, the limit is {LONGEST_FIELD:,}", value))
            value = None
        if value is not None and "\0" in value:  # PostgreSQL holds none: no message to this customer could be planned
            found.append((n, "a NUL character", value.replace("\0", "\ufffd")))
            value = None
        values.append(value)
    return pa.array(values, pa.string()), found
