"""Values as responses."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec
from pyramid.response import Response

from pypicloud.pages import CACHE_CONTROL, Page, choose_encoding
from pypicloud.storage.response import IMMUTABLE, answer_range

if TYPE_CHECKING:
    import jinja2

    from pypicloud.models import Package
    from pypicloud.request import PypicloudRequest

#: No script, nothing from elsewhere, nobody's frame.
_HTML_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def page(request: PypicloudRequest, rendered: Page) -> Response:
    """A rendered page in the encoding that the client takes, or 304 if it has that already."""
    found = rendered.encoded(choose_encoding(request.headers.get("Accept-Encoding")))
    if found.is_known_to(request.headers.get("If-None-Match")):
        return Response(status=304, headerlist=[header for header in found.headers if header[0] != "content-type"])
    headers = [*found.headers, ("content-length", str(len(found.body)))]
    return Response(headerlist=headers, app_iter=[found.body])


def json_body(request: PypicloudRequest, value: Any) -> Response:
    """A value as JSON, without a charset: uv reads only exactly ``application/json`` (standards.md 7.3)."""
    body = msgspec.json.encode(value)
    if request.app.json_indent:
        body = msgspec.json.format(body, indent=request.app.json_indent)
    return Response(body=body, headerlist=[("Content-Type", "application/json"), ("Content-Length", str(len(body)))])


def html(template: str, **values: Any) -> Response:
    """A page for people."""
    response = Response(
        text=_templates().get_template(template).render(**values), content_type="text/html", charset="utf-8"
    )
    response.headers.update(_HTML_HEADERS)
    response.headers["Cache-Control"] = "no-store"
    return response


def html_bytes(body: bytes) -> Response:
    """HTML that is rendered already."""
    response = Response(body=body, content_type="text/html", charset="utf-8")
    response.headers.update(_HTML_HEADERS)
    response.headers["Cache-Control"] = "private, max-age=0"
    return response


def nothing() -> Response:
    """The documented empty success."""
    return Response(content_type="text/html", charset="utf-8")


def package_facts(request: PypicloudRequest, package: Package) -> dict[str, Any]:
    """A package as the API shows it (compat.md 5.5); only one that is yanked says so."""
    facts = {
        "name": package.name,
        "filename": package.filename,
        "last_modified": int(package.last_modified.timestamp()),
        "version": package.version,
        "url": request.db.get_url(package),
        "summary": package.summary,
        "metadata": package.get_metadata(),
    }
    return {**facts, "yanked": package.yanked} if package.yanked else facts


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2  # The simple pages, which is what most servers only serve, need no templates.

    folder = Path(__file__).parent.parent / "templates"
    return jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined)


def file(request: PypicloudRequest, response: Response) -> Response:
    """The storage's response, with what caches are told of it.

    While files may be overwritten, clients are told to ask again; and what somebody had to log in for is
    not for a cache that others share.
    """
    if response.status_int not in {200, 206, 304}:
        return response
    if not request.app.files_are_immutable:
        response.headers["Cache-Control"] = CACHE_CONTROL
    elif request.caller.user is not None and "Cache-Control" in response.headers:
        response.headers["Cache-Control"] = f"private, {response.headers['Cache-Control']}"
    return response


def stream(request: PypicloudRequest, package: Package) -> Response:
    """The file's bytes through this server, wherever they are kept (``pypi.stream_files``, compat.md 2.5)."""
    response = request.db.storage.stream_response(package)
    response.headers["Content-Disposition"] = f'attachment; filename="{quote(package.filename, safe="+!")}"'
    if request.app.package_max_age:
        # A shared cache hands what is public to everybody, so what somebody had to log in for must not be.
        scope = "public" if request.caller.user is None else "private"
        response.headers["Cache-Control"] = f"{scope}, max-age={request.app.package_max_age}"
        return response
    return file(request, response)


def small_file(request: PypicloudRequest, body: bytes) -> Response:
    """A companion's bytes, with the headers of a file."""
    response = Response(content_type="application/octet-stream", conditional_response=True)
    response.etag = hashlib.sha256(body).hexdigest()
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = IMMUTABLE
    wanted = answer_range(request, response, len(body))
    response.body = body if wanted is None else body[slice(*wanted)]
    return file(request, response)
