"""Models survive the store bit for bit, foreign code is refused, and the gate rules in its three ways."""

import json
import pickle
from datetime import date

import numpy as np
import pytest
import skops.io

from shopauto_pipelines.predictions import gate, metrics, plots
from shopauto_pipelines.predictions.backtest import judge_churn, judge_orders
from shopauto_pipelines.predictions.dataset import people
from shopauto_pipelines.predictions.store import ModelRefused, ModelStore, model_id
from shopauto_pipelines_tests.predictions.conftest import LAST


class Foreign:
    """A type no model has."""

    def __init__(self):
        self.value = 1


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("foreign code was run",))


def test_a_stored_model_predicts_the_same_bits(challengers, shop, tmp_path):
    store = ModelStore(tmp_path / "models")
    features = people(shop, LAST).features
    for target, challenger in challengers.items():
        card = store.save(f"{target}-x", challenger)
        loaded = store.load(f"{target}-x")
        assert (loaded(features) == challenger.model(features)).all()
        assert store.card(f"{target}-x") == card
        assert all(
            np.array_equal(*both) for both in zip(loaded.parts(features), challenger.model.parts(features), strict=True)
        )
    models = loaded, challengers["orders"].model
    silent = challengers["churn"].model(features)
    for forecast in (
        lambda model: model(features, 30, 365),
        lambda model: model.spent_per_order(features),
        lambda model: model.next_order(features),
        lambda model: model.next_order(features, silent),
    ):
        assert np.array_equal(*map(forecast, models))
    assert sorted(p.name for p in store.path.iterdir()) == ["churn-x", "orders-x"]  # no staging folder is left


@pytest.mark.parametrize(
    "content",
    [
        skops.io.dumps({"target": "churn", "trees": Foreign()}),
        pickle.dumps(Bomb()),
        skops.io.dumps({"target": "churn"}),
        skops.io.dumps({"target": "elsewhere"}),
        skops.io.dumps([1, 2]),
        b"",
    ],
    ids=["a type of no model", "a pickle", "parts missing", "an unknown target", "not a model", "nothing"],
)
def test_a_file_that_is_not_a_model_of_ours_is_refused(tmp_path, content):
    folder = tmp_path / "churn-x"
    folder.mkdir()
    (folder / "model.skops").write_bytes(content)
    with pytest.raises(ModelRefused):
        ModelStore(tmp_path).load("churn-x")


def test_a_missing_model_says_what_to_do(tmp_path):
    with pytest.raises(ModelRefused, match="materialise predictions/models"):
        ModelStore(tmp_path).load("churn-2026-01-01-abc")


def test_another_day_or_other_data_is_another_model():
    ids = {
        model_id("churn", day, horizon, data)
        for day in (date(2026, 1, 1), date(2026, 1, 29))
        for horizon in (60, 90)
        for data in ("a", "b")
    }
    assert len(ids) == 8
    assert model_id("churn", LAST, 90, "a") == model_id("churn", LAST, 90, "a")


def row(target="churn", model_id=None, passed=None, verdict="not enough data: 12 people"):
    return {"target": target, "model_id": model_id, "challenger_passed": passed, "verdict": verdict}


def test_a_challenger_that_passed_goes_through():
    assert gate.rule([row(model_id="m", passed=True), row("orders", "n", True)]).state == "passed"


def test_too_little_data_stops_nothing_and_is_said():
    ruling = gate.rule([row(), row("orders")])
    assert ruling.state == "passed"
    assert "12 people" in ruling.text


def test_a_failed_challenger_warns_while_an_earlier_model_stays():
    ruling = gate.rule([row(model_id="earlier", passed=False, verdict="kept out: AUC"), row("orders", "n", True)])
    assert ruling.state == "warn"
    assert "earlier stays in force" in ruling.text


def test_a_failed_challenger_stops_the_run_where_nothing_good_is_in_force():
    assert gate.rule([row(model_id="m", passed=True), row("orders", None, False, "kept out: bias")]).state == "stop"
    assert gate.rule([]).state == "stop"


