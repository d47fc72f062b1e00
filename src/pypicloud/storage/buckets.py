"""Package files in a bucket: all that the stores have in common, on a few primitives.

::

    <prefix><hash>/<name>/<filename>                    the file; its facts are the object's metadata
    <prefix><hash>/<name>/<filename>.<digest>.<kind>    a companion, named by what is in it

A companion counts if the metadata of its file has its digest. So a file never has another's companion,
whatever is interrupted, and 1.3.12, which cannot make a package of such a name, passes over it.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import io
import logging
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final

from pypicloud.errors import BackendUnavailable, FileExists, InvalidUpload, NotSupported, PackageNotFound
from pypicloud.models import Package
from pypicloud.storage import object_facts
from pypicloud.storage.base import (
    COMPANION_FACTS,
    NO_COMPANIONS,
    check_segments,
    demand_same,
    is_segment,
    not_stored,
    replaced_meanwhile,
)
from pypicloud.storage.incoming import rewindable
from pypicloud.storage.object_facts import Notation
from pypicloud.storage.object_store import ObjectStoreStorage
from pypicloud.util import PackageParseError

if TYPE_CHECKING:
    from pyramid.response import Response

LOG = logging.getLogger(__name__)

#: How many hexadecimal digits of its sha256 a companion's key has.
DIGITS: Final = 32

_COMPANION: Final = re.compile(rf"\.[0-9a-f]{{{DIGITS}}}\.(?:{'|'.join(COMPANION_FACTS)})\Z")

#: How often a file is replaced anew because somebody else has just replaced it.
ATTEMPTS: Final = 30


class Condition(enum.Enum):
    """What must be true of a key for an object to be written there."""

    ABSENT = enum.auto()
    ANYTHING = enum.auto()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the service has it.

    ``state`` is what the service calls the bytes that are there (an ETag, a generation): as long as it is
    the same, so are they.
    """

    key: str
    size: int
    last_modified: datetime
    metadata: Mapping[str, str]
    state: str


