"""A replay from its beginning to its result: checks that it can be made, takes each version through the days, and reads both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.replay.readings import Reader, difference
from shopauto_pipelines.replay.result import Replay, Untold
from shopauto_pipelines.replay.simulation import Others, missing, playbook_with, replayed, simulate, untold
from shopauto_pipelines.replay.versions import ReplayError
from shopauto_pipelines.replay.words import spans
from shopauto_pipelines.sources.landing import how_to_compute

#: What the versions are called.
DECLARED, CHANGED = "as declared", "changed"


def replay(
    lake: Lake,
    settings: Settings,
    campaigns: Mapping[str, Campaign],
    campaign: str,
    start: date,
    end: date,
    *,
    changed: Campaign | None = None,
    others: Others = "as-sent",
    within_days: int = 14,
    skip_missing: bool = False,
) -> Replay:
    """What ``campaign`` would have done from ``start`` to ``end``, and beside it what its ``changed`` version would have.

    ``campaigns`` are the playbook's. Raises :class:`~.versions.ReplayError` where days have not been computed, unless they are
    to be skipped: then nothing is decided on them.
    """
    if start > end:
        raise ReplayError(f"--from {start} is after --to {end}")
    versions = {DECLARED: playbook_with(campaigns[campaign], campaigns)}
    if changed is not None:
        versions[CHANGED] = playbook_with(changed, campaigns)
    every = days_between(start, end)
    taken = [one for each in versions.values() for one in replayed(campaign, each, others)]
    lacking = missing(lake, taken, every)
    days = [day for day in every if day not in lacking]
    if lacking and not (skip_missing and days):
        raise ReplayError(_what_to_do(lake, lacking, some=bool(days)))
    unknown = untold(lake, taken, days)
    total, readers = len(days) * len(versions), dict[str, Reader]()
    for number, (version, playbook) in enumerate(versions.items()):

        def done(day: date, begun: int = number * len(days), version: str = version) -> None:
            report(f"{version}, {day}", begun + days.index(day) + 1, total)

        ledger = simulate(lake, settings, playbook, campaign, days, others, f"replay_{number}", done)
        readers[version] = Reader(ledger, campaign, days, settings, within_days)
    outcomes = tuple(reader.outcome(version) for version, reader in readers.items())
    first = readers[DECLARED]
    of_versions = [each[campaign] for each in versions.values()]
    return Replay(
        campaign=campaign,
        description=campaigns[campaign].description,
        steps=tuple(dict.fromkeys(step.name for one in of_versions for step in one.steps)),
        days=tuple(days),
        skipped=tuple(lacking),
        untold=Untold(
            tuple(unknown),
            unknown[-1] + timedelta(days=max(one.lookback_days for one in taken)),
            how_to_compute(lake, unknown[0], end),
        )
        if unknown
        else None,
        others=others,
        within_days=within_days,
        cap_days=settings.cap_days,
        currency=settings.currency,
        known_until=first.known_until,
        offers_unknown=any(one.is_realtime and one.brings_offers for one in of_versions),
        enabled=campaigns[campaign].enabled,
        last_unknown=not campaigns[campaign].is_realtime and days[-1] >= first.known_until,
        outcomes=outcomes,
        difference=difference(
            first, readers[CHANGED], (DECLARED, CHANGED), secret=any(one.tells_birthdays for one in of_versions)
        )
        if changed
        else None,
    )


def _what_to_do(lake: Lake, lacking: Mapping[date, list[str]], *, some: bool) -> str:
    """Which days are missing, and how to get them."""
    days = list(lacking)
    tables = sorted({table for of_day in lacking.values() for table in of_day})
    listed = ", ".join(tables[:3]) + (f" and {len(tables) - 3} more tables" if len(tables) > 3 else "")
    skip = ". --skip-missing leaves them out" if some else ""
    return (
        f"{spans(days)} cannot be replayed: {listed} {'have' if len(tables) > 1 else 'has'} not been computed: "
        f"{how_to_compute(lake, days[0], days[-1])}{skip}"
    )
