"""What is asked of the planner: a campaign, the shop's rules and the day as two small tables, so that one plan does for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from shopauto_pipelines.campaigns.content import match_language
from shopauto_pipelines.campaigns.declaration import Campaign, Experiment, Step, Wait
from shopauto_pipelines.campaigns.experiments import ends, experiment_key, variant_of
from shopauto_pipelines.campaigns.holdout import GLOBAL, end_of, holdout_key
from shopauto_pipelines.campaigns.planner import SCHEMAS, Rules

_MICROSECOND = timedelta(microseconds=1)


def asked(
    campaign: Campaign, rules: Rules, as_of: date, waits: Mapping[str, Wait] | None = None, now: datetime | None = None
) -> dict[str, pa.Table]:
    """The planner's inputs ``asked`` and ``steps``. ``waits``, per step, are given of campaigns about carts.

    ``now`` is given where what is planned leaves at once: nothing can leave before.
    """
    included = None if campaign.included is None else list(campaign.included)
    row = {
        "as_of": as_of,
        "campaign": campaign.name,
        "trigger": str(campaign.trigger),
        "included": included,
        "excluded": list(campaign.excluded),
        "segments": list(campaign.segments),
        "stays_in": campaign.trigger.segment_entered,
        "topic": campaign.topic,
        "exit_on": list(campaign.exit_on),
        "marketing": campaign.kind == "marketing",
        "pauses": campaign.pauses,
        "keeps_day": campaign.tells_birthdays,
        "sunset_days": campaign.sunset_days,
        "again_days": campaign.again_days,
        "cap_messages": rules.cap_messages,
        "cap_after": leaving_day(campaign, as_of) - timedelta(days=rules.cap_days),
        "cap_day_messages": rules.cap_day_messages,
        "quiet_from": rules.quiet_from,
        "quiet_hours": rules.quiet_hours,
        "quiet_to": rules.quiet_to,
        "default_hour": rules.default_hour,
        "holdout_key": holdout_key(rules.hash_key, GLOBAL),
        "holdout_end": end_of(rules.holdout_percent),
        "campaign_key": holdout_key(rules.hash_key, campaign.name),
        "campaign_end": end_of(campaign.held_out_percent),
        "timezone": rules.timezone,
        "leaves_after": now and now.astimezone(UTC).replace(tzinfo=None),
    }
    steps = [
        _step(campaign, step, position, rules, as_of, waits) | drawn
        for position, step in enumerate(campaign.steps)
        for step, drawn in _variants(campaign, step, rules)
    ]
    return {
        name: pa.Table.from_pylist(rows, SCHEMAS[name].to_pyarrow())
        for name, rows in (("asked", [row]), ("steps", steps))
    }


def leaving_day(campaign: Campaign, as_of: date) -> date:
    """The day on which what is planned as of a day leaves, the last of the days that the cap counts; carts' leaves at once."""
    return as_of if campaign.is_realtime else as_of + timedelta(days=1)


def drawn_for(campaign: Campaign, step: str, customer_id: str, hash_key: bytes) -> str | None:
    """The variant of the step that the person is drawn for; ``None`` where it is not tested."""
    experiment = campaign.experiment
    if experiment is None or experiment.step != step:
        return None
    return variant_of(customer_id, experiment_key(hash_key, experiment.name), _weights(experiment))


def _weights(experiment: Experiment) -> dict[str, int]:
    return {name: variant.weight for name, variant in experiment.variants.items()}


def _step(
    campaign: Campaign, step: Step, position: int, rules: Rules, as_of: date, waits: Mapping[str, Wait] | None
) -> dict[str, Any]:
    newest = as_of - timedelta(days=step.wait_days or 0)
    row = {
        "step": step.name,
        "position": position,
        "channel": step.channel,
        "template": step.template,
        "hour": None if step.hour == "best" else step.hour,
        "conditional": step.when is not None,
        "wait_days": step.wait_days,
        "oldest": newest - timedelta(days=campaign.valid_days - 1),
        "newest": newest,
        **_languages(step, rules.language),
    }
    if waits:
        after, valid, sent_within = waits[step.name]
        row["wait_hours"] = after / timedelta(hours=1)
        row["reached_at"] = after // _MICROSECOND
        row["due_until"] = (after + valid) // _MICROSECOND
        row["sent_until"] = (after + (sent_within or valid)) // _MICROSECOND
    return row


def _languages(step: Step, default: str) -> dict[str, Any]:
    """:func:`~.content.match_language` as data: by the whole tag, by its first part, and otherwise."""
    available = step.languages
    bases = sorted({language.split("-")[0].lower() for language in available})
    return {
        "languages": [(language.lower(), language) for language in available],
        "bases": [(base, match_language(base, available)) for base in bases],
        "otherwise": match_language(None, available, default),
    }


def _variants(campaign: Campaign, step: Step, rules: Rules) -> Iterator[tuple[Step, dict[str, Any]]]:
    """The step, or where it is tested each of its variants, with the places of those who are drawn for it."""
    experiment = campaign.experiment
    if not experiment or experiment.step != step.name:
        yield step, {}
        return
    draw, begins = experiment_key(rules.hash_key, experiment.name), ""
    for name, end in ends(_weights(experiment)):
        of_it = {"experiment": experiment.name, "variant": name, "draw": draw, "begins": begins, "ends": end}
        yield campaign.step(step.name, name), of_it
        begins = end
