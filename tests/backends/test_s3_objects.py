"""What the storage in S3 puts into a bucket, and what it makes of what others put there."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from pypicloud.errors import BackendUnavailable, FileExists
from pypicloud.models import Package
from pypicloud.storage import S3Storage
from pypicloud.storage.s3.writing import Sizes
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.dynamo import one_loader
from support.s3 import everything, head, intercepted, looking, put, refused, s3
from support.services.aws import MiniStack, Moto
from support.services.s3 import S3Service

MOMENT = datetime(2019, 7, 8, 9, 10, 11, 120000, UTC)

#: Small parts, of which there are three in what is sent.
LARGE = bytes(range(256)) * (11 << 12)


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture(params=["radosgw", "ministack", "moto"])
def service(request: pytest.FixtureRequest) -> S3Service:
    """Each server of S3 that there is."""
    service: S3Service = request.getfixturevalue(request.param)
    return service


@pytest.fixture
def settings(service: S3Service) -> dict[str, str]:
    """The settings of a storage without a bucket."""
    return service.settings()


@pytest.fixture
def storage(settings: dict[str, str]) -> S3Storage:
    """The storage."""
    return s3(settings)


def publish(storage: S3Storage, package: Package, content: bytes = CONTENT, **options: Any) -> None:
    """Store a file."""
    storage.publish(package, io.BytesIO(content), **options)


def content(storage: S3Storage, package: Package) -> bytes:
    """The bytes of a file."""
    with storage.open(package) as stream:
        return stream.read()


# Keys and metadata


@pytest.mark.parametrize(
    ("filename", "digits"),
    [("Foo_Bar-1.0.tar.gz", "fc81"), ("zed-1.0.tar.gz", "3ddf"), ("foo-1.0-py3-none-any.whl", "c424")],
)
def test_keys(settings: dict[str, str], filename: str, digits: str) -> None:
    """Keys are those of 1.3.12, with and without digits and prefix (compat.md 2.2)."""
    package = make_package("Foo_Bar", "1.0", filename)
    for prefix, prepend in (("", "true"), ("packages", "yes"), ("a/", "false")):
        publish(s3(settings, prefix=prefix, prepend_hash=prepend), make_package("Foo_Bar", "1.0", filename))
    assert package.name == "foo-bar"
    assert everything(settings).keys() == {
        f"{digits}/foo-bar/{filename}",
        f"packages{digits}/foo-bar/{filename}",
        f"a/foo-bar/{filename}",
    }


def test_metadata(storage: S3Storage, settings: dict[str, str]) -> None:
    """Metadata is that of 1.3.12, byte for byte, and what it knew nothing of is one more field (compat.md 2.3)."""
    package = make_package("Foo_Bar", summary="A  “good”\nthing: ünï", requires_python=">=3.8", uploader="josé")
    package.last_modified = MOMENT
    publish(storage, package, companions={"metadata": b"Name: foo\n"})
    digest = hashlib.sha256(b"Name: foo\n").hexdigest()
    found = head(settings, package.data["path"])
    facts = json.loads(found["Metadata"].pop("facts"))
    assert found["Metadata"] == {
        "name": "foo-bar",
        "version": "1.0",
        "requires-python": ">=3.8",
        "summary": "A good thing: uni",
        "hash-sha256": hashlib.sha256(CONTENT).hexdigest(),
        "hash-md5": hashlib.md5(CONTENT).hexdigest(),
        "uploader": "jose",
    }
    assert facts == {
        "core_metadata": digest,
        "upload_time": "2019-07-08T09:10:11.120000Z",
        "summary": "A  “good”\nthing: ünï",
        "uploader": "josé",
    }
    assert found["ContentType"] in {"binary/octet-stream", "application/octet-stream"}
    assert not {"CacheControl", "ContentDisposition", "ContentEncoding"} & found.keys()
    assert everything(settings).keys() == {
        package.data["path"],
        f"{package.data['path']}.{digest[:32]}.metadata",
    }


def test_long_summary(storage: S3Storage, settings: dict[str, str]) -> None:
    """A summary that does not fit into the metadata of an object is cut there, and the package says so."""
    package = make_package(summary="ünï and so on " * 400)
    publish(storage, package)
    assert package.summary is not None
    assert package.summary.endswith("...")
    metadata = head(settings, package.data["path"])["Metadata"]
    assert sum(len(name) + len(value) for name, value in metadata.items()) <= 2048
    [listed] = storage.list()
    assert listed.summary == package.summary


def test_old_objects(storage: S3Storage, settings: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """Objects as 1.3.12 and older editions wrote them are listed; what is no package is counted and logged."""
    put(settings, "fc81/foo-bar/Foo_Bar-1.0.tar.gz", Metadata={"name": "foo-bar", "version": "1.0", "hash-md5": "ab"})
    put(settings, "foo/foo-2.0.tar.gz", Metadata={"name": "foo", "version": "2.0", "requires_python": ">=2"})
    put(settings, "deep/er/still/some_thing-1.0+local.1-py3-none-any.whl", b"four")
    put(settings, "zed-1.0.tar.gz", Metadata={"facts": "{broken"})
    put(settings, "folder/")
    put(settings, "what-is-this.whl")
    put(settings, "notes.txt")
    found = {package.filename: package for package in storage.list()}
    assert {(each.name, each.version, filename) for filename, each in found.items()} == {
        ("foo-bar", "1.0", "Foo_Bar-1.0.tar.gz"),
        ("foo", "2.0", "foo-2.0.tar.gz"),
        ("some-thing", "1.0+local.1", "some_thing-1.0+local.1-py3-none-any.whl"),
        ("zed", "1.0", "zed-1.0.tar.gz"),
    }
    wheel = found["some_thing-1.0+local.1-py3-none-any.whl"]
    assert wheel.data == {"path": "deep/er/still/some_thing-1.0+local.1-py3-none-any.whl", "size": 4}
    assert found["foo-2.0.tar.gz"].data["requires_python"] == ">=2"
    assert found["Foo_Bar-1.0.tar.gz"].data["hash_md5"] == "ab"
    assert abs((wheel.last_modified - datetime.now(UTC)).total_seconds()) < 60
    assert storage.unreadable_count == 2
    assert "what-is-this.whl" in caplog.text
    assert "notes.txt" in caplog.text
    assert content(storage, wheel) == b"four"


def test_other_layout(storage: S3Storage, settings: dict[str, str]) -> None:
    """A file that is stored under another prefix or without digits stays there, whatever is done to it."""
    package = make_package(summary="old")
    publish(storage, package)
    key = package.data["path"]
    moved = s3(settings, prefix="new/", prepend_hash="false")
    known = make_package(summary="new", path=key)
    assert content(moved, known) == CONTENT
    moved.update_metadata(known)
    publish(moved, make_package(content=b"other", path=key), b"other", replace=True)
    assert everything(settings) == {key: b"other"}
    moved.delete(make_package(path=key))
    assert everything(settings) == {}


@pytest.mark.parametrize("name", ["a b", "a+b", "a#b", "a%2Bb", "föö", "a&b=c", "a'b\"c", "a*(b)!"])
def test_odd_names(storage: S3Storage, settings: dict[str, str], name: str) -> None:
    """A name with characters that mean something in URLs is stored, listed, changed, read and deleted like others."""
    package = make_package("foo", "1.0", f"{name}-1.0.tar.gz")
    publish(storage, package, companions={"metadata": b"m"})
    [listed] = storage.list()
    listed.data["yanked"] = "no good"
    storage.update_metadata(listed)
    [listed] = storage.list()
    assert (listed.filename, listed.data["yanked"]) == (package.filename, "no good")
    assert content(storage, listed) == CONTENT
    storage.delete(listed)
    assert everything(settings) == {}


# Options of objects


def test_storage_options(ministack: S3Service) -> None:
    """Encryption, its key, storage class and ACL go with new objects, and stay when facts change."""
    settings = ministack.settings()
    storage = s3(
        settings,
        server_side_encryption="aws:kms",
        sse_kms_key_id="my-key",
        storage_class="STANDARD_IA",
        object_acl="public-read",
    )
    package = make_package()
    with looking(settings) as client:
        client.delete_public_access_block(Bucket=settings["storage.bucket"])
    publish(storage, package)
    for _ in range(2):
        found = head(settings, package.data["path"])
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "my-key")
        assert found["StorageClass"] == "STANDARD_IA"
        with looking(settings) as client:
            grants = client.get_object_acl(Bucket=settings["storage.bucket"], Key=package.data["path"])["Grants"]
        assert "READ" in {grant["Permission"] for grant in grants if grant["Grantee"]["Type"] == "Group"}
        storage.update_metadata(package)


def test_foreign_headers(storage: S3Storage, settings: dict[str, str]) -> None:
    """What another program said about an object is still said after its facts have changed."""
    put(settings, "foo/foo-1.0.tar.gz", ContentType="application/gzip", CacheControl="max-age=5")
    [package] = storage.list()
    package.data["yanked"] = True
    storage.update_metadata(package)
    found = head(settings, "foo/foo-1.0.tar.gz")
    assert (found["ContentType"], found["CacheControl"]) == ("application/gzip", "max-age=5")
    [package] = storage.list()
    assert package.data["yanked"] is True


# In parts


@pytest.fixture
def in_parts(storage: S3Storage, settings: dict[str, str]) -> S3Storage:
    """A storage that sends files in small parts."""
    return s3(settings, multipart_threshold="5M", multipart_chunksize="5M")


def test_parts(in_parts: S3Storage, settings: dict[str, str]) -> None:
    """A large file is sent in parts, with the metadata of a small one, and read whole and in ranges."""
    package = make_package(content=LARGE, summary="large")
    publish(in_parts, package, LARGE)
    found = head(settings, package.data["path"])
    assert found["ETag"].endswith('-3"')
    assert found["Metadata"]["summary"] == "large"
    assert content(in_parts, package) == LARGE
    with in_parts.open_range(package, (5 << 20) - 5, (5 << 20) + 5) as stream:
        assert stream.read() == LARGE[(5 << 20) - 5 : (5 << 20) + 5]
    package.data["yanked"] = "x"
    in_parts.update_metadata(package)
    assert [each.data["yanked"] for each in in_parts.list()] == ["x"]
    with pytest.raises(FileExists):
        publish(in_parts, make_package(content=b"x"), LARGE)
    publish(in_parts, make_package(content=LARGE[::-1]), LARGE[::-1], replace=True)
    assert content(in_parts, package) == LARGE[::-1]
    assert uploads(settings) == []


def uploads(settings: dict[str, str]) -> list[Any]:
    """The uploads in parts that have not ended."""
    with looking(settings) as client:
        found: list[Any] = client.list_multipart_uploads(Bucket=settings["storage.bucket"]).get("Uploads", [])
    return found


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_parts_that_fail(in_parts: S3Storage, settings: dict[str, str], operation: str) -> None:
    """An upload in parts of which one fails, or the end, leaves nothing behind."""

    def fail(name: str, request: Any) -> Any:
        return refused(400, "EntityTooSmall") if name == operation and "partNumber=1" not in request.url else None

    with intercepted(in_parts, fail), pytest.raises(BackendUnavailable):
        publish(in_parts, make_package(content=LARGE), LARGE, companions={"metadata": b"x"})
    assert uploads(settings) == []
    assert everything(settings) == {}


@pytest.mark.parametrize(
    ("size", "part"), [(0, 16 << 20), (100 << 20, 16 << 20), (5 << 40, 549755814), ((16 << 20) * 10000 + 1, 16777217)]
)
def test_part_sizes(size: int, part: int) -> None:
    """Parts grow with the file, so that there are never more than ten thousand."""
    assert Sizes().part_of(size) == part
    assert part * 10000 >= size


# At the same moment


@pytest.mark.parametrize("large", [False, True], ids=["whole", "parts"])
def test_writers(service: S3Service, settings: dict[str, str], large: bool) -> None:
    """Of sixteen writers of one name one wins, and the bytes are those of its hash."""
    # Moto reads the whole of an object between its look at the condition and its deed.
    size = (5 << 20) + 1 if large and not isinstance(service, Moto) else 30000
    # In parts only where the store looks at the condition at their end, and at nobody else meanwhile.
    threshold = "5M" if isinstance(service, MiniStack) else "5G"
    storage = s3(settings, multipart_threshold=threshold, multipart_chunksize="5M")
    gate = threading.Barrier(16)

    def write(number: int) -> bool:
        mine = bytes([number]) * size
        gate.wait()
        try:
            publish(storage, make_package(content=mine), mine, companions={"metadata": mine[:1]})
        except FileExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))
    [listed] = storage.list()
    stored = content(storage, listed)
    assert sum(won) == 1
    assert stored == bytes([won.index(True)]) * size
    assert listed.data["hash_sha256"] == hashlib.sha256(stored).hexdigest()
    assert len(everything(settings)) == 2


@pytest.mark.parametrize("conditional", ["true", "false"])
def test_replaced_meanwhile(settings: dict[str, str], conditional: str) -> None:
    """Facts are not written onto a file that was replaced since they were read, and nothing of it is lost."""
    storage = s3(settings, conditional_writes=conditional)
    package = make_package()
    publish(storage, package)
    found = storage._head(package.data["path"])
    assert found is not None
    publish(storage, make_package(content=b"other"), b"other", replace=True)
    with pytest.raises(FileExists):
        storage._write_metadata(found, {"name": "foo"})
    with pytest.raises(FileExists):
        storage._write(found.key, io.BytesIO(b"third"), 5, {}, found.state)
    assert everything(settings) == {found.key: b"other"}
    storage.delete(package)
    with pytest.raises(FileExists):
        storage._write_metadata(found, {})
    with pytest.raises(FileExists):
        storage._write(found.key, io.BytesIO(), 0, {}, found.state)
    assert everything(settings) == {}


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload", "CopyObject"])
def test_replaced_at_the_last_moment(ministack: MiniStack, operation: str) -> None:
    """The store itself refuses what would overwrite a file that came after the last look."""
    settings = ministack.settings()
    storage = s3(settings, multipart_threshold="5M", multipart_chunksize="5M")
    package = make_package()
    publish(storage, package)

    def replace(name: str, request: Any) -> None:
        if name == operation:
            put(settings, package.data["path"], b"other", Metadata={"name": "foo", "version": "1.0"})

    found = storage._head(package.data["path"])
    assert found is not None
    content = LARGE if operation == "CompleteMultipartUpload" else b"x"
    write = partial(storage._write, found.key, io.BytesIO(content), len(content), {}, found.state)
    with intercepted(storage, replace), pytest.raises(FileExists):
        storage._write_metadata(found, {"name": "foo"}) if operation == "CopyObject" else write()
    assert everything(settings) == {found.key: b"other"}
    assert uploads(settings) == []


def test_no_conditions(settings: dict[str, str]) -> None:
    """On a store without conditions it is looked first whether there is a file."""
    storage = s3(settings, conditional_writes="false")
    sent: list[str] = []

    def note(name: str, request: Any) -> None:
        sent.extend(header.lower() for header in request.headers if header.lower().startswith("if-"))

    with intercepted(storage, note):
        publish(storage, make_package())
        with pytest.raises(FileExists):
            publish(storage, make_package(content=b"x"), b"x")
        publish(storage, make_package(content=b"x"), b"x", replace=True)
    assert sent == []
    assert content(storage, make_package()) == b"x"
