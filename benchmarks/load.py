"""Clients: wrk for rates, one plain request for a look, and an uploader that costs next to nothing."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.result import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONNECTIONS: Final = 8
USER: Final = "bench"
PASSWORD: Final = "pw"
AUTHORIZATION: Final = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

#: What pip sends; uv's differs in the weights only.
JSON: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
HTML: Final = "text/html"

_REPORT: Final = Path(__file__).with_name("report.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of wrk found: answers and bytes a second, and how long an answer took (seconds)."""

    rate: float
    bytes_rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL on the loopback with the headers to send."""

    port: int
    path: str
    headers: Mapping[str, str]

    def with_headers(self, headers: Mapping[str, str]) -> Target:
        """The same, with more headers."""
        return Target(self.port, self.path, {**self.headers, **headers})

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}{self.path}"


def ask(target: Target, method: str = "GET") -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=300)
    try:
        connection.request(method, target.path, headers=dict(target.headers))
        response = connection.getresponse()
        return Answer(response.status, tuple(response.getheaders()), response.read())
    finally:
        connection.close()


def expect(target: Target, status: int = HTTPStatus.OK, method: str = "GET") -> Answer:
    """One request whose answer must have this status."""
    answer = ask(target, method)
    if answer.status != status:
        raise BenchError(f"{method} {target.path}: {answer.status} instead of {status}: {answer.body[:300]!r}")
    return answer


def is_up(target: Target) -> bool:
    """Whether a URL answers 200 now."""
    try:
        return ask(target).status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def wrk(target: Target, seconds: float, paths: Iterable[str] = (), connections: int = CONNECTIONS) -> Load:
    """So many connections that ask as fast as they are answered, for some seconds.

    Any refused or broken request makes the run worthless and raises BenchError.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(_REPORT)]
    for name, value in target.headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, target.url, "--", *paths], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    if done.returncode or not lines:
        raise BenchError(f"wrk failed: {done.stdout}{done.stderr}")
    report: dict[str, int] = json.loads(lines[0].removeprefix("REPORT "))
    if not report["requests"] or report["refused"] or report["broken"]:
        raise BenchError(f"wrk on {target.path}: {report}")
    duration = report["micros"] / 1e6
    return Load(
        rate=report["requests"] / duration,
        bytes_rate=report["bytes"] / duration,
        p50=report["p50"] / 1e6,
        p99=report["p99"] / 1e6,
    )


def upload(port: int, body: Path, boundary: str) -> float:
    """Post a multipart body that lies ready on disk; the seconds from the connection to the end of the answer.

    The kernel sends the file, so that hardly any of the time is the client's.
    """
    size = body.stat().st_size
    head = (
        "POST /simple/ HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\nAuthorization: {AUTHORIZATION}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {size}\r\n\r\n"
    )
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection, body.open("rb") as stream:
        connection.sendall(head.encode())
        connection.sendfile(stream)
        response = http.client.HTTPResponse(connection)
        response.begin()
        text = response.read()
        seconds = time.perf_counter() - start
    if response.status != HTTPStatus.OK:
        raise BenchError(f"upload: {response.status}: {text[:300]!r}")
    return seconds
