from datetime import date, datetime, timedelta
from itertools import pairwise

import ibis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopauto_pipelines.profiles import identity, tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)
START = datetime(2025, 3, 1)

#: Who claims which identifier when: small pools, so that they often meet.
CLAIMED = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(["email", "phone"]), st.integers(0, 8), st.integers(0, 5)),
    min_size=1,
    max_size=25,
)


def _tables(claimed, apart=timedelta(minutes=1)):
    """The raw customers and the claims of ``(shop id, field, value, minute)``, or of other times as far ``apart``."""
    rows = [
        {"shop_customer_id": f"c{who}", "field": field, "value": str(value), "changed_at": START + n * apart}
        for who, field, value, n in claimed
    ]
    days = [{"day": row["changed_at"].date()} for row in rows]
    text, moment, day = pa.string(), pa.timestamp("us"), ("day", pa.date32())
    customers = pa.schema([("shop_customer_id", text), ("changed_at", moment), day])
    orders = pa.schema([("shop_customer_id", text), ("ordered_at", moment), day])
    claims = pa.schema([("shop_customer_id", text), ("field", text), ("value", text), day])
    return (
        ibis.memtable(pa.Table.from_pylist([row | of for row, of in zip(rows, days, strict=True)], schema=customers)),
        ibis.memtable(orders.empty_table()),
        ibis.memtable(pa.Table.from_pylist([row | of for row, of in zip(rows, days, strict=True)], schema=claims)),
    )


def _computed(claimed):
    found = identity.identities(*_tables(claimed)).to_pyarrow().to_pylist()
    assert len({row["shop_customer_id"] for row in found}) == len(found)
    return {row["shop_customer_id"]: row["customer_id"] for row in found}


def _expected(claimed):
    """The same by brute force: join whatever two members of an identifier have, until nothing changes."""
    seen = {}
    for who, _, _, minute in claimed:
        seen[f"c{who}"] = min(minute, seen.get(f"c{who}", minute))
    members = {}
    for who, field, value, _ in claimed:
        members.setdefault((field, value), set()).add(f"c{who}")
    person = {who: {who} for who in seen}
    for group in members.values():
        if 2 <= len(group) <= identity.MOST_SHARING:
            merged = set().union(*(person[who] for who in group))
            person |= dict.fromkeys(merged, merged)
    return {who: min(group, key=lambda other: (seen[other], other)) for who, group in person.items()}


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(CLAIMED, st.randoms(use_true_random=False))
def test_persons_are_the_connected_shop_ids_in_whatever_order_the_rows_come(claimed, random):
    persons = _computed(claimed)
    assert persons == _expected(claimed)
    assert all(persons[person] == person for person in persons.values())
    shuffled = [*claimed, *claimed[:3]]
    random.shuffle(shuffled)
    assert _computed(shuffled) == persons


@settings(max_examples=4, deadline=None)
@given(st.permutations(range(40)), st.integers(2, 40))
def test_components_are_found_along_chains_of_any_length(order, length):
    pairs = [sorted(pair) for pair in pairwise(order[:length])]
    edges = ibis.memtable({"high": [pair[1] for pair in pairs], "low": [pair[0] for pair in pairs]})
    found = {(row["high"], row["low"]) for row in identity.components(edges).to_pyarrow().to_pylist()}
    least = min(order[:length])
    assert found == {(node, least) for node in order[:length] if node != least}


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CLAIMED, CLAIMED)
def test_new_accounts_that_join_nobody_known_leave_persons_as_they_are(claimed, later):
    strangers = [(who + 100, field, value + 100, minute + 10) for who, field, value, minute in later]
    before, after = _computed(claimed), _computed([*claimed, *strangers])
    assert {who: after[who] for who in before} == before


@settings(max_examples=3, deadline=None)
@given(CLAIMED)
def test_persons_of_several_days_are_those_of_each(claimed):
    common = [
        (who, "email", 99, day) for who, day in zip(range(identity.MOST_SHARING + 1), (0, 0, 1, 2, 2, 4), strict=True)
    ]
    claimed = [*claimed, *common]  # an address that joins people for some days, and nobody any more on the last
    days = [START.date() + timedelta(days=n) for n in (0, 1, 3, 5)]
    found = {day: {} for day in days}
    for row in identity.identities_of_days(*_tables(claimed, timedelta(days=1)), days).to_pyarrow().to_pylist():
        assert row["shop_customer_id"] not in found[row["as_of"]]
        found[row["as_of"]][row["shop_customer_id"]] = row["customer_id"]
    known = {day: [one for one in claimed if START.date() + timedelta(days=one[3]) <= day] for day in days}
    assert found == {day: _expected(rows) for day, rows in known.items()}


