"""The short way to S3 for the bytes of an object: what goes over it, and what it leaves to boto3."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

import boto3
import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ReadTimeoutError

from pypicloud.errors import FileExists
from pypicloud.pipe import Pipe, beginning
from pypicloud.storage import S3Storage
from pypicloud.storage.s3 import wire as wire_module
from pypicloud.storage.s3.plan import Plan, plan
from pypicloud.storage.s3.wire import Body, Outcome, Wire
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.certificates import make_certificate
from support.dynamo import one_loader
from support.live import LOOPBACK
from support.s3 import by_boto3, everything, s3
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from support.services.aws import MiniStack
    from support.services.radosgw import RadosGW

LARGE = os.urandom(1 << 20) * 3
OBJECT = {"Bucket": "bucket", "Key": "foo/foo-1.0.tar.gz"}
CREDENTIALS = Credentials("key", "secret", None)


def sha256(content: bytes) -> str:
    """The digest of some bytes."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture
def settings(radosgw: RadosGW) -> dict[str, str]:
    """The settings of a storage without a bucket."""
    return radosgw.settings()


@contextlib.contextmanager
def operations(storage: S3Storage) -> Iterator[list[str]]:
    """The operations that boto3 is asked for in the block."""
    asked: list[str] = []

    def note(event_name: str, **_: Any) -> None:
        asked.append(event_name.rpartition(".")[2])

    storage.client.meta.events.register("before-send.s3", note)
    try:
        yield asked
    finally:
        storage.client.meta.events.unregister("before-send.s3", note)


# With real servers


@pytest.mark.parametrize("content", [CONTENT, LARGE, b""], ids=["small", "large", "empty"])
def test_boto3_is_not_asked(settings: dict[str, str], tmp_path: Path, content: bytes) -> None:
    """A file goes in and comes out, whole and in part, from disk and from memory, without boto3."""
    storage = s3(settings)
    package = make_package(content=content)
    (tmp_path / "file").write_bytes(b"before" + content)
    with operations(storage) as asked:
        with (tmp_path / "file").open("rb") as stream:
            stream.seek(6)
            storage.publish(package, stream, {"metadata": b"m"})
        with storage.open(package) as opened:
            assert opened.read() == content
        if content:
            with storage.open_range(package, 1, 4) as opened:
                assert opened.read() == content[1:4]
    assert asked == []
    assert sorted(everything(settings).values()) == sorted([content, b"m"])


def test_the_same_object(ministack: MiniStack) -> None:
    """An object is the same, whichever way it went."""
    settings = ministack.settings()
    words = {
        "object_acl": "bucket-owner-full-control",
        "storage_class": "STANDARD_IA",
        "server_side_encryption": "AES256",
    }
    storage = s3({**settings, "storage.request_checksum_calculation": "when_supported"}, **words)

    def seen(version: str) -> Any:
        package = make_package(version=version, summary="two  spaces")
        storage.publish(package, io.BytesIO(CONTENT))
        key = storage.get_path(package)
        head = storage.client.head_object(Bucket=storage.bucket.name, Key=key)
        acl = storage.client.get_object_acl(Bucket=storage.bucket.name, Key=key)["Grants"]
        told = {name: head.get(name) for name in ("ContentLength", "ContentType", "ETag", "StorageClass")}
        return head["Metadata"]["summary"], head["Metadata"].keys(), told, head["ServerSideEncryption"], acl

    with operations(storage) as asked:
        short = seen("1.0")
    assert "PutObject" not in asked
    with by_boto3():
        assert seen("2.0") == short


def test_only_what_has_the_digest(settings: dict[str, str]) -> None:
    """The store itself refuses bytes that have another digest than was said."""
    storage = s3(settings)
    wire = Wire(storage.bucket)
    for content in (CONTENT, LARGE):
        target = {"Bucket": storage.bucket.name, "Key": "key", "Metadata": {}}
        outcome = wire.put(target, io.BytesIO(content), len(content), sha256(b"other"))
        assert outcome is Outcome.REFUSED
    assert everything(settings) == {}
    wire.close()


