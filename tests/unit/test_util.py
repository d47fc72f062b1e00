"""The documented helpers."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pypicloud import dateutil, settings, util
from pypicloud.util import (
    ALL_EXTENSIONS,
    PackageParseError,
    TimedCache,
    create_matcher,
    get_packagetype,
    normalize_metadata,
    normalize_metadata_value,
    normalize_name,
    parse_filename,
    stream_file,
)

# Every row of compat.md 5.9.
ROWS = {
    "foo-bar-1.0.tar.gz": ("foo-bar", "1.0"),
    "Foo.Bar-2.0rc1.tar.gz": ("foo-bar", "2.0rc1"),
    "foo-1.0.zip": ("foo", "1.0"),
    "foo-1.0.tar": ("foo", "1.0"),
    "foo-1.0.tgz": ("foo", "1.0"),
    "foo-1.0.tbz": ("foo", "1.0"),
    "foo-1.0.tar.bz2": ("foo", "1.0"),
    "foo-1.0.egg": ("foo", "1.0"),
    "foo-1.0.exe": ("foo", "1.0"),
    "foo-1.0-py3.8.egg": ("foo", "1.0"),
    "foo-1.0-py2.7-linux-x86_64.egg": ("foo", "1.0"),
    "foo-1.0.win32-py3.8.exe": ("foo", "1.0.win32"),
    "foo-1.0-beta.tar.gz": ("foo", "1.0-beta"),
    "foo-1.0-1.tar.gz": ("foo", "1.0-1"),
    "foo-2-1.0.tar.gz": ("foo", "2-1.0"),
    "a2b-3d-1.0.tar.gz": ("a2b", "3d-1.0"),
    "zope.interface-5.0.tar.gz": ("zope-interface", "5.0"),
    "foo-1.0.post1.dev2+gabc.tar.gz": ("foo", "1.0.post1.dev2+gabc"),
    "foo-1.0-py3-none-any.whl": ("foo", "1.0"),
    "Foo_Bar-1.0-py2.py3-none-any.whl": ("Foo_Bar", "1.0"),
    "foo-1.0-1-py3-none-any.whl": ("foo", "1.0"),
    "foo-1.0+abc.1-cp39-cp39-manylinux1_x86_64.whl": ("foo", "1.0+abc.1"),
    "foo-1!2.0-py3-none-any.whl": ("foo", "1!2.0"),
    "foo-1.0_local-py3-none-any.whl": ("foo", "1.0_local"),
    "foo-dev.tar.gz": ("foo", "dev"),
    "foo 1.0.tar.gz": ("foo", "1.0"),
    "pylint-2.0-py3.tar.gz": ("pylint", "2.0"),
}

# Seen by running 1.3.12; compat.md leaves them to its rule.
MORE_ROWS = {
    "foo_bar-1.0.tar.gz": ("foo-bar", "1.0"),
    "foo-bar-baz.tar.gz": ("foo-bar", "baz"),
    "foo%201.0.tar.gz": ("foo", "1.0"),
    "foo--1.0.tar.gz": ("foo", "-1.0"),
    "_foo-1.0.tar.gz": ("-foo", "1.0"),
    "2-1.0.tar.gz": ("2", "1.0"),
    "foo-1.0-py.tar.gz": ("foo", "1.0-py"),
    "foo-1.0.tar.zip": ("foo", "1.0.tar"),
    "foo.bar-1.0-py3-none-any.whl": ("foo.bar", "1.0"),
    "foo-1.0-1b-pp39-pypy39_pp73-win_amd64.whl": ("foo", "1.0"),
}

NO_ROWS = [
    "foo-1.0.tar.xz",
    "foo-1.0.msi",
    "foo-1.0.rpm",
    "foo-1.0.deb",
    "foo-1.0.TAR.GZ",
    "foo.tar.gz",
    "foo-bar-1.0-py3-none-any.whl",
    "foo.whl",
    "foo-v1.0-py3-none-any.whl",
    "foo-1.0-py3-none-any-label.whl",
    "a.1-2.0.tar.gz",
    "-1.0.tar.gz",
    "foo-.tar.gz",
    "foo-1.0",
    ".tar.gz",
    "",
    "dir/foo-1.0.tar.gz",
    "foo-../1.0-py3-none-any.whl",
    "foo-1.0\\x-py3-none-any.whl",
    "foo-1.0\n-py3-none-any.whl",
    "foo%2f..-1.0%2f.tar.gz",
]


@pytest.mark.parametrize(("filename", "expected"), [*ROWS.items(), *MORE_ROWS.items()])
def test_names_and_versions_come_out_of_file_names(filename: str, expected: tuple[str, str]) -> None:
    """Each file name means what it meant to 1.3.12 (compat.md 5.9)."""
    assert parse_filename(filename) == expected


@pytest.mark.parametrize("filename", NO_ROWS)
def test_other_file_names_are_refused(filename: str) -> None:
    """What says no name and version raises PackageParseError, a ValueError, wheels included."""
    with pytest.raises(PackageParseError, match="Cannot parse package file"):
        parse_filename(filename)
    assert issubclass(PackageParseError, ValueError)


def test_an_epoch_is_part_of_the_version() -> None:
    """A ``!`` does not cut the version off in source distributions either."""
    assert parse_filename("foo-1!2.0.tar.gz") == ("foo", "1!2.0")


@pytest.mark.parametrize(
    ("filename", "name", "expected"),
    [
        ("foo-2-1.0.tar.gz", "foo-2", ("foo-2", "1.0")),
        ("foo_2-1.0.tar.gz", "Foo.2", ("foo-2", "1.0")),
        ("a2b-3d-1.0.tar.gz", "a2b-3d", ("a2b-3d", "1.0")),
        ("foo-bar-1.0.tar.gz", "foo", ("foo", "bar-1.0")),
        ("foo-py3-1.0-py3.8.egg", "foo-py3", ("foo-py3", "1.0")),
        ("FOO-1.0.tar.gz", "foo", ("foo", "1.0")),
        ("foo-1.0.tar.gz", "bar", ("bar", "1.0")),
        ("foo-1.0.tar.gz", "", ("foo", "1.0")),
        ("Foo_Bar-1.0-py3-none-any.whl", "foo-bar", ("Foo_Bar", "1.0")),
        ("foo-1.0-py3-none-any.whl", "bar", ("foo", "1.0")),
    ],
)
def test_a_known_name_tells_where_the_version_starts(filename: str, name: str, expected: tuple[str, str]) -> None:
    """A name that is known is followed by the version, in whatever spelling; wheels need no telling."""
    assert parse_filename(filename, name) == expected


@pytest.mark.parametrize("filename", ["foo.tar.gz", "foo-.tar.gz", "foo1.0.tar.gz", "foo-1.0.tar.xz"])
def test_a_known_name_does_not_make_up_for_a_version(filename: str) -> None:
    """A file name without version or known ending stays unparseable."""
    with pytest.raises(PackageParseError):
        parse_filename(filename, "foo")


@given(st.text(), st.none() | st.text())
def test_any_text_is_parsed_or_refused(text: str, name: str | None) -> None:
    """Junk raises PackageParseError and nothing else, and what comes out holds no path."""
    for extension in ALL_EXTENSIONS:
        try:
            parsed = parse_filename(text + extension, name)
        except PackageParseError:
            continue
        assert "/" not in parsed[1]


def test_the_extensions_are_those_of_before() -> None:
    """ALL_EXTENSIONS is as documented."""
    assert ALL_EXTENSIONS == (".tar.gz", ".tar.bz2", ".tar", ".zip", ".tgz", ".tbz", ".egg", ".exe", ".whl")


@pytest.mark.parametrize(
    ("name", "normal"), [("Foo__Bar", "foo-bar"), ("Foo.-_Bar", "foo-bar"), ("-foo-", "-foo-"), ("", ""), ("a", "a")]
)
def test_names_are_normalised(name: str, normal: str) -> None:
    """Runs of separators become one ``-``; nothing is stripped from the ends (compat.md 5.9)."""
    assert normalize_name(name) == normal


@given(st.text())
def test_normalising_twice_changes_nothing(name: str) -> None:
    """The normalised form is its own normalised form, whatever the letters."""
    once = normalize_name(name)
    assert normalize_name(once) == once


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("a.tar.gz", "sdist"),
        ("a.zip", "sdist"),
        ("a.tgz", "sdist"),
        ("a.tar.bz2", "sdist"),
        ("a.tbz", "sdist"),
        ("a.tar", "sdist"),
        ("a.tar.xz", "sdist"),
        ("a.egg", "bdist_egg"),
        ("a.whl", "bdist_wheel"),
        ("a.exe", ""),
        ("a.msi", ""),
        ("a", ""),
    ],
)
def test_package_types_come_out_of_file_names(filename: str, kind: str) -> None:
    """Source distributions of every kind, eggs and wheels are told apart; the rest has no type (compat.md 5.4)."""
    assert get_packagetype(filename) == kind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a  b\n\tc", "a b c"),
        ("été", "ete"),
        ("ﬁ", "fi"),
        ("日本", ""),
        (" x ", " x "),
        ("é".encode(), "e"),
        (b"a\xffb", "ab"),
    ],
)
def test_metadata_values_become_ascii(value: str | bytes, expected: str) -> None:
    """Values are decomposed, stripped of what is not ASCII, and put on one line (compat.md 2.3)."""
    assert normalize_metadata_value(value) == expected


def test_metadata_keys_get_hyphens() -> None:
    """Keys are written with ``-``, values in ASCII."""
    assert normalize_metadata({"requires_python": ">=3", "summary": "é", "x": b""}) == {
        "requires-python": ">=3",
        "summary": "e",
        "x": "",
    }


@pytest.mark.parametrize(
    ("queries", "query_type", "found"),
    [
        (["foo"], "or", ["foo", "FOO bar"]),
        (["Foo"], "and", ["foo", "FOO bar"]),
        (["foo", "bar"], "and", ["FOO bar"]),
        (["foo", "bar"], "or", ["foo", "bar", "FOO bar"]),
        (["f.o"], "or", []),
        ([], "or", []),
        ([], "and", ["foo", "bar", "FOO bar", ""]),
        ([""], "or", ["foo", "bar", "FOO bar", ""]),
    ],
)
def test_matchers_look_for_words_in_any_case(queries: list[str], query_type: str, found: list[str]) -> None:
    """All words or any of them must be in the text; they are words, not patterns."""
    matches = create_matcher(queries, query_type)
    assert [text for text in ("foo", "bar", "FOO bar", "") if matches(text)] == found


def test_files_are_streamed_in_chunks() -> None:
    """A file comes in chunks of the size asked for, from where it stands."""
    stream = io.BytesIO(b"abcdefgh")
    stream.read(1)
    assert list(stream_file(stream, 3)) == [b"bcd", b"efg", b"h"]
    assert list(stream_file(io.BytesIO(b""))) == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_timed_cache_forgets(clock: list[float]) -> None:
    """A value is there for the time given, and then it is not."""
    cache = TimedCache(10)
    cache["a"] = 1
    clock[0] += 9.9
    assert (cache["a"], "a" in cache, cache.get("a")) == (1, True, 1)
    clock[0] += 0.2
    assert ("a" in cache, cache.get("a"), cache.get("a", 7)) == (False, None, 7)
    with pytest.raises(KeyError):
        cache["a"]
    assert dict(cache) == {}


def test_a_timed_cache_asks_the_factory(clock: list[float]) -> None:
    """A missing value is made, kept and made again when its time is over; None is never kept; ``in`` makes nothing."""
    made: list[str] = []

    def factory(key: str) -> str | None:
        made.append(key)
        return None if key == "none" else key * 2

    cache = TimedCache(10, factory)
    assert "a" not in cache
    assert [cache["a"], cache.get("a"), cache.get("b")] == ["aa", "aa", "bb"]
    assert made == ["a", "b"]
    clock[0] += 11
    assert cache["a"] == "aa"
    assert made == ["a", "b", "a"]
    assert cache.get("none", 3) == 3
    with pytest.raises(KeyError):
        cache["none"]
    assert made == ["a", "b", "a", "none", "none"]


def test_a_timed_cache_may_keep_for_ever_or_not_at_all(clock: list[float]) -> None:
    """None keeps for ever, 0 keeps nothing, less is an error."""
    forever, never = TimedCache(None), TimedCache(0)
    forever["a"] = never["a"] = 1
    clock[0] += 1e9
    assert forever["a"] == 1
    assert "a" not in never
    with pytest.raises(ValueError, match="negative"):
        TimedCache(-1)


def test_a_single_value_may_have_its_own_time(clock: list[float]) -> None:
    """set_expire keeps for the seconds it says, None for ever, 0 not at all, and replaces what was there."""
    cache = TimedCache(10)
    cache.set_expire("short", 1, 1)
    cache.set_expire("forever", 2, None)
    cache["gone"] = 3
    cache.set_expire("gone", 3, 0)
    cache["longer"] = 4
    cache.set_expire("longer", 5, None)
    assert "gone" not in cache
    clock[0] += 100
    assert dict(cache.items()) == {"short": 1, "forever": 2, "longer": 5}
    assert [key for key in ("short", "forever", "longer") if key in cache] == ["forever", "longer"]


def test_a_value_that_is_taken_out_leaves_no_deadline(clock: list[float]) -> None:
    """A value set again after it was taken out has its whole time before it."""
    cache = TimedCache(10)
    cache["a"] = 1
    clock[0] += 9
    del cache["a"]
    cache["a"] = 2
    clock[0] += 9
    assert cache["a"] == 2


def test_times_know_their_zone() -> None:
    """Both makers of times give UTC, with its zone."""
    assert dateutil.UTC is UTC
    assert dateutil.utcfromtimestamp(0.5) == datetime(1970, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)
    assert abs(dateutil.utcnow() - datetime.now(UTC)) < timedelta(minutes=1)
    assert dateutil.utcnow().tzinfo is UTC


def test_settings_are_found_where_they_were() -> None:
    """EnvironSettings can be imported from pypicloud.util, as plug-ins do."""
    assert util.EnvironSettings is settings.EnvironSettings
