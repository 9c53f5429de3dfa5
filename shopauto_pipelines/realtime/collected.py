"""Batches → ``shopauto.collected``, and what follows from them for visitors, carts and exits, in one transaction.

What is stored does not depend on the order in which things came in, nor on how they were batched, nor on how often they
came: everything goes by its own time, and only rows that are new have effects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.outbox.consents import said_to_the_shop
from shopauto_pipelines.realtime import cart_state
from shopauto_pipelines.realtime.batch import Batch, Exit, Login, Row, Snapshot
from shopauto_pipelines.realtime.statements import as_json, known, later

__all__ = ["Batch", "Exit", "Login", "Row", "Snapshot", "Stored", "forget", "store"]


class Stored(NamedTuple):
    """What became of a batch's rows; ``keys`` are the (raw table, key) of those that are new."""

    new: int
    repeated: int
    keys: frozenset[tuple[str, str]]


def store(
    connection: sa.Connection, batch: Batch, *, at: datetime, soonest: timedelta = timedelta(minutes=60)
) -> Stored:
    """Store a batch that came in at ``at``; the caller commits. Of several rows with one key the first counts.

    ``soonest`` is the shortest wait after which a cart is due: who listens on ``carts.CHANNEL`` is told where one may be due
    within a minute. Rows are locked table by table, each in the order of its key, so several may store at once.
    """
    first: dict[tuple[str, str], Row] = {}
    for row in batch.rows:
        first.setdefault((row.raw_table, row.key), row)
    keys = _add(connection, first, at)
    new = [first[key] for key in keys if key in first]
    if batch.guests:
        guests = ({"shop_customer_id": name, "address_hash": batch.guests[name]} for name in sorted(batch.guests))
        connection.execute(_GREET, {"told": as_json(guests)})
    logged_in = _log_in(connection, batch.logins)
    cart_state.fold(connection, new, batch.snapshots, logged_in, at=at, soonest=soonest)
    _leave(connection, [*batch.exits, *_left(new)])
    return Stored(len(keys), len(batch.rows) - len(keys), frozenset(keys))


def forget(
    connection: sa.Connection, landed: Mapping[str, Collection[date]], *, before: datetime, zone: str
) -> dict[str, int]:
    """Delete carts that nothing has happened to since ``before``, and older rows of the days that are ``landed``, by table.

    Rows of carts that live on stay, for their contents. ``zone`` is the shop's, by which a day is a day. Returns how many
    rows of each table are gone.
    """
    connection.execute(_FORGET_CARTS, {"before": before})
    connection.execute(_FORGET_DUE, {"before": before})
    return {
        name: connection.execute(
            _FORGET_ROWS, {"raw_table": name, "days": sorted(days), "before": before, "zone": zone}
        ).rowcount
        for name, days in landed.items()
        if days
    }


def _add(connection: sa.Connection, rows: dict[tuple[str, str], Row], at: datetime) -> list[tuple[str, str]]:
    """Add the rows that are new; returns their keys."""
    if not rows:
        return []
    told = as_json(rows[key] for key in sorted(rows))
    return [(row[0], row[1]) for row in connection.execute(_ADD, {"told": told, "at": at})]


def _log_in(connection: sa.Connection, logins: Sequence[Login]) -> list[str]:
    """Note who is behind a browser, the latest word on each; returns the browsers of which something new is known."""
    if not logins:
        return []
    latest: dict[str, dict[str, Any]] = {}
    for anonymous_id, shop_customer_id, address_hash, at in logins:
        said = latest.setdefault(anonymous_id, dict.fromkeys(("shop_customer_id", "address_hash")))
        for name, value in (("shop_customer_id", shop_customer_id), ("address_hash", address_hash)):
            if value is not None and (said[name] is None or (at, value) > said[name]):
                said[name] = (at, value)
    rows = []
    for anonymous_id in sorted(latest):
        customer_at, customer = latest[anonymous_id]["shop_customer_id"] or (None, None)
        address_at, address = latest[anonymous_id]["address_hash"] or (None, None)
        rows.append(
            {
                "anonymous_id": anonymous_id,
                "shop_customer_id": customer,
                "shop_customer_at": customer_at,
                "address_hash": address,
                "address_at": address_at,
            }
        )
    return list(connection.execute(_LOG_IN, {"told": as_json(rows)}).scalars())


