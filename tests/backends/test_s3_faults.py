"""The storage in S3 when the store is busy, silent, cut off, or says things that nobody expects."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import botocore.endpoint
import pytest
import urllib3
from botocore.exceptions import ConnectionClosedError

from pypicloud.errors import BackendUnavailable, FileExists
from pypicloud.storage import S3Storage, download
from pypicloud.storage.s3.errors import S3Unavailable
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.dynamo import one_loader
from support.live import LOOPBACK
from support.s3 import by_boto3, everything, intercepted, put, refused, s3
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from support.services.radosgw import RadosGW

LARGE = os.urandom(1 << 20) * 8


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture
def settings(radosgw: RadosGW) -> dict[str, str]:
    """The settings of a storage without a bucket."""
    return radosgw.settings()


@pytest.fixture
def proxy(radosgw: RadosGW) -> Iterator[Proxy]:
    """A way to the store that can be disturbed."""
    with Proxy(radosgw.port) as proxy:
        yield proxy


@pytest.fixture
def storage(settings: dict[str, str], proxy: Proxy) -> S3Storage:
    """The storage, which is impatient and goes that way."""
    return s3({**settings, "storage.endpoint_url": proxy.through(settings["storage.endpoint_url"])}, read_timeout="1")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boto does not wait before it tries again."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))


def publish(storage: S3Storage, content: bytes = CONTENT, **options: Any) -> None:
    """Store a file with a companion."""
    storage.publish(make_package(content=content), io.BytesIO(content), {"metadata": b"m"}, **options)


def test_busy(storage: S3Storage, settings: dict[str, str], proxy: Proxy, quick_retries: None) -> None:
    """A store that is busy for a moment is asked again, whatever is done."""
    for work in (
        lambda: publish(storage),
        lambda: storage.update_metadata(make_package()),
        lambda: list(storage.list()),
        lambda: storage.stored(make_package()),
        lambda: storage.delete(make_package()),
    ):
        proxy.refuse(2)
        work()
    assert everything(settings) == {}


def test_too_busy(storage: S3Storage, settings: dict[str, str], proxy: Proxy, quick_retries: None) -> None:
    """A store that stays busy is unavailable, with a time to come back, and nothing is left of an upload."""
    proxy.refuse(1000, beginning="PUT")
    with pytest.raises(BackendUnavailable, match="too busy") as caught:
        publish(storage)
    assert caught.value.retry_after is not None
    proxy.refuse(1000)
    with pytest.raises(BackendUnavailable, match="too busy"):
        list(storage.list())
    assert storage.check_health()[0] is False
    assert everything(settings) == {}


@pytest.mark.parametrize(
    "work",
    [
        lambda storage: list(storage.list()),
        lambda storage: storage.stored(make_package()),
        publish,
        lambda storage: storage.delete(make_package()),
        lambda storage: storage.open(make_package()).__enter__(),
    ],
    ids=["list", "stored", "publish", "delete", "open"],
)
def test_silent(storage: S3Storage, proxy: Proxy, work: Callable[[S3Storage], Any]) -> None:
    """A store that says nothing is unavailable soon, and is not asked again and again."""
    list(storage.list())
    proxy.hang()
    start = time.monotonic()
    with pytest.raises(BackendUnavailable):
        work(storage)
    assert time.monotonic() - start < 9
    proxy.resume()


def test_cut_uploads(storage: S3Storage, settings: dict[str, str], proxy: Proxy) -> None:
    """An upload whose connection is cut once is made again; one that is always cut leaves nothing."""
    proxy.cut_after(5 << 20, "requests")
    publish(storage, LARGE)
    assert LARGE in everything(settings).values()
    storage.delete(make_package())

    def cut(name: str, request: Any) -> None:
        if name == "PutObject" and b"metadata" not in request.url.encode():
            proxy.cut_after(2 << 20, "requests")

    with intercepted(storage, cut), pytest.raises(BackendUnavailable):
        publish(storage, LARGE)
    assert everything(settings) == {}


def streamed(storage: S3Storage) -> bytes:
    """What a client gets of a file that this server sends."""
    with contextlib.closing(storage.stream_response(make_package(content=LARGE)).app_iter) as body:
        return b"".join(body)


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def fetched(storage: S3Storage) -> bytes:
    """A file as it comes out of the storage."""
    with storage.open(make_package()) as stream:
        return stream.read()


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no pause before the rest of a download is asked for."""
    monkeypatch.setattr(download, "PAUSE", 0)


