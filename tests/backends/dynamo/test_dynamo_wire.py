"""The short way to DynamoDB: it answers as boto3 does, trusts whom boto3 trusts, and leaves all trouble to it."""

from __future__ import annotations

import json
import ssl
import threading
import zlib
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import urllib3
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError

from pypicloud.cache.dynamo import DynamoCache
from pypicloud.cache.dynamo.client import Dynamo
from pypicloud.cache.dynamo.wire import Wire
from pypicloud.errors import BackendUnavailable
from pypicloud.testing.cache import package
from support.certificates import make_certificate
from support.dynamo import Tables, started
from support.live import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.services.aws import MiniStack, Moto

SESSION = {"region_name": "eu-west-1", "aws_access_key_id": "key", "aws_secret_access_key": "secret"}

WANTED = {"some-table": {"Keys": [{"filename": {"S": "x"}}], "ConsistentRead": True}}

ANSWER = {"Responses": {"some-table": [{"filename": {"S": "x"}}]}, "UnprocessedKeys": {}}


@contextmanager
def service(certificate: Any = None, answer: bytes = json.dumps(ANSWER).encode(), **more: str) -> Iterator[Any]:
    """A server that answers every request so, with ``port`` and the headers of the requests in ``seen``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]  # it is set below
            self.send_response(200)
            for name, value in {"Content-Length": str(len(answer)), **more}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.seen, server.handle_error, server.daemon_threads = [], lambda *_: None, True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=partial(server.serve_forever, 0.01))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def dynamo() -> Iterator[Callable[..., Dynamo]]:
    """Makes ways to a service on some port."""
    made: list[Dynamo] = []

    def make(port: int, scheme: str = "http", **session: str) -> Dynamo:
        made.append(Dynamo({**SESSION, **session}, f"{scheme}://{LOOPBACK}:{port}"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("kind", ["ministack", "moto"])
def test_the_answer_is_that_of_boto3(request: pytest.FixtureRequest, kind: str) -> None:
    """Items of all kinds, and none for keys that are not there, come on the short way as boto3 gives them."""
    emulator: MiniStack | Moto = request.getfixturevalue(kind)
    settings = emulator.cache_settings()
    with started(settings) as server:
        cache = server()
        cache.save(package(summary='"B": \\ \u00fc\u2028\U0001f40d', many=[1, -2.5, None, True, {"x": ["", "\x00"]}]))
        wanted = {
            cache.tables.packages: [{"filename": {"S": key}} for key in ("foo-1.0.tar.gz", "/gone/foo", "/projects")],
            cache.tables.summaries: [{"name": {"S": key}} for key in ("foo", "bar")],
        }
        items = {table: {"Keys": keys, "ConsistentRead": True} for table, keys in wanted.items()}
        theirs = cache.dynamo.call("batch_get_item", RequestItems=items)
        del theirs["ResponseMetadata"]
        assert _sorted(cache.dynamo.wire.batch_get_item(items)) == _sorted(theirs)


def _sorted(answer: Any) -> Any:
    return {**answer, "Responses": {table: sorted(some, key=str) for table, some in answer["Responses"].items()}}


def test_bytes_are_left_to_boto3(cache: DynamoCache, tables: Tables) -> None:
    """An item with bytes in it, which JSON has encoded, is read by boto3, as is what looks like one."""
    cache.save(package())
    item = tables.items(tables.packages)["foo-1.0.tar.gz"]
    tables.put(tables.packages, {**item, "data": {"M": {"big": {"B": b"[1e400, 2]"}}}})
    found = cache.fetch("foo-1.0.tar.gz")
    assert found is not None
    assert found.data["big"] == [float("inf"), 2]
    cache.save(package(version="2.0", odd={"B": "text"}))
    found = cache.fetch("foo-2.0.tar.gz")
    assert found is not None
    assert found.data["odd"] == {"B": "text"}


BAD = {
    "refused": urllib3.HTTPResponse(b'{"__type": "ThrottlingException"}', status=400),
    "failed": urllib3.HTTPResponse(b"", status=503),
    "elsewhere": urllib3.HTTPResponse(b"", {"Location": "http://x"}, status=301),
    "no JSON": urllib3.HTTPResponse(b"<html>", status=200),
    "no map": urllib3.HTTPResponse(b"[]", status=200),
    "no answer": urllib3.HTTPResponse(b"{}", status=200),
    "damaged": urllib3.HTTPResponse(b'{"Responses": {}}', {"x-amz-crc32": "1"}, status=200),
    "broken": urllib3.exceptions.ProtocolError("the connection is gone"),
    "late": urllib3.exceptions.TimeoutError("no answer"),
}


@pytest.mark.parametrize("bad", BAD)
def test_trouble_is_left_to_boto3(cache: DynamoCache, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the short way gets no good answer, boto3 asks for the same once more."""
    cache.save(package())
    send, boto3 = Mock(side_effect=[BAD[bad]]), Mock(return_value=None)
    monkeypatch.setattr(cache.dynamo.wire._pool, "urlopen", send)
    cache.dynamo.client.meta.events.register("before-send.dynamodb", boto3)
    assert cache.fetch("foo-1.0.tar.gz") == package()
    assert (send.call_count, boto3.call_count) == (1, 1)


