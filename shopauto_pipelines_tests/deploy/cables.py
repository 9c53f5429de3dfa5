"""The network between a machine and the database, as a process of a test sees it: a port of its own that leads there.

A cable can be frozen, so that neither side hears of the other and neither knows; be given up by the server, as its keepalives
do after a minute; be healed; and be cut, so that both sides know at once. Each needs a place in a network of its own to be had
otherwise, and the rights to make one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

_T = TypeVar("_T")


class Cable:
    """A port that leads to a server's Unix socket."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server = self._do(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Let nothing through any more, in either direction. New connections wait."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def give_up(self) -> int:
        """The server's side of every connection ends, and the other side does not hear of it; returns how many did."""

        async def end() -> int:
            assert not self._flows.is_set()
            alive = [line for line in self._lines if not line.given_up]
            for line in alive:
                line.give_up()
            return len(alive)

        return self._do(end())

    def heal(self) -> None:
        """Let everything through that waits. Who has been given up is told so now."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def cut(self) -> int:
        """Both sides of every connection find it broken; returns how many there were. New connections are made."""

        async def end() -> int:
            lines = [*self._lines]
            for line in lines:
                line.cut()
            return len(lines)

        return self._do(end())

    def __enter__(self) -> Cable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def end() -> None:
            self._server.close()
            self._flows.set()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _do(self, what: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        try:
            there = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, there[1])
        self._lines.add(line)
        try:
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        finally:
            line.cut()
            self._lines.discard(line)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        await self._flows.wait()
        writer.close()


class _Line:
    """One connection through a cable."""

    def __init__(self, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self._here, self._there = here, there
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True
        self._there.transport.abort()

    def cut(self) -> None:
        with suppress(OSError):  # a reset, not a farewell
            self._here.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._here.transport.abort()
        self._there.transport.abort()
