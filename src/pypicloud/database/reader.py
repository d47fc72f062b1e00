"""Rows out of an SQLite file past the layers of SQLAlchemy, which would cost many times what SQLite itself needs."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pypicloud.database.address import SQLITE_TIMEOUT
from pypicloud.database.failures import MESSAGE, TableMissing
from pypicloud.errors import BackendUnavailable

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


class FileReader(threading.local):
    """Rows out of an SQLite file, over a connection of each thread's own, as last committed."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._connection: _ClosedAtLast | None = None
        self._inherited: _ClosedAtLast | None = None

    def rows(self, query: str, *values: str) -> Sequence[Any]:
        """The rows that a query, with a ``?`` for each value, finds."""
        connection = self._connection
        if connection is None or connection.pid != os.getpid():
            connection = self._open()
        try:
            return connection.raw.execute(query, values).fetchall()
        except sqlite3.Error as error:
            kind = TableMissing if "no such table" in str(error) else BackendUnavailable
            raise kind(MESSAGE) from error

    def _open(self) -> _ClosedAtLast:
        # A connection that came over a fork must be neither used nor closed in the child.
        self._inherited = self._connection
        arguments, options = self._url.get_dialect()().create_connect_args(self._url)
        options = {"timeout": SQLITE_TIMEOUT, **options, "check_same_thread": False, "isolation_level": None}
        try:
            self._connection = _ClosedAtLast(sqlite3.connect(arguments[0], **options))
        except sqlite3.Error as error:
            raise BackendUnavailable(MESSAGE) from error
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
