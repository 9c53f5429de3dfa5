"""Checks of the segments: a size that jumps from one computed day to the next is more often a mistake than a success."""

import dagster as dg

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.segments import report
from shopauto_pipelines.segments.tables import SIZES


@dg.asset_check(
    asset=asset_key(SIZES),
    name="steady",
    description=(
        f"Warns where a segment is {report.JUMP:g} times as large or as small as on the computed day before, by "
        f"{report.MANY} people or more: raw data that is missing, or a changed declaration "
        "(`shopauto segments diff` says what a change does before it ships). Of a run over several days, the newest is compared."
    ),
)
def steady(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """The newest day of the run against the computed day before it."""
    jumps = report.jumps(lake.front(), run_days(context.run.tags)[-1])
    return dg.AssetCheckResult(
        passed=not jumps,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{jump.segment}: {jump.before:,} → {jump.after:,}" for jump in jumps) or None,
        metadata={"segments": len(jumps)},
    )


CHECKS = [steady]
