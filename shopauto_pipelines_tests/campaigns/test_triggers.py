"""Triggers by the day against the same said in plain Python; and what they read, of which the future changes nothing."""

import json
import random
from calendar import isleap
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest

from shopauto_pipelines.campaigns import audience, triggers
from shopauto_pipelines.campaigns.content import DETAILS
from shopauto_pipelines.campaigns.declaration import Broadcast, Ordered
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY, DAILY_FORMS, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations.tables import REPLENISHMENT
from shopauto_pipelines.segments.tables import CHANGES, DECLARED
from shopauto_pipelines_tests.campaigns.conftest import TODAY, declared, lake_rows

Rows = list[dict[str, Any]]

PRODUCTS = {"customer_id": "string", "day": "date", "product_id": "string", "category": "string"} | dict.fromkeys(
    ("orders", "quantity", "revenue_cents", "views", "carted"), "int64"
)
PEOPLE = {"customer_id": "string", "first_order_on": "date", "last_order_on": "date", "birthday": "date"}
SAID = {"customer_id": "string", "as_of": "date", "next_order_on": "date"}
PACKS = {"customer_id": "string", "product_id": "string", "state": "string"} | dict.fromkeys(
    ("last_bought_on", "due_on", "used_up_on"), "date"
)

START = TODAY - timedelta(days=9)
WHO = ("a", "b", "c", "d")
DAYS = [START + timedelta(days=n) for n in range(10)]


def _runner(make: Callable[..., ir.Table], **tables: dict[str, str]) -> Callable[..., set[tuple]]:
    """The trigger, compiled once: a function from rows to the set of rows that it finds."""
    con = ibis.duckdb.connect(threads=1)
    unseen = {name: ibis.table(schema, name=name) for name, schema in tables.items()}
    found = make(*unseen.values())
    columns = [name for name in ("customer_id", "triggered_on", "occasion", "details") if name in found.columns]
    statement = con.compile(found.select(columns))

    def run(**rows: Rows) -> set[tuple]:
        for name, schema in tables.items():
            con.con.register(name, pa.Table.from_pylist(rows[name], schema=ibis.schema(schema).to_pyarrow()))
        listed = con.con.sql(statement).fetchall()
        assert len(set(listed)) == len(listed), "a person is triggered once"
        return set(listed)

    return run


def test_what_words_may_use_of_the_trigger_is_what_some_trigger_tells():
    con, blank = ibis.duckdb.connect(threads=1), {"string": "x", "date": TODAY, "int64": 1}

    def one(schema: dict[str, str], **told: object) -> ir.Table:
        row = {name: blank[kind] for name, kind in schema.items()} | told
        return ibis.memtable(pa.Table.from_pylist([row], schema=ibis.schema(schema).to_pyarrow()))

    found = [
        triggers.ordered(one(PRODUCTS), one(PEOPLE), Ordered()),
        triggers.browsed(one(PRODUCTS, carted=0), one(PEOPLE, last_order_on=None)),
        triggers.next_order(one(SAID), one(PEOPLE), 3, START),
        triggers.used_up(one(PACKS, state="due")),
    ]
    told = [row["details"] for rows in found for row in con.to_pyarrow(rows).to_pylist()]
    assert len(told) == len(found)
    assert {name for details in told for name in json.loads(details)} == set(DETAILS)


def _shop(seed: int) -> tuple[Rows, Rows]:
    """Products' days and people of a small shop that is as unlikely as it can be."""
    dice = random.Random(seed)
    products: Rows = []
    for who in WHO:
        for day in dice.sample(DAYS, dice.randint(0, 6)):
            for product in dice.sample(("p", "q", "r"), dice.randint(1, 3)):
                bought = dice.random() < 0.3
                products.append(
                    {"customer_id": who, "day": day, "product_id": product, "category": dice.choice(["x", "y", None]),
                     "orders": int(bought), "quantity": bought * dice.randint(1, 2),
                     "revenue_cents": bought * dice.choice([500, 900]), "views": dice.randint(0, 2),
                     "carted": int(dice.random() < 0.15)}
                )  # fmt: skip
    people: Rows = []
    for who in WHO:
        ordered = [row["day"] for row in products if row["customer_id"] == who and row["orders"]]
        first = dice.choice([START - timedelta(days=40), *ordered[:1]]) if ordered else None
        people.append(
            {
                "customer_id": who,
                "first_order_on": first,
                "last_order_on": max(ordered, default=first),
                "birthday": None,
            }
        )
    return products, people


def _best(rows: Iterable[dict[str, Any]], *by: str) -> str:
    """The product that comes first by the columns: as the details have it."""
    found = max(rows, key=lambda row: (*(row[name] for name in by), row["product_id"]))
    return json.dumps({"product_id": found["product_id"], "category": found["category"]}, separators=(",", ":"))


