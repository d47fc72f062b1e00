"""A database out of the settings below a prefix (``db.``, ``auth.db.``): engine, transactions, start.

SQLAlchemy does the talking, except for the few rows that a page or a download needs out of a local SQLite
file: there its layers would cost many times what SQLite itself needs (:class:`Reader`).
"""

from __future__ import annotations

import logging
import os
import pkgutil
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, MetaData, engine_from_config, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import Pool, QueuePool

from pypicloud.errors import BackendUnavailable, SettingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy.engine import URL

    from pypicloud.settings import EnvironSettings, Setting

LOG = logging.getLogger(__name__)

#: How long, in seconds, a writer waits for its turn on an SQLite file; ``?timeout=`` in the URL overrides.
SQLITE_TIMEOUT: Final = 30

#: The execution option of connections that will write.
_WRITES: Final = "pypicloud_writes"


class Database:
    """An engine with its transactions; shared by all threads, and made once per process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reader = Reader(engine.url) if _is_sqlite_file(engine.url) else None
        self._thread = threading.local()

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

        Raises :class:`SettingError` when it cannot be reached or an option has a value of no use.
        """
        database = cls.prepare(settings, url, poolclass, others)
        with _unusable(settings, url):
            _create(database.engine, tables)
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
        address = _address(settings, url)
        options = {
            key.removeprefix(prefix): value
            for key, value in settings.items()
            if key.startswith(prefix) and key not in {url.key, poolclass.key, *others}
        }
        fixed = _fixed_options(address, _poolclass(settings, poolclass))
        with _unusable(settings, url):
            # Made once without the options, so that what is wrong with the URL is not put down to one of them.
            _engine(address, fixed)
            engine = _engine(address, {**fixed, **_accepted(settings, address, fixed, prefix, options)})
            if engine.dialect.name == "sqlite":
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
        return cls(engine)

    @property
    def is_writing(self) -> bool:
        """Whether this thread is inside :meth:`writing`."""
        return getattr(self._thread, "connection", None) is not None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with: that of the transaction this thread is in, or a fresh one."""
        connection = getattr(self._thread, "connection", None)
        with _translated():
            if connection is not None:
                yield connection
            else:
                with self.engine.connect() as connection:
                    yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: all of it is kept, or, on an exception, nothing. Inside another it is part of that."""
        connection = getattr(self._thread, "connection", None)
        with _translated():
            if connection is not None:
                yield connection
                return
            with self.engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
                self._thread.connection = connection
                try:
                    yield connection
                finally:
                    self._thread.connection = None

    def after_fork(self) -> None:
        """Let go of the connections that belong to the parent process."""
        if self.reader is not None or self.engine.dialect.name != "sqlite":
            self.engine.dispose(close=False)

    def close(self) -> None:
        """Close every connection that nobody is using."""
        self.engine.dispose()
        if self.reader is not None:
            self.reader.close()


@contextmanager
def _unusable(settings: EnvironSettings, url: Setting[str]) -> Iterator[None]:
    """Say of which setting it is that a database cannot be used, and why."""
    try:
        yield
    except (ImportError, ValueError, SQLAlchemyError) as error:
        address = _address(settings, url)
        reason = f"this database cannot be used: {_cause(error, address)}"
        raise SettingError(url.key, reason, value=_shown(address), source=settings.source(url.key)) from error


class Reader(threading.local):
    """Rows out of an SQLite file, over a connection of each thread's own, as last committed."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._connection: _ClosedAtLast | None = None
        self._inherited: _ClosedAtLast | None = None

    def rows(self, query: str, key: str) -> list[Any]:
        """The rows that a query with one parameter finds."""
        connection = self._connection
        if connection is None or connection.pid != os.getpid():
            connection = self._open()
        try:
            return connection.raw.execute(query, (key,)).fetchall()
        except sqlite3.Error as error:
            raise BackendUnavailable("the database does not answer") from error

    def _open(self) -> _ClosedAtLast:
        # A connection that came over a fork must be neither used nor closed in the child.
        self._inherited = self._connection
        arguments, options = self._url.get_dialect()().create_connect_args(self._url)
        options = {"timeout": SQLITE_TIMEOUT, **options, "check_same_thread": False, "isolation_level": None}
        try:
            self._connection = _ClosedAtLast(sqlite3.connect(arguments[0], **options))
        except sqlite3.Error as error:
            raise BackendUnavailable("the database does not answer") from error
        return self._connection

    def close(self) -> None:
        """Close this thread's connection; the next row opens another."""
        self._connection = None


class _ClosedAtLast:
    """A connection that is closed when its thread ends."""

    __slots__ = ("pid", "raw")

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw
        self.pid = os.getpid()

    def __del__(self) -> None:
        self.raw.close()


