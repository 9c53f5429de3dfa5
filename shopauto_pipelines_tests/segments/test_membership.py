import random
from datetime import date, timedelta

import ibis
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments.membership import changes, flags, members, membership
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP

DAY = date(2025, 6, 1)


def day(n: int) -> date:
    return DAY + timedelta(days=n - 1)


@pytest.fixture
def run(lake, customers_rows, scores_rows):
    """Computes a day of both tables in a lake, from ``{customer_id: {column: value}}``."""

    def compute(as_of, segments, people, into: Lake = lake):
        into.write(CUSTOMER_360, [as_of], customers_rows(people))
        into.write(SCORES, [as_of], scores_rows({}))
        own = LakeTable(into, MEMBERSHIP)
        customers, scores = into.on(CUSTOMER_360, as_of), into.on(SCORES, as_of)
        into.write(MEMBERSHIP, [as_of], membership(customers, scores, own.before(as_of), segments, as_of))
        into.write(CHANGES, [as_of], changes(own.on(as_of), own.before(as_of), as_of))

    return compute


def rows(lake, table, as_of):
    return [tuple(row[name] for name in table.schema) for row in lake.on(table, as_of).to_pyarrow().to_pylist()]


def buyers(**orders):
    return {who: {"orders": count} for who, count in orders.items()}


