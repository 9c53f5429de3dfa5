"""How planned messages leave: reserve a batch, write it, hand it to the channel, settle it, until nothing is planned.

While calls are under way the next batch is reserved and written, so that neither the database nor the channel waits for
the other. Two batches more than the channel takes at once are in memory, whatever the size of the audience.
"""

from __future__ import annotations

import gc
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from threading import Lock
from time import monotonic
from typing import Any

import sqlalchemy as sa

from shopauto_pipelines.campaigns.content import ContentError, Renderer
from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns, planned_before
from shopauto_pipelines.campaigns.drafts import Drafts
from shopauto_pipelines.campaigns.shown import Reader, showing
from shopauto_pipelines.outbox import breakers, controls, dispatchers, ledger, links
from shopauto_pipelines.outbox.channels import Channel, Envelope, Outcome
from shopauto_pipelines.outbox.hours import Hours
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import CUSTOMERS

#: Most messages planned, reserved or sent at once.
BATCH = 1000

#: Which column of ``profiles/customers`` a channel writes to.
ADDRESS = {"email": "email", "sms": "phone"}

#: After so many batches in a row of which nothing was accepted the others stay planned. A batch of fewer messages than
#: ``_A_BATCH`` that all failed, or were put off, for one reason may be bad luck.
_BATCHES_LOST, _A_BATCH = 3, 10

#: Batches between two searches for garbage.
_COLLECTED_EVERY = 10

#: Seconds between two looks at complaints and bounces while a campaign is sent.
_JUDGED_EVERY = 60.0


@dataclass(frozen=True)
class Sent:
    """What one dispatch sent: how many messages in how many seconds, and why not all.

    ``stopped`` is for somebody to act on, and so are ``trouble``, batches that were not accepted though others were, and
    ``put_off``, all SMS or all e-mail of a batch, or many of them, that stay planned though others left. ``waiting`` is a staged
    roll-out, whose rest may leave from ``rest_from``.
    """

    messages: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    trouble: tuple[str, ...] = ()
    put_off: tuple[str, ...] = ()
    waiting: str | None = None
    rest_from: datetime | None = None


def send_planned(
    engine: sa.Engine,
    lake: Lake,
    settings: Settings,
    campaign: Campaign,
    as_of: date,
    channel: Channel,
    clock: Clock,
    *,
    profile_day: date | None = None,
    staged: bool = True,
) -> Sent:
    """Send what the ledger has planned for a campaign and day, as far as switches, breakers and the roll-out let it.

    Names and addresses are those of ``profile_day``, where that is not ``as_of``; not ``staged``: without a roll-out.
    """
    with engine.begin() as connection:
        current = live_settings.current(connection, settings)
        breakers.trip(connection, current, campaign.name, as_of, at=clock.now())
        stage = breakers.Stage()
        if staged:
            stage = breakers.stage(connection, current, campaign.name, as_of, at=clock.now())
        counts = ledger.counts(connection, campaign.name, as_of)
        stopped = controls.stopped(connection, campaign.name)
    planned = sum(n for (state, _), n in counts.items() if state == "planned")
    if not planned or stopped:
        return Sent(stopped=stopped if planned else None)
    if stage.limit is not None:
        planned = min(planned, stage.limit)
    with dispatchers.dispatcher(engine) as me:
        loop = _Loop(engine, lake, settings, campaign, as_of, profile_day or as_of, channel, clock, me)
        return loop.run(planned, stage)


def _sharing(campaign: Campaign) -> tuple[str, ...]:
    """The campaigns whose messages of a day take a person's places, as the planner counts: marketing, and what goes first.

    None for a campaign that has no day to share: a transactional one, or one by the hour.
    """
    if campaign.kind != "marketing" or campaign.is_realtime:
        return ()
    campaigns = load_campaigns()
    marketing = {one.name for one in campaigns.values() if one.kind == "marketing" and not one.is_realtime}
    first = planned_before(campaign.name, campaigns) if campaign.name in campaigns else ()
    return tuple({campaign.name, *marketing, *first})


def settled(message_id: int, outcome: Outcome) -> ledger.Settled:
    """An outcome as the ledger takes it: what was put off is planned again."""
    state = "planned" if outcome.state == "deferred" else outcome.state
    return ledger.Settled(message_id, state, outcome.reason, outcome.provider_id)


