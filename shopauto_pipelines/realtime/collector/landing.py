"""The collector's landing pages, ``/pages/<name>``: shown in the reader's language, sent in without JavaScript.

What the address said of where the reader comes from (``utm_source``, ``utm_medium``, ``utm_campaign``) goes with the form.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any
from urllib.parse import parse_qs

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from shopauto_pipelines.campaigns.content import match_language
from shopauto_pipelines.outbox import web
from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.cleaning import clean_email
from shopauto_pipelines.realtime.batch import Batch
from shopauto_pipelines.realtime.collector.intake import Rates, address, held_body, not_stored, refusal
from shopauto_pipelines.realtime.collector.reading import Reader, Unreadable
from shopauto_pipelines.realtime.collector.writer import Writer
from shopauto_pipelines.realtime.landing_pages import LandingPage, load_landing_pages

#: What an address may say of where its reader comes from, and how much of it is kept.
UTM, _LONGEST = ("utm_source", "utm_medium", "utm_campaign"), 200

#: A field that people do not see: programs fill it in.
_TRAP = "website"


def routes(settings: Settings, clock: Clock, writer: Writer) -> list[Route]:
    """A page shown, and its form sent in."""
    pages = _Pages(settings, clock, writer)
    return [
        Route("/pages/{name}", pages.show, methods=["GET"]),
        Route("/pages/{name}", pages.send, methods=["POST"]),
    ]


class _Pages:
    """Answers for the declared pages."""

    def __init__(self, settings: Settings, clock: Clock, writer: Writer) -> None:
        self._settings, self._clock, self._writer = settings, clock, writer
        self._reader, self._rates = Reader(settings), Rates(settings.collector_events_per_second)

    async def show(self, request: Request) -> Response:
        """The form, or the thanks."""
        page = load_landing_pages().get(request.path_params["name"])
        if page is None:
            return PlainTextResponse("There is no such page.", 404)
        return self._answer(request, page, state="sent" if "sent" in request.query_params else "ask")

    async def send(self, request: Request) -> Response:
        """Store the form, then say thanks; what is wrong with it is said beside it, and nothing typed is lost."""
        page = load_landing_pages().get(request.path_params["name"])
        if page is None:
            return PlainTextResponse("There is no such page.", 404)
        try:
            sender = address(request)
            self._rates.spend(sender, 1)
            async with held_body(request, self._settings, sender) as raw:
                sent = _fields(raw)
            if sent is None:
                return PlainTextResponse("This is not the page's form.", 400)
            language = self._language(request, page, sent.get("language"))
            if not sent.get(_TRAP):
                if not clean_email(sent.get("email", "")):
                    return self._answer(request, page, 422, state="wrong", sent=sent)
                batch = Batch()
                self._reader.form(batch, _form(page, language, sent), self._clock.now(), trusted=False)
                await asyncio.wrap_future(self._writer.put(batch))
        except Unreadable:
            return self._answer(request, page, 422, state="wrong", sent=sent)
        except Refused as wrong:
            return refusal(wrong, "pages")
        except (sa.exc.SQLAlchemyError, ShopAutoError) as error:
            return not_stored("pages", error)
        return RedirectResponse(f"?sent&language={language}", 303, headers={"Cache-Control": "no-store"})

    def _answer(
        self, request: Request, page: LandingPage, status: int = 200, *, state: str, sent: dict[str, str] | None = None
    ) -> Response:
        sent = sent or {}
        language = self._language(request, page, sent.get("language"))
        hidden = {name: (sent.get(name) or request.query_params.get(name) or "")[:_LONGEST] for name in UTM}
        hidden |= {"language": language, "submission_id": sent.get("submission_id") or uuid.uuid4().hex}
        return web.page(
            "landing.html",
            status,
            shop=self._settings.shop_name,
            text=page.languages[language],
            language=language,
            state=state,
            hidden=hidden,
            sent=sent,
            trap=_TRAP,
        )

    def _language(self, request: Request, page: LandingPage, chosen: str | None) -> str:
        """As chosen, else the first that the browser names, else the page's first."""
        available = [*page.languages]
        wanted = [chosen or request.query_params.get("language")]
        wanted += [part.partition(";")[0].strip() for part in request.headers.get("Accept-Language", "").split(",")]
        bases = {language.split("-")[0].lower() for language in available}
        found = next((tag for tag in wanted if tag and tag.split("-")[0].lower() in bases), available[0])
        return match_language(found, available)


def _fields(raw: bytes) -> dict[str, str] | None:
    """What was typed, by field; ``None`` where it is no form."""
    try:
        return {name: values[0] for name, values in parse_qs(raw.decode(), max_num_fields=50).items()}
    except ValueError:
        return None


def _form(page: LandingPage, language: str, sent: dict[str, str]) -> dict[str, Any]:
    """What was sent, as an entry of ``/forms``."""
    fields = {"language": language} | {name: sent[name] for name in ("first_name",) if sent.get(name)}
    form = {"form": page.name, "email": sent.get("email", ""), "fields": fields}
    form |= {name: sent[name][:_LONGEST] for name in (*UTM, "submission_id") if sent.get(name)}
    if "consent" in sent:
        form["consent"] = {"channel": "email", "wording": page.languages[language].consent}
    return form
