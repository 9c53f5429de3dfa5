"""For who builds the shop's pages: the snippet, the description of the interface, a page to read it, and a shop to try it in.

Nothing comes from elsewhere: no fonts, no scripts of others. The shop to try things in is there only while live is off.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from shopauto_pipelines.outbox.web import headers
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.openapi import document

_FOLDER = Path(__file__).parent / "snippet"

_PAGES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)

# texts have `names` in them, as in the documentation
_PAGES.filters["marked"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)

#: Of the sample shop: id, name, price in cents.
_PRODUCTS = (
    ("P101", "Cotton pillowcase pair", 1690),
    ("P103", "Anti-allergy pillow", 2490),
    ("P106", "Bed linen set single", 3990),
    ("P107", "Down pillow", 4990),
)


def routes(settings: Settings) -> list[Route]:
    """All of them."""
    pages = _Pages(settings)
    shown = [
        Route("/shopauto.js", pages.snippet),
        Route("/openapi.json", pages.openapi),
        Route("/docs", pages.docs),
        Route("/page.css", pages.file),
    ]
    return shown if settings.live else [*shown, Route("/demo", pages.demo), Route("/demo.js", pages.file)]


class _Pages:
    """The routes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def snippet(self, request: Request) -> Response:
        """The script that shops put into their pages; browsers ask again after an hour."""
        text, tag = _read("shopauto.js")
        kept = {"Cache-Control": "public, max-age=3600", "ETag": tag, "Access-Control-Allow-Origin": "*"}
        if request.headers.get("If-None-Match") == tag:
            return Response(status_code=304, headers=kept)
        return Response(text, media_type="text/javascript", headers=kept | {"X-Content-Type-Options": "nosniff"})

    async def file(self, request: Request) -> Response:
        """Style and script of the pages."""
        name = request.url.path.rsplit("/", 1)[-1]
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        return Response(_read(name)[0], media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    async def openapi(self, request: Request) -> Response:
        """The interface, for programs."""
        return JSONResponse(document())

    async def docs(self, request: Request) -> Response:
        """The interface, for people."""
        operations = list(_operations())
        addresses = {operation["path"]: operation["anchor"] for operation in reversed(operations)}
        shown = {"operations": operations, "addresses": dict(reversed(addresses.items())), "about": document()["info"]}
        return _page("docs.html", shop=self._settings.shop_name, **shown)

    async def demo(self, request: Request) -> Response:
        """A shop of four products."""
        return _page(
            "demo.html",
            shop=self._settings.shop_name,
            products=_PRODUCTS,
            signed=self._settings.identity_secret is not None,
            orders=self._settings.collector_key is None,
            currency=self._settings.currency,
            minutes=self._settings.cart_abandoned_minutes,
        )


def _page(name: str, **values: object) -> Response:
    return HTMLResponse(_PAGES.get_template(name).render(values), headers=headers(_POLICY))


@lru_cache
def _read(name: str) -> tuple[str, str]:
    """A file beside the pages, and a tag that changes with it."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return text, f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'


def _operations() -> Iterator[dict[str, Any]]:
    """What the page shows of each address."""
    schemas = document()["components"]["schemas"]
    for path, methods in document()["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            entry = content.get("schema", {}).get("oneOf", [{}])[0].get("$ref", "").rpartition("/")[2]
            yield {
                "path": path,
                "method": method.upper(),
                "anchor": told["operationId"],
                "summary": told["summary"],
                "description": told.get("description", ""),
                "servers_only": told.get("security") == [{"key": []}],
                "parameters": told.get("parameters", []),
                "fields": _fields(schemas, entry) if entry else [],
                "example": json.dumps(content["example"], indent=2) if "example" in content else "",
                "answers": [(status, answer["description"]) for status, answer in told["responses"].items()],
            }


def _fields(schemas: dict[str, Any], name: str, prefix: str = "") -> list[dict[str, Any]]:
    """The fields of a model, those of lists and objects in it below them."""
    fields = []
    model = schemas[name]
    for field, schema in model["properties"].items():
        told = {**schema, **next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), {})}
        inner = told.get("$ref") or told.get("items", {}).get("$ref")
        description = schema.get("description") or told.get("description") or ""
        words = told.get("enum", [])
        fields.append(
            {
                "name": prefix + field,
                "required": field in model.get("required", []) and not prefix,
                "kind": _kind(told),
                # the descriptions of raw columns name the words: told once
                "description": "" if words and words[0] in description else description,
                "words": words,
            }
        )
        if inner:
            sign = "[]." if told.get("type") == "array" else "."
            fields += _fields(schemas, inner.rpartition("/")[2], f"{prefix}{field}{sign}")
    return fields


def _kind(schema: dict[str, Any]) -> str:
    if schema.get("format") == "date-time":
        return "time"
    if "enum" in schema:
        return "one of"
    if "$ref" in schema:
        return "object"
    return {"array": "list", "string": "text", "integer": "whole number"}.get(schema.get("type", ""), schema["type"])
