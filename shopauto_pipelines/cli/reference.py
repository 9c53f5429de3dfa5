"""``shopauto reference``: everything a playbook may say, read off the declarations themselves, and what is shipped.

Nothing is described here twice: fields come from the pydantic models, columns from the tables, reasons from the planner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel

Schema = Mapping[str, Any]


def reference(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference page, docs/reference.md.")] = False,
) -> None:
    """Show what a segment and a campaign may declare, what conditions can ask, and the shipped playbook in order."""
    shown = page()
    if markdown:
        print(shown, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(shown))


def page() -> str:
    """The reference in Markdown."""
    from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns
    from shopauto_pipelines.campaigns.offers import REASONS as OF_OFFERS
    from shopauto_pipelines.campaigns.planner import REASONS
    from shopauto_pipelines.realtime.landing_pages import LandingPage
    from shopauto_pipelines.segments.declaration import SegmentDeclaration, load_segments
    from shopauto_pipelines.segments.people import COLUMNS

    columns = [
        (f"`{c.name}`", c.type, c.description) for c in COLUMNS.values() if not c.private and c.name != "customer_id"
    ]
    segments = [(f"`{s.name}`", s.description) for s in load_segments()]
    return "\n".join(
        [
            "# Reference of the playbook",
            "",
            "How to use it is in [playbook.md](playbook.md). This page is written by `shopauto reference --markdown`.",
            "",
            "## Shipped campaigns",
            "",
            "The first in the list is planned first: where the cap leaves room for one message a day, it is the uppermost.",
            "",
            *_table(("priority", "campaign", "trigger", "steps", "goal"), map(_campaign, load_campaigns().values())),
            "",
            "## Shipped segments",
            "",
            *_table(("segment", "who"), segments),
            "",
            *_declaration("A segment", SegmentDeclaration),
            *_events(),
            "## Columns of a condition",
            "",
            "In `where` of a segment and in `when` of a step. Money is in minor units (cents), `as_of` is the day.",
            "",
            *_table(("column", "type", "what it is"), columns),
            "",
            *_declaration("A campaign", Campaign),
            *_declaration("A landing page", LandingPage),
            "## Why somebody gets a message or not",
            "",
            "Asked in this order; the first that holds is the reason in the audience and in the explanation.",
            "",
            *_table(("reason", "meaning"), ((f"`{name}`", meaning) for name, meaning in REASONS.items())),
            "",
            "## Why somebody gets which offer",
            "",
            *_table(("reason", "meaning"), ((f"`{name}`", meaning) for name, meaning in OF_OFFERS.items())),
            "",
        ]
    )


def _campaign(campaign: Any) -> tuple[str, ...]:
    """A line of the shipped campaigns."""
    steps = ", ".join(f"{step.name} ({_wait(step)}{', offer' if step.offer else ''})" for step in campaign.steps)
    off = "" if campaign.enabled else " (off)"
    return str(campaign.priority), f"`{campaign.name}`{off}", f"`{campaign.trigger}`", steps, campaign.goal


def _wait(step: Any) -> str:
    if step.wait_hours is not None:
        return f"{step.wait_hours:g} h" if step.wait_hours else "at once"
    return f"day {step.wait_days}"


def _events() -> list[str]:
    """What ``did`` can be asked."""
    from shopauto_pipelines.segments.events import EVENTS

    rows = [
        (f"`{name}`", ", ".join(f"`{column}`" for column in event.columns), event.description)
        for name, event in EVENTS.items()
    ]
    return ["## Events of `did`", "", *_table(("event", "may be filtered by", "what it is"), rows), ""]


def _declaration(title: str, model: type[BaseModel]) -> list[str]:
    """Fields of the model and of every part of it, a table each."""
    schema = model.model_json_schema()
    parts: dict[str, Schema] = schema.get("$defs", {})
    lines = [f"## {title}", "", *_fields(schema)]
    for name, part in parts.items():
        if part.get("type") == "object":
            fields = _fields(part) if part.get("properties") else ["Nothing to say about it: `{}`."]
            lines += ["", f"### {name}", "", _said(part), "", *fields]
    return [*lines, ""]


def _said(part: Schema) -> str:
    """The docstring of a part of a declaration, on one line."""
    return " ".join(part.get("description", "").replace("``", "`").split())


def _fields(schema: Schema) -> list[str]:
    required = schema.get("required", ())
    return _table(
        ("field", "value", "default", "what it does"),
        (
            (
                f"`{name}`",
                _kind(field),
                "**needed**" if name in required else _default(field),
                field.get("description", ""),
            )
            for name, field in schema["properties"].items()
        ),
    )


def _default(field: Schema) -> str:
    value = field.get("default")
    if value in (None, [], {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, list) else value}`"


def _kind(field: Schema) -> str:
    """What may stand there, in words."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        kinds = [_kind(kind) for kind in field["anyOf"] if kind.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    return "".join(_simple(field))


def _simple(field: Schema) -> Iterator[str]:
    match field.get("type"):
        case "array":
            yield f"list of {_kind(field.get('items', {}))}"
        case "object":
            patterns: Schema = field.get("patternProperties", {})
            inner: Any = field.get("additionalProperties") or next(iter(patterns.values()), None)
            yield f"name: {_kind(inner)}" if isinstance(inner, Mapping) else "names with values"
        case "string":
            yield "day" if field.get("format") == "date" else "text"
        case "integer" | "number" as number:
            least, most = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum")
            yield "whole number" if number == "integer" else "number"
            if most is not None:
                yield f", {least or 0:g} to {most:g}"
            elif least is not None:
                yield f", {least:g} or more"
        case "boolean":
            yield "`true` or `false`"
        case _:
            yield "value"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
