"""Downloads from stores that break off, ignore what is asked for, or are not read to their end."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pypicloud.errors import BackendUnavailable
from pypicloud.storage import download
from pypicloud.storage.download import Answer, BrokenOff, Download

CONTENT = b"0123456789"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0)


class Breaking(io.BytesIO):
    """Bytes that break off where they should end."""


class Scripted(Download):
    """A download whose answers a test gives; ``asked`` are the parts that were asked for."""

    def __init__(self, answers: Iterator[Answer], start: int = 0, stop: int | None = None) -> None:
        self.answers = answers
        self.asked: list[str | None] = []
        super().__init__(start, stop)

    def _ask(self, part: str | None, state: str | None) -> Answer | None:
        self.asked.append(part)
        return next(self.answers)

    def _block(self, body: Any, size: int) -> bytes:
        block: bytes = body.read(size)
        if not block and isinstance(body, Breaking):
            raise BrokenOff(BackendUnavailable("away"))
        return block


def whole(body: io.BytesIO) -> Answer:
    """The answer with the whole object."""
    return Answer.of(body, "", len(CONTENT), "1")


def part(start: int, stop: int, body: io.BytesIO) -> Answer:
    """The answer with a part of it."""
    return Answer.of(body, f"bytes {start}-{stop - 1}/{len(CONTENT)}", stop - start, "1")


def test_what_breaks_off_goes_on() -> None:
    """The rest is asked for from the byte on at which it broke off."""
    stream = Scripted(iter([whole(Breaking(CONTENT[:4])), part(4, 10, io.BytesIO(CONTENT[4:]))]))
    assert stream.read() == CONTENT
    assert stream.asked == [None, "bytes=4-"]


class Poured(Scripted):
    """A download whose bytes are moved two at a time."""

    def _poured(self, body: Any, pipe: int, size: int) -> int | None:
        block = self._block(body, min(size, 2))
        return os.write(pipe, block) if block else None


@pytest.mark.parametrize("stop", [None, 6])
def test_what_is_moved_goes_on(stop: int | None) -> None:
    """Bytes that are moved into a pipe count as those that are read: the rest is asked for, and there are no others."""
    reader, writer = os.pipe()
    first, end = Breaking(CONTENT[:4]), stop or len(CONTENT)
    answers = [whole(first) if stop is None else part(0, end, first), part(4, end, io.BytesIO(CONTENT[4:end]))]
    stream = Poured(iter(answers), 0, stop)
    try:
        moved = [stream.pour(writer, 3) for _ in range(6)]
        os.close(writer)
        assert os.read(reader, 100) == CONTENT[:stop]
    finally:
        os.close(reader)
    assert moved[:4] == [2, 2, None, 2]
    assert stream.asked[1:] == [f"bytes=4-{'' if stop is None else stop - 1}"]
    stream.close()
    assert stream.pour(-1, 3) is None


@pytest.mark.parametrize("stop", [None, 6])
def test_the_end_alone_is_missing(stop: int | None) -> None:
    """What breaks off after the last byte is whole, and nothing more is asked for."""
    answer = whole(Breaking(CONTENT)) if stop is None else part(0, stop, Breaking(CONTENT[:stop]))
    stream = Scripted(iter([answer]), 0, stop)
    assert stream.read() == CONTENT[:stop]
    assert len(stream.asked) == 1


def test_a_store_that_ignores_ranges() -> None:
    """The whole in place of its beginning is read as far as was asked for; in place of any other part it is refused."""
    assert Scripted(iter([whole(io.BytesIO(CONTENT))]), 0, 4).read() == CONTENT[:4]
    with pytest.raises(BackendUnavailable, match="other bytes"):
        Scripted(iter([whole(io.BytesIO(CONTENT))]), 2, 4)


def test_other_bytes_after_a_break() -> None:
    """Nothing of another file, and no other part, is put behind what has been read."""
    for second in (whole(io.BytesIO(CONTENT)), Answer.of(io.BytesIO(CONTENT[4:]), "bytes 4-9/10", 6, "2")):
        stream = Scripted(iter([whole(Breaking(CONTENT[:4])), second]))
        assert stream.read(4) == CONTENT[:4]
        with pytest.raises(BackendUnavailable):
            stream.read(1)


def test_closed() -> None:
    """What is closed is not read, and asks for nothing."""
    stream = Scripted(iter([whole(io.BytesIO(CONTENT))]))
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
    assert len(stream.asked) == 1


def test_closed_during_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is closed while the rest is asked for, that is closed as well."""
    rest = io.BytesIO(CONTENT[4:])
    stream = Scripted(iter([whole(Breaking(CONTENT[:4])), part(4, 10, rest)]))
    monkeypatch.setattr(time, "sleep", lambda _: stream.close())
    assert stream.read(4) == CONTENT[:4]
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
    assert rest.closed
