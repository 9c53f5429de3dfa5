"""Behaviour clusters: people who buy alike, found by k-means, under labels that a reader understands and that stay.

A *model* is a few rows of ``features/cluster_models``: a centre per cluster in units of :data:`TRAITS`, and how traits are
scaled. It is fitted every so many days on a bounded sample; on the days between it is carried over, and people are assigned
to the nearest centre by one expression.

- Traits are scaled by median and interquartile range and cut at three of them: a few wholesale customers move nothing.
- A fit starts from the centres in force, and from new ones; the new ones win only where they are clearly better.
- A label is made once, of what stands out against the shop's median, such as ``recent_high_spenders``. A new fit's centres are
  matched to the old ones (the assignment with the smallest sum of distances): who has moved less than half the way to the
  next cluster keeps the label.

The fit runs on one thread and its results are rounded: the same people give the same model with any number of threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import exp, expm1
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis import _
from ibis.common.deferred import Deferred
from numpy.typing import NDArray

from shopauto_pipelines.features import tables

#: Most people a model is fitted on: those whose hashed id is smallest, the same ones on every day.
SAMPLE = 20_000

#: People a cluster needs: fewer customers make fewer clusters.
PEOPLE_PER_CLUSTER = 30

#: Scaled traits are cut here, interquartile ranges from the median.
LIMIT = 3.0

#: Distance from the median, interquartile ranges, from which a trait stands out.
STANDS_OUT = 0.4

#: Minor units of money in what people count in.
_MINOR_UNITS = 100

#: A trait that is spread no wider than this does not tell people apart.
_NOTHING = 0.01

#: New centres replace those grown from the old ones where the sum of squares is smaller by so much.
CLEARLY_BETTER = 0.05

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Trait:
    """A number that people are compared by: ``value`` is made of the ``inputs``; words for ``low`` and ``high`` centres.

    ``noun``: the words name people, and end a label. ``back`` turns a value into what people count in, in ``unit``, for ``what``.
    """

    name: str
    what: str
    inputs: tuple[str, ...]
    value: Deferred
    low: str
    high: str
    back: Callable[[float], float] = expm1
    unit: str = ""
    noun: bool = False

    def shown(self, value: float) -> str:
        """A value in words: ``12 days``."""
        return f"{self.back(value):.0f}{self.unit}"


#: What people are compared by, in the order of a label's words.
TRAITS = (
    Trait(
        "recency", "last order", ("recency_days",), (1 + _.recency_days).ln(), "recent", "long_gone", unit=" days ago"
    ),
    Trait("orders", "orders", ("orders",), _.orders.ln(), "occasional", "frequent", back=exp),
    Trait("visits", "visits in 90 days", ("visits_90d",), (1 + _.visits_90d).ln(), "quiet", "curious"),
    Trait(
        "mail",
        "opens and clicks in 90 days",
        ("opens_90d", "clicks_90d"),
        (1 + _.opens_90d + _.clicks_90d).ln(),
        "silent",
        "engaged",
    ),
    Trait(
        "coupons",
        "orders with a coupon",
        ("coupon_orders_365d", "orders_365d"),
        ibis.least(1.0, _.coupon_orders_365d / ibis.greatest(_.orders_365d, 1)),
        "full_price",
        "coupon",
        back=lambda share: 100 * share,
        unit=" %",
    ),
    Trait(
        "spend",
        "typical order",
        ("typical_order_cents",),
        (1 + _.typical_order_cents).ln(),
        "low_spenders",
        "high_spenders",
        back=lambda value: expm1(value) / _MINOR_UNITS,
        noun=True,
    ),
)


@dataclass(frozen=True)
class Model:
    """Clusters in force since ``fitted_on``: ``labels`` and words, their ``centres`` (k × traits), and the traits' scale."""

    fitted_on: date
    labels: tuple[str, ...]
    described: tuple[str, ...]
    centres: Numbers
    median: Numbers
    spread: Numbers

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Model | None:
        """The model in rows of ``features/cluster_models``; ``None`` where there is none, or of other traits than today's."""
        traits = [trait.name for trait in TRAITS]
        scales = [json.loads(row["scale"]) for row in rows]
        if not rows or any(list(scale) != traits for scale in scales):
            return None
        median, spread = np.array(list(scales[0].values()), dtype=float).T
        return cls(
            fitted_on=rows[0]["fitted_on"],
            labels=tuple(row["cluster"] for row in rows),
            described=tuple(row["described"] for row in rows),
            centres=np.array([list(json.loads(row["centre"]).values()) for row in rows], dtype=float),
            median=median,
            spread=spread,
        )

    def rows(self) -> pa.Table:
        """The model as rows of ``features/cluster_models``."""
        names = [trait.name for trait in TRAITS]
        scale = json.dumps(dict(zip(names, zip(self.median.tolist(), self.spread.tolist(), strict=True), strict=True)))
        rows = [
            {
                "cluster": label,
                "fitted_on": self.fitted_on,
                "described": described,
                "centre": json.dumps(dict(zip(names, centre.tolist(), strict=True))),
                "scale": scale,
            }
            for label, described, centre in zip(self.labels, self.described, self.centres, strict=True)
        ]
        return pa.Table.from_pylist(rows, tables.CLUSTER_MODELS.arrow_schema)

    def scaled(self, values: Numbers) -> Numbers:
        """Trait values in interquartile ranges from the median, cut at :data:`LIMIT`."""
        return np.clip((values - self.median) / self.spread, -LIMIT, LIMIT)


