"""At which hour people react: the rollup of the days, and the best hour out of it."""

from datetime import date, datetime, timedelta

import ibis
import pytest

from shopauto_pipelines.features import tables
from shopauto_pipelines.features.hours import PRIOR, best_hours, daily_hours
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw

TODAY = date(2025, 6, 30)


@pytest.fixture
def rolled(shop):
    """``rolled()``: signs by shop customer and time, over all days."""

    def run() -> dict[tuple[str, str], int]:
        rows = daily_hours(*(shop.table(table) for table in (raw.ORDERS, raw.EVENTS, raw.MESSAGE_EVENTS)))
        found = shop.con.to_pyarrow(rows).to_pylist()
        return {(row["shop_customer_id"], f"{row['at']:%d %H:%M}"): row["signs"] for row in found}

    return run


def test_orders_visits_openings_and_clicks_are_counted_by_the_quarter_of_an_hour(shop, rolled):
    at = datetime(2025, 6, 30, 18, 7)
    for minutes in (0, 5, 40):
        shop.event("page_view", at + timedelta(minutes=minutes), "a", session_id="s")
    shop.event("ticket_opened", at, "a", session_id="t")
    shop.order("o", at + timedelta(minutes=7), "a")
    shop.message("open", at, "a")
    shop.message("open", at, "a", is_machine=True)
    shop.message("sent", at, "a")
    shop.message("click", at + timedelta(minutes=9), "a")
    assert rolled() == {("a", "30 18:00"): 3, ("a", "30 18:15"): 1}


@pytest.fixture
def best(shop):
    """``best()``: the best hour of each person; ``best.react(who, hour, times)``: signs at an hour of UTC."""

    def react(who: str, hour: int, times: int = 1) -> None:
        shop.add(tables.DAILY_HOURS, TODAY, shop_customer_id=who, at=datetime(2025, 6, 30, hour), signs=times)

    def run() -> dict[str, int | None]:
        people = [shop.table(table) for table in (tables.DAILY_HOURS, profiles.IDENTITIES, profiles.CUSTOMERS)]
        found = shop.con.to_pyarrow(best_hours(*people, "Europe/London").order_by(ibis.asc("customer_id")))
        return {row["customer_id"]: row["best_hour"] for row in found.to_pylist()}

    for who, zone in (("a", None), ("b", "Asia/Kathmandu"), ("c", None)):
        shop.add(profiles.CUSTOMERS, TODAY, customer_id=who, time_zone=zone)
        shop.identity(who, who)
    run.react = react
    return run


def test_nobody_has_a_best_hour_where_nobody_has_ever_reacted(best):
    assert best() == {"a": None, "b": None, "c": None}


def test_the_best_hour_is_that_of_the_persons_clock(best):
    best.react("a", 18, 20)
    best.react("b", 3, 20)
    assert best() == {"a": 19, "b": 8, "c": 8}, "summer time in London, 5:45 in Nepal; ties: the earliest"


def test_few_signs_prove_nothing_and_the_hour_is_the_shops(best):
    best.react("a", 18, 50)
    best.react("c", 7, PRIOR - 1)
    assert best()["c"] == 19
    best.react("c", 7, 3)
    assert best()["c"] == 8


def test_of_two_hours_that_weigh_the_same_the_earlier_is_the_best(best):
    best.react("a", 7, 2)
    best.react("b", 20)
    best.react("b", 21)
    best.react("c", 18)
    assert best()["c"] == 8, "at 19 o'clock one sign times five, and five of the usual one; at 8 five of the usual two"


def test_several_shop_ids_of_a_person_count_together_and_unknown_ones_do_not(shop, best):
    shop.identity("a2", "a")
    best.react("a", 9, 6)
    best.react("a2", 17, 9)
    best.react("nobody", 3, 99)
    assert best()["a"] == 18
