"""A reverse proxy that writes down what a client asks and what it gets, and can bend either a little."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import ClassVar

from support.live import LOOPBACK, PATIENCE, free_port


@dataclass(frozen=True)
class Exchange:
    """A request and the answer to it; ``size`` is the number of bytes in the answer's body."""

    method: str
    path: str
    request: Message
    status: int
    response: Message
    size: int

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


class Recorder:
    """The proxy: ``exchanges`` is the log, in the order of the answers.

    ``overrides`` are headers that every request is given in place of its own. ``cut``, if it is set, is
    asked for each exchange after how many bytes of the body the connection is to break; None for never.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.exchanges: list[Exchange] = []
        self.overrides: Mapping[str, str] = {}
        self.cut: Callable[[Exchange], int | None] = lambda _: None

    def url_for(self, user: str) -> str:
        """The address with a user's credentials in it."""
        return self.url.replace("://", f"://{user}:{user * 2}@")

    def lines(self) -> list[str]:
        """The log as text, in the order of the answers."""
        return [str(exchange) for exchange in self.exchanges]

    def forget(self) -> None:
        """Begin a new log."""
        self.exchanges.clear()


@dataclass
class _Forwarded:
    status: int
    reason: str
    headers: Message
    body: bytes = field(repr=False)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Answers leave in one piece and at once: pip waits for each (standards.md 1.6).
    wbufsize = -1
    disable_nagle_algorithm = True
    recorder: ClassVar[Recorder]

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self._ask(body)
        exchange = Exchange(self.command, self.path, self.headers, answer.status, answer.headers, len(answer.body))
        self.recorder.exchanges.append(exchange)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.recorder.cut(exchange)
        self.wfile.write(answer.body[:cut])
        self.close_connection |= cut is not None

    def _ask(self, body: bytes) -> _Forwarded:
        overrides = {name.lower(): value for name, value in self.recorder.overrides.items()}
        connection = http.client.HTTPConnection(LOOPBACK, self.recorder.target, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in overrides:
                    connection.putheader(name, value)
            for name, value in overrides.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return _Forwarded(response.status, response.reason, response.headers, response.read())

    do_GET = do_HEAD = do_POST = do_DELETE = _forward  # noqa: N815 - the names are http.server's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Keep quiet: the log is elsewhere."""


@contextlib.contextmanager
def recording(target: int) -> Iterator[Recorder]:
    """A recorder in front of a port, until the end of the block."""
    recorder = Recorder(target)
    handler = type("Handler", (_Handler,), {"recorder": recorder})
    with http.server.ThreadingHTTPServer((LOOPBACK, recorder.port), handler) as server:
        # A client that keeps its connection open does not keep the test from ending.
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
