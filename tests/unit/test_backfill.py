"""What is added to the files that 1.3.12 stored, and what is not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pypicloud.backfill import Backfill, Outcome, Plan, survey
from pypicloud.cache.base import ICache
from pypicloud.crew import Patience
from pypicloud.errors import BackendUnavailable, InvalidUpload, NotSupported
from pypicloud.models import Package
from pypicloud.storage.base import IStorage
from pypicloud.storage.files import FileStorage
from pypicloud.testing.memory_cache import MemoryCache, Rows
from pypicloud.testing.memory_storage import MemoryStorage
from support.builds import build_sdist, build_wheel, metadata, sdist_name, wheel_name
from support.memory_bucket import Killed, MemoryBucket
from support.moving import MOMENT, contents, digests, made, put, put_sdist, put_wheel

WHEEL = wheel_name("acme", "1.0")


class World:
    """A storage that 1.3.12 has filled, and a cache."""

    def __init__(self, kind: type[IStorage] = MemoryStorage, **settings: str) -> None:
        self.make_storage = made(kind, **settings)
        self.storage = self.make_storage(None)
        self.rows = Rows()
        self.problems: dict[str, str] = {}

    def make_cache(self, request: Any = None) -> ICache:
        """The cache for one thread."""
        return MemoryCache(request, rows=self.rows, storage=self.make_storage)

    def backfill(self, patience: Patience | None = None, **options: Any) -> Backfill:
        """One run."""
        plan = Plan(self.make_cache, **options)
        backfill = Backfill(plan, self.problems.__setitem__, patience or Patience(first_pause=0.01))
        backfill.prepare(lambda _: None)
        backfill.run(lambda _: None)
        return backfill

    def outcomes(self, **options: Any) -> dict[str, int]:
        """What became of the files that lacked something."""
        return dict(self.backfill(**options).tally.outcomes)

    def package(self, filename: str = WHEEL) -> Package:
        """What is stored under a name, which is what the cache knows, too."""
        (listed,) = (package for package in self.storage.list() if package.filename == filename)
        known = self.make_cache().fetch(filename)
        assert known is not None
        assert (known.data, known.summary, known.last_modified) == (listed.data, listed.summary, listed.last_modified)
        return listed

    def companion(self, package: Package) -> bytes | None:
        """The core metadata beside a file."""
        stream = self.storage.open_companion(package, "metadata")
        if stream is None:
            return None
        with stream:
            return stream.read()


def put_old(storage: IStorage, content: bytes, filename: str = WHEEL, **facts: Any) -> None:
    """Store a file with these facts and no others."""
    put(storage, Package("acme", "1.0", filename, MOMENT, **facts), content)


KINDS: dict[str, type[IStorage]] = {"memory": MemoryStorage, "bucket": MemoryBucket, "files": FileStorage}


@pytest.mark.parametrize("kind", KINDS)
def test_a_wheel_of_1_3_12(kind: str, tmp_path: Path) -> None:
    """A wheel gets its core metadata and what they say; bytes, upload time and earlier facts stay."""
    world = World(KINDS[kind], **{"storage.dir": str(tmp_path)})
    put_wheel(world.storage, "1.0", new=False)
    before = world.storage.list()
    (old,) = before
    assert world.outcomes() == {Outcome.COMPLETED: 1}
    package = world.package()
    text = metadata("acme", "1.0", summary="A project", requires_python=">=3.9").encode()
    assert world.companion(package) == text
    assert package.data["core_metadata"] == hashlib.sha256(text).hexdigest()
    assert (package.summary, package.data["requires_python"]) == ("A project", ">=3.9")
    assert package.last_modified == old.last_modified
    assert {key: package.data[key] for key in old.data} == old.data
    with world.storage.open(package) as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == old.data["hash_sha256"]
    assert world.problems == {}


def test_again() -> None:
    """A second run finds nothing to do."""
    world = World()
    put_wheel(world.storage, "1.0", new=False)
    world.backfill()
    backfill = world.backfill()
    assert (backfill.tally.files_listed, str(backfill)) == (0, "nothing to complete")


def test_the_cache_learns_what_the_storage_knows() -> None:
    """Sizes and times that an older server did not keep in the cache are there afterwards."""
    world = World()
    put_wheel(world.storage, "1.0")
    world.backfill()
    assert world.package().data["size"] > 0


def test_missing_digests() -> None:
    """Digests that are missing are worked out, and what is in the archive is read in the same pass."""
    world = World()
    wheel = build_wheel(summary="A project", requires_python=">=3.9")
    sdist = build_sdist(summary="A project", requires_python=">=3.9")
    put_old(world.storage, wheel)
    put_old(world.storage, sdist, sdist_name("acme", "1.0"))
    put_old(world.storage, b"anything", "acme-1.0.exe")
    put_old(world.storage, b"no archive", "acme-1.0.zip")
    assert world.outcomes() == {Outcome.COMPLETED: 4}
    for filename, content in [
        (WHEEL, wheel),
        (sdist_name("acme", "1.0"), sdist),
        ("acme-1.0.exe", b"anything"),
        ("acme-1.0.zip", b"no archive"),
    ]:
        found = world.package(filename).data
        assert {key: found[key] for key in ("hash_sha256", "hash_md5")} == digests(content)
    assert world.package(sdist_name("acme", "1.0")).data["requires_python"] == ">=3.9"
    assert world.companion(world.package()) is not None
    assert world.problems == {}


def test_no_digests() -> None:
    """Without digests only the ends of wheels are read."""
    world = World()
    put_old(world.storage, build_wheel())
    put_old(world.storage, build_sdist(), sdist_name("acme", "1.0"))
    assert world.outcomes(wants_digests=False) == {Outcome.COMPLETED: 1}
    assert "hash_sha256" not in world.package().data
    assert world.companion(world.package()) is not None


def test_facts_that_are_there_stay() -> None:
    """What an uploader said is not replaced by what the archive says."""
    world = World()
    put_old(world.storage, build_wheel(requires_python=">=3.9", summary="A"), requires_python=">=3.6", summary="B")
    world.backfill()
    package = world.package()
    assert (package.summary, package.data["requires_python"]) == ("B", ">=3.6")


@pytest.mark.parametrize(
    ("content", "outcome", "problem"),
    [
        (b"no wheel", Outcome.UNREADABLE, "zip file"),
        (build_wheel(core_metadata="no metadata"), Outcome.UNREADABLE, "Metadata-Version"),
        (build_wheel("other", "1.0"), Outcome.DISAGREEING, "other 1.0"),
        (build_wheel("acme", "1.1"), Outcome.DISAGREEING, "acme 1.1"),
    ],
)
def test_wheels_that_tell_nothing(content: bytes, outcome: str, problem: str) -> None:
    """A wheel without metadata of its own is reported and left alone; its digests are worked out all the same."""
    world = World()
    put_old(world.storage, content)
    assert world.outcomes() == {outcome: 1}
    assert problem in world.problems[WHEEL]
    assert world.companion(world.package()) is None
    assert {key for key in world.package().data if key != "size"} == {"hash_sha256", "hash_md5"}
    world.problems.clear()
    assert world.outcomes() == {outcome: 1}


@pytest.mark.parametrize(("version", "inside"), [("1.0_local", "1.0+local"), ("1.0", "1.0.0"), ("1.0b", "1.0b0")])
def test_other_spellings_agree(version: str, inside: str) -> None:
    """One version in two spellings is one version."""
    world = World()
    put(world.storage, Package("acme", version, WHEEL, MOMENT), build_wheel("Acme", inside))
    assert world.outcomes() == {Outcome.COMPLETED: 1}


def test_damaged_bytes() -> None:
    """Bytes that are not those of which one digest is recorded are reported, and get no other digest."""
    world = World()
    put_old(world.storage, build_wheel(), hash_md5="0" * 32)
    assert world.outcomes() == {Outcome.DAMAGED: 1}
    assert "recorded" in world.problems[WHEEL]
    assert "hash_sha256" not in world.package().data
    assert world.companion(world.package()) is None


class Remote(MemoryStorage):
    """A storage elsewhere, with the faults that a test wants."""

    away: int = 0
    opened: int = 0
    fetched: int = 0
    at_once: int = 0
    hook: Callable[[], None] | None = None

    @contextlib.contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The bytes."""
        type(self).opened += 1
        with super().open(package) as stream:
            yield stream

    @contextlib.contextmanager
    def open_range(self, package: Package, start: int, stop: int) -> Iterator[BinaryIO]:
        """Some bytes, or not."""
        if type(self).hook is not None:
            type(self).hook()  # type: ignore[misc]  # it is there
        if type(self).away > 0:
            type(self).away -= 1
            raise BackendUnavailable("away")
        type(self).fetched += stop - start
        with super().open(package) as stream:
            yield io.BytesIO(stream.read()[start:stop])


