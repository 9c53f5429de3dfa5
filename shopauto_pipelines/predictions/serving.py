"""Which model is in force on a day, and the scores it gives.

A model is trained on fixed days (:func:`~shopauto_pipelines.predictions.dataset.training_day`). In force is the latest that
passed the gate, up to :data:`LOOK_BACK` training days before the current one: of the shop's own models where it has some, of ours
where none of those passed; whatever of that is missing from the store is
trained now, also by a backfill. So the model in force is a function of the raw days up to the day and of the code.

A run may also ask for a model by name: then that one scores, whatever is in force, and every row of the day says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis import _

from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions import backtest, drift, tables
from shopauto_pipelines.predictions.dataset import COLUMNS, Numbers, Shop, buyers, numeric, to_numpy, training_day
from shopauto_pipelines.predictions.inputs import inputs
from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel, one_thread
from shopauto_pipelines.predictions.own import OURS, Churn, Own
from shopauto_pipelines.predictions.store import Card, ModelStore, model_id

#: Training days before the current one that may have left the model in force: older than that, none is.
LOOK_BACK = 2
#: What is said of a model that was trained after the day it scores.
HINDSIGHT = "it knows what came later"
#: People scored at once.
BATCH = 100_000
_LONGEST = 365


@dataclass
class Trainer:
    """Finds or trains the challengers of a shop.

    ``shop(day)`` is the shop's past as known at the end of a day; ``fingerprint(day)`` a short text that differs when the
    raw days up to it do, e.g. because a late row came in. ``named``: by target, the models that were asked for by name.
    """

    store: ModelStore
    shop: Callable[[date], Shop]
    fingerprint: Callable[[date], str]
    first_day: date
    horizon: int
    retrain_days: int
    own: Own = OURS
    named: Mapping[str, Card] = field(default_factory=dict)
    _seen: dict[date, dict[str, Card]] = field(default_factory=dict)

    def challengers(self, trained_as_of: date) -> dict[str, Card]:
        """The card of each target's challenger trained as of a day, trained now where the store does not have it."""
        if trained_as_of not in self._seen:
            data = self.fingerprint(trained_as_of)
            ids = {target: model_id(target, trained_as_of, self.horizon, data, self.own) for target in backtest.TARGETS}
            cards = {target: self.store.card(name) for target, name in ids.items()}
            if not all(cards.values()):
                trained = backtest.train(self.shop(trained_as_of), trained_as_of, self.horizon, self.own)
                cards = {target: self.store.save(ids[target], trained[target], data) for target in backtest.TARGETS}
            self._seen[trained_as_of] = {target: card for target, card in cards.items() if card}
        return self._seen[trained_as_of]

    def models(self, as_of: date) -> ir.Table:
        """The rows of ``predictions/models`` for a day."""
        rows = []
        for target in backtest.TARGETS:
            if target in self.named:
                rows.append(_named_row(self.named[target], as_of, self.horizon))
                continue
            challenger, live = self._in_force(target, as_of)
            if live is None and self.own:
                ours, live = self._ours._in_force(target, as_of)
                challenger = ours if challenger.passed is None else challenger
            rows.append(
                {
                    "target": target,
                    "model_id": live and live.model_id,
                    "trained_as_of": live and live.trained_as_of,
                    "challenger_id": None if challenger.passed is None else challenger.model_id,
                    "challenger_as_of": challenger.trained_as_of,
                    "challenger_passed": challenger.passed,
                    "verdict": challenger.verdict,
                    "metrics": json.dumps(challenger.metrics, sort_keys=True) if challenger.metrics else None,
                    "named": False,
                }
            )
        return ibis.memtable(pa.Table.from_pylist(rows, schema=tables.MODELS.arrow_schema))

    def _in_force(self, target: str, as_of: date) -> tuple[Card, Card | None]:
        """The latest challenger, and the latest that passed."""
        day = training_day(as_of, self.first_day, self.retrain_days)
        challenger = found = self.challengers(day)[target]
        for _earlier in range(LOOK_BACK):
            if found.passed is not False or day <= self.first_day:
                break
            day = training_day(day - timedelta(days=1), self.first_day, self.retrain_days)
            found = self.challengers(day)[target]
        return challenger, found if found.passed else None

    @cached_property
    def _ours(self) -> Trainer:
        """The same with our models alone, for a shop whose own do not pass."""
        return replace(self, own=OURS, _seen={})


