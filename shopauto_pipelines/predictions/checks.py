"""The promotion gate, a blocking check between a new model and all that would act on its scores; and drift, which warns."""

import dagster as dg

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import run_days
from shopauto_pipelines.predictions import gate, serving, tables
from shopauto_pipelines.predictions.assets import models_metadata
from shopauto_pipelines.predictions.drift import LARGE, Drift
from shopauto_pipelines.predictions.store import ModelStore

_SEVERITY = {"stop": dg.AssetCheckSeverity.ERROR}


@dg.asset_check(
    asset=asset_key(tables.MODELS),
    name="promotion_gate",
    blocking=True,
    description=(
        "A challenger goes live only where it ranks at least as well as every naive rule, is closer to the truth, and is "
        "calibrated. Passes too where there is not enough data to train one. Warns where a challenger failed and the last "
        "good model stays, and where a model was asked for by name; stops the run where there is none on "
        "its latest day."
    ),
)
def promotion_gate(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """The worst ruling over the days of the run; only the latest one stops it."""
    rows = {day: lake.front().on(tables.MODELS, day).to_pyarrow().to_pylist() for day in run_days(context.run.tags)}
    worst = gate.rule_range({day: gate.rule(models) for day, models in rows.items()})
    return dg.AssetCheckResult(
        passed=worst.state == "passed",
        severity=_SEVERITY.get(worst.state, dg.AssetCheckSeverity.WARN),
        description=worst.text,
        metadata=models_metadata(rows[max(rows)]),
    )


@dg.asset_check(
    asset=asset_key(tables.SCORES),
    name="drift",
    description=(
        "Warns where the people scored, or the scores, differ much from those the model in force was made for: a population "
        f"stability index more than {LARGE} beyond chance, of a feature that matters to the forecast or of the forecast itself. "
        "Of a run over several days, the newest is compared."
    ),
)
def drift(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, settings: SettingsResource
) -> dg.AssetCheckResult:
    """The newest day of the run against the people at training."""
    day = run_days(context.run.tags)[-1]
    found = serving.drifts(lake.front(), ModelStore(settings.settings.models_path), day)
    large = [(when, each) for when, drifts in found.items() for each in drifts if each.large]
    moved = "; ".join(f"{each.name} since {when}: PSI {each.psi:.2f}{_means(each)}" for when, each in large)
    return dg.AssetCheckResult(
        passed=not large,
        severity=dg.AssetCheckSeverity.WARN,
        description=moved or ("no model is in force" if not found else f"nothing has moved by more than {LARGE}"),
        metadata={f"since {when}": _drift_table(drifts) for when, drifts in found.items()},
    )


def _means(drift: Drift) -> str:
    known = drift.then is not None and drift.now is not None
    return f" (mean {drift.then:.4g}, now {drift.now:.4g})" if known else ""


def _drift_table(drifts: list[Drift]) -> dg.TableMetadataValue:
    rows = [
        {
            "column": each.name,
            "psi": each.psi,
            "by_chance": each.by_chance,
            "mean_then": each.then,
            "mean_now": each.now,
            "matters": each.matters,
        }
        for each in drifts
    ]
    types = {"column": "string", "psi": "float", "by_chance": "float", "mean_then": "float", "mean_now": "float"}
    columns = [dg.TableColumn(name, kind) for name, kind in {**types, "matters": "bool"}.items()]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], dg.TableSchema(columns))


CHECKS = [promotion_gate, drift]
