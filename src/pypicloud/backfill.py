"""What 1.3.12 did not keep about the files it stored: read out of them, and added to their facts.

Digests need all of a file; a wheel's core metadata, for an installer to read on its own, only its end. Bytes
are never changed, and a fact that is there stays as it is. A file that has everything is passed over, so a run
may be stopped or killed at any point, and the next one does the rest.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, Final

from pypicloud.cache.base import ICache
from pypicloud.cache.saver import Saver
from pypicloud.crew import Crew, Pace, Patience, Stopped, Tally
from pypicloud.errors import BackendUnavailable, InvalidDistribution, NotSupported, PackageNotFound, PypicloudError
from pypicloud.metadata import Distribution, parse_metadata, read_distribution, wheel_metadata
from pypicloud.models import Package, normalized, parse_version
from pypicloud.storage.base import IStorage, not_stored
from pypicloud.storage.reading import Measured, measured, seekable

LOG = logging.getLogger(__name__)

_METADATA: Final = "metadata"


class Outcome(StrEnum):
    """What became of a file that lacked something."""

    COMPLETED = "completed"
    GONE = "deleted meanwhile"
    UNREADABLE = "without metadata that can be read"
    DISAGREEING = "with metadata of another project or version"
    DAMAGED = "damaged"
    FAILED = "failed"


#: The outcomes that somebody should do something about.
TROUBLE: Final = (Outcome.DAMAGED, Outcome.FAILED)


@dataclass(frozen=True)
class Plan:
    """Whose files, and how: ``rate`` is how many files are begun in a second, or None."""

    make_cache: Callable[[Any], ICache]
    workers: int = 8
    rate: float | None = None
    wants_digests: bool = True


@dataclass(frozen=True, slots=True)
class Lack:
    """What is missing of a file's facts."""

    digests: bool
    metadata: bool

    def __bool__(self) -> bool:
        return self.digests or self.metadata


@dataclass
class Backfill:
    """One run; ``report`` is told the name of a file, and what is the matter with it."""

    plan: Plan
    report: Callable[[str, str], None]
    patience: Patience = field(default_factory=Patience)
    tally: Tally = field(default_factory=Tally)
    files: list[Package] = field(default_factory=list)

    def prepare(self, listing: Callable[[int], None]) -> None:
        """Rebuild the cache, and find the files that lack something; ``listing`` is told how many have been seen."""
        cache = self.plan.make_cache(None)
        if not keeps_changes(cache.storage):
            raise NotSupported("the configured storage cannot change the facts of a file that it has")
        # The sizes and upload times that 1.3.12 did not tell the cache come from the listing.
        cache.rebuild(listing)
        self.files = [package for package in cache.everything() if self.lack(package, cache.storage)]
        for package in self.files:
            self.tally.listed(self.bytes_to_read(package, cache.storage))
        self.tally.is_all_listed = True

    def run(self, tick: Callable[[Tally], None]) -> None:
        """Complete the facts of these files. Raises :class:`BackendUnavailable` when a service is away for good."""
        self.saver = Saver(self.plan.make_cache(None))
        self.pace = Pace(self.plan.rate)
        Crew(self.files, lambda: Filler(self), self.plan.workers).run(self.patience, lambda: tick(self.tally))
        if self.patience.ended_by is not None:
            raise self.patience.ended_by

    def lack(self, package: Package, storage: IStorage) -> Lack:
        """What of it is to be added to a file's facts."""
        return lack(package, storage, wants_digests=self.plan.wants_digests)

    def bytes_to_read(self, package: Package, storage: IStorage) -> int:
        """How much of a file has to be read: all of it, or so little that it does not count."""
        return package.data.get("size", 0) if self.lack(package, storage).digests else 0

    def __str__(self) -> str:
        counts = ((self.tally.outcomes[outcome], outcome) for outcome in Outcome)
        return ", ".join(f"{count} {outcome}" for count, outcome in counts if count) or "nothing to complete"


def lack(package: Package, storage: IStorage, *, wants_digests: bool) -> Lack:
    """What is missing of a file's facts, as far as the storage can keep it.

    The core metadata of a wheel is added last: if it is there, so is all else that is in the wheel.
    """
    keeps_companions = type(storage).upload_companion is not IStorage.upload_companion
    is_wheel = package.filename.endswith(".whl")
    return Lack(
        digests=wants_digests and not package.data.get("hash_sha256"),
        metadata=is_wheel and keeps_companions and not package.data.get("core_metadata"),
    )


def survey(storage: IStorage, *, wants_digests: bool) -> str:
    """What a run would have to do, in words for people; nothing but the listing is read."""
    files = digests = size = metadata = 0
    for package in storage.list():
        missing = lack(package, storage, wants_digests=wants_digests)
        files += bool(missing)
        digests += missing.digests
        metadata += missing.metadata
        size += package.data.get("size", 0) if missing.digests else 0
    return (
        f"{files} to complete: {metadata} without core metadata, "
        f"{digests} without digests, for which {size:,} bytes are to be read"
    )


def keeps_changes(storage: IStorage) -> bool:
    """Whether a storage can change the facts of a file that it has."""
    return type(storage).update_metadata is not IStorage.update_metadata


