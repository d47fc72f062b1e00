"""From the page of another index to a page: JSON and HTML of the simple API, and the older JSON.

The other way round from :mod:`pypicloud.render`. Nothing here is believed before it is looked at: a file
with a strange name or address is left out, a strange fact is taken as unknown, and only what is no page
at all is an error. Addresses come out absolute and without credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urljoin

import msgspec
from packaging.version import Version

from pypicloud.errors import BackendUnavailable
from pypicloud.models import Link, NormalizedName, ProjectPage, normalized, parse_version
from pypicloud.outgoing import is_web_address, without_credentials
from pypicloud.util import PackageParseError, parse_filename

T = TypeVar("T")

#: What to ask a simple page with: JSON says most, and HTML is what every index has (PEP 691).
ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

_SIMPLE_JSON: Final = "application/vnd.pypi.simple.v1+json"
_HTML: Final = frozenset({"application/vnd.pypi.simple.v1+html", "text/html", "application/xhtml+xml"})

_DIGEST: Final = {"sha256": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}

#: What may stand in an address as it is; all else is percent-encoded.
_URL_SAFE: Final = "%/:=&?~+!$,;'@()*[]"


class _File(msgspec.Struct):
    """One file as an index lists it. Any value may be of any kind, or null."""

    filename: Any = None
    url: Any = None
    hashes: Any = None
    size: Any = None
    upload_time: Any = msgspec.field(default=None, name="upload-time")
    requires_python: Any = msgspec.field(default=None, name="requires-python")
    core_metadata: Any = msgspec.field(default=None, name="core-metadata")
    dist_info_metadata: Any = msgspec.field(default=None, name="dist-info-metadata")
    yanked: Any = None


class _SimplePage(msgspec.Struct):
    files: list[_File]
    meta: Any = None


class _LegacyFile(msgspec.Struct):
    filename: Any = None
    url: Any = None
    digests: Any = None
    size: Any = None
    upload_time: Any = msgspec.field(default=None, name="upload_time_iso_8601")
    requires_python: Any = None
    core_metadata: Any = msgspec.field(default=None, name="core-metadata")
    yanked: Any = None
    yanked_reason: Any = None


class _LegacyPage(msgspec.Struct):
    releases: dict[str, list[_LegacyFile]]
    info: Any = None


def simple_page(name: NormalizedName, body: bytes, content_type: str, url: str) -> ProjectPage:
    """A page of the simple API that came from ``url``. Raises :class:`BackendUnavailable` for what is none."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _SIMPLE_JSON:
        found = _decoded(body, _SimplePage)
        if isinstance(found.meta, Mapping):
            _check_version(found.meta.get("api-version"))
        return _page(name, url, found.files)
    if kind in _HTML:
        anchors = _Anchors(url)
        try:
            anchors.feed(body.decode(errors="replace"))
            anchors.close()
        except (AssertionError, ValueError) as error:
            raise BackendUnavailable("the upstream index sent HTML that cannot be read") from error
        return _page(name, anchors.base, anchors.files)
    raise BackendUnavailable(f"the upstream index sent {kind[:80]!r} in place of a simple page")


def legacy_page(name: NormalizedName, body: bytes, url: str) -> ProjectPage:
    """A page of the older JSON API. Raises :class:`BackendUnavailable` for what is none."""
    found = _decoded(body, _LegacyPage)
    summary = found.info.get("summary") if isinstance(found.info, Mapping) else None
    files = [
        _File(
            each.filename,
            each.url,
            each.digests,
            each.size,
            each.upload_time,
            each.requires_python,
            each.core_metadata,
            yanked=each.yanked and (each.yanked_reason or True),
        )
        for listed in found.releases.values()
        for each in listed
    ]
    return _page(name, url, files, summary if isinstance(summary, str) else None)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BackendUnavailable("the upstream index sent JSON that is no page of a project") from error


