"""All files on one page, for buildout and ``--find-links``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pypicloud import render
from pypicloud.views import responses

if TYPE_CHECKING:
    from pyramid.response import Response

    from pypicloud.request import PypicloudRequest


def list_packages(request: PypicloudRequest) -> Response:
    """Every file that the caller may read."""
    return responses.html_bytes(render.link_list(request.index.links(request.caller, depth=1)))
