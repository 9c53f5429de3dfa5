"""What a refresh has made, for people: rows, customers, segments, scores against the rules, messages, where to look."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import date

import ibis
from ibis import _
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features import tables as features
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions import tables as predictions
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.segments import tables as segments
from shopauto_pipelines.sources.tables import QUARANTINE, RAW_TABLES

#: Segments that are listed; the UI has them all.
_MOST_SEGMENTS = 30

#: Figures of the back-test that are shown, and how they are called.
_METRICS = {
    "auc": "AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "mae": "MAE",
    "rmse": "RMSE",
    "bias": "bias",
    "lift_10": "lift at 10 %",
}


def show(lake: Lake, settings: Settings, as_of: date, console: Console) -> None:
    """Print the summary of the state as of a day."""
    console.print(f"\n[bold]{settings.shop_name}[/bold] as of {as_of}\n")
    console.print(_rows(lake, as_of))
    console.print(_segments(lake, as_of))
    console.print(_models(lake, as_of))
    console.print(_messages(lake, settings, as_of))
    looks = {
        "make dev": "the Dagster UI on http://localhost:3000: assets, checks, plots, lineage",
        f"{_program()} inbox": "the messages, and why each person was chosen, on http://localhost:8025",
        lake.place: "every table as Parquet, one file per day",
    }
    console.print("Where to look")
    for where, what in looks.items():
        console.print(f"  [bold]{escape(where)}[/bold]  {what}", soft_wrap=True)


def _program() -> str:
    """How to call this program from the folder it was called in."""
    return "shopauto" if shutil.which("shopauto") else os.path.relpath(sys.argv[0])


def _rows(lake: Lake, as_of: date) -> RichTable:
    shown = _titled("Tables", "table", "days", "rows", f"rows {as_of}")
    for table in (*RAW_TABLES, QUARANTINE, *profiles.TABLES, *features.TABLES, *predictions.TABLES, *segments.TABLES):
        days = lake.days(table)
        if days:
            total = _count(lake.between(table)) if table.partition == "day" else None
            today = lake.rows(table, as_of) if as_of in days else None
            shown.add_row(table.name, f"{len(days):,}", _number(total), _number(today))
    return shown


def _segments(lake: Lake, as_of: date) -> RichTable:
    shown = _titled("Segments", "segment", "people", "share", "entered", "left")
    people = lake.rows(profiles.CUSTOMERS, as_of)
    sizes = _counter(lake.on(segments.MEMBERSHIP, as_of), "segment")
    moves = {
        change: _counter(lake.on(segments.CHANGES, as_of).filter(_.change == change), "segment")
        for change in ("entered", "left")
    }
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    for name in by_size[:_MOST_SEGMENTS]:
        share = sizes[name] / people if people else 0
        shown.add_row(
            name, f"{sizes[name]:,}", f"{share:.1%}", _number(moves["entered"][name]), _number(moves["left"][name])
        )
    if len(by_size) > _MOST_SEGMENTS:
        shown.add_row(f"… and {len(by_size) - _MOST_SEGMENTS} smaller ones")
    return shown


def _models(lake: Lake, as_of: date) -> RichTable:
    """Back-test of the latest challengers beside the rules, as stored with the models."""
    shown = _titled("Models against the rules (back-test on customers' later orders)", "target", "method", "figures")
    for row in lake.on(predictions.MODELS, as_of).order_by("target").to_pyarrow().to_pylist():
        metrics = json.loads(row["metrics"]) if row["metrics"] else {"rules": {}}
        methods = {"model": metrics["model"]} | metrics["rules"] if "model" in metrics else {}
        for name, figures in methods.items():
            text = ", ".join(f"{_METRICS[key]} {value:.3f}" for key, value in figures.items() if key in _METRICS)
            shown.add_row(row["target"], f"[bold]{name}[/bold]" if name == "model" else name, text)
        in_force = f"in force: {row['model_id']}" if row["model_id"] else "no model is in force"
        shown.add_row(row["target"], "verdict", f"{row['verdict']}; {in_force}", end_section=True)
    return shown


def _messages(lake: Lake, settings: Settings, as_of: date) -> RichTable:
    shown = _titled(f"Messages of {as_of}", "campaign", "planned", "sent", "refused", "why refused")
    with engine(settings).connect() as connection:
        for name, campaign in load_campaigns().items():
            table: Table = audience(name)
            if campaign.is_realtime or as_of not in lake.days(table):  # what is sent by the hour is of no day
                continue
            decided = lake.on(table, as_of)
            refused = _counter(decided.filter(_.decision == "refused"), "reason")
            states: Counter[str] = Counter()
            for (state, reason), count in ledger.counts(connection, name, as_of).items():
                states[state] += count
                if state in ("suppressed", "failed", "unknown"):
                    refused[f"{state}: {reason}"] += count
            shown.add_row(
                name,
                f"{_count(decided.filter(_.decision == 'planned')):,}",
                f"{states['sent']:,}",
                f"{sum(refused.values()):,}",
                ", ".join(
                    f"{why} {count:,}" for why, count in sorted(refused.items(), key=lambda one: (-one[1], one[0]))
                ),
            )
    return shown


def _titled(title: str, first: str, *others: str) -> RichTable:
    table = RichTable(title=f"[bold]{title}[/bold]", title_justify="left", pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name.startswith(("why", "method", "figures")) else "right")
    return table


def _counter(rows: ibis.Table, column: str) -> Counter[str]:
    counted: Iterable[dict] = rows.group_by(column).agg(n=_.count()).to_pyarrow().to_pylist()
    return Counter({row[column]: row["n"] for row in counted})


def _count(rows: ibis.Table) -> int:
    return int(rows.count().to_pyarrow().as_py())


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
