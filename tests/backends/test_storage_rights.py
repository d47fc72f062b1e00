"""Credentials that lack a right, or are not good any more: what is missing is named to whoever runs the server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from pypicloud.errors import SettingError
from support.builds import build_wheel, wheel_name
from support.services.s3 import plain, statement
from support.storages import StorageWorld, shared_world
from support.trial import INTERNALS
from support.world import Index

#: All that a server needs of S3.
S3_RIGHTS: Final = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")

FILE: Final = f"/api/package/acme/{wheel_name('acme', '1.0')}"


@pytest.fixture(params=["radosgw", "ministack"])
def world(request: pytest.FixtureRequest) -> StorageWorld:
    """A bucket that is there, on a server of S3 that looks at policies."""
    world = shared_world(request.param, request)
    index_of(world, request.getfixturevalue("tmp_path") / "owner").upload_wheel("acme", "0.1")
    return world


def index_of(world: StorageWorld, directory: Path, **changes: str) -> Index:
    """The application on this bucket; it may delete, and sends all bytes itself."""
    directory.mkdir()
    settings = {**world.changes, "pypi__stream_files": "true", "pypi__allow_delete": "true", **changes}
    return Index(directory, **settings)


def without(world: StorageWorld, right: str) -> dict[str, str]:
    """Credentials that have every right but one."""
    allowed = [each for each in S3_RIGHTS if each != right]
    settings = world.service.user(world.settings, statement(*allowed))
    return {key.replace(".", "__"): value for key, value in settings.items()}


@pytest.mark.parametrize(
    ("right", "method"),
    [("s3:PutObject", "POST"), ("s3:GetObject", "GET"), ("s3:DeleteObject", "DELETE")],
)
def test_missing_right(
    right: str, method: str, world: StorageWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What lacks a right is 503 and says no more; the log names the right, and nothing else is disturbed."""
    content = index_of(world, tmp_path / "first").upload_wheel("acme", "1.0")
    index = index_of(
        world, tmp_path / "second", db__url=f"sqlite:///{tmp_path}/first/db.sqlite", **without(world, right)
    )
    if method == "POST":
        answer = index.post(content=build_wheel("acme", "2.0"), filename=wheel_name("acme", "2.0"), status="*")
    elif method == "GET":
        answer = index.get(FILE, Accept="application/json")
    else:
        answer = index.app.delete(FILE, headers=index.headers("alice", {}), expect_errors=True)
    assert answer.status_int == 503, answer.body
    assert not [word for word in (*INTERNALS, right.encode()) if word in answer.body]
    assert right in caplog.text
    assert index.get("/simple/acme/").status_int == 200
    if method != "GET":
        assert index.get(FILE).body == content


def test_missing_at_the_start(world: StorageWorld, tmp_path: Path) -> None:
    """Without the right to look at the bucket the start ends, and names it."""
    with pytest.raises(SettingError) as caught:
        index_of(world, tmp_path / "server", **without(world, "s3:ListBucket"))
    assert "s3:ListBucket" in str(caught.value)
    assert "storage.aws_access_key_id" in str(caught.value)


def test_missing_for_a_listing(world: StorageWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the right to read, a rebuild is 503, the log names the right, and what is known stays."""
    owner = index_of(world, tmp_path / "first")
    owner.upload_wheel("acme", "1.0")
    changes = {"db__url": f"sqlite:///{tmp_path}/first/db.sqlite", **without(world, "s3:GetObject")}
    index = index_of(world, tmp_path / "second", **changes)
    answer = index.app.post("/admin/rebuild", headers=index.headers("root", {}), expect_errors=True)
    assert answer.status_int == 503, answer.body
    assert "s3:GetObject" in caplog.text
    assert wheel_name("acme", "1.0") in index.get("/simple/acme/").text


def test_credentials_that_end(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is taken away is told of by health and in the log; clients hear that the store is not to be had."""
    world = shared_world("ministack", request)
    index_of(world, tmp_path / "owner")
    settings = world.service.user(world.settings, statement(*S3_RIGHTS))
    key = settings["storage.aws_access_key_id"]
    index = index_of(world, tmp_path / "server", **{name.replace(".", "__"): value for name, value in settings.items()})
    index.upload_wheel("acme", "1.0")
    with closing(plain(world.settings, "iam")) as iam:
        (user,) = [each["UserName"] for each in iam.list_users()["Users"] if holds(iam, each["UserName"], key)]
        iam.delete_access_key(UserName=user, AccessKeyId=key)
    answer = index.post(content=build_wheel("acme", "2.0"), filename=wheel_name("acme", "2.0"), status="*")
    assert (answer.status_int, answer.json["message"]) == (503, "the store does not accept the credentials")
    assert "S3 does not accept the credentials" in caplog.text
    health = index.get("/health", user=None)
    assert health.status_int == 500
    assert "credentials" in health.json["storage"]
    assert key not in answer.text + health.text


def holds(iam: Any, user: str, key: str) -> bool:
    """Whether a key is a user's."""
    return key in {each["AccessKeyId"] for each in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}
