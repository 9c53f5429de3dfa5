"""A crowd in a shop, with real processes: collector, Dagster's daemon and code server, PostgreSQL, local inbox.

Five hundred visitors fill carts, leave them, come back, buy at the last second. What they do arrives shuffled, repeated, late;
the collector and Dagster are killed in the middle. Who must get which message is worked out by :func:`oracle`, which knows
the rules in the words of the documentation and nothing of the program.
"""

from __future__ import annotations

import csv
import email.policy
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from itertools import chain
from pathlib import Path

import duckdb
import httpx
import psutil
import pytest

from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines_tests.e2e.conftest import Shop

CAMPAIGN, PROFILE_DAY = "abandoned_cart", "2026-06-30"
STEPS = {"reminder": timedelta(hours=1), "help": timedelta(hours=24), "last_call": timedelta(hours=72)}
VALID = timedelta(hours=12)
CAMPAIGN_HOLDOUT = 10

#: A slow machine needs a minute to load the code location.
PATIENCE = 120


def now() -> datetime:
    return datetime.now(UTC)


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


# --- what is said ---


@dataclass
class Visitor:
    """Somebody in front of a browser, with a cart. ``shop_id``: the shop's id, where the visitor is logged in all along."""

    number: int
    shop_id: str | None = None

    @property
    def cart(self) -> str:
        return f"cart-{self.number:03}"

    @property
    def browser(self) -> str:
        return f"browser-{self.number:03}"


@dataclass(eq=False)
class Fact:
    """Something that happened at ``at``, and when the collector said it has it (``told``)."""

    kind: str
    at: datetime
    visitor: Visitor
    product: str | None = None
    pieces: int = 1
    shop_id: str | None = None
    address: str | None = None
    with_cart: bool = True
    id: str = field(default_factory=lambda: f"{random.getrandbits(64):016x}")
    told: datetime | None = None

    @property
    def cart(self) -> str | None:
        return self.visitor.cart if self.with_cart and self.kind in ("add", "remove", "checkout", "order") else None

    @property
    def who(self) -> str | None:
        return self.shop_id or self.visitor.shop_id

    def request(self) -> tuple[str, dict]:
        """Route and body."""
        about = {"shop_customer_id": self.who, "cart_id": self.cart}
        if self.kind == "order":
            lines = [{"product_id": self.product, "quantity": 1, "amount_cents": 1990}]
            body = {"order_id": self.id, "ordered_at": self.at, "total_cents": 1990, "lines": lines, **about}
            return "/orders", body
        if self.kind == "ticket":
            return "/tickets", {"ticket_id": self.id, "opened_at": self.at, "shop_customer_id": self.who}
        kinds = {
            "add": "add_to_cart",
            "remove": "remove_from_cart",
            "checkout": "checkout_started",
            "look": "product_view",
        }
        body = {
            "event_id": self.id,
            "happened_at": self.at,
            "type": kinds.get(self.kind, self.kind),
            "anonymous_id": self.visitor.browser,
            "email": self.address,
            **about,
        }
        if self.kind in ("add", "remove", "look"):
            body |= {"product_id": self.product, "quantity": None if self.kind == "look" else self.pieces}
        return "/events", body


class Teller:
    """Tells the collector, again and again until it has it; it may be killed meanwhile."""

    def __init__(self, url: str) -> None:
        self._url, self._client = url, httpx.Client(timeout=10)

    def tell(self, facts: Iterable[Fact]) -> None:
        """Events in one request, all else one by one."""
        routes: dict[str, list[tuple[Fact, dict]]] = {}
        for fact in facts:
            route, body = fact.request()
            said = {name: v.isoformat() if isinstance(v, datetime) else v for name, v in body.items() if v is not None}
            routes.setdefault(route, []).append((fact, said))
        for route, told in routes.items():
            answer = self._post(route, [body for _, body in told])
            assert answer["refused"] == [], answer
            at = now()
            for fact, _ in told:
                fact.told = fact.told or at

    def _post(self, route: str, body: list[dict]) -> dict:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(httpx.TransportError):
                answer = self._client.post(f"{self._url}{route}", json=body)
                if answer.status_code == 200:
                    return answer.json()
                assert answer.status_code in (429, 503), answer.text
            assert time.monotonic() < deadline
            time.sleep(0.2)


# --- who must get what ---


