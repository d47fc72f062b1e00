"""Random histories of uploads, deletes, crashes and rebuilds: after a rebuild the cache is as the storage."""

from __future__ import annotations

import io
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pypicloud.cache import SQLCache, rebuild
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import NOW, Interrupted, MemoryCache, everything, facts, package, request_of, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.cache.base import ICache
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
    """A server with its storage; ``files`` and ``rows`` say what must be in storage and cache, by file name."""

    cache_class: ClassVar[type[ICache]]

    def __init__(self) -> None:
        super().__init__()
        configured = EnvironSettings(
            {"db.url": "sqlite://", "pypi.storage": "pypicloud.testing.storage.MemoryStorage"}, {}
        )
        self.server: Callable[..., Any] = partial(self.cache_class, **self.cache_class.configure(configured))
        self.files: dict[str, tuple[Any, ...]] = {}
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.uploads = 0

    def teardown(self) -> None:
        """The end of the history."""
        cache = self.request()
        if isinstance(cache, SQLCache):
            cache.database.close()

    def request(self) -> Any:
        """The cache for one more request."""
        return self.server(request_of(overwrite=True, delete=True))

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
        """Storage and cache hold exactly what they should."""
        cache = self.request()
        assert stored(cache) == self.files
        assert everything(cache) == self.rows


@pytest.mark.parametrize("cache_class", [MemoryCache, SQLCache])
def test_after_a_rebuild_the_cache_is_as_the_storage(
    cache_class: type[ICache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever came before, a rebuild makes the cache agree with storage, and loses nothing on the way."""
    monkeypatch.setattr(rebuild, "BATCH", 2)

    class ThisHistory(History):
        pass

    ThisHistory.cache_class = cache_class
    budget = settings(max_examples=30, stateful_step_count=30, deadline=None, database=None)
    run_state_machine_as_test(ThisHistory, settings=budget)
