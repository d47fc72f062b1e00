"""``pypicloud serve``: the application on granian, and the first start without a config file."""

from __future__ import annotations

import argparse
import functools
import logging
import logging.config
import os
import resource
import secrets
import signal
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import plaster
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels

from pypicloud.access import passwords
from pypicloud.declared import check
from pypicloud.errors import PypicloudError, SettingError
from pypicloud.front import Front
from pypicloud.ini import load_ini
from pypicloud.sample import render_config

#: The most bytes that the headers of a request may have.
MAX_HEADERS: Final = 64 << 10

#: How many files and connections a worker may have open, if the system lets it.
MOST_FILES: Final = 32768


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pypicloud serve``."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="the ini file; without it the data directory gets one, with generated keys and an administrator",
    )
    parser.add_argument("--data-dir", default="pypicloud-data", help="where all lies without a CONFIG (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0 for all (%(default)s)")
    parser.add_argument("--port", type=_port, default=8080, help="the port to listen at (%(default)s)")
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
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 1 to 65535")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it; the exit status. Raises :class:`SettingError` for what stops the start."""
    from granian import Granian  # Granian reads its own settings when it is imported.

    _check_certificate(arguments.tls_cert, arguments.tls_key)
    address = _free_address(arguments.host, arguments.port)
    config = Path(arguments.config) if arguments.config else first_start(Path(arguments.data_dir))
    _, errors = check(load_ini(str(config)))
    if errors:
        raise errors[0]
    scheme = "http" if arguments.tls_cert is None else "https"
    server = Granian(
        "pypicloud",
        address=address,
        port=arguments.port,
        interface=Interfaces.RSGI,
        workers=arguments.workers,
        loop=Loops.auto,
        http=HTTPModes.http1 if arguments.tls_cert is None else HTTPModes.auto,
        websockets=False,
        log_level=LogLevels.warning,
        log_access=arguments.access_log,
        ssl_cert=arguments.tls_cert,
        ssl_key=arguments.tls_key,
        ssl_protocol_min=SSLProtocols.tls12,
        workers_kill_timeout=arguments.stop_timeout,
        # One that was killed, for lack of memory for example, must not end the others.
        respawn_failed_workers=True,
        backpressure=_most_connections(),
        http1_settings=HTTP1Settings(max_buffer_size=MAX_HEADERS),
        http2_settings=HTTP2Settings(max_headers_size=MAX_HEADERS),
    )
    url = f"{scheme}://{_shown_host(arguments.host)}:{arguments.port}"
    with tempfile.TemporaryDirectory(prefix="pypicloud-") as directory:
        beginning = Beginning(directory)
        loader = functools.partial(_load, str(config), arguments.threads, arguments.log_format, url, beginning)
        server.serve(target_loader=cast("Any", loader), wrap_loader=False)
        return 1 if beginning.has_failed else 0


class Beginning:
    """The first start, as the workers and their parent know it.

    Until one worker serves, one that cannot start ends them all; after that it is started again, however
    long what it needs is away.
    """

    def __init__(self, directory: str) -> None:
        self._served = Path(directory, "served")
        self._failed = Path(directory, "failed")
        self._parent = os.getpid()

    def serve(self) -> None:
        """Note, in a worker, that it serves."""
        self._served.touch()

    def fail(self) -> None:
        """Note, in a worker, that it cannot start."""
        if not self._served.exists():
            self._failed.touch()
            os.kill(self._parent, signal.SIGTERM)

    @property
    def has_failed(self) -> bool:
        """Whether no worker ever served."""
        return self._failed.exists()


def _check_certificate(cert: Path | None, key: Path | None) -> None:
    """Raise :class:`SettingError` unless HTTPS can be served with these two, or is not wanted."""
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise SettingError("--tls-cert", "goes with --tls-key; give both or neither")
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise SettingError(option, f"cannot be read: {error.strerror}", value=str(file)) from error
    try:
        # With a password, if an empty one, nobody is asked for it.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        reason = f"is no certificate chain (PEM) of the key in {str(key)!r}, which must not have a password"
        raise SettingError("--tls-cert", reason, value=str(cert)) from error


def _free_address(host: str, port: int) -> str:
    """The IP address of a host that this server can listen at. Raises :class:`SettingError` if it cannot.

    The workers share their port with anybody who asks for that, so two servers at one port would each
    get some of the requests, and neither would complain.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SettingError("--host", f"is no address: {error.strerror}", value=host) from error
    with socket.socket(family, kind) as probe:
        # A port whose last connections are still winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            where = f"{_shown_host(host)}:{port}"
            reason = f"cannot listen at {where}: {error.strerror}; choose another with --host or --port"
            raise PypicloudError(reason) from error
    return str(address[0])


def _most_connections() -> int:
    """How many clients a worker may be connected with: each is a file to the system, and half are for other files.

    Beyond that granian accepts nobody, however little those who are connected do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MOST_FILES:
        soft = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(soft, MOST_FILES) // 2 if soft != resource.RLIM_INFINITY else MOST_FILES // 2


def _load(config: str, threads: int, log_format: str | None, url: str, beginning: Beginning) -> Front:
    """The front, made in a worker process."""
    _set_up_logging(config, log_format)
    try:
        app = plaster.get_loader(config, protocols=["wsgi"]).get_wsgi_app()
        return Front(app, threads, functools.partial(_announce, url, beginning))
    except PypicloudError as error:
        # What clients are not told, the operator must know: the driver's own words, without the query.
        cause = (
            str(error.__cause__).partition("\n")[0] if error.__cause__ and not isinstance(error, SettingError) else ""
        )
        beginning.fail()
        sys.exit(f"pypicloud: {error}" + (f": {cause}" if cause else ""))


def _announce(url: str, beginning: Beginning) -> None:
    beginning.serve()
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
        password = secrets.token_hex(10)
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


def one_line(record: logging.LogRecord) -> bool:
    """Keep a record to its line: the path in granian's access log is the client's, line breaks included."""
    record.msg = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in record.getMessage())
    record.args = ()
    return True


def _set_up_logging(config: str, log_format: str | None) -> None:
    """Log as the ini file's sections say, or to standard error in a format that was asked for."""
    logging.getLogger("granian.access").addFilter(one_line)
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
