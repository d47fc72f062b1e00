"""A network between a client and a service: it can be slow, break and hang, and counts what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from support.live import LOOPBACK, PATIENCE

Direction = Literal["requests", "answers"]

_CHUNK: Final = 1 << 16

#: A socket with this option is closed with a reset, as a machine does that knows nothing of the connection.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """A client's connection, ours to the service, and whether the client waits for an answer."""

    client: asyncio.StreamWriter
    service: asyncio.StreamWriter
    waiting: bool = False

    def reset(self) -> None:
        for writer in (self.client, self.service):
            _reset(writer)


class Proxy:
    """A port of the loopback address whose connections are passed on to a service's port.

    As a context manager it runs until the end of the block. ``latency`` is how long each piece of data takes on
    its way, in seconds. ``connections`` counts them, and ``round_trips`` how often a client had to wait: it sent
    something for the first time, or for the first time since an answer.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.latency = 0.0
        self.connections = 0
        self.round_trips = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._budget: tuple[Direction, int] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def through(self, url: str) -> str:
        """A URL of the service, changed so that it leads through here."""
        direct = f"{LOOPBACK}:{self.target}"
        if direct not in url:
            raise ValueError(f"{url} does not lead to {direct}")
        return url.replace(direct, f"{LOOPBACK}:{self.port}")

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""

        async def cut() -> None:
            self._cut()

        self._run(cut())

    def cut_after(self, count: int, direction: Direction) -> None:
        """Let so many more bytes pass in a direction, then reset every connection, once."""

        async def set_budget() -> None:
            self._budget = (direction, count)

        self._run(set_budget())

    def hang(self) -> None:
        """Pass nothing on any more; connections stay open, and new ones are accepted."""

        async def hang() -> None:
            self._flowing.clear()

        self._run(hang())

    def resume(self) -> None:
        """Pass on again, beginning with what was held back."""

        async def resume() -> None:
            self._flowing.set()

        self._run(resume())

    def _run(self, task: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(task, self._loop).result(PATIENCE)

    async def _open(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._cut()
        self._flowing.set()
        # What passes data on ends by itself now, some of it in the middle of writing.
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            answers, service = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            # A service that is away refuses; this is as near to that as an accepted connection gets.
            _reset(client)
            return
        link = _Link(client, service)
        self._links.add(link)
        try:
            await asyncio.gather(self._pass(link, reader, "requests"), self._pass(link, answers, "answers"))
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)
            client.close()
            service.close()

    async def _pass(self, link: _Link, reader: asyncio.StreamReader, direction: Direction) -> None:
        """Pass on what comes in one direction until its end."""
        writer = link.service if direction == "requests" else link.client
        while data := await reader.read(_CHUNK):
            if direction == "requests" and not link.waiting:
                self.round_trips += 1
            link.waiting = direction == "requests"
            if self.latency:
                await asyncio.sleep(self.latency)
            await self._flowing.wait()
            allowed = self._spend(len(data), direction)
            writer.write(data[:allowed])
            await writer.drain()
            if allowed < len(data):
                self._cut()
                return
        if not writer.transport.is_closing():
            writer.write_eof()

    def _spend(self, count: int, direction: Direction) -> int:
        """How many of the bytes may pass before everything is cut."""
        if self._budget is None or self._budget[0] != direction:
            return count
        left = self._budget[1] - count
        self._budget = (direction, left) if left >= 0 else None
        return count + min(left, 0)

    def _cut(self) -> None:
        for link in self._links:
            link.reset()


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
