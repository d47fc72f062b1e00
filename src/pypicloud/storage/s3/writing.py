"""How objects get into a bucket: in one request or in parts, only if a condition holds, with new metadata."""

from __future__ import annotations

import contextlib
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from pypicloud.errors import BackendUnavailable, FileExists
from pypicloud.storage.ahead import Ahead
from pypicloud.storage.buckets import Condition, StoredObject
from pypicloud.storage.incoming import digests
from pypicloud.storage.s3.errors import Conflict, ObjectMissing, translated
from pypicloud.storage.s3.wire import Outcome, Wire

LOG = logging.getLogger(__name__)

#: How often a request is made again because somebody else has something to do with the same object.
_CONFLICTS: Final = 10

#: How many parts an object can have.
_MOST_PARTS: Final = 10000

#: How many bytes of a file are read at a time.
_AHEAD: Final = 1 << 18

#: From how many bytes on an object cannot be copied at once, and how many of its bytes can.
LARGEST_COPY: Final = 5 << 30
COPIED_PART: Final = 1 << 30

#: Where the metadata of a file have its sha256, which is not worked out again then (compat.md 2.3).
_SHA256: Final = "hash-sha256"
_DIGEST: Final = re.compile("[0-9a-f]{64}")

#: What a copy of an object keeps only if it is told again, by the name that HEAD has for it.
_KEPT: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "ServerSideEncryption",
    "SSEKMSKeyId",
    "BucketKeyEnabled",
    "StorageClass",
    "WebsiteRedirectLocation",
)


