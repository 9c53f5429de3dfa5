"""Whatever breaks, and wherever: nothing leaves twice, nobody is forgotten, nobody is written to who must not be.

Rounds at random. In each, one to three dispatchers share a small audience while the provider misbehaves; dispatchers are
killed at a step of theirs, or in the middle of a call, and now and then PostgreSQL is. Then a healthy dispatcher runs, the
provider's events come in, and what the ledger says is held against the provider's own list of what it accepted.

``SHOPAUTO_FAULT_ROUNDS`` sets how many rounds there are; ``SHOPAUTO_FAULT_SEED`` repeats all rounds of a seed, or the one
that a failure named.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.products import Showcase
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.outbox import consents, ledger, links, schema
from shopauto_pipelines.outbox.channels.sendgrid import SendGrid
from shopauto_pipelines.outbox.dispatch import Dispatched, dispatch
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines.realtime.collector import recording, sendgrid_events
from shopauto_pipelines.sources.landing import OWN_SOURCE, landing_root, read_manifest
from shopauto_pipelines_tests.outbox import dispatchers
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, changes, reserve, rows
from shopauto_pipelines_tests.outbox.dispatchers import STEPS, Dispatchers, once_per_lake
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, BEHAVIOURS, CORRELATION, StandIn
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import start as start_stand_in
from shopauto_pipelines_tests.outbox.shop import fill, write_shop

_ROUNDS = int(os.environ.get("SHOPAUTO_FAULT_ROUNDS", "200"))
_SEED, _, _ONLY = os.environ.get("SHOPAUTO_FAULT_SEED", str(random.SystemRandom().randrange(10**9))).partition("/")
_PARTS = 4

_AUDIENCES = (1, 8, 13, 24, 40)
_NOT_ASKED = 3  # people of every audience who are held out or have not agreed
_CAP = ledger.Cap(3, 7)

#: The campaigns that may write to the audience, with the step of each.
_CAMPAIGNS = {"welcome": "hello", "win_back": "we_miss_you"}

#: Steps where dispatchers may get in each other's way.
_MEETINGS = ("reserve begins", "reserve written", "plan begins", "plan written", "settle begins", "recover begins")

#: Why a message may have been held back in the end.
_WHY_NOT = ("suppressed_bounce", "suppressed_unsubscribe", "opted_out", "cap")

#: What may follow what in a message's history.
_FOLLOWS = {
    (None, "planned"),
    ("planned", "reserved"),
    ("planned", "suppressed"),
    ("reserved", "sent"),
    ("reserved", "failed"),
    ("reserved", "unknown"),
    ("reserved", "planned"),
    ("unknown", "sent"),
    ("unknown", "failed"),
    ("failed", "planned"),
}


@dataclass
class World:
    """What the rounds share: a database of their own, the provider, lakes of several sizes, and who dispatches."""

    settings: Settings
    engine: sa.Engine
    stand_in: StandIn
    channel: SendGrid
    lakes: dict[int, Lake]
    dispatchers: Dispatchers

    def clear(self) -> None:
        """An empty ledger, a provider that has accepted nothing, nothing landed."""
        names = ", ".join(str(table) for table in schema.metadata.sorted_tables)
        with self.engine.begin() as connection:
            connection.execute(sa.text(f"truncate {names}"))
        for lake in self.lakes.values():
            shutil.rmtree(landing_root(lake) / OWN_SOURCE, ignore_errors=True)
        self.stand_in.quiet()
        self.stand_in.reset()

    def dispatch(self, campaign: str, lake: Lake) -> Dispatched:
        """Run a healthy dispatcher, here: a process that lives on, whatever befalls the database."""
        clock, declared = FixedClock(AT), load_campaigns()[campaign]
        return dispatch(self.engine, lake, self.settings, declared, DAY, clock=clock, channel=self.channel)


@dataclass
class Round:
    """What one round does, all drawn before it begins."""

    campaigns: list[str]
    people: int
    waves: list[list[dict[str, Any]]]
    calls: list[str | None]
    suppressed: list[str]
    opted_out: list[str]
    capped: list[str]  # these have had all the mail they may have
    nearly: list[str]  # to these one more message may go, whoever sends it
    leaving: list[str]  # these unsubscribe while dispatchers work
    leave_after: float

    @property
    def killed_database(self) -> bool:
        """Whether the database was to be killed: dispatchers may then end with an error."""
        return any(order.get("kill") in ("postmaster", "backend") for wave in self.waves for order in wave)


def _lakes(folder: Path) -> dict[int, Lake]:
    """A lake for each size of the audience."""
    return {people: Lake(folder / str(people), threads=1) for people in _AUDIENCES}


def _make_lakes(folder: Path) -> None:
    for people, lake in _lakes(folder).items():
        write_shop(lake, people=people, refused=_NOT_ASKED)
        asked = lake.con.to_pyarrow(lake.on(audience("welcome"), DAY)).to_pylist()
        step = _CAMPAIGNS["win_back"]
        fill(lake, audience("win_back"), DAY, [row | {"step": step, "template": step} for row in asked])


@pytest.fixture(scope="module")
def world(homes, once) -> Iterator[World]:
    home = Path(tempfile.mkdtemp(dir=homes))
    published = PROJECT_ROOT.parent / "shared" / "contracts"
    contracts = published if published.is_dir() else None  # without them the documented limits still hold
    with pytest.MonkeyPatch.context() as monkeypatch, start_stand_in(contracts) as stand_in:
        values = {
            "home": str(home),
            "live": True,
            "sendgrid_url": stand_in.url,
            "sendgrid_api_key": API_KEY,
            "from_email": "hello@shop.example.org",
            "postal_address": "1 Example Road",
            "base_url": "https://shop.example.org",
            "shop_url": "https://shop.example.org",
            "secret_key": "secret",
            "cap_messages": _CAP.messages,
            "cap_day_messages": 100,  # no planner has shared the day out
            "cap_days": _CAP.days,
        }
        shutil.copytree(once("lakes-of-the-faults", _make_lakes), home / "lakes")
        lakes = _lakes(home / "lakes")
        settings = Settings(_env_file=None, **values)
        monkeypatch.setattr(Showcase, "read", once_per_lake(Showcase.read))
        with dispatchers.start(home, values, [lake.root for lake in lakes.values()], list(_CAMPAIGNS)) as forked:
            yield World(settings, postgres.engine(settings), stand_in, SendGrid(settings), lakes, forked)
    postgres._embedded(home / "postgres").cleanup()


def _draw(chance: random.Random, part: int, number: int) -> Round:
    """What a round will do. The first rounds make sure of every step and every misbehaviour, the others are free."""
    people = chance.choice(_AUDIENCES)
    campaigns = list(_CAMPAIGNS)[: chance.choice((1, 1, 2))]
    share = chance.choice((0, 0.2, 0.6))
    calls = [chance.choice(list(BEHAVIOURS)) if chance.random() < share else None for _ in range(30)]

    def order(**more: Any) -> dict[str, Any]:
        batch = chance.choice((1, 3, 5, 1000) if people < 10 else (5, 10, 1000))
        campaign, delay = chance.choice(campaigns), chance.choice((0, 0, 0.1, 0.3))
        return {"campaign": campaign, "batch": batch, "delay": delay, "patience": 0.35} | more

    def killed(step: str, whom: str) -> list[list[dict[str, Any]]]:
        dies = [order(at=step, kill=whom, delay=0, campaign="welcome")]
        leaves_work = [order(at="reserve committed", kill="dispatcher", delay=0, batch=1000, campaign="welcome")]
        return [leaves_work, dies] if step.startswith("recover settle") else [dies]

    steps, faults = list(STEPS), list(BEHAVIOURS)
    of_database, meetings = STEPS[part::_PARTS], _MEETINGS[part::_PARTS]
    if number < len(steps):
        people, calls = max(people, 8), []
        waves = killed(steps[number], "dispatcher")
    elif (number := number - len(steps)) < len(of_database):
        people, calls = max(people, 8), []
        waves = killed(of_database[number], "postmaster")
        waves[-1] += [order() for _ in range(chance.choice((0, 0, 1)))]
    elif (number := number - len(of_database)) < len(meetings):
        people, calls, campaigns = max(people, 8), [], list(_CAMPAIGNS)
        waves = [[order(campaign=campaign, delay=0, batch=1000, meet=meetings[number]) for campaign in campaigns]]
    elif (number := number - len(meetings)) == 0:
        # a call under way while another one finds the database new, with no sign that the first still lives
        people, calls, taken_for_dead = max(people, 8), ["slow:0.8", None, "slow:0.3"], order(delay=0, patience=5)
        campaign = taken_for_dead["campaign"]
        waves = [[taken_for_dead, order(campaign=campaign, delay=0.3, at="recover begins", kill="postmaster")]]
    else:
        meeting = chance.choice(({}, {"delay": 0, "meet": chance.choice(_MEETINGS)}))
        waves = [[order(**meeting) for _ in range(chance.choice((1, 1, 2, 3)))]]
        spared = 0
        if (number := number - 1) < len(faults):  # somebody must live to make the call, and have something to send
            calls[0], spared, people = faults[number], 1, max(people, 8)
            waves = [[order(campaign="welcome", delay=0), *(order(delay=0.3) for _ in waves[0][1:])]]
        for one in waves[0][spared:]:
            if chance.random() < 0.6:
                whom = chance.choice(("dispatcher",) * (20 if spared else 18) + ("postmaster", "backend")[spared * 2 :])
                one |= {"at": chance.choice(steps), "time": chance.choice((1, 1, 2, 3)), "kill": whom}
    calls = [f"{how}:0.05" if how in ("slow", "slow after") else how for how in calls]
    some = [f"c{n:06}" for n in range(people)]
    chance.shuffle(some)

    def take(most: int, least: int = 0) -> list[str]:
        return [some.pop() for _ in range(chance.randint(least, most) if people > 1 else 0)]

    return Round(
        campaigns, people, waves, calls, take(1), take(1), take(1), take(2, least=1), take(2), chance.uniform(0, 0.25)
    )  # fmt: skip


def _hash(world: World, customer: str) -> bytes:
    found = links.address_hash(world.settings.hash_key, "email", f"{customer}@example.com")
    assert found
    return found


def _prepare(world: World, what: Round) -> None:
    """Who must not be written to: suppressed, opted out, or with a cap's worth of mail already."""
    with world.engine.begin() as connection:
        for customer in what.suppressed:
            consents.suppress(connection, _hash(world, customer), "email", "bounce", at=AT)
        for customer in what.opted_out:
            consents.choose(connection, _hash(world, customer), "email", "opted_out", source="test", at=AT)
        for n in range(_CAP.messages):
            day, had = DAY - timedelta(days=1 + n), what.capped + (what.nearly if n else [])
            before = [
                row | {"customer_id": customer, "as_of": day, "occasion": str(n)}
                for customer in had
                for row in rows(1, campaign="newsletter", address_hash=_hash(world, customer))
            ]
            ledger.plan(connection, before, run_id=None, at=AT)
            taken = reserve(
                connection, campaign="newsletter", as_of=day, by="earlier", via="earlier", cap=ledger.Cap(100, 7)
            )
            done = [ledger.Settled(message.id, "sent") for message in taken.messages]
            assert ledger.settle(connection, done, by="earlier", at=AT) == len(had)


