"""Decisions of the index that no request reaches: races, half failures, and what the memory of pages may give."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pypicloud.cache.sql import SQLCache
from pypicloud.errors import (
    BackendUnavailable,
    FileExists,
    Forbidden,
    LoginRequired,
    PackageNotFound,
    ProjectNotFound,
    PypicloudError,
    StorageFull,
)
from pypicloud.index import PackageIndex
from pypicloud.models import ANONYMOUS, Caller, Package, Redirect, Upload
from pypicloud.render import Format
from pypicloud.request import PypicloudRequest
from pypicloud.storage.files import FileStorage
from support.builds import build_wheel, wheel_name
from support.world import Index, basic

WHEEL = wheel_name("acme", "1.0")


def seen_by(world: Index, user: str | None) -> tuple[PackageIndex, Caller]:
    """The index as it is made for a request of a user, and who that is."""
    request = PypicloudRequest.blank("/", headers={} if user is None else basic(user))
    request.registry = world.wsgi.registry
    return request.index, request.caller


def spooled(folder: Path, content: bytes, filename: str = WHEEL) -> Upload:
    """An upload whose bytes are in a file."""
    path = folder / f"spool-{hashlib.md5(content).hexdigest()}-{threading.get_ident()}"
    path.write_bytes(content)
    digests = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
    return Upload(filename, str(path), len(content), digests)


def upload(world: Index, content: bytes, user: str = "alice") -> Package:
    """Upload as a user."""
    index, caller = seen_by(world, user)
    return index.upload(caller, spooled(world.directory, content))


def stored_bytes(world: Index) -> bytes:
    """The bytes that are stored under the one name."""
    return (world.directory / "packages" / "acme" / "1.0" / WHEEL).read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> Index:
    """A fresh index."""
    return Index(tmp_path)


def once(real: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does something else the first time."""
    calls = iter([instead])

    def method(*args: Any, **options: Any) -> Any:
        return next(calls, real)(*args, **options)

    return method


def in_parallel(world: Index, contents: list[bytes]) -> list[PypicloudError | Package]:
    """What comes of uploads that all start at once."""
    barrier = threading.Barrier(len(contents))
    results: list[PypicloudError | Package] = []

    def run(content: bytes) -> None:
        barrier.wait()
        try:
            results.append(upload(world, content))
        except PypicloudError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_many_uploads_of_one_name(world: Index) -> None:
    """One wins, the others are refused, and the bytes are those whose digest is kept (design.md 8)."""
    upload(world, build_wheel())
    results = in_parallel(world, [build_wheel(summary=str(number)) for number in range(8)])
    assert all(isinstance(result, FileExists) for result in results)
    seen_by(world, "alice")[0].delete(seen_by(world, "alice")[1], "acme", WHEEL)
    results = in_parallel(world, [build_wheel(summary=str(number)) for number in range(8)])
    winners = [result for result in results if isinstance(result, Package)]
    assert len(winners) == 1
    assert all(isinstance(result, Package | FileExists) for result in results)
    assert winners[0].data["hash_sha256"] == hashlib.sha256(stored_bytes(world)).hexdigest()


def test_many_uploads_of_the_same_bytes(world: Index) -> None:
    """All of them succeed."""
    results = in_parallel(world, [build_wheel()] * 8)
    assert all(isinstance(result, Package) for result in results)


@pytest.mark.parametrize(("user", "taken"), [("alice", False), ("carol", True)])
def test_another_server_is_faster(world: Index, monkeypatch: pytest.MonkeyPatch, user: str, *, taken: bool) -> None:
    """A file that appears after the look into the cache is adopted with the same bytes, else it needs the right."""
    first = build_wheel()
    upload(world, first)
    monkeypatch.setattr(SQLCache, "fetch", once(SQLCache.fetch, lambda *_: None))
    assert upload(world, first).filename == WHEEL
    changed = build_wheel(summary="changed")
    monkeypatch.setattr(SQLCache, "fetch", once(SQLCache.fetch, lambda *_: None))
    if taken:
        upload(world, changed, user)
    else:
        with pytest.raises(FileExists, match="File already exists"):
            upload(world, changed, user)
    assert stored_bytes(world) == (changed if taken else first)


