"""From one storage to another: every file with its companions, its facts and its upload time.

A file is read, compared with the digest that is recorded for it, and published, all or nothing. So a run may
be stopped or killed at any point, and the next one does the rest.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pypicloud.cache.base import ICache
from pypicloud.cache.saver import Saver
from pypicloud.crew import Crew, Patience, Stopped, Tally
from pypicloud.errors import BackendUnavailable, FileExists, PackageNotFound, PypicloudError
from pypicloud.models import METADATA_FIELDS, Package
from pypicloud.storage.base import COMPANION_FACTS, IStorage, not_stored
from pypicloud.storage.reading import Measured, measured

LOG = logging.getLogger(__name__)

#: The facts that a file which has been moved is still given, if it lacks them. Whether one was taken away in the new
#: storage or never came, as a yank that was taken back, nothing tells.
LATER_FACTS: Final = (*METADATA_FIELDS, "yanked")

#: What belongs to the storage that a file is in.
_OWN_FACTS: Final = frozenset({"path", "size", *COMPANION_FACTS.values()})


class Outcome(StrEnum):
    """What became of a file."""

    COPIED = "copied"
    REPLACED = "replaced"
    COMPLETED = "completed"
    THERE = "there already"
    GONE = "deleted meanwhile"
    DIFFERENT = "different"
    DAMAGED = "damaged"
    FAILED = "failed"


#: The outcomes after which the new storage does not have all that the old one has.
NOT_THERE: Final = (Outcome.DIFFERENT, Outcome.DAMAGED, Outcome.FAILED)


class NotMoved(Exception):
    """A file stays where it is, for a reason that another try does not change."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True)
class Plan:
    """From where to where, and how.

    ``make_cache`` makes the cache of the new storage, if there is one; ``saves`` says whether it is told of the
    files. In a dry run nothing is written, and no cache needed.
    """

    make_old: Callable[[Any], IStorage]
    make_new: Callable[[Any], IStorage]
    make_cache: Callable[[Any], ICache] | None = None
    saves: bool = True
    workers: int = 8
    overwrite: bool = False
    is_dry_run: bool = False


@dataclass
class Moving:
    """One move; ``report`` is told the name of a file, and why it was not moved or not as a whole."""

    plan: Plan
    report: Callable[[str, str], None]
    patience: Patience = field(default_factory=Patience)
    tally: Tally = field(default_factory=Tally)
    there: dict[str, Package] = field(default_factory=dict)
    unreadable: int = 0
    incomplete: int = 0

    def run(self, tick: Callable[[Tally], None]) -> None:
        """Move all files. Raises :class:`BackendUnavailable` when a service is away for good."""
        cache = None if self.plan.make_cache is None else self.plan.make_cache(None)
        self.saver = Saver(cache) if cache is not None and self.plan.saves else None
        self.known: set[str] = set()
        if self.saver is not None and cache is not None:
            # Or the next start would take a cache that holds only what was moved for one that holds all.
            cache.fill()
            self.known = {package.filename for package in cache.everything()}
        factory = Package if cache is None else cache.new_package
        new = self.plan.make_new(None)
        self.there = {package.filename: package for package in self._listed(new, factory)}
        crew = Crew(self._files(), lambda: Mover(self), self.plan.workers)
        crew.run(self.patience, lambda: tick(self.tally))
        if self.patience.ended_by is not None:
            raise self.patience.ended_by

    def _files(self) -> Iterator[Package]:
        old = self.plan.make_old(None)
        for package in self._listed(old, Package):
            self.tally.listed(package.data.get("size", 0))
            yield package
        self.unreadable = old.unreadable_count
        self.tally.is_all_listed = True

    def _listed(self, storage: IStorage, factory: Callable[..., Package]) -> Iterator[Package]:
        """Every file of a storage once, however often it has to be listed anew because the service is away."""
        seen: set[tuple[str, str, str]] = set()
        found: Iterator[Package] = iter(())

        def advance(failures: int) -> Package | None:
            nonlocal found
            if failures or not seen:
                storage.unreadable_count = 0
                found = iter(storage.list(factory))
            return next((package for package in found if _key(package) not in seen), None)

        while (package := self.patience.keep_trying(advance)) is not None:
            seen.add(_key(package))
            yield package

    def __str__(self) -> str:
        planned = _PLANNED if self.plan.is_dry_run else {}
        counts = ((self.tally.outcomes[outcome], planned.get(outcome, outcome)) for outcome in Outcome)
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing to move"


