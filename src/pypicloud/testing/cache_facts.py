"""The contract of the caches: the facts themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from pypicloud.cache.changes import Change
from pypicloud.cache.changes import facts as facts_of
from pypicloud.models import Package
from pypicloud.testing.cache_fixtures import NOW, CacheFixtures, Witness, everything, facts, package

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.cache.base import ICache


class FactsContract(CacheFixtures):
    """What a cache does with facts."""

    # One file

    def test_an_empty_cache_knows_nothing(self, cache: ICache, witness: Witness) -> None:
        """An empty cache answers every question with nothing."""
        assert cache.fetch("foo-1.0.tar.gz") is None
        assert (cache.all("foo"), cache.distinct(), cache.summary(), list(cache.everything())) == ([], [], [], [])
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
            path="a/b",
        )
        saved.data["odd key"] = {"deep": [1, "\ud83d"]}
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
        "filename",
        ["a" * 255, "Foo-1.0+local.1.tar.gz", "foo 1.0.zip", "f%6fo_-1.tar.gz", "o'foo\";--1.0.egg", "\u00e9-1.0.egg"],
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

    # Changing only what is as it was read

    def test_an_exchange_changes_what_is_as_it_was_read(self, cache: ICache, witness: Witness) -> None:
        """Of many changes at once those are made, and named, whose file is as expected, and no others."""
        old = [package(f"p{number}", summary="old") for number in range(4)]
        cache.save_all(old)
        cache.save_all([package("p1", summary="someone else's"), package("p4", summary="someone else's")])
        cache.clear(old[2])
        before = {name: cache.revision(name) for name in ("p1", "p2", "p4")}
        new = [package(f"p{number}", summary="new") for number in range(6)]
        changes = [Change(each.filename, facts_of(each), new[number]) for number, each in enumerate(old[:3])]
        changes.append(Change(old[3].filename, facts_of(old[3]), None))
        changes += [Change(each.filename, None, each) for each in new[4:]]
        assert cache.exchange(changes) == {"p0-1.0.tar.gz", "p3-1.0.tar.gz", "p5-1.0.tar.gz"}
        summaries = {found.name: found.summary for found in cache.everything()}
        assert summaries == {"p0": "new", "p1": "someone else's", "p4": "someone else's", "p5": "new"}
        assert len(witness()) == 4
        assert {name: cache.revision(name) for name in before} == before

    def test_an_exchange_gives_new_revisions(self, cache: ICache) -> None:
        """Every project that an exchange changes has a new revision, and their list, where one comes or goes."""
        cache.save_all([package("foo"), package("bar"), package("zed")])
        names = ["foo", "bar", "zed", "new", None]
        before = {name: cache.revision(name) for name in names}
        changes = [
            Change("foo-1.0.tar.gz", facts_of(package("foo")), package("foo", uploader="me")),
            Change("bar-1.0.tar.gz", facts_of(package("bar")), None),
            Change("new-1.0.tar.gz", None, package("new")),
        ]
        assert len(cache.exchange(changes)) == 3
        same = {name for name in names if cache.revision(name) == before[name]}
        assert same == ({*names} if "revisions" in self.limits else {"zed"})

    def test_an_exchange_can_move_a_file(self, cache: ICache) -> None:
        """A file that is found to belong to another project goes there, and both have new revisions."""
        cache.save_all([package("foo"), package("foo", "2.0")])
        before = cache.revision("foo"), cache.revision("bar")
        moved = package("bar", filename="foo-1.0.tar.gz")
        assert cache.exchange([Change("foo-1.0.tar.gz", facts_of(package("foo")), moved)]) == {"foo-1.0.tar.gz"}
        assert [(found.name, found.version) for found in cache.all("foo")] == [("foo", "2.0")]
        assert cache.all("bar") == [moved]
        after = cache.revision("foo"), cache.revision("bar")
        assert all(new != old or "revisions" in self.limits for new, old in zip(after, before, strict=True))

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

    def test_many_revisions_at_once(self, cache: ICache) -> None:
        """Asked for many revisions, a cache answers for each name as given, as it does one by one."""
        cache.save_all([package("foo"), package("foo-bar")])
        names = ["foo", "Foo_Bar", "missing", None]
        assert cache.revisions(names) == {name: cache.revision(name) for name in names}
        assert cache.revisions([]) == {}

    def test_clear_all_gives_every_project_a_new_revision(self, cache: ICache) -> None:
        """After clear_all no page that was shown before is current."""
        cache.save_all([package("foo"), package("bar")])
        before = cache.revision("foo"), cache.revision("bar"), cache.revision(None)
        cache.clear_all()
        after = cache.revision("foo"), cache.revision("bar"), cache.revision(None)
        assert not set(before) & set(after) or "revisions" in self.limits

    # Health

    def test_health(self, cache: ICache) -> None:
        """A cache that answers is healthy."""
        assert cache.check_health()[0] is True
