"""What all object stores have in common, on a bucket in memory."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from pypicloud.errors import BackendUnavailable, InvalidUpload, NotSupported, SettingError
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.buckets import StoredObject
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import Answer
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.memory_bucket import Killed, MemoryBucket, Service

SETTINGS = {"pypi.storage": "support.memory_bucket.MemoryBucket"}


class TestBucket(StorageContract):
    """The storage contract."""

    limits: ClassVar[frozenset[str]] = frozenset({"redirects"})

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return dict(SETTINGS)

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        return {key: content for key, (_, content) in kwargs["service"].objects.items()}

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        kwargs["service"].is_down = True
        yield
        kwargs["service"].is_down = False

    def is_lesser(self, response: Answer, content: bytes = CONTENT) -> bool:
        """The redirect leads nowhere here."""
        assert response.status == 302
        assert response.headers["Location"].startswith("https://bucket.example/")
        return True


def bucket(**settings: str) -> MemoryBucket:
    """A storage on a bucket of its own."""
    return MemoryBucket(**MemoryBucket.configure(EnvironSettings({**SETTINGS, **settings}, {})))


def put(storage: MemoryBucket, key: str, metadata: Mapping[str, str] | None = None) -> None:
    """Put an object there without the backend."""
    storage._put_object(key, CONTENT, metadata or {}, datetime(2020, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("settings", "filename", "key"),
    [
        ({}, "Foo_Bar-1.0.tar.gz", "fc81/foo-bar/Foo_Bar-1.0.tar.gz"),
        ({}, "zed-1.0.tar.gz", "3ddf/foo-bar/zed-1.0.tar.gz"),
        ({"storage.prefix": "packages"}, "foo-1.0-py3-none-any.whl", "packagesc424/foo-bar/foo-1.0-py3-none-any.whl"),
        ({"storage.prepend_hash": "false", "storage.prefix": "a/"}, "x-1.zip", "a/foo-bar/x-1.zip"),
        ({"pypi.prepend_hash": "false"}, "x-1.zip", "foo-bar/x-1.zip"),
    ],
)
def test_keys(settings: dict[str, str], filename: str, key: str) -> None:
    """Keys are as 1.3.12 made them, the prefix as it stands (compat.md 2.2)."""
    assert bucket(**settings).calculate_path(Package("Foo.Bar", "1.0", filename)) == key


def test_the_key_that_was_found_wins() -> None:
    """A file that lies where older settings put it is read, changed, replaced and deleted there (compat.md 2.2)."""
    storage = bucket()
    put(storage, "old/foo-1.0.tar.gz", {"name": "foo", "version": "1.0"})
    (package,) = storage.list()
    assert package.data["path"] == "old/foo-1.0.tar.gz"
    package.data["yanked"] = True
    storage.update_metadata(package)
    storage.publish(make_package(path="old/foo-1.0.tar.gz"), io.BytesIO(b"new"), {"metadata": b"m"}, replace=True)
    assert {key.partition("/")[0] for key in storage.service.objects} == {"old"}
    with storage.open(package) as stream:
        assert stream.read() == b"new"
    storage.delete(package)
    assert storage.service.objects == {}


def test_a_key_of_another_store_is_not_believed() -> None:
    """A package that was listed by another storage gets the key that it has here."""
    storage = bucket()
    for replace in (False, True):
        package = make_package(path="elsewhere/foo-1.0.tar.gz")
        storage.publish(package, io.BytesIO(CONTENT), replace=replace)
        assert list(storage.service.objects) == [package.data["path"]] == [storage.calculate_path(make_package())]


def test_objects_of_others(caplog: pytest.LogCaptureFixture) -> None:
    """What is no package is left out, counted and named; directory marks and companions are no strangers."""
    storage = bucket()
    for key in (
        "readme.txt",
        "a/foo.whl",
        "a/b\n-1.0.zip",
        ".hidden-1.0.zip",
        "a/",
        "x-1.0.zip." + "0" * 32 + ".metadata",
    ):
        put(storage, key)
    put(storage, "y/x-1.0.zip")
    with caplog.at_level(logging.WARNING):
        assert [package.filename for package in storage.list()] == ["x-1.0.zip"]
    assert storage.unreadable_count == 4
    assert "'readme.txt'" in caplog.text


def test_objects_without_facts() -> None:
    """An object that nothing is written on is what its name says, and its own time counts (compat.md 2.3)."""
    storage = bucket()
    put(storage, "ab12/foo/Foo_Bar-1.0.tar.gz")
    (package,) = storage.list()
    assert (package.name, package.version) == ("foo-bar", "1.0")
    assert package.last_modified == datetime(2020, 1, 2, tzinfo=UTC)
    assert package.data == {"size": len(CONTENT), "path": "ab12/foo/Foo_Bar-1.0.tar.gz"}


@pytest.mark.parametrize("facts", ["{", "[1]", '{"upload_time": "never", "size": 3, "path": "x", "summary": 7}'])
def test_broken_facts(facts: str) -> None:
    """Facts that cannot be read, or would say what the object itself says better, are not believed."""
    storage = bucket()
    put(storage, "k/foo-1.0.zip", {"name": "foo", "version": "1.0", "facts": facts})
    (package,) = storage.list()
    assert package.data == {"size": len(CONTENT), "path": "k/foo-1.0.zip"}
    assert (package.summary, package.last_modified) == (None, datetime(2020, 1, 2, tzinfo=UTC))


def test_a_long_summary() -> None:
    """A summary that is too long is cut in the metadata, and the package says so at once."""
    storage = bucket()
    package = make_package(summary="ünïcode " * 500, requires_python=">=3.11", yanked="broken")
    storage.publish(package, io.BytesIO(CONTENT))
    (listed,) = storage.list()
    assert listed.summary == package.summary
    assert package.summary is not None
    assert package.summary.endswith("...")
    assert len(package.summary) > 100
    assert listed.data == package.data


def test_facts_that_do_not_fit() -> None:
    """What is too much even without a summary is refused, and the file with it."""
    storage = bucket()
    with pytest.raises(InvalidUpload, match=r"take 2[0-9]{3} bytes, and the storage keeps 2048"):
        storage.publish(make_package(summary="s", uploader="u" * 2000), io.BytesIO(CONTENT), {"metadata": b"m"})
    assert storage.service.objects == {}


def stored_facts(storage: MemoryBucket) -> dict[str, tuple[bytes, str | None, bytes | None]]:
    """The bytes, the summary and the companion of every file that is listed."""
    found = {}
    for package in storage.list():
        beside = storage.open_companion(package, "metadata")
        with storage.open(package) as stream:
            found[package.filename] = (stream.read(), package.summary, None if beside is None else beside.read())
        if "core_metadata" in package.data:
            assert beside is not None
    return found


def first(storage: MemoryBucket) -> None:
    storage.publish(make_package(content=b"old", summary="old"), io.BytesIO(b"old"), {"metadata": b"o"})


def replace(storage: MemoryBucket) -> None:
    storage.publish(make_package(content=b"new", summary="new"), io.BytesIO(b"new"), {"metadata": b"n"}, replace=True)


def delete(storage: MemoryBucket) -> None:
    storage.delete(make_package())


def companion(storage: MemoryBucket) -> None:
    storage.upload_companion(make_package(content=b"old"), "metadata", b"n")


OLD = {"foo-1.0.tar.gz": (b"old", "old", b"o")}


@pytest.mark.parametrize(
    ("before", "work", "after"),
    [
        ((), first, OLD),
        ((first,), replace, {"foo-1.0.tar.gz": (b"new", "new", b"n")}),
        ((first,), delete, {}),
        ((first,), companion, {"foo-1.0.tar.gz": (b"old", "old", b"n")}),
    ],
    ids=["publish", "replace", "delete", "companion"],
)
def test_a_process_that_is_killed(
    before: tuple[Callable[[MemoryBucket], None], ...],
    work: Callable[[MemoryBucket], None],
    after: dict[str, tuple[bytes, str | None, bytes | None]],
) -> None:
    """Killed before any change, a process leaves what was there or what was to be, and a rerun finishes it."""
    for stop_before in range(1, 20):
        storage = bucket()
        for each in before:
            each(storage)
        was = stored_facts(storage)
        service = storage.service
        service.changes, service.stop_before = 0, stop_before
        with contextlib.suppress(Killed):
            work(storage)
        is_done = service.changes < stop_before
        service.stop_before = None
        assert stored_facts(storage) in ((after,) if is_done else (was, after))
        if not is_done and stored_facts(storage) != after:
            work(storage)
        assert stored_facts(storage) == after
        if is_done:
            assert stop_before > 2
            return
    raise AssertionError("more changes than anybody needs")


def test_nothing_is_left_of_what_is_deleted_later() -> None:
    """What a killed process left beside a file goes with the file."""
    storage = bucket()
    first(storage)
    storage.service.changes, storage.service.stop_before = 0, 2
    with contextlib.suppress(Killed):
        replace(storage)
    storage.service.stop_before = None
    assert len(storage.service.objects) == 3
    delete(storage)
    assert storage.service.objects == {}


def test_facts_of_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts and companions are not written on a file that was replaced since they were looked at."""

    def late(self: MemoryBucket, found: StoredObject, metadata: Mapping[str, str]) -> None:
        replace(self)
        write(self, found, metadata)

    write = MemoryBucket._write_metadata
    for is_late in (False, True):
        storage = bucket()
        for change, what in ((MemoryBucket.update_metadata, ()), (MemoryBucket.upload_companion, ("metadata", b"x"))):
            storage.publish(make_package(content=b"old"), io.BytesIO(b"old"), replace=True)
            (package,) = storage.list()
            package.summary = "late"
            with monkeypatch.context() as patch:
                if is_late:
                    patch.setattr(MemoryBucket, "_write_metadata", late)
                else:
                    replace(storage)
                with pytest.raises(BackendUnavailable, match="replaced at the same moment") as raised:
                    change(storage, package, *what)
            assert raised.value.retry_after == 1
            assert stored_facts(storage)["foo-1.0.tar.gz"] == (b"new", "new", b"n")


