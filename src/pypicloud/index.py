"""PackageIndex: what a caller may see and do. The only thing the views call.

Here is the one place that decides rights. Names are normalised on every way in, and the right that
counts is the one on a stored file's own project, never on the name that a URL or a form gives
(compat.md 4.6).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pypicloud import render, yanking
from pypicloud.cache import status
from pypicloud.cache.base import ICache
from pypicloud.errors import (
    BackendUnavailable,
    Forbidden,
    InvalidDistribution,
    LoginRequired,
    PackageNotFound,
    ProjectNotFound,
)
from pypicloud.fallback import Answer, Policy, Situation, decide
from pypicloud.health import Checkup
from pypicloud.metadata import wheel_metadata
from pypicloud.models import (
    Caller,
    Link,
    NormalizedName,
    Package,
    ProjectPage,
    Redirect,
    Upload,
    normalized,
    parse_version,
)
from pypicloud.pages import Page, Pages
from pypicloud.render import Format
from pypicloud.settings import SIZE, Setting
from pypicloud.storage.base import IStorage
from pypicloud.storage.reading import seekable
from pypicloud.upload import VALID_NAME, checked, companions_of, facts_of, name_and_version, store

if TYPE_CHECKING:
    from pypicloud.access.base import IAccessBackend
    from pypicloud.cache.rebuild import Rebuilt
    from pypicloud.cache.status import Status
    from pypicloud.locator import Upstream

LOG: Final = logging.getLogger(__name__)

MAX_UPLOAD_SIZE: Final = Setting(
    "pypi.max_upload_size",
    SIZE,
    1 << 30,
    "The largest upload, in bytes, form included.",
)
SETTINGS: Final = (MAX_UPLOAD_SIZE,)

#: The way to a project's page, below an index's address.
SIMPLE: Final = "simple/{}/"


class PackageIndex:
    """The index as one caller or another sees it: backends, policy, upstream and memory of pages, put together."""

    def __init__(
        self,
        cache: ICache,
        access: IAccessBackend,
        policy: Policy,
        pages: Pages,
        upstream: Upstream,
        *,
        checkup: Checkup | None = None,
        revision: Callable[[str | None], str | None] | None = None,
    ) -> None:
        self.cache = cache
        self.access = access
        self.policy = policy
        self.pages = pages
        self.upstream = upstream
        self.checkup = checkup or Checkup()
        # One request's question may go along with those of others.
        self._revision = revision or cache.revision

    @property
    def spool_directory(self) -> str | None:
        """Where uploads are best spooled."""
        return self._storage.spool_directory()

    # Looking

    def projects(self, caller: Caller) -> list[str]:
        """The names of the projects that the caller may read, sorted."""
        return self.access.readable(self.cache.distinct(), caller)

    def rendered_projects(self, caller: Caller, form: Format) -> Page:
        """The list of projects as a page, out of the memory while neither names nor rights change."""
        revision = self._under_rights(self._revision(None))
        key = _list_key(form, caller)
        page = None if revision is None else self.pages.get(key, revision)
        if page is None:
            page = Page(render.project_list(self.projects(caller), form), form.value)
            if revision is not None:
                self.pages.put(key, revision, page)
        return page

    def _under_rights(self, revision: str | None) -> str | None:
        """The revision of the list of projects as callers see it; None if names or rights keep none."""
        rights = self.access.revision()
        return None if revision is None or rights is None else f"{revision} {rights}"

    def project(self, name: str, caller: Caller, way: str = SIMPLE) -> ProjectPage | Redirect:
        """A project's page, or where to go instead, as the fallback table says.

        ``way`` is the path below the upstream's address that a redirect leads to. Raises
        :class:`LoginRequired` or :class:`ProjectNotFound`.
        """
        found = self._find(_project_name(name), caller, way)
        return found if isinstance(found, Redirect) else self._page(found)

    def _find(self, project: NormalizedName, caller: Caller, way: str = SIMPLE) -> _Found | Redirect:
        packages = self.cache.all(project)
        answer = self._decide(project, caller, is_stored=bool(packages))
        if answer is Answer.LOGIN:
            raise LoginRequired(f"to see {project} you need to log in")
        if answer is Answer.REDIRECT:
            return self._redirect(project, way)
        if answer is Answer.LIST:
            return _Found(project, packages)
        if answer is Answer.LIST_AND_UPSTREAM:
            return _Found(project, packages, self._upstream_page(project))
        raise ProjectNotFound(f"there is no project {project!r} here")

    def _upstream_page(self, project: NormalizedName) -> ProjectPage | None:
        """What the upstream has of a stored project; nothing while it is in trouble, which is no trouble of ours."""
        try:
            return self.upstream.page(project)
        except BackendUnavailable as error:
            LOG.warning("project %s is listed without what is upstream: %s", project, error, exc_info=error.__cause__)
            return None

    def rendered_project(self, name: str, caller: Caller, form: Format, depth: int = 2) -> Page | Redirect:
        """A project's page, rendered; out of the memory while nothing on it changes.

        ``depth`` is how many folders deep below the server's root the page is read, which is all that
        its relative links depend on.
        """
        project = _project_name(name)
        # The revision is read before the packages: a page is never kept under a newer one than its own.
        revision = self._revision(project)
        key = _page_key(form, depth, project)
        if revision is not None:
            kept = self.pages.get(key, revision)
            if kept is not None and self._decide(project, caller, is_stored=True) is Answer.LIST:
                return kept
        found = self._find(project, caller)
        if isinstance(found, Redirect):
            return found
        if revision is not None and found.upstream is not None:
            # Such a page is never found under the revision of the stored files alone.
            revision = f"{revision} {found.upstream.revision}"
            kept = self.pages.get(key, revision)
            if kept is not None:
                return kept
        page = Page(render.project_page(render.at_depth(self._page(found), depth), form), form.value)
        if revision is not None and not self._gives_own_urls:
            self.pages.put(key, revision, page)
        return page

    def keeps(self, name: str | None, caller: Caller, form: Format) -> bool:
        """Whether the memory holds a page of a project, or for None of the list, of whatever revision."""
        return self.pages.has(_list_key(form, caller) if name is None else _page_key(form, 2, name))

    def kept(self, name: str | None, caller: Caller, form: Format, revision: str | None) -> Page | None:
        """What the caller would be shown at this moment, if the memory holds it.

        It is what :meth:`rendered_project` gives, or :meth:`rendered_projects` for None, when the cache's
        revision of that is ``revision``.
        """
        if revision is None:
            return None
        if name is None:
            seen = self._under_rights(revision)
            return None if seen is None else self.pages.get(_list_key(form, caller), seen)
        page = self.pages.get(_page_key(form, 2, name), revision)
        if page is None or not self.access.permits(caller, name, "read"):
            return None
        return page if self.policy.lists_what_is_stored(name) else None

    def _decide(self, project: NormalizedName, caller: Caller, *, is_stored: bool) -> Answer:
        can_read = self.access.permits(caller, project, "read")
        situation = Situation(
            is_stored=is_stored,
            can_read=can_read,
            can_cache=False,
            is_logged_in=caller.user is not None,
            has_permissions=not can_read and self.access.has_explicit_permissions(project),
            is_disallowed=project in self.policy.disallowed,
        )
        return decide(self.policy.mode, situation, redirect_private=self.policy.redirect_private)

    def _redirect(self, project: str, way: str) -> Redirect:
        if self.policy.simple_url is not None:
            return Redirect(f"{self.policy.simple_url}/{project}/")
        return Redirect(f"{self.policy.base_url}/{way.format(project)}")

    def _page(self, found: _Found) -> ProjectPage:
        links = [self._link(package) for package in found.packages]
        if found.upstream is not None:
            stored = {link.filename for link in links}
            links += [link for link in found.upstream.links if link.filename not in stored]
            links.sort(key=lambda link: (parse_version(link.version), link.filename), reverse=True)
        return ProjectPage(found.project, tuple(links), tuple(dict.fromkeys(link.version for link in links)))

    def _link(self, package: Package) -> Link:
        link = render.link_to(package, f"api/package/{package.name}/")
        if not self._gives_own_urls:
            return link
        # Clients would look for the metadata at that address with an ending, where the storage has none (PEP 658).
        return replace(render.at_url(link, self.cache.get_url(package)), core_metadata=None)

    @property
    def _gives_own_urls(self) -> bool:
        """Whether the storage makes its own links, which may hold for this request only."""
        return self._storage.has_own_urls

    # Files

    def package(self, caller: Caller, name: str, filename: str, permission: str = "read") -> Package:
        """A stored file that the caller has a right to.

        Raises :class:`LoginRequired` or :class:`Forbidden` without the right on the project, and
        :class:`PackageNotFound` if the project has no such file, whoever else has one.
        """
        project = _project_name(name)
        self._demand(caller, project, permission)
        package = self.cache.fetch(filename)
        if package is None or package.name != project:
            raise PackageNotFound(f"project {project!r} has no file {filename!r}")
        return package

    def kept_location(self, caller: Caller, name: str, filename: str) -> str | None:
        """Where a download is redirected to, if that takes no more than memory and a local read."""
        # A plug-in may have a way of its own to answer.
        is_known = self.cache.is_local and type(self.cache).download_response is ICache.download_response
        package = self.cache.fetch(filename) if is_known else None
        if package is None or package.name != normalized(name) or not self.access.permits(caller, package.name, "read"):
            return None
        return self._storage.kept_url(package)

    def core_metadata(self, caller: Caller, name: str, filename: str) -> bytes:
        """The core metadata of a stored wheel: exactly the bytes whose digest the page shows (PEP 658)."""
        package = self.package(caller, name, filename)
        companion = self._storage.open_companion(package, "metadata")
        if companion is not None:
            with companion:
                return companion.read()
        if not filename.endswith(".whl"):
            raise PackageNotFound(f"{filename!r} has no metadata of its own; only wheels have")
        try:
            with seekable(self._storage, package) as wheel:
                return wheel_metadata(wheel)
        except InvalidDistribution as error:
            raise PackageNotFound(f"{filename!r} has no metadata that can be read") from error

    def packages(self, caller: Caller, name: str) -> tuple[list[Package], bool]:
        """The stored files of a project, newest version first, and whether the caller may write it."""
        project = _project_name(name)
        self._demand(caller, project, "read")
        return self.cache.all(project), self.access.permits(caller, project, "write")

    def summaries(self, caller: Caller) -> list[dict[str, Any]]:
        """Name, summary and time of last change of every project that the caller may read."""
        names = self.projects(caller)
        # Who may read nothing, such as a probe of a load balancer, costs no look at every project.
        rows = {row["name"]: row for row in self.cache.summary()} if names else {}
        return [rows[name] for name in names if name in rows]

    def links(self, caller: Caller, depth: int) -> Iterator[Link]:
        """Every file that the caller may read, as links of a page ``depth`` folders deep."""
        readable = set(self.projects(caller))
        found = self.cache.everything() if readable else ()
        packages = sorted(package for package in found if package.name in readable)
        return (render.link_at_depth(self._link(package), depth) for package in packages)

    def search(self, caller: Caller, criteria: Mapping[str, list[str]], operator: str) -> list[Package]:
        """The newest matching package of each project that the caller may read (compat.md 5.7)."""
        found = {package.name: package for package in self.cache.search(dict(criteria), operator)}
        return [found[NormalizedName(name)] for name in self.access.readable(found, caller)]

    # Changing

    def upload(self, caller: Caller, upload: Upload) -> Package:
        """Store what an uploader sent, and answer with the package.

        The same bytes under the same name change nothing. Raises :class:`InvalidUpload`,
        :class:`LoginRequired`, :class:`Forbidden`, :class:`DigestMismatch` or :class:`FileExists`, and
        what the storage has to say.
        """
        name, version = name_and_version(upload)
        self._demand(caller, name, "write")
        distribution = checked(upload, name, version)
        facts = facts_of(upload, distribution, caller.user, with_hashes=self.policy.calculate_hashes)
        package = self.cache.new_package(name, version, upload.filename, **facts)
        companions = companions_of(upload, distribution)
        with self.cache.lock(upload.filename):
            return store(self.cache, package, upload, companions, self.access.can_overwrite_package)

    def delete(self, caller: Caller, name: str, filename: str) -> None:
        """Delete a stored file, from the storage and from the cache."""
        package = self.package(caller, name, filename, "write")
        if not self.access.can_delete_package():
            raise Forbidden(f"you may not delete packages (pypi.allow_delete_groups); {filename!r} stays")
        with self.cache.lock(filename):
            self.cache.discard(package)

    def yank(self, caller: Caller, name: str, target: str, reason: Any = None) -> list[Package]:
        """Yank a file, or all files of a version (PEP 592); those files, if the caller may read them.

        Raises :class:`BadRequest` for a reason that cannot be one, and what :func:`pypicloud.yanking.mark` does.
        """
        project = _project_name(name)
        self._demand(caller, project, "write")
        return self._mark(caller, project, target, yanking.yanked_for(reason))

    def unyank(self, caller: Caller, name: str, target: str) -> list[Package]:
        """Take back what :meth:`yank` did."""
        project = _project_name(name)
        self._demand(caller, project, "write")
        return self._mark(caller, project, target, yanked=False)

    def _mark(self, caller: Caller, project: NormalizedName, target: str, yanked: str | bool) -> list[Package]:
        marked = list(yanking.mark(self.cache, yanking.named(self.cache, project, target), yanked))
        return marked if self.access.permits(caller, project, "read") else []

    def rebuild(self) -> Rebuilt:
        """Bring the cache in line with the storage; it answers all the while."""
        return self.cache.rebuild()

    def start_rebuild(self) -> None:
        """The same in the background, unless a rebuild is under way already, on whichever server."""
        self.cache.start_rebuild()

    def rebuild_status(self) -> Status:
        """How far the last rebuild is, on whichever server it runs."""
        return status.read(self.cache)

    def health(self) -> dict[str, str]:
        """For each backend the empty string, or what is wrong with it."""
        checks = {
            "access": self.access.check_health,
            "cache": self.cache.check_health,
            "storage": self._storage.check_health,
        }
        return self.checkup.examine(checks)

    @property
    def _storage(self) -> IStorage:
        storage: IStorage = self.cache.storage
        return storage

    def _demand(self, caller: Caller, project: NormalizedName, permission: str) -> None:
        if self.access.permits(caller, project, permission):
            return
        if caller.user is None:
            raise LoginRequired(f"to {permission} {project} you need to log in")
        raise Forbidden(f"user {caller.user!r} may not {permission} {project}; ask an administrator of this index")


@dataclass(frozen=True, slots=True)
class _Found:
    """What a project's page is made of: the stored files, newest version first, and what the upstream has."""

    project: NormalizedName
    packages: Sequence[Package]
    upstream: ProjectPage | None = None


def _list_key(form: Format, caller: Caller) -> tuple[object, ...]:
    """Where the memory keeps the list of projects that the caller may read."""
    return ("list", form, caller.principals)


def _page_key(form: Format, depth: int, project: str) -> tuple[object, ...]:
    """Where the memory keeps a project's page."""
    return ("project", form, depth, project)


def _project_name(name: str) -> NormalizedName:
    """The normalised name. Raises :class:`ProjectNotFound` for what cannot be one (standards.md 3)."""
    if not VALID_NAME.match(name):
        raise ProjectNotFound(f"{name!r} cannot be the name of a project")
    return normalized(name)
