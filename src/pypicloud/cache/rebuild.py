"""Rebuild: make a cache agree with storage while it is in use."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from pypicloud.cache import status
from pypicloud.cache.changes import Change, Facts, facts
from pypicloud.cache.fill import FILL, filled, filling, is_filled
from pypicloud.dateutil import utcnow
from pypicloud.errors import BackendUnavailable, PackageNotFound, PypicloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pypicloud.cache.base import ICache
    from pypicloud.models import Package

LOG = logging.getLogger(__name__)

#: How many files a rebuild looks at before it writes what it found, and how many it writes at once.
BATCH: Final = 1000

#: How many files are looked for in the storage at once, while the projects they belong to cannot be changed.
FEW: Final = 50

#: From how many known files on a storage that holds none is rather one that is not there.
MANY: Final = 10

#: How long before a rebuild a file may have been stored to count as uploaded during it. So much may the clocks
#: of servers and storage differ; what is older was not there for so short a time that nobody knew of it.
RECENT: Final = timedelta(days=1)

#: How often a rebuild is begun again because the cache has lost everything meanwhile.
ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did, in files."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in dataclasses.asdict(self).items())


def rebuild(cache: ICache, progress: Callable[[int], None] | None, *, allow_empty: bool) -> Rebuilt:
    """Make a cache agree with storage, and say what was done: what :meth:`ICache.rebuild` promises."""
    with status.reported(cache, progress) as report:
        for _ in range(ATTEMPTS):
            rebuilt = _rebuilt(cache, report.seen, allow_empty=allow_empty)
            if rebuilt is not None:
                report.done(rebuilt)
                return rebuilt
        raise BackendUnavailable("the cache loses what it knows while it is rebuilt; please try again")


def _rebuilt(cache: ICache, progress: Callable[[int], None], *, allow_empty: bool) -> Rebuilt | None:
    """What one walk did; None if the cache was filled by others, or lost everything, in the meantime.

    What had been read before that is not known any more then, so nobody may be told that all is known.
    """
    note = cache.note(FILL)
    if is_filled(note):
        return _walked(cache, note, progress, allow_empty=allow_empty)
    with cache.lock(FILL):
        if is_filled(cache.note(FILL)):
            return None
        note = filling()
        cache.write_note(FILL, note)
        rebuilt = _walked(cache, note, progress, allow_empty=allow_empty)
        if rebuilt is not None:
            cache.write_note(FILL, filled())
        return rebuilt


def _walked(cache: ICache, note: str | None, progress: Callable[[int], None], *, allow_empty: bool) -> Rebuilt | None:
    walk = Walk(cache, progress)
    rebuilt = walk.run(allow_empty=allow_empty)
    cache.repair(walk.known)
    return rebuilt if cache.note(FILL) == note else None


class Walk:
    """One walk over the storage, with what is known of it.

    The rows are read before the listing begins, and a row is written or dropped only while it still is as
    it was read. So whatever is uploaded, overwritten or deleted meanwhile wins over the listing, which may
    have been made before it: every upload carries its own time, and differs from the row before it. Clocks
    are not compared, as those of two servers never agree.
    """

    def __init__(self, cache: ICache, progress: Callable[[int], None]) -> None:
        self.cache = cache
        self.progress = progress
        self.known: dict[str, Facts] = {}
        self.seen: dict[str, Facts] = {}
        self.batch: dict[str, Package] = {}
        self.added = self.changed = self.removed = self.unchanged = self.unreadable = 0
        self.recent = utcnow() - RECENT
        self.is_in_use = False

    def run(self, *, allow_empty: bool) -> Rebuilt:
        """Walk once. Raises :class:`BackendUnavailable` if nothing is stored, but much is known."""
        storage = self.cache.storage
        unreadable_before = storage.unreadable_count
        self.is_in_use = is_filled(self.cache.note(FILL))
        self.known = {package.filename: facts(package) for package in self.cache.everything()}
        count = 0
        for count, package in enumerate(storage.list(self.cache.new_package), 1):
            self.take(package)
            if count % BATCH == 0:
                self.write()
                self.progress(count)
        if count == 0 and len(self.known) >= MANY and not allow_empty:
            raise BackendUnavailable(
                f"the storage holds nothing, but {len(self.known)} files are known: is its volume mounted? "
                "If they are really gone, run pypicloud rebuild --allow-empty"
            )
        self.write()
        missed = storage.unreadable_count - unreadable_before
        self.drop(is_sure=missed == 0)
        self.progress(count)
        self.unreadable += missed
        rebuilt = Rebuilt(self.added, self.changed, self.removed, self.unchanged, self.unreadable)
        LOG.info("The cache agrees with the storage: %s", rebuilt)
        return rebuilt

    def take(self, package: Package) -> None:
        """Look at one listed file."""
        if not _is_text(package):
            LOG.warning("%r is left out: its name is not valid text", package.filename)
            self.unreadable += 1
            return
        listed = facts(package)
        twin = self.seen.get(package.filename)
        if twin is not None:
            # A file name is unique on the server, but a directory can hold it twice. The same one must win
            # in every rebuild, in whatever order they are listed.
            LOG.warning("%s is stored more than once: for %s %s, and %s %s", package.filename, *twin[:2], *listed[:2])
            if _age(listed) <= _age(twin):
                return
        self.seen[package.filename] = listed
        if listed == self.known.get(package.filename):
            self.unchanged += 1
            self.batch.pop(package.filename, None)
        else:
            self.batch[package.filename] = package

    def write(self) -> None:
        """Save what is new or changed, unless somebody else has changed it meanwhile."""
        sure, unsure = [], []
        for filename, package in self.batch.items():
            known = self.known.get(filename)
            if known is None and self.is_in_use and package.last_modified >= self.recent:
                # What was uploaded before the listing came to it, and deleted since, has no row before and none
                # after. Whoever deletes takes the file first and the row then, so the file tells.
                unsure.append(Change(filename, None, package, partial(self.is_stored, package)))
            else:
                sure.append(Change(filename, known, package))
        self.batch.clear()
        self.exchange(sure)
        for start in range(0, len(unsure), FEW):
            self.exchange(unsure[start : start + FEW])

    def exchange(self, changes: Sequence[Change]) -> None:
        """Save some of what is new or changed."""
        for filename in self.cache.exchange(changes) if changes else ():
            if filename in self.known:
                self.changed += 1
            else:
                self.added += 1
            self.known[filename] = self.seen[filename]

    def drop(self, *, is_sure: bool) -> None:
        """Forget what is no longer stored.

        A listing that could not read everything is no proof: then each missing file is looked for once more.
        """
        vanished = [filename for filename in self.known if filename not in self.seen]
        for start in range(0, len(vanished), BATCH):
            some = vanished[start : start + BATCH]
            if not is_sure:
                some = [name for name, package in self.cache.fetch_many(some).items() if not self.is_stored(package)]
            self.removed += len(self.cache.exchange([Change(name, self.known[name], None) for name in some]))

    def is_stored(self, package: Package) -> bool:
        """Whether the storage has a file; that it cannot tell does not mean that it has not."""
        try:
            with self.cache.storage.open(package):
                return True
        except PackageNotFound:
            return False
        except (PypicloudError, OSError):
            return True


def _is_text(package: Package) -> bool:
    """Whether the facts can be written as UTF-8; a file name that came from a disk may hold stray bytes."""
    try:
        f"{package.filename}{package.version}{package.summary}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _age(of: Facts) -> tuple[datetime, str, str]:
    name, version, last_modified, _, _ = of
    return (last_modified, name, version)
