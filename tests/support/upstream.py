"""An upstream index in a thread: it writes down what it is asked, and can be slow, wrong or away."""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.server
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, ClassVar

import pytest

from support.live import LOOPBACK

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """What to answer.

    ``repeat`` sends the body that many times, each after a delay in seconds, without telling the length before.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    repeat: int = 1
    delay: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A request as it came; ``connection`` counts the connections."""

    path: str
    headers: Message
    connection: int


class FakeUpstream:
    """The index: ``files`` are its projects with their files as PEP 691 spells them.

    ``asked`` is the log. ``has_json`` and ``has_tags`` say what it is able to. ``answers`` are for single
    paths, in place of the usual ones. While ``is_open`` is cleared, nothing is answered.
    """

    def __init__(self, port: int, scheme: str) -> None:
        self.url = f"{scheme}://{LOOPBACK}:{port}"
        self.files: dict[str, list[dict[str, Any]]] = {}
        self.contents: dict[str, bytes] = {}
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[Asked] = []
        self.connections = 0
        self.has_json = True
        self.has_tags = True
        self.is_open = threading.Event()
        self.is_open.set()

    @property
    def names(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [asked.path for asked in self.asked]

    def add(self, project: str, filename: str, content: bytes = b"", **facts: Any) -> str:
        """Give a project one more file; facts are spelled with ``_``. Returns the digest of the content."""
        digest = hashlib.sha256(content).hexdigest()
        spelled = {key.replace("_", "-"): value for key, value in facts.items()}
        entry = {"filename": filename, "url": f"../../files/{filename}", "hashes": {"sha256": digest}, **spelled}
        self.files.setdefault(project, []).append(entry)
        self.contents[filename] = content
        return digest

    def answer(self, path: str, headers: Message) -> Answer:
        """What to say to a request."""
        special = self.answers.get(path)
        if special is not None:
            return special.pop(0) if isinstance(special, list) else special
        match path.split("/"):
            case ["", "simple", name, ""] if name in self.files:
                form = JSON if self.has_json and JSON in headers.get("Accept", "") else HTML
                answer = Answer(200, self._page(name, form), {"Content-Type": form})
            case ["", "pypi", name, "json"] if name in self.files:
                answer = Answer(200, self._legacy(name), {"Content-Type": "application/json"})
            case ["", "files", name] if name in self.contents:
                return Answer(200, self.contents[name], {"Content-Type": "application/octet-stream"})
            case _:
                return Answer(404, b"nothing here")
        if not self.has_tags:
            return answer
        tag = f'"{hashlib.md5(answer.body).hexdigest()}"'
        return Answer(304 if headers.get("If-None-Match") == tag else 200, answer.body, {**answer.headers, "ETag": tag})

    def _page(self, name: str, form: str) -> bytes:
        if form == JSON:
            return json.dumps({"meta": {"api-version": "1.4"}, "name": name, "files": self.files[name]}).encode()
        return "".join(["<!DOCTYPE html><title>Links</title>", *map(_anchor, self.files[name])]).encode()

    def _legacy(self, name: str) -> bytes:
        files = [
            {
                "filename": entry["filename"],
                "url": f"{self.url}/files/{entry['filename']}",
                "digests": {**entry["hashes"], "md5": "0" * 32},
                "requires_python": entry.get("requires-python"),
                "size": entry.get("size"),
                "upload_time_iso_8601": entry.get("upload-time"),
                "yanked": bool(entry.get("yanked")),
                "yanked_reason": entry.get("yanked"),
            }
            for entry in self.files[name]
        ]
        return json.dumps({"info": {"summary": f"All about {name}"}, "releases": {"1.0": files}}).encode()


def _anchor(entry: dict[str, Any]) -> str:
    attributes = [f'href="{entry["url"]}#sha256={entry["hashes"]["sha256"]}"']
    if "requires-python" in entry:
        attributes.append(f'data-requires-python="{html.escape(entry["requires-python"])}"')
    if "core-metadata" in entry:
        attributes.append(f'data-core-metadata="sha256={entry["core-metadata"]["sha256"]}"')
    if "yanked" in entry:
        attributes.append(f'data-yanked="{html.escape(entry["yanked"])}"')
    return f"<a {' '.join(attributes)}>{entry['filename']}</a>\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    upstream: ClassVar[FakeUpstream]

    def setup(self) -> None:
        super().setup()
        self.upstream.connections += 1
        self.connection_number = self.upstream.connections

    def handle(self) -> None:
        # A client that breaks off is what some tests are about.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            super().handle()

    def do_GET(self) -> None:
        self.upstream.asked.append(Asked(self.path, self.headers, self.connection_number))
        self.upstream.is_open.wait(30)
        answer = self.upstream.answer(self.path, self.headers)
        self.send_response_only(answer.status)
        headers = dict(answer.headers)
        if answer.repeat > 1:
            self.close_connection = True
        elif answer.status != 304:
            headers.setdefault("Content-Length", str(len(answer.body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for _ in range(answer.repeat if answer.status != 304 else 0):
                time.sleep(answer.delay)
                self.wfile.write(answer.body)
                self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Keep quiet: the log is elsewhere."""


def forget_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what the machine says about proxies and certificates out of the environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)


@contextlib.contextmanager
def fake_upstream(tls: ssl.SSLContext | None = None) -> Iterator[FakeUpstream]:
    """An empty upstream on a free port, until the end of the block."""

    class Handler(_Handler):
        """The requests of this upstream."""

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        upstream = FakeUpstream(server.server_port, "http" if tls is None else "https")
        Handler.upstream = upstream
        # A client that keeps its connection open does not keep the test from ending.
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield upstream
        finally:
            upstream.is_open.set()
            server.shutdown()
            thread.join()
