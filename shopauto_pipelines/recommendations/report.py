"""What people look at in the UI: a few lines of each table. Products and counts alone, nothing about a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pyarrow.parquet as pq

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.recommendations import tables

#: Lines of a table in the UI.
_LINES = 15

_BARS = "▁▂▃▄▅▆▇█"


def products(lake: Lake, day: date) -> str:
    """The durables, and how many products can be had."""
    rows = _rows(
        lake,
        tables.PRODUCTS,
        day,
        "name",
        "product_id",
        "category",
        "buyers",
        "durable",
        "durable_basis",
        "replacement_days",
        "available",
    )
    kept = sorted((r for r in rows if r["durable"]), key=lambda r: (-r["buyers"], r["product_id"]))
    missing = sum(not r["available"] for r in rows)
    text = f"{len(rows):,} products, {missing:,} of them not to be had now, {len(kept):,} durable.\n\n"
    lines = [(_name(r), r["category"], r["buyers"], r["replacement_days"], r["durable_basis"]) for r in kept]
    return text + _table(("durable", "category", "buyers", "replacement age, days", "because of"), lines)


def complements(lake: Lake, day: date) -> str:
    """The strongest pairs."""
    names = {r["product_id"]: _name(r) for r in _rows(lake, tables.PRODUCTS, day, "product_id", "name")}
    rows = _rows(
        lake, tables.COMPLEMENTS, day, "product_id", "complement_id", "pairs", "confidence", "lift", "lift_low"
    )
    rows.sort(key=lambda r: (-r["lift_low"], r["product_id"], r["complement_id"]))
    lines = [
        (names[r["product_id"]], names[r["complement_id"]], r["pairs"], f"{r['confidence']:.1%}", f"{r['lift']:.1f}")
        for r in rows
    ]
    return _table(("after", "people take", "pairs", "share", "lift"), lines)


def customer_products(lake: Lake, day: date) -> str:
    """How many people, and for which reasons."""
    reasons, first = Counter[str](), Counter[str]()
    for row in _counted(lake, tables.CUSTOMER_PRODUCTS, day, "reason", "rank"):
        reasons[row["reason"]] += row["count_all"]
        first[row["reason"]] += row["count_all"] if row["rank"] == 1 else 0
    lines = [(reason, f"{count:,}", f"{first[reason]:,}") for reason, count in sorted(reasons.items())]
    return f"{first.total():,} people.\n\n" + _table(("reason", "recommendations", "of them in first place"), lines)


def replenishment(lake: Lake, day: date) -> str:
    """How many packs are in which state."""
    states = {row["state"]: row["count_all"] for row in _counted(lake, tables.REPLENISHMENT, day, "state")}
    return _table(("state", "packs"), [(state, f"{count:,}") for state, count in sorted(states.items())])


def gaps(lake: Lake, day: date) -> str:
    """The gaps most people run into."""
    rows = _rows(lake, tables.CATALOGUE_GAPS, day, "kind", "subject", "people", "why")
    rows.sort(key=lambda r: (-r["people"], r["kind"], r["subject"]))
    return _table(
        ("kind", "what", "people", "evidence"), [(r["kind"], r["subject"], r["people"], r["why"]) for r in rows]
    )


def trends(lake: Lake, day: date) -> str:
    """Each category's weeks as bars, and its trend."""
    rows = _rows(lake, tables.CATEGORY_TRENDS, day, *tables.CATEGORY_TRENDS.schema)
    by_category: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_category.setdefault(row["category"], []).append(row)
    lines = []
    for category, weeks in sorted(by_category.items(), key=lambda item: (-item[1][-1]["units_8w"], item[0])):
        last, most = weeks[-1], max(max(w["units"] for w in weeks), 1)
        bars = "".join(_BARS[w["units"] * (len(_BARS) - 1) // most] for w in weeks)
        change = "" if last["change_percent"] is None else f"{last['change_percent']:+.0f} %"
        between = (
            ""
            if last["change_percent"] is None
            else f"{last['change_low_percent']:+.0f} … {last['change_high_percent']:+.0f} %"
        )
        lines.append(
            (category, bars, last["units_8w"], change, between, (last["basis"] or "").replace("_", " "), last["trend"])
        )
    return _table(("category", "weeks", "pieces in 8 weeks", "change", "80 %", "against", "trend"), lines)


def _rows(lake: Lake, table: Table, day: date, *columns: str) -> list[dict[str, Any]]:
    return pq.read_table(lake.path(table, day), columns=list(columns), partitioning=None).to_pylist()


def _counted(lake: Lake, table: Table, day: date, *columns: str) -> list[dict[str, Any]]:
    """The combinations of values in the columns, with how many rows have each, as ``count_all``."""
    rows = pq.read_table(lake.path(table, day), columns=list(columns), partitioning=None)
    return rows.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist()


def _name(row: dict[str, Any]) -> str:
    return row["name"] or row["product_id"]


def _table(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table of the first lines."""
    shown = [line for line, _ in zip(lines, range(_LINES), strict=False)]
    if not shown:
        return "Nothing."
    cells = (" | ".join(str("" if cell is None else cell).replace("|", "\\|") for cell in line) for line in shown)
    return "\n".join([f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads), *(f"| {line} |" for line in cells)])
