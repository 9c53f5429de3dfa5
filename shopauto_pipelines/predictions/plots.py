"""Back-tests as people read them: a small picture and a table. Made from a model's metrics alone, never from people."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SHOWN = {
    "churn": ("auc", "log_loss", "brier", "calibration_error", "lift_10"),
    "orders": ("mae", "rmse", "bias", "spearman", "lift_10", "spend_top_10"),
}
_TITLES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "lift_10": "lift at 10 %",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "bias": "bias",
    "spearman": "rank correlation",
    "spend_top_10": "spend of the top 10 %",
}
#: Heads of the tables, short so that the UI's narrow cell holds every column; what is not here has its title.
_HEADS = {
    "brier": "Brier",
    "calibration_error": "calib.",
    "lift_10": "lift",
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "rank",
    "spend_top_10": "top 10",
}
_BLUE, _GREY = "#2563eb", "#9ca3af"


def described(row: Mapping[str, Any], picture: Callable[[str, str, Mapping[str, Any]], bytes]) -> dict[str, str]:
    """Markdown of one row of ``predictions/models``: what is in force, the verdict, and the back-test where there is one.

    ``picture`` gives the PNG of a challenger's :func:`backtest_plot`, from its id, target and metrics.
    """
    target = row["target"]
    live = f"In force: `{row['model_id']}`" if row["model_id"] else "No model is in force"
    which = "Model" if row.get("named") else "Challenger"
    text = f"{live}.\n\n**{which} of {row['challenger_as_of']}:** {row['verdict']}."
    if not row["metrics"]:
        return {"verdict": text}
    metrics = json.loads(row["metrics"])
    return {
        "verdict": text,
        "backtest": metrics_table(target, metrics),
        "plot": as_markdown_image(picture(row["challenger_id"], target, metrics), f"back-test of {target}"),
        "each_cut_off": each_table(target, metrics),
    }


def backtest_plot(target: str, metrics: Mapping[str, Any]) -> bytes:
    """A PNG: predicted against actual, cumulative gains, the main metric and the lift at 10 %, beside those of the rules."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.8), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    calibration, gains, ranking, lift = figure.subplots(1, 4)
    bins = metrics["bins"]
    top = max(max(b["predicted"], b["actual"]) for b in bins) or 1
    calibration.plot([0, top], [0, top], color=_GREY, linewidth=1)
    calibration.plot([b["predicted"] for b in bins], [b["actual"] for b in bins], "o-", color=_BLUE, markersize=3)
    calibration.set(
        title="calibration",
        xlabel="predicted " + ("churn probability" if target == "churn" else "orders"),
        ylabel="actual",
    )
    _gains(gains, metrics, "people who ordered" if target == "churn" else "orders")
    main = "auc" if target == "churn" else "rmse"
    _bars(ranking, metrics, main)
    ranking.set_title(_TITLES[main] + (" (higher is better)" if main == "auc" else " (lower is better)"))
    _bars(lift, metrics, "lift_10")
    lift.set_title(_TITLES["lift_10"] + " (higher is better)")
    for axes in (calibration, gains, ranking, lift):
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def metrics_table(target: str, metrics: Mapping[str, Any]) -> str:
    """The back-test as a Markdown table: the model, then each rule."""
    names = _SHOWN[target]
    lines = _head("", names)
    for who, values in (("**model**", metrics["model"]), *metrics["rules"].items()):
        lines.append(_line(who.replace("_", " "), names, values))
    meant = ", ".join(f"{_HEADS[name]}: {_TITLES[name]}" for name in names if name in _HEADS)
    facts = (
        f"Tested on {metrics['people']:,} people as of {', '.join(metrics['test_cut_offs'])}, over the "
        f"{metrics['tested_days']} days after; learned from {len(metrics['cut_offs'])} cut-offs."
    )
    return "\n".join([*lines, "", f"{meant}. {facts}"])


def each_table(target: str, metrics: Mapping[str, Any]) -> str:
    """The model's figures at each cut-off of the back-test, as a Markdown table."""
    names = [name for name in _SHOWN[target] if all(name in values for values in metrics["each"])]
    lines = _head("as of", names)
    for day, values in zip(metrics["test_cut_offs"], metrics["each"], strict=True):
        lines.append(_line(day, names, values))
    return "\n".join(lines)


def _head(first: str, names: Sequence[str]) -> list[str]:
    heads = (_HEADS.get(name, _TITLES[name]) for name in names)
    return [f"| {first} | {' | '.join(heads)} |", "|---|" + "---:|" * len(names)]


def _line(first: str, names: Sequence[str], values: Mapping[str, Any]) -> str:
    """A line of a table: a lift with two decimals, the others with three; what is not known is empty."""
    cells = (f"{values[name]:.{2 if name == 'lift_10' else 3}f}" if name in values else "" for name in names)
    return f"| {first} | {' | '.join(cells)} |"


def as_markdown_image(png: bytes, title: str) -> str:
    """The picture as a Markdown image that carries its own data."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _gains(axes: Any, metrics: Mapping[str, Any], what: str) -> None:
    """Share of the outcome by share of people, the likeliest first: ours, each rule's, and chance."""
    tenths = [n / 10 for n in range(11)]
    axes.plot(tenths, tenths, color=_GREY, linewidth=1, linestyle=":")
    for values in metrics["rules"].values():
        axes.plot(tenths, [0, *values["gains"]], color=_GREY, linewidth=0.8)
    axes.plot(tenths, [0, *metrics["model"]["gains"]], "o-", color=_BLUE, markersize=3)
    axes.set(title="gains (grey: the rules)", xlabel="share of people, likeliest first", ylabel=f"share of {what}")


def _bars(axes: Any, metrics: Mapping[str, Any], name: str) -> None:
    rows = [("model", metrics["model"][name]), *((rule, values[name]) for rule, values in metrics["rules"].items())][
        ::-1
    ]
    labels, values = [label.replace("_", " ") for label, _ in rows], [value for _, value in rows]
    bars = axes.barh(labels, values, color=[_BLUE if label == "model" else _GREY for label in labels])
    axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
    low, high = min(values), max(values)
    axes.set_xlim(max(0, low - (high - low) * 2) if name == "auc" else 0, high + (high - low or high) * 0.4)
