"""The typed request: the one seam to the untyped framework."""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from pyramid.request import Request
from pyramid.response import Response
from webob.request import DisconnectionError

from pypicloud.access.base import IAccessBackend
from pypicloud.auth import Authenticator
from pypicloud.cache.base import ICache
from pypicloud.errors import BadRequest, Forbidden, LoginRequired, PypicloudError, TooLarge
from pypicloud.fallback import Policy
from pypicloud.form import Form, FormReader
from pypicloud.health import Checkup
from pypicloud.index import PackageIndex
from pypicloud.locator import Upstream
from pypicloud.models import Caller
from pypicloud.pages import Pages
from pypicloud.revisions import asked_together
from pypicloud.settings import BOOLEAN, FALSE_WORDS, SECONDS, TEXT, EnvironSettings, Kind, Setting, as_list

LOG: Final = logging.getLogger(__name__)

T = TypeVar("T")


def _proxies(text: str) -> tuple[str, ...]:
    words = as_list(text)
    TrustedProxies(words)
    return words


TRUSTED_PROXIES: Final = Setting(
    "pypi.trusted_proxies",
    Kind("list of addresses and networks", _proxies),
    (),
    "Addresses or networks of reverse proxies whose X-Forwarded-For, -Proto, -Host and -Prefix headers are "
    "believed; * for any. Off by default.",
)
DOWNLOAD_URL: Final = Setting(
    "pypi.download_url",
    TEXT,
    None,
    "The address of this index that the home page tells people to configure, instead of the one they came by.",
)
STREAM_FILES: Final = Setting(
    "pypi.stream_files",
    BOOLEAN,
    False,
    "Whether the server sends the bytes itself instead of a redirect to where they are stored.",
)
PACKAGE_MAX_AGE: Final = Setting(
    "pypi.package_max_age",
    SECONDS,
    0,
    "How long, in seconds, shared caches may keep the files that pypi.stream_files sends; 0 lets only the client "
    "keep them.",
)
DEBUG: Final = Setting("pyramid.debug", BOOLEAN, False, "Whether JSON errors carry the stack trace.")
RELOAD_TEMPLATES: Final = Setting(
    "pyramid.reload_templates", BOOLEAN, False, "Whether JSON answers are indented, to be read by people."
)
CACHE_MAX_AGE: Final = Setting(
    "pyramid.cache_max_age", SECONDS, 3600, "For how many seconds browsers may keep the style sheet."
)
SETTINGS: Final = (
    DOWNLOAD_URL,
    STREAM_FILES,
    PACKAGE_MAX_AGE,
    TRUSTED_PROXIES,
    DEBUG,
    RELOAD_TEMPLATES,
    CACHE_MAX_AGE,
)

#: Bodies that are no uploads: JSON, XML-RPC, small forms.
MAX_SMALL_BODY: Final = 64 << 10

#: Where a server that has asked already who it is leaves the caller in the WSGI environment.
CALLER_KEY: Final = "pypicloud.caller"

#: Where a server that has read the upload form already leaves it in the WSGI environment.
FORM_KEY: Final = "pypicloud.form"


