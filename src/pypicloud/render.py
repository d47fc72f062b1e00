"""From a page to bytes: HTML, JSON, legacy JSON; and which of them a client wants.

HTML is frozen at version 1.4 of the simple API (PEP 833), JSON is 1.4 without the parts that the
server does not know (standards.md 4). Links are relative to the page, so the same bytes are right
behind every host, scheme and mount point.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import html
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from pypicloud.errors import NotAcceptable
from pypicloud.models import Link, Package, ProjectPage, parse_version
from pypicloud.util import get_packagetype

#: The version of the simple API that the pages speak (PEP 629, PEP 792).
API_VERSION: Final = "1.4"

#: The longest ``Accept`` header for which the answer is remembered.
LONGEST_REMEMBERED: Final = 1024


class Format(enum.StrEnum):
    """The representations of a page; the value is the Content-Type."""

    JSON = "application/vnd.pypi.simple.v1+json"
    HTML_V1 = "application/vnd.pypi.simple.v1+html"
    HTML = "text/html; charset=utf-8"


_OFFERS: Final[Mapping[str, Format]] = {
    "application/vnd.pypi.simple.v1+json": Format.JSON,
    "application/vnd.pypi.simple.latest+json": Format.JSON,
    "application/vnd.pypi.simple.v1+html": Format.HTML_V1,
    "application/vnd.pypi.simple.latest+html": Format.HTML_V1,
    "text/html": Format.HTML,
}


def negotiate(accept: str | None, wanted: str | None = None) -> Format:
    """The format that a client's ``Accept`` header, or its ``?format=``, asks for (standards.md 4.2).

    The highest quality wins; at equal quality JSON wins if it was named; ``*/*`` alone means HTML,
    because that is what old tools parse. Raises :class:`NotAcceptable` if nothing fits.
    """
    if wanted is not None:
        if wanted not in _OFFERS:
            raise NotAcceptable(f"format {wanted!r} is not offered; use one of {', '.join(_OFFERS)}")
        return _OFFERS[wanted]
    if not accept or not accept.strip():
        return Format.HTML
    return _best_format(accept) if len(accept) <= LONGEST_REMEMBERED else _best_format.__wrapped__(accept)


@functools.lru_cache(maxsize=1024)
def _best_format(accept: str) -> Format:
    named, wild = _parse_accept(accept)
    best = max(named.values(), default=0.0)
    if best and best >= wild:
        order = (Format.JSON, Format.HTML_V1, Format.HTML)
        return next(offer for offer in order if named.get(offer) == best)
    if wild and named.get(Format.HTML) != 0.0:
        return Format.HTML
    raise NotAcceptable(f"none of {', '.join(_OFFERS)} is in the Accept header {accept[:200]!r}")


def _parse_accept(accept: str) -> tuple[dict[Format, float], float]:
    """The quality of each format that is named, and of the best wildcard that covers ``text/html``."""
    named: dict[Format, float] = {}
    wild = 0.0
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = _quality(parameters)
        if media in _OFFERS:
            offer = _OFFERS[media]
            named[offer] = max(quality, named.get(offer, 0.0))
        elif media in {"*/*", "text/*"}:
            wild = max(wild, quality)
    return named, wild


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def project_page(page: ProjectPage, form: Format) -> bytes:
    """A project page (PEP 503, 592, 658, 691, 700, 714)."""
    return _project_json(page) if form is Format.JSON else _project_html(page)


def project_list(names: Iterable[str], form: Format) -> bytes:
    """The list of projects; the names are normalised and sorted already."""
    if form is Format.JSON:
        return msgspec.json.encode(
            {"meta": {"api-version": API_VERSION}, "projects": [{"name": name} for name in names]}
        )
    rows = "".join(f'<a href="{name}/">{name}</a><br>\n' for name in map(html.escape, names))
    return _document("Simple Index", rows)


def link_list(links: Iterable[Link]) -> bytes:
    """Every file of every project on one page, for ``--find-links`` and buildout (compat.md 5.3)."""
    rows = "".join(_anchor(link) for link in links)
    return _document("All packages", rows or "<p>There are no packages.</p>\n")


def _document(title: str, body: str) -> bytes:
    return (
        "<!DOCTYPE html>\n<html>\n<head>\n"
        f'<meta name="pypi:repository-version" content="{API_VERSION}">\n'
        f"<title>{title}</title>\n</head>\n<body>\n{body}</body>\n</html>\n"
    ).encode()


def _project_html(page: ProjectPage) -> bytes:
    rows = sorted(page.links, key=lambda link: (link.filename.lower(), link.filename))
    return _document("Package Index", "".join(_anchor(link) for link in rows))


def _anchor(link: Link) -> str:
    fragment = f"#sha256={link.sha256}" if link.sha256 else f"#md5={link.md5}" if link.md5 else ""
    attributes = [f'href="{html.escape(link.url)}{fragment}"']
    if link.requires_python:
        attributes.append(f'data-requires-python="{html.escape(link.requires_python)}"')
    if link.core_metadata:
        # The second spelling is PEP 658's; old pip reads only that one (PEP 714).
        digest = "true" if link.core_metadata is True else f"sha256={link.core_metadata}"
        attributes += [f'data-core-metadata="{digest}"', f'data-dist-info-metadata="{digest}"']
    if link.yanked:
        attributes.append(f'data-yanked="{html.escape(link.yanked) if isinstance(link.yanked, str) else ""}"')
    return f"<a {' '.join(attributes)}>{html.escape(link.filename)}</a><br>\n"


def _project_json(page: ProjectPage) -> bytes:
    return msgspec.json.encode(
        {
            "meta": {"api-version": API_VERSION},
            "name": page.name,
            "versions": list(page.versions),
            "files": [_file(link) for link in page.links],
        }
    )


def _file(link: Link) -> dict[str, Any]:
    """One file of the JSON page. An unknown fact is left out: uv refuses a page with a null (standards.md 1.3)."""
    digests = {"sha256": link.sha256} if link.sha256 else {"md5": link.md5} if link.md5 else {}
    entry: dict[str, Any] = {"filename": link.filename, "url": link.url, "hashes": digests}
    if link.size is not None:
        entry["size"] = link.size
    if link.upload_time is not None:
        entry["upload-time"] = iso_time(link.upload_time)
    if link.requires_python:
        entry["requires-python"] = link.requires_python
    if link.core_metadata:
        entry["core-metadata"] = _digest_or_true(link.core_metadata)
    if link.yanked:
        entry["yanked"] = link.yanked
    return entry


def iso_time(moment: datetime) -> str:
    """UTC in the form that PEP 700 asks for: ``2026-11-20T07:15:00.123456Z``."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def link_to(package: Package, base: str) -> Link:
    """The row of a package; ``base`` is the way from the page to ``/api/package/<project>/``."""
    data = package.data
    size = data.get("size")
    return Link(
        filename=package.filename,
        url=base + quote(package.filename, safe="+!~=@$&',;"),
        version=package.version,
        sha256=data.get("hash_sha256"),
        md5=data.get("hash_md5"),
        size=size if isinstance(size, int) else None,
        upload_time=package.last_modified,
        requires_python=data.get("requires_python"),
        core_metadata=data.get("core_metadata"),
        yanked=package.yanked,
        summary=package.summary,
        uploader=data.get("uploader"),
    )


def at_url(link: Link, url: str) -> Link:
    """The same row with its file elsewhere; a fragment in the URL is dropped, the digest is a fact of its own."""
    return dataclasses.replace(link, url=url.partition("#")[0])


def at_depth(page: ProjectPage, depth: int) -> ProjectPage:
    """The page as it is read ``depth`` folders below the server's root, with links relative to that place."""
    return ProjectPage(page.name, tuple(link_at_depth(link, depth) for link in page.links), page.versions)


def link_at_depth(link: Link, depth: int) -> Link:
    """The row as it stands on a page ``depth`` folders deep; an absolute address stays as it is."""
    return link if "://" in link.url else at_url(link, "../" * depth + link.url)


def legacy_json(page: ProjectPage, root: str, version: str | None = None) -> dict[str, Any]:
    """The JSON of ``/pypi/<project>/json`` (compat.md 5.4, with its FIXes; standards.md 11.1).

    ``root`` is the server's absolute address: this page is documented with absolute links. With
    ``version`` it is the page of that release, without ``releases``.
    """
    releases: dict[str, list[Link]] = {}
    for link in page.links:
        releases.setdefault(link.version, []).append(link)
    shown = latest(releases) if version is None else _spelled(version, releases)
    files = releases[shown] if shown is not None else []
    answer: dict[str, Any] = {
        "info": _info(page, shown, files),
        "urls": [_legacy_file(link, root, page.name) for link in files],
    }
    if version is None:
        answer["releases"] = {
            spelling: [_legacy_file(link, root, page.name) for link in links] for spelling, links in releases.items()
        }
    return answer


def latest(releases: Mapping[str, Iterable[Link]]) -> str | None:
    """The version to show first: not yanked before yanked, then the highest, pre-releases included (compat.md 5.4)."""

    def rank(version: str) -> tuple[bool, Any]:
        return (not all(link.yanked for link in releases[version]), parse_version(version))

    return max(releases, key=rank, default=None)


def _spelled(version: str, releases: Mapping[str, Any]) -> str | None:
    """The stored spelling of a version: ``1.0`` and ``1.0.0`` are the same release (PEP 440)."""
    if version in releases:
        return version
    asked = parse_version(version)
    return next((spelling for spelling in releases if parse_version(spelling) == asked), None)


def _info(page: ProjectPage, version: str | None, files: Iterable[Link]) -> dict[str, Any]:
    files = list(files)
    yanked = [link.yanked for link in files if link.yanked]
    info: dict[str, Any] = {
        "name": page.name,
        "summary": next((link.summary for link in files if link.summary), ""),
        "license": "",
        "classifiers": [],
        "requires_python": next((link.requires_python for link in files if link.requires_python), None),
        "yanked": bool(files) and len(yanked) == len(files),
        "yanked_reason": next((reason for reason in yanked if isinstance(reason, str)), None),
    }
    if version is not None:
        info["version"] = version
    return info


def _legacy_file(link: Link, root: str, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "filename": link.filename,
        "packagetype": get_packagetype(link.filename),
        "url": link.url if "://" in link.url else f"{root}/api/package/{name}/{link.filename}",
        "requires_python": link.requires_python,
        "yanked": bool(link.yanked),
        "yanked_reason": link.yanked if isinstance(link.yanked, str) else None,
    }
    if link.size is not None:
        entry["size"] = link.size
    if link.upload_time is not None:
        entry["upload_time"] = link.upload_time.strftime("%Y-%m-%dT%H:%M:%S")
        entry["upload_time_iso_8601"] = iso_time(link.upload_time)
    if link.sha256:
        entry["digests"] = {"md5": link.md5, "sha256": link.sha256}
        entry["md5_digest"] = link.md5
    if link.core_metadata:
        entry["core-metadata"] = _digest_or_true(link.core_metadata)
    return entry


def _digest_or_true(core_metadata: str | bool) -> dict[str, str] | bool:
    return {"sha256": core_metadata} if isinstance(core_metadata, str) else core_metadata
