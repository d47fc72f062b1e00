"""What the items of DynamoDB mean, and how large they are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pypicloud.cache.dynamo.items import checksum, loaded, moment, seconds, size_of, state_of, stored
from pypicloud.testing.cache_fixtures import package


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        ("text", {"S": "text"}),
        ("", {"S": ""}),
        (True, {"BOOL": True}),
        (None, {"NULL": True}),
        (12345678901, {"N": "12345678901"}),
        (1.0, {"N": "1"}),
        (-0.25, {"N": "-0.25"}),
        (1e3, {"N": "1000"}),
        (10**40, {"B": b"1" + b"0" * 40}),
        (1e-60, {"B": b"1e-60"}),
        (float("inf"), {"B": b"Infinity"}),
        ("\ud83d", {"B": b'"\\ud83d"'}),
        ([1, ["a", None]], {"L": [{"N": "1"}, {"L": [{"S": "a"}, {"NULL": True}]}]}),
        ({"a": {"b": False}}, {"M": {"a": {"M": {"b": {"BOOL": False}}}}}),
    ],
    ids=repr,
)
def test_values(value: Any, attribute: dict[str, Any]) -> None:
    """Every value that a package's data can have is kept in the type of DynamoDB for it, and comes back."""
    assert stored(value) == attribute
    assert loaded(attribute) == value


def test_other_spellings_of_a_number() -> None:
    """A number comes back the same, however it is written."""
    assert [loaded({"N": text}) for text in ("1.0", "1E+3", "0.50")] == [1, 1000, 0.5]


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC), "1777863721.123456"),
        (datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "1777863721.000000"),
        (datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "-0.000001"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "253402300799.999999"),
    ],
)
def test_times(time: datetime, text: str) -> None:
    """A time is kept in seconds, and comes back to the microsecond."""
    assert seconds(time) == text
    assert moment({"N": text}) == time


def test_the_checksum_is_that_of_the_facts() -> None:
    """Any other fact is another checksum; the order of files, and how a value is written, do not count."""
    files = [package(), package(version="2.0", size=1), package("bar", summary="x")]
    assert checksum(files) == checksum(files[::-1]) == checksum(files[:1]) ^ checksum(files[1:])
    assert checksum([]) == 0
    others = [package(summary="y"), package(size=2), package(yanked=True), package(version="1"), package(filename="a")]
    assert len({checksum([each]) for each in [*files, *others]}) == 8
    assert checksum([package(size=1.0)]) == checksum([package(size=1)])


def test_sizes() -> None:
    """The size of an item is that of its names and values."""
    item = {"ab": {"S": "\u00dc"}, "c": {"N": "12"}, "d": {"M": {"e": {"L": [{"BOOL": True}, {"B": b"xyz"}]}}}}
    assert size_of(item) == (2 + 2) + (1 + 2) + (1 + 3 + 1 + 1 + 3 + 1 + 1 + 1 + 3)


def test_what_cannot_be_read_is_not_believed() -> None:
    """Of a project whose item is damaged there is nothing known but that it is there."""
    for wrong in ({"check": {"S": "xyz"}}, {"count": {"S": "1"}}, {"recent": {"N": "1"}}):
        item = {"revision": {"S": "r"}, "check": {"S": "0a"}, "count": {"N": "2"}, "recent": {"S": "a/b"}}
        assert state_of("foo", item).recent == ("a", "b")
        state = state_of("foo", {**item, **wrong})
        assert (state.revision, state.digest, state.count, state.check) == ("r", None, 1, None)
    assert state_of("foo", {"last_modified": {"S": "x"}}).page_revision is None
    late = {"revision": {"S": "r"}, "check": {"S": "0a"}, "count": {"N": "2"}, "recent": {"S": ""}}
    assert state_of("foo", {**late, "version": {"S": "1"}, "last_modified": {"S": "x"}}).digest is None
