"""Landed files → the rows of the raw tables: one row per key, orders only of known customers, lines only of known orders.

Pure functions of the landed files; in a lake as known then, of those that were known (:mod:`.arrivals`). A row of a day is
judged by rows of that day and earlier ones alone, so a day's partition never depends on what came after it. What is refused
here goes to ``raw/quarantine``, next to what the landing refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.sources.arrivals import Piece, pieces
from shopauto_pipelines.sources.known import noted
from shopauto_pipelines.sources.landing import COLLECTOR_SOURCE, sql_text
from shopauto_pipelines.sources.tables import CUSTOMERS, ORDER_LINES, ORDERS, QUARANTINE, RAW_TABLES, REFUNDS

#: Where a row stands.
_PLACE = ("source", "source_file", "source_row")

#: Names a row: together unique within a table. Of a file that was corrected rows of other days may have stood in the same line.
_ROW = (*_PLACE, "day")

#: What is wrong with a row: names that no raw table has.
_WRONG = ("wrong_column", "wrong_reason", "wrong_value")

#: How much younger than an order its customer's account may be: checkouts make one of what was typed for the order.
_ACCOUNT_MADE = timedelta(days=1)

UNKNOWN_CUSTOMER = "unknown customer"
UNKNOWN_ORDER = "unknown order"
DUPLICATE = "duplicate key"


def accepted(lake: Lake, table: Table, start: date, end: date) -> ir.Table:
    """Rows of the raw ``table`` for the days ``start`` to ``end``, with ``day``."""
    judged = _judged(lake, table, start, end)
    return judged.filter(_.wrong_reason.isnull()).select("day", *table.schema)


def rejected(lake: Lake, start: date, end: date) -> ir.Table:
    """Rows of ``raw/quarantine`` for the days ``start`` to ``end``, with ``day``."""
    parts = []
    for table in RAW_TABLES:
        read = _landed(lake, table)
        if read:
            refused = _read(lake, read, refused=True)
            parts.append(refused.filter(_.day.between(start, end)).select("day", *QUARANTINE.schema))
            told_twice = (_.wrong_reason == DUPLICATE) & (_.source == COLLECTOR_SOURCE)
            bad = _judged(lake, table, start, end).filter(_.wrong_reason.notnull() & ~told_twice)
            parts.append(
                bad.select(
                    *_ROW,
                    table=ibis.literal(table.name),
                    column=_.wrong_column,
                    reason=_.wrong_reason,
                    raw_value=_.wrong_value,
                ).select("day", *QUARANTINE.schema)
            )
    return ibis.union(*parts) if len(parts) > 1 else _nothing(QUARANTINE)


def refusals(lake: Lake, day: date) -> dict[tuple[str, str], int]:
    """Rows of a written partition of ``raw/quarantine``, by table and reason."""
    if not lake.rows(QUARANTINE, day):
        return {}
    counted = lake.on(QUARANTINE, day).group_by("table", "reason").agg(rows=_.count()).order_by("table", "reason")
    return {(row["table"], row["reason"]): row["rows"] for row in lake.con.to_pyarrow(counted).to_pylist()}


def _landed(lake: Lake, table: Table) -> list[Piece]:
    """The landed files of which some rows are visible."""
    return [piece for piece in pieces(lake, table) if piece.days is None or piece.days]


def _sources_of(lake: Lake, table: Table) -> list[str]:
    """Sources that deliver ``table``."""
    return sorted({piece.source for piece in pieces(lake, table)})


def _read(lake: Lake, landed: Sequence[Piece], *, refused: bool = False) -> ir.Table:
    """The visible rows of landed files, or those that landing ``refused``.

    Where it matters since when they were known, ``known`` is the first day whose refresh could know of them.
    """
    files = {str(piece.file.with_suffix(".quarantine.parquet") if refused else piece.file): piece for piece in landed}
    if all(piece.days is None for piece in landed):
        return lake.con.read_parquet([*files])
    told = [(file, day, known) for file, piece in files.items() for day, known in (piece.days or {}).items()]
    name = f"known_{uuid.uuid4().hex}"
    listed = ", ".join(map(sql_text, files))
    visible = ", ".join(f"({sql_text(file)}, date '{day}', date '{known}')" for file, day, known in told)
    # a view, not an expression: to compile that would take longer than everything else
    lake.con.raw_sql(
        f"""create temp view {name} as select landed.* exclude (filename), visible.known
        from read_parquet([{listed}], filename = true, union_by_name = true) landed
        join (values {visible}) visible (file, day, known) on landed.filename = visible.file and landed.day = visible.day"""
    )
    return lake.con.table(name)


def _nothing(table: Table) -> ir.Table:
    schema = {"day": "date", **table.schema}
    return ibis.memtable(ibis.schema(schema).to_pyarrow().empty_table(), schema=schema)


def _judged(lake: Lake, table: Table, start: date | None, end: date) -> ir.Table:
    """Landed rows of the days with :data:`_WRONG`: column, reason and value of what is wrong, null where nothing is."""
    landed = _landed(lake, table)
    if not landed:
        rows = _nothing(table)
        return rows.mutate(**{name: ibis.null("string") for name in _WRONG})
    until = _referred(lake, table, _read(lake, landed).filter(_.day <= end), end)
    rows = until if start is None else until.filter(_.day >= start)
    return rows if len({(piece.source, piece.named) for piece in landed}) == 1 else _once(table, rows, until)


def _once(table: Table, rows: ir.Table, until: ir.Table) -> ir.Table:
    """Of the sound rows with one key the earliest stays: by day, then source, file and row.

    On one day the collector's row gives way, and is not among the refused: a shop may tell of a thing when it happens, and
    export it later. So do all lines of an order, which may be numbered otherwise there.
    """
    key = list(table.key)
    thing = key[:1] if table == ORDER_LINES else key
    sound = until.filter(_.wrong_reason.isnull()).select(*dict.fromkeys([*key, *_ROW]))
    told = sound.source == COLLECTOR_SOURCE
    place = ibis.row_number().over(group_by=key, order_by=["day", told, *_PLACE])
    exported = (~told).any().over(group_by=[*thing, "day"]) if table == ORDER_LINES else ibis.literal(False)
    repeated = (
        sound.semi_join(rows.select(*thing).distinct(), thing)
        .mutate(place=place, exported=exported)
        .filter((_.place > 0) | ((_.source == COLLECTOR_SOURCE) & _.exported))
        .select(*_ROW, "place")
    )
    joined = rows.left_join(repeated, list(_ROW), rname="again_{name}")
    again = joined.wrong_reason.isnull() & joined.place.notnull()
    names = [joined[name].cast("string") for name in key]
    return joined.mutate(
        wrong_column=ibis.ifelse(again, ", ".join(key), joined.wrong_column),
        wrong_reason=ibis.ifelse(again, DUPLICATE, joined.wrong_reason),
        wrong_value=ibis.ifelse(again, ibis.literal(", ").join(names).left(200), joined.wrong_value),
    ).select(*rows.columns)


def _referred(lake: Lake, table: Table, rows: ir.Table, end: date) -> ir.Table:
    """Add :data:`_WRONG`: who or what a row refers to has to be known on its day."""
    if table == ORDERS and _sources_of(lake, CUSTOMERS):
        return _orders_of_known_customers(lake, rows)
    if table in (ORDER_LINES, REFUNDS) and _sources_of(lake, ORDERS):
        return _of_orders(lake, table, rows, end)
    return rows.mutate(**{name: ibis.null("string") for name in _WRONG})


def _orders_of_known_customers(lake: Lake, rows: ir.Table) -> ir.Table:
    """A customer is known from the day of the first record, or from ``created_at``, less a day, where that is earlier.

    Anonymous sales, guests, and sources that deliver no customers are not judged; nor is the collector, which is told of
    customers who change, not of those who were there before.
    """
    customers = _read(lake, _landed(lake, CUSTOMERS)) if _landed(lake, CUSTOMERS) else _nothing(CUSTOMERS)
    told = {"known_day": _.day.min(), "known_since": _.created_at.min()}
    then = noted(lake)
    if then and then.cut and "known" in customers.columns:
        # a record of a later day may tell of an earlier one, and counts from when it was known itself
        records = customers.group_by(known_id=_.shop_customer_id, told=_.known).agg(**told)
        orders = rows.select(*_ROW, "shop_customer_id", asked=ibis.greatest(_.day, then.cut.start))
        met = orders.inner_join(records, [orders.shop_customer_id == records.known_id, records.told <= orders.asked])
        known = met.group_by(*_ROW).agg(known_day=_.known_day.min(), known_since=_.known_since.min())
        joined = rows.left_join(known, list(_ROW), rname="known_{name}")
    else:
        known = customers.group_by(known_id=_.shop_customer_id).agg(**told)
        joined = rows.left_join(known, rows.shop_customer_id == known.known_id)
    is_known = (joined.known_day <= joined.day) | (joined.known_since - _ACCOUNT_MADE <= joined.ordered_at)
    unknown = (
        joined.shop_customer_id.notnull()
        & ~joined.shop_customer_id.startswith("guest:")
        & joined.source.isin([source for source in _sources_of(lake, CUSTOMERS) if source != COLLECTOR_SOURCE])
        & ~is_known.fill_null(False)
    )
    return _marked(joined, unknown, "shop_customer_id", UNKNOWN_CUSTOMER, rows.columns)


def _of_orders(lake: Lake, table: Table, rows: ir.Table, end: date) -> ir.Table:
    """Lines and refunds are of whoever placed the order, where they do not say whose they are: a guest, mostly.

    A line's order has to be known; of refunds some are of orders that came before the data.
    """
    accepted = _judged_orders(lake, end).filter(_.wrong_reason.isnull())
    known = accepted.group_by(known_id=_.order_id).agg(known_day=_.day.min(), owner=_.shop_customer_id.min())
    joined = rows.left_join(known, rows.order_id == known.known_id)
    is_known = (joined.known_day <= joined.day).fill_null(False)
    owner = ibis.coalesce(joined.shop_customer_id, ibis.ifelse(is_known, joined.owner, ibis.null("string")))
    judged = joined.source.isin(_sources_of(lake, ORDERS)) if table == ORDER_LINES else ibis.literal(False)
    return _marked(joined.mutate(shop_customer_id=owner), judged & ~is_known, "order_id", UNKNOWN_ORDER, rows.columns)


def _judged_orders(lake: Lake, end: date) -> ir.Table:
    return _referred(lake, ORDERS, _read(lake, _landed(lake, ORDERS)).filter(_.day <= end), end)


def _marked(joined: ir.Table, wrong: ir.BooleanValue, column: str, reason: str, columns: tuple[str, ...]) -> ir.Table:
    none = ibis.null("string")
    return joined.select(
        *columns,
        wrong_column=ibis.ifelse(wrong, ibis.literal(column), none),
        wrong_reason=ibis.ifelse(wrong, ibis.literal(reason), none),
        wrong_value=ibis.ifelse(wrong, joined[column].left(200), none),
    )