def test_stays_and_changes_over_days_with_leaving_and_coming_back(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    for n, people in enumerate([buyers(a=3, b=1), buyers(a=3, b=3), buyers(a=0, b=4), buyers(a=5, b=9, c=3)], start=1):
        run(day(n), many, people)
    assert rows(lake, MEMBERSHIP, day(1)) == [("many", "a", day(1))]
    assert rows(lake, MEMBERSHIP, day(2)) == [("many", "a", day(1)), ("many", "b", day(2))]
    assert rows(lake, MEMBERSHIP, day(3)) == [("many", "b", day(2))]
    assert rows(lake, MEMBERSHIP, day(4)) == [("many", "a", day(4)), ("many", "b", day(2)), ("many", "c", day(4))]
    assert rows(lake, CHANGES, day(1)) == []
    assert rows(lake, CHANGES, day(2)) == [("many", "b", "entered", day(2))]
    assert rows(lake, CHANGES, day(3)) == [("many", "a", "left", day(1))]
    assert rows(lake, CHANGES, day(4)) == [("many", "a", "entered", day(4)), ("many", "c", "entered", day(4))]


def test_a_gap_is_bridged_by_the_latest_day_computed_before_it(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    run(day(1), many, buyers(a=3, b=3))
    run(day(9), many, buyers(a=3, c=3))
    assert rows(lake, MEMBERSHIP, day(9)) == [("many", "a", day(1)), ("many", "c", day(9))]
    assert rows(lake, CHANGES, day(9)) == [("many", "b", "left", day(1)), ("many", "c", "entered", day(9))]


def test_later_days_have_no_say_in_an_earlier_one(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    run(day(9), many, buyers(a=3))
    run(day(2), many, buyers(a=3))
    assert rows(lake, MEMBERSHIP, day(2)) == [("many", "a", day(2))]
    with pytest.raises(ValueError, match="cannot be that of 2025-06-09"):
        changes(lake.on(MEMBERSHIP, day(2)), (day(9), lake.on(MEMBERSHIP, day(9))), day(2))


def test_a_customer_who_changes_value_leaves_one_segment_and_enters_another(lake, run, declare):
    fans = [declare("fans_of", "true", each="favourite_category")]
    run(day(1), fans, {"a": {"favourite_category": "tea"}})
    run(day(2), fans, {"a": {"favourite_category": "coffee"}})
    assert rows(lake, CHANGES, day(2)) == [
        ("fans_of:coffee", "a", "entered", day(2)),
        ("fans_of:tea", "a", "left", day(1)),
    ]


def a_random_shop(seed, size=400):
    dice = random.Random(seed)
    return {
        f"c{n}": {
            "orders": (orders := dice.choice([0, 0, 1, 1, 2, 5, dice.randrange(6, 30)])),
            "orders_365d": orders,
            "tenure_days": (tenure := dice.randrange(600)) if orders else None,
            "recency_days": dice.randrange(tenure + 1) if orders else None,
            "churn_factor": dice.choice([None, round(dice.random() * 5, 3)]) if orders else None,
            "revenue_cents": 500 * orders * dice.randrange(1, 9),
            "revenue_cents_365d": 300 * orders + dice.randrange(300) * bool(orders),
            "favourite_category": dice.choice([None, "tea", "coffee"]),
            "gender": dice.choice([None, "female", "male"]),
            "birthday": dice.choice([None, date(1980, dice.choice([6, 7]), dice.randrange(1, 31))]),
            "discount_seeker": dice.random() < 0.1,
        }
        for n in range(size)
    }


def test_all_segments_in_one_pass_are_the_segments_one_by_one(inside, shipped):
    shop = a_random_shop(1)
    scores = {who: {"churn_probability": n % 100 / 100} for n, who in enumerate(shop) if n % 3}
    together = inside(list(shipped.values()), shop, scores)
    one_by_one: dict[str, set[str]] = {}
    for segment in shipped.values():
        one_by_one |= inside([segment], shop, scores)
    assert together == one_by_one
    assert {name.split(":")[0] for name in together} == set(shipped), "the shop has members of every segment"


def test_one_pass_reads_each_table_once(shipped, customers_rows, scores_rows):
    customers, scores = ibis.table(CUSTOMER_360.schema, name="customers"), ibis.table(SCORES.schema, name="scores")
    sql = ibis.to_sql(membership(customers, scores, None, list(shipped.values()), DAY), dialect="duckdb").lower()
    assert sql.count('from "customers"') == 1
    assert sql.count('"scores" as') == 1


def test_any_day_is_rebuilt_to_the_same_bytes_with_any_number_of_threads(tmp_path, run, shipped):
    segments = list(shipped.values())
    lakes = [Lake(tmp_path / f"lake{threads}", threads=threads) for threads in (1, 4)]
    for n in range(1, 4):
        for one in lakes:
            run(day(n), segments, a_random_shop(n), into=one)
    first = {n: [lakes[0].path(table, day(n)).read_bytes() for table in (MEMBERSHIP, CHANGES)] for n in range(1, 4)}
    assert first == {
        n: [lakes[1].path(table, day(n)).read_bytes() for table in (MEMBERSHIP, CHANGES)] for n in range(1, 4)
    }
    run(day(2), segments, dict(reversed(a_random_shop(2).items())), into=lakes[0])
    assert first[2] == [lakes[0].path(table, day(2)).read_bytes() for table in (MEMBERSHIP, CHANGES)]


def test_flags_say_for_each_person_which_segments_they_are_in(declare, customers_rows, scores_rows):
    segments = [declare("many", "orders >= 3"), declare("of", "true", each="gender")]
    shop = {"a": {"orders": 3}, "b": {"gender": "male"}}
    found = flags(ibis.memtable(customers_rows(shop)), ibis.memtable(scores_rows({})), segments, DAY)
    assert found.order_by("customer_id").to_pyarrow().to_pylist() == [
        {"customer_id": "a", "many": "many", "of": None},
        {"customer_id": "b", "many": None, "of": "of:male"},
    ]


def test_without_a_declared_segment_everybody_has_left(lake, run, declare):
    run(day(1), [declare("many", "orders >= 3")], buyers(a=3))
    run(day(2), [], buyers(a=3))
    assert rows(lake, MEMBERSHIP, day(2)) == []
    assert rows(lake, CHANGES, day(2)) == [("many", "a", "left", day(1))]


def test_members_are_found_by_segment_by_value_and_by_the_name_of_all_values(lake, run, declare):
    segments = [declare("many", "orders >= 3"), declare("of", "true", each="gender"), declare("off", "orders = 1")]
    shop = {"a": {"orders": 3, "gender": "male"}, "b": {"orders": 1, "gender": "female"}}
    run(day(1), segments, shop)

    def who(*names):
        return sorted(members(lake.on(MEMBERSHIP, day(1)), *names).customer_id.to_pyarrow().to_pylist())

    assert who("many") == ["a"]
    assert who("of") == ["a", "b"]
    assert who("of:male") == ["a"]
    assert who("of:male", "off") == ["a", "b"]
    assert who("of:", "unknown") == []


def test_lineage_leads_back_to_the_columns_that_conditions_use(lake, run, declare):
    segments = [declare("rich", "rfm_monetary = 5 and churn_probability > 0.5")]
    run(day(1), segments, buyers(a=3))
    customers, scores = lake.on(CUSTOMER_360, day(1)), lake.on(SCORES, day(1))
    previous = (day(1), lake.on(MEMBERSHIP, day(1)))
    lineage = column_lineage(membership(customers, scores, previous, segments, day(2)), lake)
    assert lineage["segment"] == {
        ("features/customer_360", "orders"),
        ("features/customer_360", "revenue_cents"),
        ("features/customer_360", "refund_cents"),
        ("predictions/scores", "churn_probability"),
    }
    assert lineage["customer_id"] == {("features/customer_360", "customer_id")}
    assert lineage["entered_on"] == {("segments/membership", "entered_on")}
