"""The send gate: whether what is planned today looks as it should, asked once more before any of it leaves.

Each part compares the day with the usual and says what is wrong, where, and what to do. Few rows are no evidence: at small
numbers a part is silent. Whoever knows better overrules it for one campaign and day (:func:`overrule`), with name and cause.

Not here: who is held out or has not agreed (the audience's check ``left_alone``), rates of complaints and the stages of a
roll-out (``breakers``), and single addresses: what is suppressed is left out by the reservation, message by message.

Parts: :mod:`.arrivals`, :mod:`.size`, :mod:`.addresses`, :mod:`.scores`, :mod:`.fulfilment`.
"""

from __future__ import annotations

from datetime import date

import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.outbox.gate.addresses import suppression
from shopauto_pipelines.outbox.gate.arrivals import freshness
from shopauto_pipelines.outbox.gate.fulfilment import stock
from shopauto_pipelines.outbox.gate.overruling import overrule, overruled
from shopauto_pipelines.outbox.gate.scores import model
from shopauto_pipelines.outbox.gate.size import volume
from shopauto_pipelines.outbox.gate.verdicts import Finding, Verdict, planned
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings

__all__ = ["Finding", "Verdict", "examine", "held", "overrule", "remember"]

#: What went through the gate in a run of this process: run, campaign, day.
_passed: set[tuple[str, str, date]] = set()


def examine(connection: sa.Connection, lake: Lake, settings: Settings, campaign: Campaign, as_of: date) -> Verdict:
    """Ask every part about the messages planned as of the day; raises ``MissingPartition`` where there is no audience."""
    current = live_settings.current(connection, settings)
    people = planned(lake, audience(campaign.name), as_of)
    if not people:
        return Verdict(campaign.name, as_of, (Finding("planned", True, "nobody is planned"),))
    found = (
        *freshness(lake, current, as_of),
        volume(lake, current, campaign, as_of, people),
        suppression(connection, lake, current, campaign, as_of),
        *model(lake, current, campaign, as_of),
        *stock(lake, current, campaign, as_of, people),
    )
    failed = [each.part for each in found if not each.passed]
    return Verdict(campaign.name, as_of, found, overruled(connection, current, campaign.name, as_of, failed))


def remember(run_id: str, verdict: Verdict) -> None:
    """Keep that a campaign's day went through the gate in a run, so that its dispatch need not ask again."""
    if not verdict.stops:
        _passed.add((run_id, verdict.campaign, verdict.as_of))


def held(
    connection: sa.Connection, lake: Lake, settings: Settings, campaign: Campaign, as_of: date, run_id: str
) -> str | None:
    """Why nothing of the campaign's day may leave; ``None`` where it may.

    A check holds what comes after it in its own run only. A run of the outbox alone asks here.
    """
    if (run_id, campaign.name, as_of) in _passed:
        return None
    return examine(connection, lake, settings, campaign, as_of).text
