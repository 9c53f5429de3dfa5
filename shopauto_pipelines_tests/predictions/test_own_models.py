"""A class of the shop's own forecasts in place of ours, through the same back-test, store, gate and serving."""

import importlib
import json
import re
import sys
import textwrap
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.predictions import backtest, gate, serving
from shopauto_pipelines.predictions.backtest import Challenger, train
from shopauto_pipelines.predictions.dataset import people
from shopauto_pipelines.predictions.declaration import PredictionsDeclaration, load_predictions
from shopauto_pipelines.predictions.models import OrdersModel
from shopauto_pipelines.predictions.own import OURS, Own, OwnChurn, OwnModelError, imported
from shopauto_pipelines.predictions.store import ModelRefused, ModelStore, model_id
from shopauto_pipelines_tests.predictions.conftest import YOUNG_LAST

TODAY = date(2026, 6, 30)
#: The complete example of the documentation.
EXAMPLE = re.search(
    r"`my_shop/models.py`.*?```python\n(.*?)```",
    (PROJECT_ROOT / "docs" / "predictions.md").read_text("utf-8"),
    re.DOTALL,
)[1]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Makes importable modules of a shop: ``package("name", text)``."""
    folder = tmp_path_factory.mktemp("shop")
    sys.path.insert(0, str(folder))

    def write(name, text):
        (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        importlib.invalidate_caches()
        return name

    yield write
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def own(package):
    """The classes of the documentation's example."""
    name = package("shop_models", EXAMPLE)
    return Own(imported(f"{name}.Churn"), imported(f"{name}.Orders"))


@pytest.fixture(scope="module")
def young_shop(young, make_shop):
    return make_shop(young)


@pytest.fixture(scope="module")
def trained(young_shop, own):
    return train(young_shop, YOUNG_LAST, 60, own)


@pytest.fixture(scope="module")
def buyers(young_shop, trained):
    return people(young_shop, YOUNG_LAST).features


def test_the_example_of_the_documentation_is_back_tested_beside_the_rules(trained, own):
    for target, challenger in trained.items():
        assert challenger.passed is not None
        assert set(challenger.metrics["rules"]) >= {"recency", "frequency", "bg_nbd"}
        assert type(challenger.model.own) is getattr(own, target)
        for who in (challenger.metrics["model"], *challenger.metrics["rules"].values()):
            assert who["gains"] == sorted(who["gains"])
            assert (who["gains"][0], who["gains"][-1]) == (pytest.approx(who["lift_10"] / 10, abs=0.02), 1)
        judge = {"churn": backtest.judge_churn, "orders": backtest.judge_orders}[target]
        assert challenger.passed == (not judge(challenger.metrics))


def test_what_it_tells_is_what_is_scored_and_the_rest_is_ours(trained, buyers):
    churn, orders = trained["churn"].model, trained["orders"].model
    assert np.allclose(churn(buyers), np.clip(churn.own(buyers), 0.001, 0.999))
    assert np.allclose(orders(buyers), np.clip(orders.own(buyers), 0, 60))
    ours = OrdersModel.from_dict({k: v for k, v in orders.as_dict().items() if k not in ("class", "own")})
    table = pa.table({"customer_id": [f"c{n}" for n in range(len(buyers["orders"]))]} | dict(buyers))
    scores = serving.score(table, churn, orders, YOUNG_LAST, "ids", None)
    assert np.allclose(scores["churn_probability"], churn(buyers), atol=1e-6)
    lead = orders(buyers) / ours(buyers)
    assert np.allclose(scores["expected_orders_90d"], np.clip(ours(buyers, 90)[:, 0] * lead, 0, 90), atol=1e-6)
    assert (orders.next_order(buyers, churn(buyers)) == ours.next_order(buyers, churn(buyers))).all()
    assert min(value for value in scores["value_cents_365d"].to_pylist()) >= 0


