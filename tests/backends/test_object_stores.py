"""What the storages in object stores do alike: starts, links, downloads, several writers at once, and bad networks.

What S3 does otherwise, as it has parts and retries of its own, is in the tests of the storage there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

import pytest

from pypicloud.errors import BackendUnavailable, FileExists, SettingError
from pypicloud.models import Package
from pypicloud.storage.azure_blob import AzureBlobStorage, wire
from pypicloud.storage.base import IStorage
from pypicloud.storage.buckets import BucketStorage
from pypicloud.storage.gcs import bucket
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.dynamo import one_loader
from support.services.proxy import Proxy
from support.storages import KINDS, StorageWorld, shared_world

#: The storages that have most in common.
CLOUDS: Final = ("gcs", "azurite")

#: A place where nobody answers.
NOWHERE: Final = "http://127.0.0.1:9"
BLOBS: Final = f"{NOWHERE}/account"

#: More than goes in one request.
BIG: Final = bytes(range(256)) * (36 << 10)


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients of S3 are made quickly."""
    with one_loader():
        yield


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again at once, but not for long; what the developer has of Azure's is no business of tests."""
    monkeypatch.setattr(wire, "PAUSE", 0)
    monkeypatch.setattr(bucket, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(bucket, "PATIENCE", 0)
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def world(name: str, request: pytest.FixtureRequest) -> StorageWorld:
    """A new bucket on the service that the test is parametrized with."""
    return shared_world(name, request)


@pytest.fixture
def storage(world: StorageWorld) -> BucketStorage:
    """The storage."""
    return configured(world)


@pytest.fixture
def proxy(world: StorageWorld) -> Iterator[Proxy]:
    """A network in front of the service."""
    with Proxy(world.service.port) as proxy:
        yield proxy


@pytest.fixture
def remote(world: StorageWorld, proxy: Proxy) -> BucketStorage:
    """The storage behind that network."""
    return configured(world.through(proxy), read_timeout="1", connect_timeout="1")


def configured(world: StorageWorld, **changes: str) -> BucketStorage:
    """The storage, configured as the server does it."""
    storage = world.storage(**changes)
    assert isinstance(storage, BucketStorage)
    return storage


def content_of(storage: IStorage, package: Package) -> bytes:
    """The bytes of a package."""
    with storage.open(package) as stream:
        return stream.read()


# The start


@pytest.mark.parametrize(
    ("name", "key", "value", "said", "word"),
    [
        ("radosgw", "endpoint_url", NOWHERE, f"endpoint_url = '{NOWHERE}' (settings): ", "S3 does not answer"),
        ("gcs", "gcp_api_endpoint", NOWHERE, f"gcp_api_endpoint = '{NOWHERE}' (settings): ", f"answer at {NOWHERE} "),
        ("azurite", "storage_account_url", BLOBS, f"storage_account_url = '{BLOBS}' (settings): ", f"at {BLOBS} "),
        ("azurite", "storage_account_name", "other", "storage_account_key (settings): ", "no key of 'other'"),
        ("azurite", "storage_account_key", "AAAA", "storage_account_key (settings): ", "no key of 'account'"),
    ],
    ids=["S3, nobody there", "GCS, nobody there", "Azure, nobody there", "Azure, account", "Azure, key"],
)
def test_a_start_that_fails(
    world: StorageWorld, caplog: pytest.LogCaptureFixture, key: str, value: str, said: str, word: str
) -> None:
    """What stops the start is said once, by the error: with the setting and its value, unless that is a secret."""
    with pytest.raises(SettingError) as raised:
        world.storage(**{key: value, "read_timeout": "1"})
    assert str(raised.value).startswith(f"storage.{said}")
    assert word in raised.value.reason
    assert "AAAA" not in str(raised.value)
    assert logged(caplog) == []


@pytest.mark.parametrize("name", CLOUDS)
def test_a_busy_start(world: StorageWorld, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """A service that is too busy stops the start, and that is said once, too; later it is said in the log."""
    remote = configured(world.through(proxy), read_timeout="1")
    proxy.refuse(10**6, world.kind.busy)
    with pytest.raises(SettingError, match="is too busy: "):
        world.through(proxy).storage(read_timeout="1")
    assert logged(caplog) == []
    assert remote.check_health() == (False, "the storage is too busy to answer; please try again")
    (message,) = logged(caplog)
    assert message.startswith("storage.")
    assert " is too busy: " in message


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we have said in the log that somebody has to do something about."""
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [record.message for record in said if record.name.startswith("pypicloud.")]


@pytest.mark.parametrize("name", CLOUDS)
def test_after_a_fork(storage: BucketStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was forked makes connections of its own."""

    def client() -> Any:
        return storage.container.client if isinstance(storage, AzureBlobStorage) else getattr(storage, "bucket", None)

    before = client()
    assert client() is before
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert client() is not before
    assert storage.check_health() == (True, "")


# Links and downloads


@pytest.mark.parametrize(("name", "seconds"), [("gcs", 604800), ("azurite", 999999)])
def test_long_life(world: StorageWorld, caplog: pytest.LogCaptureFixture, seconds: int) -> None:
    """URLs live as long as the settings say, or as the service allows, which the log says at the start."""
    with caplog.at_level(logging.WARNING):
        storage = configured(world, expire_after="999999")
    is_cut = seconds < 999999
    assert ("storage.expire_after = 999999 is more than the service allows" in caplog.text) is is_cut
    package = make_package()
    storage.publish(package, io.BytesIO(CONTENT))
    url = storage.redirect_url(package) or ""
    assert abs(life_of(url) - timedelta(seconds=seconds)) < timedelta(minutes=1)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == CONTENT


def life_of(url: str) -> timedelta:
    """How long a URL that was signed just now is good."""
    words = parse_qs(url.partition("?")[2])
    if "se" in words:
        return datetime.fromisoformat(words["se"][0]) - datetime.now(UTC)
    return timedelta(seconds=int(words["X-Goog-Expires"][0]))


@pytest.mark.parametrize("length", [0, 1, 200_000, 4 << 20, (4 << 20) + 1, 9 << 20])
@pytest.mark.parametrize("name", KINDS)
def test_streaming(world: StorageWorld, length: int) -> None:
    """Through the server a file of any size arrives whole, in parts, and not again."""
    content = (b"%07d" % length * (length // 7 + 1))[:length]
    package = make_package(content=content)
    world.storage().publish(package, io.BytesIO(content))

    def answer(**headers: str) -> tuple[str, bytes, str]:
        request = get(**headers)
        code, found, chunks = request.call_application(world.storage(request).stream_response(package))
        with contextlib.closing(chunks):
            return code[:3], b"".join(chunks), dict(found)["ETag"]

    etag = f'"{package.data["hash_sha256"]}"'
    assert answer() == ("200", content, etag)
    assert answer(method="HEAD") == ("200", b"", etag)
    assert answer(If_None_Match=etag) == ("304", b"", etag)
    if length > 1:
        assert answer(Range="bytes=1-") == ("206", content[1:], etag)
        assert answer(Range="bytes=-3") == ("206", content[-3:], etag)


# At the same moment


@pytest.mark.parametrize("name", CLOUDS)
def test_metadata_against_a_new_file(
    world: StorageWorld, storage: BucketStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts and companions that are changed while the file is replaced or deleted do not get to another file."""
    package = make_package(summary="first")
    storage.publish(package, io.BytesIO(CONTENT))
    demand = storage._demand

    def replaced_meanwhile(wanted: Package) -> Any:
        found = demand(wanted)
        storage.publish(make_package(content=b"new", summary="second"), io.BytesIO(b"new"), replace=True)
        return found

    def deleted_meanwhile(wanted: Package) -> Any:
        found = demand(wanted)
        storage.delete(wanted)
        return found

    package.data["yanked"] = True
    changes: list[Callable[[Package], None]] = [
        storage.update_metadata,
        lambda package: storage.upload_companion(package, "metadata", b"old"),
    ]
    for change in changes:
        monkeypatch.setattr(storage, "_demand", demand)
        storage.publish(package, io.BytesIO(CONTENT), replace=True)
        monkeypatch.setattr(storage, "_demand", replaced_meanwhile)
        with pytest.raises(BackendUnavailable, match="at the same moment") as raised:
            change(package)
        assert raised.value.retry_after == 1
        (listed,) = storage.list()
        assert (listed.summary, listed.data["size"]) == ("second", 3)
        assert not {"yanked", "core_metadata"} & set(listed.data)
    monkeypatch.setattr(storage, "_demand", deleted_meanwhile)
    with pytest.raises(BackendUnavailable, match="at the same moment"):
        storage.update_metadata(listed)
    assert world.objects() == {}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_new_file_against_metadata(storage: BucketStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose facts are changed while it is replaced is replaced all the same."""
    package = make_package(summary="first")
    storage.publish(package, io.BytesIO(CONTENT))
    write = storage._write
    others = [True]

    def changed_meanwhile(*arguments: Any) -> None:
        if others:
            others.clear()
            package.data["yanked"] = True
            storage.update_metadata(package)
        write(*arguments)

    monkeypatch.setattr(storage, "_write", changed_meanwhile)
    storage.publish(make_package(content=b"new", summary="second"), io.BytesIO(b"new"), replace=True)
    (listed,) = storage.list()
    assert (listed.summary, listed.data["size"], "yanked" in listed.data) == ("second", 3, False)


@pytest.mark.parametrize("replace", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize(("size", "count"), [(1000, 16), ((8 << 20) + 1, 8)], ids=["one request", "several"])
@pytest.mark.parametrize("name", CLOUDS)
def test_uploads_at_once(storage: BucketStorage, size: int, count: int, replace: bool) -> None:
    """Of many uploads of one name one wins, or the last, and the bytes are all its own, though all send pieces."""
    contents = [bytes([number]) * size for number in range(count)]

    def upload(content: bytes) -> bool:
        try:
            storage.publish(make_package(content=content), io.BytesIO(content), replace=replace)
        except FileExists:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        won = list(pool.map(upload, contents))
    (listed,) = storage.list()
    content = content_of(storage, listed)
    assert sum(won) == (count if replace else 1)
    assert won[contents.index(content)]
    assert listed.data["hash_sha256"] == hashlib.sha256(content).hexdigest()


# The network


@pytest.mark.parametrize("content", [b"small", BIG], ids=["one request", "several"])
@pytest.mark.parametrize(("count", "direction"), [(0, "answers"), (3000, "requests"), (6 << 20, "requests")])
@pytest.mark.parametrize("name", CLOUDS)
def test_cut_upload(remote: BucketStorage, proxy: Proxy, content: bytes, count: int, direction: Any) -> None:
    """An upload whose connection breaks, or whose answer is lost, is done all the same, and not refused as its own."""
    package = make_package(content=content)
    proxy.cut_after(count, direction)
    remote.publish(package, io.BytesIO(content), {"metadata": b"x"})
    assert content_of(remote, package) == content
    assert [each.data["core_metadata"] for each in remote.list()] == [package.data["core_metadata"]]


@pytest.mark.parametrize("content", [b"small", BIG], ids=["one request", "several"])
@pytest.mark.parametrize("name", CLOUDS)
def test_lost_answers(remote: BucketStorage, proxy: Proxy, content: bytes) -> None:
    """Whichever answer to an upload is lost, the upload is done."""
    for number in range(6):
        package = make_package(version=str(number), content=content)
        proxy.cut_after(number * 700, "answers")
        remote.publish(package, io.BytesIO(content))
        assert content_of(remote, package) == content


@pytest.mark.parametrize("name", CLOUDS)
def test_cut_change(remote: BucketStorage, proxy: Proxy) -> None:
    """A change of facts, or a deletion, whose answer is lost is done, and not taken for somebody else's."""
    package = make_package(content=b"x")
    remote.publish(package, io.BytesIO(b"x"))
    head = remote._head(package.data["path"])
    assert head is not None
    proxy.cut_after(0, "answers")
    remote._write_metadata(head, {**head.metadata, "uploader": "me"})
    assert [each.data["uploader"] for each in remote.list()] == ["me"]
    proxy.cut_after(0, "answers")
    remote._remove(head.key)
    assert list(remote.list()) == []


@pytest.mark.parametrize("name", CLOUDS)
def test_cut_download(remote: BucketStorage, proxy: Proxy) -> None:
    """A download whose connection breaks goes on."""
    package = make_package(content=BIG)
    remote.publish(package, io.BytesIO(BIG))
    for count in (0, 1 << 20, 5 << 20):
        proxy.cut_after(count, "answers")
        assert content_of(remote, package) == BIG
    with remote.open_range(package, 3, 3 << 20) as stream:
        proxy.cut_after(1 << 20, "answers")
        assert stream.read() == BIG[3 : 3 << 20]


@pytest.mark.parametrize("name", CLOUDS)
def test_cut_listing(world: StorageWorld, remote: BucketStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing whose connection breaks has all files, each once."""
    # Azurite leaves it to the client how long a page is.
    monkeypatch.setattr(AzureBlobStorage if world.name == "azurite" else world.service, "page_size", 2)
    packages = [make_package(f"p{number}") for number in range(7)]
    for package in packages:
        remote.publish(package, io.BytesIO(b"x"))
    listing = iter(remote.list())
    found = [next(listing)]
    proxy.cut_after(0, "answers")
    assert sorted([*found, *listing]) == packages


@pytest.mark.parametrize("name", CLOUDS)
def test_replaced_download(remote: BucketStorage, storage: BucketStorage, proxy: Proxy) -> None:
    """A download does not go on with another file's bytes."""
    package = make_package(content=BIG)
    remote.publish(package, io.BytesIO(BIG))
    with remote.open(package) as stream:
        stream.read(1)
        storage.publish(make_package(content=BIG[1:]), io.BytesIO(BIG[1:]), replace=True)
        proxy.cut()
        with pytest.raises(BackendUnavailable, match="was replaced while it was read"):
            stream.read()


@pytest.mark.parametrize("name", CLOUDS)
def test_deleted_download(remote: BucketStorage, proxy: Proxy) -> None:
    """A download that cannot go on, as its file is gone, says so, and not that there never was one."""
    package = make_package(content=BIG)
    remote.publish(package, io.BytesIO(BIG))
    with remote.open(package) as stream:
        stream.read(1)
        remote.delete(package)
        proxy.cut()
        with pytest.raises(BackendUnavailable, match="was replaced while it was read, or deleted"):
            stream.read()


@pytest.mark.parametrize("name", CLOUDS)
def test_silence(remote: BucketStorage, proxy: Proxy) -> None:
    """A service that says nothing is given up in time, and nothing half is left."""
    package = make_package(content=BIG)
    remote.publish(make_package("old"), io.BytesIO(b"x"))
    proxy.hang()
    works: list[Callable[[], Any]] = [
        lambda: remote.stored(package),
        lambda: remote.publish(package, io.BytesIO(BIG)),
    ]
    for fails in works:
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match="does not answer"):
            fails()
        # The time-out is one second here, twice for the file and twice to see what is left of it.
        assert time.monotonic() - began < 8
    healthy, reason = remote.check_health()
    assert not healthy
    assert reason.startswith("the storage does not answer")
    proxy.resume()
    assert [each.name for each in remote.list()] == ["old"]
    remote.publish(package, io.BytesIO(BIG), replace=True)
    assert content_of(remote, package) == BIG
