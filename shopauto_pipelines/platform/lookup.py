"""Rows of a partition by their key, for a reader that comes in roughly the file's order: a row group is read once.

A partition is sorted by its key and cut into row groups, so the file's own statistics say where a key stands. Looking a
thousand people up costs a thousandth of reading a million, and at most two row groups are in memory, of these only the
columns that were asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

import pyarrow.parquet as pq

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table

#: Row groups held at a time.
_HELD = 2


class Lookup:
    """The rows of ``table`` on ``day`` by the first column of its key, which is a text."""

    def __init__(self, lake: Lake, table: Table, day: date) -> None:
        lake.rows(table, day)  # says what is missing, and what to do
        self._file = pq.ParquetFile(lake.path(table, day))
        self._key, self._names = table.key[0], table.schema.names
        place = self._file.schema_arrow.names.index(self._key)
        groups = (self._file.metadata.row_group(n).column(place) for n in range(self._file.num_row_groups))
        self._lasts = [group.statistics.max for group in groups if group.num_values]
        self._held: OrderedDict[int, _RowGroup] = OrderedDict()

    def rows(self, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Key → row, of those that are there, where no two rows have the same. A row reads a column when it is asked for it."""
        found: dict[str, Mapping[str, Any]] = {}
        group: _RowGroup | None = None
        for key in sorted(keys):
            if group is None or key > group.last:
                number = bisect_left(self._lasts, key)
                if number == len(self._lasts):
                    break
                group = self._group(number)
                known = group[self._key]
            place = bisect_left(known, key)
            if place < len(known) and known[place] == key:
                found[key] = _Row(group, place)
        return found

    def every(self, keys: Iterable[str]) -> dict[str, list[Mapping[str, Any]]]:
        """Key → its rows in the table's order, of those that are there, where several may have the same."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for key in sorted(set(keys)):
            number = bisect_left(self._lasts, key)
            while number < len(self._lasts):
                group = self._group(number)
                known = group[self._key]
                first, end = bisect_left(known, key), bisect_right(known, key)
                if first < end:
                    found.setdefault(key, []).extend(_Row(group, place) for place in range(first, end))
                if group.last != key:
                    break
                number += 1  # the rows of a key may go on in the next group
        return found

    def _group(self, number: int) -> _RowGroup:
        if number not in self._held:
            while len(self._held) >= _HELD:
                self._held.popitem(last=False)
            self._held[number] = _RowGroup(self._file, number, self._lasts[number], self._names)
        return self._held[number]


class _RowGroup(dict[str, list[Any]]):
    """Columns of a row group, each read when it is needed; nulls where an earlier version did not write one."""

    def __init__(self, file: pq.ParquetFile, number: int, last: str, names: Iterable[str]) -> None:
        super().__init__()
        self._file, self._number, self.last, self.names = file, number, last, tuple(names)

    def __missing__(self, name: str) -> list[Any]:
        if name not in self.names:
            raise KeyError(name)
        if name not in self._file.schema_arrow.names:
            self[name] = [None] * self._file.metadata.row_group(self._number).num_rows
            return self[name]
        values = self[name] = self._file.read_row_group(self._number, columns=[name])[name].to_pylist()
        return values


class _Row(Mapping[str, Any]):
    """One row, by column."""

    __slots__ = ("_group", "_place")

    def __init__(self, group: _RowGroup, place: int) -> None:
        self._group, self._place = group, place

    def __getitem__(self, name: str) -> Any:
        return self._group[name][self._place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._group.names)

    def __len__(self) -> int:
        return len(self._group.names)