def test_conditions(settings: dict[str, str]) -> None:
    """What is there already stays, and is replaced if that is wanted."""
    storage = s3(settings)
    storage.publish(make_package(), io.BytesIO(CONTENT))
    with pytest.raises(FileExists):
        storage.publish(make_package(content=LARGE), io.BytesIO(LARGE))
    assert list(everything(settings).values()) == [CONTENT]
    with operations(storage) as asked:
        storage.publish(make_package(content=LARGE), io.BytesIO(LARGE), replace=True)
    assert "PutObject" not in asked
    assert list(everything(settings).values()) == [LARGE]


def test_a_lost_answer(settings: dict[str, str], radosgw: RadosGW) -> None:
    """An upload whose answer was lost finds itself, and is no conflict; another file still is one."""
    with Proxy(radosgw.port) as proxy:
        storage = s3({**settings, "storage.endpoint_url": proxy.through(settings["storage.endpoint_url"])})
        proxy.cut_after(0, "answers")
        with operations(storage) as asked:
            storage.publish(make_package(), io.BytesIO(CONTENT))
        assert asked[0] == "PutObject"
        with pytest.raises(FileExists):
            storage.publish(make_package(content=b"other"), io.BytesIO(b"other"))
        storage.client.close()
    assert list(everything(settings).values()) == [CONTENT]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_after_a_fork(settings: dict[str, str]) -> None:
    """A process that is forked leaves the connections to the one that made them."""
    storage = s3(settings)
    storage.publish(make_package(), io.BytesIO(CONTENT))
    wire = storage._wire
    assert wire is not None
    assert len(wire._idle) == 1
    child = os.fork()
    if child == 0:
        os._exit(len(wire._idle))
    assert os.waitpid(child, 0)[1] == 0
    with storage.open(make_package()) as stream:
        assert stream.read() == CONTENT


# With a store that answers as it is told


