"""The promotion gate: a blocking check between a new model and everything that would act on its scores."""

import dagster as dg

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.predictions import gate, tables
from shopauto_pipelines.predictions.assets import model_metadata

_SEVERITY = {"stop": dg.AssetCheckSeverity.ERROR}


@dg.asset_check(
    asset=asset_key(tables.MODELS),
    name="promotion_gate",
    blocking=True,
    description=(
        "A challenger goes live only where it ranks at least as well as every naive rule, is closer to the truth, and is "
        "calibrated. Passes too where there is not enough data to train one. Warns where a challenger failed and the last "
        "good model stays; stops the run where there is none."
    ),
)
def promotion_gate(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """The worst ruling over the days of the run."""
    rulings, rows = [], []
    for day in run_days(context.run.tags):
        rows = lake.lake().on(tables.MODELS, day).to_pyarrow().to_pylist()
        rulings.append(gate.rule(rows))
    worst = max(rulings, key=lambda ruling: gate.STATES.index(ruling.state))
    metadata = {name: value for row in rows for name, value in model_metadata(row).items()}
    return dg.AssetCheckResult(
        passed=worst.state == "passed",
        severity=_SEVERITY.get(worst.state, dg.AssetCheckSeverity.WARN),
        description=worst.text,
        metadata=metadata,
    )


CHECKS = [promotion_gate]
