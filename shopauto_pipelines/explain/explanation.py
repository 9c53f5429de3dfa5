"""Puts an explanation together: for one person and message, for a person and all campaigns, or for several at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.campaigns.previews import supposed
from shopauto_pipelines.explain import facts, grounds, moved, occasions, outcome, rules
from shopauto_pipelines.explain.case import Case, Known
from shopauto_pipelines.explain.facts import Person
from shopauto_pipelines.explain.telling import Explanation, Mark, Overview, Standing, Step
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.outbox import ledger, windows
from shopauto_pipelines.outbox.gate import Verdict
from shopauto_pipelines.outbox.windows import Window
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake, MissingPartition
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.declaration import load_predictions
from shopauto_pipelines.predictions.own import Own, OwnModelError
from shopauto_pipelines.predictions.store import ModelRefused, ModelStore
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration, load_segments
from shopauto_pipelines.segments.why import Why, why
from shopauto_pipelines.sources.landing import not_computed

#: Most rows of a raw table.
ROWS = 10


class NothingThere(ShopAutoError):
    """What was asked about is not there; the text names the nearest, or what to do."""


class Asked(NamedTuple):
    """Who is asked about: a person, a campaign, and of it a step and an occasion, or all there are for them."""

    customer_id: str
    campaign: str
    step: str | None = None
    occasion: str | None = None


class Explainer:
    """Explains the decisions of a day. What is the same for all who are asked about is read once.

    ``connection`` is one to the ledger; without it, nothing is said of what became of messages. ``limit``: most rows of a raw
    table. ``gates``: whether the send gate is asked again, and the outbox about what was refused. ``own``: classes of the shop's
    own models [those of the playbook]. ``clock``: with it, it is also said whether what was not sent may still leave.
    """

    def __init__(
        self,
        lake: Lake,
        settings: Settings,
        campaigns: Mapping[str, Campaign],
        day: date,
        connection: sa.Connection | None = None,
        *,
        limit: int = ROWS,
        gates: bool = True,
        own: Own | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._lake, self._campaigns, self._day, self._connection = lake, campaigns, day, connection
        self._settings = live_settings.current(connection, settings) if connection is not None else settings
        self._limit, self._gates, self._clock = limit, gates, clock
        self._own = load_predictions().own if own is None else own
        self._segments = tuple(load_segments())
        self._verdicts: dict[str, Verdict | None] = {}

    def explain(self, asked: Sequence[Asked]) -> list[Explanation]:
        """Each of ``asked`` in order, a step and occasion each; those of a person whom the day does not know are left out.

        Raises ``MissingPartition`` where what is known of people has not been computed for the day.
        """
        people = self._people({one.customer_id for one in asked}, {one.campaign for one in asked})
        cases = [
            case for one in asked if one.customer_id in people for case in self._cases(one, people[one.customer_id])
        ]
        known = self._known(cases)
        return [self._explained(replace(case, known=known)) for case in cases]

    def overview(self, customer_id: str) -> Overview:
        """What every campaign says to the person: a line for each step that is due, and for each campaign that has none."""
        person = self._people({customer_id}, self._campaigns)[customer_id]
        reached, others = [], []
        for name, campaign in self._campaigns.items():
            rows = person.decided.get(name, ())
            for row in sorted(rows, key=lambda row: (row["step"], row["occasion"])):
                reached.append(self._standing(campaign, person, row))
            if not rows:
                others.append(self._could(campaign, customer_id))
        return Overview(customer_id, self._day, tuple(reached), tuple(others))

    def _standing(self, campaign: Campaign, person: Person, row: Mapping[str, Any]) -> Standing:
        """What was decided on a step, and of what was planned what became of it."""
        case = Case(self._known(()), campaign, person, row["step"], row, reached=True)
        mark: Mark = "yes" if row["decision"] == "planned" else "no"
        text = REASONS[row["reason"]].removeprefix("exit: ")
        if row["decision"] == "planned" and self._connection is not None:
            sent = outcome.sent(case, self._kept(case))
            mark, text = sent.mark, sent.text
        return Standing(campaign.name, row["step"], mark, row["reason"], text)

    def _could(self, campaign: Campaign, customer_id: str) -> Standing:
        """What the campaign would say, had its trigger reached the person for its first step."""
        not_due = f"{campaign.trigger} has not made a step due"
        if not campaign.enabled:
            return Standing(campaign.name, None, "no", None, "it is not enabled")
        row = supposed(self._lake, self._settings, campaign, campaign.steps[0], customer_id, self._day)
        if not row:
            return Standing(campaign.name, None, "fact", None, not_due)
        mark: Mark = "fact" if row["decision"] == "planned" else "no"
        return Standing(campaign.name, None, mark, row["reason"], f"{not_due}. {_if_it_had(row)}")

    def _people(self, ids: Iterable[str], asked: Iterable[str]) -> dict[str, Person]:
        days = max((self._campaigns[name].history_days for name in asked), default=0)
        since = facts.since(self._day, days, self._settings.cap_days)
        return facts.people(self._lake, self._day, ids, list(self._campaigns), since)

    def _cases(self, asked: Asked, person: Person) -> list[Case]:
        """A case for each step and occasion that is due for the person; where none is, for each step as it would be."""
        campaign, known = self._campaigns[asked.campaign], self._known(())
        rows = [
            row
            for row in person.decided.get(campaign.name, ())
            if asked.step in (None, row["step"]) and asked.occasion in (None, row["occasion"])
        ]
        places = {step.name: place for place, step in enumerate(campaign.steps)}
        rows.sort(key=lambda row: (places.get(row["step"], len(places)), row["triggered_on"], row["occasion"]))
        cases = [Case(known, campaign, person, row["step"], row, reached=True) for row in rows if row["step"] in places]
        if cases:
            return cases
        if (kept := self._of_ledger(asked)) is not None:
            return [Case(known, campaign, person, kept["step"], kept, reached=True, of_ledger=True)]
        wanted = [step for step in campaign.steps if asked.step in (None, step.name)]
        found = []
        for step in wanted:
            would = supposed(self._lake, self._settings, campaign, step, person.customer_id, self._day)
            found.append(Case(known, campaign, person, step.name, would, reached=False))
        return found

    def _of_ledger(self, asked: Asked) -> dict[str, Any] | None:
        """A message that the ledger has and the day's audience has not: of a cart, or of an audience computed again since.

        One of a later day that has been computed is none: as of this day nothing had been decided on it.
        """
        if self._connection is None or asked.step is None or asked.occasion is None:
            return None
        key = ledger.MessageKey(asked.campaign, asked.step, asked.customer_id, asked.occasion)
        kept = outcome.of_key(self._connection, key)
        if kept is None or self._day < kept.message.as_of <= self._lake.days(CUSTOMER_360)[-1]:
            return None
        return outcome.as_row(kept)

    def _known(self, cases: Sequence[Case]) -> Known:
        known = Known(self._lake, self._settings, self._campaigns, self._day, self._limit)
        if not cases:
            return known
        people = sorted({case.person.customer_id for case in cases})
        scores = moved.stored(self._lake, self._day, people)
        store = ModelStore(self._settings.models_path, self._own)
        told, unmoved = {}, ""
        try:
            told = moved.moved(self._lake, store, self._day, people)
        except (moved.NotScored, ModelRefused, OwnModelError, MissingPartition) as error:
            unmoved = str(error)
        try:
            cards = moved.cards(self._lake, store, self._day)
        except MissingPartition:
            cards = {}
        return replace(known, whys=self._whys(cases, people), scores=scores, moved=told, cards=cards, unmoved=unmoved)

    def _whys(self, cases: Sequence[Case], people: Sequence[str]) -> dict[str, dict[str, Why]]:
        """The conditions of all segments and steps that the cases ask about, evaluated in one go."""
        names = {segment.partition(SEPARATOR)[0] for case in cases for segment in case.campaign.segments}
        conditions = [
            SegmentDeclaration(
                name=rules.condition_name(case.campaign.name, case.name),
                description="a condition",
                where=case.step.when,
            )
            for case in {(case.campaign.name, case.name): case for case in cases}.values()
            if case.step.when
        ]
        names |= {condition.name for condition in conditions}
        if not names:
            return {}
        found: dict[str, dict[str, Why]] = {}
        for answer in why(self._lake, self._day, (*self._segments, *conditions), people, names):
            found.setdefault(answer.customer_id, {})[answer.segment] = answer
        return found

    def _explained(self, case: Case) -> Explanation:
        kept = self._kept(case)
        steps: list[Step | None] = [outcome.sent(case, kept)] if self._connection is not None else []
        steps.append(occasions.trigger(case))
        steps += [rule(case) for rule in rules.RULES]
        steps.append(grounds.offer(case))
        if self._connection is not None and (self._gates or case.row.get("decision") == "planned"):
            steps.append(self._outbox(case, kept))
        asked = grounds.scores_asked(case.campaign, case.name, self._segments)
        steps += [grounds.scores(case, asked), grounds.files(case), grounds.versions(case, self._segments)]
        row = case.row if case.reached else {}
        return Explanation(
            case.person.customer_id,
            case.campaign.name,
            case.name,
            row.get("occasion"),
            self._day,
            row.get("decision"),
            case.reason,
            kept.message.state if kept and not outcome.of_later(case, kept) else None,
            kept.message.id if kept else None,
            _headline(case, kept),
            tuple(step for step in steps if step is not None),
        )

    def _kept(self, case: Case) -> outcome.Kept | None:
        if self._connection is None or not case.reached:
            return None
        key = ledger.MessageKey(case.campaign.name, case.name, case.person.customer_id, case.row["occasion"])
        return outcome.of_key(self._connection, key)

    def _outbox(self, case: Case, kept: outcome.Kept | None) -> Step:
        assert self._connection is not None
        name, verdict = case.campaign.name, None
        if self._gates and case.row.get("decision") == "planned" and case.reached:
            if name not in self._verdicts:
                self._verdicts[name] = outcome.examine(self._connection, case)
            verdict = self._verdicts[name]
        now = outcome.standing(self._connection, self._settings, case, kept)
        return outcome.outbox(case, kept, now, verdict, self._window(case, kept))

    def _window(self, case: Case, kept: outcome.Kept | None) -> Window | None:
        """Whether a message that is planned and was not sent may still leave."""
        waits = case.row.get("decision") == "planned" and (kept is None or kept.message.state == "planned")
        if self._clock is None or self._connection is None or not (case.reached and waits) or case.campaign.is_realtime:
            return None
        asked = (self._lake, self._settings, self._clock)
        before = windows.past(self._connection, *asked, case.campaign.name, self._day)
        return windows.window(self._day, windows.newest_day(self._lake), *asked[1:], before)


def _headline(case: Case, kept: outcome.Kept | None) -> str:
    """The answer in a sentence."""
    meaning = REASONS.get(str(case.reason), "").removeprefix("exit: ")
    if not case.reached:
        why = f"The trigger {case.campaign.trigger} has not made this step due as of {case.day}"
        return f"{why}. {_if_it_had(case.row)}" if case.row else why
    if kept is None:
        if case.reason != "due":
            return f"Not sent: {meaning}"
        if case.campaign.is_realtime:
            return "It was due, and the ledger has no message: the job of abandoned carts has not sent it"
        return "Planned, and not in the ledger: nothing was sent for that day"
    return outcome.headline(case, kept)


def _if_it_had(row: Mapping[str, Any]) -> str:
    """What would have been decided, had the trigger reached the person."""
    if row["decision"] == "planned":
        return "If it had, nothing else would speak against it"
    return f"If it had, they would not get it: {REASONS[row['reason']].removeprefix('exit: ')}"


def day_of(lake: Lake, day: date | None) -> date:
    """The day asked about, or the newest that is computed; raises :class:`NothingThere`."""
    days = lake.days(CUSTOMER_360)
    if not days:
        raise NothingThere(f"no day has been computed: run `{lake.refresh_command}`")
    if day is None:
        return days[-1]
    if day not in days:
        raise NothingThere(not_computed(lake, day, days))
    return day
