"""What benchmarks of predictions compare with, and how: rules, buy-till-you-die models, plain boosting; and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from order_logs import EPOCH, Numbers, OrderLog, Split
from scipy.stats import rankdata, spearmanr

from shopauto_pipelines.predictions.btyd.base import OrderTimes
from shopauto_pipelines.predictions.btyd.bg_nbd import BGNBD
from shopauto_pipelines.predictions.btyd.gamma_gamma import GammaGamma
from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD
from shopauto_pipelines.predictions.models import one_thread

#: Metrics in the order of the tables, and those of which less is better.
METRICS = ("auc", "log_loss", "calibration_error", "mae", "rmse", "bias", "spearman", "top_decile_spend")
LESS_IS_BETTER = ("log_loss", "calibration_error", "mae", "rmse")

#: Fewest days of history before a cut-off that boosting learns from.
_HISTORY = 60
_MOST_WINDOWS = 6


@dataclass(frozen=True)
class Answer:
    """What a method says about the people of a split; what it does not say is None.

    ``rank`` is higher for those likelier to order (where there is no ``probability``), ``orders`` and ``cents`` are
    expected within the horizon.
    """

    name: str
    rank: Numbers | None = None
    probability: Numbers | None = None
    orders: Numbers | None = None
    cents: Numbers | None = None


def measure(answer: Answer, split: Split) -> dict[str, float | None]:
    """:data:`METRICS` of an answer; None where it has nothing to say.

    ``calibration_error``: mean distance between predicted and actual share in ten equal groups by predicted probability.
    ``log_loss``: probabilities within .005 of certainty count as that. ``top_decile_spend``: share of the money spent by the
    tenth with the highest expected spend. ``spearman``: of the expected orders, else of the rank, with the orders.
    """
    ordered = split.orders > 0
    ranked = answer.probability if answer.probability is not None else answer.rank
    counted = answer.orders if answer.orders is not None else ranked
    found: dict[str, float | None] = dict.fromkeys(METRICS)
    if ranked is not None:
        found["auc"] = auc(ranked, ordered)
    if counted is not None:
        found["spearman"] = float(spearmanr(counted, split.orders)[0])
    if answer.probability is not None:
        p = np.clip(answer.probability, 0.005, 0.995)
        found["log_loss"] = float(-np.log(np.where(ordered, p, 1 - p)).mean())
        found["calibration_error"] = calibration_error(answer.probability, ordered.astype(float))
    if answer.orders is not None:
        found["mae"] = float(np.abs(answer.orders - split.orders).mean())
        found["rmse"] = float(np.sqrt(((answer.orders - split.orders) ** 2).mean()))
        found["bias"] = float(answer.orders.sum() / split.orders.sum() - 1)
    if answer.cents is not None:
        most = np.argsort(-answer.cents, kind="stable")[: max(1, len(answer.cents) // 10)]
        found["top_decile_spend"] = float(split.cents[most].sum() / split.cents.sum())
    return found


def auc(ranked: Numbers, outcome: np.ndarray) -> float:
    """Area under the ROC curve; ties count half."""
    positive = int(outcome.sum())
    ranks = rankdata(ranked)[outcome].sum() - positive * (positive + 1) / 2
    return float(ranks / (positive * (len(outcome) - positive)))


def calibration_error(predicted: Numbers, actual: Numbers) -> float:
    """Mean |predicted − actual| of ten equal groups by ``predicted``, weighted by their people."""
    groups = np.array_split(np.argsort(predicted, kind="stable"), 10)
    return float(sum(len(g) * abs(predicted[g].mean() - actual[g].mean()) for g in groups if len(g)) / len(predicted))


def ours(split: Split) -> Answer:
    """The forecast of the project, from the past alone."""
    from shopauto_pipelines.predictions import plain

    return answer_of(plain.forecast(split.known.transactions(), split.day, split.horizon).scores)


def answer_of(scores: pa.Table) -> Answer:
    """The answer in ``Forecast.scores``."""
    columns = {
        name: scores[column].to_numpy()
        for name, column in (
            ("probability", "probability_of_order"),
            ("orders", "expected_orders"),
            ("cents", "value_cents"),
        )
    }
    return Answer("ours", **columns)


def rules(split: Split) -> list[Answer]:
    """Rules of thumb; those that speak of orders or money say so as they are. Frequency: of equals, the latest first."""
    known = split.known
    f = features(known, split.as_of)

    def same_as(name: str, days: int) -> Answer:
        last = known.between(split.as_of - days, split.as_of)
        orders, cents = (x[split.people] * split.horizon / days for x in (last.count(), last.sum()))
        return Answer(name, rank=orders, orders=orders, cents=cents)

    return [
        Answer("recency rule", rank=-f["recency"]),
        Answer("frequency rule", rank=f["orders"] - f["recency"] / 1e6),
        Answer("monetary rule", rank=f["cents"], cents=f["cents"]),
        Answer("churn factor", rank=-np.where(f["orders"] > 1, f["recency"] / np.fmax(f["interval"], 1), np.inf)),
        same_as("same as last period", split.horizon),
        same_as("same as its last two thirds", split.horizon * 2 // 3),
    ]


def buy_till_you_die(split: Split) -> list[Answer]:
    """BG/NBD and Pareto/NBD by maximum likelihood, each with Gamma-Gamma."""
    return [_buy_till_you_die(split, name, model) for name, model in (("BG/NBD", BGNBD()), ("Pareto/NBD", ParetoNBD()))]


def _buy_till_you_die(split: Split, name: str, model: OrderTimes) -> Answer:
    people = statistics(split)
    model.fit(people)
    orders = model.expected_orders(people, split.horizon)
    f = features(split.known, split.as_of)
    paid = np.where(f["mean_cents"] > 0, f["orders"], 0)
    value = np.column_stack([paid, f["mean_cents"] / 100])
    cents = 100 * GammaGamma().fit(value).expected_value(value)
    return Answer(name, None, model.probability_of_order(people, split.horizon), orders, orders * cents)


def statistics(split: Split, unit: float = 1.0) -> Numbers:
    """Repeat orders, time of the last one and age of the people of a split, in units of so many days."""
    known = split.known
    first = known.first()[split.people]
    last, orders = known.last()[split.people], known.count()[split.people]
    return np.column_stack([orders - 1, (last - first) / unit, (split.as_of - first) / unit])


def features(log: OrderLog, day: int) -> dict[str, Numbers]:
    """Recency, frequency, money and intervals as of a day, of those with an order up to it."""
    log = log.until(day)
    orders = log.count()
    who = np.flatnonzero(orders)
    first, last, orders, cents = log.first()[who], log.last()[who], orders[who], log.sum()[who]
    same = np.diff(log.who) == 0
    gaps, whose = np.diff(log.day)[same].astype(float), log.who[1:][same]
    several = np.where(orders > 1, orders - 1, np.nan)
    interval = (last - first) / several
    squares = np.bincount(whose, gaps**2, len(log.ids))[who] / several
    latest, paid = np.full((2, len(log.ids)), np.nan)
    latest[whose], paid[log.who] = gaps, log.cents
    recent = {f"orders_{days}": log.between(day - days, day).count()[who] for days in (30, 90, 180)}
    return {
        "recency": day - last,
        "orders": orders,
        "age": day - first,
        "interval": interval,
        "interval_spread": np.sqrt(np.maximum(squares - interval**2, 0)),
        "last_interval": latest[who],
        "phase": (day - last) / np.maximum(interval, 1),
        "cents": cents,
        "mean_cents": cents / orders,
        "last_cents": paid[who],
        **recent,
    }


@dataclass(frozen=True)
class Layout:
    """Earlier windows: the days their outcomes take, and the days before which their features end."""

    days: int
    cut_offs: tuple[int, ...]

    @property
    def name(self) -> str:
        """For a table."""
        many = len(self.cut_offs)
        return f"boosting, {many} window{'s' if many > 1 else ''} of {self.days} days"


def layouts(split: Split) -> list[Layout]:
    """Windows of the horizon, a half and a third of it, one of each or several half a window apart; and half the history."""
    known = split.known
    begin = int(known.day.min())
    found: list[Layout] = []
    for days in dict.fromkeys([split.horizon, split.horizon // 2, split.horizon // 3, (split.as_of - begin) // 2]):
        latest = split.as_of - days
        several = [latest - n * max(1, days // 2) for n in range(_MOST_WINDOWS)]
        usable = tuple(cut_off for cut_off in several if cut_off - begin >= min(_HISTORY, days))
        if days > 0 and usable:
            found.append(Layout(days, usable[:1]))
            if len(usable) > 1:
                found.append(Layout(days, usable))
    return found


def plain_boosting(split: Split, layout: Layout) -> Answer:
    """Histogram gradient boosting on :func:`features` of earlier windows, as one would write it; nothing of ours in it.

    A window shorter than the horizon is taken to go on as it did: counts by the ratio of days, and the chance of no order to
    the power of it. Raises ValueError where a window has one outcome only.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    known = split.known
    learned, orders, cents = [], [], []
    for cut_off in layout.cut_offs:
        window = Split.of("", known, _date(cut_off), layout.days)
        learned.append(_matrix(features(known, cut_off)))
        orders.append(window.orders)
        cents.append(window.cents)
    X, y, spent = np.concatenate(learned), np.concatenate(orders), np.concatenate(cents)
    if not 0 < (y > 0).sum() < len(y):
        raise ValueError("Everybody ordered, or nobody did.")
    settings: dict[str, Any] = {
        "learning_rate": 0.05,
        "max_iter": 100,
        "max_leaf_nodes": 15,
        "min_samples_leaf": 30,
        "early_stopping": False,
        "random_state": 0,
    }
    now, longer = _matrix(features(known, split.as_of)), split.horizon / layout.days
    with one_thread():
        chance = HistGradientBoostingClassifier(**settings).fit(X, y > 0).predict_proba(now)[:, 1]
        count = HistGradientBoostingRegressor(loss="poisson", **settings).fit(X, y).predict(now)
        money = HistGradientBoostingRegressor(loss="poisson", **settings).fit(X, spent).predict(now)
    return Answer(layout.name, None, 1 - (1 - chance) ** longer, count * longer, money * longer)


