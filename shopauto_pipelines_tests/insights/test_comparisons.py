"""Who counts on which side, what counts as having followed, and when an experiment is decided."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import count

import ibis.expr.types as ir
import pyarrow as pa
import pytest

from shopauto_pipelines.campaigns.declaration import Campaign, Step
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import DAILY_ACTIVITY
from shopauto_pipelines.insights.comparisons import Rules, campaign_effects
from shopauto_pipelines.insights.effects import CANNOT_TELL
from shopauto_pipelines.insights.followed import TREATED, Known, assignments
from shopauto_pipelines.insights.tables import CAMPAIGN_EFFECTS
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

DAY = date(2026, 3, 1)
TODAY = DAY + timedelta(days=14)


def campaign(**changes) -> Campaign:
    told = {
        "name": "hello",
        "description": "A campaign.",
        "goal": "A goal.",
        "owner": "team:data",
        "trigger": {"signed_up": {}},
        "steps": [Step(name="first", wait_days=0, subject={"en": "Hi"}, template="first")],
    }
    return Campaign.model_validate(told | changes)


def experiment(sample_size: int = 10, **changes) -> dict:
    return {
        "name": "words",
        "step": "first",
        "variants": {"control": {}, "short": {"subject": "Hi"}},
        "sample_size": sample_size,
        **changes,
    }


def rows(lake: Lake, table: Table, told: Iterable[dict]) -> ir.Table:
    """Rows of a table over several days, with its partition column; required columns that are not given are zero."""
    zero = {"int64": 0, "string": "", "boolean": False}
    blank = {c.name: zero.get(c.type) if c.required else None for c in table.columns}
    schema = table.arrow_schema.append(pa.field(table.partition, pa.date32()))
    found = pa.Table.from_pylist([blank | {table.partition: DAY} | row for row in told], schema=schema)
    return lake.con.create_table(f"test_{table.name.replace('/', '_')}", found, temp=True, overwrite=True)


def assigned(customer: str, reason: str = "due", on: date = DAY, variant: str | None = None, **more) -> dict:
    why = {"reason": reason} | ({"experiment": "words", "variant": variant} if variant else {})
    told = {"step": "first", "customer_id": customer, "occasion": "o", "reason": reason, "as_of": on}
    return told | {"variant": variant, "explanation": json.dumps(why)} | more


def ordered(customer: str, on: date, cents: int = 1000, orders: int = 1) -> dict:
    return {"shop_customer_id": customer, "day": on, "orders": orders, "revenue_cents": cents}


def click(customer: str, on: date, step: str = "first", **more) -> dict:
    message = f"hello:{step}:{customer}:o"
    told = {"event_id": f"{message}:{on}", "type": "click", "message_id": message, "campaign": "hello", "day": on}
    return told | {"shop_customer_id": customer} | more


def sent(on: date, **more) -> dict:
    return click("somebody", on) | {"event_id": f"sent:{on}", "type": "sent"} | more


#: The campaign is live all the time.
LIVE = (sent(DAY),)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """``read(campaign, audience, orders, clicks, ids, sends)``: the rows by comparison, variant and metric."""
    lake = Lake(tmp_path_factory.mktemp("lake"), threads=1)

    def effects(
        declared, people, orders=(), clicks=(), ids=(), as_of=TODAY, rules=None, sends=LIVE
    ) -> dict[tuple, dict]:
        same = [{"shop_customer_id": shop_id, "customer_id": customer} for shop_id, customer in ids]
        known = Known(
            assignments(lake, {declared.name: rows(lake, audience(declared.name), people)}),
            rows(lake, DAILY_ACTIVITY, orders),
            rows(lake, IDENTITIES, same),
            rows(lake, MESSAGE_EVENTS, [*sends, *clicks]),
        )
        found = campaign_effects(lake, [declared], known, as_of, rules)
        assert found.schema == CAMPAIGN_EFFECTS.arrow_schema
        return {(row["comparison"], row["variant"], row["metric"]): row for row in found.to_pylist()}

    return effects


HELD = ("campaign_holdout", "campaign", "ordered")


def test_everybody_who_was_to_get_a_message_counts_sent_or_not(read):
    people = [assigned("a"), assigned("b", "cap"), assigned("c", "no_consent"), assigned("d", "campaign_holdout")]
    found = read(campaign(), people, [ordered("b", DAY + timedelta(days=2))])
    assert "cap" in TREATED
    assert {"due", "cap"} <= set(TREATED)
    assert not {"no_consent", "ordered", "holdout", "campaign_holdout"} & set(TREATED)
    assert set(found) == {HELD, ("campaign_holdout", "campaign", "revenue")}
    row = found[HELD]
    assert (row["people"], row["control_people"], row["value"], row["control_value"]) == (2, 1, 0.5, 0.0)
    assert row["verdict"] == CANNOT_TELL


def test_each_holdout_is_compared_on_its_own(read):
    people = [assigned("a"), *(assigned(f"g{n}", "holdout") for n in range(3)), assigned("d", "campaign_holdout")]
    found = read(campaign(), people)
    assert found["global_holdout", "campaign", "ordered"]["control_people"] == 3
    assert found[HELD]["control_people"] == 1


def test_what_follows_counts_from_the_day_after_for_so_many_days_and_no_later(read):
    people = [assigned(str(n)) for n in range(5)] + [assigned("held", "campaign_holdout")]
    days = {"0": 0, "1": 1, "2": 14, "3": 15, "4": -1}
    orders = [ordered(who, DAY + timedelta(days=n), 500) for who, n in days.items()]
    found = read(campaign(), people, orders, as_of=TODAY + timedelta(days=5))
    assert found[HELD]["value"] == 2 / 5
    assert found["campaign_holdout", "campaign", "revenue"]["value"] == 200


def test_days_before_the_campaign_sent_anything_compare_nobody(read):
    people = [
        assigned(f"{reason}{n}", reason, DAY + timedelta(days=n)) for reason in ("due", "holdout") for n in range(4)
    ]
    asked = {"declared": campaign(), "people": people, "as_of": TODAY + timedelta(days=4)}
    others = [sent(DAY, campaign="letters", message_id="letters:1:c:o"), sent(DAY, message_id="a shop's own message")]
    assert read(**asked, sends=others) == {}
    # what is planned as of a day leaves on the one after
    row = read(**asked, sends=[*others, sent(DAY + timedelta(days=3))])["global_holdout", "campaign", "ordered"]
    assert (row["people"], row["control_people"]) == (2, 2)


def test_those_whose_days_are_not_over_are_left_out(read):
    people = [assigned("a"), assigned("late", on=DAY + timedelta(days=1)), assigned("held", "campaign_holdout")]
    orders = [ordered("late", DAY + timedelta(days=2))]
    assert read(campaign(), people, orders)[HELD]["people"] == 1
    assert read(campaign(), people, orders, as_of=TODAY + timedelta(days=1))[HELD]["people"] == 2


def test_a_person_counts_once_an_occasion_from_its_first_day_whatever_the_steps(read):
    again = [assigned("a", on=DAY + timedelta(days=n), step=step) for n, step in ((3, "first"), (4, "second"))]
    people = [assigned("a"), *again, assigned("a", occasion="other"), assigned("held", "campaign_holdout")]
    # 16 days after the first day: not within the days of any
    row = read(campaign(), people, [ordered("a", DAY + timedelta(days=16))], as_of=TODAY + timedelta(days=30))[HELD]
    assert (row["people"], row["occasions"], row["value"]) == (1, 2, 0.0)


def test_nobody_seems_to_begin_on_the_first_day_that_counts(read):
    # the held out stay in the audience while a step is valid, the others until their message has left
    before = DAY - timedelta(days=1)
    people = [assigned("a", on=before), assigned("b"), assigned("held", "campaign_holdout")]
    people += [assigned("stays", "campaign_holdout", on=day) for day in (before, DAY)]
    row = read(campaign(), people, rules=Rules(history_days=(TODAY - DAY).days))[HELD]
    assert (row["people"], row["control_people"]) == (1, 1)


def test_orders_of_all_ids_of_a_person_count_also_where_they_were_joined_later(read):
    people = [assigned("a"), assigned("held", "campaign_holdout")]
    orders = [ordered("b", DAY + timedelta(days=1), 700), ordered("a", DAY + timedelta(days=2), 300)]
    found = read(campaign(), people, orders, ids=[("a", "b"), ("b", "b")])
    assert found["campaign_holdout", "campaign", "revenue"]["value"] == 1000


def test_what_follows_a_message_about_a_cart_begins_on_the_day_itself(read):
    carts = campaign(
        trigger={"cart_abandoned": {}},
        steps=[Step(name="first", wait_hours=1, subject={"en": "Hi"}, template="first")],
    )
    people = [assigned("a"), assigned("held", "campaign_holdout")]
    assert read(carts, people, [ordered("a", DAY)])[HELD]["value"] == 1


def test_an_experiment_has_no_verdict_until_its_size_and_says_how_many_are_missing(read):
    people = [assigned(f"{v}{n}", variant=v) for v, size in (("control", 10), ("short", 7)) for n in range(size)]
    orders = [ordered(f"short{n}", DAY + timedelta(days=1)) for n in range(7)]
    row = read(campaign(experiment=experiment()), people, orders)["words", "short", "ordered"]
    assert (row["value"], row["control_value"], row["verdict"]) == (1, 0, CANNOT_TELL)
    assert row["lift_low"] > 0
    assert row["note"] == "3 people are missing: short 7 of 10"
    assert row["people_needed"] == 20


def test_an_experiment_is_decided_on_those_who_came_first_once_and_for_all(read):
    number = count()
    people = [
        assigned(f"{v}{next(number)}", variant=v, on=DAY + timedelta(days=late))
        for late in (0, 1, 9)
        for v in ("control", "short")
        for _ in range(6)
    ]
    early = [p["customer_id"] for p in people if p["variant"] == "short" and p["as_of"] < DAY + timedelta(days=9)]
    late = [p["customer_id"] for p in people if p["variant"] == "control" and p["as_of"] > DAY + timedelta(days=5)]
    orders = [ordered(who, DAY + timedelta(days=2)) for who in early]
    orders += [ordered(who, DAY + timedelta(days=10)) for who in late]
    told = [
        read(campaign(experiment=experiment()), people, orders, as_of=TODAY + timedelta(days=n))[
            "words", "short", "ordered"
        ]
        for n in (1, 9, 40)
    ]
    assert told[0] == told[1] == told[2]
    assert (told[0]["people"], told[0]["control_people"], told[0]["verdict"]) == (12, 12, "better")
    before = read(campaign(experiment=experiment()), people, orders)["words", "short", "ordered"]
    assert before["note"] == "8 people are missing: control 6 of 10, short 6 of 10"


def test_only_the_registered_metric_is_decided(read):
    people = [assigned(f"{v}{n}", variant=v) for v in ("control", "short") for n in range(10)]
    clicks = [click(f"short{n}", DAY + timedelta(days=1)) for n in range(10)]
    by_orders = read(campaign(experiment=experiment()), people, clicks=clicks)["words", "short", "clicked"]
    assert (by_orders["value"], by_orders["verdict"], by_orders["note"]) == (
        1.0,
        CANNOT_TELL,
        "not what decides: that is ordered",
    )
    by_clicks = read(campaign(experiment=experiment(metric="clicked")), people, clicks=clicks)
    assert by_clicks["words", "short", "clicked"]["verdict"] == "better"


def test_clicks_of_machines_other_steps_and_other_occasions_do_not_count(read):
    people = [assigned(f"{v}{n}", variant=v) for v in ("control", "short") for n in range(4)]
    clicks = [
        click("short0", DAY + timedelta(days=1)),
        click("short0", DAY + timedelta(days=2)),
        click("short1", DAY + timedelta(days=1), is_machine=True),
        click("short2", DAY + timedelta(days=1), step="second"),
        click("short3", DAY + timedelta(days=15)),
    ]
    row = read(campaign(experiment=experiment()), people, clicks=clicks, as_of=TODAY + timedelta(days=9))
    assert row["words", "short", "clicked"]["value"] == 0.25


def test_an_earlier_experiment_of_the_step_is_not_mixed_in(read):
    people = [assigned(f"{v}{n}", variant=v) for v in ("control", "short") for n in range(4)]
    older = {"explanation": json.dumps({"experiment": "older"})}
    people += [assigned(f"older{n}", variant="short") | older for n in range(5)]
    assert read(campaign(experiment=experiment()), people)["words", "short", "ordered"]["people"] == 4


def test_several_variants_share_the_chance_of_being_wrong(read):
    three = experiment(variants={"control": {}, "short": {"subject": "Hi"}, "long": {"subject": "Hello"}})
    names = [f"{v}{n}" for v in ("control", "short", "long") for n in range(10)]
    people = [assigned(name, variant=name.rstrip("0123456789")) for name in names]
    orders = [ordered(f"short{n}", DAY + timedelta(days=1)) for n in range(5)]
    two = read(campaign(experiment=experiment()), people, orders)["words", "short", "ordered"]
    all_three = read(campaign(experiment=three), people, orders)
    assert all_three["words", "short", "ordered"]["lift_low"] < two["lift_low"]
    assert ("words", "long", "ordered") in all_three
    assert ("words", "control", "ordered") not in all_three


def test_large_amounts_are_summed_exactly(read):
    people = [assigned(f"a{n}") for n in range(20)] + [assigned(f"h{n}", "campaign_holdout") for n in range(20)]
    orders = [ordered(f"{who}{n}", DAY + timedelta(days=1), 3_000_000_000 + n) for who in "ah" for n in range(20)]
    row = read(campaign(), people, orders)["campaign_holdout", "campaign", "revenue"]
    assert (row["lift"], row["value"]) == (0, 3_000_000_009.5)
    assert 0 < row["lift_high"] < 100
