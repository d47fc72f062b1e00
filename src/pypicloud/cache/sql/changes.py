"""How the SQL cache changes its rows: each change gives new revisions to the projects it touches.

A transaction first gives the projects it is going to touch their new revisions. That locks them: what it reads
after that stays true until its end, so that whether a project comes or goes is decided on the truth, however
many servers write. All take their locks in the same order.
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    delete,
    func,
    literal,
    literal_column,
    select,
    union,
    update,
)
from sqlalchemy.dialects import mysql, sqlite

from pypicloud.cache.batches import batches
from pypicloud.cache.fill import FILL, FILLING
from pypicloud.cache.sql.tables import NOTES, PACKAGES, REVISIONS, UTCDateTime

#: How many values are put into one query; the smallest limit of any database is far above.
BATCH: Final = 500

#: The row of ``package_revisions`` that stands for the list of projects.
ALL_PROJECTS: Final = ""

#: A row of ``packages``, by column.
Row = Mapping[str, Any]


def save(connection: Connection, rows: Mapping[str, Row]) -> None:
    """Keep rows, by file name, in place of those of the same file name."""
    token = _token()
    names = {str(row["name"]) for row in rows.values()}
    renew(connection, names, token)
    owners = owners_of(connection, rows)
    while strangers := {*owners.values()} - names:
        # Files that move from other projects; others may have moved while this waits for its turn.
        renew(connection, strangers, token)
        names |= strangers
        owners = owners_of(connection, rows)
    apply(connection, rows, (), owners, token)


def forget(connection: Connection, filenames: Collection[str]) -> None:
    """Drop rows, by file name."""
    token = _token()
    names: set[str] = set()
    owners = owners_of(connection, filenames)
    while strangers := {*owners.values()} - names:
        renew(connection, strangers, token)
        names |= strangers
        owners = owners_of(connection, filenames)
    apply(connection, {}, owners, owners, token)


def lock(connection: Connection, names: Collection[str]) -> str:
    """Lock projects, under the new revision that this gives."""
    token = _token()
    renew(connection, names, token)
    return token


def apply(
    connection: Connection,
    saved: Mapping[str, Row],
    dropped: Collection[str],
    owners: Mapping[str, str],
    token: str,
) -> None:
    """Save and drop rows of projects that are locked under the revision ``token``.

    ``owners`` are the projects that these files belong to now, by file name, as far as there are such files.
    """
    known = {*owners.values()}
    new = {str(row["name"]) for row in saved.values()} - known
    left = {owners[filename] for filename in dropped}
    left |= {owners[name] for name, row in saved.items() if name in owners and owners[name] != row["name"]}
    comes = bool(new - existing(connection, new))
    upsert(connection, PACKAGES, [saved[filename] for filename in sorted(saved)])
    for some in batches(dropped, BATCH):
        connection.execute(delete(PACKAGES).where(among(connection, PACKAGES.c.filename, some)))
    if comes or left - existing(connection, left):
        renew(connection, [ALL_PROJECTS], token)


def forget_all(connection: Connection) -> None:
    """Drop all rows; every page and the list of projects get a new revision."""
    token = _token()
    known = select(REVISIONS.c.name)
    names = union(select(PACKAGES.c.name.label("name")), select(literal(ALL_PROJECTS).label("name"))).subquery()
    unknown = select(names.c.name, literal(token)).where(names.c.name.not_in(known))
    connection.execute(update(REVISIONS).values(revision=token))
    connection.execute(REVISIONS.insert().from_select(["name", "revision"], unknown))
    connection.execute(delete(PACKAGES))


def renew(connection: Connection, names: Iterable[str], token: str) -> None:
    """Give projects a new revision.

    The row of a project stays when its last file goes: its page is another one then, too.
    """
    upsert(connection, REVISIONS, [{"name": name, "revision": token} for name in sorted(names)])


def write_note(connection: Connection, key: str, text: str) -> None:
    """Keep a note."""
    upsert(connection, NOTES, [{"name": key, "text": text}])


def begin_anew(connection: Connection) -> None:
    """Say that the cache has yet to be filled, and forget all revisions: what they were of may be lost."""
    write_note(connection, FILL, FILLING)
    connection.execute(delete(REVISIONS))


def upsert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Keep rows in place of those with the same key."""
    if not rows:
        return
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.exec_driver_sql(_postgresql_upsert(table), (_json(connection, table, rows),))
    elif dialect == "sqlite":
        into = sqlite.insert(table)
        connection.execute(into.on_conflict_do_update(table.primary_key, set_=dict(into.excluded)), rows)
    else:
        # In these words the drivers put many rows into one statement; those of MySQL 8 alone they don't know.
        new = {column.name: func.values(literal_column(column.name)) for column in table.columns}
        connection.execute(mysql.insert(table).on_duplicate_key_update(new), rows)


@functools.cache
def _postgresql_upsert(table: Table) -> str:
    """A statement with one value for any number of rows: with a value for each field drivers and server take long."""
    names = [column.name for column in table.columns]
    kinds = ["timestamp" if isinstance(column.type, UTCDateTime) else "text" for column in table.columns]
    record = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
    keys = ", ".join(column.name for column in table.primary_key)
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) "  # noqa: S608 - our own names
        f"SELECT * FROM json_to_recordset(%s::json) AS record ({record}) "
        f"ON CONFLICT ({keys}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}"
    )


def _json(connection: Connection, table: Table, rows: Sequence[Row]) -> str:
    """Rows as JSON."""
    columns = [(column.name, column.type.bind_processor(connection.dialect)) for column in table.columns]
    values = [{name: process(row[name]) if process else row[name] for name, process in columns} for row in rows]
    # Not in ASCII: a database of another encoding could not make letters of the escapes.
    return json.dumps(values, default=str, ensure_ascii=False)


def owners_of(connection: Connection, filenames: Iterable[str]) -> dict[str, str]:
    """The projects that these files belong to, as far as they exist."""
    found: dict[str, str] = {}
    for some in batches(filenames, BATCH):
        query = select(PACKAGES.c.filename, PACKAGES.c.name)
        rows = connection.execute(query.where(among(connection, PACKAGES.c.filename, some)))
        found.update((filename, name) for filename, name in rows)
    return found


def existing(connection: Connection, names: Iterable[str]) -> set[str]:
    """Those of these projects that have a file."""
    found: set[str] = set()
    for some in batches(names, BATCH):
        query = select(PACKAGES.c.name).distinct()
        found.update(connection.scalars(query.where(among(connection, PACKAGES.c.name, some))))
    return found


def among(connection: Connection, column: Column[Any], values: Sequence[str]) -> ColumnElement[bool]:
    """Whether a column has one of these values."""
    if connection.dialect.name == "postgresql":
        return column == any_(literal(values, ARRAY(Text)))
    return column.in_(values)


def _token() -> str:
    return secrets.token_hex(16)
