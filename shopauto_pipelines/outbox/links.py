"""Keyed hashes of addresses and signed unsubscribe links: what points at a person outside the lake without a name."""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shopauto_pipelines.outbox.ledger import MessageKey

_ID_BYTES = 8
_SIGNATURE_BYTES = 16


def address_hash(key: bytes, channel: str, address: str | None) -> bytes | None:
    """HMAC-SHA256 of the normalised address: lower case, no space around it. ``None`` for no address."""
    normal = (address or "").strip().casefold()
    return _hmac(key, f"{channel}\0{normal}".encode()) if normal else None


def reference(message: MessageKey) -> str:
    """A name for the message, the same in every run and on every machine: 32 hexadecimal digits of its key's hash."""
    return hashlib.sha256(_joined(message)).hexdigest()[:32]


def unsubscribe_token(key: bytes, message_id: int, message: MessageKey) -> str:
    """Opaque, signed: the ledger's id and an HMAC over the message's key, URL-safe."""
    packed = message_id.to_bytes(_ID_BYTES, "big") + _signature(key, message_id, message)
    return base64.urlsafe_b64encode(packed).decode()  # a multiple of three bytes: no padding


def token_message_id(token: str) -> int | None:
    """The ledger's id that a token speaks of, not yet verified; ``None`` for what cannot be a token."""
    packed = _unpacked(token)
    return int.from_bytes(packed[:_ID_BYTES], "big", signed=True) if packed else None


def token_is_genuine(key: bytes, token: str, message_id: int, message: MessageKey) -> bool:
    """Whether the token was signed for this message, compared in constant time."""
    packed = _unpacked(token)
    return packed is not None and hmac.compare_digest(packed[_ID_BYTES:], _signature(key, message_id, message))


def _unpacked(token: str) -> bytes | None:
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return packed if len(packed) == _ID_BYTES + _SIGNATURE_BYTES else None


def _signature(key: bytes, message_id: int, message: MessageKey) -> bytes:
    return _hmac(key, b"unsubscribe\0%d\0%s" % (message_id, _joined(message)))[:_SIGNATURE_BYTES]


def _joined(message: MessageKey) -> bytes:
    """The key's parts, each with its length in front, so that no two keys give the same bytes."""
    a, b, c, d = map(str.encode, message)
    return b"%d:%s%d:%s%d:%s%d:%s" % (len(a), a, len(b), b, len(c), c, len(d), d)


def _hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104). The key is hashed once, not with every message: ``hmac.digest`` takes twice as long."""
    inner, outer = _keyed(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(message)
    outer.update(inner.digest())
    return outer.digest()


@cache
def _keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of an HMAC, begun with the key."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return hashlib.sha256(bytes(b ^ 0x36 for b in block)), hashlib.sha256(bytes(b ^ 0x5C for b in block))
