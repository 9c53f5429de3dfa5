"""The model store: a folder per model, ``model.skops`` beside its card, ``card.json`` and the same to read, ``model_card.md``.

A model file is data. It is read with skops and an explicit list of the types it may hold; a file that names any other type
is refused before anything in it is built. A model is written to a staging folder and renamed, so it is there whole or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.predictions.backtest import Challenger
from shopauto_pipelines.predictions.cards import model_card
from shopauto_pipelines.predictions.dataset import COLUMNS
from shopauto_pipelines.predictions.inputs import INPUTS
from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel
from shopauto_pipelines.predictions.own import OURS, Churn, ForeignModel, Own, path_of, restored
from shopauto_pipelines.predictions.plots import backtest_plot

#: The one type our model files hold that skops does not know to be harmless: the nodes of a boosted tree.
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]

#: Modules whose text decides what a model is: a change of any of them makes new models.
_CODE = (
    "btyd/*.py",
    *(
        "process.py",
        "dataset.py",
        "inputs.py",
        "season.py",
        "models.py",
        "rules.py",
        "metrics.py",
        "backtest.py",
        "own.py",
        "drift.py",
    ),
    "../features/customer_features.py",
    "../profiles/identity.py",
)


class ModelRefused(ShopAutoError):
    """A model file is missing, damaged, or holds types that no model of ours has."""


class UnknownModel(ShopAutoError):
    """A model that was asked for by name cannot score; the text says why, and the nearest that can."""


@dataclass(frozen=True)
class Card:
    """What is known of a challenger without reading the model. ``passed`` is ``None`` where it was not trained.

    ``metrics``: back-test, cut-offs, horizon, weights, season. ``data``: days, people, rows and a digest of it all.
    ``made_by``: class, digest of the code, versions of the libraries. ``features``: columns read; ``inputs``: what the learners
    of ours make of them. ``people``: their profile at training (:mod:`drift`). Holds nothing about any single person.
    """

    model_id: str
    target: str
    trained_as_of: date
    passed: bool | None
    verdict: str
    metrics: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)
    features: Sequence[str] = ()
    inputs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    people: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelStore:
    """Models under ``path``, by id; ``own``: the classes that models of the shop's own may be read as."""

    path: Path
    own: Own = OURS

    def card(self, model_id: str) -> Card | None:
        """The card of a model; ``None`` where the store does not have it."""
        file = self.path / model_id / "card.json"
        if not file.exists():
            return None
        values = json.loads(file.read_text())
        return Card(**{**values, "trained_as_of": date.fromisoformat(values["trained_as_of"])})

    def named(self, ids: Sequence[str]) -> dict[str, Card]:
        """The cards of models asked for by name, by target; at most one for each. Raises :class:`UnknownModel`."""
        found: dict[str, Card] = {}
        known = self.ids()
        for name in ids:
            card = self.card(name) if name in known else None
            if card is None:
                raise UnknownModel(f"there is no model {name!r} in {self.path}: {nearest(name, known)}")
            if card.target in found:
                raise UnknownModel(
                    f"{found[card.target].model_id} and {name} both forecast {card.target}: name one of them"
                )
            found[card.target] = card
        return found

    def ids(self) -> list[str]:
        """Every model that can score, in the order of the names: target, then the day it was trained as of."""
        return sorted(file.parent.name for file in self.path.glob("*/model.skops") if file.parent.name[0] != ".")

    def stamp(self, model_id: str) -> tuple[int, int] | None:
        """Time and size of a model's file, which is another one where they are; ``None`` where the store does not have it."""
        with suppress(FileNotFoundError):
            stat = (self.path / model_id / "model.skops").stat()
            return stat.st_mtime_ns, stat.st_size
        return None

    def save(self, model_id: str, challenger: Challenger, fingerprint: str = "") -> Card:
        """Keep a challenger made from data of a ``fingerprint``, also one that failed or could not be trained."""
        card = _card(model_id, challenger, fingerprint)
        self.path.mkdir(parents=True, exist_ok=True)
        staged = self.path / f".{os.getpid()}-{uuid.uuid4().hex}"
        staged.mkdir()
        try:
            if challenger.model is not None:
                (staged / "model.skops").write_bytes(_dumped(challenger.model.as_dict()))
            text = json.dumps(asdict(card), default=date.isoformat, indent=1, sort_keys=True)
            (staged / "card.json").write_text(text + "\n")
            (staged / "model_card.md").write_text(model_card(card))
            with suppress(OSError):  # another process was faster: its model is the same
                os.rename(staged, self.path / model_id)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return card

    def picture(self, model_id: str, target: str, metrics: Mapping[str, Any]) -> bytes:
        """The PNG of a model's back-test; drawn when it is first looked at, and kept beside the card."""
        file = self.path / model_id / "backtest.png"
        if file.exists():
            return file.read_bytes()
        png = backtest_plot(target, metrics)
        if file.parent.is_dir():
            staged = file.with_name(f".{os.getpid()}-{uuid.uuid4().hex}")
            staged.write_bytes(png)
            staged.replace(file)
        return png

    def load(self, model_id: str) -> Churn | OrdersModel:
        """The model; raises :class:`ModelRefused` without building anything where the file holds a type of no model."""
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        file = self.path / model_id / "model.skops"
        if not file.exists():
            raise ModelRefused(
                f"model {model_id} is not in {self.path}: materialise predictions/models for the day again"
            )
        try:
            parts = skops.io.loads(file.read_bytes(), trusted=TRUSTED)
            return restored(parts, self.own) if "class" in parts else _MODELS[parts["target"]].from_dict(parts)
        except UntrustedTypesFoundException as error:
            raise ModelRefused(f"{file} holds types that no model of ours has, and was not read: {error}") from None
        except ForeignModel as error:
            raise ModelRefused(f"{file} was not read: {error}") from None
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelRefused(f"{file} is not a model file of ours; delete its folder to train it again") from error


