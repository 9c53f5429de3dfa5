"""Which carts are due: nothing has happened for as long as a step waits, and no order took them.

They are queued as numbered rows of ``shopauto.due_carts``; a batch is a range of these numbers. What happens to a cart until then
is folded in ``cart_state``; what is said to its owner is the campaign's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.realtime.cart_state import CHANNEL, CONTENTS
from shopauto_pipelines.realtime.statements import known

__all__ = ["CHANNEL", "DueCart", "batch", "due", "next_due", "queue_due"]


class DueCart(NamedTuple):
    """A queued cart as it is now.

    ``waited``: the wait that was over, ``triggered_at``: since when; ``changed``: something has happened since. ``customer_id``
    is the person it belongs to, as far as anybody can tell, by the shop's id where no profile knows the person yet;
    ``contents`` the pieces by product.
    """

    cart_id: str
    customer_id: str | None
    triggered_at: datetime
    waited: timedelta
    ordered: bool
    changed: bool
    contents: dict[str, int]


def queue_due(
    connection: sa.Connection, waits: Sequence[timedelta], *, at: datetime, valid: timedelta, limit: int
) -> int:
    """Queue at most ``limit`` carts of which one of the ``waits`` is over since less than ``valid``; returns how many.

    Earlier ones first; a cart once per wait for as long as nothing happens to it. One queues at a time, until the
    transaction ends: numbers become visible in their order. Carts that are being written to just now are left for later.
    """
    if not waits:
        return 0
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_QUEUE)))
    asked = {"waits": _seconds(waits), "at": at, "valid": valid, "limit": limit}
    return connection.execute(_QUEUE_DUE, asked).scalar_one()


def next_due(
    connection: sa.Connection, waits: Sequence[timedelta], *, at: datetime, valid: timedelta
) -> datetime | None:
    """When the next cart is due, should nothing happen to it; not after ``at`` where one is waiting to be queued."""
    if not waits:
        return None
    found = connection.execute(_NEXT_DUE, {"waits": _seconds(waits), "at": at, "valid": valid}).scalar_one()
    return found and found.astimezone(UTC)


def batch(connection: sa.Connection, after: int, limit: int) -> tuple[int, int] | None:
    """The first and the last number of at most ``limit`` queued carts after the number ``after``."""
    first, last = connection.execute(_BATCH, {"after": after, "limit": limit}).one()
    return None if first is None else (first, last)


def due(connection: sa.Connection, first: int, last: int) -> list[DueCart]:
    """The queued carts with these numbers, in their order, as they are now.

    Waits for whoever is writing to them, and holds them until the transaction ends: end it soon. Whoever writes later knows
    the owner named here, so that an order or an emptied cart takes back what is planned from this.
    """
    connection.execute(_HOLD, {"first": first, "last": last})
    return [
        DueCart(
            row.cart_id,
            row.customer_id,
            row.triggered_at.astimezone(UTC),
            timedelta(seconds=row.waited_seconds),
            row.ordered,
            row.changed,
            {product: int(pieces) for product, pieces in sorted((row.contents or {}).items())},
        )
        for row in connection.execute(_DUE, {"first": first, "last": last})
    ]


_QUEUE = sa.func.hashtext("shopauto.due_carts")


def _seconds(waits: Sequence[timedelta]) -> list[int]:
    return sorted({int(wait.total_seconds()) for wait in waits})


#: Every value of ``waited_seconds`` there is, by as many look-ups in the index.
_LEVELS = """
    levels(level) as (
        select min(waited_seconds) from carts where ordered_at is null
        union all
        select (select min(waited_seconds) from carts where ordered_at is null and waited_seconds > level)
        from levels where level is not null
    ),
    steps as (
        select level, wait, make_interval(secs => wait) as after
        from levels cross join unnest(cast(:waits as bigint[])) as waits(wait)
        where level < wait
    )
"""

_QUEUE_DUE = sa.text(f"""
    with recursive {_LEVELS},
    found as materialized (
        select cart_id, wait, last_at
        from steps cross join lateral (
            select cart_id, last_at from carts
            where ordered_at is null and waited_seconds = level and last_at between :at - after - :valid and :at - after
            order by last_at limit :limit
            for update skip locked
        ) as cart
        order by last_at + after, cart_id, wait limit :limit
    ),
    marked as (
        update carts set waited_seconds = longest
        from (select cart_id, max(wait) as longest from found group by cart_id) as found
        where carts.cart_id = found.cart_id
    ),
    queued as (
        insert into due_carts (cart_id, waited_seconds, triggered_at, queued_at)
        select cart_id, wait, last_at, :at from found order by last_at + make_interval(secs => wait), cart_id, wait
        on conflict do nothing
        returning id
    )
    select count(*) from queued
""")

_NEXT_DUE = sa.text(f"""
    with recursive {_LEVELS}
    select min(first_at + after)
    from steps cross join lateral (
        select min(last_at) as first_at from carts
        where ordered_at is null and waited_seconds = level and last_at >= :at - after - :valid
    ) as cart
""")

_BATCH = sa.text("""
    select min(id), max(id) from (select id from due_carts where id > :after order by id limit :limit) as next
""")

#: In the order in which they are written to, so that nobody waits in a circle.
_HOLD = sa.text("""
    select from carts where cart_id in (select cart_id from due_carts where id between :first and :last)
    order by cart_id collate "C" for share
""")

_DUE = sa.text(f"""
    with queued as (select id, cart_id, waited_seconds, triggered_at from due_carts where id between :first and :last),
    chosen as (select * from carts where cart_id in (select cart_id from queued)),
    {CONTENTS},
    filled as (
        select cart_id, jsonb_object_agg(product_id, pieces) as contents from contents where pieces > 0 group by cart_id
    )
    select queued.id, cart_id, queued.triggered_at, queued.waited_seconds, filled.contents,
        cart.ordered_at is not null as ordered,
        cart.last_at <> queued.triggered_at as changed,
        coalesce(
            {known("cart.shop_customer_id")},
            case when cart.shop_customer_id not like 'guest:%' then cart.shop_customer_id end,
            {known("visitor.shop_customer_id")},
            visitor.shop_customer_id,
            (select min(customer_id) from people where people.address_hash = visitor.address_hash),
            cart.shop_customer_id
        ) as customer_id
    from queued
    join chosen as cart using (cart_id)
    left join filled using (cart_id)
    left join visitors as visitor using (anonymous_id)
    order by queued.id
""")
