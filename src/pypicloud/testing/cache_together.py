"""The contract of the caches, second half: storage and cache, requests and servers together."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.cache import rebuild, status
from pypicloud.cache.fill import FILL, FILLING, is_filled
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.dateutil import utcnow
from pypicloud.errors import BackendUnavailable, InvalidUpload
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
    from pypicloud.testing.storage import MemoryStorage


class TogetherContract(CacheFixtures):
    """Upload, delete and rebuild keep bytes and facts together, and everybody sees the same."""

    # Upload and delete

    def test_upload_keeps_bytes_and_facts(self, cache: ICache) -> None:
        """An upload works out what it is not told, and stores the bytes and then the facts."""
        uploaded = cache.upload("Foo_Bar-1.0.tar.gz", io.BytesIO(b"bytes"), summary="Good", uploader="me")
        assert (uploaded.name, uploaded.version, uploaded.summary) == ("foo-bar", "1.0", "Good")
        assert uploaded.data == {
            "size": 5,
            "hash_sha256": hashlib.sha256(b"bytes").hexdigest(),
            "hash_md5": hashlib.md5(b"bytes", usedforsecurity=False).hexdigest(),
            "uploader": "me",
        }
        found = cache.fetch("Foo_Bar-1.0.tar.gz")
        assert found is not None
        assert facts(found) == facts(uploaded)
        with cache.storage.open(found) as stream:
            assert stream.read() == b"bytes"

    def test_upload_believes_what_it_is_told(self, cache: ICache) -> None:
        """Name, version and digests that are given are not worked out."""
        uploaded = cache.upload(
            "odd.zip", io.BytesIO(b"bytes"), "foo", "3", requires_python=">=3", hash_sha256="aa", hash_md5="bb"
        )
        assert (uploaded.name, uploaded.version) == ("foo", "3")
        assert uploaded.data == {"size": 5, "requires_python": ">=3", "hash_sha256": "aa", "hash_md5": "bb"}

    def test_upload_takes_a_stream_that_is_read_once(self, cache: ICache) -> None:
        """A stream that cannot be rewound is stored whole."""

        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        uploaded = cache.upload("foo-1.0.tar.gz", Pipe(b"bytes"))
        with cache.storage.open(uploaded) as stream:
            assert (stream.read(), uploaded.data["size"]) == (b"bytes", 5)

    def test_upload_without_hashes(self, start: Callable[..., Callable[..., ICache]]) -> None:
        """With hashes switched off none are worked out."""
        cache = start(**{"pypi.calculate_package_hashes": "false"})(request_of())
        assert cache.upload("foo-1.0.tar.gz", io.BytesIO(b"bytes")).data == {"size": 5}

    @pytest.mark.parametrize("request_", [request_of(delete=True), None], ids=["forbidden", "nobody"])
    def test_upload_refuses_to_overwrite(self, server: Callable[..., ICache], request_: Any) -> None:
        """Who may not overwrite gets a ValueError, and the file and its facts stay as they are."""
        server(request_of()).upload("foo-1.0.tar.gz", io.BytesIO(b"old"), summary="old")
        cache = server(request_)
        before = everything(cache)
        with pytest.raises(ValueError, match=r"foo-1\.0\.tar\.gz"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new"))
        assert everything(cache) == before
        with cache.storage.open(package()) as stream:
            assert stream.read() == b"old"

    def test_upload_refuses_to_replace_what_only_storage_knows(self, server: Callable[..., ICache]) -> None:
        """A stored file that the cache has lost is not overwritten either without the right."""
        cache = server(request_of())
        put(cache, package())
        with pytest.raises(ValueError, match="stored already"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new"))
        assert cache.is_empty()

    def test_upload_overwrites_with_the_right(self, cache: ICache) -> None:
        """Who may overwrite replaces bytes and facts."""
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"old"), summary="old")
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new!"))
        found = cache.fetch("foo-1.0.tar.gz")
        assert found is not None
        assert (found.summary, found.data["size"]) == (None, 4)
        with cache.storage.open(found) as stream:
            assert stream.read() == b"new!"

    def test_upload_takes_no_file_from_another_project(self, cache: ICache) -> None:
        """A file name that belongs to one project cannot be overwritten through another."""
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"old"))
        with pytest.raises(ValueError, match="another project"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new"), name="bar", version="1.0")
        assert cache.distinct() == ["foo"]

    def test_what_the_cache_cannot_keep_is_not_stored(self, cache: ICache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Facts that a cache refuses are refused before the bytes are stored."""

        def refuse(_: Package) -> None:
            raise InvalidUpload("the summary is too long")

        monkeypatch.setattr(cache, "check_facts", refuse)
        with pytest.raises(InvalidUpload):
            cache.store(package(), io.BytesIO(b"bytes"))
        assert stored(cache) == {}

    def test_delete_takes_file_and_facts(self, cache: ICache) -> None:
        """A deleted package is in neither storage nor cache."""
        cache.delete(cache.upload("foo-1.0.tar.gz", io.BytesIO(b"bytes")))
        assert cache.is_empty()
        assert stored(cache) == {}

    @pytest.mark.parametrize("request_", [request_of(overwrite=True), None], ids=["forbidden", "nobody"])
    def test_delete_needs_the_right(self, server: Callable[..., ICache], request_: Any) -> None:
        """Who may not delete gets a ValueError, and everything stays."""
        cache = server(request_)
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"bytes"))
        with pytest.raises(ValueError, match="may not be deleted"):
            cache.delete(package())
        assert set(everything(cache)) == set(stored(cache)) == {"foo-1.0.tar.gz"}

    def test_links_come_from_storage(self, cache: ICache) -> None:
        """The link to a package is the one its storage gives."""
        assert cache.get_url(package(hash_sha256="ab")) == "http://host/api/package/foo/foo-1.0.tar.gz#sha256=ab"

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

    # The first filling, and the next

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

    def test_notes_are_kept(self, cache: ICache) -> None:
        """A note is there as it was written last, in every character, and none where nothing was written."""
        assert cache.note("colour") is None
        for text in ("red", "\u00dc" * 900 + '{"a": 1}%', ""):
            cache.write_note("colour", text)
            cache.write_note("other", "not red")
            assert cache.note("colour") == text
        assert cache.is_empty()
        assert list(cache.everything()) == cache.distinct() == []

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

    # Several requests, several servers

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

    def test_health(self, cache: ICache) -> None:
        """A cache that answers is healthy."""
        assert cache.check_health()[0] is True
