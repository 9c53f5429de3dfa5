from datetime import date, datetime

import ibis
import pytest

from shopauto_pipelines.profiles import claims, tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)
NOON = datetime(2025, 3, 1, 12)


def test_every_field_of_a_record_is_claimed_with_source_and_time(shop):
    record = {
        "shop_customer_id": "c1",
        "created_at": datetime(2025, 2, 1, 9),
        "email": " Anna@Example.com",
        "phone": "030 901820",
        "first_name": "ANNA",
        "last_name": "van der Berg",
        "gender": "Frau",
        "birthday": date(1992, 2, 29),
        "country": "Germany",
        "city": "berlin",
        "language": "de_DE",
    }
    shop.put(raw.CUSTOMERS, [record])
    shop.clean()
    rows = shop.rows(tables.CLAIMS)
    assert {(row["field"], row["value"], row["kind"], row["source"]) for row in rows} == {
        ("email", "anna@example.com", "declared", "shop"),
        ("phone", "+4930901820", "declared", "shop"),
        ("first_name", "Anna", "declared", "shop"),
        ("last_name", "van der Berg", "declared", "shop"),
        ("gender", "female", "declared", "shop"),
        ("birthday", "1992-02-29", "declared", "shop"),
        ("country", "DE", "declared", "shop"),
        ("city", "Berlin", "declared", "shop"),
        ("language", "de-DE", "declared", "shop"),
        ("created_on", "2025-02-01", "declared", "shop"),
        ("time_zone", "Europe/Berlin", "inferred", "country"),
    }
    assert {row["at"] for row in rows} == {NOON}
    assert {row["problem"] for row in rows} == {None}


def test_what_is_not_usable_has_a_problem_and_no_value_and_what_is_empty_claims_nothing(shop):
    bad = {
        "shop_customer_id": "bad",
        "created_at": datetime(2025, 3, 2),
        "email": "secret@",
        "phone": "12",
        "first_name": "http://secret.example",
        "last_name": "-",
        "gender": "unknown",
        "birthday": date(1900, 1, 1),
        "country": "Unspecified",
        "city": "?",
        "language": "xx",
    }
    empty = {"shop_customer_id": "empty", "email": " ", "phone": "", "country": None}
    unborn = {"shop_customer_id": "unborn", "birthday": date(2025, 3, 2)}
    shop.put(raw.CUSTOMERS, [bad, empty, unborn])
    shop.clean()
    rows = shop.rows(tables.CLAIMS)
    assert {row["field"]: row["problem"] for row in rows if row["shop_customer_id"] == "bad"} == claims.PROBLEMS
    assert [row["field"] for row in rows if row["shop_customer_id"] != "bad"] == ["birthday"]
    assert {row["value"] for row in rows} == {None}
    assert not any("secret" in row["problem"] for row in rows)


def test_country_and_language_are_inferred_only_where_they_are_not_declared(shop):
    shop.put(
        raw.CUSTOMERS,
        [
            {"shop_customer_id": "phone", "phone": "+40 721 234 567"},
            {"shop_customer_id": "wrong", "phone": "+40 721 234 567", "country": "West Indies"},
            {"shop_customer_id": "other", "phone": "+40 721 234 567", "country": "BR", "language": "en"},
            {"shop_customer_id": "local", "phone": "020 7946 0018"},
            {"shop_customer_id": "nothing", "email": "a@example.com"},
        ],
    )
    shop.clean(country="GB")
    found = {
        (row["shop_customer_id"], row["field"]): (row["value"], row["source"])
        for row in shop.rows(tables.CLAIMS)
        if row["kind"] == "inferred"
    }
    romania = {"country": ("RO", "phone"), "language": ("ro", "phone"), "time_zone": ("Europe/Bucharest", "phone")}
    britain = {"country": ("GB", "phone"), "language": ("en", "phone"), "time_zone": ("Europe/London", "phone")}
    assert found == {
        **{("phone", field): value for field, value in romania.items()},
        **{("wrong", field): value for field, value in romania.items()},
        **{("local", field): value for field, value in britain.items()},
        ("other", "time_zone"): ("America/Sao_Paulo", "country"),
    }
    assert ("wrong", None, claims.PROBLEMS["country"]) in shop.claimed("country")


