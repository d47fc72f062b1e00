"""A MariaDB server."""

from __future__ import annotations

import itertools
import socket
from typing import ClassVar, Final

import pymysql

from support.live import LOOPBACK
from support.services.service import Process, find

PASSWORD: Final = "app-password"

_USER: Final = f"app@'{LOOPBACK}'"

#: What every start makes sure of: an ordinary user who needs a password. The superuser has none, and comes
#: through a socket that lies where no other user gets.
_USERS: Final = f"""
DROP USER IF EXISTS root@'{LOOPBACK}', root@'::1';
CREATE USER IF NOT EXISTS {_USER} IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON `test\\_%`.* TO {_USER};
"""

#: A tenth of what it would be otherwise: the files are copied for every server.
_LOG_SIZE: Final = "--innodb-log-file-size=16M"

_OPTIONS: Final = (
    f"--bind-address={LOOPBACK}",
    "--skip-name-resolve",
    "--skip-log-bin",
    # A commit is given to the kernel, so that a killed server loses none, but not to the disk.
    "--innodb-flush-log-at-trx-commit=2",
    "--debug-no-sync",
    "--innodb-doublewrite=0",
    _LOG_SIZE,
    "--innodb-buffer-pool-size=64M",
    "--max-connections=300",
)


class MariaDB(Process):
    """A MariaDB server with one ordinary user, ``app``, who needs a password."""

    name: ClassVar[str] = "MariaDB"
    account: ClassVar[str | None] = "mysql"
    not_yet: ClassVar[tuple[type[Exception], ...]] = (OSError, pymysql.OperationalError)

    def __init__(self) -> None:
        self._server = find("mariadbd", "mariadb-server")
        self._install = find("mariadb-install-db", "mariadb-server")
        super().__init__()
        self._data = self.directory / "mariadb"
        self._socket = self._data / "socket"
        self._users = self.directory / "users.sql"
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        options = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        options.append(_LOG_SIZE)
        self.fill(self._data, self._install, *options, f"--datadir={self._data}")
        self._users.write_text(_USERS)
        self.own(self.directory)
        self._data.chmod(0o700)

    def command(self) -> list[str]:
        paths = [f"--datadir={self._data}", f"--socket={self._socket}", f"--pid-file={self._data / 'pid'}"]
        return [self._server, "--no-defaults", *paths, f"--port={self.port}", f"--init-file={self._users}", *_OPTIONS]

    def probe(self) -> None:
        # PyMySQL leaves a socket open that it could not connect.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self._socket))
        self.execute("SELECT 1")

    def database(self, driver: str = "pymysql") -> str:
        """The URL of a new and empty database, for a driver."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql+{driver}://app:{PASSWORD}@{LOOPBACK}:{self.port}/{name}?charset=utf8mb4"

    def execute(self, query: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement as the superuser; its rows, if it gives any."""
        with (
            pymysql.connect(
                unix_socket=str(self._socket), user="root", database=database, connect_timeout=5, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query)
            return list(cursor.fetchall())
