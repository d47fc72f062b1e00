"""The promise of a cache: the database of facts about the stored packages.

A cache holds nothing that cannot be made again from storage, and is made again by :meth:`ICache.rebuild`.
Bytes come first, facts second: a crash between the two leaves a file that the next rebuild adopts.
"""

from __future__ import annotations

import copy
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final
from weakref import WeakKeyDictionary

from pypicloud.cache import status
from pypicloud.cache.choose import matcher, newest, queries, summaries
from pypicloud.cache.fill import FILL, RETRY, Watch, filled, is_filled, succeeds
from pypicloud.cache.locks import held
from pypicloud.cache.rebuild import Rebuilt, rebuild
from pypicloud.errors import BackendUnavailable, FileExists
from pypicloud.models import Package, normalized
from pypicloud.settings import BOOLEAN, EnvironSettings, Setting
from pypicloud.storage import get_storage_impl
from pypicloud.storage.incoming import digests, rewindable
from pypicloud.util import parse_filename

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from pypicloud.cache.changes import Change, Facts
    from pypicloud.storage.base import IStorage

CALCULATE_HASHES: Final = Setting(
    "pypi.calculate_package_hashes",
    BOOLEAN,
    True,
    "Whether the sha256 and the md5 of an uploaded file are worked out and kept.",
)

#: A setting that the built-in caches of 1.3.12 have.
GRACEFUL_RELOAD: Final = Setting(
    "db.graceful_reload",
    BOOLEAN,
    False,
    "Accepted, and changes nothing any more: the cache always stays usable while it is rebuilt.",
)

#: The revision of what nobody has changed since revisions are kept.
UNCHANGED: Final = "0"

#: The notes of caches that share none with other servers: those of each storage, as one start configured it.
_NOTES: Final[WeakKeyDictionary[Any, dict[str, str]]] = WeakKeyDictionary()


