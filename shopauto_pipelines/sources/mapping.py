"""What a shop declares about a source: which file or database table feeds which canonical table, by which expressions.

Read from the playbook (``defs/sources/**/defs.yaml``). Every mistake is told with file and line when the playbook is
loaded. How they are read is in ``reading`` and ``database``, what expressions may say in ``expressions``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from shopauto_pipelines.platform.playbook import PLAYBOOK, Declaration, PlaybookError, declarations
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources.expressions import Expression, ExpressionError, nearest, parse, plain
from shopauto_pipelines.sources.tables import (
    COLLECTED_TABLES,
    CORE_TABLES,
    LINEAGE,
    RAW_TABLES,
    STOCK_LEVELS,
    TOPIC_CHOICES,
)

#: Canonical tables by the name a mapping uses: ``orders`` for ``raw/orders``.
TABLES: dict[str, Table] = {table.name.removeprefix("raw/"): table for table in RAW_TABLES}

_LINEAGE = {column.name for column in LINEAGE}


def mappable(table: Table) -> list[str]:
    """Columns that a mapping fills: all but the lineage."""
    return [column.name for column in table.columns if column.name not in _LINEAGE]


class TableMapping(BaseModel):
    """How one canonical table is made from files, or from a table of a database."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field(
        description="Canonical column → SQL expression over the file's columns.", min_length=1
    )
    files: str | None = Field(
        None,
        description="File or glob, relative to the folder that is loaded. Unset: the path that is loaded is the file.",
    )
    table: str | None = Field(
        None,
        pattern=r"^[^.]+(\.[^.]+)?$",
        description="Database table or view, `schema.name` or `name`, in place of files.",
    )
    optional: bool = Field(False, description="True where the shop may not have this file or table.")
    where: str | None = Field(None, description="Only rows for which this SQL condition is true.")
    group_by: list[str] | None = Field(None, description="SQL expressions: rows that agree in them become one row.")
    aliases: dict[str, list[str]] = Field({}, description="Other names that a column has in some files.")

    @field_validator("table")
    @classmethod
    def _not_files_as_well(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("files") is not None:
            raise ValueError("a table is read from `files` or from a database `table`, not from both")
        return value

    @field_validator("columns", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """A bare YAML number or boolean is a constant expression."""
        if not isinstance(value, dict):
            return value
        return {
            k: str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v
            for k, v in value.items()
        }

    @cached_property
    def expressions(self) -> dict[str, Expression]:
        """The parsed column expressions."""
        return {name: parse(text) for name, text in self.columns.items()}

    @cached_property
    def condition(self) -> Expression | None:
        """The parsed ``where``."""
        return parse(self.where) if self.where else None

    @cached_property
    def groups(self) -> list[Expression]:
        """The parsed ``group_by``."""
        return [parse(text) for text in self.group_by or []]

    @cached_property
    def file_columns(self) -> dict[str, list[str]]:
        """Every file column the table needs: the name used here → all names it may have in a file."""
        parsed = [*self.expressions.values(), *self.groups, *([self.condition] if self.condition else [])]
        aliases = {plain(name): others for name, others in self.aliases.items()}
        return {name: [name, *aliases.get(plain(name), [])] for e in parsed for name in e.columns}


class SourceMapping(BaseModel):
    """A source: files of a shop or tables of its database, and how they become canonical raw tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name on the command line and in the lineage columns."
    )
    description: str = Field("", description="What the source is, and where its files come from.")
    timezone: str | None = Field(None, description="IANA time zone of times without an offset. Unset: the shop's.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="What separates the fields of CSV files.")
    tables: dict[str, TableMapping] = Field(description="Canonical table, without `raw/` → its mapping.", min_length=1)

    @field_validator("timezone")
    @classmethod
    def _known_time_zone(cls, value: str | None) -> str | None:
        try:
            if value:
                ZoneInfo(value)
        except (KeyError, ValueError):
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/London") from None
        return value

    @field_validator("tables")
    @classmethod
    def _all_of_one_kind(cls, value: dict[str, TableMapping]) -> dict[str, TableMapping]:
        kinds = {(mapping.table is not None): name for name, mapping in value.items()}
        if len(kinds) > 1:
            raise ValueError(
                f"`{kinds[True]}` is read from a database, `{kinds[False]}` from files; declare two sources for that"
            )
        return value

    @property
    def is_database(self) -> bool:
        """Whether the source is tables of a database rather than files."""
        return any(table.table is not None for table in self.tables.values())

    def digest(self, table: str, *context: str) -> str:
        """Changes whenever the mapping of ``table``, or what else decides its rows, changes."""
        declared = [self.name, self.timezone, self.delimiter, self.tables[table].model_dump(), *context]
        return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:16]


def read_mapping(declaration: Declaration) -> SourceMapping:
    """The mapping of one declaration; raises :class:`PlaybookError` that names file, line and the nearest valid name."""
    try:
        mapping = SourceMapping.model_validate(declaration.attributes)
    except ValidationError as error:
        mistake = error.errors()[0]
        place = tuple(mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            model = TableMapping if place[0] == "tables" and len(place) > 2 else SourceMapping
            message = f"unknown setting `{place[-1]}`; {nearest(str(place[-1]), list(model.model_fields))}"
        elif mistake["type"] == "missing":
            message = f"`{place[-1]}` is missing"
            place = place[:-1]
        else:
            message = f"`{'.'.join(str(step) for step in place)}`: {message}"
        raise declaration.error(message, *place) from None
    for name, table in mapping.tables.items():
        _check_table(declaration, name, table)
    return mapping


def _check_table(declaration: Declaration, name: str, mapping: TableMapping) -> None:
    here = ("tables", name)
    if name not in TABLES:
        raise declaration.error(f"unknown table `{name}`; {nearest(name, list(TABLES))}", *here)
    valid = mappable(TABLES[name])
    for column in mapping.columns:
        if column not in valid:
            raise declaration.error(
                f"`{name}` has no column `{column}`; {nearest(column, valid)}", *here, "columns", column
            )
    required = {c.name for c in TABLES[name].columns if c.required} & set(valid)
    missing = sorted(required - mapping.columns.keys() - _derivable(name, mapping))
    if missing:
        raise declaration.error(
            f"`{name}` needs {', '.join(f'`{m}`' for m in missing)}, which is not mapped", *here, "columns"
        )
    texts: list[tuple[tuple[str | int, ...], str]] = [
        (("columns", column), text) for column, text in mapping.columns.items()
    ]
    texts += [(("group_by", n), text) for n, text in enumerate(mapping.group_by or [])]
    texts += [(("where",), mapping.where)] if mapping.where else []
    for place, text in texts:
        try:
            parsed = parse(text)
        except ExpressionError as error:
            raise declaration.error(str(error), *here, *place) from None
        if parsed.aggregated and (place[0] != "columns" or not mapping.group_by):
            raise declaration.error(
                f"`{text}` aggregates rows; that needs `group_by`, and belongs in a column", *here, *place
            )
        if mapping.group_by and place[0] == "columns" and parsed.columns and not parsed.aggregated:
            grouped = {plain(column) for g in mapping.groups for column in g.columns}
            loose = [c for c in parsed.columns if plain(c) not in grouped]
            if loose:
                raise declaration.error(
                    f"`{loose[0]}` in `{text}` is not in `group_by`: say which row's value, "
                    f"e.g. `arg_min({loose[0]}, source_row)` for the first row's",
                    *here, *place,
                )  # fmt: skip


def _derivable(name: str, mapping: TableMapping) -> set[str]:
    """Required columns that follow from others: the id of a guest from the e-mail."""
    return {"shop_customer_id"} if name in ("customers", "orders") and "email" in mapping.columns else set()


def mappings(folder: Path = PLAYBOOK) -> Iterator[SourceMapping]:
    """Every source of the playbook; raises :class:`PlaybookError`."""
    names: set[str] = set()
    for declaration in declarations("MappedSource", folder):
        mapping = read_mapping(declaration)
        if mapping.name in names:
            raise declaration.error(f"a second source is called `{mapping.name}`", "name")
        names.add(mapping.name)
        yield mapping


def computed_tables(sources: Iterable[SourceMapping]) -> list[Table]:
    """The raw tables that are computed: those that are always read, and those that a source feeds."""
    always = {table.name for table in (*CORE_TABLES, *COLLECTED_TABLES, STOCK_LEVELS, TOPIC_CHOICES)}
    fed = {f"raw/{name}" for source in sources for name in source.tables}
    return [table for table in RAW_TABLES if table.name in always | fed]


def mapping_named(name: str, folder: Path = PLAYBOOK) -> SourceMapping:
    """The source called ``name``; raises :class:`PlaybookError` that lists the names there are."""
    known = {mapping.name: mapping for mapping in mappings(folder)}
    if name not in known:
        hint = nearest(name, list(known)) if known else "the playbook declares none"
        raise PlaybookError(f"there is no source `{name}`; {hint}")
    return known[name]
