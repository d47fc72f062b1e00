"""Random histories of uploads, yanks, deletes, crashes and rebuilds by several servers, with a dict as the model."""

from __future__ import annotations

import contextlib
import io
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pypicloud.cache import get_cache_impl, rebuild
from pypicloud.cache.choose import summaries
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import NOW, Interrupted, everything, facts, package, request_of, stored
from pypicloud.testing.storage import MemoryStorage
from support.caches import CACHES, shared_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pypicloud.cache.changes import Change
    from pypicloud.models import Package

FILES = st.builds(
    lambda name, version, day, **data: package(name, version, last_modified=NOW + timedelta(days=day), **data),
    name=st.sampled_from(["foo", "foo-bar", "zed"]),
    version=st.sampled_from(["1.0", "1.0.1", "odd"]),
    day=st.integers(-9, 9),
    summary=st.sampled_from(["", "Good", "Better"]),
    uploader=st.sampled_from(["", "me", "you"]),
)


class Crash(BaseException):
    """The process is killed here."""


class History(RuleBasedStateMachine):
    """Two servers with one storage; ``files`` and ``rows`` say what must be in storage and cache, by file name.

    ``pages`` is what was seen of each project, and of the list of projects, under each revision.
    """

    servers: ClassVar[Sequence[Callable[..., Any]]]

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, tuple[Any, ...]] = {}
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.pages: dict[tuple[str | None, str], object] = {}
        self.uploads = 0
        self.requests = 0
        cache = self.request()
        for one in list(cache.storage.list()):
            cache.storage.delete(one)
        cache.clear_all()

    def request(self) -> Any:
        """The cache for one more request, on the servers in turn."""
        self.requests += 1
        return self.servers[self.requests % len(self.servers)](request_of(overwrite=True, delete=True))

    def upload_file(self, one: Package, *, crash: bool = False) -> None:
        """Store a file, at a moment of its own; a crash comes between bytes and facts."""
        self.uploads += 1
        one.last_modified += timedelta(microseconds=self.uploads)
        cache = self.request()
        cache.storage.publish(one, io.BytesIO(b"bytes"), replace=True)
        self.files = stored(cache)
        if not crash:
            (listed,) = (found for found in cache.storage.list() if found.filename == one.filename)
            cache.save(listed)
            self.rows[one.filename] = facts(listed)

    def delete_file(self, filename: str, *, crash: bool = False) -> None:
        """Delete a file; a crash comes between bytes and facts."""
        cache = self.request()
        found = cache.fetch(filename)
        cache.storage.delete(found)
        self.files.pop(filename, None)
        if not crash:
            cache.clear(found)
            del self.rows[filename]

    @rule(one=FILES, crash=st.booleans())
    def upload(self, one: Package, crash: bool) -> None:
        """A new file, or other facts about one that is there."""
        self.upload_file(one, crash=crash)

    @precondition(lambda self: self.rows.keys() & self.files.keys())
    @rule(crash=st.booleans(), data=st.data())
    def yank(self, crash: bool, data: st.DataObject) -> None:
        """A file gets another fact, and keeps all else; a crash comes between storage and cache."""
        filename = data.draw(st.sampled_from(sorted(self.rows.keys() & self.files.keys())))
        cache = self.request()
        (one,) = (found for found in cache.storage.list() if found.filename == filename)
        one.data["yanked"] = f"reason {self.uploads}"
        self.uploads += 1
        cache.storage.update_metadata(one)
        self.files = stored(cache)
        if not crash:
            cache.save(one)
            self.rows[filename] = facts(one)

    @precondition(lambda self: self.rows)
    @rule(crash=st.booleans(), data=st.data())
    def delete(self, crash: bool, data: st.DataObject) -> None:
        """A file that the cache knows is deleted."""
        self.delete_file(data.draw(st.sampled_from(sorted(self.rows))), crash=crash)

    @rule()
    def lose_the_cache(self) -> None:
        """Somebody empties the cache, and the next start fills it."""
        self.request().clear_all()
        self.request().reload_if_needed()
        self.rows = dict(self.files)

    @rule()
    def rebuild(self) -> None:
        """A rebuild with nothing going on, which counts what it does."""
        shared = self.files.keys() & self.rows.keys()
        unchanged = sum(self.files[filename] == self.rows[filename] for filename in shared)
        done = self.request().rebuild()
        assert (done.added, done.removed) == (len(self.files) - len(shared), len(self.rows) - len(shared))
        assert (done.changed, done.unchanged) == (len(shared) - unchanged, unchanged)
        self.rows = dict(self.files)

    @precondition(lambda self: self.files)
    @rule(one=FILES, data=st.data())
    def rebuild_during_an_upload(self, one: Package, data: st.DataObject) -> None:
        """A file arrives while the storage is listed."""
        cache = self.request()
        after = data.draw(st.integers(0, len(self.files) - 1))
        cache.storage = Interrupted(cache.storage, after, lambda: self.upload_file(one))
        cache.rebuild()
        self.rows = dict(self.files)

    @precondition(lambda self: self.files and self.rows)
    @rule(data=st.data())
    def rebuild_during_a_delete(self, data: st.DataObject) -> None:
        """A file goes while the storage is listed."""
        cache = self.request()
        after = data.draw(st.integers(0, len(self.files) - 1))
        filename = data.draw(st.sampled_from(sorted(self.rows)))
        cache.storage = Interrupted(cache.storage, after, lambda: self.delete_file(filename))
        cache.rebuild()
        self.rows = dict(self.files)

    @precondition(lambda self: self.files)
    @rule(before=st.booleans())
    def crash_while_a_rebuild_writes(self, before: bool) -> None:
        """The process is killed before or after it has written a batch."""
        cache = self.request()
        exchange = cache.exchange

        def crash(changes: Sequence[Change]) -> None:
            if not before:
                exchange(changes)
            raise Crash

        cache.exchange = crash
        with contextlib.suppress(Crash):
            cache.rebuild()
        found = everything(self.request())
        assert all(name in found for name in self.rows if name in self.files or before)
        assert all(row in (self.rows.get(name), self.files.get(name)) for name, row in found.items())
        self.rows = found

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def crash_during_a_rebuild(self, data: st.DataObject) -> None:
        """The process is killed while the storage is listed: each row is as before or as stored, and none is gone."""
        cache = self.request()
        after = data.draw(st.integers(0, len(self.files) - 1))

        def crash() -> None:
            raise Crash

        cache.storage = Interrupted(cache.storage, after, crash)
        with pytest.raises(Crash):
            cache.rebuild()
        found = everything(self.request())
        assert self.rows.keys() <= found.keys()
        assert all(row in (self.rows.get(name), self.files.get(name)) for name, row in found.items())
        self.rows = found

    @invariant()
    def nothing_is_lost(self) -> None:
        """Storage and cache hold exactly what they should, asked in any way."""
        cache = self.request()
        assert stored(cache) == self.files
        assert everything(cache) == self.rows
        assert {found.filename: facts(found) for found in cache.everything()} == self.rows
        assert cache.summary() == summaries(cache.everything())

    @invariant()
    def a_revision_stands_for_one_page(self) -> None:
        """Whatever was seen under a revision is all that is ever seen under it."""
        cache = self.request()
        for name in ("foo", "foo-bar", "zed"):
            page = [facts(found) for found in cache.all(name)]
            assert self.pages.setdefault((name, cache.revision(name)), page) == page
        names = cache.distinct()
        assert self.pages.setdefault((None, cache.revision(None)), names) == names


