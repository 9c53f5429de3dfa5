"""What came in from a shop, read and checked: what the collector hands over to be stored, whatever route it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a raw table. ``row`` has its columns as JSON values, without those of the lineage.

    ``key`` is the table's key as text: a row whose key is there already is the same row again. ``at`` is the time column's
    value, which decides the day; ``cart_id`` the cart the row speaks of.
    """

    raw_table: str
    key: str
    at: datetime
    cart_id: str | None
    row: dict[str, Any]


class Login(NamedTuple):
    """Who is behind a browser: a customer who logged in, or an e-mail address that was typed, or both."""

    anonymous_id: str
    shop_customer_id: str | None
    address_hash: bytes | None
    at: datetime


class Snapshot(NamedTuple):
    """The whole contents of a cart as a shop tells them: pieces by product."""

    cart_id: str
    at: datetime
    contents: dict[str, int]
    shop_customer_id: str | None
    anonymous_id: str | None


class Exit(NamedTuple):
    """Something that takes a customer's messages back: all of them, or those about one ``occasion``."""

    shop_customer_id: str
    event: str
    occasion: str
    at: datetime


@dataclass
class Batch:
    """What one or more requests brought. ``guests``: the keyed hash of the address behind a shop id, a guest's or a new one."""

    rows: list[Row] = field(default_factory=list)
    logins: list[Login] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    guests: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def merged(cls, batches: Iterable[Batch]) -> Batch:
        """All of several batches, in their order."""
        merged = cls()
        for batch in batches:
            merged.rows += batch.rows
            merged.logins += batch.logins
            merged.snapshots += batch.snapshots
            merged.exits += batch.exits
            merged.guests |= batch.guests
        return merged