def _card(model_id: str, challenger: Challenger, fingerprint: str) -> Card:
    own = getattr(challenger.model, "own", None)
    maker = {"class": path_of(type(own or challenger.model)), "code": code_version(), "libraries": libraries()}
    trained = challenger.model is not None
    return Card(
        model_id,
        challenger.target,
        challenger.trained_as_of,
        challenger.passed,
        challenger.verdict,
        challenger.metrics,
        {**challenger.data, "fingerprint": hashlib.sha256(fingerprint.encode()).hexdigest()[:10]} if trained else {},
        maker if trained else {},
        list(COLUMNS) if trained else [],
        {each.name: list(each.sources) for each in INPUTS} if trained and own is None else {},
        challenger.people,
    )


def _dumped(parts: Mapping[str, Any]) -> bytes:
    """The file's bytes; raises :class:`ModelRefused` for one that could not be read again."""
    import skops.io

    content = skops.io.dumps(parts)
    foreign = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
    if foreign:
        raise ModelRefused(
            f"{parts.get('class', 'the model')} keeps {', '.join(foreign)}: as_dict may hold plain values, arrays and "
            "scikit-learn estimators only"
        )
    return content


def model_id(target: str, trained_as_of: date, horizon: int, data: str, own: Own = OURS) -> str:
    """The id of the model that this code, and the shop's ``own``, makes as of a day from ``data`` (their fingerprint)."""
    text = " ".join([code_version(), str(horizon), data, *([own.fingerprint] if own else [])])
    return f"{target}-{trained_as_of.isoformat()}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@cache
def libraries() -> dict[str, str]:
    """Versions of what models are computed with."""
    return {name: version(name) for name in ("duckdb", "numpy", "scikit-learn", "scipy", "skops")}


@cache
def code_version() -> str:
    """Digest of the code that makes models, and of the versions of scikit-learn and DuckDB."""
    folder = Path(__file__).parent
    digest = hashlib.sha256(" ".join(map(version, ("scikit-learn", "duckdb"))).encode())
    for file in (file for pattern in _CODE for file in sorted(folder.glob(pattern))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


_MODELS: dict[str, type[ChurnModel] | type[OrdersModel]] = {"churn": ChurnModel, "orders": OrdersModel}
