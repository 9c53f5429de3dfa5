"""How long work tells that it moves: code reports, whoever is in front (a progress bar, a log) listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: ``listener(what, done, total)``; ``total`` counts the same unit as ``done``.
Listener = Callable[[str, int, int], None]

_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


def report(what: str, done: int, total: int) -> None:
    """Say that ``done`` of ``total`` parts of ``what`` are finished. Costs nothing where nobody listens."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report made inside the block to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
