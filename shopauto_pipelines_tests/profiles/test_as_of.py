import random
from datetime import date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopauto_pipelines.profiles import tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)
LATER = date(2025, 3, 2)

_MINUTES = st.integers(0, 1439)
_WHO = st.integers(0, 7).map(lambda n: f"c{n}")
_CUSTOMER = st.fixed_dictionaries(
    {
        "shop_customer_id": _WHO,
        "minute": _MINUTES,
        "email": st.sampled_from([None, "a@example.com", "B@example.com", "c@example.com", "broken@"]),
        "phone": st.sampled_from([None, "020 7946 0018", "+40 721 234 567", "none"]),
        "city": st.sampled_from([None, "ULM", "Bonn"]),
        "country": st.sampled_from([None, "DE", "United Kingdom", "Unspecified"]),
    }
)
_CONSENT = st.fixed_dictionaries(
    {"shop_customer_id": _WHO, "minute": _MINUTES, "state": st.sampled_from(["opted_in", "pending", "opted_out"])}
)
_EVENT = st.fixed_dictionaries(
    {"shop_customer_id": _WHO, "minute": _MINUTES, "type": st.sampled_from(["open", "unsubscribe", "spam_report"])}
)
_ORDER = st.fixed_dictionaries(
    {
        "shop_customer_id": st.sampled_from(["c0", "c9", "guest:1", "guest:2"]),
        "minute": _MINUTES,
        "email": st.sampled_from(["a@example.com", "g@example.com"]),
    }
)
_LOGS = st.fixed_dictionaries(
    {
        raw.CUSTOMERS: st.lists(
            _CUSTOMER, min_size=1, max_size=8, unique_by=lambda r: (r["shop_customer_id"], r["minute"])
        ),
        raw.ORDERS: st.lists(_ORDER, max_size=4),
        raw.CONSENTS: st.lists(_CONSENT, max_size=5),
        raw.MESSAGE_EVENTS: st.lists(_EVENT, max_size=3),
    }
)


def _put(shop, logs, day):
    start = datetime(day.year, day.month, day.day)
    for table, rows in logs.items():
        at = raw.TIME_COLUMN[table.name]
        channel = {"channel": "email"} if table in (raw.CONSENTS, raw.MESSAGE_EVENTS) else {}
        timed = [
            {name: value for name, value in row.items() if name != "minute"}
            | {at: start + timedelta(minutes=row["minute"])}
            | channel
            for row in rows
        ]
        shop.put(table, timed, day)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_LOGS, _LOGS, st.randoms(use_true_random=False))
def test_rows_after_the_day_and_the_order_of_rows_change_nothing(new_shop, logs, later, shuffler):
    known = new_shop()
    _put(known, logs, DAY)
    known.compute(DAY)
    rewritten = new_shop()
    numbered = {table: list(enumerate(rows)) for table, rows in logs.items()}
    for rows in numbered.values():
        shuffler.shuffle(rows)
    _put(rewritten, {table: [row for _, row in rows] for table, rows in numbered.items()}, DAY)
    _put(rewritten, later, LATER)
    rewritten.clean(LATER)
    rewritten.compute(DAY)
    assert rewritten.bytes(DAY) == known.bytes(DAY)
    persons = known.persons(DAY)
    assert {row["customer_id"] for row in known.rows(tables.CUSTOMERS)} == set(persons.values())
    assert sum(row["shop_ids"] for row in known.rows(tables.CUSTOMERS)) == len(persons)


@pytest.mark.slow
def test_the_same_bytes_come_from_any_number_of_threads(new_shop):
    shuffler = random.Random(7)
    start = datetime(2025, 3, 1)
    customers = [
        {
            "shop_customer_id": f"c{n}",
            "changed_at": start + timedelta(seconds=shuffler.randrange(300)),
            "created_at": start,
            "email": f"user{shuffler.randrange(2_500)}@example.com",
            "phone": f"(212) 555-{shuffler.randrange(10_000):04d}" if n % 3 else None,
            "country": "US",
            "city": shuffler.choice(["Ulm", "BONN", "köln"]),
        }
        for n in range(3_000)
    ]
    consents = [
        {
            "shop_customer_id": f"c{shuffler.randrange(3_000)}",
            "channel": "email",
            "state": shuffler.choice(["opted_in", "opted_out", "pending"]),
            "changed_at": start + timedelta(seconds=shuffler.randrange(3)),
            "wording": shuffler.choice([None, "a", "b"]),
        }
        for _ in range(3_000)
    ]
    found = []
    for threads in (1, 4):
        shop = new_shop(threads)
        shop.put(raw.CUSTOMERS, customers)
        shop.put(raw.CONSENTS, consents)
        shop.compute()
        found.append(shop.bytes())
    assert found[0] == found[1]
    assert shop.lake.rows(tables.CUSTOMERS, DAY) < 3_000