def _days(products: Rows, who: str) -> list[date]:
    return sorted({row["day"] for row in products if row["customer_id"] == who})


@pytest.mark.parametrize("asked", [Ordered(), Ordered(first=True), Ordered(first=False, category="x")], ids=str)
def test_an_order_triggers_by_its_day_and_tells_the_product_that_most_was_paid_for(asked):
    run = _runner(lambda p, q: triggers.ordered(p, q, asked), products=PRODUCTS, people=PEOPLE)
    for seed in range(12):
        products, people = _shop(seed)
        expected = set()
        for person in people:
            who = person["customer_id"]
            for day in _days(products, who):
                bought = [row for row in products if (row["customer_id"], row["day"]) == (who, day) and row["orders"]]
                bought = [row for row in bought if asked.category in (None, row["category"])]
                first = day == person["first_order_on"]
                if bought and asked.first in (None, first):
                    expected.add((who, day, _best(bought, "revenue_cents", "quantity")))
        assert run(products=products, people=people) == expected, seed


def test_looking_at_products_triggers_where_nothing_came_of_it_that_day_or_since():
    run = _runner(triggers.browsed, products=PRODUCTS, people=PEOPLE)
    for seed in range(16):
        products, people = _shop(seed)
        expected = set()
        for person in people:
            who = person["customer_id"]
            for day in _days(products, who):
                seen = [row for row in products if (row["customer_id"], row["day"]) == (who, day) and row["views"]]
                carted = any(row["carted"] for row in products if row["customer_id"] == who and row["day"] >= day)
                ordered = person["last_order_on"] is not None and person["last_order_on"] >= day
                if seen and not carted and not ordered:
                    expected.add((who, day, _best(seen, "views")))
        assert run(products=products, people=people) == expected, seed


@pytest.mark.parametrize(
    ("as_of", "before"),
    [(date(2026, 2, 28), 0), (date(2024, 2, 29), 0), (date(2024, 2, 28), 0), (date(2025, 12, 30), 7), (date(2026, 1, 4), 0)],
)  # fmt: skip
def test_a_birthday_triggers_once_a_year_whatever_the_calendar(as_of, before):
    start = as_of - timedelta(days=9)
    run = _runner(lambda p: triggers.birthday(p, before, start, 9), people=PEOPLE)
    born = [date(1980, 1, 1) + timedelta(days=n) for n in range(366)] + [None]
    expected = set()
    for n, day in enumerate(born):
        for passed in range(10):
            triggered = start + timedelta(days=passed)
            kept = triggered + timedelta(days=before)
            celebrated = day and (
                day.month,
                28 if (day.month, day.day) == (2, 29) and not isleap(kept.year) else day.day,
            )
            if celebrated == (kept.month, kept.day):
                expected.add((str(n), triggered, str(kept.year)))
    found = run(people=[{"customer_id": str(n), "birthday": day} for n, day in enumerate(born)])
    assert {row for row in found if start <= row[1] <= as_of} == expected
    assert expected


def test_the_next_order_triggers_on_the_first_day_it_comes_near_and_once_between_two_orders():
    run = _runner(lambda s, p: triggers.next_order(s, p, 3, START), said=SAID, people=PEOPLE)
    computed = [START - timedelta(days=1), *DAYS]
    for seed in range(16):
        dice = random.Random(seed)
        days = [day for day in computed if dice.random() < 0.9]
        people = [
            {"customer_id": who, "last_order_on": dice.choice([None, START - timedelta(days=30), *DAYS[:8]])}
            for who in WHO
        ]
        said = [
            {"customer_id": who, "as_of": day,
             "next_order_on": dice.choice([None, *(day + timedelta(days=n) for n in (1, 3, 4, 9))])}
            for who in WHO for day in days if dice.random() < 0.9
        ]  # fmt: skip
        expected = set()
        for person in people:
            who, last = person["customer_id"], person["last_order_on"]
            mine = {
                row["as_of"]: row["next_order_on"] for row in said if row["customer_id"] == who and row["next_order_on"]
            }
            if last is None:
                continue
            near = {day: (on - day).days <= 3 for day, on in sorted(mine.items()) if day >= last}
            before = False
            for day, is_near in near.items():
                first_ever = day == min(row["as_of"] for row in said)
                if is_near and not before and day >= START and (not first_ever or day == last):
                    details = json.dumps({"expected_on": mine[day].isoformat()}, separators=(",", ":"))
                    expected.add((who, day, last.isoformat(), details))
                    break
                before = is_near
        assert run(said=said, people=people) == expected, seed