def _check_version(version: Any) -> None:
    """Another major version may mean anything (PEP 629)."""
    if isinstance(version, str) and version.partition(".")[0] not in {"", "1"}:
        raise BackendUnavailable(f"the upstream index speaks version {version[:20]!r} of the simple API, not 1")


class _Anchors(HTMLParser):
    """The links of an HTML page (PEP 503, 592, 658, 714)."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.base = url
        self.files: list[_File] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "meta" and values.get("name") == "pypi:repository-version":
            _check_version(values.get("content"))
        href = values.get("href")
        if not href:
            return
        if tag == "base":
            self.base = urljoin(self.base, href)
        elif tag == "a":
            self.files.append(_anchor(href, values))


def _anchor(href: str, values: Mapping[str, str | None]) -> _File:
    address, _, fragment = href.partition("#")
    algorithm, _, digest = fragment.partition("=")
    metadata = values.get("data-core-metadata") or values.get("data-dist-info-metadata")
    kind, _, metadata_digest = (metadata or "").partition("=")
    return _File(
        filename=unquote(address.partition("?")[0].rpartition("/")[2]),
        url=address,
        hashes={algorithm: digest},
        requires_python=values.get("data-requires-python"),
        core_metadata={kind: metadata_digest} if metadata_digest else kind.lower() == "true",
        yanked="data-yanked" in values and (values["data-yanked"] or True),
    )


def _page(name: NormalizedName, base: str, files: Iterable[_File], summary: str | None = None) -> ProjectPage:
    links = [link for file in files if (link := _link(name, base, file, summary)) is not None]
    links.sort(key=lambda link: (parse_version(link.version), link.filename), reverse=True)
    return ProjectPage(name, tuple(links), tuple(dict.fromkeys(link.version for link in links)))


def _link(name: NormalizedName, base: str, file: _File, summary: str | None) -> Link | None:
    """The row of a file; None if it is not one of the project, or nothing that an installer may fetch."""
    version, url = _version(name, file.filename), _address(base, file.url)
    if version is None or url is None:
        return None
    return Link(
        filename=file.filename,
        url=url,
        version=version,
        sha256=_digest(file.hashes, "sha256"),
        md5=_digest(file.hashes, "md5"),
        size=file.size if type(file.size) is int and file.size >= 0 else None,
        upload_time=_time(file.upload_time),
        requires_python=file.requires_python.strip() or None if isinstance(file.requires_python, str) else None,
        core_metadata=_metadata(file.dist_info_metadata if file.core_metadata is None else file.core_metadata),
        yanked=file.yanked if isinstance(file.yanked, str | bool) else False,
        summary=summary,
    )


def _version(name: NormalizedName, filename: Any) -> str | None:
    if not isinstance(filename, str) or not filename.isprintable():
        return None
    # The project's name tells where in the file name the version begins, but is not believed to stand there.
    known = name if normalized(filename).startswith(f"{name}-") else None
    try:
        found, version = parse_filename(filename, known)
    except PackageParseError:
        return None
    # With another version there is no telling where the name ends, and no installer takes it (PEP 440).
    is_ours = normalized(found) == name and isinstance(parse_version(version), Version)
    return version if is_ours else None


def _address(base: str, url: Any) -> str | None:
    if not isinstance(url, str):
        return None
    try:
        absolute = without_credentials(urljoin(base, url.strip())).partition("#")[0]
        return quote(absolute, safe=_URL_SAFE) if is_web_address(absolute) else None
    except ValueError:
        return None


def _digest(hashes: Any, algorithm: str) -> str | None:
    digest = hashes.get(algorithm) if isinstance(hashes, Mapping) else None
    if not isinstance(digest, str):
        return None
    digest = digest.lower()
    return digest if _DIGEST[algorithm].fullmatch(digest) else None


def _metadata(value: Any) -> str | bool | None:
    """The digest of the separate core metadata; true if there are some whose sha256 is not known (PEP 714)."""
    if isinstance(value, Mapping):
        return _digest(value, "sha256") or True
    return True if value is True else None


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
