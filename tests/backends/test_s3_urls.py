"""The URLs that the storage in S3 hands out: signed, public, of other servers, and of CloudFront."""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote

import botocore.auth
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pypicloud.errors import SettingError
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage import CloudFrontS3Storage, S3Storage, get_storage_impl
from pypicloud.storage.s3.connection import connected
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.dynamo import one_loader
from support.edge import Edge
from support.s3 import everything, s3
from support.services.proxy import Proxy
from support.services.s3 import S3Service, fetch, forged, status

if TYPE_CHECKING:
    from support.services.aws import Emulator, Moto
    from support.services.radosgw import RadosGW

ODD = "a b+c#d%2Bü&e=(f)~g'-1.0.tar.gz"


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture(params=["radosgw", "ministack"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of a storage on each server that checks signatures."""
    service: S3Service = request.getfixturevalue(request.param)
    return service.settings()


def published(storage: S3Storage, filename: str = "foo-1.0.tar.gz") -> Package:
    """A package that is stored."""
    package = make_package("foo", "1.0", filename)
    storage.publish(package, io.BytesIO(CONTENT))
    return package


def offline(**settings: str) -> S3Storage:
    """A storage whose store is nowhere."""
    changed = {f"storage.{name}": value for name, value in settings.items()}
    keys = {"storage.aws_access_key_id": "key", "storage.aws_secret_access_key": "secret"}
    made = connected("my-bucket", EnvironSettings({**keys, **changed}, {}))
    region, is_public = settings.get("region_name"), settings.get("public_url") == "true"
    return S3Storage(None, bucket=made, region_name=region, public_url=is_public)


# Signed URLs


@pytest.mark.parametrize("filename", ["foo-1.0.tar.gz", ODD])
def test_signed(settings: dict[str, str], filename: str) -> None:
    """A signed URL gives the file; one that is changed, or of another file, is refused by the store."""
    storage = s3(settings)
    package, other = published(storage, filename), published(storage, "other-1.0.tar.gz")
    url = storage.redirect_url(package)
    assert fetch(url) == CONTENT
    query = url.partition("?")[2]
    elsewhere = storage.redirect_url(other).partition("?")[0]
    assert status(f"{elsewhere}?{query}") == 403
    assert status(url.partition("?")[0]) == 403
    assert status(forged(url)) == 403
    assert status(url.replace("X-Amz-Expires=86400", "X-Amz-Expires=86401")) == 403


def test_older_signature(radosgw: RadosGW) -> None:
    """URLs with the signature of old are good and bad just the same."""
    settings = radosgw.settings()
    package = published(s3(settings), ODD)
    older = EnvironSettings({**settings, "storage.signature_version": "s3"}, {})
    url = S3Storage(None, bucket=connected(settings["storage.bucket"], older)).redirect_url(package)
    assert "AWSAccessKeyId=" in url
    assert fetch(url) == CONTENT
    assert status(url.replace("Signature=", "Signature=0", 1)) == 403


def test_expired(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is refused once its time is over."""
    storage = s3(settings, expire_after="60")
    package = published(storage)
    earlier = datetime.now(UTC) - timedelta(seconds=90)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: earlier.replace(tzinfo=None))
    assert status(storage.redirect_url(package)) == 403


def test_urls_are_kept(settings: dict[str, str]) -> None:
    """A URL is signed once and then kept for a while, for all requests."""
    make = get_storage_impl(EnvironSettings({"pypi.storage": "s3", **settings}, {}))
    package = make_package()
    first = make(None).redirect_url(package)
    assert make(None).redirect_url(package) is first
    assert make(None).redirect_url(make_package("bar")) != first


def test_links(settings: dict[str, str]) -> None:
    """Pages link to this server, or to the store with the digest, as the settings say (compat.md 2.4)."""
    package = published(s3(settings), ODD)
    kwargs = get_storage_impl(EnvironSettings({"pypi.storage": "s3", **settings}, {})).keywords  # type: ignore[attr-defined]
    request = get("/")
    ours = S3Storage(request, **kwargs).get_url(package)
    assert ours.startswith("http://localhost/api/package/foo/")
    theirs = S3Storage(request, **{**kwargs, "redirect_urls": False}).get_url(package)
    url, _, digest = theirs.partition("#sha256=")
    assert digest == package.data["hash_sha256"]
    assert fetch(url) == CONTENT


@pytest.mark.parametrize(
    ("given", "seconds", "warned"),
    [
        ({"expire_after": "604801"}, 604800, True),
        ({"expire_after": "604800"}, 604800, False),
        ({"expire_after": "99999999", "signature_version": "s3"}, 99999999, False),
        ({}, 86400, False),
    ],
)
def test_longest_life(
    moto: Moto, given: dict[str, str], seconds: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A URL cannot live longer than the store allows; who wants that is warned at the start."""
    assert s3(moto.settings(), **given).expire_after == seconds
    assert ("storage.expire_after" in caplog.text) == warned


# Public URLs


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ({}, "https://my-bucket.s3.amazonaws.com/"),
        ({"region_name": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/my-bucket/"),
        ({"region_name": "us-east-1"}, "https://s3.us-east-1.amazonaws.com/my-bucket/"),
        ({"region_name": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn/my-bucket/"),
        ({"use_accelerate_endpoint": "true"}, "https://my-bucket.s3-accelerate.amazonaws.com/"),
        (
            {"region_name": "eu-west-1", "addressing_style": "virtual"},
            "https://my-bucket.s3.eu-west-1.amazonaws.com/",
        ),
        ({"region_name": "eu-west-1", "endpoint_url": "https://s3.example:9000"}, "https://s3.example:9000/my-bucket/"),
        (
            {
                "region_name": "eu-west-1",
                "endpoint_url": "https://s3.example:9000",
                "addressing_style": "virtual",
            },
            "https://my-bucket.s3.example:9000/",
        ),
    ],
)
def test_public_urls(given: dict[str, str], base: str) -> None:
    """The URL of a public bucket has its region, its server and its style, and an escaped key (compat.md 2.4)."""
    storage = offline(public_url="true", **given)
    package = make_package("foo", "1.0+local", ODD)
    url = storage.redirect_url(package)
    assert url.startswith(base)
    key = url.removeprefix(base)
    assert not set(key) & set(" +#?&=()'ü")
    assert unquote(key) == storage.get_path(package)


def test_public_bucket(radosgw: RadosGW) -> None:
    """From a bucket that everybody may read clients get files by their public URL."""
    settings = radosgw.settings()
    storage = s3(settings, public_url="true", object_acl="public-read")
    assert fetch(storage.redirect_url(published(storage, ODD))) == CONTENT


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ({"region_name": "eu-west-1", "addressing_style": "path"}, "s3.eu-west-1.amazonaws.com"),
        ({"region_name": "eu-west-1", "addressing_style": "virtual"}, "my-bucket.s3.eu-west-1.amazonaws.com"),
        ({"region_name": "eu-west-1", "use_accelerate_endpoint": "true"}, "my-bucket.s3-accelerate.amazonaws.com"),
        (
            {"region_name": "eu-west-1", "use_dualstack_endpoint": "true"},
            "my-bucket.s3.dualstack.eu-west-1.amazonaws.com",
        ),
        ({"endpoint_url": "https://minio.example", "region_name": "x"}, "minio.example"),
    ],
)
def test_hosts(given: dict[str, str], host: str) -> None:
    """A signed URL leads to the host that the options of boto3 say."""
    assert offline(**given).redirect_url(make_package()).startswith(f"https://{host}/")


@pytest.mark.parametrize("name", ["ministack", "moto"])
def test_virtual_hosts(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bucket in the host, too, files are stored, listed and downloaded."""
    service: Emulator = request.getfixturevalue(name)
    resolve = socket.getaddrinfo

    def resolved(host: Any, *words: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".s3.localhost") else host, *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    settings = service.settings()
    endpoint = f"http://s3.localhost:{service.port}"
    storage = s3(settings, endpoint_url=endpoint, addressing_style="virtual")
    package = published(storage, ODD)
    url = storage.redirect_url(package)
    assert url.startswith(f"http://{storage.bucket.name}.s3.localhost:{service.port}/")
    assert fetch(url) == CONTENT
    assert [found.filename for found in storage.list()] == [ODD]
    assert everything(settings) == {package.data["path"]: CONTENT}


def test_uri(radosgw: RadosGW) -> None:
    """What AWS's own tools call a file can be had (compat.md 8.3)."""
    storage = s3(radosgw.settings("named"))
    assert storage.get_uri(make_package()) == "s3://named/f3a9/foo/foo-1.0.tar.gz"


def test_package_from_object(radosgw: RadosGW) -> None:
    """An object of boto3's is made a package, or is none (compat.md 8.3)."""
    storage = s3(radosgw.settings())
    package = published(storage)
    made = S3Storage.package_from_object(storage.bucket.Object(package.data["path"]), Package)
    assert made is not None
    assert (made, made.data["size"]) == (package, len(CONTENT))
    storage.bucket.put_object(Key="notes.txt", Body=b"x")
    assert S3Storage.package_from_object(storage.bucket.Object("notes.txt"), Package) is None


# CloudFront


class TestCloudFront(StorageContract):
    """The storage contract with clients that get what they download from an edge."""

    limits: ClassVar[frozenset[str]] = frozenset({"redirects"})
    required: ClassVar[tuple[str, ...]] = ("storage.bucket", "storage.cloud_front_domain")

    @pytest.fixture
    def settings(self, radosgw: RadosGW) -> Iterator[dict[str, str]]:
        self.bucket = radosgw.settings()
        with Edge(self.bucket) as edge, Proxy(radosgw.port) as self.proxy:
            through = self.proxy.through(self.bucket["storage.endpoint_url"])
            changed = {**self.bucket, "storage.endpoint_url": through, "storage.read_timeout": "1"}
            yield {"pypi.storage": "cloudfront", **edge.settings(changed)}

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        return everything(self.bucket)

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        self.proxy.hang()
        try:
            yield
        finally:
            self.proxy.resume()


def cloudfront(settings: Mapping[str, str], **changes: str) -> S3Storage:
    """The storage of these settings."""
    return s3({**settings, "pypi.storage": "cloudfront"}, **changes)


def test_edge_urls(radosgw: RadosGW) -> None:
    """A URL for the edge is signed with the canned policy, and good for its file and time alone."""
    settings = radosgw.settings()
    with Edge(settings) as edge:
        storage = cloudfront(edge.settings(settings))
        package, other = published(storage, ODD), published(storage, "other-1.0.tar.gz")
        url = storage.redirect_url(package)
        base, _, query = url.partition("?")
        assert base == f"{edge.url}/{quote(package.data['path'], safe='/~')}"
        assert [pair.partition("=")[0] for pair in query.split("&")] == ["Expires", "Signature", "Key-Pair-Id"]
        assert fetch(url) == CONTENT
        assert status(base) == 403
        assert status(f"{storage.redirect_url(other).partition('?')[0]}?{query}") == 403
        assert status(url.replace("Expires=1", "Expires=2")) == 403
        assert status(url.replace("Signature=", "Signature=A", 1)) == 403
        short = cloudfront(edge.settings(settings), expire_after="60")
        expires = int(short.redirect_url(package).partition("Expires=")[2].partition("&")[0])
        assert abs(expires - time.time() - 60) < 5
        assert edge.served == [package.data["path"]]


def test_expired_edge_url(radosgw: RadosGW, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL for the edge is refused once its time is over."""
    settings = radosgw.settings()
    with Edge(settings) as edge:
        storage = cloudfront(edge.settings(settings), expire_after="60")
        package = published(storage)
        earlier = time.time() - 90
        with monkeypatch.context() as patch:
            patch.setattr("pypicloud.storage.s3.cloudfront.time.time", lambda: earlier)
            url = storage.redirect_url(package)
        assert status(url) == 403


def test_public_edge(radosgw: RadosGW) -> None:
    """Without a key URLs are unsigned; a slash too many at the domain does no harm."""
    settings = radosgw.settings()
    with Edge(settings, is_public=True) as edge:
        storage = cloudfront(edge.settings(settings), cloud_front_domain=f"{edge.url}/")
        package = published(storage, ODD)
        url = storage.redirect_url(package)
        assert url == f"{edge.url}/{quote(package.data['path'], safe='/~')}"
        assert fetch(url) == CONTENT


def test_key_files(radosgw: RadosGW, tmp_path: Path) -> None:
    """The key comes from a file, or from the settings, in one line, too."""
    settings = radosgw.settings()
    with Edge(settings) as edge:
        given = edge.settings(settings)
        pem = given.pop("storage.cloud_front_key_string")
        file = tmp_path / "key.pem"
        file.write_text(pem)
        for name, value in (("file", str(file)), ("string", pem.replace("\n", "\\n"))):
            storage = cloudfront(given, **{f"cloud_front_key_{name}": value})
            assert fetch(storage.redirect_url(published(storage, f"{name}-1.0.tar.gz"))) == CONTENT


def pem(key: Any) -> str:
    """A private key as text."""
    encoding, layout = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    text: bytes = key.private_bytes(encoding, layout, serialization.NoEncryption())
    return text.decode()


@pytest.mark.parametrize(
    ("given", "setting", "sentence"),
    [
        ({"domain": "d123.cloudfront.net"}, "domain", "with its scheme"),
        ({"key_id": "K1"}, "key_id", "needs storage.cloud_front_key_file"),
        ({"key_id": "K1", "key_file": "/nowhere/at/all.pem"}, "key_file", "No such file"),
        ({"key_id": "K1", "key_string": "nonsense"}, "key_string", "is no private key"),
        (
            {"key_id": "K1", "key_string": pem(ec.generate_private_key(ec.SECP256R1()))},
            "key_string",
            "must be an RSA key",
        ),
    ],
)
def test_wrong_edge(given: dict[str, str], setting: str, sentence: str) -> None:
    """What is wrong with the settings of an edge is found without reaching for anything, and shows no secret."""
    settings = {"domain": "https://d123.cloudfront.net", **given}
    values = {f"storage.cloud_front_{name}": value for name, value in settings.items()}
    with pytest.raises(SettingError, match=sentence) as caught:
        CloudFrontS3Storage.check(EnvironSettings({"storage.bucket": "my-bucket", **values}, {}))
    assert caught.value.setting == f"storage.cloud_front_{setting}"
    assert "nonsense" not in str(caught.value)
