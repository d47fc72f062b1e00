"""The bytes of an object as they arrive from a store; where they break off, the rest is asked for."""

from __future__ import annotations

import io
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from pypicloud.errors import BackendUnavailable, PackageNotFound
from pypicloud.storage.body import BLOCK

LOG = logging.getLogger(__name__)

#: How often the bytes may break off with nothing new between.
BREAKS: Final = 3

#: How many seconds pass before the rest is asked for; without anything new twice as many each time.
PAUSE: Final = 0.2

#: What Python itself says of files.
_CLOSED: Final = "I/O operation on closed file"


@dataclass(frozen=True, slots=True)
class Answer:
    """A store's answer to a download, of which no more than its head has been read.

    ``range`` is its ``Content-Range``, empty where it is the whole object, which has ``total`` bytes, if it says so.
    ``state`` is what the store calls these bytes (an ETag, a generation); None if nothing tells them from others.
    """

    body: Any
    range: str
    total: int | None
    state: str | None

    @classmethod
    def of(cls, body: Any, content_range: str, length: int | str, state: str | None) -> Answer:
        """The answer with these headers (RFC 9110, 8.6 and 14.4)."""
        total = content_range.rpartition("/")[2] or str(length)
        return cls(body, content_range, int(total) if total.isdecimal() else None, state)

    @property
    def start(self) -> int:
        """Where in the object its bytes begin."""
        first = self.range.removeprefix("bytes ").partition("-")[0]
        return int(first) if first.isdecimal() else 0


class BrokenOff(Exception):
    """The bytes of an answer break off before their end; ``failure`` is the error for that if it is for good."""

    def __init__(self, failure: BackendUnavailable) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Download(io.RawIOBase):
    """The bytes ``start`` up to, not including, ``stop`` of an object, or up to its end.

    ``total`` is how many bytes the whole object has, if the store says so. A subclass asks and reads. Raises
    :class:`PackageNotFound` at once if there is no such object, and :class:`BackendUnavailable` if the bytes break off
    for good, so that a part is never taken for the whole.
    """

    def __init__(self, start: int, stop: int | None) -> None:
        super().__init__()
        self._next = start
        self._stop = stop
        self._breaks = 0
        self._answer: Answer | None = None
        self._answer = self._asked(None)
        self.total = None if self._answer is None else self._answer.total

    def _ask(self, part: str | None, state: str | None) -> Answer | None:
        """What the store answers if it is asked for a part (a ``Range``), or for all; None if no byte is there.

        Raises :class:`PackageNotFound` if there is no such object, or none in that state, and may raise
        :class:`BrokenOff` if there is a state, and it is worth asking again.
        """
        raise NotImplementedError

    def _block(self, body: Any, size: int) -> bytes:
        """The next bytes of an answer. Raises :class:`BrokenOff`."""
        raise NotImplementedError

    def _poured(self, body: Any, pipe: int, size: int) -> int | None:
        """What :meth:`pour` gives, for an answer. Raises :class:`BrokenOff`."""
        return None

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes: as many, fewer if there is a reason, or all that are left."""
        if size is None or size < 0:
            return self.readall()
        while self._answer is not None:
            if self.closed:
                raise ValueError(_CLOSED)
            try:
                block = self._block(self._answer.body, self._at_most(size))
            except BrokenOff as broken:
                self._go_on(self._answer.state, broken)
            else:
                if block:
                    self._breaks = 0
                self._next += len(block)
                return block
        return b""

    def pour(self, pipe: int, size: int) -> int | None:
        """Move up to ``size`` of the next bytes into a pipe; how many, or None if they have to be read.

        Raises :class:`BlockingIOError` if the pipe is full, and :class:`BrokenPipeError` if nobody reads it any more.
        """
        if self._answer is None or self.closed:
            return None
        try:
            count = self._poured(self._answer.body, pipe, self._at_most(size))
        except BrokenOff as broken:
            self._go_on(self._answer.state, broken)
            return None
        if count:
            self._breaks = 0
            self._next += count
        return count

    def readall(self) -> bytes:
        """All bytes that are left."""
        return b"".join(iter(lambda: self.read(BLOCK), b""))

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _at_most(self, size: int) -> int:
        """How many bytes may be read next; a store may ignore that only a part was asked for (RFC 9110, 14.2)."""
        is_whole = self._answer is not None and not self._answer.range
        return size if self._stop is None or not is_whole else min(size, self._stop - self._next)

    def _go_on(self, state: str | None, broken: BrokenOff) -> None:
        """Ask for what has not been read yet, unless that is of no use, or nobody could tell whose bytes would come."""
        if self._next in {self._stop, self.total}:
            # Only the end of the answer is missing, and none of the bytes.
            _close(self._answer)
            self._answer = None
            return
        if state is None or self._breaks == BREAKS:
            LOG.error("A download breaks off for good: %s", getattr(broken.failure, "reason", broken.failure.message))
            raise broken.failure from broken.__cause__
        time.sleep(PAUSE * 2**self._breaks)
        self._breaks += 1
        try:
            answer = self._asked(state)
        except BrokenOff as again:
            self._go_on(state, again)
            return
        if self.closed:
            _close(answer)
            raise ValueError(_CLOSED)
        # Until there is another it stays: whoever reads on after an error is not told that this is the end.
        old, self._answer = self._answer, answer
        _close(old)

    def _asked(self, state: str | None) -> Answer | None:
        part = None
        if self._next or self._stop is not None:
            part = f"bytes={self._next}-{'' if self._stop is None else self._stop - 1}"
        try:
            answer = self._ask(part, state)
        except PackageNotFound as error:
            if state is None:
                raise
            raise replaced_while_read() from error
        if answer is not None and answer.start != self._next:
            _close(answer)
            raise BackendUnavailable("the storage sends other bytes than it was asked for; please try again")
        if answer is not None and state is not None and answer.state != state:
            _close(answer)
            raise replaced_while_read()
        return answer

    def close(self) -> None:
        """Let the connection go."""
        if not self.closed:
            _close(self._answer)
        super().close()


def _close(answer: Answer | None) -> None:
    if answer is not None:
        answer.body.close()


def replaced_while_read() -> BackendUnavailable:
    """The error for a file that is not the one any more of which something has been read."""
    return BackendUnavailable("the file was replaced while it was read, or deleted; please try again", 1)
