"""Stored files, read as a whole and in parts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from pypicloud.errors import BackendUnavailable, PackageNotFound
from pypicloud.metadata import wheel_metadata
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import IStorage
from pypicloud.storage.reading import AHEAD, Parts, measured, seekable
from pypicloud.testing.memory_storage import MemoryStorage
from support.builds import build_wheel, metadata
from support.directories import configured

CONTENT = bytes(range(256)) * 1000
PACKAGE = Package("acme", "1.0", "acme-1.0.tar.gz", size=len(CONTENT))


class RemoteStorage(MemoryStorage):
    """A storage in memory that gives parts, and counts what is fetched."""

    fetched: int = 0
    requests: int = 0
    breaks_after: int | None = None

    @contextlib.contextmanager
    def open_range(self, package: Package, start: int, stop: int) -> Iterator[BinaryIO]:
        """Some bytes."""
        self.requests += 1
        self.fetched += stop - start
        with self.open(package) as stream:
            yield io.BytesIO(stream.read()[start:stop])

    @contextlib.contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The file's bytes; the connection may break."""
        with super().open(package) as stream:
            yield stream if self.breaks_after is None else Breaking(stream.read(self.breaks_after))


class Breaking(io.BytesIO):
    """A stream of a connection that is lost."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, until there are none."""
        data = super().read(size)
        if not data:
            raise ValueError("connection lost")
        return data


@pytest.fixture
def remote() -> RemoteStorage:
    """A storage elsewhere, with one file."""
    storage = RemoteStorage(**RemoteStorage.configure(EnvironSettings({}, {})))
    storage.upload(PACKAGE, io.BytesIO(CONTENT))
    return storage


def test_a_whole_file_from_elsewhere(remote: RemoteStorage, tmp_path: Path) -> None:
    """A file from elsewhere is at hand as a file of this machine, measured, for as long as the block lasts."""
    with measured(remote, PACKAGE, str(tmp_path)) as found:
        assert Path(found.path).parent == tmp_path
        assert Path(found.path).read_bytes() == found.stream.read() == CONTENT
        assert found.size == len(CONTENT)
        assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert found.md5 == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_of_this_machine(tmp_path: Path) -> None:
    """A file of this machine is not copied."""
    storage = configured(tmp_path)
    storage.upload(PACKAGE, io.BytesIO(CONTENT))
    with measured(storage, PACKAGE) as found:
        assert Path(found.path) == tmp_path / "acme" / "1.0" / "acme-1.0.tar.gz"
        assert found.stream.read() == CONTENT


@pytest.mark.parametrize("is_local", [True, False])
def test_a_file_that_is_not_there(remote: RemoteStorage, tmp_path: Path, is_local: bool) -> None:
    """Where there is no file, that is said."""
    storage: IStorage = configured(tmp_path) if is_local else remote
    missing = Package("acme", "2.0", "acme-2.0.tar.gz", size=10)
    with pytest.raises(PackageNotFound), measured(storage, missing):
        pass
    with pytest.raises(PackageNotFound), seekable(storage, missing) as stream:
        stream.read()


def test_a_connection_that_breaks(remote: RemoteStorage, tmp_path: Path) -> None:
    """Whatever a library says of a lost connection, it can be tried again, and nothing is left behind."""
    remote.breaks_after = 1000
    with pytest.raises(BackendUnavailable), measured(remote, PACKAGE, str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_room(remote: RemoteStorage, tmp_path: Path) -> None:
    """A directory that cannot be written is no fault of the storage."""
    with pytest.raises(BackendUnavailable, match="written"), measured(remote, PACKAGE, str(tmp_path / "none")):
        pass


def test_stopping_in_the_middle(remote: RemoteStorage) -> None:
    """Reading ends when the caller raises."""

    def stop() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), measured(remote, PACKAGE, between=stop):
        pass


def test_parts(remote: RemoteStorage) -> None:
    """Wherever it is read, a file read in parts is the file."""
    stream = Parts(remote, PACKAGE, len(CONTENT))
    for offset, count in [(0, 10), (5, 3), (AHEAD - 2, 4), (250_000, 300), (200_000, 100_000), (len(CONTENT), 5)]:
        stream.seek(offset)
        data = b""
        while len(data) < count and (more := stream.read(count - len(data))):
            data += more
        assert data == CONTENT[offset : offset + count]
    assert stream.seek(-3, os.SEEK_END) == len(CONTENT) - 3
    assert stream.seek(1, os.SEEK_CUR) == stream.tell() == len(CONTENT) - 2
    assert stream.readable()
    assert stream.seekable()
    assert stream.readall() == CONTENT[-2:]


@pytest.mark.parametrize(("first", "requests"), [(False, 1), (True, 2)])
def test_metadata_of_a_large_wheel(remote: RemoteStorage, first: bool, requests: int) -> None:
    """The metadata of a wheel of 3 MB cost one request if they are at its end, and two if they are not."""
    text = metadata("acme", "1.0", summary="A project")
    noise = {f"acme/{number}": os.urandom(1 << 20) for number in range(3)}
    content = build_wheel(members=noise, core_metadata=text)
    if first:
        content = build_wheel(members={"acme-1.0.dist-info/METADATA": text.encode(), **noise}, core_metadata=text)
    package = Package("acme", "1.0", "acme-1.0-py3-none-any.whl", size=len(content))
    remote.upload(package, io.BytesIO(content))
    with seekable(remote, package) as stream:
        assert wheel_metadata(stream) == text.encode()
    assert remote.requests == requests
    assert remote.fetched <= (64 << 10) + AHEAD


def test_a_storage_without_parts(tmp_path: Path) -> None:
    """A storage that gives no parts opens the file as it always does."""
    storage = configured(tmp_path)
    storage.upload(PACKAGE, io.BytesIO(CONTENT))
    with seekable(storage, PACKAGE) as stream:
        stream.seek(-3, os.SEEK_END)
        assert stream.read() == CONTENT[-3:]
