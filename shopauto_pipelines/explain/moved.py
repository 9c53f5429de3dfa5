"""Which features moved a person's scores: each small group is replaced by the median person's, and the same model scores again.

The change is what the group adds to the score of this person, all else being as it is: no more is claimed. Features that tell
the same thing go together, for a person whose last order is long ago has not ordered in the last 30 days either. It is asked
through the function that serves (:func:`~shopauto_pipelines.predictions.serving.score`), so any class of model will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from ibis import _

from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions import serving
from shopauto_pipelines.predictions.dataset import COLUMNS, Numbers, buyers, numeric, to_numpy
from shopauto_pipelines.predictions.models import one_thread
from shopauto_pipelines.predictions.store import Card, ModelStore
from shopauto_pipelines.predictions.tables import MODELS, SCORES

#: What is moved together, by what it tells.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "time since the last order": ("recency_days", "churn_factor"),
    "how often, and for how long": (
        *("orders", "tenure_days", "orders_30d", "orders_90d", "orders_365d"),
        *("orders_weighted_30d", "orders_weighted_120d", "orders_weighted_240d"),
        *("mean_interval_days", "interval_imputed", "last_interval_days", "interval_variation"),
    ),
    "what orders are worth": (
        *("revenue_cents_90d", "average_order_cents", "typical_order_cents", "first_order_cents", "last_order_cents"),
    ),
    "refunds": ("refund_cents", "revenue_cents"),
    "coupons": ("coupon_orders_365d",),
    "visits": ("visits_30d", "visits_90d", "product_views_30d", "pages_per_visit_90d", "last_visit_on"),
    "carts": ("carts_started_365d", "carts_abandoned_365d"),
    "e-mails": ("emails_sent_90d", "opens_90d", "clicks_90d", "last_click_on"),
}

#: Scores that are moved; the next order's date as days from the day.
MOVING = ("churn_probability", "expected_orders_90d", "value_cents_365d", "next_order_on")

#: Asked of the model for each person: as they are, each group, each feature.
_WHOLE = {"": (), **GROUPS}


class NotScored(ShopAutoError):
    """Nobody can say what moved the scores; the text says why."""


@dataclass(frozen=True)
class Feature:
    """A feature of a person, the median person's, and by how much it moves each score, alone. Dates are days ago."""

    name: str
    value: float | None
    median: float | None
    changes: Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """What was moved together and by how much that moves each score: score minus that with the median person's values."""

    name: str
    features: tuple[Feature, ...]
    changes: Mapping[str, float]


@dataclass(frozen=True)
class Moved:
    """Of a person the scores as the models give them now, and what moved them. ``groups`` are in the order of ``GROUPS``."""

    scores: Mapping[str, float | None]
    groups: tuple[Group, ...]

    def largest(self, score: str) -> list[Group]:
        """The groups that move the score, the largest change first; ties in the order of their names."""
        told = [group for group in self.groups if group.changes.get(score)]
        return sorted(told, key=lambda group: (-abs(group.changes[score]), group.name))


def cards(lake: Lake, store: ModelStore, day: date) -> dict[str, Card]:
    """Cards of the models in force on the day, by target; raises ``MissingPartition``."""
    told = lake.on(MODELS, day).to_pyarrow().to_pylist()
    found = {row["target"]: store.card(row["model_id"]) for row in told if row["model_id"]}
    return {target: card for target, card in found.items() if card}


def moved(lake: Lake, store: ModelStore, day: date, people: Iterable[str]) -> dict[str, Moved]:
    """What moved the scores of ``people`` on the day, those of them who have ordered; in one call of the models.

    Raises :class:`NotScored` where no model is in force, ``ModelRefused`` for one that cannot be read, ``MissingPartition``.
    """
    ids = sorted(set(people))
    models = {row["target"]: row["model_id"] for row in lake.on(MODELS, day).to_pyarrow().to_pylist()}
    if not any(models.values()):
        raise NotScored(f"no model was in force on {day}")
    # a view, so that it is compiled once for both questions
    everybody = lake.con.create_view(
        "explained_people", numeric(buyers(lake.on(CUSTOMER_FEATURES, day), day)), overwrite=True
    )
    mine = everybody.filter(_.customer_id.isin(ids)).order_by("customer_id").to_pyarrow() if ids else None
    if mine is None or not len(mine):
        return {}
    usual = everybody.agg(**{name: everybody[name].median() for name in COLUMNS}).to_pyarrow().to_pylist()[0]
    loaded: dict[str, Any] = {
        target: serving.loaded_model(store, name) if name else None for target, name in models.items()
    }
    asked = [*_WHOLE, *COLUMNS]
    replaced = [_WHOLE.get(name, (name,)) for name in asked]
    table = _replaced(mine, usual, replaced)
    with one_thread():
        told = serving.score(table, loaded.get("churn"), loaded.get("orders"), day, None, None)
    given = {score: _numbers(told[score], day).reshape(len(asked), len(mine)) for score in MOVING}
    people_rows = mine.to_pylist()
    return {
        row["customer_id"]: _of_person(
            row, usual, {score: dict(zip(asked, column[:, n], strict=True)) for score, column in given.items()}
        )
        for n, row in enumerate(people_rows)
    }


def _numbers(score: pa.ChunkedArray, day: date) -> Numbers:
    """A score as floats, NaN where there is none; a date as days from the day."""
    if pa.types.is_date32(score.type):
        return to_numpy(score.cast("int32")) - (day - date(1970, 1, 1)).days
    return to_numpy(score)


def _replaced(people: pa.Table, usual: Mapping[str, Any], replaced: Sequence[tuple[str, ...]]) -> pa.Table:
    """The people once for each of ``replaced``, with these columns as the median person has them."""
    known = {name: people[name].to_numpy(zero_copy_only=False).astype(float) for name in COLUMNS}
    columns: dict[str, list[Numbers]] = {name: [] for name in COLUMNS}
    for names in replaced:
        as_is = {
            name: np.full(len(people), np.nan if usual[name] is None else float(usual[name]))
            if name in names
            else known[name]
            for name in COLUMNS
        }
        # nobody's last order was before their first
        as_is["tenure_days"] = np.where(
            as_is["orders"] <= 1, as_is["recency_days"], np.maximum(as_is["tenure_days"], as_is["recency_days"])
        )
        for name, values in as_is.items():
            columns[name].append(values)
    ids = pa.array(people["customer_id"].to_pylist() * len(replaced), pa.string())
    numbers = {name: pa.array(np.concatenate(parts), from_pandas=True) for name, parts in columns.items()}
    return pa.table({"customer_id": ids, **numbers})


def _of_person(row: Mapping[str, Any], usual: Mapping[str, Any], told: Mapping[str, Mapping[str, float]]) -> Moved:
    """``told`` are the scores by what was replaced."""

    def changes(name: str) -> dict[str, float]:
        found = {score: round(float(by[""] - by[name]), 6) for score, by in told.items()}
        return {score: change for score, change in found.items() if np.isfinite(change)}

    groups = tuple(
        Group(
            name,
            tuple(Feature(each, _number(row[each]), _number(usual[each]), changes(each)) for each in features),
            changes(name),
        )
        for name, features in GROUPS.items()
    )
    scores = {score: _number(by[""]) for score, by in told.items()}
    return Moved(scores, groups)


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def stored(lake: Lake, day: date, people: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Rows of ``predictions/scores`` of the people."""
    found = lake.on(SCORES, day).filter(_.customer_id.isin(sorted(set(people)))).drop("as_of").to_pyarrow()
    return {row["customer_id"]: row for row in found.to_pylist()}
