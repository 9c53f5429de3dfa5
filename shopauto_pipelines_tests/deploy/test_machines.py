"""Several machines at once on one database, and a network between that fails: everybody once, nobody forgotten.

Each machine reaches PostgreSQL over a cable of its own. Dispatchers and collectors are processes; the provider is the one of the
outbox's tests, with its own list of what it accepted.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from shopauto_pipelines.outbox import ledger, schema
from shopauto_pipelines.platform import live_settings, postgres
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.live_settings import Change
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines.realtime.collector import recording, sendgrid_events
from shopauto_pipelines.sources.landing import OWN_SOURCE, landing_root
from shopauto_pipelines_tests.deploy.cables import Cable
from shopauto_pipelines_tests.e2e.forks import Forked
from shopauto_pipelines_tests.outbox import dispatchers
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, database_home, reserve, rows, shared_engine
from shopauto_pipelines_tests.outbox.dispatchers import Dispatchers, Ended
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, CORRELATION, StandIn
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import start as start_stand_in
from shopauto_pipelines_tests.outbox.shop import write_shop

__all__ = ["database_home", "shared_engine"]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("machines")]

_PEOPLE = 30
_MACHINES = 3


@dataclass
class Machines:
    """The database, the provider, the machines' cables, and the lake that all share."""

    engine: sa.Engine
    settings: Settings
    stand_in: StandIn
    cables: list[Cable]
    lake: Lake
    forked: Dispatchers
    folder: Path

    def url(self, machine: int) -> str:
        """How a machine reaches the database."""
        through = self.engine.url.set(
            drivername="postgresql", host="127.0.0.1", port=self.cables[machine].port, query={}
        )
        return through.render_as_string(hide_password=False)

    def order(self, machine: int, **more: Any) -> dict[str, Any]:
        """A dispatcher on a machine, in small batches."""
        usual = {"lake": str(self.lake.root), "campaign": "welcome", "batch": 5, "patience": 5}
        return usual | {"settings": {"postgres_url": self.url(machine)}} | more

    def run(self, *orders: dict[str, Any]) -> list[Ended]:
        return self.forked.run(list(orders))

    def took(self, machine: int) -> list[str]:
        """The steps that the dispatcher of an order has taken so far."""
        told = self.folder / f"steps-{machine}.txt"
        return told.read_text().splitlines() if told.exists() else []

    def states(self) -> Counter[str]:
        with self.engine.connect() as connection:
            found = connection.execute(
                sa.select(schema.messages.c.state).where(schema.messages.c.campaign == "welcome")
            )
            return Counter(found.scalars())

    def hear(self) -> None:
        """The provider tells of what it has accepted, in no order and twice."""
        told = [
            {
                "event": "delivered",
                "email": person["to"][0]["email"],
                "timestamp": int(AT.timestamp()),
                "sg_event_id": f"event-{person['custom_args'][CORRELATION]}",
                "sg_message_id": "abc.recvd-def-1",
                CORRELATION: person["custom_args"][CORRELATION],
            }
            for person in self.stand_in.accepted
        ]
        events = sendgrid_events.parse(json.dumps([*told, *reversed(told)]).encode(), self.settings.hash_key).events
        with self.engine.begin() as connection:
            recording.record(connection, events, at=AT)

    def check(self) -> None:
        """Everybody is on the provider's list once, and the ledger says the same."""
        mailed = Counter(person["to"][0]["email"] for person in self.stand_in.accepted)
        assert mailed == Counter(f"c{n:06}@example.com" for n in range(_PEOPLE))
        assert self.stand_in.duplicates == 0
        assert self.states() == {"sent": _PEOPLE}

    def until(self, what: Callable[[], Any]) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture(scope="module")
def world(shared_engine, homes) -> Iterator[Machines]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(dir=homes))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with shared_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("drop database if exists machines (force)"))
            connection.execute(sa.text("create database machines"))
        direct = shared_engine.url.set(drivername="postgresql", database="machines")
        published = PROJECT_ROOT.parent / "shared" / "contracts"
        stand_in = stack.enter_context(start_stand_in(published if published.is_dir() else None))
        values = {
            "home": str(folder),
            "postgres_url": direct.render_as_string(hide_password=False),
            "live": True,
            "sendgrid_url": stand_in.url,
            "sendgrid_api_key": API_KEY,
            "from_email": "hello@shop.example.org",
            "postal_address": "1 Example Road",
            "base_url": "https://shop.example.org",
            "shop_url": "https://shop.example.org",
            "secret_key": "secret",
        }
        settings = Settings(_env_file=None, **values)
        postgres.migrate(sa.create_engine(postgres.postgres_url(settings)))
        engine = postgres.engine(settings)
        stack.callback(engine.dispose)
        lake = Lake(folder / "lake", threads=1)
        write_shop(lake, people=_PEOPLE, refused=2)
        (server,) = [direct.query["host"]] if isinstance(direct.query["host"], str) else direct.query["host"]
        cables = [stack.enter_context(Cable(f"{server}/.s.PGSQL.5432")) for _ in range(_MACHINES)]
        forked = stack.enter_context(dispatchers.start(folder, values, [lake.root], ["welcome"]))
        yield Machines(engine, settings, stand_in, cables, lake, forked, folder)