def test_cut_downloads(storage: S3Storage, proxy: Proxy) -> None:
    """A download whose connection is cut goes on where it was: whole, in pieces, of a range, and on its way out."""
    publish(storage, LARGE)
    for count in (0, 1 << 20, 5 << 20):
        proxy.cut_after(count, "answers")
        assert fetched(storage) == LARGE
    copy = io.BytesIO()
    with storage.open(make_package()) as stream:
        proxy.cut_after(3 << 20, "answers")
        shutil.copyfileobj(stream, copy, 1 << 16)
    assert copy.getvalue() == LARGE
    with storage.open_range(make_package(), 3, 5 << 20) as stream:
        proxy.cut_after(3 << 20, "answers")
        assert stream.read() == LARGE[3 : 5 << 20]
    storage.request = get("/")
    proxy.cut_after(3 << 20, "answers")
    assert streamed(storage) == LARGE


def test_the_rest_of_a_download(storage: S3Storage, proxy: Proxy) -> None:
    """After a cut only those bytes are asked for that are missing, and only of the same object."""
    publish(storage, LARGE)
    asked: list[tuple[str | None, str | None]] = []

    def look(_: str, request: Any) -> None:
        wanted, condition = (request.headers.get(name) for name in ("Range", "If-Match"))
        asked.append((wanted and wanted.decode(), condition and condition.decode()))

    with intercepted(storage, look), storage.open(make_package()) as stream:
        got = stream.read(1 << 20)
        proxy.cut()
        while block := stream.read(1 << 18):
            got += block
    assert got == LARGE
    etag = storage.client.head_object(Bucket=storage.bucket.name, Key=storage.get_path(make_package()))["ETag"]
    whole, rest = asked
    assert whole == (None, None)
    assert rest[1] == etag
    assert rest[0] is not None
    assert int(rest[0].removeprefix("bytes=").removesuffix("-")) >= 1 << 20


def test_a_download_that_is_cut_again_and_again(storage: S3Storage, proxy: Proxy, quick_pauses: None) -> None:
    """As long as there is something new between, a download goes on after any number of cuts."""
    publish(storage, LARGE)
    got = b""
    with storage.open(make_package()) as stream:
        while block := stream.read(1 << 20):
            got += block
            proxy.cut()
    assert got == LARGE


def test_a_download_that_is_cut_for_good(storage: S3Storage, proxy: Proxy, quick_pauses: None) -> None:
    """A download that is cut a few times with nothing new between fails, and never ends as if it were whole."""
    publish(storage, LARGE)
    asked: list[str] = []

    def cut(name: str, _: Any) -> None:
        asked.append(name)
        proxy.cut_after(1 << 16, "answers")

    storage.request = get("/")
    for read in (fetched, streamed):
        asked.clear()
        with intercepted(storage, cut), pytest.raises(BackendUnavailable, match="does not answer"):
            read(storage)
        assert len(asked) == 1 + download.BREAKS
        proxy.cut_after(1 << 40, "answers")
        assert read(storage) == LARGE


