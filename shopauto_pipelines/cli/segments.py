"""``shopauto segments``: who is in which segment and why, and what a change of the declarations would do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shopauto_pipelines.cli import segments_shown as shown
from shopauto_pipelines.cli.lakes import existing_lake
from shopauto_pipelines.cli.options import AsJson, day_option, print_json
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.playbook import PLAYBOOK
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.platform.words import nearest

if TYPE_CHECKING:
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.tables import Table
    from shopauto_pipelines.segments.declaration import SegmentDeclaration
    from shopauto_pipelines.segments.report import Count
    from shopauto_pipelines.segments.why import Why

console = Console(highlight=False)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "Who is in which segment as of a day and why, and what a change of the declarations would do.\n\n"
        "`list`, `show`, `why` and `overlap` look at a computed day; `diff` computes the day with two playbooks, and "
        "`check` needs no data at all."
    ),
)

_AsOf = Annotated[date | None, day_option("--as-of", "The day. Default: the newest one that is computed.")]
_Who = Annotated[int, typer.Option("--who", min=0, metavar="N", help="How many people are told one by one.")]

#: Exit code of ``diff --fail-over`` where a segment moves too much.
OVER = 3


class SegmentsError(ShopAutoError):
    """What was asked for is not there; the text names the nearest, or the command to run."""


class Format(StrEnum):
    """How a difference is written."""

    text = "text"
    markdown = "markdown"
    json = "json"


@app.command("list")
def list_(as_of: _AsOf = None, as_json: AsJson = False) -> None:
    """List every segment with its size, who came and went on the day, and what it is."""
    from shopauto_pipelines.segments.declaration import load_segments
    from shopauto_pipelines.segments.report import Count, history
    from shopauto_pipelines.segments.tables import SIZES

    lake = existing_lake(load_settings())
    day = _day(lake, SIZES, as_of)
    counts = {name: line[day] for name, line in history(lake, day, day).items()}
    rows = []
    for segment in load_segments():
        mine = _of(segment.name, counts)
        total = sum(mine.values(), Count())
        values = sum(count.size > 0 for count in mine.values()) if segment.each else None
        rows.append({"segment": segment.name, **asdict(total), "values": values, "description": segment.description})
    if as_json:
        print_json({"as_of": day.isoformat(), "segments": rows})
        return
    shown.print_list(rows, day)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A segment, or one value of it: `vip`, `fans_of:camping`.")],
    as_of: _AsOf = None,
    who: _Who = 5,
    as_json: AsJson = False,
) -> None:
    """Show a segment: its condition, its size, its values, its newest members, and why each of them is in it."""
    from shopauto_pipelines.segments.declaration import SEPARATOR, load_segments
    from shopauto_pipelines.segments.report import Count, history
    from shopauto_pipelines.segments.tables import SIZES
    from shopauto_pipelines.segments.why import why

    segments = load_segments()
    segment = _segment(name, segments)
    lake = existing_lake(load_settings())
    day = _day(lake, SIZES, as_of)
    counts = {found: line[day] for found, line in history(lake, day, day).items()}
    mine = _of(name, counts)
    if SEPARATOR in name and not mine:
        raise SegmentsError(_no_value(name, counts, day))
    total, sizes = sum(mine.values(), Count()), {found: count.size for found, count in mine.items() if count.size}
    entered_on = _newest(lake, day, name, who)
    answers = why(lake, day, segments, entered_on, {segment.name})
    if as_json:
        members = [_as_dict(answer) | {"entered_on": entered_on[answer.customer_id].isoformat()} for answer in answers]
        about = {"segment": name, "as_of": day.isoformat(), **asdict(total), "sizes": sizes if segment.each else {}}
        print_json(about | {"members": members})
        return
    shown.print_segment(name, segment, total, sizes, day)
    shown.print_members(answers, entered_on, everybody=len(answers) == total.size)


@app.command("why")
def why_(
    customer: Annotated[str, typer.Argument(help="Id of a person, as in the tables and the UI.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[SEGMENT]...", help="Only these segments.")] = None,
    as_of: _AsOf = None,
    every: Annotated[bool, typer.Option("--all", help="Also the reasons of segments the person is not in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which segments a person is in and why; for segments named, or with `--all`, also why not.

    Each part of the condition is shown with ✓ (it holds), ✗ or ? (what it asks is not known), and the values it rests on.
    Nothing private is shown.
    """
    from shopauto_pipelines.features.tables import CUSTOMER_360
    from shopauto_pipelines.segments.declaration import load_segments
    from shopauto_pipelines.segments.why import why

    segments = load_segments()
    chosen = {_segment(name, segments).name for name in names or ()}
    lake = existing_lake(load_settings())
    day = _day(lake, CUSTOMER_360, as_of)
    answers = why(lake, day, segments, [customer], chosen or None)
    if as_json:
        print_json({"as_of": day.isoformat(), "segments": [_as_dict(answer) for answer in answers]})
        return
    shown.print_person(customer, answers, day, why_not=bool(chosen) or every)


