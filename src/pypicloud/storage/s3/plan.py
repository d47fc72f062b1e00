"""Where a bucket is, how requests for its objects are signed, and what the answers to them say.

boto3 does for each request what is the same each time: rules of endpoints, hooks, models of what is asked and answered.
That costs a millisecond of work, where the store itself needs a fraction of it. So what is asked all the time goes to
the store directly, on the way that boto3 tells once (:func:`plan`): :mod:`pypicloud.storage.s3.wire` and
:mod:`pypicloud.storage.s3.lean`. Whatever is not a plain good answer is left to boto3, which asks again: trouble is
told, waited out and translated there alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

#: A status, and the headers with their names in lower case.
Answer: TypeAlias = tuple[int, dict[str, str]]

#: What makes the head of a request of a method, a key, headers that are signed, the sha256 of the body, and headers
#: that are not signed; all but the first two may be left out.
Signer: TypeAlias = Callable[..., bytes]

#: How many seconds a store may be silent before boto3 is asked, at most.
_PATIENCE: Final = 5.0

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
NO_BODY: Final = hashlib.sha256(b"").hexdigest()
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

#: What ends a head, and how long that of an answer may be, in bytes.
END: Final = b"\r\n\r\n"
LONGEST: Final = 1 << 16


#: The event at which boto3 has built and signed a request, and what it writes of its signature.
_SENT: Final = "before-send.s3.HeadObject"
_SIGNED: Final = re.compile(rf"{_ALGORITHM} Credential=[^,]*/([^/,]+)/(s3)/aws4_request,")


class _Built(Exception):
    """A request is built, and that was all that was wanted."""


@dataclass(frozen=True)
class Plan:
    """Where a bucket is and how requests to it are signed. ``credentials`` are botocore's, which renews them.

    For ``patience`` seconds the store may be silent before boto3 is asked, for ``read_timeout`` in all.
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
    read_timeout: float = 60.0
    user_agent: str = "pypicloud"

    def signer(self, moment: datetime) -> Signer:
        """What makes the heads of requests, as of now (AWS Signature Version 4). Their headers are in lower case."""
        frozen = self.credentials.get_frozen_credentials()
        stamp = f"{moment:%Y%m%dT%H%M%SZ}"
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        secret = f"AWS4{frozen.secret_key}".encode()
        for word in scope.split("/"):
            secret = hmac.digest(secret, word.encode(), "sha256")
        always = {"host": self.netloc, "x-amz-date": stamp}
        if frozen.token:
            always["x-amz-security-token"] = frozen.token

        def head(
            method: str,
            key: str,
            headers: Mapping[str, str] = NO_HEADERS,
            sha256: str = NO_BODY,
            unsigned: Mapping[str, str] = NO_HEADERS,
        ) -> bytes:
            path = self.path + quote(key, safe="/~")
            told = sorted({**always, "x-amz-content-sha256": sha256, **headers}.items())
            lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in told)
            names = ";".join(name for name, _ in told)
            canonical = hashlib.sha256(f"{method}\n{path}\n\n{lines}\n{names}\n{sha256}".encode()).hexdigest()
            text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{canonical}"
            signature = hmac.digest(secret, text.encode(), "sha256").hex()
            known = f"{_ALGORITHM} Credential={frozen.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
            sent = [*told, *unsigned.items(), ("user-agent", self.user_agent), ("authorization", known)]
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent)
            return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

        return head


def plan(bucket: Any) -> Plan | None:
    """The plan for a bucket; None if only boto3 knows how to get there."""
    from botocore.httpsession import get_cert_path
    from botocore.utils import get_environ_proxies

    client = bucket.meta.client
    request = _request(bucket)
    parts = urlsplit(request.url)
    authorization = request.headers.get("Authorization", b"")
    signed = _SIGNED.match(authorization.decode() if isinstance(authorization, bytes) else authorization)
    # botocore has no public name for what follows.
    credentials, session = client._request_signer._credentials, client._endpoint.http_session  # noqa: SLF001
    trusted = session._verify  # noqa: SLF001
    config = client.meta.config
    is_plain = not config.proxies and not config.client_cert and trusted is not False
    if signed is None or not is_plain:
        return None
    if credentials is None or parts.hostname is None or parts.query or get_environ_proxies(request.url):
        return None
    region, service = signed.groups()
    is_secure = parts.scheme == "https"
    tls = ssl.create_default_context(cafile=get_cert_path(trusted)) if is_secure else None
    port = parts.port or (443 if is_secure else 80)
    path = parts.path.removesuffix(parts.path.rpartition("/")[2])
    timeout = config.read_timeout
    patience = min(_PATIENCE, timeout, config.connect_timeout)
    return Plan(
        parts.hostname,
        port,
        parts.netloc,
        path,
        region,
        service,
        credentials,
        tls,
        patience,
        timeout,
        config.user_agent,
    )


def _request(bucket: Any) -> Any:
    """A request for an object of a bucket, as boto3 would send it."""
    client = bucket.meta.client
    # Others may ask for other objects at the same moment.
    key = f"pypicloud-{secrets.token_hex(16)}"
    built = []

    def stop(request: Any, **_: Any) -> Any:
        if request.url.endswith(f"/{key}"):
            built.append(request)
            raise _Built
        return None

    client.meta.events.register_first(_SENT, stop)
    try:
        with contextlib.suppress(_Built):
            client.head_object(Bucket=bucket.name, Key=key)
    finally:
        client.meta.events.unregister(_SENT, stop)
    return built[0]


def parsed(head: bytes) -> Answer | None:
    """What the head of an answer says, without its end; None if it is none."""
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():  # noqa: PLR2004 - two words
        return None
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(words[1]), headers


def stays_open(head: bytes, headers: Mapping[str, str]) -> bool:
    """Whether more can be asked over the connection of an answer (RFC 9112, 9.3)."""
    return headers.get("connection", "").lower() != "close" and not head.startswith(b"HTTP/1.0")
