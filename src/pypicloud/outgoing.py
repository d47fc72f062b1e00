"""The requests that the server itself makes of an index: bounded in time, size, number and direction.

The proxy variables and ``REQUESTS_CA_BUNDLE`` count as they did in 1.3.12, for which ``requests`` read
them. The HTTP client is imported with the first request: most servers never make one.
"""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from pypicloud.errors import BackendUnavailable

if TYPE_CHECKING:
    import urllib3

LOG: Final = logging.getLogger(__name__)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

#: What a proxy or a balancer says when the index behind it is away for a moment.
_PASSING: Final = frozenset({502, 503, 504})

_BREATH: Final = 0.2

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request may take, in seconds, and how much it may bring.

    ``connect`` and ``read`` are for one connection and one wait for bytes, ``total`` for the whole with
    its redirects; ``size`` is the largest body in bytes, after decompression. An index that did not answer
    is not asked for ``pause`` seconds, so that it does not hold up every request of ours that asks it.
    """

    connect: float = 3.0
    read: float = 5.0
    total: float = 10.0
    pause: float = 10.0
    size: int = 32 << 20
    redirects: int = 5
    connections: int = 10


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer that is no redirect: ``url`` is where it came from in the end, ``headers`` are in lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Makes the requests of one index, whose address may hold credentials.

    They are sent to the index itself, and to no other host that it redirects to.
    """

    def __init__(self, address: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.address = without_credentials(address).rstrip("/")
        self.limits = limits
        self._credentials = _authorization(address)
        self.postfork()

    def postfork(self, **_: Any) -> None:
        """Leave the connections to the parent process: two processes must not speak on one."""
        self._lock = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._quiet_until = 0.0

    def get(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """What is at an absolute address, after redirects. Raises :class:`BackendUnavailable`."""
        import urllib3

        self._refuse_in_pause()
        quiet_until = 0.0
        try:
            return self._get(url, headers)
        except urllib3.exceptions.EmptyPoolError as error:
            quiet_until = self._quiet_until
            raise BackendUnavailable("too many requests of the upstream index are under way") from error
        except (urllib3.exceptions.DecodeError, ValueError) as error:
            raise BackendUnavailable("the upstream index sent an answer that cannot be read") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            quiet_until = time.monotonic() + self.limits.pause
            raise BackendUnavailable(f"the upstream index does not answer: {type(error).__name__}") from error
        finally:
            with self._lock:
                self._quiet_until = quiet_until

    def _refuse_in_pause(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._quiet_until:
                raise BackendUnavailable("the upstream index did not answer a moment ago")
            if self._quiet_until:
                # This one request finds out for all.
                self._quiet_until = now + self.limits.pause

    def _get(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """The answer, asked for once more if the trouble may be over in a moment."""
        from urllib3.exceptions import ProtocolError

        deadline = time.monotonic() + self.limits.total
        try:
            found = self._follow(url, headers, deadline)
            if found.status not in _PASSING:
                return found
        except ProtocolError:
            # Most likely a kept connection, which the other side has closed.
            LOG.debug("a connection to %s broke", self.address, exc_info=True)
        time.sleep(_BREATH)
        return self._follow(url, headers, deadline)

    def _follow(self, url: str, headers: Mapping[str, str], deadline: float) -> Fetched:
        for _ in range(self.limits.redirects + 1):
            found = self._ask(url, headers, deadline)
            location = found.headers.get("location")
            if found.status not in _REDIRECTS or location is None:
                return found
            url = without_credentials(urljoin(url, location)).partition("#")[0]
            if not is_web_address(url):
                raise BackendUnavailable("the upstream index redirects to what is no http or https address")
        raise BackendUnavailable(f"the upstream index redirects more than {self.limits.redirects} times")

    def _ask(self, url: str, headers: Mapping[str, str], deadline: float) -> Fetched:
        import urllib3

        left = max(deadline - time.monotonic(), 0.001)
        response = self._pool(url).request(
            "GET",
            url,
            headers={**headers, **self._standard_headers(url)},
            timeout=urllib3.Timeout(connect=min(self.limits.connect, left), read=min(self.limits.read, left)),
            pool_timeout=min(self.limits.connect, left),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        try:
            body = self._read(response, deadline)
            response.release_conn()
        finally:
            # What was not read to its end is not read any further.
            response.close()
        return Fetched(response.status, url, {name.lower(): value for name, value in response.headers.items()}, body)

    def _standard_headers(self, url: str) -> dict[str, str]:
        from urllib3.util import make_headers

        headers = make_headers(accept_encoding=True, user_agent="pypicloud")
        if self._credentials is not None and _origin(url) == _origin(self.address):
            headers["authorization"] = self._credentials
        return headers

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        body = bytearray()
        while chunk := response.read1(1 << 16, decode_content=True):
            body += chunk
            if len(body) > self.limits.size:
                raise BackendUnavailable(f"the upstream index sends more than {self.limits.size} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError("the answer takes too long")
        return bytes(body)

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections, straight or through the proxy that the environment names for the address."""
        proxy = _proxy(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _new_pool(proxy, self.limits.connections)
            return self._pools[proxy]


def _new_pool(proxy: str | None, connections: int) -> urllib3.PoolManager:
    import urllib3

    options: dict[str, Any] = {"maxsize": connections, "block": True}
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle:
        options["ca_cert_dir" if os.path.isdir(bundle) else "ca_certs"] = bundle  # noqa: PTH112 - handed on as text
    if proxy is None:
        return urllib3.PoolManager(**options)
    credentials = _authorization(proxy)
    headers = {} if credentials is None else {"proxy-authorization": credentials}
    return urllib3.ProxyManager(without_credentials(proxy), proxy_headers=headers, **options)


def _proxy(url: str) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_web_address(url: str) -> bool:
    """Whether an address is an absolute one of http or https."""
    try:
        parts = urlsplit(url)
        return parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def without_credentials(url: str) -> str:
    """The address without the user and password that may stand in front of its host."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _authorization(url: str) -> str | None:
    """The header for the credentials in an address, if it has any."""
    user, colon, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    if not user and not colon:
        return None
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts: SplitResult = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
