"""Facts as texts in Redis, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pypicloud.cache.redis_cache.rows import digest_of_summary, package_of, row_of, summary_row
from pypicloud.cache.steps import Project, digest_of
from pypicloud.models import Package

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda children: st.lists(children) | st.dictionaries(ANY_TEXT, children),
    max_leaves=5,
)
KEYS = ANY_TEXT | st.sampled_from(["name", ":name", "::", ":", "", "filename", "summary", "last_modified", "version"])


@given(
    texts=st.lists(ANY_TEXT, min_size=4, max_size=4),
    time=st.datetimes(timezones=st.just(UTC)),
    data=st.dictionaries(KEYS, JSON.filter(bool), max_size=4),
)
def test_every_fact_comes_back(texts: list[str], time: datetime, data: dict[str, Any]) -> None:
    """Whatever the texts, the time and the data are, they are the same when they are read back."""
    name, version, filename, summary = texts
    package = Package(name, version, filename, time, summary)
    package.data = data
    found = package_of(row_of(package), Package)
    assert (found.name, found.version, found.filename) == (package.name, version, filename)
    assert (found.last_modified, found.summary, found.data) == (time, summary or None, data)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC), b"1777863721.123456"),
        (datetime(2015, 1, 2, 0, 50, 45, tzinfo=UTC), b"1420159845.0"),
        (datetime(1970, 1, 1, tzinfo=UTC), b"0.0"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), b"253402300799.999999"),
    ],
)
def test_times_are_written_as_1_3_12_did(time: datetime, text: bytes) -> None:
    """A time is the seconds since 1970, as Python writes a number; one far away has all its digits."""
    row = row_of(Package("foo", "1", "foo-1.zip", time))
    assert row[row.index(b"last_modified") + 1] == text


@pytest.mark.parametrize("text", [b"", b"x", b"nan", b"inf", b"-inf", b"1e400", b"-1e30", b"\xff", b"1,5"])
def test_what_is_no_time_is_an_error(text: bytes) -> None:
    """A row with a time that is none cannot be used."""
    row = row_of(Package("foo", "1", "foo-1.zip"))
    row[row.index(b"last_modified") + 1] = text
    with pytest.raises(ValueError, match=r"."):
        package_of(row, Package)


def test_nothing_is_left_out() -> None:
    """Data that say nothing, which other programs may have written, count as none."""
    row = [*row_of(Package("foo", "1", "foo-1.zip")), b"uploader", b'""', b"yanked", b"false", b"path", b"null"]
    assert package_of(row, Package).data == {}


@given(
    version=ANY_TEXT,
    filename=ANY_TEXT,
    summary=ANY_TEXT,
    latest=ANY_TEXT,
    hours=st.integers(-9, 9),
    count=st.integers(1),
)
def test_a_digest_comes_back(version: str, filename: str, summary: str, latest: str, hours: int, count: int) -> None:
    """A digest is the same when it is read back, if the project still has as many files."""
    time = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
    files = [
        Package("foo", version, filename, time, summary),
        Package("foo", "0", latest, time + timedelta(hours=hours), "other"),
    ]
    digest = digest_of(files)
    row = [*summary_row(Project("foo", None, digest, count)), b"files", str(count).encode()]
    assert digest_of_summary(row, count) == digest
    assert digest_of_summary(row, count + 1) is None
    row[row.index(b"last_modified") + 1] += b"1"
    assert digest_of_summary(row, count) is None
