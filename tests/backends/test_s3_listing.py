"""The short ways by which the storage in S3 lists: signatures, pages, and when they are left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials

from pypicloud.storage.s3.heads import Heads
from pypicloud.storage.s3.lean import Lean
from pypicloud.storage.s3.listing import Listing
from pypicloud.storage.s3.plan import Plan, plan
from support.dynamo import one_loader
from support.s3 import _Raw, intercepted, put, s3
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from support.services.aws import MiniStack, Moto
    from support.services.radosgw import RadosGW

KEYS = [f"f{number:02}/foo/foo-{number}.0+local.tar.gz" for number in range(40)]


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture(scope="module")
def settings(radosgw: RadosGW) -> dict[str, str]:
    """The settings of a bucket with objects in it."""
    settings = radosgw.settings()
    s3(settings)
    for key in KEYS:
        put(settings, key, Metadata={"name": "foo", "version": "1.0", "summary": "A foo"})
    return settings


def sliced(storage: Any, size: int) -> None:
    """Have the store list so many keys at a time."""

    def fewer(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**params, "MaxKeys": size}

    for operation in ("ListObjectsV2", "ListObjects"):
        storage.client.meta.events.register(f"provide-client-params.s3.{operation}", fewer)


@pytest.mark.parametrize("token", [None, "a-token+/="])
@pytest.mark.parametrize("key", ["foo/foo-1.0.tar.gz", "a b+c#d%2Bü&e=(f)~g'!*,;:@$", "../x//y/."])
def test_signatures(key: str, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature of a question is that of botocore's own signer."""
    moment = datetime(2026, 2, 3, 4, 5, 6)  # noqa: DTZ001 - botocore's own times have no zone
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: moment)
    credentials = Credentials("key", "secret/+", token)
    way = Plan("127.0.0.1", 9000, "127.0.0.1:9000", "/bucket/", "eu-west-1", "s3", credentials, None, 5)
    line, *headers = way.signer(moment.replace(tzinfo=UTC))("HEAD", key).decode().rstrip().split("\r\n")
    path = line.split(" ")[1]
    expected = AWSRequest("HEAD", f"http://127.0.0.1:9000{path}", {"x-amz-content-sha256": "x"})
    S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(expected)
    sent = dict(header.split(": ", 1) for header in headers)
    assert sent["authorization"] == expected.headers["Authorization"]


def test_answers(settings: dict[str, str]) -> None:
    """The short way tells of an object what boto3 tells, and that there is none."""
    storage = s3(settings)
    with Heads(storage.bucket, 3) as heads:
        found = {each.key: each for each in heads.objects("", storage._head)}
    assert found == {key: storage._head(key) for key in KEYS}
    way = plan(storage.bucket)
    assert way is not None
    with Lean(way, 3) as lean:
        assert {status for status, _ in lean.answers(KEYS).values()} == {200}
        assert lean.answers(["nothing"])["nothing"][0] == 404
        assert lean.answers([]) == {}


@pytest.mark.parametrize("threads", ["1", "2", "32", "100"])
def test_order(settings: dict[str, str], threads: str) -> None:
    """Objects are listed in the order of their keys, however many are asked for at the same time."""
    storage = s3(settings, listing_threads=threads)
    sliced(storage, 7)
    assert [package.data["path"] for package in storage.list()] == KEYS


@pytest.mark.parametrize(
    "changes",
    [{"signature_version": "s3"}, {"verify": "no"}, {"proxies": "http=http://127.0.0.1:{port}"}],
    ids=["signature", "trust", "proxy"],
)
def test_long_way(moto: Moto, changes: dict[str, str]) -> None:
    """Where only boto3 knows how to ask, it is boto3 that asks."""
    settings = moto.settings()
    s3(settings)
    for key in KEYS:
        put(settings, key)
    with Proxy(moto.port):
        storage = s3(settings, **{name: value.format(port=moto.port) for name, value in changes.items()})
        assert plan(storage.bucket) is None
        sliced(storage, 7)
        assert [package.data["path"] for package in storage.list()] == KEYS


def test_connections_that_close(moto: Moto) -> None:
    """A store that closes the connection after every answer is asked over new ones."""
    settings = moto.settings()
    storage = s3(settings)
    for key in KEYS:
        put(settings, key)
    way = plan(storage.bucket)
    assert way is not None
    with Lean(way, 4) as lean:
        assert lean.answers(KEYS).keys() == set(KEYS)


def test_nobody_there(settings: dict[str, str]) -> None:
    """Where nobody listens there are no answers."""
    way = plan(s3(settings).bucket)
    assert way is not None
    with Lean(replace(way, port=1), 4) as lean:
        assert lean.answers(KEYS) == {}


def test_silence(settings: dict[str, str], radosgw: RadosGW) -> None:
    """Connections over which nothing comes are given up."""
    with Proxy(radosgw.port) as proxy:
        through = {**settings, "storage.endpoint_url": proxy.through(settings["storage.endpoint_url"])}
        way = plan(s3(through).bucket)
        assert way is not None
        with Lean(replace(way, patience=0.2), 4) as lean:
            assert len(lean.answers(KEYS[:8])) == 8
            proxy.hang()
            assert lean.answers(KEYS[:8]) == {}
            proxy.resume()


def test_first_version(settings: dict[str, str]) -> None:
    """A store that knows only the first version of listing is listed to the end."""
    storage = s3(settings, verify="no")
    sliced(storage, 7)
    first = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in KEYS[:7])
    body = f"<ListBucketResult><IsTruncated>true</IsTruncated>{first}</ListBucketResult>"

    def old(name: str, request: Any) -> Any:
        return AWSResponse(request.url, 200, {}, _Raw(body.encode())) if name == "ListObjectsV2" else None

    with intercepted(storage, old):
        assert [package.data["path"] for package in storage.list()] == KEYS


def test_prefix(settings: dict[str, str]) -> None:
    """Only what is under the prefix is listed."""
    storage = s3(settings, prefix="f1")
    assert [package.data["path"] for package in storage.list()] == [key for key in KEYS if key.startswith("f1")]


def test_vanished(settings: dict[str, str]) -> None:
    """What is listed and gone a moment later is left out."""
    storage = s3(settings)
    with Heads(storage.bucket, 3) as heads, ThreadPoolExecutor(2) as boto:
        found = heads._asked([*KEYS[:3], "gone/foo-1.0.tar.gz"], storage._head, boto)
    assert [each.key for each in found] == KEYS[:3]


def test_temporary_credentials(ministack: MiniStack) -> None:
    """A session token goes with every question."""
    settings = ministack.settings()
    s3(settings)
    put(settings, KEYS[0])
    storage = s3(settings, aws_session_token="a-token")
    way = plan(storage.bucket)
    assert way is not None
    assert b"x-amz-security-token: a-token\r\n" in way.signer(datetime.now(UTC))("HEAD", KEYS[0])


def test_pages_of_keys(settings: dict[str, str]) -> None:
    """Both ways give the same pages, with keys as they are."""
    put(settings, "z/a b+c#%2B&<ü>.zip")
    storage = s3(settings)
    sliced(storage, 7)
    pages = []
    for way in (plan(storage.bucket), None):
        with Listing(storage.bucket, way) as listing:
            pages.append([page for page in listing.pages("") if page])
    assert pages[0] == pages[1]
    assert [key for page in pages[0] for key in page] == [*KEYS, "z/a b+c#%2B&<ü>.zip"]
    storage.client.delete_object(Bucket=storage.bucket.name, Key="z/a b+c#%2B&<ü>.zip")
