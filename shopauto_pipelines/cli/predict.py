"""``shopauto predict``: forecasts for any shop's transaction file, without a shop behind it. Shows what they are worth first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable

from shopauto_pipelines.cli.options import day_option, small_table
from shopauto_pipelines.platform.errors import ShopAutoError

if TYPE_CHECKING:
    import pyarrow as pa

    from shopauto_pipelines.predictions.plain import Forecast
    from shopauto_pipelines.predictions.transactions.reading import Read

console = Console(highlight=False)

#: What is shown of a back-test: figure → heading and format.
_FIGURES = {
    "churn": {
        "auc": ("AUC", ".3f"),
        "log_loss": ("log loss", ".4f"),
        "calibration_error": ("calibration error", ".3f"),
        "lift_10": ("lift at 10 %", ".2f"),
    },
    "orders": {
        "mae": ("MAE", ".3f"),
        "rmse": ("RMSE", ".3f"),
        "bias": ("bias", "+.1%"),
        "spearman": ("rank corr.", ".3f"),
        "spend_top_10": ("spend in top 10 %", ".1%"),
    },
}
_METHODS = {"bg_nbd": "BG/NBD", "pareto_nbd": "Pareto/NBD"}
_TITLES = {"churn": "Who orders again", "orders": "How many orders"}


class PredictError(ShopAutoError):
    """Nothing can be forecast; the text says why."""


def predict(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CSV or Parquet (also .csv.gz): a file, a folder, or a 'pattern*.csv'."),
    ],
    as_of: Annotated[
        date | None,
        day_option("--as-of", "The day to forecast from; nothing later is used. Default: the last one there."),
    ] = None,
    horizon: Annotated[int, typer.Option(min=1, max=730, help="How many days ahead.")] = 90,
    customer: Annotated[str | None, typer.Option(metavar="COLUMN", help="Who bought.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="When: a time, a date, YYYYMMDD, seconds.")] = None,
    amount: Annotated[str | None, typer.Option(metavar="COLUMN", help="For how much.")] = None,
    quantity: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --price instead of --amount: the one times the other.")
    ] = None,
    price: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of one piece.")] = None,
    time_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="How times are written: '%d/%m/%Y %H:%M'.")
    ] = None,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only these rows: \"status = 'paid'\".")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write the scores, .csv or .parquet. Default: NAME-scores.csv here."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Also write the back-test as a page, .html.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Forecast each customer of a plain transaction file: will they order, how often, when, for how much.

    The file needs a customer, a time and an amount per row; their columns are guessed and named, or given. Several rows of a
    customer on a day are one purchase; returns and cancellations (amounts of zero and below) are none.

    Before anybody is scored, the models are tested on the file's own past, beside the rules people use instead.
    """
    from shopauto_pipelines.cli.progress import step_bar
    from shopauto_pipelines.platform.clock import SystemClock
    from shopauto_pipelines.platform.settings import load_settings
    from shopauto_pipelines.predictions.transactions.columns import Columns
    from shopauto_pipelines.predictions.transactions.reading import read

    today = (SystemClock().now() + timedelta(hours=14)).date()  # where the day begins first
    if as_of and as_of > today:
        raise PredictError(
            f"--as-of {as_of} is in the future: what happens until then is not known. Give a day up to today."
        )
    target = _target(file, out or Path(f"{_stem(file)}-scores.csv"), (".csv", ".parquet"), "--out", force)
    page = _target(file, page, (".html",), "--report", force) if page else None
    settings = load_settings()
    with step_bar(console, f"read {escape(file.name)}"):
        found = read(
            file,
            Columns(customer, time, amount, quantity, price),
            as_of,
            today=today,
            time_format=time_format,
            where=where,
            threads=settings.engine_threads,
            memory=settings.engine_memory,
        )
    _show_read(found)

    from shopauto_pipelines.predictions.dataset import NotEnoughData
    from shopauto_pipelines.predictions.plain import forecast

    try:
        with step_bar(console, "learn, test, score"):
            made = forecast(found.transactions, found.as_of, horizon)
    except NotEnoughData as reason:
        raise PredictError(f"not enough data: {reason}") from None
    _show_backtest(made, horizon)
    scores = _in_major_units(made.scores)
    _write(scores, target)
    _show_scores(scores, found.as_of, horizon)
    console.print(f"Written to [bold]{escape(str(target))}[/bold], one row per customer", soft_wrap=True)
    if page:
        from shopauto_pipelines.predictions.pages import backtest_page

        title = f"{file.name} as of {found.as_of}, {horizon} days ahead"
        page.write_text(backtest_page(title, made.metrics, [*found.notes, *made.notes]), encoding="utf-8")
        console.print(f"The back-test: [bold]{escape(str(page))}[/bold]", soft_wrap=True)