class BucketStorage(ObjectStoreStorage):
    """Keeps package files in a bucket. A subclass gives the primitives, and the URLs."""

    #: How the service takes metadata.
    notation: ClassVar[Notation]

    # Primitives

    def _objects(self) -> Iterator[StoredObject]:
        """Every object under the prefix with its metadata; what vanishes meanwhile is left out.

        Companions and directory markers may be left out, too: :func:`is_package_key` knows them.
        """
        raise NotImplementedError

    def _head(self, key: str) -> StoredObject | None:
        """The object of this key, or None."""
        raise NotImplementedError

    def _read(self, key: str, start: int = 0, stop: int | None = None) -> AbstractContextManager[BinaryIO]:
        """The bytes ``start`` up to, not including, ``stop``, which is after ``start``.

        Raises :class:`PackageNotFound` on entering if there is no such object.
        """
        raise NotImplementedError

    def _write(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], condition: Condition | str
    ) -> None:
        """Make an object of the rest of a seekable stream, ``size`` bytes, if the condition holds.

        A text as condition is the ``state`` of the object that is to be replaced. Raises
        :class:`FileExists` if it does not hold. Nothing is to be seen of an object that is not whole.
        """
        raise NotImplementedError

    def _write_metadata(self, found: StoredObject, metadata: Mapping[str, str]) -> None:
        """Give an object other metadata, and leave all else as it is.

        Raises :class:`FileExists` if its bytes are not those of ``found`` any more.
        """
        raise NotImplementedError

    def _remove(self, key: str) -> None:
        """Remove an object; one that is missing counts as removed."""
        raise NotImplementedError

    def _keys(self, prefix: str) -> Iterable[str]:
        """The keys that begin so."""
        raise NotImplementedError

    def _companion_metadata(self, package: Package) -> Mapping[str, str]:
        """The metadata of the companions of a package; none where 1.3.12 passes over such objects."""
        return {}

    # Reading

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Every stored package."""
        for found in self._objects():
            if is_package_key(found.key):
                package = self._package(found, factory)
                if package is not None:
                    yield package

    def package_at(self, key: str, factory: Callable[..., Package] = Package) -> Package | None:
        """The package whose object has this key; None if there is none, or the object is no package."""
        found = self._head(key) if key.startswith(self.bucket_prefix) and is_package_key(key) else None
        return None if found is None else self._package(found, factory)

    def stored(self, package: Package, factory: Callable[..., Package] = Package) -> Package | None:
        """What is listed for a file."""
        try:
            return self.package_at(self.get_path(package), factory)
        except InvalidUpload:
            return None

    def _package(self, found: StoredObject, factory: Callable[..., Package]) -> Package | None:
        """The package that an object is; one that is none is reported."""
        try:
            return package_of(found, factory)
        except PackageParseError as error:
            self.unreadable(found.key, str(error))
            return None

    def open(self, package: Package) -> AbstractContextManager[BinaryIO]:
        """The file's bytes as a stream."""
        return self._reading(package, 0, None)

    def open_range(self, package: Package, start: int, stop: int) -> AbstractContextManager[BinaryIO]:
        """The bytes ``start`` up to, not including, ``stop`` as a stream."""
        return self._reading(package, start, stop)

    @contextlib.contextmanager
    def _reading(self, package: Package, start: int, stop: int | None) -> Iterator[BinaryIO]:
        key = self._stored_key(package)
        if start == stop:
            # A range that is empty has no spelling in HTTP.
            if self._head(key) is None:
                raise not_stored(package)
            yield io.BytesIO()
            return
        with self._read(key, start, stop) as stream:
            yield stream

    def stream_response(self, package: Package) -> Response:
        """The HTTP response that sends the bytes through this server."""
        if "size" in package.data:
            return super().stream_response(package)
        found = self.stored(package)
        if found is None:
            raise not_stored(package)
        # A package keeps no facts that are zero.
        found.data.setdefault("size", 0)
        return super().stream_response(found)

    def open_companion(self, package: Package, kind: str) -> BinaryIO | None:
        """The companion of this kind as a stream, or None if there is none."""
        fact = COMPANION_FACTS.get(kind)
        with contextlib.suppress(PackageNotFound):
            key = self._stored_key(package)
            known: str | None = package.data.get(fact or "")
            if known is not None:
                with contextlib.suppress(PackageNotFound):
                    return self._small(companion_key(key, kind, known))
            # Facts that are older than the companion, or that nobody asked the storage for.
            found = self.package_at(key)
            if found is not None and fact in found.data and found.data[fact] != known:
                return self._small(companion_key(key, kind, found.data[fact]))
        return None

    def _small(self, key: str) -> BinaryIO:
        with self._read(key) as stream:
            return io.BytesIO(stream.read())

    def _stored_key(self, package: Package) -> str:
        try:
            return self.get_path(package)
        except InvalidUpload as error:
            raise not_stored(package) from error

    # Writing

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

        The package is told its key (``data["path"]``), the digests of its companions, and the summary as
        far as it fits into the object's metadata.
        """
        for kind in COMPANION_FACTS.keys() | companions.keys():
            package.data.pop(_fact(kind), None)
        package.data |= {_fact(kind): hashlib.sha256(data).hexdigest() for kind, data in companions.items()}
        key = self._key_for_publishing(package, replace=replace)
        package.data["path"] = key
        metadata = object_facts.written(package, self.notation)
        kept = {kind: companion_key(key, kind, package.data[_fact(kind)]) for kind in companions}
        with rewindable(datastream) as (stream, size):
            try:
                for kind, data in companions.items():
                    self._write_companion(kept[kind], package, data)
                before = self._put(key, stream, size, metadata, replace=replace)
            except BaseException:
                self._tidy(key, list(kept.values()))
                raise
        if before is not None:
            self._tidy(key, companion_keys(before))

    def _put(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], *, replace: bool
    ) -> StoredObject | None:
        """Write a file's object; the answer is the one it replaces."""
        start = stream.tell()
        for attempt in range(1, ATTEMPTS + 1):
            before = self._head(key) if replace else None
            condition = Condition.ABSENT if before is None else before.state
            stream.seek(start)
            try:
                self._write(key, stream, size, metadata, condition)
            except FileExists:
                if not replace:
                    raise
                time.sleep(random.uniform(0, 0.02 * attempt))  # noqa: S311 - no secret
            else:
                return before
        raise BackendUnavailable("the file is being replaced by others again and again; please try again", 5)

    def _key_for_publishing(self, package: Package, *, replace: bool) -> str:
        check_segments(package)
        if not is_package_key(package.filename):
            raise InvalidUpload(f"{package.filename!r} has the ending of a file that goes with a package; rename it")
        path: str | None = package.data.get("path")
        # A file that is replaced stays where it was found, whatever the settings say by now (compat.md 2.2).
        if replace and path is not None and self._head(path) is not None:
            return path
        return self.calculate_path(package)

    def _write_companion(self, key: str, package: Package, data: bytes) -> None:
        self._write(key, io.BytesIO(data), len(data), self._companion_metadata(package), Condition.ANYTHING)

    def delete(self, package: Package) -> None:
        """Remove a file and all that belongs to it."""
        try:
            key = self.get_path(package)
        except InvalidUpload:
            # Nothing can be stored under such a name.
            return
        self._remove(key)
        self._drop(key, {each for each in self._keys(f"{key}.") if _COMPANION.fullmatch(each.removeprefix(key))})

    def upload_companion(self, package: Package, kind: str, data: bytes) -> None:
        """Keep a companion beside a stored file."""
        fact = _fact(kind)
        found, stored = self._demand(package)
        digest = hashlib.sha256(data).hexdigest()
        key = companion_key(found.key, kind, digest)
        old = companion_keys(found)
        self._write_companion(key, stored, data)
        stored.data[fact] = digest
        self._change(found, stored)
        package.data[fact] = digest
        self._tidy(found.key, old - {key})

    def update_metadata(self, package: Package) -> None:
        """Rewrite the facts that are stored with a file; the upload time and the companions stay."""
        found, stored = self._demand(package)
        stored.summary = package.summary
        own = {key: stored.data[key] for key in COMPANION_FACTS.values() if key in stored.data}
        stored.data = {key: value for key, value in package.data.items() if key not in COMPANION_FACTS.values()} | own
        self._change(found, stored)
        package.summary = stored.summary

    def _demand(self, package: Package) -> tuple[StoredObject, Package]:
        """The object of a package's file, and the package as it is stored.

        Raises :class:`BackendUnavailable` if the file was replaced since the package was read.
        """
        found = self._head(self._stored_key(package))
        stored = None if found is None else self._package(found, Package)
        if found is None or stored is None:
            raise not_stored(package)
        demand_same(package, stored.data)
        return found, stored

    def _change(self, found: StoredObject, package: Package) -> None:
        try:
            self._write_metadata(found, object_facts.written(package, self.notation, found.metadata))
        except FileExists as error:
            raise replaced_meanwhile(package) from error

    def _tidy(self, key: str, companions: Collection[str]) -> None:
        """Remove those companions that the file does not need, if that is possible: they do no harm."""
        try:
            self._drop(key, companions)
        except BackendUnavailable as error:
            LOG.warning("Something may be left of the upload of %r: %s", key, error)

    def _drop(self, key: str, companions: Collection[str]) -> None:
        """Remove those companions that the file does not need as it is now: others may have just stored it anew."""
        found = self._head(key) if companions else None
        for each in set(companions) - (set() if found is None else companion_keys(found)):
            self._remove(each)


