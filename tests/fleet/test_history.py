"""The judge of the freshness tests: it finds what is planted, and lets pass what is right."""

from __future__ import annotations

import pytest

from support.freshness import History, ListRead, Read, Write

#: One file: written as "a" from 1 to 2, as "b" from 4 to 5, deleted from 7 to 8.
WRITES = (Write("a", 1, 2), Write("b", 4, 5), Write(None, 7, 8))


def history(*writes: Write) -> History:
    """A history of one file of one project."""
    made = History()
    made.writes["foo"]["foo-1.0.tar.gz"].extend(writes)
    return made


def read(asked: float, answered: float, digest: str | None) -> Read:
    """A read that shows the file with this digest, or not at all."""
    return Read("foo", {} if digest is None else {"foo-1.0.tar.gz": digest}, asked, answered, "a read")


def list_read(asked: float, answered: float, *names: str) -> ListRead:
    """A look at the list that shows these projects."""
    return ListRead(set(names), asked, answered, "a list")


@pytest.mark.parametrize(
    "right",
    [
        read(0.1, 0.5, None),
        read(0.5, 1.5, None),
        read(0.5, 1.5, "a"),
        read(1.5, 6.0, None),
        read(2.5, 3.0, "a"),
        read(2.5, 4.5, "b"),
        read(4.5, 4.6, "a"),
        read(4.5, 4.6, "b"),
        read(7.5, 7.6, "b"),
        read(8.5, 9.0, None),
    ],
)
def test_what_may_be_shown(right: Read) -> None:
    """A read may show each state that held, or was coming, between question and answer."""
    made = history(*WRITES)
    made.reads.append(right)
    assert made.violations() == []


@pytest.mark.parametrize(
    "wrong",
    [
        read(0.1, 0.5, "a"),
        read(2.5, 3.0, None),
        read(2.5, 3.0, "b"),
        read(5.5, 6.0, "a"),
        read(5.5, 6.0, None),
        read(8.5, 9.0, "b"),
        read(8.5, 9.0, "c"),
        Read("foo", {"foo-1.0.tar.gz": "a", "foo-2.0.tar.gz": "x"}, 2.5, 3.0, "a read"),
        Read("bar", {"foo-1.0.tar.gz": "a"}, 2.5, 3.0, "a read"),
        Read("foo", {}, 2.5, 3.0, "a download", only="foo-1.0.tar.gz"),
    ],
)
def test_what_must_not_be_shown(wrong: Read) -> None:
    """A state from before the last acknowledged write is found, and one that had not begun or never was."""
    made = history(*WRITES)
    made.reads.append(wrong)
    assert len(made.violations()) == 1


def test_a_failed_write() -> None:
    """What a failed write led to may show until the next write is acknowledged, and not after."""
    made = history(Write("a", 1, 2), Write("b", 3), Write("c", 6, 7))
    made.reads += [read(4, 5, "a"), read(4, 5, "b"), read(6.5, 6.6, "a"), read(7.5, 8, "c")]
    assert made.violations() == []
    made.reads += [read(7.5, 8, "a"), read(7.5, 8, "b")]
    assert len(made.violations()) == 2


def test_lists() -> None:
    """The list must name what has files, may name what is coming or going, and nothing else."""
    made = history(*WRITES)
    made.lists += [
        list_read(0.5, 1.5),
        list_read(0.5, 1.5, "foo"),
        list_read(2.5, 6, "foo"),
        list_read(7.5, 7.6),
        list_read(7.5, 7.6, "foo"),
        list_read(8.5, 9),
    ]
    assert made.violations() == []
    made.lists += [
        list_read(0.1, 0.5, "foo"),
        list_read(2.5, 6),
        list_read(8.5, 9, "foo"),
        list_read(2.5, 6, "foo", "bar"),
    ]
    assert len(made.violations()) == 4


def test_the_time_of_a_write() -> None:
    """A write is acknowledged at the end of its block, and is of unknown outcome if that fails."""
    made = History()
    with made.writing("foo", "f", "a") as good:
        assert good.acknowledged is None
    with pytest.raises(OSError, match="gone"), made.writing("foo", "f", "b") as bad:
        raise OSError("gone")
    assert good.acknowledged is not None
    assert good.begun <= good.acknowledged <= bad.begun
    assert bad.acknowledged is None
    assert made.last("foo", "f") == "b"