def model(
    features: ir.Table, previous: Sequence[Mapping[str, Any]], as_of: date, most: int, refit_days: int, seed: int = 0
) -> pa.Table:
    """Rows of ``features/cluster_models`` as of the day: carried over from ``previous``, or fitted where that is due.

    ``features`` and ``previous``: ``features/customer_features`` as of the day, and the rows of the latest earlier partition of
    this table. A model has at most ``most`` clusters, and is fitted again after ``refit_days``. No rows where there are too few
    customers for two clusters.
    """
    before = Model.of(previous)
    if before is not None and as_of < before.fitted_on + timedelta(days=refit_days):
        return before.rows()
    return fitted(sample(features), before, as_of, most, seed)


def sample(features: ir.Table) -> Numbers:
    """Trait values (people × traits) of up to about :data:`SAMPLE` people with an order, in the order of their ids."""
    buyers = features.filter(_.orders > 0)
    share = SAMPLE / max(int(buyers.count().execute()), 1)
    if share < 1:
        buyers = buyers.filter(_.customer_id.hexdigest("md5")[:8] < f"{int(share * 2**32):08x}")
    found = _traits(buyers).order_by("customer_id").to_pyarrow()
    return np.column_stack([found[trait.name].to_numpy().astype(float) for trait in TRAITS])


