"""``pypicloud serve``: the application on granian, and the first start without a config file."""

from __future__ import annotations

import argparse
import functools
import logging
import logging.config
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import plaster
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

from pypicloud.access import passwords
from pypicloud.declared import check
from pypicloud.errors import PypicloudError, SettingError
from pypicloud.front import Front
from pypicloud.sample import render_config
from pypicloud.settings import load_ini


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
        loop=Loops.auto,
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
        return Front(app, threads, functools.partial(_announce, url))
    except PypicloudError as error:
        sys.exit(f"pypicloud: {error}")


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