@pytest.fixture
def remote() -> type[Remote]:
    """A class of its own, as the faults are the class's."""

    class OwnRemote(Remote):
        """The same."""

    return OwnRemote


def test_only_the_end_of_a_wheel_is_read(remote: type[Remote]) -> None:
    """Of a wheel of 4 MB, whose digests are known, 64 kB are read."""
    world = World(remote)
    content = build_wheel(members={"acme.bin": hashlib.shake_128(b"noise").digest(4 << 20)})
    put_old(world.storage, content, **digests(content))
    assert world.outcomes() == {Outcome.COMPLETED: 1}
    assert (remote.opened, remote.fetched) == (0, 64 << 10)


def test_a_storage_that_comes_back(remote: type[Remote]) -> None:
    """While the service is away for a moment nothing fails."""
    world = World(remote)
    put_wheel(world.storage, "1.0", new=False)
    remote.away = 3
    assert world.outcomes() == {Outcome.COMPLETED: 1}


def test_a_storage_that_does_not(remote: type[Remote]) -> None:
    """A file that cannot be read is reported, and the next run tries it again."""
    world = World(remote)
    put_wheel(world.storage, "1.0", new=False)
    remote.away = 2
    assert world.outcomes(patience=Patience(attempts=2, first_pause=0)) == {Outcome.FAILED: 1}
    assert world.problems == {WHEEL: "away"}
    assert world.outcomes() == {Outcome.COMPLETED: 1}


