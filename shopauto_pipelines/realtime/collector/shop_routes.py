"""The collector's side of the shop: ``/events``, ``/orders``, ``/tickets``, ``/forms`` and the shops' own webhooks.

An entry that is not taken spoils no other; the answer says which and why. All that a request brought is committed before it
is answered with success.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.batch import Batch
from shopauto_pipelines.realtime.collector import shopify, woocommerce
from shopauto_pipelines.realtime.collector.intake import (
    Rates,
    address,
    has_key,
    held_body,
    not_stored,
    numbers,
    refusal,
    require_server,
    require_signed,
)
from shopauto_pipelines.realtime.collector.reading import Key, Reader, Unreadable
from shopauto_pipelines.realtime.collector.writer import Writer

_log = logging.getLogger(__name__)

#: Entries of a request.
MOST_ENTRIES = 1000

#: A larger body is read in a thread, so that others are answered meanwhile.
_LARGE = 32 * 1024

#: What WooCommerce sends, unsigned, when a webhook is switched on, and the length it may have.
_PING, _PING_LENGTH = re.compile(rb"webhook_id=[0-9]{1,18}"), re.compile("[0-9]{1,2}")

#: Adds what an entry says to a batch; raises :class:`~shopauto_pipelines.realtime.collector.reading.Unreadable`.
_Read = Callable[[Batch, Any], Key]

#: What a shop's delivery says, and why it is of no use.
_Told = tuple[Batch, str | None]


def routes(settings: Settings, clock: Clock, writer: Writer) -> list[Route]:
    """All of them."""
    shop = _Shop(settings, clock, writer)
    return [
        Route("/events", shop.events, methods=["POST"]),
        Route("/orders", shop.orders, methods=["POST"]),
        Route("/tickets", shop.tickets, methods=["POST"]),
        Route("/forms", shop.forms, methods=["POST"]),
        Route("/webhooks/shopify", shop.shopify, methods=["POST"]),
        Route("/webhooks/woocommerce", shop.woocommerce, methods=["POST"]),
    ]


class _Shop:
    """The routes."""

    def __init__(self, settings: Settings, clock: Clock, writer: Writer) -> None:
        self._settings, self._clock, self._writer = settings, clock, writer
        self._reader = Reader(settings)
        self._rates = Rates(settings.collector_events_per_second)

    async def events(self, request: Request) -> Response:
        """What visitors do: an event or a list of them."""
        return await self._entries("events", request, self._event)

    async def orders(self, request: Request) -> Response:
        """Paid orders with their lines."""
        return await self._entries("orders", request, self._order, servers_only=True)

    async def tickets(self, request: Request) -> Response:
        """Tickets of the shop's help desk."""
        return await self._entries("tickets", request, self._ticket, servers_only=True)

    async def forms(self, request: Request) -> Response:
        """Forms filled in."""
        return await self._entries("forms", request, self._form)

    def _event(self, request: Request) -> _Read:
        now, trusted = self._clock.now(), self._trusts(request)
        return lambda batch, given: self._reader.event(batch, given, now, trusted=trusted)

    def _order(self, request: Request) -> _Read:
        now = self._clock.now()
        return lambda batch, given: self._reader.order(batch, given, now)

    def _ticket(self, request: Request) -> _Read:
        now = self._clock.now()
        return lambda batch, given: self._reader.ticket(batch, given, now)

    def _form(self, request: Request) -> _Read:
        now, trusted = self._clock.now(), self._trusts(request)
        return lambda batch, given: self._reader.form(batch, given, now, trusted=trusted)

    def _trusts(self, request: Request) -> bool:
        """Whether what is said of customers needs no proof: said by a server, or nothing has been set up yet."""
        settings = self._settings
        nothing_set_up = not (settings.live or settings.collector_key or settings.identity_secret)
        return nothing_set_up or has_key(request, settings)

    async def _entries(
        self, subject: str, request: Request, reading: Callable[[Request], _Read], *, servers_only: bool = False
    ) -> Response:
        """Store what can be read of a request, and say what became of it."""
        try:
            if servers_only:
                require_server(request, self._settings)
            sender = "" if has_key(request, self._settings) else address(request)
            if sender:
                self._rates.spend(sender, 1)
            read = reading(request)
            async with held_body(request, self._settings, sender) as raw:
                batch, entries, refused = (
                    await run_in_threadpool(_read, raw, read) if len(raw) > _LARGE else _read(raw, read)
                )
                if sender:
                    self._rates.spend(sender, len(entries) + len(refused) - 1)
                new = await asyncio.wrap_future(self._writer.put(batch)) if entries else frozenset()
        except Refused as wrong:
            return refusal(wrong, subject)
        except (sa.exc.SQLAlchemyError, ShopAutoError) as error:
            return not_stored(subject, error)
        stored = len(new.intersection(entries))
        counts = {"stored": stored, "repeated": len(entries) - stored}
        if refused:
            _log.info("%s: %s", subject, numbers(counts | {"refused": len(refused)}))
        return JSONResponse(counts | {"refused": refused}, 422 if refused and not entries else 200)

    async def shopify(self, request: Request) -> Response:
        """Shopify's webhooks."""
        return await self._webhook("shopify", request, self._shopify)

    async def woocommerce(self, request: Request) -> Response:
        """WooCommerce's webhooks."""
        return await self._webhook("woocommerce", request, self._woocommerce)

    def _shopify(self, request: Request) -> Callable[[bytes], _Told]:
        topic, secret = request.headers.get(shopify.TOPIC_HEADER, ""), self._settings.shopify_webhook_secret
        secret = require_signed(request, secret, "SHOPAUTO_SHOPIFY_WEBHOOK_SECRET", shopify.SIGNATURE_HEADER)

        def read(raw: bytes) -> _Told:
            if reason := shopify.refusal(raw, request.headers.get(shopify.SIGNATURE_HEADER, ""), secret):
                raise Refused(401, reason)
            return self._told(
                raw, lambda batch, told: shopify.read(batch, topic, told, self._reader, self._clock.now())
            )

        return read

    def _woocommerce(self, request: Request) -> Callable[[bytes], _Told]:
        topic, secret = request.headers.get(woocommerce.TOPIC_HEADER, ""), self._settings.woocommerce_webhook_secret
        signature = request.headers.get(woocommerce.SIGNATURE_HEADER, "")
        if not signature and _PING_LENGTH.fullmatch(request.headers.get("Content-Length", "")):
            return _switched_on
        secret = require_signed(request, secret, "SHOPAUTO_WOOCOMMERCE_WEBHOOK_SECRET", woocommerce.SIGNATURE_HEADER)

        def read(raw: bytes) -> _Told:
            if reason := woocommerce.refusal(raw, signature, secret):
                raise Refused(401, reason)
            return self._told(
                raw, lambda batch, told: woocommerce.read(batch, topic, told, self._reader, self._clock.now())
            )

        return read

    def _told(self, raw: bytes, read: Callable[[Batch, dict[str, Any]], str | None]) -> _Told:
        """What a genuine delivery says, and why it is of no use; shops give a webhook up that is refused several times."""
        try:
            told = from_json(raw, allow_inf_nan=False)
        except ValueError:
            raise Refused(400, "not JSON") from None
        batch = Batch()
        try:
            if not isinstance(told, dict):
                raise Unreadable("not an object")
            return batch, read(batch, told)
        except Unreadable as unreadable:
            return Batch(), f"unreadable, {unreadable}"

    async def _webhook(
        self, subject: str, request: Request, reading: Callable[[Request], Callable[[bytes], _Told]]
    ) -> Response:
        """Store what a shop tells."""
        try:
            read = reading(request)
            async with held_body(request, self._settings, address(request)) as raw:
                batch, why_not = await run_in_threadpool(read, raw)
                some = batch.rows or batch.snapshots or batch.logins
                new = await asyncio.wrap_future(self._writer.put(batch)) if some else frozenset()
        except Refused as wrong:
            return refusal(wrong, subject)
        except (sa.exc.SQLAlchemyError, ShopAutoError) as error:
            return not_stored(subject, error)
        counts = {"new": len(new), "repeated": len(batch.rows) - len(new), "carts": len(batch.snapshots)}
        _log.info("%s: %s", subject, why_not or numbers(counts))
        return JSONResponse(counts | ({"ignored": why_not} if why_not else {}))


def _switched_on(raw: bytes) -> _Told:
    """All that may be said without a signature. Raises ``Refused``."""
    if not _PING.fullmatch(raw):
        raise Refused(401, "not signed")
    return Batch(), "a webhook was switched on"


def _read(raw: bytes, read: _Read) -> tuple[Batch, list[Key], list[dict[str, Any]]]:
    """What can be read of a body, the row that each entry became, and what was refused. Raises ``Refused``."""
    try:
        given = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise Refused(400, "not JSON") from None
    listed = given if isinstance(given, list) else [given]
    if len(listed) > MOST_ENTRIES:
        raise Refused(413, f"more than {MOST_ENTRIES} entries")
    batch = Batch()
    entries: list[Key] = []
    refused: list[dict[str, Any]] = []
    for index, entry in enumerate(listed):
        try:
            entries.append(read(batch, entry))
        except Unreadable as reason:
            refused.append({"index": index, "reason": str(reason)})
    return batch, entries, refused