def ceiling(split: Split) -> Answer:
    """Not a forecast: what the outcomes themselves teach, each person's by those of the others (ten folds).

    A logistic and a Poisson regression on :func:`features` and the Pareto/NBD's forecast. Much better is hardly to be had.
    """
    from sklearn.linear_model import LogisticRegression, PoissonRegressor
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    base = _buy_till_you_die(split, "", ParetoNBD())
    assert base.orders is not None
    assert base.probability is not None
    assert base.cents is not None
    p, expected = np.clip(base.probability, 1e-6, 1 - 1e-6), np.maximum(base.orders, 1e-9)
    known = [np.log1p(np.nan_to_num(column)) for column in features(split.known, split.as_of).values()]
    X = StandardScaler().fit_transform(np.column_stack([*known, np.log(p / (1 - p)), np.log(expected)]))
    folds = KFold(10, shuffle=True, random_state=0)
    chance = cross_val_predict(
        LogisticRegression(C=0.01, max_iter=3000), X, split.orders > 0, cv=folds, method="predict_proba"
    )[:, 1]
    learner, weight = PoissonRegressor(alpha=0.2, max_iter=3000), {"sample_weight": expected}
    orders = expected * cross_val_predict(learner, X, split.orders / expected, cv=folds, params=weight)
    return Answer("(taught by the outcomes)", None, chance, orders, orders * base.cents / expected)