def _named_row(card: Card, as_of: date, horizon: int) -> dict[str, Any]:
    """The row of a model that was asked for by name; no challenger is looked for."""
    said = [f"asked for by name: {card.model_id}"]
    if card.trained_as_of > as_of:
        said.append(f"trained as of {card.trained_as_of}, after the day: {HINDSIGHT}")
    if card.metrics.get("horizon_days", horizon) != horizon:
        said.append(f"made for a horizon of {card.metrics['horizon_days']} days, not {horizon}")
    said.append(f"its own verdict: {card.verdict}")
    return {
        "target": card.target,
        "model_id": card.model_id,
        "trained_as_of": card.trained_as_of,
        "challenger_id": card.model_id,
        "challenger_as_of": card.trained_as_of,
        "challenger_passed": card.passed,
        "verdict": "; ".join(said),
        "metrics": json.dumps(card.metrics, sort_keys=True) if card.metrics else None,
        "named": True,
    }


def fingerprint(tables: Iterable[ir.Table], *facts: object) -> str:
    """What a model is made from, in a short text: another one where a row of the ``tables`` is another, or one of the ``facts``.

    Of each table the number of rows and the sum of their hashes, in whatever order they come. They are DuckDB's, which are the
    same in each process of a version of it; the version is part of a model's id.
    """
    sums = []
    for rows in tables:
        values = ibis.struct({name: rows[name] for name in sorted(rows.columns)})
        sums += rows.agg(rows=_.count(), hashes=values.hash().sum().cast("string")).to_pyarrow().to_pylist()
    return json.dumps([sums, facts], default=str)


def scores(features: ir.Table, models: list[Mapping[str, Any]], store: ModelStore, as_of: date, lake: Lake) -> ir.Table:
    """The rows of ``predictions/scores``: everybody with an order in ``features`` (of the day), scored in batches.

    ``models`` are the day's rows of ``predictions/models``. A process never holds more than :data:`BATCH` people in memory.
    """
    by_target = {row["target"]: row for row in models}
    named = {target: row["model_id"] for target, row in by_target.items()}
    scoring = Scoring(store, named["churn"], named["orders"], as_of, _note(by_target, store, as_of))
    people = numeric(buyers(features, as_of)).order_by("customer_id")
    return lake.engine.mapped("scores_of_day", people, scoring, tables.SCORES.arrow_schema, BATCH)


@dataclass(frozen=True)
class Scoring:
    """Scores batches of people with the models of a day, where the batches are: models are loaded there, once in a process."""

    store: ModelStore
    churn: str | None
    orders: str | None
    as_of: date
    note: str | None

    def __call__(self, people: pa.Table) -> pa.Table:
        """The scores of a batch."""
        churn, orders = (loaded_model(self.store, name) if name else None for name in (self.churn, self.orders))
        ids = ", ".join(name for name in (self.churn, self.orders) if name) or None
        with one_thread():
            return score(people, churn, orders, self.as_of, ids, self.note)


def score(
    people: pa.Table,
    churn: Churn | None,
    orders: OrdersModel | None,
    as_of: date,
    ids: str | None,
    note: str | None,
) -> pa.Table:
    """Scores of one batch of people (``customer_id`` and the model's columns); null where there is no model."""
    features = {name: to_numpy(people[name]) for name in COLUMNS}
    columns: dict[str, Any] = {}
    told = forecasts(features, churn, orders, 90, _LONGEST)
    if told.silent is not None:
        columns["churn_probability"] = pa.array(np.round(told.silent, 6))
    if orders and told.expected is not None:
        quarter, year = told.expected.T
        columns["expected_orders_90d"] = pa.array(np.round(quarter, 6))
        columns["value_cents_365d"] = pa.array(np.round(year * orders.spent_per_order(features)))
        columns |= dates(told, as_of)
    columns |= {name: pa.array([text] * len(people), pa.string()) for name, text in (("model_id", ids), ("note", note))}
    schema = tables.SCORES.arrow_schema
    rest = [columns.get(name, pa.nulls(len(people), schema.field(name).type)) for name in schema.names[1:]]
    return pa.table([people["customer_id"].cast(pa.string()), *rest], schema=schema)


