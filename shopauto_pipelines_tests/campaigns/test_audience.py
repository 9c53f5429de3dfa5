"""Audiences on a real lake: what the planner is given, what is written, and what the UI says of it."""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns import audience as logic
from shopauto_pipelines.campaigns import tables
from shopauto_pipelines.campaigns.component import audience_asset, left_alone
from shopauto_pipelines.campaigns.declaration import load_campaigns, planned_before
from shopauto_pipelines.campaigns.products import Pick, Showcase
from shopauto_pipelines.campaigns.triggers import segment_entered, signed_up
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_PRODUCTS
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.dagster.assets import asset_key, spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import range_tags
from shopauto_pipelines.platform.lake import Lake, LakeTable, days_between
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP
from shopauto_pipelines.sources.tables import EVENTS, MESSAGE_EVENTS, ORDERS, PRODUCTS
from shopauto_pipelines_tests.campaigns.conftest import lake_rows
from shopauto_pipelines_tests.outbox.conftest import emptied

LAST = date(2026, 6, 30)
FIRST = date(2026, 6, 29)
DAYS = days_between(FIRST, LAST)
CAMPAIGNS = ("abandoned_cart", "welcome", "win_back", "newsletter")
UPSTREAM = (CUSTOMER_360, SCORES, CONSENT, IDENTITIES, MEMBERSHIP, CHANGES, MESSAGE_EVENTS, EVENTS, ORDERS)


def _event(customer: str, message_id: str | None, *, campaign: str = "newsletter", kind: str = "sent") -> dict:
    return {
        "event_id": f"{customer}{message_id}{kind}",
        "happened_at": datetime(2026, 6, 29),
        "type": kind,
        "message_id": message_id,
        "shop_customer_id": customer,
        "channel": "email",
        "campaign": campaign,
    }


