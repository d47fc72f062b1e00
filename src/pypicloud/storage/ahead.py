"""Streams that fetch more than is read at a time."""

from __future__ import annotations

import io
import os
from typing import Any


class Ahead(io.RawIOBase):
    """Bytes that can be fetched from anywhere, as a stream; what was fetched last is kept.

    There are ``size`` of them, of which ``ahead`` are fetched at a time, or as many as are read if that is more. A
    subclass fetches.
    """

    def __init__(self, size: int, ahead: int) -> None:
        super().__init__()
        self._size = size
        self._ahead = ahead
        self._position = 0
        self._kept = b""
        self._kept_from = 0

    def _fetched(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` up to, not including, ``stop``; fewer if there are no more."""
        raise NotImplementedError

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Say where the next read begins."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, all that are left without a size."""
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        start = self._position - self._kept_from
        if wanted and (start < 0 or start + wanted > len(self._kept)):
            stop = self._position + min(left, max(wanted, self._ahead))
            self._kept, self._kept_from, start = self._fetched(self._position, stop), self._position, 0
        block = self._kept[start : start + wanted] if wanted else b""
        self._position += len(block)
        return block

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
