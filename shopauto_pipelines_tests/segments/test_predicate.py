from datetime import date

import ibis
import pytest

from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.people import COLUMNS
from shopauto_pipelines.segments.predicate import LIMITS, PredicateError, clauses, parse

AS_OF = date(2025, 3, 1)
ROW = {
    "customer_id": "a",
    "orders": 3,
    "orders_90d": 0,
    "revenue_cents": 12_500,
    "recency_days": None,
    "churn_factor": 1.25,
    "discount_seeker": True,
    "city": "Île-de-Bréhat",
    "country": None,
    "last_order_on": date(2025, 2, 1),
    "next_order_on": date(2025, 3, 15),
}


def holds(sql: str) -> bool:
    schema = ibis.schema({name: COLUMNS[name].type for name in ROW})
    rows = ibis.memtable([ROW], schema=schema)
    answer = rows.select(x=parse(sql, COLUMNS).apply(rows, AS_OF)).to_pyarrow()["x"][0].as_py()
    assert answer in (True, False), "never null"
    return answer


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("orders = 3", True),
        ("ORDERS >= 3 and not orders > 3 -- a comment", True),
        ("orders <> 3 or discount_seeker", True),
        ("orders between 1 and 3", True),
        ("orders not between 1 and 3", False),
        ("city in ('Paris', 'Île-de-Bréhat')", True),
        ("city not in ('Paris')", True),
        ("city like 'Île%' and city not like '%x%'", True),
        ("city ilike 'ÎLE%'", True),
        ("city not ilike 'ÎLE%'", False),
        ("country is null and city is not null", True),
        ("discount_seeker is true", True),
        ("discount_seeker is not true", False),
        ("(orders > 5 and discount_seeker) is false", True),
        ("(recency_days > 5 and discount_seeker) is not true", True),
        ("(not recency_days > 5) is not true", True),
        ("(orders > 5 and discount_seeker) in (false)", True),
        ("(orders > 1) in (true)", True),
        ("(not discount_seeker) = (orders > 1)", False),
        ("(not recency_days > 5) is null and (recency_days not in (1, 2)) is null", True),
        ("(orders > 5 and discount_seeker) between false and (orders > 5 and true)", True),
        ("false is not distinct from (recency_days > 5 and discount_seeker)", False),
        ("country is not distinct from city", False),
        ("country is distinct from city", True),
        ("orders % 2 = 1 and orders // 2 = 1 and -orders < 0", True),
        ("orders + orders % 2 = 4 and 10 - orders % 2 * 3 = 7", True),
        ("orders / 2 = 1.5", True),
        ("revenue_cents * 2 - 1 = 24999", True),
        ("round(churn_factor, 1) in (1.2, 1.3) and floor(churn_factor) = 1 and ceil(churn_factor) = 2", True),
        ("abs(orders - 5) = 2", True),
        ("greatest(orders, orders_90d) = 3 and least(orders, orders_90d) = 0", True),
        ("coalesce(recency_days, 7) = 7", True),
        ("nullif(orders, 3) is null", True),
        ("length(trim(city)) = 13 and lower(city) = 'île-de-bréhat' and upper('x') = 'X'", True),
        ("case when orders > 5 then 'many' when orders > 1 then 'some' end = 'some'", True),
        ("case city when 'Paris' then 1 else 0 end = 0", True),
        ("days_since(last_order_on) = 28 and days_until(next_order_on) = 14", True),
        ("as_of - last_order_on = 28", True),
        ("last_order_on between as_of - 30 and as_of", True),
        ("next_order_on <= as_of + 14", True),
        ("last_order_on + round(churn_factor * 20) = '2025-02-26'", True),
        ("last_order_on >= '2025-02-01' and last_order_on < date '2025-02-02'", True),
        ("last_order_on in ('2025-01-31', '2025-02-01')", True),
        ("year(last_order_on) = 2025 and month(as_of) = 3 and day(last_order_on) = 1", True),
        ("true", True),
    ],
)
def test_conditions_mean_what_sql_means(sql, expected):
    assert holds(sql) is expected


