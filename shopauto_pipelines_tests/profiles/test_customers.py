from datetime import date, datetime

from shopauto_pipelines.profiles import tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)


def _at(hour):
    return datetime(2025, 3, 1, hour)


def test_declared_beats_inferred_and_then_the_latest_wins(shop):
    record = {"shop_customer_id": "c1"}
    shop.put(
        raw.CUSTOMERS,
        [
            record | {"changed_at": _at(8), "country": "DE", "first_name": "Ana", "language": "en"},
            record | {"changed_at": _at(9), "phone": "+40 721 234 567", "first_name": "Anna"},
            record | {"changed_at": _at(10), "first_name": "-", "email": "broken@"},
        ],
    )
    shop.compute()
    values = {
        row["field"]: (row["value"], row["kind"], row["source"], row["at"]) for row in shop.rows(tables.ATTRIBUTES)
    }
    assert values == {
        "country": ("DE", "declared", "shop", _at(8)),
        "first_name": ("Anna", "declared", "shop", _at(9)),
        "language": ("en", "declared", "shop", _at(8)),
        "phone": ("+40721234567", "declared", "shop", _at(9)),
        "time_zone": ("Europe/Berlin", "inferred", "country", _at(8)),
    }


def test_one_row_per_person_holds_what_all_accounts_say(shop):
    anna = {"email": "anna@example.com"}
    shop.put(
        raw.CUSTOMERS,
        [
            anna | {"shop_customer_id": "c1", "created_at": datetime(2025, 1, 5), "city": "Bonn", "changed_at": _at(8)},
            anna
            | {"shop_customer_id": "c2", "created_at": datetime(2024, 7, 1), "city": "Köln", "changed_at": _at(9)}
            | {"birthday": date(2000, 2, 29)},
            {"shop_customer_id": "c3"},
        ],
    )
    shop.put(raw.CONSENTS, [{"shop_customer_id": "c2", "channel": "email", "state": "opted_in"}])
    shop.compute()
    first, second = shop.rows(tables.CUSTOMERS)
    empty = {column.name: None for column in tables.CUSTOMERS.columns}
    assert first == empty | {
        "customer_id": "c1",
        "email": "anna@example.com",
        "city": "Köln",
        "birthday": date(2000, 2, 29),
        "created_on": date(2024, 7, 1),
        "shop_ids": 2,
        "email_consent": "opted_in",
    }
    assert second == empty | {"customer_id": "c3", "shop_ids": 1}


def test_accounts_that_disagree_at_one_instant_are_settled_the_same_way_every_time(new_shop):
    rows = [
        {"shop_customer_id": f"c{n}", "email": "anna@example.com", "city": city}
        for n, city in enumerate(["Ulm", "Aalen"])
    ]
    found = set()
    for order in (rows, rows[::-1]):
        shop = new_shop()
        shop.put(raw.CUSTOMERS, order)
        shop.compute()
        found.add(shop.rows(tables.CUSTOMERS)[0]["city"])
    assert found == {"Ulm"}


def test_days_without_any_row_give_empty_tables(shop):
    shop.compute()
    assert [len(shop.rows(table)) for table in tables.TABLES[1:]] == [0, 0, 0, 0]