#: What an outcome is called as long as nothing is done.
_PLANNED: Final = {
    Outcome.COPIED: "to copy",
    Outcome.REPLACED: "to replace",
    Outcome.COMPLETED: "to complete",
}


class Mover:
    """What one thread needs to move files, one after the other."""

    def __init__(self, moving: Moving) -> None:
        plan = moving.plan
        self.moving = moving
        self.plan = plan
        self.old = plan.make_old(None)
        self.cache = None if plan.make_cache is None else plan.make_cache(None)
        self.new = plan.make_new(None)
        self.keeps_changes = type(self.new).update_metadata is not IStorage.update_metadata

    def __call__(self, package: Package) -> None:
        """Move a file, and tell of it."""
        try:
            outcome = self.moving.patience.keep_trying(lambda failures: self._move(package, failures))
        except Stopped:
            raise
        except NotMoved as error:
            outcome = error.outcome
            self.moving.report(package.filename, str(error))
        except PypicloudError as error:
            outcome = Outcome.FAILED
            self.moving.report(package.filename, error.message)
            LOG.info("%s was not moved", package.filename, exc_info=error)
        except Exception as error:
            # A backend may be anybody's, and raise anything.
            outcome = Outcome.FAILED
            self.moving.report(package.filename, f"{type(error).__name__}: {error}")
            LOG.info("%s was not moved", package.filename, exc_info=error)
        self.moving.tally.done(outcome, package.data.get("size", 0))

    def _move(self, package: Package, failures: int) -> Outcome:
        try:
            if failures:
                # The answer to an attempt that was made may have been lost, or somebody else was faster.
                package = self._looked_up(package)
            return self._moved(package)
        except PackageNotFound:
            if self.old.stored(package) is None:
                return Outcome.GONE
            raise BackendUnavailable(f"the file {package.filename!r} is being changed; please try again") from None

    def _looked_up(self, package: Package) -> Package:
        """The file as it is at this moment, in the old storage; it is looked for in the new one, too."""
        known = self.moving.there.get(package.filename, package)
        there = self.new.stored(known, self._new_package)
        if there is None:
            self.moving.there.pop(package.filename, None)
        else:
            self.moving.there[package.filename] = there
        stored = self.old.stored(package)
        if stored is None:
            raise not_stored(package)
        return stored

    def _moved(self, package: Package) -> Outcome:
        there = self.moving.there.get(package.filename)
        if there is None:
            return self._copied(package, None)
        if there.name != package.name:
            reason = f"the new storage has a file of this name that belongs to another project, {there.name}"
            raise NotMoved(Outcome.DIFFERENT, reason)
        if self._is_same(package, there):
            return self._completed(package, there)
        if not self.plan.overwrite:
            reason = "the new storage has a file of this name with other bytes; --overwrite would replace it"
            raise NotMoved(Outcome.DIFFERENT, reason)
        return self._copied(package, there)

    def _copied(self, package: Package, there: Package | None) -> Outcome:
        """Copy a file, in place of the one that is there."""
        outcome = Outcome.COPIED if there is None else Outcome.REPLACED
        if self.plan.is_dry_run:
            return outcome
        with self._measured(self.old, package, self.new.spool_directory()) as found:
            self._check(package, found)
            companions = dict(self._companions(package))
            new = self._at_new_place(package, there, found, companions)
            with self._lock(package):
                if self.cache is not None:
                    self.cache.check_facts(new)
                try:
                    self.new.publish(new, found.stream, companions, replace=there is not None)
                except FileExists as error:
                    raise BackendUnavailable("the file was stored by somebody else at the same moment") from error
                self._save(new)
        self.moving.there[package.filename] = new
        return outcome

    def _check(self, package: Package, found: Measured) -> None:
        """Refuse bytes that are not those which were stored once."""
        size = package.data.get("size", found.size)
        if found.size != size:
            raise BackendUnavailable(f"{found.size} bytes came from the old storage instead of {size}")
        recorded = ("sha256", package.data.get("hash_sha256"), found.sha256)
        if recorded[1] is None:
            recorded = ("md5", package.data.get("hash_md5"), found.md5)
        algorithm, digest, own = recorded
        if digest is None or digest == own:
            return
        stored = self.old.stored(package)
        if stored is not None and (stored.data, stored.last_modified) != (package.data, package.last_modified):
            # It was replaced since it was listed.
            raise BackendUnavailable(f"the file {package.filename!r} is being changed; please try again")
        raise NotMoved(Outcome.DAMAGED, f"the {algorithm} of its bytes is {own}, but {digest} is recorded")

    def _at_new_place(
        self, package: Package, there: Package | None, found: Measured, companions: dict[str, bytes]
    ) -> Package:
        """The package as it is to be in the new storage."""
        data = {key: value for key, value in copy.deepcopy(package.data).items() if key not in _OWN_FACTS}
        data |= {COMPANION_FACTS[kind]: hashlib.sha256(text).hexdigest() for kind, text in companions.items()}
        data["size"] = found.size
        if self.cache is not None and self.cache.calculate_hashes:
            data |= {"hash_sha256": found.sha256, "hash_md5": found.md5}
        if there is not None and "path" in there.data:
            data["path"] = there.data["path"]
        # Another spelling of the version would be another place, and leave the old file behind.
        version = package.version if there is None else there.version
        moment, summary = package.last_modified, package.summary
        return self._new_package(package.name, version, package.filename, moment, summary, **data)

    def _companions(self, package: Package) -> Iterator[tuple[str, bytes]]:
        """The companions of a file, those that are what its facts say."""
        for kind, fact in COMPANION_FACTS.items():
            digest = package.data.get(fact)
            if digest is None:
                continue
            stream = self.old.open_companion(package, kind)
            data = None
            if stream is not None:
                with stream:
                    data = stream.read()
            if data is not None and hashlib.sha256(data).hexdigest() == digest:
                yield kind, data
            else:
                self.moving.incomplete += 1
                self.moving.report(package.filename, f"its {kind} is missing or damaged, and was left out")

    def _is_same(self, package: Package, there: Package) -> bool:
        """Whether both storages have the same bytes; what is not recorded is worked out."""
        sizes = {each.data["size"] for each in (package, there) if "size" in each.data}
        if len(sizes) > 1:
            return False
        mine, theirs = package.data.get("hash_sha256"), there.data.get("hash_sha256")
        return (mine or self._digest(self.old, package)) == (theirs or self._digest(self.new, there))

    def _digest(self, storage: IStorage, package: Package) -> str:
        with self._measured(storage, package) as found:
            return found.sha256

    def _completed(self, package: Package, there: Package) -> Outcome:
        """Give a file that was moved before what it has been given since: facts and companions that it lacks."""
        is_unknown = self.moving.saver is not None and package.filename not in self.moving.known
        lacks = self.keeps_changes and self._lacks(package, there)
        if not (is_unknown or lacks):
            return Outcome.THERE
        if self.plan.is_dry_run:
            return Outcome.COMPLETED
        with self._lock(package):
            stored = self.new.stored(there, self._new_package)
            if stored is None:
                raise not_stored(package)
            if lacks:
                self._give(package, stored)
            self._save(self.new.stored(stored, self._new_package) or stored)
        return Outcome.COMPLETED

    @staticmethod
    def _lacks(package: Package, there: Package) -> bool:
        return bool(_later(package).keys() - _later(there).keys()) or any(
            fact in package.data and fact not in there.data for fact in COMPANION_FACTS.values()
        )

    def _give(self, package: Package, stored: Package) -> None:
        had, gets = _later(stored), _later(package)
        if gets.keys() - had.keys():
            facts = gets | had
            stored.summary = facts.pop("summary", None)
            stored.data |= facts
            self.new.update_metadata(stored)
        for kind, data in self._companions(package):
            if COMPANION_FACTS[kind] not in stored.data:
                self.new.upload_companion(stored, kind, data)

    def _save(self, package: Package) -> None:
        if self.moving.saver is not None:
            self.moving.saver.save(package)

    def _lock(self, package: Package) -> AbstractContextManager[None]:
        return nullcontext() if self.cache is None else self.cache.lock(package.filename)

    def _measured(
        self, storage: IStorage, package: Package, directory: str | None = None
    ) -> AbstractContextManager[Measured]:
        return measured(storage, package, directory, lambda: self.moving.patience.wait(0))

    @property
    def _new_package(self) -> Callable[..., Package]:
        return Package if self.cache is None else self.cache.new_package


def _key(package: Package) -> tuple[str, str, str]:
    return (package.name, package.version, package.filename)


def _later(package: Package) -> dict[str, Any]:
    facts = {**package.data, "summary": package.summary}
    return {key: facts[key] for key in LATER_FACTS if facts.get(key)}