def test_any_failure_is_reported(remote: type[Remote]) -> None:
    """What a backend raises, whatever it is, is told with the file's name."""

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    world = World(remote)
    put_wheel(world.storage, "1.0", new=False)
    remote.hook = staticmethod(fail)
    assert world.outcomes() == {Outcome.FAILED: 1}
    assert world.problems == {WHEEL: "ZeroDivisionError: by zero"}


def test_a_file_that_changes_meanwhile(remote: type[Remote]) -> None:
    """A file that was deleted, or replaced by a complete one, since it was listed is left alone."""
    world = World(remote)
    for version in ("1.0", "1.1"):
        put_wheel(world.storage, version, new=False)
    backfill = Backfill(Plan(world.make_cache), world.problems.__setitem__)
    backfill.prepare(lambda _: None)
    deleted, replaced = sorted(world.storage.list())
    world.storage.delete(deleted)
    world.storage.delete(replaced)
    put_wheel(world.storage, "1.1", yanked=True)
    backfill.run(lambda _: None)
    assert dict(backfill.tally.outcomes) == {Outcome.GONE: 1, Outcome.COMPLETED: 1}
    assert remote.fetched == 0
    assert [package.data["yanked"] for package in world.storage.list()] == [True]


class Shared(MemoryBucket):
    """A bucket in which another server, with a cache of its own, does something while a file is read."""

    hook: Callable[[MemoryBucket], None] | None = None

    @contextlib.contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The bytes, while the other does what it does, once."""
        with super().open(package) as stream:
            hook, type(self).hook = type(self).hook, None
            if hook is not None:
                hook(MemoryBucket(service=self.service))
            yield stream


@pytest.fixture
def shared() -> type[Shared]:
    """A class of its own, as what is done is the class's."""

    class OwnShared(Shared):
        """The same."""

    return OwnShared


