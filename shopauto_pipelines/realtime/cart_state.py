"""What happens to carts → ``shopauto.carts`` and the exits about them: filled, emptied, ordered, by the events' own times.

A cart's state is a function of everything that was ever said of it, whatever the order. Its exits are those of its present
state: they are written anew, under the lock of the cart's row, whenever that state may have changed. When a cart is due is
not decided here but in ``carts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from shopauto_pipelines.realtime.batch import Row, Snapshot
from shopauto_pipelines.realtime.statements import as_json, known, later

#: PostgreSQL's channel on which :func:`fold` tells that a cart may be due within :data:`SOON`.
CHANNEL = "shopauto_carts"

#: Who waits for carts looks again this often anyway.
SOON = timedelta(minutes=1)

#: SQL: contents of the carts in ``chosen`` (``cart_id``, ``snapshot_at``, ``snapshot``), a row per product, whose ``pieces`` may
#: be none: the latest snapshot, and what was put in and taken out after it. An event without a number is about one piece;
#: more than a million of them are taken for a million.
CONTENTS = """
    moved as (
        select chosen.cart_id, told.key as product_id, cast(told.value as numeric) as pieces
        from chosen cross join lateral jsonb_each_text(chosen.snapshot) as told
        union all
        select chosen.cart_id, event.product_id, event.pieces
        from chosen cross join lateral (
            select
                collected."row" ->> 'product_id' as product_id,
                case collected."row" ->> 'type' when 'add_to_cart' then 1 else -1 end
                    * case jsonb_typeof(collected."row" -> 'quantity')
                        when 'number' then (collected."row" ->> 'quantity')::numeric else 1 end as pieces
            from collected
            where collected.cart_id = chosen.cart_id
                and collected."row" ->> 'type' in ('add_to_cart', 'remove_from_cart')
                and collected."row" ->> 'product_id' is not null
                and (chosen.snapshot_at is null or collected.at > chosen.snapshot_at)
            offset 0  -- cart by cart through the index, whatever is known of how many rows there are
        ) as event
    ),
    contents as (
        select cart_id, product_id, least(greatest(sum(pieces), 0), 1000000) as pieces from moved group by cart_id, product_id
    )
"""

#: Before any event: the time of a row that only locks its cart.
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


def fold(
    connection: sa.Connection,
    rows: Iterable[Row],
    snapshots: Sequence[Snapshot],
    visitors: Sequence[str],
    *,
    at: datetime,
    soonest: timedelta,
) -> None:
    """Take in rows that are new, snapshots, and that of these visitors something new is known."""
    touches: dict[str, _Touch] = {}
    for row in rows:
        if row.cart_id is not None:
            touches.setdefault(row.cart_id, _Touch()).row(row)
    for snapshot in snapshots:
        touches.setdefault(snapshot.cart_id, _Touch()).snapshot(snapshot)
    if visitors:
        for cart_id in connection.execute(_LEFT_BY, {"visitors": list(visitors)}).scalars():
            touches.setdefault(cart_id, _Touch())
    if not touches:
        return
    told = as_json({"cart_id": cart_id, **vars(touches[cart_id])} for cart_id in sorted(touches))
    unsettled, wake = [], False
    for cart_id, may_be_left, waits, last_at in connection.execute(_TOUCH, {"told": told}):
        if may_be_left or touches[cart_id].may_empty:
            unsettled.append(cart_id)
        wake = wake or (waits and last_at + soonest <= at + SOON)
    if snapshots:
        connection.execute(_TELL, {"told": as_json(snapshots)})
    if unsettled:
        connection.execute(_EMPTY, {"carts": unsettled})
        connection.execute(_LEAVE, {"carts": unsettled})
    if wake:
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))


class _Touch:
    """What a batch says of one cart."""

    def __init__(self) -> None:
        self.last_at = _NEVER
        self.ordered_at: datetime | None = None
        self.shop_customer_id: str | None = None
        self.shop_customer_at: datetime | None = None
        self.anonymous_id: str | None = None
        self.anonymous_at: datetime | None = None
        self.may_empty = False

    def row(self, row: Row) -> None:
        self._said(row.at, row.row.get("shop_customer_id"), row.row.get("anonymous_id"))
        if row.raw_table == "raw/orders":
            self.ordered_at = min(row.at, self.ordered_at or row.at)
        self.may_empty = self.may_empty or row.row.get("type") == "remove_from_cart"

    def snapshot(self, snapshot: Snapshot) -> None:
        self._said(snapshot.at, snapshot.shop_customer_id, snapshot.anonymous_id)
        self.may_empty = True

    def _said(self, at: datetime, shop_customer_id: str | None, anonymous_id: str | None) -> None:
        self.last_at = max(at, self.last_at)
        if shop_customer_id and (at, shop_customer_id) > (self.shop_customer_at or _NEVER, self.shop_customer_id or ""):
            self.shop_customer_at, self.shop_customer_id = at, shop_customer_id
        if anonymous_id and (at, anonymous_id) > (self.anonymous_at or _NEVER, self.anonymous_id or ""):
            self.anonymous_at, self.anonymous_id = at, anonymous_id


#: Carts with exits in which a visitor's name plays a part.
_LEFT_BY = sa.text("""
    select cart_id from carts where anonymous_id = any(:visitors) and (ordered_at is not null or emptied)
