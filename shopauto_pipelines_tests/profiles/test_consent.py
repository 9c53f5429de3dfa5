from datetime import date, datetime

import pytest

from shopauto_pipelines.profiles import tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)


def _change(state, hour=12, who="c1", channel="email"):
    return {"shop_customer_id": who, "channel": channel, "state": state, "changed_at": datetime(2025, 3, 1, hour)}


def _event(kind, hour=12, who="c1", channel="email"):
    return {"shop_customer_id": who, "channel": channel, "type": kind, "happened_at": datetime(2025, 3, 1, hour)}


def _states(shop, changes, events=()):
    shop.put(raw.CONSENTS, changes)
    shop.put(raw.MESSAGE_EVENTS, list(events))
    shop.compute()
    return {(row["customer_id"], row["channel"]): (row["state"], row["source"]) for row in shop.rows(tables.CONSENT)}


def test_the_latest_change_wins_per_channel(shop):
    changes = [
        _change("opted_in", 9),
        _change("opted_out", 8),
        _change("opted_in", 8, channel="sms"),
        _change("pending", 9, channel="sms"),
    ]
    assert _states(shop, changes) == {("c1", "email"): ("opted_in", "shop"), ("c1", "sms"): ("pending", "shop")}


@pytest.mark.parametrize(
    ("states", "in_force"),
    [
        (["opted_in", "pending"], "pending"),
        (["opted_in", "opted_out", "pending"], "opted_out"),
        (["opted_in", "opted_in"], "opted_in"),
        (["opted_in", "subscribed?"], "opted_out"),
    ],
)
def test_of_changes_at_one_instant_the_one_that_allows_least_wins(shop, states, in_force):
    for ordered in (states, states[::-1]):
        assert _states(shop, [_change(state) for state in ordered]) == {("c1", "email"): (in_force, "shop")}


@pytest.mark.parametrize("kind", ["unsubscribe", "spam_report"])
def test_a_withdrawal_in_a_message_counts_for_its_channel_until_the_next_opt_in(shop, kind):
    changes = [_change("opted_in", 8), _change("opted_in", 8, channel="sms")]
    events = [_event(kind, 9), _event("open", 10), _event("bounce", 11)]
    assert _states(shop, changes, events) == {("c1", "email"): ("opted_out", kind), ("c1", "sms"): ("opted_in", "shop")}
    assert _states(shop, [*changes, _change("opted_in", 10)], events)["c1", "email"] == ("opted_in", "shop")


def test_a_withdrawal_without_a_channel_is_one_from_email(shop):
    assert _states(shop, [_change("opted_in", 8)], [_event("unsubscribe", 9, channel=None)]) == {
        ("c1", "email"): ("opted_out", "unsubscribe")
    }


def test_a_withdrawal_at_the_instant_of_an_opt_in_wins(shop):
    assert _states(shop, [_change("opted_in")], [_event("unsubscribe")])["c1", "email"] == ("opted_out", "unsubscribe")


def test_consent_is_the_persons_not_the_accounts(shop):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": who, "email": "anna@example.com"} for who in ("c1", "c2")])
    changes = [_change("opted_in", 8, "c1"), _change("opted_out", 9, "c2"), _change("opted_in", 9, "elsewhere")]
    assert _states(shop, changes) == {
        ("c1", "email"): ("opted_out", "shop"),
        ("elsewhere", "email"): ("opted_in", "shop"),
    }


def test_what_another_address_of_the_person_allows_takes_no_withdrawal_of_this_one_back(shop):
    """``c1`` and ``c2`` share a phone; ``c1``'s address is the one in force."""
    phone = {"phone": "+447400123456"}
    accounts = [
        {"shop_customer_id": "c1", "email": "ann@example.com"},
        {"shop_customer_id": "c2", "email": "bob@example.com"},
    ]
    hours = (10, 9)
    shop.put(
        raw.CUSTOMERS,
        [
            account | phone | {"changed_at": datetime(2025, 3, 1, hour)}
            for account, hour in zip(accounts, hours, strict=True)
        ],
    )

    def state(*changes):
        found = _states(shop, changes)
        (person,) = {shop.persons()[who] for who in ("c1", "c2")}
        return found[person, "email"][0]

    assert state(_change("opted_out", 8, "c1"), _change("opted_in", 9, "c2")) == "opted_out"
    assert state(_change("opted_in", 8, "c1"), _change("opted_out", 9, "c2")) == "opted_out", "who wants none gets none"
    assert state(_change("opted_out", 8, "c2"), _change("opted_in", 9, "c1")) == "opted_in"
    assert state(_change("opted_in", 9, "c2")) == "opted_in", "nothing was said for the address in force"
    assert state(_change("opted_out", 8, "c1", channel="sms"), _change("opted_in", 9, "c2")) == "opted_in"


def test_accounts_joined_later_do_not_share_consent_before(shop):
    second = date(2025, 3, 2)
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c1", "email": "anna@example.com"}, {"shop_customer_id": "c2"}])
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": "c2", "email": "anna@example.com"}], second)
    states = _states(shop, [_change("opted_in", 8, "c1"), _change("opted_out", 9, "c2")])
    assert states == {("c1", "email"): ("opted_in", "shop"), ("c2", "email"): ("opted_out", "shop")}
    shop.compute(second)
    assert [(row["customer_id"], row["state"]) for row in shop.rows(tables.CONSENT, second)] == [("c1", "opted_out")]


def test_the_words_agreed_to_are_kept(shop):
    shop.put(raw.CONSENTS, [_change("opted_in") | {"wording": "newsletter, footer form"}])
    shop.compute()
    assert [row["wording"] for row in shop.rows(tables.CONSENT)] == ["newsletter, footer form"]


def test_topics_that_a_person_does_not_want_stand_beside_the_consent(shop):
    shop.put(raw.CUSTOMERS, [{"shop_customer_id": who, "email": "anna@example.com"} for who in ("c1", "c2")])
    shop.put(raw.CONSENTS, [_change("opted_in"), _change("opted_in", channel="sms"), _change("opted_in", who="c3")])
    shop.put(
        raw.TOPIC_CHOICES,
        [
            _change(state, hour, who) | {"topic": topic}
            for topic, state, hour, who in (
                ("offers", "opted_out", 8, "c2"),
                ("news", "opted_out", 9, "c1"),
                ("reminders", "opted_out", 8, "c1"),
                ("reminders", "opted_in", 9, "c2"),
            )
        ],
    )
    shop.compute()
    refused = {(row["customer_id"], row["channel"]): row["refused_topics"] for row in shop.rows(tables.CONSENT)}
    assert refused == {("c1", "email"): "news,offers", ("c1", "sms"): None, ("c3", "email"): None}
