"""What ``did`` counts, against a plain recount of the same rows, and which days and tables are read for it."""

from dataclasses import replace
from datetime import date, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shopauto_pipelines.features.tables import (
    CUSTOMER_360,
    DAILY_ACTIVITY,
    DAILY_FORMS,
    DAILY_MESSAGES,
    DAILY_PRODUCTS,
)
from shopauto_pipelines.platform.lake import MissingPartition, days_between
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import inputs
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.membership import evaluated, flags
from shopauto_pipelines_tests.segments.conftest import rollup_rows

AS_OF = date(2025, 6, 30)

#: Shop ids by person: ann has two, and nobody has told the identities of zoe.
PERSONS = {"ann": "ann", "ann2": "ann", "bob": "bob"}
PEOPLE = ("ann", "bob", "zoe", "idle")

#: Of each event: how often a row says it happened.
TIMES = {
    "ordered": lambda row: int(row["orders"] > 0),
    "bought": lambda row: int(row["orders"] > 0),
    "viewed": lambda row: row["views"],
    "carted": lambda row: row["carted"],
    "visited": lambda row: row["visits"],
    "searched": lambda row: row["searches"],
    "refunded": lambda row: row["refunds"],
    "mailed": lambda row: row["sent"],
    "opened": lambda row: row["opens"],
    "clicked": lambda row: row["clicks"],
    "asked_for_help": lambda row: row["tickets_opened"],
    "submitted": lambda row: row["submissions"],
}

#: Filters by event: SQL, and the same in Python. What is not known does not count.
FILTERS = {
    "ordered": [
        ("amount_cents >= 300", lambda row: row["revenue_cents"] >= 300),
        ("with_coupon", lambda row: row["coupon_orders"] > 0),
    ],
    "bought": [
        ("category = 'tea', quantity >= 2", lambda row: row["category"] == "tea" and row["quantity"] >= 2),
        ("product_id in ('p1', 'p2') or amount_cents > 400", lambda row: row["product_id"] != "p3" or row["revenue_cents"] > 400),
    ],
    "viewed": [("not category = 'tea'", lambda row: row["category"] == "mugs")],
    "carted": [("category is null", lambda row: row["category"] is None)],
    "mailed": [("campaign = 'welcome'", lambda row: row["campaign"] == "welcome")],
    "opened": [("channel = 'email'", lambda row: row["channel"] == "email")],
    "clicked": [("campaign is null and channel <> 'sms'", lambda row: row["campaign"] is None and row["channel"] == "email")],
    "submitted": [("form like 'w%'", lambda row: row["form"].startswith("w"))],
}  # fmt: skip

_few = st.integers(0, 2)
_key = {
    "shop_customer_id": st.sampled_from(["ann", "ann2", "bob", "zoe"]),
    "day": st.integers(-3, 60).map(lambda ago: AS_OF - timedelta(days=ago)),  # some of it after the day
}
_ROWS = {
    DAILY_ACTIVITY: {
        "revenue_cents": st.integers(0, 600),
        **dict.fromkeys(("orders", "coupon_orders", "visits", "searches", "refunds", "tickets_opened"), _few),
    },
    DAILY_PRODUCTS: {
        "product_id": st.sampled_from(["p1", "p2", "p3"]),
        "category": st.sampled_from(["tea", "mugs", None]),
        "revenue_cents": st.integers(0, 600),
        **dict.fromkeys(("orders", "quantity", "views", "carted"), _few),
    },
    DAILY_MESSAGES: {
        "channel": st.sampled_from(["email", "sms"]),
        "campaign": st.sampled_from(["welcome", None]),
        **dict.fromkeys(("sent", "opens", "clicks"), _few),
    },
    DAILY_FORMS: {"form": st.sampled_from(["wish", "quiz"]), "submissions": _few},
}
_history = st.fixed_dictionaries(
    {table: st.lists(st.fixed_dictionaries(_key | row), max_size=25) for table, row in _ROWS.items()}
)


def every_question():
    """``(SQL, event, filter in Python, at least, within)``: each event with each of its filters, several windows."""
    for number, event in enumerate(EVENTS):
        for more, (sql, holds) in enumerate([("", lambda row: True), *FILTERS.get(event, [])]):
            at_least, within = 1 + (number + more) % 4, (None, 1, 7, 30)[(number + more) % 4]
            said = [f"'{event}'", *filter(None, [sql]), f"at_least => {at_least}"]
            said += [f"within => {within}"] if within else []
            yield f"did({', '.join(said)})", event, holds, at_least, within


QUESTIONS = list(every_question())

_STRINGS = {table: [name for name in row if table.schema[name].is_string()] for table, row in _ROWS.items()}


def merged(rows, key):
    """One row per key, the numbers added up."""
    found = {}
    for row in rows:
        kept = found.setdefault(tuple(row[name] for name in key), {name: row[name] for name in key})
        for name in row.keys() - set(key):
            kept[name] = kept.get(name, 0) + row[name]
    return list(found.values())


