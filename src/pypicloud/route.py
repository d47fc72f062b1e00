"""Every URL of the server on one page, with its resource, its permission and its view.

A view cannot be reached without a row here, and a row cannot be written without a permission:
``ANYONE`` means that the index decides what the caller sees and may do; ``ADMIN`` that Pyramid turns
everybody else away before the view is called. What no row matches is 404, a wrong method included
(compat.md 5.1).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Final


class Permission(enum.Enum):
    """Who may call a view."""

    ANYONE = enum.auto()
    ADMIN = enum.auto()


class IStaticResource:
    """A place in the tree of URLs whose children are known by name."""

    subobjects: ClassVar[dict[str, type]] = {}

    def __init__(self, request: Any) -> None:
        self.request = request

    def __getitem__(self, name: str) -> Any:
        return self.subobjects[name](self.request)


class IResourceFactory:
    """A place whose children are made from whatever name is asked for."""

    child: ClassVar[type]

    def __init__(self, request: Any) -> None:
        self.request = request

    def __getitem__(self, name: str) -> Any:
        return self.child(self.request, name)


class SimplePackageResource:
    """One project of the simple API."""

    def __init__(self, request: Any, name: str | None = None) -> None:
        self.request = request
        self.name: str = request.matchdict["name"] if name is None else name


class SimpleResource(IResourceFactory):
    """The list of projects: ``/simple/`` and ``/pypi/``."""

    child = SimplePackageResource


class PackagesResource(IStaticResource):
    """All files on one page: ``/packages/``."""


class APIPackageFileResource:
    """One stored file: ``/api/package/<project>/<file>``."""

    def __init__(self, request: Any, name: str | None = None, filename: str | None = None) -> None:
        self.request = request
        self.name: str = request.matchdict["name"] if name is None else name
        self.filename: str = request.matchdict["filename"] if filename is None else filename


class APIPackageTargetResource:
    """A stored file, or all files of a version: ``/api/package/<project>/<file or version>/``."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.name: str = request.matchdict["name"]
        self.target: str = request.matchdict["target"]


class APIPackageResource(IResourceFactory):
    """The files of one project: ``/api/package/<project>/``."""

    def __init__(self, request: Any, name: str | None = None) -> None:
        super().__init__(request)
        self.name: str = request.matchdict["name"] if name is None else name

    def __getitem__(self, name: str) -> Any:
        return APIPackageFileResource(self.request, self.name, name)


class APIPackagingResource(IResourceFactory):
    """The list of projects for programs: ``/api/package/``."""

    child = APIPackageResource


class APIResource(IStaticResource):
    """``/api/``."""

    subobjects: ClassVar[dict[str, type]] = {"package": APIPackagingResource}


class AdminResource(IStaticResource):
    """``/admin/``: maintenance."""


class Root(IStaticResource):
    """``/``."""

    subobjects: ClassVar[dict[str, type]] = {
        "admin": AdminResource,
        "api": APIResource,
        "packages": PackagesResource,
        "pypi": SimpleResource,
        "simple": SimpleResource,
    }


READ: Final = ("GET", "HEAD")
ANY: Final = ("GET", "HEAD", "POST", "PUT", "DELETE")


@dataclass(frozen=True, slots=True)
class Route:
    """A pattern of Pyramid's URL dispatch, and what answers there.

    ``view`` is ``module.function`` below ``pypicloud.views``. With ``slash`` the pattern ends in a slash,
    and a GET without it is redirected (302, compat.md 5.1). ``header`` is ``name:pattern`` that a request must have.
    """

    name: str
    pattern: str
    resource: type
    permission: Permission
    view: str
    methods: tuple[str, ...] = READ
    slash: bool = False
    header: str | None = None


