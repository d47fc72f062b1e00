"""The address at which an object store tells of changes in the bucket."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from webtest import TestResponse

from pypicloud.errors import SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.storage.object_store import WEBHOOK_SECRET
from support.bucket import WatchedBucket
from support.world import Index

SECRET = "0123456789abcdef"
KEY = "a+b/acme/acme-1.0+local.tar.gz"
EVENT = json.dumps({"Records": [{"eventSource": "ceph:s3", "s3": {"object": {"key": KEY}}}]}).encode()
BEARER = f"Bearer {SECRET}"


class Bucketful:
    """An index over a bucket, which others write to as well."""

    def __init__(self, directory: Path, secret: str | None = SECRET) -> None:
        self.index = Index(
            directory, storage__dir=None, pypi__storage="support.bucket:WatchedBucket", storage__webhook_secret=secret
        )
        self.cache = self.index.wsgi.registry.pypicloud.cache_factory(None)
        self.bucket: WatchedBucket = self.cache.storage

    def tell(
        self, body: bytes = EVENT, authorization: str | None = BEARER, path: str = "/api/events/s3", **options: Any
    ) -> TestResponse:
        """What a store sends, and the answer."""
        headers = {"Content-Type": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        return self.index.app.post(path, body, headers=headers, expect_errors=True, **options)

    def names(self) -> list[str]:
        """The files of acme that the server shows."""
        page = self.index.get("/simple/acme/json")
        return [link["filename"] for link in page.json["urls"]] if page.status_int == 200 else []


@pytest.fixture
def world(tmp_path: Path) -> Bucketful:
    """An index over an empty bucket."""
    return Bucketful(tmp_path)


def test_appears_and_vanishes(world: Bucketful) -> None:
    """An object is on its project's page when the store has been answered, and gone when it is told of that."""
    assert world.names() == []
    world.bucket.put(KEY, name="acme", version="1.0+local")
    answer = world.tell()
    assert (answer.status_int, answer.body) == (200, b"")
    assert world.names() == ["acme-1.0+local.tar.gz"]
    world.bucket.service.objects.clear()
    assert world.tell().status_int == 200
    assert world.names() == []


def basic(user: str, password: str) -> str:
    """The header of Basic credentials."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "path"),
    [
        (BEARER, "/api/events/s3"),
        (f"bearer  {SECRET}", "/api/events/s3/"),
        (basic("anybody", SECRET), "/api/events/s3"),
        (basic("", SECRET), "/api/events/s3"),
        (None, f"/api/events/s3?token={SECRET}"),
    ],
)
def test_secret(world: Bucketful, authorization: str | None, path: str) -> None:
    """The secret may come as a token, as a Basic password, and in the query."""
    assert world.tell(authorization=authorization, path=path).status_int == 200


@pytest.mark.parametrize(
    ("authorization", "path"),
    [
        (None, "/api/events/s3"),
        (None, "/api/events/s3?token="),
        (None, f"/api/events/s3?token={SECRET}x"),
        (None, "/api/events/s3?token=%E2%82%AC"),
        ("Bearer", "/api/events/s3"),
        ("Bearer wrong", f"/api/events/s3?token={SECRET}"),
        ("Bearer \xe9", "/api/events/s3"),
        (SECRET, "/api/events/s3"),
        (basic(SECRET, ""), "/api/events/s3"),
        (basic("root", "rootroot"), "/api/events/s3"),
    ],
)
def test_wrong_secret(world: Bucketful, authorization: str | None, path: str) -> None:
    """Without the secret nothing is looked at, whoever else it is, and the answer does not tell the secret."""
    answer = world.tell(authorization=authorization, path=path)
    assert (answer.status_int, answer.json["error"]) == (403, "forbidden")
    assert SECRET not in answer.text
    assert world.bucket.asked == []


def test_no_secret(tmp_path: Path) -> None:
    """Without the setting there is no such address."""
    answer = Bucketful(tmp_path, secret=None).tell()
    assert (answer.status_int, answer.json["error"]) == (404, "not-found")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[1]", b'{"Records": [{"s3": {}}]}'])
def test_no_event(world: Bucketful, body: bytes) -> None:
    """What is no event is 400, which says so."""
    answer = world.tell(body)
    assert (answer.status_int, answer.json["error"]) == (400, "bad-request")
    assert "no event of S3" in answer.json["message"]


def test_large(world: Bucketful) -> None:
    """A body that is too large for an event is refused."""
    answer = world.tell(b" " * 65537)
    assert (answer.status_int, answer.json["error"]) == (413, "too-large")


def test_a_bucket_that_fails(world: Bucketful) -> None:
    """While the bucket does not answer it is 503, so that the store sends it again."""
    world.bucket.service.is_down = True
    answer = world.tell()
    assert (answer.status_int, answer.json["error"]) == (503, "backend-unavailable")


def test_other_storage(tmp_path: Path) -> None:
    """A storage that is no bucket says that it has no events."""
    index = Index(tmp_path, storage__webhook_secret=SECRET)
    answer = index.app.post("/api/events/s3", EVENT, headers={"Authorization": BEARER}, expect_errors=True)
    assert (answer.status_int, answer.json["error"]) == (501, "not-supported")


@pytest.mark.parametrize("secret", ["short", "0123456789abcde\u00e9", "0123456789abcdef\n"])
def test_weak_secrets(secret: str) -> None:
    """A secret that can be guessed, or cannot be sent, stops the start, and is not shown."""
    with pytest.raises(SettingError, match="at least 16 plain characters") as caught:
        WEBHOOK_SECRET.read(EnvironSettings({"storage.webhook_secret": secret}, env={}))
    assert secret.strip() not in str(caught.value)
