"""The contract of the caches: what is found by its words, and what the overview of all projects says."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pypicloud.testing.cache_fixtures import NOW, CacheFixtures, package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pypicloud.cache.base import ICache


class SearchContract(CacheFixtures):
    """Search and summary go by the newest version of each project."""

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

    def test_summary_tells_of_the_newest_version(self, cache: ICache) -> None:
        """A project's summary is its newest version's, in whatever order they came; its time is the latest of all."""
        day = timedelta(days=1)
        cache.save_all(
            [
                package("foo", "2.0", summary="newest", last_modified=NOW - day),
                package("foo", "1.10", summary="latest", last_modified=NOW),
                package("foo", "1.9", summary="first", last_modified=NOW - 2 * day),
                package("bar", "1.0", summary="old", last_modified=NOW),
                package("bar", "1.1", last_modified=NOW - day),
            ]
        )
        bar = {"name": "bar", "summary": None, "last_modified": NOW}
        assert cache.summary() == [bar, {"name": "foo", "summary": "newest", "last_modified": NOW}]
        cache.clear(package("foo", "2.0"))
        assert cache.summary() == [bar, {"name": "foo", "summary": "latest", "last_modified": NOW}]
        cache.save(package("foo", "1.10", summary="again", last_modified=NOW - 3 * day))
        assert cache.summary() == [bar, {"name": "foo", "summary": "again", "last_modified": NOW - 2 * day}]
        cache.clear_many([package("foo", "1.9"), package("foo", "1.10")])
        assert cache.summary() == [bar]

    def test_of_two_files_of_the_newest_version_the_last_name_counts(self, cache: ICache) -> None:
        """Which summary is shown does not depend on the order of uploads."""
        files = [package(ending=".zip", summary="zip"), package(ending=".tar.gz", summary="tar")]
        for order in (files, files[::-1]):
            cache.clear_many(files)
            for each in order:
                cache.save(each)
            assert [row["summary"] for row in cache.summary()] == ["zip"]
