"""A network between a client and a service: it can be slow, break and hang, and counts what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from support.live import LOOPBACK, PATIENCE

Direction = Literal["requests", "answers"]

_CHUNK: Final = 1 << 16

#: How a request begins.
_REQUEST: Final = re.compile(rb"[A-Z]+ /")

#: Where a request ends whose body comes in pieces that say how long they are.
_LAST_PIECE: Final = b"\r\n0\r\n\r\n"

#: A socket with this option is closed with a reset, as a machine does that knows nothing of the connection.
_RESET: Final = struct.pack("ii", 1, 0)


def http_answer(status: str, body: str, **headers: str) -> bytes:
    """An answer of HTTP as it is sent, after which the connection ends; ``_`` stands for a dash in a header's name."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body.encode())}", "Connection: close", "", body]
    return "\r\n".join(head).encode()


#: What the services say when they want less to do.
S3_BUSY: Final = http_answer(
    "503 Slow Down",
    "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    Content_Type="application/xml",
)
GCS_BUSY: Final = http_answer(
    "429 Too Many Requests",
    '{"error": {"code": 429, "message": "Too many requests.", "errors": [{"reason": "rateLimitExceeded"}]}}',
    Content_Type="application/json",
)
AZURE_BUSY: Final = http_answer(
    "503 Server Busy",
    "<Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>",
    Content_Type="application/xml",
    x_ms_error_code="ServerBusy",
)


@dataclass
class _Refusal:
    """What so many requests are answered with that begin in a certain way."""

    answer: bytes
    left: int
    beginning: bytes


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
    something for the first time, or for the first time since an answer. ``refused`` counts the requests that
    :meth:`refuse` was about. With ``tls`` it is reached by TLS.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self._tls = tls
        self.port = 0
        self.latency = 0.0
        self.connections = 0
        self.round_trips = 0
        self.refused = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._budget: tuple[Direction, int] | None = None
        self._refusal: _Refusal | None = None

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

    def refuse(self, count: int, answer: bytes = S3_BUSY, beginning: str = "") -> None:
        """Answer so many of the next requests of HTTP ourselves: those that begin so (``PUT /bucket``)."""

        async def refuse() -> None:
            self._refusal = _Refusal(answer, count, beginning.encode())

        self._run(refuse())

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
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, ssl=self._tls)
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
            if direction == "requests" and not link.waiting and (answer := self._answer(data)):
                await _read_request(reader, data)
                link.client.write(answer)
                link.client.write_eof()
                link.service.close()
                return
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
        if writer.can_write_eof() and not writer.transport.is_closing():
            writer.write_eof()

    def _answer(self, request: bytes) -> bytes | None:
        """What is to be answered in place of the service."""
        refusal = self._refusal
        if refusal is None or not refusal.left or not request.startswith(refusal.beginning):
            return None
        if not _REQUEST.match(request):
            # The body of a request for which the service gave leave.
            return None
        refusal.left -= 1
        self.refused += 1
        return refusal.answer

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


async def _read_request(reader: asyncio.StreamReader, data: bytes) -> None:
    """Read a request to its end: who gets an answer before that may never see it."""
    while b"\r\n\r\n" not in data and (more := await reader.read(_CHUNK)):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = head.lower()
    if b"expect: 100-continue" in fields:
        # The client waits for leave to send the rest.
        return
    if b"transfer-encoding: chunked" in fields:
        while not (b"\r\n" + body).endswith(_LAST_PIECE) and (more := await reader.read(_CHUNK)):
            body = body[-len(_LAST_PIECE) :] + more
        return
    match = re.search(rb"\ncontent-length: *(\d+)", fields)
    left = int(match[1]) - len(body) if match else 0
    while left > 0 and (more := await reader.read(_CHUNK)):
        left -= len(more)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