@dataclass
class People:
    """What the shop knew at the end of the profile day."""

    person_of: dict[str, str]
    address_of: dict[str, str]
    reachable: set[str]

    @classmethod
    def read(cls, home: Path) -> People:
        def rows(table: str, columns: str) -> list[tuple]:
            file = home / "lake" / table / f"as_of={PROFILE_DAY}" / "data.parquet"
            return duckdb.sql(f"select {columns} from '{file}'").fetchall()

        address_of = {
            person: address for person, address in rows("profiles/customers", "customer_id, email") if address
        }
        agreed = {
            person
            for person, channel, state in rows("profiles/consent", "customer_id, channel, state")
            if (channel, state) == ("email", "opted_in")
        }
        settings = Settings(home=home, _env_file=None)
        held_out = {
            person
            for person in agreed
            for name, percent in ((GLOBAL, settings.holdout_percent), (CAMPAIGN, CAMPAIGN_HOLDOUT))
            if is_held_out(person, holdout_key(settings.hash_key, name), percent)
        }
        person_of = dict(rows("profiles/identities", "shop_customer_id, customer_id"))
        return cls(person_of, address_of, (agreed & address_of.keys()) - held_out)


@dataclass
class Run:
    """When what was running. ``up``: when Dagster was started; ``killed``: when it was, and ``up`` again after it.

    ``quiet`` says for moments in the script by when everything that was due by then had surely been decided on.
    """

    up: list[datetime] = field(default_factory=list)
    killed: list[datetime] = field(default_factory=list)
    quiet: list[tuple[datetime, datetime]] = field(default_factory=list)
    caps: list[tuple[datetime, int]] = field(default_factory=list)

    def earliest(self, due: datetime) -> datetime:
        """When it can be decided at the earliest: not while Dagster is dead."""
        for killed, up in zip([due, *self.killed], self.up, strict=True):
            if killed <= due < up:
                return up
        return due

    def latest(self, due: datetime) -> datetime:
        return min(seen for moment, seen in self.quiet if moment >= due)

    def cap(self, at: datetime) -> int:
        return max(c for c in self.caps if c[0] <= at)[1]


Message = tuple[str, str, str]


def oracle(facts: Iterable[Fact], people: People, run: Run) -> tuple[list[Message], set[str]]:
    """The messages (person, step, cart) that must have been sent, in order; and carts of which nobody can say.

    Of a cart nobody can say where something that matters was told just when it was being decided on.
    """
    by_told = sorted(facts, key=lambda fact: fact.told)
    carts: dict[str, list[Fact]] = {}
    for fact in by_told:
        if fact.cart:
            carts.setdefault(fact.cart, []).append(fact)
    asked = []
    for cart, its in carts.items():
        last_at = datetime.min.replace(tzinfo=UTC)
        for fact in its:
            if fact.at > last_at:
                last_at = fact.at
                asked += [(max(last_at + wait, fact.told), cart, last_at, step) for step, wait in STEPS.items()]
    end = max(moment for moment, _ in run.quiet)
    sent: dict[Message, None] = {}
    had: Counter[str] = Counter()
    unsure: set[str] = set()
    for due, cart, last_at, step in sorted(asked):
        if due > end or due > last_at + STEPS[step] + VALID:
            continue
        first, last = run.earliest(due), run.latest(due)
        early, late = (_receiver(by_told, carts[cart], last_at, at, people) for at in (first, last))
        if early != late:
            unsure.add(cart)
        elif early and (early, step, cart) not in sent and had[early] < run.cap(first):
            sent[early, step, cart] = None
            had[early] += 1
    return list(sent), unsure


def _receiver(facts: list[Fact], its: list[Fact], last_at: datetime, at: datetime, people: People) -> str | None:
    """Who gets a message about a cart left at ``last_at``, by what has been told until ``at``."""
    its = [fact for fact in its if fact.told <= at]
    contents: Counter[str] = Counter()
    for fact in its:
        contents[fact.product or ""] += {"add": fact.pieces, "remove": -fact.pieces}.get(fact.kind, 0)
    if max(fact.at for fact in its) != last_at or any(fact.kind == "order" for fact in its):
        return None
    named = [(fact.at, fact.who) for fact in its if fact.who]
    logins = [f for f in facts if f.kind == "login" and f.visitor is its[0].visitor and f.told <= at]
    named = named or [(fact.at, fact.shop_id) for fact in logins if fact.shop_id]
    addresses = [(fact.at, fact.address) for fact in logins if fact.address]
    if named:
        person = people.person_of.get(max(named)[1])
    elif addresses:
        address = max(addresses)[1].lower()
        person = min((p for p, known in people.address_of.items() if known.lower() == address), default=None)
    else:
        person = None
    if person not in people.reachable or not any(pieces > 0 for pieces in contents.values()):
        return None
    for fact in facts:
        theirs = fact.who and people.person_of.get(fact.who) == person and fact.told <= at
        if theirs and fact.kind in ("order", "ticket") and fact.at >= last_at:
            return None
        if theirs and fact.kind == "unsubscribe":
            return None
    return person


