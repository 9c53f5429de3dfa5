"""Whom the UI explains: of a day's decisions a few that differ, so that every kind of answer is seen once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.explain import page
from shopauto_pipelines.explain.explanation import Asked, Explainer
from shopauto_pipelines.explain.telling import Explanation
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings

#: Most people explained, rows of a table shown of each, and pages kept.
MOST, ROWS, PAGES = 12, 3, 30
PLANNED = 4


class Decision(NamedTuple):
    """A decision that people met with, how many, and the first of them by id."""

    campaign: str
    decision: str
    reason: str
    people: int
    customer_id: str
    step: str
    occasion: str


@dataclass(frozen=True)
class Examples:
    """Explained decisions of a day, all ``decisions`` there were, and where the page is."""

    told: Sequence[Explanation]
    decisions: Sequence[Decision]
    page: Path


def decisions(lake: Lake, campaigns: Mapping[str, Campaign], day: date) -> list[Decision]:
    """Every decision of the day's audiences, in the order of the campaigns, planned before refused; carts come last."""
    parts = []
    for name in campaigns:
        table = audience(name)
        if lake.has(table, day) and lake.rows(table, day):
            view = lake.on(table, day).op().name
            parts.append(
                f"select '{name}' as campaign, decision, reason, count(*) as people, "
                f'min(struct_pack(c := customer_id, s := step, o := occasion)) as first from "{view}" group by all'
            )
    if not parts:
        return []
    # as text: to compile a union of so many takes longer than to run it
    told = lake.con.con.sql(" union all ".join(parts)).to_arrow_table().to_pylist()
    order = {name: (campaign.is_realtime, place) for place, (name, campaign) in enumerate(campaigns.items())}
    told.sort(key=lambda row: (order[row["campaign"]], row["decision"] != "planned", row["reason"]))
    return [
        Decision(row["campaign"], row["decision"], row["reason"], row["people"], *row["first"].values()) for row in told
    ]


def chosen(found: Sequence[Decision], most: int = MOST) -> list[Decision]:
    """Up to ``most`` of them: reasons that were not shown yet first, then campaigns that were not; in the order given.

    What is planned may be shown :data:`PLANNED` times before another reason comes a second time.
    """
    left, taken = list(found), list[Decision]()
    reasons, campaigns = Counter[str](), Counter[str]()

    def seen(one: Decision) -> int:
        return reasons[one.reason] // (PLANNED if one.reason == "due" else 1)

    while left and len(taken) < most:
        best = min(left, key=lambda one: (seen(one), campaigns[one.campaign], found.index(one)))
        left.remove(best)
        taken.append(best)
        reasons[best.reason] += 1
        campaigns[best.campaign] += 1
    return sorted(taken, key=found.index)


def explained(
    lake: Lake,
    settings: Settings,
    campaigns: Mapping[str, Campaign],
    day: date,
    connection: sa.Connection,
    clock: Clock | None = None,
) -> Examples:
    """Explain a few decisions of the day, and keep the page under ``home``; the pages written last stay there.

    Nobody of a campaign about birthdays is among them: the day would tell the birthday. Raises ``MissingPartition``.
    """
    telling = {name: campaign for name, campaign in campaigns.items() if not campaign.tells_birthdays}
    found = decisions(lake, campaigns, day)
    picked = chosen([one for one in found if one.campaign in telling])
    explainer = Explainer(lake, settings, campaigns, day, connection, limit=ROWS, gates=False, clock=clock)
    told = explainer.explain([Asked(one.customer_id, one.campaign, one.step, one.occasion) for one in picked])
    about = "A person for each kind of decision. What became of messages is as of now. Nothing private is shown."
    return Examples(told, found, _kept(settings, day, page.page(told, f"Decisions as of {day}", about)))


def _kept(settings: Settings, day: date, text: str) -> Path:
    folder = settings.home / "explanations"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"decisions-{day}.html"
    file.write_text(text, encoding="utf-8")
    for old in sorted(folder.glob("decisions-*.html"), key=_written)[:-PAGES]:
        old.unlink(missing_ok=True)
    return file


def _written(file: Path) -> int:
    """When a file was written; of old for one that another run has just removed."""
    with suppress(FileNotFoundError):
        return file.stat().st_mtime_ns
    return 0
