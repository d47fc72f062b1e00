"""The storage in Azure Blob Storage, on Azurite: with the account's key, and as a managed identity."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.parse import parse_qs

import pytest

from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage import get_storage_impl
from pypicloud.storage.azure_blob import AzureBlobStorage, wire
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.azure import Machine
from support.services.azurite import Azurite

Settings = dict[str, str]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again at once, and what the developer has of Azure's is no business of tests."""
    monkeypatch.setattr(wire, "PAUSE", 0)
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)


class AzureContract(StorageContract):
    """The storage contract, on a server that nobody else uses meanwhile."""

    required: ClassVar[tuple[str, ...]] = ("storage.storage_account_name", "storage.storage_container_name")
    limits: ClassVar[frozenset[str]] = frozenset({"redirects"})
    azurite: Azurite

    @pytest.fixture(autouse=True)
    def _small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every listing has pages."""
        monkeypatch.setattr(AzureBlobStorage, "page_size", 7)

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        with self.azurite.client(self.azurite.settings(kwargs["container"].address.container)) as client:
            return {name: client.download_blob(name).readall() for name in client.list_blob_names()}

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        self.azurite.stop()
        yield
        self.azurite.start()


class TestKey(AzureContract):
    """With the account's key."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _azurite(cls) -> Iterator[None]:
        with Azurite() as service:
            cls.azurite = service
            yield

    @pytest.fixture
    def settings(self) -> Settings:
        return {"pypi.storage": "azure-blob", **self.azurite.settings()}


class TestIdentity(AzureContract):
    """With the tokens of a managed identity."""

    machine: Machine

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _azurite(cls) -> Iterator[None]:
        with Azurite(secure=True) as service, Machine() as machine, machine.here(service):
            cls.azurite, cls.machine = service, machine
            yield

    @pytest.fixture
    def settings(self) -> Settings:
        return keyless(self.azurite)

    def fetch(self, url: str) -> bytes:
        return self.machine.fetch(url, self.azurite)


def keyless(azurite: Azurite) -> Settings:
    """The settings of a new container, without the account's key."""
    settings = {"pypi.storage": "azure-blob", **azurite.settings()}
    del settings["storage.storage_account_key"]
    return settings


@pytest.fixture
def settings(azurite: Azurite) -> Settings:
    """The settings of a new container."""
    return {"pypi.storage": "azure-blob", **azurite.settings()}


def storage_of(settings: Mapping[str, str], request: Any = None, **more: str) -> AzureBlobStorage:
    """The backend, configured as the server does it."""
    storage = get_storage_impl(EnvironSettings({**settings, **more}, {}))(request)
    assert isinstance(storage, AzureBlobStorage)
    return storage


def raw(storage: AzureBlobStorage) -> dict[str, dict[str, str]]:
    """The metadata of everything in the container, by its name there."""
    return {blob.name: blob.metadata for blob in storage.container.client.list_blobs(include=["metadata"])}


def put(storage: AzureBlobStorage, key: str, metadata: dict[str, str] | None = None, content: bytes = CONTENT) -> None:
    """Put a blob there without the backend."""
    storage.container.client.upload_blob(key, content, metadata=metadata)


# What lies in the container


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({}, "foo-bar/Foo_Bar-1.0.tar.gz"),
        ({"storage.prefix": "a/b"}, "a/bfoo-bar/Foo_Bar-1.0.tar.gz"),
        ({"storage.prepend_hash": "true"}, "foo-bar/Foo_Bar-1.0.tar.gz"),
    ],
)
def test_keys(settings: Settings, more: Settings, key: str) -> None:
    """A key is prefix, project and file name, and never has a hash (compat.md 2.2)."""
    storage = storage_of(settings, **more)
    storage.publish(make_package("Foo.Bar", filename="Foo_Bar-1.0.tar.gz"), io.BytesIO(CONTENT))
    assert list(raw(storage)) == [key]


