"""Reads the campaigns of a playbook, and checks what a single part cannot: segments, templates and texts that must exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shopauto_pipelines.campaigns.content import ContentError, check_step
from shopauto_pipelines.campaigns.declaration.campaign import EVERYONE, Campaign
from shopauto_pipelines.campaigns.declaration.step import MISSING, Step
from shopauto_pipelines.campaigns.offers import ONSITE
from shopauto_pipelines.platform.playbook import PLAYBOOK, Declaration, PlaybookError, declarations, once_per_change
from shopauto_pipelines.segments.declaration import SegmentDeclaration, check_name, load_segments

_MISSING = MISSING | {
    "steps": "does not say which message: declare `steps`",
    "trigger": "does not say when: declare a `trigger`, e.g. signed_up, ordered, segment_entered or broadcast",
}


@once_per_change
def load_campaigns(folder: Path = PLAYBOOK) -> dict[str, Campaign]:
    """Every campaign under ``folder`` by name, those that are planned first in front.

    Raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError`, ``file:line:column: what is wrong``, for a
    declaration that is not valid, names a segment that does not exist, or has a template that cannot be sent.
    """
    segments = load_segments(folder)
    loaded: dict[str, Campaign] = {}
    for declaration in declarations("Campaign", folder):
        campaign = campaign_of(declaration, segments)
        if campaign.name == ONSITE:
            raise declaration.error(f"{ONSITE!r} is the on-site offer: choose another name", "name")
        if campaign.name in loaded:
            raise declaration.error(f"there is another campaign {campaign.name!r}", "name")
        loaded[campaign.name] = campaign
    return dict(sorted(loaded.items(), key=lambda item: (-item[1].priority, item[0])))


def planned_before(campaign: str, campaigns: Mapping[str, Campaign]) -> list[str]:
    """Names of the campaigns that are planned before ``campaign`` on the same day.

    One that sends by the hour is planned on no day: what it has sent counts towards the cap as sent.
    """
    if campaigns[campaign].is_realtime:
        return []
    names = [name for name, other in campaigns.items() if not other.is_realtime]
    return names[: names.index(campaign)]


def campaign_of(declaration: Declaration, segments: Sequence[SegmentDeclaration]) -> Campaign:
    """The campaign that is declared; raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError` as above."""
    try:
        campaign = Campaign.model_validate(declaration.attributes)
    except ValidationError as error:
        raise _in_words(declaration, error) from None
    campaign._folder = declaration.folder
    for segment, path in _segments_with_places(campaign):
        try:
            check_name(segment, segments)
        except ValueError as error:
            raise declaration.error(str(error), *path) from None
    for step, path in _steps_with_places(campaign):
        try:
            check_step(campaign.folder, step)
        except ContentError as error:
            raise declaration.error(str(error), *path, *error.attribute) from None
    return campaign


def _segments_with_places(campaign: Campaign) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    if campaign.trigger.segment_entered:
        yield campaign.trigger.segment_entered, ("trigger", "segment_entered")
    if campaign.audience:
        for side in ("include", "exclude"):
            for index, segment in enumerate(getattr(campaign.audience, side)):
                if (side, segment) != ("include", EVERYONE):
                    yield segment, ("audience", side, index)


def _steps_with_places(campaign: Campaign) -> Iterator[tuple[Step, tuple[str | int, ...]]]:
    """Everything that may be sent: the steps, and the variants of the one that is experimented with."""
    for index, step in enumerate(campaign.steps):
        yield step, ("steps", index)
    if campaign.experiment:
        for name, variant in campaign.experiment.variants.items():
            if variant.changes.keys() - {"hour"}:
                yield variant.of(campaign.step(campaign.experiment.step)), ("experiment", "variants", name)


def _in_words(declaration: Declaration, error: ValidationError) -> PlaybookError:
    """The first mistake, with its place; of what a campaign must say, which of the three it leaves out."""
    found = error.errors(include_url=False)[0]
    said: Any = declaration.attributes
    what = f"campaign {said['name']!r}" if isinstance(said, dict) and "name" in said else "campaign"
    if found["type"] == "missing" and (says := _MISSING.get(str(found["loc"][-1]))):
        wrong = declaration.unknown(found, Campaign, what)
        return wrong or declaration.error(f"{what} {says}", *found["loc"][:-1])
    return declaration.mistake(error, Campaign, what)
