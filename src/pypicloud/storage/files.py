"""Package files in a directory on this machine; :mod:`pypicloud.storage.tree` shows the layout."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, ClassVar, Final

from pypicloud.dateutil import utcfromtimestamp
from pypicloud.errors import BackendUnavailable, FileExists, InvalidUpload, NotSupported, PackageNotFound, SettingError
from pypicloud.models import Package
from pypicloud.settings import PATH, REQUIRED, EnvironSettings, Setting
from pypicloud.storage import disk, tree
from pypicloud.storage.base import (
    NO_COMPANIONS,
    IStorage,
    check_segments,
    demand_same,
    is_segment,
    missing_is_not_found,
    not_stored,
    replaced_meanwhile,
)
from pypicloud.storage.body import BLOCK
from pypicloud.storage.start import demand_making
from pypicloud.util import normalize_name

LOG = logging.getLogger(__name__)

DIRECTORY: Final = Setting(
    "storage.dir", PATH, REQUIRED, "The directory where package files are kept; it is made if it is missing."
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The longest file name that file systems take, in bytes, and how much longer than the package's ours get.
_NAME_MAX: Final = 255
_LONGEST_END: Final = max(map(len, (os.path.basename(tree.next_facts("/")), *tree.COMPANION_ENDS.values())))


class FileStorage(IStorage):
    """Keeps package files in a directory."""

    is_local = True
    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*IStorage.SETTINGS, DIRECTORY)

    def __init__(self, request: Any = None, *, directory: str, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.directory = os.path.abspath(directory)

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Make the directory if need be, and clear away what killed servers left in it.

        A directory that cannot be written is served all the same, with a warning.
        """
        directory = DIRECTORY.read(settings)
        try:
            if not os.path.exists(directory):
                demand_making(settings, DIRECTORY)
            os.makedirs(directory, exist_ok=True)
            os.scandir(directory).close()
        except OSError as error:
            reason = "is a file, not a directory" if os.path.isfile(directory) else f"cannot be used: {error.strerror}"
            source = settings.source(DIRECTORY.key)
            raise SettingError(DIRECTORY.key, reason, value=directory, source=source) from error
        if _can_write(directory):
            disk.remove_abandoned(directory)
        else:
            LOG.warning(
                "%s = %s cannot be written: packages are served, but none can be uploaded", DIRECTORY.key, directory
            )
        return {"directory": directory}

    # Paths

    def get_path(self, package: Package) -> str:
        """The path of a package's file, whether there is one or not.

        Raises :class:`InvalidUpload` if the name, the version or the file name is no plain part of a path.
        """
        path = self._plain_path(package)
        if os.path.lexists(path):
            return path
        try:
            respelled = _respelled(self.directory, os.stat(self.directory).st_mtime_ns)
        except OSError as error:
            # That the whole store is gone says nothing about the file.
            raise BackendUnavailable("the storage directory cannot be read at the moment") from error
        return self._respelled_path(package, respelled) or path

    def get_metadata_path(self, package: Package) -> str:
        """The path of a package's facts, whether there are any or not."""
        return self.path_to_meta_path(self.get_path(package))

    def path_to_meta_path(self, path: str) -> str:
        """The path of the facts that belong to the file at ``path``."""
        return path + tree.FACTS_END

    def _plain_path(self, package: Package) -> str:
        check_segments(package)
        path = os.path.join(self.directory, package.name, package.version, package.filename)
        if os.path.normpath(path) != path:
            raise InvalidUpload(f"{package.filename!r} would not lie in the storage")
        return path

    def _respelled_path(self, package: Package, respelled: Mapping[str, tuple[str, ...]]) -> str | None:
        """Where the file lies in a tree older than 0.4, whose directories are named as the project was typed."""
        for name in respelled.get(package.name, ()):
            path = os.path.join(self.directory, name, package.version, package.filename)
            if os.path.lexists(path):
                return path
        return None

    def _path_for_publishing(self, package: Package, *, replace: bool) -> str:
        path = self._plain_path(package)
        for text, limit in (
            (package.name, _NAME_MAX),
            (package.version, _NAME_MAX),
            (package.filename, _NAME_MAX - _LONGEST_END),
        ):
            if len(text.encode()) > limit:
                raise InvalidUpload(f"{text!r} is too long; the limit is {limit} bytes")
        if package.filename.lower().endswith(tree.TAKEN_ENDS):
            raise InvalidUpload(f"{package.filename!r} has the ending of a file that goes with a package; rename it")
        if replace:
            return self.get_path(package)
        # No server makes such directories any more, so the one look at the first upload is enough.
        return self._respelled_path(package, _respelled(self.directory, 0)) or path

    # Reading

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Every stored package."""
        return tree.Reading(self.directory, factory, self.unreadable).packages()

    def stored(self, package: Package, factory: Callable[..., Package] = Package) -> Package | None:
        """What is listed for a file."""
        try:
            path = self.get_path(package)
        except InvalidUpload:
            return None
        return tree.Reading(self.directory, factory, self.unreadable).package(path)

    def open(self, package: Package) -> BinaryIO:
        """The file, open for reading."""
        with missing_is_not_found(package):
            return open(self._stored_path(package), "rb")

    def local_path(self, package: Package) -> str | None:
        """The file itself."""
        with contextlib.suppress(PackageNotFound):
            return self._stored_path(package)
        return None

    def open_companion(self, package: Package, kind: str) -> BinaryIO | None:
        """The companion of this kind, open for reading; None if there is none."""
        if kind not in tree.COMPANION_ENDS:
            return None
        with contextlib.suppress(PackageNotFound), missing_is_not_found(package):
            path = self._stored_path(package)
            modified = os.stat(path).st_mtime_ns
            companion = open(path + tree.COMPANION_ENDS[kind], "rb")  # noqa: SIM115 - the caller closes it
            if os.fstat(companion.fileno()).st_mtime_ns == modified:
                return companion
            companion.close()
        return None

    def _stored_path(self, package: Package) -> str:
        try:
            return self.get_path(package)
        except InvalidUpload as error:
            raise not_stored(package) from error

    def check_health(self) -> tuple[bool, str]:
        """Whether the directory can be read; that it cannot be written is said, but is no illness."""
        try:
            os.scandir(self.directory).close()
        except OSError as error:
            return False, f"the storage directory cannot be read: {error.strerror}"
        if not _can_write(self.directory):
            return True, "the storage directory cannot be written: packages are served, but none can be uploaded"
        return True, ""

    # Writing

    def spool_directory(self) -> str | None:
        """The storage directory itself: a file can only be linked within one file system."""
        return self.directory

    def upload(self, package: Package, datastream: BinaryIO) -> None:
        """Store a file, replacing what is there under its name."""
        self.publish(package, datastream, replace=True)

    def publish(
        self,
        package: Package,
        datastream: BinaryIO,
        companions: Mapping[str, bytes] = NO_COMPANIONS,
        *,
        replace: bool = False,
    ) -> None:
        """Store a file with its companions: all, or nothing.

        The file's mtime becomes ``package.last_modified``; what the file system made of it is set there,
        so that the package says what the next rebuild will read. A stream that was spooled in
        :meth:`spool_directory` is linked, not copied, and stays where it is.
        """
        for kind in companions:
            _check_kind(kind)
        path = self._path_for_publishing(package, replace=replace)
        if not replace and os.path.lexists(path):
            raise _exists(package)
        with ExitStack() as stack:
            facts = stack.enter_context(disk.temporary(self.directory, [tree.facts_text(package)]))
            beside = {
                kind: stack.enter_context(disk.temporary(self.directory, [data])) for kind, data in companions.items()
            }
            file = self._incoming(datastream, stack)
            modified = (package.last_modified - _EPOCH) // timedelta(microseconds=1) * 1000
            with disk.writing():
                disk.set_mode(file, like=facts)
                with self._changing(path):
                    # Not while others are waited for: a server that starts clears away what looks old.
                    for each in (file, facts, *beside.values()):
                        disk.set_mtime(each, modified)
                    package.last_modified = utcfromtimestamp(os.stat(file).st_mtime)
                    if not os.path.lexists(path):
                        _add(path, file, facts, beside)
                    elif replace:
                        _replace(path, file, facts, beside)
                    else:
                        raise _exists(package)

    def _incoming(self, datastream: BinaryIO, stack: ExitStack) -> str:
        """The temporary path of the bytes of a stream, safely on the disk."""
        spooled = self._spooled_path(datastream)
        if spooled is not None:
            with disk.writing():
                path = disk.second_name(self.directory, spooled)
                if path is not None:
                    stack.callback(disk.remove, path)
                    disk.sync(path)
                    return path
        return stack.enter_context(disk.temporary(self.directory, iter(functools.partial(datastream.read, BLOCK), b"")))

    def _spooled_path(self, datastream: BinaryIO) -> str | None:
        name = getattr(datastream, "name", None)
        if not isinstance(name, str) or not disk.is_temporary(os.path.basename(name)):
            return None
        if os.path.dirname(os.path.abspath(name)) != self.directory or datastream.tell() != 0:
            return None
        return name

    @contextlib.contextmanager
    def _changing(self, path: str) -> Iterator[None]:
        """Hold the project while the file at ``path`` is added, replaced or removed, and then tidy up."""
        version = os.path.dirname(path)
        project = os.path.dirname(version)
        with disk.locked(project, make=True):
            try:
                os.makedirs(version, exist_ok=True)
                yield
            finally:
                if not os.path.lexists(path):
                    for beside in (tree.next_facts(path), path + tree.FACTS_END):
                        disk.remove(beside)
                    for end in tree.COMPANION_ENDS.values():
                        disk.remove(path + end)
                    disk.remove_empty(version)
                    disk.remove_empty(project)
        for directory in (version, project, self.directory):
            disk.sync(directory)

    def delete(self, package: Package) -> None:
        """Remove a file and all that belongs to it, and the directories that are empty then."""
        try:
            path = self.get_path(package)
        except InvalidUpload:
            # Nothing can be stored under such a name.
            return
        if not os.path.isdir(os.path.dirname(path)):
            return
        with disk.writing(), self._changing(path):
            disk.remove(path)

    def upload_companion(self, package: Package, kind: str, data: bytes) -> None:
        """Keep a companion beside a stored file."""
        _check_kind(kind)
        path = self._stored_path(package)
        _demand(path, package)
        with disk.temporary(self.directory, [data]) as new, disk.writing(), self._changing(path):
            _demand_same(path, package)
            disk.set_mtime(new, os.stat(path).st_mtime_ns)
            os.replace(new, path + tree.COMPANION_ENDS[kind])

    def update_metadata(self, package: Package) -> None:
        """Rewrite the facts that are stored with a file."""
        path = self._stored_path(package)
        _demand(path, package)
        with disk.temporary(self.directory, [tree.facts_text(package)]) as new, disk.writing(), self._changing(path):
            _demand_same(path, package)
            os.replace(new, path + tree.FACTS_END)


def _add(path: str, file: str, facts: str, companions: Mapping[str, str]) -> None:
    """Put a new file into place, last of all that belongs to it: from then on it is there, and whole."""
    disk.remove(tree.next_facts(path))
    os.replace(facts, path + tree.FACTS_END)
    _put_companions(path, companions)
    try:
        disk.link(file, path)
    except FileExistsError:
        # Somebody who knows nothing of our locks was faster: an old server, a copy by hand.
        raise FileExists(f"{os.path.basename(path)!r} is stored already") from None


def _replace(path: str, file: str, facts: str, companions: Mapping[str, str]) -> None:
    """Put a file into another's place.

    At no point do facts or companions lie beside bytes they do not belong to: the new facts wait under a
    name of their own, and have the new file's mtime, so that whoever finds both knows which to believe.
    """
    _settle(path)
    _put_companions(path, {})
    os.replace(facts, tree.next_facts(path))
    os.replace(file, path)
    os.replace(tree.next_facts(path), path + tree.FACTS_END)
    _put_companions(path, companions)


def _put_companions(path: str, companions: Mapping[str, str]) -> None:
    for kind, end in tree.COMPANION_ENDS.items():
        if kind in companions:
            os.replace(companions[kind], path + end)
        else:
            disk.remove(path + end)


def _settle(path: str) -> None:
    """Finish what a server that was killed in :func:`_replace` began."""
    waiting = tree.next_facts(path)
    if not os.path.lexists(waiting):
        return
    if os.stat(waiting).st_mtime_ns == os.stat(path).st_mtime_ns:
        os.replace(waiting, path + tree.FACTS_END)
    else:
        os.unlink(waiting)


def _can_write(directory: str) -> bool:
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)


def _exists(package: Package) -> FileExists:
    return FileExists(f"{package.filename!r} is stored already")


def _demand(path: str, package: Package) -> None:
    if not os.path.lexists(path):
        raise not_stored(package)


def _demand_same(path: str, package: Package) -> None:
    """Raise unless the file is the one that was looked at; its project is held meanwhile.

    The time counts, too: whoever replaces a file by hand, or with an old server, leaves facts that are not of it.
    """
    _demand(path, package)
    _settle(path)
    stat = os.stat(path)
    facts = tree.read_facts(path + tree.FACTS_END) if os.path.lexists(path + tree.FACTS_END) else {}
    demand_same(package, {**facts, "size": stat.st_size})
    if package.last_modified != utcfromtimestamp(stat.st_mtime):
        raise replaced_meanwhile(package)


def _check_kind(kind: str) -> None:
    if kind not in tree.COMPANION_ENDS:
        raise NotSupported(f"nothing of the kind {kind!r} is kept beside a package")


@functools.lru_cache(maxsize=16)
def _respelled(directory: str, modified: int) -> Mapping[str, tuple[str, ...]]:  # noqa: ARG001 - part of the memory's key
    """The directories whose names are not normalised, by normalised name; read again when the root has changed."""
    found: dict[str, tuple[str, ...]] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            name = normalize_name(entry.name)
            if name != entry.name and is_segment(entry.name):
                found[name] = (*found.get(name, ()), entry.name)
    return found
