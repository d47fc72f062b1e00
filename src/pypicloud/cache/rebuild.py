"""Rebuild: make a cache agree with storage while it is in use."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pypicloud.errors import BackendUnavailable, PackageNotFound, PypicloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from pypicloud.cache.base import ICache
    from pypicloud.models import Package

LOG = logging.getLogger(__name__)

#: How many files a rebuild looks at before it writes what it found, and how many it writes at once.
BATCH: Final = 1000

#: From how many known files on a storage that holds none is rather one that is not there.
MANY: Final = 10

#: Everything a cache keeps of a file beside its name.
Facts: TypeAlias = "tuple[str, str, datetime, str | None, dict[str, Any]]"


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


class Rebuild:
    """One walk over the storage, with what is known of it.

    The rows are read before the listing begins, and a row is written or dropped only while it still is as
    it was read. So whatever is uploaded, overwritten or deleted meanwhile wins over the listing, which may
    have been made before it: every upload carries its own time, and differs from the row before it. Clocks
    are not compared, as those of two servers never agree.
    """

    def __init__(self, cache: ICache, progress: Callable[[int], None] | None) -> None:
        self.cache = cache
        self.progress = progress or (lambda _: None)
        self.known: dict[str, Facts] = {}
        self.seen: dict[str, Facts] = {}
        self.batch: dict[str, Package] = {}
        self.added = self.changed = self.removed = self.unchanged = self.unreadable = 0

    def run(self, *, allow_empty: bool) -> Rebuilt:
        """Walk once. Raises :class:`BackendUnavailable` if nothing is stored, but much is known."""
        storage = self.cache.storage
        unreadable_before = storage.unreadable_count
        self.known = {package.filename: _facts(package) for package in self.cache.everything()}
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
        facts = _facts(package)
        twin = self.seen.get(package.filename)
        if twin is not None:
            # A file name is unique on the server, but a directory can hold it twice. The same one must win
            # in every rebuild, in whatever order they are listed.
            LOG.warning("%s is stored more than once: for %s %s, and %s %s", package.filename, *twin[:2], *facts[:2])
            if _age(facts) <= _age(twin):
                return
        self.seen[package.filename] = facts
        if facts == self.known.get(package.filename):
            self.unchanged += 1
            self.batch.pop(package.filename, None)
        else:
            self.batch[package.filename] = package

    def write(self) -> None:
        """Save what is new or changed."""
        if not self.batch:
            return
        with self.cache.transaction():
            rows = self.cache.fetch_many(self.batch)
            fresh = [package for package in self.batch.values() if self.is_as_read(package.filename, rows)]
            self.cache.save_all(fresh)
        for package in fresh:
            if package.filename in self.known:
                self.changed += 1
            else:
                self.added += 1
            self.known[package.filename] = self.seen[package.filename]
        self.batch.clear()

    def drop(self, *, is_sure: bool) -> None:
        """Forget what is no longer stored.

        A listing that could not read everything is no proof: then each missing file is looked for once more.
        """
        vanished = [filename for filename in self.known if filename not in self.seen]
        for start in range(0, len(vanished), BATCH):
            with self.cache.transaction():
                rows = self.cache.fetch_many(vanished[start : start + BATCH])
                gone = [package for filename, package in rows.items() if self.is_as_read(filename, rows)]
                if not is_sure:
                    gone = [package for package in gone if self.is_gone(package)]
                self.cache.clear_many(gone)
            self.removed += len(gone)

    def is_gone(self, package: Package) -> bool:
        """Whether the storage says that there is no such file; that it cannot tell is no answer."""
        try:
            with self.cache.storage.open(package):
                return False
        except PackageNotFound:
            return True
        except (PypicloudError, OSError):
            return False

    def is_as_read(self, filename: str, rows: Mapping[str, Package]) -> bool:
        """Whether the row, or its absence, is what this rebuild has read or written last."""
        row = rows.get(filename)
        return (None if row is None else _facts(row)) == self.known.get(filename)


def _facts(package: Package) -> Facts:
    return (package.name, package.version, package.last_modified, package.summary, package.data)


def _is_text(package: Package) -> bool:
    """Whether the facts can be written as UTF-8; a file name that came from a disk may hold stray bytes."""
    try:
        f"{package.filename}{package.version}{package.summary}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _age(facts: Facts) -> tuple[datetime, str, str]:
    name, version, last_modified, _, _ = facts
    return (last_modified, name, version)
