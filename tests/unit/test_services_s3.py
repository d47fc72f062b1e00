"""What stands in for S3 and CloudFront in the tests: that it refuses what they refuse."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.signers import CloudFrontSigner
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.edge import KEY_ID, Edge
from support.services.proxy import S3_BUSY, Proxy
from support.services.radosgw import RadosGW
from support.services.s3 import S3Service, forged, plain, statement, status

KEY = "ab12/name-1.0+a b.whl"
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> S3Service:
    """The server that the test is parametrized with."""
    service: S3Service = request.getfixturevalue(request.param)
    return service


@pytest.fixture
def filled(s3: S3Service) -> Iterator[dict[str, str]]:
    """The settings of a bucket with one object."""
    settings = s3.settings()
    client = plain(settings)
    client.create_bucket(Bucket=settings["storage.bucket"])
    client.put_object(Bucket=settings["storage.bucket"], Key=KEY, Body=b"content", Metadata={"name": "name"})
    yield settings
    client.close()


def code(call: Callable[[], object]) -> str:
    """The code of the error that a call to S3 ends with."""
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


strict = pytest.mark.parametrize("s3", ["radosgw", "ministack"], indirect=True)


@strict
def test_s3_checks_signed_urls(filled: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed URL of S3 is good for its object and its method, for its time."""
    client = plain(filled, signature_version="s3v4")
    where = {"Bucket": filled["storage.bucket"], "Key": KEY}
    url = client.generate_presigned_url("get_object", where, 60)
    assert status(url) == 200
    for refused in (forged(url), url.replace("name-1.0", "name-2.0"), url.replace("Expires=60", "Expires=90")):
        assert status(refused) == 403
    assert status(url, "HEAD") == 403
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: LONG_AGO.replace(tzinfo=None))
    assert status(client.generate_presigned_url("get_object", where, 60)) == 403


@strict
def test_s3_rights(s3: Any, filled: dict[str, str]) -> None:
    """A user may do what a policy allows, and what it denies or does not speak of is refused."""
    bucket = filled["storage.bucket"]
    denied = statement("s3:DeleteObject", effect="Deny")
    user = plain(s3.user(filled, statement("s3:GetObject", "s3:ListBucket", "s3:DeleteObject"), denied))
    assert user.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert user.get_object(Bucket=bucket, Key=KEY)["Body"].read() == b"content"
    assert code(lambda: user.put_object(Bucket=bucket, Key="other", Body=b"")) == "AccessDenied"
    assert code(lambda: user.delete_object(Bucket=bucket, Key=KEY)) == "AccessDenied"
    stranger = plain({**filled, "storage.aws_access_key_id": "nobody"})
    assert code(lambda: stranger.get_object(Bucket=bucket, Key=KEY)) == "InvalidAccessKeyId"


@pytest.mark.parametrize("s3", ["radosgw", "ministack", "moto"], indirect=True)
def test_s3_conditions(filled: dict[str, str]) -> None:
    """Only one can be the first to write an object, and only who knows its state writes over it."""
    client, where = plain(filled), {"Bucket": filled["storage.bucket"], "Key": KEY}
    refused = "PreconditionFailed"
    assert code(lambda: client.put_object(**where, Body=b"other", IfNoneMatch="*")) == refused
    assert code(lambda: client.put_object(**where, Body=b"other", IfMatch='"another"')) == refused
    # Ceph does not know it with its quotes.
    state = client.head_object(**where)["ETag"].strip('"')
    client.put_object(**where, Body=b"more", IfMatch=state)
    assert client.get_object(**where)["Body"].read() == b"more"


def test_radosgw_keeps_what_it_was_given() -> None:
    """What a killed gateway had acknowledged is there when it was started again."""
    with RadosGW() as service:
        client = service.client()
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key=KEY, Body=b"content")
        service.kill()
        service.start()
        assert client.get_object(Bucket="bucket", Key=KEY)["Body"].read() == b"content"
        client.put_object(Bucket="bucket", Key="other", Body=b"")
        client.close()


@pytest.mark.parametrize("s3", ["radosgw"], indirect=True)
def test_refused_requests(s3: S3Service, filled: dict[str, str]) -> None:
    """The proxy answers as many requests as it was told itself, bodies and all, and passes on the others."""
    with Proxy(s3.port) as proxy:
        through = {**filled, "storage.endpoint_url": proxy.through(s3.url)}
        client, bucket = plain(through), filled["storage.bucket"]
        proxy.refuse(2, S3_BUSY, "PUT /")
        body = b"x" * 3_000_000
        assert client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == b"content"
        for _ in range(2):
            assert code(lambda: client.put_object(Bucket=bucket, Key=KEY, Body=body)) == "SlowDown"
        client.put_object(Bucket=bucket, Key=KEY, Body=body)
        assert client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == body
        assert proxy.refused == 2
        client.close()


def edge_url(edge: Edge, path: str, moment: dt.datetime, key_id: str = KEY_ID) -> str:
    """A URL that is signed for the edge as Amazon's own library does it."""
    key = serialization.load_pem_private_key(edge.private_key.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signer = CloudFrontSigner(key_id, lambda message: key.sign(message, padding.PKCS1v15(), hashes.SHA1()))
    return str(signer.generate_presigned_url(f"{edge.url}/{path}", date_less_than=moment))


@pytest.mark.parametrize("s3", ["radosgw"], indirect=True)
def test_edge_checks_signed_urls(filled: dict[str, str]) -> None:
    """The edge gives what is signed for it, also in part, and nothing else."""
    path = "ab12/name-1.0%2Ba%20b.whl"
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    with Edge(filled) as edge:
        url = edge_url(edge, path, later)
        assert status(url) == 200
        assert status(url, Range="bytes=2-3") == 206
        assert status(url.replace("name-1.0", "name-2.0")) == 403
        assert status(url.replace("Signature=", "Signature=A")) == 403
        assert status(f"{edge.url}/{path}") == 403
        assert status(edge_url(edge, path, LONG_AGO)) == 403
        assert status(edge_url(edge, path, later, "K00000000")) == 403
        assert status(edge_url(edge, "missing", later)) == 404
        assert edge.served == [KEY, KEY]


@pytest.mark.parametrize("s3", ["radosgw"], indirect=True)
def test_public_edge(filled: dict[str, str]) -> None:
    """A public edge asks for no signature, and takes a plus for a space, as Amazon does."""
    with Edge(filled, is_public=True) as edge:
        assert status(f"{edge.url}/ab12/name-1.0%2Ba%20b.whl") == 200
        assert status(f"{edge.url}/ab12/name-1.0+a%20b.whl") == 404
