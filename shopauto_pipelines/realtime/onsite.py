"""``GET /offer``: what a visitor of the shop's pages is offered, decided in milliseconds from what the refresh published.

Everything about the visitor, the switches and the settings in force is asked at once (``questions``). What is granted is in
the ledger and among the offers before it is answered; asked again, the answer is the same. All other answers are counted in
``decisions``.

A browser may ask for its ``anonymous_id``. It is told something only where a login, which the shop has signed, says whose
browser it is: an e-mail address can be typed by anybody. The shop's servers ask with ``shop_customer_id``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shopauto_pipelines.campaigns import offers
from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.live_settings import overlay
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime import lapsed_visitor
from shopauto_pipelines.realtime.collector.intake import Rates, address, has_key, refusal, require_server
from shopauto_pipelines.realtime.lapsed_visitor import Offer, Visitor, explanation, offer, why
from shopauto_pipelines.realtime.questions import Connections, Questions, visitor_of

_log = logging.getLogger(__name__)

#: Seconds after which counted answers are written.
_COUNTED_EVERY = 5

#: Tries until what another question has granted at the same moment can be read.
_TRIES = 3

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")

#: Both rows or none; none where another question was faster.
_GRANT = """
with granted as (
    insert into offers (
        code, campaign, customer_id, occasion, kind, percent, category, minimum_cents, granted_at, expires_at, why
    ) values (
        %(code)s, %(campaign)s, %(customer_id)s, %(occasion)s, 'percent', %(percent)s, %(category)s, %(minimum_cents)s,
        %(at)s, %(expires_at)s, %(why)s
    )
    on conflict do nothing
    returning campaign, customer_id, occasion
)
insert into messages (
    campaign, step, customer_id, occasion, state, channel, via, as_of, language, template, explanation, planned_at,
    settled_at, changed_at, triggered_at
)
select campaign, 'offer', customer_id, occasion, 'sent', 'onsite', 'onsite', %(as_of)s, %(language)s, 'onsite',
    %(explanation)s, %(at)s, %(at)s, %(at)s, %(at)s
from granted
"""

_COUNT = """
insert into decisions (at, customer_id, offered, reason, count)
select %(at)s, customer_id, offered, reason, count
from json_to_recordset(%(rows)s::json) as told (customer_id text, offered boolean, reason text, count integer)
"""


def routes(settings: Settings, clock: Clock) -> list[Route]:
    """The route of the question."""
    return [Route("/offer", _OnSite(settings, clock).answer, methods=["GET"])]


class _OnSite:
    """Answers questions; all its methods run in the loop of the web service."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._connections = Connections(settings)
        self._questions = Questions(settings, self._connections)
        self._rates = Rates(settings.collector_events_per_second)
        self._counted: Counter[tuple[str | None, str]] = Counter()
        self._writer: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        """What is offered, as JSON; the reason for those who may know it."""
        try:
            by_server, about = self._asked(request)
            made, reason = await self._decide(*about)
        except Refused as refused:
            return refusal(refused, "offer")
        except (psycopg.Error, sa.exc.SQLAlchemyError, ShopAutoError) as error:
            _log.error("offer: not decided, %s", type(error).__name__)
            return JSONResponse({"refused": "cannot be decided now"}, 503)
        told: dict[str, Any] = {"offer": made and _told(made)}
        if by_server or not self._settings.live:
            told["reason"] = reason
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    def _asked(self, request: Request) -> tuple[bool, tuple[str | None, str | None]]:
        """Whether a server asks, and about whom. Raises :class:`~shopauto_pipelines.outbox.web.Refused`."""
        by_server = has_key(request, self._settings)
        if not by_server and (sender := address(request)):
            self._rates.spend(sender, 1)
        anonymous_id = request.query_params.get("anonymous_id")
        shop_customer_id = request.query_params.get("shop_customer_id")
        if (anonymous_id is None) == (shop_customer_id is None):
            raise Refused(422, "give anonymous_id, or shop_customer_id with the server's key")
        if anonymous_id is not None and not _ID.fullmatch(anonymous_id):
            raise Refused(422, "anonymous_id is 1 to 128 letters, digits, dots, hyphens and underscores")
        if shop_customer_id is not None and not (0 < len(shop_customer_id) <= 128 and shop_customer_id.isprintable()):
            raise Refused(422, "shop_customer_id is 1 to 128 printable characters")
        if shop_customer_id is not None:
            require_server(request, self._settings)
        return by_server, (anonymous_id, shop_customer_id)

    async def _decide(self, anonymous_id: str | None, shop_customer_id: str | None) -> tuple[Offer | None, str]:
        """What is offered, and the reason. What is granted is committed."""
        now = self._clock.now()
        for _ in range(_TRIES):
            found = await self._questions.about(anonymous_id, shop_customer_id)
            settings = overlay(self._settings, found["overrides"] or {})
            visitor = visitor_of(found, settings, now)
            reason = "paused" if found["paused"] else lapsed_visitor.refusal(visitor, settings, now=now)
            if reason or visitor is None:
                return self._counted_as(visitor, None, reason or "unknown")
            code = offers.code(settings.hash_key, offers.ONSITE, visitor.customer_id, visitor.occasion)
            made = offer(visitor, settings, code, now=now)
            if visitor.offer:
                return self._counted_as(visitor, made, "repeated")
            if await self._grant(visitor, made, settings, now):
                return made, "granted"
        raise ShopAutoError("an offer is there and cannot be read: its code is another offer's")

    async def _grant(self, visitor: Visitor, made: Offer, settings: Settings, now: datetime) -> bool:
        """Put an offer into the ledger and among the offers; False where there is one by now."""
        written = {
            "campaign": offers.ONSITE,
            "customer_id": visitor.customer_id,
            "occasion": visitor.occasion,
            "code": made.code,
            "percent": made.percent,
            "category": made.category,
            "minimum_cents": made.minimum_cents,
            "expires_at": made.expires_at,
            "why": why(visitor, settings),
            "at": now,
            "as_of": now.astimezone(settings.zone).date() - timedelta(days=1),
            "language": settings.language,
            "explanation": json.dumps(explanation(visitor, made, settings)),
        }
        async with self._connections.one() as connection:
            return (await connection.execute(_GRANT, written)).rowcount == 1

    def _counted_as(self, visitor: Visitor | None, made: Offer | None, reason: str) -> tuple[Offer | None, str]:
        """Count the answer; counts are written together, also where the service is stopped in the meantime."""
        self._counted[visitor.customer_id if visitor else None, reason] += 1
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_counts())
        return made, reason

    async def _write_counts(self) -> None:
        try:
            await asyncio.sleep(_COUNTED_EVERY)
        finally:
            counted, self._counted = self._counted, Counter()
            rows = [
                {"customer_id": customer_id, "offered": reason == "repeated", "reason": reason, "count": count}
                for (customer_id, reason), count in counted.items()
            ]
            try:
                async with self._connections.one() as connection:
                    await connection.execute(_COUNT, {"at": self._clock.now(), "rows": json.dumps(rows)})
            except (psycopg.Error, sa.exc.SQLAlchemyError, ShopAutoError) as error:
                _log.error("offer: %d answers not counted, %s", counted.total(), type(error).__name__)


def _told(made: Offer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "percent": made.percent,
        "category": made.category,
        "code": made.code,
        "expires_at": made.expires_at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    return told if made.minimum_cents is None else told | {"minimum_cents": made.minimum_cents}
