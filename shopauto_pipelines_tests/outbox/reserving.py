"""Dispatchers that only reserve and settle, each a process of its own: forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import sqlalchemy as sa

from shopauto_pipelines.outbox import dispatchers, ledger
from shopauto_pipelines_tests.outbox.conftest import AT, DAY

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class Reserved(NamedTuple):
    """What a dispatcher took, as message and customer, and why it stopped early."""

    taken: list[tuple[int, str]]
    stopped: str | None


class Reserving:
    """A dispatcher of a campaign, which waits until it is told to begin."""

    def __init__(self, engine: sa.Engine, campaign: str) -> None:
        self._here, there = _FORKS.Pipe()
        url = engine.url.render_as_string(hide_password=False)
        self._process: BaseProcess = _FORKS.Process(target=_reserve, args=(url, campaign, there), daemon=True)
        self._process.start()
        there.close()
        assert self._here.recv() == "ready"

    def begin(self) -> None:
        """Let it reserve until nothing is left, or it is stopped."""
        self._here.send("go")

    def end(self) -> Reserved:
        """Wait for what it took."""
        assert self._here.poll(60), "it does not end"
        reserved: Reserved = self._here.recv()
        self._process.join(60)
        return reserved


def _reserve(url: str, campaign: str, told: Connection) -> None:
    engine = sa.create_engine(url)
    taken: list[tuple[int, str]] = []
    told.send("ready")
    told.recv()
    with dispatchers.dispatcher(engine) as me:
        while True:
            with engine.begin() as connection:
                found = ledger.reserve(
                    connection, campaign=campaign, as_of=DAY, limit=40, by=me, via="inbox", cap=ledger.Cap(2, 7), at=AT
                )
            if found.stopped or not found.looked_at:
                break
            taken += [(message.id, message.key.customer_id) for message in found.messages]
            with engine.begin() as connection:
                ledger.settle(connection, [ledger.Settled(m.id, "sent") for m in found.messages], by=me, at=AT)
    told.send(Reserved(taken, found.stopped))