@settings(max_examples=4, deadline=None, derandomize=True)
@given(_history)
def test_did_is_what_a_plain_recount_says(inputs_of, declare, history):
    history = {table: merged(rows, ["shop_customer_id", "day", *_STRINGS[table]]) for table, rows in history.items()}
    by_person = {
        table: merged(
            [row | {"shop_customer_id": PERSONS.get(row["shop_customer_id"], row["shop_customer_id"])} for row in rows],
            ["shop_customer_id", "day", *_STRINGS[table]],
        )
        for table, rows in history.items()
    }
    segments = [declare(f"q{n}", sql) for n, (sql, *_rest) in enumerate(QUESTIONS)]
    found = flags(inputs_of({who: {} for who in PEOPLE}, did=history, persons=PERSONS), segments, AS_OF)
    members = {row["customer_id"]: row for row in found.to_pyarrow().to_pylist()}
    for n, (sql, event, holds, at_least, within) in enumerate(QUESTIONS):
        for person in PEOPLE:
            times = sum(
                TIMES[event](row)
                for row in by_person[EVENTS[event].rollup]
                if row["shop_customer_id"] == person
                and row["day"] <= AS_OF
                and (within is None or (AS_OF - row["day"]).days < within)
                and holds(row)
            )
            assert (members[person][f"q{n}"] is not None) == (times >= at_least), f"{person}: {sql}, {times} times"


def test_every_event_reads_columns_that_its_rollup_has():
    for event in EVENTS.values():
        assert set(TIMES) == set(EVENTS)
        assert event.rollup.partition == "day"
        assert not {c.name for c in event.columns.values() if c.private}


def test_how_often_it_happened_is_said_even_where_it_is_not_often_enough(inputs_of, declare):
    often = declare(
        "often", "did('viewed', at_least => 3, within => 7) and not did('viewed', at_least => 9, within => 7)"
    )
    seen = [{"shop_customer_id": "a", "product_id": "p", "views": 2, "day": AS_OF}]
    rows = evaluated(inputs_of({"a": {}, "b": {}}, did={DAILY_PRODUCTS: seen}), [often], AS_OF)
    (column,) = {did.column for did in often.predicate.dids}
    assert column == "viewed within 7 days"
    counted = {row["customer_id"]: row[column] for row in rows.to_pyarrow().to_pylist()}
    assert counted == {"a": 2, "b": 0}


def test_what_is_bought_on_one_day_is_one_purchase_with_its_sum(inputs_of, declare):
    segments = [
        declare("twice", "did('ordered', at_least => 2)"),
        declare("much", "did('ordered', amount_cents >= 5000)"),
        declare("again", "did('bought', product_id = 'p', at_least => 2)"),
    ]
    did = {
        DAILY_ACTIVITY: [{"shop_customer_id": "a", "orders": 2, "revenue_cents": 6000, "day": AS_OF}],
        DAILY_PRODUCTS: [{"shop_customer_id": "a", "product_id": "p", "orders": 2, "day": AS_OF}],
    }
    found = flags(inputs_of({"a": {}}, did=did), segments, AS_OF).to_pyarrow().to_pylist()
    assert found == [{"customer_id": "a", "twice": None, "much": "much", "again": None}]


def test_what_is_bought_with_two_shop_ids_on_one_day_is_one_purchase_of_the_person(inputs_of, declare):
    segments = [
        declare("once", "did('ordered') and did('bought', category = 'tea')"),
        declare("twice", "did('ordered', at_least => 2) or did('bought', product_id = 'p', at_least => 2)"),
        declare("much", "did('ordered', amount_cents >= 5000) and did('bought', quantity = 3)"),
        declare("looked", "did('viewed', at_least => 4)"),
    ]
    ids = [{"shop_customer_id": name, "orders": 1, "day": AS_OF} for name in ("a", "a2")]
    did = {
        DAILY_ACTIVITY: [row | {"revenue_cents": 2500} for row in ids],
        DAILY_PRODUCTS: [
            row | {"product_id": "p", "category": "tea", "quantity": n, "views": 2} for n, row in enumerate(ids, 1)
        ],
    }
    found = flags(inputs_of({"a": {}}, did=did, persons={"a2": "a"}), segments, AS_OF).to_pyarrow().to_pylist()
    assert found == [{"customer_id": "a", "once": "once", "twice": None, "much": "much", "looked": "looked"}]


def test_questions_that_differ_in_capitals_alone_are_two(inputs_of, declare):
    segments = [
        declare(name, f"did('bought', category = '{name.title() if name == 'tea' else 'tea'}')")
        for name in ("tea", "low")
    ]
    bought = [{"shop_customer_id": "a", "product_id": "p", "category": "Tea", "orders": 1, "day": AS_OF}]
    found = flags(inputs_of({"a": {}}, did={DAILY_PRODUCTS: bought}), segments, AS_OF)
    assert found.to_pyarrow().to_pylist() == [{"customer_id": "a", "tea": "tea", "low": None}]


