"""A database out of the settings below a prefix (``db.``, ``auth.db.``): queries, transactions, locks, start.

SQLAlchemy does the talking, except for the few rows that a page or a download needs: there its layers would
cost as much as the database itself (:meth:`Database.rows`).
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, MetaData, Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.pool import Pool

from pypicloud.database import address, schema
from pypicloud.database.engine import (
    accepted,
    begin,
    close,
    isolation_level,
    make,
    make_for_locks,
    pool_class,
    pool_options,
)
from pypicloud.database.failures import MESSAGE, PATIENCE, TableMissing, is_lost, is_passing, repeated
from pypicloud.database.locks import FileLocks, Locks, NoLocks, ServerLocks
from pypicloud.database.reader import FileReader
from pypicloud.errors import BackendUnavailable, SettingError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pypicloud.settings import EnvironSettings, Setting

__all__ = ["Database", "TableMissing"]

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Database:
    """An engine with its transactions and locks; shared by all threads, and made once per process."""

    def __init__(self, engine: Engine, locks: Locks, begin: str) -> None:
        self.engine = engine
        self._locks = locks
        self._begin = begin
        self._reader = FileReader(engine.url) if address.is_sqlite_file(engine.url) else None
        # An SQLite file has one writer at a time, and who waits for it inside SQLite waits too long.
        self._turn = nullcontext() if self._reader is None else threading.Lock()
        self._inherited: list[Any] = []

    @classmethod
    def configure(
        cls,
        settings: EnvironSettings,
        url: Setting[str],
        poolclass: Setting[str],
        tables: MetaData,
        others: Collection[str] = (),
    ) -> Database:
        """The database that the settings name, reached, and with its tables.

        Raises :class:`SettingError` when it cannot be reached, an option has a value of no use, or a table is
        somebody else's.
        """
        database = cls.prepare(settings, url, poolclass, others)
        try:
            with _unusable(settings, url, database.engine.url):
                # A database that is out of reach is said to be at once, and not after some more tries.
                database.engine.connect().close()
                database.create(tables)
                database.read(lambda connection: schema.check(connection, tables))
        except SettingError:
            database.close()
            raise
        return database

    @classmethod
    def prepare(
        cls, settings: EnvironSettings, url: Setting[str], poolclass: Setting[str], others: Collection[str] = ()
    ) -> Database:
        """The database that the settings name; it is not reached for before it is used.

        Every other key below the prefix of ``url``, save those in ``others``, is an option of the engine.
        Raises :class:`SettingError` for a value that can be of no use, wherever the database is.
        """
        prefix = url.key.removesuffix("url")
        settings.read_prefix_from_environ(prefix)
        target = address.read(settings, url)
        level_key = f"{prefix}isolation_level"
        level = isolation_level(settings, level_key)
        pool = pool_class(settings, poolclass)
        options = {
            key.removeprefix(prefix): value
            for key, value in settings.items()
            if key.startswith(prefix) and key not in {url.key, poolclass.key, level_key, *others}
        }
        with _unusable(settings, url, target):
            options = accepted(settings, target, pool, prefix, options)
            engine = make(target, pool, {**pool_options(target, pool, options), **options}, level)
            return cls(engine, _locks(engine, pool), begin(engine, level))

    @property
    def is_local(self) -> bool:
        """Whether it is a local file, whose rows come at once."""
        return self._reader is not None

    def rows(self, query: str, *values: str) -> Sequence[Sequence[Any]]:
        """The rows that a query finds, by the shortest way, with the values as the driver gives them.

        The query has a ``?`` for each value, and no other one, and no percent sign.
        """
        if self._reader is not None:
            return self._reader.rows(query, *values)
        spelled = _spelled(query, self.engine.dialect.paramstyle)
        if self.engine.dialect.name != "sqlite":
            begun = time.monotonic()
            try:
                return self._raw_rows(spelled, values)
            except NoConnectionFree as error:
                # The long way would wait in the same queue, and as long again.
                raise BackendUnavailable(MESSAGE) from error
            except (self.engine.dialect.loaded_dbapi.Error, DBAPIError) as error:
                if time.monotonic() - begun > PATIENCE:
                    # Those who ask next should not wait as long on a connection that is as old as this one.
                    self.engine.dispose()
                    raise BackendUnavailable(MESSAGE) from error
                # The long way knows whether it is worth trying again.
                LOG.info("A query is repeated: %s", error)
        return self.read(lambda connection: connection.exec_driver_sql(spelled, values).all())

    def _raw_rows(self, query: str, values: tuple[str, ...]) -> Sequence[Sequence[Any]]:
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(query, values)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            cursor.close()
        except BaseException:
            connection.invalidate()
            raise
        finally:
            connection.close()
        return rows

    def read(self, work: Callable[[Connection], T]) -> T:
        """What some work finds that only reads; each of its queries is one round trip, and sees all that is committed.

        If the connection is lost the work is done again from the beginning.
        """

        def once() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        return repeated(once, is_lost, attempts=2)

    def write(self, work: Callable[[Connection], T]) -> T:
        """What some work gives that is kept as a whole or, on an exception, not at all.

        If others are in its way, or the connection is lost, it is done again from the beginning: perhaps after
        it has been kept, so that doing it twice must be as good as once.
        """

        def once() -> T:
            with self._turn, self.engine.connect() as connection:
                connection.exec_driver_sql(self._begin)
                try:
                    result = work(connection)
                    connection.exec_driver_sql("COMMIT")
                except BaseException:
                    _roll_back(connection)
                    raise
                return result

        return repeated(once, is_passing)

    def create(self, tables: MetaData, only: Sequence[Table] | None = None) -> None:
        """Create the tables that are missing; other servers may be at it, too."""
        self.write(lambda connection: tables.create_all(connection, tables=only))

    def upgrade(self, table: Table) -> None:
        """Bring the columns of a table that an earlier version made to the types they have now, rows kept."""
        self.write(lambda connection: schema.upgrade(connection, table))

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Keeps the holders of the same key in other processes out, for as long as the block lasts."""
        return self._locks.held(key)

    def after_fork(self) -> None:
        """Let go of the connections that belong to the parent process."""
        if self._reader is not None or self.engine.dialect.name != "sqlite":
            # They are kept, as some drivers say goodbye to the server when one is thrown away.
            self._inherited += [self.engine.pool, *self._locks.after_fork()]
            self.engine.dispose(close=False)
        if self._reader is not None:
            # A thread of the parent may have had its turn.
            self._turn = threading.Lock()

    def close(self) -> None:
        """Close every connection: those that somebody is using, as soon as they are given back."""
        close(self.engine)
        self._locks.close()
        if self._reader is not None:
            self._reader.close()


