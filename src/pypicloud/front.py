"""The RSGI front of the application: what runs inside ``pypicloud serve``.

What memory can answer (a project page that has not changed, the redirect to a file in an object store;
asked for by a caller who is remembered) is answered on the event loop; where the cache is not local, it is
asked for the revisions of all pages that are wanted at the moment together. What may block goes to a pool of
threads, which calls the same WSGI application that waitress, gunicorn and uWSGI run; request bodies are
spooled before the pool is entered, and a response that is a local file is handed to the server's own sender
after the pool is left. So slow
readers and slow uploaders hold no thread.

The short way through the loop calls the very functions that the views call: it skips the framework,
never a decision.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope
from pyramid.router import Router

from pypicloud.errors import BackendUnavailable, PypicloudError, SettingError
from pypicloud.form import FormReader
from pypicloud.pages import Representation, choose_encoding
from pypicloud.pipe import Pipe, beginning
from pypicloud.render import negotiate
from pypicloud.request import CALLER_KEY, FORM_KEY, MAX_SMALL_BODY, Application
from pypicloud.revisions import Revisions
from pypicloud.storage.body import FileBody

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from granian._granian import RSGIHTTPProtocol as HTTPProtocol

LOG: Final = logging.getLogger(__name__)

#: Upload bodies are written and hashed in pieces of this size, each in one step off the loop.
SPOOL_PIECE: Final = 1 << 20

#: Where a body that is no form is cut off: nothing that reads it takes more.
MAX_PLAIN_BODY: Final = 2 * MAX_SMALL_BODY

#: How many seconds may pass without a byte of a body; then its sender is taken for gone.
BODY_PATIENCE: Final = 60.0

#: Where the environment keeps what removes a spooled form.
ABANDON_KEY: Final = "pypicloud.abandon"

_PAGE: Final = "/simple/"
_FILE: Final = "/api/package/"

#: How many may ask at a time how the server is, while all other threads wait for a backend that does not answer.
CHECKUPS: Final = 4

_HEALTH: Final = "/health"


@dataclass(slots=True)
class Answer:
    """What the WSGI application answered, before any of it is sent."""

    status: int = 500
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] = ()

    def start(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], Any]:
        """``start_response`` of PEP 3333."""
        self.status = int(status.split(" ", 1)[0])
        self.headers = [(name.lower(), value) for name, value in headers]
        return _no_write

    def close(self) -> None:
        """Release what the body holds."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


def _no_write(_: bytes) -> None:
    raise NotImplementedError("the write callable of PEP 3333 is deprecated and not offered")