def test_the_rule_says_what_joined_a_shop_id(shop):
    anna, phone = {"email": "anna@example.com"}, {"phone": "+4930901820"}
    rows = [
        {"shop_customer_id": "c1"} | anna,
        {"shop_customer_id": "c2"} | anna | phone,
        {"shop_customer_id": "c3"} | phone,
    ]
    shop.put(raw.CUSTOMERS, [*rows, {"shop_customer_id": "c4"}])
    shop.compute()
    found = [(row["shop_customer_id"], row["customer_id"], row["rule"]) for row in shop.rows(tables.IDENTITIES)]
    assert found == [("c1", "c1", "shop_id"), ("c2", "c1", "email"), ("c3", "c1", "phone"), ("c4", "c4", "shop_id")]
    assert {row["rules_version"] for row in shop.rows(tables.IDENTITIES)} == {identity.RULES_VERSION}


def test_a_guest_who_orders_with_a_customers_email_is_that_customer(shop):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c1", "email": "Anna@example.com"}])
    shop.put(
        raw.ORDERS,
        [{"shop_customer_id": "guest:7", "email": " anna@EXAMPLE.com", "ordered_at": datetime(2025, 3, 1, 13)}],
    )
    shop.compute()
    assert shop.persons() == {"c1": "c1", "guest:7": "c1"}


def test_a_form_with_the_address_of_one_person_is_theirs_and_makes_nobody_a_person(shop):
    shared = [{"shop_customer_id": f"s{n}", "email": "info@example.com"} for n in range(identity.MOST_SHARING + 1)]
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c1", "email": "Anna@example.com"}, *shared])
    shop.put(raw.ORDERS, [{"shop_customer_id": "guest:9", "email": "bea@example.com"}])
    typed = {
        "guest:1": "mailto:anna@EXAMPLE.com",
        "guest:2": "nobody@example.com",
        "guest:3": "info@example.com",
        "guest:4": "no address",
        "guest:9": "bea@example.com",
        "c7": "anna@example.com",
        None: None,
    }
    shop.put(raw.FORM_SUBMISSIONS, [{"shop_customer_id": who, "email": email} for who, email in typed.items()])
    shop.compute()
    persons = shop.persons()
    assert {who: person for who, person in persons.items() if not who.startswith("s")} == {
        "c1": "c1",
        "guest:1": "c1",
        "guest:9": "guest:9",
    }
    assert len(shop.rows(tables.IDENTITIES)) == len(persons) == 3 + len(shared)


def test_who_only_ordered_is_a_person_too(shop):
    shop.put(raw.ORDERS, [{"shop_customer_id": "c9"}, {"shop_customer_id": None}])
    shop.compute()
    assert shop.persons() == {"c9": "c9"}


def test_a_person_carries_the_shop_id_that_was_seen_first(shop):
    rows = [{"shop_customer_id": who, "email": "anna@example.com"} for who in ("c1", "c2")]
    rows[0]["changed_at"] = datetime(2025, 3, 1, 18)
    shop.put(raw.CUSTOMERS, rows)
    shop.compute()
    assert shop.persons() == {"c1": "c2", "c2": "c2"}


def test_an_identifier_that_too_many_share_joins_nobody(shop):
    def sharing(count):
        shop.put(raw.CUSTOMERS, [{"shop_customer_id": f"c{n}", "phone": "+4930901820"} for n in range(count)])
        shop.compute()
        return set(shop.persons().values())

    assert sharing(identity.MOST_SHARING) == {"c0"}
    assert len(sharing(identity.MOST_SHARING + 1)) == identity.MOST_SHARING + 1


def test_values_that_are_not_usable_join_nobody(shop):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": who, "email": "n/a", "phone": "none"} for who in ("c1", "c2")])
    shop.compute()
    assert shop.persons() == {"c1": "c1", "c2": "c2"}


def test_an_email_given_up_still_joins(shop):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c1", "email": "old@example.com"}], DAY)
    next_day = date(2025, 3, 2)
    rows = [
        {"shop_customer_id": "c1", "email": "new@example.com"},
        {"shop_customer_id": "c2", "email": "old@example.com"},
    ]
    shop.put(raw.CUSTOMERS, rows, next_day)
    shop.compute(next_day)
    assert shop.persons(next_day) == {"c1": "c1", "c2": "c1"}
    assert [row["email"] for row in shop.rows(tables.CUSTOMERS, next_day)] == ["old@example.com"]


def test_two_states_are_compared_shop_id_by_shop_id():
    def state(**persons):
        return ibis.memtable({"shop_customer_id": list(persons), "customer_id": list(persons.values())})

    before, after = state(a="a", b="b", c="c"), state(a="a", b="a", d="d")
    changes = identity.identity_changes(before, after).order_by("shop_customer_id").to_pyarrow().to_pylist()
    assert [tuple(row.values()) for row in changes] == [
        ("b", "b", "a", "moved"),
        ("c", "c", None, "gone"),
        ("d", None, "d", "new"),
    ]
    assert identity.identity_changes(after, after).count().to_pyarrow().as_py() == 0
