"""Models asked for by name: they score instead of the ones in force, and everybody who reads the scores is told."""

from datetime import timedelta

import pyarrow as pa
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions import gate, plots, serving
from shopauto_pipelines.predictions.assets import models
from shopauto_pipelines.predictions.backtest import Challenger
from shopauto_pipelines.predictions.store import ModelStore, UnknownModel
from shopauto_pipelines_tests.predictions.conftest import FIRST, LAST

CHURN, ORDERS = f"churn-{LAST}-0123456789", f"orders-{LAST}-0123456789"


@pytest.fixture(scope="module")
def store(challengers, tmp_path_factory) -> ModelStore:
    """Models of the shop's last day, and one that could not be trained."""
    found = ModelStore(tmp_path_factory.mktemp("models"))
    for name in (CHURN, ORDERS):
        found.save(name, challengers[name.partition("-")[0]])
    found.save("churn-2025-01-01-none", Challenger("churn", FIRST, None, None, "not enough data: 12 people"))
    return found


def _trainer(store, *named, horizon=90):
    def unasked(_day):
        raise AssertionError("nothing needs to be looked up or trained")

    return serving.Trainer(store, unasked, unasked, FIRST, horizon, 28, named=store.named(named))


def _rows(store, day, *named, horizon=90):
    return {row["target"]: row for row in _trainer(store, *named, horizon=horizon).models(day).to_pyarrow().to_pylist()}


def test_a_model_asked_for_by_name_is_the_one_of_the_day_without_any_training(store):
    row = _rows(store, LAST, CHURN, ORDERS)["churn"]
    assert (row["model_id"], row["trained_as_of"], row["named"]) == (CHURN, LAST, True)
    assert row["verdict"].startswith(f"asked for by name: {CHURN}; its own verdict: ")
    assert "after the day" not in row["verdict"]


def test_a_model_of_a_later_day_says_that_it_knows_what_came_later(store):
    row = _rows(store, LAST - timedelta(days=5), CHURN, ORDERS)["orders"]
    assert f"trained as of {LAST}, after the day: it knows what came later" in row["verdict"]


def test_a_model_for_another_horizon_says_so(store):
    assert "made for a horizon of 90 days, not 60" in _rows(store, LAST, CHURN, ORDERS, horizon=60)["churn"]["verdict"]


def test_the_gate_warns_of_a_model_asked_for_by_name_and_the_page_shows_it(store):
    rows = _rows(store, LAST, CHURN, ORDERS)
    ruling = gate.rule(list(rows.values()))
    assert ruling.state == "warn"
    assert f"churn: asked for by name: {CHURN}" in ruling.text
    shown = plots.described(rows["churn"], lambda *_: b"png")
    assert shown["verdict"].startswith(f"In force: `{CHURN}`.\n\n**Model of {LAST}:** asked for by name")


def test_a_name_that_is_not_there_gets_the_nearest_one(store):
    with pytest.raises(UnknownModel, match=f"did you mean `{CHURN}`"):
        store.named([CHURN[:-1]])


@pytest.mark.parametrize("name", ["churn-2025-01-01-none", "../models", ""])
def test_what_cannot_score_is_no_model(store, name):
    with pytest.raises(UnknownModel, match="there is no model"):
        store.named([name])


def test_two_models_for_one_target_are_refused(store):
    with pytest.raises(UnknownModel, match="both forecast churn: name one of them"):
        store.named([CHURN, CHURN])


def test_every_score_of_a_named_model_says_so(store, shop, tmp_path):
    lake, day = Lake(tmp_path / "lake", threads=2), LAST - timedelta(days=3)
    features = pa.table(shop.features(day, shop.end_of_day(day)).to_pyarrow())
    lake.write(CUSTOMER_FEATURES, [day], features)
    rows = list(_rows(store, day, CHURN, ORDERS).values())
    scored = serving.scores(lake.on(CUSTOMER_FEATURES, day), rows, store, day, lake).to_pyarrow().to_pylist()
    said = "by a model asked for by name, of a later day: it knows what came later"
    assert {row["model_id"] for row in scored} == {f"{CHURN}, {ORDERS}"}
    assert all(f"churn {said}; orders {said}" in row["note"] for row in scored)


def test_the_asset_takes_the_names_as_its_configuration():
    [(name, field)] = models.op.config_schema.config_type.fields.items()
    assert name == "named"
    assert "knows what came later" in field.description
