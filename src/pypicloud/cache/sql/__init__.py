"""A cache in a database that SQLAlchemy speaks to, by default an SQLite file.

The table ``packages`` is the one that 1.3.12 made, and its rows are as 1.3.12 wrote them (compat.md 3.2),
so that old and new servers can share it. ``package_revisions`` and ``package_notes`` stand beside it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from sqlalchemy import Connection, func, select

from pypicloud.cache.base import GRACEFUL_RELOAD, UNCHANGED, ICache
from pypicloud.cache.batches import batches
from pypicloud.cache.choose import matcher, newest_first, queries
from pypicloud.cache.fill import FILL, Watch, is_filled
from pypicloud.cache.sql import changes as sql_changes
from pypicloud.cache.sql.changes import ALL_PROJECTS, BATCH, among
from pypicloud.cache.sql.rows import (
    FETCH,
    NOTE,
    PROJECT,
    REVISION_AND_NOTE,
    is_storable,
    misfit,
    newest,
    revisions_and_note,
    row_of,
)
from pypicloud.cache.sql.search import candidates
from pypicloud.cache.sql.tables import METADATA, NOTES, PACKAGES, REVISIONS, json_object, moment
from pypicloud.database import Database, TableMissing
from pypicloud.errors import BackendUnavailable, InvalidUpload
from pypicloud.models import Package
from pypicloud.settings import REQUIRED, TEXT, EnvironSettings, Setting
from pypicloud.util import normalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pypicloud.cache.changes import Change
    from pypicloud.cache.rebuild import Rebuilt

LOG = logging.getLogger(__name__)

T = TypeVar("T")

URL: Final = Setting(
    "db.url",
    TEXT,
    REQUIRED,
    "The database, as an SQLAlchemy URL, for example sqlite:////var/lib/pypicloud/db.sqlite",
    secret=True,
)
POOLCLASS: Final = Setting(
    "db.poolclass",
    TEXT,
    "",
    "The dotted path of the class that keeps connections; sqlalchemy.pool.NullPool keeps none.",
)
ENGINE_OPTIONS: Final = Setting(
    "db.*",
    TEXT,
    "",
    "Any other option of SQLAlchemy's create_engine: pool_size, pool_recycle, echo...",
)

#: How many rows are read at once when all are wanted.
PAGE: Final = 5000


class SQLCache(ICache):
    """The facts in an SQL database.

    Each change gives a new revision to every project it touches, in the same transaction, so that no server
    of a fleet shows a page that is out of date.
    """

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (
        *ICache.SETTINGS,
        URL,
        POOLCLASS,
        GRACEFUL_RELOAD,
        ENGINE_OPTIONS,
    )

    def __init__(self, request: Any = None, *, database: Database, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.database = database
        self.is_local = database.is_local

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Reach the database and create the tables that are missing."""
        database = Database.configure(settings, URL, POOLCLASS, METADATA, others=(GRACEFUL_RELOAD.key,))
        return {**super().configure(settings), "database": database, "watch": Watch()}

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Look at the database's address and options; it is not connected to."""
        Database.prepare(settings.clone(), URL, POOLCLASS, others=(GRACEFUL_RELOAD.key,)).close()

    @classmethod
    def postfork(cls, **kwargs: Any) -> None:
        """Leave the parent's connections alone."""
        kwargs["database"].after_fork()
        kwargs["watch"].after_fork()

    # Reading.

    def fetch(self, filename: str) -> Package | None:
        """The package of this file name, or None."""
        # A table that 1.3.12 made on MySQL finds Foo, too, where foo is asked for.
        return next((package for package in self._found(FETCH, filename) if package.filename == filename), None)

    def fetch_many(self, filenames: Iterable[str]) -> dict[str, Package]:
        """Those packages that exist, by file name."""
        wanted = {filename for filename in filenames if is_storable(filename)}
        return self._read(lambda connection: self._fetched(connection, wanted))

    def all(self, name: str) -> list[Package]:
        """All packages of a project, newest version first; versions that cannot be parsed come last."""
        project = normalize_name(name)
        return newest_first(package for package in self._found(PROJECT, project) if package.name == project)

    def everything(self) -> Iterator[Package]:
        """All packages of all projects; no connection is held while the caller works."""
        return map(self._package, self._pages("filename, name, version, last_modified, summary, data"))

    def distinct(self) -> list[str]:
        """The names of all projects, sorted."""
        self._expect_filled()
        query = select(PACKAGES.c.name).distinct()
        # The index on the name answers this alone; in what order depends on the database's locale.
        return self._read(lambda connection: sorted(connection.scalars(query)))

    def is_empty(self) -> bool:
        """Whether nothing is known about any package."""
        query = select(PACKAGES.c.filename).limit(1)
        return self._read(lambda connection: connection.execute(query).first() is None)

    def revision(self, name: str | None) -> str:
        """The token of a project's page, or of the list of projects."""
        key = _revision_key(name)
        if not is_storable(key):
            return UNCHANGED
        ((revision, note),) = self._rows(REVISION_AND_NOTE, key, FILL)
        self._check_fill(note)
        return str(revision or self._absent(note))

    def revisions(self, names: Collection[str | None]) -> dict[str | None, str | None]:
        """``revision`` for many, by name as given."""
        keys = {name: _revision_key(name) for name in names}
        found: dict[str | None, str] = {}
        note = None
        for some in batches({key for key in keys.values() if is_storable(key)}, BATCH):
            # Of few sizes, so that the database meets the same words again and again.
            wanted = some + some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
            found.update((name, text) for name, text in self._rows(revisions_and_note(len(wanted)), *wanted, FILL))
            note = found.pop(None, None)
            self._check_fill(note)
        return {name: found.get(key) or self._absent(note) for name, key in keys.items()}

    def search(self, criteria: Mapping[str, Iterable[str]], query_type: str) -> list[Package]:
        """The newest matching package of each project, sorted by name (compat.md 3.5)."""
        self._expect_filled()
        wanted = queries(criteria)
        columns = (PACKAGES.c.filename, PACKAGES.c.name, PACKAGES.c.version, PACKAGES.c.summary)
        query = select(*columns).where(candidates(wanted, query_type, self.database.engine.dialect.name))
        rows = self._read(lambda connection: connection.execute(query).all())
        best = newest(filter(matcher(wanted, query_type), rows))
        return sorted(self.fetch_many(row[0] for row in best.values()).values())

    def summary(self) -> list[dict[str, Any]]:
        """For each project, sorted: ``name``, the newest version's ``summary``, the latest file's ``last_modified``."""
        self._expect_filled()
        query = select(PACKAGES.c.name, func.max(PACKAGES.c.last_modified)).group_by(PACKAGES.c.name)
        latest = self._read(lambda connection: {name: time for name, time in connection.execute(query)})  # noqa: C416
        best = newest(self._pages("filename, name, version, summary"))
        return [
            {"name": name, "summary": best[name][3], "last_modified": latest[name]}
            for name in sorted(best.keys() & latest.keys())
        ]

    # Writing.

    def save(self, package: Package) -> None:
        """Keep the facts about a package, in place of those of the same file name."""
        self.save_all([package])

    def save_all(self, packages: Iterable[Package]) -> None:
        """``save`` for many, in one transaction."""
        rows = {package.filename: package for package in packages}
        for package in rows.values():
            self.check_facts(package)
        if rows:
            self._write(
                lambda connection: sql_changes.save(connection, {name: row_of(one) for name, one in rows.items()})
            )

    def check_facts(self, package: Package) -> None:
        """Raise :class:`InvalidUpload` for facts that this database cannot keep; asked before the file is stored."""
        if reason := misfit(package, self.is_local):
            raise InvalidUpload(reason)

    def clear(self, package: Package) -> None:
        """Forget the package of this file name, whatever else is known about it; none is no error."""
        self.clear_many([package])

    def clear_many(self, packages: Iterable[Package]) -> None:
        """``clear`` for many, in one transaction."""
        filenames = {package.filename for package in packages if is_storable(package.filename)}
        if filenames:
            self._write(lambda connection: sql_changes.forget(connection, filenames))

    def clear_all(self) -> None:
        """Forget everything; every page and the list of projects get a new revision."""
        self._write(sql_changes.forget_all)

    def exchange(self, changes: Sequence[Change]) -> set[str]:
        """Make each change whose file's facts are still as they were read, in one transaction; the files changed."""
        fitting = [change for change in changes if self._fits(change)]
        return self._write(lambda connection: self._exchanged(connection, fitting)) if fitting else set()

    def _exchanged(self, connection: Connection, changes: Sequence[Change]) -> set[str]:
        # Read once to know what is to be locked, and again for the truth: what is not changed keeps its revision.
        possible, _ = self._possible(connection, changes)
        names: set[str] = {change.wanted.name for change in possible if change.wanted is not None}
        names.update(change.known[0] for change in possible if change.known is not None)
        token = sql_changes.lock(connection, names)
        possible, found = self._possible(connection, possible)
        saved = {change.filename: row_of(change.wanted) for change in possible if change.wanted is not None}
        dropped = [change.filename for change in possible if change.wanted is None and change.known is not None]
        owners = {filename: package.name for filename, package in found.items()}
        sql_changes.apply(connection, saved, dropped, owners, token)
        return {change.filename for change in possible}

    def _possible(self, connection: Connection, changes: Sequence[Change]) -> tuple[list[Change], dict[str, Package]]:
        """The changes whose file's facts are as they were read, with these facts."""
        found = self._fetched(connection, {change.filename for change in changes})
        possible = [change for change in changes if change.is_possible(found.get(change.filename))]
        return possible, {change.filename: found[change.filename] for change in possible if change.known is not None}

    def rebuild(self, progress: Callable[[int], None] | None = None, *, allow_empty: bool = False) -> Rebuilt:
        """Make the cache agree with storage; a table that an earlier version made gets the columns of this one."""
        try:
            self.database.upgrade(PACKAGES)
        except BackendUnavailable:
            LOG.exception("The table %s stays as an earlier version made it", PACKAGES.name)
        return super().rebuild(progress, allow_empty=allow_empty)

    # What all servers share beside the facts.

    def note(self, key: str) -> str | None:
        """A small text that all servers of the cache share."""
        rows = self._rows(NOTE, key)
        return str(rows[0][0]) if rows else None

    def write_note(self, key: str, text: str) -> None:
        """Keep a small text for all servers of the cache."""
        self._write(lambda connection: sql_changes.write_note(connection, key, text))

    def shared_lock(self, key: str) -> AbstractContextManager[None]:
        """Keeps the holders of the same key on other servers out."""
        return self.database.lock(key)

    def check_health(self) -> tuple[bool, str]:
        """Whether the database answers what every page asks it."""
        try:
            self.revision(None)
        except BackendUnavailable as error:
            LOG.exception("The database does not answer")
            return False, error.message
        return True, ""

    # Rows and packages.

    def _found(self, query: str, value: str) -> list[Package]:
        """The packages that a query finds in a cache that holds all that is stored."""
        if not is_storable(value):
            return []
        rows = self._rows(query, FILL, value)
        self._check_fill(rows[0][-1])
        return [self._package(row[:-1]) for row in rows if row[0] is not None]

    def _pages(self, columns: str) -> Iterator[Sequence[Any]]:
        """The rows of all packages, page by page, the file name first."""
        query = f"SELECT {columns} FROM packages WHERE filename > ? ORDER BY filename LIMIT {PAGE}"  # noqa: S608
        last = ""
        while True:
            rows = self._rows(query, last)
            yield from rows
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def _fetched(self, connection: Connection, filenames: Collection[str]) -> dict[str, Package]:
        found = {}
        for some in batches(sorted(filenames), BATCH):
            for row in connection.execute(select(PACKAGES).where(among(connection, PACKAGES.c.filename, some))):
                if row.filename in filenames:
                    found[row.filename] = self._package(row)
        return found

    def _package(self, row: Sequence[Any]) -> Package:
        filename, name, version, last_modified, summary, data = row
        package = self.new_package(name, version, filename, moment(last_modified), summary)
        # Not through keywords: the data of a row may have any key, "name" and "version" too.
        package.data = data if isinstance(data, dict) else json_object(data)
        return package

    def _fits(self, change: Change) -> bool:
        reason = None if change.wanted is None else misfit(change.wanted, self.is_local)
        if reason:
            LOG.warning("A file is left out of the cache: %s", reason)
        return not reason

    # The tables may be gone.

    def _rows(self, query: str, *values: str) -> Sequence[Sequence[Any]]:
        try:
            return self.database.rows(query, *values)
        except TableMissing:
            self._make_tables()
            return self.database.rows(query, *values)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._with_tables(self.database.read, work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._with_tables(self.database.write, work)

    def _with_tables(self, do: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]) -> T:
        try:
            return do(work)
        except TableMissing:
            self._make_tables()
            return do(work)

    def _make_tables(self) -> None:
        """Make tables again that somebody dropped, and say that the cache is being filled, if anybody relies on it."""
        LOG.warning("The tables of the cache are gone; they are made again")
        # First of all, so that nobody takes an empty table for a cache that holds everything.
        self.database.create(METADATA, [NOTES, REVISIONS])
        self.database.write(sql_changes.begin_anew)
        self.database.create(METADATA)
        if self.watch.is_on:
            raise self.refill()

    def _check_fill(self, note: str | None) -> None:
        if self.watch.is_on and not is_filled(note):
            raise self.refill()

    def _absent(self, note: str | None) -> str:
        """The revision of what has none: what was lost and filled again is something else than it was before."""
        return (note if self.watch.is_on else None) or UNCHANGED

    def _expect_filled(self) -> None:
        """Raise what says that the cache is being filled, if it is."""
        if self.watch.is_on:
            self._check_fill(self.note(FILL))


def _revision_key(name: str | None) -> str:
    return ALL_PROJECTS if name is None else normalize_name(name)


def _declare_package() -> type[Package]:
    from sqlalchemy.orm import registry  # The server itself never needs it.

    @registry(metadata=METADATA).mapped
    class SQLPackage(Package):
        """A package as a row of the table ``packages``, for scripts that use sessions of their own."""

        __table__ = PACKAGES

    SQLPackage.__qualname__ = "SQLPackage"
    return SQLPackage


def __getattr__(name: str) -> Any:
    """``SQLPackage``, made when it is asked for."""
    if name != "SQLPackage":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, _declare_package())