def test_of_a_range_only_the_latest_day_without_a_good_model_stops_the_run():
    good, bad = gate.rule([row(model_id="m", passed=True)]), gate.rule([row(passed=False, verdict="kept out: AUC")])
    first, second = date(2026, 1, 1), date(2026, 1, 2)
    assert (good.state, bad.state) == ("passed", "stop")
    assert gate.rule_range({first: good, second: bad}).state == "stop"
    ruling = gate.rule_range({first: bad, second: good})
    assert ruling.state == "warn"
    assert ruling.text.startswith("2026-01-01: churn: kept out: AUC")
    assert gate.rule_range({first: good, second: good}).state == "passed"


def churn_case(**changes):
    model = {"auc": 0.8, "log_loss": 0.4, "calibration_error": 0.03, "calibration_by_chance": 0.02} | changes
    rule = {"auc": 0.79, "log_loss": 0.42, "auc_lead_error": 0.004, "log_loss_lead_error": 0.003}
    return {"model": model, "rules": {"recency": rule}, "season_known": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"auc": 0.787}, None),
        ({"auc": 0.785}, "AUC"),
        ({"log_loss": 0.424}, "log loss"),
        ({"calibration_error": 0.069}, None),
        ({"calibration_error": 0.071}, "calibration error"),
    ],
)
def test_a_churn_model_has_to_beat_the_rules_and_be_calibrated(changes, words):
    against = judge_churn(churn_case(**changes))
    assert [words in text for text in against] == ([True] if words else [])


def test_telling_days_apart_is_not_telling_people_apart():
    churned = [np.array([1.0] * 80 + [0.0] * 20), np.array([1.0] * 20 + [0.0] * 80)]
    same_for_all = [np.full(100, 0.8), np.full(100, 0.2)]
    assert metrics.auc(np.concatenate(same_for_all), np.concatenate(churned)) == pytest.approx(0.8)
    found = metrics.ranking(same_for_all, churned)
    assert (found["auc"], found["lift_10"]) == (0.5, pytest.approx(1))
    better = metrics.churn_rule([1000 + np.arange(100.0)[::-1], np.arange(100.0)[::-1]], None, same_for_all, churned)
    assert (better["auc"], better["auc_lead_error"]) == (1, pytest.approx(0, abs=1e-9))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"rmse": 1.2}, "root mean squared error"),
        ({"mae": 0.9}, "mean absolute error"),
        ({"bias": -0.4}, "bias"),
    ],
)
def test_an_orders_model_has_to_beat_the_rules_and_be_unbiased(changes, words):
    model = {"rmse": 1.0, "mae": 0.8, "bias": 0.1, "bias_by_chance": 0.03} | changes
    rule = {"rmse": 1.01, "mae": 0.8, "squared_error_lead_error": 0.01}
    against = judge_orders({"model": model, "rules": {"recency": rule}, "season_known": True})
    assert [words in text for text in against] == ([True] if words else [])


def test_the_back_test_is_shown_beside_every_rule_with_a_picture(challengers, tmp_path):
    store = ModelStore(tmp_path)
    for target, challenger in challengers.items():
        values = {"target": target, "model_id": "m", "challenger_id": target, "challenger_as_of": LAST}
        values |= {"verdict": challenger.verdict, "metrics": json.dumps(dict(challenger.metrics))}
        (tmp_path / target).mkdir()
        shown = plots.described(values, store.picture)
        assert (tmp_path / target / "backtest.png").exists()
        assert shown == plots.described(values, store.picture)  # now from the store
        named = ("recency", "frequency", "churn factor", "bg nbd", "pareto nbd", "same as last period")
        assert all(name in shown["backtest"] for name in named)
        assert all(day in shown["backtest"] for day in challenger.metrics["test_cut_offs"])
        for table in (shown["backtest"], shown["each_cut_off"]):
            words = table.partition("\n")[0].replace("|", " ").split()
            assert max(map(len, words)) <= len("calib."), "the UI's cell is narrow, and cuts what is wider"
        assert "lift: lift at 10 %" in shown["backtest"], "what a short head means is said below"
        png = plots.backtest_plot(target, challenger.metrics)
        assert png.startswith(b"\x89PNG")
        assert len(png) < 60_000
        assert png == plots.backtest_plot(target, challenger.metrics)
        assert "data:image/png;base64," in shown["plot"]
