"""A storage that a third party wrote for 1.3.12, from the documentation alone, works unchanged."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar, cast

import pytest
from pyramid.response import Response

from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage import FileStorage, IStorage, get_storage_impl
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package

Shelf = dict[str, tuple[Package, bytes]]


class BareShelfStorage(IStorage):
    """The four methods without which there is no storage."""

    def __init__(self, request: Any, shelf: Shelf, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.shelf = shelf

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Make the shelf that all requests share."""
        kwargs = super().configure(settings)
        kwargs.update(settings.get_as_dict("storage.", shelf=lambda _: Shelf()))
        return kwargs

    def list(self, factory: Callable[..., Package] = Package) -> Iterator[Package]:
        """Every package."""
        for package, _ in list(self.shelf.values()):
            yield factory(
                package.name, package.version, package.filename, package.last_modified, **package.get_metadata()
            )

    def upload(self, package: Package, datastream: BinaryIO) -> None:
        """Put a file on the shelf."""
        self.shelf[package.filename] = (package, datastream.read())

    def delete(self, package: Package) -> None:
        """Take a file off the shelf."""
        self.shelf.pop(package.filename, None)

    @contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The bytes of a file."""
        if package.filename not in self.shelf:
            raise FileNotFoundError(2, "No such file", package.filename)
        yield io.BytesIO(self.shelf[package.filename][1])


class ShelfStorage(BareShelfStorage):
    """All that the documentation of 1.3.12 names, its own response among it."""

    def download_response(self, package: Package) -> Response:
        """All the bytes."""
        with self.open(package) as stream:
            return Response(body=stream.read(), content_type="application/octet-stream")


class NarrowStorage(BareShelfStorage):
    """Gives streams that can be read, and nothing else."""

    @contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The bytes of a file."""
        with super().open(package) as stream:
            yield cast("BinaryIO", _Narrow(stream))


class _Narrow:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


OLD_LIMITS = frozenset(
    {"known_facts", "no_companions", "no_updates", "own_errors", "replaces", "trusts_names", "unbreakable"}
)


class TestBareStorage(StorageContract):
    limits: ClassVar[frozenset[str]] = OLD_LIMITS
    backend: ClassVar[str] = "BareShelfStorage"

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        """The dotted path, as in an old ini file."""
        return {"pypi.storage": f"{__name__}.{self.backend}", "storage.shelf": "new"}

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        """The shelf."""
        return {filename: content for filename, (_, content) in kwargs["shelf"].items()}


class TestDocumentedStorage(TestBareStorage):
    limits: ClassVar[frozenset[str]] = OLD_LIMITS | {"plain_downloads"}
    backend: ClassVar[str] = "ShelfStorage"


@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
def test_stream_that_cannot_seek(size: bool) -> None:
    """A stream that cannot seek is served in parts if its size is known, and as a whole if not."""
    shelf: Shelf = {}
    package = make_package()
    NarrowStorage(None, shelf).publish(package, io.BytesIO(CONTENT))
    if not size:
        del package.data["size"]
    for header, expected in (("bytes=70000-70009", CONTENT[70000:70010]), ("bytes=-", CONTENT)):
        request = get(Range=header)
        status, headers, chunks = request.call_application(NarrowStorage(request, shelf).download_response(package))
        assert b"".join(chunks) == (expected if size else CONTENT)
        assert status.startswith("206" if size and expected != CONTENT else "200")
        assert ("Content-Length" in dict(headers)) is size
    part = NarrowStorage(None, shelf).open_range(package, len(CONTENT) - 3, len(CONTENT) + 3)
    with part as stream:
        assert stream.read() == CONTENT[-3:]
    with NarrowStorage(None, shelf).open_range(package, len(CONTENT) + 9, len(CONTENT) + 10) as stream:
        assert stream.read() == b""


def test_constructor_of_its_own() -> None:
    """A class that does not call our constructor still reports what it cannot read."""

    class Lonely(IStorage):
        def __init__(self, request: Any) -> None:
            self.request = request

    storage = Lonely(None)
    storage.unreadable("a/b", "broken")
    assert (storage.unreadable_count, IStorage.unreadable_count) == (1, 0)


def test_defaults() -> None:
    """What a class does not say of itself is the cautious answer."""
    storage = BareShelfStorage(None, {})
    assert storage.check_health() == (True, "")
    assert not storage.is_local
    assert not storage.has_own_urls
    assert storage.spool_directory() is None
    assert storage.local_path(make_package()) is None
    assert storage.redirect_url(make_package()) is None


def test_links_of_its_own() -> None:
    """A class that makes its own links says so."""

    class Linking(BareShelfStorage):
        def get_url(self, package: Package) -> str:
            return f"https://files.example/{package.filename}"

    assert Linking(None, {}).has_own_urls


def test_redirect() -> None:
    """A class that only says where a file can be had answers downloads with a redirect that nobody keeps."""

    class Redirecting(BareShelfStorage):
        def redirect_url(self, package: Package) -> str | None:
            return f"https://files.example/{package.filename}?signed=1"

    request = get()
    status, headers, chunks = request.call_application(Redirecting(request, {}).download_response(make_package()))
    assert (status, b"".join(chunks)) == ("302 Found", b"")
    assert dict(headers)["Location"] == "https://files.example/foo-1.0.tar.gz?signed=1"
    assert dict(headers)["Cache-Control"] == "no-store"


def test_companions_of_a_plain_upload() -> None:
    """A class that can keep companions, but knows nothing of ``publish``, is given them after the file."""
    calls = []

    class Keeping(BareShelfStorage):
        def upload(self, package: Package, datastream: BinaryIO) -> None:
            super().upload(package, datastream)
            calls.append("file")

        def upload_companion(self, package: Package, kind: str, data: bytes) -> None:
            calls.append(f"{kind} of {package.filename}: {data!r}")

    Keeping(None, {}).publish(make_package(), io.BytesIO(CONTENT), {"metadata": b"m"})
    assert calls == ["file", "metadata of foo-1.0.tar.gz: b'm'"]


def test_storage_that_does_not_answer() -> None:
    """What goes wrong on the way to the bytes is the backend's trouble, not a missing file."""

    class Offline(BareShelfStorage):
        @contextmanager
        def open(self, package: Package) -> Iterator[BinaryIO]:
            raise ConnectionRefusedError(111, "10.0.0.7 refuses")
            yield

    with pytest.raises(BackendUnavailable) as caught:
        Offline(None, {}).download_response(make_package())
    assert "10.0.0.7" not in caught.value.message


@pytest.mark.parametrize("name", ["list", "upload", "delete", "open"])
def test_what_must_be_written(name: str) -> None:
    """The four methods that have no default say so."""
    package = make_package()
    arguments: tuple[Any, ...] = {"list": (), "upload": (package, io.BytesIO())}.get(name, (package,))
    with pytest.raises(NotImplementedError):
        getattr(IStorage(), name)(*arguments)


def test_short_names_and_paths() -> None:
    """A storage is named by a short name, a dotted path, or not at all; the older key works (compat.md 8.1)."""
    import pypicloud.storage

    assert pypicloud.storage.FileStorage is FileStorage
    with pytest.raises(AttributeError):
        _ = pypicloud.storage.NoStorage
    for key, value in (("pypi.storage", "nothing"), ("pypi.storage", "pypicloud.models.Package"), ("pypi.s3", "x.Y")):
        with pytest.raises(SettingError, match=r"pypi\.s"):
            get_storage_impl(EnvironSettings({key: value}, {}))
