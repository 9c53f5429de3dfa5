"""From groups to verdicts: the rows of ``insights/campaign_effects``.

- **Experiments** are judged on the people of their registered size: those who came first. So the verdict is given once and
  stays, however often it is looked at, for as long as those people count (:attr:`Rules.history_days`): an experiment that is
  still declared when the first of them no longer do is judged anew, on others. Variants share the chance of being wrong.
- **Holdouts** have no such size: their intervals hold for any number of looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import isfinite
from typing import Any

import pyarrow as pa

from shopauto_pipelines.campaigns.declaration import CONTROL, Campaign, Experiment
from shopauto_pipelines.insights import effects
from shopauto_pipelines.insights.effects import Effect, Group
from shopauto_pipelines.insights.followed import CAMPAIGN, HELD, HOLDOUTS, METRICS, Followed, Known
from shopauto_pipelines.insights.tables import CAMPAIGN_EFFECTS
from shopauto_pipelines.platform.lake import Lake

KINDS: Mapping[str, effects.Kind] = {"ordered": "rate", "clicked": "rate", "revenue": "mean"}


@dataclass(frozen=True)
class Rules:
    """How effects are read.

    ``within_days``: that count in the holdouts' comparisons; ``worth_seeing``: the rise, a share of the control's figure;
    ``history_days``: back from the day in which an assignment counts.
    """

    within_days: int = 14
    worth_seeing: float = 0.1
    history_days: int = 365

    def since(self, as_of: date) -> date:
        """The first day whose assignments count."""
        return as_of - timedelta(days=self.history_days)


@dataclass(frozen=True)
class _Size:
    """How far an experiment is: people by variant, and the day on which all had the registered number."""

    people: Mapping[str, int]
    ends: date | None


def campaign_effects(
    lake: Lake, campaigns: Iterable[Campaign], known: Known, as_of: date, rules: Rules | None = None
) -> pa.Table:
    """The rows of ``insights/campaign_effects`` as of the day."""
    rules, declared = rules or Rules(), list(campaigns)
    followed = Followed.of(lake, declared, known, as_of, rules.within_days, rules.since(as_of))
    sizes = _sizes(declared, followed.arrivals())
    ends = {key: size.ends for key, size in sizes.items() if size.ends}
    groups = followed.groups(ends)
    rows = [row for campaign in declared for row in _rows(campaign, groups, sizes, rules)]
    return pa.Table.from_pylist(rows, schema=CAMPAIGN_EFFECTS.arrow_schema)


def _sizes(
    campaigns: Iterable[Campaign], arrivals: Mapping[tuple[str, str], Mapping[date, int]]
) -> dict[tuple[str, str], _Size]:
    """How far each experiment is, by campaign and experiment."""
    sizes = {}
    for campaign in campaigns:
        if experiment := campaign.experiment:
            of = {variant: arrivals.get((campaign.name, variant), {}) for variant in experiment.variants}
            full = [_full(people, experiment.sample_size) for people in of.values()]
            ends = max((day for day in full if day), default=None) if all(full) else None
            people = {variant: sum(counts.values()) for variant, counts in of.items()}
            sizes[campaign.name, experiment.name] = _Size(people, ends)
    return sizes


def _full(people: Mapping[date, int], wanted: int) -> date | None:
    """The day on which the people of the days so far are as many as wanted."""
    so_far = 0
    for day, count in people.items():
        so_far += count
        if so_far >= wanted:
            return day
    return None


def _rows(
    campaign: Campaign,
    groups: Mapping[tuple[str, str, str, str], Group],
    sizes: Mapping[tuple[str, str], _Size],
    rules: Rules,
) -> Iterator[dict[str, Any]]:
    """The rows of a campaign."""

    def group(comparison: str, arm: str, metric: str) -> Group:
        return groups.get((campaign.name, comparison, arm, metric), Group())

    for held in HELD.values():
        for metric in ("ordered", "revenue"):
            treated, control = group(HOLDOUTS, CAMPAIGN, metric), group(HOLDOUTS, held, metric)
            if treated.people and control.people:
                alpha = effects.for_any_number_of_looks(treated, control)
                found = effects.judge(KINDS[metric], treated, control, alpha=alpha, worth_seeing=rules.worth_seeing)
                yield _row(campaign.name, held, CAMPAIGN, metric, rules.within_days, treated, control, found)
    experiment = campaign.experiment
    if experiment:
        size = sizes[campaign.name, experiment.name]
        alpha = effects.shared_among(len(experiment.variants) - 1)
        for variant in experiment.others:
            for metric in METRICS:
                treated, control = (group(experiment.name, arm, metric) for arm in (variant, CONTROL))
                found = effects.judge(
                    KINDS[metric],
                    treated,
                    control,
                    alpha=alpha,
                    worth_seeing=rules.worth_seeing,
                    not_yet=_not_yet(experiment, size, metric),
                )
                found = replace(found, people_needed=2 * experiment.sample_size)
                within = experiment.within_days
                yield _row(campaign.name, experiment.name, variant, metric, within, treated, control, found)


def _not_yet(experiment: Experiment, size: _Size, metric: str) -> str | None:
    """Why an experiment has no verdict on a metric yet."""
    if metric != experiment.metric:
        return f"not what decides: that is {experiment.metric}"
    if size.ends is None:
        wanted = experiment.sample_size
        missing = {name: wanted - people for name, people in size.people.items() if people < wanted}
        told = ", ".join(f"{name} {size.people[name]:,} of {wanted:,}" for name in missing)
        return f"{sum(missing.values()):,} people are missing: {told}"
    return None


def _row(
    campaign: str,
    comparison: str,
    variant: str,
    metric: str,
    within: int,
    treated: Group,
    control: Group,
    found: Effect,
) -> dict[str, Any]:
    figures = {
        "value": treated.mean if treated.m else None,
        "control_value": control.mean if control.m else None,
        "lift": found.lift if treated.m and control.m else None,
        "lift_low": found.low,
        "lift_high": found.high,
        "relative": found.relative,
        "minimum_detectable_effect": found.minimum_detectable_effect,
    }
    return {
        "campaign": campaign,
        "comparison": comparison,
        "variant": variant,
        "metric": metric,
        "within_days": within,
        "people": treated.people,
        "occasions": treated.m,
        "control_people": control.people,
        "control_occasions": control.m,
        **{name: round(x, 6) if x is not None and isfinite(x) else None for name, x in figures.items()},
        "verdict": found.verdict,
        "note": found.note or None,
        "people_needed": found.people_needed,
    }