class ICache:
    """A database of the facts about all stored packages; base class of every cache.

    A subclass must give ``fetch``, ``all``, ``distinct``, ``clear``, ``clear_all`` and ``save``. The rest
    works on top of these, and is overridden for speed or to gain an optional power: ``revision`` and
    ``revisions``, ``exchange``, ``fetch_many``, ``save_all``, ``clear_many``, ``everything``, ``is_empty``,
    ``check_facts``, ``repair``, ``shared_lock``, ``note`` and ``write_note``.
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
        watch: Watch | None = None,
    ) -> None:
        self.request = request
        self.make_storage: Callable[[Any], IStorage] = storage or _no_storage
        self.storage: Any = self.make_storage(request)
        self.calculate_hashes = calculate_hashes
        self.watch = watch or Watch()

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

    @property
    def shares_questions(self) -> bool:
        """Whether the requests of one moment get their revisions by one question, instead of one each."""
        return not self.is_local and type(self).revisions is not ICache.revisions

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

    def revisions(self, names: Collection[str | None]) -> dict[str | None, str | None]:
        """``revision`` for many, by name as given."""
        return {name: self.revision(name) for name in names}

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Keeps every other holder of the same key out, on every server; who holds it may take it again."""
        with held(f"{self._kind}:{key}") as is_first, self.shared_lock(key) if is_first else nullcontext():
            yield

    def shared_lock(self, key: str) -> AbstractContextManager[None]:
        """Keeps the holders of the same key on other servers out; by default there are no other servers.

        It lasts as long as the block, and ends with the process that holds it.
        """
        return nullcontext()

    def note(self, key: str) -> str | None:
        """A small text that all servers of the cache share; by default, those of this process."""
        return _NOTES.get(self.make_storage, {}).get(key)

    def write_note(self, key: str, text: str) -> None:
        """Keep a small text, of up to 2,000 characters, for all servers of the cache."""
        _NOTES.setdefault(self.make_storage, {})[key] = text

    def exchange(self, changes: Sequence[Change]) -> set[str]:
        """Make each change whose file's facts are still as they were read; the names of the files changed.

        The default looks and writes one after the other; a cache with several writers makes it one step.
        """
        found = self.fetch_many([change.filename for change in changes])
        possible = [change for change in changes if change.is_possible(found.get(change.filename))]
        self.save_all([change.wanted for change in possible if change.wanted is not None])
        self.clear_many([found[change.filename] for change in possible if change.wanted is None and change.known])
        return {change.filename for change in possible}

    def check_facts(self, package: Package) -> None:
        """Raise :class:`InvalidUpload` for facts that this cache cannot keep; asked before the file is stored."""

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
        matches = matcher(queries(criteria), query_type)
        return newest(package for package in self.everything() if matches(package))

    def summary(self) -> list[dict[str, Any]]:
        """For each project, sorted: ``name``, the newest version's ``summary``, the latest file's ``last_modified``."""
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

        Raises :class:`FileExists` when there is such a file and ``replace`` is false, and :class:`InvalidUpload`
        when its facts cannot be kept.
        """
        self.check_facts(package)
        self.storage.publish(package, data, companions or {}, replace=replace)
        self.save(package)

    def discard(self, package: Package) -> None:
        """Take a file out of storage, then its facts out of here.

        Raises :class:`BackendUnavailable` when it cannot be told whether they are, as the cache is being filled.
        """
        self.storage.delete(package)
        self.clear(package)
        # A cache that lost everything in between may have been filled from a listing that had the file still.
        if self.fetch(package.filename) is not None:
            self.clear(package)

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
        with self.lock(filename), rewindable(data) as (stream, size):
            may_overwrite = self.request is not None and self.request.access.can_overwrite_package()
            existing = self.fetch(filename)
            if existing is not None and not may_overwrite:
                raise ValueError(f"{filename} exists and may not be overwritten")
            if existing is not None and existing.name != normalized(name):
                raise ValueError(f"{filename} belongs to another project")
            has_hashes = metadata.get("hash_sha256") and metadata.get("hash_md5")
            hashes = digests(stream) if self.calculate_hashes and not has_hashes else {}
            facts = {"size": size, **hashes, "requires_python": requires_python, **metadata}
            package = self.new_package(name, version, filename, summary=summary, **facts)
            try:
                self.store(package, stream, replace=may_overwrite)
            except FileExists as error:
                raise ValueError(f"{filename} is stored already and may not be overwritten") from error
        return package

    def delete(self, package: Package) -> None:
        """Take a package out of storage and out of the cache.

        Raises ValueError when the caller may not delete.
        """
        if self.request is None or not self.request.access.can_delete_package():
            raise ValueError(f"{package.filename} may not be deleted")
        with self.lock(package.filename):
            self.discard(package)

    def reload_if_needed(self) -> None:
        """Fill the cache from storage if it was never filled or is empty; called once at the start.

        Of several servers that start at once, one does it and the others wait.
        """
        self._unwatched().fill()
        self.watch.is_on = True

    def fill(self) -> None:
        """Fill the cache from storage, unless that has been done and something is in it."""
        with self.lock(FILL):
            note = self.note(FILL)
            if is_filled(note) and not self.is_empty():
                return
            if note is None and self.revision(None) in {None, UNCHANGED} and not self.is_empty():
                # An earlier version, which knew no notes, filled it.
                self.write_note(FILL, filled())
                return
            # One that was filled while nothing was stored is not taken away from those who use it already.
            self.rebuild()

    def refill(self) -> BackendUnavailable:
        """Fill the cache again in the background, as it has lost everything; the error to raise until it is done."""
        self.watch.start(self._in_background().fill)
        message = "the cache is being filled from the storage; please try again in a minute"
        return BackendUnavailable(message, retry_after=RETRY)

    def reload_from_storage(self, clear: bool = True) -> None:
        """Make the cache agree with storage; it answers all the while, whatever ``clear`` says."""
        self.rebuild()

    def rebuild(self, progress: Callable[[int], None] | None = None, *, allow_empty: bool = False) -> Rebuilt:
        """Make the cache agree with storage, and say what was done; the cache answers all the while.

        ``progress`` is called now and then with the number of files seen so far. What somebody else changes
        meanwhile is left as they made it. When storage fails half-way its error is raised, and nothing has
        been dropped; the next rebuild goes on from there. A storage that holds nothing at all, while many
        files are known, raises :class:`BackendUnavailable` unless ``allow_empty``: most likely its volume is
        not mounted.
        """
        return rebuild(self, progress, allow_empty=allow_empty)

    def repair(self, known: Mapping[str, Facts]) -> None:
        """Put right what the cache has worked out from the facts; the last part of every rebuild.

        ``known`` are those of all files, by name, as far as nobody has changed them meanwhile.
        """

    def start_rebuild(self) -> None:
        """Begin a rebuild in the background, unless one is under way on any server."""
        if not status.read(self).is_running:
            status.announce(self)
            job = self._in_background().rebuild
            threading.Thread(target=succeeds, args=(job,), name="rebuild", daemon=True).start()

    def _unwatched(self) -> ICache:
        """This cache for the work that fills it, which must not wait for it to be filled."""
        cache = copy.copy(self)
        cache.watch = Watch()
        return cache

    def _in_background(self) -> ICache:
        """This cache for work that outlives the request."""
        cache = self._unwatched()
        cache.request = None
        cache.storage = self.make_storage(None)
        return cache

    @property
    def _kind(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"


def _no_storage(_: Any) -> Any:
    return None
