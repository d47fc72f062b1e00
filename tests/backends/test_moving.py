"""Moving between every pair of storages, and backfill in each of them, on the services themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from pypicloud.backfill import Backfill
from pypicloud.backfill import Plan as BackfillPlan
from pypicloud.moving import Moving, Outcome, Plan
from pypicloud.settings import EnvironSettings
from pypicloud.storage import BACKENDS, get_storage_impl
from pypicloud.storage.base import IStorage
from pypicloud.testing.memory_cache import MemoryCache, Rows
from support.moving import contents, fill, put_wheel

Make: TypeAlias = Callable[[Any], IStorage]

#: Where each storage is; none for the directory.
SERVICES: Final = {"file": None, "s3": "radosgw", "gcs": "gcs", "azure-blob": "azurite"}

KINDS: Final = sorted(BACKENDS.keys() & SERVICES.keys())


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], Make]:
    """Gives a new and empty storage of a kind, configured as the server does it."""

    def configured(kind: str, name: str) -> Make:
        service = SERVICES[kind]
        there = {"storage.dir": str(tmp_path / name)}
        own = there if service is None else request.getfixturevalue(service).settings()
        return get_storage_impl(EnvironSettings({"pypi.storage": kind, **own}, {}))

    return configured


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_every_pair(old: str, new: str, make: Callable[[str, str], Make]) -> None:
    """From whatever to whatever: the same bytes, companions, facts and times, and a cache that agrees."""
    make_old, make_new, rows = make(old, "old"), make(new, "new"), Rows()
    problems: dict[str, str] = {}

    def make_cache(request: Any) -> MemoryCache:
        return MemoryCache(request, rows=rows, storage=make_new)

    def move() -> dict[str, int]:
        moving = Moving(Plan(make_old, make_new, make_cache), problems.__setitem__)
        moving.run(lambda _: None)
        return dict(moving.tally.outcomes)

    fill(make_old(None))
    assert move() == {Outcome.COPIED: 8}, problems
    assert contents(make_new(None)) == contents(make_old(None))
    assert str(make_cache(None).rebuild()) == "0 added, 0 changed, 0 removed, 8 unchanged, 0 unreadable"
    assert move() == {Outcome.THERE: 8}


@pytest.mark.parametrize("kind", KINDS)
def test_backfill(kind: str, make: Callable[[str, str], Make]) -> None:
    """A storage that is completed has all that it would have had if everything had been uploaded here."""
    make_storage, rows = make(kind, "packages"), Rows()
    problems: dict[str, str] = {}

    def make_cache(request: Any = None) -> MemoryCache:
        return MemoryCache(request, rows=rows, storage=make_storage)

    storage = make_storage(None)
    for version in ("1.0", "1.1"):
        put_wheel(storage, version, new=False)
    put_wheel(storage, "1.2", new=False, hash_sha256="", hash_md5="")
    whole = make(kind, "whole")(None)
    for version in ("1.0", "1.1", "1.2"):
        put_wheel(whole, version)
    backfill = Backfill(BackfillPlan(make_cache), problems.__setitem__)
    backfill.prepare(lambda _: None)
    backfill.run(lambda _: None)
    assert str(backfill) == "3 completed", problems
    assert contents(make_storage(None)) == contents(whole)
    assert all(package.data["hash_sha256"] for package in make_storage(None).list())
    assert str(make_cache().rebuild()) == "0 added, 0 changed, 0 removed, 3 unchanged, 0 unreadable"
