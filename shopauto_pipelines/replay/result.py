"""The result of a replay: figures of groups, in one version of the campaign or two. Customer ids, no private data.

**Nobody got these messages** because of the replay. So what people did after one is what happened anyway: it says whom the
campaign would have reached and what they are worth, not what it would have brought about. That the holdouts say, once it runs
(``insights``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, NamedTuple

from shopauto_pipelines.replay.simulation import Others

#: Reasons of those who are held out.
HELD = ("holdout", "campaign_holdout")

#: Reasons of the caps.
CAPS = ("cap", "day_cap")

#: Messages, or people, of a group below which nothing is said of what they did.
FEW = 30


@dataclass(frozen=True)
class OfDay:
    """Messages of a step planned as of a day; they leave after it."""

    day: date
    step: str
    messages: int


@dataclass(frozen=True)
class OfStep:
    """Messages of a step and the people who get them."""

    step: str
    messages: int
    people: int


@dataclass(frozen=True)
class Refusal:
    """Messages that were due and not planned, by the last reason; and those only ``put_off`` by it, planned on a later day."""

    reason: str
    messages: int
    people: int
    put_off: int


@dataclass(frozen=True)
class Capped:
    """Messages that ``met`` a cap on any day, and how many of them were planned on a ``later`` one."""

    met: int
    later: int


@dataclass(frozen=True)
class Overlap:
    """Messages of the replay to people who get one of another ``campaign``, on the same day or within the cap's days of it.

    ``None``: of any other.
    """

    campaign: str | None
    same_day: int
    within_cap_days: int


@dataclass(frozen=True)
class OfferCost:
    """Offers of a kind that were granted, and what they cost, minor units.

    ``at_most_cents``: if everybody used theirs, on an order as the person's typical one. ``ordered_anyway`` people ordered while
    it held, without it; had they used it on the first of those days, it would have cost ``anyway_cents``. Of ``open``
    nobody knows: there was no order, and they hold longer than the data goes.
    """

    kind: str
    percent: int | None
    offers: int
    at_most_cents: int
    ordered_anyway: int
    anyway_cents: int
    open: int


@dataclass(frozen=True)
class Reach:
    """People with a message who were in the segment on its day, and all who were in it on any day of the replay."""

    segment: str
    people: int
    members: int

    @property
    def share(self) -> float:
        """How much of the segment is reached, 0 to 1."""
        return round(self.people / self.members, 6) if self.members else 0.0


@dataclass(frozen=True)
class Aftermath:
    """What a group did within the days after: of each message of a step, or (``step`` is ``None``) of each person's first one.

    ``group``: ``planned`` or ``held``, those who had the same coming and are in a holdout. ``ordered`` of ``count`` did, with
    ``orders`` for ``revenue_cents``. ``recent`` are left out: their days are not over in the data.
    """

    group: str
    step: str | None
    count: int
    ordered: int
    orders: int
    revenue_cents: int
    recent: int


@dataclass(frozen=True)
class Outcome:
    """One version of the campaign, replayed. ``really_sent`` of its messages went out in truth, step and occasion the same.

    ``message_cents`` is ``None`` where no price of a message is set.
    """

    version: str
    by_day: tuple[OfDay, ...]
    steps: tuple[OfStep, ...]
    messages: int
    people: int
    really_sent: int
    refusals: tuple[Refusal, ...]
    capped: Capped
    overlaps: tuple[Overlap, ...]
    offers: tuple[OfferCost, ...]
    message_cents: int | None
    reach: tuple[Reach, ...]
    aftermath: tuple[Aftermath, ...]

    @property
    def held_out(self) -> int:
        """People who had a step coming, and are held out of it: whether or not they had left the audience by its last day."""
        return sum(one.count + one.recent for one in self.aftermath if one.group == "held" and one.step is None)

    def refused(self, reason: str) -> Refusal:
        """The refusals for this reason."""
        return next((one for one in self.refusals if one.reason == reason), Refusal(reason, 0, 0, 0))


@dataclass(frozen=True)
class OnlyOne:
    """A message that one ``version`` plans and the other does not, and why not; ``None``: it was not even due there."""

    version: str
    customer_id: str
    step: str
    occasion: str
    day: date
    instead: str | None


@dataclass(frozen=True)
class Difference:
    """Two versions side by side: people with messages in both, in one only; the first of the messages of each only.

    ``named`` is ``None`` where the day of a message tells a birthday.
    """

    people_in_both: int
    people_only: Mapping[str, int]
    messages_in_both: int
    messages_only: Mapping[str, int]
    named: tuple[OnlyOne, ...] | None

    def only(self, version: str, most: int) -> tuple[Sequence[OnlyOne], int]:
        """The first messages that only ``version`` plans, and how many more there are."""
        named = [one for one in self.named or () if one.version == version][:most]
        return named, self.messages_only[version] - len(named)


class Untold(NamedTuple):
    """Days that were not computed: whom they triggered is not known. Steps are missing ``until`` then; ``how`` to mend it."""

    days: tuple[date, ...]
    until: date
    how: str


@dataclass(frozen=True)
class Replay:
    """What a campaign would have done over the ``days``, in one version or two.

    ``known_until``: the last day of which is known what people did. ``offers_unknown``: which offers it brings is decided by
    the minute, and not counted. ``enabled``: whether the campaign is; the replay takes every one as if it were.
    ``last_unknown``: whether messages of the last day leave later than the data goes.
    """

    campaign: str
    description: str
    steps: tuple[str, ...]
    days: tuple[date, ...]
    skipped: tuple[date, ...]
    untold: Untold | None
    others: Others
    within_days: int
    cap_days: int
    currency: str
    known_until: date
    offers_unknown: bool
    enabled: bool
    last_unknown: bool
    outcomes: tuple[Outcome, ...]
    difference: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, for scripts: days as text, money in minor units."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value
