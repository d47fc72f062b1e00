"""Engines as all databases here want them: one statement at a time is kept at once, a transaction says so itself."""

from __future__ import annotations

import logging
import pkgutil
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, engine_from_config, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from pypicloud.database import address
from pypicloud.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL, ExceptionContext

    from pypicloud.settings import EnvironSettings, Setting

LOG = logging.getLogger(__name__)

#: How many seconds a transaction waits for another's lock, and may itself do nothing while it holds one.
LOCK_TIMEOUT: Final = 10
IDLE_TIMEOUT: Final = 30

#: How many connections are kept, and how many more there may be for a moment, unless the settings say.
POOL_SIZE: Final = 10
MAX_OVERFLOW: Final = 5

#: The SQLSTATE of a prepared statement whose tables have changed, and of one that is gone.
OUTDATED: Final = frozenset({"0A000", "26000"})

_LEVELS: Final = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT")
_LEVEL: Final = "READ COMMITTED"


def make(url: URL, poolclass: type[Pool] | None, options: Mapping[str, Any], level: str) -> Engine:
    """An engine whose transactions have this isolation level; its options may be text. It connects later."""
    engine = _engine(url, {**_fixed_options(url, poolclass), **options})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    elif engine.dialect.driver == "psycopg":
        from pypicloud.database import patience

        event.listen(engine, "do_connect", patience.connect)
        event.listen(engine, "connect", _prepare_psycopg)
        event.listen(engine, "handle_error", _forget_outdated)
    elif engine.dialect.name != "postgresql":
        if engine.dialect.driver == "pymysql":
            event.listen(engine, "do_connect", _connect_pymysql)
        event.listen(engine, "connect", lambda connection, _: _prepare_mysql(connection, level))
    return engine


def make_for_locks(url: URL, poolclass: type[Pool] | None) -> Engine:
    """An engine with as many connections as there are locks held, of which few are kept for the next."""
    if poolclass is NullPool:
        return make(url, NullPool, {}, _LEVEL)
    return make(url, QueuePool, {"pool_size": 2, "max_overflow": -1}, _LEVEL)


def close(engine: Engine) -> None:
    """Close every connection: those that somebody is using, as soon as they are given back."""
    event.listen(engine.pool, "checkin", lambda _, record: record.invalidate())
    engine.dispose()


def begin(engine: Engine, level: str) -> str:
    """The words that begin a transaction that writes."""
    if engine.dialect.name == "sqlite":
        # Who reads before writing must not find out half-way that somebody else has written.
        return "BEGIN IMMEDIATE"
    if engine.dialect.name == "postgresql":
        return (
            f"BEGIN ISOLATION LEVEL {level}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'; "
            f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'; "
            # A plan kept from when the table was small would read a large one from end to end.
            "SET LOCAL plan_cache_mode = force_custom_plan"
        )
    return "BEGIN"


def _fixed_options(url: URL, poolclass: type[Pool] | None) -> dict[str, Any]:
    """The options that are ours to say."""
    options: dict[str, Any] = {
        "connect_args": address.connect_options(url),
        "isolation_level": "AUTOCOMMIT",
        # Else each query would be followed by a ROLLBACK of nothing.
        "skip_autocommit_rollback": True,
    }
    if poolclass is not None:
        options["poolclass"] = poolclass
    elif url.get_backend_name() == "sqlite" and not address.is_sqlite_file(url):
        # What is in memory is there for one connection only: all threads take turns on it.
        options.update(poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=address.SQLITE_TIMEOUT)
    return options


def pool_options(url: URL, poolclass: type[Pool] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """How many connections are kept, where nobody says."""
    is_silent = poolclass is None and given.keys().isdisjoint(("pool_size", "max_overflow"))
    return (
        {"pool_size": POOL_SIZE, "max_overflow": MAX_OVERFLOW}
        if is_silent and url.get_backend_name() != "sqlite"
        else {}
    )


def accepted(
    settings: EnvironSettings, url: URL, poolclass: type[Pool] | None, prefix: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Those options that this engine takes, by trying each; the rest warns and is ignored (compat.md 1.1)."""
    fixed = _fixed_options(url, poolclass)
    # Made once without the options, so that what is wrong with the URL is not put down to one of them.
    _engine(url, fixed)
    found = {}
    for name, value in options.items():
        key = prefix + name
        if name == "connect_args":
            reason = "is not read from a file; what the driver is to be told goes into the URL: ?name=value&name=value"
            raise SettingError(key, reason, source=settings.source(key))
        try:
            _engine(url, {**fixed, name: value})
        except TypeError:
            LOG.warning("%s is no option of this database's engine; it is ignored", key)
        except (ValueError, SQLAlchemyError) as error:
            raise SettingError(key, str(error), value=str(value), source=settings.source(key)) from error
        else:
            found[name] = value
    return found


def isolation_level(settings: EnvironSettings, key: str) -> str:
    """The isolation level of transactions that write; what only reads is a statement of its own."""
    if key not in settings:
        return _LEVEL
    level = str(settings[key]).strip().upper().replace("_", " ")
    if level not in _LEVELS:
        reason = f"must be one of {', '.join(_LEVELS)}"
        raise SettingError(key, reason, value=str(settings[key]), source=settings.source(key))
    return _LEVEL if level == "AUTOCOMMIT" else level


def pool_class(settings: EnvironSettings, setting: Setting[str]) -> type[Pool] | None:
    """The class that a setting names."""
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


def _engine(url: URL, options: Mapping[str, Any]) -> Engine:
    """An engine, its options converted from text; it connects later."""
    return engine_from_config({"url": url, **options}, prefix="")


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # SQLite's own knows the case of ASCII letters only; Python knows all.
    connection.create_function("lower", 1, _lower, deterministic=True)
    try:
        # Readers and the writer do not wait for each other. PRAGMA synchronous stays FULL: one more flush
        # per upload, beside those of the file itself, and what was acknowledged is listed after a power cut.
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Somebody else holds the file, or the file system cannot share memory; the old mode works, too.
        LOG.info("The SQLite file keeps its journal mode: %s", error)


def _prepare_psycopg(connection: Any, _: Any) -> None:
    """Let it prepare what it is asked often, which halves the cost of a query, but only on a connection of its own.

    Behind a pooler (pgbouncer) the next query may come to another session, where the same name may mean another
    statement. A pooler is known by the number of the session, which is not the one that was told at first.
    """
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    if cursor.fetchone() != (connection.info.backend_pid,):
        connection.prepare_threshold = None
    cursor.close()


def _forget_outdated(context: ExceptionContext) -> None:
    """Make connections anew whose prepared statements are for tables that have changed since."""
    if getattr(context.original_exception, "sqlstate", None) in OUTDATED:
        context.is_disconnect = True


def _connect_pymysql(dialect: Any, _: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """A new connection, to a server that has as long to greet us as it has to accept us.

    To PyMySQL the greeting is an answer like any other, for which there is all the time that a long query may take.
    """
    patience = options["read_timeout"]
    connection = dialect.connect(*arguments, **{**options, "read_timeout": min(patience, options["connect_timeout"])})
    # There is no public name for it. It is looked at whenever an answer is waited for.
    connection._read_timeout = patience  # noqa: SLF001
    return connection


def _prepare_mysql(connection: Any, level: str) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
    # What does not fit must be an error, and not be cut off.
    cursor.execute(
        f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT}, lock_wait_timeout = {LOCK_TIMEOUT}, "
        "sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
    )
    cursor.close()


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
