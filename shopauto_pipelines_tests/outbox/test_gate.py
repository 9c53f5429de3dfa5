"""The send gate: each part holds what it should and lets through what it should; and what it holds does not leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg
import pytest

from shopauto_pipelines.campaigns.declaration import Campaign, Step
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features import tables as features
from shopauto_pipelines.outbox import gate, ledger, schema
from shopauto_pipelines.outbox.assets import outbox_assets
from shopauto_pipelines.outbox.checks import send_gate
from shopauto_pipelines.outbox.gate.addresses import suppression
from shopauto_pipelines.outbox.gate.arrivals import freshness
from shopauto_pipelines.outbox.gate.fulfilment import shown, stock
from shopauto_pipelines.outbox.gate.overruling import overruled
from shopauto_pipelines.outbox.gate.scores import model, rests_on_scores
from shopauto_pipelines.outbox.gate.size import volume
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions import tables as predictions
from shopauto_pipelines.predictions.drift import Drift
from shopauto_pipelines.predictions.store import Card
from shopauto_pipelines.recommendations.tables import CUSTOMER_PRODUCTS, PRODUCTS, REPLENISHMENT
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.outbox.conftest import AT, DAY
from shopauto_pipelines_tests.outbox.shop import campaign as welcome
from shopauto_pipelines_tests.outbox.shop import fill, write_shop


def days_before(count: int) -> Iterator[date]:
    return (DAY - timedelta(days=n) for n in range(1, count + 1))


def declared(**changes) -> Campaign:
    told = {
        "name": "welcome",
        "description": "A campaign.",
        "goal": "A goal.",
        "owner": "team:data",
        "trigger": {"signed_up": {}},
        "steps": [Step(name="hello", wait_days=0, subject={"en": "Hi"}, template="hello")],
    }
    return Campaign.model_validate(told | changes)


def orders(lake: Lake, day: date, count: int) -> None:
    fill(lake, raw.ORDERS, day, [{"order_id": f"{day}:{n}"} for n in range(count)])


def plan(lake: Lake, day: date, count: int, **more) -> None:
    """An audience of ``count`` planned people, and as many refused ones."""
    rows = [
        {"step": step, "customer_id": f"c{n:06}", "occasion": str(day), "decision": decision, "channel": "email"} | more
        for step, decision in (("hello", "planned"), ("other", "refused"))
        for n in range(count)
    ]
    fill(lake, audience("welcome"), day, rows)


def only(findings: Iterator[gate.Finding]) -> gate.Finding:
    (finding,) = findings
    return finding


# freshness


def fresh(lake: Lake, settings: Settings) -> gate.Finding:
    return next(each for each in freshness(lake, settings, DAY) if each.part == "freshness of raw/orders")


def test_a_day_of_which_few_orders_have_come_in_is_held(lake, settings):
    for day in days_before(28):
        orders(lake, day, 100)
    orders(lake, DAY, 19)
    found = fresh(lake, settings)
    assert (found.passed, found.figures) == (False, {"rows": 19, "usual": 100})
    assert "19 rows of 2026-01-03, where such days have 100" in found.text
    orders(lake, DAY, 20)
    assert fresh(lake, settings).passed


def test_a_day_that_has_not_come_in_at_all_is_held(lake, settings):
    for day in days_before(28):
        orders(lake, day, 100)
    assert not fresh(lake, settings).passed


def test_a_shop_that_rests_on_sundays_is_compared_with_its_sundays(lake, settings):
    for day in days_before(56):
        orders(lake, day, 0 if day.weekday() == DAY.weekday() else 100)
    orders(lake, DAY, 0)
    assert fresh(lake, settings).passed


@pytest.mark.parametrize(("usual", "passed"), [(99, True), (100, False)])
def test_a_day_without_one_of_few_visitors_is_no_day_that_has_not_come_in(lake, settings, usual, passed):
    for day in days_before(28):
        fill(lake, raw.EVENTS, day, [{"event_id": f"{day}:{n}"} for n in range(usual)])
    (found,) = (each for each in freshness(lake, settings, DAY) if each.part == "freshness of raw/events")
    assert found.passed is passed


@pytest.mark.parametrize(("days", "usual"), [(6, 100), (28, 19)])
def test_a_short_or_a_small_past_says_nothing(lake, settings, days, usual):
    for day in days_before(days):
        orders(lake, day, usual)
    orders(lake, DAY, 0)
    assert fresh(lake, settings).passed


# volume


def jump(lake: Lake, settings: Settings, today: int, **changes) -> gate.Finding:
    return volume(lake, settings, declared(**changes), DAY, today)


def test_a_jump_is_held_and_a_busy_day_is_not(lake, settings):
    for n, day in enumerate(days_before(28)):
        plan(lake, day, 60 + n)
    assert jump(lake, settings, 366).passed
    found = jump(lake, settings, 370)
    assert not found.passed
    assert found.text.startswith("370 are planned, usual are 74, and at most 368 go without a question")


def test_one_large_day_in_the_past_does_not_excuse_another_but_two_do(lake, settings):
    sizes = [600, *[10] * 20]
    for size, day in zip(sizes, days_before(21), strict=True):
        plan(lake, day, size)
    assert not jump(lake, settings, 600).passed
    plan(lake, DAY - timedelta(days=9), 600)
    assert jump(lake, settings, 600).passed


def test_at_small_numbers_and_without_a_past_nothing_is_a_jump(lake, settings):
    assert jump(lake, settings, 100_000).passed
    for day in days_before(7):
        plan(lake, day, 1)
    assert jump(lake, settings, 200).passed
    assert not jump(lake, settings, 201).passed


def test_a_campaign_that_has_reached_nobody_for_weeks_is_held_when_it_reaches_everybody(lake, settings):
    for day in days_before(10):
        plan(lake, day, 0)
    assert not jump(lake, settings, 5_000).passed


def test_a_broadcast_is_compared_with_its_own_days_not_with_the_quiet_ones_between(lake, settings):
    monthly = {"trigger": {"broadcast": {"monthly": DAY.day}}, "audience": {"include": ["everyone"]}}
    for day in days_before(100):
        if day.day in (DAY.day, DAY.day + 1):
            plan(lake, day, 250 if day.day == DAY.day else 0)
    assert jump(lake, settings, 1_250, **monthly).passed
    assert not jump(lake, settings, 1_251, **monthly).passed


# suppression


def suppress(engine, settings: Settings, numbers: range, channel: str = "email") -> None:
    from shopauto_pipelines.outbox import links

    hashes = [links.address_hash(settings.hash_key, channel, f"c{n:06}@example.com") for n in numbers]
    with engine.begin() as connection:
        rows = [{"address_hash": h, "channel": channel, "reason": "unsubscribe", "at": AT} for h in hashes]
        connection.execute(schema.suppressions.insert(), rows)


def suppressed(engine, lake: Lake, settings: Settings) -> gate.Finding:
    with engine.connect() as connection:
        return suppression(connection, lake, settings, declared(), DAY)


def test_an_audience_of_many_suppressed_addresses_is_held(lake, settings, engine):
    write_shop(lake, people=200, refused=50)
    assert suppressed(engine, lake, settings).text == "no address is suppressed"
    suppress(engine, settings, range(200, 250))
    assert suppressed(engine, lake, settings).figures == {"suppressed": 0, "addresses": 200}
    suppress(engine, settings, range(20))
    assert suppressed(engine, lake, settings).passed
    suppress(engine, settings, range(20, 21))
    found = suppressed(engine, lake, settings)
    assert (found.passed, found.figures) == (False, {"suppressed": 21, "addresses": 200})
    assert "21 of 200 planned addresses are suppressed" in found.text
    assert "@" not in found.text


def test_an_address_suppressed_for_another_channel_does_not_count(lake, settings, engine):
    write_shop(lake, people=50)
    suppress(engine, settings, range(50), channel="sms")
    assert suppressed(engine, lake, settings).figures["suppressed"] == 0


# model


def modelled(lake: Lake, settings: Settings, monkeypatch, trained: date | None, psi: float = 0.1) -> list[gate.Finding]:
    row = {"target": "orders", "verdict": "", "model_id": trained and "orders-1", "trained_as_of": trained}
    fill(lake, predictions.MODELS, DAY, [row])
    moved = [Drift("expected_orders_90d", psi, 0.01, 1.0, 2.0, True), Drift("recency_days", 9.0, 0.01, 1.0, 2.0, True)]
    monkeypatch.setattr("shopauto_pipelines.predictions.serving.drifts", lambda *_: {trained: moved})
    return [*model(lake, settings, declared(trigger={"next_order": {}}), DAY)]


def test_scores_of_an_old_model_hold_the_campaigns_that_rest_on_them(lake, settings, monkeypatch):
    assert only(modelled(lake, settings, monkeypatch, DAY - timedelta(days=100))).passed
    found = only(modelled(lake, settings, monkeypatch, DAY - timedelta(days=101)))
    assert not found.passed
    assert "behind the trigger next_order was trained 101 days ago" in found.text


def test_scores_that_have_drifted_far_hold_them_too(lake, settings, monkeypatch):
    assert only(modelled(lake, settings, monkeypatch, DAY, psi=0.5)).passed
    found = only(modelled(lake, settings, monkeypatch, DAY, psi=0.52))
    assert not found.passed
    assert "expected_orders_90d, behind the trigger next_order, has drifted by 0.51" in found.text


def test_a_shop_without_a_model_is_not_held(lake, settings, monkeypatch):
    assert only(modelled(lake, settings, monkeypatch, None)).passed


def test_what_rests_on_scores_is_found_through_segments_and_conditions(lake, settings):
    from shopauto_pipelines.segments.declaration import SegmentDeclaration

    segments = [
        SegmentDeclaration(name="leaving", description="x", where="churn_probability > 0.8"),
        SegmentDeclaration(name="dear", description="x", where="in_segment('leaving') and orders > 3"),
        SegmentDeclaration(name="plain", description="x", where="orders > 3"),
    ]
    of = {name: declared(audience={"include": [name]}) for name in ("dear", "plain")}
    assert rests_on_scores(of["dear"], segments) == "the segment leaving"
    assert rests_on_scores(of["plain"], segments) is None
    assert [*model(lake, settings, declared(), DAY)] == []
    step = Step(name="hello", wait_days=0, subject={"en": "Hi"}, template="hello", when="value_cents_365d > 100")
    assert rests_on_scores(declared(steps=[step]), segments) == "the condition of step hello"


def test_the_drift_asked_about_is_that_of_the_store(lake, settings):
    """No stand-in here: a card without a profile has no drift, and its age alone counts."""
    card = Card("orders-1", "orders", DAY, True, "", {})
    folder = settings.models_path / card.model_id
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({**card.__dict__, "trained_as_of": str(DAY)}))
    fill(
        lake,
        predictions.MODELS,
        DAY,
        [{"target": "orders", "verdict": "", "model_id": "orders-1", "trained_as_of": DAY}],
    )
    fill(lake, predictions.SCORES, DAY, [])
    fill(lake, features.CUSTOMER_FEATURES, DAY, [])
    assert only(model(lake, settings, declared(trigger={"next_order": {}}), DAY)).figures == {"age_days": 0}


# stock and warehouse


def test_a_send_that_would_sell_what_is_not_there_is_held(lake, settings):
    recommended = Step(name="hello", wait_days=0, subject={"en": "Hi"}, template="hello", products="recommended")
    plan(lake, DAY, 1800)
    ids = [f"c{n:06}" for n in range(1800)]
    listed = [{"customer_id": n, "rank": 1, "product_id": "tent"} for n in ids]
    listed += [{"customer_id": n, "rank": 4, "product_id": "stove"} for n in ids]
    fill(lake, CUSTOMER_PRODUCTS, DAY, listed)
    fill(lake, features.CUSTOMER_FEATURES, DAY, [])
    goods = [{"product_id": "tent", "stock": 7}, {"product_id": "stove", "stock": 0}, {"product_id": "lamp"}]
    fill(lake, PRODUCTS, DAY, goods)
    found = only(stock(lake, settings, declared(steps=[recommended]), DAY, 1800))
    assert not found.passed
    assert found.text.startswith("tent: 12 to be expected, 7 on hand. ")
    more = settings.model_copy(update={"gate_order_percent": 1.9})
    assert only(stock(lake, more, declared(steps=[recommended]), DAY, 1800)).passed


def test_what_messages_do_not_show_is_not_counted_and_whoever_has_nothing_of_their_own_is_shown_what_sells_best(
    lake, settings
):
    choices = ("replenishment", "recommended")
    steps = [
        Step(name=name, wait_days=n, subject={"en": "Hi"}, template="hello", products=choice)
        for n, (name, choice) in enumerate(zip(("hello", "later"), choices, strict=True))
    ]
    readers = [("hello", "ann"), *(("later", f"c{n}") for n in range(1200))]
    planned = [
        {"step": step, "customer_id": who, "occasion": str(DAY), "decision": "planned", "channel": "email"}
        for step, who in readers
    ]
    fill(lake, audience("welcome"), DAY, planned)
    worn = {"customer_id": "ann", "state": "due", "last_bought_on": DAY, "due_on": DAY}
    used_up = {"gas": 0, "ink": 1, "oil": -2, "salt": 9}
    due = [worn | {"product_id": name, "used_up_on": DAY + timedelta(days=n)} for name, n in used_up.items()]
    fill(lake, REPLENISHMENT, DAY, due)
    fill(lake, CUSTOMER_PRODUCTS, DAY, [])
    fill(lake, features.CUSTOMER_FEATURES, DAY, [])
    sold = {"shop_customer_id": "x", "product_id": "tent", "orders": 1, "quantity": 1}
    fill(lake, features.DAILY_PRODUCTS, DAY, [sold])
    fill(lake, raw.PRODUCTS, DAY, [{"product_id": "tent", "name": "Tent", "changed_at": AT}])
    campaign = declared(steps=steps)
    assert shown(lake, campaign, DAY) == {"gas": 1 / 3, "ink": 1 / 3, "oil": 1 / 3, "tent": 400}


def test_the_product_a_trigger_is_about_counts_as_shown(lake, settings):
    plan(lake, DAY, 300, details=json.dumps({"product_id": "pot", "category": "kitchen"}))
    fill(lake, features.CUSTOMER_FEATURES, DAY, [])
    for table in (features.DAILY_PRODUCTS, raw.PRODUCTS):
        fill(lake, table, DAY, [])
    fill(lake, PRODUCTS, DAY, [{"product_id": "pot", "stock": 1}])
    found = only(stock(lake, settings, declared(), DAY, 300))
    assert found.text.startswith("pot: 6 to be expected, 1 on hand. ")


def test_a_send_beyond_what_the_warehouse_fills_is_held(lake, settings):
    for day in (DAY, *days_before(28)):
        orders(lake, day, 50)
    limited = settings.model_copy(update={"warehouse_orders_per_day": 60})
    assert only(stock(lake, limited, declared(), DAY, 500)).passed
    found = only(stock(lake, limited, declared(), DAY, 501))
    assert found.text.startswith(
        "60 orders are to be expected, 50 without this send; the warehouse fills 60. Send to fewer"
    )


def test_without_stock_or_a_capacity_nothing_is_asked(lake, settings):
    fill(lake, PRODUCTS, DAY, [{"product_id": "tent"}])
    assert [*stock(lake, settings, declared(), DAY, 10_000)] == []


# the whole of it


@pytest.fixture
def home(tmp_path, monkeypatch, engine):
    """A home of its own with the session's database, whose shop has lost most of the day's orders."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    for module in ("assets", "checks"):
        monkeypatch.setattr(f"shopauto_pipelines.outbox.{module}.engine", lambda _: engine)
    lake = Lake(tmp_path / "lake", 1)
    write_shop(lake, people=4)
    for day in days_before(28):
        orders(lake, day, 100)
    orders(lake, DAY, 3)
    return tmp_path