def test_a_good_checksum_is_taken(dynamo: Callable[..., Dynamo]) -> None:
    """An answer with the checksum that it has is taken as it is, and boto3 is not asked."""
    body = json.dumps(ANSWER).encode()
    with service(answer=body, X_Amz_Crc32=str(zlib.crc32(body))) as server:
        assert dynamo(server.server_port).get({"some-table": [{"filename": {"S": "x"}}]}) == ANSWER["Responses"]
        assert len(server.seen) == 1


def test_temporary_credentials(dynamo: Callable[..., Dynamo]) -> None:
    """The session token of temporary credentials is sent along and signed."""
    with service() as server:
        assert dynamo(server.server_port, aws_session_token="token").wire.batch_get_item(WANTED) == ANSWER
    (headers,) = server.seen
    assert headers["X-Amz-Security-Token"] == "token"
    assert "content-type;host;x-amz-date;x-amz-security-token;x-amz-target" in headers["Authorization"]
    assert "/eu-west-1/dynamodb/aws4_request" in headers["Authorization"]
    assert headers["User-Agent"].startswith("Boto3/")


class Renewed:
    """Credentials that are others each time, and in the end none."""

    def __init__(self, *keys: str) -> None:
        self._keys = list(keys)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What botocore's credentials answer."""
        if not self._keys:
            raise CredentialRetrievalError(provider="role", error_msg="no")
        return ReadOnlyCredentials(self._keys.pop(0), "secret", None, None)


def test_renewed_credentials(dynamo: Callable[..., Dynamo]) -> None:
    """Each request is signed with the credentials of its moment; where there are none any more, boto3 is to say so."""
    with service() as server:
        wire = Wire(dynamo(server.server_port).client, Renewed("one", "two"), None, 1)
        assert [wire.batch_get_item(WANTED) for _ in range(3)] == [ANSWER, ANSWER, None]
        wire.close()
    keys = [headers["Authorization"].partition("Credential=")[2].partition("/")[0] for headers in server.seen]
    assert keys == ["one", "two"]


def test_the_service_has_to_be_who_it_says(
    dynamo: Callable[..., Dynamo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTPS nothing is sent to whom boto3 does not trust; an authority that boto3 is told of is trusted."""
    certificate = make_certificate(tmp_path)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with service(certificate) as server:
        stranger = dynamo(server.server_port, "https")
        assert stranger.wire.batch_get_item(WANTED) is None
        assert server.seen == []
        for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as patch:
                patch.setenv(name, str(certificate.authority))
                assert dynamo(server.server_port, "https").wire.batch_get_item(WANTED) == ANSWER
        assert len(server.seen) == 2


def test_the_way_through_a_proxy_is_that_of_boto3(
    dynamo: Callable[..., Dynamo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment names a proxy, requests go through it, and none goes past it."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with service() as server, service() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{LOOPBACK}:{proxy.server_port}")
        found = dynamo(server.server_port).get({"some-table": [{"filename": {"S": "x"}}]})
        assert found == ANSWER["Responses"]
        assert (len(server.seen), len(proxy.seen)) == (0, 1)
        monkeypatch.setenv("no_proxy", LOOPBACK)
        assert dynamo(server.server_port).wire.batch_get_item(WANTED) == ANSWER


def test_nobody_is_asked_without_credentials(dynamo: Callable[..., Dynamo]) -> None:
    """Without credentials nothing is sent."""
    with service() as server:
        wire = Wire(dynamo(server.server_port).client, None, None, 1)
        assert wire.batch_get_item(WANTED) is None
        assert server.seen == []


def test_somebody_else_answers(dynamo: Callable[..., Dynamo]) -> None:
    """What answers but is no DynamoDB is an error, and not the word that there is nothing."""
    with service(answer=b"<html>") as server, pytest.raises(BackendUnavailable, match="not as DynamoDB does"):
        dynamo(server.server_port).get({"some-table": [{"filename": {"S": "x"}}]})
