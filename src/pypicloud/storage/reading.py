"""Stored files, read otherwise than once from front to back."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from pypicloud.errors import BackendUnavailable, PypicloudError, not_written
from pypicloud.models import Package
from pypicloud.storage import disk
from pypicloud.storage.ahead import Ahead
from pypicloud.storage.base import IStorage, missing_is_not_found

#: How many bytes are read at a time where a file is read as a whole.
_BLOCK: Final = 1 << 20

#: How many bytes one request for a part of a file fetches at least.
AHEAD: Final = 32 << 10


@dataclass(frozen=True, slots=True)
class Measured:
    """All of a stored file: a stream that stands at its start and can seek, the file it is of, size and digests."""

    stream: BinaryIO
    path: str
    size: int
    sha256: str
    md5: str


@contextlib.contextmanager
def measured(
    storage: IStorage, package: Package, directory: str | None = None, between: Callable[[], None] = lambda: None
) -> Iterator[Measured]:
    """Read a stored file once; it stays at hand until the block ends.

    One that does not lie on this machine is copied into a temporary file, in ``directory`` if there is one.
    ``between`` is called again and again while it is read, and may raise. Raises :class:`PackageNotFound` if
    there is no such file.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with ExitStack() as stack:
        with missing_is_not_found(package):
            local = storage.local_path(package)
            opened = storage.open(package) if local is None else open(local, "rb")  # noqa: SIM115 - the stack closes it
            stream = stack.enter_context(opened)
        copy = stack.enter_context(_temporary_file(directory)) if local is None else None
        while block := _next(stream, package):
            between()
            sha256.update(block)
            md5.update(block)
            if copy is not None:
                _write(copy, block)
        whole = cast("BinaryIO", stream if copy is None else copy)
        size = whole.tell()
        whole.seek(0)
        yield Measured(whole, local or str(whole.name), size, sha256.hexdigest(), md5.hexdigest())


def _temporary_file(directory: str | None) -> AbstractContextManager[Any]:
    """A temporary file that a storage in a directory can adopt, see :meth:`IStorage.spool_directory`."""
    try:
        return tempfile.NamedTemporaryFile(
            buffering=0, prefix=disk.TEMPORARY_PREFIX, suffix=disk.TEMPORARY_SUFFIX, dir=directory
        )
    except OSError as error:
        raise not_written(error) from error


def _write(file: Any, block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise not_written(error) from error


def _next(stream: BinaryIO, package: Package) -> bytes:
    try:
        return stream.read(_BLOCK)
    except PypicloudError:
        raise
    except Exception as error:
        # The stream may be that of any library, and a connection can be lost at any time.
        raise BackendUnavailable(f"the file {package.filename!r} cannot be read at the moment") from error


@contextlib.contextmanager
def seekable(storage: IStorage, package: Package) -> Iterator[BinaryIO]:
    """A stored file as a stream that fetches only those parts that are read.

    If the storage cannot give parts, or the size of the file is not known, it is opened as it always is.
    Raises :class:`PackageNotFound`, at the latest on the first read, if there is no such file.
    """
    size = package.data.get("size")
    if size is not None and type(storage).open_range is not IStorage.open_range:
        yield cast("BinaryIO", Parts(storage, package, size))
        return
    with ExitStack() as stack:
        with missing_is_not_found(package):
            stream = stack.enter_context(storage.open(package))
        yield stream


class Parts(Ahead):
    """A stored file of known size, of which each read fetches a part; the last part is kept."""

    def __init__(self, storage: IStorage, package: Package, size: int) -> None:
        super().__init__(size, AHEAD)
        self._storage = storage
        self._package = package

    def _fetched(self, start: int, stop: int) -> bytes:
        part = b""
        with missing_is_not_found(self._package), self._storage.open_range(self._package, start, stop) as stream:
            while block := _next(stream, self._package):
                part += block
        return part
