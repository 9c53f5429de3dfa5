"""The I/O manager: hands lake tables to assets, and writes what they return, one partition or a range of them in one run."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import dagster as dg
import ibis.expr.types as ir

from shopauto_pipelines.platform.dagster.failures import errors_told, sparing
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.dagster.runs import COMMAND_LINE_TAG, this_process
from shopauto_pipelines.platform.lake import Lake, LakeTable, MissingPartition, Written, days_between
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.tables import Table

#: What to say in the UI of a partition that has been written: metadata by name, without private data.
Summary = Callable[[Lake, date], Mapping[str, Any]]

#: For a column the ``(table, column)`` pairs it is computed from.
Origins = Mapping[str, Collection[tuple[str, str]]]


@dataclass(frozen=True)
class LakeAsset:
    """The table behind an asset, its summary, and its lineage where no expression tells it, or a function that does.

    ``reads``: the tables it is made of. ``earlier``: those of which it reads earlier partitions of the same kind as its own, its
    own table perhaps among them.
    """

    table: Table
    summary: Summary = lambda lake, day: {}
    origins: Origins | Callable[[], Origins] | None = None
    earlier: Collection[Table] = ()
    reads: Collection[Table] = ()

    def lineage(self, expression: ir.Table, lake: Lake) -> Origins:
        """Of each column the columns it is computed from."""
        if self.origins is None:
            return column_lineage(expression, lake)
        return self.origins() if callable(self.origins) else self.origins


#: The table behind each asset: filled where assets are made. As metadata the UI would show it, as an unreadable object.
LAKE_ASSETS: dict[dg.AssetKey, LakeAsset] = {}


class LakeIOManager(dg.ConfigurableIOManager):
    """Inputs arrive as :class:`LakeTable`. Outputs are functions from days to Ibis tables.

    An asset of a ``day`` table returns ``f(start, end)``, called for the whole range of the run, or part by part where the tables
    of days that it reads have too many rows for one go; an asset of an ``as_of`` table returns ``f(as_of)``, called for each day
    in order. Row count, size and what the asset's ``summary`` says are recorded on each partition's materialisation; the column
    lineage, the same for all, on the last one's.
    """

    lake: dg.ResourceDependency[LakeResource]

    def load_input(self, context: dg.InputContext) -> LakeTable:
        """The upstream table, unread."""
        return LakeTable(self.lake.lake(), LAKE_ASSETS[context.asset_key].table)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Compute and write every partition of the run. An error meant for users is told without a traceback."""
        with errors_told(LAKE_ASSETS[context.asset_key].table.name):
            self._write(context, obj)

    def _write(self, context: dg.OutputContext, obj: Any) -> None:
        asset = LAKE_ASSETS[context.asset_key]
        table, lake = asset.table, self.lake.lake()
        then = self.lake.settings.settings.known == "then"
        if then and context.step_context.run_tags.get(COMMAND_LINE_TAG) != this_process():
            raise dg.Failure(f"Days as known then are computed in their order: {_THEN}", allow_retries=False)
        window = context.asset_partition_key_range
        days = days_between(date.fromisoformat(window.start), date.fromisoformat(window.end))
        by_day = table.partition == "day"
        spans = (
            lake.spans([each for each in asset.reads if each.partition == "day"], days)
            if by_day
            else ([d] for d in days)
        )
        written: dict[date, Written] = {}
        for span in spans:
            try:
                expression, made = sparing(lake.engine, table.name, context.log, partial(_made, obj, lake, table, span))
            except MissingPartition as error:
                raise _all_missing(lake, asset, days) or error from None
            written |= made
            report(table.name, len(written), len(days))
        origins = asset.lineage(expression, lake)
        names = [*(("day",) if table.partition == "day" else ()), *(column.name for column in table.columns)]
        lineage = lineage_entries(lineage_metadata({name: origins.get(name, ()) for name in names}))
        for day in days:
            context.step_context.add_asset_metadata(
                metadata={**_facts(written[day]), **(lineage if day == days[-1] else {}), **asset.summary(lake, day)},
                asset_key=context.asset_key,
                partition_key=day.isoformat(),
            )
        lake.forget_reads()


def _made(
    body: Callable[..., ir.Table], lake: Lake, table: Table, days: list[date]
) -> tuple[ir.Table, dict[date, Written]]:
    began = time.time_ns()  # what changes from here on was not seen, perhaps, and makes these days stale
    expression = body(days[0], days[-1]) if table.partition == "day" else body(days[0])
    return expression, lake.write(table, days, expression, began)


def _all_missing(lake: Lake, asset: LakeAsset, days: list[date]) -> MissingPartition | None:
    """All days of the run of which something that is read as of them is missing, in one error: not one day after the other."""
    lacking: dict[str, list[date]] = {}
    for table in asset.reads:
        if table.partition != "as_of" or table in asset.earlier:  # of earlier days those count that are there
            continue
        if absent := [day for day in days if not lake.has(table, day)]:
            lacking[table.name] = absent
    if not lacking:
        return None
    absent = sorted({day for of_table in lacking.values() for day in of_table})
    span = f"{absent[0]} … {absent[-1]}" if len(absent) > 1 else f"{absent[0]}"
    command = f"--from {absent[0]} --to {absent[-1]}" if len(absent) > 1 else f"--day {absent[0]}"
    names = ", ".join([*lacking][:4]) + (", …" if len(lacking) > 4 else "")
    return MissingPartition(
        f"{names} {'has' if len(lacking) == 1 else 'have'} not been computed for {span}: run `{lake.refresh_command} {command}`, "
        "or materialise the same days upstream. `shopauto doctor` says of which days there is data"
    )


#: The command that computes days as known then, and what of earlier days it takes.
_THEN = "run `shopauto --known then refresh --from DAY --to DAY`. Here they are to look at."


def _facts(written: Written) -> dict[str, Any]:
    return {"dagster/row_count": written.rows, "size_bytes": written.size, "changed": written.changed}


def lineage_metadata(origins: Origins) -> dg.TableColumnLineage:
    """Lineage as the UI shows it; columns without origins are left out."""
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(dg.AssetKey(table.split("/")), column) for table, column in sorted(pairs)]
            for name, pairs in origins.items()
            if pairs
        }
    )


def lineage_entries(lineage: dg.TableColumnLineage) -> dict[str, Any]:
    """Metadata of a materialisation: the lineage as Dagster keeps it, and as a table to read and follow, as its UI draws none."""
    lines = ["| column | comes from |", "|---|---|"]
    for name, deps in lineage.deps_by_column.items():
        columns: dict[str, list[str]] = {}
        for dep in deps:
            columns.setdefault(dep.asset_key.to_user_string(), []).append(f"`{dep.column_name}`")
        told = (f"[{asset}](/assets/{asset}) {', '.join(names)}" for asset, names in columns.items())
        lines.append(f"| `{name}` | {'; '.join(told)} |")
    shown = "\n".join(lines) if lineage.deps_by_column else "No column of it comes from another one."
    return {"dagster/column_lineage": lineage, "where columns come from": dg.MetadataValue.md(shown)}
