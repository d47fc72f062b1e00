"""The contract of the caches: several requests, several servers, and all of them at once."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from pypicloud.testing.cache_fixtures import CacheFixtures, Interrupted, everything, package, request_of, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.cache.base import ICache
    from pypicloud.testing.memory_storage import MemoryStorage


class TogetherContract(CacheFixtures):
    """Everybody who uses a cache sees the same, and nobody undoes what another does."""

    def test_requests_share_one_cache(self, server: Callable[..., ICache]) -> None:
        """What one request saves, the next one sees."""
        server(request_of()).save(package())
        assert server().fetch("foo-1.0.tar.gz") == package()

    def test_servers_share_one_cache(self, start: Callable[..., Callable[..., ICache]]) -> None:
        """What one server saves, another sees at once, under a new revision, or never where each has its own."""
        one, other = start()(), start()()
        before = other.revision("foo")
        one.save(package(summary="first"))
        one.save(package(summary="second"))
        seen = [found.summary for found in other.all("foo")]
        if "servers" in self.limits:
            assert seen == []
        else:
            assert seen == ["second"]
            assert other.fetch("foo-1.0.tar.gz") == package()
            assert other.revision("foo") == one.revision("foo")
            assert other.revision("foo") != before or "revisions" in self.limits
            one.write_note("colour", "red")
            assert other.note("colour") == "red"

    def test_servers_start_at_once(
        self, start: Callable[..., Callable[..., ICache]], storage: Callable[[Any], MemoryStorage]
    ) -> None:
        """Servers that start at the same moment with an empty cache all come up, and know every stored file."""
        files = [package(f"p{number}") for number in range(30)]
        for one in files:
            storage(None).upload(one, io.BytesIO(b""))
        together = threading.Barrier(4)

        def come_up(_: int) -> ICache:
            together.wait()
            cache = start()()
            cache.reload_if_needed()
            return cache

        with ThreadPoolExecutor(4) as pool:
            caches = list(pool.map(come_up, range(4)))
        for cache in caches:
            assert everything(cache) == stored(cache)
            assert len(cache.distinct()) == len(files)

    def test_only_one_of_many_servers_fills_an_empty_cache(
        self, start: Callable[..., Callable[..., ICache]], storage: Callable[[Any], MemoryStorage]
    ) -> None:
        """Of servers that start at the same moment with an empty cache one lists the storage, and the others wait."""
        for number in range(30):
            storage(None).upload(package(f"p{number}"), io.BytesIO(b""))
        listings = []

        def come_up(make: Callable[..., ICache]) -> None:
            cache = make()
            cache.storage = Interrupted(cache.storage, 0, lambda: listings.append(cache))
            cache.reload_if_needed()
            assert len(cache.distinct()) == 30

        servers = [start() for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(come_up, servers))
        assert len(listings) == (3 if "servers" in self.limits else 1)

    def test_servers_change_one_project_at_once(self, start: Callable[..., Callable[..., ICache]]) -> None:
        """What several servers do to one project at the same time is all there afterwards."""
        servers = [start()] * 3 if "servers" in self.limits else [start() for _ in range(3)]

        def work(number: int) -> None:
            cache = servers[number]()
            for version in range(8):
                cache.save(package("foo", f"{number}.{version}"))
                if version % 2:
                    cache.clear(package("foo", f"{number}.{version}"))

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
        expected = {f"{number}.{version}" for number in range(3) for version in range(0, 8, 2)}
        for make in servers:
            assert {found.version for found in make().all("foo")} == expected
            assert [row["name"] for row in make().summary()] == make().distinct() == ["foo"]

    def test_a_project_that_comes_while_it_goes(self, start: Callable[..., Callable[..., ICache]]) -> None:
        """When one server deletes a project's last file while another adds one, the list ends up right, and is new."""
        one = start()
        other = one if "servers" in self.limits else start()
        for number in range(10):
            one().save(package("foo", "0"))
            together = threading.Barrier(2)

            def work(make: Callable[..., ICache], change: Callable[[ICache], None], at: threading.Barrier) -> None:
                at.wait()
                change(make())

            with ThreadPoolExecutor(2) as pool:
                going = pool.submit(work, one, lambda cache: cache.clear(package("foo", "0")), together)
                coming = pool.submit(
                    work,
                    other,
                    partial(lambda version, cache: cache.save(package("foo", version)), f"{number}.1"),
                    together,
                )
                going.result()
                coming.result()
            revision = one().revision(None)
            assert [found.version for found in other().all("foo")] == [f"{number}.1"]
            assert one().distinct() == ["foo"]
            assert [row["name"] for row in one().summary()] == ["foo"]
            one().clear(package("foo", f"{number}.1"))
            assert other().distinct() == []
            assert one().revision(None) != revision or "revisions" in self.limits

    def test_many_threads_write_and_read(self, server: Callable[..., ICache]) -> None:
        """Threads that save and read at the same time lose nothing and get no errors."""

        def work(thread: int) -> None:
            for number in range(12):
                cache = server()
                cache.save(package(f"p{number}", f"{thread}.0"))
                found = cache.fetch(f"p{number}-{thread}.0.tar.gz")
                assert found is not None
                assert found in cache.all(f"p{number}")
                cache.revision(f"p{number}")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert len(everything(server())) == 72

    def test_notes_are_kept(self, cache: ICache) -> None:
        """A note is there as it was written last, in every character, and none where nothing was written."""
        assert cache.note("colour") is None
        for text in ("red", "\u00dc" * 900 + '{"a": 1}%', ""):
            cache.write_note("colour", text)
            cache.write_note("other", "not red")
            assert cache.note("colour") == text
        assert cache.is_empty()
        assert list(cache.everything()) == cache.distinct() == []

    def test_a_lock_keeps_others_out(self, server: Callable[..., ICache]) -> None:
        """Whoever holds the lock of a key is alone with it; another key is another lock."""
        inside, most, order = 0, 0, threading.Lock()

        def work(_: int) -> None:
            nonlocal inside, most
            with server().lock("foo-1.0.tar.gz"):
                with order:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with server().lock("other"), order:
                    inside -= 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(24)))
        assert (inside, most) == (0, 1)
