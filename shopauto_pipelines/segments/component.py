"""The ``Segment`` component: one YAML file of the playbook becomes the asset ``segments/<name>``.

The asset writes no table. Membership holds all segments; this one shows a single segment in the UI: its size over the
partitions, who came and went, a plot and a preview. What makes a declaration valid is the business of ``declaration``.
"""

from datetime import date, timedelta
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.dagster.assets import OWNERS, asset_key, column_schema, spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import lineage_metadata
from shopauto_pipelines.platform.dagster.partitions import ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.segments import report
from shopauto_pipelines.segments.declaration import SegmentDeclaration, load_segments
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP

#: Days that the plot looks back.
PLOT_DAYS = 90


class SegmentScaffolder(dg.Scaffolder):
    """Writes a first ``defs.yaml`` that loads: ``dg scaffold defs shopauto_pipelines.segments.component.Segment …``."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """A segment named after its folder."""
        example = {
            "name": request.target_path.name,
            "description": "People with an order in the last 90 days.",
            "where": "orders_90d > 0",
        }
        dg.scaffold_component(request, example)


@dg.scaffold_with(SegmentScaffolder)
class Segment(dg.Component, dg.Resolvable, SegmentDeclaration):
    """People who meet a SQL condition as of a day: an RFM group, a stage of the lifecycle, fans of a category."""

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How the component presents itself in the UI."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=["segments"], owners=OWNERS, produces=["asset"])

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The component of a YAML file; raises ``PlaybookError`` with file and line for a wrong declaration."""
        load_segments(context.path)
        return super().load(attributes, context)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset of this segment."""
        return dg.Definitions(assets=[segment_asset(self)])


_LINEAGE = lineage_metadata({column.name: [(MEMBERSHIP.name, column.name)] for column in MEMBERSHIP.columns})


def segment_asset(segment: SegmentDeclaration) -> dg.AssetsDefinition:
    """The asset ``segments/<name>`` that shows the segment."""
    shown = Table(f"segments/{segment.name}", segment.description, MEMBERSHIP.columns, MEMBERSHIP.key)
    common = spec_arguments(shown, "segments", {"segment", "duckdb"})
    common["description"] = _description(segment)
    common["metadata"] = {"dagster/column_schema": column_schema(MEMBERSHIP)}
    if segment.owner:
        common["owners"] = [segment.owner]

    @dg.asset(**common, deps=[asset_key(MEMBERSHIP), asset_key(CHANGES)], backfill_policy=ONE_RUN)
    def show(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        window = context.partition_key_range
        start, end = date.fromisoformat(window.start), date.fromisoformat(window.end)
        for day, metadata in observe(lake.lake(), segment, start, end).items():
            if day == end:
                metadata["dagster/column_lineage"] = _LINEAGE
            context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=day.isoformat())

    return show


def observe(lake: Lake, segment: SegmentDeclaration, start: date, end: date) -> dict[date, dict[str, Any]]:
    """Metadata of each day from ``start`` to ``end``: size, entered, left, share; on the last also plot and preview.

    Raises ``MissingPartition`` where membership, its changes or the people of a day have not been computed.
    """
    days = days_between(start, end)
    lines = report.history(lake, segment.name, min(start, end - timedelta(days=PLOT_DAYS - 1)), end)
    size, moves = report.total(lines), report.moves(lake, segment.name, start, end)
    metadata: dict[date, dict[str, Any]] = {}
    for day in days:
        people, *_ = (lake.rows(table, day) for table in (CUSTOMER_360, MEMBERSHIP, CHANGES))  # raises for one missing
        metadata[day] = {
            "dagster/row_count": size[day],
            "size": size[day],
            "entered": moves[day].entered,
            "left": moves[day].left,
            "share_percent": round(100 * size[day] / people, 2) if people else 0.0,
        }
    shown_from = end - timedelta(days=PLOT_DAYS - 1)
    recent = {name: {d: n for d, n in line.items() if d >= shown_from} for name, line in lines.items()}
    metadata[end]["sizes over time"] = dg.MetadataValue.md(report.size_plot(recent))
    metadata[end]["latest members"] = dg.MetadataValue.md(
        report.preview_markdown(report.preview(lake, segment.name, end))
    )
    if segment.each:
        today = {name: line[end] for name, line in lines.items() if line[end]}
        metadata[end]["values"] = len(today)
        metadata[end]["sizes"] = dg.MetadataValue.md(report.sizes_markdown(today))
    return metadata


def _description(segment: SegmentDeclaration) -> str:
    each = f"\n\nOne segment per `{segment.each}`: `{segment.name}:<value>`." if segment.each else ""
    return f"{segment.description}{each}\n\n```sql\n{segment.where.strip()}\n```"
