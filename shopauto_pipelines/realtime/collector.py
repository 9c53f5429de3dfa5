"""The collector: the small web service that the outside world talks to. Started by ``shopauto collect``.

- ``POST /webhooks/sendgrid``  the provider's signed events; 2xx only once they are on disk, so it sends the rest again
- ``POST /webhooks/twilio…``  what became of an SMS, and answers that end them (``twilio_routes``)
- ``/u/<token>``, ``/p/<token>``  unsubscribe links and preferences (``outbox.preference_page``)
- ``GET /health``  200 while the database answers

Nothing that names a person is logged or answered: only numbers.
"""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shopauto_pipelines.outbox import preference_page
from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import Clock, SystemClock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime import twilio_routes
from shopauto_pipelines.realtime.intake import numbers, take
from shopauto_pipelines.realtime.recording import record
from shopauto_pipelines.realtime.sendgrid_events import Verifier, parse


def app(settings: Settings, clock: Clock | None = None) -> Starlette:
    """The web application. Raises :class:`~shopauto_pipelines.realtime.sendgrid_events.WebhookKeyError`."""
    clock = clock or SystemClock()
    collector = _Collector(settings, clock)
    return Starlette(
        routes=[
            Route("/health", collector.health),
            Route("/webhooks/sendgrid", collector.sendgrid, methods=["POST"]),
            *twilio_routes.routes(settings, clock),
            *preference_page.routes(settings, clock),
        ],
    )


class _Collector:
    """The routes."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        key, hours = settings.sendgrid_webhook_key, settings.collector_replay_hours
        self._verifier = Verifier(key, timedelta(hours=hours)) if key else None

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

    def _sendgrid(self, request: Request, raw: bytes) -> tuple[str, Response]:
        now = self._clock.now()
        if self._verifier is None:
            raise Refused(503, "SHOPAUTO_SENDGRID_WEBHOOK_KEY is not set")
        if reason := self._verifier.refusal(raw, request.headers, now):
            raise Refused(401, reason)
        try:
            parsed = parse(raw, self._settings.hash_key)
        except ValueError:
            raise Refused(400, "not a JSON list of events") from None
        with postgres.engine(self._settings).begin() as connection:
            counts = record(connection, parsed.events, at=now)
        counts |= {name: counts.get(name, 0) + n for name, n in parsed.left_out.items()}
        return numbers(counts), JSONResponse(counts)
