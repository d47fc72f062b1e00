"""The storage in Google Cloud Storage: what lies in the bucket, links and downloads."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import time
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

import pytest
from google.auth.transport.requests import AuthorizedSession

from pypicloud.models import Package
from pypicloud.storage.gcs import GoogleCloudStorage, bucket
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.gcs import Settings, everything, looking, metadata, put, storage_of
from support.services.gcs import GCS


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again at once."""
    monkeypatch.setattr(bucket, "PAUSES", (0.01, 0.02))


@pytest.fixture
def settings(gcs: GCS) -> Settings:
    """The settings of a new bucket."""
    return {"pypi.storage": "gcs", **gcs.settings()}


class TestContract(StorageContract):
    """The storage contract."""

    required: ClassVar[tuple[str, ...]] = ("storage.bucket",)
    limits: ClassVar[frozenset[str]] = frozenset({"redirects"})
    service: ClassVar[GCS]

    @pytest.fixture(autouse=True)
    def _small_pages(self, gcs: GCS, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every listing has pages."""
        monkeypatch.setattr(gcs, "page_size", 7)
        monkeypatch.setattr(type(self), "service", gcs, raising=False)

    @pytest.fixture
    def settings(self, gcs: GCS) -> Settings:
        return {"pypi.storage": "gcs", **gcs.settings()}

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        return everything(self.service.settings(kwargs["store"].address.bucket))

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        self.service.stop()
        yield
        self.service.start()


# What lies in the bucket


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "fc81/foo-bar/Foo_Bar-1.0.tar.gz"),
        ({"prefix": "a/b"}, "a/bfc81/foo-bar/Foo_Bar-1.0.tar.gz"),
        ({"prepend_hash": "false", "prefix": "c/"}, "c/foo-bar/Foo_Bar-1.0.tar.gz"),
    ],
)
def test_keys(settings: Settings, changes: Settings, key: str) -> None:
    """A key is prefix, hash, project and file name (compat.md 2.2)."""
    storage = storage_of(settings, **changes)
    package = make_package("Foo.Bar", filename="Foo_Bar-1.0.tar.gz")
    storage.publish(package, io.BytesIO(CONTENT))
    assert everything(settings) == {key: CONTENT}
    assert storage.get_uri(package) == f"gs://{settings['storage.bucket']}/{key}"


def test_metadata(settings: Settings) -> None:
    """The metadata is what 1.3.12 wrote, with underscores and as it is, and one field more (compat.md 2.3)."""
    storage = storage_of(settings)
    package = make_package("Foo.Bar", "1.0", "Foo_Bar-1.0.zip", summary="Café\n au lait ☕", uploader="josé")
    package.data |= {"requires_python": ">=3.8", "yanked": "broken"}
    package.last_modified = datetime(2019, 7, 8, 9, 10, 11, 120000, UTC)
    storage.publish(package, io.BytesIO(CONTENT))
    (found,) = metadata(settings).values()
    assert json.loads(found.pop("facts")) == {"yanked": "broken", "upload_time": "2019-07-08T09:10:11.120000Z"}
    assert found == {
        "name": "foo-bar",
        "version": "1.0",
        "requires_python": ">=3.8",
        "summary": "Café\n au lait ☕",
        "hash_sha256": hashlib.sha256(CONTENT).hexdigest(),
        "hash_md5": hashlib.md5(CONTENT).hexdigest(),
        "uploader": "josé",
    }


def test_objects_of_others(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Objects of 1.3.12, and those without metadata, are packages; others are passed over and counted."""
    storage = storage_of(settings)
    put(settings, "ab12/foo/foo-1.0.zip", {"name": "foo", "version": "1.0", "requires_python": ">3", "hash_md5": "0"})
    put(settings, "cd34/qux/qux-4.0.zip", {"name": "qux", "version": "4.0", "requires-python": "<3", "hash-md5": "1"})
    put(settings, "bar-2.0-py3-none-any.whl")
    put(settings, "a b/README", {"summary": "x"})
    put(settings, "broken.whl")
    put(settings, "directory/", content=b"")
    found = {package.filename: package for package in storage.list()}
    assert {name: (each.name, each.version) for name, each in found.items()} == {
        "foo-1.0.zip": ("foo", "1.0"),
        "qux-4.0.zip": ("qux", "4.0"),
        "bar-2.0-py3-none-any.whl": ("bar", "2.0"),
    }
    assert found["foo-1.0.zip"].get_metadata() == {"requires_python": ">3", "hash_md5": "0"}
    assert found["qux-4.0.zip"].get_metadata() == {"requires_python": "<3", "hash_md5": "1"}
    assert found["foo-1.0.zip"].data["path"] == "ab12/foo/foo-1.0.zip"
    assert datetime.now(UTC) - found["foo-1.0.zip"].last_modified < timedelta(minutes=1)
    assert storage.unreadable_count == 2
    assert "'a b/README'" in caplog.text


def test_objects_of_the_sdk(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """An object of the SDK can be made a package of, or it is none (compat.md 8.3)."""
    storage = storage_of(settings)
    put(settings, "x/foo-1.0.zip")
    put(settings, "x/README")
    good, bad = (storage.bucket.get_blob(key) for key in ("x/foo-1.0.zip", "x/README"))
    package = GoogleCloudStorage.package_from_object(good, Package)
    assert package is not None
    assert (package.name, package.data["path"]) == ("foo", "x/foo-1.0.zip")
    with caplog.at_level(logging.WARNING):
        assert GoogleCloudStorage.package_from_object(bad, Package) is None
    assert "'x/README'" in caplog.text


def test_a_file_stays_where_it_was_found(settings: Settings) -> None:
    """A file under another prefix is downloaded, changed, replaced and deleted there (compat.md 2.2)."""
    storage = storage_of(settings, prefix="new/")
    put(settings, "old/foo-1.0.zip", {"name": "foo", "version": "1.0"}, CONTENT)
    assert list(storage.list()) == []
    (package,) = storage_of(settings).list()
    assert fetch(storage.redirect_url(package)) == (200, CONTENT)
    package.data["yanked"] = True
    storage.update_metadata(package)
    storage.publish(package, io.BytesIO(b"new"), {"metadata": b"m"}, replace=True)
    assert everything(settings)["old/foo-1.0.zip"] == b"new"
    assert all(key.startswith("old/") for key in everything(settings))
    storage.delete(package)
    assert everything(settings) == {}


def test_new_facts(settings: Settings) -> None:
    """New facts take the place of old ones in any spelling; the bytes, and the metadata of others, stay."""
    facts = {"name": "foo", "version": "1.0", "summary": "s", "requires-python": ">3", "uploader": "me", "theirs": "x"}
    storage = storage_of(settings)
    put(settings, "foo-1.0.zip", facts, CONTENT)
    (package,) = storage.list()
    package.summary = None
    package.data = {"path": "foo-1.0.zip", "yanked": "no good", "uploader": "mé"}
    with looking(settings) as found:
        before = found.get_blob("foo-1.0.zip")
        storage.update_metadata(package)
        after = found.get_blob("foo-1.0.zip")
    assert after.generation == before.generation
    assert json.loads(after.metadata.pop("facts"))["yanked"] == "no good"
    expected = {"name": "foo", "version": "1.0", "uploader": "mé", "theirs": "x"}
    assert {name: value for name, value in after.metadata.items() if name != "facts"} == expected


def test_long_summary(settings: Settings) -> None:
    """A summary is cut as far as the service's limit of 8 KiB needs it, and the package says so."""
    storage = storage_of(settings)
    package = make_package(summary="ünïcode “ " * 4000, uploader="me")
    storage.publish(package, io.BytesIO(CONTENT))
    (listed,) = storage.list()
    assert listed.summary == package.summary
    assert (package.summary or "").endswith("...")
    (found,) = metadata(settings).values()
    assert sum(len(word.encode()) for pair in found.items() for word in pair) > 8000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """Method, address and body of every request to the service."""
    found = []
    request = AuthorizedSession.request

    def record(session: Any, method: str, url: str, data: Any = None, **options: Any) -> Any:
        found.append((method, url, data))
        return request(session, method, url, data=data, **options)

    monkeypatch.setattr(AuthorizedSession, "request", record)
    return found


def test_options_of_objects(settings: Settings, asked: list[tuple[str, str, Any]]) -> None:
    """New objects get the storage class and the ACL of the settings, a new bucket its region and storage class."""
    storage = storage_of(settings, storage_class="nearline", object_acl="public-read", region_name="europe-west1")
    storage.publish(make_package(), io.BytesIO(CONTENT))
    (made,) = (
        json.loads(data) for method, url, data in asked if (method, url.partition("?")[0][-2:]) == ("POST", "/b")
    )
    assert made == {"name": settings["storage.bucket"], "storageClass": "NEARLINE", "location": "europe-west1"}
    with looking(settings) as found:
        (blob,) = found.list_blobs()
    assert blob.storage_class == "NEARLINE"
    anonymous = f"{settings['storage.gcp_api_endpoint']}/{settings['storage.bucket']}/{quote(blob.name)}"
    assert fetch(anonymous) == (200, CONTENT)


def test_encryption_key(settings: Settings, asked: list[tuple[str, str, Any]]) -> None:
    """Objects are uploaded with the key in Cloud KMS that the settings name, small ones and large ones."""
    name = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
    storage = storage_of(settings, gcp_kms_key_name=name)
    for size in (1, 9 << 20):
        storage.publish(make_package(version=str(size)), io.BytesIO(bytes(size)))
    uploads = [url for method, url, _ in asked if method == "POST" and "/upload/" in url]
    assert len(uploads) == 2
    assert all(f"kmsKeyName={quote(name, safe='')}" in url for url in uploads)


# Links


def fetch(url: str, method: str = "GET") -> tuple[int, bytes]:
    """What a client gets at a place."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, b""


@pytest.mark.parametrize(
    ("filename", "path"),
    [
        ("foo-1.0+local.1.tar.gz", "foo-1.0%2Blocal.1.tar.gz"),
        ("foo 1 (2) #3%.zip", "foo%201%20%282%29%20%233%25.zip"),
        ("föö~1.zip", "f%C3%B6%C3%B6~1.zip"),
    ],
)
@pytest.mark.parametrize("is_public", [False, True], ids=["signed", "public"])
def test_urls(settings: Settings, filename: str, path: str, is_public: bool) -> None:
    """A URL leads to the file whatever its name is, signed or to a bucket that everybody may read (compat.md 2.4)."""
    changes = {"public_url": "true", "object_acl": "publicRead"} if is_public else {}
    storage = storage_of(settings, **changes)
    package = make_package("foo", "1.0", filename)
    storage.publish(package, io.BytesIO(CONTENT))
    url = storage.redirect_url(package)
    key = package.data["path"].removesuffix(filename)
    assert urlsplit(url).path == f"/{settings['storage.bucket']}/{key}{path}"
    assert bool(urlsplit(url).query) is not is_public
    assert fetch(url) == (200, CONTENT)


def test_urls_of_pages(settings: Settings) -> None:
    """Where pages link to the store itself, links have the hash of the file (compat.md 2.4)."""
    package = make_package()
    assert storage_of(settings, get("/")).get_url(package) == package.get_url(get("/"))
    storage = storage_of(settings, redirect_urls="false")
    storage.publish(package, io.BytesIO(CONTENT))
    url, _, fragment = storage.get_url(package).partition("#")
    assert fragment == f"sha256={package.data['hash_sha256']}"
    assert fetch(url) == (200, CONTENT)


def test_urls_that_are_refused(settings: Settings) -> None:
    """A signed URL is good for its own file and its own time, and for reading alone."""
    storage = storage_of(settings, expire_after="60")
    one, other = make_package("one"), make_package("other")
    for package in (one, other):
        storage.publish(package, io.BytesIO(CONTENT))
    url = storage.redirect_url(one)
    assert fetch(url.replace("one", "other"))[0] == 403
    assert fetch(url.replace("X-Goog-Expires=60&", "X-Goog-Expires=1000&"))[0] == 403
    assert fetch(url[:-1] + ("0" if url[-1] != "0" else "1"))[0] == 403
    assert fetch(url, "PUT")[0] == 403
    assert fetch(url.partition("?")[0])[0] == 403
    assert fetch(url)[0] == 200
    url = storage_of(settings, expire_after="1").redirect_url(one)
    time.sleep(1.1)
    assert fetch(url)[0] == 400


# Downloads


def test_compressed(settings: Settings) -> None:
    """A file that says of itself that it is compressed arrives as it lies there."""
    with looking(settings) as found:
        found.create()
        blob = found.blob("foo-1.0.zip")
        blob.content_encoding = "gzip"
        blob.upload_from_string(CONTENT)
    storage = storage_of(settings)
    (package,) = storage.list()
    with storage.open(package) as stream:
        assert stream.read() == CONTENT


def test_behind_the_end(settings: Settings) -> None:
    """There are no bytes behind the end of a file."""
    storage = storage_of(settings)
    for content in (b"", b"x"):
        package = make_package(version=str(len(content)), content=content)
        storage.publish(package, io.BytesIO(content))
        with storage.open_range(package, len(content), 9) as stream:
            assert stream.read() == b""
