"""Connections to PostgreSQL that give up on a server that says nothing.

A server that is suspended still acknowledges what it is sent, as its kernel does that for it: neither TCP's nor
libpq's time-outs see anything wrong, and the server's own ``statement_timeout`` stands still with it. So who waits
has to look at the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from pypicloud.database.address import READ_TIMEOUT

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen
    from sqlalchemy import Connection

#: How long, in seconds, a statement may take that writes a whole table anew.
LONG: Final = 600


class PunctualConnection(psycopg.Connection[TupleRow]):
    """A connection that is closed if the server has not answered a statement in full after ``patience`` seconds.

    A minute is more than anything needs that a request or a rebuild asks for: packages are read and written in batches,
    the names of all projects come out of an index, and nobody waits as long for a lock (``engine.LOCK_TIMEOUT``,
    ``locks.TURN``). What may need more is ``extended``.
    """

    patience: float = READ_TIMEOUT

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """What the server answers. Raises ``psycopg.OperationalError`` when it does not."""
        patience = self.patience
        try:
            return super().wait(gen, interval, patience if timeout is None else timeout)
        except psycopg.OperationalError as error:
            # An error that the server has sent is the end of a statement, and a lost connection has no status.
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            # What is answered later must not be taken for the answer to something else.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {patience:g} seconds") from error


def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> PunctualConnection:
    """A new connection, for an engine's event ``do_connect``."""
    return PunctualConnection.connect(*arguments, **options)


@contextmanager
def extended(connection: Connection) -> Iterator[None]:
    """Let statements take long until the end of the block, as those do that write a whole table anew."""
    raw: Any = connection.connection.driver_connection
    raw.patience = LONG
    try:
        yield
    finally:
        del raw.patience
