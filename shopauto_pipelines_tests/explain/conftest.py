"""A day of a small shop whose people meet with every important decision, its audiences by the planner, and its ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns import audience as logic
from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns, planned_before
from shopauto_pipelines.campaigns.holdout import holdout_key, is_held_out
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES, DAILY_ACTIVITY, DAILY_PRODUCTS
from shopauto_pipelines.outbox import ledger, links
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.backtest import Challenger
from shopauto_pipelines.predictions.own import Own, OwnChurn
from shopauto_pipelines.predictions.store import ModelStore
from shopauto_pipelines.predictions.tables import MODELS, SCORES
from shopauto_pipelines.profiles.tables import CONSENT, CUSTOMERS, IDENTITIES
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.campaigns.conftest import lake_rows
from shopauto_pipelines_tests.outbox.conftest import database_home, emptied, reserve, shared_engine  # noqa: F401

DAY = date(2026, 6, 30)
AT = datetime(2026, 7, 1, 5, tzinfo=UTC)
CAMPAIGNS = ("welcome", "review", "newsletter")
MODEL = "churn-2026-06-01-byrecency"

#: What must not be seen anywhere.
SECRET = "PRIVATE"
BIRTHDAY = date(1987, 3, 4)


class ByRecency:
    """A model of a shop's own that looks at one feature alone: a hundredth more for every day since the last order."""

    @classmethod
    def fit(cls, windows, present, horizon):
        return cls()

    def __call__(self, features):
        return np.clip(features["recency_days"] / 100, 0, 1)

    def as_dict(self):
        return {}

    @classmethod
    def from_dict(cls, parts):
        return cls()


OWN = Own(churn=ByRecency)


def before(days: int) -> date:
    return DAY - timedelta(days=days)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12)


def place(number: int, file: str) -> dict[str, Any]:
    """Where a raw row came from."""
    return {"source": "shop", "source_file": file, "source_row": number}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """No holdout of all campaigns."""
    return Settings(home=tmp_path_factory.mktemp("home"), holdout_percent=0.0, secret_key="k", _env_file=None)


@pytest.fixture(scope="module")
def campaigns() -> dict[str, Campaign]:
    shipped = load_campaigns()
    return {name: shipped[name] for name in shipped if name in CAMPAIGNS}


@pytest.fixture(scope="module")
def named(settings, campaigns) -> Callable[..., str]:
    """``named("new")``: an id that no campaign holds out; with ``held`` one that ``welcome`` does, and only that."""

    def find(prefix: str, held: bool = False) -> str:
        for n in range(10_000):
            who = f"{prefix}{n}"
            out = {
                name: is_held_out(who, holdout_key(settings.hash_key, name), campaign.holdout_percent)
                for name, campaign in campaigns.items()
            }
            if out["welcome"] == held and sum(out.values()) == held:
                return who
        raise AssertionError("nobody is so")

    return find


@pytest.fixture(scope="module")
def who(named) -> dict[str, str]:
    """The people by what happens to them."""
    people = {name: named(name) for name in ("new", "shy", "out", "picky", "full", "buyer", "keen")}
    return people | {"held": named("held", held=True)}


@pytest.fixture(scope="module")
def lake(tmp_path_factory, settings, campaigns, who) -> Lake:
    """All tables of the day, hand-made, and what the planner makes of them."""
    lake = Lake(settings.lake_path, threads=1)
    _write_profiles(lake, who)
    _write_raw(lake, who)
    _write_scores(lake, settings, who)
    for name, campaign in campaigns.items():
        first = tuple(LakeTable(lake, audience(one)) for one in planned_before(name, campaigns))
        sources = logic.Sources({table.name: LakeTable(lake, table) for table in logic.reads(campaign)}, first)
        lake.write(audience(name), [DAY], logic.audience(campaign, sources, settings, DAY))
    return lake


def _fill(lake: Lake, table: Table, day: date, *rows: Mapping[str, Any]) -> None:
    names = set(table.schema.names)
    lake.write(table, [day], lake_rows(table, *({k: v for k, v in row.items() if k in names} for row in rows)))


