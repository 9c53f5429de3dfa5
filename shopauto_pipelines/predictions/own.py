"""Models that a shop brings itself: a class named in the playbook answers in place of ours, for one target or both.

What the class has to offer is :class:`OwnModel`. It passes through the same back-test, gate, store and serving. What a model
of orders need not tell (when the next one comes, what is spent, other horizons) is ours, scaled to its forecast.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.predictions.dataset import NotEnoughData, Numbers, People, Window
from shopauto_pipelines.predictions.inputs import Inputs, inputs, logit
from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel, Weights


class OwnModelError(ShopAutoError):
    """A model of the shop's own raised an error, or answered what cannot be; the text names class and method."""


class ForeignModel(ShopAutoError):
    """A model was made by another class than the playbook's."""


class OwnModel(Protocol):
    """What a class must offer. A complete one, for ``churn``::

        class Churn:
            def __init__(self, learner):
                self.learner = learner

            @classmethod
            def fit(cls, windows, present, horizon):
                rows = np.concatenate([matrix(window.features) for window in windows])
                silent = np.concatenate([window.orders == 0 for window in windows])
                return cls(LogisticRegression().fit(rows, silent))

            def __call__(self, features):
                return self.learner.predict_proba(matrix(features))[:, 1]

            def as_dict(self):
                return {"learner": self.learner}

            @classmethod
            def from_dict(cls, parts):
                return cls(**parts)


        def matrix(features):
            return np.log1p(np.stack([features["recency_days"], features["orders"]], axis=1))

    ``features`` are arrays by the names of :data:`~shopauto_pipelines.predictions.dataset.COLUMNS`, NaN where not known.
    """

    @classmethod
    def fit(cls, windows: Sequence[Window], present: People, horizon: int) -> Self:
        """Learn from ``windows`` (people, ``features``, ``orders``, ``spent`` within each one's own ``horizon`` of days).

        ``present``: the people of the day, without outcomes. All outcomes lie before it. The same input has to give the same
        model.
        """

    def __call__(self, features: Mapping[str, Numbers]) -> Numbers:
        """A number per person: P(no order within the horizon) in [0, 1], or expected order days within it, at least 0.

        A person's number must not depend on who else is asked about: people come in batches.
        """

    def as_dict(self) -> dict[str, Any]:
        """What the model is, as plain values, arrays and scikit-learn estimators: a model file may hold nothing else."""

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The model of :meth:`as_dict`."""


#: Methods of the class, and how many values each is given; those without an instance are class methods.
_CLASS_METHODS = {"fit": ("windows", "present", "horizon"), "from_dict": ("parts",)}
_METHODS = {"__call__": ("features",), "as_dict": ()}


def imported(path: str) -> type[OwnModel]:
    """The class of a path such as ``my_shop.models.Churn``; raises ``ValueError`` in words where it cannot serve as a model."""
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{path!r} is not the path of a class, such as my_shop.models.Churn")
    try:
        found = getattr(import_module(module), name, None)
    except Exception as error:
        raise ValueError(f"cannot import {module}: {type(error).__name__}: {error}") from error
    if not isinstance(found, type):
        raise ValueError(f"{module} has no class {name}")
    for method, taken in (_CLASS_METHODS | _METHODS).items():
        _check_method(found, method, taken)
    if not getattr(sys.modules[found.__module__], "__file__", None):
        raise ValueError(f"{path} is in no file, so that a change of it would not be noticed")
    return found


def _check_method(of: type, name: str, taken: tuple[str, ...]) -> None:
    declared = next((vars(base)[name] for base in of.__mro__[:-1] if name in vars(base)), None)
    if declared is None:
        raise ValueError(f"{of.__name__} has no method {name}({', '.join(taken)})")
    bound = isinstance(declared, classmethod | staticmethod)
    if name in _CLASS_METHODS and not bound:
        raise ValueError(f"{of.__name__}.{name} is not a class method: put @classmethod above it")
    try:
        inspect.signature(getattr(of, name)).bind(*(() if bound else (None,)), *taken)
    except TypeError:
        raise ValueError(f"{of.__name__}.{name} has to take ({', '.join(taken)})") from None


def path_of(own: type) -> str:
    """Where a class is defined."""
    return f"{own.__module__}.{own.__qualname__}"


@cache
def _source(own: type) -> str:
    """Digest of the file that defines a class."""
    return hashlib.sha256(Path(str(sys.modules[own.__module__].__file__)).read_bytes()).hexdigest()[:10]


@dataclass(frozen=True)
class Own:
    """The class for each target; ``None``: the model is ours."""

    churn: type[OwnModel] | None = None
    orders: type[OwnModel] | None = None

    def __bool__(self) -> bool:
        return self.churn is not None or self.orders is not None

    @property
    def classes(self) -> dict[str, type[OwnModel]]:
        """Those declared, by target."""
        return {target: own for target in ("churn", "orders") if (own := getattr(self, target))}

    @property
    def fingerprint(self) -> str:
        """Differs when a path or the file behind it does; empty where all models are ours."""
        return " ".join(f"{target}={path_of(own)}@{_source(own)}" for target, own in self.classes.items())


@dataclass(frozen=True)
class OwnChurn:
    """A model of churn of the shop's own, as back-test, store and serving use ours. Weights do not apply to it."""

    target: ClassVar[str] = "churn"
    weights: ClassVar[Weights] = Weights(0, 0)

    own: OwnModel

    @classmethod
    def fit(cls, own: type[OwnModel], windows: Sequence[Window], present: People, horizon: int) -> OwnChurn:
        """Learn; raises ``NotEnoughData`` where no window has enough of both outcomes, :class:`OwnModelError`."""
        return cls(_fitted(own, windows, present, horizon))

    def weighed(self, weights: Weights, present: People) -> OwnChurn:
        """Itself."""
        return self

    def parts(self, features: Mapping[str, Numbers]) -> tuple[Numbers, Numbers, Numbers]:
        """Its log odds of an order, in place of those of process and learners."""
        odds = logit(1 - self(features))
        return odds, odds, odds

    def __call__(self, features: Mapping[str, Numbers]) -> Numbers:
        """Probability of no order in the horizon, in [0.001, 0.999]."""
        return np.clip(_answer(self.own, features, at_most=1.0), 0.001, 0.999)

    def as_dict(self) -> dict[str, Any]:
        """The parts by name."""
        return {"target": self.target, "class": path_of(type(self.own)), "own": self.own.as_dict()}