def test_metadata(settings: Settings) -> None:
    """The metadata is what 1.3.12 wrote, with underscores, in ASCII, and one field more (compat.md 2.3)."""
    storage = storage_of(settings)
    package = make_package(
        "Foo.Bar",
        "1.0",
        "Foo_Bar-1.0.zip",
        summary=" Café\n au\tlait\x7f ☕ ",
        requires_python=">=3.8",
        uploader="josé",
    )
    package.last_modified = datetime(2019, 7, 8, 9, 10, 11, 120000, UTC)
    package.data["yanked"] = "broken"
    storage.publish(package, io.BytesIO(CONTENT))
    (metadata,) = raw(storage).values()
    assert json.loads(metadata.pop("facts")) == {
        "yanked": "broken",
        "summary": " Café\n au\tlait\x7f ☕ ",
        "uploader": "josé",
        "upload_time": "2019-07-08T09:10:11.120000Z",
    }
    assert metadata == {
        "name": "foo-bar",
        "version": "1.0",
        "requires_python": ">=3.8",
        "summary": "Cafe au lait",
        "hash_sha256": hashlib.sha256(CONTENT).hexdigest(),
        "hash_md5": hashlib.md5(CONTENT).hexdigest(),
        "uploader": "jose",
    }
    (listed,) = storage.list()
    assert (listed.summary, listed.data["uploader"]) == (package.summary, "josé")


def test_companions_are_blobs_that_1_3_12_can_list(settings: Settings) -> None:
    """A companion has its package's name and version, without which the listing of 1.3.12 fails (compat.md 2.3)."""
    storage = storage_of(settings)
    package = make_package("Foo.Bar")
    storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"x"})
    storage.upload_companion(package, "provenance", b"y")
    companions = {key: metadata for key, metadata in raw(storage).items() if not key.endswith("tar.gz")}
    assert list(companions.values()) == [{"name": "foo-bar", "version": "1.0"}] * 2


