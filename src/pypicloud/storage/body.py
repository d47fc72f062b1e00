"""The bytes of a stored file on their way out: whole, or one range of them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

#: How many bytes are read and sent at a time.
BLOCK: Final = 1 << 18

_ONE_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*([0-9]*)[ \t]*-[ \t]*([0-9]*)[ \t]*", re.IGNORECASE)

#: More digits than any file has bytes; a longer number is not worth the conversion.
_DIGITS: Final = 19


def requested_range(header: str, size: int) -> tuple[int, int] | None:
    """The bytes ``start`` up to, not including, ``stop`` that a ``Range`` header asks for (RFC 9110, 14.2).

    None means the whole file: the header is not understood, or asks for several ranges at once. A range
    that holds no byte of the file comes back empty, as ``(size, size)``.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None or max(map(len, match.groups())) > _DIGITS:
        return None
    first, last = match.groups()
    if not first:
        return (max(size - int(last), 0), size) if last else None
    start = int(first)
    stop = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, stop) if start < size else (size, size)


def can_seek(stream: BinaryIO) -> bool:
    """Whether a stream can be read from anywhere; what backends open may be able to read and nothing else."""
    return bool(getattr(stream, "seekable", bool)())


def skip(stream: BinaryIO, count: int) -> None:
    """Move a stream forward by ``count`` bytes, reading them if it cannot seek."""
    if can_seek(stream):
        stream.seek(count, io.SEEK_CUR)
        return
    while count > 0:
        block = stream.read(min(count, BLOCK))
        if not block:
            return
        count -= len(block)


class Slice(io.RawIOBase):
    """The next ``count`` bytes of a stream, as a stream of their own."""

    def __init__(self, stream: BinaryIO, count: int) -> None:
        super().__init__()
        self._stream = stream
        self._left = count

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        block = self._stream.read(min(len(buffer), self._left))
        buffer[: len(block)] = block
        self._left -= len(block)
        return len(block)


class FileBody:
    """The body of a response: the bytes ``start`` up to, not including, ``stop`` of a stored file.

    ``path`` names the file if it lies on this machine, so that a server may send it without our reading
    it; ``stop`` is None if the size is not known. ``stream`` stands at ``start``.
    """

    def __init__(
        self,
        stream: BinaryIO,
        close: Callable[[], None],
        *,
        path: str | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        self.close = close
        self.path = path
        self.start = start
        self.stop = stop
        self._stream = stream
        self._first = b""
        self._left = None if stop is None else stop - start

    @property
    def total(self) -> int | None:
        """How many bytes the whole file has, if the stream says so in ``total``, as those from object stores do."""
        found: int | None = getattr(getattr(self._stream, "raw", self._stream), "total", None)
        return found

    def begin(self) -> None:
        """Read the first block now, as long as what goes wrong can still be answered; then the body is closed."""
        try:
            self._first = self._read()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        block, self._first = self._first or self._read(), b""
        while block:
            yield block
            block = self._read()

    def pour(self, pipe: int) -> int | None:
        """Move some of the bytes that come next into a pipe; how many, or None if they have to be iterated over.

        Raises :class:`BlockingIOError` if the pipe is full, and :class:`BrokenPipeError` if nobody reads it any more.
        """
        pour = getattr(self._stream, "pour", None)
        if pour is None or self._first or not self._left:
            return None
        count: int | None = pour(pipe, self._left)
        self._left -= count or 0
        return count

    def _read(self) -> bytes:
        if self._left == 0:
            return b""
        block = self._stream.read(BLOCK if self._left is None else min(BLOCK, self._left))
        if self._left is not None:
            self._left -= len(block)
        return block

    def app_iter_range(self, start: int, stop: int) -> FileBody:
        """The same file's body, narrowed to a range that is counted from this body's start (WebOb's name)."""
        skip(self._stream, start)
        return FileBody(self._stream, self.close, path=self.path, start=self.start + start, stop=self.start + stop)
