"""A server of HTTP in a thread of this process, for what stands in front of a real service."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from support.live import LOOPBACK, PATIENCE


@dataclass(frozen=True)
class Question:
    """A request as it came; ``path`` and ``query`` are still encoded."""

    method: str
    path: str
    query: str
    headers: Message
    body: bytes

    @property
    def words(self) -> dict[str, str]:
        """The decoded parameters of the query."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True)
class Reply:
    """What to answer; in place of the body there can be pieces, which need their Content-Length among the headers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] = ()


class Web:
    """A port of the loopback address that answers what :meth:`answer` says.

    Where that raises :class:`OSError` the connection is broken off. As a context manager it runs until the end of
    the block.
    """

    def __init__(self) -> None:
        class Handler(_Handler):
            """The requests of this server."""

            web = self

        class Server(http.server.ThreadingHTTPServer):
            """One that many clients can come to at once, and that does not wait until they have gone."""

            request_queue_size = 256
            daemon_threads = True
            block_on_close = False

        self._server = Server((LOOPBACK, 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The address of the server, without a final slash."""
        return f"http://{LOOPBACK}:{self.port}"

    def answer(self, question: Question) -> Reply:
        """What to say to a request."""
        raise NotImplementedError

    def open(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(PATIENCE)
        self._server.server_close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    web: ClassVar[Web]

    def handle(self) -> None:
        # A client that breaks off is what some tests are about.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().finish()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        address = urlsplit(self.path)
        question = Question(self.command, address.path, address.query, self.headers, self._body())
        try:
            reply = self.web.answer(question)
        except OSError:
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        headers = dict(reply.headers)
        headers.setdefault("Content-Length", str(len(reply.body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
            self.wfile.writelines(reply.pieces)
        self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self._read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            """What follows the last piece means nothing here."""
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionError("the client broke off")
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Keep quiet."""
