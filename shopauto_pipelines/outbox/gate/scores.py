"""Whether the scores that a campaign rests on can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.outbox.gate.verdicts import Finding
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions import drift, serving
from shopauto_pipelines.predictions import tables as predictions
from shopauto_pipelines.predictions.store import ModelStore
from shopauto_pipelines.segments.declaration import SegmentDeclaration, load_segments

#: What scores tell that no other table does.
_SCORES = frozenset(predictions.SCORES.schema.names) - {"customer_id"}


def model(lake: Lake, settings: Settings, campaign: Campaign, as_of: date) -> Iterator[Finding]:
    """Of a campaign that rests on scores: whether their models are young enough and forecast for the people they know."""
    resting = rests_on_scores(campaign, load_segments())
    if not resting:
        return
    told = lake.con.to_pyarrow(lake.on(predictions.MODELS, as_of)).to_pylist()
    trained = {row["target"]: row["trained_as_of"] for row in told if row["model_id"]}
    if not trained:
        yield Finding("model", True, f"no model is in force: {resting} takes everybody's scores as not known")
        return
    age = (as_of - min(trained.values())).days
    moved = {
        each.name: each.psi - each.by_chance
        for drifts in serving.drifts(lake, ModelStore(settings.models_path), as_of).values()
        for each in drifts
        if each.name in drift.FORECASTS.values()
    }
    figures = {"age_days": age, **{f"drift_of_{name}": round(psi, 4) for name, psi in moved.items()}}
    if age > settings.gate_model_days:
        yield Finding(
            "model",
            False,
            f"the model behind {resting} was trained {age} days ago, at most {settings.gate_model_days} are allowed. See on the "
            "page of predictions/models why no newer one has passed",
            figures,
        )
    elif large := {name: psi for name, psi in moved.items() if psi > settings.gate_drift}:
        worst = max(large, key=lambda name: large[name])
        yield Finding(
            "model",
            False,
            f"{worst}, behind {resting}, has drifted by {large[worst]:.2f} beyond chance (PSI) since the model was trained, at "
            f"most {settings.gate_drift:g} is allowed. See the check `drift` of predictions/scores, and what has changed in the "
            "data",
            figures,
        )
    else:
        yield Finding("model", True, f"trained {age} days ago, and its forecasts are as they were", figures)


def rests_on_scores(campaign: Campaign, segments: Iterable[SegmentDeclaration]) -> str | None:
    """What of the campaign rests on scores: its trigger, a step's condition, a segment; ``None``: nothing does."""
    if campaign.trigger.next_order:
        return "the trigger next_order"
    for step in campaign.steps:
        if step.condition and step.condition.columns & _SCORES:
            return f"the condition of step {step.name}"
    known = {segment.name: segment for segment in segments}
    seen: set[str] = set()
    waiting = [name.partition(":")[0] for name in campaign.segments]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        if known[name].columns & _SCORES:
            return f"the segment {name}"
        seen.add(name)
        waiting += known[name].rests_on
    return None