def is_package_key(key: str) -> bool:
    """Whether an object may be a package: neither a companion nor the mark of a directory."""
    return not key.endswith("/") and _COMPANION.search(key) is None


def companion_key(key: str, kind: str, digest: str) -> str:
    """The key of the companion that has this sha256."""
    return f"{key}.{digest[:DIGITS]}.{kind}"


def companion_keys(found: StoredObject | Package) -> set[str]:
    """The keys of the companions that a file's object, or the package that it is, tells of."""
    if isinstance(found, StoredObject):
        try:
            found = package_of(found, Package)
        except PackageParseError:
            return set()
    facts = found.data
    return {companion_key(facts["path"], kind, facts[fact]) for kind, fact in COMPANION_FACTS.items() if fact in facts}


def package_of(found: StoredObject, factory: Callable[..., Package]) -> Package:
    """The package that an object is. Raises :class:`PackageParseError` if it is none."""
    filename = found.key.rpartition("/")[2]
    if not is_segment(filename):
        raise PackageParseError("its name has characters that cannot be served")
    return object_facts.package(factory, found.metadata, found.key, found.last_modified, found.size)


def exists(key: str) -> FileExists:
    """The error for a key that has an object already."""
    return FileExists(f"{key.rpartition('/')[2]!r} is stored already")


def _fact(kind: str) -> str:
    if kind not in COMPANION_FACTS:
        raise NotSupported(f"nothing of the kind {kind!r} is kept beside a package")
    return COMPANION_FACTS[kind]
