"""Locks by key that the servers of one database share.

A lock in a database server lives on a connection of its own, outside of the pool that the queries use, so that
however many uploads hold one, none waits for a connection. It ends with the connection; a holder whose machine
is gone loses it after ``LEASE`` seconds, as nobody renews it any more.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pypicloud.database.engine import close
from pypicloud.database.failures import is_locked, is_lost, is_passing, repeated
from pypicloud.errors import BackendUnavailable
from pypicloud.heartbeat import beating

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine

LOG = logging.getLogger(__name__)

#: After how many seconds without a sign of life a holder has lost its lock.
LEASE: Final = 10

#: How often it gives one in that time.
RENEWALS: Final = 4

#: How many seconds a MySQL server lets somebody wait before it is asked again.
PATIENCE: Final = 4

#: The same for PostgreSQL, where who asks again goes to the end of the queue: less than a server may be silent.
TURN: Final = 45


class Locks(Protocol):
    """Locks by key."""

    def held(self, key: str) -> AbstractContextManager[None]:
        """Keeps the other holders of the same key out, for as long as the block lasts."""

    def after_fork(self) -> Sequence[Any]:
        """Let go of what belongs to the parent process, and say what must not be thrown away."""

    def close(self) -> None:
        """Let go of what is kept for the next lock."""


class ServerLocks:
    """Locks that a database server keeps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        is_postgresql = engine.dialect.name == "postgresql"
        self._take = _take if is_postgresql else _get
        self._release = _release if is_postgresql else _give_back

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Keeps the other holders of the same key out, for as long as the block lasts.

        When the connection is lost the block goes on without the lock: what it does is safe without, too.
        """
        scope = f"{self._engine.url.database} {key}"
        connection = repeated(lambda: self._taken(scope), is_passing)
        try:
            with beating(LEASE / RENEWALS, partial(_renew, connection), "lock"):
                yield
        finally:
            try:
                self._release(connection, scope)
                connection.close()
            except SQLAlchemyError as error:
                LOG.warning("The lock %r was lost before its end: %s", key, error)
                connection.invalidate()
                connection.close()

    def _taken(self, scope: str) -> Connection:
        connection = self._engine.connect()
        try:
            self._take(connection, scope)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection

    def after_fork(self) -> Sequence[Any]:
        """Let go of what belongs to the parent process, and say what must not be thrown away."""
        pool = self._engine.pool
        self._engine.dispose(close=False)
        return [pool]

    def close(self) -> None:
        """Let go of what is kept for the next lock."""
        close(self._engine)


def _take(connection: Connection, scope: str) -> None:
    """Take a lock of PostgreSQL: that of a transaction, as a pooler may give each transaction another session."""
    number = int.from_bytes(_digest(scope)[:8], "big", signed=True)
    while True:
        try:
            connection.exec_driver_sql(
                f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{LEASE}s'; "
                f"SET LOCAL lock_timeout = '{TURN}s'; SET LOCAL statement_timeout = 0; "
                f"SELECT pg_advisory_xact_lock({number})"
            )
        except DBAPIError as error:
            if not is_locked(error):
                raise
            LOG.info("Still waiting for a lock")
            connection.exec_driver_sql("ROLLBACK")
        else:
            return


def _release(connection: Connection, scope: str) -> None:  # noqa: ARG001 - as _give_back wants it
    """Give back the lock that the transaction has."""
    connection.exec_driver_sql("COMMIT")


def _get(connection: Connection, scope: str) -> None:
    """Take a lock of MySQL."""
    connection.exec_driver_sql(f"SET SESSION wait_timeout = {LEASE}")
    while connection.exec_driver_sql(f"SELECT GET_LOCK('{_mysql_name(scope)}', {PATIENCE})").scalar() != 1:
        LOG.info("Still waiting for a lock")


def _give_back(connection: Connection, scope: str) -> None:
    connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{_mysql_name(scope)}')")
    connection.exec_driver_sql("SET SESSION wait_timeout = DEFAULT")


def _mysql_name(scope: str) -> str:
    """A name for all databases of the server, of at most 64 letters."""
    return f"pypicloud:{_digest(scope)[:16].hex()}"


def _digest(scope: str) -> bytes:
    return hashlib.sha256(scope.encode("utf-8", "surrogatepass")).digest()


def _renew(connection: Connection) -> bool:
    """Give the server a sign of life; whether it took it."""
    try:
        connection.exec_driver_sql("SELECT 1").close()
    except SQLAlchemyError:
        LOG.warning("The connection that holds a lock is lost", exc_info=True)
        return False
    return True


class FileLocks:
    """Locks on the bytes of a file beside an SQLite file: each key has a byte of its own.

    They keep processes out of each other's way, not the threads of one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._file: _LockFile | None = None

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Keeps the other holders of the same key out, for as long as the block lasts."""
        descriptor = self._opened().descriptor
        byte = int.from_bytes(_digest(key)[:8], "big") >> 2
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, byte)
                break
            except OSError as error:
                if error.errno != errno.EDEADLK:
                    raise BackendUnavailable("the lock file beside the database does not work") from error
                # Two processes, each with a thread that waits for a thread of the other: no real deadlock.
                time.sleep(0.01)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)

    def _opened(self) -> _LockFile:
        if self._file is None:
            try:
                self._file = _LockFile.at(repeated(self._path, is_lost))
            except OSError as error:
                raise BackendUnavailable("the lock file beside the database cannot be opened") from error
        return self._file

    def _path(self) -> str:
        with self._engine.connect() as connection:
            # The first one is the file itself; others are temporary or attached to it.
            _, _, path = connection.exec_driver_sql("PRAGMA database_list").all()[0]
        return f"{os.path.realpath(path)}.lock"

    def after_fork(self) -> Sequence[Any]:
        """What belongs to the parent process: nothing, as such locks stay with the process that has them."""
        return ()

    def close(self) -> None:
        """Let go of the file."""
        self._file = None


class _LockFile:
    """The one descriptor that this process has of a file: closing any would end all its locks."""

    _open: Final[WeakValueDictionary[str, _LockFile]] = WeakValueDictionary()
    _guard: Final = threading.Lock()

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def at(cls, path: str) -> _LockFile:
        """The descriptor of this path, opened if nobody has it."""
        with cls._guard:
            found = cls._open.get(path)
            if found is None:
                found = cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
                cls._open[path] = found
            return found

    def __del__(self) -> None:
        os.close(self.descriptor)


class NoLocks:
    """What a database in memory needs: there are no other servers."""

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Does nothing."""
        yield

    def after_fork(self) -> Sequence[Any]:
        """Does nothing."""
        return ()

    def close(self) -> None:
        """Does nothing."""
