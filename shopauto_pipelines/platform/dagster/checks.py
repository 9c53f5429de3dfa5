"""How a Great Expectations suite becomes a blocking asset check."""

from functools import partial

import dagster as dg

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.failures import errors_told, sparing
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.platform.quality import Finding, Suite, run_suite


def suite_check(suite: Suite) -> dg.AssetChecksDefinition:
    """The check ``quality`` of the suite's table: a failing expectation stops everything downstream in the run."""
    expectations = "\n".join(f"- `{expectation.name}`" for expectation in suite.expectations)

    @dg.asset_check(
        asset=asset_key(suite.table),
        name="quality",
        blocking=True,
        description=f"Great Expectations suite of `{suite.table.name}`; stops the run before anything is sent.\n\n{expectations}",
    )
    def quality(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        days = run_days(context.run.tags)
        opened, what = lake.front(), f"the check of {suite.table.name}"
        with errors_told(what):
            findings, rows = sparing(opened.engine, what, context.log, partial(run_suite, opened, suite, days))
        for finding in findings:
            context.log.error(describe(suite, finding))
        return dg.AssetCheckResult(
            passed=not findings,
            description="; ".join(describe(suite, f) for f in findings) or None,
            metadata={
                "rows": rows,
                "expectations": len(suite.expectations),
                "failed": len(findings),
                "findings": dg.MetadataValue.md(_table(suite, findings)),
            },
        )

    return quality


def describe(suite: Suite, finding: Finding) -> str:
    """One line: what was expected of which column, how many rows break it, and which (by key, never by value)."""
    where = (
        f"; rows ({suite.table.partition} {' '.join(suite.table.key)}): {', '.join(finding.keys)}"
        if finding.keys
        else ""
    )
    return f"{suite.table.name}: {finding.expectation} fails for {finding.unexpected:,} of {finding.rows:,} rows{where}"


def _table(suite: Suite, findings: list[Finding]) -> str:
    if not findings:
        return f"All {len(suite.expectations)} expectations hold."
    lines = ["| expectation | column | unexpected | rows | first rows by key |", "|---|---|---|---|---|"]
    lines += [
        f"| {f.expectation} | {f.column} | {f.unexpected:,} | {f.rows:,} | {', '.join(f.keys)} |" for f in findings
    ]
    return "\n".join(lines)
