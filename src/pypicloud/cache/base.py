"""The promise of a cache: the database of facts about the stored packages.

A cache holds nothing that cannot be made again from storage, and is made again by :meth:`ICache.rebuild`.
Bytes come first, facts second: a crash between the two leaves a file that the next rebuild adopts.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import threading
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final
from weakref import WeakValueDictionary

from pypicloud.cache.rebuild import Rebuild, Rebuilt
from pypicloud.errors import FileExists
from pypicloud.models import Package, normalized
from pypicloud.settings import BOOLEAN, EnvironSettings, Setting
from pypicloud.storage import get_storage_impl
from pypicloud.util import parse_filename

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pypicloud.storage.base import IStorage

CALCULATE_HASHES: Final = Setting(
    "pypi.calculate_package_hashes",
    BOOLEAN,
    True,
    "Whether the sha256 and the md5 of an uploaded file are worked out and kept.",
)

#: The facts a search may look into (compat.md 3.5); criteria for anything else are ignored.
SEARCHED: Final = ("name", "summary", "version", "filename")


class ICache:
    """A database of the facts about all stored packages; base class of every cache.

    A subclass must give ``fetch``, ``all``, ``distinct``, ``clear``, ``clear_all`` and ``save``. The rest
    works on top of these, and is overridden for speed or to gain an optional power: ``revision``,
    ``transaction``, ``fetch_many``, ``save_all``, ``clear_many``, ``everything``, ``is_empty``, ``lock``.
    An instance serves one request; what is expensive is made once, in ``configure``.
    """

    #: Whether answers come at once from memory or a local file, so that the event loop may ask.
    is_local: bool = False

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (CALCULATE_HASHES,)

    def __init__(
        self,
        request: Any = None,
        storage: Callable[[Any], IStorage] | None = None,
        calculate_hashes: bool = True,
    ) -> None:
        self.request = request
        self.storage: Any = storage(request) if storage is not None else None
        self.calculate_hashes = calculate_hashes

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """The keyword arguments of the constructor; called once at the start."""
        return {
            "storage": get_storage_impl(settings),
            "calculate_hashes": CALCULATE_HASHES.read(settings),
        }

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Raise :class:`SettingError` for what would stop :meth:`configure`, without reaching for anything.

        ``pypicloud check-config`` asks this. What is wrong with one setting alone is found from ``SETTINGS``.
        """

    @classmethod
    def postfork(cls, **kwargs: Any) -> None:
        """Called in each worker after a fork, with what ``configure`` returned."""

    # What every cache must give.

    def fetch(self, filename: str) -> Package | None:
        """The package of this file name, or None."""
        raise NotImplementedError

    def all(self, name: str) -> list[Package]:
        """All packages of a project, newest version first; versions that cannot be parsed come last."""
        raise NotImplementedError

    def distinct(self) -> list[str]:
        """The names of all projects, sorted."""
        raise NotImplementedError

    def clear(self, package: Package) -> None:
        """Forget the package of this file name, whatever else is known about it; none is no error."""
        raise NotImplementedError

    def clear_all(self) -> None:
        """Forget everything."""
        raise NotImplementedError

    def save(self, package: Package) -> None:
        """Keep the facts about a package, in place of those of the same file name."""
        raise NotImplementedError

    # Optional powers, each with a default that works.

    def revision(self, name: str | None) -> str | None:
        """An opaque token that changes whenever anything shown on the project's page changes.

        For None: on the list of projects. The answer None means that no revisions are kept.
        """
        return None

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Keeps every other holder of the same key out, here: those of this process."""
        return _held(f"{type(self).__module__}.{type(self).__qualname__}:{key}")

    def transaction(self) -> AbstractContextManager[None]:
        """Makes what is read and written inside happen at once or not at all; the default promises nothing."""
        return _nothing()

    def is_empty(self) -> bool:
        """Whether nothing is known about any package."""
        return not self.distinct()

    def fetch_many(self, filenames: Iterable[str]) -> dict[str, Package]:
        """Those packages that exist, by file name."""
        found = (self.fetch(filename) for filename in filenames)
        return {package.filename: package for package in found if package is not None}

    def save_all(self, packages: Iterable[Package]) -> None:
        """``save`` for many."""
        for package in packages:
            self.save(package)

    def clear_many(self, packages: Iterable[Package]) -> None:
        """``clear`` for many."""
        for package in packages:
            self.clear(package)

    def everything(self) -> Iterable[Package]:
        """All packages of all projects, in no order."""
        for name in self.distinct():
            yield from self.all(name)

    def search(self, criteria: Mapping[str, Iterable[str]], query_type: str) -> list[Package]:
        """The newest matching package of each project, sorted by name (compat.md 3.5).

        ``criteria`` gives, by column (``SEARCHED``), the pieces of text to find in it, in any case. With
        ``query_type`` ``"or"`` one piece must be found, else all; one matching column is enough.
        """
        wanted = queries(criteria)
        require = any if query_type == "or" else all

        def matches(package: Package) -> bool:
            return not wanted or any(
                require(piece in (getattr(package, column) or "").lower() for piece in pieces)
                for column, pieces in wanted.items()
            )

        return newest(package for package in self.everything() if matches(package))

    def summary(self) -> list[dict[str, Any]]:
        """For each project, sorted: ``name``, and ``summary`` and ``last_modified`` of its latest file."""
        return summaries(self.everything())

    def check_health(self) -> tuple[bool, str]:
        """Whether the cache answers, and why not."""
        return True, ""

    # What storage and cache do together.

    def new_package(self, *args: Any, **kwargs: Any) -> Package:
        """A package as this cache likes them; takes what the constructor of ``Package`` takes."""
        return Package(*args, **kwargs)

    def get_url(self, package: Package) -> str:
        """The link to a package's bytes."""
        url: str = self.storage.get_url(package)
        return url

    def download_response(self, package: Package) -> Any:
        """The response that gives a package's bytes, or says where they are."""
        return self.storage.download_response(package)

    def store(
        self,
        package: Package,
        data: BinaryIO,
        companions: Mapping[str, bytes] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Keep a file with its companions in storage, then its facts here.

        Raises :class:`FileExists` when there is such a file and ``replace`` is false.
        """
        self.storage.publish(package, data, companions or {}, replace=replace)
        self.save(package)

    def upload(  # noqa: PLR0917 - documented
        self,
        filename: str,
        data: BinaryIO,
        name: str | None = None,
        version: str | None = None,
        summary: str | None = None,
        requires_python: str | None = None,
        **metadata: Any,
    ) -> Package:
        """Keep a file in storage and its facts here; what is not said is worked out.

        Raises ValueError when name and version cannot be told, or when the file exists and the caller may
        not overwrite it, or it belongs to another project.
        """
        if not name or not version:
            parsed_name, parsed_version = parse_filename(filename, name)
            name, version = name or parsed_name, version or parsed_version
        with self.lock(filename), _rewindable(data) as stream:
            may_overwrite = self.request is not None and self.request.access.can_overwrite_package()
            existing = self.fetch(filename)
            if existing is not None and not may_overwrite:
                raise ValueError(f"{filename} exists and may not be overwritten")
            if existing is not None and existing.name != normalized(name):
                raise ValueError(f"{filename} belongs to another project")
            facts = {**self._measured(stream, metadata), "requires_python": requires_python, **metadata}
            package = self.new_package(name, version, filename, summary=summary, **facts)
            try:
                self.store(package, stream, replace=may_overwrite)
            except FileExists as error:
                raise ValueError(f"{filename} is stored already and may not be overwritten") from error
        return package

    def _measured(self, stream: BinaryIO, given: Mapping[str, Any]) -> dict[str, Any]:
        """The size of the bytes and, unless given or not wanted, their digests."""
        start = stream.tell()
        if self.calculate_hashes and not (given.get("hash_sha256") and given.get("hash_md5")):
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            while chunk := stream.read(1 << 20):
                sha256.update(chunk)
                md5.update(chunk)
            digests = {"hash_sha256": sha256.hexdigest(), "hash_md5": md5.hexdigest()}
        else:
            digests = {}
        size = stream.seek(0, io.SEEK_END) - start
        stream.seek(start)
        return {"size": size, **digests}

    def delete(self, package: Package) -> None:
        """Take a package out of storage and out of the cache.

        Raises ValueError when the caller may not delete.
        """
        if self.request is None or not self.request.access.can_delete_package():
            raise ValueError(f"{package.filename} may not be deleted")
        with self.lock(package.filename):
            self.storage.delete(package)
            self.clear(package)

    def reload_if_needed(self) -> None:
        """Fill the cache from storage if nothing is in it; called once at the start."""
        if self.is_empty():
            self.rebuild()

    def reload_from_storage(self, clear: bool = True) -> None:
        """Make the cache agree with storage; it answers all the while, whatever ``clear`` says."""
        self.rebuild()

    def rebuild(self, progress: Callable[[int], None] | None = None, *, allow_empty: bool = False) -> Rebuilt:
        """Make the cache agree with storage, and say what was done; the cache answers all the while.

        ``progress`` is called now and then with the number of files seen so far. What somebody else changes
        meanwhile is left as they made it. When storage fails half-way its error is raised, and nothing has
        been dropped. A storage that holds nothing at all, while many files are known, raises
        :class:`BackendUnavailable` unless ``allow_empty``: most likely its volume is not mounted.
        """
        return Rebuild(self, progress).run(allow_empty=allow_empty)


def queries(criteria: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The pieces of text to look for, by column, in lower case.

    Columns that cannot be searched are left out, as are those asked for nothing while others are asked for
    something; when nothing is left, everything matches. Only when each column is asked for nothing do they
    stay: then ``or`` finds nothing, and ``and`` everything (compat.md 3.5).
    """
    found = {}
    for column in SEARCHED:
        if column in criteria:
            pieces = criteria[column]
            found[column] = [piece.lower() for piece in ([pieces] if isinstance(pieces, str) else pieces)]
    return {column: pieces for column, pieces in found.items() if pieces} or found


def newest_first(packages: Iterable[Package]) -> list[Package]:
    """The packages of one project by version, newest first, then by file name."""
    return sorted(packages, key=lambda package: (package.parsed_version, package.filename), reverse=True)


def newest(packages: Iterable[Package]) -> list[Package]:
    """The package of the newest version of each project, sorted by name."""
    best: dict[str, Package] = {}
    for package in packages:
        if package.name not in best or best[package.name] < package:
            best[package.name] = package
    return [best[name] for name in sorted(best)]


def summaries(packages: Iterable[Package]) -> list[dict[str, Any]]:
    """For each project, sorted: ``name``, and ``summary`` and ``last_modified`` of its latest file."""
    latest: dict[str, Package] = {}
    for package in packages:
        found = latest.get(package.name)
        if found is None or (found.last_modified, found.filename) < (package.last_modified, package.filename):
            latest[package.name] = package
    return [
        {"name": name, "summary": latest[name].summary, "last_modified": latest[name].last_modified}
        for name in sorted(latest)
    ]


#: The locks that somebody holds or waits for; one that nobody does disappears by itself.
_LOCKS: Final[WeakValueDictionary[str, threading.RLock]] = WeakValueDictionary()
_LOCKS_GUARD: Final = threading.Lock()


@contextmanager
def _held(key: str) -> Iterator[None]:
    with _LOCKS_GUARD:
        lock = _LOCKS.setdefault(key, threading.RLock())
    with lock:
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _rewindable(data: BinaryIO) -> Iterator[BinaryIO]:
    """The same bytes as a stream that can be read twice."""
    if hasattr(data, "seekable") and data.seekable():
        yield data
        return
    with tempfile.TemporaryFile() as spooled:
        shutil.copyfileobj(data, spooled)
        spooled.seek(0)
        yield spooled
