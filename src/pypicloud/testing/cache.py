"""The contract that every cache keeps, and a cache in memory that keeps it.

A test file for a cache is a subclass of :class:`CacheContract` with the settings, a raw look into the
database, and what is peculiar to that cache::

    class TestMyCache(CacheContract):
        cache_class = MyCache

        @pytest.fixture
        def settings(self, tmp_path: Path) -> dict[str, str]:
            return {"db.url": f"my://{tmp_path}"}

        @pytest.fixture
        def witness(self, settings: dict[str, str]) -> Witness:
            return lambda: {row["filename"]: row for row in look_into(settings["db.url"])}
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Final, TypeAlias

import pytest

from pypicloud.cache.base import ICache, Rebuilt
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.testing.memory_cache import MemoryCache
from pypicloud.testing.storage import MemoryStorage

__all__ = ["NOW", "CacheContract", "Interrupted", "MemoryCache", "Witness", "package", "request_of"]

#: Gives, by file name, what the database really holds, read without the cache: a mapping with ``name``,
#: ``version``, ``last_modified`` (with its zone), ``summary`` and ``data``.
Witness: TypeAlias = Callable[[], Mapping[str, Mapping[str, Any]]]

NOW: Final = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def package(name: str = "foo", version: str = "1.0", ending: str = ".tar.gz", **facts: Any) -> Package:
    """A package with a file name that goes with it."""
    facts.setdefault("last_modified", NOW)
    return Package(name, version, facts.pop("filename", f"{name}-{version}{ending}"), **facts)


def request_of(*, overwrite: bool = False, delete: bool = False) -> Any:
    """A request by somebody who may, or may not, overwrite and delete."""
    access = SimpleNamespace(can_overwrite_package=lambda: overwrite, can_delete_package=lambda: delete)
    return SimpleNamespace(access=access, app_url=lambda *path: "http://host/" + "/".join(path))


class Interrupted:
    """A storage in whose listing something happens, once, after so many files."""

    def __init__(self, storage: Any, after: int, event: Callable[[], object], extra: Iterable[Package] = ()) -> None:
        self._storage = storage
        self._after = after
        self._event = event
        self._extra = list(extra)

    def list(self, factory: Callable[..., Package] = Package) -> Iterator[Package]:
        """The other storage's packages, and then the extra ones."""
        for count, stored in enumerate([*self._storage.list(factory), *self._extra]):
            if count == self._after:
                self._event()
            yield stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def facts(of: Package) -> tuple[Any, ...]:
    """Everything a cache must give back."""
    return (of.filename, of.name, of.version, of.last_modified, of.summary, of.data)


def everything(cache: ICache) -> dict[str, tuple[Any, ...]]:
    """What a cache knows, by file name, asked for one project at a time."""
    return {found.filename: facts(found) for name in cache.distinct() for found in cache.all(name)}


def stored(cache: ICache) -> dict[str, tuple[Any, ...]]:
    """What there is in a cache's storage, by file name."""
    return {found.filename: facts(found) for found in cache.storage.list()}


def put(cache: ICache, *packages: Package) -> None:
    """Store files behind the cache's back."""
    for one in packages:
        cache.storage.upload(one, io.BytesIO(one.filename.encode()))


