"""Moving from one storage to another: what arrives, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pypicloud.models import Package
from pypicloud.moving import Outcome
from pypicloud.storage.base import IStorage
from pypicloud.storage.files import FileStorage
from pypicloud.testing.memory_cache import MemoryCache
from pypicloud.testing.memory_storage import MemoryStorage
from support.memory_bucket import MemoryBucket
from support.moving import MOMENT, World, contents, digests, fill, made, put, put_sdist, put_wheel


def test_everything_arrives() -> None:
    """Bytes, companions, facts and upload times are the same afterwards, and the cache knows all of it."""
    world = World()
    fill(world.old)
    moving = world.move()
    assert dict(moving.tally.outcomes) == {Outcome.COPIED: 8}
    assert str(moving) == "8 copied"
    assert contents(world.new) == contents(world.old)
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 8 unchanged, 0 unreadable"
    assert world.problems == {}


def test_the_tally() -> None:
    """Files and bytes are counted as they are listed, and as they are done."""
    world = World()
    fill(world.old)
    tally = world.move().tally
    total = sum(package.data["size"] for package in world.old.list())
    assert (tally.files_listed, tally.bytes_listed, tally.files_done, tally.bytes_done) == (8, total, 8, total)
    assert tally.is_all_listed


def test_again() -> None:
    """A second run reads no file and writes nothing."""
    world = World()
    fill(world.old)
    world.move()
    before, rows = dict(world.make_new.keywords["files"]), world.rows()
    assert world.outcomes() == {Outcome.THERE: 8}
    assert world.make_new.keywords["files"] == before
    assert world.rows() == rows


def test_missing_digests_are_worked_out() -> None:
    """A file of which no digest is recorded gets its digests, unless the new server is to keep none."""
    world = World()
    content = b"no digest is known of this"
    put(world.old, Package("acme", "1.0", "acme-1.0.exe", MOMENT), content)
    world.move()
    (package,) = world.new.list()
    assert {key: package.data[key] for key in ("hash_sha256", "hash_md5")} == digests(content)
    other = World()
    other.hashes = False
    put(other.old, Package("acme", "1.0", "acme-1.0.exe", MOMENT), content)
    other.move()
    (package,) = other.new.list()
    assert "hash_sha256" not in package.data
    assert other.outcomes() == {Outcome.THERE: 1}


@pytest.mark.parametrize("facts", [{"hash_sha256": "0" * 64}, {"hash_sha256": "", "hash_md5": "0" * 32}])
def test_damaged_bytes_stay_where_they_are(facts: dict[str, Any]) -> None:
    """Bytes that are not those whose digest was recorded are reported and not moved; the rest is."""
    world = World()
    put_wheel(world.old, "1.0", **facts)
    put_wheel(world.old, "1.1")
    assert world.outcomes() == {Outcome.DAMAGED: 1, Outcome.COPIED: 1}
    assert [package.version for package in world.new.list()] == ["1.1"]
    assert "0000 is recorded" in world.problems["acme-1.0-py3-none-any.whl"]
    assert list(world.rows()) == ["acme-1.1-py3-none-any.whl"]


def test_other_bytes_are_not_overwritten() -> None:
    """Other bytes under a name stay in the new storage, unless it is said that they may be overwritten."""
    world = World()
    put_wheel(world.old, "1.0")
    package = put(world.new, Package("acme", "1.0", "acme-1.0-py3-none-any.whl", yanked=True), b"other")
    assert world.outcomes() == {Outcome.DIFFERENT: 1}
    assert "--overwrite" in world.problems[package.filename]
    with world.new.open(package) as stream:
        assert stream.read() == b"other"
    assert world.outcomes(overwrite=True) == {Outcome.REPLACED: 1}
    assert contents(world.new) == contents(world.old)
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 1 unchanged, 0 unreadable"


def test_another_spelling_of_the_version() -> None:
    """A file that is replaced stays in the place where it is, so that it is not there twice."""
    world = World()
    put_sdist(world.old, "1.0")
    put(world.new, Package("acme", "1", "acme-1.0.tar.gz"), b"other")
    assert world.outcomes(overwrite=True) == {Outcome.REPLACED: 1}
    assert [package.version for package in world.new.list()] == ["1"]


def test_another_key() -> None:
    """In a bucket, too, a file that is replaced stays under the key that it has."""
    world = World(new=MemoryBucket)
    storage = world.new
    assert isinstance(storage, MemoryBucket)
    storage._put_object("elsewhere/acme-1.0.tar.gz", b"other", {"name": "acme", "version": "1.0"}, MOMENT)
    put_sdist(world.old, "1.0")
    assert world.outcomes(overwrite=True) == {Outcome.REPLACED: 1}
    assert list(storage.service.objects) == ["elsewhere/acme-1.0.tar.gz"]
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 1 unchanged, 0 unreadable"


def test_a_file_of_another_project() -> None:
    """A file name that is another project's in the new storage is never taken from it."""
    world = World()
    put_sdist(world.old, "1.0")
    put(world.new, Package("other", "1.0", "acme-1.0.tar.gz"), b"other")
    assert world.outcomes(overwrite=True) == {Outcome.DIFFERENT: 1}
    assert "another project, other" in world.problems["acme-1.0.tar.gz"]
    assert [package.name for package in world.new.list()] == ["other"]