def materialise(*, with_audience: bool) -> dg.ExecuteInProcessResult:
    """Run the outbox; with the audience before it, as it was planned, and the gate between the two."""

    @dg.asset(key=["campaigns", "welcome", "audience"], partitions_def=DAILY, backfill_policy=ONE_RUN)
    def planned() -> None:
        """Stands in the lake already."""

    settings, sent = SettingsResource(), outbox_assets([welcome()])
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [planned, *sent, send_gate(welcome())] if with_audience else sent,
            instance=instance,
            resources={"settings": settings, "lake": LakeResource(settings=settings)},
            partition_key=str(DAY),
            raise_on_error=False,
        )


@pytest.mark.parametrize("with_audience", [True, False])
def test_what_the_gate_holds_does_not_leave_whoever_starts_the_send_until_it_is_overruled(home, engine, with_audience):
    result = materialise(with_audience=with_audience)
    assert not result.success
    with engine.connect() as connection:
        assert ledger.counts(connection, "welcome", DAY) == {}
    assert not (home / "inbox" / "messages").exists()
    if with_audience:
        (check,) = result.get_asset_check_evaluations()
        assert not check.passed
        told = check.description or ""
        assert check.metadata["freshness of raw/orders: rows"].value == 3
    else:
        told = "".join(str(event.event_specific_data) for event in result.get_step_failure_events())
    assert "The gate holds welcome of 2026-01-03, nothing of it leaves" in told
    assert "3 rows of 2026-01-03, where such days have 100" in told
    assert "shopauto outbox overrule welcome --day 2026-01-03 --why" in told

    with engine.begin() as connection:
        settings = Settings(home=home, _env_file=None)
        assert gate.overrule(connection, settings, "welcome", DAY, why="a public holiday", by="ana", at=AT)
    result = materialise(with_audience=with_audience)
    assert result.success
    with engine.connect() as connection:
        assert sum(ledger.counts(connection, "welcome", DAY).values()) == 4
    if with_audience:
        (check,) = result.get_asset_check_evaluations()
        said = check.metadata["freshness of raw/orders, overruled"].value
        assert said == "by ana, 2026-01-04 05:00 UTC: a public holiday"


def test_an_overruling_holds_for_its_campaign_and_day_alone_and_is_kept_with_its_cause(engine, settings):
    with engine.begin() as connection:
        for name, day, why in (("old", date(2025, 1, 1), "x"), ("a", DAY, "sale"), ("b", DAY, "launch")):
            assert gate.overrule(connection, settings, name, day, why=why, by="ana", at=AT)
        assert not gate.overrule(connection, settings, "a", DAY, why="again", by="bo", at=AT)
        current = live_settings.current(connection, settings)
        assert current.gate_overruled == "a:2026-01-03 b:2026-01-03"
        assert overruled(connection, current, "a", DAY, ["volume"])["volume"].endswith(
            "by ana, 2026-01-04 05:00 UTC: sale"
        )
        assert overruled(connection, current, "a", DAY + timedelta(days=1), ["volume"]) == {}
        assert overruled(connection, current, "c", DAY, ["volume"]) == {}


def test_nobody_planned_is_not_asked_about(lake, settings, engine):
    plan(lake, DAY, 0)
    with engine.connect() as connection:
        verdict = gate.examine(connection, lake, settings, declared(), DAY)
    assert [each.part for each in verdict.findings] == ["planned"]
    assert verdict.text is None