def test_it_survives_the_store_and_is_read_as_the_class_of_the_playbook_only(trained, own, buyers, tmp_path, package):
    store = ModelStore(tmp_path, own)
    for target, challenger in trained.items():
        card = store.save(target, challenger)
        assert card.made_by["class"] == f"shop_models.{target.capitalize()}"
        assert (store.load(target)(buyers) == challenger.model(buyers)).all()
        assert "shop_models" in (tmp_path / target / "model_card.md").read_text("utf-8")
        for other in (OURS, Own(imported(f"{package('other_models', EXAMPLE)}.Churn"), own.churn)):
            with pytest.raises(ModelRefused, match="which the playbook does not name for"):
                ModelStore(tmp_path, other).load(target)


def test_a_model_that_keeps_what_a_file_may_not_hold_is_refused_when_it_is_stored(package, tmp_path):
    text = EXAMPLE.replace('{"fitted": self.fitted}', '{"fitted": Kept()}') + "\n\nclass Kept:\n    pass\n"
    found = imported(f"{package('keeping_models', text)}.Churn")
    challenger = Challenger("churn", YOUNG_LAST, OwnChurn(found(None)), True, "passed")
    with pytest.raises(ModelRefused, match=r"keeping_models.Kept: as_dict may hold plain values"):
        ModelStore(tmp_path).save("churn-x", challenger)
    assert list(tmp_path.iterdir()) == []


def test_another_path_or_another_text_of_the_file_is_another_model(package, own):
    changed = imported(f"{package('changed_models', EXAMPLE + '# again')}.Churn")
    copied = imported(f"{package('copied_models', EXAMPLE)}.Churn")
    ids = {model_id("churn", YOUNG_LAST, 60, "data", each) for each in (OURS, own, Own(changed), Own(copied))}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("[0.5]", r"a number per person, 300; it answered an array of \(1,\)"),
        ("features['orders'] * np.nan", "not a number from 0 to 1 for 300 of 300"),
        ("features['orders'] + 1", "not a number from 0 to 1 for 300 of 300"),
        ("1 / 0", "__call__ failed with ZeroDivisionError"),
    ],
)
def test_an_answer_that_cannot_be_is_told_with_the_class(package, answer, words):
    text = EXAMPLE.replace("return self.fitted.predict_proba(matrix(features))[:, 1]", f"return {answer}")
    name = package(f"wrong_{abs(hash(answer))}", text)
    with pytest.raises(OwnModelError, match=f"{name}.Churn.*{words}"):
        OwnChurn(imported(f"{name}.Churn")(None))({"orders": np.ones(300)})


class Taught:
    """Stands for the training of a shop's own models and of ours: who passes on which day is given."""

    def __init__(self, monkeypatch, tmp_path, passes):
        self.passes = passes
        monkeypatch.setattr(serving.backtest, "train", self.train)
        self.store = ModelStore(tmp_path)

    def train(self, _shop, day, _horizon, own):
        passed = self.passes["own" if own else "ours"](day)
        verdict = {True: "passed", False: "kept out: AUC", None: "not enough data: 7 people"}[passed]
        return {target: Challenger(target, day, None, passed, verdict) for target in backtest.TARGETS}

    def rows(self, own):
        trainer = serving.Trainer(self.store, lambda day: None, lambda day: "data", date(2025, 1, 1), 90, 28, own)
        return trainer.models(TODAY).to_pyarrow().to_pylist()


def test_where_its_latest_fails_its_last_good_one_stays_and_the_gate_warns(monkeypatch, tmp_path, own):
    passes = {"own": lambda day: (TODAY - day).days >= 28, "ours": lambda day: pytest.fail("ours was trained")}
    rows = Taught(monkeypatch, tmp_path, passes).rows(own)
    assert {row["challenger_passed"] for row in rows} == {False}
    assert {(row["challenger_as_of"] - row["trained_as_of"]).days for row in rows} == {28}
    assert gate.rule(rows).state == "warn"


def test_where_none_of_its_own_passes_ours_serves_and_the_gate_warns(monkeypatch, tmp_path, own):
    taught = Taught(monkeypatch, tmp_path, {"own": lambda day: False, "ours": lambda day: True})
    rows = taught.rows(own)
    assert [row["model_id"] for row in rows] == [row["model_id"] for row in taught.rows(OURS)]
    assert gate.rule(rows).state == "warn"
    assert "kept out: AUC" in gate.rule(rows).text