@pytest.mark.parametrize("work", [replace, delete, companion])
def test_companions_of_others(work: Callable[[MemoryBucket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes out of use with a file stays if another server has just stored one that it goes with."""
    storage = bucket()
    first(storage)
    drop = MemoryBucket._drop

    def late(self: MemoryBucket, key: str, companions: Collection[str]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryBucket, "_drop", drop)
            # The same core metadata as before, as those of a wheel that is built anew are.
            self.publish(make_package(content=b"anew"), io.BytesIO(b"anew"), {"metadata": b"o"}, replace=True)
        drop(self, key, companions)

    monkeypatch.setattr(MemoryBucket, "_drop", late)
    work(storage)
    assert stored_facts(storage) == {"foo-1.0.tar.gz": (b"anew", None, b"o")}


def test_names_and_kinds_that_would_be_mistaken() -> None:
    """A file that is named like a companion is refused, and so is a companion of an unknown kind."""
    storage = bucket()
    with pytest.raises(InvalidUpload, match="rename it"):
        storage.publish(make_package(filename="x-1.0.zip." + "0" * 32 + ".metadata"), io.BytesIO(b"x"))
    with pytest.raises(NotSupported, match="'signature'"):
        storage.publish(make_package(), io.BytesIO(b"x"), {"signature": b""})
    assert storage.service.objects == {}


def test_packages_by_key() -> None:
    """A key leads to the package that lies there, if it is one and is ours."""
    storage = bucket(**{"storage.prefix": "mine/"})
    package = make_package()
    storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"m"})
    assert storage.package_at(package.data["path"]) == package
    for key in storage.service.objects.keys() - {package.data["path"]}:
        assert storage.package_at(key) is None
    put(storage, "other/foo-1.0.zip")
    assert storage.package_at("other/foo-1.0.zip") is None
    assert storage.package_at("mine/nothing-1.0.zip") is None


def test_what_others_have_written_stays() -> None:
    """New facts take nothing away but the old ones, in whichever spelling: what other tools have written stays."""
    storage = bucket()
    put(
        storage,
        "k/foo-1.0.zip",
        {"name": "foo", "version": "1.0", "requires_python": ">=2", "mtime": "17", "Colour": "red"},
    )
    (package,) = storage.list()
    package.data |= {"requires_python": ">=3", "yanked": True}
    storage.update_metadata(package)
    metadata = storage.service.objects["k/foo-1.0.zip"][0].metadata
    assert {name: metadata.get(name) for name in ("requires_python", "requires-python", "mtime", "Colour")} == {
        "requires_python": None,
        "requires-python": ">=3",
        "mtime": "17",
        "Colour": "red",
    }


def test_signed_urls_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is signed once in a while, and has at least half of its life before it when it is given away."""
    storage = bucket(**{"storage.expire_after": "60"})
    package = make_package()
    url = storage.redirect_url(package)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 29)
    assert storage.redirect_url(package) == url
    monkeypatch.setattr(time, "monotonic", lambda: now + 31)
    assert storage.redirect_url(package) != url


@pytest.mark.parametrize("life", ["0", "-1"])
def test_urls_that_never_live(life: str) -> None:
    """A life with which a URL would be expired when it is made stops the start."""
    with pytest.raises(SettingError, match="must") as caught:
        bucket(**{"storage.expire_after": life})
    assert (caught.value.setting, caught.value.value) == ("storage.expire_after", life)


def test_urls_that_live_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """A life that the service does not allow is cut to what it does, with a warning (compat.md 2.4)."""
    assert bucket(**{"storage.expire_after": "999999999"}).expire_after == 604800
    assert "storage.expire_after = 999999999" in caplog.text


def test_urls_that_live_for_ever(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the service allows any life it is cut to a century, as the end of a URL has to be a date."""
    monkeypatch.setattr(MemoryBucket, "longest_expiry", None)
    assert bucket(**{"storage.expire_after": "3000000000"}).expire_after == 3000000000
    assert bucket(**{"storage.expire_after": "999999999999"}).expire_after == 3153600000
    assert "storage.expire_after = 999999999999" in caplog.text


def test_own_urls() -> None:
    """Pages may link to the store itself; the digest goes with the link (compat.md 2.4)."""
    storage = bucket(**{"storage.redirect_urls": "false"})
    package = make_package()
    assert storage.has_own_urls
    assert storage.get_url(package) == f"{storage.redirect_url(package)}#sha256={package.data['hash_sha256']}"


def test_service_is_separate() -> None:
    """Two storages are two buckets."""
    assert isinstance(bucket().service, Service)
    assert bucket().service is not bucket().service