def _leave(world: World, what: Round) -> int | None:
    """Some unsubscribe while dispatchers work. Returns the newest change of the ledger by then; none where it failed.

    No reservation is under way at that moment, so each later one has a later number.
    """
    try:
        with world.engine.begin() as connection:
            connection.execute(sa.text("lock table shopauto.messages in share mode"))
            for customer in what.leaving:
                consents.suppress(connection, _hash(world, customer), "email", "unsubscribe", at=AT)
            newest = sa.select(sa.func.coalesce(sa.func.max(schema.message_history.c.id), 0))
            return connection.execute(newest).scalar_one()
    except sa.exc.DBAPIError:
        return None  # the database was killed


def _events(world: World, chance: random.Random) -> None:
    """The provider tells of what it has accepted so far: late, in any order, and much of it more than once."""
    told = [
        {
            "event": chance.choice(("processed", "delivered")),
            "email": person["to"][0]["email"],
            "timestamp": int(AT.timestamp()),
            "sg_event_id": f"event-{person['custom_args'][CORRELATION]}",
            "sg_message_id": "abc.recvd-def-1",
            CORRELATION: person["custom_args"][CORRELATION],
        }
        for person in world.stand_in.accepted
        for _ in range(chance.randint(1, 3))
    ]
    chance.shuffle(told)
    for start in range(0, len(told), 20):
        events = sendgrid_events.parse(json.dumps(told[start : start + 20]).encode(), world.settings.hash_key).events
        with world.engine.begin() as connection:
            recording.record(connection, events, at=AT)