@pytest.mark.parametrize("is_back", [True, False])
def test_a_store_that_is_started_anew(
    storage: S3Storage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, quick_retries: None, is_back: bool
) -> None:
    """A download goes on when a store that breaks it off, and refuses connections, is back within a moment."""
    publish(storage, LARGE)
    store, pauses = proxy.target, []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if is_back and len(pauses) == 3:
            proxy.target = store

    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=sleep))
    with storage.open(make_package()) as stream:
        got = stream.read(1 << 20)
        proxy.target = closed_port()
        proxy.cut()
        if is_back:
            assert got + stream.read() == LARGE
        else:
            with pytest.raises(BackendUnavailable, match="does not answer"):
                stream.read()
    assert pauses == [download.PAUSE, download.PAUSE * 2, download.PAUSE * 4]


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_file_that_changes_during_a_download(
    storage: S3Storage, settings: dict[str, str], proxy: Proxy, change: str
) -> None:
    """A download that is cut does not go on with another file's bytes."""
    publish(storage, LARGE)
    with storage.open(make_package()) as stream:
        stream.read(1)
        if change == "replaced":
            put(settings, storage.get_path(make_package()), LARGE[1:])
        else:
            storage.delete(make_package())
        proxy.cut()
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="was replaced while it was read, or deleted"):
                stream.read()