def test_the_customers_country_reads_a_local_phone_before_the_shops(shop):
    record = {"phone": "030 901820"}
    shop.put(raw.CUSTOMERS, [record | {"shop_customer_id": "a", "country": "DE"}, record | {"shop_customer_id": "b"}])
    shop.clean(country="GB")
    assert shop.claimed("phone") == [("a", "+4930901820", None), ("b", None, claims.PROBLEMS["phone"])]


def test_the_day_an_account_was_created_is_the_shops_day(shop):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c", "created_at": datetime(2025, 1, 31, 23, 30)}])
    shop.clean(timezone="Europe/Berlin")
    assert shop.claimed("created_on") == [("c", "2025-02-01", None)]
    shop.clean(timezone="America/New_York")
    assert shop.claimed("created_on") == [("c", "2025-01-31", None)]


def test_a_guest_claims_the_email_of_the_first_order_of_the_day(shop):
    at = {"ordered_at": NOON}
    shop.put(
        raw.ORDERS,
        [
            at | {"shop_customer_id": "guest:1", "email": "Late@example.com", "ordered_at": datetime(2025, 3, 1, 13)},
            at | {"shop_customer_id": "guest:1", "email": "Early@example.com"},
            at | {"shop_customer_id": "guest:2", "email": "not an address"},
            at | {"shop_customer_id": "guest:3", "email": None},
            at | {"shop_customer_id": "guest:4", "email": "order@example.com"},
            at | {"shop_customer_id": "c1", "email": "other@example.com"},
            at | {"shop_customer_id": None, "email": "nobody@example.com"},
        ],
    )
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "guest:4", "email": "record@example.com"}])
    shop.clean()
    assert shop.claimed("email") == [
        ("guest:1", "early@example.com", None),
        ("guest:2", None, claims.PROBLEMS["email"]),
        ("guest:4", "record@example.com", None),
    ]


def test_several_days_in_one_pass_give_the_rows_of_each_day(shop):
    days = [date(2025, 3, 1), date(2025, 3, 2), date(2025, 3, 3)]
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c", "email": "a@example.com", "country": "DE"}], days[0])
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c", "email": "b@example.com"}], days[2])
    shop.put(raw.ORDERS, [{"shop_customer_id": "guest:1", "email": "g@example.com"}], days[1])
    for day in days:
        shop.clean(day)
    single = [shop.lake.path(tables.CLAIMS, day).read_bytes() for day in days]
    span = claims.claims(shop.lake.between(raw.CUSTOMERS), shop.lake.between(raw.ORDERS), "GB")
    assert not any(written.changed for written in shop.lake.write(tables.CLAIMS, days, span).values())
    assert [shop.lake.path(tables.CLAIMS, day).read_bytes() for day in days] == single


def test_a_very_long_field_is_a_problem_not_an_error(shop):
    long = "x" * 200_000
    shop.put(
        raw.CUSTOMERS,
        [
            {
                "shop_customer_id": "c",
                "email": long,
                "phone": long,
                "first_name": long,
                "country": long,
                "language": long,
            }
        ],
    )
    shop.clean()
    assert {row["field"] for row in shop.rows(tables.CLAIMS) if row["problem"]} == {
        "email",
        "phone",
        "first_name",
        "country",
        "language",
    }


def test_every_country_of_online_retail_is_resolved_or_has_a_problem(shop, shared):
    file = shared / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet"
    countries = sorted(ibis.read_parquet(file).country.value_counts().country.to_pyarrow().to_pylist())
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": country, "country": country} for country in countries])
    shop.clean()
    claimed = shop.claimed("country")
    assert [row[0] for row in claimed] == countries
    assert {row[0] for row in claimed if row[2]} == {"Channel Islands", "Unspecified", "West Indies"}
    resolved = {row[0]: row[1] for row in claimed}
    assert (resolved["EIRE"], resolved["RSA"], resolved["USA"], resolved["Korea"]) == ("IE", "ZA", "US", "KR")


@pytest.mark.parametrize("column", tables.CLAIMS.key)
def test_keys_of_claims_are_never_null(shop, column):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c", "phone": "+40 721 234 567"}])
    shop.clean()
    assert all(row[column] is not None for row in shop.rows(tables.CLAIMS))
