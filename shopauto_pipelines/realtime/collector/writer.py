"""The one that writes: what several requests brought is stored in one transaction, and each is told once that is on disk.

Requests that come in while a transaction is under way wait, and go into the next one together: one client alone waits for
one commit, a thousand share it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import sqlalchemy as sa

from shopauto_pipelines.realtime.collected import Batch, Stored

_log = logging.getLogger(__name__)

#: What was new: table and key of the rows.
Keys = frozenset[tuple[str, str]]

#: Rows after which a transaction takes no further request.
_MOST_ROWS = 2000


@dataclass
class _Waiting:
    batch: Batch
    done: Future[Keys] = field(default_factory=Future)


class Writer:
    """A queue and a thread that empties it by ``store``, which commits a batch."""

    def __init__(self, store: Callable[[Batch], Stored]) -> None:
        self._store = store
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, batch: Batch) -> Future[Keys]:
        """Have ``batch`` stored. The result, there once it is committed, names the rows that were new."""
        waiting = _Waiting(batch)
        with self._changed:
            if self._closed:
                raise RuntimeError("the writer is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="collector-writer", daemon=True)
                self._thread.start()
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.done

    def close(self) -> None:
        """Store what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (group := self._next()) is not None:
            self._commit(group)

    def _next(self) -> list[_Waiting] | None:
        """Those who go into the next transaction; ``None`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            group: list[_Waiting] = []
            rows = 0
            while self._queue and rows < _MOST_ROWS:
                waiting = self._queue.popleft()
                if waiting.done.set_running_or_notify_cancel():  # nobody waits for one that was given up
                    group.append(waiting)
                    rows += len(waiting.batch.rows)
            return group

    def _commit(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        try:
            new = set(self._store(Batch.merged([waiting.batch for waiting in group])).keys)
        except sa.exc.DataError as error:
            if len(group) > 1:  # one of them cannot be stored: that must not be the others' loss
                for waiting in group:
                    self._commit([waiting])
                return
            _fail(group, error)
        except BaseException as error:
            _fail(group, error)
        else:
            for waiting in group:
                mine = new.intersection((row.raw_table, row.key) for row in waiting.batch.rows)
                new -= mine  # what two of them said is news of the first
                waiting.done.set_result(frozenset(mine))


def _fail(group: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in group:
        waiting.done.set_exception(error)
