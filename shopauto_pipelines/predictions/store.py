"""The model store: a folder per model, ``model.skops`` beside ``card.json`` (verdict and back-test).

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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.predictions.backtest import Challenger
from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel

#: The one type our model files hold that skops does not know to be harmless: the nodes of a boosted tree.
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]

#: Modules whose text decides what a model is: a change of any of them makes new models.
_CODE = ("process.py", "dataset.py", "models.py", "rules.py", "backtest.py", "../features/customer_features.py")


class ModelRefused(ShopAutoError):
    """A model file is missing, damaged, or holds types that no model of ours has."""


@dataclass(frozen=True)
class Card:
    """What is known of a challenger without reading the model. ``passed`` is ``None`` where it was not trained."""

    model_id: str
    target: str
    trained_as_of: date
    passed: bool | None
    verdict: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class ModelStore:
    """Models under ``path``, by id."""

    path: Path

    def card(self, model_id: str) -> Card | None:
        """The card of a model; ``None`` where the store does not have it."""
        file = self.path / model_id / "card.json"
        if not file.exists():
            return None
        values = json.loads(file.read_text())
        return Card(**{**values, "trained_as_of": date.fromisoformat(values["trained_as_of"])})

    def save(self, model_id: str, challenger: Challenger) -> Card:
        """Keep a challenger, also one that failed or could not be trained."""
        import skops.io

        card = Card(
            model_id,
            challenger.target,
            challenger.trained_as_of,
            challenger.passed,
            challenger.verdict,
            challenger.metrics,
        )
        self.path.mkdir(parents=True, exist_ok=True)
        staged = self.path / f".{os.getpid()}-{uuid.uuid4().hex}"
        staged.mkdir()
        try:
            if challenger.model is not None:
                (staged / "model.skops").write_bytes(skops.io.dumps(challenger.model.as_dict()))
            text = json.dumps(asdict(card), default=date.isoformat, indent=1, sort_keys=True)
            (staged / "card.json").write_text(text + "\n")
            with suppress(OSError):  # another process was faster: its model is the same
                os.rename(staged, self.path / model_id)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return card

    def load(self, model_id: str) -> ChurnModel | OrdersModel:
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
            return _MODELS[parts["target"]].from_dict(parts)
        except UntrustedTypesFoundException as error:
            raise ModelRefused(f"{file} holds types that no model of ours has, and was not read: {error}") from None
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelRefused(f"{file} is not a model file of ours; delete its folder to train it again") from error


def model_id(target: str, trained_as_of: date, horizon: int, data: str) -> str:
    """The id of the model that this code makes as of a day from ``data`` (a fingerprint of the raw days up to it)."""
    text = f"{code_version()} {horizon} {data}"
    return f"{target}-{trained_as_of.isoformat()}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@cache
def code_version() -> str:
    """Digest of the code that makes models, and of the version of scikit-learn."""
    folder = Path(__file__).parent
    digest = hashlib.sha256(version("scikit-learn").encode())
    for name in _CODE:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:10]


_MODELS: dict[str, type[ChurnModel] | type[OrdersModel]] = {"churn": ChurnModel, "orders": OrdersModel}
