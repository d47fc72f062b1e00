"""The tables of a database: made where they are missing, looked at before they are used, brought up to date."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Connection, MetaData, Table, Text, inspect, text

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LOG = logging.getLogger(__name__)

ADVICE: Final = (
    "somebody else made it. Name another database, or rename or drop the table: "
    "a cache is filled again from the storage at the next start"
)

_COLUMNS: Final = text(
    "SELECT column_name, column_type, collation_name FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = :name"
)


def check(connection: Connection, tables: MetaData) -> None:
    """Look whether the tables are ours. Raises ValueError with what is wrong with one that somebody else made."""
    inspector = inspect(connection)
    for table in tables.sorted_tables:
        found = {column["name"]: column for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in found:
                raise ValueError(f"its table {table.name} has no column {column.name}; {ADVICE}")
        for name, reflected in found.items():
            if name not in table.columns and not reflected["nullable"] and reflected["default"] is None:
                raise ValueError(f"its table {table.name} wants a value for the column {name}; {ADVICE}")


def upgrade(connection: Connection, table: Table) -> None:
    """Bring the columns of a table that an earlier version made to the types they have now, rows kept."""
    dialect = connection.dialect.name
    if dialect == "sqlite":
        # There a column takes whatever comes.
        return
    changes = (_postgresql_changes if dialect == "postgresql" else _mysql_changes)(connection, table)
    if changes:
        LOG.info("The table %s is brought up to date: %s", table.name, ", ".join(changes))
        with _unhurried(connection):
            connection.exec_driver_sql(f"ALTER TABLE {table.name} {', '.join(changes)}")


def _unhurried(connection: Connection) -> AbstractContextManager[None]:
    """Lets a statement take as long as it takes to write a large table anew."""
    if connection.dialect.driver != "psycopg":
        return nullcontext()
    from pypicloud.database.patience import extended

    return extended(connection)


def _mysql_changes(connection: Connection, table: Table) -> list[str]:
    found = {name: (kind, collation) for name, kind, collation in connection.execute(_COLUMNS, {"name": table.name})}
    changes = []
    for column in table.columns:
        declared = _declared(column, connection)
        words = declared.lower().split()
        collation = words[-1] if "collate" in words else None
        if found.get(column.name) != (words[0], collation):
            changes.append(f"MODIFY {column.name} {declared}{'' if column.nullable else ' NOT NULL'}")
    return changes


def _postgresql_changes(connection: Connection, table: Table) -> list[str]:
    found = {column["name"]: column["type"] for column in inspect(connection).get_columns(table.name)}
    return [
        f"ALTER COLUMN {column.name} TYPE TEXT"
        for column in table.columns
        if _declared(column, connection) == "TEXT" and not isinstance(found[column.name], Text)
    ]


def _declared(column: Column[Any], connection: Connection) -> str:
    return column.type.compile(connection.dialect)
