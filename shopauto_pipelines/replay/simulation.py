"""Takes a campaign through days that are past: the real planner decides as of each, on tables as they were that day.

- **The campaign's own messages** are those of the replay. What it really sent before the first day counts as it does for the
  planner: whoever had a step then does not get it again.
- **Messages of other campaigns** are ``as-sent``, those that really went out, or ``planned``: the whole playbook is replayed, in
  its order of priority, by the same rules.
- **What people did** stays as it was: who unsubscribed, ordered or left a segment did so on that day. Nobody reacts to a message
  that was never sent.
- A campaign that is not enabled is replayed as if it were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Literal

from shopauto_pipelines.campaigns.asked import leaving_day
from shopauto_pipelines.campaigns.audience import Sources, decisions, reads, reads_earlier
from shopauto_pipelines.campaigns.declaration import Campaign, planned_before
from shopauto_pipelines.platform.lake import Lake, LakeTable, days_between
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.replay.ledger import VirtualLedger
from shopauto_pipelines.sources.landing import landed_days

#: What counts of other campaigns.
Others = Literal["as-sent", "planned"]


def playbook_with(campaign: Campaign, campaigns: Mapping[str, Campaign]) -> dict[str, Campaign]:
    """The playbook with this version of the campaign, enabled, in the order in which campaigns are planned."""
    enabled = campaign.model_copy(update={"enabled": True})
    changed = {**campaigns, campaign.name: enabled}
    return dict(sorted(changed.items(), key=lambda item: (-item[1].priority, item[0])))


def replayed(campaign: str, campaigns: Mapping[str, Campaign], others: Others) -> list[Campaign]:
    """The campaigns that are replayed, in the order of a day: by the hour first, then by priority."""
    chosen = [one for one in campaigns.values() if one.name == campaign or (others == "planned" and one.enabled)]
    return sorted(chosen, key=lambda one: not one.is_realtime)


def missing(lake: Lake, campaigns: Sequence[Campaign], days: Sequence[date]) -> dict[date, list[str]]:
    """Days of which the campaigns cannot be replayed, each with the tables that are missing."""
    tables = {table.name: table for campaign in campaigns for table in reads(campaign)}
    found: dict[date, list[str]] = {}
    for table in sorted(tables.values(), key=lambda table: table.name):
        computed = set(lake.days(table))
        for day in days:
            if day not in computed and _is_needed(table):
                found.setdefault(day, []).append(table.name)
    return dict(sorted(found.items()))


def untold(lake: Lake, campaigns: Sequence[Campaign], days: Sequence[date]) -> list[date]:
    """Days that have not been computed and whose states the triggers look at: who was triggered on them nobody knows.

    They lie before the ``days``, as far back as a trigger may still have a step due, or among those that are left out.
    """
    landed = landed_days(lake)
    found: set[date] = set()
    for campaign in campaigns:
        first = days[0] - timedelta(days=campaign.lookback_days)
        for table in reads_earlier(campaign):
            looked_at = days_between(max(first, landed[0]) if landed else days[0], days[-1])
            found |= {*looked_at} - {*lake.days(table)}
    return sorted(found)


def _is_needed(table: Table) -> bool:
    """A day's log may be missing: nothing is known to have happened then. What is known as of the day may not."""
    return table.partition == "as_of"


def simulate(
    lake: Lake,
    settings: Settings,
    campaigns: Mapping[str, Campaign],
    campaign: str,
    days: Sequence[date],
    others: Others,
    name: str = "replay",
    done: Callable[[date], None] = lambda day: None,
) -> VirtualLedger:
    """The ledger after the ``days``, in order; ``campaigns`` as of :func:`playbook_with`. ``done`` is told of each day.

    Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition` for a day of which :func:`missing` knows.
    """
    ledger = VirtualLedger(lake, name, settings)
    in_turn = replayed(campaign, campaigns, others)
    virtual = {one.name for one in in_turn}
    ledger.begun = {one.name: leaving_day(one, days[0] - timedelta(days=1)) for one in in_turn}
    by_the_day = [one.name for one in campaigns.values() if not one.is_realtime]
    for day in days:
        # what others planned as of the day itself counts as planned, not as sent
        until = {name: day for name in by_the_day if name not in virtual}
        until |= ledger.begun
        for one in in_turn:
            before = planned_before(one.name, campaigns)
            first = ledger.planned_on(day, before) if others == "planned" else ledger.really_sent_for(day, before)
            sources = Sources({table.name: LakeTable(lake, table) for table in reads(one)})
            ledger.note(one, day, decisions(one, sources, settings, day, virtual=ledger.known(until, first)))
        done(day)
    return ledger