def lead_error(one: Answer, other: Answer, split: Split, metric: str, times: int = 200) -> float:
    """Standard error of the difference of a metric between two answers: by people drawn anew, the same for both."""
    rng = np.random.default_rng(0)
    leads = []
    for _ in range(times):
        drawn = rng.integers(0, len(split.people), len(split.people))
        part = replace(split, people=split.people[drawn], orders=split.orders[drawn], cents=split.cents[drawn])
        found = [measure(_of(answer, drawn), part)[metric] or 0.0 for answer in (one, other)]
        leads.append(found[0] - found[1])
    return float(np.std(leads))


def _of(answer: Answer, rows: np.ndarray) -> Answer:
    parts = {
        name: None if (values := getattr(answer, name)) is None else values[rows]
        for name in ("rank", "probability", "orders", "cents")
    }
    return Answer(answer.name, **parts)


def every_layout(split: Split) -> list[Answer]:
    """Plain boosting by every layout that can be learned from."""
    found = []
    for layout in layouts(split):
        try:
            found.append(plain_boosting(split, layout))
        except ValueError:
            continue
    return found


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row that told best who orders: of the lowest log loss."""
    return min(rows, key=lambda row: row["log_loss"])


def _matrix(found: Mapping[str, Numbers]) -> Numbers:
    return np.column_stack(list(found.values()))


def _date(day: int) -> Any:
    return EPOCH + timedelta(days=day)
