"""The pages behind the links in a message: ``/u/<token>`` unsubscribes, ``/p/<token>`` is the preference page.

Both work without a login and without JavaScript: the token names a message, is signed, and says nothing. GET changes
nothing, because mail scanners follow links; only POST does (RFC 8058). Served by ``shopauto inbox`` and ``shopauto collect``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.outbox import consents, ledger, links, web
from shopauto_pipelines.outbox.schema import ALL_TOPICS, messages, provider_events
from shopauto_pipelines.platform import live_settings, postgres
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings

_log = logging.getLogger(__name__)

_LONGEST_FORM = 16 * 1024


@dataclass(frozen=True)
class ChannelChoice:
    """What holds for a person on a channel. ``blocked``: suppressed for a reason that the person cannot take back."""

    name: str
    address_hash: bytes
    choice: str
    blocked: bool
    refused_topics: frozenset[str]

    @property
    def on(self) -> bool:
        """Whether messages may go there."""
        return not self.blocked and self.choice != "opted_out"


@dataclass(frozen=True)
class Wanted:
    """What a person sent in: the channels and topics that are ticked, whether less often, or that all is to stop."""

    channels: Collection[str]
    topics: Collection[str]
    less_often: bool
    stop: bool = False


def routes(settings: Settings, clock: Clock) -> list[Route]:
    """The two pages."""
    pages = _Pages(settings, clock)
    return [
        Route("/u/{token}", pages.unsubscribe, methods=["GET", "POST"]),
        Route("/p/{token}", pages.show, methods=["GET"]),
        Route("/p/{token}", pages.save, methods=["POST"]),
    ]


@lru_cache
def topics() -> tuple[str, ...]:
    """The topics of the playbook's campaigns."""
    return tuple(sorted({campaign.topic for campaign in load_campaigns().values()}))


def message_of(connection: sa.Connection, hash_key: bytes, token: str) -> ledger.Message | None:
    """The message whose link it is; ``None`` for a token that was not signed here."""
    message_id = links.token_message_id(token)
    message = None if message_id is None else ledger.find(connection, message_id)
    if message is None or message.address_hash is None:
        return None
    return message if links.token_is_genuine(hash_key, token, message.id, message.key) else None


def channels(connection: sa.Connection, message: ledger.Message) -> list[ChannelChoice]:
    """What holds for the reader of ``message``: on its channel, and on the others where the ledger has an address."""
    rows = connection.execute(
        sa.select(messages.c.channel, messages.c.address_hash)
        .where(messages.c.customer_id == message.key.customer_id, messages.c.address_hash.is_not(None))
        .order_by(messages.c.id)
    )
    addresses = {row.channel: bytes(row.address_hash) for row in rows}
    assert message.address_hash is not None
    return [
        _choice(connection, name, address)
        for name, address in sorted((addresses | {message.channel: message.address_hash}).items())
    ]


def unsubscribe(connection: sa.Connection, message: ledger.Message, *, at: datetime) -> None:
    """Stop everything on the message's channel. Doing it again changes nothing."""
    assert message.address_hash is not None
    held = _choice(connection, message.channel, message.address_hash)
    _opt_out(connection, message, held, "unsubscribe", None, at)


def save(
    connection: sa.Connection,
    message: ledger.Message,
    offered: Sequence[str],
    wanted: Wanted,
    text: Mapping[str, Any],
    at: datetime,
) -> None:
    """Write what the reader of ``message`` chose of the topics ``offered``, where it is a change.

    ``text`` are the page's words: those beside what was chosen are kept with the choice.
    """
    for held in channels(connection, message):
        name = channel_label(text, held.name)
        if wanted.stop:
            _opt_out(connection, message, held, "preference_page", text["stop"], at)
        if wanted.stop or held.blocked:
            continue
        told: dict[str, Any] = {"source": "preference_page", "at": at, "message_id": message.id, "now": True}
        for topic in offered:
            if (topic in wanted.topics) == (topic in held.refused_topics):
                choice = "opted_in" if topic in wanted.topics else "opted_out"
                words = f"{name}: {topic_label(text, topic)}"
                consents.choose(connection, held.address_hash, held.name, choice, topic=topic, wording=words, **told)
        if held.name not in wanted.channels:
            _opt_out(connection, message, held, "preference_page", f"{text['where']}: {name}", at)
        elif held.choice != (choice := "less_often" if wanted.less_often else "opted_in"):
            words = f"{name}: {text['less' if wanted.less_often else 'usual']}"
            consents.choose(connection, held.address_hash, held.name, choice, wording=words, **told)


def channel_label(text: Mapping[str, Any], channel: str) -> str:
    """A channel in the page's words."""
    return str(text["channels"].get(channel, channel))


def topic_label(text: Mapping[str, Any], topic: str) -> str:
    """A topic in the page's words, or its name where there are none."""
    return str(text["topics"].get(topic, topic.replace("_", " ").capitalize()))


