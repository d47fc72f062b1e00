"""Every object of a bucket with its metadata, which S3 tells one object at a time: with many questions in flight.

The questions go over connections of our own (:mod:`pypicloud.storage.s3.lean`), for a twentieth of the work. Whatever
is not a plain good answer is left to boto3, which asks again: trouble is told, waited out and translated there alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Self

from pypicloud.storage.buckets import StoredObject, is_package_key
from pypicloud.storage.s3.lean import Lean
from pypicloud.storage.s3.listing import Listing
from pypicloud.storage.s3.plan import Answer, plan

LOG = logging.getLogger(__name__)

_METADATA: Final = "x-amz-meta-"


class Heads:
    """Asks for the objects of one bucket, so many at the same time; as a context manager, it closes its connections."""

    def __init__(self, bucket: Any, at_once: int) -> None:
        self._bucket = bucket
        self._at_once = at_once
        self._stack = ExitStack()
        self._lean: Lean | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def objects(self, prefix: str, head: Callable[[str], StoredObject | None]) -> Iterator[StoredObject]:
        """Every object under a prefix that may be a package; those that vanish meanwhile are left out.

        ``head`` asks boto3. While the objects of one page of the listing are given, those of the next are fetched.
        """
        way = plan(self._bucket)
        pages = self._stack.enter_context(Listing(self._bucket, way)).pages(prefix)
        boto = self._stack.enter_context(ThreadPoolExecutor(self._at_once, "s3-head"))
        ahead = self._stack.enter_context(ThreadPoolExecutor(1, "s3-list"))
        if way is not None:
            self._lean = Lean(way, self._at_once)
            # It is closed by the thread that uses it.
            self._stack.callback(lambda lean: ahead.submit(lean.close).result(), self._lean)

        def following() -> list[StoredObject] | None:
            keys = next(pages, None)
            return None if keys is None else self._asked([key for key in keys if is_package_key(key)], head, boto)

        coming = ahead.submit(following)
        while (page := coming.result()) is not None:
            coming = ahead.submit(following)
            yield from page

    def _asked(
        self, keys: Sequence[str], head: Callable[[str], StoredObject | None], boto: ThreadPoolExecutor
    ) -> list[StoredObject]:
        answers = self._lean.answers(keys) if self._lean else {}
        known = {key: _object(key, answer) for key, answer in answers.items()}
        rest = [key for key in keys if known.get(key) is None and not _is_gone(answers.get(key))]
        asked = boto.map(head, rest)
        try:
            known |= zip(rest, asked, strict=True)
        finally:
            # After a failure the others are not even tried.
            asked.close()  # type: ignore[attr-defined]  # what map gives is a generator
        return [found for key in keys if (found := known[key]) is not None]


def _is_gone(answer: Answer | None) -> bool:
    return answer is not None and answer[0] == HTTPStatus.NOT_FOUND


def _object(key: str, answer: Answer) -> StoredObject | None:
    """The object that an answer tells of; None if it does not tell of any in a way that is understood."""
    status, headers = answer
    if status != HTTPStatus.OK:
        return None
    with contextlib.suppress(KeyError, ValueError):
        metadata = {
            name.removeprefix(_METADATA): value for name, value in headers.items() if name.startswith(_METADATA)
        }
        moment = parsedate_to_datetime(headers["last-modified"])
        return StoredObject(key, int(headers["content-length"]), moment, metadata, headers["etag"].strip('"'))
    return None
