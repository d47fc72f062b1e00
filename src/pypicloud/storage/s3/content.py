"""The bytes of an object in S3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pypicloud.errors import PackageNotFound
from pypicloud.storage.download import Answer, BrokenOff, Download
from pypicloud.storage.s3.errors import ObjectChanged, ObjectMissing, S3Unavailable, translated, unreachable
from pypicloud.storage.s3.wire import Body, Wire


class Content(Download):
    """The bytes of an object; ``client`` is one of boto3, and ``wire`` the shorter way, if there is one."""

    def __init__(
        self, client: Any, bucket: str, key: str, start: int, stop: int | None, *, wire: Wire | None = None
    ) -> None:
        self._client = client
        self._object = {"Bucket": bucket, "Key": key}
        self._wire = wire
        self._name = key.rpartition("/")[2]
        super().__init__(start, stop)

    def _ask(self, part: str | None, state: str | None) -> Answer | None:
        from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

        told = {name: value for name, value in (("Range", part), ("IfMatch", state)) if value is not None}
        wanted = {**self._object, **told}
        try:
            with translated():
                body = None if self._wire is None else self._wire.get(wanted)
                if body is not None:
                    headers = body.headers
                    etag, given = headers.get("etag", ""), headers.get("content-range", "")
                    return Answer.of(body, given, headers["content-length"], _strong(etag))
                answer = self._client.get_object(**wanted)
        except (ObjectMissing, ObjectChanged) as error:
            raise PackageNotFound(f"the file {self._name!r} is not in the storage") from error
        except S3Unavailable as error:
            if state is not None and isinstance(error.__cause__, (ConnectionClosedError, EndpointConnectionError)):
                # What was there a moment ago may just be started anew, which takes longer than boto3 tries.
                raise BrokenOff(error) from error.__cause__
            raise
        etag, given = answer.get("ETag", ""), answer.get("ContentRange", "")
        return Answer.of(answer["Body"], given, answer.get("ContentLength", ""), _strong(etag))

    def _block(self, body: Any, size: int) -> bytes:
        with _reading():
            block: bytes = body.read(size)
        return block

    def _poured(self, body: Any, pipe: int, size: int) -> int | None:
        if not isinstance(body, Body):
            return None
        with _reading():
            return body.pour(pipe, size)


def _strong(etag: str) -> str | None:
    """An ETag that no other bytes have; a weak one may be that of others, too (RFC 9110, 8.8.1)."""
    return None if etag.startswith("W/") else etag or None


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tell bytes that break off from other trouble."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    with translated():
        try:
            yield
        except (ReadTimeoutError, BlockingIOError, BrokenPipeError):
            # Who has just been silent is not asked again; the others tell of the pipe.
            raise
        except (ResponseStreamingError, IncompleteReadError, HTTPError, OSError) as error:
            raise BrokenOff(unreachable(error)) from error
