"""The model card as people read it: what a model was made from, how it was tested, and what it is for (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shopauto_pipelines.predictions.plots import each_table, metrics_table

if TYPE_CHECKING:
    from shopauto_pipelines.predictions.store import Card

_ANSWERS = {
    "churn": "the probability that a person with an order places none within {} days",
    "orders": "expected order days of a person with an order within {} days, the next order's date, and spend",
}


def model_card(card: Card) -> str:
    """Markdown of a card. Says nothing of any single person, and nothing that another run would say differently."""
    parts = [f"# {card.model_id}", f"Verdict: {card.verdict}."]
    if card.metrics:
        metrics, data, by = card.metrics, card.data, card.made_by
        libraries = ", ".join(f"{name} {version}" for name, version in by["libraries"].items())
        parts += [
            f"Tells {_ANSWERS[card.target].format(metrics['horizon_days'])}.",
            "## Data",
            _list(
                {
                    "days": f"{data['first_day']} to {data['last_day']}",
                    "people": f"{data['people']:,}, {data['order_days']:,} order days",
                    "learned from": f"{data['rows_learned_from']:,} rows of the cut-offs {_days(metrics['cut_offs'])}",
                    "season": f"{metrics['season']:.2f}"
                    + ("" if metrics["season_known"] else ", not known in the test"),
                    "digest": data["fingerprint"],
                }
            ),
            "## Back-test",
            metrics_table(card.target, metrics),
            each_table(card.target, metrics),
            "## Made by",
            _list(
                {"class": by["class"], "code": by["code"]}
                | ({"weights": _weights(metrics)} if card.inputs else {})
                | {"libraries": libraries}
            ),
            "## Features",
            _inputs(card.inputs) or ", ".join(f"`{name}`" for name in card.features),
        ]
    return "\n\n".join(parts) + "\n"


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _days(days: Sequence[str]) -> str:
    return ", ".join(days) or "none"


def _weights(metrics: Mapping[str, Any]) -> str:
    weights = metrics["weights"]
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items()) + ", buying process the rest"


def _inputs(inputs: Mapping[str, Sequence[str]]) -> str:
    lines = [f"| {name} | {', '.join(f'`{source}`' for source in sources)} |" for name, sources in inputs.items()]
    return "\n".join(["| input | computed from |", "|---|---|", *lines]) if lines else ""