def _stem(file: Path) -> str:
    """The file's name without its endings; a pattern's or folder's own name."""
    name = file.resolve().name.lower().removesuffix(".gz").removesuffix(".zst")
    stem = file.resolve().name[: len(Path(name).stem)]
    return "".join(c for c in stem if c not in '*?[]"<>|:').strip("-_. ") or "transactions"


def _target(source: Path, target: Path, endings: tuple[str, ...], option: str, force: bool) -> Path:
    """Where to write, checked before anything is computed."""
    if target.suffix.lower() not in endings:
        raise typer.BadParameter(f"{target} must end with {' or '.join(endings)}", param_hint=option)
    if not target.parent.is_dir():
        raise PredictError(f"{option}: there is no folder {target.parent}")
    if target.resolve() == source.resolve():
        raise PredictError(f"{option} {target} is the file that is read")
    if target.exists() and not (force and target.is_file()):
        raise PredictError(f"{target} is already there: say --force to overwrite it, or {option} with another name")
    return target


def _show_read(found: Read) -> None:
    guessed = ""
    if found.guessed:
        guessed = f" ([bold]{', '.join(found.guessed)}[/bold] guessed: say {', '.join(f'--{r}' for r in found.guessed)} if wrong)"
    console.print(f"Columns: {escape(str(found.columns))}{guessed}")
    days = (found.last_day - found.first_day).days + 1
    console.print(
        f"{found.rows:,} rows read, {found.kept:,} used: {found.customers:,} customers, "
        f"{found.transactions.num_rows:,} purchases on {days:,} days, {found.first_day} to {found.last_day}"
    )
    for reason, rows in found.set_aside.items():
        example = f", e.g. `{found.examples[reason]}`" if reason in found.examples else ""
        console.print(escape(f"  {rows:,} set aside: {reason}{example}"))
    notes = list(found.notes)
    if (quiet := (found.as_of - found.last_day).days) > 0:
        notes.append(
            f"the file ends {quiet:,} days before --as-of {found.as_of}: nobody is taken to have ordered since"
        )
    _show_notes(notes)


def _show_notes(notes: list[str]) -> None:
    for note in notes:
        console.print(Padding(f"[yellow]•[/yellow] {escape(note)}", (0, 0, 0, 2)))


def _show_backtest(made: Forecast, horizon: int) -> None:
    metrics = made.metrics
    any_of = next(iter(metrics.values()), {})
    days = any_of.get("test_cut_offs") or [any_of.get("test_cut_off", "")]
    ahead = any_of.get("tested_days", horizon)
    console.print(
        f"\n[bold]Back-test[/bold]: asked as of {', '.join(days)} about the {ahead} days after, "
        "knowing only what was known then"
    )
    for target, figures in metrics.items():
        if shown := _backtest(target, figures):
            console.print()
            console.print(shown)
        if verdict := figures.get("verdict"):
            console.print(Padding(f"[bold]Verdict[/bold] {escape(str(verdict))}", (0, 0, 0, 2)))
        _show_interval(figures.get("model") or {})
    told = " ".join(str(figures.get("verdict")) for figures in metrics.values())
    if "kept out" in told:
        text = "In a shop nobody would be scored by a model that is kept out. The scores are written all the same."
        console.print(Padding(text, (0, 0, 0, 2)))
    if notes := [note for note in made.notes if note not in told]:
        console.print()
        _show_notes(notes)


