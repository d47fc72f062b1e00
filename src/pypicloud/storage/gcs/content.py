"""The bytes of an object as they arrive; where they break off, the rest is asked for."""

from __future__ import annotations

import io
import time
from http import HTTPStatus
from typing import Any, Final

from pypicloud.errors import BackendUnavailable, PackageNotFound
from pypicloud.storage.gcs.bucket import PAUSES, SDK, Bucket
from pypicloud.storage.gcs.failures import READ

#: How often the bytes may break off with nothing new between.
BREAKS: Final = 3


class Content(io.RawIOBase):
    """The bytes ``start`` up to, not including, ``stop`` of an object, or up to its end.

    ``total`` is how many bytes the whole object has, if the answer says so. Raises :class:`PackageNotFound` at once
    if there is no such object.
    """

    def __init__(self, bucket: Bucket, key: str, start: int, stop: int | None) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._next = start
        self._stop = stop
        self._generation: str | None = None
        self.total: int | None = None
        self._breaks = 0
        self._answer: SDK = None
        self._ask()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        from urllib3.exceptions import HTTPError

        while self._answer is not None:
            try:
                block = self._answer.raw.read(len(buffer), decode_content=False)
            except HTTPError:
                self._breaks += 1
                with self._bucket.asking(READ):
                    if self._breaks > BREAKS:
                        raise
                time.sleep(PAUSES[0])
                self._ask()
            else:
                self._breaks = 0
                self._next += len(block)
                buffer[: len(block)] = block
                return len(block)
        return 0

    def _ask(self) -> None:
        """Ask for what has not been read yet."""
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        self._drop()
        headers = {}
        if self._next or self._stop is not None:
            last = "" if self._stop is None else self._stop - 1
            headers["Range"] = f"bytes={self._next}-{last}"
        try:
            with self._bucket.asking(READ):
                try:
                    self._answer = self._bucket.get(self._key, headers, self._generation)
                except RequestRangeNotSatisfiable:
                    # Nothing is left: the file was read up to its end, or has no bytes there.
                    return
        except PackageNotFound as error:
            if self._generation is None:
                raise
            raise BackendUnavailable("the file was replaced while it was read; please try again", 1) from error
        if headers and self._answer.status_code != HTTPStatus.PARTIAL_CONTENT:
            self._drop()
            raise BackendUnavailable("the storage sends other bytes than it was asked for; please try again")
        self._generation = self._answer.headers.get("X-Goog-Generation")
        size = self._answer.headers.get("Content-Range", "/").rpartition("/")[2] if headers else None
        size = size or self._answer.headers.get("Content-Length", "")
        self.total = int(size) if self.total is None and size.isdecimal() else self.total

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        """Let the connection go."""
        self._drop()
        super().close()
