"""The ``MappedSource`` component: one source of the playbook becomes the asset ``files/<source>``, which raw assets depend on.

What makes a declaration valid is the business of ``mapping``, reading the files that of ``landing``.
"""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.platform.dagster.assets import OWNERS
from shopauto_pipelines.sources.expressions import SOURCE_ROW
from shopauto_pipelines.sources.mapping import SourceMapping, mapping_named


class MappedSource(dg.Component):
    """Files of a shop, CSV or Parquet, or tables of its database, and how their columns become the canonical raw tables."""

    def __init__(self, mapping: SourceMapping) -> None:
        self.mapping = mapping

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How the component presents itself in the UI."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=["sources"], owners=OWNERS, produces=["asset"])

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The attributes of the YAML file."""
        return SourceMapping

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The component of a YAML file; raises ``PlaybookError`` with file and line for a wrong declaration."""
        assert isinstance(attributes, SourceMapping)
        return cls(mapping_named(attributes.name, context.defs_module_path))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The files as an external asset: the shop makes them, we read them."""
        return dg.Definitions(assets=[files_asset(self.mapping)])


def files_key(source: str) -> dg.AssetKey:
    """The asset that stands for a source's files."""
    return dg.AssetKey(["files", source])


def files_asset(mapping: SourceMapping) -> dg.AssetSpec:
    """The external asset ``files/<source>``, the source's files or database tables, described by its mapping."""
    place = "env:NAME" if mapping.is_database else "PATH"
    changed = "in the database" if mapping.is_database else "on disk"
    lines = ["| table | read from | columns |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {f'`{table.table or table.files}`' if table.table or table.files else 'the loaded file'} "
        f"| {', '.join(table.columns)} |"
        for name, table in mapping.tables.items()
    ]
    zone = mapping.timezone or "the shop's"
    return dg.AssetSpec(
        files_key(mapping.name),
        group_name="sources",
        owners=OWNERS,
        kinds={"sql"} if mapping.is_database else {"csv", "parquet"},
        metadata={"dagster/column_schema": _file_columns(mapping)},
        description=f"{mapping.description}\n\nTimes without an offset are in time zone {zone}. Load it with "
        f"`shopauto load {mapping.name} {place}`; what has changed {changed} since is read by the next refresh.\n\n"
        + "\n".join(lines),
    )


def _file_columns(mapping: SourceMapping) -> dg.TableSchema:
    """The columns that the mapping reads, of all files together."""
    readers: dict[str, list[str]] = {}
    for table, mapped in mapping.tables.items():
        for column in mapped.file_columns:
            readers.setdefault(column, []).append(f"`{table}`")
    return dg.TableSchema(
        [
            dg.TableColumn(column, "text", f"read for {', '.join(tables)}")
            for column, tables in readers.items()
            if column != SOURCE_ROW
        ]
    )
