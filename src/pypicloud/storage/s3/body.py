"""Streams to and from S3."""

from __future__ import annotations

import functools
import io
import os
import threading
from typing import Any, BinaryIO, Final

from pypicloud.errors import PackageNotFound
from pypicloud.storage.download import Answer, BrokenOff, Download
from pypicloud.storage.s3.errors import ObjectChanged, ObjectMissing, S3Unavailable, translated, unreachable

#: How many bytes of a file are read at a time.
_AHEAD: Final = 1 << 18


class Content(Download):
    """The bytes of an object; ``client`` is one of boto3."""

    def __init__(self, client: Any, bucket: str, key: str, start: int, stop: int | None) -> None:
        self._get = functools.partial(client.get_object, Bucket=bucket, Key=key)
        self._name = key.rpartition("/")[2]
        super().__init__(start, stop)

    def _ask(self, part: str | None, state: str | None) -> Answer | None:
        from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

        wanted = {name: value for name, value in (("Range", part), ("IfMatch", state)) if value is not None}
        try:
            with translated():
                answer = self._get(**wanted)
        except (ObjectMissing, ObjectChanged) as error:
            raise PackageNotFound(f"{self._name!r} is not in the storage") from error
        except S3Unavailable as error:
            if state is not None and isinstance(error.__cause__, (ConnectionClosedError, EndpointConnectionError)):
                # What was there a moment ago may just be started anew, which takes longer than boto3 tries.
                raise BrokenOff(error) from error.__cause__
            raise
        etag = answer.get("ETag", "")
        # A weak one may be that of other bytes, too (RFC 9110, 8.8.1).
        state = None if etag.startswith("W/") else etag or None
        return Answer.of(answer["Body"], answer.get("ContentRange", ""), answer["ContentLength"], state)

    def _block(self, body: Any, size: int) -> bytes:
        from botocore.exceptions import BotoCoreError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
        from urllib3.exceptions import HTTPError

        try:
            block: bytes = body.read(size)
        except ReadTimeoutError as error:
            # Who is silent is not asked again, here as elsewhere.
            raise unreachable(error) from error
        except (ResponseStreamingError, IncompleteReadError, HTTPError, OSError) as error:
            raise BrokenOff(unreachable(error)) from error
        except BotoCoreError as error:
            raise unreachable(error) from error
        return block


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