@pytest.fixture
def machines(world) -> Machines:
    """The same with an empty ledger, a whole network, and a provider that has accepted nothing."""
    names = ", ".join(str(table) for table in schema.metadata.sorted_tables)
    with world.engine.begin() as connection:
        connection.execute(sa.text(f"truncate {names}"))
    shutil.rmtree(landing_root(world.lake) / OWN_SOURCE, ignore_errors=True)
    for cable in world.cables:
        cable.heal()
    for told in world.folder.glob("steps-*.txt"):
        told.unlink()
    world.stand_in.quiet()
    world.stand_in.reset()
    world.stand_in.behave()
    return world


def test_the_same_day_sent_by_three_machines_at_once_reaches_everybody_once(machines):
    ended = machines.run(*(machines.order(n, meet="plan begins") for n in range(_MACHINES)))
    assert [one.code for one in ended] == [0, 0, 0], [one.trouble for one in ended]
    assert sum("send done" in one.steps for one in ended) >= 2, "one machine did it all"
    machines.check()


def test_a_machine_that_the_database_has_lost_sight_of_hands_nothing_over_that_others_took(machines):
    # its first call is under way while the network freezes: the provider accepts it, and nobody can be told
    machines.stand_in.behave("slow:1.2")
    machines.forked.begin([machines.order(0, batch=10), machines.order(1, delay=1.4), machines.order(2, delay=1.4)])
    machines.until(lambda: "send begins" in machines.took(0))
    machines.cables[0].freeze()
    time.sleep(0.3)
    assert machines.cables[0].give_up() > 0
    machines.until(lambda: {*machines.states()} == {"sent", "unknown"})
    machines.cables[0].heal()
    lost, *others = machines.forked.end()
    assert [one.code for one in others] == [0, 0], [one.trouble for one in others]
    assert lost.code in (0, 1)
    assert "reserved" not in machines.states()
    machines.hear()
    machines.check()


def test_a_machine_that_is_only_cut_off_for_a_while_goes_on_where_it_was(machines):
    machines.stand_in.behave(*["slow:1.2"] * 3)
    machines.forked.begin([machines.order(0, batch=10), machines.order(1, delay=1)])
    machines.until(lambda: machines.took(0).count("send begins") == 3)
    time.sleep(
        0.2
    )  # it has looked for more, and waits for its calls: no transaction is open that others would wait for
    machines.cables[0].freeze()
    machines.until(lambda: "landing done" in machines.took(1))
    held = machines.states()
    machines.cables[0].heal()
    ended = machines.forked.end()
    assert [one.code for one in ended] == [0, 0], [one.trouble for one in ended]
    assert held == {"reserved": _PEOPLE}, "others took what a living dispatcher had reserved"
    machines.check()


@pytest.mark.parametrize("seed", range(3))
def test_over_a_network_that_breaks_all_the_time_everybody_is_reached_once(machines, seed):
    chance = random.Random(seed)
    machines.stand_in.behave(*[chance.choice(("slow:0.05", None)) for _ in range(30)])
    cut = 0
    machines.forked.begin([machines.order(n, batch=3) for n in range(_MACHINES)])
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.02, 0.15))
        cut += machines.cables[chance.randrange(_MACHINES)].cut()
    ended = machines.forked.end()
    assert all(one.code in (0, 1) for one in ended)
    assert cut
    (healthy,) = machines.run(machines.order(0))
    assert healthy.code == 0, healthy.trouble
    machines.hear()
    with machines.engine.begin() as connection:  # what the provider has never heard of has not left
        missing = [message.id for message in ledger.unknown(connection)]
        ledger.resolve(connection, state="failed", why="not at the provider", ids=missing, at=AT)
        ledger.retry_failed(connection, "welcome", DAY, at=AT)
    (healthy,) = machines.run(machines.order(1))
    assert healthy.code == 0, healthy.trouble
    machines.check()


def test_a_cap_that_one_machine_lowers_holds_on_all(machines):
    with machines.engine.begin() as connection:
        for n in (1, 2):
            day = DAY - timedelta(days=n)
            had = rows(_PEOPLE, campaign="newsletter", key=machines.settings.hash_key)
            ledger.plan(connection, [row | {"as_of": day, "occasion": str(n)} for row in had], run_id=None, at=AT)
            cap = ledger.Cap(100, 7)
            taken = reserve(connection, campaign="newsletter", as_of=day, by="earlier", via="earlier", cap=cap)
            ledger.settle(connection, [ledger.Settled(m.id, "sent") for m in taken.messages], by="earlier", at=AT)
        lowered = Change(name="cap_messages", value="2", why="sale is over", at=AT, by="the first machine")
        live_settings.change(connection, machines.settings, lowered)
    try:
        ended = machines.run(*(machines.order(n) for n in range(_MACHINES)))
    finally:
        with machines.engine.begin() as connection:
            live_settings.change(connection, machines.settings, lowered._replace(value=None))
    assert [one.code for one in ended] == [0, 0, 0], [one.trouble for one in ended]
    assert machines.stand_in.accepted == []
    assert machines.states() == {"suppressed": _PEOPLE}