@dataclass(frozen=True)
class OwnOrders(OrdersModel):
    """Expected orders by a model of the shop's own; everything else by ours."""

    own: Any = None

    @classmethod
    def beside(
        cls, ours: OrdersModel, own: type[OwnModel], windows: Sequence[Window], present: People, horizon: int
    ) -> OwnOrders:
        """Learn; raises as :meth:`OwnChurn.fit` does."""
        return cls(**_parts_of(ours), own=_fitted(own, windows, present, horizon))

    def __call__(self, features: Mapping[str, Numbers], *days: int, seen: Inputs | None = None) -> Numbers:
        """Expected order days in the horizon, or within each of ``days`` (a column each): ours, times its lead over ours."""
        expected = np.clip(_answer(self.own, features), 0, self.horizon)
        if not days:
            return expected
        seen = seen or inputs(features, self.process, self.horizon)
        ours = np.maximum(super().__call__(features, seen=seen), 1e-9)
        told = super().__call__(features, *days, seen=seen) * (expected / ours)[:, None]
        return np.clip(told, 0, np.array(days, dtype=float))

    def as_dict(self) -> dict[str, Any]:
        """The parts by name, ours and its own."""
        return OrdersModel(**_parts_of(self)).as_dict() | {
            "class": path_of(type(self.own)),
            "own": self.own.as_dict(),
        }


#: No model of the shop's own.
OURS = Own()

#: What may answer for churn; for orders it is always an ``OrdersModel``.
Churn: TypeAlias = ChurnModel | OwnChurn


def restored(parts: Mapping[str, Any], own: Own) -> OwnChurn | OwnOrders:
    """The model of a file that names a class; the class is the one of the playbook, whatever else the file may name.

    Raises :class:`ForeignModel` where the playbook does not name that class for the target.
    """
    parts = dict(parts)
    target, path, kept = parts["target"], parts.pop("class"), parts.pop("own")
    declared = own.classes.get(target)
    if declared is None or path_of(declared) != path:
        raise ForeignModel(
            f"it was made by {path}, which the playbook does not name for {target}; "
            "materialise predictions/models for the day again"
        )
    model = _called(declared, "from_dict", lambda: declared.from_dict(kept))
    return OwnChurn(model) if target == "churn" else OwnOrders(**_parts_of(OrdersModel.from_dict(parts)), own=model)


def _parts_of(ours: OrdersModel) -> dict[str, Any]:
    return {part.name: getattr(ours, part.name) for part in fields(OrdersModel)}


def _fitted(own: type[OwnModel], windows: Sequence[Window], present: People, horizon: int) -> OwnModel:
    """The model as it will be read from its file, so that what is tested is what will serve."""
    telling = [window for window in windows if window.tells]
    if not telling:
        raise NotEnoughData(f"no earlier days with enough of both outcomes for {path_of(own)} to learn from")
    model = _called(own, "fit", lambda: own.fit(telling, present, horizon))
    parts = _called(own, "as_dict", lambda: model.as_dict())
    return _called(own, "from_dict", lambda: own.from_dict(deepcopy(parts)))


def _answer(own: OwnModel, features: Mapping[str, Numbers], at_most: float = np.inf) -> Numbers:
    """What the model says of each person, as floats; raises :class:`OwnModelError` where that cannot be."""
    said = _called(type(own), "__call__", lambda: np.asarray(own(features), dtype=float))
    name, people = path_of(type(own)), len(features["orders"])
    if said.shape != (people,):
        raise OwnModelError(f"{name} has to answer a number per person, {people}; it answered an array of {said.shape}")
    wrong = int((~((said >= 0) & (said <= at_most))).sum())
    if wrong:
        allowed = "from 0 to 1" if at_most == 1 else "at least 0"
        raise OwnModelError(f"{name} answered something that is not a number {allowed} for {wrong} of {people} people")
    return said


def _called(own: type, method: str, call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # whatever the shop's code raises; its text may hold data of people
        raise OwnModelError(f"{path_of(own)}.{method} failed with {type(error).__name__}") from error