class Front:
    """An RSGI application around a WSGI application."""

    def __init__(self, wsgi: WSGIApplication, threads: int, announce: Callable[[], None] = lambda: None) -> None:
        self._wsgi = wsgi
        self._announce = announce
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._checkups = ThreadPoolExecutor(CHECKUPS, thread_name_prefix="checkup")
        self._spoolers = ThreadPoolExecutor(4, thread_name_prefix="spool")
        self._router = _router(wsgi)
        self._application: Application = self._router.registry.pypicloud
        self._index = self._application.index()
        # Behind a filter of the ini file the application is not what answers: then all goes through it.
        cache, is_short = self._index.cache, self._router is wsgi and self._index.access.is_local
        self._redirects = is_short and not self._application.stream_files
        # A question for each request would cost more on this way than on the long one.
        self._keeps_pages = is_short and (cache.is_local or cache.shares_questions)
        # The server's sender opens a file anew: that is for files that nobody may have replaced meanwhile.
        self._sends_files = self._application.files_are_immutable
        self._revisions = Revisions(cache.revisions) if cache.shares_questions else None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that requests are answered from now on."""
        self._announce()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one request."""
        if scope.method == "GET":
            # Each look at the scope makes the value anew.
            path, headers = scope.path, scope.headers
            if path.startswith(_PAGE) and path.endswith("/"):
                kept = await self._kept(path, scope.query_string, headers)
                if kept is not None:
                    _send_page(protocol, kept, headers.get("if-none-match"))
                    return
            elif path.startswith(_FILE):
                location = self._location(path, headers)
                if location is not None:
                    protocol.response_empty(302, [("location", location), ("cache-control", "no-store")])
                    return
        await self._through_pool(scope, protocol)

    async def _kept(self, path: str, query: str, headers: Any) -> Representation | None:
        """The page that memory holds for this caller, in the form asked for; None if it takes more than that."""
        if not self._keeps_pages or query:
            return None
        index = self._index
        try:
            caller = self._application.authenticator.remembered(headers.get("authorization"), index.access)
            if caller is None:
                return None
            form = negotiate(headers.get("accept"))
            name = path[len(_PAGE) : -1] or None
            if not index.keeps(name, caller, form):
                return None
            revision = await self._revisions.of(name) if self._revisions else index.cache.revision(name)
            page = index.kept(name, caller, form, revision)
        except PypicloudError:
            # The long way meets the same error, and answers it.
            return None
        return None if page is None else page.ready(choose_encoding(headers.get("accept-encoding")))

    def _location(self, path: str, headers: Any) -> str | None:
        """Where a download is redirected to, if memory knows it; None if it takes more than that."""
        name, _, filename = path[len(_FILE) :].partition("/")
        if not self._redirects or not filename or "/" in filename:
            return None
        try:
            caller = self._application.authenticator.remembered(headers.get("authorization"), self._index.access)
            return None if caller is None else self._index.kept_location(caller, name, filename)
        except PypicloudError:
            # The long way meets the same error, and answers it.
            return None

    async def _through_pool(self, scope: Scope, protocol: HTTPProtocol) -> None:
        loop = asyncio.get_running_loop()
        environ = _environ(scope)
        try:
            try:
                await self._read_body(protocol, environ, loop)
            except TimeoutError:
                LOG.info("%s %r: the body stopped coming", scope.method, scope.path)
                protocol.response_empty(408, [("connection", "close")])
                return
            pool = self._checkups if scope.path == _HEALTH else self._pool
            answer = await loop.run_in_executor(pool, self._call, environ)
            await self._send(protocol, answer, scope.method, loop)
        except (ProtocolClosed, BrokenPipeError):
            LOG.info("%s %r: the client went away", scope.method, scope.path)

    def _call(self, environ: WSGIEnvironment) -> Answer:
        answer = Answer()
        try:
            answer.body = self._wsgi(environ, answer.start)
        finally:
            # A form that no view asked for is still spooled.
            if ABANDON_KEY in environ:
                environ[ABANDON_KEY]()
        return answer

    async def _read_body(
        self, protocol: HTTPProtocol, environ: WSGIEnvironment, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Take the body in: a form is spooled to disk and hashed, anything else is small and held."""
        is_reading = environ["REQUEST_METHOD"] in {"GET", "HEAD"}
        if is_reading and "CONTENT_LENGTH" not in environ and "HTTP_TRANSFER_ENCODING" not in environ:
            environ["wsgi.input"] = io.BytesIO()
            return
        limit = self._application.max_upload_size
        content_type = environ.get("CONTENT_TYPE", "")
        if is_reading or not content_type.lower().startswith("multipart/form-data"):
            await self._hold(protocol, environ, 2 * limit)
            return
        is_wanted = await loop.run_in_executor(self._pool, self._is_wanted, environ)
        with FormReader(content_type, self._index.spool_directory, limit, is_wanted=is_wanted) as reader:
            await self._feed(reader, protocol, loop)
        environ[FORM_KEY] = reader.finish
        environ[ABANDON_KEY] = reader.abandon
        environ["wsgi.input"] = io.BytesIO()
        environ["CONTENT_LENGTH"] = "0"

    def _is_wanted(self, environ: WSGIEnvironment) -> bool:
        """Whether an upload of this sender can come to anything; one that cannot is read, but not kept."""
        request = self._router.request_factory(environ)
        request.registry = self._router.registry
        try:
            environ[CALLER_KEY] = request.caller
            return bool(request.access.may_write_something(request.caller))
        except PypicloudError:
            # The application meets the same error, and answers it.
            return False

    async def _hold(self, protocol: HTTPProtocol, environ: WSGIEnvironment, limit: int) -> None:
        """Keep a small body in memory; of a larger one enough to tell that it is, and the rest is read and dropped."""
        held = bytearray()
        received = 0
        chunks = aiter(protocol)
        while (chunk := await _next(chunks)) is not None:
            received += len(chunk)
            if received > limit:
                break
            if len(held) <= MAX_PLAIN_BODY:
                held += chunk
        environ["wsgi.input"] = io.BytesIO(held)
        environ["CONTENT_LENGTH"] = str(len(held))

    async def _feed(self, reader: FormReader, protocol: HTTPProtocol, loop: asyncio.AbstractEventLoop) -> None:
        """Feed a form in pieces: while one is written and hashed, the next arrives."""
        piece = bytearray()
        written = loop.create_future()
        written.set_result(None)
        chunks = aiter(protocol)
        try:
            while (chunk := await _next(chunks)) is not None:
                piece += chunk
                if len(piece) >= SPOOL_PIECE:
                    await written
                    if reader.is_over_limit:
                        return
                    written = loop.run_in_executor(self._spoolers, reader.feed, piece)
                    piece = bytearray()
        finally:
            await written
        await loop.run_in_executor(self._spoolers, reader.feed, piece)

    async def _send(self, protocol: HTTPProtocol, answer: Answer, method: str, loop: asyncio.AbstractEventLoop) -> None:
        body = answer.body
        if method == "HEAD" or answer.status in {204, 304} or _is_empty(body):
            answer.close()
            protocol.response_empty(answer.status, answer.headers)
        elif self._sends_files and isinstance(body, FileBody) and body.path is not None and body.stop is not None:
            answer.close()
            protocol.response_file_range(answer.status, answer.headers, body.path, body.start, body.stop)
        elif isinstance(body, list | tuple):
            protocol.response_bytes(answer.status, answer.headers, b"".join(body))
            answer.close()
        else:
            await self._stream(protocol, answer, loop)

    async def _stream(self, protocol: HTTPProtocol, answer: Answer, loop: asyncio.AbstractEventLoop) -> None:
        """Stream a body of any length as fast as the client reads it; what waits for the client holds no thread."""
        has_begun = False
        try:
            pieces = iter(answer.body)
            first, is_more = await loop.run_in_executor(self._pool, beginning, pieces)
            has_begun = True
            if not is_more:
                protocol.response_bytes(answer.status, answer.headers, first)
                return
            pour = (answer.body.pour,) if isinstance(answer.body, FileBody) else ()
            with contextlib.closing(Pipe(itertools.chain([first], pieces), *pour)) as pipe:
                protocol.response_file(answer.status, answer.headers, pipe.path)
                while await loop.run_in_executor(self._pool, pipe.pump):
                    await pipe.wait()
        except BackendUnavailable as error:
            LOG.warning("A file cannot be sent to its end: %s", error.message)
            # A client that has got a part sees that it is shorter than was said.
            if not has_begun:
                protocol.response_empty(error.status, [("retry-after", str(error.retry_after or 1))])
        finally:
            answer.close()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    """The next chunk of a body, None at its end. Raises :class:`TimeoutError` when it does not come."""
    # Not anext(chunks, None): the wrapper that makes for the default crashes on what granian hands out.
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            return await anext(chunks)
    except StopAsyncIteration:
        return None


def _is_empty(body: Iterable[bytes]) -> bool:
    """Whether no byte of a file is to be sent, which granian's sender takes for a mistake."""
    return isinstance(body, FileBody) and body.start == body.stop


def _router(wsgi: Any) -> Router:
    """The application inside the filters of an ini file, which keep what they wrap as ``app`` or ``application``."""
    while not isinstance(wsgi, Router):
        wsgi = getattr(wsgi, "app", None) or getattr(wsgi, "application", None)
        if wsgi is None:
            raise SettingError("filter-with", "wraps the application so that it cannot be found; serve it with pserve")
    return wsgi


def _send_page(protocol: HTTPProtocol, page: Representation, if_none_match: str | None) -> None:
    if if_none_match is not None and page.is_known_to(if_none_match):
        protocol.response_empty(304, page.headers)
    else:
        protocol.response_bytes(200, page.headers, page.body)


def _environ(scope: Scope) -> WSGIEnvironment:
    """The WSGI environment of an RSGI request (PEP 3333)."""
    host, _, port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        if "_" in name:
            # In the environment X_Forwarded_For could not be told from X-Forwarded-For, which a proxy vouches for.
            continue
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if scope.authority is not None:
        # HTTP/2 says the host here.
        environ.setdefault("HTTP_HOST", scope.authority)
    return environ
