"""What the statements of ``collected``, ``cart_state`` and ``carts`` have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from shopauto_pipelines.outbox import schema


def as_json(rows: Iterable[Mapping[str, Any] | tuple]) -> str:
    """Rows as one JSON text for a statement: several times quicker than a parameter a value.

    PostgreSQL takes no NUL and no half of a surrogate pair: they are left out.
    """
    listed = [row._asdict() if isinstance(row, tuple) else row for row in rows]  # type: ignore[attr-defined]
    text = schema.as_json(listed)
    if "\\u0000" in text or "\\ud" in text:
        text = schema.as_json(_storable(json.loads(text)))
    return text


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "ignore").decode()
    if isinstance(value, dict):
        return {_storable(name): _storable(part) for name, part in value.items()}
    return [_storable(part) for part in value] if isinstance(value, list) else value


def later(table: str, column: str, at: str, collation: str = 'collate "C"') -> str:
    """SQL, of an upsert: what is told comes after what ``table`` holds; of two at one instant the greater counts.

    Texts are compared as Python does it, whatever the database's language; ``collation`` is empty for what is no text.
    """
    told, held = f"(excluded.{at}, excluded.{column} {collation})", f"({table}.{at}, {table}.{column} {collation})"
    return f"coalesce({told} > {held}, excluded.{at} is not null)"


def known(shop_customer_id: str, *, new_accounts: bool = False) -> str:
    """SQL: the person behind the shop's id, or behind the address of the guest it stands for; null for nobody we know.

    ``new_accounts``: of an account that nobody knows, too, the person behind the address that came with it. That is enough to
    take messages back, and not to write to them about what another account did.
    """
    guests = f"guests.shop_customer_id = {shop_customer_id}"
    guests += "" if new_accounts else " and starts_with(guests.shop_customer_id, 'guest:')"
    return f"""coalesce(
        (select people_ids.customer_id from people_ids where people_ids.shop_customer_id = {shop_customer_id}),
        (select min(people.customer_id) from guests join people using (address_hash) where {guests})
    )"""
