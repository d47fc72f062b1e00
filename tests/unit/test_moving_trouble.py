"""Moving from one storage to another while things go wrong: services away, files that change, a run that is killed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pytest

from pypicloud import crew
from pypicloud.crew import Patience, Tally
from pypicloud.errors import BackendUnavailable, FileExists
from pypicloud.models import Package
from pypicloud.moving import Moving, Outcome, Plan
from pypicloud.storage.base import NO_COMPANIONS
from pypicloud.testing.memory_storage import MemoryStorage
from support.memory_bucket import Killed, MemoryBucket
from support.moving import MOMENT, World, contents, digests, fill, put, put_sdist, put_wheel


class Trouble(MemoryStorage):
    """A storage with the faults that a test wants."""

    away: int = 0
    lists: int = 0
    lies: bool = False
    hook: Callable[[Package], None] | None = None

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Every file; the service goes away in the middle for some time."""
        for number, package in enumerate(super().list(factory)):
            if number == 2 and self.lists < 2:
                type(self).lists += 1
                raise BackendUnavailable("away")
            yield package

    @contextlib.contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The bytes, or not."""
        if self.hook is not None:
            self.hook(package)
        if type(self).away > 0:
            type(self).away -= 1
            raise BackendUnavailable("away")
        with super().open(package) as stream:
            yield io.BytesIO(stream.read(10)) if self.lies else stream

    def publish(
        self,
        package: Package,
        datastream: BinaryIO,
        companions: Mapping[str, bytes] = NO_COMPANIONS,
        *,
        replace: bool = False,
    ) -> None:
        """Store a file; the answer may be lost."""
        super().publish(package, datastream, companions, replace=replace)
        if type(self).away > 0:
            type(self).away -= 1
            raise BackendUnavailable("away")


@pytest.fixture
def trouble() -> type[Trouble]:
    """A class of its own, as the faults are the class's."""

    class OwnTrouble(Trouble):
        """The same."""

        lists = 2

    return OwnTrouble


def test_a_listing_that_breaks_off(trouble: type[Trouble]) -> None:
    """A listing that breaks off is begun again, and no file comes twice."""
    trouble.lists = 0
    world = World(old=trouble)
    fill(world.old)
    assert world.outcomes() == {Outcome.COPIED: 8}
    assert trouble.lists == 2


def test_a_storage_that_comes_back(trouble: type[Trouble]) -> None:
    """While a service is away for a moment nothing fails."""
    world = World(old=trouble)
    fill(world.old)
    trouble.away = 5
    assert world.outcomes(workers=2) == {Outcome.COPIED: 8}
    assert world.problems == {}


def test_an_answer_that_is_lost(trouble: type[Trouble]) -> None:
    """When the answer to storing a file is lost, the file is found there, and the cache is told of it."""
    world = World(new=trouble)
    fill(world.old)
    trouble.away = 3
    assert world.outcomes(workers=1) == {Outcome.COMPLETED: 3, Outcome.COPIED: 5}
    assert contents(world.new) == contents(world.old)
    assert world.rebuilt() == "0 added, 0 changed, 0 removed, 8 unchanged, 0 unreadable"