def test_blobs_of_others(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Blobs of 1.3.12, and those without metadata, are packages; directories are passed over, others counted."""
    storage = storage_of(settings)
    put(storage, "foo/foo-1.0.zip", {"name": "foo", "version": "1.0", "requires_python": ">3", "hash_md5": "0"})
    put(storage, "bar-2.0-py3-none-any.whl")
    put(storage, "baz/baz-3.0.tar.gz", {"uploader": "me"})
    put(storage, "baz", {"hdi_isfolder": "true"}, b"")
    put(storage, "a b/README", {"summary": "x"})
    found = {package.filename: package for package in storage.list()}
    assert {name: (each.name, each.version) for name, each in found.items()} == {
        "foo-1.0.zip": ("foo", "1.0"),
        "bar-2.0-py3-none-any.whl": ("bar", "2.0"),
        "baz-3.0.tar.gz": ("baz", "3.0"),
    }
    assert found["foo-1.0.zip"].get_metadata() == {"requires_python": ">3", "hash_md5": "0"}
    assert found["baz-3.0.tar.gz"].data == {"uploader": "me", "size": len(CONTENT), "path": "baz/baz-3.0.tar.gz"}
    assert datetime.now(UTC) - found["foo-1.0.zip"].last_modified < timedelta(minutes=1)
    assert storage.unreadable_count == 1
    assert "'a b/README'" in caplog.text


def test_a_file_stays_where_it_was_found(settings: Settings) -> None:
    """A file under another prefix is read, changed, replaced and deleted there (compat.md 2.2)."""
    storage = storage_of(settings)
    put(storage, "old/foo-1.0.zip", {"name": "foo", "version": "1.0"})
    (package,) = storage.list()
    assert urllib.request.urlopen(storage.get_uri(package)).read() == CONTENT
    package.data["yanked"] = True
    storage.update_metadata(package)
    storage.publish(package, io.BytesIO(b"new"), {"metadata": b"x"}, replace=True)
    with storage.open(package) as stream:
        assert stream.read() == b"new"
    assert all(key.startswith("old/foo-1.0.zip") for key in raw(storage))
    storage.delete(package)
    assert raw(storage) == {}


def test_long_summary(settings: Settings) -> None:
    """A summary is cut as far as Azure's limit of 8 KiB needs it, and the package says so."""
    storage = storage_of(settings)
    package = make_package(summary="a“b " * 4000, uploader="me")
    storage.publish(package, io.BytesIO(CONTENT))
    (listed,) = storage.list()
    assert listed.summary == package.summary
    assert (package.summary or "").endswith("...")
    size = sum(len(name) + len(value) for each in raw(storage).values() for name, value in each.items())
    assert size > 7 << 10


# URLs


@pytest.mark.parametrize(
    ("filename", "path"),
    [
        ("foo-1.0+local.1.tar.gz", "foo/foo-1.0%2Blocal.1.tar.gz"),
        ("foo weird (1) #100%?.zip", "foo/foo%20weird%20%281%29%20%23100%25%3F.zip"),
        ("föö-1.0~a!b.zip", "foo/f%C3%B6%C3%B6-1.0~a%21b.zip"),
    ],
)
def test_urls(azurite: Azurite, settings: Settings, filename: str, path: str) -> None:
    """URLs are percent-encoded, lead to the file for a day, and have its digest in pages (compat.md 2.4)."""
    package = make_package(filename=filename)
    storage = storage_of(settings, get("/"), **{"storage.redirect_urls": "false"})
    storage.publish(package, io.BytesIO(CONTENT))
    url, _, digest = storage.get_url(package).partition("#")
    assert url == storage.get_uri(package)
    assert url.startswith(f"{azurite.url}/{settings['storage.storage_container_name']}/{path}?")
    assert digest == f"sha256={package.data['hash_sha256']}"
    assert urllib.request.urlopen(url).read() == CONTENT
    words = parse_qs(url.partition("?")[2])
    left = datetime.strptime(words["se"][0], "%Y-%m-%dT%H:%M:%S%z") - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(days=1)
    assert (words["sp"], words["spr"]) == (["r"], ["https,http"])
    assert storage_of(settings, get("/")).get_url(package).startswith("http://localhost/api/package/foo/")


def test_https_alone() -> None:
    """A URL is good over HTTPS alone, unless the account's own address has none (compat.md 2.4)."""
    storage = AzureBlobStorage(
        storage_account_name="acme", storage_account_key="a2V5", storage_container_name="packages", path_prefix="a/"
    )
    url, _, query = storage.get_uri(Package("foo", "1.0", "foo-1.0.zip")).partition("?")
    assert url == "https://acme.blob.core.windows.net/packages/a/foo/foo-1.0.zip"
    assert parse_qs(query)["spr"] == ["https"]


def test_urls_that_are_refused(settings: Settings) -> None:
    """A URL is good for reading this one file until it expires, and whoever changes it has nothing."""
    storage = storage_of(settings)
    package, other = make_package(), make_package("bar")
    for each in (package, other):
        storage.publish(each, io.BytesIO(CONTENT))
    url = storage.get_uri(package)
    bad = {
        "expired": storage.container.signed_url("foo/foo-1.0.tar.gz", -60),
        "another": url.replace("foo/foo", "bar/bar"),
        "longer": url.replace("se=20", "se=21"),
        "more": url.replace("sp=r&", "sp=rwd&"),
        "signature": url[:-8] + "AAAAAA%3D",
        "none": url.partition("?")[0],
    }
    answers = {name: status(urllib.request.Request(each)) for name, each in bad.items()}
    assert answers == dict.fromkeys(bad, 403) | {"none": answers["none"]}
    assert answers["none"] in {401, 403, 404}
    assert status(urllib.request.Request(url, method="DELETE")) == 403
    assert status(urllib.request.Request(url, b"x", {"x-ms-blob-type": "BlockBlob"}, method="PUT")) == 403
    assert status(urllib.request.Request(url)) == 200


def status(request: urllib.request.Request) -> int:
    """The status of the answer to a request."""
    try:
        with urllib.request.urlopen(request) as answer:
            code: int = answer.status
    except HTTPError as error:
        with error:
            code = error.code
    return code
