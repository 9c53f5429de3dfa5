"""What the tests of replays share: a hand-made shop of two weeks, and campaigns of their own."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.replay.ledger import VirtualLedger
from shopauto_pipelines.replay.replaying import replay as replaying
from shopauto_pipelines.replay.result import Replay
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS
from shopauto_pipelines_tests.campaigns.conftest import declared, lake_rows
from shopauto_pipelines_tests.outbox.conftest import database_home, engine, shared_engine  # noqa: F401

FIRST, LAST = date(2026, 6, 10), date(2026, 6, 20)
DAYS = days_between(FIRST, LAST)

#: People by the day they signed up; ``old`` long before, ``shy`` never agreed.
PEOPLE = {
    "ann": FIRST,
    "bob": FIRST + timedelta(days=1),
    "cleo": FIRST + timedelta(days=2),
    "dan": FIRST + timedelta(days=2),
    "shy": FIRST,
    "old": date(2025, 1, 1),
}


def sent(
    customer: str, day: date, campaign: str, step: str, occasion: date | str, kind: str = "sent"
) -> dict[str, Any]:
    """A row of ``raw/message_events`` about a message of our own."""
    message = f"{campaign}:{step}:{customer}:{occasion}"
    return {
        "event_id": f"{message}:{kind}",
        "happened_at": datetime(day.year, day.month, day.day),
        "type": kind,
        "message_id": message,
        "shop_customer_id": customer,
        "channel": "email",
        "campaign": campaign,
    }


def make_lake(root: Path, people: dict[str, date] = PEOPLE) -> Lake:
    """The shop, with no messages: who has signed up is known, all are in ``everybody``, ``ann`` and ``cleo`` order once."""
    lake = Lake(root, threads=2)
    for day in DAYS:
        known = [who for who, since in people.items() if since <= day]
        rows = [
            {
                "customer_id": who,
                "email": f"{who}@example.com",
                "first_name": "Secret",
                "created_on": people[who],
                "churn_factor": 1.5,
                "typical_order_cents": 10_000,
                "last_visit_on": day,
            }
            for who in known
        ]
        lake.write(CUSTOMER_360, [day], lake_rows(CUSTOMER_360, *rows))
        agreed = [{"customer_id": who, "channel": "email", "state": "opted_in"} for who in known if who != "shy"]
        lake.write(CONSENT, [day], lake_rows(CONSENT, *({**row, "at": datetime(2025, 1, 1)} for row in agreed)))
        lake.write(SCORES, [day], lake_rows(SCORES))
        ids = [{"shop_customer_id": who, "customer_id": who} for who in known]
        lake.write(IDENTITIES, [day], lake_rows(IDENTITIES, *ids))
        members = [{"segment": "everybody", "customer_id": who, "entered_on": FIRST} for who in known]
        lake.write(MEMBERSHIP, [day], lake_rows(MEMBERSHIP, *members))
        lake.write(CHANGES, [day], lake_rows(CHANGES))
        orders = {"ann": FIRST + timedelta(days=2), "cleo": FIRST + timedelta(days=3)}
        ordered = [
            {"shop_customer_id": w, "orders": 1, "revenue_cents": 5_000} for w, on in orders.items() if on == day
        ]
        lake.write(DAILY_ACTIVITY, [day], lake_rows(DAILY_ACTIVITY, *ordered))
        lake.write(MESSAGE_EVENTS, [day], lake_rows(MESSAGE_EVENTS))
    return lake


def settings_of(home: Path, **values: Any) -> Settings:
    """Settings without the holdout of all campaigns, and with a key: who is held out is the same at every run."""
    return Settings(home=home, _env_file=None, **{"secret_key": "k" * 32, "holdout_percent": 0, **values})


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Lake:
    """The shop of :func:`make_lake`; tests read it, and may ``tell`` of messages."""
    return make_lake(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def tell(shop) -> Iterator[Callable[..., None]]:
    """``tell(*events)``: what became of real messages, until the test ends."""
    days = set()

    def write(*events: dict[str, Any]) -> None:
        for day in {event["happened_at"].date() for event in events}:
            rows = [event for event in events if event["happened_at"].date() == day]
            shop.write(MESSAGE_EVENTS, [day], lake_rows(MESSAGE_EVENTS, *rows))
            days.add(day)

    yield write
    for day in days:
        if day in DAYS:
            shop.write(MESSAGE_EVENTS, [day], lake_rows(MESSAGE_EVENTS))
        else:
            shop.delete(MESSAGE_EVENTS, day)


@pytest.fixture
def rules(tmp_path) -> Settings:
    """Settings without a holdout, and with a cap that is far away."""
    return settings_of(tmp_path, cap_messages=9, message_price=0.5)


@pytest.fixture
def replay(shop, rules) -> Callable[..., Replay]:
    """``replay(campaign, …)``: the replay of the campaign over the shop's days; other ``campaigns`` belong to the playbook."""

    def run(campaign: Campaign, *campaigns: Campaign, **options: Any) -> Replay:
        playbook = {one.name: one for one in sorted((campaign, *campaigns), key=lambda one: (-one.priority, one.name))}
        changes = options.pop("settings", {})
        start, end = options.pop("start", FIRST), options.pop("end", DAYS[5])
        settings = rules.model_copy(update=changes)
        return replaying(shop, settings, playbook, campaign.name, start, end, **options)

    return run


@pytest.fixture(scope="module")
def plain(shop, tmp_path_factory) -> Replay:
    """``hello`` over six days, beside a version of it of which nine in ten are held out."""
    settings = settings_of(tmp_path_factory.mktemp("home"), message_price=0.5)
    changed = campaign(holdout_percent=90)
    hello = campaign()
    return replaying(shop, settings, {"hello": hello}, "hello", FIRST, DAYS[5], changed=changed, within_days=2)


def planned(ledger: VirtualLedger, campaign: str = "hello") -> list[tuple[date, str, str]]:
    """Day, step and person of each message in a ledger."""
    rows = ledger.lake.con.con.execute(
        f"select day, step, customer_id from {ledger.decisions} where decision = 'planned' and campaign = ? order by all",
        [campaign],
    )
    return rows.fetchall()


def by_day(replay: Replay, version: int = 0) -> dict[tuple[int, str], int]:
    """Messages by the number of the day, counted from the first, and step."""
    return {((one.day - FIRST).days, one.step): one.messages for one in replay.outcomes[version].by_day}


def campaign(**changes: Any) -> Campaign:
    """``hello``: a message on the day of sign-up, a second one three days later."""
    return declared(**changes)


def days(*numbers: int) -> Sequence[date]:
    """Days by their number, counted from the first."""
    return [FIRST + timedelta(days=n) for n in numbers]