# --- the script ---


class Script:
    """Who does what. A cart is filled so that a step is due at a moment of the script, should nothing more happen."""

    def __init__(self, people: People, products: list[str]) -> None:
        self._chance, self._people, self._products = random.Random(11), people, products
        self.visitors: list[Visitor] = []
        #: What is told in any order, each list in one request; at a moment of its own; and after Dagster was killed.
        self.crowd: list[list[Fact]] = []
        self.timed: list[tuple[datetime, Fact]] = []
        self.while_down: list[Fact] = []
        self.said: list[Fact] = []
        #: Who is still there when the first wave is over: with what they left when, and who then unsubscribes.
        self.coming_back: list[Visitor] = []
        self.busy: list[str] = []
        self.unsubscribing: list[Visitor] = []
        ids: dict[str, list[str]] = {}
        for shop_id, person in sorted(people.person_of.items()):
            ids.setdefault(person, []).append(shop_id)
        # who has several ids comes first: at least some of them are played
        self._reachable = iter(sorted(people.reachable & ids.keys(), key=lambda p: (-len(ids[p]), p)))
        self._others = iter(sorted(ids.keys() - people.reachable))
        self._ids = ids

    def visitor(self, shop_id: str | None = None) -> Visitor:
        self.visitors.append(Visitor(len(self.visitors), shop_id))
        return self.visitors[-1]

    def person(self) -> str:
        """Somebody who can be reached, by one of the shop's ids; each plays one part."""
        return self._chance.choice(self._ids[next(self._reachable)])

    def moment(self, start: float, end: float) -> datetime:
        return self._begin + seconds(self._chance.uniform(start, end))

    def product(self) -> str:
        return self._chance.choice(self._products)

    def fill(self, visitor: Visitor, due: datetime, step: str = "reminder") -> datetime:
        """What a visitor does until the cart is left, a step's wait before ``due``; returns when that is.

        Every other one takes time over it. All of that is told at once: where the first half of it came alone, the cart
        would be due already.
        """
        left = due - STEPS[step]
        slow = visitor.number % 2
        times = [
            left - seconds(self._chance.uniform(0.01, 1500 if slow else 2)) for _ in range(self._chance.randint(1, 4))
        ]
        kinds = ["add", *self._chance.choices(["add", "look", "checkout"], k=len(times) - 1), "add"]
        facts = [
            Fact(kind, at, visitor, None if kind == "checkout" else self.product(), self._chance.randint(1, 3))
            for kind, at in zip(kinds, [*sorted(times), left], strict=True)
        ]
        self._chance.shuffle(facts)
        self.crowd += [facts] if slow else [[fact] for fact in facts]
        return left

    def empty(self, visitor: Visitor, at: datetime) -> list[Fact]:
        """The visitor takes everything out again."""
        pieces: Counter[str] = Counter()
        for fact in chain(*self.crowd):
            if fact.visitor is visitor and fact.kind == "add":
                pieces[fact.product] += fact.pieces
        return [
            Fact("remove", at + seconds(n / 1000), visitor, p, count) for n, (p, count) in enumerate(pieces.items())
        ]

    def open(self) -> None:
        """Somebody whose cart is due at once: the first message shows that everything runs."""
        left = now() - STEPS["reminder"]
        self.crowd = [[Fact("add", left, self.visitor(self.person()), self.product())]]
        self.said += self.crowd[0]

    def first_wave(self, begin: datetime) -> None:
        """Five hundred visitors."""
        self._begin, self.crowd = begin, []
        for step, visitors in (("reminder", 12), ("help", 8), ("last_call", 8)):
            for _ in range(visitors):
                self.fill(self.visitor(self.person()), self.moment(*DUE), step)
        for n in range(16):  # strangers, who say by and by who they are: by id, or by an address as people type it
            shop_id, stranger, due = self.person(), self.visitor(), self.moment(*DUE)
            left = self.fill(stranger, due)
            address = self._people.address_of[self._people.person_of[shop_id]].title()
            who = {"shop_id": shop_id} if n % 2 else {"address": address}
            login = Fact("login", left - seconds(60 * n), stranger, **who)
            if n < 8:
                self.crowd.append([login])
            else:
                self.timed.append((due - seconds(2), login))
        for n in range(8):  # the news come hours late: at once, if not too late
            step = [*STEPS][n % 3]
            left = self._begin - STEPS[step] - timedelta(hours=1.5 * n if n < 6 else 12.5)
            self.crowd.append([Fact("add", left, self.visitor(self.person()), self.product())])
        for n in range(10):  # bought at the last second, from the cart or by another way
            buyer, due = self.visitor(self.person()), self.moment(*DUE)
            self.fill(buyer, due, [*STEPS][n % 3])
            order = Fact("order", due - seconds(1.5), buyer, self.product(), with_cart=n % 3 > 0)
            self.timed.append((due - seconds(1), order))
        for _ in range(5):  # back at the last second
            visitor, due = self.visitor(self.person()), self.moment(*DUE)
            self.fill(visitor, due)
            self.timed.append((due - seconds(1), Fact("add", due - seconds(1.5), visitor, self.product())))
        for n in range(9):  # emptied; emptied at the last second; emptied, and filled again
            visitor, due = self.visitor(self.person()), self.moment(*DUE)
            left = self.fill(visitor, due)
            if n % 3 == 1:
                self.timed += [(due - seconds(1), fact) for fact in self.empty(visitor, due - seconds(1.5))]
            else:
                self.crowd += [[fact] for fact in self.empty(visitor, left + seconds(0.1))]
                if n % 3 == 2:
                    self.crowd.append([Fact("add", left + seconds(0.5), visitor, self.product())])
        for n in range(8):  # a ticket after the cart was left, and one before; an order of before it
            visitor, due = self.visitor(self.person()), self.moment(*DUE)
            left = self.fill(visitor, due)
            before = left - timedelta(minutes=30)
            kind, at = [("ticket", left + timedelta(minutes=9)), ("ticket", before), ("order", before)][n % 3]
            self.crowd.append([Fact(kind, at, visitor, self.product(), with_cart=False)])
        for n in range(16):  # due while Dagster is dead: left alone, bought, emptied, or a ticket
            visitor, due = self.visitor(self.person()), self.moment(*DOWN)
            self.fill(visitor, due, [*STEPS][n % 3])
            at = due + seconds(0.1)
            order, ticket = Fact("order", at, visitor, self.product()), Fact("ticket", at, visitor)
            self.while_down += [[], [order], self.empty(visitor, at), [ticket]][n % 4]
        for _ in range(4):  # several carts each: more than the cap allows
            shop_id = self.person()
            self.busy.append(shop_id)
            for _ in range(4):
                self.fill(self.visitor(shop_id), self.moment(*DUE))
        for n in range(10):  # these are there again when the first wave is over
            visitor = self.visitor(self.person())
            self.fill(visitor, self.moment(*DUE))
            self.coming_back.append(visitor)
            if n % 2:
                self.unsubscribing.append(visitor)
        for person in [*self._others][:90]:  # who has not agreed, or is held out
            self.fill(self.visitor(self._ids[person][0]), self.moment(*DUE), self._chance.choice([*STEPS]))
        while len(self.visitors) < 499:  # strangers, some with an address or an id that nobody knows
            stranger = self.visitor(f"new-{len(self.visitors)}" if len(self.visitors) % 4 == 0 else None)
            left = self.fill(stranger, self.moment(*DUE), self._chance.choice([*STEPS]))
            if stranger.number % 4 == 1:
                address = f"nobody{stranger.number}@elsewhere.example"
                self.crowd.append([Fact("login", left, stranger, address=address)])
        self.fill(self.visitor(self.person()), self._begin + seconds(LAST))  # the last one
        self.said += [*chain(*self.crowd), *(fact for _, fact in self.timed), *self.while_down]

    def second_wave(self, begin: datetime) -> None:
        """What happens once the first wave is over: who got a reminder leaves the same cart again, and another one too."""
        self.crowd = []
        for visitor in self.coming_back:
            self.crowd.append([Fact("add", begin - STEPS["reminder"], visitor, self.product())])
            self.fill(self.visitor(visitor.shop_id), begin + seconds(0.5))
        for shop_id in self.busy[::2]:  # the cap has been raised meanwhile
            self.fill(self.visitor(shop_id), begin + seconds(1))
        self.fill(self.visitor(self.person()), begin + seconds(2))  # the last one
        self.said += chain(*self.crowd)

    def requests(self) -> list[list[Fact]]:
        """The crowd's facts as they are told: in any order, one in six of them twice, in requests of all sizes."""
        told = [*self.crowd, *self._chance.sample(self.crowd, len(self.crowd) // 6)]
        self._chance.shuffle(told)
        requests = []
        while told:
            size = self._chance.choice((1, 5, 40))
            requests.append([*chain(*told[:size])])
            told = told[size:]
        return requests


#: Seconds of the script: within ``DUE`` steps are due every moment, the last one at ``LAST``. Dagster is killed in the first
#: batch after ``KILL``; what is due at ``DOWN`` is due while it is dead.
DUE, LAST, KILL, DOWN = (12.0, 30.0), 31.0, 18.0, (24.0, 25.0)


# --- the processes ---


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Collector:
    """``shopauto collect``."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._port, self._process = shop, _port(), None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = self._shop.start("collect", "--port", self._port)
        _until(lambda: _answers(f"{self.url}/health"), "the collector answers")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.join()

    def kill_and_start(self) -> None:
        self.kill()
        self.start()


class Dagster:
    """``dagster dev``: web server, daemon, code server, and the runs they start."""

    def __init__(self, shop: Shop) -> None:
        self._home, self._log, self._port, self._process = shop.home, shop.home.with_suffix(".log"), _port(), None
        self._own = shop.home.with_name("dagster")  # where nothing is left behind in the project when it is killed
        self._own.mkdir()
        shutil.copy(PROJECT_ROOT / "dagster.yaml", self._own)

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dagster", "dev", "-p", str(self._port)],
                cwd=PROJECT_ROOT,
                env=kept
                | {
                    "SHOPAUTO_HOME": str(self._home),
                    "DAGSTER_HOME": str(self._own),
                    "PYTHONPATH": str(PROJECT_ROOT),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def switch_on(self, sensor: str) -> None:
        """Start a sensor, as in the UI."""
        url = f"http://127.0.0.1:{self._port}"
        _until(lambda: _answers(f"{url}/server_info"), "Dagster answers")
        selector = {
            "repositoryLocationName": "shopauto_pipelines",
            "repositoryName": "__repository__",
            "sensorName": sensor,
        }
        mutation = "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"
        answer = httpx.post(f"{url}/graphql", json={"query": mutation, "variables": {"s": selector}}, timeout=PATIENCE)
        assert answer.json()["data"]["startSensor"]["__typename"] == "Sensor", answer.text

    def kill(self) -> None:
        """All of it at once, with the runs that are under way, as when the machine's power fails. PostgreSQL stays."""
        if self._process is None:
            return
        stopped: set[psutil.Process] = set()
        while found := self._all() - stopped:  # who is stopped starts no others
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            stopped |= found
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process = None

    def _all(self) -> set[psutil.Process]:
        first = psutil.Process(self._process.pid)
        found = {first}
        for process in first.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if not process.name().startswith("postgres"):
                    found.add(process)
        return found


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _until(holds: Callable[[], bool], what: str) -> datetime:
    """Wait; returns when it was seen to hold."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain: {what}"
        time.sleep(0.1)
    return now()


def _sleep_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - now()).total_seconds()))


class Inbox:
    """What has arrived of the campaign."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._read = shop, {}

    def messages(self) -> dict[Message, str]:
        """Person, step and cart of each message, and its link to unsubscribe."""
        for path in self._shop.inbox():
            if path not in self._read:
                mail = message_from_bytes(path.read_bytes(), policy=email.policy.default)
                ours = mail["X-ShopAuto-Campaign"] == CAMPAIGN
                key = tuple(str(mail[f"X-ShopAuto-{name}"]) for name in ("Customer", "Step", "Occasion"))
                self._read[path] = (key, str(mail["List-Unsubscribe"]).strip("<>")) if ours else None
        return dict(filter(None, self._read.values()))

    def has(self, cart: str) -> bool:
        return any(message[2] == cart for message in self.messages())


def _tell_all(tell: Callable[[list[Fact]], None], requests: list[list[Fact]], meanwhile: Callable[[], None]) -> None:
    """Three tell at once, while something else happens after the first half."""
    half = len(requests) // 2
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, requests[:half]))
        done = pool.submit(meanwhile)
        list(pool.map(tell, requests[half:]))
        done.result()


