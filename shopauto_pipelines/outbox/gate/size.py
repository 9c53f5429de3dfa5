"""Whether as many people are planned as usual."""

from __future__ import annotations

from datetime import date, timedelta
from statistics import median

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.outbox.gate.verdicts import DAYS, FEWEST_DAYS, FEWEST_WEEKS, Finding, planned
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings


def volume(lake: Lake, settings: Settings, campaign: Campaign, as_of: date, people: int) -> Finding:
    """Whether about as many are planned as usual: against the days of the last four weeks, or a broadcast's days of a year.

    A jump is more than so many times the median of days with anybody, and well beyond the second largest of them.
    """
    table = audience(campaign.name)
    schedule, yesterday = campaign.trigger.broadcast, as_of - timedelta(days=1)
    computed = set(lake.days(table))
    asked = (
        schedule.days(as_of - timedelta(days=400), yesterday)
        if schedule
        else [as_of - timedelta(days=n) for n in range(1, DAYS + 1)]
    )
    before = [planned(lake, table, day) for day in asked if day in computed]
    sizes = sorted(size for size in before if size)
    if len(sizes if schedule else before) < (FEWEST_WEEKS if schedule else FEWEST_DAYS):
        return Finding(
            "volume", True, f"{people:,} are planned; there are too few days to compare with", {"planned": people}
        )
    usual = median(sizes) if sizes else 0
    bound = max(settings.gate_volume_people, settings.gate_volume_factor * usual, 1.5 * sizes[-2] if sizes[1:] else 0)
    figures = {"planned": people, "usual": usual, "bound": bound}
    told = f"{people:,} are planned, usual are {usual:,.0f}"
    if people <= bound:
        return Finding("volume", True, told, figures)
    advice = (
        f"{told}, and at most {bound:,.0f} go without a question. See what has changed: `shopauto segments diff`, the "
        f"decisions on the page of {table.name}, an import that made many people new"
    )
    return Finding("volume", False, advice, figures)