def test_what_another_server_stored_stays_as_it_is(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes make what another server stored known here, and change nothing: neither bytes nor facts."""
    first = upload(world, build_wheel())
    monkeypatch.setattr(SQLCache, "fetch", once(SQLCache.fetch, lambda *_: None))
    again = upload(world, build_wheel(), "carol")
    assert (again.last_modified, again.data, again.summary) == (first.last_modified, first.data, first.summary)
    index, _ = seen_by(world, "root")
    assert index.rebuild().unchanged == 1


def test_what_is_lost_is_not_replaced(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that bring back a lost file do not take the place of those that another server has just stored."""
    upload(world, build_wheel())
    index, _ = seen_by(world, "root")
    index.cache.storage.delete(Package("acme", "1.0", WHEEL))
    other = build_wheel(summary="other")

    def lost(cache: SQLCache, known: Package) -> bool:
        cache.storage.publish(Package("acme", "1.0", WHEEL), io.BytesIO(other))
        return False

    monkeypatch.setattr("pypicloud.upload._is_stored", lost)
    with pytest.raises(FileExists, match="other bytes"):
        upload(world, build_wheel())
    assert stored_bytes(world) == other


def fail(*_: Any, **__: Any) -> Any:
    """What a backend does that cannot."""
    raise BackendUnavailable("the database does not answer")


def full(*_: Any, **__: Any) -> Any:
    """What a storage does that is full."""
    raise StorageFull("there is no room")


def test_no_row_without_a_file(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes first, fact second: when the storage fails the cache knows nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "publish", full)
        with pytest.raises(StorageFull):
            upload(world, build_wheel())
    assert seen_by(world, "root")[0].cache.distinct() == []
    upload(world, build_wheel())


def test_a_file_without_a_row_is_adopted(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the cache fails the file waits for the next upload of the same bytes, or a rebuild."""
    with monkeypatch.context() as patch:
        patch.setattr(SQLCache, "save", fail)
        with pytest.raises(BackendUnavailable):
            upload(world, build_wheel())
    index, _ = seen_by(world, "root")
    assert index.cache.distinct() == []
    upload(world, build_wheel())
    assert index.cache.distinct() == ["acme"]
    assert index.rebuild().unchanged == 1


def test_a_delete_that_fails_keeps_the_row(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still stored is still listed."""
    upload(world, build_wheel())
    index, caller = seen_by(world, "alice")
    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "delete", full)
        with pytest.raises(StorageFull):
            index.delete(caller, "acme", WHEEL)
    assert index.package(caller, "acme", WHEEL).filename == WHEEL


def test_a_page_is_not_kept_under_a_newer_revision(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes while a page is rendered is on the next one: an old page is never taken for a new one."""
    upload(world, build_wheel())
    index, caller = seen_by(world, "alice")
    real = SQLCache.all

    def slow(cache: SQLCache, name: str) -> list[Package]:
        found = real(cache, name)
        world.upload_wheel("acme", "2.0")
        return found

    monkeypatch.setattr(SQLCache, "all", once(real, slow))
    old = index.rendered_project("acme", caller, Format.JSON)
    assert not isinstance(old, Redirect)
    assert b"acme-2.0" not in old.encoded(None).body
    new = index.rendered_project("acme", caller, Format.JSON)
    assert not isinstance(new, Redirect)
    assert b"2.0" in new.encoded(None).body


def test_the_memory_gives_nothing_that_may_not_be_seen(world: Index) -> None:
    """A kept page is given to who may read the project, and to nobody else."""
    world.upload_wheel("secret-plan", "1.0")
    index, alice = seen_by(world, "alice")
    assert index.kept("secret-plan", alice, Format.HTML, index.cache.revision("secret-plan")) is None
    page = index.rendered_project("secret-plan", alice, Format.HTML)
    assert index.kept("secret-plan", alice, Format.HTML, index.cache.revision("secret-plan")) is page
    assert index.rendered_project("secret-plan", alice, Format.HTML) is page
    _, bob = seen_by(world, "bob")
    assert index.kept("secret-plan", bob, Format.HTML, index.cache.revision("secret-plan")) is None
    assert index.kept("secret-plan", ANONYMOUS, Format.HTML, index.cache.revision("secret-plan")) is None
    with pytest.raises(ProjectNotFound):
        index.rendered_project("secret-plan", bob, Format.HTML)
    with pytest.raises(LoginRequired):
        index.rendered_project("secret-plan", ANONYMOUS, Format.HTML)


def test_kept_lists_are_those_of_the_same_rights(world: Index) -> None:
    """Callers with the same principals share a list, others do not."""
    upload(world, build_wheel())
    index, alice = seen_by(world, "alice")
    assert index.kept(None, alice, Format.HTML, index.cache.revision(None)) is None
    page = index.rendered_projects(alice, Format.HTML)
    assert index.kept(None, alice, Format.HTML, index.cache.revision(None)) is page
    assert index.kept(None, ANONYMOUS, Format.HTML, index.cache.revision(None)) is None
    world.upload_wheel("another", "1.0")
    assert index.kept(None, alice, Format.HTML, index.cache.revision(None)) is None
    assert b"another" in index.rendered_projects(alice, Format.HTML).encoded(None).body


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n", "\x00", "a b", "-", "\u00e9"])
def test_what_cannot_be_a_name(world: Index, name: str) -> None:
    """No backend is asked for it."""
    index, caller = seen_by(world, "root")
    with pytest.raises(ProjectNotFound):
        index.project(name, caller)
    with pytest.raises(ProjectNotFound):
        index.packages(caller, name)
    with pytest.raises(ProjectNotFound):
        index.package(caller, name, WHEEL)


@pytest.mark.parametrize("permission", ["read", "write"])
def test_the_right_comes_before_the_file(world: Index, permission: str) -> None:
    """Who may not touch the project does not learn whether it has such a file."""
    world.upload_wheel("secret-plan", "1.0")
    index, bob = seen_by(world, "bob")
    for filename in (wheel_name("secret-plan", "1.0"), "nothing.whl"):
        with pytest.raises(Forbidden):
            index.package(bob, "secret-plan", filename, permission)
        with pytest.raises(LoginRequired):
            index.package(ANONYMOUS, "secret-plan", filename, permission)
    _, alice = seen_by(world, "alice")
    with pytest.raises(PackageNotFound):
        index.package(alice, "secret-plan", "nothing.whl", permission)


def test_an_ill_backend_does_not_hide_the_others(world: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked, and an error of one is its own sentence."""
    index, _ = seen_by(world, None)
    monkeypatch.setattr(SQLCache, "check_health", fail)
    monkeypatch.setattr(FileStorage, "check_health", lambda _: (False, ""))
    assert index.health() == {"access": "", "cache": "the database does not answer", "storage": "is not healthy"}


@pytest.mark.parametrize(("setting", "leaves"), [("true", True), ("false", False), (None, False)])
def test_private_names_leave_when_told_to(tmp_path: Path, setting: str | None, *, leaves: bool) -> None:
    """``pypi.redirect_private`` brings the old cell of the table back, and nothing else does (ruling 2)."""
    world = Index(
        tmp_path,
        pypi__fallback="redirect",
        pypi__fallback_base_url="https://index.example",
        pypi__redirect_private=setting,
    )
    world.upload_wheel("secret-plan", "1.0")
    index, bob = seen_by(world, "bob")
    if leaves:
        assert index.project("Secret_Plan", bob) == Redirect("https://index.example/simple/secret-plan/")
    else:
        with pytest.raises(ProjectNotFound):
            index.project("Secret_Plan", bob)
