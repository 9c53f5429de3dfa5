"""Who is held out: the share of people who get nothing, so that the effect of what others get can be measured.

A person's place is a keyed hash of the id, so it is the same on every day and engine, and cannot be guessed without the key.
Places under different keys have nothing to do with each other: experiments (``experiments``) draw theirs in the same way.
"""

from __future__ import annotations

import hashlib
import hmac

import ibis
import ibis.expr.types as ir

#: Name of the holdout over all campaigns; no campaign can be called so.
GLOBAL = "*"

_DIGITS = 8

#: Every place there is, from 0 to one less.
PLACES = 16**_DIGITS


def holdout_key(hash_key: bytes, name: str) -> str:
    """Key of the holdout ``name`` (a campaign's, or :data:`GLOBAL`), derived so that the shop's own key stays here."""
    return derived_key(hash_key, f"holdout:{name}")


def derived_key(hash_key: bytes, purpose: str) -> str:
    """A key for one purpose out of the shop's own."""
    return hmac.new(hash_key, purpose.encode(), hashlib.sha256).hexdigest()


def is_held_out(customer_id: str, key: str, percent: float) -> bool:
    """Whether the person is in the holdout with ``key`` of ``percent`` percent of all people."""
    end = end_of(percent)
    return end is not None and place(customer_id, key) < end


def held_out(customer_id: ir.StringValue, key: str, percent: float) -> ir.BooleanValue:
    """:func:`is_held_out` as a column."""
    end = end_of(percent)
    return ibis.literal(False) if end is None else placed(customer_id + f":{key}") < end


def place(customer_id: str, key: str) -> str:
    """The person's place under a key: digits of fixed length, which sort like the numbers from 0 to :data:`PLACES`."""
    return hashlib.sha256(f"{customer_id}:{key}".encode()).hexdigest()[:_DIGITS]


def placed(salted: ir.StringValue) -> ir.StringValue:
    """:func:`place` as a column, of ``<customer>:<key>``."""
    return salted.hexdigest("sha256").left(_DIGITS)


def bound(share: int) -> str:
    """What the first ``share`` of all :data:`PLACES` sort before; ``g`` is above them all."""
    return f"{share:0{_DIGITS}x}" if share < PLACES else "g"


def end_of(percent: float) -> str | None:
    """The :func:`bound` of so many percent of all people; ``None``: of nobody."""
    return bound(round(percent / 100 * PLACES)) if percent > 0 else None
