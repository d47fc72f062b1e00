"""The start of a server whose files are in S3: the bucket, the options of boto3, and everything that can be wrong."""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.validate import ParamValidationDecorator

from doc_pages import marked
from pypicloud.declared import check as check_all
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.storage import S3Storage
from pypicloud.storage.s3.connection import connected
from pypicloud.storage.s3.errors import S3Unavailable
from pypicloud.storage.s3.lean import Lean
from pypicloud.storage.s3.plan import plan
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.certificates import make_certificate
from support.dynamo import one_loader
from support.s3 import everything, looking, put, s3
from support.services.proxy import Proxy
from support.services.s3 import S3Service, statement
from support.services.web import Question, Reply, Web

if TYPE_CHECKING:
    from support.services.aws import MiniStack
    from support.services.radosgw import RadosGW


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


def wrong(settings: dict[str, str], **changes: str) -> SettingError:
    """What stops the start."""
    with pytest.raises(SettingError) as caught:
        s3(settings, **changes)
    return caught.value


# The bucket


@pytest.mark.parametrize(("region", "place"), [("us-east-1", None), ("eu-west-1", "eu-west-1")])
def test_a_missing_bucket_is_made(ministack: MiniStack, region: str, place: str | None) -> None:
    """A bucket that is missing is made, where the region says; one that is there is left alone."""
    settings = {**ministack.settings(), "storage.region_name": region}
    s3(settings)
    put(settings, "notes.txt")
    s3(settings)
    with looking(settings) as client:
        assert client.get_bucket_location(Bucket=settings["storage.bucket"])["LocationConstraint"] == place
    assert everything(settings) == {"notes.txt": b"x"}


def test_a_bucket_for_acls(ministack: MiniStack) -> None:
    """A bucket that is made for objects with an ACL allows ACLs, which Amazon's own default does not."""
    settings = ministack.settings()
    s3(settings, object_acl="bucket-owner-full-control")
    with looking(settings) as client:
        controls = client.get_bucket_ownership_controls(Bucket=settings["storage.bucket"])["OwnershipControls"]
    assert controls["Rules"] == [{"ObjectOwnership": "ObjectWriter"}]


@pytest.fixture
def at_amazon(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a bucket in Ireland, of which boto3 thinks that it is Amazon's."""
    settings = {**ministack.settings(), "storage.region_name": "eu-west-1"}
    s3(settings)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", settings.pop("storage.endpoint_url"))
    return settings


def test_the_wrong_region(at_amazon: dict[str, str]) -> None:
    """A bucket that is in another region than the settings say stops the start, which says where it is."""
    error = wrong(at_amazon, region_name="ap-south-1")
    assert error.setting == "storage.region_name"
    assert "'ap-south-1'" in str(error)
    assert "is in eu-west-1" in str(error)


def test_no_region(at_amazon: dict[str, str]) -> None:
    """Without a region it is that of the bucket."""
    del at_amazon["storage.region_name"]
    assert s3(at_amazon).client.meta.region_name == "eu-west-1"


def test_another_region_elsewhere(ministack: MiniStack, caplog: pytest.LogCaptureFixture) -> None:
    """On another server than Amazon's a region that does not fit is a warning."""
    settings = {**ministack.settings(), "storage.region_name": "eu-west-1"}
    s3(settings)
    s3(settings, region_name="ap-south-1")
    assert "is in eu-west-1" in caplog.text


class Console(Web):
    """What is not S3 answers, with a page for people."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self._reply = Reply(status, b"<!doctype html>", {"Content-Type": "text/html; charset=utf-8"})

    def answer(self, question: Question) -> Reply:
        return self._reply


@pytest.mark.parametrize(("status", "operation"), [(200, "HeadBucket"), (404, "CreateBucket"), (405, "HeadBucket")])
def test_a_web_page(radosgw: RadosGW, status: int, operation: str) -> None:
    """An address at which there is something else than S3, such as the console of a store, is named with what it is."""
    with Console(status) as console:
        error = wrong(radosgw.settings(), endpoint_url=console.url)
    assert error.setting == "storage.endpoint_url"
    assert console.url in str(error)
    assert f"a web page answers {operation} ({status})" in str(error)


class Choosy(Web):
    """A store that has no bucket, and makes none because of something that it does not like."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code

    def answer(self, question: Question) -> Reply:
        if question.method == "HEAD":
            return Reply(404)
        body = f"<Error><Code>{self._code}</Code></Error>".encode()
        return Reply(400, body, {"Content-Type": "application/xml"})


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("AccessControlListNotSupported", "object_acl", "public-read"),
        ("InvalidStorageClass", "storage_class", "COLD"),
        ("InvalidLocationConstraint", "region_name", "eu-west-1"),
        ("InvalidAccessKeyId", "aws_access_key_id", None),
    ],
)
def test_what_a_store_does_not_like(radosgw: RadosGW, code: str, name: str, value: str | None) -> None:
    """Whatever setting a store refuses at the start is named, with its value and where that stands."""
    with Choosy(code) as store:
        error = wrong(radosgw.settings(), endpoint_url=store.url, **({} if value is None else {name: value}))
    expected = value or radosgw.settings()[f"storage.{name}"]
    assert str(error).startswith(f"storage.{name} = {expected!r} (settings): ")


