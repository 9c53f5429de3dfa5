"""A back-test as one HTML page that needs nothing else: figures beside the rules', calibration and lift plots, notes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from shopauto_pipelines.predictions.plots import backtest_plot

_TITLES = {"churn": "Who orders again", "orders": "How many orders"}
#: Metric → heading and format; a probability's first, then a count's.
_FIGURES = {
    "auc": ("AUC", ".3f"),
    "log_loss": ("log loss", ".4f"),
    "brier": ("Brier score", ".4f"),
    "calibration_error": ("calibration error", ".3f"),
    "mae": ("mean absolute error", ".3f"),
    "rmse": ("root mean squared error", ".3f"),
    "bias": ("bias", "+.1%"),
    "spearman": ("rank correlation", ".3f"),
    "lift_10": ("lift at 10 %", ".2f"),
    "spend_top_10": ("spend in top 10 %", ".1%"),
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } img { max-width: 100% }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #e5e7eb; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } tr.own td { font-weight: 600; color: #2563eb }
"""


def backtest_page(title: str, metrics: Mapping[str, Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """The page. ``metrics`` are those of the back-test by target, as of :mod:`~shopauto_pipelines.predictions.backtest`."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if notes:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(notes)) + "</ul>")
    for target, figures in metrics.items():
        parts.append(f"<h2>{escape(_TITLES.get(target, target))}</h2>")
        parts.append(f"<p>Verdict {escape(str(figures['verdict']))}.</p>")
        parts.append(_table(figures))
        picture = base64.b64encode(backtest_plot(target, figures)).decode()
        parts.append(
            f'<img src="data:image/png;base64,{picture}" alt="calibration and lift of the model: {escape(target)}">'
        )
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _table(metrics: Mapping[str, Any]) -> str:
    names = [name for name in _FIGURES if name in metrics["model"]]
    head = "".join(f"<th>{_FIGURES[name][0]}</th>" for name in names)
    rows = [_row("our model", metrics["model"], names, ' class="own"')]
    rows += [_row(rule.replace("_", " "), values, names) for rule, values in metrics["rules"].items()]
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(method: str, values: Mapping[str, Any], names: Sequence[str], style: str = "") -> str:
    shown = ("" if values.get(name) is None else format(values[name], _FIGURES[name][1]) for name in names)
    return f"<tr{style}><td>{escape(method)}</td>" + "".join(f"<td>{value}</td>" for value in shown) + "</tr>"
