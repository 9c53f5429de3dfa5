"""Who is held out: the share of people who get nothing, so that the effect of what others get can be measured.

A person's place is a keyed hash of the id, so it is the same on every day and engine, and cannot be guessed without the key.
"""

from __future__ import annotations

import hashlib
import hmac

import ibis
import ibis.expr.types as ir

#: Name of the holdout over all campaigns; no campaign can be called so.
GLOBAL = "*"

_DIGITS = 8


def holdout_key(hash_key: bytes, name: str) -> str:
    """Key of the holdout ``name`` (a campaign's, or :data:`GLOBAL`), derived so that the shop's own key stays here."""
    return hmac.new(hash_key, f"holdout:{name}".encode(), hashlib.sha256).hexdigest()


def is_held_out(customer_id: str, key: str, percent: float) -> bool:
    """Whether the person is in the holdout with ``key`` of ``percent`` percent of all people."""
    digest = hashlib.sha256(f"{customer_id}:{key}".encode()).hexdigest()
    return digest[:_DIGITS] < _bound(percent)


def held_out(customer_id: ir.StringValue, key: str, percent: float) -> ir.BooleanValue:
    """:func:`is_held_out` as a column."""
    if percent <= 0:
        return ibis.literal(False)
    return (customer_id + f":{key}").hexdigest("sha256").left(_DIGITS) < _bound(percent)


def _bound(percent: float) -> str:
    """Digests of fixed length sort like numbers, so the share is a bound on their text; ``g`` is above them all."""
    share = round(percent / 100 * 16**_DIGITS)
    return f"{share:0{_DIGITS}x}" if share < 16**_DIGITS else "g"
