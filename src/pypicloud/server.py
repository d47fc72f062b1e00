"""``pypicloud serve``: the application on granian, through a small RSGI front.

What memory can answer (a project page that has not changed, asked for by a caller who is remembered) is
answered on the event loop. What may block goes to a pool of threads, which calls the same WSGI
application that waitress, gunicorn and uWSGI run; request bodies are spooled before the pool is entered,
and a response that is a local file is handed to the server's own sender after the pool is left. So slow
readers and slow uploaders hold no thread.

The short way through the loop calls the very functions that the views call: it skips the framework,
never a decision.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import io
import logging
import logging.config
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import plaster
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels
from granian.rsgi import Scope
from pyramid.router import Router

from pypicloud.access import passwords
from pypicloud.declared import check
from pypicloud.errors import PypicloudError, SettingError
from pypicloud.form import FormReader
from pypicloud.pages import Representation, choose_encoding
from pypicloud.render import negotiate
from pypicloud.request import FORM_KEY, MAX_SMALL_BODY, Application
from pypicloud.sample import render_config
from pypicloud.settings import load_ini
from pypicloud.storage.body import FileBody

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from granian._granian import RSGIHTTPProtocol as HTTPProtocol
    from granian.rsgi import Scope

LOG: Final = logging.getLogger(__name__)

#: Upload bodies are written and hashed in pieces of this size, each in one step off the loop.
SPOOL_PIECE: Final = 1 << 20

#: Where a body that is no form is cut off: nothing that reads it takes more.
MAX_PLAIN_BODY: Final = 2 * MAX_SMALL_BODY

#: Where the environment keeps what removes a spooled form.
ABANDON_KEY: Final = "pypicloud.abandon"

_PAGE: Final = "/simple/"


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
        self._spoolers = ThreadPoolExecutor(4, thread_name_prefix="spool")
        self._application: Application | None = None
        # Behind a filter of the ini file the application is not what answers: then all goes through it.
        if isinstance(wsgi, Router):
            self._application = wsgi.registry.pypicloud
            self._index = self._application.index()
            self._is_local = self._index.is_local

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that requests are answered from now on."""
        self._announce()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one request."""
        if scope.method == "GET" and scope.path.startswith(_PAGE):
            kept = self._kept(scope)
            if kept is not None:
                _send_page(protocol, kept, scope.headers.get("if-none-match"))
                return
        await self._through_pool(scope, protocol)

    def _kept(self, scope: Scope) -> Representation | None:
        """The page that memory holds for this caller, in the form asked for; None if it takes more than that."""
        application = self._application
        if application is None or not self._is_local or scope.query_string:
            return None
        headers = scope.headers
        index = self._index
        try:
            caller = application.authenticator.remembered(headers.get("authorization"), index.access)
            if caller is None:
                return None
            form = negotiate(headers.get("accept"))
            name = scope.path[len(_PAGE) :]
            page = index.kept_project(name[:-1], caller, form) if name else index.kept_projects(caller, form)
        except PypicloudError:
            # The long way meets the same error, and answers it.
            return None
        return None if page is None else page.ready(choose_encoding(headers.get("accept-encoding")))

    async def _through_pool(self, scope: Scope, protocol: HTTPProtocol) -> None:
        loop = asyncio.get_running_loop()
        environ = _environ(scope)
        try:
            if scope.method in {"GET", "HEAD"}:
                environ["wsgi.input"] = io.BytesIO()
            else:
                await self._read_body(protocol, environ, loop)
            answer = await loop.run_in_executor(self._pool, self._call, environ)
            await self._send(protocol, answer, scope.method, loop)
        except ProtocolClosed:
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
        application = self._application
        content_type = environ.get("CONTENT_TYPE", "")
        if application is None or not content_type.lower().startswith("multipart/form-data"):
            held = bytearray()
            async for chunk in protocol:
                if len(held) <= MAX_PLAIN_BODY:
                    held += chunk
            environ["wsgi.input"] = io.BytesIO(held)
            environ["CONTENT_LENGTH"] = str(len(held))
            return
        reader = FormReader(content_type, self._index.spool_directory, application.max_upload_size)
        with reader:
            piece = bytearray()
            async for chunk in protocol:
                piece += chunk
                if len(piece) >= SPOOL_PIECE:
                    await loop.run_in_executor(self._spoolers, reader.feed, bytes(piece))
                    piece.clear()
                    if reader.is_over_limit:
                        break
            await loop.run_in_executor(self._spoolers, reader.feed, bytes(piece))
        environ[FORM_KEY] = reader.finish
        environ["wsgi.input"] = io.BytesIO()
        environ["CONTENT_LENGTH"] = "0"
        environ[ABANDON_KEY] = reader.abandon

    async def _send(self, protocol: HTTPProtocol, answer: Answer, method: str, loop: asyncio.AbstractEventLoop) -> None:
        body = answer.body
        if method == "HEAD" or answer.status in {204, 304}:
            answer.close()
            protocol.response_empty(answer.status, answer.headers)
        elif isinstance(body, FileBody) and body.path is not None and body.stop is not None:
            answer.close()
            protocol.response_file_range(answer.status, answer.headers, body.path, body.start, body.stop)
        elif isinstance(body, list | tuple):
            protocol.response_bytes(answer.status, answer.headers, b"".join(body))
            answer.close()
        else:
            await self._stream(protocol, answer, loop)

    async def _stream(self, protocol: HTTPProtocol, answer: Answer, loop: asyncio.AbstractEventLoop) -> None:
        """Send a body of unknown length; each piece is made in the pool, and sent while no thread is held."""
        transport = protocol.response_stream(answer.status, answer.headers)
        pieces: Iterator[bytes] = iter(answer.body)
        try:
            while piece := await loop.run_in_executor(self._pool, next, pieces, b""):
                await transport.send_bytes(piece)
        finally:
            answer.close()


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
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if scope.authority is not None:
        # HTTP/2 says the host here.
        environ.setdefault("HTTP_HOST", scope.authority)
    return environ


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pypicloud serve``."""
    parser.add_argument(
        "config",
        nargs="?",
        help="the ini file; without it the data directory gets one, with generated keys and an administrator",
    )
    parser.add_argument("--data-dir", default="pypicloud-data", help="where all lies without a CONFIG (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="the port to listen at (%(default)s)")
    parser.add_argument("--workers", type=_positive, default=1, help="processes that answer requests (%(default)s)")
    parser.add_argument("--threads", type=_positive, default=8, help="threads of each process (%(default)s)")
    parser.add_argument("--tls-cert", type=Path, help="a certificate chain (PEM); with it HTTPS and HTTP/2 are served")
    parser.add_argument("--tls-key", type=Path, help="the certificate's private key (PEM)")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="how to log; default: as the ini file says, else text"
    )
    parser.add_argument("--access-log", action="store_true", help="log every request")
    parser.add_argument(
        "--stop-timeout",
        type=_positive,
        default=30,
        help="seconds that running uploads and downloads get to finish after SIGTERM (%(default)s)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it; the exit status. Raises :class:`SettingError` for what stops the start."""
    from granian import Granian  # noqa: PLC0415 - granian reads its own settings when it is imported

    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise SettingError("--tls-cert", "goes with --tls-key; give both or neither")
    for file in filter(None, (arguments.tls_cert, arguments.tls_key)):
        if not file.is_file():
            raise SettingError("--tls-cert", "there is no such file", value=str(file))
    config = Path(arguments.config) if arguments.config else first_start(Path(arguments.data_dir))
    _, errors = check(load_ini(str(config)))
    if errors:
        raise errors[0]
    scheme = "http" if arguments.tls_cert is None else "https"
    server = Granian(
        "pypicloud",
        address=arguments.host,
        port=arguments.port,
        interface=Interfaces.RSGI,
        workers=arguments.workers,
        loop=Loops.asyncio,
        http=HTTPModes.http1 if arguments.tls_cert is None else HTTPModes.auto,
        websockets=False,
        log_level=LogLevels.warning,
        log_access=arguments.access_log,
        ssl_cert=arguments.tls_cert,
        ssl_key=arguments.tls_key,
        workers_kill_timeout=arguments.stop_timeout,
    )
    loader = functools.partial(
        _load,
        str(config),
        arguments.threads,
        arguments.log_format,
        f"{scheme}://{_shown_host(arguments.host)}:{arguments.port}",
    )
    server.serve(target_loader=cast("Any", loader), wrap_loader=False)
    return 0


def _load(config: str, threads: int, log_format: str | None, url: str) -> Front:
    """The front, made in a worker process."""
    _set_up_logging(config, log_format)
    try:
        app = plaster.get_loader(config, protocols=["wsgi"]).get_wsgi_app()
    except PypicloudError as error:
        sys.exit(f"pypicloud: {error}")
    return Front(app, threads, functools.partial(_announce, url))


def _announce(url: str) -> None:
    print(  # noqa: T201 - this is the command's output
        f"Serving at {url}/\n  pip config set global.index-url {url}/simple/\n  export UV_DEFAULT_INDEX={url}/simple/",
        flush=True,
    )


def _shown_host(host: str) -> str:
    """A host that a client can be told: the wildcard addresses are none."""
    if host in {"0.0.0.0", "::", "127.0.0.1", "::1"}:  # noqa: S104 - compared, not bound
        return "localhost"
    return f"[{host}]" if ":" in host else host


def first_start(directory: Path) -> Path:
    """The ini file of a data directory. The first time it is made, with keys and an administrator.

    The generated password is printed this once and stored nowhere.
    """
    config = directory / "server.ini"
    if config.exists():
        return config
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_urlsafe(12)
        text = render_config("serve", admin="admin", password_hash=passwords.hash(password))
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError("--data-dir", f"cannot be used: {error.strerror}", value=str(directory)) from error
    print(  # noqa: T201 - this is the command's output
        f"Made {config}.\nThe administrator is user 'admin' with password '{password}'. It is shown only now: keep it.",
        flush=True,
    )
    return config


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (UTC, ISO 8601), level, logger, message, and the trace if there is one."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def _set_up_logging(config: str, log_format: str | None) -> None:
    """Log as the ini file's sections say, or to standard error in a format that was asked for."""
    loader = plaster.get_loader(config, protocols=["wsgi"])
    if log_format is None and "loggers" in loader.get_sections():
        loader.setup_logging({"disable_existing_loggers": False})
        return
    handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("_granian", "granian.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
