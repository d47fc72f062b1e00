"""What a bucket tells of its changes, and what becomes of that in a cache (compat.md 7).

An event only says which key is to be looked at. What is true of it is asked of the bucket then, so that
events that come late, twice or in another order end right, too.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from pypicloud.cache.base import ICache
from pypicloud.cache.changes import Change, facts
from pypicloud.errors import BackendUnavailable, BadRequest, InvalidUpload, NotSupported
from pypicloud.models import Package
from pypicloud.storage.base import is_segment
from pypicloud.storage.buckets import BucketStorage, is_package_key

LOG: Final = logging.getLogger(__name__)

#: How often the facts of a file are looked at again because somebody else has just changed them.
ATTEMPTS: Final = 10

#: How many objects are looked at at a time.
AT_ONCE: Final = 10

#: How deep an event may be wrapped: S3's in SNS's in SQS's, as a function is given it.
_DEPTH: Final = 3

#: The source whose keys are surely encoded as in a form; with others it differs, by version even.
_AMAZON: Final = "aws:s3"


class _Object(msgspec.Struct):
    key: str


class _Bucket(msgspec.Struct):
    """What S3 says about a change, and what EventBridge says as its detail."""

    object: _Object


class _Notice(msgspec.Struct, rename="pascal"):
    """What SNS hands to a function."""

    message: str


class _Record(msgspec.Struct):
    source: str = msgspec.field(name="eventSource", default="")
    s3: _Bucket | None = None
    notice: _Notice | None = msgspec.field(name="Sns", default=None)
    body: str | None = None


class _Message(msgspec.Struct):
    records: list[_Record] | None = msgspec.field(name="Records", default=None)
    detail: _Bucket | None = None
    kind: str = msgspec.field(name="Type", default="")
    message: str | None = msgspec.field(name="Message", default=None)
    subscribe: str | None = msgspec.field(name="SubscribeURL", default=None)
    event: str = msgspec.field(name="Event", default="")


def keys(event: bytes | str | Mapping[str, Any]) -> list[str]:
    """The keys to look at: of events of S3, on their own or as SNS, SQS, EventBridge and Lambda wrap them.

    Raises :class:`BadRequest` for anything else.
    """
    return list(dict.fromkeys(_keys(event, _DEPTH)))


def _keys(event: bytes | str | Mapping[str, Any], depth: int) -> Iterator[str]:
    if depth == 0:
        raise BadRequest("this is no event of S3: it is wrapped too often")
    message = _read(event)
    if message.records is not None:
        for record in message.records:
            yield from _of_record(record, depth)
    elif message.detail is not None:
        yield from _spellings(message.detail.object.key)
    elif message.kind == "SubscriptionConfirmation":
        LOG.warning("SNS asks whether it may send events; to let it, open %r", message.subscribe)
    elif message.message is not None:
        yield from _keys(message.message, depth - 1)
    elif message.event != "s3:TestEvent":
        raise BadRequest("this is no event of S3")


def _of_record(record: _Record, depth: int) -> Iterator[str]:
    if record.s3 is not None:
        key = record.s3.object.key
        yield from [unquote_plus(key)] if record.source == _AMAZON else _spellings(key)
    elif record.notice is not None:
        yield from _keys(record.notice.message, depth - 1)
    elif record.body is not None:
        yield from _keys(record.body, depth - 1)
    else:
        raise BadRequest("this is no event of S3: a record of it is about no object")


def _spellings(key: str) -> Iterable[str]:
    """What a key that is encoded, or is not, may be. It does no harm to look at a key that is none."""
    return dict.fromkeys([key, unquote_plus(key)])


def _read(event: bytes | str | Mapping[str, Any]) -> _Message:
    try:
        return (
            msgspec.convert(event, _Message)
            if isinstance(event, Mapping)
            else msgspec.json.decode(event, type=_Message)
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"this is no event of S3: {error}") from None


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of the files whose keys were looked at; what is not there and was not known does not count."""

    saved: int = 0
    forgotten: int = 0
    unchanged: int = 0

    def __add__(self, other: Followed) -> Followed:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Followed(*(one + two for one, two in pairs))

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in dataclasses.asdict(self).items())


def follow(cache: ICache, keys: Iterable[str]) -> Followed:
    """Make a cache agree with the bucket as to the files that these keys are, or were, of.

    Raises :class:`BackendUnavailable` if cache or storage fails, when all that can be done is done; then all of it can
    be done again.
    """
    followed, failures = follow_each(cache, keys)
    if failures:
        raise next(iter(failures.values()))
    return followed


