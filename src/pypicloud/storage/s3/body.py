"""Streams to and from S3."""

from __future__ import annotations

import io
import os
import threading
from typing import Any, BinaryIO, Final

from pypicloud.storage.s3.errors import unreachable

#: How many bytes of a file are read at a time.
_AHEAD: Final = 1 << 18


class Download(io.RawIOBase):
    """The bytes of an answer of S3. One that breaks off raises, so that a part is never taken for the whole.

    ``total`` is how many bytes the whole object has.
    """

    def __init__(self, body: Any, total: int | None = None) -> None:
        super().__init__()
        self._body = body
        self.total = total

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes: as many, fewer if there is a reason, or all that are left."""
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        try:
            block: bytes = self._body.read(None if size is None or size < 0 else size)
        except (BotoCoreError, HTTPError, OSError) as error:
            raise unreachable(error) from error
        return block

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            self._body.close()
        super().close()


class Window(io.RawIOBase):
    """Some of a file's bytes, as a file of their own. Several windows of one file can be read at the same time.

    ``lock`` is the one that all windows of the file have.
    """

    def __init__(self, file: BinaryIO, start: int, size: int, lock: threading.Lock) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._lock = lock
        self._position = 0
        self._ahead = b""
        self._ahead_from = 0

    def __len__(self) -> int:
        return self._size

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
        start = self._position - self._ahead_from
        if start < 0 or start + wanted > len(self._ahead):
            # The HTTP client reads in small blocks; a file is read faster in large ones.
            self._ahead, self._ahead_from, start = self._fetched(min(left, max(wanted, _AHEAD))), self._position, 0
        block = self._ahead[start : start + wanted]
        self._position += len(block)
        return block

    def _fetched(self, count: int) -> bytes:
        with self._lock:
            self._file.seek(self._start + self._position)
            return self._file.read(count)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
