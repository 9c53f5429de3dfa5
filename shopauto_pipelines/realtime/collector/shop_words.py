"""What the webhooks of all shop systems have in common: the signature, amounts, ids. One module per system reads the rest."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypeVar

from pydantic import SecretStr

from shopauto_pipelines.realtime.collector.models import ID_PATTERN, MOMENT
from shopauto_pipelines.realtime.collector.reading import Unreadable, moment

_Read = TypeVar("_Read", bound=Callable[..., Any])


def refusal(body: bytes, signature: str, secret: SecretStr) -> str | None:
    """Why a delivery is refused; ``None`` where ``signature`` is the base64 HMAC-SHA256 of its raw bytes."""
    if not signature:
        return "not signed"
    genuine = base64.b64encode(hmac.digest(secret.get_secret_value().encode(), body, "sha256"))
    return None if hmac.compare_digest(genuine, signature.encode(errors="replace")) else "wrong signature"


def cents(amount: Any) -> int:
    """An amount of money such as ``"12.30"`` in cents, half of one rounded away from zero, as files are read."""
    value = Decimal(str(amount or 0))
    if not value.is_finite() or abs(value) > 10**15:
        raise Unreadable("an amount is not one")
    return int((value * 100).quantize(Decimal(1), ROUND_HALF_UP))


def text_id(value: Any) -> str | None:
    """An id of theirs as text; they write none as null, 0 or nothing."""
    return str(value) if value and not isinstance(value, (dict, list)) else None


def plain_id(value: Any, prefix: str) -> str | None:
    """An id of theirs that becomes part of ours: letters, digits, ``_.-`` only; others stand for themselves as a hash."""
    text = (text_id(value) or "").split("?")[0]
    if not text:
        return None
    plain = prefix + text
    return plain if re.fullmatch(ID_PATTERN, plain) else prefix + hashlib.sha256(text.encode()).hexdigest()[:32]


def note(told: Any, name: str) -> str | None:
    """The value beside ``name`` in a list of ``{name or key, value}``: what the shop's page left with a cart or order."""
    for entry in told if isinstance(told, list) else ():
        if isinstance(entry, dict) and name in (entry.get("name"), str(entry.get("key")).lstrip("_")):
            value = entry.get("value")
            return value if isinstance(value, str) and re.fullmatch(ID_PATTERN, value) else None
    return None


def said_at(value: Any, now: datetime) -> datetime:
    """A time of theirs; one without a zone is UTC. Raises ``Unreadable``."""
    return moment(MOMENT.validate_python(value), now)


def recent(value: Any, now: datetime) -> bool:
    """Whether what happened then is still news. Old orders come again when something about them changes."""
    try:
        said_at(value, now)
    except Unreadable:
        return False
    return True


def contents(lines: Any) -> dict[str, int]:
    """Pieces by product of a cart's lines."""
    pieces: dict[str, int] = {}
    for line in lines or ():
        product, quantity = text_id(line.get("product_id")), int(line.get("quantity") or 0)
        if product and 0 < quantity <= 100_000:
            pieces[product[:400].replace("\0", "")] = pieces.get(product, 0) + quantity
    return pieces


def careful(read: _Read) -> _Read:
    """Makes one error, :class:`Unreadable`, of all that goes wrong with data of another form than expected."""

    @functools.wraps(read)
    def reading(*given: Any) -> Any:
        try:
            return read(*given)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            raise Unreadable("not of the form it should have") from None

    return reading  # type: ignore[return-value]