def test_the_same_bytes_without_digests() -> None:
    """Whether bytes of equal length are the same is found out by reading them, if no digest is recorded."""
    world = World()
    for version, there in (("1", b"same"), ("2", b"else")):
        put(world.old, Package("acme", version, f"acme-{version}.exe", MOMENT), b"same")
        put(world.new, Package("acme", version, f"acme-{version}.exe", MOMENT), there)
    assert world.outcomes() == {Outcome.THERE: 1, Outcome.DIFFERENT: 1}


def test_a_name_that_is_there_twice() -> None:
    """A file that a directory holds in two versions is moved once; other bytes in the second are reported."""
    world = World()
    put_sdist(world.old, "1.0")
    put(world.old, Package("acme", "1", "acme-1.0.tar.gz"), b"other")
    assert world.outcomes(workers=1) == {Outcome.COPIED: 1, Outcome.DIFFERENT: 1}


def test_a_dry_run_changes_nothing() -> None:
    """A dry run says what would be done, and does nothing of it."""
    world = World()
    fill(world.old)
    put(world.new, Package("acme", "weird", "acme-weird.exe", MOMENT), b"other")
    before = dict(world.make_new.keywords["files"])
    options: dict[str, Any] = {"is_dry_run": True, "make_cache": None}
    assert str(world.move(**options)) == "7 to copy, 1 different"
    assert str(world.move(**options, overwrite=True)) == "7 to copy, 1 to replace"
    assert world.make_new.keywords["files"] == before
    assert world.rows() == {}


@pytest.mark.parametrize("kind", ["fact", "companion"])
def test_one_thing_was_added_since(kind: str) -> None:
    """A fact, or a companion, that a file has got since it was moved arrives with the next run."""
    world = World()
    package = put_wheel(world.old, "1.0", new=False)
    world.move()
    if kind == "fact":
        package.data["yanked"] = True
        world.old.update_metadata(package)
    else:
        world.old.upload_companion(package, "metadata", b"its metadata")
    assert world.outcomes() == {Outcome.COMPLETED: 1}
    assert contents(world.new) == contents(world.old)


def test_what_was_added_since() -> None:
    """Facts and companions that a file has got since it was moved arrive with the next run; none is taken back."""
    world = World()
    package = put_wheel(world.old, "1.0", new=False)
    world.move()
    package.data |= {"yanked": "broken", "uploader": "bob"}
    world.old.update_metadata(package)
    world.old.upload_companion(package, "metadata", b"its metadata")
    assert str(world.move(is_dry_run=True, make_cache=None)) == "1 to complete"
    assert world.outcomes() == {Outcome.COMPLETED: 1}
    (found,) = world.new.list()
    assert (found.data["yanked"], found.data["uploader"], found.last_modified) == (
        "broken",
        "alice",
        package.last_modified,
    )
    companion = world.new.open_companion(found, "metadata")
    assert companion is not None
    with companion:
        assert companion.read() == b"its metadata"
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 1 unchanged, 0 unreadable"
    assert world.outcomes() == {Outcome.THERE: 1}


def test_what_was_changed_in_the_new_storage() -> None:
    """What the new storage has it keeps; what was taken away there it is given again, as it looks like never given."""
    world = World()
    for version in ("1.0", "1.1", "1.2"):
        put_wheel(world.old, version, yanked="broken")
    world.move()
    first, second, third = sorted(world.new.list(), key=lambda package: package.version)
    first.data["yanked"] = "eats files"
    world.new.update_metadata(first)
    del second.data["yanked"]
    world.new.update_metadata(second)
    world.new.delete(third)
    assert str(world.move(is_dry_run=True, make_cache=None)) == "1 to copy, 1 to complete, 1 there already"
    assert world.outcomes() == {Outcome.THERE: 1, Outcome.COMPLETED: 1, Outcome.COPIED: 1}
    assert {package.version: package.data.get("yanked") for package in world.new.list()} == {
        "1.0": "eats files",
        "1.1": "broken",
        "1.2": "broken",
    }


