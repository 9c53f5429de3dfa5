"""The room's assets and the gate, materialised for real on a lake of rollups."""

import os
import shutil
from datetime import date, datetime, time, timedelta

import dagster as dg
import pyarrow as pa
import pytest

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.dagster.assets import spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.predictions import dataset, gate, serving, tables
from shopauto_pipelines.predictions.assets import ASSETS
from shopauto_pipelines.predictions.checks import CHECKS
from shopauto_pipelines.predictions.dataset import training_day
from shopauto_pipelines.predictions.lineage import SCORES_LINEAGE
from shopauto_pipelines.predictions.store import ModelRefused, ModelStore
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.predictions.conftest import FIRST, activity_of, order_log, shop_of

UPSTREAM = [
    dg.AssetSpec(**spec_arguments(table, table.room)).with_io_manager_key("lake_io")
    for table in (
        raw.CUSTOMERS,
        raw.ORDERS,
        profiles.CLAIMS,
        features.DAILY_ACTIVITY,
        features.DAILY_PRODUCTS,
        features.DAILY_CARTS,
        features.CUSTOMER_FEATURES,
    )
]


def _lake(home, people, days) -> tuple[Lake, list]:
    lake, log = Lake(home / "lake", threads=2), order_log(people, days=days)
    span = days_between(FIRST, FIRST + timedelta(days=days - 1))
    lake.write(features.DAILY_ACTIVITY, span, activity_of(log))
    for table in (raw.CUSTOMERS, raw.ORDERS, profiles.CLAIMS, features.DAILY_PRODUCTS, features.DAILY_CARTS):
        lake.write(table, [span[0]], table.arrow_schema.empty_table())
    shop = shop_of(log)
    for day in span[-3:]:
        lake.write(features.CUSTOMER_FEATURES, [day], pa.table(shop.features(day, shop.end_of_day(day)).to_pyarrow()))
    return lake, span


def _materialise(*days):
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*UPSTREAM, *ASSETS, *CHECKS],
            selection=[*ASSETS],
            resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
            partition_key=days[0].isoformat() if len(days) == 1 else None,
            tags={
                "dagster/asset_partition_range_start": days[0].isoformat(),
                "dagster/asset_partition_range_end": days[-1].isoformat(),
            }
            if len(days) > 1
            else {},
            instance=instance,
        )


