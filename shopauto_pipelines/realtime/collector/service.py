"""The collector: the small web service that the outside world talks to. Started by ``shopauto collect``.

- ``POST /events``, ``/orders``, ``/tickets``, ``/forms``  what happens in the shop (``shop_routes``)
- ``POST /webhooks/shopify``, ``/webhooks/woocommerce``  the shops' own deliveries, signed
- ``POST /webhooks/sendgrid``  the provider's signed events; 2xx only once they are on disk, so it sends the rest again
- ``POST /webhooks/twilio…``  what became of an SMS, and answers that end them (``twilio_routes``)
- ``GET /offer``  what a visitor of the shop's pages is offered (``onsite``)
- ``/u/<token>``, ``/p/<token>``  unsubscribe links and preferences (``outbox.preference_page``)
- ``/pages/<name>``  landing pages of the playbook (``landing``)
- ``GET /shopauto.js``, ``/docs``, ``/openapi.json``, ``/demo``  for who builds the shop's pages (``pages``)
- ``GET /health``  200 while the database answers

Nothing that names a person is logged or answered: only numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopauto_pipelines.outbox import preference_page
from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import Clock, SystemClock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime import onsite
from shopauto_pipelines.realtime.batch import Batch
from shopauto_pipelines.realtime.collected import Stored, store
from shopauto_pipelines.realtime.collector import landing, pages, shop_routes, twilio_routes
from shopauto_pipelines.realtime.collector.intake import Room, Work, numbers, require_signed, take
from shopauto_pipelines.realtime.collector.recording import record
from shopauto_pipelines.realtime.collector.sendgrid_events import SIGNATURE_HEADER, TIMESTAMP_HEADER, Verifier, parse
from shopauto_pipelines.realtime.collector.writer import Writer

#: What pages of other origins may use: the shop's.
_OPEN = ("/events", "/forms", "/offer")


def app(settings: Settings, clock: Clock | None = None) -> Starlette:
    """The web application. Raises :class:`~shopauto_pipelines.realtime.collector.sendgrid_events.WebhookKeyError`."""
    clock = clock or SystemClock()
    collector = _Collector(settings, clock)
    writer = Writer(collector.store)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(writer.close)

    made = Starlette(
        routes=[
            Route("/health", collector.health),
            *shop_routes.routes(settings, clock, writer),
            Route("/webhooks/sendgrid", collector.sendgrid, methods=["POST"]),
            *twilio_routes.routes(settings, clock),
            *onsite.routes(settings, clock),
            *preference_page.routes(settings, clock),
            *landing.routes(settings, clock, writer),
            *pages.routes(settings),
        ],
        middleware=[Middleware(_OpenToPages)],
        lifespan=lifespan,
    )
    made.state.room = Room(settings.collector_queue_mib)
    return made


class _Collector:
    """The routes."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        key, hours = settings.sendgrid_webhook_key, settings.collector_replay_hours
        self._verifier = Verifier(key, timedelta(hours=hours)) if key else None
        self._soonest = timedelta(minutes=settings.cart_abandoned_minutes)

    def store(self, batch: Batch) -> Stored:
        """Commit a batch."""
        with postgres.engine(self._settings).begin() as connection:
            return store(connection, batch, at=self._clock.now(), soonest=self._soonest)

    def health(self, request: Request) -> Response:
        """Whether events would be stored now."""
        try:
            with postgres.engine(self._settings).connect() as connection:
                connection.execute(sa.select(1))
        except (sa.exc.SQLAlchemyError, ShopAutoError):
            return JSONResponse({"database": "does not answer"}, 503)
        return JSONResponse({"database": "answers"})

    async def sendgrid(self, request: Request) -> Response:
        """Events of SendGrid."""
        return await take("sendgrid", request, self._settings, self._sendgrid)

    def _sendgrid(self, request: Request) -> Work:
        verifier = require_signed(
            request, self._verifier, "SHOPAUTO_SENDGRID_WEBHOOK_KEY", SIGNATURE_HEADER, TIMESTAMP_HEADER
        )

        def work(raw: bytes) -> tuple[str, Response]:
            now = self._clock.now()
            if reason := verifier.refusal(raw, request.headers, now):
                raise Refused(401, reason)
            try:
                parsed = parse(raw, self._settings.hash_key)
            except ValueError:
                raise Refused(400, "not a JSON list of events") from None
            with postgres.engine(self._settings).begin() as connection:
                counts = record(connection, parsed.events, at=now)
            counts |= {name: counts.get(name, 0) + n for name, n in parsed.left_out.items()}
            return numbers(counts), JSONResponse(counts)

        return work


class _OpenToPages:
    """Lets pages of other origins use what is for them. No cookie is ever read, so nothing is gained by another page."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the browser's question beforehand, and say in every answer that it may be read."""
        if scope["type"] != "http" or scope["path"] not in _OPEN:
            await self._inner(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            allowed = {
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": "Content-Type",
                "Access-Control-Max-Age": "86400",
            }
            await Response(status_code=204, headers=allowed)(scope, receive, send)
            return

        async def with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = (b"access-control-expose-headers", b"Retry-After, Date")
                message["headers"] = [*message["headers"], (b"access-control-allow-origin", b"*"), exposed]
            await send(message)

        await self._inner(scope, receive, with_header)