@functools.cache
def _spelled(query: str, paramstyle: str) -> str:
    """A query with the driver's own place-holders."""
    return query if paramstyle == "qmark" else query.replace("?", "%s")


def _roll_back(connection: Connection) -> None:
    try:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")
    except SQLAlchemyError:
        # SQLite has done it already. Elsewhere nobody knows what state the connection is in.
        if connection.dialect.name != "sqlite":
            connection.invalidate()


def _locks(engine: Engine, pool: type[Pool] | None) -> Locks:
    if engine.dialect.name != "sqlite":
        return ServerLocks(make_for_locks(engine.url, pool))
    return FileLocks(engine) if address.is_sqlite_file(engine.url) else NoLocks()


@contextmanager
def _unusable(settings: EnvironSettings, setting: Setting[str], url: URL) -> Iterator[None]:
    """Say of which setting it is that a database cannot be used, and why."""
    try:
        yield
    # A driver says TypeError to an option in the address that it does not know.
    except (ImportError, TypeError, ValueError, SQLAlchemyError, BackendUnavailable) as error:
        why = error.__cause__ if isinstance(error, BackendUnavailable) and error.__cause__ else error
        reason = f"this database cannot be used: {address.cause(why, url)}"
        source = settings.source(setting.key)
        raise SettingError(setting.key, reason, value=address.shown(url), source=source) from error