def _untrained(shop, as_of, horizon, own):
    """Challengers of a shop where there is not enough data."""
    return {
        target: serving.backtest.Challenger(target, as_of, None, None, "asked") for target in serving.backtest.TARGETS
    }


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A home whose last three days were scored in one run: the home, those days, and the days that models were trained for."""
    home, trained, train = tmp_path_factory.mktemp("range"), [], serving.backtest.train
    _, span = _lake(home, people=600, days=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPAUTO_HOME", str(home))
        patch.setattr(serving.backtest, "train", lambda *a: trained.append(a[1]) or train(*a))
        assert _materialise(*span[-3:]).success
    return home, span[-3:], trained


def _files(home, days) -> list[bytes]:
    lake = Lake(home / "lake", threads=2)
    return [lake.path(table, day).read_bytes() for table in tables.TABLES for day in days]


@pytest.mark.slow
@pytest.mark.xdist_group("scored")
def test_a_day_is_scored_by_the_model_in_force_and_scored_again_to_the_same_bytes(scored, tmp_path, monkeypatch):
    shutil.copytree(scored[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, day = Lake(tmp_path / "lake", threads=2), scored[1][-1]
    path, trained = lake.path(tables.SCORES, day), sorted((tmp_path / "models").rglob("*"))
    before, times = path.read_bytes(), [file.stat().st_mtime_ns for file in trained]
    assert trained
    path.unlink()
    result = _materialise(day)
    assert result.success
    assert path.read_bytes() == before
    assert [file.stat().st_mtime_ns for file in trained] == times  # nothing was trained again
    assert not list((tmp_path / "lake" / "_staging").glob("tmp*"))
    evaluation = result.get_asset_check_evaluations()[0]
    assert "data:image/png;base64" in evaluation.metadata["churn_plot"].value

    models = {row["target"]: row for row in lake.on(tables.MODELS, day).to_pyarrow().to_pylist()}
    ruling = gate.rule(list(models.values()))
    assert (evaluation.passed, evaluation.description) == (ruling.state == "passed", ruling.text)
    assert ruling.state != "stop"
    due = training_day(day, FIRST, 28)
    assert {row["challenger_as_of"] for row in models.values()} == {due}
    assert all((due - row["trained_as_of"]).days in (0, 28, 56) for row in models.values())
    scores = lake.on(tables.SCORES, day).to_pyarrow().to_pylist()
    buyers = lake.on(features.CUSTOMER_FEATURES, day).filter(lambda t: t.orders > 0).count().execute()
    assert len(scores) == buyers
    for row in scores:
        assert 0 < row["churn_probability"] < 1
        assert row["expected_orders_90d"] >= 0
        assert row["value_cents_365d"] >= 0
        assert row["model_id"] == f"{models['churn']['model_id']}, {models['orders']['model_id']}"
        assert row["next_order_from"] is None or row["next_order_from"] > day
        assert row["next_order_to"] is None or row["next_order_from"] <= row["next_order_on"] <= row["next_order_to"]


@pytest.mark.slow
@pytest.mark.xdist_group("scored")
def test_three_days_in_one_run_give_the_bytes_of_single_days_and_train_once(scored, tmp_path, monkeypatch):
    home, days, trained = scored
    assert 1 <= len(trained) == len(set(trained)) <= 1 + serving.LOOK_BACK
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    lake = Lake(tmp_path / "lake", threads=2)
    for table in tables.TABLES:
        for day in days:
            lake.delete(table, day)
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    monkeypatch.setattr(serving.backtest, "train", lambda *a: pytest.fail("trained again"))
    for day in days:
        assert _materialise(day).success
    assert _files(tmp_path, days) == _files(home, days)
    assert lake.session().on(tables.SCORES, days[0]).churn_probability.count().execute() > 0


def test_training_knows_of_each_day_the_persons_known_then_and_what_they_did_since(tmp_path, monkeypatch):
    """Two accounts of each pair turn out to be one person after every test's cut-off, five days before the training."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, span = _lake(tmp_path, people=40, days=300)
    ordered, due = order_log(40, days=300), training_day(span[-1], FIRST, 28)
    joined = due - timedelta(days=5)
    ids = [f"c{n:05}" for n in range(40)]
    person = {one: ids[n - n % 2] for n, one in enumerate(ids)}
    start = datetime.combine(FIRST, time())
    accounts = [
        {"shop_customer_id": one, "changed_at": start, "source": "s", "source_file": "f", "source_row": 1}
        for one in ids
    ]
    lake.write(raw.CUSTOMERS, [FIRST], pa.Table.from_pylist(accounts, raw.CUSTOMERS.arrow_schema))
    said = {"field": "phone", "kind": "declared", "source": "s", "at": datetime.combine(joined, time())}
    claims = [{"shop_customer_id": one, "value": f"+49{person[one][1:]}", **said} for one in ids]
    lake.write(profiles.CLAIMS, [joined], pa.Table.from_pylist(claims, profiles.CLAIMS.arrow_schema))
    seen = {}

    def train(shop, as_of, horizon, own):
        cut_offs = dataset.plan(as_of, shop.first_day, horizon).tests
        for cut_off, known_until in ((cut_offs[0], as_of), (cut_offs[-1], cut_offs[0]), (as_of, as_of)):
            people = dataset.people(shop, cut_off)
            window = dataset.window(shop, people, 90, known_until)
            who = shop.log(cut_off).ids.take(people.who).to_pylist()
            columns = (people.features["orders"], window.last_period, window.orders)
            seen[cut_off, known_until] = {one: rest for one, *rest in zip(who, *columns, strict=True)}
        return _untrained(shop, as_of, horizon, own)

    monkeypatch.setattr(serving.backtest, "train", train)
    assert _materialise(span[-1]).success

    def days(accounts, after, until):
        return len({day for one, day in ordered if one in accounts and after < day <= until})

    for (cut_off, known_until), found in seen.items():
        before, end = cut_off - timedelta(days=90), min(cut_off + timedelta(days=90), known_until)
        merged = {one: {other for other in ids if person[other] == person[one]} for one in ids}
        then, since = ({one: {one} for one in ids} if day < joined else merged for day in (cut_off, known_until))
        everybody = {person[one] for one in ids} if cut_off >= joined else set(ids)
        assert found == {
            one: [days(then[one], date.min, cut_off), days(then[one], before, cut_off), days(since[one], cut_off, end)]
            for one in everybody
            if days(then[one], date.min, cut_off)
        }
    assert len(seen) == 3
    assert len(next(iter(seen.values()))) > len(seen[due, due]) > 10