def _tell_in_time(tell: Callable[[list[Fact]], None], timed: Iterable[tuple[datetime, Fact]]) -> None:
    """Each fact at its moment, not waiting for the others."""
    with ThreadPoolExecutor(4) as pool:
        told = []
        for at, fact in sorted(timed, key=lambda pair: pair[0]):
            _sleep_until(at)
            told.append(pool.submit(tell, [fact]))
        for done in told:
            done.result()


@pytest.mark.slow
def test_a_crowd_gets_exactly_the_messages_it_must_get(refreshed, new_shop, small_files):
    shop = new_shop(like=refreshed)
    people = People.read(shop.home)
    with (small_files / "products.csv").open() as file:
        products = [row["product_id"] for row in csv.DictReader(file)]
    inbox, collector, dagster, run = Inbox(shop), Collector(shop), Dagster(shop), Run()
    try:
        collector.start()
        run.up.append(now())
        dagster.start()
        shop.run("live-settings", "set", "cap_messages", 2, "--why", "a crowd")
        run.caps.append((run.up[0], 2))
        dagster.switch_on("abandoned_carts")
        tell = Teller(collector.url).tell
        s = Script(people, products)
        s.open()
        tell(*s.crowd)
        _until(lambda: inbox.has(s.visitors[-1].cart), "the very first message")  # now everything has been started

        begin = now()
        s.first_wave(begin)
        with ThreadPoolExecutor(1) as pool:
            timed = pool.submit(_tell_in_time, tell, s.timed)
            _tell_all(tell, s.requests(), meanwhile=collector.kill_and_start)
            _sleep_until(begin + seconds(KILL))
            before = len(inbox.messages())
            _until(lambda: len(inbox.messages()) > before, "a batch that is being sent")
            dagster.kill()
            run.killed.append(now())
            _sleep_until(begin + seconds(DOWN[1] + 0.2))
            for fact in s.while_down:
                tell([fact])
            run.up.append(now())
            dagster.start()
            timed.result()
        last = begin + seconds(LAST)
        run.quiet.append((last, _until(lambda: inbox.has(s.visitors[-1].cart), "the first wave's last message")))
        _until(lambda: all(inbox.has(visitor.cart) for visitor in s.unsubscribing), "the links to unsubscribe")
        for visitor in s.unsubscribing:
            (link,) = (link for (_, _, cart), link in inbox.messages().items() if cart == visitor.cart)
            answer = httpx.post(collector.url + httpx.URL(link).path, data={"List-Unsubscribe": "One-Click"})
            assert answer.status_code == 200, answer.text
            s.said.append(Fact("unsubscribe", now(), visitor, told=now()))
        run.caps.append((now(), 3))
        shop.run("live-settings", "unset", "cap_messages")
        begin = now() + seconds(1)
        s.second_wave(begin)
        tell([*chain(*s.crowd)])
        last = begin + seconds(2)
        run.quiet.append((last, _until(lambda: inbox.has(s.visitors[-1].cart), "the last message")))
        _until(lambda: _states(shop).keys() <= {"sent", "suppressed"}, "nothing under way")
        time.sleep(1)  # for what must not come
    finally:
        dagster.kill()
        collector.kill()

    expected, unsure = oracle(s.said, people, run)
    sent = inbox.messages()
    assert len(s.visitors) >= 500
    assert len(expected) > 80
    assert len(unsure) <= 5, "too slow a machine for this script"
    busy = {people.person_of[shop_id] for shop_id in s.busy}
    certain = [message for message in sent if message[2] not in unsure]
    assert Counter(m[:2] for m in certain) == Counter(m[:2] for m in expected)
    assert {m for m in certain if m[0] not in busy} == {m for m in expected if m[0] not in busy}
    assert _states(shop)["sent"] == len(sent)
    assert _collected(shop) >= {fact.id for fact in s.said if fact.kind not in ("ticket", "unsubscribe")}


def _states(shop: Shop) -> dict[str, int]:
    """Messages of the campaign in the ledger, by state."""
    return {state: count for campaign, _, state, count in shop.ledger() if campaign == CAMPAIGN}


def _collected(shop: Shop) -> set[str]:
    """Ids of the events and orders that the collector has stored."""
    keys = shop.python(
        """
        import json
        import sqlalchemy as sa
        from shopauto_pipelines.platform.postgres import engine
        from shopauto_pipelines.platform.settings import load_settings
        with engine(load_settings()).connect() as connection:
            print(json.dumps(list(connection.execute(sa.text("select key from collected")).scalars())))
        """
    )
    return set(json.loads(keys))