@pytest.mark.parametrize(
    "sql",
    [
        "recency_days > 3",
        "not recency_days > 3",
        "recency_days not in (1, 2)",
        "country not like 'G%'",
        "orders / orders_90d > 0",
        "orders % orders_90d = 0",
        "orders // orders_90d >= 0",
        "case when orders > 5 then true end",
    ],
)
def test_what_is_not_known_is_not_met(sql):
    assert holds(sql) is False


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("churn_probabilty > 0.5", "there is no column `churn_probabilty`; did you mean `churn_probability`?"),
        ("orders > 1 and {{ x }}", "is not allowed in a condition"),
        ("email like '%@example.com'", "`email` holds private data"),
        ("birthday > '2000-01-01'", "use `days_to_birthday`"),
        ("read_csv('/etc/passwd') is null", "this function is not allowed; there are abs,"),
        ("read_parquet('x') is null", "this function is not allowed"),
        ("getenv('HOME') = 'x'", "`getenv('HOME')`: this function is not allowed"),
        ("current_date > last_order_on", "this function is not allowed"),
        ("random() > 0.5", "this function is not allowed"),
        ("date(city) = as_of", "this function is not allowed"),
        ("list_value(orders) = 1", "is not allowed"),
        ("count(*) > 1", "this function is not allowed"),
        ("sum(orders) over () > 1", "is not allowed in a condition"),
        ("orders in (select 1)", "queries are not allowed"),
        ("exists (select 1)", "queries are not allowed"),
        ("(select max(orders) from x) > 1", "queries are not allowed"),
        ("abs((select 1)) = 1", "queries are not allowed"),
        ("select 1", "queries are not allowed"),
        ("orders > 1; drop table x", "exactly one SQL expression"),
        ("", "exactly one SQL expression"),
        ("orders > (1", "not valid SQL"),
        ("orders > 1 limit 5", "not valid SQL near `limit`"),
        ("city = 'open", "not valid SQL"),
        ("orders", "the condition must be true or false, but `orders` is a number"),
        ("case when orders > 1 then 1 else 0 end", "but `CASE WHEN orders > 1 THEN 1 ELSE 0 END` is a number"),
        ("orders and discount_seeker", "`orders` is a number, but must be true or false here"),
        ("orders = '1'", "a number and a text do not go together"),
        ("orders in (1, 'a')", "a number and a text do not go together"),
        ("city > 3 or true", "a number and a text do not go together"),
        ("coalesce(city, 1) = 'x'", "a number and a text do not go together"),
        ("country = null", "write `is null`"),
        ("country not in ('GB', null)", "write `is null`"),
        ("last_order_on > '2025-02-30'", "'2025-02-30' is not a date"),
        ("last_order_on + mean_interval_days > as_of", "days are whole numbers: `round(mean_interval_days)`"),
        ("last_order_on * 2 > as_of", "cannot calculate with a date and a number"),
        ("city + 1 > 2", "cannot calculate with a text and a number"),
        ("upper(orders) = 'x'", "`orders` is a number, but must be a text here"),
        ("days_since(orders) > 1", "`orders` is a number, but must be a date here"),
        ("days_since() > 1", "days_since takes one date"),
        ("city::int = 1", "conversions are not allowed"),
        ("customers.orders > 1", "write the column's name alone"),
        ("city like country", "the pattern must be a text in quotes"),
        ("city like 'a' escape 'b'", "is not allowed"),
        ("trim(both 'x' from city) = 'a'", "this function is not allowed"),
        ("city ~ 'x.*'", "not allowed"),
        ("orders > ?", "not allowed in a condition"),
        ("orders[1] = 1", "not allowed in a condition"),
        ("orders > 99999999999999999999", "a number has at most 15 characters"),
        ("*", "not allowed in a condition"),
        ("(" * 50 + "true" + ")" * 50, "too large"),
        ("not " * 590 + "true", "nested too deeply"),
        ("orders > 1 or " * 200 + "true", "too large"),
        ("city = '" + "x" * LIMITS["characters"] + "'", "characters; at most 4000 are allowed"),
    ],
)
def test_what_is_not_a_condition_on_one_person_is_refused_with_the_reason(sql, message):
    with pytest.raises(PredicateError) as error:
        parse(sql, COLUMNS)
    assert message in str(error.value)