def test_yanked_by_another_server(shared: type[Shared]) -> None:
    """What another server notes about a file while all of it is read stays."""

    def yank(other: MemoryBucket) -> None:
        (package,) = other.list()
        package.data["yanked"] = "leaks"
        other.update_metadata(package)

    world = World(shared)
    put_old(world.storage, build_wheel())
    shared.hook = yank
    assert world.outcomes() == {Outcome.COMPLETED: 1}
    package = world.package()
    assert package.yanked == "leaks"
    assert package.data["hash_sha256"] == digests(build_wheel())["hash_sha256"]


def test_replaced_by_another_server(shared: type[Shared]) -> None:
    """A file that another server replaces while it is read gets nothing of what was read."""
    new = build_wheel(summary="Another")

    def replace(other: MemoryBucket) -> None:
        other.publish(Package("acme", "1.0", WHEEL), io.BytesIO(new), replace=True)

    world = World(shared)
    put_old(world.storage, build_wheel())
    shared.hook = replace
    assert world.outcomes(patience=Patience(first_pause=0)) == {Outcome.COMPLETED: 1}
    package = world.package()
    assert (package.summary, package.data["hash_sha256"]) == ("Another", digests(new)["hash_sha256"])


def test_deleted_by_another_server(shared: type[Shared]) -> None:
    """A file that another server deletes while it is read is gone."""

    def delete(other: MemoryBucket) -> None:
        other.delete(Package("acme", "1.0", WHEEL))

    world = World(shared)
    put_old(world.storage, build_wheel())
    shared.hook = delete
    assert world.outcomes() == {Outcome.GONE: 1}


def test_facts_that_the_cache_cannot_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts for which the cache has no room are not written into the storage either."""

    def check_facts(_: ICache, package: Package) -> None:
        if package.summary:
            raise InvalidUpload("too long")

    monkeypatch.setattr(MemoryCache, "check_facts", check_facts)
    world = World()
    put_wheel(world.storage, "1.0", new=False)
    assert world.outcomes() == {Outcome.FAILED: 1}
    assert world.problems == {WHEEL: "too long"}
    assert world.package().summary is None


def test_many_at_a_time_and_no_faster_than_wanted() -> None:
    """Files are begun at the rate that is wanted, however many threads there are."""
    world = World()
    for number in range(6):
        put_wheel(world.storage, f"1.{number}", new=False)
    began = time.monotonic()
    assert world.outcomes(rate=20, workers=6) == {Outcome.COMPLETED: 6}
    assert time.monotonic() - began >= 5 / 20


def test_killed_anywhere() -> None:
    """Wherever a run is killed, nothing half is shown, and the next run leads to where the first would have led."""
    whole = World(MemoryBucket)
    put_wheel(whole.storage, "1.0", new=False, hash_sha256="")
    whole.backfill()
    for step in range(1, 100):
        world = World(MemoryBucket)
        put_wheel(world.storage, "1.0", new=False, hash_sha256="")
        service = world.make_storage.keywords["service"]
        service.changes, service.stop_before = 0, step
        try:
            world.backfill()
        except Killed:
            service.stop_before = None
        else:
            break
        (package,) = world.storage.list()
        assert ("core_metadata" in package.data) == (world.companion(package) is not None)
        world.backfill()
        assert contents(world.storage) == contents(whole.storage)
        assert world.package().data["hash_sha256"]
    assert step == 4


class Plain(IStorage):
    """A storage that a plug-in of 1.3.12 brings."""

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Nothing."""
        return ()


def test_a_storage_that_keeps_no_facts() -> None:
    """A storage that cannot change facts says so at once."""
    with pytest.raises(NotSupported):
        World(Plain).backfill()


def test_survey() -> None:
    """Nothing but the listing is needed to say what a run would do."""
    world = World()
    put_wheel(world.storage, "1.0", new=False)
    put_wheel(world.storage, "1.1")
    put_sdist(world.storage, "1.0")
    put_old(world.storage, b"1234567", "acme-1.0.exe")
    assert survey(world.storage, wants_digests=True) == (
        "2 to complete: 1 without core metadata, 1 without digests, for which 7 bytes are to be read"
    )
    assert survey(world.storage, wants_digests=False).startswith("1 to complete")