def _choice(connection: sa.Connection, channel: str, address_hash: bytes) -> ChannelChoice:
    made = consents.choices(connection, address_hash, channel)
    reason = consents.suppression(connection, address_hash, channel)
    return ChannelChoice(
        channel,
        address_hash,
        "opted_out" if reason == "unsubscribe" else made.get(ALL_TOPICS, "opted_in"),
        reason not in (None, "unsubscribe"),
        frozenset(topic for topic, choice in made.items() if choice == "opted_out"),
    )


def _opt_out(
    connection: sa.Connection,
    message: ledger.Message,
    held: ChannelChoice,
    source: str,
    wording: str | None,
    at: datetime,
) -> None:
    """Nothing more on a channel, also where nothing could go there now: a bounce may be mended one day."""
    if held.choice == "opted_out":
        return
    consents.withdraw(
        connection,
        held.address_hash,
        held.name,
        source=source,
        at=at,
        customer_id=message.key.customer_id,
        message_id=message.id,
        wording=wording,
        now=True,
    )
    if held.name == message.channel:
        connection.execute(
            sa.insert(provider_events).values(
                event_id=f"page:{message.id}:{at:%Y%m%dT%H%M%S.%f}",
                message_id=message.id,
                type="unsubscribe",
                at=at,
                received_at=at,
                is_machine=False,
            )
        )


class _Pages:
    """The routes."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock

    async def unsubscribe(self, request: Request) -> Response:
        """GET asks, POST does. The body is not looked at: the mail program's button and ours mean the same."""
        return await self._answered(self._unsubscribe, request.path_params["token"], request.method == "POST")

    async def show(self, request: Request) -> Response:
        """What holds now."""
        return await self._answered(self._show, request.path_params["token"], "saved" in request.query_params)

    async def _answered(self, work: Callable[..., Response], *given: object) -> Response:
        try:
            return await run_in_threadpool(work, *given)
        except (sa.exc.SQLAlchemyError, ShopAutoError) as error:
            # its text may hold what was to be stored
            _log.error("a page of preferences could not be answered: %s", type(error).__name__)
            return self._answer("unsubscribe.html", self._settings.language, 503, state="later", token="")

    def _show(self, token: str, saved: bool) -> Response:
        with postgres.engine(self._settings).connect() as connection:
            message = message_of(connection, self._settings.hash_key, token)
            if message is None:
                return self._wrong()
            held, days = channels(connection, message), self._days(connection)
        refused = frozenset[str]().union(*(one.refused_topics for one in held if not one.blocked))
        return self._answer(
            "preferences.html",
            message.language,
            days=days,
            held=held,
            less_often=any(one.choice == "less_often" for one in held),
            # refused on one channel, as before the shop knew another: who saves what is shown must not take that back
            offered={topic: topic not in refused for topic in topics()},
            channel_label=channel_label,
            topic_label=topic_label,
            saved=saved,
        )

    async def save(self, request: Request) -> Response:
        """Save, then show."""
        try:
            sent = parse_qs((await web.body(request, _LONGEST_FORM)).decode(), max_num_fields=100)
            often = sent["often"] == ["less"]
            wanted = Wanted(sent.get("channel", []), sent.get("topic", []), often, "stop" in sent)
        except (web.Refused, ValueError, KeyError):  # an empty body is no form with nothing ticked
            return Response("This is not the form of the preference page.", 400, media_type="text/plain")
        return await self._answered(self._save, request.path_params["token"], wanted)

    def _unsubscribe(self, token: str, confirmed: bool) -> Response:
        with postgres.engine(self._settings).begin() as connection:
            message = message_of(connection, self._settings.hash_key, token)
            if message is None:
                return self._wrong()
            if confirmed:
                unsubscribe(connection, message, at=self._clock.now())
        return self._answer("unsubscribe.html", message.language, state="done" if confirmed else "ask", token=token)

    def _save(self, token: str, wanted: Wanted) -> Response:
        with postgres.engine(self._settings).begin() as connection:
            message = message_of(connection, self._settings.hash_key, token)
            if message is None:
                return self._wrong()
            words = self._words(message.language, self._days(connection))
            save(connection, message, topics(), wanted, words, self._clock.now())
        return RedirectResponse("?saved", 303, headers={"Cache-Control": "no-store"})

    def _days(self, connection: sa.Connection) -> int:
        """What "less often" means now."""
        try:
            return live_settings.current(connection, self._settings).less_often_days
        except ShopAutoError:  # nobody's choice has to wait until an operator's mistake is mended
            return self._settings.less_often_days

    def _words(self, language: str, days: int) -> dict[str, Any]:
        filled = {"shop": self._settings.shop_name, "days": days}
        return {k: v.format(**filled) if isinstance(v, str) else v for k, v in web.words(language).items()}

    def _answer(
        self, name: str, language: str, status: int = 200, days: int | None = None, **values: object
    ) -> Response:
        words = self._words(language, days or self._settings.less_often_days)
        return web.page(name, status, shop=self._settings.shop_name, text=words, language=words["language"], **values)

    def _wrong(self) -> Response:
        return self._answer("unsubscribe.html", self._settings.language, 404, state="wrong", token="")
