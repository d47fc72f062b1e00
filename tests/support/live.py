"""A server as its users run it: a process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.world import basic, settings

LOOPBACK: Final = "127.0.0.1"

#: How long a server may take to answer for the first time, and to end, in seconds; a busy machine is slow.
PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Installation:
    """A Python environment with the package and every server that can run it."""

    python: Path

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """The command line of a console script of this environment."""
        if self.python.with_name(name).exists():
            return [str(self.python.with_name(name)), *map(str, arguments)]
        # The servers of other people are not in the wheel's environment, which sees their packages all the same.
        module, _, function = _SCRIPTS[name].partition(":")
        code = f"import sys; from {module} import {function} as run; sys.argv[0] = {name!r}; sys.exit(run())"
        return [str(self.python), "-c", code, *map(str, arguments)]


_SCRIPTS: Final = {
    "gunicorn": "gunicorn.app.wsgiapp:run",
    "pserve": "pyramid.scripts.pserve:main",
    "uwsgi": "pyuwsgi:run",
}


def install(directory: Path) -> Installation:
    """The installation under test: the wheel that ``PYPICLOUD_WHEEL`` names, else what runs the tests.

    The wheel goes into an environment of its own, which finds only what it depends on among the packages
    that run the tests: so nothing has to be downloaded.
    """
    wheel = os.environ.get("PYPICLOUD_WHEEL")
    if not wheel:
        return Installation(Path(sys.executable))
    python = directory / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--isolated", "--quiet"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True, env=clean_environment())
    packages = next(directory.glob("lib/python*/site-packages"))
    others = [Path(path) for path in sys.path if path.endswith("site-packages")]
    # The .pth files in a folder that is named in one are left alone, so that an editable install stays unseen.
    # Only the one that measures the coverage of new processes is wanted; they are read in alphabetical order.
    (packages / "a0_dependencies.pth").write_text("".join(f"{path}\n" for path in others))
    for measuring in (found for path in others for found in path.glob("a1_coverage.pth")):
        shutil.copy(measuring, packages)
    return Installation(python)


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment of this process without anything that configures pip, uv, a server or a proxy."""
    ambient = ("PIP_", "UV_", "PPC_", "PYTHON", "TWINE_", "POETRY_", "HATCH_", "PDM_", "FLIT_", "VIRTUAL_ENV", "XDG_")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith(ambient) and not key.lower().endswith("_proxy")
    }
    return {**kept, "PIP_CONFIG_FILE": os.devnull, **changes}


def write_config(directory: Path, *sections: str, **changes: str | None) -> Path:
    """An ini file of :func:`support.world.settings`, and what further sections there are."""
    directory.mkdir(parents=True, exist_ok=True)
    values = settings(directory, **changes)
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in values.items()]
    config = directory / "server.ini"
    config.write_text("\n".join(["[app:main]", "use = egg:pypicloud", *lines, "", *sections]))
    return config


def free_port() -> int:
    """A port that nobody listens at, below those that outgoing connections get."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


class Server:
    """A running server process.

    ``url`` is its address without a final slash, ``directory`` where its ini file lies, ``log`` what it printed.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path, log: Path, scheme: str) -> None:
        self.process = process
        self.port = port
        self.directory = directory
        self.log = log
        self.url = f"{scheme}://{LOOPBACK}:{port}"

    def url_for(self, user: str) -> str:
        """The address with a user's credentials in it."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{user}:{user * 2}@{rest}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        *,
        user: str | None = "alice",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, and its answer. The certificate is not looked at."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {**(basic(user) if user else {}), **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.reason, response.headers, response.read())

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        if self.url.startswith("https"):
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=PATIENCE, context=context)
        return http.client.HTTPConnection(LOOPBACK, self.port, timeout=PATIENCE)

    def upload(self, filename: str, content: bytes, *, path: str = "/simple/", user: str = "alice") -> Answer:
        """Upload a distribution with the least that a client can send."""
        kind, body = form(filename, content)
        return self.ask(path, "POST", body, user=user, headers={"Content-Type": kind})

    def stored(self, project: str, version: str, filename: str) -> Path:
        """Where the file storage keeps a file; its facts lie beside it, with ``.meta`` at the end."""
        return self.directory / "packages" / project / version / filename

    def rebuild(self) -> None:
        """Bring the cache in line with what was done to the stored files."""
        answer = self.ask("/admin/rebuild", user="root")
        if answer.status != 200:
            raise AssertionError(f"the rebuild was answered with {answer.status}: {answer.body!r}")

    def log_tail(self) -> str:
        """The last that the server printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def wait(self, path: str = "/health") -> None:
        """Wait until the server answers. Raises :class:`AssertionError` if it ends instead, or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with status {self.process.returncode}:\n{self.log_tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask(path, user=None)
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"the server does not answer:\n{self.log_tail()}")
            time.sleep(0.02)

    def stop(self) -> int:
        """End the server as an init system would; its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End the server, and all that it started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


def form(filename: str, content: bytes) -> tuple[str, bytes]:
    """An upload form: its Content-Type, and its bytes."""
    boundary = b"----------------a-boundary-that-is-in-no-file"
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    parts = [
        head % (boundary, b":action", b"") + b"file_upload",
        head % (boundary, b"sha256_digest", b"") + hashlib.sha256(content).hexdigest().encode(),
        head % (boundary, b"content", b'; filename="%s"' % filename.encode()) + content,
        b"--%s--\r\n" % boundary,
    ]
    return f"multipart/form-data; boundary={boundary.decode()}", b"\r\n".join(parts)


@contextlib.contextmanager
def launched(
    command: Sequence[str | Path], port: int, directory: Path, *, scheme: str = "http", **environment: str
) -> Iterator[Server]:
    """Run a server's command until the end of the block, which begins before it answers."""
    log = directory / f"server-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=clean_environment(**environment),
            start_new_session=True,
        )
    try:
        yield Server(process, port, directory, log, scheme)
    finally:
        end(process)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    port: int,
    directory: Path,
    *,
    scheme: str = "http",
    ready: str = "/health",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server's command until the end of the block; it gets there once it answers at ``ready``."""
    with launched(command, port, directory, scheme=scheme, **(environment or {})) as server:
        server.wait(ready)
        yield server


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a session of its own, and all that it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(PATIENCE)


@contextlib.contextmanager
def serving(
    installation: Installation,
    config: Path,
    *options: str,
    port: int | None = None,
    scheme: str = "http",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """``pypicloud serve`` until the end of the block."""
    port = port or free_port()
    command = installation.command("pypicloud", "serve", config, "--host", LOOPBACK, "--port", str(port), *options)
    with running(command, port, config.parent, scheme=scheme, environment=environment) as server:
        yield server
