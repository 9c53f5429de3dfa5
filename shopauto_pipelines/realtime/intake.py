"""What all webhooks have in common: a body of bounded size, an answer only once it is stored, nothing but numbers in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shopauto_pipelines.outbox.web import Refused, body
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings

_log = logging.getLogger(__name__)


async def take(
    provider: str, request: Request, settings: Settings, work: Callable[[Request, bytes], tuple[str, Response]]
) -> Response:
    """Let ``work`` store the raw body, in a thread; it returns what to log and what to answer.

    What is wrong with a request gets the 4xx that ``work`` raises as :class:`~shopauto_pipelines.outbox.web.Refused`; where it
    cannot be stored the answer is 503: the provider sends it again.
    """
    try:
        raw = await body(request, settings.collector_max_kib * 1024)
        done, answer = await run_in_threadpool(work, request, raw)
    except Refused as refused:
        _log.warning("%s: refused, %s", provider, refused.reason)
        return JSONResponse({"refused": refused.reason}, refused.status)
    except (sa.exc.SQLAlchemyError, ShopAutoError) as error:
        # its text may hold what was to be stored
        _log.error("%s: not stored, %s", provider, type(error).__name__)
        return JSONResponse({"refused": "cannot be stored now"}, 503)
    _log.info("%s: %s", provider, done)
    return answer


def numbers(counts: dict[str, int]) -> str:
    """Counts for the log, without those that are zero."""
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n) or "nothing"