def test_where_there_is_too_little_for_its_own_ours_is_tried(monkeypatch, tmp_path, own):
    taught = Taught(monkeypatch, tmp_path, {"own": lambda day: None, "ours": lambda day: True})
    assert taught.rows(own) == taught.rows(OURS)


@pytest.fixture
def playbook(tmp_path):
    """Writes ``predictions/defs.yaml`` and returns the playbook's folder."""

    def write(attributes):
        file = tmp_path / "predictions" / "defs.yaml"
        file.parent.mkdir(parents=True)
        head = "type: shopauto_pipelines.predictions.component.Predictions\nattributes:\n"
        file.write_text(head + textwrap.indent(attributes, "  ") + "\n", encoding="utf-8")
        return tmp_path

    return write


def test_the_class_of_the_playbook_is_found(own, playbook):
    assert load_predictions(playbook("churn: shop_models.Churn")).own == Own(churn=own.churn)


def test_the_shipped_playbook_has_the_models_of_the_project(tmp_path):
    assert load_predictions() == load_predictions(tmp_path) == PredictionsDeclaration()
    assert load_predictions().own == OURS


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (None, "no_such_shop.models.Churn", "cannot import no_such_shop.models: ModuleNotFoundError"),
        ("1 / 0", "{}.Churn", "cannot import {}: ZeroDivisionError"),
        (EXAMPLE, "{}.Chrun", "{} has no class Chrun"),
        (EXAMPLE, "{}.matrix", "{} has no class matrix"),
        (EXAMPLE, "Churn", "'Churn' is not the path of a class"),
        (EXAMPLE.replace("def as_dict", "def dictionary"), "{}.Churn", r"Churn has no method as_dict\(\)"),
        (EXAMPLE.replace("def __call__", "def predict"), "{}.Churn", r"Churn has no method __call__\(features\)"),
        (EXAMPLE.replace("present, horizon", "horizon"), "{}.Churn", r"fit has to take \(windows, present, horizon\)"),
        (EXAMPLE.replace("    @classmethod\n    def fit", "    def fit"), "{}.Churn", "fit is not a class method"),
    ],
    ids=[
        "no module",
        "a module with an error",
        "no such class",
        "a function",
        "no module in the path",
        "no as_dict",
        "no call",
        "fit takes too little",
        "fit without @classmethod",
    ],
)
def test_a_class_that_cannot_serve_is_told_with_its_place(package, playbook, text, name, words, request):
    module = f"case_{abs(hash(request.node.name))}"
    if text:
        package(module, text)
    folder = playbook(f"orders: null\nchurn: {name.format(module)}")
    with pytest.raises(PlaybookError, match=r"defs\.yaml:4:10: predictions churn: .*" + words.format(module)):
        load_predictions(folder)


def test_the_card_of_a_models_file_says_what_it_was_made_from(trained, tmp_path, own):
    store = ModelStore(tmp_path, own)
    store.save("orders-x", trained["orders"], "a fingerprint")
    card = json.loads((tmp_path / "orders-x" / "card.json").read_text("utf-8"))
    assert card["data"]["last_day"] == YOUNG_LAST.isoformat()
    assert card["data"]["people"] == sum(card["people"]["orders"]["counts"])
    assert set(card["made_by"]["libraries"]) >= {"scikit-learn", "numpy"}
    read = (tmp_path / "orders-x" / "model_card.md").read_text("utf-8")
    for said in (*card["metrics"]["test_cut_offs"], card["made_by"]["code"], card["data"]["fingerprint"], "bg nbd"):
        assert said in read
    first = (tmp_path / "orders-x" / "card.json").read_bytes()
    ModelStore(tmp_path / "again", own).save("orders-x", trained["orders"], "a fingerprint")
    assert (tmp_path / "again" / "orders-x" / "card.json").read_bytes() == first