def test_a_page_of_a_proxy(radosgw: RadosGW) -> None:
    """While a proxy says in a page of its own that the store is away, the store is busy."""
    with Console(503) as console:
        assert "too busy" in str(wrong(radosgw.settings(), endpoint_url=console.url, max_attempts="1"))


# Who may do what


def test_no_credentials(radosgw: RadosGW) -> None:
    """Without credentials the start ends and says where they can stand."""
    settings = {key: value for key, value in radosgw.settings().items() if not key.startswith("storage.aws")}
    assert "set AWS_ACCESS_KEY_ID" in str(wrong(settings))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_access_key_id": "nobody"}, "InvalidAccessKeyId"),
    ],
)
def test_wrong_credentials(radosgw: RadosGW, changes: dict[str, str], code: str) -> None:
    """Credentials that the store does not accept stop the start, which says so in the store's word."""
    settings = radosgw.settings()
    s3(settings)
    error = wrong(settings, **changes)
    assert error.setting == "storage.aws_access_key_id"
    assert f"does not accept the credentials ({code})" in str(error)
    assert "wrong" not in str(error)


@pytest.fixture(params=["radosgw", "ministack"])
def strict(request: pytest.FixtureRequest) -> Any:
    """Each server that knows who may do what."""
    return request.getfixturevalue(request.param)


def test_rights_at_the_start(strict: Any) -> None:
    """Who may not look at the bucket is told the right that is missing."""
    settings = strict.settings()
    s3(settings)
    error = wrong(strict.user(settings, statement("s3:GetObject")))
    assert error.setting == "storage.aws_access_key_id"
    assert "may not do s3:ListBucket" in str(error)


ACTIONS = {
    "s3:PutObject": lambda storage: storage.publish(make_package("new"), io.BytesIO(CONTENT)),
    "s3:DeleteObject": lambda storage: storage.delete(make_package()),
    "s3:GetObject": lambda storage: storage.stored(make_package()),
}


