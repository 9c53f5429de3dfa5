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
from shopauto_pipelines.realtime.collector.intake import Work, numbers, require_signed, take
from shopauto_pipelines.realtime.collector.recording import record
from shopauto_pipelines.realtime.collector.sms_replies import stop
from shopauto_pipelines.realtime.collector.twilio_events import SIGNATURE_HEADER, TwilioVerifier, status_event, stopped

_Found = TypeVar("_Found")


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

    def _status(self, request: Request) -> Work:
        message = request.path_params["message"]
        if not re.fullmatch("[1-9][0-9]{0,17}", message):
            raise Refused(404, "not the number of a message")
        verifier = self._required(request)

        def work(raw: bytes) -> tuple[str, Response]:
            now = self._clock.now()
            event = _read(verifier, request, raw, lambda: status_event(int(message), raw, self._settings.hash_key, now))
            if event is None:
                return "a status of no use", _nothing()
            with postgres.engine(self._settings).begin() as connection:
                return numbers(record(connection, [event], at=now)), _nothing()

        return work

    def _reply(self, request: Request) -> Work:
        verifier = self._required(request)

        def work(raw: bytes) -> tuple[str, Response]:
            address_hash = _read(verifier, request, raw, lambda: stopped(raw, self._settings.hash_key))
            if address_hash is None:
                return "an answer that ends nothing", _nothing()
            with postgres.engine(self._settings).begin() as connection:
                stop(connection, address_hash, at=self._clock.now())
            return "an answer that ends the messages", _nothing()

        return work

    def _required(self, request: Request) -> TwilioVerifier:
        return require_signed(request, self._verifier, "SHOPAUTO_TWILIO_AUTH_TOKEN", SIGNATURE_HEADER)


def _read(verifier: TwilioVerifier, request: Request, raw: bytes, read: Callable[[], _Found]) -> _Found:
    """What ``read`` finds in a request that is theirs."""
    try:
        if reason := verifier.refusal(request.url.path, raw, request.headers.get(SIGNATURE_HEADER, "")):
            raise Refused(401, reason)
        return read()
    except ValueError:
        raise Refused(400, "not a form of theirs") from None


def _nothing() -> Response:
    """Nothing is to be answered to the person: an empty document of theirs."""
    return Response("<Response/>", media_type="text/xml")
