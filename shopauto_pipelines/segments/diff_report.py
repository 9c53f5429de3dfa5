"""A difference between two playbooks, written: Markdown for a pull request, a dictionary for scripts. Computes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from shopauto_pipelines.segments.diff import Diff, Moved, SegmentDiff
from shopauto_pipelines.segments.why import code

#: Most reasons that are listed of a move.
_MOST_REASONS = 8


def headline(diff: Diff) -> str:
    """How much differs, in a sentence."""
    count = len(diff.segments)
    differ = f"{count} segment{'s differ' if count != 1 else ' differs'}" if count else "No segment differs"
    return f"{differ}, {diff.same:,} {'is' if diff.same == 1 else 'are'} the same; {diff.people:,} people as of {diff.as_of}."


def state(segment: SegmentDiff) -> str:
    """``changed``, ``renamed from old_name``, …"""
    return f"renamed from {segment.was}" if segment.was else segment.state


def reasons(segment: SegmentDiff) -> Iterator[tuple[str, str, int]]:
    """Why people come and go: a sentence, the part of the condition, and how many it is about; the most first."""
    for text, count in list(segment.let_in_by.items())[:_MOST_REASONS]:
        yield "came: the old condition kept them out by", text, count
    for text, count in list(segment.put_out_by.items())[:_MOST_REASONS]:
        yield "went: the new condition keeps them out by", text, count


def stand_ins(segment: SegmentDiff) -> str | None:
    """How many stand in on either side, in a sentence; ``None`` where nobody does."""
    if not segment.standing_in_before and not segment.standing_in_after:
        return None
    counts = f"{segment.standing_in_before:,} stood in before, {segment.standing_in_after:,} do after"
    return f"{counts}: the fallback's members, {segment.standing_in_moved:,} of whom begin or cease to"


def person(moved: Moved, shown: Callable[[str], str] = str) -> str:
    """``came``, ``went``, or ``fans_of:a → fans_of:b``: what a person did, with the segments' names as ``shown``."""
    if moved.was is None:
        return "came"
    return "went" if moved.now is None else f"{shown(moved.was)} → {shown(moved.now)}"


def because(moved: Moved) -> str:
    """The reasons of a person, in a line."""
    return "; ".join(reason.text + (f" ({reason.words})" if reason.values else "") for reason in moved.because)


def as_dict(diff: Diff) -> dict[str, Any]:
    """For scripts: plain values only."""
    return {
        "as_of": diff.as_of.isoformat(),
        "before": diff.before,
        "after": diff.after,
        "people": diff.people,
        "same": diff.same,
        "segments": [
            {
                "segment": segment.name,
                "state": segment.state,
                "was": segment.was,
                "before": segment.before,
                "after": segment.after,
                "entered": segment.entered,
                "left": segment.left,
                "other_value": segment.other_value,
                "standing_in_before": segment.standing_in_before,
                "standing_in_after": segment.standing_in_after,
                "standing_in_moved": segment.standing_in_moved,
                "moved_percent": segment.moved_percent,
                "entered_revenue_percent": segment.entered_revenue_percent,
                "left_revenue_percent": segment.left_revenue_percent,
                "let_in_by": dict(segment.let_in_by),
                "put_out_by": dict(segment.put_out_by),
                "declaration": list(segment.lines),
                "people": [
                    {
                        "customer_id": moved.customer_id,
                        "was": moved.was,
                        "now": moved.now,
                        "revenue_cents_365d": moved.revenue_cents_365d,
                        "because": [
                            {"condition": r.text, "holds": r.holds, "values": dict(r.values)} for r in moved.because
                        ],
                    }
                    for moved in segment.people
                ],
            }
            for segment in diff.segments
        ],
    }


def markdown(diff: Diff, over: float | None = None) -> str:
    """For a pull request: a table of all that differs, and each segment's reasons folded up below it.

    ``over``: segments of which more than so many percent move are marked.
    """
    marked = {segment.name for segment in diff.over(over)} if over is not None else set()
    lines = [f"### Segments: {code(diff.before)} → {code(diff.after)}", "", headline(diff)]
    if diff.segments:
        lines += ["", "| segment | | before | after | come | go | revenue of who come | of who go |"]
        lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
        lines += [_row(segment, marked=segment.name in marked) for segment in diff.segments]
        lines += ["", "Revenue: percent of all people's of the last 365 days."]
    if marked:
        lines += ["", f"⚠️ More than {over:g} % of the people move: {', '.join(map(code, sorted(marked)))}."]
    for segment in diff.segments:
        lines += ["", *_details(segment)]
    return "\n".join(lines) + "\n"


def _row(segment: SegmentDiff, *, marked: bool) -> str:
    numbers = ["–" if size is None else f"{size:,}" for size in (segment.before, segment.after)]
    numbers += [f"+{segment.entered:,}", f"−{segment.left:,}"]
    numbers += [f"{share:.2f} %" for share in (segment.entered_revenue_percent, segment.left_revenue_percent)]
    return f"| {code(segment.name)}{' ⚠️' if marked else ''} | {state(segment)} | {' | '.join(numbers)} |"


def _details(segment: SegmentDiff) -> list[str]:
    lines = [f"<details><summary>{segment.name}</summary>", ""]
    if segment.lines:
        ticks = max((len(run) for line in segment.lines for run in re.findall("`+", line)), default=0)
        fence = "`" * max(3, ticks + 1)  # longer than any inside, which would close it
        lines += [f"{fence}diff", *segment.lines, fence, ""]
    if segment.other_value:
        lines += [f"- {segment.other_value:,} stay, under another value"]
    if told := stand_ins(segment):
        lines += [f"- {told}"]
    lines += [f"- {count:,} {words} {code(text)}" for words, text, count in reasons(segment)]
    if segment.people:
        lines += ["", "| customer | | because |", "|---|---|---|"]
        for moved in segment.people:
            told = "; ".join(code(r.text) + (f" ({code(r.words)})" if r.values else "") for r in moved.because)
            lines += [f"| {code(moved.customer_id)} | {person(moved, code)} | {told} |"]
    return [*lines, "", "</details>"]
