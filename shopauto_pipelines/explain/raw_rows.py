"""Rows of the raw tables with the file and the row they came from: those of a few people, never more than are looked at.

A partition is read where the person is known to have done something, by the daily rollups. No private column is read, and of
the others those that say what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis import _

from shopauto_pipelines.explain.telling import Row
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources import tables as raw

#: Whose row it is.
_WHO = "shop_customer_id"

_PLACE = tuple(column.name for column in raw.LINEAGE)

#: What is shown of a row; of other tables all that is not private.
_SHOWN = {
    raw.CUSTOMERS: ("shop_customer_id", "changed_at", "created_at", "country", "language"),
    raw.CONSENTS: ("shop_customer_id", "changed_at", "channel", "state", "wording"),
    raw.TOPIC_CHOICES: ("shop_customer_id", "changed_at", "channel", "topic", "state"),
    raw.ORDERS: (
        "shop_customer_id",
        "ordered_at",
        "order_id",
        "total_cents",
        "discount_cents",
        "coupon_code",
        "cart_id",
    ),
    raw.ORDER_LINES: ("shop_customer_id", "ordered_at", "order_id", "product_id", "quantity", "amount_cents"),
    raw.EVENTS: ("shop_customer_id", "happened_at", "type", "product_id", "cart_id"),
    raw.MESSAGE_EVENTS: ("shop_customer_id", "happened_at", "type", "channel", "campaign", "message_id"),
    raw.FORM_SUBMISSIONS: ("shop_customer_id", "submitted_at", "form"),
}


def rows(
    lake: Lake,
    table: Table,
    days: Iterable[date],
    ids: Collection[str],
    keep: Callable[[Mapping[str, Any]], bool] = lambda values: True,
    *,
    limit: int,
    column: str = _WHO,
) -> tuple[Row, ...]:
    """Rows of ``ids`` (in ``column``) on ``days`` that ``keep`` takes, the newest first, at most ``limit``; by place where equal.

    Days that have no partition are passed over.
    """
    found: list[Row] = []
    for day in sorted(set(days), reverse=True):
        if len(found) >= limit:
            break
        told = partition(lake, table, day, ids, column, _names(table))
        found += _newest_first(table, [_row(table, row | {"day": day}) for row in told if keep(row)])
    return tuple(found[:limit])


def between(lake: Lake, table: Table, start: date, end: date, ids: Collection[str]) -> list[Row]:
    """Rows of ``ids`` from ``start`` to ``end``, both included, the newest first; in one query."""
    if not ids:
        return []
    told = lake.between(table, start, end).filter(_[_WHO].isin(sorted(ids))).select(*_names(table), "day").to_pyarrow()
    return _newest_first(table, [_row(table, row) for row in told.to_pylist()])


def partition(
    lake: Lake,
    table: Table,
    day: date,
    ids: Collection[str],
    column: str = "customer_id",
    names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Rows of a partition whose ``column`` is among ``ids``; of columns that an earlier version did not write nothing is said."""
    path = lake.path(table, day)
    if not path.exists() or not ids:
        return []
    wanted, found = pa.array(sorted(ids), pa.string()), []
    with pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        read = [name for name in names or table.schema.names if name in there and name not in table.private_columns]
        for group in range(file.num_row_groups):
            if not _may_hold(file, group, there.index(column), wanted):
                continue
            mask = pc.is_in(file.read_row_group(group, columns=[column], use_threads=False)[column], wanted)
            if pc.any(mask).as_py():
                found += file.read_row_group(group, columns=read, use_threads=False).filter(mask).to_pylist()
    return found


def _may_hold(file: pq.ParquetFile, group: int, place: int, wanted: pa.Array) -> bool:
    """Whether a row group may have any of the wanted values, which are in order, by what the file says of it."""
    told = file.metadata.row_group(group).column(place).statistics
    if told is None or not told.has_min_max:
        return True
    return told.min <= wanted[-1].as_py() and wanted[0].as_py() <= told.max


def _names(table: Table) -> tuple[str, ...]:
    said = _SHOWN.get(table, tuple(c.name for c in table.columns if not c.private and c.name not in _PLACE))
    return (*said, *_PLACE)


def _newest_first(table: Table, found: list[Row]) -> list[Row]:
    when = raw.TIME_COLUMN[table.name]
    found.sort(key=lambda row: (row.source, row.file, row.number))
    found.sort(key=lambda row: row.values.get(when) or datetime.min, reverse=True)
    return found


def _row(table: Table, row: Mapping[str, Any]) -> Row:
    place = {*_PLACE, "day"}
    values = {name: value for name, value in row.items() if name not in place and value is not None}
    return Row(table.name, row["source"], row["source_file"], row["source_row"], row["day"], values)
