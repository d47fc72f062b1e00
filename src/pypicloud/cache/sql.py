"""A cache in a database that SQLAlchemy speaks to, by default an SQLite file.

The table ``packages`` is the one that 1.3.12 made, and its rows are as 1.3.12 wrote them (compat.md 3.2),
so that old and new servers can share it. ``package_revisions`` stands beside it.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    union,
    update,
)

from pypicloud.cache.base import ICache, newest_first, queries
from pypicloud.cache.tables import METADATA, PACKAGES, REVISIONS, json_object
from pypicloud.database import Database, Reader
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package, parse_version
from pypicloud.settings import BOOLEAN, REQUIRED, TEXT, EnvironSettings, Setting
from pypicloud.util import normalize_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from packaging.version import Version
    from packaging_legacy.version import LegacyVersion

LOG = logging.getLogger(__name__)

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
GRACEFUL_RELOAD: Final = Setting(
    "db.graceful_reload",
    BOOLEAN,
    False,
    "Accepted, and changes nothing any more: the cache always stays usable while it is rebuilt.",
)
ENGINE_OPTIONS: Final = Setting(
    "db.*",
    TEXT,
    "",
    "Any other option of SQLAlchemy's create_engine: pool_size, pool_recycle, echo...",
)

#: How many values are put into one query; the smallest limit of any database is far above.
CHUNK: Final = 500

#: How many rows are read at once when all are wanted.
PAGE: Final = 5000

#: The revision of what nobody has changed since the revisions are kept.
UNCHANGED: Final = "0"

#: The row of ``package_revisions`` that stands for the list of projects.
ALL_PROJECTS: Final = ""


#: What :class:`pypicloud.database.Reader` asks of an SQLite file; the words of ``PACKAGES`` and ``REVISIONS``.
FETCH: Final = "SELECT filename, name, version, last_modified, summary, data FROM packages WHERE filename = ?"
PROJECT: Final = "SELECT filename, name, version, last_modified, summary, data FROM packages WHERE name = ?"
REVISION: Final = "SELECT revision FROM package_revisions WHERE name = ?"


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
        self.is_local = database.reader is not None

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Reach the database and create the tables that are missing."""
        database = Database.configure(settings, URL, POOLCLASS, METADATA, others=(GRACEFUL_RELOAD.key,))
        return {**super().configure(settings), "database": database}

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Look at the database's address and options; it is not connected to."""
        Database.prepare(settings.clone(), URL, POOLCLASS, others=(GRACEFUL_RELOAD.key,)).close()

    @classmethod
    def postfork(cls, **kwargs: Any) -> None:
        """Leave the parent's connections alone."""
        kwargs["database"].after_fork()

    def fetch(self, filename: str) -> Package | None:
        """The package of this file name, or None."""
        if self.database.reader is None or self.database.is_writing:
            return self.fetch_many([filename]).get(filename)
        return next(self._raw_packages(self.database.reader, FETCH, filename), None)

    def fetch_many(self, filenames: Iterable[str]) -> dict[str, Package]:
        """Those packages that exist, by file name."""
        found = {}
        with self.database.reading() as connection:
            for some in _chunks(filenames):
                for row in connection.execute(select(PACKAGES).where(PACKAGES.c.filename.in_(some))):
                    found[row[0]] = self._package(row)
        return found

    def all(self, name: str) -> list[Package]:
        """All packages of a project, newest version first; versions that cannot be parsed come last."""
        project = normalize_name(name)
        if self.database.reader is not None and not self.database.is_writing:
            return newest_first(self._raw_packages(self.database.reader, PROJECT, project))
        with self.database.reading() as connection:
            return newest_first(
                map(self._package, connection.execute(select(PACKAGES).where(PACKAGES.c.name == project)))
            )

    def everything(self) -> Iterator[Package]:
        """All packages of all projects; no connection is held while the caller works."""
        query = select(PACKAGES).order_by(PACKAGES.c.filename).limit(PAGE)
        last = ""
        while True:
            with self.database.reading() as connection:
                rows = connection.execute(query.where(PACKAGES.c.filename > last)).all()
            yield from map(self._package, rows)
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def distinct(self) -> list[str]:
        """The names of all projects, sorted."""
        with self.database.reading() as connection:
            # The index on the name answers this alone; in what order depends on the database's locale.
            return sorted(connection.scalars(select(PACKAGES.c.name).distinct()))

    def is_empty(self) -> bool:
        """Whether nothing is known about any package."""
        with self.database.reading() as connection:
            return connection.execute(select(PACKAGES.c.filename).limit(1)).first() is None

    def revision(self, name: str | None) -> str:
        """The token of a project's page, or of the list of projects."""
        key = ALL_PROJECTS if name is None else normalize_name(name)
        if self.database.reader is not None and not self.database.is_writing:
            rows: Sequence[Sequence[Any]] = self.database.reader.rows(REVISION, key)
        else:
            with self.database.reading() as connection:
                rows = connection.execute(select(REVISIONS.c.revision).where(REVISIONS.c.name == key)).all()
        return str(rows[0][0]) if rows else UNCHANGED

    def search(self, criteria: Mapping[str, Iterable[str]], query_type: str) -> list[Package]:
        """The newest matching package of each project, sorted by name (compat.md 3.5)."""
        query = select(PACKAGES.c.name, PACKAGES.c.version, PACKAGES.c.filename)
        wanted = queries(criteria)
        if wanted:
            query = query.where(or_(*(_finds(column, pieces, query_type) for column, pieces in wanted.items())))
        best: dict[str, tuple[Version | LegacyVersion, str]] = {}
        with self.database.reading() as connection:
            for name, version, filename in connection.execute(query):
                candidate = (parse_version(version), filename)
                if name not in best or best[name] < candidate:
                    best[name] = candidate
        packages = self.fetch_many(filename for _, filename in best.values())
        return sorted(packages.values())

    def summary(self) -> list[dict[str, Any]]:
        """For each project, sorted: ``name``, and ``summary`` and ``last_modified`` of its latest file."""
        order = (PACKAGES.c.last_modified.desc(), PACKAGES.c.filename.desc())
        place = func.row_number().over(partition_by=PACKAGES.c.name, order_by=order).label("place")
        ranked = select(PACKAGES.c.name, PACKAGES.c.summary, PACKAGES.c.last_modified, place).subquery()
        query = select(ranked.c.name, ranked.c.summary, ranked.c.last_modified).where(ranked.c.place == 1)
        with self.database.reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return sorted(rows, key=lambda row: str(row["name"]))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes what is read and written inside happen at once or not at all."""
        with self.database.writing():
            yield

    def save(self, package: Package) -> None:
        """Keep the facts about a package, in place of those of the same file name."""
        self.save_all([package])

    def save_all(self, packages: Iterable[Package]) -> None:
        """``save`` for many, in one transaction."""
        rows = {package.filename: _row(package) for package in packages}
        if not rows:
            return
        with self.database.writing() as connection:
            names = {str(row["name"]) for row in rows.values()} | _owners(connection, rows)
            before = _existing(connection, names)
            _delete(connection, rows)
            connection.execute(insert(PACKAGES), list(rows.values()))
            _renew(connection, names, before)

    def clear(self, package: Package) -> None:
        """Forget the package of this file name, whatever else is known about it; none is no error."""
        self.clear_many([package])

    def clear_many(self, packages: Iterable[Package]) -> None:
        """``clear`` for many, in one transaction."""
        filenames = {package.filename for package in packages}
        with self.database.writing() as connection:
            names = _owners(connection, filenames)
            _delete(connection, filenames)
            _renew(connection, names, names)

    def clear_all(self) -> None:
        """Forget everything; every page and the list of projects get a new revision."""
        token = _token()
        known = select(REVISIONS.c.name)
        names = union(select(PACKAGES.c.name.label("name")), select(literal(ALL_PROJECTS).label("name"))).subquery()
        unknown = select(names.c.name, literal(token)).where(names.c.name.not_in(known))
        with self.database.writing() as connection:
            connection.execute(update(REVISIONS).values(revision=token))
            connection.execute(insert(REVISIONS).from_select(["name", "revision"], unknown))
            connection.execute(delete(PACKAGES))

    def check_health(self) -> tuple[bool, str]:
        """Whether the database answers a query for one row."""
        try:
            self.is_empty()
        except BackendUnavailable as error:
            LOG.exception("The database does not answer")
            return False, error.message
        return True, ""

    def _raw_packages(self, reader: Reader, query: str, key: str) -> Iterator[Package]:
        for filename, name, version, last_modified, summary, data in reader.rows(query, key):
            time = datetime.fromisoformat(last_modified).replace(tzinfo=UTC)
            yield self._package((filename, name, version, time, summary, json_object(data)))

    def _package(self, row: Sequence[Any]) -> Package:
        filename, name, version, last_modified, summary, data = row
        package = self.new_package(name, version, filename, last_modified, summary)
        # Not through keywords: the data of a row may have any key, "name" and "version" too.
        package.data = data
        return package


def _row(package: Package) -> dict[str, Any]:
    return {
        "filename": package.filename,
        "name": package.name,
        "version": package.version,
        "last_modified": package.last_modified,
        "summary": package.summary,
        "data": package.data,
    }


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _delete(connection: Connection, filenames: Iterable[str]) -> None:
    for some in _chunks(filenames):
        connection.execute(delete(PACKAGES).where(PACKAGES.c.filename.in_(some)))


def _owners(connection: Connection, filenames: Iterable[str]) -> set[str]:
    """The projects that these files belong to, as far as they exist."""
    names: set[str] = set()
    for some in _chunks(filenames):
        names.update(connection.scalars(select(PACKAGES.c.name).where(PACKAGES.c.filename.in_(some)).distinct()))
    return names


def _existing(connection: Connection, names: Iterable[str]) -> set[str]:
    """Those of these projects that have a file."""
    found: set[str] = set()
    for some in _chunks(names):
        found.update(connection.scalars(select(PACKAGES.c.name).where(PACKAGES.c.name.in_(some)).distinct()))
    return found


def _renew(connection: Connection, names: Collection[str], before: Collection[str]) -> None:
    """New revisions for these projects, and for their list if not the same ones exist as before.

    The row of a project stays when its last file goes: its page is another one then, too.
    """
    if not names:
        return
    changed = {*names} if _existing(connection, names) == before else {*names, ALL_PROJECTS}
    for some in _chunks(changed):
        connection.execute(delete(REVISIONS).where(REVISIONS.c.name.in_(some)))
    token = _token()
    connection.execute(insert(REVISIONS), [{"name": name, "revision": token} for name in sorted(changed)])


def _token() -> str:
    return secrets.token_hex(16)


def _finds(column: str, pieces: Iterable[str], query_type: str) -> ColumnElement[bool]:
    """Whether a column holds one, or all, of some lower-case pieces of text."""
    text = func.lower(func.coalesce(PACKAGES.c[column], ""))
    found = [text.contains(piece, autoescape=True) for piece in pieces]
    return or_(false(), *found) if query_type == "or" else and_(true(), *found)


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