def test_a_pack_triggers_when_it_is_due_and_a_re_order_is_another_occasion():
    run = _runner(triggers.used_up, packs=PACKS)
    packs = [
        {"customer_id": "a", "product_id": product, "state": state, "last_bought_on": date(2026, 5, 1), "due_on": TODAY,
         "used_up_on": TODAY + timedelta(days=3)}
        for product, state in (("p", "due"), ("q:1", "overdue"), ("q%3A1", "due"), ("r", "waiting"))
    ]  # fmt: skip
    found = run(packs=packs)
    assert {row[2] for row in found} == {"2026-05-01/p", "2026-05-01/q%3A1", "2026-05-01/q%253A1"}
    assert json.loads(next(row for row in found if row[2].endswith("/p"))[3]) == {
        "product_id": "p", "last_bought_on": "2026-05-01", "used_up_on": "2026-07-03",
    }  # fmt: skip
    again = run(packs=[packs[0] | {"last_bought_on": TODAY, "state": "waiting"}])
    assert again == set()


def test_a_yearly_broadcast_keeps_the_29th_of_february_on_the_28th():
    leap = Broadcast(yearly="02-29")
    days = [leap.days(date(year, 2, 25), date(year, 3, 5)) for year in (2023, 2024, 2100)]
    assert days == [[date(2023, 2, 28)], [date(2024, 2, 29)], [date(2100, 2, 28)]]
    assert Broadcast(yearly="12-24").days(date(2025, 12, 20), date(2026, 12, 24)) == [
        date(2025, 12, 24),
        date(2026, 12, 24),
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """Ten days, and one after the day most tests look at; ``a2`` is another id of ``a``."""
    lake = Lake(tmp_path_factory.mktemp("lake"), 1)
    for day in (*DAYS[-5:], TODAY + timedelta(days=1)):
        product = {"product_id": "p", "category": "x", "orders": 1, "quantity": 1, "revenue_cents": 5}
        viewed = {"shop_customer_id": "b", "product_id": "p", "views": 1}
        lake.write(DAILY_PRODUCTS, [day], lake_rows(DAILY_PRODUCTS, {"shop_customer_id": "a2", **product}, viewed))
        activity = [{"shop_customer_id": who, "tickets_opened": 1} for who in ("a", "a2")]
        lake.write(DAILY_ACTIVITY, [day], lake_rows(DAILY_ACTIVITY, *activity))
        forms = [{"shop_customer_id": "a2", "form": form, "submissions": 1} for form in ("webinar", "other")]
        lake.write(DAILY_FORMS, [day], lake_rows(DAILY_FORMS, *forms))
        entered = {"segment": "vip", "customer_id": "a", "change": "entered", "entered_on": day}
        lake.write(CHANGES, [day], lake_rows(CHANGES, entered))
        people = [
            {
                "customer_id": "a",
                "first_order_on": START,
                "last_order_on": day,
                "created_on": TODAY,
                "birthday": date(1990, 6, 30),
            },
            {"customer_id": "b", "created_on": TODAY},
        ]
        lake.write(CUSTOMER_360, [day], lake_rows(CUSTOMER_360, *people))
        lake.write(IDENTITIES, [day], lake_rows(IDENTITIES, {"shop_customer_id": "a2", "customer_id": "a"}))
        near = {"customer_id": "a", "next_order_on": day + timedelta(days=2)}
        lake.write(SCORES, [day], lake_rows(SCORES, near))
        pack = {
            "customer_id": "a",
            "product_id": "p",
            "last_bought_on": START,
            "due_on": TODAY,
            "used_up_on": TODAY,
            "state": "due",
        }
        lake.write(REPLENISHMENT, [day], lake_rows(REPLENISHMENT, pack))
    return lake


#: Each trigger, what it finds on the newest of three days (its people), and the tables it reads beside those all read.
KINDS = {
    "signed_up": ({}, {("b", TODAY.isoformat())}, set()),
    "segment_entered": ("vip", {("a", day.isoformat()) for day in DAYS[-4:]}, {CHANGES, DECLARED}),
    "broadcast": ({"yearly": "06-30"}, {("a", "2026-06-30"), ("b", "2026-06-30")}, set()),
    "ordered": ({"first": False}, {("a", day.isoformat()) for day in DAYS[-4:]}, {DAILY_PRODUCTS}),
    "browsed": ({}, {("b", day.isoformat()) for day in DAYS[-4:]}, {DAILY_PRODUCTS}),
    "birthday": ({}, {("a", "2026")}, set()),
    "next_order": ({}, {("a", TODAY.isoformat())}, {SCORES}),
    "used_up": ({}, {("a", f"{START}/p")}, {REPLENISHMENT}),
    "submitted": ({"form": "webinar"}, {("a", day.isoformat()) for day in DAYS[-4:]}, {DAILY_FORMS}),
    "ticket_opened": ({}, {("a", day.isoformat()) for day in DAYS[-4:]}, {DAILY_ACTIVITY}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trigger_reads_its_own_tables_and_nothing_later_than_the_day(lake, kind):
    said, expected, read = KINDS[kind]
    campaign = declared(trigger={kind: said}, audience={"include": ["everyone"]})
    campaign = campaign.model_copy(update={"steps": campaign.steps[:1]})
    tables = audience.reads(campaign)
    always = {table.name for table in audience.reads(declared(trigger={"signed_up": {}}))}
    members = {"segments/membership"} if kind == "segment_entered" else set()
    assert {table.name for table in tables} - always == {table.name for table in read} - always | members
    given = {table.name: LakeTable(lake, table) for table in tables if table.name in always | {t.name for t in read}}
    rows = _triggered(campaign, given)
    assert {(row["customer_id"], row["occasion"]) for row in rows} == expected
    assert len(rows) == len(expected)
    assert all(TODAY - timedelta(days=campaign.lookback_days) <= row["triggered_on"] <= TODAY for row in rows)
    off = campaign.model_copy(update={"enabled": False})
    assert _triggered(off, given) == []


def test_who_entered_while_the_segment_had_another_name_is_still_on_the_way(lake):
    names = {DAYS[-4]: "vip", DAYS[-3]: "vip", DAYS[-2]: "best", DAYS[-1]: "top"}
    for day, name in names.items():
        lake.write(DECLARED, [day], lake_rows(DECLARED, {"segment": name, "meaning": "m"}))
        entry = {"segment": name, "customer_id": "a", "change": "entered", "entered_on": day}
        lake.write(CHANGES, [day], lake_rows(CHANGES, entry))
    campaign = declared(trigger={"segment_entered": "top"})
    given = {table.name: LakeTable(lake, table) for table in audience.reads(campaign) if lake.days(table)}
    rows = _triggered(campaign.model_copy(update={"steps": campaign.steps[:1]}), given)
    assert {row["triggered_on"] for row in rows} == set(names)


def test_who_entered_before_two_accounts_became_one_is_still_on_the_way(tmp_path):
    lake, (entered_on, day) = Lake(tmp_path, 1), (TODAY - timedelta(days=1), TODAY)
    entries = [
        {"segment": "vip", "customer_id": who, "change": "entered", "entered_on": entered_on}
        for who in ("a", "a2", "b")
    ]
    lake.write(CHANGES, [entered_on], lake_rows(CHANGES, *entries))
    lake.write(CHANGES, [day], lake_rows(CHANGES))
    lake.write(CUSTOMER_360, [day], lake_rows(CUSTOMER_360, {"customer_id": "a"}, {"customer_id": "b"}))
    ids = [{"shop_customer_id": who, "customer_id": who[0]} for who in ("a", "a2", "b")]
    lake.write(IDENTITIES, [day], lake_rows(IDENTITIES, *ids))
    campaign = declared(trigger={"segment_entered": "vip"})
    rows = _triggered(campaign, {table.name: LakeTable(lake, table) for table in audience.reads(campaign)})
    assert sorted((row["customer_id"], row["triggered_on"]) for row in rows) == [("a", entered_on), ("b", entered_on)]


def _triggered(campaign, given: dict[str, LakeTable]) -> Rows:
    statement, behind = triggers.triggered(campaign, given, TODAY)
    lake = given[CUSTOMER_360.name].lake
    return lake.con.to_pyarrow(statement.rows(lake, "triggered", behind)).to_pylist()


def test_a_campaign_reads_segments_only_where_it_names_any():
    names = {table.name for table in audience.reads(declared())}
    assert "segments/membership" not in names
    assert "segments/membership" in {table.name for table in audience.reads(declared(audience={"include": ["vip"]}))}


def test_a_condition_is_told_to_the_planner_as_met_or_not_never_as_unknown(lake):
    steps = [
        {
            "name": "rich",
            "wait_days": 0,
            "when": "churn_factor > 2 or rfm_monetary = 5",
            "template": "a",
            "subject": "A",
        },
        {"name": "all", "wait_days": 1, "template": "a", "subject": "A"},
        {"name": "birthday", "wait_days": 2, "when": "days_to_birthday = 0", "template": "a", "subject": "A"},
    ]
    campaign = declared(steps=steps)
    conditions = {step.name: step.when for step in campaign.steps if step.when}
    facts = audience.facts(conditions, lake.on(CUSTOMER_360, TODAY), lake.on(SCORES, TODAY), TODAY)
    found = {row["customer_id"]: row for row in lake.con.to_pyarrow(facts).to_pylist()}
    unmet = {who: {step for step in row["unmet"] if step} for who, row in found.items()}
    assert unmet == {"a": {"rich"}, "b": {"rich", "birthday"}}
    assert found["a"]["last_seen_on"] == TODAY
