"""How a table is declared: name, columns with units, key, partition. Every room lists its tables in ``tables.py``.

The declaration is the single source for the Parquet schema, the column schema shown in the Dagster UI, the sort order of
the bytes in the lake, and which columns hold private data. No room's own tables belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import ibis
import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column. ``type`` is an Ibis type (``string``, ``int64``, ``timestamp(6)`` in UTC, ``date``, ``boolean``, …)."""

    name: str
    type: str
    description: str
    required: bool = False
    private: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the lake: one Parquet file per partition, rows sorted by ``key``.

    ``partition`` names the partition column: ``day`` (the day the rows happened) or ``as_of`` (the state at the end of
    that day). The partition column is not stored in the file and always read back as a ``date``.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition: str = "as_of"

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        unknown = set(self.key) - set(names)
        if unknown or len(set(names)) != len(names) or self.partition not in ("day", "as_of"):
            raise ValueError(
                f"table {self.name}: key {self.key}, partition {self.partition!r} or columns are not valid"
            )

    @property
    def room(self) -> str:
        """The first part of the name, e.g. ``features``."""
        return self.name.split("/")[0]

    @cached_property
    def schema(self) -> ibis.Schema:
        """Ibis schema of the stored columns (without the partition column)."""
        return ibis.schema({c.name: ibis.dtype(c.type, nullable=not c.required) for c in self.columns})

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema of the stored columns, every field nullable as Parquet readers expect."""
        return pa.schema([pa.field(c.name, ibis.dtype(c.type).to_pyarrow()) for c in self.columns])

    @property
    def private_columns(self) -> tuple[str, ...]:
        """Columns that hold personal data."""
        return tuple(c.name for c in self.columns if c.private)

    def column(self, name: str) -> Column:
        """The declared column ``name``; raises ``KeyError``."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name!r}")
