"""The statement that is compiled once: on every day the same rows, the same bytes and the same lineage as the expression."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake, LakeTable, MissingPartition
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import inputs, prepared
from shopauto_pipelines.segments.membership import membership
from shopauto_pipelines.segments.stays import Previous, previous
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines_tests.segments.conftest import rollup_rows

FIRST = date(2024, 2, 27)
DAYS = [FIRST + timedelta(days=n) for n in range(5)]  # over a 29 February


@pytest.fixture
def segments(declare):
    return [
        declare("soon", "days_to_birthday <= 1"),
        declare("late", "days_since(last_order_on) > 30 or last_order_on < as_of - 3"),
        declare("looked", "did('viewed', within => 2)"),
        declare("few", "in_segment('soon') and not did('viewed')", minimum_size=2, fallback="looked"),
        declare("of", "rfm_recency >= 1", each="gender"),
    ]


@pytest.fixture
def shop(lake, customers_rows, scores_rows) -> Lake:
    """Five days of a few people."""
    for n, day in enumerate(DAYS):
        people = {
            "a": {"birthday": date(1980, 2, 29), "orders": 1, "recency_days": n, "gender": "female"},
            "b": {"birthday": date(1980, 3, 2), "last_order_on": FIRST - timedelta(days=2)},
            "c": {"last_order_on": FIRST - timedelta(days=28), "gender": "male", "orders": 2, "recency_days": 28 + n},
        }
        lake.write(CUSTOMER_360, [day], customers_rows(people))
        lake.write(SCORES, [day], scores_rows({}))
        who = [{"shop_customer_id": p, "customer_id": p, "rule": "shop_id", "rules_version": 1} for p in people]
        lake.write(IDENTITIES, [day], pa.Table.from_pylist(who, schema=IDENTITIES.arrow_schema))
        seen = [{"shop_customer_id": "c", "product_id": "p", "views": 1, "day": day}] if n in (1, 4) else []
        lake.write(DAILY_PRODUCTS, [day], rollup_rows(DAILY_PRODUCTS, seen))
    return lake


def test_one_statement_gives_every_day_what_the_expression_gives(shop, segments):
    own, found = LakeTable(shop, MEMBERSHIP), []
    for day in DAYS:
        expression = membership(inputs.read(shop, segments, day), previous(shop, day), segments, day)
        shop.write(MEMBERSHIP, [day], prepared.rows(shop, segments, day))
        of_statement = shop.path(MEMBERSHIP, day).read_bytes()
        found.append({(row["segment"], row["customer_id"]) for row in own.on(day).to_pyarrow().to_pylist()})
        shop.write(MEMBERSHIP, [day], expression)
        assert shop.path(MEMBERSHIP, day).read_bytes() == of_statement
    assert [("soon", "a") in of_day for of_day in found] == [False, True, True, False, False]
    assert [("looked", "c") in of_day for of_day in found] == [False, True, True, False, True]
    assert ("few", "c") in found[1]
    again = prepared.rows(shop, segments, DAYS[1])  # an earlier day after a later one
    assert {(row["segment"], row["customer_id"]) for row in again.to_pyarrow().to_pylist()} == found[1]


def test_its_lineage_is_that_of_the_expression(shop, segments):
    day = DAYS[1]
    before = Previous(DAYS[0], shop.between(MEMBERSHIP, DAYS[0], DAYS[0]))
    expression = membership(inputs.read(shop, segments, day), before, segments, day)
    known = column_lineage(expression, shop)
    assert {name: prepared.statement(segments).origins[name] for name in known} == known | {
        "entered_on": frozenset({(MEMBERSHIP.name, "entered_on")})
    }


def test_a_day_that_has_not_been_computed_is_told(shop, segments):
    with pytest.raises(MissingPartition, match="customer_360 has not been computed for 2020-01-01"):
        prepared.rows(shop, segments, date(2020, 1, 1))


def test_without_segments_nobody_is_a_member(shop):
    assert prepared.rows(shop, [], DAYS[0]).count().to_pyarrow().as_py() == 0