@pytest.mark.parametrize("missing", ACTIONS)
def test_rights_later(strict: Any, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    """A right that turns out to be missing is named in the log, and is not the client's fault."""
    settings = strict.settings()
    s3(settings).publish(make_package(), io.BytesIO(CONTENT))
    allowed = [action for action in ("s3:ListBucket", *ACTIONS) if action != missing]
    storage = s3(strict.user(settings, statement(*allowed)))
    with pytest.raises(S3Unavailable) as caught:
        ACTIONS[missing](storage)
    assert f"storage.aws_access_key_id: its owner may not do {missing}" in caplog.text
    assert missing not in caught.value.message


def test_documented_rights(ministack: MiniStack) -> None:
    """Who has the rights on the page about S3, and no other, can do all that a server does."""
    settings = ministack.settings()
    statements = json.loads(marked("rights: s3").replace("acme-packages", settings["storage.bucket"]))["Statement"]
    storage = s3(ministack.user(settings, *statements), multipart_threshold="5M", multipart_chunksize="5M")
    for content in (CONTENT, bytes(6 << 20)):
        package = make_package(content=content)
        storage.publish(package, io.BytesIO(content), {"metadata": b"m"}, replace=True)
        storage.update_metadata(package)
    assert [found.data["size"] for found in storage.list()] == [6 << 20]
    with storage.open(package) as stream:
        assert len(stream.read()) == 6 << 20
    storage.delete(package)
    assert everything(settings) == {}


def test_rights_and_health(radosgw: RadosGW) -> None:
    """Health says what is missing, and that the bucket is gone."""
    settings = radosgw.settings()
    storage = s3(settings)
    storage.client = s3(radosgw.user(settings, statement("s3:ListBucket"))).client
    assert storage.check_health() == (True, "")
    storage = s3(settings)
    with looking(settings) as client:
        client.delete_bucket(Bucket=settings["storage.bucket"])
    assert storage.check_health() == (False, "there is no such bucket")
    with pytest.raises(BackendUnavailable, match="no bucket"):
        list(storage.list())
    with pytest.raises(BackendUnavailable, match="no bucket"):
        storage.publish(make_package(), io.BytesIO(CONTENT))


# Settings


@pytest.mark.parametrize(
    ("changes", "setting", "sentence"),
    [
        ({"bucket": "a"}, "bucket", "is no name of a bucket"),
        ({"bucket": "s3://my-bucket"}, "bucket", "is no name of a bucket"),
        ({"aws_secret_access_key": ""}, "aws_access_key_id", "needs storage.aws_secret_access_key"),
        ({"aws_access_key_id": ""}, "aws_secret_access_key", "needs storage.aws_access_key_id"),
        ({"endpoint_url": "minio.example:9000"}, "endpoint_url", "must be an address like"),
        ({"sse_kms_key_id": "k"}, "sse_kms_key_id", "needs storage.server_side_encryption = aws:kms"),
        ({"multipart_chunksize": "1M"}, "multipart_chunksize", "from 5M to 5G"),
        ({"multipart_threshold": "6G"}, "multipart_threshold", "at most 5G"),
        ({"listing_threads": "0"}, "listing_threads", "at least 1"),
        ({"max_concurrency": "0"}, "max_concurrency", "at least 1"),
        ({"max_pool_connections": "0"}, "max_pool_connections", "at least 1"),
        ({"max_attempts": "0"}, "max_attempts", "at least 1"),
        ({"addressing_style": "virtul"}, "addressing_style", "did you mean 'virtual'"),
        ({"proxies": "http://proxy.example"}, "proxies", "key=value"),
        ({"client_cert": "a b c"}, "client_cert", "a certificate and that of its key"),
        ({"read_timeout": "soon"}, "read_timeout", "whole number"),
    ],
)
def test_wrong_settings(changes: dict[str, str], setting: str, sentence: str) -> None:
    """What cannot work is found without reaching for anything, and named."""
    given = {"bucket": "my-bucket", "aws_access_key_id": "key", "aws_secret_access_key": "secret", **changes}
    values = {f"storage.{name}": value for name, value in given.items() if value}
    settings = EnvironSettings({"pypi.storage": "s3", "db.url": "sqlite://", **values}, {})
    [error] = check_all(settings)[1]
    assert error.setting == f"storage.{setting}"
    assert sentence in str(error)


def test_no_profile() -> None:
    """A profile that AWS's configuration files do not have is named."""
    with pytest.raises(SettingError, match="'nobody': there is no such profile"):
        connected("my-bucket", EnvironSettings({"storage.profile_name": "nobody"}, {}))


def test_wrong_option_of_boto() -> None:
    """What boto3 does not accept stops the start with its words."""
    with pytest.raises(SettingError, match="S3 cannot be used"):
        connected("my-bucket", EnvironSettings({"storage.api_version": "1999-01-01"}, {}))


def test_options_of_boto() -> None:
    """Every option of boto3 gets there, in its type (compat.md 1.4)."""
    given = {
        "region_name": "eu-west-1",
        "endpoint_url": "https://s3.example",
        "use_ssl": "no",
        "verify": "/etc/ca.pem",
        "signature_version": "s3",
        "user_agent": "ours",
        "user_agent_extra": "more",
        "user_agent_appid": "id",
        "connect_timeout": "7",
        "read_timeout": "8",
        "max_pool_connections": "9",
        "parameter_validation": "false",
        "proxies": "http=http://a.example:1\nhttps=http://b.example:2",
        "client_cert": "/a.pem /a.key",
        "tcp_keepalive": "true",
        "request_checksum_calculation": "when_supported",
        "use_accelerate_endpoint": "false",
        "payload_signing_enabled": "yes",
        "addressing_style": "path",
        "max_attempts": "6",
        "retry_mode": "adaptive",
        "proxy_ca_bundle": "/p.pem",
        "proxy_use_forwarding_for_https": "true",
    }
    settings = EnvironSettings({f"storage.{name}": value for name, value in given.items()}, {})
    client = connected("my-bucket", settings).meta.client
    config = client.meta.config
    assert client.meta.endpoint_url == "https://s3.example"
    assert client._endpoint.http_session._verify == "/etc/ca.pem"
    assert (config.region_name, config.signature_version) == ("eu-west-1", "s3")
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (7, 8, 9)
    assert config.user_agent.startswith("ours")
    assert config.user_agent_extra == "more"
    assert config.user_agent_appid == "id"
    assert not isinstance(client._serializer, ParamValidationDecorator)
    assert config.proxies == {"http": "http://a.example:1", "https": "http://b.example:2"}
    assert config.proxies_config == {"proxy_ca_bundle": "/p.pem", "proxy_use_forwarding_for_https": True}
    assert config.client_cert == ("/a.pem", "/a.key")
    assert config.tcp_keepalive is True
    assert config.request_checksum_calculation == "when_supported"
    assert config.response_checksum_validation == "when_required"
    assert config.retries == {"total_max_attempts": 6, "mode": "adaptive"}
    assert config.s3["payload_signing_enabled"] is True
    assert config.s3["addressing_style"] == "path"


def test_defaults_of_boto() -> None:
    """What nobody sets is bounded in time and tries, and is signed as Amazon wants it by now."""
    config = connected("my-bucket", EnvironSettings({}, {})).meta.client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 15)
    assert config.retries == {"total_max_attempts": 3, "mode": "standard"}
    assert config.signature_version == "s3v4"
    assert config.request_checksum_calculation == "when_supported"


