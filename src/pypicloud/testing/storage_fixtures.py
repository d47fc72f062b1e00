"""What the contract of the storages stands on: storages made as the app makes them, and packages to put in."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final, cast

import pytest

from pypicloud.errors import PackageNotFound
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage import get_storage_impl
from pypicloud.storage.base import IStorage

#: What ``get_storage_impl`` gives: makes the backend for a request, or for none.
MakeStorage = functools.partial[IStorage]

CONTENT: Final = bytes(range(256)) * 300


def make_package(
    name: str = "foo",
    version: str = "1.0",
    filename: str | None = None,
    content: bytes = CONTENT,
    summary: str | None = None,
    **facts: Any,
) -> Package:
    """A package that says the truth about its bytes."""
    return Package(
        name,
        version,
        filename or f"{name}-{version}.tar.gz",
        summary=summary,
        size=len(content),
        hash_sha256=hashlib.sha256(content).hexdigest(),
        hash_md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        **facts,
    )


class Forward(io.RawIOBase):
    """A stream that can only be read, as those from a socket, and that may break off."""

    def __init__(self, content: bytes, *, breaks: bool = False) -> None:
        super().__init__()
        self._rest = io.BytesIO(content)
        self._breaks = breaks

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        count = self._rest.readinto(buffer)
        if count == 0 and self._breaks:
            raise ConnectionResetError("the client is gone")
        return count


class StorageFixtures:
    """The fixtures of the contract, and what a test class says about its storage."""

    #: What the backend honestly cannot do; see :class:`pypicloud.testing.storage.StorageContract`.
    limits: ClassVar[frozenset[str]] = frozenset()

    #: The settings without which the backend does not start.
    required: ClassVar[tuple[str, ...]] = ()

    #: More files than the service lists on one page.
    many: ClassVar[int] = 30

    @property
    def missing(self) -> tuple[type[Exception], ...]:
        """What is raised for a file that is not there."""
        return (LookupError, OSError, PackageNotFound) if "own_errors" in self.limits else (PackageNotFound,)

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        """The ini file's settings, with a place for the files that no other test uses."""
        raise NotImplementedError

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        """The second witness: everything that lies in the service, by its name there, seen without the backend.

        ``kwargs`` is what the backend's ``configure`` gave.
        """
        raise NotImplementedError

    def outage(self, kwargs: Mapping[str, Any]) -> AbstractContextManager[None]:
        """A time in which the service is not there; needed unless ``unbreakable``."""
        raise NotImplementedError

    @pytest.fixture
    def make_storage(self, settings: dict[str, str]) -> Iterator[MakeStorage]:
        """The backend, configured as the server does it; nothing may be left of the test when all is deleted."""
        make = cast("MakeStorage", get_storage_impl(EnvironSettings(settings, {})))
        yield make
        storage = make(None)
        for package in storage.list():
            storage.delete(package)
        assert self.objects(make.keywords) == {}

    @pytest.fixture
    def storage(self, make_storage: MakeStorage) -> IStorage:
        """The backend without a request."""
        return make_storage(None)

    def listed(self, storage: IStorage) -> dict[str, Package]:
        """What the storage lists, by file name."""
        packages = list(storage.list())
        found = {package.filename: package for package in packages}
        assert len(found) == len(packages)
        return found

    def content(self, storage: IStorage, package: Package) -> bytes:
        """The bytes of a package."""
        with storage.open(package) as stream:
            return stream.read()

    def companion(self, storage: IStorage, package: Package, kind: str = "metadata") -> bytes | None:
        """The bytes of a companion, or None."""
        stream = storage.open_companion(package, kind)
        if stream is None:
            return None
        with stream:
            return stream.read()
