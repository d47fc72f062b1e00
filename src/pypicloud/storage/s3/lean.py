"""HEAD for many objects of a bucket: signed requests over a few connections, and nothing more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from pypicloud.storage.s3.plan import END, LONGEST, Answer, Plan, Signer, parsed, stays_open


class Lean:
    """Connections for the requests of a plan, at most so many; for one thread. As a context manager, it closes them."""

    def __init__(self, plan: Plan, connections: int) -> None:
        self._plan = plan
        self._most = connections
        self._runner = asyncio.Runner()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._close())
        self._runner.close()

    def answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """What the store answers for these keys; those for which no answer came are not in it."""
        return self._runner.run(self._answers(deque(keys)))

    async def _answers(self, keys: deque[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        work = _Work(keys, found, self._plan.signer(datetime.now(UTC)))
        watch = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._worker(work) for _ in range(min(self._most, len(keys)))))
        watch.cancel()
        return found

    async def _worker(self, work: _Work) -> None:
        while work.keys:
            # A store may have closed those that waited for long.
            self._idle = [connection for connection in self._idle if connection.is_open]
            connection = self._idle.pop() if self._idle else await self._connected()
            if connection is None:
                return
            self._busy.add(connection)
            count = await connection.do(work)
            self._busy.discard(connection)
            if connection.is_open:
                self._idle.append(connection)
            elif not count:
                return

    async def _connected(self) -> _Connection | None:
        loop, plan = asyncio.get_running_loop(), self._plan
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._plan.patience):
                _, connection = await loop.create_connection(_Connection, plan.host, plan.port, ssl=plan.tls)
                return connection
        return None

    async def _watch(self) -> None:
        """End the connections over which nothing comes."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._plan.patience / 4)
            for connection in list(self._busy):
                if connection.since < now() - self._plan.patience:
                    connection.end()

    async def _close(self) -> None:
        connections = [*self._idle, *self._busy]
        for connection in connections:
            connection.end()
        await asyncio.gather(*(connection.ended for connection in connections))


@dataclass(frozen=True)
class _Work:
    """The keys that nobody has asked for yet, what was answered, and what makes the head of a request."""

    keys: deque[str]
    found: dict[str, Answer]
    head: Signer


class _Connection(asyncio.Protocol):
    """One connection, which asks for one key after the other."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._future = loop.create_future
        self.ended = loop.create_future()
        self.is_open = False
        self.since = self._now()
        self._buffer = b""
        self._count = 0
        self._key: str | None = None
        self._done: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self.is_open = True

    async def do(self, work: _Work) -> int:
        """Ask for keys until there are no more, or the connection ends; the answer is how many answers came."""
        if not self.is_open:
            return 0
        self._work, self._done, self._count = work, (done := self._future()), 0
        self._next()
        count: int = await done
        return count

    def end(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _next(self) -> None:
        self._key = self._work.keys.popleft() if self._work.keys else None
        if self._key is not None:
            self.since = self._now()
            self._transport.write(self._work.head("HEAD", self._key))
        elif self._done is not None:
            self._done.set_result(self._count)
            self._done = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(END)
        if not end and len(head) < LONGEST:
            return
        answer = parsed(head)
        if not end or rest or self._key is None or answer is None:
            # Nobody knows any more what belongs to what.
            self.end()
            return
        self._buffer = b""
        self._work.found[self._key] = answer
        self._count += 1
        if not stays_open(head, answer[1]):
            self._key = None
            self._transport.close()
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._done is not None:
            self._done.set_result(self._count)
            self._done = None
        self.ended.set_result(None)