class TrustedProxies:
    """Believes the forwarding headers of known reverse proxies, and of nobody else.

    The last hop is the one that connects; from there the chain of ``X-Forwarded-For`` is walked back
    over trusted addresses, and the first other address is the client.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        words = tuple(trusted)
        self._any = "*" in words
        self._networks = tuple(ipaddress.ip_network(word, strict=False) for word in words if word != "*")

    @classmethod
    def read(cls, settings: EnvironSettings) -> TrustedProxies | None:
        """The proxies that the settings name; None for none."""
        words = TRUSTED_PROXIES.read(settings)
        return cls(words) if words else None

    def trusts(self, address: str) -> bool:
        """Whether an address is one of the proxies."""
        if self._any:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        # A server that listens on both families sees IPv4 addresses inside of IPv6 ones.
        plain = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(plain in network for network in self._networks)

    def apply(self, environ: dict[str, Any]) -> None:
        """Rewrite a WSGI environment as if the client had come straight to the server."""
        if not self.trusts(environ.get("REMOTE_ADDR", "")):
            return
        hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
        for hop in reversed(hops):
            environ["REMOTE_ADDR"] = hop
            if not self.trusts(hop) or self._any:
                break
        if scheme := _last(environ, "HTTP_X_FORWARDED_PROTO"):
            environ["wsgi.url_scheme"] = "https" if scheme == "https" else "http"
        if host := _last(environ, "HTTP_X_FORWARDED_HOST"):
            environ["HTTP_HOST"] = host
        if prefix := _last(environ, "HTTP_X_FORWARDED_PREFIX"):
            environ["SCRIPT_NAME"] = "/" + prefix.strip("/") if prefix.strip("/") else ""


@dataclass(frozen=True)
class Application:
    """Everything made once at the start, for the requests to share."""

    settings: EnvironSettings
    access_factory: Callable[[Any], IAccessBackend]
    cache_factory: Callable[[Any], ICache]
    policy: Policy
    upstream: Upstream
    pages: Pages
    authenticator: Authenticator
    max_upload_size: int
    version: str
    realm: str = "pypi"
    stream_files: bool = False
    package_max_age: int = 0
    files_are_immutable: bool = True
    json_indent: int | None = None
    shows_stacktrace: bool = False
    download_url: str | None = None
    trusted_proxies: TrustedProxies | None = None
    checkup: Checkup = field(default_factory=Checkup)

    @cached_property
    def revision(self) -> Callable[[str | None], str | None] | None:
        """Asks the cache for a revision, together with other requests; None where each of them asks by itself."""
        cache = self.cache_factory(None)
        return asked_together(cache.revisions) if cache.shares_questions else None

    def index(self, request: Any = None) -> PackageIndex:
        """The index with backends of its own, for a request or without one."""
        return self.index_of(self.cache_factory(request), self.access_factory(request))

    def index_of(self, cache: ICache, access: IAccessBackend) -> PackageIndex:
        """The index with these backends."""
        return PackageIndex(
            cache, access, self.policy, self.pages, self.upstream, checkup=self.checkup, revision=self.revision
        )


class PypicloudRequest(Request):  # type: ignore[misc]  # Pyramid is untyped
    """A request that knows its index and its caller."""

    @cached_property
    def app(self) -> Application:
        """What was made at the start."""
        application: Application = self.registry.pypicloud
        return application

    @cached_property
    def index(self) -> PackageIndex:
        """The index, with backends made for this request."""
        return self.app.index_of(self.db, self.access)

    @cached_property
    def access(self) -> IAccessBackend:
        """The access backend of this request."""
        return self.app.access_factory(self)

    @cached_property
    def db(self) -> ICache:
        """The cache of this request; ``db.storage`` is its storage."""
        return self.app.cache_factory(self)

    @property
    def locator(self) -> Upstream:
        """The upstream index; ``locator.get_releases(name)`` is for plug-ins (compat.md 8.4)."""
        return self.app.upstream

    @cached_property
    def caller(self) -> Caller:
        """Who asks. Raises :class:`~pypicloud.errors.TooManyAttempts` for who failed to log in too often."""
        known = self.environ.get(CALLER_KEY)
        if isinstance(known, Caller):
            return known
        header = self.headers.get("Authorization")
        return self.app.authenticator.caller(header, self.access, self.remote_addr or "")

    @property
    def pypicloud_version(self) -> str:
        """The server's version."""
        return self.app.version

    @property
    def custom_download_url(self) -> str | None:
        """The address to show instead of the one that the request came by (``pypi.download_url``)."""
        return self.app.download_url

    @property
    def fallback_simple(self) -> str:
        """The root of the upstream's simple pages."""
        return self.app.policy.simple_url or f"{self.app.policy.base_url}/simple"

    @cached_property
    def form(self) -> Form:
        """The upload form, spooled; removed at the end of the request."""
        ready = self.environ.get(FORM_KEY)
        form = read_form(self, self.app.max_upload_size) if ready is None else ready()
        self.add_finished_callback(lambda _: form.discard())
        return form

    def app_url(self, *paths: str, fragment: str = "", **query: str) -> str:
        """An absolute address under the server's mount point; path parts are taken as they are."""
        url = "/".join([self.application_url.rstrip("/"), *paths])
        if query:
            url += "?" + urlencode(query)
        return f"{url}#{fragment}" if fragment else url

    @cached_property
    def arguments(self) -> Mapping[str, Any]:
        """The named arguments: the JSON body's keys, or query string and form together (compat.md 5.1)."""
        body = self.small_body()
        # Programs that always send JSON name its type with every request, also where there is no body.
        if body and self.content_type == "application/json":
            return _json_object(body)
        form = body if self.content_type == "application/x-www-form-urlencoded" else b""
        return {**self.query, **_pairs(form, "body")}

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The arguments in the query string; of those sent twice, the last. Raises :class:`BadRequest`."""
        return _pairs(self.query_string.encode("latin-1"), "query string")

    def small_body(self) -> bytes:
        """The body, if it is small. Raises :class:`TooLarge`."""
        body: bytes = _read(self, MAX_SMALL_BODY + 1)
        if len(body) > MAX_SMALL_BODY:
            raise TooLarge(f"the body is larger than {MAX_SMALL_BODY} bytes")
        return body

    def param(
        self,
        name: str,
        default: Any = ...,
        type: Callable[[Any], T] | None = None,  # noqa: A002 - documented name
        validate: Callable[[Any], bool] | None = None,
    ) -> Any:
        """A named argument, converted and checked.

        Raises :class:`BadRequest` if it is missing and has no default, or is not valid.
        """
        if name not in self.arguments:
            if default is ...:
                raise BadRequest(f"Missing argument '{name}'")
            return default
        value = self.arguments[name]
        try:
            value = value if type is None else as_flag(value) if type is bool else type(value)
        except (TypeError, ValueError):
            raise BadRequest(f"argument {name!r} has the value {value!r}, which is not valid") from None
        if validate is not None and not validate(value):
            raise BadRequest(f"argument {name!r} has the value {value!r}, which is not valid")
        return value

    @property
    def named_subpaths(self) -> Mapping[str, str]:
        """The named parts of the URL."""
        return dict(self.matchdict or {})

    def forbid(self) -> Response:
        """The response for who may not do this: 401 for the anonymous caller, 403 for others."""
        return error_response(self, Forbidden("you may not do this")) if self.caller.user else self.request_login()

    def request_login(self) -> Response:
        """The response that asks for Basic credentials."""
        return error_response(self, LoginRequired("you need to log in"))


def as_flag(value: Any) -> bool:
    """A yes or no as programs and forms send it: ``false``, ``0``, ``no`` and ``off`` mean no (compat.md 5.1)."""
    return str(value).strip().lower() not in FALSE_WORDS


def _pairs(text: bytes, what: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise BadRequest(f"the {what} holds arguments that are not UTF-8 text") from None


def _read(request: Any, count: int) -> bytes:
    """Up to ``count`` bytes of the body. Raises :class:`BadRequest` if it ends before it should."""
    try:
        chunk: bytes = request.body_file.read(count)
    except DisconnectionError as error:
        raise BadRequest("the body is shorter than its Content-Length says; send it whole") from error
    return chunk


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def read_form(request: Any, limit: int) -> Form:
    """Read the upload form from a blocking WSGI stream."""
    directory = request.db.storage.spool_directory()
    is_wanted = request.access.may_write_something(request.caller)
    with FormReader(request.headers.get("Content-Type", ""), directory, limit, is_wanted=is_wanted) as reader:
        while chunk := _read(request, 1 << 18):
            reader.feed(chunk)
            if reader.is_over_limit:
                break
        return reader.finish()


def error_response(request: Any, error: PypicloudError) -> Response:
    """The response to an error; made by the one translator, in ``pypicloud.views``."""
    respond: Callable[[Any, PypicloudError], Response] = request.registry.error_response
    return respond(request, error)


def _last(environ: Mapping[str, Any], header: str) -> str:
    """What the nearest proxy said; nothing if it cannot stand in an address."""
    value: str = environ.get(header, "").split(",")[-1].strip()
    return value if value.isascii() else ""


def request_factory(proxies: TrustedProxies | None) -> Callable[[dict[str, Any]], PypicloudRequest]:
    """The maker of requests; it applies the forwarding headers of trusted proxies first.

    Where no proxy is trusted, the first request that one has forwarded is told to the operator.
    """
    is_told = threading.Event()

    def make(environ: dict[str, Any]) -> PypicloudRequest:
        if proxies is not None:
            proxies.apply(environ)
        elif "HTTP_X_FORWARDED_FOR" in environ and not is_told.is_set():
            is_told.set()
            LOG.warning(
                "a proxy at %s forwards requests, but %s does not name it: failed logins of all its clients count "
                "together, and absolute addresses may be wrong",
                environ.get("REMOTE_ADDR", ""),
                TRUSTED_PROXIES.key,
            )
        return PypicloudRequest(environ)

    return make