def _settle_unknown(world: World, chance: random.Random) -> int:
    """The events settle what was accepted; of what was not, an operator reads in the provider's log that it is not there.

    Returns how many messages that changed: a dispatcher has to look again.
    """
    with world.engine.connect() as connection:
        before = {message.id for message in ledger.unknown(connection)}
    _events(world, chance)
    with world.engine.begin() as connection:
        missing = [message.id for message in ledger.unknown(connection)]
        assert not {*missing} & {*world.stand_in.message_ids}, "an event has settled nothing"
        assert ledger.resolve(connection, state="failed", why="not at the provider", ids=missing, at=AT) == len(missing)
        again = [ledger.retry_failed(connection, campaign, DAY, at=AT) for campaign in _CAMPAIGNS]
    return len(before) + sum(again)


def _run(world: World, what: Round, chance: random.Random) -> tuple[Counter[str], Counter[str]]:
    """One round; returns what was killed where, and what became of the messages."""
    world.clear()
    _prepare(world, what)
    world.stand_in.behave(*what.calls)
    lake = world.lakes[what.people]
    did: Counter[str] = Counter()
    newest = None
    for wave in what.waves:
        world.dispatchers.begin([{**order, "lake": str(lake.root)} for order in wave])
        if wave is what.waves[-1] and what.leaving:
            time.sleep(what.leave_after)
            newest = _leave(world, what)
            with suppress(*([sa.exc.DBAPIError] if what.killed_database else [])):
                _events(world, chance)
        for order, ended in zip(wave, world.dispatchers.end(), strict=True):
            assert ended.code in (0, -signal.SIGKILL) or (ended.code == 1 and what.killed_database), f"{order}: {ended}"
            if f"kill {order.get('kill')}" in ended.steps:
                did[order["at"] if order["kill"] == "dispatcher" else f"{order['kill']} at {order['at']}"] += 1
    world.stand_in.quiet()
    world.stand_in.behave()
    if what.leaving and newest is None:
        newest = _leave(world, what)
    found: dict[str, Dispatched] = {}
    while not found or _settle_unknown(world, chance):
        found = {campaign: world.dispatch(campaign, lake) for campaign in what.campaigns}
    for campaign in what.campaigns:
        _check(world, what, campaign, newest)
    for how, times in world.stand_in.done.items():
        did[f"provider: {how.partition(':')[0]}"] += times
    states = Counter()
    for dispatched in found.values():
        states.update({f"{state} {reason}".strip(): n for (state, reason), n in dispatched.states.items()})
    return did, states