@app.command()
def overlap(
    names: Annotated[list[str] | None, typer.Argument(metavar="[SEGMENT]...", help="Only pairs with these.")] = None,
    as_of: _AsOf = None,
    most: Annotated[int, typer.Option("--most", min=1, metavar="N", help="How many pairs are listed.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the pairs of segments with the most people in common, by their share of the smaller segment.

    The lift tells how much more that is than chance, which is 1.
    """
    from shopauto_pipelines.segments.declaration import load_segments
    from shopauto_pipelines.segments.overlap import explore
    from shopauto_pipelines.segments.tables import OVERLAP

    for name in names or ():
        _segment(name, load_segments())
    lake = existing_lake(load_settings())
    day = _day(lake, OVERLAP, as_of)
    found = explore(lake, day, names or ())
    if as_json:
        print_json(
            {"as_of": day.isoformat(), "sizes": dict(found.sizes), "pairs": [asdict(pair) for pair in found.pairs]}
        )
        return
    shown.print_overlap(found, most)


@app.command("diff")
def diff_(
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="REF",
            help="The playbook to compare with: a revision of git (`main`, `HEAD~1`, a tag, a commit) or a folder "
            "(`./main` where a revision is called so, too).",
        ),
    ],
    playbook: Annotated[
        Path,
        typer.Option("--playbook", metavar="FOLDER", help="The playbook with the change. Default: the one in use."),
    ] = PLAYBOOK,
    as_of: _AsOf = None,
    who: _Who = 3,
    form: Annotated[
        Format, typer.Option("--format", help="`markdown` is fit to be posted in a pull request.")
    ] = Format.text,
    fail_over: Annotated[
        float | None,
        typer.Option(
            "--fail-over",
            min=0,
            metavar="PERCENT",
            help="Exit with code 3 where of any segment more than so many percent come, go, get another value, or begin or "
            "cease to stand in.",
        ),
    ] = None,
) -> None:
    """Compare the segments of two playbooks over the same day: who comes and goes, their revenue, and why.

    No partition is written, and the work tree is left alone.

    Exit codes: 0 compared; 1 an error, such as a declaration that is not valid or a side that declares none; 2 wrong
    arguments; 3 with `--fail-over`, more people move than that.
    """
    from shopauto_pipelines.features.tables import CUSTOMER_360
    from shopauto_pipelines.segments import diff_report
    from shopauto_pipelines.segments.declaration import load_segments
    from shopauto_pipelines.segments.diff import diff

    if not playbook.is_dir():
        raise typer.BadParameter(f"there is no folder {playbook}", param_hint="--playbook")
    new = load_segments(playbook)
    with _other_playbook(against, playbook) as folder:
        old = load_segments(folder)
    for segments, where in ((old, against), (new, _shown(playbook))):
        if not segments:
            raise SegmentsError(f"{where} declares no segment: there is nothing to compare")
    lake = existing_lake(load_settings())
    day = _day(lake, CUSTOMER_360, as_of)
    found = diff(lake, day, old, new, (against, _shown(playbook)), who)
    if form is Format.json:
        print_json(diff_report.as_dict(found))
    elif form is Format.markdown:
        print(diff_report.markdown(found, fail_over), end="")
    else:
        shown.print_diff(found, found.over(fail_over) if fail_over is not None else ())
    if fail_over is not None and (over := found.over(fail_over)):
        names = ", ".join(f"{segment.name} ({segment.moved_percent:g} %)" for segment in over)
        Console(stderr=True, highlight=False).print(f"[red]Over {fail_over:g} % move:[/red] {names}", soft_wrap=True)
        raise typer.Exit(OVER)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A playbook: a folder with defs.yaml files.")] = PLAYBOOK,
) -> None:
    """Check the playbook's segments and the campaigns that use them; no data is needed.

    The first mistake is told with file, line and column, and the exit code is 1.
    """
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.segments.declaration import load_segments

    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}", param_hint="FOLDER")
    segments, campaigns = load_segments(folder), load_campaigns(folder)
    if not segments and not campaigns:
        raise SegmentsError(f"{folder} declares no segment and no campaign: there is no defs.yaml of one in it")
    console.print(f"{len(segments)} segments and {len(campaigns)} campaigns, all valid")


def _day(lake: Lake, table: Table, wanted: date | None) -> date:
    """The day asked for, or the newest one of the table."""
    from shopauto_pipelines.sources.landing import not_computed

    days = lake.days(table)
    if not days:
        raise SegmentsError(
            f"no day has been computed: run `{lake.refresh_command}` (`shopauto demo` for the sample shop)"
        )
    if wanted is None:
        return days[-1]
    if wanted not in days:
        raise SegmentsError(not_computed(lake, wanted, days))
    return wanted


def _of(name: str, counts: Mapping[str, Count]) -> dict[str, Count]:
    """The counts of a segment and its values, or of one value."""
    from shopauto_pipelines.segments.declaration import SEPARATOR

    return {found: count for found, count in counts.items() if name in (found, found.partition(SEPARATOR)[0])}


def _newest(lake: Lake, day: date, name: str, most: int) -> dict[str, date]:
    """The latest own members with their day of entry."""
    import ibis

    from shopauto_pipelines.segments.membership import members
    from shopauto_pipelines.segments.tables import MEMBERSHIP

    rows = members(lake.on(MEMBERSHIP, day), name, own=True).select("customer_id", "entered_on")
    latest = rows.order_by(ibis.desc("entered_on"), "customer_id").limit(most).to_pyarrow().to_pylist()
    return {row["customer_id"]: row["entered_on"] for row in latest}


def _segment(name: str, segments: Sequence[SegmentDeclaration]) -> SegmentDeclaration:
    """The declaration behind ``name`` or ``name:value``."""
    from shopauto_pipelines.segments.declaration import SEPARATOR, check_name

    try:
        check_name(name, segments)
    except ValueError as error:
        raise SegmentsError(str(error)) from None
    base = name.partition(SEPARATOR)[0]
    return next(segment for segment in segments if segment.name == base)


def _no_value(name: str, known: Iterable[str], day: date) -> str:
    hint = nearest(name, known, quote="'")
    return f"nobody is in {name!r} as of {day}; {hint}"


@contextmanager
def _other_playbook(against: str, playbook: Path) -> Iterator[Path]:
    """What the playbook was at the revision, or a folder: one written as a path, or one that holds declarations.

    Any other folder of that name may be there by chance, as `main` beside the branch.
    """
    from shopauto_pipelines.segments.revision import at_revision

    folder = Path(against)
    as_path = folder.is_absolute() or against.startswith(".")
    if folder.is_dir() and (as_path or any(folder.rglob("defs.yaml"))):
        yield folder
    else:
        with at_revision(against, playbook) as folder:
            yield folder


def _shown(playbook: Path) -> str:
    return "the work tree" if playbook == PLAYBOOK else str(playbook)


def _as_dict(answer: Why) -> dict[str, object]:
    return {
        "segment": answer.segment,
        "customer_id": answer.customer_id,
        "member": answer.member,
        "reasons": [
            {"condition": r.text, "holds": r.holds, "values": dict(r.values), "depth": depth}
            for top in answer.reasons
            for depth, r in top.lines()
        ],
    }
