"""The address of a database: which driver speaks to it, and what that driver is told if the address is silent."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from pypicloud.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL

    from pypicloud.settings import EnvironSettings, Setting

LOG = logging.getLogger(__name__)

#: How long, in seconds, a writer waits for its turn on an SQLite file; ``?timeout=`` in the URL overrides.
SQLITE_TIMEOUT: Final = 30

#: How long, in seconds, a server may take to accept a connection.
CONNECT_TIMEOUT: Final = 5

#: How long, in seconds, a server may be silent before it counts as gone.
READ_TIMEOUT: Final = 60

#: The kinds of database, by what an address may call them.
_KINDS: Final = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mariadb",
}


@dataclass(frozen=True)
class _Driver:
    """A driver: its name in an address, the module it is in, and its options unless the address has them."""

    name: str
    module: str
    options: Mapping[str, Any]


# A server that has vanished without a word is found out after half a minute (libpq).
_LIBPQ: Final = {
    "client_encoding": "utf8",
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_MYSQL: Final = {
    "connect_timeout": CONNECT_TIMEOUT,
    "read_timeout": READ_TIMEOUT,
    "write_timeout": READ_TIMEOUT,
}

_MYSQL_DRIVERS: Final = (_Driver("mysqldb", "MySQLdb", _MYSQL), _Driver("pymysql", "pymysql", _MYSQL))

#: The drivers of each kind, the preferred one first.
_DRIVERS: Final = {
    "postgresql": (_Driver("psycopg", "psycopg", _LIBPQ), _Driver("psycopg2", "psycopg2", _LIBPQ)),
    "mysql": _MYSQL_DRIVERS,
    "mariadb": _MYSQL_DRIVERS,
}

#: The extra that installs a driver of each kind.
_EXTRAS: Final = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}


def read(settings: EnvironSettings, setting: Setting[str]) -> URL:
    """The address that a setting gives, complete with its driver.

    Raises :class:`SettingError` for one of no use, wherever the database is.
    """
    text = setting.read(settings)
    source = settings.source(setting.key)
    try:
        # SQLAlchemy 2.1 unescapes %xx in the database's name, earlier versions did not: a file that an
        # existing configuration names keeps its name, with the percent sign in it.
        address = make_url(text)._replace(database=make_url(text.replace("%", "%25")).database)
    except (ArgumentError, ValueError) as error:
        example = "sqlite:////var/lib/pypicloud/db.sqlite"
        raise SettingError(setting.key, f"must be an SQLAlchemy URL, for example {example}", source=source) from error
    try:
        address = _complete(address)
    except ValueError as error:
        raise SettingError(setting.key, str(error), value=shown(address), source=source) from error
    return address


def shown(url: URL) -> str:
    """The URL without what may be secret in it."""
    if url.password is not None and "@" in f"{url.host}{url.database}":
        # What stands before the last one may be the end of a password.
        return f"{url.drivername}://***"
    return url.set(query={}).render_as_string(hide_password=True)


def cause(error: BaseException, url: URL) -> str:
    """What is wrong, in the words of whoever found out, without the SQL and what may be secret."""
    if isinstance(error, ImportError) and error.name:
        return f"it needs the Python package {error.name!r}, which is not installed"
    found = error.orig if isinstance(error, DBAPIError) else error
    # MySQL's drivers put a number before the words.
    words = found.args[-1] if found is not None and found.args and isinstance(found.args[0], int) else found
    return " ".join(str(words).split()).replace(str(url), shown(url))


def is_sqlite_file(url: URL) -> bool:
    """Whether the database is one local file."""
    database = url.database or ":memory:"
    is_memory = ":memory:" in database or url.query.get("mode") == "memory"
    return url.drivername in {"sqlite", "sqlite+pysqlite"} and not is_memory


def connect_options(url: URL) -> dict[str, Any]:
    """What the driver is told beside the address."""
    if url.get_backend_name() == "sqlite":
        options = {"check_same_thread": False}
        return options if "timeout" in url.query else {**options, "timeout": SQLITE_TIMEOUT}
    driver = next((one for one in _DRIVERS[url.get_backend_name()] if url.drivername.endswith(f"+{one.name}")), None)
    return {key: value for key, value in (driver.options if driver else {}).items() if key not in url.query}


def _complete(address: URL) -> URL:
    """The address with its driver and character set. Raises ValueError with what is wrong."""
    name, _, driver = address.drivername.partition("+")
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError("must begin with sqlite:, postgresql: or mysql:; the cache speaks to no other database")
    if kind == "sqlite":
        _check_directory(address)
        return address
    if "@" in (address.host or ""):
        raise ValueError("has more than one @; in a password it is written %40 (%%40 in an ini file)")
    address = address.set(drivername=f"{kind}+{driver or _installed(kind)}")
    return address if kind == "postgresql" else _with_charset(address)


def _installed(kind: str) -> str:
    """The name of the first driver that is installed."""
    for driver in _DRIVERS[kind]:
        if find_spec(driver.module) is not None:
            return driver.name
    raise ValueError(f"it needs a driver: pip install 'pypicloud[{_EXTRAS[kind]}]'")


def _with_charset(address: URL) -> URL:
    """The address of a MySQL server with the one character set that holds every text."""
    charset = str(address.query.get("charset", "utf8mb4")).lower()
    if not charset.startswith("utf8"):
        LOG.warning("The database is spoken to in utf8mb4, as charset=%s does not hold every text", charset)
    return address.update_query_dict({"charset": "utf8mb4"})


def _check_directory(address: URL) -> None:
    if not is_sqlite_file(address) or not address.database or address.database.startswith("file:"):
        return
    folder = os.path.dirname(os.path.abspath(address.database))  # noqa: PTH100, PTH120 - as SQLAlchemy does it
    if not os.path.isdir(folder):  # noqa: PTH112 - same
        raise ValueError(f"the directory {folder} does not exist; create it, or name another")