""")

_CUSTOMER = later("carts", "shop_customer_id", "shop_customer_at")
_VISITOR = later("carts", "anonymous_id", "anonymous_at")

_TOUCH = sa.text(f"""
    insert into carts (cart_id, shop_customer_id, shop_customer_at, anonymous_id, anonymous_at, last_at, ordered_at)
    select cart_id, shop_customer_id, shop_customer_at, anonymous_id, anonymous_at, last_at, ordered_at
    from json_to_recordset(cast(:told as json)) as told(
        cart_id text, shop_customer_id text, shop_customer_at timestamptz, anonymous_id text, anonymous_at timestamptz,
        last_at timestamptz, ordered_at timestamptz
    )
    on conflict (cart_id) do update set
        shop_customer_id = case when {_CUSTOMER} then excluded.shop_customer_id else carts.shop_customer_id end,
        shop_customer_at = case when {_CUSTOMER} then excluded.shop_customer_at else carts.shop_customer_at end,
        anonymous_id = case when {_VISITOR} then excluded.anonymous_id else carts.anonymous_id end,
        anonymous_at = case when {_VISITOR} then excluded.anonymous_at else carts.anonymous_at end,
        waited_seconds = case when excluded.last_at > carts.last_at then 0 else carts.waited_seconds end,
        last_at = greatest(carts.last_at, excluded.last_at),
        ordered_at = least(carts.ordered_at, excluded.ordered_at)
    returning cart_id, ordered_at is not null or emptied, ordered_at is null and waited_seconds = 0, last_at
""")

#: The latest snapshot counts; of two at one instant the greater, so that their order does not matter.
_TELL = sa.text("""
    update carts set snapshot_at = told.at, snapshot = told.contents
    from (
        select distinct on (cart_id) cart_id, at, contents
        from json_to_recordset(cast(:told as json)) as told(cart_id text, at timestamptz, contents jsonb)
        order by cart_id, at desc, cast(contents as text) collate "C" desc
    ) as told
    where carts.cart_id = told.cart_id
        and (carts.snapshot_at is null
            or (told.at, cast(told.contents as text) collate "C") > (carts.snapshot_at, cast(carts.snapshot as text) collate "C"))
""")

_EMPTY = sa.text(f"""
    with chosen as (select cart_id, snapshot_at, snapshot from carts where cart_id = any(:carts)),
    {CONTENTS},
    filled as (
        select chosen.cart_id,
            exists (select from contents where contents.cart_id = chosen.cart_id and pieces > 0) as filled,
            chosen.snapshot_at is not null
                or exists (select from contents where contents.cart_id = chosen.cart_id) as known
        from chosen
    )
    update carts set emptied = known and not filled
    from filled
    where carts.cart_id = filled.cart_id and carts.emptied <> (known and not filled)
""")

#: Whoever the cart may have been taken for is told of: every customer named with it, and who is behind its browser.
_LEAVE = sa.text(f"""
    with chosen as (
        select cart_id, shop_customer_id, anonymous_id, last_at, ordered_at, emptied from carts
        where cart_id = any(:carts) and (ordered_at is not null or emptied)
    ),
    named as (
        select cart_id, shop_customer_id from chosen
        union
        select chosen.cart_id, said.shop_customer_id
        from chosen cross join lateral (
            select "row" ->> 'shop_customer_id' as shop_customer_id
            from collected where collected.cart_id = chosen.cart_id offset 0
        ) as said
        union
        select cart_id, visitor.shop_customer_id from chosen join visitors as visitor using (anonymous_id)
    ),
    owners as (
        select cart_id, coalesce({known("named.shop_customer_id")}, named.shop_customer_id) as customer_id from named
        union
        select cart_id, (select min(customer_id) from people where people.address_hash = visitor.address_hash)
        from chosen join visitors as visitor using (anonymous_id)
    ),
    wanted as (
        select customer_id, event, cart_id as occasion, last_at as at
        from owners join chosen using (cart_id)
        cross join lateral (values ('ordered', ordered_at is not null), ('cart_emptied', emptied)) as left_by(event, holds)
        where customer_id is not null and holds
    ),
    gone as (
        delete from exits
        where occasion = any(:carts) and occasion <> '' and event in ('ordered', 'cart_emptied')
            and (customer_id, event, occasion, at) not in (select customer_id, event, occasion, at from wanted)
    )
    insert into exits (customer_id, event, occasion, at)
    select customer_id, event, occasion, at from wanted
    on conflict do nothing
""")
