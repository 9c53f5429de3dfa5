"""How errors end a step in the UI: those meant for users by their text alone, a lack of memory with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Logger
from typing import TypeVar

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from shopauto_pipelines.platform.engine import MORE_MEMORY, OUT_OF_MEMORY, Engine
from shopauto_pipelines.platform.errors import ShopAutoError

_T = TypeVar("_T")


@contextmanager
def errors_told(what: str = "The query") -> Iterator[None]:
    """Errors meant for users end the step with their text alone; ``what`` is what would not fit into memory.

    Where somebody stops the run in the middle of a query, DuckDB makes an error of it like any other: with that, the run would go
    on with whatever does not rest on the step. So the stop itself is raised.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(
            stopped := error.__cause__ or error.__context__, KeyboardInterrupt | DagsterExecutionInterruptedError
        ):
            raise stopped from None
        raise
    except ShopAutoError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except OUT_OF_MEMORY:
        raise dg.Failure(f"{what} {MORE_MEMORY}", allow_retries=False) from None


def sparing(engine: Engine, what: str, log: Logger, work: Callable[[], _T]) -> _T:
    """What ``work`` gives; where it does not fit into memory, ``log`` says how ``what`` is tried again."""
    return engine.sparing(work, lambda how: log.warning(f"{what} {how}"))