class _Loop:
    """One dispatcher at work on a campaign and day."""

    def __init__(
        self,
        engine: sa.Engine,
        lake: Lake,
        settings: Settings,
        campaign: Campaign,
        as_of: date,
        profile_day: date,
        channel: Channel,
        clock: Clock,
        me: str,
    ) -> None:
        self._engine, self._settings, self._channel, self._clock, self._me = engine, settings, channel, clock, me
        self._campaign, self._as_of = campaign, as_of
        self._sharing = _sharing(campaign)
        self._writer = _Writer(lake, settings, campaign, as_of, profile_day)
        self._stopped: str | None = None
        self._trouble: Counter[str] = Counter()
        self._put_off: Counter[str] = Counter()
        self._lost_in_a_row = 0
        self._lock = Lock()
        self._judged = monotonic()

    def run(self, planned: int, stage: breakers.Stage) -> Sent:
        """Send up to the stage's limit; ``planned`` is what there is to do, for the progress."""
        began, sent, done, after, batches = monotonic(), 0, 0, 0, 0
        under_way: deque[Future[tuple[int, int]]] = deque()
        left = stage.limit

        def finish(keep: int) -> None:
            nonlocal sent, done, batches
            while len(under_way) > keep:
                looked_at, gone = under_way.popleft().result()
                done, sent, batches = done + looked_at, sent + gone, batches + 1
                if batches % _COLLECTED_EVERY == 0:
                    gc.collect()
                report(f"outbox/{self._campaign.name}", done, max(done, planned))

        with _collected_by_hand(), ThreadPoolExecutor(self._channel.calls_at_once, "outbox") as pool:
            while self._stopped is None and left != 0:
                left, taken = self._reserve(left, after)
                if not taken.looked_at:
                    self._stopped = self._stopped or taken.stopped
                    break
                after = max([after, *(message.id for message in taken.messages)])
                envelopes, unwritten = self._writer.write(taken.messages)
                under_way.append(pool.submit(self._leave, envelopes, unwritten, taken.looked_at))
                finish(keep=self._channel.calls_at_once)
                self._judge()
            finish(keep=0)
        waiting = stage.why if self._stopped is None and left == 0 else None
        return Sent(
            messages=sent,
            seconds=monotonic() - began,
            stopped=self._stopped,
            trouble=tuple(f"{n:,} messages: {why}" for why, n in self._trouble.most_common()),
            put_off=tuple(f"{n:,} {why}" for why, n in self._put_off.most_common()),
            waiting=waiting,
            rest_from=stage.rest_from if waiting else None,
        )

    def _reserve(self, left: int | None, after: int) -> tuple[int | None, ledger.Reserved]:
        """The next batch, after what this loop has had: what a channel put off waits for another dispatch.

        With it what is left of the first stage, where there is one: other dispatchers may fill it at the same time.
        """
        most = min(BATCH, self._channel.batch_size)
        with self._engine.begin() as connection:
            rules = live_settings.current(connection, self._settings)
            if left is not None:
                controls.lock(connection)  # no other reserves between this look and this reservation
                stage = breakers.stage(connection, rules, self._campaign.name, self._as_of, at=self._clock.now())
                left = left if stage.limit is None else min(left, stage.limit)
            taken = ledger.reserve(
                connection,
                campaign=self._campaign.name,
                as_of=self._as_of,
                limit=most if left is None else min(most, left),
                by=self._me,
                via=self._channel.name,
                cap=self._cap(rules),
                at=self._clock.now(),
                after=after,
                hours=Hours.of(rules, keeps_day=self._campaign.tells_birthdays),
                once=self._campaign.once,
            )
        return None if left is None else left - len(taken.messages), taken

    def _cap(self, rules: Settings) -> ledger.Cap:
        return ledger.Cap(
            rules.cap_messages if self._campaign.kind == "marketing" else None,
            rules.cap_days,
            rules.less_often_days,
            rules.cap_day_messages if self._sharing else None,
            self._sharing,
        )

    def _leave(
        self, envelopes: Sequence[Envelope], unwritten: Mapping[int, Outcome], looked_at: int
    ) -> tuple[int, int]:
        """Hand over one batch and settle it, in a thread of its own; returns how many were looked at, and sent.

        The switches are asked again: a batch that waited for its turn is put back where they were turned meanwhile.
        """
        with self._engine.begin() as connection:
            self._stopped = self._stopped or controls.stopped(connection, self._campaign.name)
            numbers = [envelope.message_id for envelope in envelopes]
            if numbers and not self._stopped and not dispatchers.hand_over(connection, numbers, by=self._me):
                self._stopped = "the database lost sight of this dispatcher, and others took over its messages"
        if self._stopped:
            answers: Sequence[Outcome] = [Outcome("deferred", "stopped before it left")] * len(envelopes)
        else:
            answers = self._channel.send(envelopes)
        told = [settled(envelope.message_id, answer) for envelope, answer in zip(envelopes, answers, strict=True)]
        told += [settled(message_id, outcome) for message_id, outcome in unwritten.items()]
        with self._engine.begin() as connection:
            ledger.settle(connection, told, by=self._me, at=self._clock.now())
        self._note(envelopes, answers)
        return looked_at, sum(outcome.state == "sent" for outcome in answers)

    def _note(self, envelopes: Sequence[Envelope], answers: Sequence[Outcome]) -> None:
        """Stop where going on would not help: all that could be sent is put off, or batch after batch is lost.

        Where all SMS of a batch are put off, or all e-mail, but not both, the other kind goes on; so do all where some are.
        """
        reasons = Counter((outcome.state, outcome.reason) for outcome in answers)
        (state, reason), most = reasons.most_common(1)[0] if reasons else (("sent", None), 0)
        whole, went = most == len(answers), any(each in ("sent", "unknown") for each, _ in reasons)
        refused = state == "failed" and most >= _A_BATCH and not self._settings.sendgrid_sandbox
        with self._lock:
            for (each, why), n in reasons.items():
                if each == "unknown" or (whole and refused):
                    self._trouble[f"{each}, {why}"] += n
            if whole and (refused or state == "unknown"):
                self._lost_in_a_row += 1
            elif any(each == "sent" for each, _ in reasons):
                self._lost_in_a_row = 0
            if state == "deferred" and not went:
                self._stopped = self._stopped or reason
            else:
                self._put_off.update(_put_off(envelopes, answers))
            if self._lost_in_a_row >= _BATCHES_LOST:
                self._stopped = self._stopped or f"{self._lost_in_a_row} batches in a row are {state}: {reason}"

    def _judge(self) -> None:
        if monotonic() - self._judged > _JUDGED_EVERY:
            with self._engine.begin() as connection:
                current = live_settings.current(connection, self._settings)
                breakers.trip(connection, current, self._campaign.name, self._as_of, at=self._clock.now())
            self._judged = monotonic()