def test_what_one_machine_has_locked_others_wait_for_until_it_lets_go_or_is_lost(machines):
    here, there = (
        machines.settings.model_copy(update={"postgres_url": SecretStr(machines.url(number))}) for number in (0, 1)
    )
    entered: list[str] = []

    def enter(settings: Settings, name: str) -> None:
        with postgres.locked(settings, name):
            entered.append(name)

    with ThreadPoolExecutor(2) as pool:
        with postgres.locked(here, "landing"):
            pool.submit(enter, there, "another").result(20)
            waiting = pool.submit(enter, there, "landing")
            time.sleep(0.2)
            assert entered == ["another"]
        waiting.result(20)
        lost = ExitStack()
        lost.enter_context(postgres.locked(here, "landing"))
        waiting = pool.submit(enter, there, "landing")
        assert machines.cables[0].cut() > 0
        waiting.result(20)
        with pytest.raises(sa.exc.OperationalError):
            lost.close()
    assert entered == ["another", "landing", "landing"]
    for each in (here, there):
        postgres.engine(each).dispose()


def test_every_connection_asks_whether_the_other_side_still_lives(machines):
    with machines.engine.connect() as connection:
        asked = connection.execute(sa.text("select name, setting from pg_settings where name like 'tcp_%'"))
        known = {row.name for row in asked}
        told = connection.connection.driver_connection.info
        assert {"tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"} <= known
        assert "-ctcp_keepalives_idle=30" in told.get_parameters()["options"]
        assert told.get_parameters()["tcp_user_timeout"] == "60000"


@contextmanager
def collecting(machines: Machines, *numbers: int) -> Iterator[list[str]]:
    """Collectors, one on each machine; yields their addresses."""
    processes, addresses = [], []
    for number in numbers:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = machines.folder / f"collector-{number}.log"
        log.touch()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
        environment = kept | {
            "SHOPAUTO_HOME": str(machines.folder / f"machine-{number}"),
            "SHOPAUTO_POSTGRES_URL": machines.url(number),
            "SHOPAUTO_SECRET_KEY": "secret",
        }
        processes.append(Forked(["shopauto", "collect", "--port", str(port)], environment, str(log)))
        addresses.append(f"http://127.0.0.1:{port}")
    try:
        machines.until(lambda: all(map(_healthy, addresses)))
        yield addresses
    finally:
        for process in processes:
            process.kill()
            process.join()


def _healthy(address: str, timeout: float = 5) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=timeout).status_code == 200
    except httpx.TransportError:
        return False


def test_what_several_collectors_are_told_is_counted_once_also_where_one_is_cut_off_meanwhile(machines):
    now = datetime.now(UTC).isoformat()
    batches = [
        [
            {"event_id": f"e{n}", "happened_at": now, "type": "page_view", "anonymous_id": f"b{n}"}
            for n in range(i, i + 10)
        ]
        for i in range(0, 100, 10)
    ]
    with collecting(machines, 0, 1) as (first, second), httpx.Client(timeout=20) as client:

        def post(told: tuple[str, list[dict[str, Any]]]) -> int:
            answer = client.post(f"{told[0]}/events", json=told[1])
            assert answer.status_code == 200, answer.text
            return int(answer.json()["stored"])

        with ThreadPoolExecutor(8) as pool:
            stored = sum(pool.map(post, [(to, batch) for batch in batches for to in (first, second)]))
        assert stored == 100

        # no answer comes, so it is told to the other one; then the first one's words come through after all
        late = [{"event_id": "late", "happened_at": now, "type": "page_view", "anonymous_id": "b"}]
        machines.cables[0].freeze()
        with pytest.raises(httpx.TimeoutException):
            client.post(f"{first}/events", json=late, timeout=0.5)
        assert not _healthy(first, timeout=0.5)
        assert post((second, late)) == 1
        machines.cables[0].heal()
        machines.until(lambda: _healthy(first))
        assert client.post(f"{first}/events", json=late).json()["repeated"] == 1

        # the server has given the connections up: the collector finds new ones
        machines.cables[0].freeze()
        assert machines.cables[0].give_up() > 0
        machines.cables[0].heal()
        machines.until(lambda: _healthy(first))
        more = [{"event_id": "more", "happened_at": now, "type": "page_view", "anonymous_id": "b"}]
        answers = [client.post(f"{to}/events", json=more) for to in (first, second, first)]
        told = [answer.json() for answer in answers if answer.status_code == 200]
        assert sum(answer["stored"] for answer in told) == 1
    with machines.engine.connect() as connection:
        keys = sa.text("select count(*), count(distinct key) from collected where raw_table = 'raw/events'")
        assert tuple(connection.execute(keys).one()) == (102, 102)
