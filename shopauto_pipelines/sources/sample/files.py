"""The CSV files of the sample shop: their columns, and how arrays become text. Nothing here knows how a shop works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Column names of every file, in order.
FILES: dict[str, tuple[str, ...]] = {
    "customers.csv": (
        "shop_customer_id", "changed_at", "created_at", "email", "phone", "first_name", "last_name", "gender",
        "birthday", "country", "city", "language",
    ),
    "consents.csv": ("shop_customer_id", "channel", "state", "wording", "changed_at"),
    "products.csv": ("product_id", "changed_at", "name", "category", "price", "cost"),
    "orders.csv": (
        "order_id", "ordered_at", "shop_customer_id", "email", "currency", "total", "discount", "shipping",
        "coupon_code", "cart_id",
    ),
    "order_lines.csv": (
        "order_id", "line_number", "ordered_at", "shop_customer_id", "product_id", "kind", "quantity", "unit_price",
        "amount",
    ),
    "refunds.csv": (
        "refund_id", "refunded_at", "order_id", "shop_customer_id", "product_id", "kind", "quantity", "amount",
        "reason",
    ),
    "events.csv": (
        "event_id", "happened_at", "type", "shop_customer_id", "anonymous_id", "session_id", "cart_id", "product_id",
        "quantity", "url",
    ),
    "message_events.csv": (
        "event_id", "happened_at", "type", "message_id", "shop_customer_id", "channel", "campaign", "is_machine",
    ),
    "truth/customers.csv": (
        "shop_customer_id", "other_shop_customer_id", "interval_days", "regularity", "buyer", "alive", "dropped_out_at",
        "favourite_category", "discount_seeker", "mail_responsiveness", "season", "expected_orders_90d",
        "probability_no_order_90d",
    ),
    "truth/future_orders.csv": ("shop_customer_id", "email", "ordered_at", "total"),
}  # fmt: skip


class Writer:
    """Appends columns to open CSV files and counts their rows."""

    def __init__(self, files: dict[str, Any]) -> None:
        self._files = files
        self.rows = dict.fromkeys(files, 0)

    def __call__(self, name: str, columns: dict[str, Any]) -> None:
        """Appends rows; ``columns`` are those of ``FILES[name]``, in order."""
        if tuple(columns) != FILES[name]:
            raise ValueError(f"{name} has the columns {FILES[name]}, not {tuple(columns)}")
        cells = [_quoted(pc.cast(_array(column), pa.string())) for column in columns.values()]
        self.rows[name] += len(cells[0])
        if len(cells[0]) == 0:
            return
        lines = pc.binary_join_element_wise(*cells, ",", null_handling="replace", null_replacement="")
        lines = join(lines, pa.repeat("\n", len(lines)))
        offsets, data = lines.buffers()[1:]
        first, last = np.frombuffer(offsets, np.int32)[[lines.offset, lines.offset + len(lines)]]
        self._files[name].write(memoryview(data)[first:last])


def _array(column: Any) -> pa.Array:
    array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _quoted(text: pa.Array) -> pa.Array:
    """Quotes the cells that need it (RFC 4180)."""
    needs = pc.match_substring_regex(text, '[",\\r\\n]')
    if not pc.any(needs).as_py():
        return text
    escaped = pc.replace_substring(text, '"', '""')
    return pc.if_else(needs, join(pa.repeat('"', len(text)), escaped, pa.repeat('"', len(text))), text)


@contextmanager
def writers(out: Path) -> Iterator[Writer]:
    """Files with their header under a staging name, renamed when all is written; removed when it fails."""
    staged = {name: out / f"{name}.part" for name in FILES}
    try:
        with ExitStack() as stack:
            files = {}
            for name, path in staged.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                files[name] = stack.enter_context(path.open("wb"))
                files[name].write((",".join(FILES[name]) + "\n").encode())
            yield Writer(files)
        for name, path in staged.items():
            path.replace(out / name)
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)


def times(seconds: Ints, known: Bools | None = None) -> pa.Array:
    """ISO times in UTC with a ``Z``; null where not ``known``."""
    text = pa.array(np.datetime_as_string(np.asarray(seconds).astype("datetime64[s]"), timezone="UTC"), pa.string())
    return text if known is None else pc.if_else(pa.array(known), text, pa.scalar(None, pa.string()))


def money(cents: Ints) -> pa.Array:
    """Cents as a decimal amount: 1250 → ``12.50``."""
    text = pa.string()
    return join(
        pc.cast(pa.array(cents // 100), text),
        pa.repeat(".", len(cents)),
        pc.utf8_lpad(pc.cast(pa.array(cents % 100), text), 2, "0"),
    )


def join(*parts: pa.Array) -> pa.Array:
    """Texts put together, row by row."""
    return pc.binary_join_element_wise(*parts, "")


def numbered(prefix: str, numbers: Ints, known: Bools | None = None) -> pa.Array:
    """Ids: the prefix and the number; null where not ``known``."""
    text = pc.cast(pa.array(numbers, pa.int64(), mask=None if known is None else ~known), pa.string())
    return join(pa.repeat(prefix, len(numbers)), text)


def flags(values: Bools) -> pa.Array:
    """``true`` and ``false``."""
    return pa.array(["false", "true"]).take(pa.array(values.astype(np.int64)))


def position(groups: Ints) -> Ints:
    """0, 1, 2, … within each run of equal values."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