@dataclass(frozen=True)
class Sizes:
    """In which portions objects are sent: from ``threshold`` bytes on in parts, ``at_once`` at the same time."""

    threshold: int = 64 << 20
    part: int = 16 << 20
    at_once: int = 4

    def part_of(self, size: int) -> int:
        """How many bytes the parts of an object have, so that there are not too many of them."""
        return max(self.part, -(-size // _MOST_PARTS))


class Writer:
    """Writes objects into one bucket.

    ``options`` are what all new objects get: ACL, encryption, storage class. ``conditional`` says whether the store
    knows conditions. ``head`` asks for the object of a key.
    """

    def __init__(
        self,
        bucket: Any,
        head: Callable[[str], StoredObject | None],
        options: Mapping[str, str],
        sizes: Sizes,
        *,
        conditional: bool,
        wire: Wire | None = None,
    ) -> None:
        self._client = bucket.meta.client
        self._bucket: str = bucket.name
        self._head = head
        self._options = options
        self._sizes = sizes
        self._conditional = conditional
        self._wire = wire

    def write(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], condition: Condition | str
    ) -> None:
        """Make an object of ``size`` bytes of a stream, all or nothing. Raises :class:`FileExists`."""
        start, lock, is_lost = stream.tell(), threading.Lock(), False
        target = {"Bucket": self._bucket, "Key": key}
        described = {**target, "Metadata": dict(metadata), **self._options}

        def window(first: int, count: int) -> Window:
            return Window(stream, start + first, count, lock)

        def send() -> None:
            if size < self._sizes.threshold:
                if not self._conditional:
                    self._demand(key, condition)
                parameters = {**described, **self._header(condition)}
                outcome = self._sent(parameters, stream, start, size)
                if outcome is not Outcome.STORED:
                    nonlocal is_lost
                    is_lost = is_lost or outcome is Outcome.UNKNOWN
                    self._client.put_object(**parameters, Body=window(0, size), ContentLength=size)
                return
            step = self._sizes.part_of(size)
            starts = range(0, size, step)

            def part(number: int, upload: Mapping[str, str]) -> str:
                first = starts[number - 1]
                body = window(first, min(step, size - first))
                sent = self._client.upload_part(**upload, PartNumber=number, Body=body, ContentLength=len(body))
                etag: str = sent["ETag"]
                return etag

            self._in_parts(described, len(starts), part, condition)

        try:
            self._patiently(send)
        except (FileExists, ObjectMissing) as error:
            # The answer to a request that did its work may have been lost, and the next one found that work.
            found = self._head(key) if is_lost or _was_repeated(error) else None
            if found is not None and (found.size, found.metadata) == (size, metadata):
                return
            raise _changed(key) from error

    def _sent(self, parameters: Mapping[str, Any], stream: BinaryIO, start: int, size: int) -> Outcome:
        """What becomes of an object on the short way."""
        if self._wire is None:
            return Outcome.REFUSED
        stream.seek(start)
        known = parameters["Metadata"].get(_SHA256, "")
        sha256 = known if _DIGEST.fullmatch(known) else digests(stream)["hash_sha256"]
        return self._wire.put(parameters, stream, size, sha256)

    def rewrite(self, found: StoredObject, metadata: Mapping[str, str]) -> None:
        """Give an object other metadata. Raises :class:`FileExists` if its bytes are not those of ``found``."""
        target = {"Bucket": self._bucket, "Key": found.key}
        described = {**target, "Metadata": dict(metadata), **self._acl()}

        def copy() -> None:
            with translated():
                # Not every store looks at the conditions of a copy; what is left then is the moment after this.
                now = self._client.head_object(**target)
            # Nor does any store look at whether somebody else has just written other facts.
            if (now["ETag"].strip('"'), now["Metadata"]) != (found.state, found.metadata):
                raise _changed(found.key)
            kept = {name: now[name] for name in _KEPT if now.get(name)}
            source = {"CopySource": target, "CopySourceIfMatch": found.state}
            if found.size < LARGEST_COPY:
                self._client.copy_object(
                    **described, **kept, **source, MetadataDirective="REPLACE", **self._header(found.state)
                )
                return

            def part(number: int, upload: Mapping[str, str]) -> str:
                first = (number - 1) * COPIED_PART
                last = min(first + COPIED_PART, found.size) - 1
                sent = self._client.upload_part_copy(
                    **upload, **source, PartNumber=number, CopySourceRange=f"bytes={first}-{last}"
                )
                etag: str = sent["CopyPartResult"]["ETag"]
                return etag

            self._in_parts({**described, **kept}, -(-found.size // COPIED_PART), part, found.state)

        try:
            self._patiently(copy)
        except (FileExists, ObjectMissing) as error:
            raise _changed(found.key) from error

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do something again while somebody else has to do with the same object."""
        for attempt in range(_CONFLICTS):
            try:
                with translated():
                    work()
            except Conflict:
                time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 4)))  # noqa: S311 - no secret
            else:
                return
        raise BackendUnavailable("the file is being changed by others again and again; please try again", 5)

    def _in_parts(
        self,
        described: Mapping[str, Any],
        count: int,
        part: Callable[[int, Mapping[str, str]], str],
        condition: Condition | str,
    ) -> None:
        """Make an object of parts: ``part`` sends one, by its number, and gives its tag."""
        with self._upload(described) as upload, ThreadPoolExecutor(self._sizes.at_once) as pool:
            try:
                numbers = range(1, count + 1)
                tags = list(pool.map(lambda number: part(number, upload), numbers))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            # Not every store looks at the condition of an upload in parts; what is left then is the moment after this.
            self._demand(upload["Key"], condition)
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in zip(numbers, tags, strict=True)]
            self._client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, **self._header(condition)
            )

    @contextlib.contextmanager
    def _upload(self, described: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        """An upload in parts, which is forgotten if the block fails."""
        begun = self._client.create_multipart_upload(**described)
        upload = {"Bucket": self._bucket, "Key": described["Key"], "UploadId": begun["UploadId"]}
        try:
            yield upload
        except BaseException:
            self._abort(upload)
            raise

    def _abort(self, upload: Mapping[str, str]) -> None:
        try:
            with translated():
                self._client.abort_multipart_upload(**upload)
        except (BackendUnavailable, ObjectMissing) as error:
            LOG.warning("Parts of %r may be left in the bucket: %s", upload["Key"], error)

    def _header(self, condition: Condition | str) -> dict[str, str]:
        """The condition, as it goes with a request."""
        if condition is Condition.ANYTHING or not self._conditional:
            return {}
        return {"IfNoneMatch": "*"} if isinstance(condition, Condition) else {"IfMatch": condition}

    def _demand(self, key: str, condition: Condition | str) -> None:
        """Raise :class:`FileExists` if the condition does not hold at this moment."""
        if condition is Condition.ANYTHING:
            return
        found = self._head(key)
        if (None if found is None else found.state) != (None if isinstance(condition, Condition) else condition):
            raise _changed(key)

    def _acl(self) -> dict[str, str]:
        """The ACL that a copy is given again, as nothing tells which one the object has."""
        return {"ACL": self._options["ACL"]} if "ACL" in self._options else {}


class Window(Ahead):
    """Some of a file's bytes, as a file of their own. Several windows of one file can be read at the same time.

    ``lock`` is the one that all windows of the file have.
    """

    def __init__(self, file: BinaryIO, start: int, size: int, lock: threading.Lock) -> None:
        # The HTTP client reads in small blocks; a file is read faster in large ones.
        super().__init__(size, _AHEAD)
        self._file = file
        self._start = start
        self._lock = lock

    def __len__(self) -> int:
        return self._size

    def _fetched(self, start: int, stop: int) -> bytes:
        with self._lock:
            self._file.seek(self._start + start)
            return self._file.read(stop - start)


def _changed(key: str) -> FileExists:
    return FileExists(f"{key.rpartition('/')[2]!r} is stored already")


def _was_repeated(error: Exception) -> bool:
    """Whether a refusal came after other tries of the same request."""
    response = getattr(error.__cause__, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts"))
