"""What is asked about: one person, one step of one campaign, one day; with all that the steps of an explanation are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from shopauto_pipelines.campaigns.declaration import Campaign, planned_before
from shopauto_pipelines.campaigns.declaration import Step as Declared
from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.explain.facts import Person
from shopauto_pipelines.explain.moved import Moved
from shopauto_pipelines.explain.telling import Row
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.store import Card
from shopauto_pipelines.segments.why import Why

_ORDER = list(REASONS)


@dataclass(frozen=True)
class Known:
    """What is the same for all who are asked about on a day.

    ``whys``: by person and segment. ``scores``: rows of ``predictions/scores`` by person, ``moved``: what moved them, and
    ``unmoved``: why nobody can say. ``cards``: of the models in force, by target. ``limit``: most rows of a raw table.
    """

    lake: Lake
    settings: Settings
    campaigns: Mapping[str, Campaign]
    day: date
    limit: int
    whys: Mapping[str, Mapping[str, Why]] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    moved: Mapping[str, Moved] = field(default_factory=dict)
    cards: Mapping[str, Card] = field(default_factory=dict)
    unmoved: str = ""

    def tells_birthday(self, campaign: Any) -> bool:
        """Whether the day of a message of the campaign of that name, if there is one, tells the person's birthday."""
        return campaign in self.campaigns and self.campaigns[campaign].tells_birthdays


@dataclass(frozen=True)
class Case:
    """One question. ``row`` has the columns of the audience: what was decided, or where the trigger has not ``reached`` the
    person, what would have been; empty where not even that can be said. ``of_ledger``: the ledger says it, not the audience.
    """

    known: Known
    campaign: Campaign
    person: Person
    name: str
    row: Mapping[str, Any]
    reached: bool
    of_ledger: bool = False

    @property
    def day(self) -> date:
        """The day that is asked about."""
        return self.known.day

    @cached_property
    def step(self) -> Declared:
        """The step as the person's variant has it."""
        variant, drawn = self.row.get("variant"), self.campaign.experiment
        return self.campaign.step(self.name, variant if drawn and variant in drawn.variants else None)

    def showable(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows without those about messages whose day would tell the birthday."""
        return tuple(row for row in rows if not self.known.tells_birthday(row.values.get("campaign")))

    @property
    def reason(self) -> str | None:
        """The rule that decided."""
        return self.row.get("reason")

    @property
    def marketing(self) -> bool:
        """Whether all rules hold."""
        return self.campaign.kind == "marketing"

    @cached_property
    def explanation(self) -> Mapping[str, Any]:
        """What the audience keeps of the decision."""
        return json.loads(self.row.get("explanation") or "{}")

    @cached_property
    def details(self) -> Mapping[str, Any]:
        """What set it off, e.g. the product."""
        return json.loads(self.row.get("details") or "{}")

    def refused_by(self, rule: str) -> bool | None:
        """Whether this rule refused, as it was recorded; ``None`` where it was not asked, for an earlier one had decided."""
        if self.reason is None:
            return None
        ours, theirs = _ORDER.index(rule), _ORDER.index(self.reason)
        return ours == theirs if ours <= theirs else None

    @cached_property
    def sent(self) -> Sequence[Row]:
        """What the person was sent of the step, whatever the occasion, as far back as the planner looks."""
        name = f"{self.campaign.name}:{self.name}:"
        events = (row for row in self.person.events if row.values["type"] == "sent")
        return [row for row in events if str(row.values.get("message_id", "")).startswith(name)]

    @cached_property
    def before(self) -> Sequence[str]:
        """Campaigns that are planned first on the day."""
        return planned_before(self.campaign.name, self.known.campaigns) if self.reached else []
