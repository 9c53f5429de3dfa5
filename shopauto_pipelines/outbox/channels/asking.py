"""Asking a provider over HTTP, which mostly has no idempotency key: what may be asked again, and when to give up.

Only what was surely not accepted is asked again: a rate limit (after the wait it asks for) and a connection that could not
be opened. A request that cannot even be written, as with a line end in the key, has left nobody. Anything else that is no answer
may have been accepted. Who takes a request once is asked again after that, too; from then on only its yes is an answer, as what
is refused now may have been accepted the first time.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import cache
from threading import Lock

import httpx

from shopauto_pipelines.outbox.channels import Outcome

TIMEOUT = httpx.Timeout(30.0, connect=10.0)

#: Calls for one request, and retries in hand for all: each call that is answered earns a tenth of one.
_TRIES, _RETRIES = 5, 20

#: What is wrong with the request itself, found before any of it has left.
_UNWRITTEN = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)

#: Longest wait, seconds. Who is asked to wait longer stops, and the messages stay planned.
_LONGEST_WAIT = 60.0


@cache
def tls() -> ssl.SSLContext:
    """How providers are trusted; one for all clients of the process, as reading the certificates takes 60 ms."""
    return httpx.create_ssl_context()


class Asking:
    """Asks one provider. Several threads may at once; a wait that one of them is asked for holds for all."""

    def __init__(self, who: str, sleep: Callable[[float], None]) -> None:
        self._who, self._sleep = who, sleep
        self._not_before = 0.0
        self._retries = float(_RETRIES)
        self._lock = Lock()

    def ask(self, post: Callable[[], httpx.Response], *, idempotent: bool = False) -> httpx.Response | Outcome:
        """The provider's answer, or what became of the messages where there is none.

        ``idempotent``: the provider takes the request once, so it is asked again after a lost answer, a 5xx and a 409, which
        says that it is still at work on the request.
        """
        if (remaining := self._not_before - time.monotonic()) > 0:
            self._sleep(remaining)
        in_doubt, refusal = False, ""
        for attempt in range(_TRIES):
            wait = 2.0**attempt * random.uniform(0.5, 1.0)  # jitter: dispatchers must not come back together
            try:
                answer = post()
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError):
                refusal = f"{self._who} cannot be reached"
            except _UNWRITTEN:  # its text may quote the key
                refusal = f"{self._who} cannot be asked: check the address and the key in the settings, also for spaces"
                break
            except httpx.HTTPError as error:
                refusal = f"no answer from {self._who}: {type(error).__name__}"
                if not idempotent:
                    return Outcome("unknown", refusal)
                in_doubt = True
            else:
                self._note(answer)
                if answer.status_code == 429:
                    refusal = f"{self._who}'s rate limit"
                    wait = _asked_to_wait(answer) or wait
                elif idempotent and (answer.status_code == 409 or answer.status_code >= 500):
                    refusal, in_doubt = f"{self._who} answered {answer.status_code}", True
                elif in_doubt and not answer.is_success:
                    return Outcome("unknown", f"{refusal}, then {answer.status_code}")
                else:
                    return answer
            if attempt == _TRIES - 1 or wait > _LONGEST_WAIT or not self._may_retry():
                break
            self._hold(wait)
            self._sleep(wait)
        return Outcome("unknown" if in_doubt else "deferred", refusal)

    def _note(self, answer: httpx.Response) -> None:
        """An answer earns retries; where it was the last of its window, the next calls wait."""
        with self._lock:
            self._retries = min(self._retries + 0.1, _RETRIES)
        if answer.headers.get("X-RateLimit-Remaining") == "0" and (asked := _asked_to_wait(answer)):
            self._hold(min(asked, _LONGEST_WAIT))

    def _may_retry(self) -> bool:
        with self._lock:
            if self._retries < 1:
                return False
            self._retries -= 1
        return True

    def _hold(self, seconds: float) -> None:
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)


def _asked_to_wait(answer: httpx.Response) -> float | None:
    """Seconds until the provider takes more: ``Retry-After``, or ``X-RateLimit-Reset`` by its own clock."""
    if (after := answer.headers.get("Retry-After", "")).isdigit():
        return float(after)
    reset, sent = answer.headers.get("X-RateLimit-Reset", ""), answer.headers.get("Date")
    if reset.isdigit() and sent:
        return max(float(reset) - parsedate_to_datetime(sent).timestamp(), 1.0)
    return None
