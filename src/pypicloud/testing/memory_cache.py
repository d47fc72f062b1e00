"""A cache in the memory of one process, for tests."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pypicloud.cache.base import UNCHANGED, ICache
from pypicloud.cache.choose import newest_first
from pypicloud.util import normalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pypicloud.cache.changes import Change
    from pypicloud.models import Package
    from pypicloud.settings import EnvironSettings, Setting


class Rows:
    """What a :class:`MemoryCache` holds; shared by its instances."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.packages: dict[str, Package] = {}
        self.revisions: dict[str | None, str] = {}
        self.notes: dict[str, str] = {}
        self.token = itertools.count(1)


class MemoryCache(ICache):
    """A cache in the memory of this process; with nothing in it at each start."""

    is_local = True
    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = ICache.SETTINGS

    def __init__(self, request: Any = None, *, rows: Rows | None = None, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.rows = rows or Rows()

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Memory of its own."""
        return {**super().configure(settings), "rows": Rows()}

    def fetch(self, filename: str) -> Package | None:
        """The package of this file name, or None."""
        with self.rows.lock:
            package = self.rows.packages.get(filename)
            return None if package is None else self._copy(package)

    def all(self, name: str) -> list[Package]:
        """All packages of a project, newest version first."""
        project = normalize_name(name)
        with self.rows.lock:
            packages = [self._copy(package) for package in self.rows.packages.values() if package.name == project]
        return newest_first(packages)

    def distinct(self) -> list[str]:
        """The names of all projects, sorted."""
        with self.rows.lock:
            return sorted({package.name for package in self.rows.packages.values()})

    def everything(self) -> Iterable[Package]:
        """All packages of all projects."""
        with self.rows.lock:
            return [self._copy(package) for package in self.rows.packages.values()]

    def save(self, package: Package) -> None:
        """Keep the facts about a package, in place of those of the same file name."""
        with self.rows.lock, self._renewing({package.filename}, {package.name}):
            self.rows.packages[package.filename] = self._copy(package)

    def clear(self, package: Package) -> None:
        """Forget the package of this file name; none is no error."""
        with self.rows.lock, self._renewing({package.filename}, set()):
            self.rows.packages.pop(package.filename, None)

    def clear_all(self) -> None:
        """Forget everything."""
        with self.rows.lock:
            names = {None, *self.rows.revisions}
            self.rows.packages.clear()
            self.rows.revisions.update(dict.fromkeys(names, self._token()))

    def revision(self, name: str | None) -> str:
        """The token of a project's page, or of the list of projects."""
        with self.rows.lock:
            return self.rows.revisions.get(None if name is None else normalize_name(name), UNCHANGED)

    def exchange(self, changes: Sequence[Change]) -> set[str]:
        """Make each change whose file's facts are still as they were read; the names of the files changed."""
        with self.rows.lock:
            return super().exchange(changes)

    def note(self, key: str) -> str | None:
        """A small text that all instances share."""
        return self.rows.notes.get(key)

    def write_note(self, key: str, text: str) -> None:
        """Keep a small text for all instances."""
        self.rows.notes[key] = text

    @contextmanager
    def _renewing(self, filenames: set[str], names: set[str]) -> Iterator[None]:
        """New revisions for the owners of these files and for these projects, and their list if need be."""
        before = self.distinct()
        owners = {self.rows.packages[filename].name for filename in filenames & self.rows.packages.keys()}
        yield
        changed: set[str | None] = {*names, *owners}
        if self.distinct() != before:
            changed.add(None)
        self.rows.revisions.update(dict.fromkeys(changed, self._token()))

    def _token(self) -> str:
        return str(next(self.rows.token))

    def _copy(self, package: Package) -> Package:
        copy = self.new_package(package.name, package.version, package.filename, package.last_modified, package.summary)
        copy.data = dict(package.data)
        return copy