class CacheContract:
    """What every cache promises.

    ``limits`` names what a cache honestly cannot do; the suite then asserts the lesser behaviour:

    - ``revisions``: it keeps none, and says so;
    - ``transactions``: what was written before an error inside a transaction stays;
    - ``servers``: each server that starts has a cache of its own.
    """

    cache_class: ClassVar[type[ICache]]
    limits: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        """The settings of a cache with nothing in it, and nobody else's."""
        raise NotImplementedError

    @pytest.fixture
    def witness(self) -> Witness:
        """A look into the database without the cache."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self) -> Callable[[Any], MemoryStorage]:
        """The storage that all servers of a test share."""
        return partial(MemoryStorage, **MemoryStorage.configure(EnvironSettings({})))

    @pytest.fixture
    def start(
        self, settings: dict[str, str], storage: Callable[[Any], MemoryStorage]
    ) -> Iterator[Callable[..., Callable[..., ICache]]]:
        """Starts a server, as the app does; what it answers makes the cache for a request."""
        started = []

        def start(**more: str) -> Callable[..., ICache]:
            configured = EnvironSettings({"pypi.storage": "pypicloud.testing.storage.MemoryStorage", **settings, **more}, {})
            kwargs = {**self.cache_class.configure(configured), "storage": storage}
            started.append(kwargs)
            return partial(self.cache_class, **kwargs)

        yield start
        for kwargs in started:
            self.stop(kwargs)

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        """Closes what ``configure`` opened."""

    @pytest.fixture
    def server(self, start: Callable[..., Callable[..., ICache]]) -> Callable[..., ICache]:
        """A server that has started: makes the cache for a request."""
        return start()

    @pytest.fixture
    def cache(self, server: Callable[..., ICache]) -> ICache:
        """The cache for a request by somebody who may overwrite and delete."""
        return server(request_of(overwrite=True, delete=True))

    # One file

    def test_an_empty_cache_knows_nothing(self, cache: ICache, witness: Witness) -> None:
        """An empty cache answers every question with nothing."""
        assert cache.fetch("foo-1.0.tar.gz") is None
        assert cache.all("foo") == cache.distinct() == cache.summary() == list(cache.everything()) == []
        assert cache.search({"name": ["foo"], "summary": ["foo"]}, "or") == []
        assert cache.is_empty()
        assert not witness()

    def test_every_fact_comes_back(self, cache: ICache) -> None:
        """What was saved comes back with every fact, on each way to ask for it."""
        saved = package(
            "foo",
            summary="Das \u00dcbliche \u2603 \U0001f40d 100%",
            requires_python=">=3.9",
            hash_sha256="ab" * 32,
            hash_md5="cd" * 16,
            uploader="j\u00f6rg",
            size=12345678901,
            yanked=True,
            **{"path": "a/b", "odd key": {"deep": [1, "\ud83d"]}},
        )
        cache.save(saved)
        for found in (cache.fetch(saved.filename), *cache.all("foo"), *cache.everything(), *cache.search({}, "or")):
            assert found is not None
            assert facts(found) == facts(saved)
            assert found.last_modified.utcoffset() == timedelta(0)

    def test_the_database_holds_what_was_saved(self, cache: ICache, witness: Witness) -> None:
        """The facts are in the database where others look for them."""
        cache.save(package("Foo_Bar", summary="Good", hash_md5="cd"))
        row = witness()["Foo_Bar-1.0.tar.gz"]
        assert {key: row[key] for key in ("name", "version", "last_modified", "summary", "data")} == {
            "name": "foo-bar",
            "version": "1.0",
            "last_modified": NOW,
            "summary": "Good",
            "data": {"hash_md5": "cd"},
        }

    def test_no_summary_is_none(self, cache: ICache, witness: Witness) -> None:
        """A package without a summary has none, rather than an empty one."""
        cache.save(package(summary=""))
        found = cache.fetch("foo-1.0.tar.gz")
        assert found is not None
        assert found.summary is None
        assert not witness()["foo-1.0.tar.gz"]["summary"]

    @pytest.mark.parametrize(
        "time",
        [
            datetime(2026, 5, 4, 3, 2, 1, 999999, tzinfo=UTC),
            datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone(timedelta(hours=-7, minutes=-30))),
            datetime(2026, 5, 4, 3, 2, 1),  # noqa: DTZ001 - such times mean UTC
            datetime(1970, 1, 1, tzinfo=UTC),
        ],
    )
    def test_times_are_kept(self, cache: ICache, time: datetime) -> None:
        """The time of upload is the same moment afterwards, whatever zone it was given in."""
        saved = package(last_modified=time)
        cache.save(saved)
        assert [found.last_modified for found in cache.all("foo")] == [saved.last_modified]

    @pytest.mark.parametrize(
        "filename", ["a" * 255, "Foo-1.0+local.1.tar.gz", "foo 1.0.zip", "f%6fo_-1.tar.gz", "o'foo\";--1.0.egg", "\u00e9-1.0.egg"]
    )
    def test_file_names_are_taken_as_they_are(self, cache: ICache, witness: Witness, filename: str) -> None:
        """Any file name can be saved, found and cleared."""
        cache.save(package(filename=filename))
        assert cache.fetch(filename) == package(filename=filename)
        assert set(witness()) == {filename}
        cache.clear(package(filename=filename))
        assert cache.fetch(filename) is None

    def test_file_names_differ_by_case(self, cache: ICache) -> None:
        """Two file names that differ by case are two files."""
        cache.save(package(filename="Foo-1.0.zip", summary="big"))
        assert cache.fetch("foo-1.0.zip") is None
        cache.save(package(filename="foo-1.0.zip", summary="small"))
        assert sorted(str(found.summary) for found in cache.all("foo")) == ["big", "small"]

    def test_saving_again_replaces_every_fact(self, cache: ICache, witness: Witness) -> None:
        """The second save of a file leaves nothing of the first."""
        cache.save(package(summary="old", uploader="old", hash_md5="old"))
        again = package(last_modified=NOW + timedelta(days=1), hash_sha256="new")
        cache.save(again)
        assert everything(cache) == {again.filename: facts(again)}
        assert witness()[again.filename]["data"] == {"hash_sha256": "new"}

    def test_a_file_can_move_to_another_project(self, cache: ICache) -> None:
        """A file that is saved for another project leaves the first one."""
        cache.save(package("foo"))
        cache.save(package("bar", filename="foo-1.0.tar.gz"))
        assert cache.distinct() == ["bar"]
        assert cache.all("foo") == []

    def test_what_is_given_out_is_a_copy(self, cache: ICache) -> None:
        """Changing a package changes the cache only when it is saved."""
        saved = package(summary="right")
        cache.save(saved)
        for one in (saved, cache.fetch(saved.filename), cache.all("foo")[0]):
            assert one is not None
            one.summary = "wrong"
            one.data["uploader"] = "wrong"
        assert [(found.summary, found.data) for found in cache.all("foo")] == [("right", {})]

    # One project

    def test_newest_version_comes_first(self, cache: ICache) -> None:
        """A project's files are sorted by version, newest first, and those without a real version last."""
        versions = ["weird", "1.0", "1.9", "2.0rc1", "1.10", "1.0.dev1", "1!0.1"]
        cache.save_all(package(version=version) for version in versions)
        found = [one.version for one in cache.all("foo")]
        assert found == ["1!0.1", "2.0rc1", "1.10", "1.9", "1.0", "1.0.dev1", "weird"]

    def test_a_version_can_have_many_files(self, cache: ICache) -> None:
        """All files of one version are listed."""
        files = [package(ending=ending) for ending in (".tar.gz", ".zip", "-py3-none-any.whl")]
        cache.save_all(files)
        assert sorted(found.filename for found in cache.all("foo")) == sorted(one.filename for one in files)

    def test_any_spelling_finds_a_project(self, cache: ICache) -> None:
        """A project is found by every spelling of its name."""
        cache.save(package("Foo_Bar"))
        assert [len(cache.all(name)) for name in ("foo-bar", "FOO.bar", "foo__BAR", "foobar")] == [1, 1, 1, 0]

    def test_projects_are_sorted_and_named_once(self, cache: ICache) -> None:
        """The list of projects has each name once, in order."""
        cache.save_all(package(name, version) for name in ("foo-bar", "foo", "Zed", "a2") for version in ("1", "2"))
        assert cache.distinct() == ["a2", "foo", "foo-bar", "zed"]
        assert not cache.is_empty()

    # Clearing

    def test_clear_forgets_that_file_only(self, cache: ICache, witness: Witness) -> None:
        """Clearing a file touches none whose name begins or ends the same."""
        cache.save_all([package(), package(version="1.0.1"), package("foo-bar"), package("fo")])
        cache.clear(package())
        assert set(everything(cache)) == set(witness()) == {"foo-1.0.1.tar.gz", "foo-bar-1.0.tar.gz", "fo-1.0.tar.gz"}

    def test_a_project_goes_with_its_last_file(self, cache: ICache) -> None:
        """When the last file of a project is cleared, nothing of the project is left."""
        cache.save_all([package(), package(version="2.0"), package("bar")])
        cache.clear(package())
        assert cache.distinct() == ["bar", "foo"]
        cache.clear(package(version="2.0"))
        assert cache.distinct() == [row["name"] for row in cache.summary()] == ["bar"]

    def test_clear_goes_by_the_file_name(self, cache: ICache) -> None:
        """Clearing needs no package that came from this cache: the file name alone counts."""
        cache.save(package("foo", summary="all right"))
        cache.clear(Package("other", "9", "foo-1.0.tar.gz"))
        assert cache.is_empty()
        assert cache.distinct() == []

    def test_clearing_what_is_missing_is_no_error(self, cache: ICache) -> None:
        """Clearing a file that is not there changes nothing."""
        cache.save(package())
        before = everything(cache), cache.revision("foo"), cache.revision(None)
        cache.clear(package(version="2.0"))
        cache.clear_many([package("bar")])
        assert (everything(cache), cache.revision("foo"), cache.revision(None)) == before

    def test_clear_all_forgets_everything(self, cache: ICache, witness: Witness) -> None:
        """After clear_all the cache is as good as new."""
        cache.save_all([package(), package("bar")])
        cache.clear_all()
        assert cache.is_empty()
        assert not witness()
        cache.save(package())
        assert cache.distinct() == ["foo"]

    # Many

    def test_many_at_once(self, cache: ICache, witness: Witness) -> None:
        """More files than fit into one query are saved, found and cleared in bulk."""
        many = [package(f"p{number % 700}", f"{number}.0") for number in range(1203)]
        cache.save_all(many)
        assert {found.filename for found in cache.everything()} == {one.filename for one in many}
        assert len(cache.distinct()) == 700
        found = cache.fetch_many([*(one.filename for one in many), "missing.zip"])
        assert {name: facts(one) for name, one in found.items()} == {one.filename: facts(one) for one in many}
        cache.clear_many(many[1:])
        assert set(witness()) == {many[0].filename}

    def test_the_last_of_two_facts_about_one_file_counts(self, cache: ICache) -> None:
        """A bulk save with one file twice keeps the later facts."""
        cache.save_all([package(summary="first"), package(summary="second")])
        assert [found.summary for found in cache.all("foo")] == ["second"]

    def test_nothing_is_little_work(self, cache: ICache) -> None:
        """Bulk calls with nothing to do are fine."""
        cache.save_all([])
        cache.clear_many([])
        assert cache.fetch_many([]) == {}

    def test_a_transaction_is_all_or_nothing(self, cache: ICache) -> None:
        """When a transaction fails nothing of it stays, or, where there are none, all of it."""
        cache.save(package())
        with pytest.raises(ZeroDivisionError), cache.transaction():
            cache.clear(package())
            cache.save(package("bar"))
            assert cache.fetch("bar-1.0.tar.gz") == package("bar")
            assert cache.all("foo") == []
            raise ZeroDivisionError
        assert cache.distinct() == (["bar"] if "transactions" in self.limits else ["foo"])

    # Search and summary

    @pytest.fixture
    def shelf(self, cache: ICache) -> ICache:
        """A cache with files to search for."""
        cache.save_all(
            [
                package("apple", "1.0", summary="A red fruit"),
                package("apple", "1.10", summary="A green fruit"),
                package("apple", "1.9", summary="A RED fruit"),
                package("pear", "2.0rc1", summary="Not an Apple"),
                package("plum", "odd", summary="50% blue_ish"),
                package("plum", "0.1", summary="5/0 BLUE-\u00c4pfel"),
                package("fig", "1.0"),
            ]
        )
        return cache

    @pytest.mark.parametrize(
        ("criteria", "query_type", "found"),
        [
            ({"name": ["apple"], "summary": ["apple"]}, "or", ["apple 1.10", "pear 2.0rc1"]),
            ({"name": ["APPL"]}, "or", ["apple 1.10"]),
            ({"summary": ["red"]}, "or", ["apple 1.9"]),
            ({"summary": ["red", "GREEN"]}, "or", ["apple 1.10"]),
            ({"summary": ["red", "green"]}, "and", []),
            ({"summary": ["red", "fruit"]}, "and", ["apple 1.9"]),
            ({"name": ["pl", "e"], "summary": ["pl", "e"]}, "and", ["apple 1.10", "pear 2.0rc1"]),
            ({"name": ["p", "x"], "summary": ["zzz"]}, "or", ["apple 1.10", "pear 2.0rc1", "plum 0.1"]),
            ({"summary": ["%"]}, "or", ["plum odd"]),
            ({"summary": ["blue_ish"]}, "or", ["plum odd"]),
            ({"summary": ["blue_"]}, "or", ["plum odd"]),
            ({"summary": ["5/0"]}, "or", ["plum 0.1"]),
            ({"summary": ["\u00e4PFEL"]}, "or", ["plum 0.1"]),
            ({"name": ["apple"], "keywords": ["x"]}, "or", ["apple 1.10"]),
            ({"name": ["fig"], "summary": []}, "or", ["fig 1.0"]),
            ({"name": ["fig"], "summary": []}, "and", ["fig 1.0"]),
            ({"name": "fig"}, "or", ["fig 1.0"]),
            ({"name": []}, "or", []),
            ({"name": []}, "and", ["apple 1.10", "fig 1.0", "pear 2.0rc1", "plum 0.1"]),
            ({}, "or", ["apple 1.10", "fig 1.0", "pear 2.0rc1", "plum 0.1"]),
            ({"summary": [""]}, "or", ["apple 1.10", "fig 1.0", "pear 2.0rc1", "plum 0.1"]),
        ],
    )
    def test_search(self, shelf: ICache, criteria: Mapping[str, list[str]], query_type: str, found: list[str]) -> None:
        """A search finds the newest matching file of each project, in any case and without wildcards."""
        assert [f"{one.name} {one.version}" for one in shelf.search(criteria, query_type)] == found

    def test_summary_is_that_of_the_latest_file(self, cache: ICache) -> None:
        """Of each project the summary tells of the file that came last, whatever its version or order of saving."""
        day = timedelta(days=1)
        cache.save_all(
            [
                package("foo", "2.0", summary="second", last_modified=NOW - day),
                package("foo", "1.0.1", summary="latest", last_modified=NOW),
                package("foo", "1.0", summary="first", last_modified=NOW - 2 * day),
                package("bar", "1.0", summary="gone", last_modified=NOW - day),
                package("bar", "1.1", last_modified=NOW),
            ]
        )
        assert cache.summary() == [
            {"name": "bar", "summary": None, "last_modified": NOW},
            {"name": "foo", "summary": "latest", "last_modified": NOW},
        ]
        cache.clear(package("foo", "1.0.1"))
        assert cache.summary()[1] == {"name": "foo", "summary": "second", "last_modified": NOW - day}

    # Revisions

    def test_every_change_gives_a_new_revision(self, cache: ICache) -> None:
        """A project's revision is never the same after a change, and no other's changes."""
        changes: list[Callable[[], None]] = [
            lambda: cache.save(package()),
            lambda: cache.save(package(summary="new")),
            lambda: cache.save_all([package(version="2.0")]),
            lambda: cache.clear(package(version="2.0")),
            lambda: cache.clear_many([package()]),
            lambda: cache.save(package()),
            lambda: cache.save(package("other", filename="foo-1.0.tar.gz")),
            lambda: cache.save(package("foo", filename="foo-1.0.tar.gz")),
            cache.clear_all,
        ]
        cache.save(package("bar"))
        seen = [cache.revision("foo")]
        for change in changes:
            other = cache.revision("bar")
            change()
            seen.append(cache.revision("Foo"))
            assert cache.revision("bar") == other or change == cache.clear_all
        expected = 1 if "revisions" in self.limits else len(seen)
        assert len(set(seen)) == expected
        assert (None in seen) == ("revisions" in self.limits)

    def test_the_list_has_a_revision_of_its_own(self, cache: ICache) -> None:
        """The revision of the list of projects changes when a project comes or goes, and only then."""
        changes: list[tuple[Callable[[], None], bool]] = [
            (lambda: cache.save(package()), True),
            (lambda: cache.save(package(version="2.0")), False),
            (lambda: cache.save(package(summary="new")), False),
            (lambda: cache.clear(package()), False),
            (lambda: cache.clear(package(version="2.0")), True),
            (lambda: cache.save(package()), True),
            (lambda: cache.save(package("bar", filename="foo-1.0.tar.gz")), True),
            (cache.clear_all, True),
        ]
        for change, expected in changes:
            before = cache.revision(None)
            change()
            assert (cache.revision(None) != before) == (expected and "revisions" not in self.limits)

    def test_clear_all_gives_every_project_a_new_revision(self, cache: ICache) -> None:
        """After clear_all no page that was shown before is current."""
        cache.save_all([package("foo"), package("bar")])
        before = cache.revision("foo"), cache.revision("bar"), cache.revision(None)
        cache.clear_all()
        after = cache.revision("foo"), cache.revision("bar"), cache.revision(None)
        assert not set(before) & set(after) or "revisions" in self.limits

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
                with server().lock("other"), order:
                    inside -= 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(64)))
        assert (inside, most) == (0, 1)

    def test_health(self, cache: ICache) -> None:
        """A cache that answers is healthy."""
        assert cache.check_health()[0] is True

    # Storage and cache together

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

    @pytest.mark.parametrize("turned", [False, True])
    def test_of_two_files_with_one_name_the_later_counts(self, cache: ICache, turned: bool) -> None:
        """A file name that is stored for two projects is listed for the later one, in whatever order they come."""
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

    def test_an_empty_cache_is_filled_at_the_start(self, cache: ICache) -> None:
        """The first start takes in everything that is stored."""
        put(cache, package(), package("bar", summary="Good", uploader="me"))
        cache.reload_if_needed()
        assert everything(cache) == stored(cache)

    def test_a_filled_cache_does_not_look_at_storage(self, cache: ICache) -> None:
        """A start with anything in the cache does not touch storage."""
        put(cache, package())
        cache.save(package("bar"))
        cache.reload_if_needed()
        assert cache.distinct() == ["bar"]
