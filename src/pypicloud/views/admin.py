"""``/admin/``: maintenance, for administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pypicloud.views import responses

if TYPE_CHECKING:
    from pyramid.response import Response

    from pypicloud.request import PypicloudRequest


class AdminEndpoints:
    """The documented collection of administrators' views."""

    def __init__(self, request: PypicloudRequest) -> None:
        self.request = request

    def rebuild_package_list(self) -> Response:
        """Bring the cache in line with the storage; any method, as the documented curl line uses GET."""
        self.request.index.rebuild()
        return responses.nothing()


def rebuild_package_list(request: PypicloudRequest) -> Response:
    """The view of ``/admin/rebuild``."""
    return AdminEndpoints(request).rebuild_package_list()
