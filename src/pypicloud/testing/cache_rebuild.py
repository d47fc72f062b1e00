"""The contract of the caches: how one is filled from storage, and made to agree with it again."""

from __future__ import annotations

import io
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.cache import rebuild, status
from pypicloud.cache.fill import FILL, FILLING, is_filled
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.dateutil import utcnow
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package
from pypicloud.testing.cache_fixtures import (
    NOW,
    CacheFixtures,
    Interrupted,
    Witness,
    everything,
    facts,
    package,
    put,
    request_of,
    stored,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pypicloud.cache.base import ICache


class RebuildContract(CacheFixtures):
    """A rebuild makes a cache agree with storage, whatever else happens; the first one is its filling."""

    # Rebuild

    def test_rebuild_makes_the_cache_agree_with_storage(self, cache: ICache, witness: Witness) -> None:
        """A rebuild adds, corrects and drops, leaves alone what is right, and counts all of it."""
        put(cache, *(package(f"p{number}", summary="right") for number in range(6)))
        right = {found.filename: found for found in cache.storage.list()}
        cache.save_all(found for name, found in right.items() if name in {"p0-1.0.tar.gz", "p1-1.0.tar.gz"})
        cache.save_all(
            [
                package("p2", summary="wrong"),
                package("p3", last_modified=NOW - timedelta(days=900), summary="right"),
                package("gone", last_modified=NOW),
            ]
        )
        before = cache.revision("p0"), cache.revision("p2")
        assert cache.rebuild() == Rebuilt(added=2, changed=2, removed=1, unchanged=2, unreadable=0)
        assert everything(cache) == stored(cache)
        assert set(witness()) == set(right)
        assert cache.revision("p0") == before[0]
        assert cache.revision("p2") != before[1] or "revisions" in self.limits
        assert cache.rebuild() == Rebuilt(unchanged=6)

    def test_rebuild_corrects_every_fact(self, cache: ICache) -> None:
        """Version, project and data are corrected by a rebuild, too."""
        put(cache, package("foo", "1.0", uploader="me"))
        (right,) = cache.storage.list()
        for wrong in (
            package("bar", "1.0", filename=right.filename, **right.data),
            package("foo", "9", filename=right.filename, **right.data),
            package("foo", "1.0", filename=right.filename, uploader="you"),
        ):
            wrong.last_modified, wrong.summary = right.last_modified, right.summary
            cache.save(wrong)
            assert cache.rebuild() == Rebuilt(changed=1)
            assert everything(cache) == stored(cache)

    def test_rebuild_tells_how_far_it_is(self, cache: ICache) -> None:
        """The progress of a rebuild is told as the number of files seen so far, the last time all of them."""
        put(cache, *(package(version=f"{number}.0") for number in range(2100)))
        told: list[int] = []
        cache.rebuild(told.append)
        assert told == sorted(told)
        assert told[-1] == 2100
        assert len(told) > 2
        assert len(cache.all("foo")) == 2100

    def test_rebuild_of_nothing(self, cache: ICache) -> None:
        """With nothing stored a rebuild drops everything and tells that it saw none."""
        cache.save(package())
        told: list[int] = []
        assert cache.rebuild(told.append) == Rebuilt(removed=1)
        assert (cache.is_empty(), told) == (True, [0])

    def test_the_cache_answers_while_it_is_rebuilt(self, cache: ICache, server: Callable[..., ICache]) -> None:
        """Nothing that is stored is missing at any moment of a rebuild, asked for or not to clear first."""
        put(cache, package(), package("bar"))
        cache.rebuild()
        seen: list[list[str]] = []
        cache.storage = Interrupted(cache.storage, 1, lambda: seen.append(server().distinct()))
        cache.reload_from_storage(clear=True)
        cache.reload_from_storage(clear=False)
        assert seen == [["bar", "foo"]] * 2

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_rebuild_keeps_what_arrives_meanwhile(
        self, cache: ICache, server: Callable[..., ICache], after: int
    ) -> None:
        """A file that is uploaded during a rebuild is there after it, also with a time in the past."""
        put(cache, package("a"), package("b"), package("c"))
        new = package("new", last_modified=NOW - timedelta(days=5000))
        cache.storage = Interrupted(cache.storage, after, lambda: server().store(new, io.BytesIO(b"")))
        cache.rebuild()
        assert cache.distinct() == ["a", "b", "c", "new"]

    def test_rebuild_keeps_what_is_brought_back_meanwhile(self, cache: ICache, server: Callable[..., ICache]) -> None:
        """A file that was lost, and is uploaded again after the listing has passed its place, is there."""
        put(cache, package("a"))
        cache.save(package("lost"))
        again = package("lost", last_modified=NOW + timedelta(days=1))
        cache.storage = Interrupted(cache.storage, 0, lambda: server().store(again, io.BytesIO(b"")))
        assert cache.rebuild() == Rebuilt(added=1)
        assert cache.distinct() == ["a", "lost"]

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    def test_rebuild_undoes_no_overwrite(self, cache: ICache, server: Callable[..., ICache], known: bool) -> None:
        """A file that is overwritten during a rebuild keeps its new facts, though it was listed with the old ones."""
        put(cache, package("a"), package("b"))
        if known:
            cache.save(package("a", uploader="wrong"))
        new = package("a", uploader="new")
        cache.storage = Interrupted(cache.storage, 1, lambda: server().store(new, io.BytesIO(b""), replace=True))
        cache.rebuild()
        assert [found.data.get("uploader") for found in cache.all("a")] == ["new"]

    def test_rebuild_undoes_no_delete(self, cache: ICache, server: Callable[..., ICache]) -> None:
        """A file that is deleted during a rebuild stays away, though it was listed."""
        put(cache, package("a"), package("b"))
        cache.save_all([package("a", uploader="wrong"), package("b", uploader="wrong")])

        def delete() -> None:
            for name in ("a", "b"):
                server(request_of(delete=True)).delete(package(name))

        cache.storage = Interrupted(cache.storage, 1, delete)
        cache.rebuild()
        assert cache.is_empty()

    def test_a_listing_that_breaks_off_drops_nothing(self, cache: ICache) -> None:
        """When storage fails half-way its error comes through, and what the cache had it still has."""
        put(cache, package("a"), package("b"))
        cache.save_all([package("a"), package("z")])

        def fail() -> None:
            raise OSError("the disk is gone")

        storage, cache.storage = cache.storage, Interrupted(cache.storage, 1, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            cache.rebuild()
        assert {"a-1.0.tar.gz", "z-1.0.tar.gz"} <= set(everything(cache))
        cache.storage = storage
        cache.rebuild()
        assert everything(cache) == stored(cache)

    def test_rebuild_counts_what_cannot_be_read(self, cache: ICache, caplog: pytest.LogCaptureFixture) -> None:
        """What storage cannot read, or no database could write, is left out, counted and logged."""
        put(cache, package("a"))
        cache.storage.unreadable("before", "is not counted again")
        storage = cache.storage
        event = partial(storage.unreadable, "a/b/c", "is no package")
        cache.storage = Interrupted(storage, 0, event, [Package("x", "1", "x-\udcff.zip")])
        with caplog.at_level(logging.WARNING):
            assert cache.rebuild() == Rebuilt(added=1, unreadable=2)
        assert "a/b/c" in caplog.text
        assert "x-" in caplog.text

    def test_an_empty_storage_is_no_proof(self, cache: ICache) -> None:
        """Many known files are not forgotten because a volume is not mounted, unless somebody says so."""
        many = [package(version=f"{number}.0") for number in range(rebuild.MANY)]
        put(cache, *many)
        cache.rebuild()
        for each in many:
            cache.storage.delete(each)
        with pytest.raises(BackendUnavailable, match="mounted"):
            cache.rebuild()
        assert len(list(cache.everything())) == rebuild.MANY
        assert cache.rebuild(allow_empty=True).removed == rebuild.MANY
        assert list(cache.everything()) == []

    def test_an_incomplete_listing_is_no_proof(self, cache: ICache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where storage could not read everything, a file that was not listed is dropped only if it is really gone."""
        hidden, gone, lost = package("hidden"), package("gone"), package("lost")
        put(cache, hidden, gone, lost)
        cache.rebuild()
        cache.storage.delete(gone)
        storage, opened = cache.storage, cache.storage.open
        rest = [each for each in storage.list(Package) if each not in (hidden, lost)]

        def listed(_: Any = Package) -> Iterator[Package]:
            storage.unreadable("hidden", "may not be read")
            yield from rest

        def looked_for(wanted: Package) -> Any:
            if wanted == lost:
                raise BackendUnavailable("the disk is slow")
            return opened(wanted)

        monkeypatch.setattr(storage, "list", listed)
        monkeypatch.setattr(storage, "open", looked_for)
        assert cache.rebuild().removed == 1
        assert {each.filename for each in cache.everything()} == {hidden.filename, lost.filename}

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("turned", [False, True])
    def test_of_two_files_with_one_name_the_later_counts(
        self, cache: ICache, monkeypatch: pytest.MonkeyPatch, turned: bool, batch: int
    ) -> None:
        """A file name that is stored for two projects is listed for the later one, in whatever order they come."""
        monkeypatch.setattr(rebuild, "BATCH", batch)
        twins = [
            package("foo", last_modified=NOW, summary="later"),
            package("bar", filename="foo-1.0.tar.gz", last_modified=NOW - timedelta(days=1)),
        ]
        cache.storage = Interrupted(cache.storage, 9, lambda: None, reversed(twins) if turned else twins)
        for _ in range(3):
            cache.rebuild()
            assert everything(cache) == {"foo-1.0.tar.gz": facts(twins[0])}

    def test_two_rebuilds_at_once(self, server: Callable[..., ICache]) -> None:
        """Rebuilds that run at the same time do not harm each other."""
        put(server(), *(package(f"p{number}") for number in range(40)))
        server().save_all([package("gone"), package("p1", summary="wrong")])
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: server().rebuild(), range(3)))
        assert everything(server()) == stored(server())

    def test_a_rebuild_is_reported(self, cache: ICache) -> None:
        """What a rebuild has done, every server can read, and that one has failed, too."""
        put(cache, package(), package("bar"))
        assert status.read(cache) == status.Status("never")
        cache.rebuild()
        done = status.read(cache)
        assert (done.state, done.files, done.error) == ("done", 2, None)
        assert done.counts == {"added": 2, "changed": 0, "removed": 0, "unchanged": 0, "unreadable": 0}

        def fail() -> None:
            assert status.read(cache).is_running
            raise BackendUnavailable("the disk is slow")

        cache.storage = Interrupted(cache.storage, 1, fail)
        with pytest.raises(BackendUnavailable):
            cache.rebuild()
        assert (status.read(cache).state, status.read(cache).error) == ("failed", "the disk is slow")

    def test_a_rebuild_in_the_background(self, cache: ICache) -> None:
        """A rebuild can be begun and left to itself; while it runs no other is begun."""
        put(cache, package())
        listing, going = threading.Event(), threading.Event()

        def wait() -> None:
            listing.set()
            assert going.wait(30)

        slow: Any = Interrupted(cache.storage, 0, wait)
        cache.make_storage = lambda _: slow
        cache.start_rebuild()
        assert listing.wait(30)
        cache.start_rebuild()
        assert status.read(cache).is_running
        going.set()
        until(lambda: status.read(cache).state == "done")
        assert cache.distinct() == ["foo"]

    def test_what_comes_and_goes_during_a_rebuild_stays_away(self, cache: ICache) -> None:
        """A file that is uploaded and deleted after a rebuild has listed it is not brought back."""
        put(cache, package("bar"))
        cache.reload_if_needed()
        brief = package(last_modified=utcnow())
        put(cache, brief)

        def come_and_go() -> None:
            cache.save(brief)
            cache.discard(brief)

        cache.storage = Interrupted(cache.storage, 0, come_and_go)
        cache.rebuild()
        assert cache.distinct() == ["bar"]

    def test_a_rebuild_sees_that_all_was_lost_meanwhile(self, cache: ICache) -> None:
        """A rebuild during which the cache loses everything begins again, as what it has read is not known any more."""
        put(cache, package(), package("bar"))
        cache.reload_if_needed()
        losses = [cache.clear_all]

        def lose() -> None:
            if losses:
                losses.pop()()
                cache.write_note(FILL, FILLING)

        cache.storage = Interrupted(cache.storage, 1, lose)
        cache.rebuild()
        assert everything(cache) == stored(cache)
        assert is_filled(cache.note(FILL))

    # The first filling, and the next

    def test_an_empty_cache_is_filled_at_the_start(self, cache: ICache) -> None:
        """The first start takes in everything that is stored."""
        put(cache, package(), package("bar", summary="Good", uploader="me"))
        cache.reload_if_needed()
        assert everything(cache) == stored(cache)

    def test_a_filled_cache_does_not_look_at_storage(self, cache: ICache) -> None:
        """A start with a filled cache does not touch storage."""
        put(cache, package("bar"))
        cache.reload_if_needed()
        put(cache, package())
        cache.reload_if_needed()
        assert cache.distinct() == ["bar"]

    def test_an_interrupted_filling_is_finished_at_the_next_start(self, cache: ICache) -> None:
        """When the first filling breaks off, the next start goes on with it, though something is there already."""
        put(cache, package(), package("bar"))
        cache.write_note(FILL, FILLING)
        cache.save(package())
        cache.reload_if_needed()
        assert everything(cache) == stored(cache)
        assert is_filled(cache.note(FILL))

    def test_a_filling_that_fails_stops_the_start(self, cache: ICache) -> None:
        """When storage fails during the first filling the start says so, and the cache does not count as filled."""
        put(cache, package(), package("bar"))

        def fail() -> None:
            raise OSError("the disk is gone")

        cache.storage = Interrupted(cache.storage, 1, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            cache.reload_if_needed()
        assert not is_filled(cache.note(FILL))

    def test_an_emptied_cache_is_filled_at_the_next_start(self, cache: ICache) -> None:
        """A cache in which nothing is left is filled by the next start."""
        put(cache, package())
        cache.reload_if_needed()
        cache.clear_all()
        cache.reload_if_needed()
        assert cache.distinct() == ["foo"]

    def test_a_lost_cache_fills_itself(self, cache: ICache) -> None:
        """Who finds that everything is lost gets an error that says so, and the cache is filled meanwhile."""
        put(cache, package(), package("bar"))
        cache.write_note(FILL, FILLING)
        error = cache.refill()
        assert isinstance(error, BackendUnavailable)
        assert "being filled" in str(error)
        until(lambda: is_filled(cache.note(FILL)))
        assert everything(cache) == stored(cache)
