"""Stored files, read otherwise than once from front to back."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from pypicloud.errors import BackendUnavailable, PypicloudError, not_written
from pypicloud.models import Package
from pypicloud.storage import disk
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


class Parts(io.RawIOBase):
    """A stored file of known size, of which each read fetches a part; the last part is kept."""

    def __init__(self, storage: IStorage, package: Package, size: int) -> None:
        super().__init__()
        self._storage = storage
        self._package = package
        self._size = size
        self._position = 0
        self._part_start = 0
        self._part = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Say where the next read begins."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, fetching what is not at hand; 0 at the end."""
        wanted = max(0, min(len(buffer), self._size - self._position))
        start = self._position - self._part_start
        if wanted and not (0 <= start < len(self._part)):
            self._fetch(wanted)
            start = 0
        block = self._part[start : start + wanted] if wanted else b""
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def _fetch(self, wanted: int) -> None:
        stop = min(self._size, self._position + max(wanted, AHEAD))
        part = b""
        with (
            missing_is_not_found(self._package),
            self._storage.open_range(self._package, self._position, stop) as stream,
        ):
            while block := _next(stream, self._package):
                part += block
        self._part_start, self._part = self._position, part