def _left(rows: Iterable[Row]) -> list[Exit]:
    """Who has ordered, asks the support for help, or has told the shop that they want messages, or none."""
    found = []
    for row in rows:
        event = "ordered" if row.raw_table == "raw/orders" else row.row.get("type")
        if row.raw_table == "raw/consents":
            event = said_to_the_shop(row.row["state"], row.row["channel"])
        elif event not in ("ordered", "ticket_opened"):
            continue
        if row.row.get("shop_customer_id"):
            found.append(Exit(row.row["shop_customer_id"], event, "", row.at))
    return found


def _leave(connection: sa.Connection, exits: Sequence[Exit]) -> None:
    if exits:
        connection.execute(_LEAVE, {"told": as_json(sorted(set(exits)))})


_ADD = sa.text("""
    insert into collected (raw_table, key, at, received_at, cart_id, "row")
    select raw_table, key, at, :at, cart_id, "row"
    from json_to_recordset(cast(:told as json)) as told(raw_table text, key text, at timestamptz, cart_id text, "row" jsonb)
    on conflict do nothing
    returning raw_table, key
""")

_CUSTOMER = later("visitors", "shop_customer_id", "shop_customer_at")
_ADDRESS = later("visitors", "address_hash", "address_at", collation="")

_LOG_IN = sa.text(f"""
    insert into visitors (anonymous_id, shop_customer_id, shop_customer_at, address_hash, address_at)
    select anonymous_id, shop_customer_id, shop_customer_at, address_hash, address_at
    from json_to_recordset(cast(:told as json)) as told(
        anonymous_id text, shop_customer_id text, shop_customer_at timestamptz, address_hash bytea, address_at timestamptz
    )
    on conflict (anonymous_id) do update set
        shop_customer_id = case when {_CUSTOMER} then excluded.shop_customer_id else visitors.shop_customer_id end,
        shop_customer_at = case when {_CUSTOMER} then excluded.shop_customer_at else visitors.shop_customer_at end,
        address_hash = case when {_ADDRESS} then excluded.address_hash else visitors.address_hash end,
        address_at = case when {_ADDRESS} then excluded.address_at else visitors.address_at end
    where {_CUSTOMER} or {_ADDRESS}
    returning anonymous_id
""")

_GREET = sa.text("""
    insert into guests (shop_customer_id, address_hash)
    select shop_customer_id, address_hash
    from json_to_recordset(cast(:told as json)) as told(shop_customer_id text, address_hash bytea)
    on conflict do nothing
""")

#: Under the shop's own id too: who belongs to whom may be seen otherwise tomorrow.
_LEAVE = sa.text(f"""
    insert into exits (customer_id, event, occasion, at)
    select distinct one.customer_id, event, occasion, at
    from json_to_recordset(cast(:told as json)) as told(
        shop_customer_id text, event text, occasion text, at timestamptz
    )
    cross join lateral (values (told.shop_customer_id), ({known("told.shop_customer_id", new_accounts=True)})) as one(customer_id)
    where one.customer_id is not null
    order by customer_id, event, occasion, at
    on conflict do nothing
""")

_FORGET_CARTS = sa.text("""
    delete from carts where cart_id in (select cart_id from carts where last_at < :before for update skip locked)
""")

_FORGET_DUE = sa.text("delete from due_carts where queued_at < :before")

_FORGET_ROWS = sa.text("""
    delete from collected
    where raw_table = :raw_table and at < :before
        and cast(timezone(:zone, at) as date) = any(:days)
        and not exists (select from carts where carts.cart_id = collected.cart_id)
""")