#: In the order of matching: the first pattern that fits, with its method, answers.
ROUTES: Final = (
    Route("home", "/", Root, Permission.ANYONE, "home.get_index"),
    Route("upload_root", "/", Root, Permission.ANYONE, "simple.upload", ("POST",)),
    Route("health", "/health", Root, Permission.ANYONE, "home.health_endpoint", ANY),
    Route(
        "unknown", "/{file:robots\\.txt|favicon\\.ico|\\.well-known/.*}", Root, Permission.ANYONE, "home.nothing_here"
    ),
    Route("packages", "/packages/", PackagesResource, Permission.ANYONE, "packages.list_packages", slash=True),
    Route("rebuild", "/admin/rebuild{slash:/?}", AdminResource, Permission.ADMIN, "admin.rebuild_package_list", ANY),
    Route("rebuild_status", "/admin/rebuild/status{slash:/?}", AdminResource, Permission.ADMIN, "admin.rebuild_status"),
    Route("admin", "/admin{rest:/?.*}", AdminResource, Permission.ADMIN, "home.nothing_here", ANY),
    Route("api_projects", "/api/package/", APIPackagingResource, Permission.ANYONE, "api.all_packages", slash=True),
    Route(
        "api_project", "/api/package/{name}/", APIPackageResource, Permission.ANYONE, "api.package_versions", slash=True
    ),
    Route(
        "core_metadata",
        "/api/package/{name}/{filename:[^/]+}.metadata",
        APIPackageFileResource,
        Permission.ANYONE,
        "api.core_metadata",
    ),
    Route(
        "download",
        "/api/package/{name}/{filename}{slash:/?}",
        APIPackageFileResource,
        Permission.ANYONE,
        "api.download_package",
    ),
    Route(
        "api_upload",
        "/api/package/{name}/{filename}{slash:/?}",
        APIPackageFileResource,
        Permission.ANYONE,
        "api.upload_package",
        ("POST",),
    ),
    Route(
        "delete",
        "/api/package/{name}/{filename}{slash:/?}",
        APIPackageFileResource,
        Permission.ANYONE,
        "api.delete_package",
        ("DELETE",),
    ),
    Route(
        "yank",
        "/api/package/{name}/{target}/yank{slash:/?}",
        APIPackageTargetResource,
        Permission.ANYONE,
        "api.yank_package",
        ("POST",),
    ),
    Route(
        "unyank",
        "/api/package/{name}/{target}/unyank{slash:/?}",
        APIPackageTargetResource,
        Permission.ANYONE,
        "api.unyank_package",
        ("POST",),
    ),
    Route("s3_events", "/api/events/s3{slash:/?}", APIResource, Permission.ANYONE, "events.follow_s3", ("POST",)),
    Route("api", "/api{rest:/?.*}", APIResource, Permission.ANYONE, "home.nothing_here", ANY),
    Route("projects", "/{index:simple|pypi}/", SimpleResource, Permission.ANYONE, "simple.simple", slash=True),
    Route(
        "xmlrpc",
        "/pypi{slash:/?}",
        SimpleResource,
        Permission.ANYONE,
        "simple.xmlrpc_call",
        ("POST",),
        header="Content-Type:(?i)text/xml",
    ),
    Route("upload", "/{index:simple|pypi}{slash:/?}", SimpleResource, Permission.ANYONE, "simple.upload", ("POST",)),
    # hatch looks here, below its upload URL, for what is stored already (standards.md 7.4).
    Route(
        "uploaded_root",
        "/+simple/{name}/",
        SimplePackageResource,
        Permission.ANYONE,
        "simple.package_versions",
        slash=True,
    ),
    Route(
        "uploaded",
        "/{index:simple|pypi}/+simple/{name}/",
        SimplePackageResource,
        Permission.ANYONE,
        "simple.package_versions",
        slash=True,
    ),
    Route(
        "project",
        "/{index:simple|pypi}/{name}/",
        SimplePackageResource,
        Permission.ANYONE,
        "simple.package_versions",
        slash=True,
    ),
    Route(
        "project_json",
        "/{index:simple|pypi}/{name}/json{slash:/?}",
        SimplePackageResource,
        Permission.ANYONE,
        "simple.package_versions_json",
    ),
    Route(
        "release_json",
        "/{index:simple|pypi}/{name}/{version}/json{slash:/?}",
        SimplePackageResource,
        Permission.ANYONE,
        "simple.package_versions_json",
    ),
    # The bare root serves as an index URL, too (compat.md 5.2).
    Route("bare", "/{name}/", SimplePackageResource, Permission.ANYONE, "simple.package_versions", slash=True),
    Route(
        "bare_json", "/{name}/json{slash:/?}", SimplePackageResource, Permission.ANYONE, "simple.package_versions_json"
    ),
)
