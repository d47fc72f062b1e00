"""The upstream index: what it has of a project, remembered for a short while and asked for once.

``get_releases`` is the documented way for plug-ins (``request.locator``, compat.md 8.4); the server
itself reads pages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from pypicloud import parse
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Link, NormalizedName, ProjectPage, normalized
from pypicloud.outgoing import DEFAULT_LIMITS, Client, Fetched, Limits

LOG: Final = logging.getLogger(__name__)

#: How many seconds an answer of the upstream counts as fresh; then the upstream is asked whether it has changed.
FRESH: Final = 60.0

#: How many rows of upstream pages are kept in memory, at about half a kilobyte each.
MAX_ROWS: Final = 50_000

_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the upstream said about a project, until when that is fresh, and how to ask whether it has changed."""

    page: ProjectPage | None
    fresh_until: float
    conditions: dict[str, str]

    @property
    def rows(self) -> int:
        return 1 if self.page is None else 1 + len(self.page.links)


class Upstream:
    """Another index, asked for the pages of projects.

    ``base_url`` is its address without ``/simple``, ``simple_url`` that of its simple pages if they are
    elsewhere; either may hold credentials. With ``reads_legacy_json`` the pages are those of the older
    JSON API, which know a summary.
    """

    def __init__(
        self,
        base_url: str,
        simple_url: str | None = None,
        *,
        reads_legacy_json: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        fresh: float = FRESH,
        max_rows: int = MAX_ROWS,
    ) -> None:
        if simple_url is None:
            simple_url = f"{base_url.rstrip('/')}/simple"
        self._client = Client(base_url if reads_legacy_json else simple_url, limits)
        self._reads_legacy_json = reads_legacy_json
        self._fresh = fresh
        self._max_rows = max_rows
        self._kept: OrderedDict[NormalizedName, _Kept] = OrderedDict()
        self._rows = 0
        self.postfork()

    def postfork(self, **_: Any) -> None:
        """Forget the requests and connections of the parent process."""
        self._lock = threading.Lock()
        self._under_way: dict[NormalizedName, Future[ProjectPage | None]] = {}
        self._client.postfork()

    def page(self, name: NormalizedName) -> ProjectPage | None:
        """What the upstream has of a project, with absolute links; None if it has no such project.

        While nothing has changed it is the very same value, and its ``revision`` stays the same. Callers
        at the same time share one request. Raises :class:`BackendUnavailable`; trouble is not remembered.
        """
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and time.monotonic() < kept.fresh_until:
                self._kept.move_to_end(name)
                return kept.page
            shared = self._under_way.get(name)
            if shared is None:
                own: Future[ProjectPage | None] = Future()
                self._under_way[name] = own
        return self._ask(name, kept, own) if shared is None else self._wait(shared)

    def _wait(self, shared: Future[ProjectPage | None]) -> ProjectPage | None:
        try:
            return shared.result(self._client.limits.total)
        except (TimeoutError, CancelledError):
            raise BackendUnavailable("the upstream index does not answer in time") from None

    def _ask(self, name: NormalizedName, kept: _Kept | None, own: Future[ProjectPage | None]) -> ProjectPage | None:
        try:
            found = self._fetch(name, kept)
        except BackendUnavailable as error:
            own.set_exception(error)
            raise
        else:
            self._keep(name, found)
            own.set_result(found.page)
            return found.page
        finally:
            # Nobody is left waiting, whatever went wrong.
            own.cancel()
            with self._lock:
                self._under_way.pop(name, None)

    def _fetch(self, name: NormalizedName, kept: _Kept | None) -> _Kept:
        headers = {"accept": "application/json" if self._reads_legacy_json else parse.ACCEPT}
        if kept is not None:
            headers.update(kept.conditions)
        answer = self._client.get(self._address(name), headers)
        fresh_until = time.monotonic() + self._fresh
        if answer.status == HTTPStatus.OK:
            return _Kept(self._read(name, answer, kept), fresh_until, _conditions(answer))
        if answer.status in _GONE:
            return _Kept(None, fresh_until, {})
        if answer.status == HTTPStatus.NOT_MODIFIED and kept is not None and kept.conditions:
            return dataclasses.replace(kept, fresh_until=fresh_until)
        raise BackendUnavailable(f"the upstream index answers with status {answer.status}")

    def _address(self, name: NormalizedName) -> str:
        segment = quote(name, safe="")
        way = f"pypi/{segment}/json" if self._reads_legacy_json else f"{segment}/"
        return f"{self._client.address}/{way}"

    def _read(self, name: NormalizedName, answer: Fetched, kept: _Kept | None) -> ProjectPage:
        # The links of a page depend on where it came from, and its meaning on its kind.
        kind = answer.headers.get("content-type", "")
        digest = hashlib.blake2b(f"{answer.url}\n{kind}\n".encode(), digest_size=16)
        digest.update(answer.body)
        revision = digest.hexdigest()
        if kept is not None and kept.page is not None and kept.page.revision == revision:
            return kept.page
        if self._reads_legacy_json:
            page = parse.legacy_page(name, answer.body, answer.url)
        else:
            page = parse.simple_page(name, answer.body, kind, answer.url)
        return dataclasses.replace(page, revision=revision)

    def _keep(self, name: NormalizedName, found: _Kept) -> None:
        with self._lock:
            self._forget(name)
            if found.rows > self._max_rows:
                return
            self._kept[name] = found
            self._rows += found.rows
            while self._rows > self._max_rows:
                self._forget(next(iter(self._kept)))

    def _forget(self, name: NormalizedName) -> None:
        old = self._kept.pop(name, None)
        if old is not None:
            self._rows -= old.rows

    def get_releases(self, project_name: str) -> list[dict[str, Any]]:
        """The files that the upstream has of a project, newest version first.

        Each is ``{"name", "version", "summary", "url", "digests", "requires_python"}``. As in 1.3.12 an
        upstream in trouble is logged, and has none.
        """
        name = normalized(project_name)
        try:
            page = self.page(name)
        except BackendUnavailable as error:
            LOG.warning("Cannot look up %s: %s", name, error)
            return []
        return [] if page is None else [_release(name, link) for link in page.links]


def _conditions(answer: Fetched) -> dict[str, str]:
    """The headers that ask for a page only if it is another one by now (RFC 9110, 13.1)."""
    sent = {"if-none-match": answer.headers.get("etag"), "if-modified-since": answer.headers.get("last-modified")}
    return {header: value for header, value in sent.items() if value}


def _release(name: str, link: Link) -> dict[str, Any]:
    digests = {"sha256": link.sha256, "md5": link.md5}
    return {
        "name": name,
        "version": link.version,
        "summary": link.summary or "",
        "url": link.url,
        "digests": {algorithm: digest for algorithm, digest in digests.items() if digest},
        "requires_python": link.requires_python,
    }


class SimpleJsonLocator(Upstream):
    """The documented reader of an index that has the older JSON API; ``base_index`` is its address."""

    def __init__(self, base_index: str) -> None:
        super().__init__(base_index, reads_legacy_json=True)


class FormattedScrapingLocator(Upstream):
    """The documented reader of simple pages; ``url`` is their root.

    ``timeout`` are the seconds to wait for bytes, ``num_workers`` the connections there may be at a time.
    """

    def __init__(self, url: str, timeout: float | None = None, num_workers: int = 10, **_: Any) -> None:
        read = DEFAULT_LIMITS.read if timeout is None else timeout
        total = max(DEFAULT_LIMITS.total, read)
        limits = dataclasses.replace(DEFAULT_LIMITS, read=read, total=total, connections=num_workers)
        super().__init__(url, url, limits=limits)