@pytest.mark.slow
def test_a_model_has_another_id_whenever_a_row_is_another_that_it_is_made_from(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, span = _lake(tmp_path, people=3, days=60)
    due, at = training_day(span[-1], FIRST, 28), datetime.combine(FIRST, time())
    monkeypatch.setattr(serving.backtest, "train", _untrained)

    def put(table, *rows, day=FIRST):
        blank = {"string": "-", "int64": 0, "boolean": False, "timestamp(6)": at}
        zero = {c.name: blank[c.type] if c.required else None for c in table.columns}
        lake.write(table, [day], pa.Table.from_pylist([zero | row for row in rows], table.arrow_schema))

    def ids():
        shutil.rmtree(tmp_path / "models", ignore_errors=True)
        assert _materialise(span[-1]).success
        assert len({name[-10:] for name in os.listdir(tmp_path / "models")}) == 1
        return frozenset(os.listdir(tmp_path / "models"))

    order = {"shop_customer_id": "a", "orders": 1, "revenue_cents": 100}
    other = order | {"shop_customer_id": "b", "revenue_cents": 200}
    address = {"shop_customer_id": "a", "field": "email", "value": "a@example.com"}
    account = {"shop_customer_id": "a", "changed_at": at, "source_row": 1}
    first = {
        features.DAILY_ACTIVITY: [order, other],
        features.DAILY_PRODUCTS: [{"shop_customer_id": "a", "product_id": "p"}],
        features.DAILY_CARTS: [{"shop_customer_id": "a", "cart_id": "c"}],
        raw.CUSTOMERS: [account],
        raw.ORDERS: [{"shop_customer_id": "a", "order_id": "1", "ordered_at": at}],
        profiles.CLAIMS: [address],
    }
    for table, rows in first.items():
        put(table, *rows)
    before = ids()
    changes = [
        (features.DAILY_ACTIVITY, [order | {"clicks": 1}, other]),
        (features.DAILY_ACTIVITY, [order | {"refund_cents": 50}, other]),
        (features.DAILY_ACTIVITY, [order | {"revenue_cents": 200}, other | {"revenue_cents": 100}]),
        (features.DAILY_PRODUCTS, [{"shop_customer_id": "a", "product_id": "p", "views": 1}]),
        (features.DAILY_CARTS, [{"shop_customer_id": "a", "cart_id": "c", "coupon": True}]),
        (raw.CUSTOMERS, [account, account | {"shop_customer_id": "b"}]),
        (raw.ORDERS, [{"shop_customer_id": "b", "order_id": "1", "ordered_at": at}]),
        (profiles.CLAIMS, [address | {"value": "b@example.com"}]),
    ]
    seen = [before]
    for table, rows in changes:
        put(table, *rows)
        seen.append(ids())
        put(table, *first[table])
    for setting, value in (("CART_ABANDONED_MINUTES", "30"), ("TIMEZONE", "Europe/London")):
        monkeypatch.setenv(f"SHOPAUTO_{setting}", value)
        seen.append(ids())
        monkeypatch.delenv(f"SHOPAUTO_{setting}")
    assert len(set(seen)) == len(seen)
    # what is not learned from: the line of a file, a name, what comes in later
    put(raw.CUSTOMERS, account | {"source_row": 7, "first_name": "Ann"})
    put(profiles.CLAIMS, address, {"shop_customer_id": "a", "field": "first_name", "value": "Ann"})
    put(features.DAILY_ACTIVITY, order, day=due + timedelta(days=1))
    assert ids() == before


def test_a_model_that_is_trained_again_under_its_name_is_read_again(tmp_path, challengers):
    store = ModelStore(tmp_path)
    store.save("churn-x", challengers["churn"])
    first = serving.loaded_model(store, "churn-x")
    assert serving.loaded_model(store, "churn-x") is first
    shutil.rmtree(tmp_path / "churn-x")
    with pytest.raises(ModelRefused, match="churn-x is not in"):
        serving.loaded_model(store, "churn-x")
    store.save("churn-x", challengers["churn"])
    assert serving.loaded_model(store, "churn-x") is not first


def test_whatever_of_the_models_changes_the_note_is_named_as_where_it_comes_from(tmp_path):
    def note(**said):
        row = {"model_id": "churn-x", "verdict": "passed", "challenger_passed": True, "named": False}
        row |= {"trained_as_of": FIRST} | said
        return serving._note({"churn": row}, ModelStore(tmp_path), FIRST)

    none = {"model_id": None, "challenger_passed": None}
    pairs = {
        "named": ({}, {"named": True}),
        "trained_as_of": ({"named": True}, {"named": True, "trained_as_of": FIRST + timedelta(days=1)}),
        "model_id": ({}, {"model_id": None}),
        "challenger_passed": (none, none | {"challenger_passed": False}),
        "verdict": (none, none | {"verdict": "not enough data"}),
    }
    assert all(note(**one) != note(**other) for one, other in pairs.values())
    assert set(SCORES_LINEAGE["note"]) == {(tables.MODELS.name, column) for column in pairs}


def test_a_young_shop_gets_no_scores_and_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake, span = _lake(tmp_path, people=60, days=40)
    result = _materialise(span[-1])
    assert result.success
    assert result.get_asset_check_evaluations()[0].passed
    scores = lake.on(tables.SCORES, span[-1]).to_pyarrow().to_pylist()
    assert scores
    assert all(row["churn_probability"] is None and "not enough data" in row["note"] for row in scores)
