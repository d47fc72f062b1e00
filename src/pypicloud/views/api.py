"""``/api/package/``: lists, downloads, uploads, deletes and yanks for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pypicloud.request import as_flag
from pypicloud.views import responses
from pypicloud.views.simple import read_upload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyramid.response import Response

    from pypicloud.models import Package
    from pypicloud.request import PypicloudRequest
    from pypicloud.route import APIPackageFileResource, APIPackageResource, APIPackageTargetResource


def all_packages(request: PypicloudRequest) -> Response:
    """The projects that the caller may read: names, or with ``verbose`` also summary and time."""
    if not request.param("verbose", False, type=as_flag):
        return responses.json_body(request, {"packages": request.index.projects(request.caller)})
    rows = request.index.summaries(request.caller)
    packages = [{**row, "last_modified": int(row["last_modified"].timestamp())} for row in rows]
    return responses.json_body(request, {"packages": packages})


def package_versions(context: APIPackageResource, request: PypicloudRequest) -> Response:
    """The files of a project, newest version first, and whether the caller may write it."""
    packages, write = request.index.packages(request.caller, context.name)
    facts = [responses.package_facts(request, package) for package in packages]
    return responses.json_body(request, {"packages": facts, "write": write})


def download_package(context: APIPackageFileResource, request: PypicloudRequest) -> Response:
    """A stored file, or the way to it."""
    package = request.index.package(request.caller, context.name, context.filename)
    if request.app.stream_files:
        return responses.stream(request, package)
    return responses.file(request, request.db.download_response(package))


def core_metadata(context: APIPackageFileResource, request: PypicloudRequest) -> Response:
    """The core metadata of a wheel (PEP 658)."""
    body = request.index.core_metadata(request.caller, context.name, context.filename)
    return responses.small_file(request, body)


def upload_package(context: APIPackageFileResource, request: PypicloudRequest) -> Response:
    """Take an upload whose project is in the URL; the file name in the URL does not count (compat.md 5.5)."""
    package = request.index.upload(request.caller, read_upload(request.form, context.name))
    return responses.json_body(request, responses.package_facts(request, package))


def delete_package(context: APIPackageFileResource, request: PypicloudRequest) -> Response:
    """Delete a stored file."""
    request.index.delete(request.caller, context.name, context.filename)
    return responses.nothing()


def yank_package(context: APIPackageTargetResource, request: PypicloudRequest) -> Response:
    """Yank a stored file, or all files of a version (PEP 592)."""
    is_form = request.content_type == "multipart/form-data"
    reason = request.form.text("reason") if is_form else request.param("reason", None)
    return _yanked(request, request.index.yank(request.caller, context.name, context.target, reason))


def unyank_package(context: APIPackageTargetResource, request: PypicloudRequest) -> Response:
    """Take back that a file, or all files of a version, are yanked."""
    return _yanked(request, request.index.unyank(request.caller, context.name, context.target))


def _yanked(request: PypicloudRequest, packages: Iterable[Package]) -> Response:
    facts = [{**responses.package_facts(request, package), "yanked": package.yanked} for package in packages]
    return responses.json_body(request, {"packages": facts})