def _show_interval(figures: Mapping[str, Any]) -> None:
    """How the interval of the next order's date held, where enough time had passed to tell."""
    early, late = figures.get("interval_early"), figures.get("interval_late")
    told = [
        f"{share:.0%} {words}"
        for share, words in ((early, "of next orders came before it"), (late, "after it"))
        if share is not None
    ]
    if told:
        text = f"The 80 % interval of the next order's date: {', '.join(told)} (10 % each is right)."
        console.print(Padding(text, (0, 0, 0, 2)))


def _backtest(target: str, metrics: Mapping[str, Any]) -> RichTable | None:
    """The model beside each rule; the best of each column is bold."""
    methods = {"our model": metrics.get("model") or {}} | dict(metrics.get("rules") or {})
    figures = {
        name: form
        for name, form in _FIGURES.get(target, {}).items()
        if any(isinstance(each.get(name), int | float) for each in methods.values())
    }
    if not figures:
        return None
    shown = small_table(("method",), title=_TITLES.get(target, target))
    for heading, _ in figures.values():
        shown.add_column(heading, justify="right")
    best = {name: _best(name, methods) for name in figures}
    for method, values in methods.items():
        cells = []
        for name, (_, form) in figures.items():
            value = values.get(name)
            text = "" if value is None else format(value, form)
            cells.append(f"[bold green]{text}[/bold green]" if value is not None and value == best[name] else text)
        shown.add_row(_METHODS.get(method, method.replace("_", " ")), *cells)
    return shown


def _best(figure: str, methods: Mapping[str, Mapping[str, Any]]) -> float | None:
    values = [each[figure] for each in methods.values() if each.get(figure) is not None]
    if figure == "bias":
        return min(values, key=abs)
    return max(values) if figure in ("auc", "lift_10", "spearman", "spend_top_10") else min(values)


def _in_major_units(scores: pa.Table) -> pa.Table:
    """The forecast's columns as they are written: money in major units, probabilities and counts with six digits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in scores.column_names:
        column = scores[name]
        if "cents" in name:
            name, column = name.replace("_cents", ""), pc.round(pc.divide(column, 100.0), 2)
        elif pa.types.is_floating(column.type):
            column = pc.round(column, 6)
        columns[name] = column
    return pa.table(columns)


def _write(scores: pa.Table, target: Path) -> None:
    """Write the whole file or nothing."""
    from pyarrow import csv, parquet

    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.suffix.lower() == ".parquet":
            parquet.write_table(scores, staged)
        else:
            csv.write_csv(scores, staged, csv.WriteOptions(quoting_style="needed"))
        staged.replace(target)
    except OSError as error:
        raise PredictError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        staged.unlink(missing_ok=True)


def _show_scores(scores: pa.Table, as_of: date, horizon: int) -> None:
    import numpy as np

    value = np.sort(scores["value"].to_numpy())[::-1] if "value" in scores.column_names else np.zeros(0)
    people = scores.num_rows
    shown = small_table(("what", "how much"), title=f"Until {as_of + timedelta(days=horizon)}, of {people:,} customers")
    shown.show_header = False
    shown.columns[1].justify = "right"
    returning = float(scores["probability_of_order"].to_numpy().sum())
    shown.add_row("customers expected to order", f"{returning:,.0f}", f"{returning / max(people, 1):.1%}")
    shown.add_row("expected orders", f"{float(scores['expected_orders'].to_numpy().sum()):,.0f}")
    if len(value):
        shown.add_row("expected revenue", f"{value.sum():,.2f}")
        top = value[: max(1, round(len(value) / 10))].sum() / value.sum() if value.sum() else 0.0
        shown.add_row("of it, from the top 10 %", f"{top:.1%}")
    console.print()
    console.print(shown)