@contextlib.contextmanager
def forgotten(storage: S3Storage, header: str) -> Iterator[None]:
    """In the block downloads are asked for without a header, as if the store took no notice of it."""

    def forget(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop(header, None)

    events = storage.client.meta.events
    events.register("before-call.s3.GetObject", forget)
    try:
        with by_boto3():
            yield
    finally:
        events.unregister("before-call.s3.GetObject", forget)


def test_a_store_without_conditions(storage: S3Storage, settings: dict[str, str], proxy: Proxy) -> None:
    """Where the store takes no notice of the condition, another file's bytes are known by their ETag."""
    publish(storage, LARGE)

    with forgotten(storage, "If-Match"), storage.open(make_package()) as stream:
        stream.read(1)
        put(settings, storage.get_path(make_package()), LARGE[1:])
        proxy.cut()
        with pytest.raises(BackendUnavailable, match="was replaced"):
            stream.read()


def test_a_store_without_ranges(storage: S3Storage, proxy: Proxy) -> None:
    """A store that sends all of a file in place of a range is not believed."""
    publish(storage, LARGE)

    with forgotten(storage, "Range"):
        with pytest.raises(BackendUnavailable, match="other bytes"), storage.open_range(make_package(), 5, 10):
            pass
        with storage.open(make_package()) as stream:
            stream.read(1)
            proxy.cut()
            with pytest.raises(BackendUnavailable, match="other bytes"):
                stream.read()


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_store_without_tags(storage: S3Storage, proxy: Proxy, etag: str | None) -> None:
    """Where nothing tells one file's bytes from another's, a download that is cut fails."""
    publish(storage, LARGE)

    def forget(parsed: dict[str, Any], **_: Any) -> None:
        parsed.pop("ETag")
        if etag is not None:
            parsed["ETag"] = etag

    storage.client.meta.events.register("after-call.s3.GetObject", forget)
    with by_boto3(), storage.open(make_package()) as stream:
        stream.read(1)
        proxy.cut()
        with pytest.raises(BackendUnavailable, match="does not answer"):
            stream.read()


def test_a_silent_download(storage: S3Storage, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """A store that falls silent in the middle of a file is not asked again, and that is said in the log, once."""
    publish(storage, LARGE)
    with storage.open(make_package()) as stream:
        stream.read(1)
        proxy.hang()
        start = time.monotonic()
        with pytest.raises(BackendUnavailable, match="does not answer"):
            stream.read()
        assert time.monotonic() - start < 5
        proxy.resume()
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert message.startswith("storage.endpoint_url: S3 does not answer")


def test_cut_listing(storage: S3Storage, settings: dict[str, str], proxy: Proxy, quick_retries: None) -> None:
    """A listing whose connections are cut again and again is whole."""
    names = {f"foo-{number}.0.tar.gz" for number in range(150)}
    for name in names:
        put(settings, f"foo/{name}")
    for count in (1, 5000, 20000, 60000):
        proxy.cut_after(count, "answers")
        assert {package.filename for package in storage.list()} == names


def test_a_listing_that_is_not_finished(storage: S3Storage, settings: dict[str, str]) -> None:
    """Who stops in the middle of a listing leaves nothing running."""
    for number in range(20):
        put(settings, f"foo/foo-{number}.0.tar.gz")
    listing = iter(storage.list())
    assert next(listing).name == "foo"
    listing.close()  # type: ignore[attr-defined]


# What the store says


def test_a_lost_answer(storage: S3Storage, settings: dict[str, str]) -> None:
    """An upload whose answer was lost is made again, finds itself, and is no conflict."""
    lost: list[str] = []

    def lose(name: str, request: Any) -> None:
        if name == "PutObject" and "metadata" not in request.url and not lost:
            lost.append(request.url)
            request.body.seek(0)
            headers = {
                key: value.decode() if isinstance(value, bytes) else value for key, value in request.headers.items()
            }
            sent = urllib3.request("PUT", request.url, headers=headers, body=request.body.read())
            assert sent.status == 200
            raise ConnectionClosedError(endpoint_url=request.url)

    with intercepted(storage, lose):
        publish(storage)
    assert len(lost) == 1
    assert len(everything(settings)) == 2
    with pytest.raises(FileExists):
        publish(storage, b"other")


def test_a_conflict(storage: S3Storage, settings: dict[str, str]) -> None:
    """A store that says that somebody else is at the same object is asked again."""
    said: list[str] = []

    def conflict(name: str, request: Any) -> Any:
        if name not in {"PutObject", "CopyObject"} or "metadata" in request.url or said.count(name) == 2:
            return None
        said.append(name)
        return refused(409, "ConditionalRequestConflict")

    with intercepted(storage, conflict):
        publish(storage)
        storage.update_metadata(make_package())
    assert said == ["PutObject", "PutObject", "CopyObject", "CopyObject"]


@pytest.mark.parametrize(
    ("status", "code", "setting", "sentence"),
    [
        (501, "NotImplemented", "conditional_writes", "set this to false"),
        (400, "AccessControlListNotSupported", "object_acl", "has no ACLs"),
        (400, "InvalidStorageClass", "storage_class", "no such storage class"),
        (400, "InvalidEncryptionAlgorithmError", "server_side_encryption", "no such encryption"),
        (400, "KMS.NotFoundException", "sse_kms_key_id", "cannot be used"),
        (403, "RequestTimeTooSkewed", "aws_access_key_id", "clock"),
        (400, "ExpiredToken", "aws_access_key_id", "does not accept the credentials"),
        (403, "AccessDenied", "aws_access_key_id", "may not do s3:PutObject"),
        (404, "NoSuchBucket", "bucket", "no such bucket"),
        (400, "AuthorizationHeaderMalformed", "region_name", "another region"),
        (507, "Whatever", "bucket", "S3 refuses PutObject: Whatever"),
    ],
)
def test_refusals(storage: S3Storage, status: int, code: str, setting: str, sentence: str, quick_retries: None) -> None:
    """What the store does not like is named with the setting to look at, and clients hear nothing of it."""
    answer = lambda name, _: refused(status, code, "the store's own words") if name == "PutObject" else None  # noqa: E731
    with intercepted(storage, answer), pytest.raises(S3Unavailable) as caught:
        publish(storage)
    assert caught.value.setting == f"storage.{setting}"
    assert sentence in caught.value.reason
    assert "own words" not in caught.value.message


# Memory


def test_memory(settings: dict[str, str], tmp_path: Path) -> None:
    """Files of any size go in, in one piece and in parts, and come out through little memory."""
    size = 128 << 20
    spool = tmp_path / "spool"
    with spool.open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        for threshold in ("5G", "8M"):
            storage = s3(settings, multipart_threshold=threshold)
            with spool.open("rb") as stream:
                storage.publish(make_package(), stream, replace=True)
        total = 0
        with storage.open(make_package()) as stream:
            while block := stream.read(1 << 16):
                total += len(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 48 << 20
