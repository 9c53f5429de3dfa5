"""Progress bars, and how the rooms' reports reach them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shopauto_pipelines.platform.progress import listening


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """A display of bars; each task has a ``detail`` field. Off a terminal it prints each bar once, when it is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


@contextmanager
def step_bar(console: Console, description: str) -> Iterator[None]:
    """One bar that follows what is reported inside the block; it goes where the block fails."""
    with bars(console) as progress:
        bar = progress.add_task(description, total=None, detail="")

        def on_report(what: str, done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, detail=what)

        try:
            with listening(on_report):
                yield
        except BaseException:
            progress.update(bar, visible=False)
            raise
        progress.update(bar, detail="")