class Store:
    """A port at which each connection gets some answers, one for each request; ``requests`` are what was sent.

    An answer is sent once a head has come, or with ``body`` so many bytes more.
    """

    def __init__(self, *connections: list[bytes], body: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._scripts = connections
        self._body = body
        self._tls = tls
        self._server = socket.create_server((LOOPBACK, 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def wire(self, **changes: float) -> Wire:
        """The way to it."""
        port: int = self._server.getsockname()[1]
        where = {"endpoint_url": f"http://{LOOPBACK}:{port}", "region_name": "eu-west-1"}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        config = Config(response_checksum_validation="when_required")
        wire = Wire(boto3.resource("s3", **where, **keys, config=config).Bucket("bucket"))
        netloc = f"{LOOPBACK}:{port}"
        way = Plan(LOOPBACK, port, netloc, "/bucket/", "eu-west-1", "s3", CREDENTIALS, None, 5.0, 5.0)
        wire._plan = replace(way, **changes)  # type: ignore[arg-type]  # only numbers are changed
        return wire

    def _serve(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                for answer in script:
                    self._answer(connection, answer)

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        taken = b""
        while b"\r\n\r\n" not in taken or len(taken.partition(b"\r\n\r\n")[2]) < self._body:
            block = connection.recv(1 << 16)
            if not block:
                return
            taken += block
        self.requests.append(taken)
        connection.sendall(answer)


def ok(content: bytes, *headers: str) -> bytes:
    """An answer with these bytes."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n{lines}\r\n".encode() + content


def test_connections_are_kept() -> None:
    """One connection serves one request after the other; one that the store has closed is not used again."""
    last = ok(b"c", "Connection: close")
    with Store([ok(b"a"), ok(b""), ok(b"b")], [last], [ok(b"d")]) as store:
        wire = store.wire()
        found = []
        for _ in range(5):
            body = wire.get(OBJECT)
            assert body is not None
            found.append(body.read(10))
            body.close()
        wire.close()
    assert found == [b"a", b"", b"b", b"c", b"d"]
    assert store.connections == 3


def test_a_body_that_is_left() -> None:
    """A connection over which bytes are to come that nobody reads is not used again."""
    with Store([ok(b"abc")], [ok(b"def")]) as store:
        wire = store.wire()
        for content in (b"abc", b"def"):
            body = wire.get(OBJECT)
            assert body is not None
            assert body.read(1) == content[:1]
            body.close()
            assert body.read(1) == b""
    assert store.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"x" * (1 << 17),
        b"",
    ],
)
def test_what_is_left_to_boto3(answer: bytes) -> None:
    """Whatever is not a plain good answer is no answer, and ends the connection."""
    with Store([answer], [answer]) as store:
        wire = store.wire()
        assert wire.get(OBJECT) is None
        outcome = wire.put({**OBJECT, "Metadata": {}}, io.BytesIO(b""), 0, sha256(b""))
        status = answer[9:12] if answer.startswith(b"HTTP") else b""
        assert outcome is {b"200": Outcome.STORED, b"": Outcome.UNKNOWN}.get(status, Outcome.REFUSED)
        assert not wire._idle
    assert store.connections == 2


def test_bytes_that_break_off() -> None:
    """Bytes that are missing are an error, and never an end."""
    with Store([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"]) as store:
        body = store.wire().get(OBJECT)
        assert body is not None
        with pytest.raises(ConnectionError):
            body.read(10)
        body.close()


def test_silence() -> None:
    """A store that is silent is not asked by boto3 either, wherever in its answer that is."""
    never: Callable[[Wire], Any]
    for never in (
        lambda wire: wire.get(OBJECT),
        lambda wire: wire.put({**OBJECT, "Metadata": {}}, io.BytesIO(b"a"), 1, sha256(b"a")),
    ):
        with Store([b"HTTP/1.1 200", ok(b"")]) as store, pytest.raises(ReadTimeoutError):
            never(store.wire(read_timeout=0.1))
    with Store([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b""]) as store:
        body = store.wire(read_timeout=0.1).get(OBJECT)
        assert body is not None
        with pytest.raises(ReadTimeoutError):
            body.read(5)
        body.close()


def test_bytes_that_are_not_wanted() -> None:
    """A store that refuses a large object by its head alone is spared the bytes."""
    with Store([b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n"]) as store:
        stream = io.BytesIO(LARGE)
        outcome = store.wire().put({**OBJECT, "Metadata": {}}, stream, len(LARGE), sha256(LARGE))
        assert outcome is Outcome.REFUSED
        assert stream.tell() == 0
    (request,) = store.requests
    assert b"\r\nexpect: 100-continue\r\n" in request
    assert request.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("word", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["none", "late"])
def test_a_store_without_a_word(word: bytes) -> None:
    """A store that does not say in time that it wants the bytes gets them all the same."""
    with Store([word + ok(b"")], body=len(LARGE)) as store, patch.object(wire_module, "_WORD", 0.05):
        outcome = store.wire().put({**OBJECT, "Metadata": {}}, io.BytesIO(LARGE), len(LARGE), sha256(LARGE))
    assert outcome is Outcome.STORED
    assert store.requests[0].endswith(LARGE)


def test_a_file_that_shrinks() -> None:
    """A file that ends before its time is not stored, and nobody waits for the rest."""
    with Store([b""], body=100) as store:
        outcome = store.wire().put({**OBJECT, "Metadata": {}}, io.BytesIO(b"abc"), 100, sha256(b"abc"))
    assert outcome is Outcome.REFUSED


def test_an_answer_that_is_lost() -> None:
    """If nothing is heard of a whole object, nobody knows what became of it."""
    with Store([b""], body=3) as store:
        outcome = store.wire().put({**OBJECT, "Metadata": {}}, io.BytesIO(b"abc"), 3, sha256(b"abc"))
    assert outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(201, Outcome.STORED), (204, Outcome.STORED), (307, Outcome.REFUSED), (412, Outcome.REFUSED)]
    + [(status, Outcome.UNKNOWN) for status in (500, 502, 503, 504)],
)
def test_outcomes(status: int, outcome: Outcome) -> None:
    """After a failure of the store itself nobody knows whether it has the object."""
    with Store([f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode()], body=3) as store:
        assert store.wire().put({**OBJECT, "Metadata": {}}, io.BytesIO(b"abc"), 3, sha256(b"abc")) is outcome


def test_a_store_that_cannot_be_reached() -> None:
    """After there was no connection boto3 alone is asked for a while."""
    with Store([ok(b"a")]) as store:
        wire = store.wire()
        way = wire._plan
        assert way is not None
        wire._plan = replace(way, port=1)
        assert wire.get(OBJECT) is None
        wire._plan = way
        assert wire.get(OBJECT) is None
        wire._closed_until = 0
        body = wire.get(OBJECT)
        assert body is not None
        assert body.read(1) == b"a"


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-south-1", "bucket.s3.eu-south-1.amazonaws.com"), ("us-east-1", "bucket.s3.amazonaws.com")],
)
def test_where_a_bucket_is(region: str, host: str) -> None:
    """Requests go to the host to which boto3 sends them: that of the region."""
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    way = plan(boto3.resource("s3", region_name=region, **keys).Bucket("bucket"))
    assert way is not None
    assert (way.host, way.port, way.path, way.region) == (host, 443, "/", region)


def test_a_body_that_is_closed_while_it_is_read() -> None:
    """A connection that was closed is not kept, even if the last byte comes at that moment."""
    with Store([ok(b"abc")]) as store:
        wire = store.wire()
        body = wire.get(OBJECT)
        assert body is not None
        taken = body._line.take(3)
        body.close()
        body._took(len(taken))
        assert not wire._idle


def test_words_that_break_lines() -> None:
    """Nothing gets into a request that would be a line of its own."""
    with Store([ok(b"")]) as store:
        wire = store.wire()
        assert wire.get({**OBJECT, "IfMatch": "1\nx: y"}) is None
        outcome = wire.put({**OBJECT, "Metadata": {"summary": "a\r\nx: y"}}, io.BytesIO(), 0, sha256(b""))
        assert outcome is Outcome.REFUSED
    assert store.requests == []


def test_checksums_are_boto3s(settings: dict[str, str]) -> None:
    """Where what comes is to be compared with its checksum it is boto3 that reads, as only it does so."""
    storage = s3(settings, response_checksum_validation="when_supported")
    storage.publish(make_package(), io.BytesIO(CONTENT))
    with operations(storage) as asked, storage.open(make_package()) as stream:
        assert stream.read() == CONTENT
    assert asked == ["GetObject"]


@pytest.mark.parametrize("known", ["zz", "aa", "UNSIGNED-PAYLOAD", "A" * 64, "0" * 64])
def test_a_digest_that_is_none(settings: dict[str, str], known: str) -> None:
    """What stands in the metadata in place of the digest, or as a wrong one, keeps no file from being stored."""
    storage = s3(settings, request_checksum_calculation="when_supported")
    package = make_package()
    package.data["hash_sha256"] = known
    storage.publish(package, io.BytesIO(CONTENT))
    assert list(everything(settings).values()) == [CONTENT]


def test_more_than_was_said(settings: dict[str, str], radosgw: RadosGW, tmp_path: Path) -> None:
    """Bytes behind an answer end the connection, also those that TLS has read already."""
    certificate = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.chain, certificate.key)
    trusted = ssl.create_default_context(cafile=str(certificate.authority))
    for context in (None, tls):
        with Store([ok(b"abc") + ok(b"evil")], [ok(b"def")], tls=context) as store:
            wire = store.wire()
            way = wire._plan
            assert way is not None
            wire._plan = replace(way, tls=None if context is None else trusted)
            for content in (b"abc", b"def"):
                body = wire.get(OBJECT)
                assert body is not None
                assert body.read(3) == content
        assert store.connections == 2


@pytest.mark.parametrize("token", [None, "a-token+/="])
def test_signatures(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature of an upload, with all its headers, is that of botocore's own signer."""
    moment = datetime(2026, 2, 3, 4, 5, 6)  # noqa: DTZ001 - botocore's own times have no zone
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: moment)
    credentials = Credentials("key", "secret/+", token)
    way = Plan("127.0.0.1", 9000, "127.0.0.1:9000", "/bucket/", "eu-west-1", "s3", credentials, None, 5)
    headers = {"x-amz-meta-summary": "two  spaces ", "if-none-match": "*", "x-amz-acl": "private"}
    head = way.signer(moment.replace(tzinfo=UTC))("PUT", "a b/c", headers, sha256(b"x"), {"content-length": "1"})
    line, *lines = head.decode().rstrip().split("\r\n")
    assert line == "PUT /bucket/a%20b/c HTTP/1.1"
    expected = AWSRequest("PUT", "http://127.0.0.1:9000/bucket/a%20b/c", headers, b"x")
    S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(expected)
    sent = dict(each.split(": ", 1) for each in lines)
    assert sent["authorization"] == expected.headers["Authorization"]
    assert sent["content-length"] == "1"


# Into a pipe


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, of which the second can be full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(end)


def poured(body: Body, writer: int) -> int | None:
    """What was moved into a pipe that somebody reads."""
    while True:
        try:
            return body.pour(writer, 1 << 30)
        except BlockingIOError:
            time.sleep(0.001)


def test_poured(pipe: tuple[int, int]) -> None:
    """After what came with the head all bytes are moved into a pipe, and the connection is good for the next answer."""
    reader, writer = pipe
    content = os.urandom(8 << 20)
    with Store([ok(content), ok(b"x")]) as store, ThreadPoolExecutor(1) as pool:
        wire = store.wire()
        body = wire.get(OBJECT)
        assert body is not None
        first = body.read(1 << 16)
        with os.fdopen(reader, "rb", closefd=False) as file:
            rest = pool.submit(file.read)
            while poured(body, writer):
                pass
            assert body.read(1) == b""
            os.close(writer)
            assert first + rest.result(5) == content
        again = wire.get(OBJECT)
        assert again is not None
        assert again.read(1) == b"x"
        assert store.connections == 1
        wire.close()


def test_a_full_pipe(pipe: tuple[int, int]) -> None:
    """A pipe that nobody reads takes what it holds, and then nothing more."""
    with Store([ok(bytes(8 << 20))]) as store:
        body = store.wire().get(OBJECT)
        assert body is not None
        body.read(1 << 16)
        pour = partial(body.pour, pipe[1], 1 << 30)
        with pytest.raises(BlockingIOError):
            list(iter(pour, None))
        os.close(pipe[0])
        with pytest.raises(BrokenPipeError):
            body.pour(pipe[1], 1 << 30)
        body.close()


def test_trouble_while_pouring(pipe: tuple[int, int]) -> None:
    """Bytes that break off, and a store that falls silent, are errors here, too."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    for script, error in (([answer], ConnectionError), ([answer, b""], ReadTimeoutError)):
        with Store(script) as store:
            body = store.wire(read_timeout=0.2).get(OBJECT)
            assert body is not None
            with pytest.raises(error):
                body.pour(pipe[1], 5)
            # Whoever tries again is told again, and never given what comes later.
            with pytest.raises(OSError, match="Bad file descriptor"):
                body.read(5)
            body.close()


@pytest.mark.parametrize("cut", [1, 1 << 20, 3 << 20])
def test_a_download_that_is_moved_goes_on(radosgw: RadosGW, settings: dict[str, str], cut: int) -> None:
    """Bytes are neither missing nor twice in a pipe if the connection is cut between them."""
    content = os.urandom(6 << 20)
    with Proxy(radosgw.port) as proxy:
        storage = s3({**settings, "storage.endpoint_url": proxy.through(settings["storage.endpoint_url"])})
        package = make_package(content=content)
        storage.publish(package, io.BytesIO(content))
        with contextlib.closing(storage.stream_response(package).app_iter) as body, ThreadPoolExecutor(1) as pool:
            pieces = iter(body)
            first, _ = beginning(pieces)
            proxy.cut_after(cut, "answers")
            pipe = Pipe(itertools.chain([first], pieces), body.pour)
            with contextlib.closing(pipe), Path(pipe.path).open("rb") as reader:
                read = pool.submit(reader.read)
                while pipe.pump():
                    time.sleep(0.001)
                pipe.close()
                assert read.result(5) == content
        storage.client.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_moves_nothing(pipe: tuple[int, int], number: int) -> None:
    """Where bytes cannot be moved they are read."""
    with Store([ok(bytes(1 << 20))]) as store, patch.object(os, "splice", side_effect=OSError(number, "no")) as splice:
        body = store.wire().get(OBJECT)
        assert body is not None
        body.read(1 << 16)
        assert body.pour(pipe[1], 5) is None
        assert body.pour(pipe[1], 5) is None
        assert len(body.read(1 << 20)) == (1 << 20) - (1 << 16)
    assert splice.call_count == 1
