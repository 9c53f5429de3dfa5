"""What all requests have in common: who asks, how much and how fast, an answer only once it is stored, numbers only in the log.

Memory is bounded: the bodies that are being read or wait to be stored share a room of ``collector_queue_mib``. Where it is
full, and for an address that sends faster than ``collector_events_per_second``, the answer is 429 and when to come again.
An address that sends slowly fills no more of the room than its part: all others go on.
"""

from __future__ import annotations

import hmac
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Network
from typing import TypeVar

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shopauto_pipelines.outbox import web
from shopauto_pipelines.outbox.web import Refused
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings

_log = logging.getLogger(__name__)

_Secret = TypeVar("_Secret")

#: What stores a raw body, in a thread; it returns what to log and what to answer.
Work = Callable[[bytes], tuple[str, Response]]

#: Memory that a byte of a body takes until it is stored: read, as rows, and as the statement that stores them. Measured.
_WEIGHT = 8

#: Memory that a request takes beside its body, bytes. Measured.
_EACH = 16 * 1024

#: Seconds in which requests that came too fast are told once in the log.
_TOLD_EVERY = 10

#: Seconds of the rate that an address may send at once.
_BURST = 10

#: Addresses whose rates are remembered.
_MOST_ADDRESSES = 10_000


class ComeAgain(Refused):
    """Too much, or not possible now; ``seconds`` until it is worth another try."""

    def __init__(self, status: int, reason: str, seconds: float = 1) -> None:
        super().__init__(status, reason)
        self.seconds = max(1, math.ceil(seconds))


class Room:
    """The memory for requests that are being read or wait. Used in the event loop only.

    Bodies can be kept coming for half a minute by anybody, before a signature can be checked. So those of one sender have a
    part of the room: as much as the largest body that could be stored. What is there is checked at once.
    """

    def __init__(self, mib: int) -> None:
        self._free = mib * 2**20
        self._part = self._free // _WEIGHT
        self._coming: Counter[str] = Counter()

    def hold(self, size: int) -> None:
        """Take ``size`` bytes of it. Raises :class:`ComeAgain`."""
        if size > self._free:
            raise ComeAgain(429, "too much is waiting to be stored")
        self._free -= size

    def come(self, sender: str, size: int) -> None:
        """Take ``size`` bytes for what comes in from ``sender``; '' may take all of it. Raises :class:`ComeAgain`."""
        if sender and self._coming[sender] + size > self._part:
            raise ComeAgain(429, "too much is coming in from one address")
        self.hold(size)
        self._coming[sender] += size

    def came(self, sender: str, size: int) -> None:
        """``size`` bytes of ``sender`` are no longer coming in; they are still held."""
        self._coming[sender] -= size
        if not self._coming[sender]:
            del self._coming[sender]

    def release(self, size: int) -> None:
        """Give them back."""
        self._free += size