def test_a_file_that_the_cache_missed() -> None:
    """A run that was killed between bytes and facts leaves a file that the next one tells the cache of."""
    world = World()
    put_wheel(world.old, "1.0")
    put_wheel(world.old, "1.1")
    world.move()
    world.cache.clear(next(iter(world.new.list())))
    assert world.outcomes() == {Outcome.COMPLETED: 1, Outcome.THERE: 1}
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 2 unchanged, 0 unreadable"


def test_an_old_cache_is_filled_first() -> None:
    """What the new storage has already is known to the cache, too: it must not look full when it is not."""
    world = World()
    put_sdist(world.new, "1.0", "earlier")
    put_sdist(world.old, "1.0")
    world.move()
    assert set(world.cache.distinct()) == {"acme", "earlier"}
    world.cache.reload_if_needed()
    assert set(world.cache.distinct()) == {"acme", "earlier"}


def test_no_cache() -> None:
    """Files can be moved where there is no cache at all."""
    world = World()
    fill(world.old)
    assert world.outcomes(make_cache=None) == {Outcome.COPIED: 8}
    assert contents(world.new) == contents(world.old)


def test_a_cache_that_is_left_alone() -> None:
    """A cache that still serves the old storage is told nothing."""
    world = World()
    put_sdist(world.old, "1.0")
    assert world.outcomes(saves=False) == {Outcome.COPIED: 1}
    assert world.rows() == {}
    assert world.cache.note("fill") is None


def test_a_name_that_cannot_be_stored(tmp_path: Path) -> None:
    """A file whose name the new storage does not take is reported with the reason."""
    world = World()
    put(world.old, Package("acme", "1.0", "acme-1.0.tar.gz.meta"), b"x")
    world.make_new = made(FileStorage, **{"storage.dir": str(tmp_path)})
    assert world.outcomes() == {Outcome.FAILED: 1}
    assert "ending" in world.problems["acme-1.0.tar.gz.meta"]


def test_a_companion_that_is_lost() -> None:
    """A file whose companion is not what its facts say arrives without it, and that is said."""
    world = World(old=MemoryBucket)
    put_wheel(world.old, "1.0")
    objects = world.make_old.keywords["service"].objects
    del objects[next(key for key in objects if key.endswith(".metadata"))]
    moving = world.move()
    assert dict(moving.tally.outcomes) == {Outcome.COPIED: 1}
    assert moving.incomplete == 1
    assert "metadata is missing" in world.problems["acme-1.0-py3-none-any.whl"]
    (package,) = world.new.list()
    assert "core_metadata" not in package.data


def test_what_could_not_be_listed() -> None:
    """How many files the listing could not read is known afterwards."""
    world = World(old=MemoryBucket)
    put_sdist(world.old, "1.0")
    storage = world.old
    assert isinstance(storage, MemoryBucket)
    storage._put_object("README", b"x", {}, MOMENT)
    assert world.move().unreadable == 1


@pytest.mark.parametrize("old", [MemoryStorage, MemoryBucket, None], ids=["memory", "bucket", "files"])
@pytest.mark.parametrize("new", [MemoryStorage, MemoryBucket, None], ids=["memory", "bucket", "files"])
def test_every_pair(old: type[IStorage] | None, new: type[IStorage] | None, tmp_path: Path) -> None:
    """From whatever to whatever: the same bytes, companions, facts and times, and a cache that agrees."""
    world = World(old or MemoryStorage, new or MemoryStorage)
    if old is None:
        world.make_old = made(FileStorage, **{"storage.dir": str(tmp_path / "old")})
        world.old = world.make_old(None)
    if new is None:
        world.make_new = made(FileStorage, **{"storage.dir": str(tmp_path / "new")})
        world.new = world.make_new(None)
        world.cache = MemoryCache(rows=world.cache.rows, storage=world.make_new)
    fill(world.old)
    assert world.outcomes() == {Outcome.COPIED: 8}
    assert contents(world.new) == contents(world.old)
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 8 unchanged, 0 unreadable"
    assert world.outcomes() == {Outcome.THERE: 8}
