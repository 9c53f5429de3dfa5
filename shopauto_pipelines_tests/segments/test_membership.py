import random
from dataclasses import replace
from datetime import date, timedelta

import ibis
import pyarrow as pa
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.inputs import Inputs
from shopauto_pipelines.segments.meaning import declared
from shopauto_pipelines.segments.membership import changes, flags, members, membership
from shopauto_pipelines.segments.stays import Previous, previous
from shopauto_pipelines.segments.tables import CHANGES, DECLARED, MEMBERSHIP
from shopauto_pipelines.segments.why import with_referred

DAY = date(2025, 6, 1)


def day(n: int) -> date:
    return DAY + timedelta(days=n - 1)


@pytest.fixture
def run(lake, inputs_of, customers_rows, scores_rows):
    """Computes a day of both tables in a lake, from ``{customer_id: {column: value}}``."""

    def compute(as_of, segments, people, into: Lake = lake, joined=()):
        into.write(CUSTOMER_360, [as_of], customers_rows(people))
        into.write(SCORES, [as_of], scores_rows({}))
        ids = [
            {"shop_customer_id": who, "customer_id": person}
            for who, person in [*((who, who) for who in people), *joined]
        ]
        blank = {"rule": "email", "rules_version": 1}
        into.write(IDENTITIES, [as_of], pa.Table.from_pylist([each | blank for each in ids], IDENTITIES.arrow_schema))
        into.write(DECLARED, [as_of], declared(segments))
        given = replace(inputs_of(people), customers_360=into.on(CUSTOMER_360, as_of), scores=into.on(SCORES, as_of))
        into.write(MEMBERSHIP, [as_of], membership(given, previous(into, as_of), segments, as_of))
        into.write(CHANGES, [as_of], changes(into.on(MEMBERSHIP, as_of), previous(into, as_of), as_of))

    return compute


def rows(lake, table, as_of):
    return [tuple(row[name] for name in table.schema) for row in lake.on(table, as_of).to_pyarrow().to_pylist()]


def buyers(**orders):
    return {who: {"orders": count} for who, count in orders.items()}


