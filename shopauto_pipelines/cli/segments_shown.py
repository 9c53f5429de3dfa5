"""How segments look in a terminal: lists, people with their reasons, overlaps, differences. The commands are in ``segments``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from shopauto_pipelines.cli.options import small_table

if TYPE_CHECKING:
    from shopauto_pipelines.segments.declaration import SegmentDeclaration
    from shopauto_pipelines.segments.diff import Diff, SegmentDiff
    from shopauto_pipelines.segments.overlap import Explored
    from shopauto_pipelines.segments.report import Count
    from shopauto_pipelines.segments.why import Why

console = Console(highlight=False)

#: Most values of a segment with ``each`` that are listed.
_MOST_VALUES = 12

_MARKS = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[yellow]?[/yellow]"}


def print_list(rows: Sequence[Mapping[str, Any]], day: date) -> None:
    """Every segment with its size and moves."""
    table = small_table(("segment",), title=f"Segments as of {day}")
    for name in ("size", "+", "−"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("who", overflow="fold")
    for row in rows:
        values = f" [dim]({row['values']} values)[/dim]" if row["values"] is not None else ""
        moved = (f"{row[name]:,}" if row[name] else "" for name in ("entered", "left"))
        table.add_row(row["segment"], f"{row['size']:,}", *moved, escape(row["description"]) + values)
    console.print(table)
    console.print("More: [bold]shopauto segments show NAME[/bold]", soft_wrap=True)


def print_segment(name: str, segment: SegmentDeclaration, total: Count, sizes: Mapping[str, int], day: date) -> None:
    """A segment's condition, its size, and those of its values."""
    console.print(f"[bold]{escape(name)}[/bold]  {escape(segment.description)}")
    for line in segment.predicate.sql.strip().splitlines():
        _indented(f"[cyan]{escape(line.strip())}[/cyan]", 2)
    console.print(f"{_people(total.size)} as of {day}, {total.entered:,} came and {total.left:,} went on the day")
    if total.standing_in:
        text = f"fewer than {segment.minimum_size:,}: {_people(total.standing_in)} of {segment.fallback} stand in"
        console.print(f"[yellow]•[/yellow] {text}")
    if segment.each and name == segment.name and sizes:
        table = small_table((f"by {segment.each}",))
        table.add_column("people", justify="right")
        for found, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_MOST_VALUES]:
            table.add_row(escape(found), f"{size:,}")
        if len(sizes) > _MOST_VALUES:
            table.add_row(f"… and {len(sizes) - _MOST_VALUES:,} more")
        console.print(Padding(table, (1, 0, 0, 2)))


def print_members(answers: Sequence[Why], entered_on: Mapping[str, date], *, everybody: bool) -> None:
    """Members, and why each of them is one."""
    if answers:
        console.print(f"\nThe {'' if everybody else 'newest '}members")
    for answer in answers:
        console.print(f"  [bold]{escape(answer.customer_id)}[/bold]  since {entered_on[answer.customer_id]}")
        _print_reasons(answer, 4)


def print_person(customer: str, answers: Sequence[Why], day: date, *, why_not: bool) -> None:
    """The segments of a person with reasons; with ``why_not`` also of those the person is not in."""
    inside = [answer for answer in answers if answer.member]
    outside = [answer for answer in answers if not answer.member]
    console.print(f"[bold]{escape(customer)}[/bold] as of {day}: in {len(inside)} of {len(answers)} segments")
    for answer in inside:
        console.print(f"\n[green]in[/green] [bold]{escape(answer.member or '')}[/bold]")
        _print_reasons(answer, 2)
    if why_not:
        for answer in outside:
            console.print(f"\n[red]not in[/red] [bold]{answer.segment}[/bold]")
            _print_reasons(answer, 2)
    elif outside:
        console.print(f"\nnot in {', '.join(answer.segment for answer in outside)}")
        console.print("Why not: [bold]shopauto segments why CUSTOMER SEGMENT[/bold], or --all", soft_wrap=True)


def print_overlap(found: Explored, most: int) -> None:
    """The pairs that say most."""
    if not found.pairs:
        console.print(f"No two segments have anybody in common as of {found.as_of}.")
        return
    table = small_table((), title=f"Segments that overlap, as of {found.as_of}")
    for heading in ("segment", "other"):
        table.add_column(heading, overflow="fold")
    for heading in ("size", "its size", "both", "of smaller", "lift"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in found.pairs[:most]:
        numbers = (f"{number:,}" for number in (pair.size, pair.other_size, pair.both))
        table.add_row(
            escape(pair.segment), escape(pair.other), *numbers, f"{pair.share_of_smaller:.0%}", f"{pair.lift:.1f}"
        )
    console.print(table)
    if len(found.pairs) > most:
        console.print(f"… and {len(found.pairs) - most:,} more pairs (--most)")


def print_diff(found: Diff, over: Collection[SegmentDiff]) -> None:
    """A difference; segments that move more than they may, ``over``, stand out."""
    from shopauto_pipelines.segments import diff_report

    console.print(f"[bold]{escape(found.before)} → {escape(found.after)}[/bold]")
    console.print(diff_report.headline(found))
    if not found.segments:
        return
    table = small_table(("segment",))
    table.add_column("")
    for name in ("before", "after", "come", "go"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("their revenue", justify="right")
    for segment in found.segments:
        sizes = ("–" if size is None else f"{size:,}" for size in (segment.before, segment.after))
        moved = f"[green]+{segment.entered:,}[/green]", f"[red]−{segment.left:,}[/red]"
        shares = f"{segment.entered_revenue_percent:.1f} %, {segment.left_revenue_percent:.1f} %"
        style = "bold red" if segment in over else "bold"
        table.add_row(f"[{style}]{segment.name}[/{style}]", diff_report.state(segment), *sizes, *moved, shares)
    console.print()
    console.print(table)
    console.print("[dim]Revenue: of who come, and of who go, in percent of all people's of the last 365 days.[/dim]")
    for segment in found.segments:
        _print_segment_diff(segment)


def _print_segment_diff(segment: SegmentDiff) -> None:
    from shopauto_pipelines.segments import diff_report

    console.print(f"\n[bold]{segment.name}[/bold]")
    for line in segment.lines:
        style = {"+": "green", "-": "red"}.get(line[:1], "dim")
        _indented(f"[{style}]{escape(line)}[/{style}]", 2)
    if segment.other_value:
        _indented(f"{segment.other_value:,} stay, under another value", 2)
    if told := diff_report.stand_ins(segment):
        _indented(told, 2)
    for words, text, count in diff_report.reasons(segment):
        _indented(f"{count:,} {words} [cyan]{escape(text)}[/cyan]", 2)
    for moved in segment.people:
        because = f"  [dim]{escape(diff_report.because(moved))}[/dim]" if moved.because else ""
        _indented(f"[bold]{escape(moved.customer_id)}[/bold] {escape(diff_report.person(moved))}{because}", 4)


def _print_reasons(answer: Why, indent: int) -> None:
    for depth, reason in (line for top in answer.reasons for line in top.lines()):
        text = "one of these" if reason.joined == "or" else "all of these" if reason.parts else reason.text
        words = f"  [dim]{escape(reason.words)}[/dim]" if reason.values and not reason.parts else ""
        _indented(f"{_MARKS[reason.holds]} {escape(text)}{words}", indent + 2 * depth)


def _indented(text: str, spaces: int) -> None:
    console.print(Padding(text, (0, 0, 0, spaces), expand=False))


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count:,} people"
