"""The I/O manager: hands lake tables to assets, and writes what they return, one partition or a range of them in one run."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import dagster as dg

from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.lake import Lake, LakeTable, Written, days_between
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.tables import Table

#: What to say in the UI of a partition that has been written: metadata by name, without private data.
Summary = Callable[[Lake, date], Mapping[str, Any]]


#: The table behind each asset, and its summary: filled where assets are made (``assets.lake_asset``).
TABLES: dict[dg.AssetKey, tuple[Table, Summary]] = {}


class LakeIOManager(dg.ConfigurableIOManager):
    """Inputs arrive as :class:`LakeTable`. Outputs are functions from days to Ibis tables.

    An asset of a ``day`` table returns ``f(start, end)``, called once for the whole range of the run; an asset of an
    ``as_of`` table returns ``f(as_of)``, called for each day in order. Row count, size and what the asset's ``summary`` says
    are recorded on each partition's materialisation; the column lineage, the same for all, on the last one's.
    """

    lake: dg.ResourceDependency[LakeResource]

    def load_input(self, context: dg.InputContext) -> LakeTable:
        """The upstream table, unread."""
        return LakeTable(self.lake.lake(), TABLES[context.asset_key][0])

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Compute and write every partition of the run."""
        table, summary = TABLES[context.asset_key]
        lake = self.lake.lake()
        window = context.asset_partition_key_range
        days = days_between(date.fromisoformat(window.start), date.fromisoformat(window.end))
        if table.partition == "day":
            expression = obj(days[0], days[-1])
            written = lake.write(table, days, expression)
            report(table.name, len(days), len(days))
        else:
            written = {}
            for count, day in enumerate(days, start=1):
                expression = obj(day)
                written |= lake.write(table, [day], expression)
                report(table.name, count, len(days))
        lineage = _lineage_metadata(table, column_lineage(expression, lake))
        for day in days:
            context.step_context.add_asset_metadata(
                metadata={**_facts(written[day]), **(lineage if day == days[-1] else {}), **summary(lake, day)},
                asset_key=context.asset_key,
                partition_key=day.isoformat(),
            )


def _facts(written: Written) -> dict[str, Any]:
    return {"dagster/row_count": written.rows, "size_bytes": written.size, "changed": written.changed}


def _lineage_metadata(table: Table, lineage: dict[str, frozenset[tuple[str, str]]]) -> dict[str, Any]:
    dependencies = {
        column.name: [
            dg.TableColumnDep(asset_key=dg.AssetKey(origin.split("/")), column_name=name)
            for origin, name in sorted(lineage.get(column.name, ()))
        ]
        for column in table.columns
    }
    return {
        "dagster/column_lineage": dg.TableColumnLineage({name: deps for name, deps in dependencies.items() if deps})
    }