def fitted(values: Numbers, before: Model | None, as_of: date, most: int, seed: int = 0) -> pa.Table:
    """A model fitted on trait ``values``, its labels matched to those of the model ``before``."""
    clusters = min(most, len(values) // PEOPLE_PER_CLUSTER)
    if clusters < 2:
        return tables.CLUSTER_MODELS.arrow_schema.empty_table()
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    wide = np.where(high - low > _NOTHING, high - low, values.std(axis=0))
    scale = Model(
        as_of, (), (), np.empty((0, len(TRAITS))), median.round(6), np.where(wide > _NOTHING, wide, 1).round(6)
    )
    scaled = scale.scaled(values)
    clusters = min(clusters, len(np.unique(scaled, axis=0)))
    if clusters < 2:
        return tables.CLUSTER_MODELS.arrow_schema.empty_table()
    old = None if before is None else scale.scaled(before.centres)
    centres = _centres(scaled, clusters, old, seed)
    kept = {} if before is None or old is None else _kept(centres, old, before.labels)
    nearest = np.linalg.norm(scaled[:, None] - centres[None], axis=2).argmin(axis=1)
    usual = [np.median(values[nearest == n], axis=0) if (nearest == n).any() else median for n in range(clusters)]
    return replace(
        scale,
        labels=_labels(centres, kept),
        described=tuple(_described(members, scale) for members in usual),
        centres=(scale.median + centres * scale.spread).round(6),
    ).rows()


def assigned(features: ir.Table, rows: Sequence[Mapping[str, Any]]) -> ir.Table:
    """Rows of ``features/clusters``: for everybody with an order the cluster with the nearest centre; nobody without a model.

    ``rows`` are those of ``features/cluster_models``. Of equally near ones the first in the alphabet is taken.
    """
    in_force = Model.of(rows)
    buyers = _traits(features.filter(_.orders > 0))
    if in_force is None:
        return buyers.filter(ibis.literal(False)).select("customer_id", cluster=ibis.null("string"))
    scale = zip(TRAITS, in_force.median.tolist(), in_force.spread.tolist(), strict=True)
    scaled = {trait.name: ((_[trait.name] - median) / spread).clip(-LIMIT, LIMIT) for trait, median, spread in scale}
    # The nearest centre has the largest 2 x·c - c·c: the x·x of the distance is the same for all.
    nearness = {
        label: sum(
            (_[trait.name] * (2 * at) for trait, at in zip(TRAITS, centre, strict=True)), -sum(at * at for at in centre)
        )
        for label, centre in sorted(zip(in_force.labels, in_force.scaled(in_force.centres).tolist(), strict=True))
    }
    measured = buyers.mutate(**scaled).mutate(**nearness)
    nearest = ibis.greatest(*(measured[label] for label in nearness))
    return measured.select(
        "customer_id", cluster=ibis.cases(*((measured[label] == nearest, label) for label in nearness))
    )


def _described(usual: Numbers, scale: Model) -> str:
    """What sets the members' medians apart from the shop's, the most first: ``orders: 9 (shop: 2); …``."""
    away = scale.scaled(usual)
    found = [
        f"{TRAITS[n].what}: {TRAITS[n].shown(usual[n])} (shop: {TRAITS[n].shown(scale.median[n])})"
        for n in np.argsort(-np.abs(away), kind="stable")
        if abs(away[n]) >= STANDS_OUT
    ]
    return "; ".join(found) or "like the shop's median customer in everything"


def _traits(features: ir.Table) -> ir.Table:
    return features.select("customer_id", **{trait.name: trait.value.cast("float64").round(6) for trait in TRAITS})


def _centres(scaled: Numbers, clusters: int, old: Numbers | None, seed: int) -> Numbers:
    """Centres found from new beginnings, or grown from the ``old`` ones where that is hardly worse."""
    # Imported here: the import takes longer than all else on the days without a fit.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        new = KMeans(clusters, n_init=5, random_state=seed).fit(scaled)
        if old is not None and len(old) == clusters:
            grown = KMeans(clusters, init=old, n_init=1, random_state=seed).fit(scaled)
            if grown.inertia_ <= new.inertia_ * (1 + CLEARLY_BETTER):
                new = grown
    found = np.asarray(new.cluster_centers_, dtype=float).round(6)
    return np.asarray(found[np.lexsort(found.T[::-1])])


def _kept(new: Numbers, old: Numbers, labels: Sequence[str]) -> dict[int, str]:
    """Of each new centre that has hardly moved the label it had."""
    from scipy.optimize import linear_sum_assignment

    def distances(left: Numbers, right: Numbers) -> Numbers:
        return np.linalg.norm(left[:, None] - right[None], axis=2)

    moved, apart = distances(new, old), distances(old, old) + np.diag(np.full(len(old), np.inf))
    pairs = zip(*linear_sum_assignment(moved), strict=True)
    return {int(to): labels[came] for to, came in pairs if moved[to, came] < apart[came].min() / 2}


def _labels(scaled: Numbers, kept: Mapping[int, str]) -> tuple[str, ...]:
    """A label for each centre: the one it has kept, else made of its two traits that stand out most."""
    labels = dict(kept)
    for n, centre in enumerate(scaled):
        if n in labels:
            continue
        options = [_label(centre, words) for words in range(2, len(TRAITS) + 1)]
        options += [f"{options[0]}_{number}" for number in range(2, len(scaled) + 2)]
        labels[n] = next(option for option in options if option not in labels.values())
    return tuple(labels[n] for n in range(len(scaled)))


def _label(centre: Numbers, words: int) -> str:
    """Of the traits that stand out the first ``words``, in the order of :data:`TRAITS`, as a name for people."""
    outstanding = [n for n in np.argsort(-np.abs(centre), kind="stable") if abs(centre[n]) >= STANDS_OUT][:words]
    chosen = [(TRAITS[n], centre[n]) for n in sorted(outstanding)]
    said = [trait.high if away > 0 else trait.low for trait, away in chosen]
    noun = [] if chosen and chosen[-1][0].noun else ["buyers"]
    return "_".join([*(said or ["average"]), *noun])
