"""Offers of messages by the day: one code per occasion, and no more to a person than the cap allows, whoever grants them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import Campaign, Step
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.granting import take_back, with_codes
from shopauto_pipelines.outbox.people import People
from shopauto_pipelines.outbox.schema import offers
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows
from shopauto_pipelines_tests.outbox.shop import write_people

SETTINGS = Settings(_env_file=None)
GIFT = Step(name="gift", wait_days=0, subject={"en": "Hi"}, template="a", offer={"valid_days": 7})
CAMPAIGN = Campaign(
    name="birthday", description="A.", goal="A.", owner="team:crm", trigger={"birthday": {}}, steps=[GIFT]
)


def _row(customer: str, occasion: str = "2026", kind: str | None = "percent") -> dict:
    offer = {"kind": kind, "percent": 5 if kind == "percent" else None, "reason": "granted", "why": "churn factor 2.50"}
    return {
        "step": "gift", "variant": None, "customer_id": customer, "occasion": occasion,
        "explanation": json.dumps({"reason": "due"}), "offer": json.dumps(offer) if kind else None,
    }  # fmt: skip


@pytest.fixture
def people(lake) -> People:
    """Some, each with one shop id."""
    write_people(lake, {name: [name] for name in ("ann", "bob", "cem", "dee")})
    return People(lake, DAY)


def _granted(engine, people: People, *rows: dict, now=AT) -> list[dict]:
    """The offers as the explanations tell them; empty where there is none."""
    with engine.begin() as connection:
        explained = with_codes(connection, rows, people, CAMPAIGN, SETTINGS, now)
    return [json.loads(row["explanation"]).get("offer", {}) for row in explained]


def _stored(engine) -> list[tuple]:
    with engine.connect() as connection:
        wanted = sa.select(offers.c.customer_id, offers.c.occasion, offers.c.code).order_by(offers.c.code)
        return sorted(tuple(row) for row in connection.execute(wanted))


def test_the_explanation_tells_the_code_that_is_stored_and_a_second_run_the_same(engine, people):
    first = _granted(
        engine, people, _row("ann"), _row("bob", kind="free_shipping"), _row("cem", kind="none"), _row("dee", kind=None)
    )
    assert [offer.get("kind") for offer in first] == ["percent", "free_shipping", "none", None]
    assert _stored(engine) == [("ann", "2026", first[0]["code"]), ("bob", "2026", first[1]["code"])]
    assert "code" not in first[2]
    again = _granted(engine, people, _row("ann"), _row("bob", kind="free_shipping"), now=AT + timedelta(days=1))
    assert [offer["code"] for offer in again] == [first[0]["code"], first[1]["code"]]
    assert len(_stored(engine)) == 2


def test_the_cap_counts_what_anybody_granted_the_person_and_within_one_batch(engine, people):
    _granted(engine, people, _row("ann", "2026"))
    later = AT + timedelta(days=30)
    one, two, three = _granted(engine, people, _row("ann", "2027"), _row("bob", "a"), _row("bob", "b"), now=later)
    assert (one["kind"], one["reason"]) == ("none", "cap")
    assert (two["kind"], three["reason"]) == ("percent", "cap")
    after = AT + timedelta(days=SETTINGS.offer_cap_days + 1)
    assert _granted(engine, people, _row("ann", "2027"), now=after)[0]["kind"] == "percent"


def test_what_was_granted_to_an_account_that_was_joined_since_counts(engine, people, lake):
    _granted(engine, people, _row("bob"))
    write_people(lake, {"ann": ["ann", "bob"]})
    joined = People(lake, DAY)
    later = AT + timedelta(days=30)
    (other,) = _granted(engine, joined, _row("ann", "2027"), now=later)
    assert (other["kind"], other["reason"]) == ("none", "cap")
    before = _stored(engine)[0][2]
    (same,) = _granted(engine, joined, _row("ann"), now=AT + timedelta(days=1))
    assert same["code"] == before
    assert _stored(engine) == [("ann", "2026", before)], (
        "it goes with its person, whose messages tell whether it was shown"
    )


def test_an_offer_whose_messages_were_all_held_back_does_not_count(engine, people):
    _granted(engine, people, _row("ann"), _row("bob"))
    with engine.begin() as connection:
        held = [{**row, "campaign": "birthday", "occasion": "2026", "customer_id": name} for row, name in
                zip(rows(2, address_hash=None), ("ann", "bob"), strict=True)]  # fmt: skip
        ledger.plan(connection, [*held[:1], held[1] | {"address_hash": b"x"}], run_id="run", at=AT)
        assert len(reserve(connection, campaign="birthday").messages) == 1
        assert ledger.counts(connection, "birthday", DAY) == {("reserved", ""): 1, ("suppressed", "no_address"): 1}
    assert take_back(engine, SETTINGS, CAMPAIGN, AT) == 1
    assert [stored[0] for stored in _stored(engine)] == ["bob"]
    assert _granted(engine, people, _row("ann", "2027"), now=AT + timedelta(days=1))[0]["kind"] == "percent"


def test_an_offer_that_was_shown_before_accounts_were_joined_stays(engine, people, lake):
    (shown,) = _granted(engine, people, _row("bob"))
    message = {**rows(1, address_hash=b"x")[0], "campaign": "birthday", "occasion": "2026"}
    with engine.begin() as connection:
        ledger.plan(connection, [message | {"customer_id": "bob"}], run_id="run", at=AT)
        assert len(reserve(connection, campaign="birthday").messages) == 1
    write_people(lake, {"ann": ["ann", "bob"]})
    _granted(engine, People(lake, DAY), _row("ann"))
    with engine.begin() as connection:
        ledger.plan(connection, [message | {"customer_id": "ann", "other_ids": ["bob"]}], run_id="run", at=AT)
        assert reserve(connection, campaign="birthday").messages == []
        assert ("suppressed", "already_sent") in ledger.counts(connection, "birthday", DAY)
    assert take_back(engine, SETTINGS, CAMPAIGN, AT) == 0
    assert _stored(engine) == [("ann", "2026", shown["code"])]