def test_stays_and_changes_over_days_with_leaving_and_coming_back(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    for n, people in enumerate([buyers(a=3, b=1), buyers(a=3, b=3), buyers(a=0, b=4), buyers(a=5, b=9, c=3)], start=1):
        run(day(n), many, people)
    assert rows(lake, MEMBERSHIP, day(1)) == [("many", "a", day(1), None)]
    assert rows(lake, MEMBERSHIP, day(2)) == [("many", "a", day(1), None), ("many", "b", day(2), None)]
    assert rows(lake, MEMBERSHIP, day(3)) == [("many", "b", day(2), None)]
    assert rows(lake, MEMBERSHIP, day(4)) == [
        ("many", "a", day(4), None),
        ("many", "b", day(2), None),
        ("many", "c", day(4), None),
    ]
    assert rows(lake, CHANGES, day(1)) == []
    assert rows(lake, CHANGES, day(2)) == [("many", "b", "entered", day(2))]
    assert rows(lake, CHANGES, day(3)) == [("many", "a", "left", day(1))]
    assert rows(lake, CHANGES, day(4)) == [("many", "a", "entered", day(4)), ("many", "c", "entered", day(4))]


def test_a_gap_is_bridged_by_the_latest_day_computed_before_it(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    run(day(1), many, buyers(a=3, b=3))
    run(day(9), many, buyers(a=3, c=3))
    assert rows(lake, MEMBERSHIP, day(9)) == [("many", "a", day(1), None), ("many", "c", day(9), None)]
    assert rows(lake, CHANGES, day(9)) == [("many", "b", "left", day(1)), ("many", "c", "entered", day(9))]


def test_later_days_have_no_say_in_an_earlier_one(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    run(day(9), many, buyers(a=3))
    run(day(2), many, buyers(a=3))
    assert rows(lake, MEMBERSHIP, day(2)) == [("many", "a", day(2), None)]
    with pytest.raises(ValueError, match="cannot be that of 2025-06-09"):
        changes(lake.on(MEMBERSHIP, day(2)), Previous(day(9), lake.on(MEMBERSHIP, day(9))), day(2))


def test_who_is_joined_with_an_older_account_stays(lake, run, declare):
    many = [declare("many", "orders >= 3")]
    run(day(1), many, buyers(b=3, c=3, d=3))
    run(day(2), many, buyers(a=9, d=3), joined=[("b", "a"), ("c", "a")])
    assert rows(lake, MEMBERSHIP, day(2)) == [("many", "a", day(1), None), ("many", "d", day(1), None)]
    assert rows(lake, CHANGES, day(2)) == []
    run(day(3), many, buyers(a=0), joined=[("b", "a"), ("c", "a"), ("d", "a")])
    assert rows(lake, CHANGES, day(3)) == [("many", "a", "left", day(1))]


@pytest.mark.parametrize("each", [{}, {"each": "favourite_category"}])
def test_a_segment_that_only_gets_another_name_moves_nobody(lake, run, declare, each):
    people = {who: {"orders": 3, "favourite_category": "tea"} for who in "ab"}
    run(day(1), [declare("many", "orders >= 3", **each), declare("all", "true")], people)
    run(day(2), [declare("lots", "orders >= 3", **each), declare("all", "true")], people)
    name = "lots:tea" if each else "lots"
    stays = [row for row in rows(lake, MEMBERSHIP, day(2)) if row[0] != "all"]
    assert stays == [(name, "a", day(1), None), (name, "b", day(1), None)]
    assert rows(lake, CHANGES, day(2)) == []


def test_of_several_that_mean_what_an_earlier_one_did_the_first_in_the_alphabet_keeps_its_stays(lake, run, declare):
    run(day(1), [declare("many", "orders >= 3")], buyers(a=3))
    run(day(2), [declare(f"many_{letter}", "orders >= 3") for letter in "hgfedcba"], buyers(a=3, b=3))
    assert rows(lake, CHANGES, day(2)) == [("many_a", "b", "entered", day(2))]
    entered = {row[0]: row[2] for row in rows(lake, MEMBERSHIP, day(2)) if row[1] == "a"}
    assert {name for name, on in entered.items() if on == day(1)} == {"many_a"}


def test_segments_that_get_other_names_together_with_those_they_rest_on_move_nobody(lake, run, declare):
    def named(many, top, small, fallback):
        return [
            declare(many, "orders >= 3"),
            declare(top, f"in_segment('{many}') and orders < 9"),
            declare(fallback, "orders >= 1"),
            declare(small, "orders >= 5", minimum_size=10, fallback=fallback),
        ]

    run(day(1), named("many", "top", "few", "some"), buyers(a=3, b=1))
    run(day(2), named("lots", "best", "few", "any1"), buyers(a=3, b=1))
    assert rows(lake, CHANGES, day(2)) == []
    assert {(row[0], row[1], row[3]): row[2] for row in rows(lake, MEMBERSHIP, day(2))} == {
        ("any1", "a", None): day(1),
        ("any1", "b", None): day(1),
        ("best", "a", None): day(1),
        ("few", "a", "any1"): day(1),
        ("few", "b", "any1"): day(1),
        ("lots", "a", None): day(1),
    }


def test_a_segment_may_fall_back_on_one_that_leaves_its_own_members_out(lake, run, declare):
    def named(few, rest):
        return [
            declare(few, "orders >= 3", minimum_size=10, fallback=rest),
            declare(rest, "orders >= 1", exclude=[few]),
        ]

    run(day(1), named("few", "rest"), buyers(a=3, b=1, c=0))
    run(day(2), named("best", "others"), buyers(a=3, b=1, c=0))
    assert rows(lake, MEMBERSHIP, day(2)) == [
        ("best", "a", day(1), None),
        ("best", "b", day(1), "others"),
        ("others", "b", day(1), None),
    ]
    assert rows(lake, CHANGES, day(2)) == []


def test_nobody_enters_a_segment_on_its_first_day(lake, run, declare):
    many, few = declare("many", "orders >= 3"), declare("few", "orders < 3", each="favourite_category")
    run(day(1), [many], buyers(a=3, b=1))
    tea = {"favourite_category": "tea"}
    run(day(2), [many, few], {"a": {"orders": 3}, "b": {"orders": 1, **tea}, "c": {"orders": 3}})
    assert ("few:tea", "b", day(2), None) in rows(lake, MEMBERSHIP, day(2))
    assert rows(lake, CHANGES, day(2)) == [("many", "c", "entered", day(2))]
    run(day(3), [many, few], {"a": {"orders": 2, **tea}, "b": {"orders": 1, **tea}, "c": {"orders": 3}})
    assert rows(lake, CHANGES, day(3)) == [("few:tea", "a", "entered", day(3)), ("many", "a", "left", day(1))]


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
    some = list(shipped)[::3]
    for one in some:
        alone = inside(with_referred(list(shipped.values()), [one]), shop, scores)
        one_by_one |= {name: who for name, who in alone.items() if name.split(":")[0] == one}
    assert {name: who for name, who in together.items() if name.split(":")[0] in some} == one_by_one
    assert len({name.split(":")[0] for name in together}) > len(shipped) / 2, "the shop has members of most segments"


def test_one_pass_reads_each_table_once(shipped, declare):
    customers, scores = ibis.table(CUSTOMER_360.schema, name="customers"), ibis.table(SCORES.schema, name="scores")
    rollups = {
        t.name: ibis.table({**t.schema, "day": "date"}, name=t.name) for t in {e.rollup for e in EVENTS.values()}
    }
    given = Inputs(customers, scores, ibis.table(IDENTITIES.schema, name="identities"), rollups)
    asking = declare("asking", " and ".join(f"did('{event}', within => {n})" for n, event in enumerate(EVENTS, 1)))
    small = declare("small", "in_segment('asking') or orders = 1", minimum_size=10, fallback="asking")
    sql = ibis.to_sql(membership(given, None, [*shipped.values(), asking, small], DAY), dialect="duckdb").lower()
    assert sql.count('from "customers"') == 1
    assert sql.count('"scores" as') == 1
    for name in rollups:
        assert sql.count(f'"{name}"') == 1


def test_any_day_is_rebuilt_to_the_same_bytes_with_any_number_of_threads(tmp_path, run, shipped):
    segments = list(shipped.values())
    lakes = [Lake(tmp_path / f"lake{threads}", threads=threads) for threads in (1, 4)]
    for n in range(1, 3):
        for one in lakes:
            run(day(n), segments, a_random_shop(n), into=one)
    first = {n: [lakes[0].path(table, day(n)).read_bytes() for table in (MEMBERSHIP, CHANGES)] for n in range(1, 3)}
    assert first == {
        n: [lakes[1].path(table, day(n)).read_bytes() for table in (MEMBERSHIP, CHANGES)] for n in range(1, 3)
    }
    run(day(2), segments, dict(reversed(a_random_shop(2).items())), into=lakes[0])
    assert first[2] == [lakes[0].path(table, day(2)).read_bytes() for table in (MEMBERSHIP, CHANGES)]


def test_flags_say_for_each_person_which_segments_they_are_in(declare, customers_rows, scores_rows):
    segments = [declare("many", "orders >= 3"), declare("of", "true", each="gender")]
    shop = {"a": {"orders": 3}, "b": {"gender": "male"}}
    found = flags(Inputs(ibis.memtable(customers_rows(shop)), ibis.memtable(scores_rows({}))), segments, DAY)
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
    earlier = Previous(day(1), lake.on(MEMBERSHIP, day(1)))
    lineage = column_lineage(membership(Inputs(customers, scores), earlier, segments, day(2)), lake)
    assert lineage["segment"] == {
        ("features/customer_360", "orders"),
        ("features/customer_360", "revenue_cents"),
        ("features/customer_360", "refund_cents"),
        ("predictions/scores", "churn_probability"),
    }
    assert lineage["customer_id"] == {("features/customer_360", "customer_id")}
    assert lineage["entered_on"] == {("segments/membership", "entered_on")}


def test_the_members_of_the_fallback_stand_in_where_a_segment_is_too_small(lake, run, declare):
    segments = [
        declare("some", "orders >= 1"),
        declare("many", "orders >= 3", minimum_size=2, fallback="some"),
        declare("most", "orders >= 9", minimum_size=1, fallback="many"),
    ]
    run(day(1), segments, buyers(a=3, b=1, c=0))
    found = [row[:2] + row[3:] for row in rows(lake, MEMBERSHIP, day(1))]
    assert found == [
        ("many", "a", None),
        ("many", "b", "some"),
        ("most", "a", "many"),
        ("most", "b", "many"),  # who stands in for the fallback stands in here, too
        ("some", "a", None),
        ("some", "b", None),
    ]


def test_a_segment_of_just_its_minimum_size_needs_nobody(inside, declare):
    segments = [declare("some", "orders >= 1"), declare("many", "orders >= 3", minimum_size=2, fallback="some")]
    assert inside(segments, buyers(a=3, b=3, c=1))["many"] == {"a", "b"}
    assert inside(segments, buyers(a=3, b=2, c=1))["many"] == {"a", "b", "c"}


def test_a_fallback_may_be_one_value_of_a_segment(inside, declare):
    segments = [
        declare("of", "true", each="favourite_category"),
        declare("rich", "orders > 9", minimum_size=5, fallback="of:tea"),
    ]
    people = {
        "a": {"orders": 10, "favourite_category": "mugs"},
        "b": {"favourite_category": "tea"},
        "c": {"favourite_category": "mugs"},
    }
    assert inside(segments, people)["rich"] == {"a", "b"}


def test_standing_in_is_no_entry_and_no_exit_and_own_stays_last(lake, run, declare):
    segments = [declare("some", "orders >= 1"), declare("many", "orders >= 3", minimum_size=2, fallback="some")]
    for n, people in enumerate([buyers(a=3, b=3), buyers(a=3, b=1), buyers(a=3, b=1), buyers(a=3, b=3)], start=1):
        run(day(n), segments, people)

    def of_many(table, n):
        return [row[1:] for row in rows(lake, table, day(n)) if row[0] == "many"]

    assert of_many(MEMBERSHIP, 1) == [("a", day(1), None), ("b", day(1), None)]
    assert of_many(MEMBERSHIP, 2) == [("a", day(1), None), ("b", day(2), "some")]
    assert of_many(MEMBERSHIP, 3) == [("a", day(1), None), ("b", day(2), "some")]
    assert of_many(MEMBERSHIP, 4) == [("a", day(1), None), ("b", day(4), None)]
    assert of_many(CHANGES, 2) == [("b", "left", day(1))]
    assert of_many(CHANGES, 3) == []
    assert of_many(CHANGES, 4) == [("b", "entered", day(4))]


def test_other_segments_see_own_members_only_and_so_may_whoever_asks(inside, inputs_of, declare):
    segments = [
        declare("some", "orders >= 1"),
        declare("many", "orders >= 3", minimum_size=9, fallback="some"),
        declare("few", include=["some"], exclude=["many"]),
    ]
    people = buyers(a=3, b=1)
    assert inside(segments, people) == {"some": {"a", "b"}, "many": {"a", "b"}, "few": {"b"}}
    everybody = membership(inputs_of(people), None, segments, DAY)
    assert members(everybody, "many", own=True).customer_id.to_pyarrow().to_pylist() == ["a"]


def test_segments_are_computed_after_those_they_refer_to(inside, declare):
    segments = [
        declare("a_last", "in_segment('b_then', 'of:tea') and orders < 9"),
        declare("b_then", "not in_segment('c_first') and in_segment('of')"),
        declare("c_first", "orders = 1"),
        declare("of", "orders > 0", each="favourite_category"),
    ]
    people = {
        "a": {"orders": 1, "favourite_category": "tea"},
        "b": {"orders": 2, "favourite_category": "mugs"},
        "c": {"orders": 9, "favourite_category": "tea"},
        "d": {"orders": 2},
    }
    assert inside(segments, people) == {
        "a_last": {"a", "b"},
        "b_then": {"b", "c"},
        "c_first": {"a"},
        "of:tea": {"a", "c"},
        "of:mugs": {"b"},
    }


def test_segments_that_refer_to_each_other_many_times_make_no_huge_query(declare):
    chain = [declare("s0", "orders > 1")]
    for n in range(1, 16):
        one = f"in_segment('s{n - 1}')"
        chain.append(declare(f"s{n}", f"{one} and orders > {n} or not {one} and orders < {n}"))
    given = Inputs(ibis.table(CUSTOMER_360.schema, name="customers"), ibis.table(SCORES.schema, name="scores"))
    assert len(ibis.to_sql(membership(given, None, chain, DAY), dialect="duckdb")) < 60_000
