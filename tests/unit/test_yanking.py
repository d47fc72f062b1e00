"""Yanking beside others who change the same files, and which version is meant."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pypicloud.errors import BackendUnavailable, PackageNotFound
from pypicloud.models import NormalizedName, Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import IStorage
from pypicloud.testing.memory_cache import MemoryCache
from pypicloud.testing.storage import MemoryStorage
from pypicloud.yanking import is_version, mark, named

ACME = NormalizedName("acme")
ZIP = "acme-1.0.zip"


class HandingOut(MemoryCache):
    """A cache that hands out its own packages, not copies, as a plug-in may."""

    def fetch(self, filename: str) -> Package | None:
        """The package itself."""
        return self.rows.packages.get(filename)


class Walking(MemoryStorage):
    """A storage that finds one file among all of them only."""

    stored = IStorage.stored


class Small(MemoryStorage):
    """A storage whose facts have little room."""

    def update_metadata(self, package: Package) -> None:
        """Rewrite the facts, with less of the summary."""
        package.summary = "R"
        super().update_metadata(package)


def filled(kind: type[MemoryCache] = MemoryCache, storage: str = "pypicloud.testing.storage.MemoryStorage") -> Any:
    """A cache that knows two stored files of one version."""
    cache = kind(None, **kind.configure(EnvironSettings({"pypi.storage": storage}, {})))
    for filename in (ZIP, "acme-1.0.tar.gz"):
        package = Package("acme", "1.0", filename, summary="Roads", hash_sha256="ab", size=5)
        cache.store(package, io.BytesIO(b"bytes"), {"provenance": b"{}"})
    cache.rebuild()
    return cache


def both(cache: MemoryCache) -> list[str | bool]:
    """What storage and cache say of the zip file."""
    known = cache.fetch(ZIP)
    assert known is not None
    stored = cache.storage.stored(known)
    assert stored is not None
    return [stored.yanked, known.yanked]


@pytest.mark.parametrize(
    ("stored", "asked", "same"),
    [
        ("1.0", "1.0", True),
        ("1.0", "1.0.0", True),
        ("1.0.post1", "1.0-1", True),
        ("1.0", "v1", True),
        ("1.0+cu121", "1.0+CU121", True),
        ("1.0+cu121", "1.0", False),
        ("1.0rc1", "1.0", False),
        ("1.0", "1.0.1", False),
        ("new-one", "new-one", True),
        ("new-one", "New-One", False),
        ("1.0", "", False),
    ],
)
def test_spellings(stored: str, asked: str, *, same: bool) -> None:
    """Valid versions are compared as versions, others as text."""
    assert is_version(stored, asked) is same


def test_a_file_comes_before_a_version() -> None:
    """What is a stored file's name is that file, even if it is another file's version as well."""
    cache = filled()
    for filename, version in (("2.0", "1"), ("acme-2.0.zip", "2.0")):
        cache.store(Package("acme", version, filename), io.BytesIO(b"bytes"))
    assert [package.filename for package in named(cache, ACME, "2.0")] == ["2.0"]
    assert [package.filename for package in named(cache, ACME, "2")] == ["acme-2.0.zip"]


@pytest.mark.parametrize("storage", ["pypicloud.testing.storage.MemoryStorage", f"{__name__}.Walking"])
def test_both_sides(storage: str) -> None:
    """Storage and cache say the same, and keep every other fact; also where a storage has to look for the file."""
    cache = filled(storage=storage)
    before = [vars(each) for each in cache.storage.list()], [vars(each) for each in cache.everything()]
    marked = list(mark(cache, named(cache, ACME, "1.0"), "broken"))
    assert [package.yanked for package in marked] == ["broken", "broken"]
    assert both(cache) == ["broken", "broken"]
    assert cache.rebuild().unchanged == 2
    assert [package.yanked for package in mark(cache, named(cache, ACME, "1.0"), False)] == [False, False]
    assert ([vars(each) for each in cache.storage.list()], [vars(each) for each in cache.everything()]) == before


def test_a_summary_without_room() -> None:
    """Where the reason leaves the summary little room, the cache knows as much of it as the storage."""
    cache = filled(storage=f"{__name__}.Small")
    (marked,) = mark(cache, [cache.fetch(ZIP)], "broken")
    assert (marked.summary, cache.fetch(ZIP).summary) == ("R", "R")
    assert cache.rebuild().unchanged == 2


def test_a_failure_leaves_the_cache_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the storage fails, the cache says what it said, although it hands out its own packages."""

    def fail(*_: object) -> None:
        raise BackendUnavailable("the storage does not answer")

    cache = filled(HandingOut)
    monkeypatch.setattr(MemoryStorage, "update_metadata", fail)
    with pytest.raises(BackendUnavailable):
        list(mark(cache, [cache.fetch(ZIP)], "broken"))
    assert both(cache) == [False, False]


def test_a_file_that_is_deleted_meanwhile() -> None:
    """A file that is deleted while its yank waits for the lock stays deleted."""
    cache = filled()
    package = cache.fetch(ZIP)
    with ThreadPoolExecutor(1) as pool:
        with cache.lock(ZIP):
            waiting = pool.submit(lambda: list(mark(cache, [package], "broken")))
            cache.discard(package)
        with pytest.raises(PackageNotFound):
            waiting.result(30)
    assert cache.fetch(ZIP) is None


def test_a_name_that_another_project_took_meanwhile() -> None:
    """A file of that name in another project is left alone."""
    cache = filled()
    package = cache.fetch(ZIP)
    cache.discard(package)
    cache.store(Package("other", "1.0", ZIP), io.BytesIO(b"bytes"))
    with pytest.raises(PackageNotFound):
        list(mark(cache, [package], True))
    assert cache.fetch(ZIP).yanked is False


def test_many_at_once() -> None:
    """Whoever comes last of many that yank and unyank one file at once, storage and cache agree."""
    cache = filled()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(30)
        for turn in range(20):
            list(mark(cache, [cache.fetch(ZIP)], f"{number}.{turn}" if turn % 2 else False))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(30)
    stored, known = both(cache)
    assert stored == known
    assert str(stored).endswith(".19")
