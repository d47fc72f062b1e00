"""The short way to ask S3 for an object's metadata: signed requests over a few connections, and nothing more.

Most of what boto3 does for a request is the same each time: rules of endpoints, hooks, models of what is asked and
answered. It costs a millisecond of work, where the store itself needs a fraction of that.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeAlias
from urllib.parse import parse_qs, quote, urlsplit

#: A status, and the headers with their names in lower case.
Answer: TypeAlias = tuple[int, dict[str, str]]

#: How many seconds a store may be silent before boto3 is asked, at most.
_PATIENCE: Final = 5.0

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_NO_BODY: Final = hashlib.sha256(b"").hexdigest()
_END: Final = b"\r\n\r\n"

#: The longest head of an answer that is read, in bytes.
_LONGEST: Final = 1 << 16


@dataclass(frozen=True)
class Plan:
    """Where a bucket is and how requests to it are signed. ``credentials`` are botocore's, which renews them.

    For ``patience`` seconds the store may be silent.
    """

    host: str
    port: int
    netloc: str
    path: str
    region: str
    service: str
    credentials: Any
    tls: ssl.SSLContext | None
    patience: float

    def signer(self, moment: datetime) -> Callable[[str], bytes]:
        """What makes the request for the object of a key, as of now (AWS Signature Version 4)."""
        frozen = self.credentials.get_frozen_credentials()
        stamp = f"{moment:%Y%m%dT%H%M%SZ}"
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        secret = f"AWS4{frozen.secret_key}".encode()
        for word in scope.split("/"):
            secret = hmac.digest(secret, word.encode(), "sha256")
        headers = {"host": self.netloc, "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp}
        if frozen.token:
            headers["x-amz-security-token"] = frozen.token
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        signed, sent = ";".join(headers), lines.replace("\n", "\r\n")
        known = f"{_ALGORITHM} Credential={frozen.access_key}/{scope}, SignedHeaders={signed}, Signature="

        def request(key: str) -> bytes:
            path = self.path + quote(key, safe="/~")
            canonical = hashlib.sha256(f"HEAD\n{path}\n\n{lines}\n{signed}\n{_NO_BODY}".encode()).hexdigest()
            text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{canonical}"
            signature = hmac.digest(secret, text.encode(), "sha256").hex()
            return f"HEAD {path} HTTP/1.1\r\n{sent}Authorization: {known}{signature}\r\n\r\n".encode()

        return request


def plan(bucket: Any) -> Plan | None:
    """The plan for a bucket; None if only boto3 knows how to get there."""
    from botocore.httpsession import get_cert_path
    from botocore.utils import get_environ_proxies

    # Where a bucket is, and for whom and where a request is signed, is told by a URL of boto3's.
    client = bucket.meta.client
    parts = urlsplit(client.generate_presigned_url("head_object", Params={"Bucket": bucket.name, "Key": "x"}))
    query = parse_qs(parts.query)
    # botocore has no public name for what follows.
    credentials, session = client._request_signer._credentials, client._endpoint.http_session  # noqa: SLF001
    trusted = session._verify  # noqa: SLF001
    is_plain = not client.meta.config.proxies and not client.meta.config.client_cert and trusted is not False
    if query.get("X-Amz-Algorithm") != [_ALGORITHM] or not is_plain:
        return None
    url = parts._replace(query="").geturl()
    if credentials is None or parts.hostname is None or get_environ_proxies(url):
        return None
    _, _, region, service, _ = query["X-Amz-Credential"][0].rsplit("/", 4)
    is_secure = parts.scheme == "https"
    tls = ssl.create_default_context(cafile=get_cert_path(trusted)) if is_secure else None
    port = parts.port or (443 if is_secure else 80)
    path = parts.path.removesuffix("x")
    patience = min(_PATIENCE, client.meta.config.read_timeout)
    return Plan(parts.hostname, port, parts.netloc, path, region, service, credentials, tls, patience)


class Lean:
    """Connections for the requests of a plan, at most so many; for one thread. As a context manager, it closes them."""

    def __init__(self, plan: Plan, connections: int) -> None:
        self._plan = plan
        self._most = connections
        self._runner = asyncio.Runner()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._close())
        self._runner.close()

    def answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """What the store answers for these keys; those for which no answer came are not in it."""
        return self._runner.run(self._answers(deque(keys)))

    async def _answers(self, keys: deque[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        work = _Work(keys, found, self._plan.signer(datetime.now(UTC)))
        watch = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._worker(work) for _ in range(min(self._most, len(keys)))))
        watch.cancel()
        return found

    async def _worker(self, work: _Work) -> None:
        while work.keys:
            # A store may have closed those that waited for long.
            self._idle = [connection for connection in self._idle if connection.is_open]
            connection = self._idle.pop() if self._idle else await self._connected()
            if connection is None:
                return
            self._busy.add(connection)
            count = await connection.do(work)
            self._busy.discard(connection)
            if connection.is_open:
                self._idle.append(connection)
            elif not count:
                return

    async def _connected(self) -> _Connection | None:
        loop, plan = asyncio.get_running_loop(), self._plan
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._plan.patience):
                _, connection = await loop.create_connection(_Connection, plan.host, plan.port, ssl=plan.tls)
                return connection
        return None

    async def _watch(self) -> None:
        """End the connections over which nothing comes."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._plan.patience / 4)
            for connection in list(self._busy):
                if connection.since < now() - self._plan.patience:
                    connection.end()

    async def _close(self) -> None:
        connections = [*self._idle, *self._busy]
        for connection in connections:
            connection.end()
        await asyncio.gather(*(connection.ended for connection in connections))


@dataclass(frozen=True)
class _Work:
    """The keys that nobody has asked for yet, what was answered, and what makes a request."""

    keys: deque[str]
    found: dict[str, Answer]
    request: Callable[[str], bytes]


class _Connection(asyncio.Protocol):
    """One connection, which asks for one key after the other."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._future = loop.create_future
        self.ended = loop.create_future()
        self.is_open = False
        self.since = self._now()
        self._buffer = b""
        self._count = 0
        self._key: str | None = None
        self._done: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self.is_open = True

    async def do(self, work: _Work) -> int:
        """Ask for keys until there are no more, or the connection ends; the answer is how many answers came."""
        if not self.is_open:
            return 0
        self._work, self._done, self._count = work, (done := self._future()), 0
        self._next()
        count: int = await done
        return count

    def end(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _next(self) -> None:
        self._key = self._work.keys.popleft() if self._work.keys else None
        if self._key is not None:
            self.since = self._now()
            self._transport.write(self._work.request(self._key))
        elif self._done is not None:
            self._done.set_result(self._count)
            self._done = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(_END)
        if not end and len(head) < _LONGEST:
            return
        answer = _parsed(head)
        if not end or rest or self._key is None or answer is None:
            # Nobody knows any more what belongs to what.
            self.end()
            return
        self._buffer = b""
        self._work.found[self._key] = answer
        self._count += 1
        if answer[1].get("connection", "").lower() == "close" or head.startswith(b"HTTP/1.0"):
            self._key = None
            self._transport.close()
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._done is not None:
            self._done.set_result(self._count)
            self._done = None
        self.ended.set_result(None)


def _parsed(head: bytes) -> Answer | None:
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():  # noqa: PLR2004 - two words
        return None
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(words[1]), headers