@pytest.mark.parametrize(("word", "verify"), [("no", False), ("true", True), ("/a/b.pem", "/a/b.pem")])
def test_verify(word: str, verify: bool | str) -> None:
    """A word says whether certificates are checked, anything else is the file of those to trust."""
    client = connected("my-bucket", EnvironSettings({"storage.verify": word}, {})).meta.client
    assert client._endpoint.http_session._verify == verify


def test_odd_settings(moto: S3Service, caplog: pytest.LogCaptureFixture) -> None:
    """Words that S3 is not known to understand are sent, and named in a warning, as is a class that cannot be read."""
    s3(moto.settings(), server_side_encryption="rot13", object_acl="everybody", storage_class="GLACIER")
    assert "storage.server_side_encryption = 'rot13' is no encryption" in caplog.text
    assert "storage.object_acl = 'everybody' is no canned ACL" in caplog.text
    assert "storage.storage_class = 'GLACIER': nothing can be downloaded" in caplog.text


def test_a_dot_in_the_name(at_amazon: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """A bucket with a dot in its name is used, with a word on its URLs."""
    storage = s3(at_amazon, bucket="my.bucket")
    assert "storage.bucket = 'my.bucket' has a dot" in caplog.text
    assert storage.redirect_url(make_package()).partition("?")[0].endswith("/my.bucket/f3a9/foo/foo-1.0.tar.gz")


def test_older_names(radosgw: RadosGW) -> None:
    """The names that settings once had still work (compat.md 1.10)."""
    older = {
        "storage.bucket": "aws.bucket",
        "storage.region_name": "storage.region",
        "storage.aws_access_key_id": "storage.access_key",
        "storage.aws_secret_access_key": "aws.secret_key",
    }
    settings = {older.get(key, key): value for key, value in radosgw.settings().items()}
    assert list(s3(settings).list()) == []


def test_nothing_is_imported_early() -> None:
    """Who keeps files elsewhere loads neither boto3 nor what speaks HTTP."""
    code = """
import sys
import pypicloud.storage.s3
print(sorted({"boto3", "botocore", "cryptography", "urllib3", "asyncio", "s3transfer"} & sys.modules.keys()))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_get_bucket(radosgw: RadosGW) -> None:
    """The documented way to the bucket gives a resource of boto3, with which a storage can be made (compat.md 8.3)."""
    settings = EnvironSettings(radosgw.settings("documented"), {})
    bucket = S3Storage.get_bucket("documented", settings)
    storage = S3Storage(None, bucket=bucket, prepend_hash=False)
    package = make_package()
    storage.publish(package, io.BytesIO(CONTENT))
    assert bucket.Object("foo/foo-1.0.tar.gz").content_length == len(CONTENT)


def test_tls(radosgw: RadosGW, tmp_path: Path) -> None:
    """Over HTTPS all goes as it does without: uploads, facts, listing, downloads; who is not trusted is not used."""
    certificate = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.chain, certificate.key)
    settings = radosgw.settings()
    with Proxy(radosgw.port, tls) as proxy:
        there = {**settings, "storage.endpoint_url": f"https://127.0.0.1:{proxy.port}"}
        error = wrong(there, max_attempts="1")
        assert error.setting == "storage.endpoint_url"
        assert "SSLError" in str(error)
        storage = s3(there, verify=str(certificate.authority))
        way = plan(storage.bucket)
        assert way is not None
        with Lean(way, 2) as lean:
            assert lean.answers(["nothing"])["nothing"][0] == 404
        package = make_package(content=bytes(6 << 20))
        storage.publish(package, io.BytesIO(bytes(6 << 20)), {"metadata": b"m"})
        storage.update_metadata(package)
        assert [found.data["size"] for found in storage.list()] == [6 << 20]
        with storage.open(package) as stream:
            assert stream.read() == bytes(6 << 20)
        storage.client.close()
