"""The bytes of an object in S3."""

from __future__ import annotations

import functools
from typing import Any

from pypicloud.errors import PackageNotFound
from pypicloud.storage.download import Answer, BrokenOff, Download
from pypicloud.storage.s3.errors import ObjectChanged, ObjectMissing, S3Unavailable, translated, unreachable


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
            raise PackageNotFound(f"the file {self._name!r} is not in the storage") from error
        except S3Unavailable as error:
            if state is not None and isinstance(error.__cause__, (ConnectionClosedError, EndpointConnectionError)):
                # What was there a moment ago may just be started anew, which takes longer than boto3 tries.
                raise BrokenOff(error) from error.__cause__
            raise
        etag = answer.get("ETag", "")
        # A weak one may be that of other bytes, too (RFC 9110, 8.8.1).
        state = None if etag.startswith("W/") else etag or None
        return Answer.of(answer["Body"], answer.get("ContentRange", ""), answer.get("ContentLength", ""), state)

    def _block(self, body: Any, size: int) -> bytes:
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
        from urllib3.exceptions import HTTPError

        with translated():
            try:
                block: bytes = body.read(size)
            except ReadTimeoutError:
                # Who has just been silent is not asked again.
                raise
            except (ResponseStreamingError, IncompleteReadError, HTTPError, OSError) as error:
                raise BrokenOff(unreachable(error)) from error
        return block