def _put_off(envelopes: Sequence[Envelope], answers: Sequence[Outcome]) -> Counter[str]:
    """What was put off for a reason that is not one person's: nothing of its kind can have left, or many were for the same."""
    of_kind: dict[str, list[Outcome]] = {}
    for envelope, answer in zip(envelopes, answers, strict=True):
        of_kind.setdefault(envelope.channel, []).append(answer)
    found: Counter[str] = Counter()
    for kind, told in of_kind.items():
        least = _A_BATCH if any(answer.state in ("sent", "unknown") for answer in told) else 1
        reasons = Counter(answer.reason for answer in told if answer.state == "deferred")
        found.update({f"{kind}: {reason}": n for reason, n in reasons.items() if n >= least})
    return found


@contextmanager
def _collected_by_hand() -> Iterator[None]:
    """Garbage in cycles is looked for every few batches, and only in what came to memory within the block.

    Left alone, Python went through all of memory whenever some batches had been allocated: a fifth of the time of a send.
    Some has to be looked for: an answer of ``httpx`` is a cycle that holds its request, and with it a megabyte.
    """
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class _Writer:
    """Turns reserved messages into written, addressed ones. Names and addresses are read as the ledger's order needs them."""

    def __init__(self, lake: Lake, settings: Settings, campaign: Campaign, as_of: date, profile_day: date) -> None:
        self._campaign, self._key, self._base = campaign, settings.hash_key, settings.base_url.rstrip("/")
        renderer = Renderer(campaign, settings)
        self._drafts = Drafts(renderer.render)
        self._people = Lookup(lake, CUSTOMERS, profile_day)
        self._showing = showing(campaign, lake, profile_day, renderer)
        self._live, self._day_end = settings.live, datetime.combine(as_of + timedelta(days=1), time(), UTC)

    def write(self, taken: Sequence[ledger.Message]) -> tuple[list[Envelope], dict[int, Outcome]]:
        """The envelopes, and the outcome of each message that cannot be put into one, by its number."""
        envelopes: list[Envelope] = []
        outcomes = {message.id: _GONE for message in taken if self._is_gone(message)}
        taken = [message for message in taken if message.id not in outcomes]
        people = self._people.rows(message.key.customer_id for message in taken)
        shown = self._showing.of([Reader(m.key.customer_id, m.language, m.explained, m.key.step) for m in taken])
        for message, extras in zip(taken, shown, strict=True):
            customer = message.key.customer_id
            person = people.get(customer, _NOBODY)
            address = person.get(ADDRESS[message.channel])
            if not address or links.address_hash(self._key, message.channel, address) != message.address_hash:
                outcomes[message.id] = Outcome("failed", "the address has changed since it was planned")
                continue
            token = links.unsubscribe_token(self._key, message.id, message.key)
            urls = {"unsubscribe": f"{self._base}/u/{token}", "preferences": f"{self._base}/p/{token}"}
            try:
                draft, values = self._drafts.draft(message.key.step, message.language, person, urls, *extras)
            except ContentError as error:
                outcomes[message.id] = Outcome("failed", f"not rendered: {error}"[:200])
                continue
            envelopes.append(
                Envelope(
                    message_id=message.id,
                    key=message.key,
                    channel=message.channel,
                    to=address,
                    to_name=" ".join(filter(None, (person["first_name"], person["last_name"]))),
                    draft=draft,
                    values=values,
                    language=message.language,
                    unsubscribe_url=urls["unsubscribe"],
                    explained=message.explained,
                    date=message.changed_at if self._live else self._day_end,
                )
            )
        return envelopes, outcomes

    def _is_gone(self, message: ledger.Message) -> bool:
        """Whether the step, or its variant, has been taken out of the declaration since it was planned."""
        variant = json.loads(message.explained).get("variant") if self._campaign.experiment else None
        return self._campaign.found(message.key.step, variant) is None


_GONE = Outcome("failed", "its step, or its variant of the experiment, is not declared any more")
_NOBODY: Mapping[str, Any] = {}
