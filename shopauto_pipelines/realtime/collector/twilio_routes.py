"""The collector's side of Twilio: ``POST /webhooks/twilio/<message>`` for statuses, ``POST /webhooks/twilio`` for answers.

The first address is named in every SMS; the second is to be entered in their console for incoming messages of the sender.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.intake import numbers, take
from shopauto_pipelines.realtime.collector.recording import record
from shopauto_pipelines.realtime.collector.sms_replies import stop
from shopauto_pipelines.realtime.collector.twilio_events import SIGNATURE_HEADER, TwilioVerifier, status_event, stopped

_Read = TypeVar("_Read")


def routes(settings: Settings, clock: Clock) -> list[Route]:
    """Both routes."""
    twilio = _Twilio(settings, clock)
    return [
        Route("/webhooks/twilio", twilio.reply, methods=["POST"]),
        Route("/webhooks/twilio/{message}", twilio.status, methods=["POST"]),
    ]


class _Twilio:
    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        token = settings.twilio_auth_token
        self._verifier = TwilioVerifier(token.get_secret_value(), settings.base_url) if token else None

    async def status(self, request: Request) -> Response:
        """What became of a message."""
        return await take("twilio", request, self._settings, self._status)

    async def reply(self, request: Request) -> Response:
        """What its reader answers."""
        return await take("twilio", request, self._settings, self._reply)

    def _status(self, request: Request, raw: bytes) -> tuple[str, Response]:
        message = request.path_params["message"]
        if not re.fullmatch("[1-9][0-9]{0,17}", message):
            raise Refused(404, "not the number of a message")
        now = self._clock.now()
        event = self._read(request, raw, lambda: status_event(int(message), raw, self._settings.hash_key, now))
        if event is None:
            return "a status of no use", _nothing()
        with postgres.engine(self._settings).begin() as connection:
            return numbers(record(connection, [event], at=now)), _nothing()

    def _reply(self, request: Request, raw: bytes) -> tuple[str, Response]:
        address_hash = self._read(request, raw, lambda: stopped(raw, self._settings.hash_key))
        if address_hash is None:
            return "an answer that ends nothing", _nothing()
        with postgres.engine(self._settings).begin() as connection:
            stop(connection, address_hash, at=self._clock.now())
        return "an answer that ends the messages", _nothing()

    def _read(self, request: Request, raw: bytes, read: Callable[[], _Read]) -> _Read:
        """What ``read`` finds in a request that is theirs."""
        if self._verifier is None:
            raise Refused(503, "SHOPAUTO_TWILIO_AUTH_TOKEN is not set")
        try:
            if reason := self._verifier.refusal(request.url.path, raw, request.headers.get(SIGNATURE_HEADER, "")):
                raise Refused(401, reason)
            return read()
        except ValueError:
            raise Refused(400, "not a form of theirs") from None


def _nothing() -> Response:
    """Nothing is to be answered to the person: an empty document of theirs."""
    return Response("<Response/>", media_type="text/xml")
