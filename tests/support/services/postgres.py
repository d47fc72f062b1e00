"""A PostgreSQL server."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import ClassVar, Final, LiteralString

import psycopg
from psycopg import sql

from support.live import LOOPBACK
from support.services.service import Process, find

PASSWORD: Final = "app-password"

#: Who has no password is refused over TCP, the superuser above all; nobody else comes through the socket.
_RULES: Final = f"""
local all postgres trust
host  all all      {LOOPBACK}/32 scram-sha-256
"""

#: With fsync off a commit is still given to the kernel, so that a killed server loses none;
#: ``synchronous_commit`` has to stay on for that.
_OPTIONS: Final = (
    f"listen_addresses={LOOPBACK}",
    "unix_socket_permissions=0700",
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=300",
)


class Postgres(Process):
    """A PostgreSQL server with one ordinary user, ``app``, who needs a password."""

    name: ClassVar[str] = "PostgreSQL"
    account: ClassVar[str | None] = "postgres"
    # SIGTERM would wait until every client has gone.
    end_signal: ClassVar[signal.Signals] = signal.SIGINT
    not_yet: ClassVar[tuple[type[Exception], ...]] = (psycopg.OperationalError,)

    def __init__(self) -> None:
        folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)]
        self._initdb = find("initdb", "postgresql", *folders)
        self._postgres = find("postgres", "postgresql", *folders)
        super().__init__()
        self._data = self.directory / "postgres"
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self.fill(self._data, self._initdb, *options, "--pgdata", self._data)
        (self._data / "pg_hba.conf").write_text(_RULES)
        self.own(self.directory)

    def command(self) -> list[str]:
        settings = [word for option in _OPTIONS for word in ("-c", option)]
        return [self._postgres, "-D", str(self._data), "-k", str(self.directory), "-p", str(self.port), *settings]

    def probe(self) -> None:
        self.execute("SELECT 1")

    def start(self) -> None:
        super().start()
        if not self.execute("SELECT 1 FROM pg_roles WHERE rolname = 'app'"):
            self.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")

    def database(self) -> str:
        """The URL of a new and empty database."""
        name = f"test_{next(self._numbers)}"
        self.execute(sql.SQL("CREATE DATABASE {} OWNER app").format(sql.Identifier(name)))
        return f"postgresql+psycopg://app:{PASSWORD}@{LOOPBACK}:{self.port}/{name}"

    def execute(self, query: LiteralString | sql.Composed, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser; its rows, if it gives any."""
        with psycopg.connect(
            host=str(self.directory),
            port=self.port,
            user="postgres",
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0
