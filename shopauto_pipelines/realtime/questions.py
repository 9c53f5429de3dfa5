"""What the database says of visitors, in one statement for all who ask at the same moment.

While a statement is under way the questions that come are kept, and the next one asks them all: under load, or after a stall,
a question costs a fraction of what it costs alone, and no queue builds up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from shopauto_pipelines.campaigns.offers import ONSITE, Line
from shopauto_pipelines.outbox.schema import EVERYTHING
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.lapsed_visitor import Offer, Visitor

#: Connections to the database, whatever the number of questions.
_CONNECTIONS = 4

#: One plan for any number of questions, of look-ups only: to plan anew takes five times as long as to ask, and a plan for
#: many questions would read whole tables for one.
_PLANNED_ONCE = " ".join(
    ("-cplan_cache_mode=force_generic_plan", *(f"-cenable_{way}=off" for way in ("hashjoin", "mergejoin", "seqscan")))
)

#: Questions of a statement.
_MOST = 200

#: Rows in the order of the questions. Who bought, or was offered something, under any id that is theirs now has bought, or has
#: the offer: merges may be younger.
_ASK = """
with told as (
    select told.number, coalesce(told.shop_customer_id, visitors.shop_customer_id) as id
    from unnest(%(anonymous_ids)s::text[], %(shop_customer_ids)s::text[])
        with ordinality as told (anonymous_id, shop_customer_id, number)
    left join visitors on visitors.anonymous_id = told.anonymous_id
)
select
    (select json_object_agg(name, value order by name) from live_settings) as overrides,
    (select min(scope) from controls where scope in (%(everything)s, %(campaign)s) and paused) as paused,
    people.customer_id, people.as_of, people.lapsed, people.held_out, people.discount_seeker, people.last_order_on,
    people.churn_factor, people.favourite_category, people.favourite_category_order_cents,
    people.category_average_order_cents,
    exists (
        select from exits
        where exits.customer_id = any (theirs.ids)
        and exits.event = 'ordered'
        and exits.at >= (people.last_order_on + 1)::timestamp at time zone %(zone)s
    ) as ordered,
    array(
        select granted_at from offers
        where offers.customer_id = any (theirs.ids)
        and not (offers.campaign = %(campaign)s and offers.occasion = people.last_order_on::text)
        order by granted_at
    ) as others,
    own.code, own.percent, own.category, own.expires_at, own.minimum_cents,
    categories.priced_cents, categories.cost_cents, categories.unknown_cents
from told
left join people_ids on people_ids.shop_customer_id = told.id
left join people on people.customer_id = coalesce(people_ids.customer_id, told.id)
left join categories on categories.category = people.favourite_category
left join lateral (
    select array(select shop_customer_id from people_ids where people_ids.customer_id = people.customer_id)
        || people.customer_id as ids
) as theirs on true
left join lateral (
    select * from offers
    where offers.campaign = %(campaign)s and offers.customer_id = any (theirs.ids)
    and offers.occasion = people.last_order_on::text
    order by granted_at limit 1
) as own on true
order by told.number
"""


class _Question(NamedTuple):
    anonymous_id: str | None
    shop_customer_id: str | None
    answer: asyncio.Future[Mapping[str, Any]]


class Connections:
    """A few connections of one event loop, opened when they are needed; a broken one is replaced."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[psycopg.AsyncConnection[dict[str, Any]]] = []
        self._free = asyncio.Semaphore(_CONNECTIONS)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[psycopg.AsyncConnection[dict[str, Any]]]:
        """A connection that commits every statement."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            for left_over in self._idle:
                left_over.pgconn.finish()  # of a loop that has ended: no coroutine can close it
            self._loop, self._idle, self._free = loop, [], asyncio.Semaphore(_CONNECTIONS)
        async with self._free:
            connection = self._idle.pop() if self._idle else await self._open()
            try:
                yield connection
            except BaseException:
                # what was under way may have broken it
                with suppress(psycopg.Error):
                    await connection.close()
                raise
            self._idle.append(connection)

    async def _open(self) -> psycopg.AsyncConnection[dict[str, Any]]:
        url = await asyncio.to_thread(_reachable, self._settings)
        return await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            prepare_threshold=1,
            row_factory=dict_row,
            options=f"-csearch_path={postgres.SCHEMA} -ctimezone=UTC {_PLANNED_ONCE}",
        )


class Questions:
    """Asks about visitors; in one event loop at a time."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._connections = connections
        self._always = {"campaign": ONSITE, "everything": EVERYTHING, "zone": settings.timezone}
        self._waiting: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None

    async def about(self, anonymous_id: str | None, shop_customer_id: str | None) -> Mapping[str, Any]:
        """Everything about a visitor, by column. Raises :class:`psycopg.Error` and what a connection cannot be made for."""
        question = _Question(anonymous_id, shop_customer_id, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
        return await question.answer

    async def _ask_all(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            try:
                rows = await self._ask(asked)
            except BaseException as error:
                for question in asked:
                    if not question.answer.done():
                        question.answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for question, row in zip(asked, rows, strict=True):
                    if not question.answer.done():
                        question.answer.set_result(row)

    async def _ask(self, asked: list[_Question]) -> list[dict[str, Any]]:
        """The rows of these questions. Asked once more where the connection turns out to be broken: nothing was changed."""
        about = self._always | {
            "anonymous_ids": [question.anonymous_id for question in asked],
            "shop_customer_ids": [question.shop_customer_id for question in asked],
        }
        for again in (True, False):
            try:
                async with self._connections.one() as connection:
                    return await (await connection.execute(_ASK, about)).fetchall()
            except psycopg.OperationalError:
                if not again:
                    raise
        raise AssertionError


def visitor_of(row: Mapping[str, Any], settings: Settings, now: datetime) -> Visitor | None:
    """The visitor out of a row of :meth:`Questions.about`; ``None`` where it is nobody we know."""
    if row["customer_id"] is None:
        return None
    since = now - timedelta(days=settings.offer_cap_days)
    return Visitor(
        **{name: row[name] for name in _OF_PEOPLE},
        other_offers=sum(at > since for at in row["others"]),
        offer=Offer(**{name: row[name] for name in _OF_OFFER}) if row["code"] else None,
        goods=_goods(row["priced_cents"], row["cost_cents"], row["unknown_cents"]),
    )


_OF_PEOPLE = tuple(name for name in Visitor.__dataclass_fields__ if name not in ("other_offers", "offer", "goods"))
_OF_OFFER = tuple(Offer.__dataclass_fields__)


def _goods(priced: int | None, cost: int | None, unknown: int | None) -> tuple[Line, ...]:
    """A basket of the category: what it is worth and costs, and apart what is worth something and of unknown cost."""
    return tuple(line for line in (Line(1, priced, cost), Line(1, unknown, None)) if line.price_cents)


def _reachable(settings: Settings) -> str:
    """Where the database is, with the server started where it is ours and the tables as they must be."""
    engine = postgres.engine(settings)
    with engine.connect():
        return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