class Filler:
    """What one thread needs to complete the facts of files, one after the other."""

    def __init__(self, backfill: Backfill) -> None:
        self.backfill = backfill
        self.patience = backfill.patience
        self.cache = backfill.plan.make_cache(None)
        self.storage: IStorage = self.cache.storage

    def __call__(self, package: Package) -> None:
        """Complete the facts of a file, and tell of it."""
        self.patience.wait(self.backfill.pace.pause())
        try:
            outcome, reason = self.patience.keep_trying(lambda _: self._fill(package))
        except Stopped:
            raise
        except PackageNotFound:
            outcome, reason = Outcome.GONE, None
        except PypicloudError as error:
            outcome, reason = Outcome.FAILED, error.message
            LOG.info("%s was not completed", package.filename, exc_info=error)
        except Exception as error:
            # A backend may be anybody's, and raise anything.
            outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {error}"
            LOG.info("%s was not completed", package.filename, exc_info=error)
        if reason is not None:
            self.backfill.report(package.filename, reason)
        self.backfill.tally.done(outcome, self.backfill.bytes_to_read(package, self.storage))

    def _fill(self, package: Package) -> tuple[Outcome, str | None]:
        with self.cache.lock(package.filename):
            stored = self.storage.stored(package, self.cache.new_package)
            if stored is None:
                return Outcome.GONE, None
            missing = self.backfill.lack(stored, self.storage)
            if missing.digests:
                with measured(self.storage, stored, between=lambda: self.patience.wait(0)) as found:
                    if stored.data.get("hash_md5") not in {None, found.md5}:
                        return Outcome.DAMAGED, f"its md5 is {found.md5}, not the one recorded"
                    inside = self._inside(stored, found)
                    stored = self._unchanged(stored)
                    stored.data |= {"hash_sha256": found.sha256, "hash_md5": found.md5}
                    return self._complete(stored, missing, inside)
            if missing.metadata:
                with seekable(self.storage, stored) as stream:
                    return self._complete(stored, missing, _Inside.of_wheel(stream))
            # Somebody else has done it, a server that replaced the file, for example.
            return Outcome.COMPLETED, None

    def _unchanged(self, package: Package) -> Package:
        """A file's facts as they are after all of it was read: a server with another cache may have yanked it."""
        stored = self.storage.stored(package, self.cache.new_package)
        if stored is None:
            raise not_stored(package)
        if (stored.last_modified, stored.data.get("size")) != (package.last_modified, package.data.get("size")):
            raise BackendUnavailable(f"the file {package.filename!r} is being changed; please try again")
        return stored

    @staticmethod
    def _inside(package: Package, found: Measured) -> _Inside:
        if package.filename.endswith(".whl"):
            return _Inside.of_wheel(found.stream)
        try:
            return _Inside(read_distribution(found.path, package.filename))
        except InvalidDistribution as error:
            # Not every old source distribution has metadata, or must have.
            LOG.info("No metadata was read out of %s: %s", package.filename, error)
            return _Inside(None)

    def _complete(self, stored: Package, missing: Lack, inside: _Inside) -> tuple[Outcome, str | None]:
        outcome, reason = inside.verdict(stored)
        distribution = inside.distribution if outcome is Outcome.COMPLETED else None
        has_more = missing.digests
        if distribution is not None:
            has_more |= _take(stored, distribution)
        self.cache.check_facts(stored)
        if has_more:
            self.storage.update_metadata(stored)
        if distribution is not None and missing.metadata:
            self.storage.upload_companion(stored, _METADATA, distribution.metadata)
            stored.data["core_metadata"] = hashlib.sha256(distribution.metadata).hexdigest()
        if has_more or distribution is not None:
            self.backfill.saver.save(stored)
        return outcome, reason


@dataclass(frozen=True, slots=True)
class _Inside:
    """What an archive says about itself, or why that cannot be told."""

    distribution: Distribution | None
    reason: str | None = None

    @classmethod
    def of_wheel(cls, stream: BinaryIO) -> _Inside:
        try:
            return cls(parse_metadata(wheel_metadata(stream)))
        except InvalidDistribution as error:
            return cls(None, error.message)

    def verdict(self, package: Package) -> tuple[Outcome, str | None]:
        """Whether that may be taken over."""
        if self.reason is not None:
            return Outcome.UNREADABLE, self.reason
        inside = self.distribution
        if inside is None or _agrees(package, inside):
            return Outcome.COMPLETED, None
        return Outcome.DISAGREEING, f"the metadata inside are of {inside.name} {inside.version}; they are left alone"


def _agrees(package: Package, distribution: Distribution) -> bool:
    # Old tools write "_" for the "+" of a local version.
    versions = (parse_version(text.replace("_", "+", 1)) for text in (package.version, distribution.version))
    return normalized(distribution.name) == package.name and next(versions) == next(versions)


def _take(package: Package, distribution: Distribution) -> bool:
    """Give a package what it lacks; whether it lacked anything."""
    summary, requires_python = package.summary, package.data.get("requires_python")
    package.summary = summary or distribution.summary
    if distribution.requires_python and not requires_python:
        package.data["requires_python"] = distribution.requires_python
    return (package.summary, package.data.get("requires_python")) != (summary, requires_python)
