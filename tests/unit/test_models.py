"""The values that travel through the server."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from packaging_legacy.version import LegacyVersion

from pypicloud.models import (
    ANONYMOUS,
    METADATA_FIELDS,
    Caller,
    Link,
    Package,
    ProjectPage,
    Redirect,
    Upload,
    normalized,
    parse_version,
)


class Request:
    """What Package asks of a request."""

    def app_url(self, *paths: str) -> str:
        """An absolute URL below the mount point."""
        return "/".join(("https://index.example", *paths))


def package(version: str = "1.0", name: str = "acme", filename: str | None = None) -> Package:
    return Package(name, version, filename or f"{name}-{version}.tar.gz")


def test_a_package_normalises_what_it_is_given() -> None:
    """The name is normalised, empty facts are dropped, the rest stays as it is."""
    made = Package("Foo_Bar", "1.0", "Foo_Bar-1.0.tar.gz", summary="", hash_sha256="aa", hash_md5="", uploader=None)
    assert (made.name, made.version, made.filename) == ("foo-bar", "1.0", "Foo_Bar-1.0.tar.gz")
    assert (made.summary, made.data) == (None, {"hash_sha256": "aa"})


def test_a_package_always_knows_its_time_zone() -> None:
    """A time without a zone is UTC, one with a zone is kept, and none means now."""
    naive = datetime(2020, 1, 2)  # noqa: DTZ001 - that is the point
    assert Package("a", "1", "a-1.zip", naive).last_modified == datetime(2020, 1, 2, tzinfo=UTC)
    there = datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert Package("a", "1", "a-1.zip", there).last_modified == there
    assert abs(package().last_modified - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_package_links_to_the_download_endpoint() -> None:
    """The link is absolute and carries the sha256 if it is known (compat.md 2.4)."""
    plain = Package("Foo_Bar", "1.0+x", "Foo_Bar-1.0+x.tar.gz")
    url = "https://index.example/api/package/foo-bar/Foo_Bar-1.0+x.tar.gz"
    assert plain.get_url(Request()) == url
    assert Package("Foo_Bar", "1.0+x", plain.filename, hash_sha256="9f").get_url(Request()) == f"{url}#sha256=9f"


def test_metadata_are_the_known_facts_in_order() -> None:
    """get_metadata has the documented facts that are known, in the documented order, and nothing else."""
    made = Package("a", "1", "a-1.zip", summary="s", uploader="me", size=3, requires_python=">=3", path="x/y")
    assert list(made.get_metadata().items()) == [("requires_python", ">=3"), ("summary", "s"), ("uploader", "me")]
    assert tuple(METADATA_FIELDS) == ("requires_python", "summary", "hash_sha256", "hash_md5", "uploader")


def test_metadata_is_read_in_both_spellings() -> None:
    """Each fact may be written with ``_`` or ``-``; the former goes first; empty ones do not count (compat.md 2.3)."""
    blob = {"requires-python": "b", "hash_sha256": "c", "hash-sha256": "d", "uploader": "", "summary": None, "x": "y"}
    assert Package.read_metadata(blob) == {"requires_python": "b", "hash_sha256": "c"}
    assert Package.read_metadata({"requires_python": "", "requires-python": "b"}) == {"requires_python": "b"}


@given(st.fixed_dictionaries({}, optional={field: st.text(min_size=1) for field in METADATA_FIELDS}))
def test_metadata_survives_storage(facts: dict[str, Any]) -> None:
    """What get_metadata gives makes the same package again, in either spelling of the keys."""
    made = Package("a", "1", "a-1.zip", **facts)
    for blob in (made.get_metadata(), {key.replace("_", "-"): value for key, value in made.get_metadata().items()}):
        assert Package("a", "1", "a-1.zip", **Package.read_metadata(blob)).get_metadata() == facts


def test_the_search_summary_has_no_null() -> None:
    """XML-RPC gets name, version and a summary that is never null (compat.md 5.7)."""
    assert package().search_summary() == {"name": "acme", "summary": "", "version": "1.0"}


def test_packages_are_equal_by_file_name() -> None:
    """Equality and hash go by the file name alone."""
    assert package("1", "a", "f") == package("2", "b", "f")
    assert hash(package("1", "a", "f")) == hash(package("2", "b", "f"))
    assert package("1", "a", "f") != package("1", "a", "g")
    assert package() != "acme-1.0.tar.gz"
    assert package("1", "a", "f") <= package("1", "a", "f")


def test_packages_sort_by_name_version_and_file_name() -> None:
    """Projects first, then versions as PEP 440 orders them, then file names."""
    ordered = [
        package("0", "A", "z"),
        package("1.9", "a", "c"),
        package("1.10", "a", "a"),
        package("1.10", "a", "b"),
        package("0", "b", "0"),
    ]
    shuffled = [ordered[place] for place in (4, 2, 0, 3, 1)]
    assert sorted(shuffled) == ordered


def test_odd_versions_sort_lowest() -> None:
    """Versions that are not PEP 440 sort below all that are, in the old order among themselves, as 1.3.12 did."""
    ordered = ["dev", "", "foo", "zzz", "2004d", "0.0.dev0", "0.1dev", "1.0a1", "1.0-beta", "1.0", "1.0.post1", "1!0"]
    assert [made.version for made in sorted(package(version) for version in sorted(ordered))] == ordered


@pytest.mark.parametrize("odd", ["dev", "", "2004d", "1.0-foo", "1..0"])
def test_an_odd_version_compares_with_every_other(odd: str) -> None:
    """Every comparison of an odd version with a real one has an answer, in both directions."""
    low, high = parse_version(odd), parse_version("0.0.dev0")
    assert isinstance(low, LegacyVersion)
    assert isinstance(high, Version)
    assert (low < high, low <= high, high > low, high >= low, low != high) == (True,) * 5
    assert (high < low, high <= low, low > high, low >= high, low == high) == (False,) * 5
    assert parse_version(odd) == low


@given(st.lists(st.text(max_size=8) | st.sampled_from(["1.0", "1.0.0", "1.0a1", "1!0", "1.0+x", "v1"]), max_size=8))
def test_any_versions_can_be_sorted(versions: list[str]) -> None:
    """Whatever was stored can be sorted, the same way from every start, odd ones first."""
    once = sorted(map(parse_version, versions))
    assert sorted(map(parse_version, reversed(versions))) == once
    odd = [isinstance(version, LegacyVersion) for version in once]
    assert odd == sorted(odd, reverse=True)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0", False),
        ("1", False),
        ("1.0a1", True),
        ("1.0.post1", True),
        ("1.0.dev0", True),
        ("1.0-1", True),
        ("1!2", True),
        ("1..0", True),
        ("1.", True),
        ("", True),
        ("dev", True),
    ],
)
def test_prereleases_are_all_but_plain_numbers(version: str, expected: bool) -> None:
    """Only numbers with dots between count as final (compat.md 8.3)."""
    assert package(version).is_prerelease is expected


def test_normalized_is_the_normal_form() -> None:
    """The type that proves normalisation holds the normalised text."""
    assert normalized("Foo._Bar") == "foo-bar"


def test_values_are_frozen() -> None:
    """What travels is never changed on the way."""
    for value, attribute in (
        (Link("f", "u", "1"), "url"),
        (ProjectPage(normalized("a"), (), ()), "name"),
        (Redirect("there"), "location"),
        (Caller(), "user"),
        (Upload("f", "p", 0, {}), "path"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(value, attribute, "other")


def test_only_the_admin_principal_makes_an_admin() -> None:
    """A caller is an admin by its principals, not by its name."""
    assert not ANONYMOUS.is_admin
    assert ANONYMOUS.user is None
    assert ANONYMOUS.principals == {Caller.EVERYONE}
    assert not Caller("admin", frozenset({"user:admin"})).is_admin
    assert Caller("ann", frozenset({Caller.ADMIN})).is_admin