def test_what_happens_after_the_day_changes_nothing(inputs_of, declare):
    segments = [declare("asked", "did('viewed') or did('ordered', within => 30) or did('clicked', campaign = 'x')")]
    later = [
        {"shop_customer_id": "a", "day": AS_OF + timedelta(days=days), "product_id": "p", "views": 5}
        for days in (1, 400)
    ]
    ordered = [{"shop_customer_id": "a", "day": AS_OF + timedelta(days=1), "orders": 1}]
    known = inputs_of({"a": {}}, did={DAILY_PRODUCTS: later, DAILY_ACTIVITY: ordered})
    assert flags(known, segments, AS_OF).to_pyarrow().to_pylist() == [{"customer_id": "a", "asked": None}]
    tomorrow = AS_OF + timedelta(days=1)
    assert flags(known, segments, tomorrow).to_pyarrow().to_pylist() == [{"customer_id": "a", "asked": "asked"}]


@pytest.fixture
def written(lake, customers_rows, scores_rows):
    """A lake with people and what they viewed on four days, one of them after the as-of day."""
    lake.write(CUSTOMER_360, [AS_OF], customers_rows({"a": {}}))
    lake.write(SCORES, [AS_OF], scores_rows({}))
    who = {"shop_customer_id": ["a"], "customer_id": ["a"], "rule": ["shop_id"], "rules_version": [1]}
    lake.write(IDENTITIES, [AS_OF], pa.table(who))
    seen = [AS_OF - timedelta(days=ago) for ago in (30, 29, 0, -1)]
    rows = [{"shop_customer_id": "a", "product_id": "p", "views": 1, "day": day} for day in seen]
    lake.write(DAILY_PRODUCTS, days_between(seen[0], seen[-1]), rollup_rows(DAILY_PRODUCTS, rows))
    return lake


def test_only_the_rollups_and_days_that_count_are_read(written, declare):
    segments = [declare("a", "did('viewed', within => 30)"), declare("b", "did('viewed', within => 7) or orders > 3")]
    given_ = inputs.read(written, segments, AS_OF)
    assert set(given_.rollups) == {DAILY_PRODUCTS.name}
    days = sorted(given_.rollups[DAILY_PRODUCTS.name].day.to_pyarrow().to_pylist())
    assert days == [AS_OF - timedelta(days=29), AS_OF]
    for day in (AS_OF + timedelta(days=1), AS_OF - timedelta(days=30)):  # not even looked at
        written.path(DAILY_PRODUCTS, day).write_bytes(b"not Parquet")
    assert flags(inputs.read(written, segments, AS_OF), segments, AS_OF).to_pyarrow().to_pylist() == [
        {"customer_id": "a", "a": "a", "b": "b"}
    ]


def test_a_question_about_ever_reads_every_day_until_then(written, declare):
    segments = [declare("a", "did('viewed', at_least => 3)"), declare("b", "did('viewed', within => 7)")]
    days = inputs.read(written, segments, AS_OF).rollups[DAILY_PRODUCTS.name].day
    assert sorted(days.to_pyarrow().to_pylist()) == [AS_OF - timedelta(days=n) for n in (30, 29, 0)]


def test_a_rollup_whose_day_is_missing_is_told_and_not_taken_for_never(written, declare):
    written.delete(DAILY_PRODUCTS, AS_OF)
    with pytest.raises(MissingPartition, match=f"daily_products has not been computed for {AS_OF}"):
        inputs.read(written, [declare("a", "not did('viewed')")], AS_OF)
    assert inputs.read(written, [declare("a", "orders > 3")], AS_OF).rollups == {}


def test_a_rollup_that_was_never_computed_is_told(written, declare):
    for question in ("did('submitted', within => 30)", "not did('submitted')"):
        with pytest.raises(MissingPartition, match=f"daily_forms has not been computed for {AS_OF}"):
            inputs.read(written, [declare("a", question)], AS_OF)


def test_a_missing_day_in_between_is_told_by_who_asks_about_it_alone(written, declare):
    gap = AS_OF - timedelta(days=7)
    written.delete(DAILY_PRODUCTS, gap)
    for question in ("did('viewed', within => 8)", "not did('viewed')"):
        with pytest.raises(MissingPartition, match=f"daily_products has not been computed for {gap}"):
            inputs.read(written, [declare("a", question)], AS_OF)
    for question in ("did('viewed', within => 7)", "orders > 3"):
        inputs.read(written, [declare("a", question)], AS_OF)


def test_before_the_first_day_of_a_rollup_nothing_is_missing(written, declare):
    for question in ("did('viewed', within => 365)", "did('viewed')"):
        days = inputs.read(written, [declare("a", question)], AS_OF).rollups[DAILY_PRODUCTS.name].day
        assert days.count().execute() == 3


def test_without_a_question_no_event_is_read(written, declare):
    given_ = inputs.read(written, [declare("a", "orders > 3")], AS_OF)
    assert given_.identities is None
    assert given_.rollups == {}
    with pytest.raises(MissingPartition, match="has not been computed"):
        inputs.read(written, [], AS_OF - timedelta(days=1))
    with pytest.raises(ValueError, match="identities and rollups are needed"):
        evaluated(replace(given_), [declare("a", "did('viewed')")], AS_OF)