def follow_each(cache: ICache, keys: Iterable[str]) -> tuple[Followed, dict[str, BackendUnavailable]]:
    """The same, file by file: what was done, and by key the failure for each file of which nothing could be done.

    What is written here was read under no lock: an object store may wait for this to be done before it
    answers the very upload that it is about, which holds the lock of the file. So facts change only while
    they are as they were read, as in a rebuild. Raises :class:`BackendUnavailable` if the cache fails, or the
    storage as a whole: then it is not about the files.
    """
    storage = cache.storage
    if not isinstance(storage, BucketStorage):
        raise NotSupported("the configured storage is no bucket, so that it has no events")
    wanted = _by_filename(storage, keys)
    work = _Work(cache, storage)
    left = wanted
    followed = Followed()
    for _ in range(ATTEMPTS):
        if not left:
            break
        done, left = work.attempt(left)
        followed += done
    restless = "the facts of a file are changed by others again and again; please try again"
    failures = {**work.failures, **{filename: BackendUnavailable(restless, 5) for filename in left}}
    if len(wanted) > 1 and len(failures) == len(wanted) and not storage.check_health()[0]:
        raise next(iter(failures.values()))
    return followed, {key: failure for filename, failure in failures.items() for key in wanted[filename]}


def _by_filename(storage: BucketStorage, keys: Iterable[str]) -> dict[str, set[str]]:
    """The keys by file name, without those that no package can have."""
    found = defaultdict(set)
    for key in keys:
        filename = key.rpartition("/")[2]
        if key.startswith(storage.bucket_prefix) and is_package_key(key) and is_segment(filename):
            found[filename].add(key)
    return dict(found)


class _Work:
    """What is done in a cache for files; ``failures`` are those of the storage, by file name."""

    def __init__(self, cache: ICache, storage: BucketStorage) -> None:
        self.cache = cache
        self.storage = storage
        self.failures: dict[str, BackendUnavailable] = {}

    def attempt(self, wanted: Mapping[str, set[str]]) -> tuple[Followed, dict[str, set[str]]]:
        """Look at some files and change their facts; what was done, and the files that others changed meanwhile."""
        known = self.cache.fetch_many(wanted)
        found = self._found(known, wanted)
        changes = []
        unchanged = 0
        for filename, packages in found.items():
            newest = _newest(packages)
            change = self._change(filename, known.get(filename), newest)
            if change is not None and _can_be_kept(self.cache, change):
                changes.append(change)
            elif newest is not None:
                unchanged += 1
        made = self.cache.exchange(changes) if changes else set()
        for change in changes:
            if change.filename in made:
                LOG.info("%s %s", "Forgot" if change.wanted is None else "Saved", change.filename)
                self.failures.pop(change.filename, None)
        forgotten = sum(change.wanted is None and change.filename in made for change in changes)
        done = {*made, *self.failures}
        left = {each.filename: wanted[each.filename] for each in changes if each.filename not in done}
        return Followed(len(made) - forgotten, forgotten, unchanged), left

    def _found(self, known: Mapping[str, Package], wanted: Mapping[str, set[str]]) -> dict[str, list[Package]]:
        """What is stored now under the keys of these files, without the files of which that cannot be told."""
        # The object that the facts are of now may still be there, under another key.
        keys = {
            filename: sorted(some | {self.storage.get_path(known[filename])} if filename in known else some)
            for filename, some in wanted.items()
        }
        # Files with more than one key are few.
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="events") as pool:
            found = dict(zip(keys, pool.map(self._stored, keys, keys.values()), strict=True))
        return {filename: packages for filename, packages in found.items() if packages is not None}

    def _stored(self, filename: str, keys: Sequence[str]) -> list[Package] | None:
        """What is stored under the keys of a file; None if the storage fails."""
        try:
            looked = [self.storage.package_at(key, self.cache.new_package) for key in keys]
        except BackendUnavailable as error:
            self.failures[filename] = error
            return None
        return [package for package in looked if package is not None]

    def _change(self, filename: str, known: Package | None, wanted: Package | None) -> Change | None:
        before = None if known is None else facts(known)
        if before == (None if wanted is None else facts(wanted)):
            return None
        if known is not None or wanted is None:
            return Change(filename, before, wanted)
        # What was deleted since it was looked at has no facts before and none after, so the file tells.
        return Change(filename, None, wanted, lambda: self._is_stored(wanted))

    def _is_stored(self, package: Package) -> bool:
        try:
            return self.storage.stored(package) is not None
        except BackendUnavailable as error:
            # Raised from here it would undo what is done for other files in the same step.
            self.failures[package.filename] = error
            return False


def _newest(packages: Iterable[Package]) -> Package | None:
    """The one that a rebuild would take, if a file name is stored more than once."""
    return max(packages, key=lambda package: (package.last_modified, package.name, package.version), default=None)


def _can_be_kept(cache: ICache, change: Change) -> bool:
    if change.wanted is not None:
        try:
            cache.check_facts(change.wanted)
        except InvalidUpload as error:
            LOG.warning("%s is left out: %s", change.filename, error)
            return False
    return True