def _write_profiles(lake: Lake, who: Mapping[str, str]) -> None:
    private = {
        "email": f"{SECRET}-mail@example.com",
        "phone": f"+{SECRET}",
        "first_name": f"{SECRET}-Nia",
        "last_name": f"{SECRET}-Noname",
        "birthday": BIRTHDAY,
    }
    today = ("new", "shy", "out", "picky", "full", "held")
    created = {**dict.fromkeys(today, DAY), "buyer": before(300), "keen": before(90)}
    bought = {"buyer": before(14), "keen": before(1)}
    rows = []
    for name, since in created.items():
        last = bought.get(name)
        habit = {"orders": 2, "orders_365d": 2, "tenure_days": 200, "churn_factor": 0.5} if last else {}
        recency = (
            {"last_order_on": last, "recency_days": (DAY - last).days, "first_order_on": before(200)} if last else {}
        )
        rows.append({"customer_id": who[name], "created_on": since, "language": "en", **private, **habit, **recency})
    for table in (CUSTOMER_360, CUSTOMERS, CUSTOMER_FEATURES):
        _fill(lake, table, DAY, *rows)
    ids = [{"customer_id": who[name], "shop_customer_id": who[name], "rule": "shop_id"} for name in created]
    _fill(lake, IDENTITIES, DAY, *ids, {"customer_id": who["buyer"], "shop_customer_id": "old-shop:7", "rule": "email"})
    agreed = [name for name in created if name not in ("shy", "out")]
    refused = {"picky": "offers,welcome"}
    states = [
        {
            "customer_id": who[n],
            "channel": "email",
            "state": "opted_in",
            "source": "shop",
            "at": noon(DAY),
            "refused_topics": refused.get(n),
        }
        for n in agreed
    ]
    left = {
        "customer_id": who["out"],
        "channel": "email",
        "state": "opted_out",
        "source": "unsubscribe",
        "at": noon(before(1)),
    }
    _fill(lake, CONSENT, DAY, *states, left)
    inside = {"segment": "review_candidates", "customer_id": who["buyer"], "entered_on": before(4)}
    _fill(lake, MEMBERSHIP, DAY, inside)


def _write_raw(lake: Lake, who: Mapping[str, str]) -> None:
    secret = {"email": f"{SECRET}-raw@example.com", "first_name": SECRET, "birthday": BIRTHDAY, "fields": SECRET}
    accounts = [
        {
            "shop_customer_id": who[name],
            "changed_at": noon(DAY),
            "created_at": noon(DAY),
            **secret,
            **place(40 + n, "customers.csv"),
        }
        for n, name in enumerate(("new", "shy", "out", "full", "held"))
    ]
    _fill(lake, raw.CUSTOMERS, DAY, *accounts)
    agreed = [
        {
            "shop_customer_id": who[n],
            "channel": "email",
            "state": "opted_in",
            "changed_at": noon(DAY),
            **place(7, "consents.csv"),
        }
        for n in ("new", "picky", "full", "held", "buyer", "keen")
    ]
    _fill(lake, raw.CONSENTS, DAY, *agreed)
    chosen = {"shop_customer_id": who["picky"], "channel": "email", "state": "opted_out"}
    said = ((3, "welcome", 60), (2, "welcome", 61), (1, "offers", 62))
    for day, topic, number in said:
        row = {**chosen, "topic": topic, "changed_at": noon(before(day)), **place(number, "preferences.csv")}
        _fill(lake, raw.TOPIC_CHOICES, before(day), row)
    for day, name, order, number in ((14, "buyer", "o1", 11), (14, "keen", "o2", 12), (1, "keen", "o3", 13)):
        mine = {"shop_customer_id": who[name], "order_id": order, "ordered_at": noon(before(day)), **secret}
        others = {"order_id": "other", "ordered_at": noon(before(day)), **place(99, "orders.csv")}
        if (day, name) == (14, "keen"):
            continue
        both = [mine | {"total_cents": 500} | place(number, "orders.csv")]
        if day == 14:
            keen = {
                "shop_customer_id": who["keen"],
                "order_id": "o2",
                "ordered_at": noon(before(14)),
                **place(12, "orders.csv"),
            }
            both.append(keen)
            line = {"order_id": "o1", "line_number": 1, "shop_customer_id": who["buyer"], "product_id": "tent"}
            _fill(lake, raw.ORDER_LINES, before(14), {**line, "kind": "product", **place(21, "order_lines.csv")})
        _fill(lake, raw.ORDERS, before(day), *both, others)
    left = {"shop_customer_id": who["buyer"], "type": "add_to_cart"}
    both = [
        {
            **left,
            "event_id": f"v{n}",
            "cart_id": cart,
            "product_id": "tent",
            "happened_at": noon(DAY),
            **place(n, "events.csv"),
        }
        for n, cart in ((31, "cart9"), (32, "cart8"))
    ]
    _fill(lake, raw.EVENTS, DAY, *both)
    _fill(lake, raw.ORDERS, DAY)
    sent = {"type": "sent", "channel": "email", "shop_customer_id": who["full"], "campaign": "spring_sale"}
    for n in (1, 2, 5):
        row = {**sent, "event_id": f"e{n}", "happened_at": noon(before(n)), **place(n, "message_events.csv")}
        gone = {
            **row,
            "event_id": "u",
            "type": "unsubscribe",
            "shop_customer_id": who["out"],
            **place(8, "message_events.csv"),
        }
        _fill(lake, raw.MESSAGE_EVENTS, before(n), row, *([gone] if n == 1 else []))
    old = {**sent, "event_id": "e6", "happened_at": noon(before(6)), **place(6, "message_events.csv")}
    _fill(lake, raw.MESSAGE_EVENTS, before(6), old)
    _fill(lake, raw.MESSAGE_EVENTS, DAY)
    tent = {"product_id": "tent", "category": "camping", "orders": 1, "quantity": 1, "revenue_cents": 500}
    ordered = {14: ("buyer", "keen"), 1: ("keen",)}
    for n in range(14, -1, -1):  # no day of a rollup is missing
        names = ordered.get(n, ())
        bought = ({"shop_customer_id": who[name], **tent} for name in names) if n == 14 else ()
        _fill(lake, DAILY_PRODUCTS, before(n), *bought)
        heard = [{"shop_customer_id": who["full"], "emails_sent": 1}] if n in (1, 2, 5, 6) else []
        did = [{"shop_customer_id": who[name], "orders": 1} for name in names]
        _fill(lake, DAILY_ACTIVITY, before(n), *did, *heard)


