"""Offers of messages by the day: one code per occasion, and no more to a person than the cap allows, whoever grants them."""

import json
from datetime import timedelta

import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import Campaign, Step
from shopauto_pipelines.outbox.granting import with_codes
from shopauto_pipelines.outbox.schema import offers
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT

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


def _granted(engine, *rows: dict, now=AT) -> list[dict]:
    """The offers as the explanations tell them; empty where there is none."""
    with engine.begin() as connection:
        explained = with_codes(connection, rows, CAMPAIGN, SETTINGS, now)
    return [json.loads(row["explanation"]).get("offer", {}) for row in explained]


def _stored(engine) -> list[tuple]:
    with engine.connect() as connection:
        wanted = sa.select(offers.c.customer_id, offers.c.occasion, offers.c.code).order_by(offers.c.code)
        return sorted(tuple(row) for row in connection.execute(wanted))


def test_the_explanation_tells_the_code_that_is_stored_and_a_second_run_the_same(engine):
    first = _granted(
        engine, _row("ann"), _row("bob", kind="free_shipping"), _row("cem", kind="none"), _row("dee", kind=None)
    )
    assert [offer.get("kind") for offer in first] == ["percent", "free_shipping", "none", None]
    assert _stored(engine) == [("ann", "2026", first[0]["code"]), ("bob", "2026", first[1]["code"])]
    assert "code" not in first[2]
    again = _granted(engine, _row("ann"), _row("bob", kind="free_shipping"), now=AT + timedelta(days=1))
    assert [offer["code"] for offer in again] == [first[0]["code"], first[1]["code"]]
    assert len(_stored(engine)) == 2


def test_the_cap_counts_what_anybody_granted_the_person_and_within_one_batch(engine):
    _granted(engine, _row("ann", "2026"))
    later = AT + timedelta(days=30)
    one, two, three = _granted(engine, _row("ann", "2027"), _row("bob", "a"), _row("bob", "b"), now=later)
    assert (one["kind"], one["reason"]) == ("none", "cap")
    assert (two["kind"], three["reason"]) == ("percent", "cap")
    after = AT + timedelta(days=SETTINGS.offer_cap_days + 1)
    assert _granted(engine, _row("ann", "2027"), now=after)[0]["kind"] == "percent"