#: How many histories, and of how many changes at most, are tried on each cache.
BUDGETS: Final = {"memory": (40, 30), "sqlite-memory": (25, 30), "sqlite": (15, 25), "dynamo-moto": (4, 15)}


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[type[History]]:
    """The histories of two servers of the cache that the test is parametrized with."""
    chosen = {"pypi.db": "pypicloud.testing.cache.MemoryCache"}
    is_shared = False
    if request.param != "memory":
        world = shared_world(request.param, request, tmp_path)
        chosen, is_shared = world.settings, world.kind.is_shared
    configured = EnvironSettings({**chosen, "pypi.storage": "pypicloud.testing.storage.MemoryStorage"}, {})
    storage = partial(MemoryStorage, **MemoryStorage.configure(configured))
    makers: list[Any] = [get_cache_impl(configured.clone()) for _ in range(2 if is_shared else 1)]

    class ThisHistory(History):
        servers = tuple(partial(maker, storage=storage) for maker in makers)

    yield ThisHistory
    for maker in makers:
        database = maker.keywords.get("database")
        if database is not None:
            database.close()


@pytest.mark.parametrize("machine", ["memory", *CACHES], indirect=True)
def test_after_a_rebuild_the_cache_is_as_the_storage(
    machine: type[History], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever came before, a rebuild makes the cache agree with storage, and loses nothing on the way."""
    monkeypatch.setattr(rebuild, "BATCH", 2)
    examples, changes = BUDGETS.get(request.node.callspec.params["machine"], (8, 20))
    budget = settings(max_examples=examples, stateful_step_count=changes, deadline=None, database=None)
    run_state_machine_as_test(machine, settings=budget)
