"""Simulated shops whose truth is known: people with a rhythm of their own who drop out after some order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pytest

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.features.customer_features import customer_features, end_of_day
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.dataset import LEAST_PEOPLE, PEOPLE, Shop, sampled
from shopauto_pipelines.predictions.models import one_thread
from shopauto_pipelines.predictions.transactions.reading import TRANSACTIONS

FIRST = date(2025, 1, 1)
DAYS = 548
LAST = FIRST + timedelta(days=DAYS - 1)
YOUNG_DAYS = 100
YOUNG_LAST = FIRST + timedelta(days=YOUNG_DAYS - 1)


def order_log(people: int, days: int = DAYS, seed: int = 0, stays: float = 3.0) -> list[tuple[str, date]]:
    """(customer, order day): gamma intervals around a mean of one's own, a chance of one's own to be gone after each."""
    rng = np.random.default_rng(seed)
    log = set()
    for person in range(people):
        at, interval, gone = float(rng.integers(0, days)), np.exp(rng.normal(3.7, 0.6)), rng.beta(1.2, stays)
        shape = 3.0 if rng.random() < 0.5 else 1.0
        while at < days:
            log.add((f"c{person:05}", FIRST + timedelta(days=int(at))))
            if rng.random() < gone:
                break
            at += max(1.0, rng.gamma(shape, interval / shape))
    return sorted(log)


def newcomers(people: int, days: int, seed: int = 1) -> list[tuple[str, date]]:
    """(customer, order day) of a young shop: all come within its first 45 days, order often, and many stop soon."""
    rng = np.random.default_rng(seed)
    log = set()
    for person in range(people):
        at, interval, gone = float(rng.integers(0, 45)), np.exp(rng.normal(2.3, 0.6)), rng.beta(1.2, 6.0)
        while at < days:
            log.add((f"c{person:05}", FIRST + timedelta(days=int(at))))
            if rng.random() < gone:
                break
            at += max(1.0, rng.exponential(interval))
    return sorted(log)


def activity_of(log: list[tuple[str, date]], cents: int = 4_000) -> ibis.Table:
    """The rollup ``features/daily_activity`` of orders alone, each of the same amount: no web events, no messages."""
    rows = {"shop_customer_id": [who for who, _ in log], "day": [day for _, day in log]}
    zero = {c.name: 0 for c in features.DAILY_ACTIVITY.columns if c.type == "int64"}
    table = ibis.memtable(rows, schema={"shop_customer_id": "string", "day": "date"})
    return table.mutate(**{name: ibis.literal(value, "int64") for name, value in zero.items()}).mutate(
        orders=ibis.literal(1, "int64"), items=ibis.literal(2, "int64"), revenue_cents=ibis.literal(cents, "int64")
    )


def shop_of(log: list[tuple[str, date]], cents: int = 4_000, most: int = PEOPLE) -> Shop:
    """The shop behind an order log, through the real features, and of ``most`` people."""
    con = ibis.duckdb.connect()
    products, carts = (
        ibis.memtable(table.arrow_schema.append(pa.field("day", pa.date32())).empty_table())
        for table in (features.DAILY_PRODUCTS, features.DAILY_CARTS)
    )
    ids = sorted({who for who, _ in log})
    identities = ibis.memtable({"shop_customer_id": ids, "customer_id": ids})
    identities, activity = sampled(con, identities, activity_of(log, cents), most=most)
    zone = Settings(_env_file=None).zone
    return Shop(
        con=con,
        features=lambda day, end: customer_features(activity, products, carts, identities, day, end, 60),
        activity=activity,
        identities=identities,
        first_day=min(day for _, day in log),
        end_of_day=lambda day: end_of_day(day, zone),
    )


def purchases(log: list[tuple[str, date]], cents: int = 4_000) -> pa.Table:
    """An order log as plain transactions."""
    rows = {"customer_id": [who for who, _ in log], "day": [day for _, day in log], "cents": [cents] * len(log)}
    return pa.table(rows, schema=TRANSACTIONS)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models are used as in a run: on one thread, which is quicker than several that wait for each other."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def log() -> list[tuple[str, date]]:
    """Orders of 1,200 people over 18 months."""
    return order_log(1_200)


@pytest.fixture(scope="session")
def shop(log: list[tuple[str, date]]) -> Shop:
    """Their shop."""
    return shop_of(log)


@pytest.fixture(scope="session")
def make_shop() -> Callable[..., Shop]:
    """Makes a shop of an order log."""
    return shop_of


@pytest.fixture(scope="session")
def trained(shop: Shop, once) -> tuple[dict, list]:
    """Models of that shop trained as of the last day, and the tests they went through: made once for all workers."""
    from shopauto_pipelines.predictions import backtest

    def make(folder):
        tests, test = [], backtest._test
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backtest, "_test", lambda *arguments: tests.append(test(*arguments)) or tests[-1])
            challengers = backtest.train(shop, LAST, 90)
        folder.mkdir()
        (folder / "trained.pickle").write_bytes(pickle.dumps((challengers, tests)))

    return pickle.loads((once("trained", make) / "trained.pickle").read_bytes())


@pytest.fixture(scope="session")
def challengers(trained) -> dict:
    """The models alone."""
    return trained[0]


@pytest.fixture(scope="session")
def young() -> list[tuple[str, date]]:
    """Orders of a hundred days of a young shop with just as many people as a model needs."""
    return newcomers(LEAST_PEOPLE, YOUNG_DAYS)


@pytest.fixture(scope="session")
def young_forecast(young, once):
    """The forecast for their next 60 days, without a shop: made once for all workers."""
    from shopauto_pipelines.predictions import plain

    def make(folder):
        folder.mkdir()
        (folder / "forecast.pickle").write_bytes(pickle.dumps(plain.forecast(purchases(young), YOUNG_LAST, 60)))

    return pickle.loads((once("young_forecast", make) / "forecast.pickle").read_bytes())