def _environment(patch: pytest.MonkeyPatch, home: Path, engine: sa.Engine) -> None:
    patch.setenv("SHOPAUTO_HOME", str(home))
    patch.setenv("SHOPAUTO_POSTGRES_URL", engine.url.set(drivername="postgresql").render_as_string(False))
    patch.setenv("SHOPAUTO_HOLDOUT_PERCENT", "0")
    patch.setenv("SHOPAUTO_CAP_DAY_MESSAGES", "9")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Two days of a small shop: ``new`` signs up on the last day, ``old`` lapses then, ``shy`` was never asked."""
    home = tmp_path_factory.mktemp("written")
    lake = Lake(home / "lake", threads=2)
    people = [
        {
            "customer_id": "new",
            "email": "new@example.com",
            "language": "pt-BR",
            "created_on": LAST,
            "first_name": "Nia",
        },
        {
            "customer_id": "old",
            "email": "old@example.com",
            "created_on": date(2025, 1, 1),
            "last_visit_on": date(2026, 5, 1),
        },
        {"customer_id": "shy", "email": "shy@example.com", "created_on": LAST - timedelta(days=1)},
        {"customer_id": "guest:1", "first_order_on": LAST - timedelta(days=3), "email": "guest@example.com"},
    ]
    agreed = [
        {"customer_id": who, "channel": "email", "state": "opted_in", "at": datetime(2025, 1, 1)}
        for who in ("new", "old", "guest:1")
    ]
    for day in DAYS:
        known = [p for p in people if p.get("created_on", day) <= day]
        lake.write(CUSTOMER_360, [day], lake_rows(CUSTOMER_360, *known))
        lake.write(CONSENT, [day], lake_rows(CONSENT, *agreed))
        lake.write(SCORES, [day], lake_rows(SCORES, {"customer_id": "old", "churn_probability": 0.75}))
        ids = [{"shop_customer_id": p["customer_id"], "customer_id": p["customer_id"]} for p in people]
        lake.write(IDENTITIES, [day], lake_rows(IDENTITIES, *ids, {"shop_customer_id": "g2", "customer_id": "guest:1"}))
        lapsed = [{"segment": "lapsed", "customer_id": "old", "entered_on": LAST}] if day == LAST else []
        lake.write(MEMBERSHIP, [day], lake_rows(MEMBERSHIP, *lapsed))
        lake.write(CHANGES, [day], lake_rows(CHANGES, *({**row, "change": "entered"} for row in lapsed)))
        lake.write(MESSAGE_EVENTS, [day], lake_rows(MESSAGE_EVENTS))
        lake.write(ORDERS, [day], lake_rows(ORDERS))
        lake.write(EVENTS, [day], lake_rows(EVENTS))
    return home


@pytest.fixture
def lake(written, tmp_path, monkeypatch, engine) -> Lake:
    """That shop, in the home of the settings."""
    _environment(monkeypatch, tmp_path, engine)
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return Lake(load_settings().lake_path, threads=2)


@pytest.fixture(scope="module")
def refreshed(written, tmp_path_factory, shared_engine, refresh):
    """Its home with both days refreshed in one run, those by the hour too; and what came of the run."""
    home = Path(shutil.copytree(written, tmp_path_factory.mktemp("refreshed"), dirs_exist_ok=True))
    lake = Lake(home / "lake", threads=2)
    left = {"happened_at": datetime(2026, 6, 30, 9), "type": "add_to_cart", "cart_id": "c", "shop_customer_id": "g2"}
    lake.write(EVENTS, [LAST], lake_rows(EVENTS, left))
    with pytest.MonkeyPatch.context() as patch:
        _environment(patch, home, emptied(shared_engine))
        return home, refresh(FIRST, LAST, carts=True)


@pytest.fixture(scope="module")
def refresh():
    """``refresh(first, last)``: the shipped campaigns' audiences, and their checks, for a range of days in one run.

    Those that send by the hour too where ``carts`` is true.
    """
    shipped = {name: c for name, c in load_campaigns().items() if name in CAMPAIGNS}
    campaigns = {name: c.model_copy(update={"holdout_percent": 0.0}) for name, c in shipped.items()}
    for copy, original in zip(campaigns.values(), shipped.values(), strict=True):
        copy._folder = original.folder
    upstream = []
    for table in UPSTREAM:
        arguments = spec_arguments(table, table.room)
        upstream.append(dg.AssetSpec(**arguments).with_io_manager_key("lake_io"))
    made = [
        (c.is_realtime, audience_asset(c, tuple(planned_before(name, campaigns))), left_alone(c))
        for name, c in campaigns.items()
    ]
    settings = SettingsResource()
    lake_resource = LakeResource(settings=settings)
    resources = {"settings": settings, "lake": lake_resource, "lake_io": LakeIOManager(lake=lake_resource)}

    def run(first: date, last: date, carts: bool = False, **options) -> dg.ExecuteInProcessResult:
        assets = [asset for by_the_hour, asset, _ in made if carts or not by_the_hour]
        checks = [check for by_the_hour, _, check in made if carts or not by_the_hour]
        return dg.materialize(
            [*upstream, *assets, *checks], selection=dg.AssetSelection.assets(*assets), resources=resources,
            tags=range_tags(first, last), **options,
        )  # fmt: skip

    return run


def _decisions(lake: Lake, campaign: str, day: date) -> dict[tuple[str, str], str]:
    fresh = lake.session()
    rows = fresh.con.to_pyarrow(fresh.on(tables.audience(campaign), day)).to_pylist()
    return {(row["step"], row["customer_id"]): row["reason"] for row in rows}


def test_the_shipped_campaigns_reach_whom_they_should_on_the_day_they_should(refreshed):
    home, result = refreshed
    lake = Lake(home / "lake", threads=2)
    assert result.success
    assert _decisions(lake, "welcome", LAST) == {
        ("hello", "new"): "due",
        ("hello", "shy"): "no_consent",
        ("favourites", "guest:1"): "due",
    }
    assert _decisions(lake, "win_back", LAST) == {("we_miss_you", "old"): "due"}
    assert _decisions(lake, "newsletter", LAST) == {
        ("issue", "new"): "due",
        ("issue", "old"): "excluded",
        ("issue", "shy"): "no_consent",
        ("issue", "guest:1"): "due",
    }
    assert _decisions(lake, "abandoned_cart", LAST) == {("reminder", "guest:1"): "due"}
    assert _decisions(lake, "newsletter", FIRST) == {}
    assert _decisions(lake, "win_back", FIRST) == {}


def test_a_range_in_one_run_gives_the_bytes_of_daily_runs_and_a_second_run_changes_none(
    refreshed, refresh, engine, tmp_path, monkeypatch
):
    def files(folder: Path) -> dict[str, bytes]:
        lake = folder / "lake"
        return {str(path.relative_to(lake)): path.read_bytes() for path in lake.glob("campaigns/**/*.parquet")}

    at_once = files(refreshed[0])
    assert len(at_once) == 8
    _environment(monkeypatch, tmp_path, engine)
    shutil.copytree(refreshed[0], tmp_path, dirs_exist_ok=True)
    lake = Lake(load_settings().lake_path, threads=2)
    for name in CAMPAIGNS:  # of this day nothing is there yet, of the other one all is
        lake.delete(tables.audience(name), LAST)
    for day in reversed(DAYS):
        refresh(day, day, carts=True)
    assert files(tmp_path) == at_once


WEEKS_AGO, TODAY = datetime(2026, 5, 21, 9), datetime(2026, 6, 30, 9)


@pytest.mark.parametrize(
    ("login_at", "events", "orders", "decided"),
    [
        (WEEKS_AGO, [], [], {("reminder", "guest:1"): "due"}),
        (TODAY, [{"happened_at": WEEKS_AGO, "type": "add_to_cart", "cart_id": "c"}], [], {}),  # it was left then, too
        (TODAY, [], [{"order_id": "o", "ordered_at": WEEKS_AGO, "cart_id": "c"}], {}),  # which took the cart
    ],
)
def test_it_is_known_what_happened_to_a_cart_and_in_its_browser_weeks_ago(
    lake, refresh, login_at, events, orders, decided
):
    login = {"happened_at": login_at, "type": "login", "anonymous_id": "browser", "shop_customer_id": "g2"}
    left = {"happened_at": TODAY, "type": "add_to_cart", "anonymous_id": "browser", "cart_id": "c"}
    for at in (WEEKS_AGO, TODAY):
        of_day = [row for row in (login, left, *events) if row["happened_at"] == at]
        lake.write(EVENTS, [at.date()], lake_rows(EVENTS, *of_day))
    lake.write(ORDERS, [WEEKS_AGO.date()], lake_rows(ORDERS, *orders))
    refresh(LAST, LAST, carts=True)
    assert _decisions(lake, "abandoned_cart", LAST) == decided


def test_a_step_whose_turn_is_over_before_it_begins_is_due_on_no_day(lake, refresh, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_CART_ABANDONED_MINUTES", str(30 * 60))
    left = {"happened_at": datetime(2026, 6, 29, 9), "type": "add_to_cart", "cart_id": "c", "shop_customer_id": "g2"}
    lake.write(EVENTS, [FIRST], lake_rows(EVENTS, left))
    refresh(LAST, LAST, carts=True)
    assert _decisions(lake, "abandoned_cart", LAST) == {("help", "guest:1"): "due"}, "the reminder waits as long"


def test_an_audience_of_an_earlier_version_is_read_with_nulls_where_it_lacks_a_column(refreshed, tmp_path):
    lake, table = (
        Lake(Path(shutil.copytree(refreshed[0] / "lake", tmp_path / "lake")), threads=1),
        tables.audience("newsletter"),
    )
    file = lake.path(table, LAST)
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["variant"]), file)
    rows = [row for batch in logic.written(lake, table, LAST, ["variant", "customer_id"]) for row in batch.to_pylist()]
    assert [*rows[0]] == ["variant", "customer_id"]
    assert not any(row["variant"] for row in rows)


def test_campaigns_of_higher_priority_use_up_the_cap_first(lake, refresh, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_CAP_MESSAGES", "1")
    refresh(LAST, LAST)
    assert _decisions(lake, "welcome", LAST)["hello", "new"] == "due"
    assert _decisions(lake, "newsletter", LAST)["issue", "new"] == "cap"


def test_a_cap_that_was_changed_in_the_database_holds_for_the_next_audience(lake, refresh, engine):
    with engine.begin() as connection:
        wanted = live_settings.Change("cap_messages", "1", "less of it", "me", datetime(2026, 7, 1, tzinfo=UTC))
        live_settings.change(connection, load_settings(), wanted)
    refresh(LAST, LAST)
    assert _decisions(lake, "newsletter", LAST)["issue", "new"] == "cap"


def test_what_was_sent_to_any_id_of_a_person_is_not_sent_again(lake, refresh):
    day = date(2026, 6, 29)
    occasion = (LAST - timedelta(days=3)).isoformat()
    sent = [
        _event("g2", f"welcome:hello:g2:{occasion}", campaign="welcome"),
        _event("guest:1", f"welcome:favourites:guest:1:{occasion}", campaign="welcome"),
        _event("new", "welcome:hello:new:2026-06-30", campaign="other"),
        _event("new", "123", campaign="welcome"),
        _event("new", None, campaign="welcome"),
    ]
    lake.write(MESSAGE_EVENTS, [day], lake_rows(MESSAGE_EVENTS, *sent))
    refresh(LAST, LAST)
    assert _decisions(lake, "welcome", LAST) == {("hello", "new"): "cap", ("hello", "shy"): "no_consent"}


@pytest.mark.parametrize("days_ago", [40, 300])
def test_an_occasion_that_comes_up_again_after_months_is_planned_once(lake, days_ago):
    ordered, then = date(2025, 6, 1), LAST - timedelta(days=days_ago)
    person = {"customer_id": "old", "email": "o@example.com", "first_order_on": ordered, "last_order_on": ordered}
    lake.write(CUSTOMER_360, [LAST], lake_rows(CUSTOMER_360, person))
    for day, expected in zip(DAYS, (90, 3), strict=True):
        score = {"customer_id": "old", "next_order_on": day + timedelta(days=expected)}
        lake.write(SCORES, [day], lake_rows(SCORES, score))
    shipped = load_campaigns()["next_order"]
    (step,) = shipped.steps
    campaign = shipped.model_copy(update={"steps": [step.model_copy(update={"wait_days": 0})]})

    def planned() -> list[str]:
        sources = logic.Sources({table.name: LakeTable(lake, table) for table in logic.reads(campaign)}, ())
        rows = lake.con.to_pyarrow(logic.audience(campaign, sources, load_settings(), LAST)).to_pylist()
        return [row["occasion"] for row in rows]

    assert planned() == [ordered.isoformat()]
    sent = _event("old", f"next_order:{step.name}:old:{ordered}", campaign="next_order")
    lake.write(MESSAGE_EVENTS, [then], lake_rows(MESSAGE_EVENTS, sent))
    assert planned() == []


def test_the_ui_shows_counts_reasons_and_a_preview_but_no_private_data(refreshed):
    _, result = refreshed
    key = asset_key(tables.audience("newsletter"))
    events = {}
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        if materialization.asset_key == key:
            events[materialization.partition] = materialization.metadata
    last, first = events[LAST.isoformat()], events[FIRST.isoformat()]
    assert (last["planned"].value, last["refused"].value) == (2, 2)
    assert "| issue | refused | excluded | 1 |" in last["decisions"].value
    assert (first["planned"].value, first["refused"].value) == (0, 0)
    assert "This month at Sample Shop" in last["preview"].value
    shown = " ".join(str(value) for metadata in events.values() for value in metadata.values())
    for private in ("@example.com", "Nia"):
        assert private not in shown
    lineage = last["dagster/column_lineage"].value.deps_by_column
    assert {dep.asset_key.to_user_string() for dep in lineage["reason"]} >= {
        "features/customer_360",
        "profiles/consent",
    }


def test_a_planned_person_who_must_be_left_alone_fails_the_check_and_is_counted(lake, refresh):
    refresh(LAST, LAST)
    campaign = load_campaigns()["welcome"]
    settings = load_settings()
    fresh = lake.session()
    assert not any(logic.leaks(campaign.model_copy(update={"holdout_percent": 0}), fresh, settings, LAST).values())
    fresh.write(CONSENT, [LAST], lake_rows(CONSENT))
    everyone_out = settings.model_copy(update={"holdout_percent": 100.0})
    held = campaign.model_copy(update={"holdout_percent": 100})
    assert logic.leaks(held, fresh.session(), everyone_out, LAST) == {
        "without consent": 2,
        "holdout": 2,
        "campaign_holdout": 2,
    }
    asked_for = held.model_copy(update={"kind": "transactional"})
    assert logic.leaks(asked_for, fresh.session(), everyone_out, LAST) == {
        "without consent": 2,
        "holdout": 0,
        "campaign_holdout": 0,
    }


def test_a_message_that_cannot_be_rendered_stops_the_audience(lake, refresh, monkeypatch):
    monkeypatch.setattr("shopauto_pipelines.campaigns.content.examples.EXAMPLE_PERSON", {"last_name": "Nobody"})
    result = refresh(LAST, LAST, raise_on_error=False)
    assert not result.success
    assert not lake.path(tables.audience("newsletter"), LAST).exists()


def test_a_day_whose_inputs_are_missing_says_which_and_what_to_run(lake, refresh):
    lake.delete(MEMBERSHIP, LAST)
    with pytest.raises(dg.Failure, match=r"segments/membership has not been computed for 2026-06-30: run `shopauto"):
        refresh(LAST, LAST)


def test_of_a_range_all_days_are_told_whose_inputs_are_missing(lake, refresh):
    for day in DAYS:
        lake.delete(CONSENT, day)
    command = "shopauto refresh --from 2026-06-29 --to 2026-06-30"
    said = f"profiles/consent has not been computed for 2026-06-29 … 2026-06-30: run `{command}`"
    with pytest.raises(dg.Failure, match=said):
        refresh(FIRST, LAST)


def test_a_welcome_is_for_the_first_account_or_the_first_order_whichever_came_first():
    people = ibis.memtable(
        pa.table(
            {
                "customer_id": ["account", "guest", "guest with an account since", "neither", "ordered since"],
                "created_on": pa.array([LAST, None, LAST, None, FIRST], pa.date32()),
                "first_order_on": pa.array([None, FIRST, FIRST, None, LAST], pa.date32()),
            }
        )
    )
    rows = signed_up(people).order_by("customer_id")
    assert ibis.duckdb.connect().to_pyarrow(rows).to_pydict() == {
        "customer_id": ["account", "guest", "guest with an account since", "ordered since"],
        "triggered_on": [LAST, FIRST, FIRST, FIRST],
    }


def test_entering_several_values_of_a_segment_on_a_day_is_one_occasion():
    rows = [
        {"segment": f"fans_of:{value}", "customer_id": "a", "change": change, "entered_on": LAST}
        for value, change in (("x", "entered"), ("y", "entered"), ("z", "left"))
    ]
    found = ibis.duckdb.connect().to_pyarrow(segment_entered(ibis.memtable(lake_rows(CHANGES, *rows)), "fans_of"))
    assert found.num_rows == 1


def test_products_are_the_best_sellers_of_the_favourite_category_else_of_the_shop(lake):
    names = {
        "tent": "camping",
        "pole": "camping",
        "mug": "kitchen",
        "lost": None,
        "unsold": "camping",
        "nameless": "camping",
    }
    for day, price in ((FIRST, 100), (LAST, 200)):
        products = [
            {"product_id": p, "changed_at": datetime(day.year, day.month, day.day), "name": p.title(), "category": c,
             "price_cents": price}
            for p, c in names.items() if p != "nameless"
        ]  # fmt: skip
        lake.write(PRODUCTS, [day], lake_rows(PRODUCTS, *products))
    sales = {"tent": 2, "pole": 2, "mug": 5, "lost": 1, "nameless": 9, "unsold": 0}
    sold = [
        {"shop_customer_id": "a", "product_id": p, "orders": n, "quantity": 3 if p == "pole" else 2}
        for p, n in sales.items()
    ]
    lake.write(DAILY_PRODUCTS, [LAST], lake_rows(DAILY_PRODUCTS, *sold))
    showcase = Showcase.read(lake, LAST)
    assert [pick.product_id for pick in showcase.of("camping")] == ["pole", "tent"]
    assert [pick.product_id for pick in showcase.of(None)] == ["mug", "pole", "tent"]
    assert showcase.of("no such category") is showcase.of(None)
    assert list(showcase.of("kitchen")) == [Pick("mug", "Mug", "kitchen", 200)]
    assert not Showcase({}).of("camping")