def drifts(lake: Lake, store: ModelStore, day: date) -> dict[date, list[drift.Drift]]:
    """How a day's people and scores differ from those its models were made for, by the day these were trained as of.

    One pass over each table; empty where no model is in force. Raises ``MissingPartition`` for a day that was not computed.
    """
    made_for: dict[date, drift.Profile] = {}
    for row in lake.on(tables.MODELS, day).to_pyarrow().to_pylist():
        card = store.card(row["model_id"]) if row["model_id"] else None
        if card and card.people:
            made_for[card.trained_as_of] = drift.merged(made_for.get(card.trained_as_of, {}), card.people)
    people = numeric(buyers(lake.on(CUSTOMER_FEATURES, day), day)).select(*COLUMNS)
    scored = lake.on(tables.SCORES, day).select(*drift.FORECASTS.values())

    def parts(table: ir.Table) -> Iterator[Mapping[str, Numbers]]:
        for batch in lake.con.to_pyarrow_batches(table, chunk_size=BATCH):
            yield {name: to_numpy(pa.chunked_array([batch[name]])) for name in batch.schema.names}

    return {when: drift.compare(then, chain(parts(people), parts(scored))) for when, then in sorted(made_for.items())}


class Forecasts(NamedTuple):
    """What the models say of a batch of people; ``None`` where there is none that could.

    ``silent``: probability of no order within the horizon. ``expected``: order days within each of the days asked for, a
    column each. ``next_in``: days until the next order, as :meth:`OrdersModel.next_order` gives them.
    """

    silent: Numbers | None
    expected: Numbers | None
    next_in: Numbers | None


def forecasts(
    features: Mapping[str, Numbers], churn: Churn | None, orders: OrdersModel | None, *days: int
) -> Forecasts:
    """Ask both models; what they see of the people is computed once where both see the same."""
    if isinstance(churn, ChurnModel) and type(orders) is OrdersModel:
        seen = inputs(features, churn.process, churn.horizon)
        silent = churn(features, seen)
        if (orders.process, orders.horizon) != (churn.process, churn.horizon):
            seen = inputs(features, orders.process, orders.horizon)
        return Forecasts(silent, orders(features, *days, seen=seen), orders.next_order(features, silent, seen))
    probability = churn(features) if churn else None
    if orders is None:
        return Forecasts(probability, None, None)
    return Forecasts(probability, orders(features, *days), orders.next_order(features, probability))


def dates(told: Forecasts, as_of: date) -> dict[str, pa.Array]:
    """Median and 80 % interval of the next order's date by column name; null: later than a year."""
    assert told.next_in is not None
    names = ("next_order_from", "next_order_on", "next_order_to")
    return {name: _dates(as_of, days) for name, days in zip(names, told.next_in.T, strict=True)}


def _dates(as_of: date, days: np.ndarray) -> pa.Array:
    start = (as_of - date(1970, 1, 1)).days
    late = ~(days <= _LONGEST)
    return pa.array(start + np.where(late, 0, np.maximum(days, 1)).astype("int32"), mask=late).cast(pa.date32())


def _note(models: Mapping[str, Mapping[str, Any]], store: ModelStore, as_of: date) -> str | None:
    notes = []
    for target, row in models.items():
        if row["named"]:
            after = row["trained_as_of"] > as_of
            notes.append(f"{target} by a model asked for by name" + (f", of a later day: {HINDSIGHT}" if after else ""))
        if row["model_id"] is None:
            notes.append(
                row["verdict"] if row["challenger_passed"] is None else f"no {target} model has passed the gate"
            )
        elif (card := store.card(row["model_id"])) and not card.metrics.get("season_known", True):
            notes.append(backtest.SEASON_UNKNOWN)
    return "; ".join(dict.fromkeys(notes)) or None


def loaded_model(store: ModelStore, name: str) -> Any:
    """The model, read once in a process as long as its file stays; raises as :meth:`ModelStore.load` does."""
    return _loaded(store, name, store.stamp(name))


@lru_cache(maxsize=4)
def _loaded(store: ModelStore, name: str, _stamp: object) -> Any:
    return store.load(name)