def _write_scores(lake: Lake, settings: Settings, who: Mapping[str, str]) -> None:
    """Scores as the model gives them: a hundredth for every day since the last order."""
    challenger = Challenger("churn", before(29), OwnChurn(ByRecency()), True, "passed")
    ModelStore(settings.models_path, OWN).save(MODEL, challenger)
    common = {"trained_as_of": before(29), "verdict": "passed", "challenger_passed": True, "named": False}
    _fill(
        lake,
        MODELS,
        DAY,
        {"target": "churn", "model_id": MODEL, **common},
        {"target": "orders", "verdict": "not enough data"},
    )
    told = {"buyer": 0.14, "keen": 0.01}
    _fill(
        lake,
        SCORES,
        DAY,
        *({"customer_id": who[n], "churn_probability": p, "model_id": MODEL} for n, p in told.items()),
    )


@pytest.fixture(scope="module")
def ledger_engine(shared_engine, lake, settings, who) -> sa.Engine:  # noqa: F811
    """A ledger in which ``new`` was welcomed, and ``buyer``'s message was held back."""
    with emptied(shared_engine).begin() as connection:
        for campaign, name, step in (("welcome", "new", "hello"), ("review", "buyer", "how_was_it")):
            rows = lake.on(audience(campaign), DAY).to_pyarrow().to_pylist()
            row = next(row for row in rows if (row["customer_id"], row["step"]) == (who[name], step))
            keys = ("step", "customer_id", "occasion", "channel", "language", "template", "explanation", "send_from")
            message = {
                **{key: row[key] for key in keys},
                "campaign": campaign,
                "as_of": DAY,
                "address_hash": links.address_hash(settings.hash_key, "email", f"{SECRET}-mail@example.com"),
            }
            ledger.plan(connection, [message], run_id="run-1", at=AT)
        cart = {"trigger": "cart_abandoned", "triggered_on": DAY.isoformat(), "wait_hours": 1.0, "cart": {"tent": 1}}
        message = {
            **message,
            "campaign": "abandoned_cart",
            "step": "reminder",
            "occasion": "cart9",
            "explanation": cart,
        }
        ledger.plan(connection, [message], run_id="run-2", at=AT)
        within_the_day = {**message, "occasion": "cart8", "as_of": before(1)}
        ledger.plan(connection, [within_the_day], run_id="run-3", at=AT)
        sent = reserve(connection, campaign="welcome", as_of=DAY, at=AT).messages
        ledger.settle(connection, [ledger.Settled(sent[0].id, "sent", None, "p1")], by="me", at=AT)
        waiting = [number for number, _ in ledger.planned_keys(connection, "review", DAY, ledger.newest_id(connection))]
        ledger.withdraw(connection, waiting, at=AT)
    return shared_engine


@pytest.fixture(scope="module")
def connection(ledger_engine):
    """A connection to it."""
    with ledger_engine.connect() as connection:
        yield connection


@pytest.fixture
def home(monkeypatch, shopauto, lake, settings, ledger_engine):
    """The environment of a process that works on this shop."""
    url = ledger_engine.url.set(drivername="postgresql").render_as_string(False)
    for name, value in {"HOME": settings.home, "POSTGRES_URL": url, "SECRET_KEY": "k", "HOLDOUT_PERCENT": 0}.items():
        monkeypatch.setenv(f"SHOPAUTO_{name}", str(value))
    return settings.home