def test_a_storage_that_does_not_come_back(trouble: type[Trouble], monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is away for good ends the run, rather than let each file wait for it."""
    monkeypatch.setattr(crew, "LOST", 3)
    world = World(old=trouble)
    fill(world.old)
    trouble.away = 1000
    with pytest.raises(BackendUnavailable, match="away"):
        world.move(patience=Patience(attempts=2, first_pause=0), workers=1)
    assert len(world.problems) == 3
    trouble.away = 0
    assert world.outcomes() == {Outcome.COPIED: 8}


def test_bytes_that_are_cut_short(trouble: type[Trouble]) -> None:
    """Fewer bytes than were listed are a lost connection, not a file, even if no digest is recorded."""
    trouble.lies = True
    world = World(old=trouble)
    put(world.old, Package("acme", "1.0", "acme-1.0.exe", MOMENT), b"no digest is known of this")
    assert world.outcomes(patience=Patience(attempts=2, first_pause=0)) == {Outcome.FAILED: 1}
    assert world.problems == {"acme-1.0.exe": "10 bytes came from the old storage instead of 26"}
    assert list(world.new.list()) == []


def _sha256(content: bytes) -> dict[str, Any]:
    return {"hash_sha256": digests(content)["hash_sha256"]}


def test_a_file_that_vanishes_from_the_new_storage(trouble: type[Trouble]) -> None:
    """A file that was deleted from the new storage since it was listed there is copied."""
    world = World(new=trouble)
    for storage in (world.old, world.new):
        put(storage, Package("acme", "1.0", "acme-1.0.exe", MOMENT), b"same")
    trouble.hook = world.new.delete
    assert world.outcomes() == {Outcome.COPIED: 1}
    trouble.hook = None
    assert contents(world.new) == contents(world.old)


def test_a_file_that_is_deleted_meanwhile(trouble: type[Trouble]) -> None:
    """A file that was deleted since it was listed is no failure."""
    world = World(old=trouble)
    put_wheel(world.old, "1.0")
    trouble.hook = world.old.delete
    assert world.outcomes() == {Outcome.GONE: 1}
    assert world.problems == {}


@pytest.mark.parametrize("content", [b"other size", b"new"], ids=["other size", "same size"])
def test_a_file_that_is_replaced_meanwhile(trouble: type[Trouble], content: bytes) -> None:
    """A file that was replaced since it was listed arrives as it is now."""
    world = World(old=trouble)
    put(world.old, Package("acme", "1.0", "acme-1.0.exe", MOMENT, **_sha256(b"old")), b"old")
    replaced: list[Package] = []

    def replace(package: Package) -> None:
        if not replaced:
            replaced.append(package)
            new = Package("acme", "1.0", package.filename, **_sha256(content))
            world.old.publish(new, io.BytesIO(content), replace=True)

    trouble.hook = staticmethod(replace)
    assert world.outcomes() == {Outcome.COPIED: 1}
    assert contents(world.new) == contents(world.old)


def test_a_file_that_somebody_else_stores_meanwhile(trouble: type[Trouble]) -> None:
    """A file that was stored in the new storage meanwhile is compared, not overwritten."""
    world = World(old=trouble)
    for version in ("1.0", "1.1"):
        put_sdist(world.old, version)

    def store(package: Package) -> None:
        same = package.version == "1.0"
        with contextlib.suppress(FileExists):
            if same:
                put_sdist(world.new, "1.0")
            else:
                put(world.new, Package("acme", "1.1", "acme-1.1.tar.gz"), b"other")

    trouble.hook = staticmethod(store)
    outcomes = world.outcomes()
    assert outcomes == {Outcome.COMPLETED: 1, Outcome.DIFFERENT: 1}
    assert set(world.problems) == {"acme-1.1.tar.gz"}


def test_any_failure_is_reported(trouble: type[Trouble]) -> None:
    """What a backend raises, whatever it is, is told with the file's name, and the others are moved."""
    world = World(old=trouble)
    put_sdist(world.old, "1.0")
    put_sdist(world.old, "1.1")

    def fail(package: Package) -> None:
        if package.version == "1.0":
            raise ZeroDivisionError("by zero")

    trouble.hook = staticmethod(fail)
    assert world.outcomes() == {Outcome.FAILED: 1, Outcome.COPIED: 1}
    assert world.problems == {"acme-1.0.tar.gz": "ZeroDivisionError: by zero"}


def test_killed_anywhere() -> None:
    """Wherever a run is killed, nothing half is listed, and the next run does the rest."""
    reached = 0
    for step in range(1, 100):
        world = World(new=MemoryBucket)
        fill(world.old)
        service = world.make_new.keywords["service"]
        service.stop_before = step
        try:
            world.move(workers=2)
        except Killed:
            reached = step
        else:
            break
        service.stop_before = None
        expected = contents(world.old)
        for filename, (*_, data, companions) in contents(world.new).items():
            assert (data, companions) == expected[filename][-2:]
        world.move()
        assert set(contents(world.new)) == set(expected)
        assert world.rebuilt() == "0 added, 0 changed, 0 removed, 8 unchanged, 0 unreadable"
    assert reached >= 8


def test_stopping() -> None:
    """Ctrl-C ends a run between two files; the next run does the rest."""
    world = World()
    for number in range(300):
        put_sdist(world.old, f"1.{number}")

    def interrupt(_: Tally) -> None:
        raise KeyboardInterrupt

    moving = Moving(Plan(world.make_old, world.make_new, world.make_cache, workers=1), world.problems.__setitem__)
    with pytest.raises(KeyboardInterrupt):
        moving.run(interrupt)
    assert world.problems == {}
    done = moving.tally.files_done
    assert world.outcomes().get(Outcome.THERE, 0) == done
    assert contents(world.new) == contents(world.old)