def _check(world: World, what: Round, campaign: str, newest: int | None) -> None:
    """Hold the ledger against the provider's list, and what was landed of it for the reports."""
    messages = schema.messages.c
    chosen = sa.select(messages.id, messages.customer_id, messages.state, messages.reason)
    with world.engine.connect() as connection:
        found = connection.execute(chosen.where(messages.campaign == campaign)).all()
        changed = changes(connection)
    mailed = [
        (person["categories"][0], person["to"][0]["email"].partition("@")[0]) for person in world.stand_in.accepted
    ]
    states = {row.customer_id: (row.state, row.reason) for row in found}
    ids = {row.id: row.customer_id for row in found}
    got = {customer for name, customer in mailed if name == campaign}
    everybody = {f"c{n:06}" for n in range(what.people)}
    must_not = {*what.suppressed, *what.opted_out, *what.capped}

    assert {who: n for who, n in Counter(mailed).items() if n > 1} == {}, "duplicates"
    assert world.stand_in.duplicates == 0
    assert got & must_not == set(), "mailed although suppressed, opted out or capped"
    assert got <= everybody, "mailed although not in the audience"
    assert everybody - got - must_not - {*what.leaving, *what.nearly} == set(), "lost"
    by_all = Counter(customer for _, customer in mailed)
    assert {customer: by_all[customer] for customer in what.nearly} == dict.fromkeys(what.nearly, 1), "the cap"
    assert (len(found), set(states)) == (what.people, everybody), "not exactly one message a person"
    assert set(states.values()) <= {("sent", None), *(("suppressed", why) for why in _WHY_NOT)}, "not a final state"
    assert {customer for customer, (state, _) in states.items() if state == "sent"} == got, "ledger against provider"
    assert _landed(world.lakes[what.people], campaign) == sorted(got), "landed against provider"
    latest: dict[int, str | None] = {}
    for change in changed:
        assert change.from_state == latest.get(change.message_id), "a hole in the history"
        assert (change.from_state, change.to_state) in _FOLLOWS
        latest[change.message_id] = change.to_state
        if newest is not None and change.to_state == "reserved" and ids.get(change.message_id) in what.leaving:
            assert change.id <= newest, "reserved after the unsubscription was known"
    assert {n: states[customer][0] for n, customer in ids.items()} == {n: latest[n] for n in ids}


