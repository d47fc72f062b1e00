"""The tables of the SQL cache: that of 1.3.12 as it was, and two beside it (compat.md 3.2).

On MySQL the columns differ from those of 1.3.12, which could not tell ``Foo`` from ``foo`` there and kept no parts
of a second. A table that 1.3.12 made is used as it is until a rebuild changes it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Column, DateTime, Dialect, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.types import TypeDecorator, TypeEngine

LOG = logging.getLogger(__name__)

_MYSQL: Final = frozenset({"mysql", "mariadb"})


class ExactText(TypeDecorator[str]):
    """A text of which each letter counts: its case, its accents, a space at its end."""

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type in a database's own words."""
        if dialect.name not in _MYSQL:
            return String(self.length) if self.length else Text()
        how = {"charset": "utf8mb4", "collation": _exact_collation(dialect)}
        return mysql.VARCHAR(self.length, **how) if self.length else mysql.MEDIUMTEXT(**how)


def _exact_collation(dialect: Any) -> str:
    """The collation under which only equal texts are equal, or the nearest that the server has."""
    version = dialect.server_version_info or ()
    if dialect.is_mariadb:
        return "utf8mb4_nopad_bin" if version >= (10, 2) else "utf8mb4_bin"
    return "utf8mb4_0900_bin" if version >= (8, 0, 17) else "utf8mb4_bin"


class UTCDateTime(TypeDecorator[datetime]):
    """A time, kept as UTC without saying so."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type in a database's own words."""
        if dialect.name == "sqlite":
            return _time()
        return mysql.DATETIME(fsp=6) if dialect.name in _MYSQL else DateTime()

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time as it is written."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime:
        """The time with its zone."""
        return moment(value)


class _Time(sqlite.DATETIME):
    """A time in SQLite, which keeps whatever it is given: it is looked at by :func:`moment`."""

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        """Leave it as it is."""
        return None


#: SQLAlchemy gives this constructor no types.
_time: Final[Callable[[], TypeEngine[Any]]] = _Time


class JSONObject(ExactText):
    """A mapping, kept as the text of a JSON object."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """The text as it is written."""
        return json.dumps(value or {})

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """The mapping."""
        return json_object(value)


def moment(value: Any) -> datetime:
    """The time that a row holds, with its zone; the year 1970, and a warning, when it holds something else."""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        LOG.warning("The cache holds a time that is none: %r; a rebuild writes it anew", value)
        return datetime(1970, 1, 1, tzinfo=UTC)
    return time.replace(tzinfo=UTC)


def json_object(text: str | None) -> dict[str, Any]:
    """The mapping that a text holds; empty, and a warning, when it is nothing of the kind."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item}
    LOG.warning("The cache holds facts that are no JSON object and count as none; a rebuild writes them anew")
    return {}


#: How many letters a text can have, where the database counts them (SQLite does not).
LIMITS: Final = {"filename": 255, "name": 255, "version": 1000}

METADATA: Final = MetaData()
PACKAGES: Final = Table(
    "packages",
    METADATA,
    Column("filename", ExactText(LIMITS["filename"]), primary_key=True),
    Column("name", ExactText(LIMITS["name"]), nullable=False, index=True),
    Column("version", ExactText(LIMITS["version"]), nullable=False),
    Column("last_modified", UTCDateTime, nullable=False, index=True),
    Column("summary", ExactText),
    Column("data", JSONObject, nullable=False),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
REVISIONS: Final = Table(
    "package_revisions",
    METADATA,
    Column("name", ExactText(255), primary_key=True),
    Column("revision", ExactText(32), nullable=False),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
NOTES: Final = Table(
    "package_notes",
    METADATA,
    Column("name", ExactText(255), primary_key=True),
    Column("text", ExactText, nullable=False),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
