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
        """Bring the cache in line with the storage; any method, as the documented curl line uses GET.

        With ``wait=false`` the answer comes at once (202), and the rebuild goes on in the background.
        """
        if self.request.param("wait", True, type=bool):
            self.request.index.rebuild()
            return responses.nothing()
        self.request.index.start_rebuild()
        response = self.rebuild_status()
        response.status_int = 202
        return response

    def rebuild_status(self) -> Response:
        """How far the last rebuild is, on whichever server it runs."""
        response = responses.json_body(self.request, self.request.index.rebuild_status())
        response.headers["Cache-Control"] = "no-store"
        return response


def rebuild_package_list(request: PypicloudRequest) -> Response:
    """The view of ``/admin/rebuild``."""
    return AdminEndpoints(request).rebuild_package_list()


def rebuild_status(request: PypicloudRequest) -> Response:
    """The view of ``/admin/rebuild/status``."""
    return AdminEndpoints(request).rebuild_status()