def test_only_the_columns_that_are_named_are_needed():
    assert parse("orders > 1 and days_since(last_order_on) > 3", COLUMNS).columns == {"orders", "last_order_on"}


def test_a_long_chain_of_conditions_is_fine():
    assert holds(" or ".join(["orders = 9"] * 140 + ["orders = 3"]))


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("orders >= :n", {"n": 3}, True),
        ("orders >= :n and orders < :m", {"n": -1, "m": 3.5}, True),
        ("churn_factor = :x", {"x": 1.25}, True),
        ("city = :city", {"city": "Île-de-Bréhat"}, True),
        ("city = :city", {"city": "x' or true or 'x"}, False),
        ("discount_seeker is :yes", {"yes": True}, True),
        ("last_order_on = :on", {"on": date(2025, 2, 1)}, True),
        ("last_order_on between :on and as_of", {"on": "2025-01-31"}, True),
        ("orders in (:a, :b)", {"a": 1, "b": 3}, True),
    ],
)
def test_parameters_stand_for_values_and_never_for_sql(sql, parameters, expected):
    schema = ibis.schema({name: COLUMNS[name].type for name in ROW})
    rows = ibis.memtable([ROW], schema=schema)
    predicate = parse(sql, COLUMNS, parameters)
    assert predicate.parameters == set(parameters)
    assert rows.select(x=predicate.apply(rows, AS_OF)).to_pyarrow()["x"][0].as_py() is expected


def test_a_condition_comes_apart_at_its_and_and_its_or():
    whole = parse(
        "orders >= :n and (did('bought', category = 'tea') or in_segment('vip') or orders > 9) and city is null",
        COLUMNS, {"n": 2}, EVENTS,
    )  # fmt: skip
    assert whole.joined == "and"
    first, either, last = clauses(whole)
    assert [part.sql for part in (first, last)] == ["orders >= 2", "city IS NULL"]
    assert (first.columns, first.joined) == ({"orders"}, None)
    assert either.joined == "or"
    asked, named, more = clauses(either)
    assert [did.column for did in asked.dids] == ["bought where category = 'tea' ever"]
    assert (asked.columns, asked.sql) == (set(), "did('bought', category = 'tea')")
    assert [segment.name for segment in named.segments] == ["vip"]
    assert (more.columns, more.dids, more.segments) == ({"orders"}, (), ())
    assert clauses(more) == (more,)


def test_clauses_mean_together_what_the_condition_means_and_say_what_is_not_known():
    rows = ibis.memtable([ROW], schema=ibis.schema({name: COLUMNS[name].type for name in ROW}))
    whole = parse("orders = 3 and recency_days > 5 and not discount_seeker", COLUMNS)
    parts = clauses(whole)
    found = rows.select(**{f"p{n}": part.value(rows, AS_OF) for n, part in enumerate(parts)}).to_pyarrow().to_pylist()
    assert found == [{"p0": True, "p1": None, "p2": False}]


def test_a_condition_on_columns_alone_takes_no_events():
    with pytest.raises(PredicateError, match="did cannot be used here; make it a segment, and name that"):
        parse("did('bought')", COLUMNS)


def test_an_error_says_where_in_the_condition_it_is():
    with pytest.raises(PredicateError) as error:
        parse("orders > 1\n  and ordrs > 1", COLUMNS)
    assert error.value.at == (2, 7)
