"""The ``Segment`` component: one YAML file of the playbook becomes the asset ``segments/<name>``.

The asset writes no table. Membership holds all segments; this one shows a single segment in the UI: its size over the
partitions, who came and went, a plot and a preview. What makes a declaration valid is the business of ``declaration``.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.dagster.assets import OWNERS, asset_key, column_schema, spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import lineage_entries, lineage_metadata
from shopauto_pipelines.platform.dagster.partitions import ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.segments import report, why
from shopauto_pipelines.segments.declaration import SegmentDeclaration, load_segments
from shopauto_pipelines.segments.tables import MEMBERSHIP, SIZES

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
        load_segments(context.defs_module_path)
        return super().load(attributes, context)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset of this segment."""
        return dg.Definitions(assets=[segment_asset(self)])


_LINEAGE = lineage_entries(
    lineage_metadata({column.name: [(MEMBERSHIP.name, column.name)] for column in MEMBERSHIP.columns})
)


def segment_asset(segment: SegmentDeclaration) -> dg.AssetsDefinition:
    """The asset ``segments/<name>`` that shows the segment."""
    shown = Table(f"segments/{segment.name}", segment.description, MEMBERSHIP.columns, MEMBERSHIP.key)
    common = spec_arguments(shown, "segments", {"segment", "duckdb"})
    common["description"] = _description(segment)
    common["metadata"] = {"dagster/column_schema": column_schema(MEMBERSHIP)}
    if segment.owner:
        common["owners"] = [segment.owner]

    @dg.asset(**common, deps=[asset_key(MEMBERSHIP), asset_key(SIZES)], backfill_policy=ONE_RUN)
    def show(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        window = context.partition_key_range
        start, end = date.fromisoformat(window.start), date.fromisoformat(window.end)
        for day, metadata in observe(lake.front(), segment, load_segments(), start, end, context.run.run_id).items():
            if day == end:
                metadata |= _LINEAGE
            context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=day.isoformat())

    return show


def observe(
    lake: Lake,
    segment: SegmentDeclaration,
    playbook: Sequence[SegmentDeclaration],
    start: date,
    end: date,
    run: str | None = None,
) -> dict[date, dict[str, Any]]:
    """Metadata of each day from ``start`` to ``end``: size, entered, left, share; on the last also plot, members and why.

    ``playbook`` are all segments, this one among them; ``run`` is that of :func:`report.shown`. Raises ``MissingPartition``
    where sizes, membership or the people of a day have not been computed.
    """
    shown_from = end - timedelta(days=PLOT_DAYS - 1)
    shown = report.shown(lake, playbook, min(start, shown_from), end, run)
    lines = shown.of(segment.name)
    counts = report.total(lines)
    metadata: dict[date, dict[str, Any]] = {}
    for day in days_between(start, end):
        people = lake.rows(CUSTOMER_360, day)
        lake.rows(SIZES, day)  # raises for a day that is missing
        count = counts.get(day, report.Count())
        metadata[day] = {
            "dagster/row_count": count.size,
            "size": count.size,
            "entered": count.entered,
            "left": count.left,
            "share_percent": round(100 * count.size / people, 2) if people else 0.0,
        }
    computed = [day for day in lake.days(SIZES) if shown_from <= day <= end]
    plotted = {
        name: {day: line[day].size for day in computed}
        for name, line in (lines or {segment.name: dict.fromkeys(computed, report.Count())}).items()
    }
    whys, private = report.without_private(shown.whys.get(segment.name, ()))
    said = {
        "sizes over time": report.size_plot(plotted),
        "latest members": report.latest_markdown(shown.latest.get(segment.name, ())),
        "why": why.markdown(whys) or "Nobody meets the condition.",
    }
    if private:
        said["latest members"] = "Not shown: the day on which people came in would tell private data."
        said["why"] = f"{said['why'].rstrip()}\n\nParts that rest on private data are not shown."
    if standing_in := counts.get(end, report.Count()).standing_in:
        said["note"] = (
            f"{counts[end].size} of the {segment.minimum_size} people it takes to be useful: {standing_in} more, members of "
            f"`{segment.fallback}`, stand in."
        )
    if segment.each:
        today = {name: line[end].size for name, line in lines.items() if end in line and line[end].size}
        metadata[end]["values"] = len(today)
        said["sizes"] = report.sizes_markdown(today)
    return metadata | {end: metadata[end] | {name: dg.MetadataValue.md(text) for name, text in said.items()}}


def _description(segment: SegmentDeclaration) -> str:
    """The declaration in words, and its condition as it is written."""
    parts = [segment.description]
    if segment.each:
        parts.append(f"One segment per `{segment.each}`: `{segment.name}:<value>`.")
    if segment.where:
        parts.append(f"```sql\n{segment.where.strip()}\n```")
    said = [f"`:{name}` is `{value}`" for name, value in segment.parameters.items()]
    for words, names in (("in any of", segment.include), ("in none of", segment.exclude)):
        if names:
            said.append(f"{words} {', '.join(f'`{name}`' for name in names)}")
    if segment.minimum_size:
        said.append(f"with fewer than {segment.minimum_size} people, those of `{segment.fallback}` stand in")
    return "\n\n".join([*parts, *(["\n".join(f"- {line}" for line in said)] if said else [])])
