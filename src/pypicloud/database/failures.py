"""What a database's error means, and when the same work is tried again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from pypicloud.errors import BackendUnavailable

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: How often work is tried, and for how many seconds another try may begin.
ATTEMPTS: Final = 6
PATIENCE: Final = 20.0

#: The longest pause before the second try, in seconds; it doubles with each.
PAUSE: Final = 0.05

#: What the client hears; the log has the rest.
MESSAGE: Final = "the database does not answer"

#: By SQLSTATE (PostgreSQL) or error number (MySQL).
_NO_TABLE: Final = frozenset({"42P01", 1146})

#: What PostgreSQL calls it that somebody has waited long enough for a lock.
_LOCKED: Final = "55P03"

#: By the same, or by name (SQLite).
_PASSING: Final = frozenset(
    {
        "40001",  # two transactions cannot be put in an order
        "40P01",  # each waits for the other
        _LOCKED,  # waited long enough for a lock
        "25006",  # the server has become a copy that is only read
        "25P03",  # the transaction did nothing for too long
        "57P03",  # the server is starting
        "42P07",  # somebody else creates the same table
        "42710",  # same, a moment earlier
        1020,  # the row has changed since it was read
        1050,  # somebody else creates the same table
        1061,  # somebody else creates the same index
        1205,  # waited long enough for a lock
        1213,  # each waits for the other
        1290,  # the server has become a copy that is only read
        1836,  # same
        "SQLITE_BUSY",
        "SQLITE_BUSY_SNAPSHOT",
        "SQLITE_LOCKED",
    }
)


class TableMissing(BackendUnavailable):
    """A table is not there any more."""


def is_lost(error: DBAPIError) -> bool:
    """Whether the connection is gone, and a fresh one may work."""
    return error.connection_invalidated


def is_passing(error: DBAPIError) -> bool:
    """Whether the same work may succeed a moment later."""
    is_refused = isinstance(error, OperationalError | InterfaceError) and error.statement is None
    return is_lost(error) or is_refused or isinstance(error, IntegrityError) or _code(error) in _PASSING


def is_locked(error: DBAPIError) -> bool:
    """Whether a PostgreSQL server has let somebody wait long enough for a lock."""
    return _code(error) == _LOCKED


def repeated(work: Callable[[], T], is_worth: Callable[[DBAPIError], bool], attempts: int = ATTEMPTS) -> T:
    """What the work gives, which is tried again while its error is worth it.

    Raises :class:`TableMissing`, or :class:`BackendUnavailable` for every other error of the database.
    """
    begun = time.monotonic()
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except DBAPIError as error:
            if _is_table_missing(error):
                raise TableMissing(MESSAGE) from error
            if not is_worth(error) or attempt == attempts or time.monotonic() - begun > PATIENCE:
                raise BackendUnavailable(MESSAGE) from error
            LOG.info("The database is asked again (%d): %s", attempt, error.orig)
        except SQLAlchemyError as error:
            raise BackendUnavailable(MESSAGE) from error
        # At random, so that two who are in each other's way do not meet again.
        time.sleep(random.uniform(0, PAUSE * 2**attempt / 2))  # noqa: S311 - no secret
    raise AssertionError("the last attempt returns or raises")


def _is_table_missing(error: DBAPIError) -> bool:
    return _code(error) in _NO_TABLE or "no such table" in str(error.orig)


def _code(error: DBAPIError) -> str | int | None:
    """What the driver calls the error."""
    arguments = error.orig.args if error.orig is not None else ()
    if arguments and isinstance(arguments[0], int):
        return arguments[0]
    codes = (getattr(error.orig, attribute, None) for attribute in ("sqlstate", "pgcode", "sqlite_errorname"))
    return next((code for code in codes if isinstance(code, str)), None)
