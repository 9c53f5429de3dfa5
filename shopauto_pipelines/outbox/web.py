"""What our web services share: pages in the reader's language, the headers that keep them safe, bodies of bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse

from shopauto_pipelines.campaigns.content import match_language

#: A request has to be here after so many seconds.
_PATIENCE = 30

_FOLDER = Path(__file__).parent / "pages"

_PAGES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)

#: Our own pages: no script, nothing from elsewhere.
_OWN = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; base-uri 'none'"


class Refused(Exception):
    """A request that is not taken: the status to answer, and a reason that names nobody."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


async def body(request: Request, limit: int, hold: Callable[[int], None] = lambda _: None) -> bytes:
    """The raw body, of at most ``limit`` bytes; ``hold`` is told how many more there are. Raises :class:`Refused`."""
    held = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for chunk in request.stream():
                if len(held) + len(chunk) > limit:
                    raise Refused(413, f"more than {limit} bytes")
                hold(len(chunk))
                held += chunk
    except TimeoutError:
        raise Refused(408, f"not here after {_PATIENCE} seconds") from None
    except ClientDisconnect:
        raise Refused(400, "broke off") from None
    return bytes(held)


def page(name: str, status: int = 200, **values: object) -> HTMLResponse:
    """A page made of the template ``name``."""
    return HTMLResponse(_PAGES.get_template(name).render(values), status, headers=headers(_OWN))


def headers(policy: str) -> dict[str, str]:
    """Headers of every answer, with its content security policy."""
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def words(language: str) -> dict[str, Any]:
    """The words of the pages in the closest language there is, and its tag as ``language``."""
    return _words(match_language(language, _languages()))


@lru_cache
def _languages() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (_FOLDER / "texts").glob("*.yaml")))


@lru_cache
def _words(language: str) -> dict[str, Any]:
    return {"language": language} | yaml.safe_load((_FOLDER / "texts" / f"{language}.yaml").read_text(encoding="utf-8"))