@contextmanager
def _translated() -> Iterator[None]:
    """A database that does not answer, or cannot write, is one error for the rest of the server."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise BackendUnavailable("the database does not answer") from error


def _address(settings: EnvironSettings, setting: Setting[str]) -> URL:
    text = setting.read(settings)
    source = settings.source(setting.key)
    try:
        # SQLAlchemy 2.1 unescapes %xx in the database's name, earlier versions did not: a file that an
        # existing configuration names keeps its name, with the percent sign in it.
        address = make_url(text)._replace(database=make_url(text.replace("%", "%25")).database)
    except (ArgumentError, ValueError) as error:
        example = "sqlite:////var/lib/pypicloud/db.sqlite"
        raise SettingError(setting.key, f"must be an SQLAlchemy URL, for example {example}", source=source) from error
    if _is_sqlite_file(address) and address.database and not address.database.startswith("file:"):
        folder = os.path.dirname(os.path.abspath(address.database))  # noqa: PTH100, PTH120 - as SQLAlchemy does it
        if not os.path.isdir(folder):  # noqa: PTH112 - same
            reason = f"the directory {folder} does not exist; create it, or name another"
            raise SettingError(setting.key, reason, value=_shown(address), source=source)
    return address


def _shown(url: URL) -> str:
    """The URL without what may be secret in it."""
    return url.set(query={}).render_as_string(hide_password=True)


def _cause(error: Exception, url: URL) -> str:
    """What is wrong, in the words of whoever found out, without the SQL and what may be secret."""
    if isinstance(error, ImportError) and error.name:
        return f"it needs the Python package {error.name!r}, which is not installed"
    return str(error.orig if isinstance(error, DBAPIError) else error).replace(str(url), _shown(url))


def _engine(url: URL, options: Mapping[str, Any]) -> Engine:
    """An engine, its options converted from text; it connects later."""
    return engine_from_config({"url": url, **options}, prefix="")


def _is_sqlite_file(url: URL) -> bool:
    database = url.database or ":memory:"
    is_memory = ":memory:" in database or url.query.get("mode") == "memory"
    return url.drivername in {"sqlite", "sqlite+pysqlite"} and not is_memory


def _poolclass(settings: EnvironSettings, setting: Setting[str]) -> type[Pool] | None:
    path = setting.read(settings)
    if not path:
        return None
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(setting.key, str(error), value=path, source=settings.source(setting.key)) from error
    if not (isinstance(found, type) and issubclass(found, Pool)):
        reason = "must be the dotted path of a pool class, for example sqlalchemy.pool.NullPool"
        raise SettingError(setting.key, reason, value=path, source=settings.source(setting.key))
    return found


def _fixed_options(url: URL, poolclass: type[Pool] | None) -> dict[str, Any]:
    """The options that are ours to say."""
    options: dict[str, Any] = {} if poolclass is None else {"poolclass": poolclass}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"check_same_thread": False}
        if "timeout" not in url.query:
            options["connect_args"]["timeout"] = SQLITE_TIMEOUT
        if poolclass is None and not _is_sqlite_file(url):
            # What is in memory is there for one connection only: all threads take turns on it.
            options.update(poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=SQLITE_TIMEOUT)
    return options


def _accepted(
    settings: EnvironSettings, url: URL, fixed: Mapping[str, Any], prefix: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Those options that this engine takes, by trying each; the rest warns and is ignored (compat.md 1.1)."""
    accepted = {}
    for name, value in options.items():
        try:
            _engine(url, {**fixed, name: value})
        except TypeError:
            LOG.warning("%s%s is no option of this database's engine; it is ignored", prefix, name)
        except (ValueError, SQLAlchemyError) as error:
            key = prefix + name
            raise SettingError(key, str(error), value=str(value), source=settings.source(key)) from error
        else:
            accepted[name] = value
    return accepted


def _create(engine: Engine, tables: MetaData) -> None:
    """Create what is missing, as one writer: another server may be starting at this moment, too."""
    with engine.execution_options(**{_WRITES: True}).begin() as connection:
        tables.create_all(connection)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # We say when a transaction begins, not the driver.
    connection.isolation_level = None
    # SQLite's own knows the case of ASCII letters only; the other databases know all.
    connection.create_function("lower", 1, _lower, deterministic=True)
    try:
        # Readers and the writer do not wait for each other. PRAGMA synchronous stays FULL: one more flush
        # per upload, beside those of the file itself, and what was acknowledged is listed after a power cut.
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Somebody else holds the file, or the file system cannot share memory; the old mode works, too.
        LOG.info("The SQLite file keeps its journal mode: %s", error)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads before it writes must not find out half-way that somebody else has written.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
