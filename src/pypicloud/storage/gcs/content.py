"""The bytes of an object in Google Cloud Storage."""

from __future__ import annotations

from typing import Any

from pypicloud.storage.download import Answer, BrokenOff, Download
from pypicloud.storage.gcs.bucket import Bucket
from pypicloud.storage.gcs.failures import READ, silent


class Content(Download):
    """The bytes of an object as they arrive."""

    def __init__(self, bucket: Bucket, key: str, start: int, stop: int | None) -> None:
        self._bucket = bucket
        self._key = key
        super().__init__(start, stop)

    def _ask(self, part: str | None, state: str | None) -> Answer | None:
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        with self._bucket.asking(READ):
            try:
                answer = self._bucket.get(self._key, {"Range": part} if part else {}, state)
            except RequestRangeNotSatisfiable:
                # Nothing is left: the file was read up to its end, or has no bytes there.
                return None
        found = answer.headers
        length, generation = found.get("Content-Length", ""), found.get("X-Goog-Generation")
        return Answer.of(answer, found.get("Content-Range", ""), length, generation)

    def _block(self, body: Any, size: int) -> bytes:
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        with self._bucket.asking(READ):
            try:
                block: bytes = body.raw.read(size, decode_content=False)
            except ReadTimeoutError:
                # Who has just been silent is not asked again.
                raise
            except HTTPError as error:
                raise BrokenOff(silent(error, self._bucket.address)) from error
        return block
