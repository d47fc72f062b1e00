"""The home page, the health check, and where there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Never
from urllib.parse import urlsplit

from pypicloud.errors import BadRequest, NotFound
from pypicloud.views.responses import html, json_body

if TYPE_CHECKING:
    from pyramid.response import Response

    from pypicloud.request import PypicloudRequest


def get_index(request: PypicloudRequest) -> Response:
    """The home page: what the caller may read, and how to configure pip and uv."""
    root = (request.app.download_url or request.app_url()).rstrip("/")
    return html(
        "home.html",
        user=request.caller.user,
        summaries=request.index.summaries(request.caller),
        root=root,
        host=_host(root),
        is_plain_http=root.startswith("http:"),
        mount=request.script_name,
        version=request.pypicloud_version,
    )


def _host(root: str) -> str | None:
    try:
        return urlsplit(root).hostname
    except ValueError:
        raise BadRequest("the Host header does not name a host") from None


def health_endpoint(request: PypicloudRequest) -> Response:
    """Whether every backend answers: 200, or 500 with what is wrong (compat.md 5.2)."""
    health = request.index.health()
    response = json_body(request, health)
    response.status_int = 500 if any(health.values()) else 200
    response.headers["Cache-Control"] = "no-store"
    return response


def nothing_here(request: PypicloudRequest) -> Never:
    """404, so that these paths are never taken for names of projects."""
    raise NotFound(f"there is nothing at {request.path_info[:200]!r}")