def _landed(lake: Lake, campaign: str) -> list[str]:
    """Who has had a message of the campaign, by the message events that were landed for the reports."""
    folder = landing_root(lake) / OWN_SOURCE
    landed = (file for file in read_manifest(lake, OWN_SOURCE).files.values() if file.file.startswith(campaign))
    rows = (pq.read_table(folder / file.landing) for file in landed)
    return sorted(customer for table in rows for customer in table["shop_customer_id"].to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_whatever_breaks_everybody_is_written_to_once_and_nobody_twice(world, part, capsys):
    rounds = -(-_ROUNDS // _PARTS)
    did: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(rounds):
        name = f"{part}/{number}"
        if _ONLY not in ("", name):
            continue
        chance = random.Random(f"{_SEED}/{name}")
        what = _draw(chance, part, number)
        try:
            done, states = _run(world, what, chance)
        except BaseException as error:
            raise AssertionError(f"repeat this round with SHOPAUTO_FAULT_SEED={_SEED}/{name}: {what}") from error
        did += done
        with capsys.disabled():
            if "SHOPAUTO_FAULT_SEED" in os.environ:
                print(f"{name}: {what.people} people, {dict(done)} -> {dict(states)}", file=sys.stderr)
    with capsys.disabled():
        took = time.monotonic() - began
        counted = ", ".join(f"{what} {n}" for what, n in sorted(did.items()))
        print(f"\nseed {_SEED}, part {part}: {rounds} rounds in {took:.0f} s; {counted}", file=sys.stderr)
    if rounds >= 50 and not _ONLY:
        assert {*STEPS, *(f"provider: {how}" for how in BEHAVIOURS)} <= set(did)
