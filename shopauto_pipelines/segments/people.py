"""What a segment can ask of a person: columns of the 360° view, of the scores, and those computed here from all people.

Only columns that some segment uses are read and computed. Predicates and membership are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.tables import Column
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments.events import Day


@dataclass(frozen=True)
class Computed:
    """A computed column: the columns of the 360° view it is made from, and how, given the day."""

    column: Column
    inputs: tuple[str, ...]
    make: Callable[[ir.DateValue], ir.Deferred]

    @property
    def is_telling(self) -> bool:
        """Whether it is made of private data: whoever knows the days to the birthday knows the birthday."""
        return not set(self.inputs).isdisjoint(CUSTOMER_360.private_columns)


def _fifths(value: ir.Deferred) -> ir.Deferred:
    """1 (worst) to 5 (best) among people with an order: 1 + ⌊5 × people with a smaller value ÷ all of them⌋.

    Equal values get equal scores. Cutting rows into five equal parts (``ntile``) would tear customers apart who do not
    differ, such as the many with a single order, along an arbitrary order of rows.
    """
    ranked = (_.orders > 0) & value.notnull()
    smaller = ibis.rank().over(group_by=ranked, order_by=value)
    everybody = _.orders.count().over(group_by=ranked)
    return ibis.ifelse(ranked, 1 + (5 * smaller) // everybody, None).cast("int64")


def _revenue_percentile(_as_of: ir.DateValue) -> ir.Deferred:
    buyers = _.revenue_cents_365d > 0
    below = ibis.percent_rank().over(group_by=buyers, order_by=_.revenue_cents_365d)
    return ibis.ifelse(buyers, (100 * below).round(6), None)


def _days_to_birthday(as_of: ir.DateValue) -> ir.Deferred:
    month, day = _.birthday.month(), _.birthday.day()

    def in_year(year: ir.IntegerValue) -> ir.Deferred:
        is_leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
        celebrated = ibis.ifelse((month == 2) & (day == 29) & ~is_leap, 28, day)
        return ibis.date(year, month, celebrated).delta(as_of, unit="day")

    this_year, next_year = in_year(as_of.year()), in_year(as_of.year() + 1)
    days = ibis.ifelse(this_year >= 0, this_year, next_year)
    return ibis.ifelse(_.birthday.notnull(), days, None).cast("int64")


#: The computed columns, by name.
COMPUTED = {
    computed.column.name: computed
    for computed in (
        Computed(
            Column("rfm_recency", "int64", "1–5, 5: the latest order is most recent; null: no order"),
            ("orders", "recency_days"),
            lambda _as_of: _fifths(-_.recency_days),
        ),
        Computed(
            Column("rfm_frequency", "int64", "1–5, 5: most order days; null: no order"),
            ("orders",),
            lambda _as_of: _fifths(_.orders),
        ),
        Computed(
            Column("rfm_monetary", "int64", "1–5, 5: most revenue after refunds; null: no order"),
            ("orders", "revenue_cents", "refund_cents"),
            lambda _as_of: _fifths(_.revenue_cents - _.refund_cents),
        ),
        Computed(
            Column(
                "revenue_percentile",
                "float64",
                "0–100: percent of the other buyers of the last 365 days who spent less; null: no revenue in them",
            ),
            ("revenue_cents_365d",),
            _revenue_percentile,
        ),
        Computed(
            Column(
                "days_to_birthday",
                "int64",
                "days until the next birthday, 0: on the day itself; 29 February is kept on 28 February in other years",
            ),
            ("birthday",),
            _days_to_birthday,
        ),
    )
}

#: Every column a predicate may name, private ones included so that an error can say why they are refused.
COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (*CUSTOMER_360.columns, *SCORES.columns[1:], *(computed.column for computed in COMPUTED.values()))
}


def people(customers_360: ir.Table, scores: ir.Table, as_of: Day, columns: Collection[str]) -> ir.Table:
    """One row per person with ``customer_id`` and the named ``columns`` of :data:`COLUMNS`.

    ``customers_360`` and ``scores`` are the partitions of ``as_of``. A person without scores has nulls there.
    """
    computed = [COMPUTED[name] for name in COMPUTED if name in columns]
    wanted = {"customer_id", *columns} | {name for one in computed for name in one.inputs}
    rows = customers_360.select([name for name in CUSTOMER_360.schema if name in wanted])
    scored = [name for name in SCORES.schema if name in wanted and name != "customer_id"]
    if scored:
        rows = rows.left_join(scores.select("customer_id", *scored), "customer_id").drop("customer_id_right")
    if computed:
        today = ibis.literal(as_of) if isinstance(as_of, date) else as_of
        rows = rows.mutate(**{one.column.name: one.make(today) for one in computed})
    return rows.select("customer_id", *sorted(set(columns) - {"customer_id"}))