class Rates:
    """How fast each address sends. Used in the event loop only."""

    def __init__(self, per_second: int, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._now = per_second, per_second * _BURST, now
        self._left: dict[str, tuple[float, float]] = {}

    def spend(self, address: str, count: int) -> None:
        """Let ``address`` send ``count`` events. Raises :class:`ComeAgain`."""
        now = self._now()
        left, before = self._left.get(address, (float(self._most), now))
        left = min(self._most, left + (now - before) * self._rate)
        if count > left:
            self._left[address] = (left, now)
            raise ComeAgain(429, f"more than {self._rate} events a second", (count - left) / self._rate)
        self._left[address] = (left - count, now)
        if len(self._left) > _MOST_ADDRESSES:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Who has been silent has its whole reserve again and need not be remembered; of the others the oldest go."""
        lately = {address: known for address, known in self._left.items() if now - known[1] < _BURST}
        self._left = dict(sorted(lately.items(), key=lambda known: known[1][1])[-_MOST_ADDRESSES // 2 :])


def address(request: Request) -> str:
    """Who sends, as far as rates go: the address; of IPv6 the network, which is one customer's. '' where there is none."""
    host = request.client.host if request.client else ""
    try:
        return str(IPv6Network((host, 64), strict=False)) if ":" in host else host
    except ValueError:
        return host


def has_key(request: Request, settings: Settings) -> bool:
    """Whether one of the shop's servers asks. Raises :class:`~shopauto_pipelines.outbox.web.Refused` for a wrong key."""
    given = request.headers.get("Authorization")
    if given is None or settings.collector_key is None:
        return False
    expected = f"Bearer {settings.collector_key.get_secret_value()}"
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise Refused(401, "wrong key")
    return True


def require_server(request: Request, settings: Settings) -> None:
    """Let only the shop's servers ask; anybody while live is off and there is no key. Raises ``Refused``."""
    if has_key(request, settings):
        return
    if settings.collector_key is not None:
        raise Refused(401, "for the shop's servers: Authorization: Bearer and SHOPAUTO_COLLECTOR_KEY")
    if settings.live:
        raise Refused(503, "SHOPAUTO_COLLECTOR_KEY is not set")


def require_signed(request: Request, secret: _Secret | None, setting: str, *headers: str) -> _Secret:
    """The secret a request can be checked with: what cannot be genuine is refused before its body is read. Raises ``Refused``."""
    if secret is None:
        raise Refused(503, f"{setting} is not set")
    if not all(request.headers.get(name) for name in headers):
        raise Refused(401, "not signed")
    return secret


@asynccontextmanager
async def held_body(request: Request, settings: Settings, sender: str) -> AsyncIterator[bytes]:
    """The raw body, which has its place in the app's room as long as the context lasts. Raises ``Refused``.

    ``sender``: the :func:`address` it comes from; '' for one of the shop's servers, which may send as much as there is room for.
    """
    room: Room = request.app.state.room
    coming = waiting = 0

    def come(size: int) -> None:
        nonlocal coming
        room.come(sender, size)
        coming += size

    try:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(415, "compressed bodies are not read")
        # while it comes in it takes no more than its size
        try:
            body = await web.body(request, settings.collector_max_kib * 1024, come)
        finally:
            room.came(sender, coming)
        rest = _EACH + len(body) * (_WEIGHT - 1)
        room.hold(rest)
        waiting = rest
        yield body
    finally:
        room.release(coming + waiting)


def refusal(refused: Refused, subject: str | None = None) -> Response:
    """The answer to a request that is not taken; logged where there is a ``subject``. A flood does not fill the log."""
    again = {"Retry-After": str(refused.seconds)} if isinstance(refused, ComeAgain) else None
    now = time.monotonic()
    if subject and again is None:
        _log.warning("%s: refused, %s", subject, refused.reason)
    elif subject and now - _told.get(subject, -math.inf) >= _TOLD_EVERY:
        _told[subject] = now
        _log.warning("%s: put off, %s", subject, refused.reason)
    return JSONResponse({"refused": refused.reason}, refused.status, headers=again)


#: When the log was last told of a subject's flood.
_told: dict[str, float] = {}


def not_stored(subject: str, error: Exception) -> Response:
    """The answer where it could not be stored: whoever sent it is to send it again, unless the fault is in it."""
    # its text may hold what was to be stored
    _log.error("%s: not stored, %s", subject, type(error).__name__)
    if isinstance(error, sa.exc.DataError):  # it never can be
        return JSONResponse({"refused": "cannot be stored as it is"}, 422)
    return JSONResponse({"refused": "cannot be stored now"}, 503, headers={"Retry-After": "5"})


async def take(provider: str, request: Request, settings: Settings, reading: Callable[[Request], Work]) -> Response:
    """Let the work that ``reading`` makes of a request store its raw body.

    What is wrong with a request gets the 4xx that either raises as :class:`~shopauto_pipelines.outbox.web.Refused`, ``reading``
    before the body is read; where it cannot be stored the answer is 503: the provider sends it again.
    """
    try:
        work = reading(request)
        async with held_body(request, settings, address(request)) as raw:
            done, answer = await run_in_threadpool(work, raw)
    except Refused as refused:
        return refusal(refused, provider)
    except (sa.exc.SQLAlchemyError, ShopAutoError) as error:
        return not_stored(provider, error)
    _log.info("%s: %s", provider, done)
    return answer


def numbers(counts: dict[str, int]) -> str:
    """Counts for the log, without those that are zero."""
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n) or "nothing"
